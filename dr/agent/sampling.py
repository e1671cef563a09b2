"""Measures now and then how fast protected guests that run here make memory dirty.

Here: who is measured when. Each guest by itself every ten to fifteen minutes, at moments of its own, and soon after it
began to run or was asked for; few at once, so that a host of hundreds of guests notices nothing. A guest that a ticket
is about, or that is in a migration, is left alone. Not here: how it is measured (`dr.ports.hypervisor`), what is made
of it (`dr.core.ladder`). Nothing waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from dr.agent.journal import Journal
from dr.agent.reporter import Reporter
from dr.core import warden
from dr.model.base import GuestId, Record
from dr.model.facts import DirtySample, Part
from dr.ports.hypervisor import Hypervisor, HypervisorError, HypervisorUnknown

log = logging.getLogger("dr.agent.sampling")


class Pace(Record):
    """How often, in seconds."""

    every_s: float = 900.0  # each guest anew after two thirds of this to the whole of it
    first_s: float = 60.0  # after it was first seen to run, at the latest, while few others wait
    again_s: float = 60.0  # after it could not be measured
    look_s: float = 1.0
    at_once: int = 12  # for some 33 s each: enough for 270 guests on a host


class Sampling:
    """The newest samples of those that run here."""

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        journal: Journal,
        reporter: Reporter,
        busy: Callable[[GuestId], bool],  # whether a ticket is about that guest
        clock: Callable[[], float],
        jitter: Callable[[], float],
        pace: Pace,
    ) -> None:
        self._hypervisor = hypervisor
        self._journal = journal
        self._reporter = reporter
        self._busy = busy
        self._clock = clock
        self._jitter = jitter
        self._pace = pace
        self._due: dict[GuestId, float] = {}  # of all that run here and are protected
        self._wanted: set[GuestId] = set()  # that somebody asked for since the last look
        self._found: dict[GuestId, DirtySample] = {}
        self._under_way: dict[GuestId, asyncio.Task[None]] = {}

    @property
    def samples(self) -> tuple[DirtySample, ...]:
        return tuple(self._found.values())

    def soon(self, guests: Iterable[GuestId]) -> None:
        """Those of them that run here are next."""
        self._wanted = {*guests}

    async def run(self) -> None:
        """Runs until cancelled."""
        try:
            while True:
                self._look()
                await asyncio.sleep(self._pace.look_s)
        finally:
            for task in self._under_way.values():
                task.cancel()

    def _look(self) -> None:
        """Who runs here now, and whose turn it is."""
        now, guests = self._clock(), self._reporter.guests
        if guests is None:
            return  # libvirt does not answer
        listed = warden.listed(self._journal.memory)
        here = {facts.id for facts in guests if facts.runs and facts.id in listed}
        still = {facts.id for facts in guests if facts.part is Part.NONE}
        self._due = {
            guest: self._due.get(guest, now + self._pace.first_s * self._jitter()) for guest in sorted(here)
        } | dict.fromkeys(here & self._wanted, now)
        self._wanted = set()
        self._found = {guest: sample for guest, sample in self._found.items() if guest in here}
        free = self._pace.at_once - len(self._under_way)
        for guest in sorted(here & still, key=lambda each: self._due[each]):
            if (
                free > 0
                and self._due[guest] <= now
                and guest not in self._under_way
                and not self._busy(guest)
            ):
                self._begin(guest)
                free -= 1

    def _begin(self, guest: GuestId) -> None:
        task = asyncio.create_task(self._measure(guest))
        self._under_way[guest] = task
        task.add_done_callback(lambda _: self._under_way.pop(guest))

    async def _measure(self, guest: GuestId) -> None:
        wait_s = self._pace.again_s
        try:
            points = await self._hypervisor.sample_dirty(guest)
            if points:
                wait_s = self._pace.every_s * (2 + self._jitter()) / 3
                now = self._clock()
                self._found[guest] = DirtySample(guest=guest, points=points, taken_s=round(now, 1))
                self._reporter.changed.set()
        except (HypervisorError, HypervisorUnknown) as error:
            log.info("%s: how fast it makes memory dirty was not measured: %s", guest, error)
        except Exception:
            log.exception("sampling %s failed", guest)
        if guest in self._due:
            self._due[guest] = self._clock() + wait_s
