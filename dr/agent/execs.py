"""Commands of playbooks in guests of this host: begun once for their id, watched to their end, told to who asks again.

That it is begun is durable before it is; what came of it is remembered by this process only. Not
here: how a guest is spoken to (`dr.ports.execs`), what may be run (`dr.model.allowed`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from dr.agent.journal import Journal, StateTrouble
from dr.core import warden
from dr.model.allowed import Report
from dr.model.commands import Answer, Outcome, RunInside
from dr.ports.execs import Execs
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown

log = logging.getLogger("dr.agent.execs")

KNOWN_MAX = 64  # whose end is remembered, each up to 64 KiB
UNDER_WAY_MAX = 32
LOOK_S = 1.0
SILENT_S = 60.0  # a guest that says nothing of it for so long: unknown


class Insides:
    """All of this process."""

    def __init__(
        self,
        inside: Execs,
        journal: Journal,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._inside = inside
        self._journal = journal
        self._sleep = sleep
        self._known: dict[str, asyncio.Task[Report]] = {}

    async def run(self, command: str, order: RunInside) -> Answer:
        """What came of it, within the order's window."""
        task = self._known.get(command)
        if task is None:
            if sum(not each.done() for each in self._known.values()) >= UNDER_WAY_MAX:
                return _answer(
                    Report(state="refused", reason="too many commands are under way in guests here")
                )
            memory = warden.begin_inside(self._journal.memory, command, order.process)
            if isinstance(memory, str):
                return _answer(Report(state="unknown", reason=memory))
            self._journal.put(memory)
            task = self._known[command] = asyncio.create_task(self._run(order))
            self._forget()
        await asyncio.wait({task}, timeout=order.window_s)
        return _answer(task.result() if task.done() else Report(state="lost", reason="it is under way"))

    def _forget(self) -> None:
        over = [key for key, task in self._known.items() if task.done()]
        for key in over[: max(0, len(self._known) - KNOWN_MAX)]:
            del self._known[key]

    async def _run(self, order: RunInside) -> Report:
        log.info("%s: %s", order.name, " ".join(order.argv))
        try:
            await self._journal.save()  # that it is begun, before it is
            process = await self._inside.begin(order.guest, order.argv)
        except (StateTrouble, HypervisorError) as error:
            return Report(state="refused", reason=str(error))
        except HypervisorUnknown as error:
            return Report(state="unknown", reason=f"whether it was begun is not known: {error}")
        return await self._end(order, process)

    async def _end(self, order: RunInside, process: int) -> Report:
        clock = asyncio.get_running_loop().time
        began = heard = clock()
        silence = ""
        while clock() < began + order.timeout_s:
            try:
                report = await self._inside.ended(order.guest, process)
                heard, silence = clock(), ""
            except (HypervisorError, HypervisorUnknown) as error:
                report, silence = None, str(error)
            if report is not None:
                return report
            if silence and clock() > heard + SILENT_S:
                return Report(state="unknown", reason=silence)
            await self._sleep(LOOK_S)
        why = f"it has not ended within {order.timeout_s:g} s, and may go on: nobody can end it from outside"
        return Report(state="unknown", reason=why)


def _answer(report: Report) -> Answer:
    return Answer(outcome=Outcome.DONE, report=report)
