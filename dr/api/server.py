"""The API on its sockets: uvicorn inside the coordinator's own loop, TLS with a client certificate, always."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence

import uvicorn
from starlette.types import ASGIApp

from dr.api.access import Identify, protocol_with_identity


class _Server(uvicorn.Server):
    """Signals are the coordinator's to handle; `is_up` says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ApiServer:
    """Serves one application until `stop`."""

    def __init__(self, app: ASGIApp, context: ssl.SSLContext, identify: Identify) -> None:
        if context.verify_mode is not ssl.CERT_REQUIRED:
            raise ValueError("the API is served to clients with a certificate only")
        config = uvicorn.Config(
            app,
            http=protocol_with_identity(identify),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=2,
        )
        config.load()
        config.ssl = context
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self.ports: list[int] = []

    async def start(self, endpoints: Sequence[tuple[str, int]]) -> None:
        """Listen on each (address, port); port 0 = any. Raises OSError, naming the address."""
        sockets = [_listen(host, port) for host, port in endpoints]
        self.ports = [each.getsockname()[1] for each in sockets]
        self._task = asyncio.create_task(self._server.serve(sockets=sockets), name="api")
        started = asyncio.create_task(self._server.is_up.wait())
        await asyncio.wait({started, self._task}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


def _listen(host: str, port: int) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listener
