"""The ladder: levels, retries, what is believed, and what is not."""

from typing import Any

import pytest

from dr.core import fencing
from dr.core.detector import may_thaw
from dr.model.base import changed
from dr.model.commands import Answer, Outcome, Probe
from dr.model.effects import Effect, Fence, Look, PowerOn, ReadPower, Send
from dr.model.events import (
    Answered,
    AskConfirmDown,
    AskFenceTest,
    Connected,
    FenceEnded,
    Heard,
    LookEnded,
    PowerOnEnded,
    PowerSeen,
    Started,
    Tick,
)
from dr.model.evidence import Power, PowerReport
from dr.model.operations import OperationState
from dr.model.policy import FenceLevel, HostPolicy, Limits
from dr.model.records import Condition, GuestPhase, HostPhase, Pause
from dr.model.settings import Settings
from dr.model.wire import PROTOCOL, Hello, Memory
from tests.core.build import Bench, domain, facts, guest, host, levels, reading, report


def of(kind: type, effects: list[Effect]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def answer_round(
    bench: Bench, effects: list[Effect], *, heard: bool = False, power: Power = Power.ON
) -> list[Effect]:
    """Everyone that was asked about a silent host answers."""
    after: list[Effect] = []
    for effect in effects:
        bench.hear("h2", "h3")
        if isinstance(effect, Send) and isinstance(effect.body, Probe):
            answered = dict.fromkeys(effect.body.addresses, heard)
            result = Answer(outcome=Outcome.DONE, answered=answered)
            after += bench.send(
                Answered(host=effect.host, session=effect.session, effect=effect.id, answer=result)
            )
        elif isinstance(effect, Look):
            after += bench.send(
                LookEnded(effect=effect.id, host=effect.host, answered=dict.fromkeys(effect.addresses, heard))
            )
        elif isinstance(effect, ReadPower):
            reports = tuple(
                report(*(reading(device.name, power) for device in level.devices), level=number)
                for number, level in enumerate(effect.levels)
            )
            after += bench.send(PowerSeen(effect=effect.id, host=effect.host, reports=reports))
    return after


def silent(*h1: FenceLevel, **fields: Any) -> tuple[Bench, list[Effect]]:
    """h1 with a guest is silent, everyone has said so: it is being fenced."""
    bench = Bench(h1=h1 or levels("h1"), **fields).put(guest("g1", "h1"))
    bench.silence("h1", 3.0)
    return bench, answer_round(bench, bench.send(Tick()))


def ended(bench: Bench, fence: Fence, *said: PowerReport) -> list[Effect]:
    result = said[0] if said else report(*(reading(d.name) for d in fence.devices.devices), level=fence.level)
    bench.hear("h2", "h3")
    return bench.send(FenceEnded(effect=fence.id, host=fence.host, report=result))


def next_attempt(bench: Bench, after_s: float) -> list[Effect]:
    """Time goes by, evidence is renewed if asked for."""
    bench.now += after_s
    bench.hear("h2", "h3")
    effects = bench.send(Tick())
    return effects + answer_round(bench, effects)


# ---- whether


def test_fenced_then_restarted() -> None:
    bench, effects = silent()
    (fence,) = of(Fence, effects)
    assert (fence.host, fence.boot_id, fence.level) == ("h1", "h1-b1", 0)
    looks = ended(bench, fence)
    assert bench.host("h1").phase is HostPhase.FENCING, "a device's word is not enough"
    answer_round(bench, looks)
    assert bench.host("h1").phase is HostPhase.FENCED
    assert bench.guest("g1").phase is GuestPhase.STARTING
    assert bench.host("h1").fenced_at == (bench.now,)


def test_every_reason_against_is_named() -> None:
    bench = Bench().put(guest("g1", "h1"))
    assert fencing.why_not_fence(bench.draft(), bench.host("h1")) == []
    bench.state.cluster = changed(bench.state.cluster, pause=Pause(reason="work", by="ops"), restored="older")
    policy = HostPolicy(name="h1", coordinator_here=True)
    bench.state.settings = Settings(hosts={"h1": policy}, auto_fence=False)
    for name in ("h2", "h3"):
        bench.put(host(name, HostPhase.SUSPECT))
    text = "; ".join(fencing.why_not_fence(bench.draft(), bench.host("h1")))
    for word in (
        "paused",
        "older copy",
        "off in the configuration",
        "coordinator runs on it",
        "no fencing",
        "half",
    ):
        assert word in text


def test_never_its_own_host() -> None:
    bench = Bench().put(guest("g1", "h1"))
    bench.state.own_boot = "h1-b1"
    assert any("its own host" in why for why in fencing.why_not_fence(bench.draft(), bench.host("h1")))


@pytest.mark.parametrize(
    "fields",
    [
        {"phase": GuestPhase.ERROR},
        {"desired": "stopped", "phase": GuestPhase.STOPPED},
        {"blockers": ("It has a local disk.",)},
        {"definition": 0},
        {"needs": changed(guest("x").needs, memory_mib=99999)},
    ],
)
def test_only_to_recover_somebody(fields: dict[str, Any]) -> None:
    """A guest in error, not wanted, not startable elsewhere, or fitting nowhere is no reason to fence."""
    from dr.model.records import Desired

    if "desired" in fields:
        fields = fields | {"desired": Desired.STOPPED}
    bench = Bench().put(changed(guest("g1", "h1"), **fields))
    why = fencing.why_not_fence(bench.draft(), bench.host("h1"))
    assert why == ["no protected guest could be recovered by it"]


def test_bystanders_are_listed() -> None:
    bench = Bench().put(guest("g1", "h1"))
    bench.see("h1", domain("test1"), domain("build7"))
    bench.silence("h1", 3.0)
    answer_round(bench, bench.send(Tick()))
    assert "this also ends 2 unprotected guests: build7, test1" in bench.host("h1").reason


# ---- what is believed


def test_off_already_is_a_success() -> None:
    """Power reads off before anything was done: that is the proof, and nothing is fenced."""
    bench = Bench().put(guest("g1", "h1"))
    bench.silence("h1", 3.0)
    effects = answer_round(bench, bench.send(Tick()), power=Power.OFF)
    assert of(Fence, effects) == []
    assert bench.host("h1").phase is HostPhase.FENCED
    assert bench.host("h1").fenced_at == ()
    assert bench.guest("g1").phase is GuestPhase.STARTING


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (report(reading("bmc-h1", Power.ON)), "says on"),
        (report(reading("bmc-h1", Power.UNKNOWN, reason="timeout")), "says unknown (timeout)"),
        (report(reading("bmc-h1", guid="other")), "not the device that was proven"),
        (report(reading("bmc-h1", fingerprint="other")), "other parameters"),
        (report(), "was not read"),
        (PowerReport(level=0, reason="the agent crashed"), "the agent crashed"),
    ],
)
def test_what_is_not_believed(said: PowerReport, word: str) -> None:
    bench, effects = silent()
    (fence,) = of(Fence, effects)
    again = answer_round(bench, ended(bench, fence, said))
    assert bench.host("h1").phase is HostPhase.FENCING
    assert bench.guest("g1").may_run_on, "its place stays"
    assert word in bench.host("h1").reason
    assert of(Fence, again) == [] or of(Fence, again)[0].level == 0


