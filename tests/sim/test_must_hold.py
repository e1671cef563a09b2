"""The ten groups of "must hold" of automatic failover, in the simulated world: first here, then on real guests."""

from typing import Any

import pytest

from dr.model.events import AskConfirmDown, AskResume
from dr.model.operations import OperationState
from dr.model.records import Condition, GuestPhase, HostPhase
from dr.sim.truth import Violation
from dr.sim.world import World

THREE = {"h1": ("g1", "g2", "g3"), "h2": ("g4",)}


def lively(seed: int, **fields: Any) -> World:
    """Protected guests run, links have found their rhythm."""
    fields.setdefault("guests", THREE)
    world = World(seed, **fields).begin()
    world.run(6.0)
    return world


def each_runs_once(world: World) -> None:
    assert {g: len(world.running(g)) for g in world.definitions} == dict.fromkeys(world.definitions, 1)
    assert [op.id for op in world.store.operations.values() if op.state is OperationState.OPEN] == []


def nothing_happened(world: World) -> None:
    assert sum(world.truth.fenced.values()) == 0
    assert set(world.truth.starts.values()) == {1}, "no guest was started again"
    each_runs_once(world)


# ---- 1


@pytest.mark.parametrize("seed", range(5))
def test_1_power_cut(seed: int) -> None:
    """One host with three guests loses power: all run on survivors within seconds, each once."""
    world = lively(seed)
    world.power_off("h1")
    assert world.run(4.0, lambda: all(world.running(g) for g in world.definitions))
    world.run(5.0)
    each_runs_once(world)
    assert world.host("h1").phase is HostPhase.FENCED


# ---- 2


def test_2_two_of_four_at_once() -> None:
    """Half of the hosts die together: the brake lets go because their power is off, and all guests run."""
    world = lively(
        1, hosts=("h1", "h2", "h3", "h4"), guests={"h1": ("g1", "g2"), "h2": ("g3",), "h3": ("g4",)}
    )
    world.power_off("h1")
    world.power_off("h2")
    world.run(15.0)
    each_runs_once(world)


def test_2_a_host_dies_during_anothers_failover() -> None:
    """The second failover joins the first, and every guest ends up running."""
    world = lively(
        2, hosts=("h1", "h2", "h3", "h4"), guests={"h1": ("g1", "g2"), "h2": ("g3",), "h3": ("g4",)}
    )
    world.power_off("h1")
    assert world.run(9.0, lambda: any(g.phase is GuestPhase.STARTING for g in world.store.guests.values()))
    world.power_off("h2")
    world.run(20.0)
    each_runs_once(world)


def test_2_the_target_dies_during_a_start() -> None:
    """The place stays in the set until that host is proven dead too; then the guest starts on a third."""
    world = lively(3, hosts=("h1", "h2", "h3", "h4"), guests={"h1": ("g1",), "h4": ("g2",)})
    world.power_off("h1")
    assert world.run(9.0, lambda: world.guest("g1").phase is GuestPhase.STARTING)
    (place,) = world.guest("g1").may_run_on
    world.power_off(place.host)
    world.run(20.0)
    each_runs_once(world)


@pytest.mark.parametrize("fault", ["lost", "hang", "slow", "fail", "die"])
def test_2_a_start_whose_end_is_not_seen(fault: str) -> None:
    """libvirt still works on it, or never answers: nobody else is tried before that host has testified."""
    world = lively(4, guests={"h1": ("g1",), "h2": ("g2",)})
    for name in ("h2", "h3"):
        world.hosts[name].start_faults.append(fault)
    world.power_off("h1")
    world.run(60.0)
    each_runs_once(world)


# ---- 3


def test_3_agent_killed_and_gone() -> None:
    """An agent that died on a living host is repaired, not fenced; its guests keep running."""
    world = lively(5)
    world.hosts["h1"].agent.kill()
    world.run(40.0)
    assert Condition.AGENT_LOST in world.host("h1").conditions
    assert "host/h1/agent-lost" in world.store.alerts
    world.hosts["h1"].agent.start()
    world.run(5.0)
    assert Condition.AGENT_LOST not in world.host("h1").conditions
    assert world.store.alerts == {}
    nothing_happened(world)


@pytest.mark.parametrize(
    "what", ["libvirtd killed", "libvirtd hung", "agent frozen", "agent upgraded", "frozen for 1 s"]
)
def test_3_nothing_happens(what: str) -> None:
    """libvirtd dead or hung, an agent frozen for 10 s or restarted, a host frozen for 1 s: nothing happens."""
    world = lively(6)
    if what.startswith("libvirtd"):
        world.hosts["h1"].set_libvirtd("down" if "killed" in what else "hung")
    elif what == "agent frozen":
        world.hosts["h1"].agent.freeze(10.0)
    elif what == "agent upgraded":
        world.hosts["h1"].agent.stop()
        world.run(3.0)
        world.hosts["h1"].agent.start()
        assert "host/h1/agent-lost" not in world.store.alerts
    else:
        world.freeze("h1", 1.0)
    world.run(12.0)
    world.hosts["h1"].set_libvirtd("up")
    world.run(8.0)
    nothing_happened(world)


