"""Life and silence, on this machine only: no packet leaves it, and no root is needed.

Silent addresses are of TEST-NET, through sockets bound to the loopback device: the kernel drops what it finds there.
Real ICMP sockets need privileges: integration/test_prober.py.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.adapters.probe.prober import HostProber, _Target, checksum, echo_request, is_reply

SILENT, SILENT_2 = "192.0.2.7", "192.0.2.8"
WINDOW_S = 0.3

Reply = Callable[[bytes], list[tuple[bytes, str]]]


def on_lo(family: int, kind: int, protocol: int) -> socket.socket:
    """Only TCP, and only on the loopback device."""
    if protocol in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6):
        raise PermissionError(errno.EPERM, "Operation not permitted")
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    return made


class Ping(socket.socket):
    """A ping socket in a closed world: what it sends is answered by `reply`, through a UDP socket on 127.0.0.1."""

    reply: Reply
    sent: list[bytes]
    senders: list[str]

    def sendto(self, data: bytes, address: object) -> int:  # type: ignore[override]
        self.sent.append(data)
        for packet, sender in self.reply(data):
            self.senders.append(sender)
            super().sendto(packet, self.getsockname())
        return len(data)

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:  # type: ignore[override]
        data, _ = super().recvfrom(size)
        return data, (self.senders.pop(0), 0)


class World:
    def __init__(self, reply: Reply) -> None:
        self.reply, self.sent = reply, list[bytes]()
        self.made: list[socket.socket] = []

    def __call__(self, family: int, kind: int, protocol: int) -> socket.socket:
        if protocol == socket.IPPROTO_ICMP and kind == socket.SOCK_DGRAM:
            ping = Ping(socket.AF_INET, socket.SOCK_DGRAM)
            ping.bind(("127.0.0.1", 0))
            ping.reply, ping.sent, ping.senders = self.reply, self.sent, []
            self.made.append(ping)
            return ping
        self.made.append(on_lo(family, kind, protocol))
        return self.made[-1]


def echo_reply(
    data: bytes, *, kind: int = 0, code: int = 0, sequence: int | None = None, flip: int = -1
) -> bytes:
    """The reply to a request, with faults. A ping socket has put its own identifier in."""
    own = struct.unpack("!H", data[6:8])[0] if sequence is None else sequence
    body = bytearray(data[8:])
    if flip >= 0:
        body[flip] ^= 1
    return struct.pack("!BBHHH", kind, code, 0, 4711, own) + bytes(body)


@pytest.fixture
async def port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def test_listening_and_refusing_are_life() -> None:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    prober = HostProber(tcp_port=port, sockets=on_lo)
    began = time.monotonic()
    assert await prober.probe(("127.0.0.1", "127.0.0.2", "::1"), 5) == dict.fromkeys(
        ("127.0.0.1", "127.0.0.2", "::1"), True
    )
    assert time.monotonic() - began < 0.5
    server.close()


async def test_silence_takes_the_window_and_not_more(port: int) -> None:
    prober = HostProber(tcp_port=port, sockets=on_lo)
    began = time.monotonic()
    assert await prober.probe((SILENT, SILENT_2), WINDOW_S) == {SILENT: False, SILENT_2: False}
    assert WINDOW_S <= time.monotonic() - began < WINDOW_S + 0.25  # 5 ms on an idle machine


async def test_one_answer_ends_it(port: int) -> None:
    began = time.monotonic()
    assert await HostProber(tcp_port=port, sockets=on_lo).probe((SILENT, "127.0.0.1"), 5) == {
        SILENT: False,
        "127.0.0.1": True,
    }
    assert time.monotonic() - began < 0.5


async def test_icmp_reply_is_life(port: int) -> None:
    world = World(lambda data: [(echo_reply(data), SILENT)])
    began = time.monotonic()
    assert await HostProber(tcp_port=port, sockets=world).probe((SILENT,), 5) == {SILENT: True}
    assert time.monotonic() - began < 0.2
    assert len(world.sent) == 1


async def test_a_lost_echo_is_repeated(port: int) -> None:
    seen: list[bytes] = []

    def third_only(data: bytes) -> list[tuple[bytes, str]]:
        seen.append(data)
        return [(echo_reply(data), SILENT)] if len(seen) == 3 else []

    began = time.monotonic()
    assert await HostProber(tcp_port=port, sockets=World(third_only)).probe((SILENT,), WINDOW_S) == {
        SILENT: True
    }
    assert WINDOW_S * 2 / 3 <= time.monotonic() - began < WINDOW_S + 0.25
    assert [struct.unpack("!H", data[6:8])[0] for data in seen] == [0, 1, 2]


@pytest.mark.parametrize(
    "stray",
    [
        lambda data: [(echo_reply(data), SILENT_2)],  # another host
        lambda data: [(echo_reply(data, flip=0), SILENT)],  # another token
        lambda data: [(echo_reply(data, flip=15), SILENT)],
        lambda data: [(echo_reply(data, sequence=9), SILENT)],
        lambda data: [(echo_reply(data, kind=8), SILENT)],  # an echo request
        lambda data: [(echo_reply(data, kind=3, code=1), SILENT)],  # host unreachable
        lambda data: [(echo_reply(data)[:-1], SILENT), (echo_reply(data) + b"x", SILENT), (b"", SILENT)],
        lambda data: [(os.urandom(24), SILENT)] * 200,
    ],
)
async def test_stray_packets_are_not_life(port: int, stray: Reply) -> None:
    prober = HostProber(tcp_port=port, sockets=World(stray))
    assert await prober.probe((SILENT,), 0.15) == {SILENT: False}


async def test_an_earlier_probes_reply_is_not_life(port: int) -> None:
    old: list[bytes] = []

    def keep(data: bytes) -> list[tuple[bytes, str]]:
        old.append(data)
        return []

    await HostProber(tcp_port=port, sockets=World(keep)).probe((SILENT,), 0.06)
    late = World(lambda _: [(echo_reply(data), SILENT) for data in old])
    assert await HostProber(tcp_port=port, sockets=late).probe((SILENT,), 0.06) == {SILENT: False}


async def test_without_icmp_it_says_so_once(port: int, caplog: pytest.LogCaptureFixture) -> None:
    prober = HostProber(tcp_port=port, sockets=on_lo)
    assert prober.icmp
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert await prober.probe(("127.0.0.1",), 1) == {"127.0.0.1": True}
    assert not prober.icmp
    assert [r.getMessage() for r in caplog.records] == [
        "no ICMP socket (Operation not permitted): looking for hosts by TCP only"
    ]


@pytest.mark.parametrize("code", [errno.ENETUNREACH, errno.EPERM, errno.EADDRNOTAVAIL])
async def test_what_cannot_be_asked_is_not_silent(code: int) -> None:
    """Without a route this machine is the blind one."""

    class NoRoute(socket.socket):
        def connect_ex(self, _address: object) -> int:
            return code

        def sendto(self, _data: bytes, _address: object) -> int:  # type: ignore[override]
            raise OSError(code, "no route")

    def no_route(family: int, kind: int, _protocol: int) -> socket.socket:
        return NoRoute(family, socket.SOCK_DGRAM)

    assert await HostProber(sockets=no_route).probe((SILENT,), 0.1) == {}


async def test_no_sockets_left_is_not_silence() -> None:
    def full(*_: int) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    assert await HostProber(sockets=full).probe((SILENT,), 0.05) == {}


@pytest.mark.parametrize("name", ["localhost", "h1.example", "", "1.2.3.4.5", "10.0.0.1 ", "a" * 300])
async def test_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not an IP address"):
        await HostProber(sockets=on_lo).probe((name,), 0.05)


async def test_no_address_is_no_news() -> None:
    assert await HostProber(sockets=on_lo).probe((), 5) == {}


async def test_a_stalled_loop_does_not_turn_an_answer_into_silence(port: int) -> None:
    """The answer came while this process was not running; the window's end and the answer are seen together."""
    prober = HostProber(tcp_port=port, sockets=World(lambda data: [(echo_reply(data), SILENT)]))
    task = asyncio.create_task(prober.probe((SILENT,), 0.05))
    asyncio.get_running_loop().call_soon(time.sleep, 0.2)
    assert await task == {SILENT: True}