def test_an_answer_after_the_fence_voids_it() -> None:
    """The device says off and a peer hears the host."""
    bench, effects = silent()
    (fence,) = of(Fence, effects)
    answer_round(bench, ended(bench, fence), heard=True)
    assert bench.host("h1").phase is HostPhase.ONLINE
    assert bench.guest("g1").may_run_on
    assert "host/h1/fence-lies" in bench.state.alerts


def test_a_fresh_beat_after_the_fence_voids_it() -> None:
    """Only an answer to a question asked afterwards counts, not a beat that was still in a queue."""
    for fresh, phase in ((-1.0, HostPhase.FENCED), (+0.1, HostPhase.ONLINE)):
        bench, effects = silent()
        bench.look("h1", session="s-h1", acked_epoch=3)
        (fence,) = of(Fence, effects)
        looks = ended(bench, fence)
        bench.now += 0.2
        bench.send(Heard(host="h1", session="s-h1", fresh=bench.now - 0.2 + fresh))
        answer_round(bench, looks)
        assert bench.host("h1").phase is phase


def test_no_witness_after_the_fence_is_no_proof() -> None:
    bench, effects = silent()
    (fence,) = of(Fence, effects)
    looks = ended(bench, fence)
    for effect in looks:
        if isinstance(effect, Send):
            bench.send(
                Answered(
                    host=effect.host,
                    session=effect.session,
                    effect=effect.id,
                    answer=Answer(outcome=Outcome.UNKNOWN),
                )
            )
        elif isinstance(effect, Look):
            bench.send(LookEnded(effect=effect.id, host="h1", answered={"10.0.0.1": False}))
    assert bench.host("h1").phase is HostPhase.FENCING
    assert bench.guest("g1").may_run_on


