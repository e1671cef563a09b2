"""Live moves under every fault, and relocation: one copy at every step, and nothing left over in the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dr.model.events import AskCancelMove, AskMigrate, AskRelocate, AskStop, AskUnprotect
from dr.model.records import GuestPhase, MoveStage
from dr.sim.coordinator import SimCoordinator
from dr.sim.migration import FAULTS
from dr.sim.world import World

Blow = Callable[[World], None]


def moving(seed: int = 1, fault: str = "") -> World:
    """g1 is on its way from h1 to h2."""
    world = World(seed, guests={"h1": ("g1", "g2"), "h3": ("g3",)}).begin()
    world.run(5.0)
    if fault:
        world.hosts["h1"].migrate_faults.append(fault)
    reply = world.ask(AskMigrate(id="m", by="ops", guests=("g1",), to="h2"))
    assert reply.accepted, reply
    return world


def ends_well(world: World, seconds: float = 240.0) -> None:
    """After the repair all guests run exactly once, no operation hangs, no copy is left."""
    world.heal()
    assert world.run(seconds, lambda: not world.truth.unfinished()), world.truth.unfinished()
    world.run(10.0)
    assert world.truth.unfinished() == []
    assert all(len(world.running(guest)) == 1 for guest in world.definitions)


def outcome(world: World) -> str:
    (operation,) = (op for op in world.store.operations.values() if op.kind == "guest-migrate")
    return f"{operation.state}: {operation.guests['g1']}"


# ---- the phases of libvirt


def test_it_moves_without_a_restart() -> None:
    world = moving()
    assert world.guest("g1").phase is GuestPhase.MIGRATING
    assert {place.host for place in world.guest("g1").may_run_on} == {"h1", "h2"}
    world.run(20.0)
    assert (world.running("g1"), world.truth.starts["g1"]) == (["h2"], 1)
    assert outcome(world) == "done: running on h2"
    assert "g1" not in world.hosts["h1"].domains, "its definition was cleaned up at the source"
    assert world.truth.unfinished() == []


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in ("queued", "lost", "hot", "busy")])
def test_a_migration_that_fails_leaves_it_where_it_was(fault: str) -> None:
    """No restart, no copy left; even where nobody heard how Finish ended, or both ends stand still."""
    world = moving(2, fault)
    world.run(70.0)
    assert (world.running("g1"), world.truth.starts["g1"]) == (["h1"], 1)
    assert outcome(world).startswith("failed: not moved: still on h1")
    assert world.truth.unfinished() == []


def test_a_lost_end_is_asked_for() -> None:
    """It succeeded, and nobody was told: the source's testimony resolves it, and it goes on without a restart."""
    world = moving(3, "lost")
    world.run(70.0)
    assert (world.running("g1"), world.truth.starts["g1"]) == (["h2"], 1)


# ---- each fault at each moment


def _deafen(world: World) -> None:
    for name in world.hosts:
        world.disturb(name, "answer", "lost", 0.0, 2)


BLOWS: dict[str, Blow] = {
    "source off": lambda w: w.power_off("h1"),
    "destination off": lambda w: w.power_off("h2"),
    "source reboots": lambda w: w.hosts["h1"].reboot(),
    "destination reboots": lambda w: w.hosts["h2"].reboot(),
    "source agent killed": lambda w: _restarted(w, "h1", w.hosts["h1"].agent.kill),
    "destination agent killed": lambda w: _restarted(w, "h2", w.hosts["h2"].agent.kill),
    "source agent forgets": lambda w: _restarted(w, "h1", w.hosts["h1"].agent.lose_state),
    "destination agent forgets": lambda w: _restarted(w, "h2", w.hosts["h2"].agent.lose_state),
    "source libvirtd dies": lambda w: _libvirtd(w, "h1", "down"),
    "destination libvirtd dies": lambda w: _libvirtd(w, "h2", "down"),
    "source libvirtd hangs": lambda w: _libvirtd(w, "h1", "hung"),
    "destination libvirtd hangs": lambda w: _libvirtd(w, "h2", "hung"),
    "coordinator killed": lambda w: w.crash_coordinator(3.0),
    "source cut off": lambda w: w.cut("h1"),
    "destination cut off": lambda w: w.cut("h2"),
    "destination unplugged": lambda w: w.cut("h2", storage=True),
    "source frozen": lambda w: w.freeze("h1", 8.0),
    "destination frozen": lambda w: w.freeze("h2", 8.0),
    "migration network cut": lambda w: w.network.migration_down.add("h2"),
    "answers lost": _deafen,
    "it crashes": lambda w: _end(w, "crashed"),
    "its owner shuts it down": lambda w: _end(w, "shutdown"),
}


