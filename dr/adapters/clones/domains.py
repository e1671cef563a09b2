"""Starting and ending clones in libvirt. All functions run on call threads.

Not here: what a clone is made of (`domain`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from dr.adapters.clones import domain as parts
from dr.adapters.clones.copying import Plan
from dr.adapters.clones.names import is_clone
from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.guests import memory_mib
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.procfs import ProcUnreadable, find_qemu
from dr.model.base import GuestId
from dr.model.clones import CloneMade
from dr.model.facts import DomainState
from dr.ports.clones import CloneError

log = logging.getLogger(__name__)

FLAGS = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
RESERVE_MIB = 256  # of memory, and one part in twenty: a clone must not push guests into swap
RESERVE_PART = 20
FIRST_TO_DIE = "500"  # of 1000: when memory is short the kernel ends a clone before it ends a guest


def clone_xml(plan: Plan, made: CloneMade, where: Path) -> tuple[str, tuple[str, ...]]:
    """The clone's definition, and the names of its taps."""
    return parts.clone_xml(
        plan.root, plan.source, clone=made.clone, name=made.domain, where=where, shares=plan.shares
    )


def start(conn: Any, layout: Layout, xml: str, made: CloneMade, connect: Callable[[], None]) -> None:
    """Start it, standing still; have its taps moved; let it run. Raises CloneError, libvirt's error."""
    require_memory(layout, memory_mib(ElementTree.fromstring(xml)))
    domain = conn.createXML(xml, FLAGS)
    try:
        connect()
        _first_to_die(layout, made)
        domain.resume()
    except BaseException:
        with suppress(libvirt.libvirtError):
            domain.destroy()
        raise


def require_memory(layout: Layout, wanted_mib: int) -> None:
    """Raises CloneError, OSError."""
    lines = (layout.proc / "meminfo").read_text(encoding="ascii").splitlines()
    figures = {line.partition(":")[0]: int(line.split()[1]) >> 10 for line in lines if line.endswith(" kB")}
    free = figures.get("MemAvailable", 0) - max(RESERVE_MIB, figures.get("MemTotal", 0) // RESERVE_PART)
    if wanted_mib > free:
        raise CloneError(
            f"it wants {wanted_mib} MiB of memory, and this host has {max(0, free)} MiB beside its reserve"
        )


def _first_to_die(layout: Layout, made: CloneMade) -> None:
    try:
        for process in find_qemu(layout.proc, made.clone, made.domain).found:
            (layout.proc / str(process.pid) / "oom_score_adj").write_text(FIRST_TO_DIE)
    except (OSError, ProcUnreadable) as error:
        log.warning("%s: the kernel was not told to end it before guests: %s", made.domain, error)


def is_active(conn: Any, clone: GuestId) -> bool:
    """Raises libvirt's error."""
    try:
        return bool(conn.lookupByUUIDString(clone).isActive())
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            return False
        raise


def runs(conn: Any, clone: GuestId) -> bool:
    """Whether its CPUs do. Raises libvirt's error."""
    try:
        number, _ = conn.lookupByUUIDString(clone).state()
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            return False
        raise
    return api.state_name(number) in (DomainState.RUNNING, DomainState.BLOCKED)


def destroy(conn: Any, mark: str) -> tuple[str, ...]:
    """End every clone whose id begins so; their names. Raises CloneError if one is left, libvirt's error."""
    gone = []
    for domain in _clones(conn, mark):
        name = str(domain.name())
        try:
            domain.destroy()
        except libvirt.libvirtError as error:
            if not api.is_missing(error) and api.code(error) != libvirt.VIR_ERR_OPERATION_INVALID:
                raise
        gone.append(name)
    if left := [str(domain.name()) for domain in _clones(conn, mark)]:
        raise CloneError(f"these clones are still there: {', '.join(left)}; end them with `virsh destroy`")
    return tuple(gone)


def _clones(conn: Any, mark: str) -> list[Any]:
    found = []
    for domain in conn.listAllDomains(0):
        guest = str(domain.UUIDString())
        if is_clone(guest) and guest.startswith(mark):
            found.append(domain)
    return found
