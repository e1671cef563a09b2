"""What people ask: accepted with something to watch, or refused with every blocker at once."""

from typing import Any

import pytest

from dr.core.volatile import LookSeen, Pending
from dr.model.base import changed
from dr.model.commands import Answer, Outcome
from dr.model.effects import DropSession, Fence, Look, ReadPower, Reply, Send
from dr.model.events import (
    Admitted,
    Answered,
    AskClearQuarantine,
    AskConfirmDown,
    AskFence,
    AskFenceTest,
    AskLabel,
    AskPause,
    AskProtect,
    AskRemoveHost,
    AskResume,
    AskStart,
    AskStop,
    AskUnprotect,
    Disconnected,
    LookEnded,
    OperatorAsk,
    PowerSeen,
    Tick,
)
from dr.model.evidence import Power
from dr.model.facts import DomainState
from dr.model.policy import HostPolicy
from dr.model.records import Condition, Desired, GuestPhase, HostPhase, Pause, Place
from tests.core.build import Bench, domain, guest, host, reading, report


def ask(bench: Bench, what: OperatorAsk) -> Reply:
    (reply,) = (effect for effect in bench.send(what) if isinstance(effect, Reply))
    assert reply.id == what.id
    assert reply.accepted != bool(reply.blockers)
    return reply


def decided(bench: Bench) -> tuple[object, ...]:
    hosts = {h.name: (h.phase, h.boot_id, h.fencing, h.labels) for h in bench.state.hosts.values()}
    return hosts, dict(bench.state.guests), bench.state.cluster, dict(bench.state.operations)


def refused(bench: Bench, what: OperatorAsk, *words: str, missing: bool = False) -> None:
    """Refused with all of these, and nothing but the audit line was written."""
    before = decided(bench)
    reply = ask(bench, what)
    text = "; ".join(reply.blockers)
    assert not reply.accepted
    assert reply.missing == missing
    for word in words:
        assert word in text
    assert decided(bench) == before


def base(ask_type: type, /, **fields: Any) -> Any:
    return ask_type(id="a", by="ann", **fields)


# ---- guests


def test_protect_starts_in_every_set() -> None:
    """Rule 4: it may run anywhere until every host has said no."""
    bench = Bench()
    bench.see("h1", domain("g1"))
    reply = ask(bench, base(AskProtect, guests=("g1",), priority=7))
    assert len(reply.operations) == 1
    made = bench.guest("g1")
    assert made.phase is GuestPhase.PROTECTING
    assert {place.host for place in made.may_run_on} == {"h1", "h2", "h3"}
    assert made.policy.priority == 7
    assert made.generation > 0


def test_protect_refusals() -> None:
    bench = Bench().put(guest("g1", "h1"))
    bench.see("h1", domain("two"), domain("off", DomainState.SHUTOFF), changed(domain("x1"), name="same"))
    bench.see("h2", domain("two"), changed(domain("x2"), name="same"))
    refused(bench, base(AskProtect, guests=("g1",)), "protected already")
    refused(bench, base(AskProtect, guests=("nobody",)), "no such guest: nobody", missing=True)
    refused(
        bench,
        base(AskProtect, guests=("two", "off", "same")),
        "two runs on h1 and h2 at once",
        "off does not run anywhere",
        "same is the name of 2 different guests",
    )


def test_unprotect() -> None:
    bench = Bench().put(guest("g1", "h1"))
    version = bench.state.cluster.protected_version
    assert ask(bench, base(AskUnprotect, guests=("g1",))).accepted
    assert bench.state.guests == {}
    assert bench.state.cluster.protected_version > version
    assert bench.state.cluster.generation_floor >= 1, "a later protection starts above old seals"
    refused(bench, base(AskUnprotect, guests=("g1",)), "no such protected guest", missing=True)


def test_unprotect_waits_for_tickets() -> None:
    bench = Bench().put(guest("g1", "h1"))
    bench.state.pending["x"] = Pending(kind="stop", host="h1", guest="g1", deadline=bench.now + 9)
    refused(bench, base(AskUnprotect, guests=("g1",)), "a stop of g1 has not ended")
    # A leader that has just begun does not know of the tickets of the one before it.
    bench = Bench().put(guest("g1", "h1", phase=GuestPhase.STOPPING))
    refused(bench, base(AskUnprotect, guests=("g1",)), "a stop of g1 has not ended")
    bench = Bench().put(guest("g1", "h1", phase=GuestPhase.STARTING))
    assert not bench.state.pending
    reply = ask(bench, base(AskUnprotect, guests=("g1",)))
    assert (reply.accepted, reply.blockers) == (False, ("a start of g1 has not ended",))
    bench.send(Tick())
    refused(bench, base(AskUnprotect, guests=("g1",)), "whether g1 starts or runs is unknown")


