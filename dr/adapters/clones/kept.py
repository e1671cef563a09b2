"""Whether a guest that was cloned is as it was: the same QEMU, with the same disks, and no job left on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import libvirt

from dr.adapters.clones.names import require_guest
from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.procfs import ProcUnreadable, find_qemu
from dr.model.base import GuestId
from dr.model.clones import Kept
from dr.ports.clones import CloneError

START = 19  # the field of /proc/PID/stat behind the name: when it was started


@dataclass(frozen=True)
class Before:
    """A guest as it was when its copy began."""

    pid: int
    started: str  # tells it from a later process with that id
    uid: int
    gid: int
    disks: tuple[str, ...]  # what each is made of, all layers


def before(layout: Layout, guest: GuestId, name: str, root: Element) -> Before:
    """Raises CloneError where its QEMU is not found."""
    pid = _pid(layout, require_guest(guest), name)
    if pid is None:
        raise CloneError("its QEMU is not found in /proc")
    try:
        owner = os.stat(layout.proc / str(pid))
        started = _started(layout, pid)
    except OSError as error:
        raise CloneError(f"its QEMU ends just now: {error}") from error
    return Before(pid, started, owner.st_uid, owner.st_gid, disks(root))


def look(conn: Any, layout: Layout, guest: GuestId, name: str, then: Before) -> Kept:
    """How it is now beside `then`. Raises libvirt's error."""

    def told(ok: bool, why: str) -> Kept:
        return Kept(guest=guest, name=name, ok=ok, why=why)

    try:
        domain = conn.lookupByUUIDString(guest)
        root = ElementTree.fromstring(str(domain.XMLDesc(0)))
        job = domain.jobInfo()[0] if domain.isActive() else None
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            return told(False, "it is not on this host any more")
        raise
    if job is None:
        return told(False, "it does not run on this host any more")
    try:
        pid = _pid(layout, guest, name)
    except CloneError as error:
        return told(False, str(error))
    try:
        same = pid == then.pid and _started(layout, then.pid) == then.started
    except OSError:
        same = False
    if not same:
        return told(False, f"it runs in another QEMU (pid {pid}) than when it was cloned (pid {then.pid})")
    if disks(root) != then.disks:
        return told(False, "its disks are not the ones that it had when it was cloned")
    if job in (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED):
        return told(False, "a job of libvirt is under way on it")
    count = len(then.disks)
    return told(
        True, f"same QEMU (pid {pid}), same {count} disk{'s' * (count != 1)} in the same layers, no job on it"
    )


def disks(root: Element) -> tuple[str, ...]:
    """What each disk of a live definition is made of, in one line each: its source, the layers below, a mirror."""
    found = []
    for disk in root.iterfind("./devices/disk"):
        target = disk.find("target")
        name = target.get("dev", "?") if target is not None else "?"
        parts = [disk.find("source"), disk.find("backingStore"), disk.find("mirror")]
        words = " ".join(word for part in parts if part is not None for word in _words(part))
        found.append(f"{name} {disk.get('type')} {words}")
    return tuple(found)


def _words(element: Element) -> list[str]:
    """Without libvirt's own numbers of its nodes, which say nothing of what they stand for."""
    own = [f"{key}={value}" for key, value in sorted(element.items()) if key != "index"]
    below = [
        word for child in element if child.tag not in ("privateData", "seclabel") for word in _words(child)
    ]
    return [element.tag, *own, *below]


def _pid(layout: Layout, guest: GuestId, name: str) -> int | None:
    try:
        found = find_qemu(layout.proc, guest, name).found
    except ProcUnreadable as error:
        raise CloneError(str(error)) from error
    return found[0].pid if found else None


def _started(layout: Layout, pid: int) -> str:
    """Raises OSError."""
    text = (layout.proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()[START]
