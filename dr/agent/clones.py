"""Drills on this host, as far as the agent takes part: their commands, an end for each of them, what is told of them.

Here: answers, how many commands at once, sweeping. Not here: what a clone is (`dr.ports.clones`), how a drill goes
(`dr.core.drills`). None of the commands is a guest's: they need no ticket, and an order about the guest itself ends
the copy of its disks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from dr.model.base import GuestId, changed
from dr.model.checks import Agent, CheckResult, Screenshot
from dr.model.commands import (
    Answer,
    BootClone,
    CheckClone,
    Drilling,
    EndDrill,
    LookInside,
    MakeClone,
    Outcome,
)
from dr.model.facts import GuestFacts, Level, Reading, TieKind
from dr.ports.clones import CloneError, Clones

log = logging.getLogger("dr.agent.clones")

COMMANDS_MAX = 64  # under way, ends apart
COPIED_S = 30.0  # a copy that takes longer is answered for, and goes on
LIFE_S_MAX = 24 * 3600.0
WINDOW_S_MAX = 600.0
DISK_MIB_MAX = 2**30


class Drills:
    """Runs the commands of drills."""

    def __init__(
        self,
        clones: Clones,
        *,
        look: Callable[[LookInside], Awaitable[Answer]],  # makes checks of a domain from its host
        every_s: float,
        busy: Callable[[GuestId], bool],  # whether an order about the guest is under way
        tell: Callable[[], None],  # what is told of drills is another
    ) -> None:
        self._clones = clones
        self._look = look
        self._every_s = every_s
        self._busy = busy
        self._tell = tell
        self._under_way = 0

    async def answer(self, order: Drilling) -> Answer:
        """Raises HypervisorUnknown."""
        ends = isinstance(order, EndDrill)  # never refused: a drill has to give way
        if not ends and self._under_way >= COMMANDS_MAX:
            reason = "too many commands of drills are under way on this host"
            return Answer(outcome=Outcome.UNKNOWN, reason=reason)
        self._under_way += not ends
        try:
            return await self._run(order)
        except CloneError as error:
            return Answer(outcome=Outcome.FAILED, reason=str(error))
        finally:
            self._under_way -= not ends

    async def _run(self, order: Drilling) -> Answer:
        match order:
            case MakeClone():
                if self._busy(order.guest):
                    reason = f"{order.name} cannot be cloned: an order about the guest itself is under way"
                    return Answer(outcome=Outcome.FAILED, reason=reason)
                return await self._make(order)
            case BootClone():
                await self._clones.boot(order.drill, order.guest, address=order.address)
                return Answer(outcome=Outcome.DONE)
            case CheckClone():
                window_s = min(order.window_s, WINDOW_S_MAX)
                result = await self._check(order, window_s)
                outcome = Outcome.DONE if result.passed else Outcome.FAILED
                return Answer(outcome=outcome, reason=result.why, checks=(result,))
            case EndDrill():
                return Answer(outcome=Outcome.DONE, drill=await self._clones.end(order.drill))

    async def _make(self, order: MakeClone) -> Answer:
        """A copy takes as long as it takes; who asks is told so now and then, and asks again."""
        try:
            async with asyncio.timeout(COPIED_S):
                made = await self._clones.make(
                    order.drill,
                    order.guest,
                    order.name,
                    disk_mib=max(0, min(order.disk_mib, DISK_MIB_MAX)),
                    life_s=min(order.life_s, LIFE_S_MAX),
                )
        except TimeoutError:
            return Answer(outcome=Outcome.UNKNOWN, reason=f"the disks of {order.name} are being copied")
        return Answer(outcome=Outcome.DONE, clone=made)

    async def _check(self, order: CheckClone, window_s: float) -> CheckResult:
        if not isinstance(order.check, Agent | Screenshot):
            return await self._clones.check(order.drill, order.guest, order.check, window_s)
        clone = self._clones.clone_of(order.drill, order.guest)
        looked = LookInside(guest=clone, name=order.name, checks=(order.check,), window_s=window_s)
        (result,) = (await self._look(looked)).checks
        return result

    async def give_way(self, guest: GuestId) -> None:
        """Nothing copies that guest's disks any more."""
        await self._clones.give_way(guest)

    def told(self, guests: tuple[GuestFacts, ...]) -> tuple[GuestFacts, ...]:
        """Without clones; and a copy for a drill, which gives way, keeps no guest where it is."""
        return tuple(
            changed(facts, ties=tuple(tie for tie in facts.ties if tie.kind is not TieKind.BACKUP))
            if facts.ties and self._clones.copies(facts.id)
            else facts
            for facts in guests
            if not self._clones.owns(facts.id)
        )

    def reading(self) -> Reading | None:
        """What is left of drills and should not be."""
        trouble = self._clones.trouble
        return Reading(part="drills", level=Level.WARN, reason=trouble) if trouble else None

    async def run(self) -> None:
        """What an earlier agent left first, then all that outlives its time. Runs until cancelled."""
        while True:
            before = self._clones.trouble
            await self._clones.sweep()
            if self._clones.trouble != before:
                self._tell()
            await asyncio.sleep(self._every_s)

    async def close(self) -> None:
        """A drill does not outlive its agent."""
        await self._clones.close()
