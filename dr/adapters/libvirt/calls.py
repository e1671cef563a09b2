"""Blocking calls kept away from the event loop: bounded threads, a time limit on every wait.

A call that timed out still runs in its thread and keeps its slot until it returns. When every slot is held by such a
call, new ones fail at once: a hung libvirtd never hangs the agent, and never makes it grow.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from dr.ports.hypervisor import HypervisorUnknown

T = TypeVar("T")


class Calls:
    """A bounded set of daemon threads (daemon: a stuck one must not keep the process from ending)."""

    def __init__(self, name: str, slots: int) -> None:
        self._name = name
        self._slots = slots
        self._free = asyncio.Semaphore(slots)
        self._overdue = 0

    @property
    def overdue(self) -> int:
        """How many slots are held by calls that nobody waits for any more."""
        return self._overdue

    async def run(self, what: str, call: Callable[[], T], timeout_s: float) -> T:
        """Run `call` in a thread. Raises what it raises, or HypervisorUnknown when it does not end in time."""
        if self._overdue >= self._slots:
            raise HypervisorUnknown(
                f"{self._name} does not answer: {self._overdue} earlier calls are still stuck, {what} was not tried"
            )
        deadline = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise HypervisorUnknown(
                f"{self._name} is busy: {what} found no free slot in {timeout_s:g} s"
            ) from None
        ended = self._begin(what, call)
        done, _ = await asyncio.wait({ended}, timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            self._overdue += 1
            ended.add_done_callback(self._late)
            raise HypervisorUnknown(
                f"{self._name} did not answer within {timeout_s:g} s: {what}; it may still happen"
            )
        return ended.result()

    def _begin(self, what: str, call: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def finish(result: Any, error: BaseException | None) -> None:
            self._free.release()
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = call()
            except BaseException as caught:  # handed to the caller, whatever it is
                error = caught
            try:
                loop.call_soon_threadsafe(finish, result, error)
            except RuntimeError:  # the loop has ended: nobody waits any more
                return

        try:
            threading.Thread(target=work, name=f"{self._name}: {what}", daemon=True).start()
        except RuntimeError as error:  # no more threads on this host
            self._free.release()
            raise HypervisorUnknown(f"this host gives no thread for {what}: {error}") from error
        return future

    def _late(self, ended: asyncio.Future[Any]) -> None:
        self._overdue -= 1
        if not ended.cancelled():
            ended.exception()  # seen, so asyncio does not complain; whoever asked has long been told "unknown"
