"""The whole adapter against libvirt's mock driver: a real API without a hypervisor."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest

from dr.adapters.libvirt.definition import needed_by_others
from dr.adapters.libvirt.gate import LibvirtGate
from dr.adapters.libvirt.hypervisor import LibvirtHypervisor
from dr.adapters.libvirt.layout import Layout
from dr.model.facts import Definition, DomainState, Level, Sighting
from dr.ports.hypervisor import DomainEvent, Hypervisor, HypervisorError, HypervisorUnknown
from tests.adapters.libvirt.conftest import BOOT, NODE, OTHER, G, overlay, put, put_process

XML = """<domain type='test'><name>{name}</name><uuid>{guest}</uuid><memory unit='MiB'>64</memory><vcpu>2</vcpu>
<os><type arch='i686'>hvm</type></os></domain>"""


def definition(name: str = "web2", guest: str = OTHER, xml: str = "") -> Definition:
    return Definition(id=guest, name=name, xml=xml or XML.format(name=name, guest=guest), digest="")


def test_it_is_a_hypervisor(layout: Layout) -> None:
    door: Hypervisor = LibvirtHypervisor("test:///default", layout=layout)
    assert door.events() is not door.events()


async def test_facts(mock: LibvirtHypervisor) -> None:
    facts = await mock.facts()
    assert (facts.boot_id, facts.arch, facts.cpus, facts.memory_mib) == (BOOT, "i686", 16, 3072)
    assert "network:default" in facts.networks
    assert any(identity.startswith("pool:") for identity in facts.storage)
    assert facts.libvirt_version.count(".") == 2
    assert facts.hibernation_masked
    assert not facts.hook.proven
    assert facts.copy_port == 0


async def test_a_host_tells_where_its_agent_takes_disks(layout: Layout) -> None:
    hypervisor = LibvirtHypervisor("test:///default", layout=layout, copy_port=7312)
    assert (await hypervisor.facts()).copy_port == 7312
    await hypervisor.close()


async def test_images_are_found_where_they_are(layout: Layout, mock: LibvirtHypervisor) -> None:
    file = put(layout.root, "/vm/web.img", b"x")
    made = await mock.identify_files(("/vm/web.img",))
    assert await mock.image_files(G, made) == ("/vm/web.img",)
    file.unlink()
    assert await mock.image_files(G, made) == ("",)


async def test_guests_and_their_digest(mock: LibvirtHypervisor) -> None:
    (guest,) = await mock.guests()
    assert (guest.id, guest.name, guest.state, guest.vcpus, guest.memory_mib) == (
        G,
        "test",
        DomainState.RUNNING,
        2,
        8192,
    )
    assert guest.digest == (await mock.describe(G)).digest
    assert (await mock.guests())[0].digest == guest.digest


async def test_describe_names_what_ties_it_here(mock: LibvirtHypervisor) -> None:
    found = await mock.describe(G)
    assert found.name == "test"
    assert found.storage == ("local:0123456789abcdef0123456789abcdef:/",)
    assert any("/guest/diskimage1" in blocker for blocker in found.blockers)
    with pytest.raises(HypervisorError, match="no guest"):
        await mock.describe(OTHER)


async def test_start_stop_archive(mock: LibvirtHypervisor, layout: Layout) -> None:
    await mock.start(definition())
    assert (await mock.sight(OTHER))[0] is Sighting.PRESENT
    with pytest.raises(HypervisorError, match="still runs"):
        await mock.archive_and_undefine(OTHER, "test")
    await mock.stop(OTHER, "shutdown", 5)
    await mock.stop(OTHER, "destroy", 5)
    assert (await mock.sight(OTHER))[0] is Sighting.ABSENT
    await mock.archive_and_undefine(OTHER, "it runs on h2 now")
    (kept,) = layout.archive.iterdir()
    assert OTHER in (kept / "domain.xml").read_text()
    assert (kept / "note.txt").read_text() == "it runs on h2 now\n"
    assert {guest.id for guest in await mock.guests()} == {G}
    assert await mock.archive_and_undefine(OTHER, "again") == ""


async def test_start_of_what_runs_is_not_a_failure_for_sure(mock: LibvirtHypervisor) -> None:
    with pytest.raises(HypervisorUnknown, match="was running"):
        await mock.start(definition("test", G))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (definition("test"), "another guest here has the name"),
        (definition(xml="<domain"), "is not XML"),
        (definition(xml=XML.format(name="web2", guest=G)), "another guest"),
        (
            definition(xml=f"<domain type='test'><name>web2</name><uuid>{OTHER}</uuid></domain>"),
            "could not be defined",
        ),
    ],
)
async def test_a_start_that_surely_failed(mock: LibvirtHypervisor, bad: Definition, says: str) -> None:
    with pytest.raises(HypervisorError, match=says):
        await mock.start(bad)
    assert [guest.id for guest in await mock.guests()] == [G]


async def test_a_qemu_that_libvirt_does_not_know_of(mock: LibvirtHypervisor, layout: Layout) -> None:
    put_process(layout.root, 70, "/usr/bin/qemu-system-x86_64", "-uuid", OTHER, state="D")
    sighting, reason = await mock.sight(OTHER)
    assert sighting is Sighting.PRESENT
    assert "D state" in reason


async def test_events(mock: LibvirtHypervisor) -> None:
    seen: list[DomainEvent] = []

    async def read() -> None:
        async for event in mock.events():
            seen.append(event)
            if event.kind == "stopped":
                return

    reader = asyncio.create_task(read())
    await mock.start(definition())
    await mock.stop(OTHER, "destroy", 5)
    await asyncio.wait_for(reader, 10)
    assert seen[0].kind == "reconnected"
    assert [(e.kind, e.detail) for e in seen if e.guest == OTHER] == [
        ("defined", "added"), ("started", "booted"), ("stopped", "destroyed"),
    ]  # fmt: skip


async def test_canary_that_starts_proves_nothing(
    mock: LibvirtHypervisor, layout: Layout, gate: LibvirtGate
) -> None:
    state = await mock.prove_hook()
    assert not state.proven
    assert "restart libvirtd (guests survive it)" in state.reason
    assert list(layout.protected.iterdir()) == []
    assert [guest.id for guest in await mock.guests()] == [G]


async def test_no_canary_without_a_list(mock: LibvirtHypervisor) -> None:
    state = await mock.prove_hook()
    assert not state.proven
    assert "list of protected guests" in state.reason


async def test_health(mock: LibvirtHypervisor, layout: Layout, gate: LibvirtGate) -> None:
    await mock.guests()
    gate.protect({G: "test"})
    readings = {reading.part: reading for reading in await mock.health()}
    assert readings["libvirt"].level is Level.OK
    assert readings["network:default"].level is Level.CRITICAL
    assert "which test needs, does not exist" in readings["network:default"].reason
    assert readings["storage:default-pool"].level is Level.WARN


async def test_no_libvirt_at_all(layout: Layout) -> None:
    hypervisor = LibvirtHypervisor(f"qemu+unix:///system?socket={layout.root}/none", layout=layout)
    with pytest.raises(HypervisorUnknown, match="no connection to libvirt"):
        await hypervisor.guests()
    assert (await hypervisor.sight(G))[0] is Sighting.ABSENT
    put_process(layout.root, 60, "/usr/sbin/libvirtd")
    assert (await hypervisor.sight(G))[0] is Sighting.UNKNOWN
    (reading,) = await hypervisor.health()
    assert reading.part == "libvirt"
    assert reading.level is Level.WARN
    assert not (await hypervisor.prove_hook()).proven
    with pytest.raises(HypervisorUnknown):
        await hypervisor.start(definition())
    await hypervisor.close()


class Told(Exception):
    pass


@pytest.mark.parametrize("error", [HypervisorError("denied"), HypervisorUnknown("no answer in 3 s")])
async def test_what_cannot_be_cut_off_is_aborted_all_the_same(
    monkeypatch: pytest.MonkeyPatch, mock: LibvirtHypervisor, error: Exception
) -> None:
    async def act(what: str, function: object, timeout_s: float) -> int:
        raise error if what.startswith("cut") else Told

    monkeypatch.setattr(mock, "_act", act)
    with pytest.raises(Told):
        await mock.abort_migration(G)


async def test_a_network_disk_of_another_guest_is_none_of_ours_and_its_files_are(
    mock: LibvirtHypervisor, layout: Layout
) -> None:
    """The mock driver's guest names /guest/diskimage1; a chain of backing files counts whole."""
    put(layout.root, "/guest/diskimage1", b"x")
    status = layout.at("/guest/diskimage1").stat()
    found = await mock._call("look", lambda conn: needed_by_others(conn, layout, OTHER))
    assert found == {(status.st_dev, status.st_ino)}
    assert await mock._call("look", lambda conn: needed_by_others(conn, layout, G)) == set()


