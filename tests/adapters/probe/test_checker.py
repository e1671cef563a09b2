"""Checks of guests, on this machine only: ping and TCP. HTTP is in test_http, silence and ICMP in test_prober."""

import asyncio
import socket
import time
from asyncio import StreamReader, StreamWriter

import pytest

from dr.adapters.probe.checker import GuestChecker
from dr.adapters.probe.connect import Sockets
from dr.adapters.probe.prober import HostProber
from dr.model.checks import EVIDENCE_MAX, CheckResult, Ping, Reached, Tcp


def free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])


async def one(check: Reached, window_s: float = 2.0, sockets: Sockets = socket.socket) -> CheckResult:
    (found,) = await GuestChecker(sockets=sockets).check((check,), window_s)
    assert found.check == check
    assert found.passed is not bool(found.why), "who does not pass says why, and nobody else"
    return found


async def says(words: bytes, check_text: str, window_s: float = 2.0) -> CheckResult:
    """What a check finds where a service says that and hangs up."""

    async def serve(_: StreamReader, writer: StreamWriter) -> None:
        writer.write(words)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        return await one(Tcp(address="127.0.0.1", port=port, text=check_text), window_s)


async def test_a_port_that_accepts_passes_and_one_that_refuses_does_not() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert (await one(Tcp(address="127.0.0.1", port=port))).passed
    found = await one(Tcp(address="127.0.0.1", port=free_port()), 0.2)
    assert found.why == "it refuses the connection"


async def test_a_service_that_comes_up_within_the_window_passes() -> None:
    port = free_port()
    task = asyncio.create_task(one(Tcp(address="127.0.0.1", port=port), 5.0))
    await asyncio.sleep(0.1)
    assert not task.done()
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
        assert (await task).passed


async def test_what_a_service_says_first_is_looked_at() -> None:
    found = await says(b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0")
    assert (found.passed, found.evidence) == (True, "SSH-2.0-OpenSSH_9.2")
    wrong = await says(b"220 mail\r\n", "SSH-2.0", 0.2)
    assert (wrong.why, wrong.evidence) == ('what it says first does not have "SSH-2.0"', "220 mail")
    assert (await says(b"", "SSH-2.0", 0.2)).why == "it says nothing and hangs up"


async def test_a_service_that_talks_without_end_is_cut_off() -> None:
    found = await says(b"\x00\n spam" * 1_000_000, "ready", 0.5)
    assert "does not have" in found.why
    assert len(found.evidence) == EVIDENCE_MAX
    assert found.evidence.isprintable()


async def test_a_service_that_is_silent_is_waited_for_no_longer_than_the_window() -> None:
    async with await asyncio.start_server(lambda _, __: asyncio.sleep(10), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        began = time.monotonic()
        found = await one(Tcp(address="127.0.0.1", port=port, text="ready"), 0.3)
        assert found.why == "no answer within 0.3 s"
        assert time.monotonic() - began < 3


async def test_all_checks_are_made_at_the_same_time_and_told_in_their_order() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bad = tuple(Tcp(address="127.0.0.1", port=free_port()) for _ in range(4))
    async with server:
        began = time.monotonic()
        found = await GuestChecker().check((*bad, Tcp(address="127.0.0.1", port=port)), 0.8)
    assert [each.passed for each in found] == [False] * 4 + [True]
    assert time.monotonic() - began < 3 * 0.8


async def test_sockets_come_from_whoever_asks() -> None:
    """A check in another network must not slip out into this one."""
    made: list[tuple[int, int]] = []

    def elsewhere(family: int, kind: int, protocol: int) -> socket.socket:
        made.append((family, protocol))
        raise PermissionError(1, "Operation not permitted")

    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        found = await one(Tcp(address="127.0.0.1", port=port), 0.2, sockets=elsewhere)
        assert found.why == "there is no socket for it here: Operation not permitted"
        assert (
            await one(Ping(address="127.0.0.1"), 0.2, sockets=elsewhere)
        ).why == "pings are not allowed here"
    assert {family for family, _ in made} == {socket.AF_INET}
    assert {protocol for _, protocol in made} == {0, socket.IPPROTO_ICMP}


class Pings(HostProber):
    def __init__(self, found: dict[str, bool]) -> None:
        super().__init__(tcp_port=0)
        self.found = found

    async def probe(self, addresses: tuple[str, ...], window_s: float) -> dict[str, bool]:
        return self.found


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"192.0.2.7": True}, ""),
        ({"192.0.2.7": False}, "no echo came back"),
        ({}, "no packet could be sent to it from here"),
    ],
)
async def test_a_ping_that_could_not_be_sent_has_not_passed(found: dict[str, bool], why: str) -> None:
    check = Ping(address="192.0.2.7")
    (result,) = await GuestChecker(ping=Pings(found)).check((check,), 0.1)
    assert (result.passed, result.why) == (not why, why)


async def test_a_ping_is_not_answered_by_a_port() -> None:
    """A machine on which only something listens does not echo: without ICMP, nothing passes."""

    def no_icmp(family: int, kind: int, protocol: int) -> socket.socket:
        assert protocol, "no TCP connection is made"
        raise PermissionError(1, "Operation not permitted")

    assert not (await one(Ping(address="127.0.0.1"), 0.1, sockets=no_icmp)).passed
