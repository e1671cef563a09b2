"""Guest policy: desired states in every phase, retries, stops that fail, dependencies, checks."""

from __future__ import annotations

from typing import Any

import pytest

from dr.core import fencing
from dr.model import commands
from dr.model.base import changed
from dr.model.checks import Ping
from dr.model.commands import Answer, Outcome
from dr.model.effects import CheckGuest, Reply, Send
from dr.model.events import (
    Answered,
    AskProtect,
    AskSet,
    AskStart,
    AskStop,
    AskUnprotect,
    OperatorAsk,
    Reported,
    Tick,
)
from dr.model.evidence import Proof, ProofKind
from dr.model.facts import DomainState, Sighting
from dr.model.operations import OperationState
from dr.model.policy import After, GuestPolicy, PolicyChange
from dr.model.records import Desired, GuestPhase, GuestRecord
from tests.core.build import Bench, checked, domain, guest

PING = Ping(address="10.1.0.5")


def ask(bench: Bench, kind: type[Any], *names: str, **fields: Any) -> Reply:
    wanted: OperatorAsk = kind(id="a", by="ann", guests=names or ("g1",), **fields)
    (reply,) = (effect for effect in bench.send(wanted) if isinstance(effect, Reply))
    return reply


def set_(bench: Bench, *names: str, desired: Desired | None = None, **policy: Any) -> Reply:
    return ask(bench, AskSet, *names, desired=desired, policy=PolicyChange(**policy))


def later(bench: Bench, seconds: float) -> None:
    """Time goes by, and every host that has a link is heard all along."""
    bench.now += seconds
    bench.hear(*(name for name in bench.state.hosts if bench.state.views[name].session))
    bench.send(Tick())


def absent(bench: Bench, name: str = "g1") -> tuple[commands.Testimony, ...]:
    return (commands.Testimony(guest=name, sighting=Sighting.ABSENT, sealed=bench.guest(name).generation),)


def end(bench: Bench, kind: str, outcome: Outcome, *, says: bool = True, name: str = "g1") -> str:
    """The ticket's end as its agent tells it, testifying that nothing runs if it `says` so; returns the host."""
    key, pending = next((k, p) for k, p in bench.state.pending.items() if p.kind == kind and p.guest == name)
    if outcome is Outcome.DONE and kind == "start":
        bench.see(pending.host, domain(name))
    testimony = (
        absent(bench, name) if (says and outcome is not Outcome.DONE) or (kind == "stop" and says) else ()
    )
    answer = Answer(outcome=outcome, reason="so it was", testimony=testimony)
    bench.send(Answered(host=pending.host, session=f"s-{pending.host}", effect=key, answer=answer))
    return pending.host


def hosts_answer(bench: Bench, sighting: Sighting = Sighting.ABSENT, name: str = "g1") -> None:
    """Every host that was asked about it answers."""
    for key, pending in list(bench.state.pending.items()):
        if pending.kind == "testify" and name in pending.detail.split():
            said = changed(absent(bench, name)[0], sighting=sighting)
            answer = Answer(outcome=Outcome.DONE, testimony=(said,))
            bench.send(Answered(host=pending.host, session=f"s-{pending.host}", effect=key, answer=answer))


def lose(bench: Bench, name: str) -> None:
    """That host's power is proven off."""
    bench.silence(name)
    draft = bench.draft()
    record = bench.host(name)
    proof = Proof(kind=ProofKind.POWER, host=name, boot_id=record.boot_id, text="its power is off")
    fencing.dead(draft, record, proof, fenced=False)
    bench.state.apply(draft)
    for key in [key for key, pending in bench.state.pending.items() if pending.host == name]:
        del bench.state.pending[key]
    later(bench, 0.1)


def crash(bench: Bench) -> None:
    (place,) = bench.guest("g1").may_run_on
    bench.now += 2
    crashed = domain("g1", DomainState.CRASHED, reason="crashed")
    bench.send(Reported(host=place.host, session=f"s-{place.host}", guests=(crashed,)))
    hosts_answer(bench)


def until_started(bench: Bench) -> None:
    for _ in range(3):
        later(bench, max(bench.guest("g1").retry_at - bench.now, 0.0) + 0.1)
        if bench.guest("g1").phase is not GuestPhase.RECOVERING:
            return


# ---- retries


