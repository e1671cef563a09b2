"""The end that sends: walks its files, and sends what the taker does not hold. Runs in a thread of its own.

It goes on where it was when a connection breaks: what the taker has answered for is not looked at again.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from dr.adapters.courier.chunks import MIB, Total, chunk_count, chunks_in, window_count
from dr.adapters.courier.dial import Dialler
from dr.adapters.courier.errand import Errand
from dr.adapters.courier.messages import (
    PROTOCOL,
    Bye,
    Chunk,
    Complete,
    Finish,
    Held,
    Hello,
    Message,
    Placed,
    Welcome,
    Whole,
    Window,
    Zero,
)
from dr.adapters.courier.meter import Meter
from dr.adapters.courier.source import Read, Source
from dr.adapters.courier.wire import Broken, Wire
from dr.adapters.libvirt.layout import Layout
from dr.model.base import HostName
from dr.ports.courier import CourierError, CourierLost

RETRY_FROM_S, RETRY_TO_S = 0.1, 2.0
READ_AHEAD = 2  # chunks
LAST_WORDS_S = 1.0

log = logging.getLogger("dr.courier")

T = TypeVar("T")


@dataclass(frozen=True)
class Mark:
    """A place in the files that can be begun from, and what there was up to it."""

    file: int = 0
    window: int = 0
    total: Total = field(default_factory=Total)  # of that file, up to there
    passed_b: int = 0
    there_b: int = 0


class Sender:
    """One copy to one host."""

    def __init__(
        self,
        errand: Errand,
        dialler: Dialler,
        layout: Layout,
        to: HostName,
        paths: tuple[str, ...],
        *,
        mib_s: int,
        patience_s: float,
    ) -> None:
        self.meter = Meter(errand.guest, mib_s, errand.pause)
        self._errand = errand
        self._dialler = dialler
        self._layout = layout
        self._to = to
        self._paths = paths
        self._patience_s = patience_s
        self._sources: list[Source] = []
        self._taker = ""
        self._at = Mark()
        self._early: deque[Message] = deque()
        self._there_b = 0

    def run(self) -> str:
        """What it took, in words. Raises CourierError, CourierLost."""
        with ExitStack() as files:
            for path in self._paths:
                self._errand.check()
                self._sources.append(files.enter_context(closing(Source(self._layout, path))))
            self.meter.data_b = sum(source.data_b for source in self._sources)
            self._until_placed()
        meter = self.meter
        sent, there = _mib(meter.sent_b), _mib(self._there_b)
        return (
            f"{sent} of {_mib(meter.data_b)} sent in {meter.elapsed_s:.1f} s, {there} were there already, "
            "checked over there"
        )

    def _until_placed(self) -> None:
        """Over as many connections as it takes, as long as each gets on."""
        deadline, pause_s = monotonic() + self._patience_s, RETRY_FROM_S
        while True:
            before = self._at
            try:
                with self._dialler.dial(self._errand) as wire:
                    self._over(wire)
                return
            except Broken as error:
                self._errand.check()
                broke = str(error)
            if self._at is not before:
                deadline, pause_s = monotonic() + self._patience_s, RETRY_FROM_S
                log.warning("the disks of guest %s: %s; going on", self._errand.guest, broke)
            if monotonic() >= deadline:
                raise CourierLost(f"{broke} (tried for {self._patience_s:g} s)")
            self._errand.pause(min(pause_s, self._patience_s / 10))
            pause_s = min(2 * pause_s, RETRY_TO_S)

    def _over(self, wire: Wire) -> None:
        try:
            self._session(wire)
        except Broken:
            self._errand.check()
            self._last_words(wire)
            raise
        except CourierError as error:
            if not self._errand.off:
                wire.give_up(str(error))
            raise

    def _last_words(self, wire: Wire) -> None:
        """What could not be sent any more may be because the other end said why. Raises it."""
        deadline = monotonic() + LAST_WORDS_S
        with suppress(Broken):
            while True:
                wire.receive(deadline)

    def _session(self, wire: Wire) -> None:
        lengths_b = tuple(source.length_b for source in self._sources)
        wire.send(
            Hello(protocol=PROTOCOL, copy=self._errand.copy, guest=self._errand.guest, lengths_b=lengths_b)
        )
        self._early.clear()
        answer = self._answer(wire, Welcome, Placed)
        if isinstance(answer, Welcome):
            if answer.taker != self._taker:  # a new one knows nothing of what went before
                self._taker, self._at = answer.taker, Mark()
            for number in range(self._at.file, len(self._sources)):
                self._send_file(wire, number)
            for source in self._sources:
                source.check_unchanged()
            wire.send(Complete())
            self._answer(wire, Placed)
        with suppress(Broken):  # they are in their places, whether the other end hears that we know or not
            wire.send(Bye())

    def _send_file(self, wire: Wire, number: int) -> None:
        source = self._sources[number]
        begin = self._at
        total, windows = begin.total.copy(), window_count(source.length_b)
        self.meter.passed_b, self._there_b = begin.passed_b, begin.there_b
        marks = {begin.window: begin}
        if begin.window < windows:
            wire.send(Window(file=number, window=begin.window))
        first = chunks_in(begin.window, source.length_b).start
        with ahead(source.chunks(range(first, chunk_count(source.length_b)))) as chunks:
            for window in range(begin.window, windows):
                if window + 1 < windows:
                    wire.send(Window(file=number, window=window + 1))
                held = self._held(wire, number, window)
                if window - 1 in marks:  # all that went before it was asked for has arrived
                    self._at = marks.pop(window - 1)
                for _ in chunks_in(window, source.length_b):
                    self._send_chunk(wire, number, next(chunks), held, total)
                marks[window + 1] = Mark(number, window + 1, total.copy(), self.meter.passed_b, self._there_b)
        source.check_unchanged()
        wire.send(Finish(file=number, total=total.digest(source.length_b)))
        self._answer(wire, Whole)
        self._at = Mark(number + 1, 0, Total(), self.meter.passed_b, self._there_b)

    def _held(self, wire: Wire, number: int, window: int) -> dict[int, bytes]:
        answer = self._early.popleft() if self._early else self._answer(wire, Held)
        assert isinstance(answer, Held)
        if (answer.file, answer.window) != (number, window):
            raise CourierError(f"host {self._to} answered what it was not asked")
        return answer.digests

    def _send_chunk(self, wire: Wire, number: int, chunk: Read, held: dict[int, bytes], total: Total) -> None:
        self._errand.check()
        there = held.get(chunk.index)
        if chunk.pieces:
            total.add(chunk.index, chunk.digest)
            if chunk.digest == there:
                self._there_b += sum(length for _, length in chunk.pieces)
            else:
                while wire.heard:  # the answer for the window to come, or why this ends
                    self._early.append(self._answer(wire, Held))
                wire.send(Chunk(file=number, index=chunk.index, pieces=chunk.pieces))
                data = memoryview(chunk.data)
                for offset, length in chunk.pieces:
                    wire.send_bytes(data[offset : offset + length], self.meter.pace)
        elif there is not None:
            wire.send(Zero(file=number, index=chunk.index))
        self.meter.passed_b += chunk.data_b
        wire.reassure()

    def _answer(self, wire: Wire, *kinds: type[Message]) -> Message:
        message = wire.receive()
        if not isinstance(message, kinds):
            raise CourierError(f"host {self._to} said {type(message).__name__}, which makes no sense here")
        return message


def _mib(size_b: int) -> str:
    return f"{size_b / MIB:.0f} MiB"


@contextmanager
def ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Those items, made by another thread while the caller is busy with the ones before; it has ended at the end."""
    ready: queue.Queue[T | BaseException] = queue.Queue(READ_AHEAD)
    over = threading.Event()

    def put(item: T | BaseException) -> None:
        while not over.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.2)
                return

    def make() -> None:
        try:
            for item in items:
                put(item)
                if over.is_set():
                    return
        except BaseException as error:  # handed to the caller, whatever it is
            put(error)

    def take() -> Iterator[T]:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=make, name="reads ahead for a copy", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        over.set()
        thread.join()