async def test_sockets_are_closed_also_when_cancelled(port: int) -> None:
    world = World(lambda _: [])
    prober = HostProber(tcp_port=port, sockets=world)
    await prober.probe((SILENT,), 0.05)
    task = asyncio.create_task(prober.probe((SILENT,), 5))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(world.made) == 4
    assert {made.fileno() for made in world.made} == {-1}


@given(st.binary(max_size=60))
def test_checksum_verifies_to_zero(data: bytes) -> None:
    padded = data + b"\0" * (len(data) % 2)
    assert checksum(padded + struct.pack("!H", checksum(padded))) == 0


def test_a_raw_socket_has_the_ip_header_and_the_identifier() -> None:
    target = _Target("10.0.0.1", 22)
    raw = SimpleNamespace(family=socket.AF_INET, type=socket.SOCK_RAW)
    request = echo_request(socket.AF_INET, target.identifier, 1, target.token)
    assert checksum(request) == 0
    reply = b"\0" + request[1:]
    for header in (b"\x45" + b"\0" * 19, b"\x47" + b"\0" * 27):
        assert is_reply(raw, header + reply, ("10.0.0.1", 0), target)  # type: ignore[arg-type]
    other = b"\0" + echo_request(socket.AF_INET, target.identifier ^ 1, 1, target.token)[1:]
    for packet in (b"", b"\x45", reply, b"\x45" + b"\0" * 19 + other):
        assert not is_reply(raw, packet, ("10.0.0.1", 0), target)  # type: ignore[arg-type]


def test_the_agent_can_afford_the_import() -> None:
    code = "import sys; import dr.adapters.probe.prober; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"structlog", "icmplib", "tenacity", "httpx", "msgspec"} & set(out.split())