def test_3_frozen_for_20_s() -> None:
    """A host that stands still is fenced and its guests restarted; they never run twice, whatever thaws."""
    world = lively(7)
    world.freeze("h1", 20.0)
    world.run(15.0)
    each_runs_once(world)
    world.run(30.0)
    each_runs_once(world)
    assert world.host("h1").phase is HostPhase.ONLINE


def test_3_frozen_for_20_s_and_cannot_be_fenced() -> None:
    """Its BMC is dead: nothing restarts, and when it thaws all goes on as before."""
    world = lively(8)
    world.fencer.devices["bmc-h1"].fault = "dead"
    world.freeze("h1", 20.0)
    world.run(40.0)
    assert set(world.truth.starts.values()) == {1}
    each_runs_once(world)


# ---- 4


def test_4_management_link_alone_is_cut() -> None:
    """Peers still hear the host on the storage network: not fenced, an alert says so."""
    world = lively(9)
    world.cut("h1")
    world.run(30.0)
    assert "host/h1/agent-lost" in world.store.alerts
    nothing_happened(world)


def test_4_all_links_cut_while_guests_live() -> None:
    """Fenced first, then restarted: never the other way round (the world itself checks that)."""
    world = lively(10)
    world.cut("h1", storage=True)
    world.run(15.0)
    assert world.truth.fenced["h1"] == 1
    each_runs_once(world)
    assert world.host("h1").phase is HostPhase.FENCED


def test_4_bmc_dead_as_well() -> None:
    """Nothing restarts until a person confirms that it is down; the reason says exactly that."""
    world = lively(11)
    world.fencer.devices["bmc-h1"].fault = "dead"
    world.cut("h1", storage=True)
    world.run(40.0)
    assert set(world.truth.starts.values()) == {1}
    assert "dr host confirm-down h1" in world.store.alerts["host/h1/fence-failed"].todo
    world.power_off("h1")
    reply = world.ask(AskConfirmDown(id="c", by="ops", host="h1", reason="I pulled the plug"))
    if not reply.accepted:  # a fencing was just under way
        assert reply.blockers == ("a fencing of it is under way",)
        world.run(12.0)
        assert world.ask(AskConfirmDown(id="c2", by="ops", host="h1", reason="I pulled the plug")).accepted
    world.run(10.0)
    each_runs_once(world)


def test_4_bmc_of_another_machine_answers_off() -> None:
    """Identity shows that it is not this host: nothing is believed, nothing restarts."""
    world = lively(12, hosts=("h1", "h2", "h3", "h4"))
    world.power_off("h4")
    world.run(10.0)
    world.fencer.devices["bmc-h1"].acts_on = "h4"
    world.cut("h1", storage=True)
    world.run(40.0)
    assert set(world.truth.starts.values()) == {1}
    assert "not the device that was proven" in world.host("h1").reason


# ---- 5


def test_5_fence_agent_says_success_but_the_host_answers() -> None:
    """A last look after the fencing hears the host: not a proof; nothing restarts."""
    world = lively(13)
    world.fencer.devices["bmc-h1"].fault = "deaf"
    world.cut("h1", storage=True)
    assert world.run(10.0, lambda: world.truth.fenced["h1"] == 1)
    world.network.storage_down.discard("h1")
    world.run(20.0)
    assert set(world.truth.starts.values()) == {1}
    assert world.running("g1") == ["h1"]
    assert "host/h1/fence-lies" in world.store.alerts


def test_5_rebooted_by_itself_between_fence_and_proof() -> None:
    """Its newer boot is the proof; it is not fenced a second time."""
    world = lively(14)
    world.fencer.devices["bmc-h1"].fault = "dead"
    world.cut("h1", storage=True)
    assert world.run(10.0, lambda: world.truth.fenced["h1"] == 1)
    world.hosts["h1"].reboot()
    world.mend("h1")
    fenced = world.truth.fenced["h1"]
    world.run(30.0)
    assert world.truth.fenced["h1"] <= fenced + 1
    each_runs_once(world)
    assert world.host("h1").phase is HostPhase.ONLINE


# ---- 6: crashes at every point are in test_interruption.py


