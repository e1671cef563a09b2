"""Hosts that people set aside, in the simulated world."""

import pytest

from dr.model.events import (
    AskConfirmDown,
    AskCordon,
    AskDrain,
    AskPause,
    AskProtect,
    AskResume,
    AskStop,
    AskUndrain,
)
from dr.model.operations import OperationState
from dr.model.records import GuestPhase, HostPhase
from dr.sim.world import World
from tests.sim.test_must_hold import each_runs_once, lively


def drained(world: World, name: str) -> World:
    """An empty host, in maintenance."""
    assert world.ask(AskDrain(id="drain", by="ops", host=name)).accepted
    assert world.run(5.0, lambda: world.host(name).phase is HostPhase.MAINTENANCE)
    return world


def test_guests_of_a_dead_host_do_not_go_to_a_cordoned_one() -> None:
    world = lively(1)
    world.ask(AskCordon(id="c", by="ops", host="h3"))
    world.power_off("h1")
    world.run(10.0)
    each_runs_once(world)
    assert {world.running(g)[0] for g in world.definitions} == {"h2"}


def test_power_off_and_reboots_in_maintenance_are_nobodys_alarm() -> None:
    world = drained(lively(2), "h3")
    world.power_off("h3")
    world.run(60.0)
    assert world.host("h3").phase is HostPhase.MAINTENANCE
    world.power_on("h3")
    world.run(20.0)
    world.hosts["h3"].reboot()
    world.run(20.0)
    assert world.host("h3").phase is HostPhase.MAINTENANCE
    assert not world.said("alert host/h3")
    assert not world.truth.fenced
    assert world.ask(AskUndrain(id="u", by="ops", host="h3")).accepted
    assert world.run(5.0, lambda: world.host("h3").phase is HostPhase.ONLINE)
    assert world.truth.unfinished() == []


def test_a_guest_is_protected_while_a_host_is_off_for_maintenance() -> None:
    """Rule 4 asks every host; for the one that is off, and does not know the guest, a person vouches."""
    world = drained(lively(3, guests={"h1": ("g1",)}), "h3")
    world.power_off("h3")
    world.run(5.0)
    world.add_guest("h2", "g2", 1024)
    world.run(2.0)
    assert world.ask(AskProtect(id="p", by="ops", guests=("g2",))).accepted
    assert not world.run(20.0, lambda: world.guest("g2").phase is GuestPhase.RUNNING)
    for number in range(2):  # now somebody looks for it; then the word counts
        world.ask(AskConfirmDown(id=f"c{number}", by="ops", host="h3", reason="it lies on the bench"))
        world.run(3.0)
    assert world.run(20.0, lambda: world.guest("g2").phase is GuestPhase.RUNNING), world.guest("g2").reason
    assert world.host("h3").phase is HostPhase.MAINTENANCE


def test_a_drain_waits_while_paused_across_a_crash_and_goes_on() -> None:
    world = lively(4)
    world.ask(AskPause(id="p", by="ops", reason="so that nothing is moved"))
    (operation,) = world.ask(AskDrain(id="d", by="ops", host="h2")).operations
    world.run(1.0)
    assert world.host("h2").phase is HostPhase.DRAINING
    world.crash_coordinator()
    world.run(10.0)
    assert world.host("h2").phase is HostPhase.DRAINING
    assert "automation is paused" in world.store.operations[operation].guests["g4"]
    world.ask(AskResume(id="r", by="ops"))
    assert world.run(40.0, lambda: world.host("h2").phase is HostPhase.MAINTENANCE)
    world.run(3.0)
    each_runs_once(world)
    assert world.running("g4") != ["h2"]
    assert world.store.operations[operation].state is not OperationState.OPEN


def test_a_guest_that_is_stopped_lets_its_host_go() -> None:
    world = lively(5)
    (operation,) = world.ask(AskDrain(id="d", by="ops", host="h2")).operations
    world.ask(AskStop(id="s", by="ops", guests=("g4",)))
    assert world.run(10.0, lambda: world.host("h2").phase is HostPhase.MAINTENANCE)
    assert world.store.operations[operation].state is OperationState.DONE


@pytest.mark.parametrize("seed", range(3))
def test_a_drain_moves_its_guests_live(seed: int) -> None:
    world = lively(seed)
    here = {name for name in world.definitions if world.running(name) == ["h1"]}
    told = world.ask(AskDrain(id="t", by="ops", host="h1", dry_run=True)).guests
    world.run(10.0)
    assert world.host("h1").phase is HostPhase.ONLINE, "it was to be told only"
    assert {each.name for each in told if each.fate == "live" and each.to != "h1"} == here != set()
    (operation,) = world.ask(AskDrain(id="d", by="ops", host="h1")).operations
    assert world.run(120.0, lambda: world.host("h1").phase is HostPhase.MAINTENANCE)
    world.run(3.0)
    each_runs_once(world)
    assert world.store.operations[operation].state is OperationState.DONE
    assert all(text.startswith("runs on h") for text in world.store.operations[operation].guests.values())
    assert not [line for line in world.said("ends on h1") if "shutdown" in line], "none was stopped"


def test_guests_of_one_drained_host_do_not_go_to_another() -> None:
    world = lively(7, hosts=("h1", "h2", "h3"))
    for name in ("h2", "h1"):
        world.ask(AskDrain(id=name, by="ops", host=name))
    assert world.run(
        120.0, lambda: all(world.host(name).phase is HostPhase.MAINTENANCE for name in ("h1", "h2"))
    )
    world.run(3.0)
    each_runs_once(world)
    assert {world.running(g)[0] for g in world.definitions} == {"h3"}
    assert not world.said("moves from h1 to h2")


@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.8, 2.0])
def test_a_drain_goes_on_after_a_crash_in_its_middle(after_s: float) -> None:
    world = lively(8)
    world.ask(AskDrain(id="d", by="ops", host="h1"))
    world.run(after_s)
    world.crash_coordinator()
    assert world.run(
        200.0, lambda: world.coordinator.alive and world.host("h1").phase is HostPhase.MAINTENANCE
    )
    world.run(5.0)
    each_runs_once(world)


def test_undrain_in_the_middle_leaves_nothing_half_done() -> None:
    world = lively(9)
    world.ask(AskDrain(id="d", by="ops", host="h1"))
    world.run(0.3)
    assert world.ask(AskUndrain(id="u", by="ops", host="h1")).accepted
    world.run(60.0)
    assert world.host("h1").phase is HostPhase.ONLINE
    assert world.truth.unfinished() == []
