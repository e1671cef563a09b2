"""What is kept of a guest before its definition goes, and what is never deleted."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from dr.adapters.libvirt import archive, start
from dr.adapters.libvirt.layout import Layout
from dr.model.facts import Definition
from dr.ports.hypervisor import HypervisorError
from tests.adapters.libvirt.conftest import OTHER, put

NVRAM = "/var/lib/libvirt/qemu/nvram/web1.fd"
XML = (
    f"<domain type='qemu'><name>web1</name><uuid>{OTHER}</uuid><memory>1024</memory>"
    f"<os><type>hvm</type><nvram>{NVRAM}</nvram></os><devices><tpm model='tpm-crb'/></devices></domain>"
)


class FakeConnection:
    """A connection to QEMU's driver, as far as undefining goes."""

    def getType(self) -> str:  # libvirt's name
        return "QEMU"


class FakeDomain:
    """Remembers with which flags it was undefined."""

    flags = 0

    def undefineFlags(self, flags: int) -> None:  # libvirt's name
        self.flags = flags


@pytest.fixture
def guest(layout: Layout) -> Layout:
    put(layout.root, NVRAM, b"vars")
    put(layout.root, "/var/lib/libvirt/qemu/save/web1.save", b"memory")
    put(layout.root, "/var/lib/libvirt/qemu/snapshot/web1/s1.xml", "<domainsnapshot/>")
    put(layout.root, "/var/lib/libvirt/qemu/checkpoint/web1/c1.xml", "<domaincheckpoint/>")
    put(layout.root, f"/var/lib/libvirt/swtpm/{OTHER}/tpm2/tpm2-00.permall", b"tpm")
    put(layout.root, "/images/web1.img", b"disk")
    return layout


def test_everything_but_the_disks_is_kept(guest: Layout) -> None:
    folder = archive.keep(guest, OTHER, "web1", XML, "it runs on h2 now")
    assert folder.name.endswith(f"-web1-{OTHER}")
    kept = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert kept == {
        "domain.xml": XML.encode(),
        "note.txt": b"it runs on h2 now\n",
        "nvram.fd": b"vars",
        "managed.save": b"memory",
        "snapshot/s1.xml": b"<domainsnapshot/>",
        "checkpoint/c1.xml": b"<domaincheckpoint/>",
        "tpm/tpm2/tpm2-00.permall": b"tpm",
    }


def test_two_in_one_second_do_not_meet(guest: Layout) -> None:
    folders = {archive.keep(guest, OTHER, "we/b 1", XML, "") for _ in range(3)}
    assert len(folders) == len({folder.name for folder in folders}) == 3
    assert all(folder.parent == guest.archive for folder in folders)


def test_a_full_disk_leaves_no_half_archive(guest: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "_sync_file", fail)
    with pytest.raises(HypervisorError, match="nothing was removed"):
        archive.keep(guest, OTHER, "web1", XML, "")
    assert list(guest.archive.iterdir()) == []


@pytest.mark.parametrize("shared", [False, True])
def test_nvram_on_shared_storage_is_not_deleted(guest: Layout, shared: bool) -> None:
    """The guest runs elsewhere with that very file."""
    if shared:
        put(guest.root, "/proc/self/mountinfo", "22 1 0:46 / / rw - nfs4 nas:/x rw,addr=10.0.0.9\n")
    domain = FakeDomain()
    connection: Any = FakeConnection()
    archive.undefine(connection, guest, domain, XML)
    assert bool(domain.flags & libvirt.VIR_DOMAIN_UNDEFINE_NVRAM) is not shared
    assert bool(domain.flags & libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM) is shared
    assert domain.flags & libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    assert domain.flags & libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA


def test_a_start_brings_the_nvram_along(layout: Layout) -> None:
    connection: Any = FakeConnection()
    definition = Definition(id=OTHER, name="web1", xml=XML, digest="", nvram=b"carried")
    start._put_nvram(connection, layout, definition, None)
    assert layout.at(NVRAM).read_bytes() == b"carried"
    assert layout.at(NVRAM).stat().st_mode & 0o777 == 0o600
