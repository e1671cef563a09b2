"""`ports.world.Checker`: do guests do their work, as seen over the network? Ping, TCP and HTTP, no threads.

Stricter than a look at a host: a refused connection is no service. The coordinator uses it, and whoever stands in
another network: sockets come from a factory. Not here: HTTP itself (`http`), what follows (`dr.core.checks`).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable

from dr.adapters.probe import http
from dr.adapters.probe.connect import NoWay, Sockets, connected
from dr.adapters.probe.prober import HostProber
from dr.model.checks import CheckResult, Http, Ping, Reached, Tcp, bounded

AGAIN_S = 0.25  # between two tries of one check
ENOUGH_S = 0.05  # before the window is over: silence is told by whoever listened
SAID_MAX = 4096  # bytes that a service may say before what is expected of it


class GuestChecker:
    """Makes checks. Keeps no sockets between two rounds. `sockets`: those of another network namespace, say."""

    def __init__(self, *, sockets: Sockets = socket.socket, ping: HostProber | None = None) -> None:
        self._sockets = sockets
        self._ping = ping or HostProber(tcp_port=0, sockets=sockets)

    async def check(self, checks: tuple[Reached, ...], window_s: float) -> tuple[CheckResult, ...]:
        """One result each, all at the same time; each is tried until it passes, or the window is over."""
        return tuple(await asyncio.gather(*(self._until(check, window_s) for check in checks)))

    async def _until(self, check: Reached, window_s: float) -> CheckResult:
        """Its last try, or, where that was cut off at the end of the window, the one before."""
        until = time.monotonic() + window_s
        last: CheckResult | None = None
        while True:
            began, made = time.monotonic(), True
            try:
                async with asyncio.timeout(until - began):
                    evidence, why = await self._try(check, until - began)
            except TimeoutError:
                if last is not None:
                    return last
                evidence, why = "", f"no answer within {window_s:g} s"
            except NoWay as error:
                evidence, why, made = "", str(error), error.tried
            took_s = time.monotonic() - began
            last = CheckResult(
                check=check, passed=not why, made=made, why=why, took_s=took_s, evidence=bounded(evidence)
            )
            if not why or time.monotonic() + AGAIN_S >= until:
                return last
            await asyncio.sleep(AGAIN_S)

    def _try(self, check: Reached, window_s: float) -> Awaitable[tuple[str, str]]:
        """What came back, and why it does not pass. Raises NoWay."""
        match check:
            case Ping():
                return self._echo(check, window_s)
            case Tcp():
                return _accepts(check, self._sockets)
            case Http():
                return http.get(check, self._sockets)

    async def _echo(self, check: Ping, window_s: float) -> tuple[str, str]:
        try:
            found = await self._ping.probe((check.address,), max(window_s - ENOUGH_S, ENOUGH_S))
        except ValueError as error:
            raise NoWay(str(error), tried=False) from None
        if check.address not in found:
            why = (
                "no packet could be sent to it from here" if self._ping.icmp else "pings are not allowed here"
            )
            raise NoWay(why, tried=False)
        return ("an echo came back", "") if found[check.address] else ("", "no echo came back")


async def _accepts(check: Tcp, sockets: Sockets) -> tuple[str, str]:
    """Whether it accepts; nothing is said to it. With `text`: what it says first is read until that is in it."""
    reader, writer = await connected(check.address, check.port, sockets)
    try:
        if not check.text:
            return "it accepts connections", ""
        wanted, said = check.text.encode(), b""
        while len(said) < SAID_MAX:
            try:
                more = await reader.read(SAID_MAX - len(said))
            except OSError as error:
                raise NoWay(f"the connection broke: {error.strerror or error}") from None
            said += more
            if wanted in said:
                return said.decode(errors="replace"), ""
            if not more:
                break
        why = f'what it says first does not have "{check.text}"' if said else "it says nothing and hangs up"
        return said.decode(errors="replace"), why
    finally:
        writer.transport.abort()  # a service that waits for words is not kept waiting