def failing(policy: GuestPolicy, outcome: Outcome = Outcome.FAILED) -> tuple[Bench, list[str], list[float]]:
    """Every start fails: where it was tried, and how long it waited after each."""
    bench = Bench().put(guest("g1", phase=GuestPhase.RECOVERING, policy=policy))
    bench.send(Tick())
    tried: list[str] = []
    waits: list[float] = []
    while bench.guest("g1").phase is GuestPhase.STARTING:
        assert len(tried) < 30, "this does not end"
        tried.append(end(bench, "start", outcome, says=outcome is Outcome.FAILED))
        hosts_answer(bench)
        waits.append(round(max(bench.guest("g1").retry_at - bench.now, 0.0)))
        until_started(bench)
    return bench, tried, waits


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.REFUSED, Outcome.UNKNOWN])
def test_a_start_that_fails_is_retried_in_place_then_elsewhere_then_a_person_decides(
    outcome: Outcome,
) -> None:
    """Also when its end was not seen and its host then proved that nothing runs."""
    bench, tried, waits = failing(GuestPolicy(max_restarts=2, max_relocations=1), outcome)
    assert tried[0] == tried[1] == tried[2] != tried[3] == tried[4] == tried[5]
    assert len(tried) == 6
    assert waits[:5] == [0, 5, 5, 0, 5]
    record = bench.guest("g1")
    assert record.phase is GuestPhase.ERROR
    assert f"did not start on {tried[3]}" in record.reason
    assert "restarts and relocations are used up" in record.reason
    assert "dr guest start g1" in bench.state.alerts["guest/g1/error"].todo


def test_one_command_gets_it_out_of_error() -> None:
    bench, _, _ = failing(GuestPolicy(max_restarts=0, max_relocations=0))
    assert bench.guest("g1").phase is GuestPhase.ERROR
    assert ask(bench, AskStart).accepted
    assert bench.guest("g1").phase is GuestPhase.STARTING
    assert "guest/g1/error" not in bench.state.alerts
    end(bench, "start", Outcome.DONE)
    assert bench.guest("g1").phase is GuestPhase.RUNNING


def test_where_nowhere_else_fits_a_relocation_goes_back() -> None:
    bench = Bench("h1").put(
        guest("g1", phase=GuestPhase.RECOVERING, policy=GuestPolicy(max_restarts=0, max_relocations=2))
    )
    bench.send(Tick())
    tried = []
    while bench.guest("g1").phase is GuestPhase.STARTING:
        tried.append(end(bench, "start", Outcome.FAILED))
        until_started(bench)
    assert tried == ["h1", "h1", "h1"]
    assert bench.guest("g1").phase is GuestPhase.ERROR


def test_crashes_and_failed_starts_count_together() -> None:
    bench = Bench().put(guest("g1", "h1", policy=GuestPolicy(max_restarts=2, max_relocations=0)))
    crash(bench)
    end(bench, "start", Outcome.FAILED)
    assert len(bench.guest("g1").restarts) == 2
    until_started(bench)
    end(bench, "start", Outcome.DONE)
    crash(bench)
    assert bench.guest("g1").phase is GuestPhase.ERROR


def test_what_lies_before_the_window_does_not_count() -> None:
    policy = GuestPolicy(max_restarts=1, max_relocations=0, restart_window_s=100.0)
    bench = Bench().put(guest("g1", "h1", policy=policy, restarts=(850.0,)))
    crash(bench)
    assert bench.guest("g1").phase is GuestPhase.STARTING


def test_relocations_have_a_window_of_their_own() -> None:
    policy = GuestPolicy(max_restarts=0, max_relocations=1, restart_window_s=1e5, relocation_window_s=100.0)
    bench = Bench().put(guest("g1", "h1", policy=policy, relocations=(850.0,)))
    crash(bench)
    assert bench.guest("g1").phase is GuestPhase.RECOVERING
    assert len(bench.guest("g1").relocations) == 1


def test_the_wait_between_restarts_is_bounded() -> None:
    many = tuple(float(at) for at in range(900, 1000))
    bench = Bench().put(guest("g1", "h1", policy=GuestPolicy(max_restarts=10_000), restarts=many))
    crash(bench)
    assert bench.guest("g1").retry_at - bench.now <= 300.0


def test_a_host_that_is_lost_is_not_its_guests_failure() -> None:
    bench = Bench().put(guest("g1", phase=GuestPhase.RECOVERING))
    bench.send(Tick())
    (place,) = bench.guest("g1").may_run_on
    lose(bench, place.host)
    later(bench, 1.0)
    record = bench.guest("g1")
    assert (record.restarts, record.relocations) == ((), ())
    assert record.phase is GuestPhase.STARTING
    assert record.may_run_on[0].host != place.host


