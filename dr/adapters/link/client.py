"""The agent's end of the link: dials, shows the host's certificate, and knows a coordinator when it sees one.

Not here: when to dial again, and what messages mean (`dr.agent`).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, WebSocketException

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
    why_failed,
)
from dr.adapters.pki.credentials import (
    client_context,
    days_left,
    identity_in,
    peer_identity,
    read_credentials,
)
from dr.adapters.pki.identity import Identity, PkiError, Role, require
from dr.model.wire import MESSAGE_BYTES_MAX, FromAgent, FromCoordinator, decode_from_coordinator, encode
from dr.ports.link import LinkClosed

CONNECT_TIMEOUT_S = 1.0
SEND_TIMEOUT_S = 10.0
PING_INTERVAL_S = 10.0  # for a link without beats; TCP_USER_TIMEOUT is quicker where something was sent


class _Wire(Heard, ClientConnection):
    pass


class Link:
    """`ports.link.AgentLink` over one connection. Made by `LinkDialler.dial`."""

    def __init__(self, wire: _Wire, address: str, coordinator: Identity) -> None:
        self.address = address
        self.coordinator = coordinator
        self.connected_at = monotonic()
        self._wire = wire
        self._meter = Meter()

    @property
    def heard_at(self) -> float:
        """When anything last came from the coordinator, by `time.monotonic()`, read or not."""
        return self._wire.heard_at

    def traffic(self) -> Traffic:
        """What went over it so far."""
        return self._meter.read()

    async def send(self, message: FromAgent) -> None:
        """Raises LinkClosed; ValueError for a message larger than MESSAGE_BYTES_MAX, and then the link still stands."""
        data = encode(message)
        if len(data) > MESSAGE_BYTES_MAX:
            raise ValueError(
                f"a {type(message).__name__} of {len(data)} bytes is larger than a link message may be "
                f"({MESSAGE_BYTES_MAX})"
            )
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._wire.send(data)
        except ConnectionClosed as error:
            raise LinkClosed(self._why(error)) from error
        except TimeoutError as error:
            self._wire.transport.abort()
            raise LinkClosed(
                f"the coordinator at {self.address} took nothing for {SEND_TIMEOUT_S:g} s"
            ) from error
        self._meter.went(len(data))

    def __aiter__(self) -> Link:
        return self

    async def __anext__(self) -> FromCoordinator:
        """The next message. Raises LinkClosed. Cancelling it loses nothing."""
        try:
            data = await self._wire.recv()
        except ConnectionClosed as error:
            raise LinkClosed(self._why(error)) from error
        self._meter.came(len(data))
        try:
            message: FromCoordinator = decode_from_coordinator(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            sentence = f"the coordinator at {self.address} sent what this version cannot read: {error}"
            await end(self._wire, 1007, f"malformed message: {error}")
            raise LinkClosed(sentence) from error
        return message

    async def close(self) -> None:
        """Say goodbye to the connection, in a second or two at most. Safe to repeat."""
        await end(self._wire, 1000, "the agent closed the link")

    def _why(self, error: ConnectionClosed) -> str:
        return why_closed(error, f"the coordinator at {self.address}")


class LinkDialler:
    """`ports.link.Dialler` for a list of `host:port`, with the credentials in `folder`.

    They are read again at each dial, so a renewed certificate is used from the next one on.
    Raises ValueError for an address that is none.
    """

    def __init__(
        self, addresses: Sequence[str], folder: Path, *, connect_timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        self._addresses = [parse_address(address) for address in addresses]
        self._folder = folder
        self._connect_timeout_s = connect_timeout_s

    async def dial(self) -> Link:
        """Try each configured address in turn. Raises LinkClosed with a sentence when none takes it."""
        try:
            credentials = read_credentials(self._folder)
            own = identity_in(credentials.certificate)
            context = client_context(credentials)
        except PkiError as error:
            raise LinkClosed(str(error)) from error
        refusals = []
        for host, port in self._addresses:
            address = format_address(host, port)
            try:
                return await self._dial(host, port, context, own.cluster)
            except InvalidStatus as error:
                said = bytes(error.response.body or b"")[:500].decode("utf-8", "replace").strip()
                refusals.append(f"{address}: {said or error}")
            except PkiError as error:
                refusals.append(f"{address}: {error}")
            except (OSError, WebSocketException) as error:
                refusals.append(f"{address}: {_explain(error)}")
        sentence = f"No coordinator took the link. {'; '.join(refusals) or 'No address is configured'}."
        if (days := days_left(credentials.certificate)) < 0:
            sentence += f" This host's certificate expired {-days:.1f} days ago, if its clock is right."
        raise LinkClosed(sentence)

    async def _dial(self, host: str, port: int, context: ssl.SSLContext, cluster: str) -> Link:
        sock = await self._connect(host, port)
        address = format_address(host, port)
        try:
            wire = await connect(
                f"wss://{address}{PATH}",
                sock=sock,
                ssl=context,
                server_hostname=host,
                compression=None,  # it would cost each beat CPU, and each link memory
                user_agent_header=None,
                open_timeout=HANDSHAKE_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=PING_INTERVAL_S,
                ping_timeout=PING_INTERVAL_S,
                max_size=MESSAGE_BYTES_MAX,
                max_queue=QUEUE_FRAMES_MAX,
                logger=LOGGER,
                create_connection=_Wire,
            )
        except BaseException:
            sock.close()
            raise
        assert isinstance(wire, _Wire)
        try:
            coordinator = peer_identity(wire.transport.get_extra_info("ssl_object"))
            require(coordinator, cluster, {Role.COORDINATOR})
        except BaseException:
            wire.transport.abort()
            raise
        return Link(wire, address, coordinator)

    async def _connect(self, host: str, port: int) -> socket.socket:
        """A TCP connection, by the first of the host's addresses that takes it in time. Raises OSError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_timeout_s):
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            except socket.gaierror:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, target in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                tune(sock)
                async with asyncio.timeout(self._connect_timeout_s):
                    await loop.sock_connect(sock, target)
                return sock
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
        raise failure


def _explain(error: OSError | WebSocketException) -> str:
    """What a person can do something about. The TLS names are OpenSSL's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good for this cluster and address ({error.verify_message})"
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return f"it refused this host's certificate ({(error.reason or '').lower().replace('_', ' ')})"
    if isinstance(error, InvalidMessage | ConnectionResetError | BrokenPipeError):
        # With TLS 1.3 a client learns this only after its own handshake, and asyncio (3.11) drops the server's alert.
        return "it hung up; most likely it refused this host's certificate (look at its dates, and `dr host list`)"
    return why_failed(error)
