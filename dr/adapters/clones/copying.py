"""Copying the disks of a running guest: one backup job of libvirt's, pushed into images of the clone's own.

All disks in one job are as they were at one moment, as after a power cut: what a failover starts from. The guest runs
on, or stands still as its owner wants. The job belongs to libvirtd and outlives this process; whose it is, the path of
its target tells. Whoever is not sure that a job is ours leaves it alone. All functions run on call threads.
Not here: waiting, room, turns (`clones`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import libvirt

from dr.adapters.clones import kept
from dr.adapters.clones.domain import Source, source_of
from dr.adapters.clones.folder import Folder, copy_small
from dr.adapters.clones.kept import Before
from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.layout import Layout
from dr.model.base import GuestId
from dr.model.facts import ACTIVE_STATES
from dr.ports.clones import CloneError

IMAGE_S = 20.0
BACKUP = libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP
MIB = 2**20
# Paused for these reasons a guest is in somebody's hands, or broken: its disks are not as its owner means them.
NOT_NOW = {
    "migration": "it is in a live migration",
    "starting_up": "it is in a live migration, or starts",
    "postcopy": "it is in a live migration",
    "postcopy_failed": "its live migration failed",
    "save": "it is being saved",
    "dump": "it is being dumped",
    "snapshot": "a snapshot of it is being made",
    "ioerror": "its storage failed, so it stands still",
    "shutting_down": "it is shutting down",
    "crashed": "it crashed",
}


@dataclass(frozen=True)
class Plan:
    """All that was learnt of a guest before its disks are copied."""

    guest: GuestId
    name: str
    root: Element  # its live definition
    source: Source
    sizes: dict[str, int]  # bytes of each disk, as the guest sees it
    used_mib: int  # of all that is copied, as far as libvirt knows
    shares: int | None
    before: Before


def plan(conn: Any, layout: Layout, guest: GuestId) -> Plan:
    """Raises CloneError where it cannot be cloned now, and why; libvirt's error."""
    try:
        domain = conn.lookupByUUIDString(guest)
        number, reason = domain.state()
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            raise CloneError("it is not on this host") from error
        raise
    state = api.state_name(number)
    if state not in ACTIVE_STATES:
        raise CloneError("it does not run, and only disks of guests that run can be copied: start it first")
    if why := NOT_NOW.get(api.reason_name(state, reason)):
        raise CloneError(f"{why}: wait until that is over, and try again")
    if job := _job(domain):
        raise CloneError(f"{job} of it is under way: wait until that is over, and try again")
    root = ElementTree.fromstring(str(domain.XMLDesc(0)))
    source = source_of(root)
    sizes, used = {}, 0
    for disk in source.disks:
        capacity, allocation, _ = domain.blockInfo(disk.target)
        sizes[disk.target] = int(capacity)
        # What lies on other images, or on no file, takes what nobody tells.
        used += int(allocation) if disk.kind == "file" and not disk.layered else 0
    return Plan(
        guest=guest,
        name=str(domain.name()),
        root=root,
        source=source,
        sizes=sizes,
        used_mib=-(-(used + sum(_size(path) for _, path in source.files)) // MIB),
        shares=_shares(domain),
        before=kept.before(layout, guest, str(domain.name()), root),
    )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise CloneError(f"{path}, which it boots from, cannot be read: {error.strerror}") from error


def _job(domain: Any) -> str:
    """What libvirt does with it for long, in words; empty for nothing."""
    if is_copied(domain):
        return "another backup"
    kind = domain.jobInfo()[0]
    return "another job" if kind not in (libvirt.VIR_DOMAIN_JOB_NONE, *ENDED) else ""


ENDED = (
    libvirt.VIR_DOMAIN_JOB_COMPLETED,
    libvirt.VIR_DOMAIN_JOB_FAILED,
    libvirt.VIR_DOMAIN_JOB_CANCELLED,
)


def _shares(domain: Any) -> int | None:
    """The guest's own share of the CPUs; None where libvirt has no control over them."""
    try:
        found = domain.schedulerParameters().get("cpu_shares")
    except libvirt.libvirtError:
        return None
    return int(found) if found else None


def begin(conn: Any, folder: Folder, drill: str, found: Plan) -> None:
    """Make the images and begin the job; small files are copied first. Raises CloneError, OSError, libvirt's error.

    What was made stays where it fails; the caller removes it.
    """
    where = folder.make(drill, found.guest)
    for name, path in found.source.files:
        copy_small(Path(path), where / name, found.before.uid, found.before.gid)
    if not found.source.disks:
        return
    job = Element("domainbackup", mode="push")
    disks = SubElement(job, "disks")
    for disk in found.source.disks:
        image = where / f"{disk.target}.qcow2"
        _make_image(image, found.sizes[disk.target])
        os.chown(image, found.before.uid, found.before.gid)
        each = SubElement(disks, "disk", name=disk.target, backup="yes", type="file")
        SubElement(each, "driver", type="qcow2")
        SubElement(each, "target", file=str(image))
    copied = {disk.target for disk in found.source.disks}
    for target in found.root.iterfind("./devices/disk/target"):
        if target.get("dev") not in copied:
            SubElement(disks, "disk", name=target.get("dev", ""), backup="no")
    domain = conn.lookupByUUIDString(found.guest)
    xml = ElementTree.tostring(job, encoding="unicode")
    domain.backupBegin(xml, None, libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL)


def _make_image(path: Path, size: int) -> None:
    program = shutil.which("qemu-img", path=os.defpath)
    if program is None:
        raise CloneError("there is no `qemu-img` on this host: apt install qemu-utils")
    try:
        subprocess.run(
            [program, "create", "-q", "-f", "qcow2", str(path), str(size)],
            check=True,
            capture_output=True,
            text=True,
            timeout=IMAGE_S,
        )
    except subprocess.CalledProcessError as error:
        raise CloneError(f"qemu-img could not make {path}: {error.stderr.strip()[:300]}") from error
    except subprocess.SubprocessError as error:
        raise CloneError(f"qemu-img could not make {path}: {error}") from error


@dataclass(frozen=True)
class Look:
    """How a copy goes."""

    under_way: bool
    elapsed_ms: int = 0
    why: str = ""  # it ended and failed


def look(conn: Any, folder: Folder, drill: str, guest: GuestId, elapsed_ms: int) -> Look:
    """Our job now, or how it ended. `elapsed_ms`: of the look before. Raises libvirt's error."""
    try:
        domain = conn.lookupByUUIDString(guest)
        if is_ours(domain, folder, drill):
            now = domain.jobStats()
            return Look(True, int(now.get("time_elapsed", 0)) or elapsed_ms)
        if not domain.isActive():
            return Look(False, why="it ended while its disks were copied")
        flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
        last = domain.jobStats(flags)
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            return Look(False, why="it left this host while its disks were copied")
        raise
    if last.get("operation") != BACKUP or last.get("time_elapsed", 0) < elapsed_ms:
        return Look(False, why="how the copy ended cannot be told, as another job of it came after it")
    if last.get("type") == libvirt.VIR_DOMAIN_JOB_COMPLETED and last.get("success", True):
        return Look(False, int(last.get("time_elapsed", 0)))
    said = str(last.get("errmsg") or "libvirt does not say why")
    return Look(False, why=f"libvirt could not copy its disks: {said}")


def is_copied(domain: Any) -> bool:
    """Whether a backup of it is under way, whose ever."""
    return bool(_backup_of(domain))


def is_ours(domain: Any, folder: Folder, drill: str = "") -> bool:
    """Whether a backup of it is under way whose every target lies in our folder, or in a drill's part of it."""
    told = _backup_of(domain)
    if not told:
        return False
    targets = [each.get("file", "") for each in ElementTree.fromstring(told).iter("target")]
    return bool(targets) and all(folder.contains(target, drill) for target in targets)


def _backup_of(domain: Any) -> str:
    """libvirt asks no QEMU for this."""
    try:
        return str(domain.backupGetXMLDesc())
    except libvirt.libvirtError as error:
        if api.is_unseen(error):
            raise
        return ""  # none is under way, it does not run, or it is gone


def abort(conn: Any, folder: Folder, drill: str, guest: GuestId) -> bool:
    """End the job, if it is ours; whether there was one. `drill` empty: of whatever drill. Raises libvirt's error."""
    try:
        domain = conn.lookupByUUIDString(guest)
        if not is_ours(domain, folder, drill):
            return False
        domain.abortJob()
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            return False
        if api.code(error) != libvirt.VIR_ERR_OPERATION_INVALID:  # it has just ended
            raise
    return True


def left_under_way(conn: Any, folder: Folder) -> tuple[GuestId, ...]:
    """Guests whose disks are still copied into our folder, whoever began it. Raises libvirt's error."""
    domains = conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    return tuple(str(domain.UUIDString()) for domain in domains if is_ours(domain, folder))
