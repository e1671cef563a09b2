"""A host that hears nobody shuts down the guests whose policy says so; a coordinator that is down is no cause."""

import asyncio
from collections.abc import Callable

import pytest

from dr.core import warden
from dr.model.base import changed
from dr.model.commands import Protect, ProtectedEntry
from dr.model.facts import ISOLATED, DomainState, GuestFacts
from dr.model.memory import AgentMemory
from dr.model.policy import Isolation
from tests.agent.fakes import G, Host

OTHER = "11111111-0000-0000-0000-000000000002"
SHUT = ProtectedEntry(guest=G, name="vm", generation=0, isolation=Isolation.SHUT_DOWN)
DEAF = ("10.0.0.2", "10.0.0.3")  # the fake prober hears only what ends in .1


def order(*peers: str, isolation: Isolation = Isolation.SHUT_DOWN, isolation_s: float = 0.05) -> Protect:
    entries = (changed(SHUT, isolation=isolation), ProtectedEntry(guest=OTHER, name="o", generation=0))
    return Protect(version=1, entries=entries, peers=peers, isolation_s=isolation_s, stop_s=0.05)


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(200):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


async def cut(host: Host, listing: Protect) -> None:
    """Both guests run, the list is there, and then the link is gone for good."""
    host.world.domains = {G: DomainState.RUNNING, OTHER: DomainState.RUNNING}
    session = await host.linked(protect=False)
    await session.ask(listing)
    await asyncio.sleep(0.15)  # its inventory
    assert set(host.world.domains) == {G, OTHER}, "linked it is not alone"
    await session.end()


async def test_alone_it_shuts_down_whom_it_should_and_tells_so_later(host: Host) -> None:
    await cut(host, order(*DEAF))
    await until(lambda: G not in host.world.domains)
    assert OTHER in host.world.domains
    assert host.world.memory().isolated == (G,), "durable before the stop"
    host.world.domains[G] = DomainState.SHUTOFF
    session = await host.coordinator.accept()
    await session.until(
        lambda: any(
            (G, ISOLATED) in [(guest.id, guest.reason) for guest in told or ()]
            for told in [session.hello.guests, *(report.guests for report in session.reports)]
        )
    )


@pytest.mark.parametrize(
    "listing",
    [
        order(*DEAF, "10.0.0.1"),
        order(),
        order(*DEAF, isolation=Isolation.LEAVE),
        order(*DEAF, isolation=Isolation.FENCE),
        order(*DEAF, isolation_s=60.0),
    ],
    ids=["a peer answers: only the coordinator is down", "no peers", "leave", "fence", "not for long"],
)
async def test_it_leaves_them_alone(host: Host, listing: Protect) -> None:
    await cut(host, listing)
    await asyncio.sleep(0.4)
    assert set(host.world.domains) == {G, OTHER}


async def test_a_guest_that_does_not_shut_down_is_destroyed(host: Host) -> None:
    host.world.stop_fails = "it does not react"
    await cut(host, order(*DEAF))
    await until(lambda: host.world.steps.count("stop sent") > 1)


# ---- the rules


def test_alone_since() -> None:
    assert warden.alone_since(None, 5.0, linked=False, heard=False) == 5.0
    assert warden.alone_since(5.0, 9.0, linked=False, heard=False) == 5.0
    for linked, heard in ((True, False), (True, None), (False, True), (False, None)):
        assert warden.alone_since(5.0, 9.0, linked=linked, heard=heard) is None


def test_to_shut_down() -> None:
    entries = tuple(
        ProtectedEntry(guest=each.value, name="g", generation=0, isolation=each) for each in Isolation
    )
    memory = AgentMemory(entries=entries, peers=("a",), isolation_s=15.0)
    assert warden.to_shut_down(memory, None, 100.0) == ()
    assert warden.to_shut_down(memory, 90.0, 100.0) == ()
    assert [entry.guest for entry in warden.to_shut_down(memory, 80.0, 100.0)] == ["shut_down"]
    assert warden.to_shut_down(changed(memory, peers=()), 80.0, 100.0) == ()


def test_what_is_told_of_them_until_they_run_again() -> None:
    memory = warden.isolate(AgentMemory(entries=(SHUT,)), G)
    assert warden.isolate(memory, G) is memory
    off = GuestFacts(id=G, name="vm", state=DomainState.SHUTOFF, reason="shutdown")
    on = changed(off, state=DomainState.RUNNING, reason="booted")
    assert warden.told(memory, (off,))[0].reason == ISOLATED
    assert warden.told(memory, (on,)) == (on,)
    assert warden.relieve(memory, ()) is memory
    assert warden.relieve(memory, (G,), (G,)).isolated == (G,), "it is still being shut down"
    assert warden.relieve(memory, (G,)).isolated == ()
    assert warden.relieve(changed(memory, entries=()), ()).isolated == ()
