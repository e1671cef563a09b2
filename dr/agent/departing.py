"""This host's own shutdown: announced to the coordinator, and held up while guests are moved away.

Nothing is held up for long without a word: neither a coordinator that is gone nor one that says nothing more keeps a
host from going down. Not here: how a shutdown is noticed and held (`ports.world.Departure`), who moves
(`core.leaving`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from dr.agent.session import Session
from dr.model.commands import STAY_S, Stay
from dr.model.wire import LeaveKind, Leaving
from dr.ports.link import LinkClosed
from dr.ports.world import Departure

log = logging.getLogger("dr.agent.departing")

STAYS = "this host stays: its shutdown was called off"


class Departing:
    """Knows whether this host goes down, and for how long that has to wait."""

    def __init__(
        self,
        departure: Departure,
        *,
        session: Callable[[], Session | None],
        look_s: float,
        clock: Callable[[], float],
        notify: Callable[[str], None],
    ) -> None:
        """`look_s`: how often it is looked whether the host goes down."""
        self._departure = departure
        self._session = session
        self._look_s = look_s
        self._clock = clock
        self._notify = notify
        self._kind: LeaveKind = ""
        self._announced: LeaveKind = ""
        self._until = 0.0  # held up until then, once it goes down
        self._said = ""  # to systemd

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._look_s)

    async def hello(self) -> LeaveKind:
        """What the hello of a new session says of it."""
        await self._notice(sure=False)
        self._announced = self._kind
        return self._kind

    async def look(self, *, sure: bool = False) -> None:
        """Announce it, once; and take it back if it was called off. `sure`: although nothing hints at it."""
        await self._notice(sure=sure)
        session = self._session()
        if session is None or self._kind == self._announced:
            return
        self._announced = self._kind
        with suppress(LinkClosed):
            await session.link.send(Leaving(kind=self._kind))

    def bid(self, order: Stay) -> None:
        """What the coordinator says of it counts from now on."""
        if not self._kind:
            return  # it stays, or was called off meanwhile
        self._until = self._clock() + order.for_s
        self._hold()

    async def _notice(self, *, sure: bool) -> None:
        kind = await self._departure.kind(sure=sure or bool(self._kind))
        if kind != self._kind:
            log.warning(f"this host goes down: {kind}" if kind else STAYS)
        if kind and not self._kind:
            self._until = self._clock() + STAY_S
        self._kind = kind
        self._hold()

    def _hold(self) -> None:
        """Held from the start, so that none begins unnoticed."""
        hold = not self._kind or self._clock() < self._until
        self._departure.hold(hold)
        said = ""
        if self._kind:
            waits = "waits for its guests to be moved away" if hold else "goes on"
            said = f"the {self._kind} of this host {waits}"
        if said != self._said:
            self._notify(f"STATUS={said or STAYS}")
        self._said = said
