"""Connections that break, ends that go away, and ends that are only busy."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import ModuleType

import pytest

from dr.adapters.courier import chunks, source, target, wire
from dr.adapters.courier.chunks import MIB
from dr.adapters.courier.messages import Bye, Placed
from dr.adapters.courier.wire import Broken, Wire
from dr.adapters.pki.authority import Authority
from dr.ports.courier import CourierError, CourierLost
from tests.adapters.courier.conftest import (
    DISK,
    HERE,
    OTHER,
    G,
    Host,
    Proxy,
    copied,
    done,
    free_port,
    impatient,
    noise,
    send,
    take,
)


async def test_a_connection_that_breaks_is_made_anew_and_only_the_rest_is_sent(
    h1: Host, h2: Host, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "WINDOW", 2)
    size = 100 * MIB
    here, there = h1.file("web.img", (0, noise(size))), h2.file("web.img")
    proxy.breaks_after = [70 * MIB]
    sent, taken = await copied(h1, h2, "web.img", port=proxy.port)
    assert isinstance(sent, str), sent
    assert isinstance(taken, str), taken
    assert there.read_bytes() == here.read_bytes()
    assert len(proxy.carried) == 2
    assert proxy.carried[1] < 65 * MIB, "what was there is not sent again"
    again_mib = int(sent.partition("sent in")[2].split()[2])
    assert again_mib <= 24, "nor looked at again, as far as it was surely there"


async def test_a_new_connection_counts_where_the_old_one_seems_to_stand(
    h1: Host, h2: Host, proxy: Proxy
) -> None:
    """The taker has not heard that it broke, and does not wait until it would give it up."""
    here, there = h1.file("web.img", (0, noise(40 * MIB))), h2.file("web.img")
    proxy.breaks_after, proxy.breaks_one_side = [20 * MIB], True
    async with asyncio.timeout(10):
        sent, _ = await copied(h1, h2, "web.img", port=proxy.port)
    assert isinstance(sent, str), sent
    assert there.read_bytes() == here.read_bytes()


async def test_a_taker_that_begins_again_is_sent_everything(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent was restarted, or its file made anew: the sender may not go on where it was."""
    monkeypatch.setattr(chunks, "WINDOW", 1)
    here, there = h1.file("web.img", (0, noise(40 * MIB))), h2.file("web.img")
    sending = asyncio.create_task(send(h1, h2, mib_s=40))
    taking = asyncio.create_task(take(h2))
    await asyncio.sleep(0.7)
    h2.courier.cancel(G)
    assert "was called off" in str(await taking)
    there.write_bytes(b"")
    assert isinstance(await take(h2), str)
    assert isinstance(await sending, str)
    assert there.read_bytes() == here.read_bytes()


@impatient
async def test_a_later_try_sends_only_the_rest(h1: Host, h2: Host, proxy: Proxy) -> None:
    """Both ends gave up in between, and know nothing of the try before."""
    size = 80 * MIB
    here, there = h1.file("web.img", (0, noise(size))), h2.file("web.img")
    proxy.breaks_after = [60 * MIB, *[0] * 100]
    sent, taken = await copied(h1, h2, "web.img", port=proxy.port)
    assert isinstance(sent, CourierLost)
    assert isinstance(taken, CourierLost)
    proxy.breaks_after.clear()
    before = len(proxy.carried)
    sent, _ = await copied(h1, h2, "web.img", port=proxy.port)
    assert isinstance(sent, str)
    assert there.read_bytes() == here.read_bytes()
    assert sum(proxy.carried[before:]) < 40 * MIB


