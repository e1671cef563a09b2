"""Clocks of guests that have arrived: set once each, in the background, through the agents in them.

Here: when, and that nothing waits for it: a guest's agent may answer late or never, and its guest runs by then. Not
here: how (`dr.ports.hypervisor`).
"""

from __future__ import annotations

import asyncio
import logging

from dr.model.base import GuestId
from dr.ports.hypervisor import Hypervisor, HypervisorError, HypervisorUnknown

log = logging.getLogger("dr.agent.clocks")

WAITING_MAX = 64


class Clocks:
    """Sets them. Never raises, never waits."""

    def __init__(self, *, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self._under_way: dict[GuestId, asyncio.Task[None]] = {}

    def set_soon(self, guest: GuestId, name: str) -> None:
        """Begin, unless that is under way."""
        if guest in self._under_way or len(self._under_way) >= WAITING_MAX:
            return
        task = asyncio.create_task(self._set(guest, name))
        self._under_way[guest] = task
        task.add_done_callback(lambda _: self._under_way.pop(guest))

    async def _set(self, guest: GuestId, name: str) -> None:
        try:
            if await self._hypervisor.set_clock(guest):
                log.info("%s: its clock was set through its guest agent", name)
            else:
                log.info("%s: its clock is left to itself: no guest agent is connected", name)
        except (HypervisorError, HypervisorUnknown) as error:
            log.warning("%s: its clock may be late: %s", name, error)
        except Exception:
            log.exception("setting the clock of %s failed", name)
