"""Follows what goes out of this host, guests and disks: how far each is, once a second.

Here: whom to ask for. Not here: what libvirt counts (`dr.ports.hypervisor`), sending (`dr.agent.process`). Nothing is
decided on it. Of a migration libvirt is asked, not the ticket, so an agent that was restarted meanwhile goes on
telling; a copy of disks ends with its agent.
"""

from __future__ import annotations

import asyncio

from dr.agent.journal import Journal
from dr.agent.reporter import Reporter
from dr.model.base import GuestId
from dr.model.facts import Progress
from dr.ports.courier import Courier
from dr.ports.hypervisor import Hypervisor, HypervisorError, HypervisorUnknown


class Following:
    """The newest figures of each."""

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        courier: Courier,
        journal: Journal,
        reporter: Reporter,
        every_s: float,
    ) -> None:
        self._hypervisor = hypervisor
        self._courier = courier
        self._journal = journal
        self._reporter = reporter
        self._every_s = every_s
        self.moves: tuple[Progress, ...] = ()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            left = self._journal.memory.left
            leaving = [facts.id for facts in self._reporter.guests or () if facts.active and facts.id in left]
            found = await asyncio.gather(*map(self._look, leaving))
            moves = tuple(progress for progress in found if progress is not None)
            moves += self._courier.progress()
            if moves != self.moves:
                self.moves = moves
                self._reporter.changed.set()

    async def _look(self, guest: GuestId) -> Progress | None:
        try:
            return await self._hypervisor.progress(guest)
        except (HypervisorError, HypervisorUnknown):
            return None
