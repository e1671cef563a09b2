"""What event loop and threads share of one copy: whether it was called off, and the connection that it is on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from dr.adapters.courier.messages import Hello
from dr.adapters.courier.wire import Wire, cut
from dr.model.base import GuestId, HostName
from dr.ports.courier import CourierError, CourierLost, CourierTrouble


class Errand:
    """One copy that is sent from here. Its thread calls `check` wherever it may stop."""

    def __init__(self, guest: GuestId, copy: str, what: str) -> None:
        self.guest = guest
        self.copy = copy
        self.what = what  # "send the disks of …", for people
        self.went_on_at = monotonic()
        self._trouble: CourierTrouble = CourierError("")
        self.settled = False  # too late to call it off
        self._off = threading.Event()
        self._lock = threading.Lock()
        self._on: socket.socket | None = None

    @property
    def off(self) -> bool:
        """Whether it was called off."""
        return self._off.is_set()

    def call_off(self, why: str, *, again: bool = False) -> None:
        """From any thread; at once, wherever its own is. `again`: it ends as lost, to be tried again."""
        with self._lock:
            if not self.off:
                self._trouble = CourierLost(why) if again else CourierError(why)
                self._off.set()
            if self._on is not None:
                cut(self._on)

    def check(self) -> None:
        """Raises CourierError or CourierLost once it was called off; also says that its thread goes on."""
        self.went_on_at = monotonic()
        if self.off:
            raise self.trouble()

    def trouble(self) -> CourierTrouble:
        """How it ends, once it was called off."""
        return type(self._trouble)(str(self._trouble))

    def pause(self, seconds: float) -> None:
        """As `check`, also when it is called off meanwhile."""
        self._off.wait(seconds)
        self.check()

    @contextmanager
    def on(self, sock: socket.socket) -> Iterator[None]:
        """While that connection is used, which is not to be closed in there. Raises as `check`."""
        with self._lock:
            self._on = sock
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._on = None


class Expected(Errand):
    """One copy that is taken here: its sender's connections are brought to it by the listener."""

    def __init__(self, guest: GuestId, copy: str, what: str, source: HostName) -> None:
        super().__init__(guest, copy, what)
        self.source = source
        self._come = threading.Condition(self._lock)
        self._arrived: tuple[Wire, Hello] | None = None
        self._ended = False

    @property
    def awaited(self) -> bool:
        """Whether a newer connection of the sender's waits to be served."""
        return self._arrived is not None

    def bring(self, wire: Wire, hello: Hello) -> bool:
        """A sender that dials again has lost the connection before, whatever this end knows. False: too late."""
        with self._come:
            if self._ended or self.off:
                return False
            if self._arrived is not None:
                self._arrived[0].close()
            self._arrived = (wire, hello)
            if self._on is not None:
                cut(self._on)
            self._come.notify_all()
            return True

    def arrival(self, within_s: float) -> tuple[Wire, Hello] | None:
        """The newest connection, as soon as there is one; None when none came. Raises as `check`."""
        with self._come:
            self._come.wait_for(lambda: self._arrived is not None or self.off, within_s)
            came, self._arrived = self._arrived, None
        try:
            self.check()
        except CourierTrouble:
            if came is not None:
                came[0].close()
            raise
        return came

    def call_off(self, why: str, *, again: bool = False) -> None:
        """See there; also whoever waits for a connection."""
        super().call_off(why, again=again)
        with self._come:
            self._come.notify_all()

    def end(self) -> None:
        """Take no connection any more."""
        with self._come:
            self._ended = True
            if self._arrived is not None:
                self._arrived[0].close()
                self._arrived = None
