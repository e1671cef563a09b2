"""What the agent sees on its host, kept fresh: facts, guests, health.

Here: when each part is read again, what stands in a report, readings about the agent itself.
Not here: how they are read (`dr.ports.hypervisor`), sending (`dr.agent.process`).

Nothing here delays the link. While libvirt does not answer, the last known facts stand, guests are not told, and a
critical reading "libvirt" says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dr import __version__
from dr.agent.hook import Hook
from dr.model.base import BootId, Record, changed
from dr.model.facts import DirtySample, GuestFacts, HostFacts, Level, Progress, Reading
from dr.model.wire import Report
from dr.ports.hypervisor import HostHealth, Hypervisor, HypervisorError, HypervisorUnknown

log = logging.getLogger("dr.agent.reporter")

READS_MAX = 3  # of guests in a row: then they are told, whatever happened meanwhile

T = TypeVar("T")


class Rhythm(Record):
    """How often each part is read, and how long that may take."""

    guests_s: float = 5.0
    facts_s: float = 30.0
    health_s: float = 10.0
    gap_s: float = 0.1  # after each read of guests and each report: bursts of events become one
    call_s: float = 10.0


class Reporter:
    """The newest view of this host."""

    def __init__(
        self,
        boot_id: BootId,
        *,
        hypervisor: Hypervisor,
        host_health: HostHealth,
        hook: Hook,
        own: Callable[[], tuple[Reading, ...]],
        parts: Callable[
            [tuple[GuestFacts, ...]], Awaitable[tuple[GuestFacts, ...]]
        ],  # adds parts in migrations
        moves: Callable[[], tuple[Progress, ...]],
        samples: Callable[[], tuple[DirtySample, ...]],
        clock: Callable[[], float],
        tell: Callable[[tuple[GuestFacts, ...]], tuple[GuestFacts, ...]],  # adds what only the agent knows
        rhythm: Rhythm,
    ) -> None:
        self._hypervisor = hypervisor
        self._host_health = host_health
        self._hook = hook
        self._boot_id = boot_id
        self._own = own
        self._parts = parts
        self._moves = moves
        self._samples = samples
        self._clock = clock
        self._tell = tell
        self._rhythm = rhythm
        self._facts = HostFacts(boot_id=boot_id)
        self._guests: tuple[GuestFacts, ...] = ()  # as libvirt last told them
        self._cpus: set[str] = set()  # that guests were last told to run with
        self._readings: dict[str, tuple[Reading, ...]] = {}
        self._silent: dict[str, str] = {
            "guests": "libvirt has not told its guests yet"
        }  # what it does not tell, and why
        self._wanted = {part: asyncio.Event() for part in ("guests", "facts", "health")}
        self.changed = asyncio.Event()

    @property
    def gap_s(self) -> float:
        return self._rhythm.gap_s

    # ---- what there is to tell

    @property
    def facts(self) -> HostFacts:
        hook = self._hook.state
        live = self._facts.live_migration and hook.proven
        return changed(
            self._facts, boot_id=self._boot_id, agent_version=__version__, hook=hook, live_migration=live
        )

    @property
    def guests(self) -> tuple[GuestFacts, ...] | None:
        """None while libvirt does not tell: never to be taken for an empty host."""
        return None if "guests" in self._silent else self._tell(self._guests)

    @property
    def health(self) -> tuple[Reading, ...]:
        parts = {reading.part: reading for readings in self._readings.values() for reading in readings}
        if self._silent:
            why = "; ".join(dict.fromkeys(self._silent.values()))
            parts["libvirt"] = Reading(part="libvirt", level=Level.CRITICAL, reason=why)
        parts.update((reading.part, reading) for reading in self._own())
        return tuple(parts[part] for part in sorted(parts))

    def snapshot(self) -> Report:
        """Everything."""
        return Report(
            facts=self.facts,
            guests=self.guests,
            health=self.health,
            moves=self._moves(),
            samples=self._samples(),
            clock_s=round(self._clock(), 1),
        )

    @staticmethod
    def difference(told: Report, now: Report) -> Report | None:
        """The parts that changed, and the samples that are new; None if nothing is."""
        before = told.samples or ()
        new = tuple(sample for sample in now.samples or () if sample not in before)
        report = Report(
            facts=now.facts if now.facts != told.facts else None,
            guests=now.guests if now.guests != told.guests else None,  # falling silent is told by the reading
            health=now.health if now.health != told.health else None,
            moves=now.moves if now.moves != told.moves else None,
            samples=new or None,
        )
        return None if report == Report() else changed(report, clock_s=now.clock_s)

    # ---- reading

    def refresh(self, *parts: str) -> None:
        """Read these parts again now (default: guests)."""
        for part in parts or ("guests",):
            self._wanted[part].set()

    async def first(self, patience_s: float) -> None:
        """Look at everything once; if that takes longer than `patience_s`, go on without."""
        reads = [self._read_facts(), self._read_guests(), self._read_health(), self._hook.ensure()]
        tasks = [asyncio.ensure_future(read) for read in reads]
        _, late = await asyncio.wait(tasks, timeout=patience_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def run(self) -> None:
        """Keep all parts fresh. Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep("guests", self._rhythm.guests_s, self._read_guests))
            group.create_task(self._keep("facts", self._rhythm.facts_s, self._read_facts))
            group.create_task(self._keep("health", self._rhythm.health_s, self._read_health))
            group.create_task(self._hook.run())
            group.create_task(self._follow_events())

    async def _keep(self, part: str, every_s: float, read: Callable[[], Awaitable[None]]) -> None:
        wanted = self._wanted[part]
        while True:
            wanted.clear()
            await read()
            await asyncio.sleep(self._rhythm.gap_s)
            try:
                async with asyncio.timeout(every_s):
                    await wanted.wait()
            except TimeoutError:
                continue

    async def _read_facts(self) -> None:
        facts = await self._ask("facts", self._hypervisor.facts)
        self._facts = facts if facts is not None else self._facts
        self.changed.set()

    async def _read_guests(self) -> None:
        """What ended while libvirt was telling is read again first: told as running, it would seem to run twice."""
        guests = None
        for _ in range(READS_MAX):
            self._wanted["guests"].clear()
            guests = await self._ask("guests", self._hypervisor.guests)
            if not self._wanted["guests"].is_set():
                break
        if guests is not None:
            self._guests = tuple(sorted(await self._parts(guests), key=lambda guest: guest.id))
            running = {guest.cpu for guest in guests if guest.cpu}
            if running - self._cpus:
                self.refresh("facts")  # which tell what is meant
            self._cpus = running
        self.changed.set()

    async def _read_health(self) -> None:
        readings = await self._ask("health", self._hypervisor.health)
        if readings is not None:
            self._readings["libvirt"] = readings
        try:
            async with asyncio.timeout(self._rhythm.call_s):
                self._readings["host"] = await self._host_health.health()
        except Exception as error:
            log.exception("reading the host's health failed")
            self._readings["host"] = (
                Reading(part="host", level=Level.WARN, reason=f"its health could not be read: {error!r}"),
            )
        self.changed.set()

    async def _ask(self, part: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """libvirt's answer, or None and the reason noted."""
        try:
            async with asyncio.timeout(self._rhythm.call_s):
                answer = await call()
        except TimeoutError:
            why = f"libvirt did not answer within {self._rhythm.call_s:g} s"
        except (HypervisorError, HypervisorUnknown) as error:
            why = f"libvirt does not answer: {error}"
        except Exception as error:
            log.exception("reading %s failed", part)
            why = f"reading {part} from libvirt failed: {error!r}"
        else:
            if self._silent.pop(part, None):
                log.info("libvirt tells %s again", part)
            return answer
        if part not in self._silent:
            log.warning("%s: %s", part, why)
        self._silent[part] = why
        return None

    async def _follow_events(self) -> None:
        while True:
            try:
                async for event in self._hypervisor.events():
                    log.info(
                        "libvirt: %s %s %s", event.name or event.guest or "host", event.kind, event.detail
                    )
                    if event.kind == "reconnected":
                        self._hook.stale()  # a new libvirtd: the hook is proven anew before anything starts
                        self.refresh("guests", "facts", "health")
                    else:
                        self.refresh("guests")
            except Exception as error:
                log.warning("events of libvirt ended: %r", error)
            await asyncio.sleep(1.0)