async def test_what_lies_below_a_disk_is_read_once_for_all_that_ask(layout: Layout) -> None:
    """Described, told as storage, and looked at again before an image is made on it."""
    top = overlay(layout, "/guest/diskimage1", "/images/golden.raw", "raw")
    golden = put(layout.root, "/images/golden.raw", b"golden")
    os.utime(golden, (1_700_000_000, 1_700_000_000))
    driver = "device='disk'><driver name='qemu' type='qcow2'/>"
    node = put(layout.root, "/node.xml", NODE.replace("device='disk'>", driver))
    hypervisor = LibvirtHypervisor(f"test://{node}", layout=layout)
    try:
        (disk,) = (await hypervisor.describe(G)).local
        for _ in range(500):
            if disk.bases[0].digest:
                break
            await asyncio.sleep(0.01)
            (disk,) = (await hypervisor.describe(G)).local
        (base,) = disk.bases
        assert (base.path, base.form, base.digest) == (
            "/images/golden.raw",
            "raw",
            hashlib.sha256(b"golden").hexdigest(),
        )
        hypervisor.watch_storage((base.identity,))
        assert base.identity in (await hypervisor.facts()).storage
        top.unlink()
        (made,) = await hypervisor.prepare_images(G, (disk,))
        await hypervisor.remove_images(G, (made,))
        os.utime(golden)
        with pytest.raises(HypervisorError, match="is being read here"):
            await hypervisor.prepare_images(G, (disk,))
    finally:
        await hypervisor.close()


