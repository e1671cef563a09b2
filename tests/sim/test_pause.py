"""Automation paused and resumed: what stops, what goes on, and that no promise is dropped."""

from dr.model.events import AskDrain, AskFence, AskPause, AskResume, AskStart
from dr.model.operations import OperationState
from dr.model.records import GuestPhase, HostPhase
from dr.sim.world import World
from tests.sim.test_must_hold import THREE, each_runs_once, lively


def pause(world: World) -> None:
    assert world.ask(AskPause(id=world.next_ask(), by="ops", reason="switch work")).accepted


def resume(world: World) -> None:
    assert world.ask(AskResume(id=world.next_ask(), by="ops")).accepted


def test_paused_nothing_is_fenced_and_resumed_it_is_carried_on() -> None:
    world = lively(1)
    pause(world)
    world.cut("h1", storage=True)
    world.run(60.0)
    assert not world.truth.fenced
    assert "automation is paused" in world.host("h1").reason
    resume(world)
    world.run(15.0)
    assert world.truth.fenced["h1"]
    world.run(5.0)
    each_runs_once(world)


def test_paused_in_the_middle_of_a_fencing() -> None:
    """What the fence device was told already counts; what it had not been told is not begun."""
    for seed in range(12):
        world = lively(seed)
        world.cut("h1", storage=True)
        assert world.run(10.0, lambda world=world: world.host("h1").phase is HostPhase.FENCING)  # type: ignore[misc]
        sent = world.truth.fenced["h1"]
        pause(world)
        world.run(30.0)
        assert world.truth.fenced["h1"] == sent, "none was begun"
        assert world.host("h1").phase is not HostPhase.FENCING, "and none hangs"
        resume(world)
        world.run(40.0)
        each_runs_once(world)


def test_paused_in_the_middle_of_a_failover() -> None:
    """Tickets that are out end; the others wait, and say for what; a person's own start goes on."""
    world = lively(2)
    world.power_off("h1")
    assert world.run(10.0, lambda: any(g.phase is GuestPhase.STARTING for g in world.store.guests.values()))
    pause(world)
    world.run(10.0)
    assert not [g for g in world.store.guests.values() if g.phase is GuestPhase.STARTING]
    resume(world)
    world.run(10.0)
    each_runs_once(world)


def test_paused_after_the_proof_guests_wait_but_for_a_persons_start() -> None:
    world = lively(3)
    pause(world)
    world.power_off("h1")
    world.run(20.0)
    assert world.host("h1").phase is HostPhase.FENCED, "proofs are taken"
    assert [world.running(g) for g in THREE["h1"]] == [[], [], []]
    assert "automation is paused (switch work)" in world.guest("g1").reason
    assert world.ask(AskStart(id="s", by="ops", guests=("g1",))).accepted
    world.run(5.0)
    assert world.running("g1")
    assert world.running("g2") == []
    resume(world)
    world.run(10.0)
    each_runs_once(world)


def test_paused_a_returning_host_is_cleaned_all_the_same() -> None:
    world = lively(4)
    world.power_off("h1")
    world.run(10.0)
    pause(world)
    world.power_on("h1")
    assert world.run(30.0, lambda: world.host("h1").phase is HostPhase.ONLINE)
    assert not set(world.hosts["h1"].domains) & set(THREE["h1"])
    resume(world)


def test_paused_a_fenced_host_is_not_switched_on_until_resumed() -> None:
    world = lively(5)
    pause(world)
    assert world.ask(AskFence(id="f", by="ops", host="h1")).accepted, "a person may"
    world.run(30.0)
    assert world.host("h1").phase is HostPhase.FENCED
    assert not world.hosts["h1"].up
    resume(world)
    assert world.run(60.0, lambda: world.host("h1").phase is HostPhase.ONLINE)
    each_runs_once(world)


def test_paused_an_empty_host_goes_to_maintenance() -> None:
    world = lively(6)
    pause(world)
    (operation,) = world.ask(AskDrain(id="d", by="ops", host="h3")).operations
    world.run(2.0)
    assert world.host("h3").phase is HostPhase.MAINTENANCE
    assert world.store.operations[operation].state is OperationState.DONE
