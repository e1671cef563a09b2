"""Whether a host's libvirtd listens where other hosts knock, by /proc/net/tcp."""

from __future__ import annotations

import pytest

from dr.adapters.libvirt.hypervisor import LibvirtHypervisor
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.listening import address_reading, migration_reading
from dr.model.facts import Level
from tests.adapters.libvirt.conftest import put

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
REST = "00000000:00000000 00:00000000 00000000     0        0 17 1 0 100 0 0 10 0\n"
TLS = 16514  # 4082 in hexadecimal
NOWHERE = {"tcp": "00000000:0000", "tcp6": "00000000000000000000000000000000:0000"}


def tables(layout: Layout, tcp: str = "", tcp6: str = "") -> None:
    """One line each: local address and port, state."""
    for name, line in (("tcp", tcp), ("tcp6", tcp6)):
        local, _, state = line.partition(" ")
        row = f"   0: {local} {NOWHERE[name]} {state} {REST}" if line else ""
        put(layout.root, f"/proc/net/{name}", HEAD + row)


@pytest.mark.parametrize(
    ("tcp", "tcp6", "level"),
    [
        ("00000000:4082 0A", "", Level.OK),
        ("0B01010A:4082 0A", "", Level.OK),
        ("", "00000000000000000000000000000000:4082 0A", Level.OK),
        ("", "0000000000000000FFFF00000B01010A:4082 0A", Level.OK),
        ("", "", Level.WARN),
        ("00000000:0016 0A", "", Level.WARN),
        ("0B01010A:4082 01", "", Level.WARN),  # a connection from there, not a listener
        ("0100007F:4082 0A", "", Level.WARN),
        ("", "00000000000000000000000001000000:4082 0A", Level.WARN),
        ("", "0000000000000000FFFF00000100007F:4082 0A", Level.WARN),
    ],
)
def test_who_listens(layout: Layout, tcp: str, tcp6: str, level: Level) -> None:
    tables(layout, tcp, tcp6)
    reading = migration_reading(layout, TLS)
    assert (reading.part, reading.level) == ("migration", level)
    assert ("port 16514" in reading.reason) is (level is Level.WARN)


@pytest.mark.parametrize("content", ["", HEAD + "broken\n", HEAD + "0: nonsense:zz 0 0A\n"])
def test_what_cannot_be_read_alarms_nobody(layout: Layout, content: str) -> None:
    if content:
        put(layout.root, "/proc/net/tcp", content)
    assert migration_reading(layout, TLS).level is Level.OK


async def test_only_where_guests_are_to_come_in_live(mock: LibvirtHypervisor, layout: Layout) -> None:
    tables(layout)
    assert "migration" not in {reading.part for reading in await mock.health()}
    way = "qemu+ssh://root@{address}:2222/system"
    live = LibvirtHypervisor(mock._uri, layout=layout, migration_uri=way)
    (reading,) = (each for each in await live.health() if each.part == "migration")
    assert reading.level is Level.WARN
    assert "port 2222" in reading.reason
    tables(layout, "00000000:08AE 0A")
    (reading,) = (each for each in await live.health() if each.part == "migration")
    assert reading.level is Level.OK
    await live.close()


@pytest.mark.parametrize(
    ("address", "level"),
    [("127.0.0.1", Level.OK), ("192.0.2.7", Level.WARN), ("2001:db8::7", Level.WARN), ("kvm1.mig", Level.OK)],
)
def test_the_address_for_memory_is_this_hosts_own(address: str, level: Level) -> None:
    """A typing error is told before a guest is refused for it; of a name nothing is asked."""
    found = address_reading(address)
    assert found.level is level
    assert (f"{address} is no address of this host" in found.reason) == (level is Level.WARN)