def _restarted(world: World, name: str, blow: Callable[[], None]) -> None:
    blow()
    world.clock.after(4.0, world.hosts[name].agent.start)


def _libvirtd(world: World, name: str, state: str) -> None:
    world.hosts[name].set_libvirtd(state)
    world.clock.after(9.0, lambda: world.hosts[name].set_libvirtd("up"))


def _end(world: World, how: str) -> None:
    for name in world.running("g1"):
        world.hosts[name].end("g1", how)


@pytest.mark.long(keep=8)
@pytest.mark.parametrize("fault", ["", "lost_finish", "stuck", "fail", "lost"])
@pytest.mark.parametrize("blow", BLOWS)
def test_a_blow_at_any_moment(blow: str, fault: str) -> None:
    """At the request, while it is let in, copied, switched over, waits, is resumed, and just after."""
    for number, moment in enumerate((0.0, 0.05, 0.3, 1.0, 2.0, 2.4, 2.6, 2.8, 3.2, 9.0)):
        world = moving(number + 1, fault)
        world.run(moment)
        BLOWS[blow](world)
        world.run(25.0)
        if blow == "its owner shuts it down":
            world.heal()
            world.run(60.0)
            # Ended by its owner: stopped, or (where nobody could see that) started again; never both, never two.
            assert len(world.running("g1")) <= 1
            assert world.guest("g1").phase in (GuestPhase.RUNNING, GuestPhase.STOPPED), (
                moment,
                world.guest("g1"),
            )
            assert world.truth.unfinished() == [], moment
        else:
            ends_well(world)


@pytest.mark.long(keep=1)
@pytest.mark.parametrize("fault", ["", "lost_finish", "lost"])
def test_a_coordinator_killed_at_every_commit_and_effect(fault: str) -> None:
    def run(plan: Callable[[SimCoordinator], None]) -> World:
        world = moving_planned(fault, plan)
        world.run(30.0)
        coordinator = world.coordinator
        coordinator.die_after_commit = coordinator.die_before_effect = coordinator.die_after_effect = 0
        world.restart_coordinator()
        world.run(60.0)
        return world

    counts: list[int] = []
    calm = run(lambda c: counts.extend((c.commits, c.effects)))
    commits, effects = calm.coordinator.commits - counts[0], calm.coordinator.effects - counts[1]
    points = [("die_after_commit", counts[0] + n) for n in range(1, min(commits, 25) + 1)]
    for n in range(1, min(effects, 30) + 1):
        points += [("die_before_effect", counts[1] + n), ("die_after_effect", counts[1] + n)]
    died = 0
    for name, number in points:
        world = run(lambda c, n=name, at=number: setattr(c, n, at))  # type: ignore[misc]
        died += world.coordinator.term > 1
        assert world.truth.unfinished() == [], (name, number)
        assert len(world.running("g1")) == 1, (name, number)
        assert world.truth.starts["g1"] == 1, "no move is worth a restart because the coordinator died"
    assert died > len(points) // 2


def moving_planned(fault: str, plan: Callable[[SimCoordinator], None]) -> World:
    world = World(5, guests={"h1": ("g1",)}).begin()
    world.run(5.0)
    if fault:
        world.hosts["h1"].migrate_faults.append(fault)
    plan(world.coordinator)
    world.coordinator.submit(AskMigrate(id="m", by="ops", guests=("g1",), to="h2"))
    return world


# ---- hands


def test_a_copy_that_is_resumed_by_hand_is_suspended_within_a_heartbeat() -> None:
    """Rule 7. The lost Finish leaves a copy that waits; somebody resumes it beside the guest."""
    world = moving(4, "lost_finish")
    there = world.hosts["h2"].domains
    assert world.run(20.0, lambda: "g1" in there and there["g1"].reason == "user")
    world.cut_coordinator()
    world.run(7.0)
    assert world.running("g1") == ["h1"]
    assert world.hosts["h2"].hand_resume("g1")
    assert world.running("g1") == ["h1", "h2"]
    world.run(world.settings.timers.heartbeat_s + 0.01)
    assert world.running("g1") == ["h1"]
    ends_well(world)


def test_virsh_migrate_is_refused_at_the_other_end() -> None:
    world = World(6, guests={"h1": ("g1",)}).begin()
    world.hosts["h1"].hand_migrate("g1", "h2")
    world.run(20.0)
    assert world.running("g1") == ["h1"]
    assert world.said("the hook lets no g1 in")


