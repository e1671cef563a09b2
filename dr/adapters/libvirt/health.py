"""Readings that need libvirt: the daemon, its storage pools, the networks that protected guests hang on."""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from dr.adapters.health.trials import Ended, Hangs, Trials
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.mounts import machine_id
from dr.model.facts import Level, Reading

SLOW_LIBVIRT_S = 1.0
SLOW_POOL_S = 2.0
HUNG_POOL_S = 5.0
POOLS_EVERY_S = 10.0
FOLDER_POOLS = frozenset({"dir", "fs", "netfs", "vstorage"})
DEVICE_POOLS = frozenset({"logical", "disk", "iscsi", "scsi", "mpath"})
BROKEN = (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ETIMEDOUT, errno.EROFS)
IFF_UP = 0x1  # linux/if.h


@dataclass(frozen=True)
class ActivePool:
    """An active pool: `path` is the folder, or the device of one of its volumes; empty when there is none to try."""

    name: str
    kind: str
    path: str


def active_pools(conn: Any) -> list[ActivePool]:
    """Raises libvirt's error."""
    found = []
    for pool in conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        root = ElementTree.fromstring(pool.XMLDesc(0))
        kind = root.get("type", "")
        path = root.findtext("./target/path") or "" if kind in FOLDER_POOLS else ""
        if kind in DEVICE_POOLS:
            path = next((str(volume.path()) for volume in pool.listAllVolumes(0)), "")
        found.append(ActivePool(name=str(pool.name()), kind=kind, path=path))
    return found


def write_pool(layout: Layout, path: str) -> None:
    """Write, sync and remove a small file. Raises OSError."""
    file = layout.at(path) / f".dr-health-{machine_id(layout)[:12]}-{os.getpid()}"
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(handle, b"dr tests that this pool can be written; safe to delete\n")
            os.fsync(handle)
        finally:
            os.close(handle)
    finally:
        file.unlink(missing_ok=True)


def read_pool(layout: Layout, path: str) -> None:
    """Read 4 KiB of a volume past the page cache. Raises OSError."""
    handle = os.open(layout.at(path), os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 4096) as page:
            os.readv(handle, [page])
    finally:
        os.close(handle)


class PoolTrials:
    """Tries pools every POOLS_EVERY_S; a pool that hangs holds one thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._trials: Trials[None] = Trials()
        self._last: dict[str, tuple[float, Reading]] = {}

    async def readings(self, pools: Iterable[ActivePool]) -> list[Reading]:
        """One reading per pool that can be tried; waits at most SLOW_POOL_S."""
        wanted = {pool.name: pool for pool in pools if pool.path}
        now = time.monotonic()
        kept = {
            name: (at, reading)
            for name, (at, reading) in self._last.items()
            if name in wanted and now - at < POOLS_EVERY_S
        }
        jobs = {name: partial(self._try, pool) for name, pool in wanted.items() if name not in kept}
        for name, end in (await self._trials.run(jobs, SLOW_POOL_S)).items():
            reading = pool_reading(wanted[name], end)
            self._last[name] = kept[name] = (now, reading)
            if isinstance(end, Hangs):
                del self._last[name]  # look again at once, for how long it hangs
        return [reading for _, (_, reading) in sorted(kept.items())]

    def _try(self, pool: ActivePool) -> None:
        (write_pool if pool.kind in FOLDER_POOLS else read_pool)(self._layout, pool.path)


def pool_reading(pool: ActivePool, end: Ended[None] | Hangs) -> Reading:
    """What the trial of a pool says."""
    part, verb = f"storage:{pool.name}", "written" if pool.kind in FOLDER_POOLS else "read"
    if isinstance(end, Hangs):
        level = Level.CRITICAL if end.for_s >= HUNG_POOL_S else Level.WARN
        return Reading(part=part, level=level, reason=f"{pool.path} has not answered for {end.for_s:.0f} s.")
    if end.error is not None:
        number = end.error.errno if isinstance(end.error, OSError) else None
        return Reading(
            part=part,
            level=Level.CRITICAL if number in BROKEN else Level.WARN,
            reason=f"{pool.path} cannot be {verb}: {os.strerror(number) if number else end.error}.",
        )
    if end.took_s > SLOW_POOL_S:
        return Reading(
            part=part, level=Level.WARN, reason=f"{pool.path} took {end.took_s:.1f} s to be {verb}."
        )
    return Reading(part=part, level=Level.OK)


def libvirt_reading(answer_s: float | None, silent_s: float, why: str) -> Reading:
    """`answer_s` is None when libvirt did not answer, for `silent_s` by now."""
    if answer_s is None:
        level = Level.CRITICAL if silent_s > 15 else Level.WARN
        return Reading(
            part="libvirt",
            level=level,
            reason=f"libvirt has not answered for {silent_s:.0f} s: {why.rstrip('.')}.",
        )
    if answer_s > SLOW_LIBVIRT_S:
        return Reading(part="libvirt", level=Level.WARN, reason=f"libvirt took {answer_s:.1f} s to answer.")
    return Reading(part="libvirt", level=Level.OK)


def network_readings(layout: Layout, needed: dict[str, str], networks: dict[str, str]) -> list[Reading]:
    """`needed`: "bridge:NAME" or "network:NAME" -> a guest that needs it; `networks`: active ones -> their bridge."""
    found = []
    for name, guest in sorted(needed.items()):
        kind, _, which = name.partition(":")
        bridge = which if kind == "bridge" else networks.get(which)
        if bridge is None:
            sentence = f"network {which}, which {guest} needs, is not active: `virsh net-start {which}`."
        else:
            sentence = _bridge_trouble(layout, bridge, guest)
        level = Level.CRITICAL if sentence else Level.OK
        found.append(Reading(part=name, level=level, reason=sentence))
    return found


def _bridge_trouble(layout: Layout, bridge: str, guest: str) -> str:
    """Empty when the bridge is up and, if it has uplinks, one of them has a carrier."""
    if not bridge:
        return ""  # a network without a bridge (a pool of devices): nothing to look at
    device = layout.sys / "class/net" / bridge
    flags = _text(device / "flags")
    if not flags:
        return f"bridge {bridge}, which {guest} needs, does not exist."
    if not int(flags, 16) & IFF_UP:
        return f"bridge {bridge}, which {guest} needs, is down: `ip link set {bridge} up`."
    uplinks = [port for port in _ports(device) if (layout.sys / "class/net" / port / "device").exists()]
    if uplinks and all(_text(layout.sys / "class/net" / port / "carrier") != "1" for port in uplinks):
        return f"bridge {bridge}, which {guest} needs, has no carrier on {', '.join(uplinks)}."
    return ""


def _ports(bridge: Path) -> list[str]:
    """Interfaces in a bridge, and those in a bond among them; taps of guests have no `device`."""
    try:
        ports = [path.name for path in (bridge / "brif").iterdir()]
    except OSError:
        return []
    slaves = [name for port in ports for name in _text(bridge.parent / port / "bonding/slaves").split()]
    return sorted(ports + slaves)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def bridges_of_networks(conn: Any) -> dict[str, str]:
    """Active libvirt networks and the bridge of each (empty: none). Raises libvirt's error."""
    found = {}
    for network in conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE):
        root = ElementTree.fromstring(network.XMLDesc(0))
        bridge = root.find("bridge")
        found[str(network.name())] = bridge.get("name", "") if bridge is not None else ""
    return found
