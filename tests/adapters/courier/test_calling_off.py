"""Whoever calls it off is heard at once, whatever the other threads wait for."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from time import monotonic

import pytest

from dr.adapters.courier import courier, taker, target
from dr.adapters.courier.chunks import MIB
from dr.adapters.pki.authority import Authority
from dr.ports.courier import CourierError, CourierLost
from tests.adapters.courier.conftest import (
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


@impatient
@pytest.mark.parametrize("who", ["h1", "h2"])
async def test_either_end_can_be_called_off(h1: Host, h2: Host, who: str) -> None:
    h1.file("web.img", (0, noise(40 * MIB)))
    h2.file("web.img")
    sending = asyncio.create_task(send(h1, h2, mib_s=10))
    taking = asyncio.create_task(take(h2))
    await asyncio.sleep(0.5)
    host, task, what = (h1, sending, "send") if who == "h1" else (h2, taking, "take")
    assert not host.courier.cancel(OTHER)
    assert host.courier.cancel(G)
    began = monotonic()
    end = await task
    assert monotonic() - began < 2
    assert isinstance(end, CourierError)
    assert str(end).startswith(f"to {what} the disks of {G}")
    assert str(end).endswith("was called off")
    assert not host.courier.cancel(G), "it is over"
    other = await (taking if who == "h1" else sending)
    assert isinstance(other, CourierLost)


@pytest.mark.parametrize("who", ["sender", "taker"])
async def test_what_is_called_off_to_be_tried_again_ends_as_lost(h1: Host, h2: Host, who: str) -> None:
    """So that whoever asked for it keeps what has arrived."""
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")
    end, host = (send(h1, h2, port=free_port()), h1) if who == "sender" else (take(h2), h2)
    waiting = asyncio.create_task(end)
    await asyncio.sleep(0.1)
    assert host.courier.cancel(G, again=True)
    assert isinstance(await waiting, CourierLost)


@impatient
async def test_a_taker_that_nobody_waits_for_any_more_is_tried_again(h1: Host, h2: Host) -> None:
    """As its agent ends while the files are put in their places: the sender must not think that this failed."""
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")
    begun = asyncio.Event()

    async def place() -> None:
        begun.set()
        await asyncio.sleep(60)

    taking = asyncio.create_task(
        h2.courier.take(G, "copy-1", source="h1", files=("/vm/web.img",), placed=place)
    )
    sending = asyncio.create_task(send(h1, h2))
    await begun.wait()
    taking.cancel()
    assert isinstance(await sending, CourierLost)


@pytest.mark.parametrize("who", ["h1", "h2"])
async def test_whoever_waits_for_the_other_end_can_be_called_off(h1: Host, h2: Host, who: str) -> None:
    for host in (h1, h2):
        host.file("web.img")
    waiting = asyncio.create_task(send(h1, h2) if who == "h1" else take(h2))
    await asyncio.sleep(0.3)
    assert (h1 if who == "h1" else h2).courier.cancel(G)
    async with asyncio.timeout(2):
        assert "was called off" in str(await waiting)


async def test_both_can_be_called_off_while_the_network_is_silent(h1: Host, h2: Host, proxy: Proxy) -> None:
    h1.file("web.img", (0, noise(40 * MIB)))
    h2.file("web.img")
    ends = asyncio.gather(send(h1, h2, port=proxy.port, mib_s=20), take(h2))
    await asyncio.sleep(0.5)
    proxy.flows.clear()
    await asyncio.sleep(0.3)
    assert h1.courier.cancel(G)
    assert h2.courier.cancel(G)
    async with asyncio.timeout(2):
        for end in await ends:
            assert "was called off" in str(end)


async def test_a_task_that_is_cancelled_leaves_nothing_behind(h1: Host, h2: Host) -> None:
    h1.file("web.img", (0, noise(40 * MIB)))
    h2.file("web.img")
    sending = asyncio.create_task(send(h1, h2, mib_s=10))
    taking = asyncio.create_task(take(h2))
    await asyncio.sleep(0.4)
    for task in (sending, taking):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert h1.courier.progress() == ()
    await asyncio.sleep(0.3)
    sent, _ = await copied(h1, h2, "web.img")
    assert isinstance(sent, str), "neither file is locked any more"


def hanging(h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The disk of h2 does not answer until this is set; who waits for it looks often."""
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")
    monkeypatch.setattr(courier, "GRACE_S", 0.0)
    monkeypatch.setattr(courier, "LOOK_S", 0.1)
    hangs = threading.Event()
    monkeypatch.setattr(target.Target, "settle", lambda _: hangs.wait(20))
    return hangs


