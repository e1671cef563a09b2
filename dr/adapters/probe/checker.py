"""`ports.world.Checker`: does a guest do its work? One TCP port that accepts, or an ICMP echo that comes back.

Stricter than a look at a host: a refused connection is no service. Not here: what follows (`dr.core.checks`).
"""

from __future__ import annotations

import asyncio
import contextlib

from dr.adapters.probe.prober import HostProber
from dr.model.policy import Check

AGAIN_S = 0.25  # between two attempts in one window


class GuestChecker:
    """Makes the checks of guests' policies. Keeps no sockets between two checks."""

    def __init__(self, ping: HostProber | None = None) -> None:
        self._ping = ping or HostProber(tcp_port=0)

    async def check(self, check: Check, window_s: float) -> bool:
        """Whether it passed, tried again and again within the window. ValueError for what is not an IP address."""
        if check.kind == "ping":
            return (await self._ping.probe((check.address,), window_s)).get(check.address, False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(window_s):
                while True:
                    if await _accepts(check.address, check.port):
                        return True
                    await asyncio.sleep(AGAIN_S)
        return False


async def _accepts(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.transport.abort()  # nothing is said: a service that waits for words is not kept waiting
    return True
