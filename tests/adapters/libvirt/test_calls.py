"""Calls that block, hang and come back late."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from dr.adapters.libvirt.calls import Calls
from dr.ports.hypervisor import HypervisorUnknown


async def test_result_and_error_come_through() -> None:
    calls = Calls("it", 2)
    assert await calls.run("count", lambda: 42, 1.0) == 42
    with pytest.raises(ZeroDivisionError):
        await calls.run("divide", lambda: 1 // 0, 1.0)


async def test_a_hung_call_holds_its_slot_until_it_ends() -> None:
    calls = Calls("libvirt", 2)
    end = threading.Event()
    for _ in range(2):
        with pytest.raises(HypervisorUnknown, match="did not answer within"):
            await calls.run("hang", end.wait, 0.02)
    began = time.monotonic()
    with pytest.raises(HypervisorUnknown, match="2 earlier calls are still stuck"):
        await calls.run("list", lambda: 1, 30.0)
    assert time.monotonic() - began < 0.5, "full means: at once"
    assert sum(t.name == "libvirt: hang" for t in threading.enumerate()) == 2
    end.set()
    for _ in range(100):
        if not calls.overdue:
            break
        await asyncio.sleep(0.01)
    assert await calls.run("list", lambda: 1, 1.0) == 1


async def test_a_burst_waits_for_its_turn() -> None:
    calls = Calls("it", 2)
    running, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    await asyncio.gather(*(calls.run("work", work, 5.0) for _ in range(10)))
    assert most == 2


async def test_waiting_for_a_slot_is_bounded_too() -> None:
    calls = Calls("it", 1)
    end = threading.Event()
    first = asyncio.create_task(calls.run("long", lambda: end.wait(5), 5.0))
    await asyncio.sleep(0.01)
    with pytest.raises(HypervisorUnknown, match="no free slot"):
        await calls.run("short", lambda: 1, 0.02)
    end.set()
    assert await first


async def test_a_late_error_is_swallowed() -> None:
    calls = Calls("it", 1)
    end = threading.Event()

    def fail() -> None:
        end.wait(5)
        raise OSError("too late")

    with pytest.raises(HypervisorUnknown):
        await calls.run("fail", fail, 0.01)
    end.set()
    await asyncio.sleep(0.05)
    assert calls.overdue == 0


async def test_a_cancelled_wait_frees_its_slot_when_the_call_ends() -> None:
    calls = Calls("it", 1)
    end = threading.Event()
    task = asyncio.create_task(calls.run("long", lambda: end.wait(5), 5.0))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    end.set()
    assert await calls.run("next", lambda: 1, 2.0) == 1
