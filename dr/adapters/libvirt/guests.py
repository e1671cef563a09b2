"""All domains of the host in a handful of calls, cheap enough to ask for every few seconds.

State comes fresh each time, without asking any QEMU (a hung one must not hold up the rest), and so does what is
resident of a guest's memory, from /proc. What needs the XML (maximum memory, CPUs, digest) is kept until libvirt says
that a definition changed, its file under /etc/libvirt/qemu or its NVRAM did, or the connection is a new one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt import running
from dr.adapters.libvirt.canary import is_canary
from dr.adapters.libvirt.cpus import Described
from dr.adapters.libvirt.digest import digest, nvram_path, read_nvram
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.resident import resident_mib
from dr.adapters.libvirt.running import Running
from dr.model.base import GuestId
from dr.model.facts import ACTIVE_STATES, GuestFacts, Tie, TieKind

XML_FLAGS = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE

KIB_OF = {
    "b": 1 / 1024, "bytes": 1 / 1024,
    "KB": 1e3 / 1024, "MB": 1e6 / 1024, "GB": 1e9 / 1024, "TB": 1e12 / 1024,
    "k": 1, "KiB": 1, "M": 1024, "MiB": 1024, "G": 1024**2, "GiB": 1024**2, "T": 1024**3, "TiB": 1024**3,
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What was read out of a domain's definition."""

    stamp: tuple[object, ...]  # of the files behind it, when it was read
    memory_mib: int
    vcpus: int
    page_kib: int | None
    digest: str
    networks: tuple[str, ...]
    nvram: str


