"""What a host that hears nobody does for its guests: those whose policy says so are shut down, with nobody's ticket.

Here: the rhythm of looking, and the stop itself. Not here: when a host counts as alone, and which guests are meant
(`core.warden`). A coordinator that is merely down isolates nobody: the other hosts answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from dr.agent.executor import Executor
from dr.agent.journal import Journal, StateTrouble
from dr.agent.reporter import Reporter
from dr.agent.session import Session
from dr.core import warden
from dr.model.base import GuestId
from dr.model.commands import ProtectedEntry
from dr.ports.hypervisor import Hypervisor, HypervisorError, HypervisorUnknown
from dr.ports.world import Prober

log = logging.getLogger("dr.agent.isolation")

LINKED_S = 5.0  # a session in which nothing came for so long is no sign of a coordinator


class Isolation:
    """Watches whether this host is alone."""

    def __init__(
        self,
        *,
        journal: Journal,
        reporter: Reporter,
        executor: Executor,
        hypervisor: Hypervisor,
        prober: Prober,
        session: Callable[[], Session | None],
        look_s: float = 1.0,
        window_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._reporter = reporter
        self._executor = executor
        self._hypervisor = hypervisor
        self._prober = prober
        self._session = session
        self._look_s = look_s
        self._window_s = window_s
        self._clock = clock
        self._since: float | None = None

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            began = self._clock()
            linked = self._linked()
            heard = None if linked else await self._heard()
            self._since = warden.alone_since(self._since, began, linked=linked or self._linked(), heard=heard)
            self._act()
            await asyncio.sleep(self._look_s)

    def _linked(self) -> bool:
        session = self._session()
        return session is not None and self._clock() - session.heard < LINKED_S

    async def _heard(self) -> bool | None:
        """Whether any other host answers; None when nobody can be asked."""
        peers = self._journal.memory.peers
        if not peers or not self._journal.readable:
            return None
        try:
            answered = await self._prober.probe(peers, self._window_s)
        except Exception as error:  # a probe that cannot be made says nothing
            log.warning("other hosts could not be looked for: %r", error)
            return None
        return any(answered.values()) if answered else None

    def _act(self) -> None:
        memory = self._journal.memory
        active = {facts.id for facts in self._reporter.guests or () if facts.active}
        busy = [guest for guest in memory.isolated if self._executor.busy(guest)]
        if self._reporter.guests is not None:
            self._journal.put(warden.relieve(memory, active, busy))
        for entry in warden.to_shut_down(self._journal.memory, self._since, self._clock()):
            if entry.guest in active:
                self._executor.locally(entry.guest, self._shut_down(entry))

    async def _shut_down(self, entry: ProtectedEntry) -> None:
        """Cleanly; then, if the host is alone still, not so."""
        log.warning("isolated: %s is shut down, as its policy says", entry.name)
        memory = self._journal.memory
        self._journal.put(warden.isolate(memory, entry.guest))
        with suppress(
            StateTrouble
        ):  # told as a reading; at worst a crash makes its end look like its owner's will
            await self._journal.save()
        if await self._stopped(entry.guest, memory.stop_s, clean=True) or self._since is None:
            return
        log.warning("isolated: %s did not shut down and is destroyed", entry.name)
        await self._stopped(entry.guest, memory.stop_s, clean=False)

    async def _stopped(self, guest: GuestId, timeout_s: float, *, clean: bool) -> bool:
        try:
            async with asyncio.timeout(2 * timeout_s):
                await self._hypervisor.stop(guest, "shutdown" if clean else "destroy", timeout_s)
        except (HypervisorError, HypervisorUnknown, TimeoutError) as error:
            log.warning("isolated: stop of %s: %s", guest, error)
            return False
        return True