# ---- desired, in each phase

AT = {GuestPhase.STOPPED: "", GuestPhase.RECOVERING: "", GuestPhase.ERROR: ""}


def being(phase: GuestPhase, **fields: Any) -> Bench:
    bench = Bench().put(guest("g1", AT.get(phase, "h1"), phase, **fields))
    if phase in (GuestPhase.STARTING, GuestPhase.STOPPING):
        from dr.core.volatile import Pending

        kind = "start" if phase is GuestPhase.STARTING else "stop"
        bench.state.pending["t"] = Pending(kind=kind, host="h1", guest="g1", generation=1, deadline=1e9)
    return bench


P = GuestPhase


@pytest.mark.parametrize(
    ("phase", "desired", "then"),
    [
        (P.RUNNING, Desired.RUNNING, P.RUNNING),
        (P.STOPPED, Desired.RUNNING, P.STARTING),
        (P.ERROR, Desired.RUNNING, P.STARTING),
        (P.RECOVERING, Desired.RUNNING, P.STARTING),
        (P.STARTING, Desired.RUNNING, P.STARTING),
        (P.STOPPING, Desired.RUNNING, P.STOPPING),
        (P.UNKNOWN, Desired.RUNNING, P.UNKNOWN),
        (P.PROTECTING, Desired.RUNNING, P.PROTECTING),
        (P.RUNNING, Desired.STOPPED, P.STOPPING),
        (P.STOPPED, Desired.STOPPED, P.STOPPED),
        (P.ERROR, Desired.STOPPED, P.ERROR),
        (P.RECOVERING, Desired.STOPPED, P.STOPPED),
        (P.STARTING, Desired.STOPPED, P.STARTING),
        (P.STOPPING, Desired.STOPPED, P.STOPPING),
        (P.UNKNOWN, Desired.STOPPED, P.UNKNOWN),
        (P.RUNNING, Desired.IGNORED, P.RUNNING),
        (P.STOPPED, Desired.IGNORED, P.STOPPED),
        (P.ERROR, Desired.IGNORED, P.STOPPED),
        (P.RECOVERING, Desired.IGNORED, P.STOPPED),
        (P.STARTING, Desired.IGNORED, P.STARTING),
        (P.STOPPING, Desired.IGNORED, P.STOPPING),
        (P.UNKNOWN, Desired.IGNORED, P.UNKNOWN),
        (P.PROTECTING, Desired.IGNORED, P.PROTECTING),
    ],
)
def test_each_phase_takes_each_wish(phase: GuestPhase, desired: Desired, then: GuestPhase) -> None:
    bench = being(phase)
    assert set_(bench, desired=desired).accepted
    assert (bench.guest("g1").desired, bench.guest("g1").phase) == (desired, then)


def test_a_guest_that_is_being_protected_is_not_stopped() -> None:
    reply = set_(being(P.PROTECTING), desired=Desired.STOPPED)
    assert not reply.accepted
    assert "g1 is being protected" in reply.blockers[0]


def test_a_stop_asked_for_during_a_start_is_given_when_it_runs() -> None:
    bench = Bench().put(guest("g1", phase=P.RECOVERING))
    bench.send(Tick())
    (key,) = ask(bench, AskStop).operations
    end(bench, "start", Outcome.DONE)
    assert bench.guest("g1").phase is P.STOPPING
    end(bench, "stop", Outcome.DONE)
    assert (bench.guest("g1").phase, bench.guest("g1").desired) == (P.STOPPED, Desired.STOPPED)
    assert bench.state.operations[key].state is OperationState.DONE


def test_a_stop_asked_for_during_a_start_that_fails_ends_all_tries() -> None:
    bench = Bench().put(guest("g1", phase=P.RECOVERING))
    bench.send(Tick())
    assert ask(bench, AskStop).accepted
    end(bench, "start", Outcome.FAILED)
    later(bench, 10.0)
    assert bench.guest("g1").phase is P.STOPPED


def test_a_stop_that_must_wait_cannot_pull_a_plug() -> None:
    bench = Bench().put(guest("g1", phase=P.RECOVERING))
    bench.send(Tick())
    reply = ask(bench, AskStop, mode="destroy")
    assert not reply.accepted
    assert "no plug to pull" in reply.blockers[0]