async def test_a_confirmation_that_is_lost_is_said_again(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    h1.file("web.img", (0, noise(9 * MIB)))
    h2.file("web.img")
    say = Wire.send
    lost: list[Placed] = []
    placed: list[str] = []

    def loses(self: Wire, message: object) -> None:
        if isinstance(message, Placed) and not lost:
            lost.append(message)
            wire.cut(self.socket)
            raise Broken("lost")
        say(self, message)  # type: ignore[arg-type]

    async def place() -> None:
        placed.append("web.img")

    monkeypatch.setattr(Wire, "send", loses)
    sent, taken = await copied(h1, h2, "web.img", placed=place)
    assert isinstance(sent, str), sent
    assert isinstance(taken, str), taken
    assert placed == ["web.img"]
    assert lost


@impatient
async def test_whoever_took_it_all_is_done_whatever_becomes_of_the_sender(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears of it with a later try, which finds everything there and sends nothing."""
    h1.file("web.img", (0, noise(40 * MIB)))
    h2.file("web.img")
    say = Wire.send
    never = True

    def loses(self: Wire, message: object) -> None:
        if isinstance(message, Placed) and never:
            wire.cut(self.socket)
            raise Broken("lost")
        say(self, message)  # type: ignore[arg-type]

    monkeypatch.setattr(Wire, "send", loses)
    sent, taken = await copied(h1, h2, "web.img")
    assert isinstance(taken, str)
    assert isinstance(sent, CourierLost)
    never = False
    sent, _ = await copied(h1, h2, "web.img")
    assert "0 MiB of 40 MiB sent" in str(sent)
    assert "40 MiB were there already" in str(sent)


async def test_whoever_heard_that_all_is_in_place_is_done(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its thanks are heard or not."""
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")
    say = Wire.send

    def loses(self: Wire, message: object) -> None:
        if isinstance(message, Bye):
            wire.cut(self.socket)
            raise Broken("lost")
        say(self, message)  # type: ignore[arg-type]

    monkeypatch.setattr(Wire, "send", loses)
    taking = asyncio.create_task(take(h2))
    assert "1 MiB of 1 MiB sent" in str(await send(h1, h2))
    await h2.courier.close()  # it would wait for the sender to ask again
    assert isinstance(await taking, str)


async def test_the_taker_may_begin_later(h1: Host, h2: Host) -> None:
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")
    sending = asyncio.create_task(send(h1, h2))
    await asyncio.sleep(0.7)
    assert isinstance(await take(h2), str)
    assert isinstance(await sending, str)


@impatient
async def test_nobody_who_takes_it(h1: Host, h2: Host) -> None:
    h1.file("web.img", (0, noise(MIB)))
    began = monotonic()
    lost = await send(h1, h2)
    assert isinstance(lost, CourierLost)
    assert f"host h2 was not reached at 127.0.0.1 port {h2.port}: Connection refused" in str(lost)
    assert 1 <= monotonic() - began < 4


@impatient
async def test_nobody_who_sends_it(h2: Host) -> None:
    h2.file("web.img")
    lost = await take(h2)
    assert isinstance(lost, CourierLost)
    assert "host h1 did not connect within 1 s" in str(lost)


@impatient
async def test_a_network_that_swallows_everything(h1: Host, h2: Host, proxy: Proxy) -> None:
    """Nothing is closed, nothing comes: both ends notice by themselves."""
    h1.file("web.img", (0, noise(100 * MIB)))
    h2.file("web.img")
    ends = asyncio.gather(send(h1, h2, port=proxy.port, mib_s=50), take(h2))
    await asyncio.sleep(0.5)
    proxy.flows.clear()
    began = monotonic()
    async with asyncio.timeout(20):
        for end in await ends:
            assert isinstance(end, CourierLost)
    assert monotonic() - began < 5


@pytest.mark.parametrize(
    ("listens", "dialled"),
    [("", "127.0.0.1"), ("", "::1"), ("::1", "::1"), ("localhost", "localhost"), ("localhost", "127.0.0.2")],
)
async def test_it_listens_where_it_is_told_or_everywhere(
    h1: Host, tmp_path: Path, authority: Authority, listens: str, dialled: str
) -> None:
    if ":" in dialled and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    h2 = Host(tmp_path, "h2", authority, port=free_port(), address=listens)
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")
    taking = asyncio.create_task(take(h2))
    sent = await h1.courier.send(G, "copy-1", to="h2", addresses=(dialled,), port=h2.port, files=DISK)
    assert "1 MiB of 1 MiB sent" in sent
    assert isinstance(await taking, str)


async def test_an_address_that_is_not_this_hosts(tmp_path: Path, authority: Authority) -> None:
    h2 = Host(tmp_path, "h2", authority, port=free_port(), address="192.0.2.1")
    h2.file("web.img")
    assert f"cannot listen on 192.0.2.1 port {h2.port} for copies: Cannot assign" in str(await take(h2))


async def test_the_other_address_is_tried_too(h1: Host, h2: Host) -> None:
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")
    taking = asyncio.create_task(take(h2))
    sent = await h1.courier.send(
        G, "copy-1", to="h2", addresses=("127.0.0.77", HERE), port=h2.port, files=DISK
    )
    assert "1 MiB of 1 MiB sent" in sent
    await taking


@impatient
async def test_ends_that_are_busy_with_their_disks_are_not_given_up(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than either end would wait for one that is silent."""
    h1.file("web.img", (0, noise(9 * MIB)))
    h2.file("web.img")
    settle = target.Target.settle

    def slow(self: target.Target) -> None:
        time.sleep(1.5)
        settle(self)

    async def place() -> None:
        await asyncio.sleep(3.5)

    monkeypatch.setattr(target.Target, "settle", slow)
    sent, taken = await copied(h1, h2, "web.img", placed=place)
    assert isinstance(sent, str), sent
    assert isinstance(taken, str), taken


@impatient
@pytest.mark.parametrize("end", [source, target], ids=["sender", "taker"])
async def test_ends_that_compare_for_long_are_not_given_up(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch, end: ModuleType
) -> None:
    """Nothing is sent, as all is there; one end reads for longer than the other would wait."""
    data = noise(32 * MIB)
    h1.file("web.img", (0, data))
    h2.file("web.img", (0, data))

    def slow(chunk: bytes) -> bytes:
        time.sleep(0.15)
        return chunks.digest_of(chunk)

    monkeypatch.setattr(end, "digest_of", slow)
    sent, taken = await copied(h1, h2, "web.img")
    assert isinstance(sent, str), sent
    assert isinstance(taken, str), taken


async def test_it_listens_only_while_it_takes(h1: Host, h2: Host) -> None:
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")

    async def listens() -> bool:
        with suppress(ConnectionRefusedError):
            _, writer = await asyncio.open_connection(HERE, h2.port)
            writer.close()
            return True
        return False

    assert not await listens()
    first = asyncio.create_task(take(h2))
    await asyncio.sleep(0.2)
    second = asyncio.create_task(
        h2.courier.take(OTHER, "copy-2", source="h1", files=("/vm/web.img",), placed=done)
    )
    with pytest.raises(CourierError, match="in use"):
        await second
    assert await listens(), "the other is still expected"
    await send(h1, h2)
    await first
    assert not await listens()
