"""How simulated guests write to their memory, and how their agent measures that.

Here: the truth, and samples of it by an agent, at fixed times so that they cost no draw. Not here: what a migration
makes of it (`dr.sim.migration`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from dr.core import warden
from dr.model.base import GuestId
from dr.model.facts import DirtyPoint, DirtySample

if TYPE_CHECKING:
    from dr.sim.agent import SimAgent

INTERVALS_S = (1.0, 4.0, 16.0)
FIRST_S = 2.0  # after it was first seen to run
EVERY_S = 600.0


class Writes(NamedTuple):
    """So fast over and over the same part of its memory."""

    mib_s: float
    set_mib: float

    def within(self, seconds: float) -> float:
        return min(self.mib_s * seconds, self.set_mib)


class SimSampling:
    """Of the guests on one host that write at all, in one life of its agent."""

    def __init__(self, agent: SimAgent) -> None:
        self._agent = agent
        self._due: dict[GuestId, float] = {}
        self._told: set[GuestId] = set()  # in this session
        self._session = ""
        self.found: dict[GuestId, DirtySample] = {}

    def soon(self, guests: Iterable[GuestId]) -> None:
        now = self._agent.host.world.clock.now
        self._due |= dict.fromkeys(self._due.keys() & set(guests), now)

    def look(self, session: str) -> tuple[DirtySample, ...]:
        """Measure whose turn it is; what was not told in this session yet. A guest in a migration is left alone."""
        host, turns = self._agent.host, self._agent.lane.turns
        now, listed = host.world.clock.now, warden.listed(self._agent.memory)
        here = {
            guest: writes
            for guest, domain in host.domains.items()
            if domain.runs and guest in listed and (writes := host.world.writes.get(guest)) is not None
        }
        self._due = {guest: self._due.get(guest, now + FIRST_S) for guest in here}
        self.found = {guest: each for guest, each in self.found.items() if guest in here}
        if session != self._session:
            self._session, self._told = session, set()
        for guest, writes in here.items():
            moves = host.domains[guest].outgoing is not None
            if self._due[guest] > now or moves or guest in turns or host.libvirtd != "up":
                continue
            self._due[guest] = now + EVERY_S
            points = tuple(DirtyPoint(interval_s=s, mib=writes.within(s)) for s in INTERVALS_S)
            self.found[guest] = DirtySample(guest=guest, points=points, taken_s=now)
            self._told.discard(guest)
        new = tuple(each for guest, each in self.found.items() if guest not in self._told)
        self._told |= {each.guest for each in new}
        return new