@impatient
async def test_a_disk_that_hangs_does_not_hold_up_who_calls_it_off(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = hanging(h1, h2, monkeypatch)
    sending, taking = asyncio.create_task(send(h1, h2)), asyncio.create_task(take(h2))
    await asyncio.sleep(0.5)
    assert h2.courier.cancel(G)
    async with asyncio.timeout(2):
        assert "was called off" in str(await taking)
    hangs.set()
    assert isinstance(await sending, CourierLost)


@impatient
async def test_a_disk_that_hangs_for_too_long_ends_it(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "STUCK_S", 0.5)
    hangs = hanging(h1, h2, monkeypatch)
    sending, taking = asyncio.create_task(send(h1, h2)), asyncio.create_task(take(h2))
    assert "a disk of this host has not answered for 0.5 s" in str(await taking)
    hangs.set()
    await sending


async def test_what_was_called_off_in_the_last_moment_is_not_put_in_place(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All had arrived, and the event loop had not heard of it."""
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")
    fetch = taker.Taker.fetch
    placed: list[str] = []

    def late(self: taker.Taker) -> None:
        fetch(self)
        assert h2.courier.cancel(G)

    async def place() -> None:
        placed.append("web.img")

    monkeypatch.setattr(taker.Taker, "fetch", late)
    sent, taken = await copied(h1, h2, "web.img", placed=place)
    assert isinstance(taken, CourierError)
    assert "was called off" in str(taken)
    assert isinstance(sent, CourierError)
    assert "host h2: not put in place: " in str(sent)
    assert not placed


async def test_what_is_being_put_in_place_is_not_called_off(h1: Host, h2: Host) -> None:
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")
    cancelled: list[bool] = []

    async def place() -> None:
        cancelled.append(h2.courier.cancel(G))

    sent, taken = await copied(h1, h2, "web.img", placed=place)
    assert cancelled == [False]
    assert isinstance(sent, str)
    assert isinstance(taken, str)


async def test_closing_ends_all(tmp_path: Path, authority: Authority) -> None:
    h1 = Host(tmp_path, "h1", authority, port=free_port())
    h1.file("web.img", (0, noise(MIB)))
    h1.file("two.img")
    h2 = Host(tmp_path, "h2", authority, port=free_port())
    sending = asyncio.create_task(send(h1, h2))
    taking = asyncio.create_task(
        h1.courier.take(G, "copy-2", source="h2", files=("/vm/two.img",), placed=done)
    )
    await asyncio.sleep(0.2)
    async with asyncio.timeout(2):
        await h1.courier.close()
    assert "as this agent ends" in str(await sending)
    with pytest.raises(CourierLost, match="as this agent ends"):
        await taking
    assert "this agent ends" in str(await send(h1, h2))


async def test_the_event_loop_is_never_held_up(h1: Host, h2: Host) -> None:
    h1.file("web.img", (0, noise(200 * MIB)))
    h2.file("web.img")
    copying = asyncio.create_task(copied(h1, h2, "web.img"))
    longest, last = 0.0, monotonic()
    while not copying.done():
        await asyncio.sleep(0.005)
        longest, last = max(longest, monotonic() - last), monotonic()
    assert isinstance((await copying)[0], str)
    assert longest < 0.5
