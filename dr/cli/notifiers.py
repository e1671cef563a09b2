"""The coordinator's notifier, which a reload may exchange while alerts are on their way."""

from __future__ import annotations

import asyncio

from dr.adapters.notify.notifier import AlertNotifier
from dr.adapters.notify.sinks import Sink
from dr.model.base import changed
from dr.model.records import Alert

DRAIN_S = 3.0
BAD_RELOAD = Alert(
    key="coordinator/reload",
    what="The coordinator's configuration on disk is bad; the old one stays in force.",
    why="",
    todo="dr config check, correct it, systemctl reload dr-coordinator",
)


class Notifiers:
    """`ports.world.Notifier` over the sinks that are configured now."""

    def __init__(self, sinks: tuple[Sink, ...], cluster: str) -> None:
        self._sinks = sinks
        self._cluster = cluster
        self._inner = AlertNotifier(sinks, cluster)
        self._closing: set[asyncio.Task[None]] = set()
        self._bad_reload: Alert | None = None

    async def send(self, alert: Alert, cleared: bool) -> None:
        """Never raises."""
        await self._inner.send(alert, cleared)

    def replace(self, sinks: tuple[Sink, ...]) -> None:
        """Use these from now on; what waits at the old ones still goes out."""
        if sinks == self._sinks:
            return
        task = asyncio.create_task(self._inner.close(DRAIN_S))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self._sinks, self._inner = sinks, AlertNotifier(sinks, self._cluster)

    async def test(self) -> list[tuple[str, str]]:
        """(sink, error or "") of a test message to each."""
        return [(result.sink, result.reason) for result in await self._inner.test()]

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """What stands of the process's own alerts: shown beside those of the coordinator."""
        return () if self._bad_reload is None else (self._bad_reload,)

    async def bad_reload(self, why: str, now: float) -> None:
        """Tell that a reload was refused, once for each reason; empty: it is good again. `now`: leader time."""
        if self._bad_reload is not None and self._bad_reload.why == why:
            return
        if why:
            self._bad_reload = changed(BAD_RELOAD, why=why, raised=now)
            await self.send(self._bad_reload, cleared=False)
        elif self._bad_reload is not None:
            told, self._bad_reload = self._bad_reload, None
            await self.send(told, cleared=True)

    async def close(self) -> None:
        await asyncio.gather(self._inner.close(DRAIN_S), *self._closing, return_exceptions=True)
