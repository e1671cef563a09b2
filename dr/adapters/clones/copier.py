"""One copy of a guest's disks, from its beginning to its end: how it goes, and what ends it before.

Not here: what is asked of libvirt for it (`copying`), turns, who wants it (`clones`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from dr.adapters.clones import copying, names
from dr.adapters.clones.copying import Look, Plan
from dr.adapters.clones.folder import Folder
from dr.adapters.clones.host import Host
from dr.adapters.libvirt.layout import Layout
from dr.model.base import GuestId
from dr.model.clones import CloneMade
from dr.ports.clones import CloneError

LOOK_S = 0.2
PLAN_S = 30.0
BEGIN_S = 60.0
ABORT_S = 20.0


class Copier:
    """Copies into one folder."""

    def __init__(self, host: Host, folder: Folder, layout: Layout) -> None:
        self._host = host
        self._folder = folder
        self._layout = layout

    async def plan(self, guest: GuestId) -> Plan:
        """What there is to copy. Raises CloneError where it cannot be cloned now, HypervisorUnknown."""
        layout = self._layout
        return await self._host.call("look at it", lambda conn: copying.plan(conn, layout, guest), PLAN_S)

    async def copy(self, drill: str, plan: Plan, disk_mib: int, stop: Callable[[], str]) -> CloneMade:
        """Until it is whole. `stop`: why it has to end, once it has to. Raises CloneError, HypervisorUnknown.

        Where it fails no job of it is left, and its files are; the caller removes them.
        """
        began = time.monotonic()
        folder, guest = self._folder, plan.guest
        await self.require_room(drill, disk_mib, plan.used_mib)
        if why := stop():
            raise CloneError(why)
        try:
            await self._host.call("begin", lambda conn: copying.begin(conn, folder, drill, plan), BEGIN_S)
            point = time.time()
            if plan.source.disks:
                await self._follow(drill, guest, disk_mib, stop)
        except BaseException:
            await self.abort(drill, guest)
            raise
        size = await self._host.files("tell its size", lambda: folder.used_b(drill, guest))
        return CloneMade(
            guest=guest,
            clone=names.clone_id(drill, guest),
            domain=names.domain_name(drill, plan.name),
            point=point,
            took_s=time.monotonic() - began,
            size_b=size,
            left_out=plan.source.left_out,
        )

    async def _follow(self, drill: str, guest: GuestId, disk_mib: int, stop: Callable[[], str]) -> None:
        elapsed_ms, pause_s = 0, LOOK_S / 4  # a small one is done at once
        while True:
            look = await self._look(drill, guest, elapsed_ms)
            if look.why:
                raise CloneError(look.why)
            await self.require_room(drill, disk_mib)
            if not look.under_way:
                return
            if why := stop():
                raise CloneError(why)
            elapsed_ms = look.elapsed_ms
            await asyncio.sleep(pause_s)
            pause_s = LOOK_S

    async def _look(self, drill: str, guest: GuestId, elapsed_ms: int) -> Look:
        folder = self._folder
        return await self._host.call(
            "tell how far it is", lambda conn: copying.look(conn, folder, drill, guest, elapsed_ms)
        )

    async def require_room(self, drill: str, disk_mib: int, more_mib: int = 0) -> None:
        """What fills a file system has writes of others fail too. Raises CloneError, HypervisorUnknown."""
        folder = self._folder

        def look() -> tuple[int, int]:
            return folder.free_mib(), folder.used_b(drill) >> 20

        free, used = await self._host.room(look)
        wants = f", and its disks take {more_mib} MiB or more" if more_mib else ""
        if free < more_mib or free <= 0:
            raise CloneError(
                f"{folder.path} has room for {max(0, free)} MiB beside its reserve{wants}:"
                " free some, or set clones_dir in /etc/dr/agent.yaml"
            )
        if disk_mib and used + more_mib > disk_mib:
            raise CloneError(
                f"the drill may use {disk_mib} MiB of disk on this host; {used} MiB are used{wants}"
            )

    async def abort(self, drill: str, guest: GuestId) -> None:
        """End our backup job of it, if there is one; `drill` empty: of whatever drill.

        Raises CloneError if it does not end, HypervisorUnknown.
        """
        folder = self._folder
        until = time.monotonic() + ABORT_S
        while await self._host.call("end it", lambda conn: copying.abort(conn, folder, drill, guest)):
            if time.monotonic() > until:
                raise CloneError(f"libvirt's backup of {guest} did not end: `virsh domjobabort {guest}`")
            await asyncio.sleep(LOOK_S)
