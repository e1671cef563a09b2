"""Sessions that go well, and sessions that end: each with a sentence."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from dr.adapters.link.client import Link, LinkDialler
from dr.adapters.link.server import (
    SESSIONS_PER_HOST_MAX,
    WAITING_BYTES_MAX,
    WAITING_MESSAGES_MAX,
    LinkServer,
    LinkSession,
)
from dr.adapters.link.wires import parse_address, short
from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import Credentials, client_context
from dr.adapters.pki.identity import Role
from dr.model.commands import Probe
from dr.model.facts import HostFacts
from dr.model.wire import (
    MESSAGE_BYTES_MAX,
    PROTOCOL,
    Ack,
    Beat,
    Command,
    Goodbye,
    Hello,
    Memory,
    Refused,
    encode,
)
from dr.ports.link import AgentLink, Dialler, HostSession, LinkClosed
from tests.adapters.link.conftest import Desk

Dial = Callable[..., LinkDialler]

HELLO = Hello(
    protocol=PROTOCOL,
    version="0.1",
    cluster="c1",
    boot_id="b1",
    nonce="n1",
    memory=Memory(),
    facts=HostFacts(boot_id="b1"),
)
ACK = Ack(seq=1, nonce="n", revision=1)


def big(size: int) -> Command:
    return Command(id="x" * size, epoch=1, leader_id="l", session="s", body=Probe(target="h2", addresses=()))


async def pair(desk: Desk, dialler: LinkDialler) -> tuple[Link, LinkSession]:
    link = await dialler.dial()
    return link, await desk.session()


async def test_messages_go_both_ways(desk: Desk, dialler: Dial) -> None:
    port: Dialler = dialler("h1.example")
    link: AgentLink = await port.dial()
    session: HostSession = await desk.session()
    assert session.host == "h1.example"
    await link.send(HELLO)
    assert await session.receive() == HELLO
    for seq in range(100):
        await link.send(Beat(seq=seq))
        session.post(Ack(seq=seq, nonce=f"n{seq}", revision=7))
    acks = []
    async for message in link:
        acks.append(message)
        if len(acks) == 100:
            break
    assert [ack.seq for ack in acks if isinstance(ack, Ack)] == list(range(100))
    assert [await session.receive() for _ in range(100)] == [Beat(seq=seq) for seq in range(100)]


async def test_who_and_how_much_and_when(desk: Desk, dialler: Dial) -> None:
    link, session = await pair(desk, dialler())
    assert link.address == desk.address
    assert (link.coordinator.role, link.coordinator.name) == (Role.COORDINATOR, "co1")
    assert session.identity.serial
    assert session.address.startswith("127.0.0.1:")
    await link.send(Goodbye(reason="stop"))
    await asyncio.sleep(0.05)
    before = session.heard_at  # stamped on arrival, though nobody has read yet
    assert time.monotonic() - before >= 0.03
    await session.receive()
    assert session.heard_at == before
    assert session.traffic().messages_in == link.traffic().messages_out == 1
    assert session.traffic().bytes_in == link.traffic().bytes_out > 10
    session.post(ACK)
    assert await anext(link) == ACK
    assert link.traffic().messages_in == session.traffic().messages_out == 1
    assert link.heard_at >= before
    assert desk.server.sessions == (session,)


async def test_the_largest_message_passes_and_a_larger_one_is_the_senders_error(
    desk: Desk, dialler: Dial
) -> None:
    link, session = await pair(desk, dialler())
    frame = len(encode(big(0)))
    session.post(big(MESSAGE_BYTES_MAX - frame))
    message = await anext(link)
    assert isinstance(message, Command)
    assert len(message.id) == MESSAGE_BYTES_MAX - frame
    with pytest.raises(ValueError, match="larger than a link message"):
        session.post(big(MESSAGE_BYTES_MAX))
    with pytest.raises(ValueError, match="larger than a link message"):
        await link.send(Goodbye(reason="x" * MESSAGE_BYTES_MAX))
    session.post(ACK)
    assert await anext(link) == ACK


async def test_cancelled_waits_lose_nothing(desk: Desk, dialler: Dial) -> None:
    link, session = await pair(desk, dialler())

    async def send() -> None:
        for seq in range(200):
            await link.send(Beat(seq=seq))
            session.post(Ack(seq=seq, nonce="", revision=0))
            if seq % 3 == 0:
                await asyncio.sleep(0.0003)

    task = asyncio.create_task(send())
    beats: list[int] = []
    while len(beats) < 200:
        try:
            async with asyncio.timeout(0.0002):
                while True:
                    message = await session.receive()
                    assert isinstance(message, Beat)
                    beats.append(message.seq)
        except TimeoutError:
            pass
    acks: list[int] = []
    while len(acks) < 200:
        waiter = asyncio.create_task(anext(link))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])
        ack = await anext(link) if waiter.cancelled() else waiter.result()
        assert isinstance(ack, Ack)
        acks.append(ack.seq)
    await task
    assert beats == acks == list(range(200))


async def test_each_side_reads_why_the_other_closed(desk: Desk, dialler: Dial) -> None:
    link, session = await pair(desk, dialler())
    session.post(Refused(reason="old"))
    await session.close("a newer session of this host is there")
    assert await anext(link) == Refused(reason="old")  # what was sent before still arrives
    with pytest.raises(LinkClosed, match=r"coordinator at .* closed the session: a newer session"):
        await anext(link)
    with pytest.raises(LinkClosed, match="a newer session"):
        await link.send(Beat(seq=1))
    with pytest.raises(LinkClosed, match="a newer session"):
        await session.receive()
    session.post(ACK)  # says nothing, does nothing
    await session.close("again")

    link, session = await pair(desk, dialler())
    await link.send(Beat(seq=1))
    await link.close()
    await link.close()
    assert await session.receive() == Beat(seq=1)
    with pytest.raises(LinkClosed, match="host h1 closed the session: the agent closed the link"):
        await session.receive()
    with pytest.raises(LinkClosed):
        await link.send(Beat(seq=2))


async def test_a_callback_that_returns_or_fails_ends_the_session(own: Credentials, dialler: Dial) -> None:
    async def on_session(session: LinkSession) -> None:
        await session.receive()
        if session.host == "fails":
            raise RuntimeError("a bug")

    server = LinkServer(["127.0.0.1:0"], own, on_session)
    await server.start()
    for name in ("returns", "fails"):
        link = await dialler(name, addresses=list(server.addresses)).dial()
        await link.send(Beat(seq=1))
        with pytest.raises(LinkClosed, match="done with it"):
            await anext(link)
    assert server.sessions == ()
    await server.close("over")


async def test_a_broken_connection_says_so_and_the_next_dial_works(desk: Desk, dialler: Dial) -> None:
    agent = dialler()
    for _ in range(3):
        link, session = await pair(desk, agent)
        session.abort("cut")
        with pytest.raises(LinkClosed, match=r"connection to the coordinator at .* broke"):
            await anext(link)
        link._wire.transport.abort()
    link, session = await pair(desk, agent)
    link._wire.transport.abort()
    with pytest.raises(LinkClosed, match="connection to host h1 broke"):
        await session.receive()
    link, session = await pair(desk, agent)
    await link.send(Beat(seq=1))
    assert await session.receive() == Beat(seq=1)


async def test_two_sessions_of_one_host_until_there_are_too_many(desk: Desk, dialler: Dial) -> None:
    agent = dialler()
    pairs = [await pair(desk, agent) for _ in range(SESSIONS_PER_HOST_MAX)]
    for link, session in pairs:
        await link.send(Beat(seq=1))
        await session.receive()
    assert len(desk.server.sessions) == SESSIONS_PER_HOST_MAX
    await pair(desk, agent)
    with pytest.raises(LinkClosed, match="more times"):
        await pairs[0][1].receive()
    pairs[1][1].post(ACK)
    assert await anext(pairs[1][0]) == ACK


async def raw(desk: Desk, authority: Authority, data: bytes | str) -> LinkSession:
    """Send one frame that no agent would."""
    context = client_context(authority.issue(Role.AGENT, "odd"))
    async with connect(f"wss://{desk.address}/link", ssl=context, compression=None) as wire:
        session = await desk.session()
        await wire.send(data)
        with pytest.raises(LinkClosed):
            await session.receive()
        await wire.wait_closed()
        session.post(ACK)
        assert wire.close_reason
        return session


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"not json", "malformed"),
        ('{"type":"beat","seq":"one"}', r"malformed message: Expected `int`"),
        (b'{"type":"start"}', "Invalid value 'start'"),
        (b"\xff\xfe", "malformed"),
        (b'{"type":"welcome"}', "malformed"),
        (b"x" * (MESSAGE_BYTES_MAX + 1), "limit"),
    ],
)
async def test_bad_frames_close_with_a_reason(
    desk: Desk, authority: Authority, data: bytes | str, says: str
) -> None:
    session = await raw(desk, authority, data)
    with pytest.raises(LinkClosed, match=says):
        await session.receive()


async def test_the_agent_too_refuses_what_it_cannot_read(desk: Desk, dialler: Dial) -> None:
    link, session = await pair(desk, dialler())
    await session._wire.send(b'{"type":"dance"}')
    with pytest.raises(LinkClosed, match="what this version cannot read"):
        await anext(link)
    with pytest.raises(LinkClosed, match=r"host h1 closed the session: malformed message"):
        await session.receive()


async def test_a_slow_consumer_is_cut_off(desk: Desk, dialler: Dial) -> None:
    _, by_bytes = await pair(desk, dialler("bytes"))
    sent = 0
    while not by_bytes._why:
        by_bytes.post(big(1_000_000))
        sent += 1_000_000
        await asyncio.sleep(0)
        assert sent < WAITING_BYTES_MAX + 32_000_000  # and what kernels and TLS keep
    with pytest.raises(LinkClosed, match="host bytes does not take its messages"):
        await by_bytes.receive()
    _, by_count = await pair(desk, dialler("count"))
    posted = 0
    while not by_count._why:
        by_count.post(big(20_000))
        posted += 1
        await asyncio.sleep(0)
        assert posted < WAITING_MESSAGES_MAX + 2_000
    with pytest.raises(LinkClosed, match=f"{WAITING_MESSAGES_MAX + 1} messages"):
        await by_count.receive()


async def send_forever(link: Link) -> None:
    while True:
        await link.send(Goodbye(reason="x" * 1_000_000))


async def test_a_session_that_nobody_reads_holds_its_agent_back(desk: Desk, dialler: Dial) -> None:
    link, session = await pair(desk, dialler())
    flood = asyncio.create_task(send_forever(link))
    await asyncio.sleep(0.5)
    held_at = link.traffic().bytes_out
    await asyncio.sleep(0.3)
    assert link.traffic().bytes_out == held_at
    flood.cancel()
    assert link.traffic().bytes_out < 40_000_000
    for _ in range(3):
        await session.receive()
    await session.close("enough")


async def test_addresses_are_tried_in_turn(desk: Desk, dialler: Dial) -> None:
    with socket.socket() as silent, socket.socket() as closed:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        closed.bind(("127.0.0.1", 0))
        fillers = []
        for _ in range(3):  # a full backlog drops what comes next, as a dead host does
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
            fillers.append(filler)
        dead = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (silent, closed)]
        begun = time.monotonic()
        link = await dialler(addresses=[*dead, desk.address.replace("127.0.0.1", "localhost")]).dial()
        assert 0.9 < time.monotonic() - begun < 2
        assert link.address.startswith("localhost:")
        with pytest.raises(LinkClosed, match=r"No coordinator took.*no answer in time; .*refused"):
            await dialler(addresses=dead).dial()
        for filler in fillers:
            filler.close()


async def test_the_coordinator_stops(desk: Desk, dialler: Dial) -> None:
    link, _ = await pair(desk, dialler())
    stop = asyncio.create_task(desk.server.close("The coordinator stops for an upgrade. " + "x" * 200))
    with pytest.raises(LinkClosed, match="stops for an upgrade"):
        await anext(link)
    desk.over.set()
    await stop
    assert desk.server.addresses == ()


async def test_a_callback_that_will_not_end_is_cancelled(
    own: Credentials, dialler: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dr.adapters.link.server.STOP_TIMEOUT_S", 0.1)
    ended = asyncio.Event()

    async def on_session(_session: LinkSession) -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            ended.set()

    server = LinkServer(["127.0.0.1:0"], own, on_session)
    await server.start()
    await dialler(addresses=list(server.addresses)).dial()
    await server.close("over")
    assert ended.is_set()


async def test_several_addresses_and_one_that_is_taken(own: Credentials, desk: Desk, dialler: Dial) -> None:
    server = LinkServer(["127.0.0.1:0", "127.0.0.2:0"], own, desk.on_session)
    await server.start()
    first, second = server.addresses
    await pair(desk, dialler(addresses=[first]))
    with pytest.raises(LinkClosed, match="not good for this cluster and address"):
        await dialler(addresses=[second]).dial()  # it is not in the certificate
    taken = LinkServer(["127.0.0.1:0", first], own, desk.on_session)
    with pytest.raises(OSError, match=f"cannot listen for agents on {first}"):
        await taken.start()
    assert taken.addresses == ()
    desk.over.set()
    await server.close("over")


def test_addresses_and_reasons(tmp_path: Path) -> None:
    assert parse_address("h1.example:7444") == ("h1.example", 7444)
    assert parse_address("[fe80::1]:7444") == ("fe80::1", 7444)
    for bad in ("h1", "h1:", ":7444", "h1:x", "fe80::1:7444", "h1:70000", ""):
        with pytest.raises(ValueError, match="no link address"):
            LinkDialler([bad], tmp_path)
    assert short("short") == "short"
    assert len(short("ä" * 100).encode()) <= 123


async def test_both_ends_notice_a_dead_peer_in_seconds(desk: Desk, dialler: Dial) -> None:
    link, session = await pair(desk, dialler())
    for wire in (link._wire, session._wire):
        sock = wire.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5_000
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
