"""Guest policy and hand-made changes in whole worlds: what users see happen."""

from __future__ import annotations

from typing import Any

from dr.model.checks import Ping
from dr.model.events import AskSet, AskStart
from dr.model.operations import OperationState
from dr.model.policy import After, PolicyChange
from dr.model.records import Desired, GuestPhase
from dr.sim.world import World

PING = Ping(address="10.1.0.5")


def set_(world: World, *guests: str, desired: Desired | None = None, **policy: Any) -> None:
    ask = AskSet(id=world.next_ask(), by="ops", guests=guests, desired=desired, policy=PolicyChange(**policy))
    reply = world.ask(ask)
    assert reply.accepted, reply


def since(world: World, guest: str) -> float:
    return world.truth.began_at[guest]


def test_guests_come_back_in_the_order_of_their_dependencies() -> None:
    """Chained over three guests whose priorities say the opposite, one of them by its check."""
    world = World(301, guests={"h1": ("web", "app", "db")}).begin()
    world.ready_after_s["db"] = 6.0
    set_(world, "db", checks=(PING,), priority=1)
    set_(world, "app", boot_after=(After(guest="db", until="check"),), priority=50)
    set_(world, "web", boot_after=(After(guest="app"),), priority=100)
    world.power_off("h1")
    assert world.run(60.0, lambda: all(world.running(guest) for guest in ("web", "app", "db")))
    assert since(world, "app") >= since(world, "db") + 6.0
    assert since(world, "web") > since(world, "app")
    world.run(10.0)
    assert world.truth.unfinished() == []


def test_a_dependency_that_never_comes_up_delays_and_does_not_stop() -> None:
    world = World(302, guests={"h1": ("web", "db")}).begin()
    set_(world, "web", boot_after=(After(guest="db"),))
    set_(world, "db", max_restarts=0, max_relocations=0)
    world.hosts["h1"].end("db", "crashed")
    world.run(5.0)
    assert world.guest("db").phase is GuestPhase.ERROR
    world.hosts["h1"].end("web", "crashed")
    world.run(20.0)
    assert "waits for db (error)" in world.guest("web").reason
    assert world.run(300.0, lambda: bool(world.running("web")))


def test_a_start_that_fails_everywhere_ends_in_error_and_one_command_gets_it_out() -> None:
    world = World(303, guests={"h1": ("g1",)}).begin()
    for host in world.hosts.values():
        host.start_faults.extend(["fail"] * 99)
    world.power_off("h1")
    assert world.run(300.0, lambda: world.guest("g1").phase is GuestPhase.ERROR)
    assert "no space left on device" in world.guest("g1").reason
    for host in world.hosts.values():
        host.start_faults.clear()
    world.run(30.0)
    assert world.running("g1") == []
    assert world.ask(AskStart(id=world.next_ask(), by="ops", guests=("g1",))).accepted
    assert world.run(10.0, lambda: world.guest("g1").phase is GuestPhase.RUNNING)


def test_a_failover_says_whether_the_checks_passed() -> None:
    world = World(304, guests={"h1": ("g1",)}).begin()
    world.ready_after_s["g1"] = 5.0
    set_(world, "g1", checks=(PING,))
    world.power_off("h1")
    world.run(40.0)
    (failover,) = (op for op in world.store.operations.values() if op.kind == "failover")
    assert failover.state is OperationState.DONE
    assert failover.guests["g1"].endswith("its checks passed")
    assert failover.closed - failover.opened > 5.0


def test_an_ignored_guest_is_left_alone_when_its_host_dies() -> None:
    """Its host is not fenced for it, and when it is proven off all the same, it is not restarted."""
    world = World(305, guests={"h1": ("g1",)}).begin()
    set_(world, "g1", desired=Desired.IGNORED)
    world.freeze("h1", 60.0)
    world.run(30.0)
    assert not world.truth.fenced["h1"]
    world.power_off("h1")
    world.run(40.0)
    assert world.guest("g1").phase is GuestPhase.STOPPED
    assert world.running("g1") == []


def test_a_guest_wanted_off_on_a_dead_host_stays_off() -> None:
    world = World(306, guests={"h1": ("g1", "g2")}).begin()
    world.freeze("h1", 300.0)
    world.run(2.0)
    set_(world, "g1", desired=Desired.STOPPED)
    assert world.run(
        60.0, lambda: bool(world.guest("g2").phase is GuestPhase.RUNNING and world.running("g2"))
    )
    world.run(10.0)
    assert world.guest("g1").phase is GuestPhase.STOPPED
    assert world.running("g1") == []


# ---- hand-made changes


def test_a_renamed_guest_keeps_its_protection_and_those_that_wait_for_it() -> None:
    world = World(310, guests={"h1": ("g1", "g2")}).begin()
    set_(world, "g2", boot_after=(After(guest="g1"),))
    world.rename("g1", "shop")
    world.run(10.0)
    assert world.guest("g1").name == "shop"
    assert world.guest("g2").policy.boot_after == (After(guest="shop"),)
    world.power_off("h1")
    assert world.run(40.0, lambda: all(len(world.running(guest)) == 1 for guest in ("g1", "g2")))


def test_a_guest_undefined_by_hand_is_taken_as_stopped_and_can_be_started_again() -> None:
    world = World(311, guests={"h1": ("g1",)}).begin()
    world.undefine("g1")
    world.run(20.0)
    assert (world.guest("g1").phase, world.guest("g1").desired) == (GuestPhase.STOPPED, Desired.STOPPED)
    assert world.running("g1") == []
    assert world.ask(AskStart(id=world.next_ask(), by="ops", guests=("g1",))).accepted
    assert world.run(10.0, lambda: len(world.running("g1")) == 1)


def test_a_guest_that_is_stopped_by_hand_again_and_again_is_never_fought_over() -> None:
    world = World(312, guests={"h1": ("g1",)}).begin()
    for _ in range(5):
        (where,) = world.running("g1")
        world.hosts[where].end("g1", "destroyed")
        world.run(20.0)
        assert world.running("g1") == [], "it was stopped by hand, and stays so"
        assert world.ask(AskStart(id=world.next_ask(), by="ops", guests=("g1",))).accepted
        assert world.run(10.0, lambda: world.guest("g1").phase is GuestPhase.RUNNING)


def test_a_hand_that_starts_a_stopped_guest_is_refused_by_the_hook() -> None:
    world = World(313, guests={"h1": ("g1",)}).begin()
    set_(world, "g1", desired=Desired.STOPPED)
    assert world.run(20.0, lambda: world.guest("g1").phase is GuestPhase.STOPPED)
    assert not world.hosts["h1"].hand_start("g1")
    world.run(5.0)
    assert world.guest("g1").phase is GuestPhase.STOPPED