def test_a_prepare_that_arrives_after_the_seal_is_refused() -> None:
    """The permit was taken back with the testimony that the copy is not there."""
    world = moving(7, "queued")
    assert world.ask(AskCancelMove(id="c", by="ops", guests=("g1",))).accepted
    world.run(40.0)
    assert world.running("g1") == ["h1"]
    assert world.truth.unfinished() == []


# ---- what people ask meanwhile


def test_cancelled_it_stays() -> None:
    world = moving(8, "never_converges")
    world.run(3.0)
    assert world.ask(AskCancelMove(id="c", by="ops", guests=("g1",), reason="not now")).accepted
    world.run(10.0)
    assert world.running("g1") == ["h1"]
    assert "not now" in outcome(world)
    refused = world.ask(AskCancelMove(id="d", by="ops", guests=("g1",)))
    assert refused.blockers == ("g1 is not being moved: it is running",)


def test_stopped_meanwhile_it_is_called_off_then_stopped() -> None:
    world = moving(9, "slow")
    world.run(2.0)
    assert world.ask(AskStop(id="s", by="ops", guests=("g1",), mode="shutdown")).accepted
    world.run(30.0)
    assert world.running("g1") == []
    assert world.guest("g1").phase is GuestPhase.STOPPED
    assert world.truth.unfinished() == []


def test_unprotect_waits_for_its_end() -> None:
    world = moving(10)
    refused = world.ask(AskUnprotect(id="u", by="ops", guests=("g1",)))
    assert refused.blockers == ("g1 is on its way from h1: wait until its move has ended",)


def test_more_than_a_host_may_send_wait_their_turn() -> None:
    world = World(11, guests={"h1": ("g1", "g2", "g3", "g4")}).begin()
    names = ("g1", "g2", "g3", "g4")
    assert world.ask(AskMigrate(id="m", by="ops", guests=names)).message == "2 wait until others have moved"
    most = 0
    for _ in range(300):
        world.run(0.1)
        under_way = [g for g in world.store.guests.values() if g.phase is GuestPhase.MIGRATING]
        most = max(most, len(under_way))
    assert most == world.settings.limits.moves_out_per_host
    assert all(world.running(name) != ["h1"] for name in names)
    assert world.truth.unfinished() == []


# ---- relocation


def test_relocated_it_starts_elsewhere() -> None:
    world = World(12, guests={"h1": ("g1",)}).begin()
    assert world.ask(AskRelocate(id="r", by="ops", guests=("g1",), to="h3")).accepted
    assert world.guest("g1").move is not None
    assert world.guest("g1").move.stage is MoveStage.STOPPING  # type: ignore[union-attr]
    world.run(20.0)
    assert (world.running("g1"), world.truth.starts["g1"]) == (["h3"], 2)
    assert world.truth.unfinished() == []


def test_a_stop_that_fails_leaves_it_there_and_says_so() -> None:
    world = World(13, guests={"h1": ("g1",)}).begin()
    world.hosts["h1"].stop_faults.append("deaf")
    assert world.ask(AskRelocate(id="r", by="ops", guests=("g1",))).accepted
    world.run(30.0)
    assert (world.running("g1"), world.truth.starts["g1"]) == (["h1"], 1)
    (operation,) = (op for op in world.store.operations.values() if op.kind == "guest-relocate")
    assert operation.state.value == "failed"
    assert "did not shut down within" in operation.guests["g1"]


def test_a_relocation_survives_its_source() -> None:
    world = World(14, guests={"h1": ("g1",), "h2": ("g2",)}).begin()
    world.run(5.0)
    world.hosts["h1"].stop_faults.append("hang")
    assert world.ask(AskRelocate(id="r", by="ops", guests=("g1",), to="h3")).accepted
    world.power_off("h1")
    world.run(60.0)
    assert world.running("g1") == ["h3"]
    ends_well(world)


def test_a_host_that_cannot_take_it_is_refused_with_every_reason() -> None:
    world = World(15, guests={"h1": ("g1",)}).begin()
    world.cut("h3", management=False, storage=True)
    world.hosts["h3"].hook_broken = True
    world.hosts["h3"].agent.look_again()
    world.run(2.0)
    for ask in (
        AskRelocate(id="r", by="ops", guests=("g1",), to="h3"),
        AskMigrate(id="m", by="ops", guests=("g1",), to="h3"),
    ):
        blockers = " ".join(world.ask(ask).blockers)
        assert "does not see storage" in blockers
        assert "permit hook is not proven" in blockers