def test_redundant_power_needs_every_device() -> None:
    bench, effects = silent(*levels("h1", ("psu-a", "psu-b")))
    (fence,) = of(Fence, effects)
    assert [device.name for device in fence.devices.devices] == ["psu-a", "psu-b"]
    ended(bench, fence, report(reading("psu-a"), reading("psu-b", Power.ON)))
    assert bench.host("h1").phase is HostPhase.FENCING
    assert "psu-b says on" in bench.host("h1").reason


def test_late_end_after_it_no_longer_mattered() -> None:
    bench, effects = silent()
    (fence,) = of(Fence, effects)
    bench.put(changed(bench.host("h1"), phase=HostPhase.ONLINE, fencing=None))
    ended(bench, fence)
    assert bench.host("h1").phase is HostPhase.ONLINE
    assert bench.guest("g1").may_run_on


@pytest.mark.parametrize("off", [True, False])
def test_a_late_fencing_that_met_the_next_boot_is_made_good(off: bool) -> None:
    """The host had come back by itself: it is switched on again as if that boot had been condemned."""
    bench, effects = silent()
    (fence,) = of(Fence, effects)
    hello(bench, "h1", "h1-b2")
    ended(bench, fence, report(reading("bmc-h1", Power.OFF if off else Power.ON)))
    assert bench.host("h1").phase is HostPhase.RETURNING
    assert bench.host("h1").power_on == off
    bench.send(Heard(host="h1", session="h1-h1-b2", fresh=bench.now))
    assert not bench.host("h1").power_on, "it lives: that device lied"


# ---- the ladder


def test_levels_in_order_with_retries_then_backoff() -> None:
    """Two attempts at each level, then all over again after a wait that doubles."""
    bench, effects = silent(*levels("h1", ("bmc",), ("pdu",)))
    tried: list[int] = []
    at: list[float] = []
    waits = 0.0
    while len(tried) < 10:
        fences = of(Fence, effects)
        if fences:
            tried.append(fences[0].level)
            at.append(bench.now)
            effects = ended(bench, fences[0], PowerReport(level=fences[0].level, reason="no answer"))
            effects += answer_round(bench, effects)
        else:
            effects = next_attempt(bench, 0.5)
            waits += 0.5
        assert waits < 200
    assert tried == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
    rounds = [round(at[n] - at[n - 1]) for n in (4, 8)]
    assert 4 <= rounds[0] <= 7
    assert 9 <= rounds[1] <= 12
    assert "dr host confirm-down h1" in bench.state.alerts["host/h1/fence-failed"].todo


def test_not_retried_once_somebody_hears_it() -> None:
    bench, effects = silent()
    (fence,) = of(Fence, effects)
    effects = [fence]
    for _ in range(60):
        for again in of(Fence, effects):
            bench.now += 0.5
            effects = [e for e in effects if e is not again] + ended(
                bench, again, PowerReport(level=0, reason="no answer")
            )
        bench.now += 0.5
        bench.hear("h2", "h3")
        effects = effects + bench.send(Tick())
        effects = of(Fence, effects) + answer_round(bench, effects, heard=True)
    assert Condition.AGENT_LOST in bench.host("h1").conditions


# ---- afterwards


