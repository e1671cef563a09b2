"""The coordinator's notifier, which a reload may exchange while alerts are on their way."""

from __future__ import annotations

from dr.cli.config import Sink
from dr.model.records import Alert


class Notifiers:
    """`ports.world.Notifier` over the sinks that are configured now."""

    def __init__(self, sinks: tuple[Sink, ...]) -> None:
        self._sinks = sinks

    async def send(self, alert: Alert, cleared: bool) -> None: ...

    def replace(self, sinks: tuple[Sink, ...]) -> None:
        self._sinks = sinks

    async def test(self) -> list[tuple[str, str]]:
        return []

    def tell_bad_reload(self, why: str) -> None: ...

    def clear_bad_reload(self) -> None: ...

    async def close(self) -> None: ...
