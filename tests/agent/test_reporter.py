"""What is read again, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, cast

from dr.agent.hook import Hook
from dr.agent.reporter import Reporter, Rhythm
from dr.model.facts import DomainState, GuestFacts, HookState, HostFacts, Reading
from dr.ports.hypervisor import DomainEvent

GUEST = GuestFacts(id="g", name="vm", state=DomainState.RUNNING, cpu="c1")


class Libvirt:
    """Tells one guest; counts what is read."""

    def __init__(self) -> None:
        self.guest = GUEST
        self.reads = 0

    async def facts(self) -> HostFacts:
        self.reads += 1
        return HostFacts(boot_id="b")

    async def guests(self) -> tuple[GuestFacts, ...]:
        return (self.guest,)

    async def health(self) -> tuple[Reading, ...]:
        return ()

    async def events(self) -> AsyncIterator[DomainEvent]:
        await asyncio.Event().wait()
        yield DomainEvent(guest="", name="", kind="")


class NoHook:
    state = HookState(proven=True)

    async def ensure(self) -> HookState:
        return self.state

    async def run(self) -> None:
        await asyncio.Event().wait()


async def _as_they_are(guests: tuple[GuestFacts, ...]) -> tuple[GuestFacts, ...]:
    return guests


async def test_facts_are_read_at_once_when_a_guest_runs_with_a_cpu_that_they_do_not_tell() -> None:
    """And only then: facts are expensive."""
    libvirt = Libvirt()
    reporter = Reporter(
        "b",
        hypervisor=cast(Any, libvirt),
        host_health=cast(Any, libvirt),
        hook=cast(Hook, NoHook()),
        own=lambda: (),
        parts=_as_they_are,
        samples=tuple,
        clock=lambda: 0.0,
        moves=lambda: (),
        tell=lambda guests: guests,
        rhythm=Rhythm(guests_s=0.01, facts_s=600.0, health_s=600.0, gap_s=0.001),
    )
    running = asyncio.create_task(reporter.run())

    async def until_quiet() -> int:
        await asyncio.sleep(0.1)
        return libvirt.reads

    try:
        before = await until_quiet()
        assert await until_quiet() == before
        libvirt.guest = GuestFacts(id="g", name="vm", state=DomainState.RUNNING, cpu="c2")
        assert await until_quiet() == before + 1
        libvirt.guest = GuestFacts(id="g", name="vm", state=DomainState.SHUTOFF)
        assert await until_quiet() == before + 1
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