def hello(bench: Bench, name: str, boot: str) -> list[Effect]:
    message = Hello(
        protocol=PROTOCOL,
        version="0",
        cluster="c",
        boot_id=boot,
        nonce="n",
        memory=Memory(epoch=3, leader_id="L"),
        facts=changed(facts(name), boot_id=boot),
        guests=(),
    )
    return bench.send(Connected(host=name, session=f"{name}-{boot}", hello=message))


def fenced(**fields: Any) -> Bench:
    bench, effects = silent(**fields)
    (fence,) = of(Fence, effects)
    answer_round(bench, ended(bench, fence))
    return bench


def test_power_on_by_policy_after_the_failover() -> None:
    bench = fenced()
    assert of(PowerOn, bench.send(Tick())) == [], "its guests come first"
    starting = next(key for key, pending in bench.state.pending.items() if pending.kind == "start")
    where = bench.guest("g1").may_run_on[0].host
    done = Answered(host=where, session=f"s-{where}", effect=starting, answer=Answer(outcome=Outcome.DONE))
    bench.hear("h2", "h3")
    effects = bench.send(done) + bench.send(Tick(), after=0.1)
    (on,) = of(PowerOn, effects)
    bench.send(PowerOnEnded(effect=on.id, host="h1", ok=True))
    assert of(PowerOn, bench.send(Tick(), after=0.1)) == []
    hello(bench, "h1", "h1-b2")
    assert bench.host("h1").phase is HostPhase.RETURNING


def test_no_power_on_against_policy() -> None:
    bench, effects = silent()
    bench.state.settings.hosts["h1"] = changed(bench.state.settings.hosts["h1"], power_on_after_fence=False)
    (fence,) = of(Fence, effects)
    answer_round(bench, ended(bench, fence))
    assert not bench.host("h1").power_on


def test_fenced_too_often_is_quarantined() -> None:
    bench, effects = silent(limits=Limits(fences_per_window=3))
    bench.put(changed(bench.host("h1"), fenced_at=(bench.now - 900, bench.now - 800)))
    (fence,) = of(Fence, effects)
    answer_round(bench, ended(bench, fence))
    assert Condition.QUARANTINED in bench.host("h1").conditions
    assert "clear-quarantine" in bench.state.alerts["host/h1/quarantined"].todo
    for _ in range(5):
        assert of(PowerOn, bench.send(Tick(), after=1.0)) == []


def test_proven_dead_and_alive_is_contradicted() -> None:
    """The same boot answers a question asked after the proof: what runs there goes back into its set."""
    bench = fenced()
    died = bench.now
    message = Hello(
        protocol=PROTOCOL,
        version="0",
        cluster="c",
        boot_id="h1-b1",
        nonce="n",
        memory=Memory(epoch=3, leader_id="L"),
        facts=facts("h1"),
        guests=(domain("g1"),),
    )
    bench.now += 1.0
    bench.send(Connected(host="h1", session="again", hello=message))
    bench.send(Heard(host="h1", session="again", fresh=died - 0.5))
    assert bench.host("h1").phase is HostPhase.FENCED, "an old beat proves nothing"
    bench.send(Heard(host="h1", session="again", fresh=bench.now), after=0.1)
    assert bench.host("h1").phase is HostPhase.RETURNING
    assert "h1" in {place.host for place in bench.guest("g1").may_run_on}
    assert "host/h1/proof-void" in bench.state.alerts


def test_a_test_through_another_hosts_device_switches_nothing() -> None:
    """The cable of h1's BMC now leads to the BMC that was proven to be h2's: h2 is not the one to be power-cycled."""
    bench = Bench()
    bench.send(AskFenceTest(id="a", by="ops", host="h1"))
    (read,) = [effect for effect in bench.effects if isinstance(effect, ReadPower)]
    swapped = report(reading("bmc-h1", Power.ON, guid="guid-bmc-h2"))
    bench.send(PowerSeen(effect=read.id, host="h1", reports=(swapped,)))
    bench.send(Tick())
    assert not [effect for effect in bench.effects if isinstance(effect, Fence)]
    assert "proven to be of h2" in bench.host("h1").reason


