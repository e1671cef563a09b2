"""Blocking looks at things that may hang: each in a daemon thread of its own, and never a second while one hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Ended(Generic[T]):
    """A look that came back: with a value, or with the error that it raised."""

    took_s: float
    value: T | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Hangs:
    """A look that has not come back yet."""

    for_s: float


@dataclass
class _Look(Generic[T]):
    began: float
    future: asyncio.Future[Ended[T]]


class Trials(Generic[T]):
    """Named looks. One that hangs holds one thread until it comes back, however often it is asked for."""

    def __init__(self) -> None:
        self._looks: dict[str, _Look[T]] = {}

    async def run(self, jobs: Mapping[str, Callable[[], T]], wait_s: float) -> dict[str, Ended[T] | Hangs]:
        """Begin what is not under way, wait up to `wait_s` for all of them, and tell how each stands."""
        looks: dict[str, _Look[T]] = {}
        for name, job in jobs.items():
            earlier = self._looks.get(name)
            looks[name] = earlier if earlier and not earlier.future.done() else self._begin(name, job)
        if looks:
            await asyncio.wait({look.future for look in looks.values()}, timeout=wait_s)
        now = time.monotonic()
        self._looks |= looks
        self._looks = {name: look for name, look in self._looks.items() if not look.future.done()}
        return {
            name: look.future.result() if look.future.done() else Hangs(for_s=now - look.began)
            for name, look in looks.items()
        }

    def _begin(self, name: str, job: Callable[[], T]) -> _Look[T]:
        loop = asyncio.get_running_loop()
        look: _Look[T] = _Look(began=time.monotonic(), future=loop.create_future())

        def tell(ended: Ended[T]) -> None:
            if not look.future.done():
                look.future.set_result(ended)

        def work() -> None:
            value, error = None, None
            try:
                value = job()
            except Exception as caught:  # it is the result
                error = caught
            ended = Ended(took_s=time.monotonic() - look.began, value=value, error=error)
            try:
                loop.call_soon_threadsafe(tell, ended)
            except RuntimeError:  # the loop has ended: nobody waits any more
                return

        try:
            threading.Thread(target=work, name=f"look: {name}", daemon=True).start()
        except RuntimeError as error:  # no more threads on this host
            look.future.set_result(Ended(took_s=0.0, error=error))
        return look
