"""What both ends of the link share: addresses, socket options, limits, and why a session ended."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from contextlib import suppress
from time import monotonic
from typing import Any

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed, WebSocketException

from dr.model.base import Record

PATH = "/link"
HANDSHAKE_TIMEOUT_S = 5.0  # TLS and websocket: long enough for a coordinator that a whole fleet dials at once
CLOSE_TIMEOUT_S = 1.0
USER_TIMEOUT_MS = 5_000  # sent and not acknowledged for so long: the connection is broken, dial again
QUEUE_FRAMES_MAX = 4  # received and not yet taken; then TCP holds the sender back
REASON_BYTES_MAX = 123  # of a websocket's close frame

# Opened, closed, reset: normal for a fleet. The library's own log of it would be all that is seen.
LOGGER = logging.getLogger("dr.link.wire")
LOGGER.setLevel(logging.WARNING)


class Traffic(Record):
    """What went over one session, payload only."""

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Heard(Connection):
    """A connection that knows when it last heard anything: stamped as it arrives, not when somebody looks."""

    heard_at = 0.0  # time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with each piece that TLS has decrypted."""
        self.heard_at = monotonic()
        super().data_received(data)


class Meter:
    """Counts messages on their way."""

    def __init__(self) -> None:
        self._in = self._out = self._bytes_in = self._bytes_out = 0

    def came(self, size: int) -> None:
        """One message was received."""
        self._in += 1
        self._bytes_in += size

    def went(self, size: int) -> None:
        """One message was sent, or handed to the socket."""
        self._out += 1
        self._bytes_out += size

    def read(self) -> Traffic:
        """The counts so far."""
        return Traffic(
            messages_in=self._in, messages_out=self._out, bytes_in=self._bytes_in, bytes_out=self._bytes_out
        )


def parse_address(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises ValueError with a sentence."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isdecimal() or int(port) > 65_535 or not host or (":" in host and not bracketed):
        raise ValueError(f"'{text}' is no link address: write host:port or [IPv6]:port")
    return host.strip("[]"), int(port)


def format_address(host: str, port: int) -> str:
    """The reverse of `parse_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tune(sock: Any) -> None:
    """No delay for small messages, and a dead connection noticed in seconds. `sock`: a socket, or asyncio's view."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def short(text: str) -> str:
    """As much of a sentence as fits into a close frame."""
    data = text.encode("utf-8", "replace")
    if len(data) <= REASON_BYTES_MAX:
        return text
    return data[: REASON_BYTES_MAX - 3].decode("utf-8", "ignore") + "…"


def why_closed(error: ConnectionClosed, peer: str) -> str:
    """One sentence about the end of a connection, as seen from here."""
    if error.rcvd is not None and not error.rcvd_then_sent and error.sent is not None:
        pass  # we closed first; the peer only agreed
    elif error.rcvd is not None:
        return f"{peer} closed the session: {error.rcvd.reason or f'code {error.rcvd.code}'}"
    if error.sent is not None:
        return f"this side closed the session: {error.sent.reason or f'code {error.sent.code}'}"
    cause = error.__cause__
    return f"the connection to {peer} broke: {why_failed(cause) if cause else 'it ended without a word'}"


def why_failed(error: BaseException) -> str:
    """A few words about an error of socket, TLS or websocket."""
    if isinstance(error, TimeoutError) and not error.errno:
        return "no answer in time"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        # asyncio puts its own words and a tuple into strerror; name resolution has negative numbers of its own
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    if isinstance(error, EOFError):
        return "it was closed"
    text = str(error) or type(error).__name__
    return text.splitlines()[0] if isinstance(error, WebSocketException) else text


async def end(connection: Connection, code: int, reason: str) -> None:
    """Close with a reason, and for sure: a peer that does not take it is cut off after `CLOSE_TIMEOUT_S`."""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                await connection.close(code, short(reason))
    finally:
        connection.transport.abort()
