"""What a domain is in a migration, how one is asked for, and the way to the other host. libvirt's answers are those
that libvirt 9.0 gave in the lab."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from dr.adapters.libvirt import migration, way
from dr.adapters.libvirt.hypervisor import LibvirtHypervisor
from dr.adapters.libvirt.layout import Layout
from dr.model.facts import Base, DomainState, LocalDisk, Part
from dr.model.policy import Sending
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown, Standing
from tests.adapters.libvirt.conftest import OTHER, G

OUT = {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT}
BACKUP = {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP}


class Refusal(libvirt.libvirtError):  # type: ignore[misc]  # libvirt-python has no types
    """libvirt's error with that number; `of`: where in libvirt it was made."""

    def __init__(self, number: int, of: int = libvirt.VIR_FROM_QEMU) -> None:
        Exception.__init__(self, f"error {number}")
        self.err = (number, of, f"error {number}", 0, "", "", "", 0, 0)


class Domain:
    """One domain as libvirt shows it; `job` may be an error."""

    def __init__(self, state: tuple[int, int], job: Any = None) -> None:
        self.at, self.job = state, job
        self.done: list[str] = []

    def isActive(self) -> bool:
        return bool(self.at[0] != libvirt.VIR_DOMAIN_SHUTOFF)

    def state(self) -> tuple[int, int]:
        return self.at

    def jobStats(self, flags: int = 0) -> dict[str, int]:
        if flags == libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED:
            return {"data_processed": 84 * 2**20, "time_elapsed": 1310, "downtime": 12}
        if isinstance(self.job, Exception):
            raise self.job
        return self.job or {"type": libvirt.VIR_DOMAIN_JOB_NONE}

    def migrateSetMaxDowntime(self, ms: int) -> None:
        self.done.append(f"{ms} ms")

    def abortJob(self) -> None:
        self.done.append("abort")

    def migrateToURI3(self, uri: str, params: dict[str, object], flags: int) -> None:
        self.done.append(uri)
        self.sent = params, flags
        assert flags & libvirt.VIR_MIGRATE_PAUSED
        assert not flags & (libvirt.VIR_MIGRATE_UNDEFINE_SOURCE | libvirt.VIR_MIGRATE_UNSAFE)
        if isinstance(self.job, Exception):
            raise self.job


class Connection:
    def __init__(self, domain: Domain | None, *, alive: bool = True) -> None:
        self.domain, self.alive, self.closed = domain, alive, False

    def lookupByUUIDString(self, guest: str) -> Domain:
        if self.domain is None:
            raise Refusal(libvirt.VIR_ERR_NO_DOMAIN)
        return self.domain

    def isAlive(self) -> bool:
        return self.alive

    def close(self) -> None:
        self.closed = True


RUNNING = (libvirt.VIR_DOMAIN_RUNNING, 1)
SWITCHING = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
STARTING = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
ARRIVED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER)
LEFT = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED)
NOT_HERE = Refusal(libvirt.VIR_ERR_OPERATION_UNSUPPORTED)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (None, Standing()),
        (Domain(RUNNING), Standing(state=DomainState.RUNNING, reason="booted")),
        (Domain(RUNNING, OUT), Standing(state=DomainState.RUNNING, reason="booted", part=Part.LEAVING)),
        (Domain(RUNNING, BACKUP), Standing(state=DomainState.RUNNING, reason="booted")),
        (Domain(SWITCHING, OUT), Standing(state=DomainState.PAUSED, reason="migration", part=Part.LEAVING)),
        (Domain(SWITCHING), Standing(state=DomainState.PAUSED, reason="migration")),
        (Domain(STARTING, NOT_HERE), Standing(state=DomainState.PAUSED, reason="starting_up", part=Part.ARRIVING)),
        (Domain(SWITCHING, NOT_HERE), Standing(state=DomainState.PAUSED, reason="migration", part=Part.ARRIVING)),
        (Domain(ARRIVED), Standing(state=DomainState.PAUSED, reason="user")),
        (Domain(LEFT), Standing(state=DomainState.SHUTOFF, reason="migrated")),
    ],
)  # fmt: skip
def test_what_it_is_in_a_migration(domain: Domain | None, expected: Standing) -> None:
    assert migration.standing(Connection(domain), G) == expected


def test_a_job_that_cannot_be_asked_for_is_not_taken_for_none() -> None:
    timed_out = Refusal(libvirt.VIR_ERR_OPERATION_TIMEOUT)
    with pytest.raises(libvirt.libvirtError):
        migration.standing(Connection(Domain(RUNNING, timed_out)), G)
    invalid = Refusal(libvirt.VIR_ERR_OPERATION_INVALID)
    with pytest.raises(libvirt.libvirtError):
        migration.standing(Connection(Domain(RUNNING, invalid)), G)