def test_a_start_asked_for_during_a_stop_follows_it() -> None:
    bench = Bench().put(guest("g1", "h1"))
    ask(bench, AskStop)
    assert ask(bench, AskStart).accepted
    end(bench, "stop", Outcome.DONE)
    later(bench, 0.1)
    assert (bench.guest("g1").phase, bench.guest("g1").desired) == (P.STARTING, Desired.RUNNING)


def test_a_guest_wanted_off_on_a_silent_host_is_not_recovered() -> None:
    bench = Bench().put(guest("g1", "h1"))
    bench.silence("h1")
    assert set_(bench, desired=Desired.STOPPED).accepted
    assert bench.guest("g1").phase is P.RUNNING, "nothing is known of its end yet"
    lose(bench, "h1")
    assert bench.guest("g1").phase is P.STOPPED


def test_an_ignored_guest_is_not_restarted_after_a_crash() -> None:
    bench = Bench().put(guest("g1", "h1", desired=Desired.IGNORED))
    crash(bench)
    later(bench, 10.0)
    assert (bench.guest("g1").phase, bench.guest("g1").desired) == (P.STOPPED, Desired.IGNORED)
    assert bench.guest("g1").may_run_on == ()


def test_an_ignored_guest_is_not_recovered_and_nobody_is_fenced_for_it() -> None:
    bench = Bench().put(guest("g1", "h1", desired=Desired.IGNORED))
    assert list(fencing.recoverable(bench.draft(), bench.host("h1"))) == []
    lose(bench, "h1")
    assert bench.guest("g1").phase is P.STOPPED
    assert not [op for op in bench.state.operations.values() if op.kind == "failover"]


def test_an_ignored_guest_starts_and_stops_as_people_ask_and_stays_ignored() -> None:
    bench = Bench().put(guest("g1", phase=P.STOPPED, desired=Desired.IGNORED))
    assert ask(bench, AskStart).accepted
    end(bench, "start", Outcome.DONE)
    assert (bench.guest("g1").phase, bench.guest("g1").desired) == (P.RUNNING, Desired.IGNORED)
    assert ask(bench, AskStop).accepted
    end(bench, "stop", Outcome.DONE)
    assert (bench.guest("g1").phase, bench.guest("g1").desired) == (P.STOPPED, Desired.IGNORED)


def test_an_ignored_guest_that_does_not_start_is_tried_once() -> None:
    bench = Bench().put(guest("g1", phase=P.STOPPED, desired=Desired.IGNORED))
    (key,) = ask(bench, AskStart).operations
    end(bench, "start", Outcome.FAILED)
    later(bench, 30.0)
    assert bench.guest("g1").phase is P.STOPPED
    assert bench.state.operations[key].state is OperationState.FAILED


def test_leaving_ignored_follows_the_facts() -> None:
    bench = Bench().put(guest("g1", "h1", desired=Desired.IGNORED))
    assert set_(bench, desired=Desired.RUNNING).operations == ()
    crash(bench)
    assert bench.guest("g1").phase is P.STARTING


# ---- stops that fail


def stopping() -> Bench:
    bench = Bench().put(guest("g1", "h1"))
    assert ask(bench, AskStop).accepted
    return bench


def test_a_stop_that_fails_leaves_it_running_and_looked_after() -> None:
    bench = stopping()
    (key,) = bench.state.open_operations
    end(bench, "stop", Outcome.FAILED, says=False)
    assert (bench.guest("g1").phase, bench.guest("g1").desired) == (P.RUNNING, Desired.RUNNING)
    assert "still runs on h1" in bench.guest("g1").reason
    assert bench.state.operations[key].state is OperationState.FAILED


def test_a_stop_whose_end_was_not_seen_is_neither_done_nor_failed() -> None:
    """An inventory from before its end proves nothing; the host is asked."""
    bench = stopping()
    end(bench, "stop", Outcome.UNKNOWN, says=False)
    later(bench, 5.0)
    assert bench.guest("g1").phase is P.STOPPING
    assert any(
        isinstance(effect, Send) and isinstance(effect.body, commands.Testify) for effect in bench.effects
    )
    hosts_answer(bench)
    assert bench.guest("g1").phase is P.STOPPED


def test_after_all_patience_a_guest_that_is_seen_to_run_was_not_stopped() -> None:
    bench = stopping()
    end(bench, "stop", Outcome.UNKNOWN, says=False)
    timers = bench.state.settings.timers
    later(bench, timers.stop_s)
    assert bench.guest("g1").phase is P.STOPPING
    later(bench, timers.testify_s + 1)
    assert bench.guest("g1").phase is P.RUNNING


