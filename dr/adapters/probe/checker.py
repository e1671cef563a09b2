"""`ports.world.Checker`: does a guest do its work? One TCP port that accepts, or an ICMP echo that comes back.

Stricter than a look at a host: a refused connection is no service. Not here: what follows (`dr.core.checks`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from dr.adapters.probe.prober import HostProber, SocketFactory
from dr.model.policy import Check

AGAIN_S = 0.25  # between two attempts in one window


class GuestChecker:
    """Makes checks. Keeps no sockets between two of them. `sockets`: those of another network namespace, say."""

    def __init__(self, ping: HostProber | None = None, *, sockets: SocketFactory = socket.socket) -> None:
        self._sockets = sockets
        self._ping = ping or HostProber(tcp_port=0, sockets=sockets)

    async def check(self, check: Check, window_s: float) -> bool:
        """Whether it passed, tried again and again within the window. ValueError for what is not an IP address."""
        if check.kind == "ping":
            return (await self._ping.probe((check.address,), window_s)).get(check.address, False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(window_s):
                while True:
                    if await _accepts(check.address, check.port, self._sockets):
                        return True
                    await asyncio.sleep(AGAIN_S)
        return False


async def _accepts(address: str, port: int, sockets: SocketFactory) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with sockets(family, socket.SOCK_STREAM, 0) as tcp:
            tcp.setblocking(False)
            await asyncio.get_running_loop().sock_connect(tcp, (address, port))
    except OSError:
        return False
    return True  # nothing is said: a service that waits for words is not kept waiting