def test_only_an_outgoing_migration_is_ended() -> None:
    leaving = Domain(RUNNING, OUT)
    migration.abort(Connection(leaving), G)
    assert leaving.done == ["abort"]
    for other in (Domain(RUNNING), Domain(RUNNING, BACKUP), Domain(STARTING, NOT_HERE), None):
        with pytest.raises(HypervisorError, match="no migration"):
            migration.abort(Connection(other), G)
        assert other is None or other.done == []


YANK = {
    "return": [
        {"type": "chardev", "id": "charmonitor"},
        {"type": "block-node", "node-name": "migration-vda-storage"},
        {"type": "block-node", "node-name": "libvirt-1-storage"},
    ]
}


def test_copies_of_disks_to_a_silent_host_are_cut_off_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The guest's own network disk is another of QEMU's nodes; a later migration is not the one that was aborted."""
    asked: list[Any] = []

    def monitor(domain: Domain, command: str, flags: int) -> str:
        asked.append(json.loads(command))
        return json.dumps(YANK if "query-yank" in command else {"return": {}})

    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", monitor)
    leaving = Domain(RUNNING, OUT | {"time_elapsed": 5000, "disk_total": 1})
    least_ms = migration.cut(Connection(leaving), G)
    assert least_ms == 5000
    assert asked[1:] == [
        {
            "execute": "yank",
            "arguments": {"instances": [{"type": "block-node", "node-name": "migration-vda-storage"}]},
        }
    ]
    assert leaving.done == []
    later = Domain(RUNNING, OUT | {"time_elapsed": 2000})
    with pytest.raises(HypervisorError, match="a later one"):
        migration.abort(Connection(later), G, least_ms)
    migration.abort(Connection(leaving), G, least_ms)
    assert (leaving.done, later.done) == (["abort"], [])
    with pytest.raises(HypervisorError, match="no migration"):
        migration.cut(Connection(Domain(RUNNING)), G)


def test_a_migration_without_copies_of_disks_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is QEMU's monitor asked, which taints the guest."""
    asked: list[object] = []
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", lambda *seen: asked.append(seen))
    plain = OUT | {"time_elapsed": 5000, "disk_total": 0}
    assert migration.cut(Connection(Domain(RUNNING, plain)), G) == 0
    assert asked == []


def test_only_an_outgoing_migration_is_allowed_a_longer_standstill() -> None:
    leaving = Domain(RUNNING, OUT)
    migration.allow_downtime(Connection(leaving), G, 0.8125)
    assert leaving.done == ["812 ms"]
    with pytest.raises(HypervisorError, match="no migration"):
        migration.allow_downtime(Connection(Domain(RUNNING)), G, 0.8)


@pytest.mark.parametrize(
    ("sending", "params", "flags"),
    [
        (Sending(), {}, 0),
        (Sending(auto_converge=True), {}, libvirt.VIR_MIGRATE_AUTO_CONVERGE),
        (Sending(mib_s=200), {"bandwidth": 200}, 0),
        (Sending(streams=4), {"parallel.connections": 4}, libvirt.VIR_MIGRATE_PARALLEL),
    ],
)
def test_how_policy_wants_it_sent(
    monkeypatch: pytest.MonkeyPatch, sending: Sending, params: dict[str, int], flags: int
) -> None:
    domain = Domain(RUNNING)
    monkeypatch.setattr("dr.adapters.libvirt.migration.libvirt.open", lambda _: Connection(domain))
    migration.send("qemu:///system", G, "qemu+tls://h2/system", sending)
    assert domain.sent == (params, migration.FLAGS | flags)


@pytest.mark.parametrize(
    ("error", "alive", "expected"),
    [
        (Refusal(libvirt.VIR_ERR_OPERATION_FAILED), True, HypervisorError),
        (Refusal(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC), True, HypervisorError),
        (Refusal(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC), False, HypervisorUnknown),
    ],
)
def test_how_sending_ends(
    monkeypatch: pytest.MonkeyPatch, error: Refusal, alive: bool, expected: type[Exception]
) -> None:
    """libvirtd's own trouble with the other host is told by libvirtd; trouble with libvirtd is an end not seen."""
    conn = Connection(Domain(RUNNING, error), alive=alive)
    monkeypatch.setattr("dr.adapters.libvirt.migration.libvirt.open", lambda _: conn)
    with pytest.raises(expected):
        migration.send("qemu:///system", G, "qemu+tls://h2/system", Sending())
    assert conn.closed
    well = Connection(Domain(RUNNING))
    monkeypatch.setattr("dr.adapters.libvirt.migration.libvirt.open", lambda _: well)
    took = migration.send("qemu:///system", G, "qemu+tls://h2/system", Sending())
    assert took == "84 MiB sent in 1.3 s; QEMU counts 12 ms of downtime"
    assert well.domain is not None
    assert well.domain.done == ["qemu+tls://h2/system"]
    assert well.closed


