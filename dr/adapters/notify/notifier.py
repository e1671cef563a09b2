"""`ports.world.Notifier`: every alert to the log and to every sink, in order, without ever holding up the caller.

Each sink has a bounded queue and a task of its own, so a dead webhook delays nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from dr.adapters.notify.message import Message, message
from dr.adapters.notify.sinks import Courier, NotDeliveredError, Sink, wanted
from dr.model.records import Alert

log = structlog.get_logger(__name__)

QUEUE_MAX = 200  # of one sink; beyond, the oldest is given up: the newest says how things are
ATTEMPTS = 5
RETRY_FIRST_S = 1.0  # doubles, with jitter
RETRY_MAX_S = 30.0
GIVE_UP_S = 120.0  # of one message; then the next one's turn


@dataclass(frozen=True)
class SinkResult:
    """How a test message fared."""

    sink: str
    ok: bool
    reason: str
    took_s: float


class AlertNotifier:
    """Tells people. Make it once, `close` it at the end."""

    def __init__(
        self,
        sinks: tuple[Sink, ...],
        cluster: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now().astimezone(),
        queue_max: int = QUEUE_MAX,
        attempts: int = ATTEMPTS,
        retry_first_s: float = RETRY_FIRST_S,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._outboxes = [_Outbox(Courier(sink), queue_max, attempts, retry_first_s) for sink in sinks]

    async def send(self, alert: Alert, cleared: bool) -> None:
        """Log it and put it in every sink's queue. Never waits, never raises."""
        told = message(alert, cleared, self._cluster, self._clock())
        record = log.info if cleared or alert.severity == "info" else log.warning
        if alert.severity == "critical" and not cleared:
            record = log.error
        record(
            "alert",
            key=told.key,
            cleared=cleared,
            severity=told.severity,
            what=told.what,
            why=told.why,
            todo=told.todo,
        )
        for outbox in self._outboxes:
            if wanted(outbox.courier.sink, told.severity):
                outbox.put(told)

    async def test(self) -> tuple[SinkResult, ...]:
        """Send a test message to each sink, once, past the queues; how each of them fared."""
        alert = Alert(
            key="test",
            what="this is a test message",
            why="someone asked dr to try its notifications",
            todo="nothing",
            severity="info",
        )
        told = message(alert, False, self._cluster, self._clock())
        return tuple(await asyncio.gather(*(outbox.test(told) for outbox in self._outboxes)))

    async def close(self, drain_s: float = 0.0) -> None:
        """Give the queues `drain_s` to empty, then stop."""
        await asyncio.gather(*(outbox.close(drain_s) for outbox in self._outboxes))


class _Outbox:
    """The queue of one sink and the task that empties it."""

    def __init__(self, courier: Courier, queue_max: int, attempts: int, retry_first_s: float) -> None:
        assert queue_max > 0
        self.courier = courier
        self._name = courier.sink.name
        self._queue: deque[Message] = deque()
        self._queue_max = queue_max
        self._attempts = attempts
        self._retry_first_s = retry_first_s
        self._task: asyncio.Task[None] | None = None

    def put(self, told: Message) -> None:
        if len(self._queue) >= self._queue_max:
            lost = self._queue.popleft()
            log.error(
                "alert-given-up", sink=self._name, key=lost.key, reason=f"{self._queue_max} wait before it"
            )
        self._queue.append(told)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._empty(), name=f"notify-{self._name}")

    async def _empty(self) -> None:
        while self._queue:
            told = self._queue.popleft()
            began = time.monotonic()
            try:
                await self._deliver(told)
            except NotDeliveredError as error:
                log.error("alert-not-sent", sink=self._name, key=told.key, reason=str(error))
            except Exception:  # a bug in one message must not end the sink
                log.exception("alert-not-sent", sink=self._name, key=told.key)
            else:
                took_s = round(time.monotonic() - began, 3)
                log.info("alert-sent", sink=self._name, key=told.key, cleared=told.cleared, took_s=took_s)

    async def _deliver(self, told: Message) -> None:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts) | stop_after_delay(GIVE_UP_S),
            wait=wait_random_exponential(multiplier=self._retry_first_s, max=RETRY_MAX_S),
            retry=retry_if_exception(lambda error: isinstance(error, NotDeliveredError) and error.again),
            reraise=True,
        )
        await retrying(self.courier.deliver, told)

    async def test(self, told: Message) -> SinkResult:
        began = time.monotonic()
        reason = ""
        try:
            await self.courier.deliver(told)
        except NotDeliveredError as error:
            reason = str(error)
        return SinkResult(self._name, not reason, reason, time.monotonic() - began)

    async def close(self, drain_s: float) -> None:
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=drain_s)
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._queue:
            log.error(
                "alert-given-up", sink=self._name, keys=[told.key for told in self._queue], reason="stopped"
            )
        await self.courier.close()
