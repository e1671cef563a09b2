"""One TLS connection between two agents: messages and bytes over it, and an end to every wait.

Used by one thread at a time; only `busy` says something beside the thread that is.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic

import msgspec

from dr.adapters.courier.messages import HEAD_BYTES, MESSAGE_BYTES_MAX, Alive, Failed, Message, decode, encode
from dr.model.base import HostName
from dr.ports.courier import CourierError

SLICE_B = 256 * 1024  # each must get through within the patience
LINGER_S = 5.0
REASON_CHARS_MAX = 2_000
KEEPALIVE_S = 10


class Broken(Exception):
    """The connection ended, or nothing came for too long: another one may do better."""


class Wire:
    """A connection on which the handshake is done. Raises Broken throughout, and CourierError as said."""

    def __init__(
        self,
        tls: ssl.SSLSocket,
        peer: HostName,
        patience_s: float,
        on_alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_alive` is called when the other end is busy, and may raise."""
        self.peer = peer
        self.broken = False  # seen by `busy`
        self._tls = tls
        self._patience_s = patience_s
        self._on_alive = on_alive
        self._said_at = monotonic()
        self._sending = threading.Lock()

    @property
    def socket(self) -> socket.socket:
        """To be shut down by another thread."""
        return self._tls

    def send(self, message: Message) -> None:
        """Say it."""
        data = encode(message)
        assert len(data) <= MESSAGE_BYTES_MAX
        with self._sending:
            self._put(len(data).to_bytes(HEAD_BYTES) + data)

    def send_bytes(self, data: memoryview, pace: Callable[[int], None]) -> None:
        """What a message announced. `pace` is told each slice before it goes, and may take its time."""
        for at in range(0, len(data), SLICE_B):
            part = data[at : at + SLICE_B]
            pace(len(part))
            with self._sending:
                self._put(part)

    def _put(self, data: bytes | memoryview) -> None:
        try:
            self._tls.settimeout(self._patience_s)
            self._tls.sendall(data)
        except OSError as error:
            raise self._end(error) from error
        self._said_at = monotonic()

    def receive(self, deadline: float | None = None) -> Message:
        """The next message; that the other end is alive is no message. `deadline`: by the monotonic clock.

        Raises Broken, also where the other end says that it failed for now; CourierError where it says why to give up,
        or what it says makes no sense.
        """
        while True:
            until = deadline or monotonic() + self._patience_s
            size = int.from_bytes(self._read(HEAD_BYTES, until))
            if size > MESSAGE_BYTES_MAX:
                raise CourierError(f"host {self.peer} sent a message of {size} bytes, which none has")
            try:
                message: Message = decode(self._read(size, until))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise CourierError(f"host {self.peer} sent what this version cannot read: {error}") from error
            if isinstance(message, Failed):
                reason = f"host {self.peer}: {message.reason[:REASON_CHARS_MAX]}"
                raise CourierError(reason) if message.final else Broken(reason)
            if not isinstance(message, Alive) or deadline is not None:
                return message
            self._on_alive()

    def _read(self, size: int, until: float) -> memoryview:
        data = memoryview(bytearray(size))
        self._fill(data, until)
        return data

    def read_bytes(self, into: memoryview) -> None:
        """What a message announced."""
        self._fill(into, None)

    def _fill(self, into: memoryview, until: float | None) -> None:
        """Until then, or as long as something comes now and then."""
        try:
            self._tls.settimeout(self._patience_s)
            while into:
                if until is not None:
                    self._tls.settimeout(max(0.001, until - monotonic()))
                came = self._tls.recv_into(into)
                if not came:
                    raise Broken(f"host {self.peer} closed the connection")
                into = into[came:]
        except OSError as error:
            raise self._end(error) from error

    def _end(self, error: OSError) -> Exception:
        """In TLS 1.3 a client hears only now whether its certificate was taken."""
        if isinstance(error, ssl.SSLError) and (why := refusal(error)):
            return CourierError(f"host {self.peer} refused this host's certificate ({why})")
        if isinstance(error, TimeoutError) and not error.errno:
            return Broken(f"nothing got through to host {self.peer} or back for {self._patience_s:g} s")
        return Broken(f"the connection to host {self.peer} broke: {error.strerror or error}")

    @property
    def heard(self) -> bool:
        """Whether something came that was not received yet."""
        if self._tls.pending():
            return True
        poll = select.poll()
        poll.register(self._tls, select.POLLIN)
        return bool(poll.poll(0))

    def reassure(self) -> None:
        """Say that this end is alive, if it said nothing for a while."""
        if monotonic() - self._said_at >= self._patience_s / 4:
            self.send(Alive())

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The other end is told again and again that this one is alive; nothing else goes over the wire meanwhile."""
        over = threading.Event()

        def reassure() -> None:
            while not over.wait(self._patience_s / 4):
                try:
                    self.send(Alive())
                except (Broken, CourierError):
                    self.broken = True
                    return

        thread = threading.Thread(target=reassure, name=f"alive to {self.peer}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def give_up(self, reason: str, *, final: bool = True) -> None:
        """Tell why this ends, if that can be told at all."""
        with suppress(Broken, CourierError):
            self.send(Failed(reason=reason[:REASON_CHARS_MAX], final=final))
            linger(self._tls)

    def close(self) -> None:
        """Not while another thread may use it."""
        self._tls.close()


def refusal(error: ssl.SSLError) -> str:
    """What of a certificate the other end did not like; empty when the error says nothing of the kind."""
    reason = error.reason or ""
    of_it = "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)
    return reason.lower().replace("_", " ") if of_it else ""


def linger(sock: socket.socket, limit_s: float = LINGER_S) -> None:
    """Say no more, and let the other end read what was said: to close on unread data would throw that away."""
    with suppress(OSError):
        plain = socket.socket  # the methods below TLS
        plain.shutdown(sock, socket.SHUT_WR)
        until = monotonic() + limit_s
        while (left_s := until - monotonic()) > 0:
            sock.settimeout(left_s)
            if not plain.recv(sock, SLICE_B):
                return


def cut(sock: socket.socket) -> None:
    """End the connection under whichever thread is using it, which gets an error at once."""
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # that of an SSLSocket would go on in the clear


def tune(sock: socket.socket, patience_s: float) -> None:
    """No delay for small messages; a silent peer is noticed within the patience. Before connecting, or after."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(patience_s * 1000)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