def test_a_host_lost_during_the_stop_is_the_end_of_it() -> None:
    bench = stopping()
    lose(bench, "h1")
    later(bench, 5.0)
    assert (bench.guest("g1").phase, bench.guest("g1").desired) == (P.STOPPED, Desired.STOPPED)


def test_a_guest_in_error_that_may_run_is_not_called_stopped() -> None:
    bench = Bench().put(guest("g1", "h1", P.ERROR))
    reply = ask(bench, AskStop)
    assert not reply.accepted
    assert "may run on h1" in reply.blockers[0]


# ---- dependencies


def waiting(name: str, *after: After, **policy: Any) -> GuestRecord:
    return guest(name, phase=P.RECOVERING, policy=GuestPolicy(boot_after=after, **policy))


def test_a_guest_waits_until_the_other_runs() -> None:
    bench = Bench().put(waiting("g1", After(guest="db"), priority=200), waiting("db", priority=1))
    bench.send(Tick())
    assert bench.guest("db").phase is P.STARTING
    assert bench.guest("g1").phase is P.RECOVERING
    assert "waits for db" in bench.guest("g1").reason
    assert "dr guest show db" in bench.guest("g1").reason
    end(bench, "start", Outcome.DONE, name="db")
    later(bench, 0.1)
    assert bench.guest("g1").phase is P.STARTING


def test_a_guest_waits_for_the_check_of_the_other() -> None:
    db = guest("db", "h1", policy=GuestPolicy(checks=(PING,)), since=990.0)
    bench = Bench().put(db, waiting("g1", After(guest="db", until="check")))
    (check,) = (effect for effect in bench.send(Tick()) if isinstance(effect, CheckGuest))
    assert (check.guest, check.checks) == ("db", (PING,))
    bench.send(checked(check, False), after=0.5)
    assert "the checks of db" in bench.guest("g1").reason
    again = [effect for effect in bench.effects if isinstance(effect, CheckGuest)][-1]
    assert again.id != check.id
    bench.send(checked(again, True), after=1.0)
    later(bench, 0.1)
    assert bench.guest("g1").phase is P.STARTING


def test_a_check_that_began_before_the_guest_ran_anew_does_not_count() -> None:
    db = guest("db", "h1", policy=GuestPolicy(checks=(PING,)), since=990.0)
    bench = Bench().put(db, waiting("g1", After(guest="db", until="check")))
    (check,) = (effect for effect in bench.send(Tick()) if isinstance(effect, CheckGuest))
    bench.put(changed(bench.guest("db"), since=bench.now + 0.5))
    bench.send(checked(check, True), after=1.0)
    assert bench.guest("g1").phase is P.RECOVERING


def test_waiting_ends_after_a_bounded_patience() -> None:
    bench = Bench().put(waiting("g1", After(guest="db")), guest("db", phase=P.ERROR))
    bench.send(Tick())
    later(bench, 299.0)
    assert bench.guest("g1").phase is P.RECOVERING
    later(bench, 2.0)
    later(bench, 0.1)
    assert bench.guest("g1").phase is P.STARTING


@pytest.mark.parametrize("desired", [Desired.STOPPED, Desired.IGNORED])
def test_nobody_waits_for_a_guest_that_is_not_wanted(desired: Desired) -> None:
    bench = Bench().put(waiting("g1", After(guest="db")), guest("db", phase=P.STOPPED, desired=desired))
    bench.send(Tick())
    assert bench.guest("g1").phase is P.STARTING


def test_circles_are_refused_with_all_names() -> None:
    after = {"b": After(guest="c"), "c": After(guest="a")}
    bench = Bench().put(
        guest("a", "h1"), *(guest(n, "h1", policy=GuestPolicy(boot_after=(w,))) for n, w in after.items())
    )
    reply = set_(bench, "a", boot_after=(After(guest="b"),))
    assert not reply.accepted
    assert all(f"{name} after" in reply.blockers[0] for name in "abc")
    assert bench.guest("a").policy.boot_after == ()
    assert not set_(bench, "a", boot_after=(After(guest="a"),)).accepted


