"""Guests of an isolated host, by policy, in the simulated world."""

import pytest

from dr.model.base import changed
from dr.model.events import AskFence
from dr.model.policy import Isolation
from dr.model.records import GuestPhase, HostPhase
from dr.sim.world import World
from tests.sim.test_must_hold import each_runs_once


def site(policy: Isolation, seed: int = 1) -> World:
    """g1 and g2 on h1, g3 on h2; g1 has the policy."""
    world = World(seed, guests={"h1": ("g1", "g2"), "h2": ("g3",)}, power_on=False)
    world.begin()
    for guest in ("g1",):
        record = world.guest(guest)
        ours = changed(record, policy=changed(record.policy, isolation=policy))
        world.store.guests[guest] = world.coordinator.state.guests[guest] = ours
    world.coordinator.state.moves += 1  # as whoever changes a policy does
    world.run(15.0)
    return world


def isolate(world: World) -> None:
    world.cut("h1", storage=True)


@pytest.mark.parametrize("seed", range(3))
def test_fence(seed: int) -> None:
    world = site(Isolation.FENCE, seed)
    isolate(world)
    assert world.run(8.0, lambda: bool(world.truth.fenced))
    world.run(5.0)
    each_runs_once(world)


@pytest.mark.parametrize("seed", range(3))
def test_leave(seed: int) -> None:
    """Nothing is fenced; people are told the names; power-off is proof all the same."""
    world = site(Isolation.LEAVE, seed)
    isolate(world)
    world.run(120.0)
    assert not world.truth.fenced
    assert world.running("g1") == world.running("g2") == ["h1"]
    (told,) = world.said("alert host/h1/held")
    assert "the isolation policy of g1 is to be left running" in told
    world.power_off("h1")
    world.run(10.0)
    each_runs_once(world)


def test_leave_and_a_person_fences() -> None:
    world = site(Isolation.LEAVE)
    isolate(world)
    world.run(10.0)
    assert world.ask(AskFence(id="f", by="ops", host="h1")).accepted
    world.run(15.0)
    each_runs_once(world)


@pytest.mark.parametrize("seed", range(3))
def test_shut_down(seed: int) -> None:
    """Its own agent shuts it down cleanly before its host is fenced."""
    world = site(Isolation.SHUT_DOWN, seed)
    isolate(world)
    assert world.run(25.0, lambda: world.running("g1") == [])
    assert not world.truth.fenced
    assert world.said("g1 ends on h1: shutdown")
    assert world.running("g2") == ["h1"]
    assert world.run(25.0, lambda: bool(world.truth.fenced))
    world.run(8.0)
    each_runs_once(world)


def test_a_guest_that_does_not_react_is_destroyed() -> None:
    world = site(Isolation.SHUT_DOWN)
    world.hosts["h1"].stop_faults.append("deaf")
    isolate(world)
    assert world.run(40.0, lambda: world.running("g1") == [])
    assert world.said("g1 ends on h1: destroyed")


def test_back_before_it_is_fenced_it_starts_again() -> None:
    world = site(Isolation.SHUT_DOWN)
    isolate(world)
    assert world.run(25.0, lambda: world.running("g1") == [])
    world.mend("h1")
    world.run(15.0)
    assert not world.truth.fenced
    each_runs_once(world)
    assert world.host("h1").phase is HostPhase.ONLINE
    assert world.guest("g1").phase is GuestPhase.RUNNING


def test_a_coordinator_that_is_down_shuts_nothing_down() -> None:
    world = site(Isolation.SHUT_DOWN)
    world.coordinator.kill()
    world.run(120.0)
    assert world.running("g1") == ["h1"]
    world.restart_coordinator()
    world.run(20.0)
    each_runs_once(world)
    assert world.truth.starts["g1"] == 1
