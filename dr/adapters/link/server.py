"""The coordinator's end of the link: listens, lets in agents of this cluster, hands over their sessions.

Not here: which of two sessions of one host counts, when a host is late, what messages mean (`dr.coordinator`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

import msgspec
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from dr.adapters.link.wires import (
    CLOSE_TIMEOUT_S,
    HANDSHAKE_TIMEOUT_S,
    LOGGER,
    PATH,
    QUEUE_FRAMES_MAX,
    Heard,
    Meter,
    Traffic,
    end,
    format_address,
    parse_address,
    tune,
    why_closed,
)
from dr.adapters.pki.credentials import Credentials, identity_in, load, peer_identity, server_context
from dr.adapters.pki.identity import Identity, PkiError, Role, require
from dr.model.base import HostName
from dr.model.wire import MESSAGE_BYTES_MAX, FromAgent, FromCoordinator, decode_from_agent, encode
from dr.ports.link import LinkClosed

SESSIONS_MAX = 4096
SESSIONS_PER_HOST_MAX = 4  # an agent that dials again and again over a network that loses its goodbyes
WAITING_MESSAGES_MAX = 256
WAITING_BYTES_MAX = 2 * MESSAGE_BYTES_MAX
PING_INTERVAL_S = 20.0  # the beats tell sooner; this ends a session that nobody closed
BACKLOG = 1024  # a fleet that dials at once
STOP_TIMEOUT_S = 5.0


class _Wire(Heard, ServerConnection):
    peer: Identity  # set before the websocket opens


class LinkSession:
    """`ports.link.HostSession` over one connection."""

    def __init__(self, wire: _Wire) -> None:
        self.identity = wire.peer
        self.connected_at = monotonic()
        self.address = format_address(*wire.remote_address[:2])
        self._wire = wire
        self._meter = Meter()
        self._waiting = 0  # posted since the peer last kept up
        self._why = ""

    @property
    def host(self) -> HostName:
        """From the certificate."""
        return self.identity.name

    @property
    def heard_at(self) -> float:
        """When anything last came from the agent, by `time.monotonic()`, read or not."""
        return self._wire.heard_at

    def traffic(self) -> Traffic:
        """What went over it so far."""
        return self._meter.read()

    def post(self, message: FromCoordinator) -> None:
        """Hand a message to the socket; bounded: a session that does not drain is closed. Never blocks.

        After the session's end it does nothing: `receive` says so. Raises ValueError for a message larger than
        MESSAGE_BYTES_MAX, and then the session still stands.
        """
        data = encode(message)
        if len(data) > MESSAGE_BYTES_MAX:
            raise ValueError(
                f"a {type(message).__name__} of {len(data)} bytes is larger than a link message may be "
                f"({MESSAGE_BYTES_MAX})"
            )
        waiting_bytes = self._wire.transport.get_write_buffer_size()
        self._waiting = self._waiting + 1 if waiting_bytes else 0
        if self._waiting > WAITING_MESSAGES_MAX or waiting_bytes + len(data) > WAITING_BYTES_MAX:
            self.abort(
                f"host {self.host} does not take its messages: "
                f"{self._waiting} messages and {waiting_bytes} bytes wait"
            )
            return
        broadcast([self._wire], data)  # to one: the library's way to write without waiting
        self._meter.went(len(data))

    async def receive(self) -> FromAgent:
        """The next message; cancelling it loses nothing. Raises LinkClosed; a malformed message closes the session."""
        try:
            data = await self._wire.recv()
        except ConnectionClosed as error:
            raise LinkClosed(self._why or why_closed(error, f"host {self.host}")) from error
        self._meter.came(len(data))
        try:
            message: FromAgent = decode_from_agent(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._why = f"host {self.host} sent a malformed message: {error}"
            await end(self._wire, 1007, f"malformed message: {error}")
            raise LinkClosed(self._why) from error
        return message

    async def close(self, reason: str) -> None:
        """Tell the agent why, and end it, in a second or two at most. Safe to repeat."""
        self._why = self._why or f"the coordinator closed the session of host {self.host}: {reason}"
        await end(self._wire, 1000, reason)

    def abort(self, reason: str) -> None:
        """End it at once, without a word to the peer."""
        self._why = self._why or reason
        self._wire.transport.abort()


class LinkServer:
    """Listens on each of `addresses` (`host:port`, port 0 = the kernel chooses).

    `on_session` runs for the life of each session; when it returns, the session is closed. It gets a LinkClosed from
    `receive` at the session's end, and may let it pass. `allowed` may refuse an identity with a sentence (a removed
    host), which the agent is told. The cluster is that of the coordinator's own certificate.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        credentials: Credentials,
        on_session: Callable[[LinkSession], Awaitable[None]],
        *,
        allowed: Callable[[Identity], str | None] | None = None,
    ) -> None:
        """Raises PkiError, ValueError for an address that is none."""
        self._wanted = [parse_address(address) for address in addresses]
        self._cluster = identity_in(credentials.certificate).cluster
        self._context = server_context(credentials)
        self._on_session = on_session
        self._allowed = allowed
        self._servers: list[Server] = []
        self._sessions: dict[LinkSession, asyncio.Task[object] | None] = {}
        self.refused = 0  # peers with a certificate of this CA, and still refused
        self.last_refusal = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, with the ports that the kernel chose."""
        return tuple(
            format_address(*sock.getsockname()[:2]) for server in self._servers for sock in server.sockets
        )

    @property
    def sessions(self) -> tuple[LinkSession, ...]:
        """The sessions that are open now, oldest first; a host may have several."""
        return tuple(self._sessions)

    async def start(self) -> None:
        """Listen everywhere, or raise OSError with a sentence and listen nowhere."""
        for host, port in self._wanted:
            try:
                server = await serve(
                    self._serve,
                    host,
                    port,
                    ssl=self._context,
                    backlog=BACKLOG,
                    process_request=self._check,
                    compression=None,
                    server_header=None,
                    open_timeout=HANDSHAKE_TIMEOUT_S,
                    close_timeout=CLOSE_TIMEOUT_S,
                    ping_interval=PING_INTERVAL_S,
                    ping_timeout=PING_INTERVAL_S,
                    max_size=MESSAGE_BYTES_MAX,
                    max_queue=QUEUE_FRAMES_MAX,
                    logger=LOGGER,
                    create_connection=_Wire,
                )
            except OSError as error:
                await self.close("The coordinator does not start.")
                raise OSError(
                    error.errno, f"cannot listen for agents on {format_address(host, port)}: {error.strerror}"
                ) from error
            self._servers.append(server)

    def reload(self, credentials: Credentials) -> None:
        """Use a renewed certificate for the sessions to come. Raises PkiError."""
        load(self._context, credentials)

    async def close(self, reason: str) -> None:
        """Stop listening, tell every agent why, and wait a bounded time for the sessions' ends."""
        for server in self._servers:
            server.close(close_connections=False)
        await asyncio.gather(*(session.close(reason) for session in self.sessions))
        for server in self._servers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await server.wait_closed()
        late = [task for task in self._sessions.values() if task is not None]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._servers.clear()

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        """Before the websocket opens: is this one of our agents?"""
        assert isinstance(connection, _Wire)
        try:
            connection.peer = peer_identity(connection.transport.get_extra_info("ssl_object"))
            require(connection.peer, self._cluster, {Role.AGENT})
            why = self._allowed(connection.peer) if self._allowed else None
        except PkiError as error:
            why = str(error)
        if why:
            self.refused += 1
            self.last_refusal = why
            return connection.respond(403, why)
        if request.path != PATH:
            return connection.respond(404, "This is the agent link of dr, and nothing else.")
        if len(self._sessions) >= SESSIONS_MAX:
            return connection.respond(503, f"The coordinator has {SESSIONS_MAX} sessions, and takes no more.")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, _Wire)
        tune(connection.transport.get_extra_info("socket"))
        session = LinkSession(connection)
        same = [other for other in self._sessions if other.host == session.host]
        if len(same) >= SESSIONS_PER_HOST_MAX:
            same[0].abort(f"host {session.host} dialled {SESSIONS_PER_HOST_MAX} more times")
        self._sessions[session] = asyncio.current_task()
        try:
            await self._on_session(session)
        except LinkClosed:
            pass
        finally:
            del self._sessions[session]
            await session.close("the coordinator is done with it")