def test_start() -> None:
    bench = Bench().put(guest("g1", phase=GuestPhase.STOPPED, desired=Desired.STOPPED, restarts=(1.0,)))
    reply = ask(bench, base(AskStart, guests=("g1",)))
    assert reply.operations
    assert bench.guest("g1").phase is GuestPhase.STARTING
    assert bench.guest("g1").desired is Desired.RUNNING
    assert bench.guest("g1").restarts == ()
    refused(bench, base(AskStart, guests=("g1",)), "g1 is starting")
    refused(bench, base(AskStart, guests=("nope",)), "no such", missing=True)


def test_stop() -> None:
    bench = Bench().put(guest("g1", "h1"))
    assert ask(bench, base(AskStop, guests=("g1",), mode="destroy")).accepted
    assert bench.guest("g1").phase is GuestPhase.STOPPING
    assert bench.guest("g1").may_run_on, "a stop that was asked for is not a stop that was seen"
    bench = Bench().put(guest("g1", "h1"))
    bench.silence("h1")
    refused(bench, base(AskStop, guests=("g1",)), "g1 is not seen on h1 now")
    bench = Bench().put(guest("g1", phase=GuestPhase.RECOVERING))
    assert ask(bench, base(AskStop, guests=("g1",))).accepted
    assert bench.guest("g1").phase is GuestPhase.STOPPED


# ---- hosts


def test_fence_by_a_person_needs_no_evidence_and_no_guest() -> None:
    bench = Bench()
    reply = ask(bench, base(AskFence, host="h1", reason="it smokes"))
    assert reply.operations
    (read,) = (effect for effect in bench.effects if isinstance(effect, ReadPower))
    bench.send(
        PowerSeen(effect=read.id, host="h1", reports=(report(reading("bmc-h1", Power.ON)),)), after=0.1
    )
    assert any(isinstance(effect, Fence) for effect in bench.effects)
    refused(bench, base(AskFence, host="h1"), "is fencing already")
    refused(bench, base(AskFence, host="h9"), "no such host", missing=True)


def test_fence_by_a_person_rests_on_what_its_devices_say_now() -> None:
    """A BMC at a recycled address is found out before it switches anything; what it said earlier does not count."""
    swapped, proven = reading("bmc-h1", Power.ON, guid="other"), reading("bmc-h1", Power.ON)
    for earlier, now, fenced in ((swapped, proven, True), (proven, swapped, False)):
        bench = Bench()
        bench.look("h1", power=(report(earlier),), power_at=bench.now - 1, round_at=bench.now - 2)
        assert ask(bench, base(AskFence, host="h1")).accepted
        (read,) = (effect for effect in bench.effects if isinstance(effect, ReadPower))
        assert not any(isinstance(effect, Fence) for effect in bench.effects)
        bench.send(PowerSeen(effect=read.id, host="h1", reports=(report(now),)), after=0.1)
        assert any(isinstance(effect, Fence) for effect in bench.effects) is fenced


def test_fence_refusals_come_together() -> None:
    bench = Bench()
    bench.state.settings.hosts["h1"] = HostPolicy(name="h1", coordinator_here=True)
    bench.put(host("h1", HostPhase.JOINING, boot_id=""))
    bench.silence("h1")
    refused(bench, base(AskFence, host="h1"), "its own host", "no fencing configured", "never said hello")


def test_fence_test_only_of_an_empty_online_host() -> None:
    assert ask(Bench(), base(AskFenceTest, host="h1")).operations
    bench = Bench().put(guest("g1", "h1"))
    bench.see("h1", domain("other"))
    refused(bench, base(AskFenceTest, host="h1"), "guests run on it", "g1, other", "1 protected guests")
    bench = Bench().put(host("h1", HostPhase.SUSPECT))
    refused(bench, base(AskFenceTest, host="h1"), "is not online")
    bench = Bench()
    ask(bench, base(AskFenceTest, host="h2"))
    refused(bench, base(AskFenceTest, host="h1"), "h2 is being tested; one at a time")


def dark(**fields: Any) -> Bench:
    """h1 is silent, and everyone has looked."""
    bench = Bench().put(guest("g1", "h1"), host("h1", HostPhase.SUSPECT))
    bench.silence("h1")
    looks = {"h2": LookSeen(witness="h2", asked=bench.now, answered=False)}
    bench.look("h1", looks=looks, round_at=bench.now, judged_at=bench.now, **fields)
    return bench