@pytest.mark.parametrize("lost", ["h1", "h2"])
def test_6_store_restored_just_after_a_failover_that_it_does_not_know(lost: str) -> None:
    """Agents know more than the copy: it holds, everything is asked, and nothing runs twice."""
    world = lively(15, hosts=("h1", "h2", "h3", "h4"))
    backup = world.store.copy()
    world.power_off(lost)
    world.run(10.0)
    starts = dict(world.truth.starts)
    world.restore_store(backup)
    world.power_on(lost)
    world.run(20.0)
    assert world.store.cluster.restored
    assert dict(world.truth.starts) == starts, "nothing is started by itself"
    assert world.ask(AskResume(id="r", by="ops", reason="looked over")).accepted
    world.run(20.0)
    each_runs_once(world)
    assert world.truth.unfinished() == []


# ---- 7


def test_7_all_hosts_look_dead() -> None:
    """The coordinator's own network is cut: no witness, so nothing is fenced; afterwards all is as it was."""
    for bmcs in (True, False):
        world = lively(16)
        world.cut_coordinator(bmcs=bmcs)
        world.run(30.0)
        world.mend_coordinator()
        world.run(10.0)
        nothing_happened(world)


def test_7_most_hosts_look_dead() -> None:
    """A switch takes three of five hosts away: more than half, so a person decides."""
    world = lively(17, hosts=("h1", "h2", "h3", "h4", "h5"))
    for name in ("h1", "h2", "h3"):
        world.cut(name, storage=True)
    world.run(30.0)
    assert sum(world.truth.fenced.values()) == 0
    assert "more than half" in world.host("h1").reason
    for name in ("h1", "h2", "h3"):
        world.mend(name)
    world.run(10.0)
    nothing_happened(world)


# ---- 8


def test_8_the_old_host_comes_back() -> None:
    """Autostart and `virsh start` are refused by the hook, leftovers are cleaned, and it is online again."""
    world = lively(18)
    for domain in world.hosts["h1"].domains.values():
        domain.autostart = True
    world.power_off("h1")
    world.run(10.0)
    world.hosts["h1"].agent.enabled = False  # its agent comes later than its libvirtd
    world.power_on("h1")
    world.run(10.0)
    assert len(world.said("the hook refuses")) == 3
    assert not world.hosts["h1"].hand_start("g1")
    world.hosts["h1"].agent.start()
    world.run(10.0)
    assert world.hosts["h1"].domains == {}
    assert world.host("h1").phase is HostPhase.ONLINE
    each_runs_once(world)


# ---- 9


def test_9_what_fits_nowhere_waits_and_starts_when_a_host_returns() -> None:
    """It waits with its reason, others go first, and capacity that appears is used by itself."""
    world = lively(19, memory_mib=3 * 1024, guests={"h1": ("g1", "g2"), "h2": ("g3", "g4"), "h3": ("g5",)})
    world.power_off("h1")
    world.run(20.0)
    waiting = [g for g in world.store.guests.values() if g.phase is GuestPhase.RECOVERING]
    assert len(waiting) == 1
    assert "fits nowhere" in waiting[0].reason
    assert "MiB free above the reserve" in waiting[0].reason
    assert f"guest/{waiting[0].id}/waiting" in world.store.alerts
    world.power_on("h1")
    world.run(25.0)
    each_runs_once(world)
    assert world.store.alerts == {}


# ---- 10


def test_10_shut_down_by_its_owner() -> None:
    """Not restarted; and not when its host dies afterwards either."""
    world = lively(20)
    world.hosts["h1"].end("g1", "shutdown")
    world.run(10.0)
    assert world.guest("g1").phase is GuestPhase.STOPPED
    world.power_off("h1")
    world.run(15.0)
    assert world.running("g1") == []
    assert len(world.running("g2")) == 1


def test_10_crashed() -> None:
    """Restarted in place, bounded and with backoff, then elsewhere, then given up with an alert."""
    world = lively(21)
    where = []
    for _ in range(10):
        if world.running("g1"):
            where.append(world.running("g1")[0])
            world.hosts[where[-1]].end("g1", "crashed")
        world.run(90.0, lambda: bool(world.running("g1")) or world.guest("g1").phase is GuestPhase.ERROR)
        world.run(2.0)
    assert where[:3] == ["h1", "h1", "h1"], "two restarts in place"
    assert "h1" not in where[3:4], "then a relocation"
    assert world.guest("g1").phase is GuestPhase.ERROR
    assert "dr guest start g1" in world.store.alerts["guest/g1/error"].todo


def test_the_checks_can_fail() -> None:
    """A hook that does not refuse, and a hand that starts: the world notices the second copy."""
    world = lively(22)
    world.power_off("h1")
    world.run(10.0)
    world.hosts["h1"].guarded.clear()
    world.hosts["h1"].agent.enabled = False
    world.power_on("h1")
    world.run(8.0)
    with pytest.raises(Violation, match="g1 runs in 2 places"):
        world.hosts["h1"].hand_start("g1")
