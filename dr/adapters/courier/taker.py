"""The end that takes: writes what comes, reads it all again from the disk, and says so. Runs in threads.

In two steps, so that what is done between them, giving the files their names, runs on the event loop: `fetch` until all
is here and durable, then `confirm` or `refuse`.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import ExitStack, closing
from time import monotonic

from dr.adapters.courier.chunks import (
    BLOCK_B,
    CHUNK_B,
    MIB,
    PIECES_MAX,
    Pieces,
    chunk_count,
    size_of,
    window_count,
)
from dr.adapters.courier.errand import Expected
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
from dr.adapters.courier.target import Target
from dr.adapters.courier.wire import Broken, Wire
from dr.adapters.libvirt.layout import Layout
from dr.ports.courier import CourierError, CourierLost, CourierTrouble

LENGTH_B_MAX = 2**63 - 1

log = logging.getLogger("dr.courier")


class Taker:
    """One copy from one host."""

    def __init__(
        self, errand: Expected, layout: Layout, paths: tuple[str, ...], *, patience_s: float
    ) -> None:
        self._name = secrets.token_hex(8)
        self._errand = errand
        self._layout = layout
        self._paths = paths
        self._patience_s = patience_s
        self._began = monotonic()
        self._targets: list[Target] = []
        self._lengths_b: tuple[int, ...] | None = None
        self._whole: dict[int, int] = {}  # by file, how many of its bytes are not zero
        self._came_b = 0
        self._buffer = memoryview(bytearray(CHUNK_B))
        self._wire: Wire | None = None
        self._reassuring = ExitStack()  # the sender, from `fetch` to the end

    def fetch(self) -> None:
        """Until all files are whole, and the sender has said that they are all. Raises CourierError, CourierLost."""
        with ExitStack() as files:
            for path in self._paths:
                self._targets.append(files.enter_context(closing(Target(self._layout, path))))
            broke = ""
            while True:
                wire, hello = self._arrival(broke)
                try:
                    with self._errand.on(wire.socket):
                        self._session(wire, hello)
                    break
                except Broken as error:
                    wire.close()
                    self._errand.check()
                    broke = str(error)
                    log.warning("the disks of guest %s: %s; waiting for it", self._errand.guest, broke)
                except CourierError as error:
                    if not self._errand.off:
                        wire.give_up(str(error))
                    wire.close()
                    raise
                except BaseException:
                    wire.close()
                    raise
        self._wire = wire
        self._reassuring.enter_context(wire.busy())

    def confirm(self) -> None:
        """Tell the sender that its files are in their places, over a new connection if need be; then it is over.

        Whether it hears so changes nothing here: a later try of its would find everything in place.
        """
        self._reassuring.close()
        wire, self._wire = self._wire, None
        until = monotonic() + self._patience_s
        while wire is not None:
            try:
                with self._errand.on(wire.socket):
                    wire.send(Placed())
                    if isinstance(wire.receive(), Bye):
                        return
            except (Broken, CourierTrouble) as error:
                log.warning("the disks of guest %s are here; %s", self._errand.guest, error)
            finally:
                wire.close()
            try:
                came = self._errand.arrival(max(0.0, until - monotonic()))
            except CourierTrouble:
                return
            wire = came[0] if came else None

    def refuse(self, why: str) -> None:
        """Tell the sender that its files were not put in their places; without a word, end the connection."""
        self._reassuring.close()
        wire, self._wire = self._wire, None
        if wire is not None:
            if why:
                wire.give_up(why)
            wire.close()

    def told(self) -> str:
        """What it took, in words."""
        whole_b = sum(self._whole.values())
        there_b = max(0, whole_b - self._came_b)
        return (
            f"{self._came_b / MIB:.0f} MiB came in {monotonic() - self._began:.1f} s, {there_b / MIB:.0f} MiB were "
            "there already, all read again and found equal"
        )

    def _arrival(self, broke: str) -> tuple[Wire, Hello]:
        came = self._errand.arrival(self._patience_s)
        if came is None:
            source, patience = self._errand.source, f"{self._patience_s:g} s"
            if broke:
                raise CourierLost(f"{broke}, and it did not come again within {patience}")
            raise CourierLost(f"host {source} did not connect within {patience}")
        return came

    # ---- one connection

    def _session(self, wire: Wire, hello: Hello) -> None:
        """Until the sender says that this was all."""
        self._begin(hello)
        wire.send(Welcome(taker=self._name))
        while True:
            self._errand.check()
            match message := wire.receive():
                case Window(file=file, window=window):
                    if not 0 <= window < window_count(self._target(file).length_b):
                        raise self._senseless(message)
                    held = self._target(file).held(window, lambda: self._tick(wire))
                    wire.send(Held(file=file, window=window, digests=held))
                case Chunk(file=file, index=index, pieces=pieces):
                    self._write(wire, file, index, pieces)
                case Zero(file=file, index=index):
                    self._changing(file, index).clear(index)
                case Finish(file=file, total=total):
                    self._finish(wire, file, total)
                    wire.send(Whole(file=file))
                case Complete() if len(self._whole) == len(self._targets):
                    return
                case _:
                    raise self._senseless(message)

    def _begin(self, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            raise CourierError(
                f"the agents' versions differ: copies are spoken of in protocol {PROTOCOL} here, {hello.protocol} there"
            )
        if len(hello.lengths_b) != len(self._targets):
            raise CourierError(f"{len(self._targets)} files are expected here, not {len(hello.lengths_b)}")
        if not all(0 <= length_b <= LENGTH_B_MAX for length_b in hello.lengths_b):
            raise self._senseless(hello)
        if hello.lengths_b == self._lengths_b:
            return
        self._whole.clear()
        for target, length_b in zip(self._targets, hello.lengths_b, strict=True):
            target.set_length(length_b)
        self._lengths_b = hello.lengths_b

    def _write(self, wire: Wire, file: int, index: int, pieces: Pieces) -> None:
        target = self._changing(file, index)
        size, end = size_of(index, target.length_b), 0
        for offset, length in pieces:
            if offset < end or offset % BLOCK_B or length <= 0 or offset + length > size:
                raise self._senseless(pieces)
            end = offset + length
        if not 0 < len(pieces) <= PIECES_MAX:
            raise self._senseless(pieces)
        into = self._buffer[: sum(length for _, length in pieces)]
        wire.read_bytes(into)
        self._came_b += len(into)
        target.write(index, pieces, into)

    def _finish(self, wire: Wire, file: int, expected: bytes) -> None:
        target = self._target(file)
        with wire.busy():
            target.settle()
            found, filled_b = target.total(lambda: self._look(wire))
        if found != expected:
            raise CourierError(
                f"{target.path} is not the same as on host {self._errand.source}: what was read again from the disk "
                "differs from what was sent"
            )
        self._whole[file] = filled_b

    def _tick(self, wire: Wire) -> None:
        self._errand.check()
        wire.reassure()

    def _look(self, wire: Wire) -> None:
        self._errand.check()
        if wire.broken or self._errand.awaited:
            raise Broken(f"the connection to host {self._errand.source} broke")

    def _target(self, file: int) -> Target:
        if not 0 <= file < len(self._targets):
            raise self._senseless(file)
        return self._targets[file]

    def _changing(self, file: int, index: int) -> Target:
        target = self._target(file)
        if not 0 <= index < chunk_count(target.length_b):
            raise self._senseless(index)
        self._whole.pop(file, None)
        return target

    def _senseless(self, what: Message | Pieces | int) -> CourierError:
        return CourierError(f"host {self._errand.source} said what makes no sense here: {str(what)[:200]}")