def test_a_circle_that_got_in_all_the_same_does_not_hang_a_recovery() -> None:
    bench = Bench().put(waiting("g1", After(guest="g2")), waiting("g2", After(guest="g1")))
    bench.send(Tick())
    later(bench, 301.0)
    later(bench, 0.1)
    assert {bench.guest(name).phase for name in ("g1", "g2")} == {P.STARTING}


def test_unknown_names_and_missing_checks_are_refused() -> None:
    bench = Bench().put(guest("g1", "h1"), guest("db", "h1"))
    reply = set_(bench, boot_after=(After(guest="nobody"), After(guest="db", until="check")))
    assert ["no protected guest has that name" in why for why in reply.blockers] == [True, False]
    assert "dr guest set db --check" in reply.blockers[1]
    assert set_(bench, "db", checks=(PING,)).accepted
    assert set_(bench, boot_after=(After(guest="db", until="check"),)).accepted
    assert "g1 waits for the checks of db" in set_(bench, "db", checks=()).blockers[0]


def test_a_dependency_that_is_no_longer_protected_is_told_of_and_not_waited_for() -> None:
    bench = Bench().put(waiting("g1", After(guest="db")), guest("db", "h1"))
    ask(bench, AskUnprotect, "db")
    assert "dr guest protect db" in bench.state.alerts["guest/g1/boot-after"].todo
    for name in bench.state.hosts:
        bench.put(changed(bench.host(name), protected_version=bench.state.cluster.protected_version))
    later(bench, 6.0)
    assert bench.guest("g1").phase is P.STARTING
    assert set_(bench, boot_after=()).accepted
    assert "guest/g1/boot-after" not in bench.state.alerts


def test_guests_that_all_wait_for_by_default_wait_for_nobody() -> None:
    bench = Bench()
    bench.state.settings = changed(bench.state.settings, guests=GuestPolicy(boot_after=(After(guest="dns"),)))
    bench.see("h1", domain("web"), domain("dns"))
    assert "web cannot wait for dns" in ask(bench, AskProtect, "web").blockers[0]
    assert ask(bench, AskProtect, "web", "dns").accepted
    assert bench.guest("dns").policy.boot_after == ()
    assert bench.guest("web").policy.boot_after == (After(guest="dns"),)


# ---- policy


def test_what_is_not_named_stays() -> None:
    bench = Bench().put(guest("g1", "h1", policy=GuestPolicy(priority=7, checks=(PING,))))
    assert set_(bench, max_restarts=0, failback=True).accepted
    assert bench.guest("g1").policy == GuestPolicy(priority=7, checks=(PING,), max_restarts=0, failback=True)
    assert set_(bench, checks=()).accepted
    assert bench.guest("g1").policy.checks == ()
    assert "nothing to set" in set_(bench).blockers[0]


def test_all_guests_are_set_or_none() -> None:
    bench = Bench().put(guest("g1", "h1"))
    assert set_(bench, "g1", "g9", priority=1).missing
    assert bench.guest("g1").policy.priority == 100


# ---- what an operation says in the end


def brought_up(passed: bool) -> str:
    bench = Bench().put(guest("g1", phase=P.STOPPED, policy=GuestPolicy(checks=(PING,))))
    (key,) = ask(bench, AskStart).operations
    end(bench, "start", Outcome.DONE)
    later(bench, 0.5)
    assert bench.state.operations[key].state is OperationState.OPEN, "its check is waited for"
    (check, *_) = (effect for effect in bench.effects if isinstance(effect, CheckGuest))
    bench.send(checked(check, passed), after=0.5 if passed else 61.0)
    later(bench, 0.1)
    operation = bench.state.operations[key]
    assert operation.state is (OperationState.DONE if passed else OperationState.FAILED)
    assert ("guest/g1/checks" in bench.state.alerts) is not passed
    return operation.guests["g1"]


def test_an_operation_says_whether_the_checks_passed() -> None:
    assert brought_up(True).endswith("its checks passed")
    assert brought_up(False).endswith("but its checks have not passed: ping:10.1.0.5: nothing answers")


def test_every_host_learns_of_a_move_that_was_seen_before_it_was_answered() -> None:
    bench = Bench().put(guest("g1", phase=P.RECOVERING, holder="h9"))
    bench.send(Tick())
    (place,) = bench.guest("g1").may_run_on
    before = bench.state.moves
    bench.send(Reported(host=place.host, session=f"s-{place.host}", guests=(domain("g1"),)))
    assert bench.guest("g1").phase is P.STARTING
    end(bench, "start", Outcome.DONE)
    assert bench.state.moves == before + 1
