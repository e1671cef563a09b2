"""Whose backup it is, how it ended, when a guest cannot be cloned: libvirt's answers, made up.

What libvirt really does is in the lab (integration/test_clones.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import pytest

from dr.adapters.clones import copying, kept
from dr.adapters.clones.folder import Folder
from dr.adapters.libvirt.layout import Layout
from dr.ports.clones import CloneError

GUEST = "11111111-0000-4000-8000-000000000001"
FOLDER = Folder(Path("/clones"), "h1")
OURS = f"/clones/h1/d1/{GUEST}/vda.qcow2"
DONE = {"operation": copying.BACKUP, "type": libvirt.VIR_DOMAIN_JOB_COMPLETED, "time_elapsed": 900}


def no(code: int) -> libvirt.libvirtError:
    """libvirt's error of that code."""
    error = libvirt.libvirtError("no")
    error.err = (code, libvirt.VIR_FROM_QEMU, "no", 2, None, None, None, 0, 0)
    return error


class Domain:
    """One domain, and its connection."""

    def __init__(self, *targets: str, **told: Any) -> None:
        self.targets = targets
        self.active = told.get("active", True)
        self.told = (told.get("state", libvirt.VIR_DOMAIN_RUNNING), told.get("reason", 1))
        self.job = told.get("job", libvirt.VIR_DOMAIN_JOB_NONE)
        self.last: dict[str, Any] = told.get("last", DONE)
        self.missing = told.get("missing", False)
        self.aborted = 0

    def lookupByUUIDString(self, _uuid: str) -> Domain:
        if self.missing:
            raise no(libvirt.VIR_ERR_NO_DOMAIN)
        return self

    def listAllDomains(self, _flags: int) -> list[Domain]:
        return [self]

    def UUIDString(self) -> str:
        return GUEST

    def isActive(self) -> bool:
        return bool(self.active)

    def state(self) -> tuple[int, int]:
        return self.told

    def jobInfo(self) -> list[int]:
        return [self.job]

    def jobStats(self, flags: int = 0) -> dict[str, Any]:
        return self.last if flags else {"time_elapsed": 700}

    def backupGetXMLDesc(self) -> str:
        if not self.targets:
            raise no(libvirt.VIR_ERR_NO_DOMAIN_BACKUP)
        disks = "".join(f"<disk><target {target}/></disk>" for target in self.targets)
        return f"<domainbackup><disks>{disks}</disks></domainbackup>"

    def abortJob(self) -> None:
        self.aborted += 1
        self.targets = ()


@pytest.mark.parametrize(
    "targets",
    [
        ("file='/backups/vda.qcow2'",),
        (f"file='{OURS}'", "file='/backups/vdb.qcow2'"),
        ("file='/clones/h1/../../etc/passwd'",),
        ("file='/clones/h12/d1/x/vda.qcow2'",),
        ("dev='/dev/vg/backup'",),
        (),
    ],
)
def test_somebody_elses_backup_is_never_ended(targets: tuple[str, ...]) -> None:
    domain = Domain(*targets)
    assert not copying.abort(domain, FOLDER, "", GUEST)
    assert copying.left_under_way(domain, FOLDER) == ()
    assert domain.aborted == 0


def test_a_drill_ends_its_own_copy_and_no_other_drills() -> None:
    domain = Domain(f"file='{OURS}'")
    assert copying.left_under_way(domain, FOLDER) == (GUEST,)
    assert not copying.abort(domain, FOLDER, "d2", GUEST)
    assert domain.aborted == 0
    assert copying.abort(domain, FOLDER, "d1", GUEST)
    assert not copying.abort(domain, FOLDER, "d1", GUEST)
    assert domain.aborted == 1


def test_a_guest_that_left_has_no_copy_to_end() -> None:
    assert not copying.abort(Domain(missing=True), FOLDER, "d1", GUEST)


@pytest.mark.parametrize(
    ("domain", "under_way", "why"),
    [
        (Domain(f"file='{OURS}'"), True, ""),
        (Domain(), False, ""),
        (
            Domain(last=DONE | {"type": libvirt.VIR_DOMAIN_JOB_FAILED, "errmsg": "no space"}),
            False,
            "no space",
        ),
        (Domain(last=DONE | {"type": libvirt.VIR_DOMAIN_JOB_CANCELLED}), False, "could not copy"),
        (Domain(last=DONE | {"success": False}), False, "could not copy"),
        (Domain(last=DONE | {"time_elapsed": 300}), False, "cannot be told"),
        (Domain(last=DONE | {"operation": 5}), False, "cannot be told"),
        (Domain(last={}), False, "cannot be told"),
        (Domain(active=False), False, "it ended while"),
        (Domain(missing=True), False, "it left this host"),
        (Domain("file='/backups/vda.qcow2'", last={}), False, "cannot be told"),
    ],
)
def test_how_a_copy_goes(domain: Domain, under_way: bool, why: str) -> None:
    """Whole only where libvirt says so of this very job: another one may have come after it."""
    look = copying.look(domain, FOLDER, "d1", GUEST, 500)
    assert look.under_way is under_way
    assert (why in look.why) if why else not look.why


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        (Domain(missing=True), "it is not on this host"),
        (Domain(state=libvirt.VIR_DOMAIN_SHUTOFF, reason=0), "start it first"),
        (Domain(state=libvirt.VIR_DOMAIN_PAUSED, reason=2), "it is in a live migration"),
        (Domain(state=libvirt.VIR_DOMAIN_PAUSED, reason=5), "its storage failed"),
        (Domain("file='/backups/vda.qcow2'"), "another backup of it is under way"),
        (Domain(job=libvirt.VIR_DOMAIN_JOB_UNBOUNDED), "another job of it is under way"),
    ],
)
def test_when_a_guest_cannot_be_cloned(domain: Domain, why: str) -> None:
    with pytest.raises(CloneError, match=why):
        copying.plan(domain, Layout(), GUEST)


def test_other_layers_are_other_disks() -> None:
    """An overlay or a mirror shows; libvirt's numbers of its nodes, which change by themselves, do not."""

    def of(disk: str) -> tuple[str, ...]:
        return kept.disks(ElementTree.fromstring(f"<domain><devices>{disk}</devices></domain>"))

    plain = "<disk type='file'><source file='/a' index='{}'/><target dev='vda'/>{}</disk>"
    assert of(plain.format(1, "<backingStore/>")) == of(plain.format(7, "<backingStore/>"))
    below = "<backingStore type='file'><format type='raw'/><source file='/b'/></backingStore>"
    mirror = "<backingStore/><mirror type='file' job='copy'><source file='/c'/></mirror>"
    assert len({of(plain.format(1, more)) for more in ("<backingStore/>", below, mirror)}) == 3
    assert of(plain.format(1, below)) != of(plain.format(1, below).replace("'/b'", "'/d'"))