@pytest.mark.parametrize(("address", "uri"), [("10.9.0.2", "tcp://10.9.0.2"), ("fd00::2", "tcp://[fd00::2]")])
def test_memory_goes_to_the_address_that_the_other_host_has_for_it(
    monkeypatch: pytest.MonkeyPatch, address: str, uri: str
) -> None:
    domain = Domain(RUNNING)
    monkeypatch.setattr("dr.adapters.libvirt.migration.libvirt.open", lambda _: Connection(domain))
    migration.send("qemu:///system", G, "qemu+tls://h2/system", Sending(), data_address=address)
    assert domain.sent == ({"migrate_uri": uri, "listen_address": address}, migration.FLAGS)


@pytest.mark.parametrize(
    ("bases", "flag"),
    [
        ((), libvirt.VIR_MIGRATE_NON_SHARED_DISK),
        ((Base(path="/vm/base.img", form="raw", digest="d"),), libvirt.VIR_MIGRATE_NON_SHARED_INC),
    ],
)
def test_only_disks_that_are_named_are_copied(
    monkeypatch: pytest.MonkeyPatch, bases: tuple[Base, ...], flag: int
) -> None:
    """And of one that lies on a base only what is its own; libvirt takes but one of both flags."""
    domain = Domain(RUNNING)
    monkeypatch.setattr("dr.adapters.libvirt.migration.libvirt.open", lambda _: Connection(domain))
    plain = LocalDisk(target="vda", path="/vm/a.img", form="raw", size_b=1)
    based = LocalDisk(target="vdc", path="/vm/c.img", form="qcow2", size_b=1, bases=bases)
    migration.send("qemu:///system", G, "qemu+tls://h2/system", Sending(), disks=(plain, based))
    assert domain.sent == ({"migrate_disks": ["vda", "vdc"]}, migration.FLAGS | flag)


def test_what_is_sent_is_encrypted_where_the_host_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = Domain(RUNNING)
    monkeypatch.setattr("dr.adapters.libvirt.migration.libvirt.open", lambda _: Connection(domain))
    migration.send("qemu:///system", G, "qemu+tls://h2/system", Sending(), tls=True)
    assert domain.sent == ({}, migration.FLAGS | libvirt.VIR_MIGRATE_TLS)


# ---- the way


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_first_address_that_answers_is_taken(port: int) -> None:
    uri = f"qemu+tcp://{{address}}:{port}/system"
    assert way.way_to(uri, "h2", ["127.0.0.2", "127.0.0.1"]) == f"qemu+tcp://127.0.0.1:{port}/system"
    assert way.way_to("qemu+ssh://{host}/system", "h2", []) == "qemu+ssh://h2/system"


def test_no_address_that_answers_is_said_with_each(port: int) -> None:
    with pytest.raises(
        HypervisorError, match=rf"127.0.0.2 port {port}: .*migration_uri in /etc/dr/agent.yaml"
    ):
        way.way_to(f"qemu+tcp://{{address}}:{port}/system", "h2", ["127.0.0.2"])
    with pytest.raises(HypervisorError, match="no address of it is known"):
        way.way_to("qemu+tls://{address}/system", "h2", [])


@pytest.mark.parametrize("uri", ["qemu+tls://{address}/system", "qemu+ssh://root@{host}/system?no_tty=1"])
def test_good_ways(uri: str) -> None:
    assert way.why_not(uri) == ""


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system",
        "qemu+tls://h2/system",
        "qemu+tls://{adress}/system",
        "{address}",
        "qemu+x://{host}/system",
    ],
)
def test_bad_ways(uri: str) -> None:
    assert way.why_not(uri)


# ---- behind the door


async def test_against_the_mock_driver(mock: LibvirtHypervisor) -> None:
    """It knows no migration: each call says so, and changes nothing."""
    assert (await mock.standing(OTHER)) == Standing()
    await mock.suspend(G)
    await mock.resume(G)
    with pytest.raises(HypervisorError, match="could not resume"):
        await mock.resume(OTHER)
    with pytest.raises(HypervisorError, match="no migration_uri is set"):
        await mock.migrate(G, "h2", ("127.0.0.1",), Sending())
    assert not (await mock.facts()).live_migration


async def test_a_host_with_a_way_can_migrate(layout: Layout) -> None:
    hypervisor = LibvirtHypervisor(
        "test:///default", layout=layout, migration_uri="qemu+tcp://{address}:1/system"
    )
    assert (await hypervisor.facts()).live_migration
    with pytest.raises(HypervisorError, match="takes no connection"):
        await hypervisor.migrate(G, "h2", ("127.0.0.1",), Sending())
    await hypervisor.close()