def test_confirm_down_frees_that_boot() -> None:
    bench = dark()
    assert ask(bench, base(AskConfirmDown, host="h1", reason="I hold its plug")).accepted
    assert bench.host("h1").phase is HostPhase.FENCED
    assert bench.guest("g1").phase is GuestPhase.STARTING


def test_confirm_down_is_refused_at_any_sign_of_life() -> None:
    refused(dark(), base(AskConfirmDown, host="h1"), "a reason is needed")
    refused(dark(), base(AskConfirmDown, host="h1", reason="r", boot_id="older"), "another boot on record")
    bench = dark(session="s", heard=1000.0)
    refused(bench, base(AskConfirmDown, host="h1", reason="r"), "its agent answers")
    bench = dark()
    bench.look("h1", looks={"h2": LookSeen(witness="h2", asked=1.0, answered=True)})
    refused(bench, base(AskConfirmDown, host="h1", reason="r"), "witnesses hear it")
    bench = dark()
    bench.look("h1", looks={})
    refused(bench, base(AskConfirmDown, host="h1", reason="r"), "no witness has looked")
    bench = dark(power=(report(reading("bmc-h1", Power.ON)),), power_at=2000.0)
    refused(bench, base(AskConfirmDown, host="h1", reason="r"), "says that it is on")
    bench = dark()
    bench.state.pending["f"] = Pending(kind="fence", host="h1", deadline=bench.now + 9)
    refused(bench, base(AskConfirmDown, host="h1", reason="r"), "fencing of it is under way")
    bench = dark()
    bench.state.quiet_until = bench.now + 3
    refused(bench, base(AskConfirmDown, host="h1", reason="r"), "has just started")


def test_confirm_down_of_a_host_that_never_came_online() -> None:
    """Before its first hello there is no boot to confirm; after it, witnesses are asked by the ask itself."""
    never = Bench().put(host("h1", HostPhase.JOINING, boot_id=""))
    never.silence("h1")
    refused(never, base(AskConfirmDown, host="h1", reason="r"), "never said hello")
    bench = Bench().put(host("h1", HostPhase.JOINING))
    bench.silence("h1")
    wish = base(AskConfirmDown, host="h1", reason="r")
    refused(bench, wish, "being looked for now")
    for key, pending in list(bench.state.pending.items()):
        if pending.kind == "probe":
            refused(bench, wish, "being looked for now")
            answer = Answer(outcome=Outcome.DONE, answered={"10.0.0.1": False})
            bench.send(Answered(host=pending.host, session=f"s-{pending.host}", effect=key, answer=answer))
        elif pending.kind == "power":
            bench.send(PowerSeen(effect=key, host="h1", reports=()))
        else:
            bench.send(LookEnded(effect=key, host="h1", answered={"10.0.0.1": False}))
    assert ask(bench, wish).accepted
    assert bench.host("h1").phase is HostPhase.FENCED


def test_rule_6_no_removal_while_it_stands_in_any_set() -> None:
    stopped = changed(guest("g1", "h1", GuestPhase.STOPPED), desired=Desired.STOPPED)
    bench = Bench().put(stopped)
    refused(bench, base(AskRemoveHost, host="h1"), "protected guests may run on it: g1")
    bench = Bench().put(host("h1", HostPhase.FENCING))
    refused(bench, base(AskRemoveHost, host="h1"), "being fenced")
    bench = Bench()
    assert ask(bench, base(AskRemoveHost, host="h1")).accepted
    assert "h1" not in bench.state.hosts
    assert any(isinstance(effect, DropSession) and effect.host == "h1" for effect in bench.effects)
    bench.send(Tick())


def test_admit_is_repeatable() -> None:
    bench = Bench()
    assert ask(bench, base(Admitted, host="h9")).accepted
    assert bench.host("h9").phase is HostPhase.JOINING
    before = bench.host("h1")
    assert ask(bench, base(Admitted, host="h1")).accepted
    assert bench.host("h1") == before


def test_clear_quarantine() -> None:
    bench = Bench().put(host("h1", conditions=frozenset({Condition.QUARANTINED}), fenced_at=(1.0, 2.0)))
    assert ask(bench, base(AskClearQuarantine, host="h1")).accepted
    assert Condition.QUARANTINED not in bench.host("h1").conditions
    assert bench.host("h1").fenced_at == ()
    refused(bench, base(AskClearQuarantine, host="h1"), "is not quarantined")


def test_labels() -> None:
    bench = Bench().put(guest("g1", "h1"))
    ask(bench, base(AskLabel, kind="host", name="h1", labels={"rack": "r1", "x": "y"}))
    ask(bench, base(AskLabel, kind="host", name="h1", labels={"x": None}))
    ask(bench, base(AskLabel, kind="guest", name="g1", labels={"tier": "db"}))
    assert bench.host("h1").labels == {"rack": "r1"}
    assert bench.guest("g1").labels == {"tier": "db"}
    refused(bench, base(AskLabel, kind="host", name="h9", labels={}), missing=True)
    refused(bench, base(AskLabel, kind="guest", name="g9", labels={}), missing=True)


