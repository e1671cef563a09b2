"""`ports.clones.Clones` for a real host: which drills there are here, and the life of each of their clones.

A drill does not outlive this process. Its network goes with it, its domains do as libvirt ends what a connection
started with AUTODESTROY, and what else is left, images and a copy under way, is found by name and removed by the first
sweep of the next process; so nothing of a drill is written down. Copying is in `copier`, what goes on inside of
libvirt in `copying` and `domains`, the network in `bubble`, files in `folder`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dr.adapters.clones import copying, domains, kept, names
from dr.adapters.clones.bubble import Bubble
from dr.adapters.clones.copier import Copier
from dr.adapters.clones.copying import Plan
from dr.adapters.clones.folder import Folder
from dr.adapters.clones.host import Host
from dr.adapters.libvirt.layout import Layout
from dr.adapters.probe.checker import GuestChecker
from dr.model.base import GuestId
from dr.model.checks import CheckResult, Reached, Running
from dr.model.clones import BubbleSeen, CloneMade, DrillEnd, Kept
from dr.ports.clones import CloneError
from dr.ports.hypervisor import HypervisorUnknown

log = logging.getLogger(__name__)

T = TypeVar("T")

FOLDER = Path("/var/lib/dr/clones")
COPIES_MAX = 4  # at once: more of them would only slow the guests' own disks down
DRILLS_MAX = 8
CLONES_MAX = 64  # of one drill on one host
ENDS_MAX = 64  # that are remembered, for who did not hear of it
LOOK_S = 0.2
BOOT_S = 60.0
GIVE_WAY_S = 30.0
DESTROY_S = 60.0
UNDER_WAY_S = 75.0  # an end waits so long for what is under way: longer than each of the calls above
CLOSE_S = 8.0


@dataclass
class _Copy:
    """One clone. `stop`: why its copy has to end, once it has to."""

    guest: GuestId
    name: str
    task: asyncio.Task[CloneMade]
    plan: Plan | None = None
    waits: bool = False  # for its turn
    stop: str = ""
    booting: asyncio.Lock = field(default_factory=asyncio.Lock)
    booted: bool = False
    told: bool = False  # that it failed: who asks again wants another


@dataclass
class _Drill:
    """What there is of a drill."""

    id: str
    until: float
    copies: dict[GuestId, _Copy] = field(default_factory=dict)
    boots: set[asyncio.Task[None]] = field(default_factory=set)  # under way
    checks: set[asyncio.Task[tuple[CheckResult, ...]]] = field(default_factory=set)
    making: asyncio.Lock = field(default_factory=asyncio.Lock)  # of its network
    ending: asyncio.Lock = field(default_factory=asyncio.Lock)
    disk_mib: int = 0  # that it may use here; 0: what is free, but for a reserve
    watch: asyncio.Task[None] | None = None  # over what its clones write
    ended: bool = False
    bubble: Bubble | None = None
    taps: set[str] = field(default_factory=set)
    ports: set[str] = field(default_factory=set)  # ever seen in its network
    seen: BubbleSeen | None = None  # once that was taken apart
    gone: list[str] = field(default_factory=list)  # what was removed, also by an end that failed


class HostClones:
    """Connects to libvirt by itself, on a connection of its own that its clones end with."""

    def __init__(
        self,
        host: str,
        *,
        uri: str = "qemu:///system",
        folder: Path = FOLDER,
        layout: Layout | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._layout = layout or Layout()
        self._folder = Folder(folder, host)
        self._clock = clock
        self._host = Host(uri)
        self._copier = Copier(self._host, self._folder, self._layout)
        self._turns = asyncio.Semaphore(COPIES_MAX)
        self._drills: dict[str, _Drill] = {}
        self._ends: dict[str, DrillEnd] = {}
        self._whys: dict[str, str] = {}  # why this host itself ended them
        self._sweeping = asyncio.Lock()
        self._clean = False  # of what an earlier process left
        self._unclean = ""  # why not
        self._closed = False
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """See the port."""
        return self._trouble

    def owns(self, guest: GuestId) -> bool:
        """See the port. By the id alone: also of another process' clones."""
        return names.is_clone(guest)

    # ---- copying

    async def make(self, drill: str, guest: GuestId, name: str, *, disk_mib: int, life_s: float) -> CloneMade:
        """See the port."""
        names.require_drill(drill)
        names.require_guest(guest)
        if not self._clean:
            await self.sweep()
        if not self._clean:
            raise CloneError(self._unclean)
        found = self._known(drill, life_s)
        found.disk_mib = disk_mib
        copy = found.copies.get(guest)
        failed = copy is not None and copy.task.done() and copy.task.exception() is not None
        if copy is None or (failed and copy.told):
            if copy is None and len(found.copies) >= CLONES_MAX:
                raise CloneError(f"the drill has {CLONES_MAX} clones on this host, and more are not made")
            task = asyncio.create_task(self._make(found, guest, disk_mib))
            task.add_done_callback(_heard)
            copy = found.copies[guest] = _Copy(guest, name, task)
        try:
            return await asyncio.shield(copy.task)
        except CloneError as error:
            copy.told = True
            raise CloneError(f"{name} cannot be cloned: {error}") from error

    def _known(self, drill: str, life_s: float) -> _Drill:
        if drill in self._ends or self._closed:
            raise CloneError(self._why(drill))
        found = self._drills.get(drill)
        if found is None:
            if len(self._drills) >= DRILLS_MAX:
                raise CloneError(f"{DRILLS_MAX} drills are under way on this host, and more are not begun")
            found = self._drills[drill] = _Drill(drill, self._clock() + life_s)
        if found.ended:
            raise CloneError(self._why(drill))
        return found

    async def _make(self, drill: _Drill, guest: GuestId, disk_mib: int) -> CloneMade:
        copy = drill.copies[guest]
        copy.waits = True
        try:
            await self._turns.acquire()
        except asyncio.CancelledError:
            raise CloneError(copy.stop or "the agent stops") from None
        copy.waits = False
        try:
            copy.plan = plan = await self._copier.plan(guest)
            return await self._copier.copy(drill.id, plan, disk_mib, lambda: copy.stop)
        except Exception:
            await self._host.files("remove a copy", lambda: self._folder.remove(drill.id, guest))
            raise
        finally:
            self._turns.release()

    async def give_way(self, guest: GuestId) -> None:
        """See the port."""
        for drill in list(self._drills.values()):
            copy = drill.copies.get(guest)
            if copy is not None and not copy.task.done():
                self._stop(copy, "the copy gave way to an order about the guest itself")
                await asyncio.wait({copy.task}, timeout=GIVE_WAY_S)

    def copies(self, guest: GuestId) -> bool:
        """See the port."""
        return any(
            (copy := drill.copies.get(guest)) is not None and not copy.task.done()
            for drill in self._drills.values()
        )

    @staticmethod
    def _stop(copy: _Copy, why: str) -> None:
        copy.stop = copy.stop or why
        if copy.waits:
            copy.task.cancel()

    # ---- running

    async def boot(self, drill: str, guest: GuestId, *, address: str) -> None:
        """See the port."""
        found, copy = self._whole(drill, guest)
        task = asyncio.create_task(self._boot(found, copy, address))
        _remember(found.boots, task)
        try:
            await asyncio.shield(task)
        except CloneError as error:
            raise CloneError(f"the clone of {copy.name} was not started: {error}") from error

    def _whole(self, drill: str, guest: GuestId) -> tuple[_Drill, _Copy]:
        """Raises CloneError."""
        found = self._drills.get(drill)
        if found is None or found.ended:
            raise CloneError(
                self._why(drill, "the drill has ended here, or its agent was restarted, which ends it")
            )
        copy = found.copies.get(guest)
        if copy is None or not copy.task.done() or copy.task.exception() is not None:
            raise CloneError("there is no whole copy of it here")
        return found, copy

    def _why(self, drill: str, else_: str = "the drill has ended here") -> str:
        return self._whys.get(drill, else_)

    async def _boot(self, drill: _Drill, copy: _Copy, address: str) -> None:
        assert copy.plan is not None
        made = copy.task.result()
        async with copy.booting:
            if copy.booted:
                if await self._host.call("see it run", lambda conn: domains.is_active(conn, made.clone)):
                    return
                raise CloneError("it ran and has ended")
            bubble = await self._bubble(drill, address)
            where = self._folder.of(drill.id, copy.guest)
            xml, taps = domains.clone_xml(copy.plan, made, where)
            drill.taps |= set(taps)
            layout = self._layout

            def connect() -> None:  # perhaps long after anybody waits for it
                if drill.ended:
                    raise CloneError("the drill has ended")
                bubble.take(taps)

            def start(conn: Any) -> None:
                domains.start(conn, layout, xml, made, connect)

            copy.booted = True
            if drill.watch is None:
                drill.watch = asyncio.create_task(self._watch_room(drill))
            try:
                await self._host.call("start it", start, BOOT_S)
            except CloneError:
                copy.booted = False
                raise
            drill.ports |= set(await self._host.files("look at its network", bubble.links))

    async def _watch_room(self, drill: _Drill) -> None:
        """A clone that runs writes too: before it fills the file system, or its bound, the drill ends here."""
        while not drill.ended:
            try:
                await self._copier.require_room(drill.id, drill.disk_mib)
            except HypervisorUnknown:
                pass  # looked at again
            except CloneError as error:
                if drill.ended:
                    return  # its files are being removed
                log.warning("drill %s is ended here: %s", drill.id, error)
                self._whys[drill.id] = f"the drill was ended here: {error}"
                await self._end_quietly(drill.id)
                return
            await asyncio.sleep(LOOK_S)

    async def _bubble(self, drill: _Drill, address: str) -> Bubble:
        async with drill.making:
            if drill.bubble is None:
                bridge = names.bridge_name(drill.id)
                drill.bubble = await self._host.files("make its network", lambda: Bubble(bridge))
            bubble = drill.bubble
            await self._host.files("give its network an address", lambda: bubble.require_address(address))
            return bubble

    def clone_of(self, drill: str, guest: GuestId) -> GuestId:
        """See the port."""
        _, copy = self._whole(drill, guest)
        if not copy.booted:
            raise CloneError("no clone of it was started here")
        return names.clone_id(drill, guest)

    async def check(
        self, drill: str, guest: GuestId, check: Reached | Running, window_s: float
    ) -> CheckResult:
        """See the port."""
        clone = self.clone_of(drill, guest)
        if isinstance(check, Running):
            began, why = self._clock(), await self._running(clone, window_s)
            return CheckResult(check=check, passed=not why, why=why, took_s=self._clock() - began)
        found = self._drills[drill]
        assert found.bubble is not None, "whatever was started has its network"
        task = asyncio.create_task(GuestChecker(sockets=found.bubble.socket).check((check,), window_s))
        _remember(found.checks, task)
        try:
            (result,) = await task
        except asyncio.CancelledError:
            if found.ended:
                raise CloneError(self._why(drill)) from None
            raise
        return result

    async def _running(self, clone: GuestId, window_s: float) -> str:
        until = self._clock() + window_s
        while not await self._host.call("see it run", lambda conn: domains.runs(conn, clone)):
            if self._clock() >= until:
                return "its CPUs do not run"
            await asyncio.sleep(LOOK_S)
        return ""

    # ---- ending

    async def end(self, drill: str) -> DrillEnd:
        """See the port. Who did not hear of its end is told again what was told then."""
        names.require_drill(drill)
        found = self._drills.get(drill)
        if found is None:
            if drill in self._ends:
                return self._ends[drill]
            found = self._drills[drill] = _Drill(drill, self._clock())
        found.ended = True
        async with found.ending:
            if drill not in self._drills:
                return self._ends[drill]
            return await self._end(found)

    async def _end(self, drill: _Drill) -> DrillEnd:
        under_way = self._call_off(drill)
        try:  # what runs ends at once, whatever else of it hangs: its memory may be needed
            if drill.bubble is not None:
                drill.seen = await self._look_at(drill, drill.bubble)
        except (CloneError, HypervisorUnknown) as error:
            log.warning("what hung on the network of drill %s is not known: %s", drill.id, error)
        try:
            await self._destroy(drill)
        except (CloneError, HypervisorUnknown) as error:
            log.warning("drill %s: %s; tried again", drill.id, error)
        await self._quiet(drill, under_way)
        await self._destroy(drill)  # also what was being started
        if drill.bubble is not None:
            await self._host.files("take its network apart", drill.bubble.close)
            drill.gone.append(f"network {drill.bubble.bridge}")
            drill.bubble = None
        for guest in drill.copies:
            await self._copier.abort(drill.id, guest)
        drill.gone += [f"file {path}" for path in await self._remove(drill.id)]
        proofs = [await self._kept(copy.plan) for copy in drill.copies.values() if copy.plan is not None]
        ended = DrillEnd(
            kept=tuple(proofs), bubble=drill.seen, removed=tuple(drill.gone), why=self._whys.get(drill.id, "")
        )
        del self._drills[drill.id]
        self._ends[drill.id] = ended
        while len(self._ends) > ENDS_MAX:
            first = next(iter(self._ends))
            del self._ends[first]
            self._whys.pop(first, None)
        return ended

    async def _destroy(self, drill: _Drill) -> None:
        mark = names.of_drill(drill.id)
        gone = await self._host.call("end its clones", lambda conn: domains.destroy(conn, mark), DESTROY_S)
        drill.gone += [f"domain {name}" for name in gone]

    def _call_off(self, drill: _Drill) -> set[asyncio.Task[Any]]:
        """What is under way of it, and ends from now on."""
        for copy in drill.copies.values():
            if not copy.task.done():
                self._stop(copy, self._why(drill.id, "the drill has ended"))
        for check in drill.checks:
            check.cancel()
        tasks: set[asyncio.Task[Any]] = {copy.task for copy in drill.copies.values()}
        return tasks | drill.boots | drill.checks

    async def _quiet(self, drill: _Drill, tasks: set[asyncio.Task[Any]]) -> None:
        """None of them is under way any more. Raises CloneError."""
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=UNDER_WAY_S)
            if late:
                raise CloneError(f"{len(late)} copies or starts of drill {drill.id} do not end")

    async def _look_at(self, drill: _Drill, bubble: Bubble) -> BubbleSeen:
        drill.ports |= set(await self._host.files("look at its network", bubble.links))
        return BubbleSeen(
            bridge=bubble.bridge,
            ports=tuple(sorted(drill.ports)),
            strangers=tuple(sorted(drill.ports - drill.taps)),
        )

    async def _kept(self, plan: Plan) -> Kept:
        layout = self._layout
        return await self._host.call(
            f"look at {plan.name}",
            lambda conn: kept.look(conn, layout, plan.guest, plan.name, plan.before),
        )

    async def _remove(self, drill: str) -> tuple[str, ...]:
        return await self._host.files("remove its images", lambda: self._folder.remove(drill))

    async def sweep(self) -> None:
        """See the port."""
        async with self._sweeping:
            trouble = []
            if not self._clean:
                try:
                    await self._sweep_first()
                    self._clean = True
                except (CloneError, HypervisorUnknown) as error:
                    self._unclean = f"what an earlier agent left of drills could not be removed: {error}"
                    if isinstance(error, CloneError) or await self._any_files():
                        trouble.append(self._unclean)  # else libvirt is silent, which is told as it is
            now = self._clock()
            for drill in list(self._drills.values()):
                if drill.ended or now >= drill.until:
                    log.info("drill %s is over here: it is removed", drill.id)
                    try:
                        await self.end(drill.id)
                    except (CloneError, HypervisorUnknown) as error:
                        trouble.append(f"drill {drill.id} could not be removed: {error}")
            text = "; ".join(trouble)
            if text and text != self._trouble:
                log.warning("%s", text)
            self._trouble = text

    async def _any_files(self) -> bool:
        """Of drills, or nobody can say."""
        try:
            return bool(await self._host.files("list drills", self._folder.drills))
        except (CloneError, HypervisorUnknown):
            return True

    async def _sweep_first(self) -> None:
        folder = self._folder
        left = await self._host.call("see what is copied", lambda conn: copying.left_under_way(conn, folder))
        for guest in left:
            log.warning("the copy of %s for an earlier agent's drill is ended", guest)
            await self._copier.abort("", guest)
        gone = await self._host.call(
            "end clones of an earlier agent", lambda conn: domains.destroy(conn, names.MARK), DESTROY_S
        )
        for name in gone:
            log.warning("%s, a clone of an earlier agent's drill, is destroyed", name)
        for drill in await self._host.files("list drills", folder.drills):
            await self._remove(drill)
            log.warning("the images of drill %s of an earlier agent are removed", drill)

    async def close(self) -> None:
        """See the port."""
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*(self._end_quietly(drill) for drill in list(self._drills)))
        except TimeoutError:
            log.warning("drills are still being removed; the next agent removes what is left of them")
        self._host.close()

    async def _end_quietly(self, drill: str) -> None:
        try:
            await self.end(drill)
        except (CloneError, HypervisorUnknown) as error:
            log.warning("drill %s: %s; the next agent removes what is left of it", drill, error)


def _remember(tasks: set[asyncio.Task[T]], task: asyncio.Task[T]) -> None:
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(_heard)


def _heard(task: asyncio.Task[Any]) -> None:
    """Its failure is told to who waits for it, if anybody still does."""
    if not task.cancelled():
        task.exception()
