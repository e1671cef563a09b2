"""What is read of the host without libvirt."""

from __future__ import annotations

import pytest

from dr.adapters.libvirt import facts
from dr.adapters.libvirt.facts import hibernation_masked
from dr.adapters.libvirt.health import ActivePool, PoolTrials, network_readings
from dr.adapters.libvirt.layout import Layout
from dr.model.facts import Level, PagePool
from tests.adapters.libvirt.conftest import put

SWAPS = "Filename Type Size Used Priority\n"


@pytest.mark.parametrize(
    ("state", "disk", "swaps", "masked"),
    [
        ("freeze mem disk", "[platform] shutdown", SWAPS + "/dev/sda2 partition 9 0 -2\n", False),
        ("freeze mem disk", "[platform] shutdown", SWAPS + "/dev/zram0 partition 9 0 -2\n", True),
        ("freeze mem disk", "[platform] shutdown", SWAPS, True),
        ("freeze mem disk", "[disabled]", SWAPS + "/dev/sda2 partition 9 0 -2\n", True),
        ("freeze mem", "[platform]", SWAPS + "/dev/sda2 partition 9 0 -2\n", True),
        ("", "", SWAPS + "/swapfile file 9 0 -2\n", True),
    ],
)
def test_hibernation(layout: Layout, state: str, disk: str, swaps: str, masked: bool) -> None:
    put(layout.root, "/sys/power/state", state)
    put(layout.root, "/sys/power/disk", disk)
    put(layout.root, "/proc/swaps", swaps)
    assert hibernation_masked(layout) is masked


def test_hibernation_masked_by_systemd(layout: Layout) -> None:
    put(layout.root, "/sys/power/state", "disk")
    put(layout.root, "/sys/power/disk", "[platform]")
    put(layout.root, "/proc/swaps", SWAPS + "/dev/sda2 partition 9 0 -2\n")
    units = layout.at("/etc/systemd/system")
    units.mkdir(parents=True)
    for name in facts.NO_HIBERNATION:
        assert not hibernation_masked(layout), "all of them, or none"
        (units / name).symlink_to("/dev/null")
    assert hibernation_masked(layout)


def test_bridges_and_addresses(layout: Layout) -> None:
    put(layout.root, "/sys/class/net/br0/bridge/bridge_id", "x")
    put(layout.root, "/sys/class/net/eth0/address", "x")
    assert facts.bridges(layout) == ("bridge:br0",)
    put(
        layout.root,
        "/proc/net/if_inet6",
        "fd000000000000000000000000000003 02 40 00 80     br9\nfe800000000000000000000000000001 02 40 20 80     br9\n",
    )
    assert facts.addresses(layout)["br9"] == "fd00::3"
    assert "lo" not in facts.addresses(layout)


def bridge(layout: Layout, flags: str = "0x1003", carrier: str = "1") -> None:
    put(layout.root, "/sys/class/net/br0/flags", flags)
    put(layout.root, "/sys/class/net/br0/brif/eth0/port_no", "1")
    put(layout.root, "/sys/class/net/br0/brif/vnet3/port_no", "2")
    put(layout.root, "/sys/class/net/eth0/device/vendor", "x")
    put(layout.root, "/sys/class/net/eth0/carrier", carrier)
    put(layout.root, "/sys/class/net/vnet3/carrier", "0")


@pytest.mark.parametrize(
    ("flags", "carrier", "says"),
    [("0x1003", "1", ""), ("0x1002", "1", "is down"), ("0x1003", "0", "no carrier on eth0")],
)
def test_bridges_that_guests_need(layout: Layout, flags: str, carrier: str, says: str) -> None:
    bridge(layout, flags, carrier)
    (reading,) = network_readings(layout, {"bridge:br0": "web1"}, {})
    assert says in reading.reason
    assert (reading.level is Level.OK) is (says == "")


def test_networks_that_guests_need(layout: Layout) -> None:
    bridge(layout)
    needed = {"network:lan": "web1", "network:sriov": "web2", "network:gone": "web3", "bridge:br7": "web4"}
    found = network_readings(layout, needed, {"lan": "br0", "sriov": ""})
    assert {reading.part for reading in found if reading.level is Level.CRITICAL} == {
        "network:gone",
        "bridge:br7",
    }


async def test_pools_are_written_for_real(layout: Layout) -> None:
    layout.at("/pool").mkdir()
    put(layout.root, "/volume", b"x" * 4096)
    pools = [
        ActivePool("good", "dir", "/pool"),
        ActivePool("gone", "netfs", "/nowhere"),
        ActivePool("rbd", "rbd", ""),
    ]
    trials = PoolTrials(layout)
    found = {reading.part: reading for reading in await trials.readings(pools)}
    assert found["storage:good"].level is Level.OK
    assert found["storage:gone"].level is Level.WARN
    assert "No such file" in found["storage:gone"].reason
    assert set(found) == {"storage:good", "storage:gone"}
    assert list(layout.at("/pool").iterdir()) == []
    assert (
        await trials.readings(pools) == list(found.values())[::-1] or len(await trials.readings(pools)) == 2
    )


def test_huge_pages_by_size(layout: Layout) -> None:
    assert facts.huge_pages(layout) == ()
    put(layout.root, "/proc/meminfo", "MemTotal: 1 kB\nHugepagesize:       2048 kB\n")
    for size, total, free in ((2048, 512, 100), (1048576, 4, 4), (64, 0, 0)):
        put(layout.root, f"/sys/kernel/mm/hugepages/hugepages-{size}kB/nr_hugepages", f"{total}\n")
        put(layout.root, f"/sys/kernel/mm/hugepages/hugepages-{size}kB/free_hugepages", f"{free}\n")
    assert facts.huge_pages(layout) == (
        PagePool(size_kib=2048, total=512, free=100, default=True),
        PagePool(size_kib=1048576, total=4, free=4),
    )
