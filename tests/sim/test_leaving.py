"""Hosts that announce their own end, in the simulated world."""

import pytest

from dr.model.base import changed
from dr.model.events import AskStart
from dr.model.policy import OnLeave
from dr.model.records import Desired, HostPhase
from dr.sim.world import TIMERS, World
from tests.sim.test_must_hold import THREE, each_runs_once

HOLD_S = 60.0


def site(policy: OnLeave, seed: int, *, power_on: bool = True) -> World:
    """Three hosts, of which h1 has three guests."""
    world = World(seed, guests=THREE, timers=changed(TIMERS, hold_s=HOLD_S, leave_s=30.0), power_on=power_on)
    world.settings = changed(world.settings, on_leave=policy)
    world.begin()
    world.run(6.0)
    return world


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", [OnLeave.FAILOVER, OnLeave.MIGRATE])
def test_after_a_clean_shutdown_its_guests_run_elsewhere(policy: OnLeave, seed: int) -> None:
    """Their end is not their owner's will, although libvirt says "shutdown"."""
    world = site(policy, seed)
    world.shutdown("h1")
    assert world.run(12.0, lambda: all(world.running(g) not in ([], ["h1"]) for g in THREE["h1"]))
    world.run(12.0)
    each_runs_once(world)
    assert world.host("h1").phase is HostPhase.FENCED
    assert not world.truth.fenced, "its power reads off: that is the proof"
    assert not world.said("alert host/h1")


@pytest.mark.parametrize("seed", range(3))
def test_held_guests_wait_for_their_host_and_start_there(seed: int) -> None:
    world = site(OnLeave.HOLD, seed)
    world.reboot_cleanly("h1")
    world.run(5.0)
    assert {world.guest(g).held_at for g in THREE["h1"]} == {"h1"}
    assert world.run(40.0, lambda: all(world.running(g) == ["h1"] for g in THREE["h1"]))
    world.run(5.0)
    each_runs_once(world)
    assert world.host("h1").phase is HostPhase.ONLINE
    assert {world.guest(g).held_at for g in world.definitions} == {""}
    assert not world.truth.fenced
    assert not world.said("alert ")


def test_guests_are_held_at_most_so_long_and_need_their_proof() -> None:
    world = site(OnLeave.HOLD, 4)
    world.shutdown("h1")
    world.run(HOLD_S - 20.0)
    assert [world.running(g) for g in THREE["h1"]] == [[], [], []]
    assert "is held for h1" in world.guest("g1").reason
    assert world.run(40.0, lambda: all(world.running(g) not in ([], ["h1"]) for g in THREE["h1"]))
    world.run(2.0)
    each_runs_once(world)


def test_a_held_guest_starts_elsewhere_when_somebody_asks() -> None:
    world = site(OnLeave.HOLD, 5)
    world.shutdown("h1")
    world.run(15.0)
    assert world.running("g1") == []
    assert world.ask(AskStart(id="s", by="ops", guests=("g1",))).accepted
    assert world.run(5.0, lambda: world.running("g1") not in ([], ["h1"]))
    assert world.running("g2") == []


def test_a_host_that_hangs_on_its_way_down_is_left_alone_for_its_time_and_then_fenced() -> None:
    """It announced, lost its network, and never went off."""
    world = site(OnLeave.FAILOVER, 6, power_on=False)
    host = world.hosts["h1"]
    host.leaving = "shutdown"
    host.agent.announce()
    world.run(1.0)
    world.cut("h1", storage=True)
    world.run(25.0)
    assert not world.truth.fenced
    assert not world.said("alert host/h1")
    assert "silent since it announced its shutdown" in world.host("h1").reason
    assert world.run(30.0, lambda: all(world.running(g) not in ([], ["h1"]) for g in THREE["h1"]))
    world.run(2.0)
    assert world.truth.fenced["h1"]
    each_runs_once(world)


def test_without_an_announcement_an_end_is_still_its_owners_will() -> None:
    world = site(OnLeave.HOLD, 7)
    world.shutdown("h1", announced=False)
    world.run(30.0)
    assert {world.guest(g).desired for g in THREE["h1"]} == {Desired.STOPPED}


def test_called_off_it_takes_part_again() -> None:
    world = site(OnLeave.HOLD, 8)
    host = world.hosts["h1"]
    host.leaving = "reboot"
    host.agent.announce()
    world.run(1.0)
    assert world.host("h1").leaving == "reboot"
    host.leaving = ""
    host.agent.announce()
    world.run(1.0)
    assert world.host("h1").leaving == ""
    assert {world.guest(g).held_at for g in THREE["h1"]} == {""}
    assert world.truth.unfinished() == []
    host.end("g1", "shutdown")
    world.run(5.0)
    assert world.guest("g1").desired is Desired.STOPPED, "its owner's will, again"


def test_announced_the_whole_site_goes_down_and_comes_back() -> None:
    """No brake, no alarm, no fence: everybody said so."""
    world = site(OnLeave.HOLD, 9)
    for name in ("h1", "h2", "h3"):
        world.reboot_cleanly(name)
    world.run(60.0)
    each_runs_once(world)
    assert [world.running(g) for g in world.definitions] == [["h1"]] * 3 + [["h2"]]
    assert not world.truth.fenced
    assert not world.said("alert host/")


def test_a_coordinator_that_restarts_meanwhile_remembers() -> None:
    world = site(OnLeave.HOLD, 10)
    world.reboot_cleanly("h1")
    world.run(3.0)
    world.crash_coordinator()
    world.run(60.0)
    each_runs_once(world)
    assert [world.running(g) for g in THREE["h1"]] == [["h1"]] * 3
    assert not world.truth.fenced
