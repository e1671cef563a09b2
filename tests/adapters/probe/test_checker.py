"""Checks of guests, on this machine only. Silence and ICMP are as in test_prober."""

import asyncio
import socket

from dr.adapters.probe.checker import GuestChecker
from dr.adapters.probe.prober import HostProber
from dr.model.policy import Check


def free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])


async def test_a_port_that_accepts_passes_and_one_that_refuses_does_not() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await GuestChecker().check(Check(kind="tcp", address="127.0.0.1", port=port), 2.0)
    assert not await GuestChecker().check(Check(kind="tcp", address="127.0.0.1", port=free_port()), 0.2)


async def test_a_service_that_comes_up_within_the_window_passes() -> None:
    port = free_port()
    task = asyncio.create_task(GuestChecker().check(Check(kind="tcp", address="127.0.0.1", port=port), 5.0))
    await asyncio.sleep(0.1)
    assert not task.done()
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
        assert await task


class Pings(HostProber):
    def __init__(self, answers: bool) -> None:
        super().__init__(tcp_port=0)
        self.answers = answers

    async def probe(self, addresses: tuple[str, ...], window_s: float) -> dict[str, bool]:
        return dict.fromkeys(addresses, True) if self.answers else {}


async def test_a_ping_that_could_not_be_sent_has_not_passed() -> None:
    check = Check(kind="ping", address="192.0.2.7")
    assert await GuestChecker(Pings(True)).check(check, 0.1)
    assert not await GuestChecker(Pings(False)).check(check, 0.1)


async def test_a_ping_is_not_answered_by_a_port() -> None:
    """A machine on which only something listens does not echo: without ICMP, nothing passes."""

    def no_icmp(family: int, kind: int, protocol: int) -> socket.socket:
        assert protocol, "no TCP connection is made"
        raise PermissionError(1, "Operation not permitted")

    prober = HostProber(tcp_port=0, sockets=no_icmp)
    assert not await GuestChecker(prober).check(Check(kind="ping", address="127.0.0.1"), 0.1)
