"""The agent's memory in this process, and the thread that makes it durable.

Here: `Worker`, one daemon thread for calls that block on a disk; `Journal`, the newest memory and its saving.
Not here: what may change in the memory (`dr.core.warden`), the file (`dr.adapters.store`).

A disk may hang rather than fail. So the event loop never touches it, every wait has an end, and the thread is a
daemon: an agent whose disk is dead still beats, still says why it refuses, and can still be stopped.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import NoReturn, TypeVar

from dr.model.memory import AgentMemory
from dr.ports.memory import MemoryStore

log = logging.getLogger("dr.agent.journal")

T = TypeVar("T")


class StateTrouble(Exception):
    """The agent's memory could not be made durable; the sentence is for people."""


class Worker:
    """One daemon thread that runs blocking calls in the order they came."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """What `function` returns or raises. Raises TimeoutError; the call itself then still runs."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # T may be None, and here it is T

        def run() -> None:
            result, error = None, None
            try:
                result = function()
            except BaseException as problem:
                error = problem
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                log.debug("a call ended after the agent")

        self._calls.put(run)
        async with asyncio.timeout(timeout_s):
            return await future

    def _run(self) -> None:
        while True:
            self._calls.get()()


class Journal:
    """The newest memory, and how much of it is durable.

    `put` takes effect in this process at once: every change refuses more than before, or tells an end that was seen.
    `save` waits until all that was put before it is durable. Saves of many commands share one write.
    """

    def __init__(
        self,
        store: MemoryStore,
        worker: Worker,
        *,
        save_s: float = 5.0,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._worker = worker
        self._save_s = save_s
        self._changed = changed  # called when `trouble` did
        self._newest = (AgentMemory(), 0)  # read by the worker's thread: replaced whole, never changed
        self._durable = 0
        self.saved = AgentMemory()  # the last memory that is surely durable
        self._begun = 0  # writes handed to the worker, counted by the loop …
        self._ended = 0  # … and those that it ended, counted by its thread
        self._unreadable = ""
        self.trouble = ""  # why nothing can be made durable now; empty when all is well

    @property
    def memory(self) -> AgentMemory:
        return self._newest[0]

    @property
    def behind(self) -> bool:
        """Whether something was put and is not durable yet."""
        return self._durable < self._newest[1]

    @property
    def readable(self) -> bool:
        """False: the memory is there and could not be read; it must not be taken for an empty one."""
        return not self._unreadable

    def load(self) -> None:
        """Read the memory, once, before anything else. What cannot be read is never overwritten."""
        try:
            self.saved = self._store.load()
            self._newest = (self.saved, 0)
        except (OSError, ValueError) as error:
            self._unreadable = self.trouble = (
                f"the agent's memory cannot be read ({error}): repair it, or move it away and restart dr-agent"
            )
            log.error("memory unreadable: %s", error)

    def put(self, memory: AgentMemory) -> None:
        """Make this the memory of the process; durable only after `save`."""
        if memory is not self.memory:
            self._newest = (memory, self._newest[1] + 1)

    async def save(self, patience_s: float | None = None) -> None:
        """Durable on return: everything put so far. Raises StateTrouble, at the latest after `patience_s`."""
        patience_s = self._save_s if patience_s is None else patience_s
        if self._unreadable:
            raise StateTrouble(self._unreadable)
        version = self._newest[1]
        if self.trouble and self._begun > self._ended:
            raise StateTrouble(self.trouble)  # an earlier write hangs: do not queue behind it
        if self._durable < version:
            self._begun += 1
            try:
                await self._worker.call(lambda: self._write(version), patience_s)
            except TimeoutError:
                self._failed(f"no answer from its disk for {patience_s:g} s")
            except OSError as error:
                self._failed(str(error))
            except Exception as error:
                log.exception("saving the memory failed in an unforeseen way")
                self._failed(repr(error))
        if self.trouble:
            log.info("memory can be written again")
            self.trouble = ""
            self._changed()

    def _failed(self, why: str) -> NoReturn:
        trouble = f"the agent cannot write its memory ({why}): free or repair the disk of its state directory"
        if trouble != self.trouble:
            log.error("memory not durable: %s", why)
            self.trouble = trouble
            self._changed()
        raise StateTrouble(trouble)

    def _write(self, version: int) -> None:
        """On the worker's thread. Saves the newest memory, so later saves find nothing left to do."""
        try:
            if self._durable < version:
                memory, newest = self._newest
                self._store.save(memory)
                self.saved, self._durable = memory, newest
        finally:
            self._ended += 1