# ---- automation


def test_pause_and_resume() -> None:
    bench = Bench().put(guest("g1", phase=GuestPhase.RECOVERING))
    bench.state.cluster = changed(bench.state.cluster, pause=Pause(reason="work", by="ann"))
    bench.send(Tick())
    assert bench.guest("g1").phase is GuestPhase.RECOVERING
    assert "paused (work)" in bench.guest("g1").reason
    assert ask(bench, base(AskResume, reason="done")).accepted
    assert bench.guest("g1").phase is GuestPhase.STARTING
    refused(bench, base(AskResume), "not paused")
    refused(bench, base(AskPause), "a reason is needed")
    assert ask(bench, base(AskPause, reason="again")).accepted
    assert bench.state.cluster.pause is not None


def test_a_start_asked_for_goes_on_in_a_pause() -> None:
    """Pause stops what dr does by itself, not what people ask for."""
    bench = Bench().put(guest("g1", phase=GuestPhase.STOPPED))
    bench.state.cluster = changed(bench.state.cluster, pause=Pause(reason="work", by="ann"))
    ask(bench, base(AskStart, guests=("g1",)))
    assert bench.guest("g1").phase is GuestPhase.STARTING


def test_every_ask_is_audited() -> None:
    bench = Bench()
    draft_notes = []
    from dr.core.decide import decide

    for what in (base(AskFence, host="h9", reason="why not"), base(AskPause, reason="r")):
        draft = decide(bench.state, what, bench.now)
        draft_notes += [note for note in draft.changes().notes if note.kind == "audit"]
    assert [note.by for note in draft_notes] == ["ann", "ann"]
    assert "why not" in draft_notes[0].text


@pytest.mark.parametrize("places", [(), ("h1", "h2")])
def test_error_is_left_by_one_command(places: tuple[str, ...]) -> None:
    """What was given up, or ran twice, goes on by `dr guest start`, still under every guard."""
    record = guest("g1", phase=GuestPhase.ERROR)
    at = tuple(Place(host=name, boot_id=f"{name}-b1", generation=1) for name in places)
    bench = Bench().put(changed(record, may_run_on=at))
    effects = bench.send(base(AskStart, guests=("g1",)))
    assert bench.guest("g1").phase is (GuestPhase.RECOVERING if places else GuestPhase.STARTING)
    if places:
        assert {effect.host for effect in effects if isinstance(effect, Send)} == {"h1", "h2"}, (
            "both are asked"
        )


def test_a_refused_stop_stops_nobody() -> None:
    """One of two guests is not seen: the whole ask is refused, and the other goes on running."""
    bench = Bench().put(guest("g1", "h1"), guest("g2", "h2"))
    bench.silence("h2")
    refused(bench, base(AskStop, guests=("g1", "g2")), "g2 is not seen on h2 now")
    assert bench.guest("g1").phase is GuestPhase.RUNNING


def test_the_same_guest_named_twice_is_stopped_once() -> None:
    bench = Bench().put(guest("g1", "h1"))
    assert ask(bench, base(AskStop, guests=("g1", "g1"))).accepted


def test_confirm_down_of_a_host_that_fell_silent_just_now_looks_for_it_first() -> None:
    """Its agent is restarted, the other hosts are off, and somebody types the wrong name: the host lives."""
    bench = Bench().put(guest("g1", "h1"))
    bench.put(
        *(host(name, HostPhase.FENCED, dead_boot=f"{name}-b1", dead_at=bench.now) for name in ("h2", "h3"))
    )
    for name in ("h2", "h3"):
        bench.silence(name)
    # What was seen of it in an older silence of the same session is no evidence now.
    looks = {"h2": LookSeen(witness="h2", asked=1.0, answered=False)}
    bench.look("h1", looks=looks, round_at=bench.now - 60.0, judged_at=bench.now - 60.0)
    bench.send(Disconnected(host="h1", session="s-h1", goodbye="agent stops: asked to"), after=0.1)
    wish = base(AskConfirmDown, host="h1", reason="r")
    refused(bench, wish, "being looked for now")
    (look,) = (effect for effect in bench.effects if isinstance(effect, Look))
    bench.send(LookEnded(effect=look.id, host="h1", answered={"10.0.0.1": True}), after=0.1)
    refused(bench, wish, "witnesses hear it")
    assert [place.host for place in bench.guest("g1").may_run_on] == ["h1"]
