"""Keeps the inputs of decisions that somebody may ask about: frozen on the loop, encoded and written beside it.

It explains and decides nothing: when it falls behind or the disk is full, decisions go on and are not kept.
Not here: which ones are worth it and their form (`dr.core.saved`), where they lie (`dr.ports.decisions`).
"""

from __future__ import annotations

import asyncio
import time

import structlog

from dr import __version__
from dr.core import saved
from dr.core.saved import Saved
from dr.core.state import State
from dr.model.decision import Decision
from dr.model.events import Event
from dr.ports.decisions import Decisions

WAITING_MAX = 32  # each holds its own copy of the state's dictionaries: about 1 MiB with 20,000 guests

log = structlog.get_logger("coordinator")


class Recorder:
    """One queue, one writer."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._waiting: asyncio.Queue[Saved] = asyncio.Queue(WAITING_MAX)
        self._failed = False

    def name(self, state: State, decision: Decision) -> str:
        """The id under which this decision will be kept, or "". It is made of the commit that will write it."""
        if self._waiting.full() or not saved.worth_saving(decision):
            return ""
        epoch = (decision.changes.cluster or state.cluster).epoch
        return f"{epoch}-{state.revision + 1}"

    def keep(self, name: str, state: State, event: Event, now: float) -> None:
        """The decision is durable and about to be taken over: `state` is still what it was made from."""
        if name:
            self._waiting.put_nowait(
                Saved(
                    state=saved.frozen(state),
                    event=event,
                    now=now,
                    id=name,
                    wall=time.time(),
                    version=__version__,
                )
            )

    async def run(self) -> None:
        """Write what is kept, until cancelled; what waits by then is not written."""
        while True:
            decision = await self._waiting.get()
            try:
                await asyncio.to_thread(self._decisions.put, decision.id, saved.encode(decision))
                self._failed = False
            except OSError as error:
                if not self._failed:
                    log.warning("decisions are not saved", error=str(error))
                self._failed = True
            except Exception:  # a bug here must not stop what explains the next decision
                log.exception("a decision was not saved", decision=decision.id)

    async def read(self, name: str) -> bytes | None:
        """A kept decision, as its file. Raises OSError."""
        return await asyncio.to_thread(self._decisions.read, name)
