"""Who may do what. The whole rule is `allowed`; everything else here makes sure that every request passes it.

Identity is the peer's certificate, as the TLS handshake verified it; no header, token or body says who asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from dr.api.problem import Problem, answer

BODY_BYTES_MAX = 4 * 1024 * 1024
PEER = "dr.peer"  # key in the ASGI scope


@dataclass(frozen=True)
class Peer:
    """The identity in a client certificate."""

    cluster: str
    role: str  # "admin", "join", "agent", "coordinator"
    name: str
    serial: str = ""


Identify = Callable[[Mapping[str, Any] | None], Peer]  # raises ValueError with a sentence


def allowed(peer: Peer, method: str, path: str) -> bool:
    """An administrator may do everything; an invited host may ask for its certificate; nobody else anything."""
    if peer.role == "admin":
        return True
    return peer.role == "join" and (method, path) == ("POST", "/v1/join")


class Guard:
    """The outermost application: nothing is routed before `allowed` said yes."""

    def __init__(self, app: ASGIApp, cluster: str) -> None:
        self.app = app
        self.cluster = cluster

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        problem = self._problem(scope)
        await (self.app if problem is None else answer(problem))(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        peer = scope.get(PEER)
        if not isinstance(peer, Peer):
            return Problem(
                403, "denied", "Denied.", str(peer or "the peer showed no certificate of this cluster")
            )
        if peer.cluster != self.cluster:
            why = f"the certificate is for cluster {peer.cluster}, this is {self.cluster}"
            return Problem(
                403,
                "denied",
                "Denied.",
                why,
                todo="use the client folder that `dr cluster init` of this cluster wrote",
            )
        if not allowed(peer, scope["method"], scope["path"]):
            why = f"{peer.role} {peer.name} may not {scope['method']} {scope['path']}"
            return Problem(
                403, "denied", "Denied.", why, todo="use an administrator's credential, see --client-dir"
            )
        headers = {
            key: value for key, value in scope["headers"] if key in (b"content-length", b"transfer-encoding")
        }
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers or not length.isdigit() or int(length) > BODY_BYTES_MAX:
            return Problem(
                413,
                "invalid",
                "The request is too large.",
                f"at most {BODY_BYTES_MAX} bytes, of stated length",
            )
        return None


def protocol_with_identity(identify: Identify) -> type[H11Protocol]:
    """uvicorn's HTTP protocol, which puts the peer of each connection into the scope of its requests."""

    class PeerProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            peer: Peer | str
            try:
                peer = identify(transport.get_extra_info("peercert"))
            except ValueError as error:
                peer = str(error)
            app: Any = self.app

            async def with_peer(scope: Any, receive: Any, send: Any) -> None:
                scope[PEER] = peer
                await app(scope, receive, send)

            self.app = with_peer

    return PeerProtocol