class Guests:
    """Reads GuestFacts and keeps what is expensive. `read` runs on call threads, `forget` on libvirt's."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._known: dict[GuestId, Known] = {}
        self._running: dict[GuestId, tuple[object, Running]] = {}  # of active ones, by their file's stamp
        self._resident: dict[GuestId, int] = {}  # of active ones, as last told
        self._lock = threading.Lock()

    def forget(self, guest: GuestId = "") -> None:
        """A definition changed; without a guest, perhaps all did."""
        with self._lock:
            for each in {guest} & self._known.keys() if guest else set(self._known):
                self._known[each] = replace(self._known[each], stamp=())  # networks() still wants the rest

    def networks(self, guest: GuestId) -> tuple[str, ...]:
        """Networks that a guest's definition names, as HostFacts does; as of the last `read`."""
        known = self._known.get(guest)
        return known.networks if known else ()

    def cpus(self) -> dict[str, Described]:
        """CPUs that guests run with, as `GuestFacts.cpu` names them; as of the last `read`."""
        with self._lock:
            found = [each.cpu for _, each in self._running.values() if each.cpu is not None]
        return {cpu.key: cpu for cpu in found}

    def read(self, conn: Any) -> tuple[GuestFacts, ...]:
        """All domains but canaries. Raises libvirt's error."""
        persistent = _ids(conn, libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT)
        autostart = _ids(conn, libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
        saved = _ids(conn, libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
        snapshots = _ids(conn, libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT)
        found = []
        for domain, stats in conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, _stats_flags(conn)):
            guest, name = str(domain.UUIDString()), str(domain.name())
            if is_canary(name) or "state.state" not in stats:
                continue
            known = self._definition(domain, guest, name, guest in persistent)
            if known is None:
                continue  # gone since
            state = api.state_name(stats["state.state"])
            active = state in ACTIVE_STATES
            now = self._as_it_runs(guest, name) if active else Running(ties=())
            found.append(
                GuestFacts(
                    id=guest,
                    name=name,
                    state=state,
                    reason=api.reason_name(state, stats.get("state.reason", 0)),
                    persistent=guest in persistent,
                    autostart=guest in autostart,
                    managed_save=guest in saved and not active,
                    memory_mib=known.memory_mib,
                    resident_mib=self._held(guest, name, known.memory_mib) if active else 0,
                    vcpus=known.vcpus,
                    page_kib=known.page_kib,
                    digest=known.digest,
                    ties=_tied(now, snapshots=guest in snapshots),
                    cpu=now.cpu.key if now.cpu is not None else "",
                )
            )
        self._keep_only({facts.id for facts in found}, {facts.id for facts in found if facts.active})
        return tuple(sorted(found, key=lambda facts: facts.name))

    def _keep_only(self, guests: set[GuestId], active: set[GuestId]) -> None:
        with self._lock:
            for gone in set(self._known) - guests:
                del self._known[gone]
            for gone in set(self._running) - active:
                del self._running[gone]
            for gone in set(self._resident) - active:
                del self._resident[gone]

    def _held(self, guest: GuestId, name: str, maximum_mib: int) -> int:
        with self._lock:
            before = self._resident.get(guest, 0)
        found = resident_mib(self._layout, name, maximum_mib, before)
        with self._lock:
            self._resident[guest] = found
        return found

    def _as_it_runs(self, guest: GuestId, name: str) -> Running:
        path = self._layout.running / f"{name}.xml"
        stamp = _stamp_of(path)
        with self._lock:
            before, found = self._running.get(guest, ((), Running()))
        if before != stamp or stamp is None:
            found = running.read(path)
            with self._lock:
                self._running[guest] = (stamp, found)
        return found

    def _definition(self, domain: Any, guest: GuestId, name: str, persistent: bool) -> Known | None:
        with self._lock:
            known = self._known.get(guest)
        stamp = self._stamp(name, known.nvram if known else "", persistent, domain)
        if known is not None and known.stamp == stamp:
            return known
        try:
            xml = str(domain.XMLDesc(XML_FLAGS))
        except libvirt.libvirtError as error:
            if api.is_missing(error):
                return None
            raise
        root = ElementTree.fromstring(xml)
        nvram = nvram_path(root)
        stamp = self._stamp(name, nvram, persistent, domain)
        try:
            content = read_nvram(self._layout, nvram) or b""
        except OSError:
            content = b""
        known = Known(
            stamp=stamp,
            memory_mib=memory_mib(root),
            vcpus=int(root.findtext("vcpu") or 1),
            page_kib=page_kib(root),
            digest=digest(xml, content),
            networks=networks(root),
            nvram=nvram,
        )
        with self._lock:
            self._known[guest] = known
        return known

    def _stamp(self, name: str, nvram: str, persistent: bool, domain: Any) -> tuple[object, ...]:
        """libvirt rewrites a domain's file with each change; not every change comes with an event."""
        if not persistent:
            return ("transient", domain.ID())
        file = self._layout.definitions / f"{name}.xml"
        return (_stamp_of(file), _stamp_of(self._layout.at(nvram)) if nvram else None)


def _tied(now: Running, *, snapshots: bool) -> tuple[Tie, ...] | None:
    """What keeps it here; None where that cannot be told."""
    if now.ties is None or not snapshots:
        return now.ties
    return (Tie(kind=TieKind.SNAPSHOT), *now.ties)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _ids(conn: Any, flag: int) -> set[GuestId]:
    return {str(domain.UUIDString()) for domain in conn.listAllDomains(flag)}


def _stats_flags(conn: Any) -> int:
    """Never wait for a job that another call holds; the mock driver knows no flags."""
    return 0 if conn.getType() == "TEST" else int(libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)


def memory_mib(root: ElementTree.Element) -> int:
    """Maximum memory of a definition, rounded up."""
    memory = root.find("memory")
    if memory is None or not memory.text:
        return 0
    kib = int(memory.text) * KIB_OF.get(memory.get("unit", "KiB"), 1)
    return int(-(-kib // 1024))


def page_kib(root: ElementTree.Element) -> int | None:
    """Size of the huge pages under its memory: None = ordinary memory, 0 = the host's default size."""
    asked = root.find("./memoryBacking/hugepages")
    if asked is None:
        return None
    page = asked.find("page")
    return int(int(page.get("size", "0")) * KIB_OF.get(page.get("unit", "KiB"), 1)) if page is not None else 0


def networks(root: ElementTree.Element) -> tuple[str, ...]:
    """`bridge:NAME` and `network:NAME` of a definition's interfaces."""
    found = set()
    for interface in root.findall("./devices/interface"):
        kind, source = interface.get("type", ""), interface.find("source")
        if source is not None and kind in ("bridge", "network") and source.get(kind):
            found.add(f"{kind}:{source.get(kind)}")
    return tuple(sorted(found))
