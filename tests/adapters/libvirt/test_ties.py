"""What keeps a running domain here, from libvirt's own file of it; and that the inventory tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr.adapters.libvirt import running
from dr.adapters.libvirt.hypervisor import LibvirtHypervisor
from dr.adapters.libvirt.layout import Layout
from dr.model.facts import Tie, TieKind
from tests.adapters.libvirt.conftest import G, put

# As libvirt 9.0 writes it, shortened.
STATUS = """<domstatus state='running' reason='booted' pid='4711'>
  <monitor path='/var/lib/libvirt/qemu/domain-1-g/monitor.sock' type='unix'/>
  {backups}<blockjobs active='{active}'>{jobs}</blockjobs>
  <domain type='kvm' id='1'><name>g</name><devices>{devices}</devices></domain>
</domstatus>
"""
COPY = "<blockjob name='copy-vdb-libvirt-3-format' type='copy' state='ready'><disk dst='vdb'/></blockjob>"
PULL = "<blockjob name='pull-vda-libvirt-1-format' type='pull' state='running'><disk dst='vda'/></blockjob>"
SAVED = (
    "<blockjob name='backup-vda-libvirt-1-format' type='backup' state='running'><disk dst='vda'/></blockjob>"
)
BACKUPS = "<backups><domainbackup mode='push'/></backups>"


def status(*, jobs: str = "", backups: str = "", devices: str = "", active: str = "") -> str:
    active = active or ("yes" if jobs else "no")
    return STATUS.format(jobs=jobs, backups=backups, devices=devices, active=active)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (status(), []),
        (status(jobs=COPY + PULL), [(TieKind.BLOCK_JOB, "vdb"), (TieKind.BLOCK_JOB, "vda")]),
        (status(jobs=SAVED, backups=BACKUPS), [(TieKind.BACKUP, "")]),
        (status(jobs=SAVED + COPY, backups=BACKUPS), [(TieKind.BACKUP, ""), (TieKind.BLOCK_JOB, "vdb")]),
        (status(backups=BACKUPS), [(TieKind.BACKUP, "")]),
        (status(backups="<backups/>"), []),
        (status(active="yes"), [(TieKind.BLOCK_JOB, "?")]),  # of a libvirt that names none
        (status(jobs="<blockjob type='broken'/>"), [(TieKind.BLOCK_JOB, "?")]),
    ],
)
def test_jobs(content: str, found: list[tuple[TieKind, str]], tmp_path: Path) -> None:
    path = put(tmp_path, "g.xml", content)
    told = running.read(path).ties
    assert told is not None
    assert [(tie.kind, tie.what) for tie in told] == found


def test_devices_of_the_running_domain(tmp_path: Path) -> None:
    """Also what a network gave it, which its definition does not name."""
    devices = (
        "<hostdev mode='subsystem' type='usb'/>"
        "<interface type='network'><source network='vfs'/><actual type='hostdev'/></interface>"
        "<interface type='network'><source network='default'/><actual type='bridge'/></interface>"
        "<tpm model='tpm-crb'><backend type='emulator'/></tpm>"
    )
    told = running.read(put(tmp_path, "g.xml", status(devices=devices))).ties or ()
    assert [tie.kind for tie in told] == [TieKind.VTPM, TieKind.HOST_DEVICE, TieKind.HOST_DEVICE]
    assert ["usb device" in told[1].what, "type hostdev" in told[2].what] == [True, True]


UNREADABLE = {
    "empty": "",
    "half": "<domstatus",
    "no status": "<domain/>",
    "no domain": "<domstatus><blockjobs active='no'/></domstatus>",
    "no word of jobs": "<domstatus><domain/></domstatus>",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_not_absent(content: str, tmp_path: Path) -> None:
    assert running.read(put(tmp_path, "g.xml", content)).ties is None
    assert running.read(tmp_path / "missing.xml").ties is None


async def test_the_inventory_tells_it(mock: LibvirtHypervisor, layout: Layout) -> None:
    async def told() -> tuple[Tie, ...] | None:
        (guest,) = await mock.guests()
        return guest.ties

    assert await told() is None, "libvirt has no file of it"
    path = put(layout.root, "/run/libvirt/qemu/test.xml", status())
    assert await told() == ()
    put(layout.root, "/run/libvirt/qemu/test.xml", status(jobs=COPY))
    copy = Tie(kind=TieKind.BLOCK_JOB, what="vdb")
    assert await told() == (copy,)
    await mock._call(
        "make a snapshot", lambda conn: conn.lookupByUUIDString(G).snapshotCreateXML("<domainsnapshot/>")
    )
    assert await told() == (Tie(kind=TieKind.SNAPSHOT), copy)
    path.unlink()
    assert await told() is None, "what was so is not told for ever"
