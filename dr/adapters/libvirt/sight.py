"""Does a guest run here? Two independent views: libvirt, and /proc.

The order of looking matters. Whoever asks has sealed the guest and taken its permit away before, so nothing new gets
past the hook; what had passed it is active in libvirt's eyes, or is still a child of libvirtd, or is a QEMU. So libvirt
(or, without it, its process) is looked at first and /proc last: a start on its way cannot slip between the two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.procfs import ProcUnreadable, Scan, find_qemu, living_daemons
from dr.model.facts import Sighting

DOUBT_S = 1.0  # a QEMU that is ending shows no command line for a moment: look again that long


@dataclass(frozen=True)
class LibvirtView:
    """What libvirt said: `active` is None when it did not answer, with the reason in `why`."""

    active: bool | None
    why: str = ""
    name: str = ""


def ask_libvirt(conn: Any, guest: str) -> LibvirtView:
    """Raises libvirt's error when there is no answer."""
    try:
        domain = conn.lookupByUUIDString(guest)
        name = str(domain.name())
        if not domain.isActive():
            return LibvirtView(active=False, why="libvirt has it defined, not active", name=name)
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            return LibvirtView(active=False, why="libvirt does not know it")
        raise
    return LibvirtView(active=True, why=f"libvirt has it active{_state(domain)}", name=name)


def _state(domain: Any) -> str:
    """State and job of an active domain, for the sentence only."""
    try:
        number, reason = domain.state()
        state = api.state_name(number)
        job = domain.jobInfo()[0]
    except libvirt.libvirtError:
        return ""
    under_way = "" if job == libvirt.VIR_DOMAIN_JOB_NONE else ", with a job under way"
    return f" ({state}, {api.reason_name(state, reason)}{under_way})"


def weigh(proc: Path, guest: str, name: str, view: LibvirtView) -> tuple[Sighting, str]:
    """Put the view of libvirt and that of /proc together. Blocks for up to a second; the reason is one sentence."""
    if view.active:
        return Sighting.PRESENT, view.why
    try:
        daemons = living_daemons(proc) if view.active is None else []
        scan = _look(proc, guest, name or view.name)
    except ProcUnreadable as error:
        return Sighting.UNKNOWN, f"{error}, so nothing can be said for sure"
    if scan.found:
        process = scan.found[0]
        stuck = " (in D state: it hangs in I/O and may still write)" if process.state == "D" else ""
        told = view.why if view.active is False else f"libvirt cannot be asked ({view.why})"
        return Sighting.PRESENT, f"a QEMU process of it lives, pid {process.pid}{stuck}, though {told}"
    if scan.doubtful:
        pids = ", ".join(str(process.pid) for process in scan.doubtful)
        return Sighting.UNKNOWN, f"a QEMU that is ending (pid {pids}) hangs in I/O and may be this guest's"
    if daemons:
        pids = ", ".join(str(process.pid) for process in daemons)
        return (
            Sighting.UNKNOWN,
            f"libvirt lives (pid {pids}) and cannot be asked ({view.why}), so a start may be under way in it",
        )
    if view.active is None:
        return Sighting.ABSENT, "libvirtd is dead, and no QEMU process of it is in /proc"
    return Sighting.ABSENT, f"{view.why}, and no QEMU process of it is in /proc"


def _look(proc: Path, guest: str, name: str) -> Scan:
    waited_s = 0.0
    while True:
        scan = find_qemu(proc, guest, name)
        if scan.found or not scan.doubtful or waited_s >= DOUBT_S:
            return scan
        time.sleep(0.1)
        waited_s += 0.1
