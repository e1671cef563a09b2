"""What the simulator and its fuzzer found, each kept as the smallest world that showed it."""

import hashlib
import os
import subprocess
import sys
from typing import Any

import pytest

from dr.core.state import Draft
from dr.model.base import changed
from dr.model.decision import Changes
from dr.model.effects import Effect, PowerOn
from dr.model.events import (
    AskConfirmDown,
    AskFence,
    AskLabel,
    AskResume,
    AskStop,
    FenceEnded,
)
from dr.model.records import Condition, Desired, GuestPhase, HostPhase, Pause
from dr.sim.coordinator import Killed, SimCoordinator
from dr.sim.effects import Looked
from dr.sim.world import TIMERS, World


def lively(seed: int = 1, **fields: Any) -> World:
    """Three hosts, four guests, all protected and running."""
    fields.setdefault("guests", {"h1": ("g1", "g2", "g3"), "h2": ("g4",)})
    return World(seed, **fields).begin()


def all_run_once(world: World) -> None:
    assert world.truth.unfinished() == []


def test_same_seed_same_trace_whatever_the_hash_seed() -> None:
    """Two processes with other string hashes write the same trace, byte for byte."""
    code = (
        "from dr.sim.world import World\n"
        "w = World(7, guests={'h1': tuple(f'g{n}' for n in range(9))}).begin()\n"
        "w.power_off('h1'); w.run(20)\n"
        "print('\\n'.join(w.lines()))"
    )
    digests = set()
    for seed in ("1", "2", "3"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
        digests.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(digests) == 1


def test_protection_does_not_begin_before_the_definition_is_stored() -> None:
    """A guest counts as protected only when it could be started elsewhere: its definition is in the store."""
    world = World(1, guests={"h1": ("g1", "g2"), "h2": ("g4",)})
    early: list[str] = []
    committed = world.truth.committed

    def look(coordinator: SimCoordinator, changes: Changes) -> None:
        early.extend(
            guest.name
            for guest in world.store.guests.values()
            if guest.phase == "running" and not guest.definition
        )
        committed(coordinator, changes)

    world.truth.committed = look  # type: ignore[method-assign]
    world.begin()
    assert early == []


def test_agent_restarted_while_libvirtd_is_dead_loses_no_guest() -> None:
    """An empty list of guests beside a silent libvirt is no inventory: nobody was stopped by hand."""
    world = lively()
    world.hosts["h1"].set_libvirtd("down")
    world.hosts["h1"].agent.kill()
    world.hosts["h1"].agent.start()
    world.run(8.0)
    assert world.guest("g1").desired is Desired.RUNNING
    assert world.guest("g1").phase is GuestPhase.RUNNING
    world.hosts["h1"].set_libvirtd("up")
    world.run(8.0)
    all_run_once(world)


def test_target_dies_during_a_start() -> None:
    """The guest that was starting there goes on elsewhere as soon as that host is proven dead, not a timeout later."""
    world = lively(2, hosts=("h1", "h2", "h3", "h4"), guests={"h1": ("g1",)})
    world.power_off("h1")
    assert world.run(10.0, lambda: world.guest("g1").phase is GuestPhase.STARTING)
    target = world.guest("g1").may_run_on[0].host
    world.hosts[target].start_faults.append("slow")
    world.power_off(target)
    began = world.clock.now
    assert world.run(15.0, lambda: world.guest("g1").phase is GuestPhase.RUNNING)
    assert world.clock.now - began < 8.0
    world.run(5.0)
    assert len(world.running("g1")) == 1


def test_host_joins_and_a_holder_dies_before_it_testified() -> None:
    """A guest with a second place in its set is not forgotten when its holder dies (rule 4)."""
    world = lively(3, hosts=("h1", "h2", "h3", "h4"), guests={"h1": ("g1",)})
    world.hosts["h4"].hook_broken = True  # it cannot testify
    world.hosts["h4"].reboot()
    world.run(10.0)
    # As if h4 were new: it stands in the set of g1 until it has testified.
    record = world.guest("g1")
    place = changed(record.may_run_on[0], host="h4", boot_id=world.host("h4").boot_id)
    widened = changed(record, may_run_on=(*record.may_run_on, place))
    world.coordinator.kill()
    world.store.guests["g1"] = widened
    world.restart_coordinator()
    world.run(6.0)
    world.power_off("h1")
    world.run(15.0)
    assert world.guest("g1").phase is not GuestPhase.RUNNING, "it runs nowhere"
    world.hosts["h4"].hook_broken = False
    world.hosts["h4"].agent.look_again()
    world.run(20.0)
    assert world.guest("g1").phase is GuestPhase.RUNNING
    assert len(world.running("g1")) == 1


def test_late_end_of_an_old_fencing_says_nothing_about_a_new_boot() -> None:
    """A fencing of boot 1 that ends when boot 2 is to be fenced does not prove boot 2 dead."""
    world = lively(
        4, timers=changed(TIMERS, fence_s=60.0), guests={"h1": ("g1",)}, memory_mib=2048, power_on=False
    )
    held: list[FenceEnded] = []
    back = world.coordinator.acts.back

    def hold_back(event: Looked, what: str) -> None:
        if isinstance(event, FenceEnded) and not held:
            held.append(event)
        else:
            back(event, what)

    world.coordinator.acts.back = hold_back  # type: ignore[method-assign]
    world.freeze("h1", 60.0)
    assert world.run(20.0, lambda: bool(held))
    for name in ("h2", "h3"):
        world.hosts[name].start_faults.extend(["fail"] * 3)
    world.power_on("h1")
    assert world.run(40.0, lambda: world.running("g1") == ["h1"])
    world.run(3.0)
    for name in ("h2", "h3"):
        world.hosts[name].start_faults.clear()
    world.fencer.devices["bmc-h1"].fault = "dead"
    world.cut("h1", storage=True)
    assert world.run(20.0, lambda: world.host("h1").phase is HostPhase.FENCING)
    back(held[0], "fence result")
    world.run(5.0)
    assert world.host("h1").phase is not HostPhase.FENCED
    assert world.running("g1") == ["h1"]


def test_power_on_after_fencing_survives_a_crash_before_it() -> None:
    """The wish to switch it on again is durable until it was fulfilled."""
    world = lively(5)
    world.freeze("h1", 100.0)
    assert world.run(20.0, lambda: world.host("h1").phase is HostPhase.FENCED)
    run = world.coordinator.acts.run

    def die_before(effect: Effect, draft: Draft) -> None:
        if isinstance(effect, PowerOn):
            world.coordinator.acts.run = run  # type: ignore[method-assign]
            raise Killed
        run(effect, draft)

    world.coordinator.acts.run = die_before  # type: ignore[method-assign]
    assert world.run(20.0, lambda: not world.coordinator.alive)
    world.restart_coordinator()
    world.run(40.0)
    assert world.host("h1").phase is HostPhase.ONLINE


def test_fencing_is_not_retried_on_old_evidence() -> None:
    """A host that could not be fenced at first, and answers its peers by now, is let live."""
    world = lively(6)
    world.fencer.devices["bmc-h1"].fault = "dead"
    world.cut("h1", storage=True)
    world.run(30.0)
    world.hosts["h1"].agent.kill()
    world.mend("h1")
    world.run(5.0)
    world.fencer.devices["bmc-h1"].fault = ""
    world.run(100.0)
    assert world.running("g1") == ["h1"]
    assert Condition.AGENT_LOST in world.host("h1").conditions


def test_older_store_is_noticed_even_after_it_wrote_more_than_was_lost() -> None:
    """A restored copy writes on before the first agent comes back: no agent of an earlier term knows that much."""
    world = lively(8, hosts=("h1", "h2", "h3", "h4"), guests={"h1": ("g1",)})
    backup = world.store.copy()
    world.power_off("h1")
    assert world.run(20.0, lambda: len(world.running("g1")) == 1)
    world.run(5.0)
    (holder,) = world.running("g1")
    for name in ("h2", "h3", "h4"):
        world.cut(name)
    world.restore_store(backup, 1.0)
    world.run(3.0)
    for number in range(100):  # people label things meanwhile
        world.ask(AskLabel(id=f"l{number}", by="ops", kind="host", name="h1", labels={"n": str(number)}))
    for name in {"h2", "h3", "h4"} - {holder}:
        world.mend(name)
    world.run(40.0)
    world.mend(holder)
    world.run(20.0)
    assert world.store.cluster.restored
    assert world.running("g1") == [holder]


@pytest.mark.parametrize("seed", range(6))
def test_coordinator_that_stood_still_does_not_act_on_what_it_heard_before(seed: int) -> None:
    """Answers that waited while it was frozen are old evidence: nobody is fenced on them."""
    world = lively(seed)
    world.cut("h1", storage=True)
    assert world.run(10.0, lambda: world.host("h1").phase is HostPhase.SUSPECT)
    world.coordinator.freeze(10.0)
    world.run(2.0)
    world.mend("h1")
    world.run(20.0)
    assert world.truth.fenced["h1"] == 0
    assert world.running("g1") == ["h1"]


def test_no_loop_of_commands_while_a_start_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot testify yet is asked again after a while, not as fast as the link allows."""
    monkeypatch.setattr("dr.sim.judge.COMMANDS_PER_S_MAX", 10)
    world = lively(9)
    for name in ("h2", "h3"):
        world.hosts[name].start_faults.extend(["hang"] * 3)
    world.power_off("h1")
    world.run(8.0)
    world.crash_coordinator(0.5)
    world.run(20.0)


def test_no_loop_of_commands_while_a_hook_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot keep the protected list is told again after a while."""
    monkeypatch.setattr("dr.sim.judge.COMMANDS_PER_S_MAX", 10)
    world = lively(10)
    world.hosts["h3"].hook_broken = True
    world.hosts["h3"].agent.kill()
    world.hosts["h3"].agent.start()
    world.run(10.0)
    world.hosts["h3"].hook_broken = False
    world.hosts["h3"].agent.look_again()
    world.run(10.0)
    all_run_once(world)


def test_host_is_not_switched_off_by_devices_that_cannot_prove_it() -> None:
    """No device of it was ever proven: fencing it would recover nobody, so it is left alone."""
    world = World(11, guests={"h1": ("g1",)})
    world.store.identities.clear()
    world.begin()
    world.cut("h1", storage=True)
    world.run(30.0)
    assert world.truth.fenced["h1"] == 0
    assert world.running("g1") == ["h1"]
    assert "dr fence test" in world.host("h1").reason


def test_host_just_connected_is_late_as_soon_as_any_other() -> None:
    """The moment between hello and first beat says nothing about a link's rhythm."""
    world = lively(12)
    world.run(6.0)
    world.hosts["h1"].agent.stop()
    world.hosts["h1"].agent.start()
    world.run(2.0)
    world.power_off("h1")
    began = world.clock.now
    assert world.run(5.0, lambda: world.host("h1").phase is not HostPhase.ONLINE)
    assert world.clock.now - began < 1.5


def test_power_said_off_and_nobody_could_look() -> None:
    """A BMC that says off while its host lives is found out by witnesses; without any, nothing is concluded."""
    world = lively(13, hosts=("h1", "h2"), guests={"h1": ("g1",)})
    world.run(6.0)
    world.fencer.devices["bmc-h1"].fault = "says_off"
    world.hosts["h2"].agent.kill()
    world.cut("h1")
    world.run(10.0)
    world.hosts["h2"].agent.start()
    world.run(20.0)
    assert world.running("g1") == ["h1"]


def test_a_bmc_that_shows_another_machine_is_not_told_to_switch_it_off() -> None:
    """The evidence before the fencing shows the wrong identity: the other machine is left alone."""
    world = lively(14)
    world.run(6.0)
    world.fencer.devices["bmc-h1"].acts_on = "h2"
    world.cut("h1", storage=True)
    world.run(30.0)
    assert world.hosts["h2"].boots == 1
    assert world.running("g1") == ["h1"]
    assert world.running("g4") == ["h2"]


def test_restored_store_and_a_host_that_comes_back_with_a_newer_boot() -> None:
    """The copy knows boot 1; the guest runs on boot 2 of that host. The proof that boot 1 is over frees nothing."""
    world = World(21, guests={"h1": ("g1",)}, memory_mib=2048).begin()
    backup = world.store.copy()
    world.hosts["h1"].reboot()
    for name in ("h2", "h3"):
        world.hosts[name].start_faults.extend(["fail"] * 9)
    assert world.run(60.0, lambda: world.running("g1") == ["h1"])
    world.run(3.0)
    assert world.hosts["h1"].boot_id == "h1-b2"
    world.cut("h1")
    for name in ("h2", "h3"):
        world.hosts[name].start_faults.clear()
    world.restore_store(backup, 0.5)
    world.run(8.0)
    assert world.store.cluster.restored
    assert world.ask(AskResume(id="r", by="ops", reason="looked over")).accepted
    world.run(5.0)
    world.mend("h1")
    world.run(20.0)
    assert world.running("g1") == ["h1"]
    all_run_once(world)


def test_a_host_whose_libvirt_is_dead_is_not_tried_again_and_again() -> None:
    """Its start tickets cannot succeed: the guest waits, saying so, and starts when libvirt answers again."""
    world = lively(22)
    for name in ("h2", "h3"):
        world.hosts[name].set_libvirtd("down")
    world.run(1.0)
    world.power_off("h1")
    world.run(20.0)
    assert "libvirt" in world.guest("g1").reason
    assert world.guest("g1").generation < 5
    for name in ("h2", "h3"):
        world.hosts[name].set_libvirtd("up")
    world.run(20.0)
    assert all(len(world.running(guest)) == 1 for guest in ("g1", "g2", "g3"))


def test_a_failed_start_is_tried_again_on_the_only_host_that_is_left() -> None:
    """Where one start failed and no other host can take it, that host is tried again, after a while."""
    world = lively(23, guests={"h1": ("g1",)}, memory_mib=2048)
    world.cut("h3", management=False, storage=True)  # it does not see the storage: not eligible
    world.hosts["h2"].start_faults.append("fail")
    world.power_off("h1")
    world.run(30.0)
    assert world.running("g1") == ["h2"]


@pytest.mark.parametrize(
    ("how", "phase"), [("crashed", GuestPhase.RUNNING), ("destroyed", GuestPhase.STOPPED)]
)
def test_a_guest_that_ended_before_its_start_was_answered_is_missed(how: str, phase: GuestPhase) -> None:
    """Its end was reported before the start's own answer and is never reported again: its host is asked."""
    world = lively(24, guests={"h1": ("g1",)})
    world.power_off("h1")
    assert world.run(20.0, lambda: bool(world.running("g1")))
    (name,) = world.running("g1")
    world.run(0.05)
    assert world.hosts[name].end("g1", how)
    world.run(25.0)
    assert world.guest("g1").phase is phase
    assert len(world.running("g1")) == (phase is GuestPhase.RUNNING)


def test_an_alert_of_a_failed_fencing_ends_when_the_host_answers_again() -> None:
    """Silent, and its BMC does not obey: told as not provable. Its links heal: nothing is left to tell."""
    world = lively(25)
    for device in world.fencer.devices.values():
        device.fault = "dead" if device.host == "h1" else ""
    world.cut("h1", storage=True)
    assert world.run(120.0, lambda: "host/h1/fence-failed" in world.store.alerts)
    world.mend("h1")
    world.run(20.0)
    assert world.host("h1").phase is HostPhase.ONLINE
    assert [key for key in world.store.alerts if key.startswith("host/h1/")] == []
    all_run_once(world)


def test_a_fence_that_a_person_asked_for_does_not_come_true_hours_later() -> None:
    """The BMC of a living host does not obey: the fence ends as failed, and repairing the BMC switches nothing off."""
    world = lively(26)
    for device in world.fencer.devices.values():
        device.fault = "dead"
    assert world.ask(AskFence(id="f", by="ops", host="h1", reason="to repair it")).accepted
    world.run(60.0)
    assert [op.state for op in world.store.operations.values() if op.kind == "fence"] == ["failed"]
    for device in world.fencer.devices.values():
        device.fault = ""
    world.run(120.0)
    assert world.host("h1").phase is HostPhase.ONLINE
    assert world.host("h1").boot_id == "h1-b1"
    all_run_once(world)


def test_a_store_that_was_put_back_by_command_asks_every_host_before_anything_is_done() -> None:
    """No agent need know better: the operator said that the store is a backup, so every guest is in doubt at once."""
    world = lively(26, guests={"h1": ("g1",), "h2": ("g2",)})
    backup = world.store.copy()
    pause = Pause(reason="the store was restored", by="ops")
    backup.cluster = changed(backup.cluster, restored="restored by ops: ctl burnt", pause=pause)
    world.run(2.0)
    world.cut("h2")
    world.restore_store(backup, 0.5)
    assert world.run(5.0, lambda: world.coordinator.alive)
    assert {place.host for place in world.guest("g1").may_run_on} == {"h1", "h2", "h3"}
    assert "cluster/restored" in world.store.alerts
    world.run(30.0)
    assert [place.host for place in world.guest("g1").may_run_on] == [
        "h1",
        "h2",
    ]  # h2 is silent: nobody is sure
    assert world.guest("g1").phase is GuestPhase.PROTECTING
    assert world.truth.fenced["h2"] == 0
    world.mend("h2")
    world.run(20.0)
    assert [world.guest(guest).phase for guest in ("g1", "g2")] == [GuestPhase.RUNNING] * 2
    assert world.ask(AskResume(id="r", by="ops", reason="looked over")).accepted
    assert "cluster/restored" not in world.store.alerts
    world.power_off("h1")
    world.run(20.0)
    all_run_once(world)


def test_a_host_that_falls_silent_while_it_returns_is_cleaned_before_it_counts() -> None:
    """Its silence does not spare it: the list, its testimony and the cleaning are still owed when it is heard again."""
    world = lively(31)
    world.power_off("h1")
    assert world.run(30.0, lambda: world.running("g1") not in ([], ["h1"]))
    world.hosts["h1"].set_libvirtd("down")
    world.power_on("h1")
    assert world.run(20.0, lambda: world.host("h1").phase is HostPhase.RETURNING)
    world.cut("h1")
    assert world.run(20.0, lambda: world.host("h1").phase is not HostPhase.RETURNING)
    world.mend("h1")
    assert world.run(20.0, lambda: world.host("h1").phase is HostPhase.ONLINE)
    assert world.host("h1").protected_version == world.store.cluster.protected_version


def test_a_second_level_that_shows_another_machine_is_not_switched() -> None:
    """What the outlets showed is remembered while the BMC is tried in vain: the other machine keeps its power."""
    world = lively(41, pdu=("h1",))
    world.run(6.0)
    world.fencer.devices["bmc-h1"].fault = "dead"
    world.fencer.devices["pdu-b-h1"].acts_on = "h2"
    world.cut("h1", storage=True)
    world.run(30.0)
    assert world.hosts["h2"].outlets_on == [True, True]
    assert world.running("g1") == ["h1"]


def test_a_persons_fence_is_not_believed_by_a_coordinator_that_nobody_reaches() -> None:
    """Its device lies, and the coordinator is cut off from all who could tell: it waits for a witness."""
    world = lively(42)
    world.run(6.0)
    world.fencer.devices["bmc-h1"].fault = "says_off"
    world.cut_coordinator(bmcs=False)
    world.run(3.0)
    assert world.ask(AskFence(id="f", by="ops", host="h1", reason="it acts up")).accepted
    world.run(15.0)
    assert world.host("h1").phase is not HostPhase.FENCED
    world.mend_coordinator()
    world.run(20.0)
    assert world.running("g1") == ["h1"]
    assert world.host("h1").phase is HostPhase.ONLINE
    assert set(world.store.alerts) <= {"host/h1/fence-lies"}, "what it was held for is over"


def test_a_host_that_may_hibernate_is_not_taken_for_dead() -> None:
    """Off is not over where an image may be thawed (rule 5): its guests wait, and go on where they were."""
    world = lively(43)
    world.hosts["h1"].hibernation_masked = False
    world.hosts["h1"].agent.look_again()
    world.run(2.0)
    world.hosts["h1"].hibernate()
    world.run(30.0)
    assert world.running("g1") == []
    assert world.host("h1").phase is not HostPhase.FENCED
    assert "hibernation is not masked" in world.host("h1").reason
    world.power_on("h1")
    world.run(20.0)
    assert world.running("g1") == ["h1"]
    assert world.hosts["h1"].boot_id == "h1-b1"


def test_hibernation_that_is_masked_does_not_happen() -> None:
    world = lively(44)
    world.hosts["h1"].hibernate()
    world.run(10.0)
    assert world.running("g1") == ["h1"]
    assert world.host("h1").phase is HostPhase.ONLINE


def test_an_agent_that_lost_its_memory_cannot_vouch_for_an_older_store() -> None:
    """Whoever knows better is cut off: with one host dead and one that has forgotten, nothing is started."""
    world = lively(45, guests={"h3": ("g1",)}, power_on=False)
    backup = world.store.copy()
    world.power_off("h3")
    assert world.run(20.0, lambda: bool(world.running("g1")))
    (holder,) = world.running("g1")
    world.run(3.0)
    (other,) = {"h1", "h2"} - {holder}
    world.hosts[other].agent.lose_state()
    world.cut(holder)
    world.restore_store(backup, 0.3)
    world.run(0.5)
    world.hosts[other].agent.start()
    world.run(20.0)
    assert world.running("g1") == [holder]
    assert world.guest("g1").phase is not GuestPhase.STARTING
    world.mend(holder)
    world.run(10.0)
    assert world.store.cluster.restored


def test_a_guest_that_is_stopped_waits_no_longer() -> None:
    """The alert that it fits nowhere ends when nobody wants it any more."""
    world = lively(
        46, memory_mib=3 * 1024, guests={"h1": ("g1", "g2"), "h2": ("g3", "g4"), "h3": ("g5", "g6")}
    )
    world.power_off("h1")
    assert world.run(30.0, lambda: "guest/g1/waiting" in world.store.alerts)
    assert world.ask(AskStop(id="s", by="ops", guests=("g1", "g2"))).accepted
    assert [key for key in world.store.alerts if key.startswith("guest/")] == []


def test_a_quiet_old_leader_is_stopped_by_the_store() -> None:
    """A process that was frozen while another one took over: its first write is refused, and it ends."""
    world = lively(47)
    old = world.coordinator
    old.freeze(5.0)
    world.replace_coordinator()
    world.run(30.0)
    assert not old.alive
    assert world.said("a coordinator of an older term ends")
    world.power_off("h1")
    world.run(20.0)
    all_run_once(world)


def test_a_store_that_fails_for_a_while_stops_everything_and_loses_nothing() -> None:
    """Nothing is decided while nothing can be written; what was asked meanwhile is decided afterwards."""
    world = lively(48)
    world.store.trouble = "fails"
    world.power_off("h1")
    world.run(5.0)
    revision = world.store.revision
    world.run(2.0)
    assert world.store.revision == revision
    world.store.trouble = ""
    world.run(30.0)
    all_run_once(world)


@pytest.mark.parametrize("seconds", [2.0, 12.0])
def test_a_person_is_not_believed_while_the_coordinator_itself_stood_still(seconds: float) -> None:
    """Its store failed, and the first thing it meets is somebody's word that a host is off; beats lie behind it."""
    world = lively(15)
    world.run(6.0)
    world.store.trouble = "fails"
    world.coordinator.submit(AskLabel(id="l", by="ops", kind="host", name="h3", labels={"a": "b"}))
    world.coordinator.submit(AskConfirmDown(id="c", by="ops", host="h1", reason="I stand beside it"))

    def mend() -> None:
        world.store.trouble = ""

    world.clock.after(seconds, mend)
    world.run(seconds + 3.0)
    reply = world.coordinator.replies.get("c")
    assert (
        reply is None or not reply.accepted
    )  # it ends where its store fails for too long, and was never asked then
    world.run(20.0)
    all_run_once(world)
    assert world.truth.starts["g1"] == 1
