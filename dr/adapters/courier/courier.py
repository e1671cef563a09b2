"""`ports.courier.Courier` for real: each copy in threads of its own, and what the event loop waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from dr.adapters.courier.dial import Dialler
from dr.adapters.courier.errand import Errand, Expected
from dr.adapters.courier.listener import Listener
from dr.adapters.courier.sender import Sender
from dr.adapters.courier.taker import Taker
from dr.adapters.libvirt.calls import Calls
from dr.adapters.libvirt.layout import Layout
from dr.model.base import GuestId, HostName
from dr.model.facts import Progress
from dr.ports.courier import CourierError, CourierLost, CourierTrouble
from dr.ports.hypervisor import HypervisorUnknown

PATIENCE_S = 60.0
STUCK_S = 600.0  # a disk of this host that takes so long for a few MiB is not coming back
COPIES_MAX = 32
GRACE_S = 3.0  # for a thread to end by itself once it was called off
LOOK_S = 1.0
EVER_S = 30 * 24 * 3600.0

T = TypeVar("T")


class TlsCourier:
    """One host's. It listens only while it takes a copy."""

    def __init__(
        self,
        host: HostName,
        cluster: str,
        pki_dir: Path,
        *,
        address: str = "",
        port: int,
        layout: Layout | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`address`: where it listens; empty or a name: everywhere.

        `patience_s`: for how long nothing may come from the other end.
        """
        self._host = host
        self._cluster = cluster
        self._pki_dir = pki_dir
        self._layout = layout or Layout()
        self._patience_s = patience_s
        self._listener = Listener(cluster, pki_dir, address, port, patience_s=patience_s)
        self._threads = Calls("this host's copies of disks", COPIES_MAX)
        self._errands: dict[Errand, asyncio.Event] = {}
        self._senders: dict[Errand, Sender] = {}
        self._working: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def send(
        self,
        guest: GuestId,
        copy: str,
        *,
        to: HostName,
        addresses: tuple[str, ...],
        port: int,
        files: tuple[str, ...],
        mib_s: int = 0,
    ) -> str:
        """See the port."""
        errand = Errand(guest, copy, f"send the disks of {guest} to {to}")
        dialler = Dialler(self._cluster, self._pki_dir, to, addresses, port, patience_s=self._patience_s)
        sender = Sender(errand, dialler, self._layout, to, files, mib_s=mib_s, patience_s=self._patience_s)
        self._begin(errand, to)
        self._senders[errand] = sender
        try:
            return await self._run(errand, sender.run)
        finally:
            del self._senders[errand]
            self._end(errand)

    async def take(
        self,
        guest: GuestId,
        copy: str,
        *,
        source: HostName,
        files: tuple[str, ...],
        placed: Callable[[], Awaitable[None]],
    ) -> str:
        """See the port. Once `placed` has begun it cannot be called off any more."""
        errand = Expected(guest, copy, f"take the disks of {guest} from {source}", source)
        taker = Taker(errand, self._layout, files, patience_s=self._patience_s)

        def fetch() -> None:
            try:
                self._listener.expect(errand)
                taker.fetch()
            except BaseException:
                self._listener.forget(errand)  # also when nobody waits for this thread any more
                raise

        self._begin(errand, source)
        try:
            await self._run(errand, fetch)
            try:
                errand.check()  # called off as the thread ended
                errand.settled = True
                await placed()
            except BaseException as error:
                why = f"not put in place: {str(error) or type(error).__name__}"
                # Where nobody waits for it any more its connection just breaks: it will be tried again.
                said = why if isinstance(error, Exception) else ""
                threading.Thread(target=taker.refuse, args=(said,), daemon=True).start()
                raise
            with suppress(CourierTrouble):
                await self._run(errand, taker.confirm)
            return taker.told()
        finally:
            self._end(errand)
            self._listener.forget(errand)

    def cancel(self, guest: GuestId, *, again: bool = False) -> bool:
        """See the port."""
        found = [each for each in self._errands if each.guest == guest and not (each.off or each.settled)]
        for errand in found:
            errand.call_off(f"to {errand.what} was called off", again=again)
        return bool(found)

    def progress(self) -> tuple[Progress, ...]:
        """See the port."""
        return tuple(sender.meter.progress() for sender in self._senders.values())

    async def close(self) -> None:
        """See the port. A thread that hangs in a disk is left to itself."""
        self._closed = True
        for errand in self._errands:
            errand.call_off(f"to {errand.what} was called off, as this agent ends", again=True)
        for over in list(self._errands.values()):
            await over.wait()

    def _begin(self, errand: Errand, other: HostName) -> None:
        if other == self._host:
            raise CourierError(f"to {errand.what} is no copy between hosts: {other} is this one")
        if self._closed:
            raise CourierLost("this agent ends")
        if len(self._errands) >= COPIES_MAX:
            raise CourierLost(f"{COPIES_MAX} copies of disks are under way on this host already")
        self._errands[errand] = asyncio.Event()

    def _end(self, errand: Errand) -> None:
        errand.call_off("nobody waits for it any more")  # its thread may go on where the task was cancelled
        self._errands.pop(errand).set()

    async def _run(self, errand: Errand, work: Callable[[], T]) -> T:
        """In a thread; one that hangs in a disk is given up. Raises what `work` raises, and CourierTrouble."""
        errand.went_on_at = monotonic()
        working = asyncio.create_task(self._threads.run(errand.what, work, EVER_S))
        self._working.add(working)
        working.add_done_callback(self._worked)
        off_s = 0.0
        while not working.done():
            await asyncio.wait({working}, timeout=LOOK_S)
            if errand.off:
                off_s += LOOK_S
            elif monotonic() - errand.went_on_at > STUCK_S:
                errand.call_off(f"a disk of this host has not answered for {STUCK_S:g} s")
            if off_s > GRACE_S and not working.done():
                raise errand.trouble()
        try:
            return working.result()
        except HypervisorUnknown as error:  # of `Calls`: no thread
            raise CourierLost(str(error)) from error

    def _worked(self, working: asyncio.Task[Any]) -> None:
        self._working.discard(working)
        if not working.cancelled():
            working.exception()  # seen, so asyncio does not complain of one that was given up
