"""What each guest here is in a live migration, and copies that nobody asked for (rule 7).

Here: parts for the inventory, and the agent's own act on a copy that was made to run by hand, or that arrives without a
ticket. Not here: which of them are strays (`dr.core.warden`), tickets (`dr.agent.moves`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from dr.agent.executor import Executor
from dr.agent.journal import Journal, StateTrouble
from dr.agent.reporter import Reporter
from dr.core import warden
from dr.model.base import BootId, GuestId, changed
from dr.model.facts import DomainState, GuestFacts, Part
from dr.ports.hypervisor import Hypervisor, HypervisorError, HypervisorUnknown

log = logging.getLogger("dr.agent.copies")

# Reasons of libvirt's for a paused domain that may be the incoming end of a migration.
INCOMING = ("migration", "starting_up")


class Parts:
    """Tells the part of each guest. libvirt is asked only about guests that may be moving: it has to ask their QEMU."""

    def __init__(
        self, boot_id: BootId, *, hypervisor: Hypervisor, journal: Journal, patience_s: float = 2.0
    ) -> None:
        self._boot_id = boot_id
        self._hypervisor = hypervisor
        self._journal = journal
        self._patience_s = patience_s

    async def of(self, guests: tuple[GuestFacts, ...]) -> tuple[GuestFacts, ...]:
        """The inventory with what leaves and what arrives. No longer than the slowest look."""
        moving = warden.moving(self._journal.memory)
        return tuple(
            await asyncio.gather(
                *(
                    self._look(facts)
                    if facts.active and (facts.id in moving or _incoming(facts))
                    else _as_it_is(facts)
                    for facts in guests
                )
            )
        )

    async def _look(self, facts: GuestFacts) -> GuestFacts:
        try:
            async with asyncio.timeout(self._patience_s):
                now = await self._hypervisor.standing(facts.id)
        except (HypervisorError, HypervisorUnknown, TimeoutError):
            return changed(facts, part=self._doubtful(facts.id))
        if now.state is None:
            return changed(facts, state=DomainState.SHUTOFF, reason="")
        return changed(facts, state=now.state, reason=now.reason, part=now.part)

    def _doubtful(self, guest: GuestId) -> Part:
        """What it may still be, where its QEMU or libvirt does not say: nothing is done to it meanwhile."""
        memory = self._journal.memory
        if guest in memory.left:
            return Part.LEAVING
        return Part.ARRIVING if warden.copy_here(memory, guest, self._boot_id) else Part.NONE

    def told(self, guests: tuple[GuestFacts, ...]) -> tuple[GuestFacts, ...]:
        """With the copies that wait, as of this moment."""
        memory = self._journal.memory
        if not memory.copies:
            return guests
        return tuple(
            changed(facts, part=Part.WAITING)
            if facts.active and facts.part is Part.NONE and warden.copy_here(memory, facts.id, self._boot_id)
            else facts
            for facts in guests
        )


def _incoming(facts: GuestFacts) -> bool:
    return facts.state is DomainState.PAUSED and facts.reason in INCOMING


async def _as_it_is(facts: GuestFacts) -> GuestFacts:
    return facts


class Strays:
    """Looks after copies, every heartbeat."""

    def __init__(
        self,
        boot_id: BootId,
        *,
        hypervisor: Hypervisor,
        journal: Journal,
        reporter: Reporter,
        executor: Executor,
        every_s: float,
        patience_s: float = 30.0,
    ) -> None:
        self._boot_id = boot_id
        self._hypervisor = hypervisor
        self._journal = journal
        self._reporter = reporter
        self._executor = executor
        self._every_s = every_s
        self._patience_s = patience_s

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            for facts in self._reporter.guests or ():
                if facts.active and self._verdict(facts.id, facts.part, runs=facts.runs):
                    self._executor.locally(facts.id, self._settle(facts.id, facts.name))
            if any(copy.boot_id == self._boot_id for copy in self._journal.memory.copies.values()):
                self._reporter.refresh()
            await asyncio.sleep(self._every_s)

    def _verdict(self, guest: GuestId, part: Part, *, runs: bool) -> warden.Stray:
        arriving = part is Part.ARRIVING
        return warden.stray(self._journal.memory, guest, self._boot_id, arriving=arriving, runs=runs)

    async def _settle(self, guest: GuestId, name: str) -> None:
        """Within its turn, and on a fresh look: a resume ticket may have come meanwhile."""
        try:
            async with asyncio.timeout(self._patience_s):
                now = await self._hypervisor.standing(guest)
                verdict = self._verdict(guest, now.part, runs=now.runs) if now.active else warden.Stray.NONE
                if verdict is warden.Stray.SUSPEND:
                    log.error("%s: a copy that waits was made to run by hand; it is suspended again", name)
                    self._journal.put(warden.seen_running(self._journal.memory, guest, self._boot_id))
                    with suppress(StateTrouble):  # told as a reading; that it runs is worse
                        await self._journal.save()  # before the trace of it is gone
                    await self._hypervisor.suspend(guest)
                elif verdict is warden.Stray.DESTROY:
                    log.error("%s: it arrives here and no ticket let it in; the copy is destroyed", name)
                    await self._hypervisor.stop(guest, "destroy", self._patience_s)
        except (HypervisorError, HypervisorUnknown, TimeoutError) as error:
            log.error("%s: the stray copy could not be looked after: %s", name, error)