def test_what_others_disks_lie_on_is_needed_by_them(layout: Layout) -> None:
    """So it is not removed with a guest that left, whose own disk it was."""
    top = overlay(layout, "/vm/top", "/vm/mid", "qcow2")
    chain = (top, overlay(layout, "/vm/mid", "golden", "raw"), put(layout.root, "/vm/golden", b""))
    disk = "<driver type='qcow2'/><source file='/vm/top'/>"
    xml = f"<domain><devices><disk type='file'>{disk}</disk></devices></domain>"

    class Domain:
        def UUIDString(self) -> str:
            return G

        def XMLDesc(self, flags: int) -> str:
            return xml

    class Connection:
        def listAllDomains(self, flags: int) -> list[Domain]:
            return [Domain()]

    files = {(file.stat().st_dev, file.stat().st_ino) for file in chain}
    assert needed_by_others(Connection(), layout, OTHER) == files


async def test_disks_that_were_sent_on_are_parted_with_where_their_guest_was_never_defined(
    mock: LibvirtHypervisor, layout: Layout
) -> None:
    file = put(layout.root, "/vm/sent.img", b"old")
    old = await mock.identify_files(("/vm/sent.img",))
    told = await mock.archive_and_undefine(OTHER, "a note", old_disks=old, remove_disks=True)
    assert (told, file.exists()) == ("/vm/sent.img was removed", False)