def test_who_is_known_only_from_a_restored_store_is_not_proven_dead_by_being_off() -> None:
    bench = Bench()
    bench.state.cluster = changed(bench.state.cluster, restored="restored by ops")
    bench.send(Started(leader_id="L2", machine="m", cluster="c"))
    assert all("older copy" in may_thaw(each) for each in bench.draft().hosts())


def cut_short(**fields: Any) -> Bench:
    """The coordinator dies while h1 is being switched off, and starts again."""
    bench, _ = silent()
    bench.put(changed(bench.host("h1"), **fields))
    bench.state.pending.clear()  # it was in its memory
    bench.send(Started(leader_id="L2", machine="m", cluster="c"))
    for name in ("h2", "h3"):
        bench.look(name, acked_epoch=bench.state.cluster.epoch)
    assert bench.host("h1").phase is HostPhase.SUSPECT
    bench.now += 6.0
    bench.hear("h2", "h3")
    return bench


def test_a_host_that_a_fencing_cut_short_left_off_is_switched_on_again() -> None:
    """Found off by the next leader: that was our doing, so policy switches it on as if its end had been seen."""
    bench = cut_short()
    effects = answer_round(bench, bench.send(Tick()), power=Power.OFF)
    assert bench.host("h1").phase is HostPhase.FENCED
    assert bench.host("h1").power_on
    assert not of(PowerOn, effects), "its guests come first"
    assert bench.host("h1").fenced_at == (bench.now,), "it counts for the limit of fencings too"
    bench.send(Started(leader_id="L3", machine="m", cluster="c"), after=1.0)
    bench.look("h2", acked_epoch=bench.state.cluster.epoch)
    bench.look("h3", acked_epoch=0)  # so it matters that h1 is dead
    bench.now += 6.0
    bench.hear("h2", "h3")
    answer_round(bench, bench.send(Tick()), power=Power.OFF)
    assert bench.host("h1").dead_at == bench.now, "proven anew"
    assert len(bench.host("h1").fenced_at) == 1, "that it is still off is no other one"


def test_whom_a_person_calls_off_nobody_switches_on() -> None:
    bench = cut_short()
    answer_round(bench, [e for e in bench.send(Tick()) if not isinstance(e, ReadPower)])
    bench.send(Tick(), after=0.9)
    bench.now += 0.7  # its devices do not answer
    bench.hear("h2", "h3")
    reply = bench.send(AskConfirmDown(id="1", by="ops", host="h1", reason="I am inside of it"))
    assert bench.host("h1").phase is HostPhase.FENCED, reply
    assert not bench.host("h1").power_on


def test_a_host_that_lives_is_forgotten_to_be_switched_on() -> None:
    bench = cut_short()
    bench.look("h1", session="s-h1", acked_epoch=bench.state.cluster.epoch)
    bench.send(Heard(host="h1", session="s-h1", fresh=bench.now))
    assert bench.host("h1").phase is HostPhase.ONLINE
    assert not bench.host("h1").power_on


def test_a_test_goes_no_further_where_guests_run_by_now() -> None:
    """It is back after its first level, and somebody started a guest there: the next level would cut its power."""
    bench = Bench()
    bench.state.identities.clear()
    bench.send(AskFenceTest(id="1", by="ops", host="h1"))
    bench.put(changed(bench.host("h1"), phase=HostPhase.ONLINE, fencing=None))
    bench.look("h1", guests={"other": domain("other")})
    effects = bench.send(Tick())
    assert bench.host("h1").phase is HostPhase.ONLINE
    assert not of(Fence, effects)
    (operation,) = bench.state.operations.values()
    assert operation.state is OperationState.FAILED
    assert "guests run on it" in operation.steps[-1].text


def test_a_host_that_its_test_left_off_is_switched_on_by_the_next_leader() -> None:
    """Its devices are unproven, so that off proves nothing and it would stay suspect, and off, for ever."""
    bench = Bench()
    bench.state.identities.clear()
    bench.send(AskFenceTest(id="1", by="ops", host="h1"))
    assert bench.host("h1").phase is HostPhase.FENCING
    bench.state.pending.clear()  # the coordinator dies
    effects = bench.send(Started(leader_id="L2", machine="m", cluster="c"))
    assert [effect.host for effect in of(PowerOn, effects)] == ["h1"]
