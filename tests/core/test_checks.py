"""Checks of guests: rounds, what they end in, who waits for them, and what a job and people are told of them."""

from __future__ import annotations

from typing import Any

import pytest

from dr.core import checks
from dr.core.decide import decide
from dr.core.state import Draft
from dr.model.base import changed
from dr.model.checks import PICTURE_MAX, Agent, CheckResult, Http, Ping, Running, Screenshot
from dr.model.commands import Answer, Discard, LookInside, Migrate, Outcome, Receive, Resume
from dr.model.effects import CheckGuest, Reply, Send, SendStart
from dr.model.events import (
    Answered,
    AskCheck,
    AskDrain,
    AskSet,
    AskStart,
    CheckEnded,
    Disconnected,
    Reported,
    Tick,
)
from dr.model.facts import DomainState
from dr.model.operations import OperationState
from dr.model.policy import GuestPolicy, PolicyChange
from dr.model.records import GuestPhase, HostPhase
from tests.core.build import NOW, Bench, checked, domain, guest
from tests.core.test_moves import absent, answer, ask, bench, last

PING = Ping(address="10.0.0.5")
CHECKED = GuestPolicy(checks=(PING,))


def tried(made: Bench) -> list[CheckGuest]:
    return [effect for effect in made.effects if isinstance(effect, CheckGuest)]


def moved(made: Bench) -> Bench:
    """To its destination; what is told meanwhile is not looked at."""
    answer(made, last(made, Receive))
    order = last(made, Migrate)
    answer(made, order, Outcome.DONE, absent(made, left_by=order.id))
    answer(made, last(made, Resume))
    assert (made.guest("g1").phase, made.guest("g1").holder) == (GuestPhase.RUNNING, "h2")
    return made


def migrated(**fields: Any) -> Bench:
    made = bench(**({"policy": CHECKED, "checked_at": NOW - 100.0} | fields))
    assert ask(made).accepted
    assert tried(made) == [], "where it was it is not asked for"
    return moved(made)


def end(made: Bench, *, passed: bool) -> None:
    made.send(checked(tried(made)[-1], passed), after=0.5)
    made.send(Tick())


def job(made: Bench) -> Any:
    (operation,) = made.state.operations.values()
    return operation


def test_the_job_waits_and_says_when_it_answered() -> None:
    made = migrated()
    (check,) = tried(made)
    assert (check.guest, check.checks) == ("g1", (PING,))
    assert job(made).state is OperationState.OPEN
    assert not checks.passed(made.guest("g1")), "that it answered on its old host says nothing"
    end(made, passed=False)
    assert len(tried(made)) == 2, "it is tried again"
    end(made, passed=True)
    assert job(made).state is OperationState.DONE
    assert job(made).guests["g1"] == "running on h2, and answers after 1.0 s"
    assert len(tried(made)) == 2, "and no more"


def test_one_that_does_not_answer_ends_the_job_too_and_it_says_so() -> None:
    made = migrated()
    made.send(Tick(), after=made.state.settings.timers.check_s)
    assert job(made).state is OperationState.DONE
    assert job(made).guests["g1"] == (
        "running on h2, and its checks have not passed since: ping:10.0.0.5: nobody told how it ended"
    )
    assert "guest/g1/checks" in made.state.alerts


def test_without_a_check_nothing_is_waited_for() -> None:
    made = migrated(policy=GuestPolicy())
    assert tried(made) == []
    assert job(made).guests["g1"] == "running on h2"


def test_one_that_stayed_is_not_said_to_have_arrived() -> None:
    made = bench(policy=CHECKED)
    assert ask(made).accepted
    answer(made, last(made, Receive), Outcome.REFUSED, reason="no room")
    answer(made, last(made, Discard), Outcome.DONE, absent(made))
    made.send(Tick(), after=0.1)
    assert made.guest("g1").phase is GuestPhase.RUNNING
    assert job(made).state is OperationState.FAILED
    assert job(made).guests["g1"].startswith("not moved: still on h1: h2 does not let it in")
    assert "check" not in job(made).guests["g1"]


def test_a_drain_tells_it_of_each_and_waits_no_longer_than_that() -> None:
    made = bench(policy=CHECKED, checked_at=NOW - 100.0)
    made.send(AskDrain(id="d", by="ops", host="h1"))
    made.send(Tick(), after=1.0)
    assert tried(made) == []
    moved(made)
    made.send(Tick(), after=0.1)
    assert made.host("h1").phase == "maintenance"
    assert (job(made).state, job(made).guests["g1"]) == (OperationState.OPEN, "runs on h2")
    end(made, passed=True)
    assert job(made).state is OperationState.DONE
    assert "runs on h2, and answers after" in job(made).guests["g1"]


def test_who_left_a_host_that_goes_down_is_checked_too() -> None:
    made = bench(policy=CHECKED, checked_at=NOW - 100.0)
    draft = made.draft()
    draft.open_operation("leave", "h1", "h1 announced its reboot", guests=("g1",))
    draft.put_host(changed(made.host("h1"), leaving="reboot"))
    made.state.apply(draft)
    assert ask(made).accepted
    moved(made)
    end(made, passed=True)
    made.put(changed(made.host("h1"), leaving="", phase=HostPhase.FENCED))
    made.send(Tick(), after=1.0)
    leave = next(each for each in made.state.operations.values() if each.kind == "leave")
    assert leave.guests["g1"].startswith("running on h2, and answers after")


# ---- rounds of a guest that was started


RUN = GuestPolicy(checks=(PING, Running(), Http(address="10.0.0.5", port=80)))


def started(policy: GuestPolicy = RUN) -> Bench:
    """A guest that runs on h1 since a start that somebody asked for."""
    made = Bench().put(guest("g1", phase=GuestPhase.STOPPED, policy=policy))
    (reply,) = (
        each for each in made.send(AskStart(id="a", by="ops", guests=("g1",))) if isinstance(each, Reply)
    )
    assert reply.accepted
    (start,) = (each for each in made.effects if isinstance(each, SendStart))
    made.see(start.host, domain("g1"))
    made.send(
        Answered(
            host=start.host,
            session=start.session,
            effect=start.id,
            answer=Answer(outcome=Outcome.DONE),
        )
    )
    assert made.guest("g1").phase is GuestPhase.RUNNING
    made.send(Tick())
    return made


def test_all_checks_must_pass() -> None:
    made = started()
    (check,) = tried(made)
    assert check.checks == (PING, Http(address="10.0.0.5", port=80)), (
        "whether it runs is known without asking"
    )
    one = tuple(
        CheckResult(check=each, passed=each == PING, why="" if each == PING else "late")
        for each in check.checks
    )
    made.send(CheckEnded(effect=check.id, guest="g1", results=one), after=1.0)
    assert not checks.passed(made.guest("g1"))
    assert [each.passed for each in made.state.checked["g1"].results] == [True, True, False]
    made.send(Tick())
    made.send(checked(tried(made)[-1], True), after=1.0)
    made.send(Tick())
    assert checks.passed(made.guest("g1"))
    assert job(made).state is OperationState.DONE
    assert job(made).guests["g1"].endswith("its checks passed")


def test_where_only_running_is_asked_for_its_host_says_it() -> None:
    made = started(GuestPolicy(checks=(Running(),)))
    assert tried(made) == []
    assert checks.passed(made.guest("g1"))
    assert job(made).state is OperationState.DONE


def test_what_was_not_answered_has_not_passed_and_is_tried_again() -> None:
    made = started()
    made.send(Tick(), after=checks.WINDOW_S + checks.ANSWER_S)
    assert [each.why for each in made.state.checked["g1"].results] == [
        "nobody told how it ended",
        "",
        "nobody told how it ended",
    ]
    made.send(Tick(), after=1.0)
    assert len(tried(made)) == 2
    made.send(checked(tried(made)[0], True), after=0.5)
    assert not checks.passed(made.guest("g1")), "what comes when nobody waits for it any more says nothing"


def test_people_are_told_what_fails_and_when_it_passes_after_all() -> None:
    made = started()
    made.send(
        checked(tried(made)[-1], False, "it refuses the connection"), after=made.state.settings.timers.check_s
    )
    made.send(Tick())
    alert = made.state.alerts["guest/g1/checks"]
    assert "its checks do not pass" in alert.what
    assert "http://10.0.0.5/: it refuses the connection" in alert.why
    assert job(made).state is OperationState.FAILED
    made.send(checked(tried(made)[-1], False), after=5.0)
    rounds = len(tried(made))
    made.send(Tick(), after=checks.AGAIN_S / 2)
    assert len(tried(made)) == rounds, "nobody waits for it: it is not tried again at once"
    made.send(Tick(), after=checks.AGAIN_S)
    assert len(tried(made)) == rounds + 1
    made.send(checked(tried(made)[-1], True), after=0.5)
    assert "guest/g1/checks" not in made.state.alerts
    assert checks.passed(made.guest("g1"))


def test_an_alert_goes_with_the_checks_or_the_guest() -> None:
    made = started()
    made.send(Tick(), after=made.state.settings.timers.check_s)
    assert "guest/g1/checks" in made.state.alerts
    made.send(AskSet(id="s", by="ops", guests=("g1",), policy=PolicyChange(checks=())))
    made.send(Tick(), after=0.1)
    assert "guest/g1/checks" not in made.state.alerts


def test_other_checks_are_made_anew() -> None:
    made = started()
    old = tried(made)[-1]
    made.send(AskSet(id="s", by="ops", guests=("g1",), policy=PolicyChange(checks=(PING,))))
    made.send(checked(old, True), after=0.5)
    assert not checks.passed(made.guest("g1")), "those were others"
    made.send(Tick(), after=0.5)
    assert tried(made)[-1].checks == (PING,)


def test_so_many_rounds_at_a_time_and_who_waited_longest_is_next() -> None:
    names = [f"g{number}" for number in range(checks.ROUNDS_MAX + 5)]
    made = Bench().put(*(guest(name, "h1", policy=CHECKED, since=NOW) for name in names))
    draft = made.draft()
    draft.open_operation("guest-start", "all", "", guests=names)
    made.state.apply(draft)
    made.send(Tick(), after=0.1)
    first = {effect.guest for effect in tried(made)}
    assert len(first) == checks.ROUNDS_MAX
    for effect in tried(made):
        made.send(checked(effect, False), after=0.01)
    made.send(Tick(), after=0.5)
    assert set(names) - first <= {effect.guest for effect in tried(made)[checks.ROUNDS_MAX :]}


# ---- what only its host can see


INSIDE = GuestPolicy(checks=(PING, Agent(), Screenshot()))
PNG = b"\x89PNG"


def orders(made: Bench) -> list[Send]:
    return [each for each in made.effects if isinstance(each, Send) and isinstance(each.body, LookInside)]


def answered(made: Bench, *results: CheckResult, outcome: Outcome = Outcome.DONE, reason: str = "") -> Draft:
    """What the guest's host says to the last order."""
    order = orders(made)[-1]
    answer = Answer(outcome=outcome, reason=reason, checks=results)
    event = Answered(host=order.host, session=order.session, effect=order.id, answer=answer)
    made.now += 0.5
    draft = decide(made.state, event, made.now)
    made.send(event)
    return draft


def seen(made: Bench) -> list[tuple[bool, bool]]:
    return [(each.passed, each.made) for each in made.state.checked["g1"].results]


def test_both_halves_of_a_round_must_pass() -> None:
    made = started(INSIDE)
    (order,) = orders(made)
    assert isinstance(order.body, LookInside)
    assert (order.host, order.body.checks) == (made.guest("g1").holder, (Agent(), Screenshot()))
    made.send(checked(tried(made)[-1], True), after=0.2)
    assert not checks.passed(made.guest("g1")), "its host has not answered yet"
    found = (
        CheckResult(check=Screenshot(), passed=True, picture=PNG),
        CheckResult(check=Agent(), passed=True),
    )
    draft = answered(made, *found)
    assert [each.png for each in draft.changes().pictures] == [PNG]
    assert checks.passed(made.guest("g1"))
    assert [each.check for each in made.state.checked["g1"].results] == list(INSIDE.checks)
    assert not any(each.picture for each in made.state.checked["g1"].results), "it is in the store only"


def test_one_half_that_fails_is_enough() -> None:
    made = started(INSIDE)
    made.send(checked(tried(made)[-1], True), after=0.2)
    answered(
        made,
        CheckResult(check=Agent(), passed=False, why="it does not answer"),
        CheckResult(check=Screenshot(), passed=True, picture=PNG),
    )
    assert not checks.passed(made.guest("g1"))
    assert checks.what_fails(made.draft(), made.guest("g1")) == "agent: it does not answer"


def test_a_host_that_could_not_look_says_nothing_of_the_guest() -> None:
    made = started(INSIDE)
    made.send(checked(tried(made)[-1], True), after=0.2)
    answered(made, outcome=Outcome.UNKNOWN, reason="libvirt did not answer")
    assert seen(made) == [(True, True), (False, False), (False, False)]
    assert "h1 could not look: libvirt did not answer" in checks.what_fails(made.draft(), made.guest("g1"))


def test_where_nobody_hears_its_host_it_cannot_be_looked_at() -> None:
    made = started(INSIDE)
    made.send(checked(tried(made)[-1], False), after=0.2)
    made.send(Disconnected(host="h1", session=made.state.views["h1"].session))
    made.send(Tick(), after=checks.WINDOW_S + checks.ANSWER_S)
    assert len(orders(made)) == 1
    made.send(checked(tried(made)[-1], True), after=0.2)
    assert seen(made) == [(True, True), (False, False), (False, False)]


def test_a_picture_that_is_too_large_is_not_kept() -> None:
    made = started(INSIDE)
    large = CheckResult(check=Screenshot(), passed=True, picture=b"x" * (PICTURE_MAX + 1))
    assert answered(made, large).changes().pictures == ()


# ---- asked for


def asked_for(made: Bench) -> Reply:
    (reply,) = (
        each for each in made.send(AskCheck(id="c", by="ops", guests=("g1",))) if isinstance(each, Reply)
    )
    return reply


@pytest.mark.parametrize("passed", [True, False])
def test_one_round_is_made_whatever_passed_before(passed: bool) -> None:
    made = Bench().put(guest("g1", "h1", policy=CHECKED, since=NOW - 100.0, checked_at=NOW - 50.0))
    (key,) = asked_for(made).operations
    made.send(Tick())
    (round_,) = tried(made)
    made.send(checked(round_, passed, "it refuses the connection"), after=0.6)
    made.send(Tick(), after=1.0)
    operation = made.state.operations[key]
    assert operation.state is (OperationState.DONE if passed else OperationState.FAILED)
    assert operation.guests["g1"] == (
        "its checks passed" if passed else "ping:10.0.0.5: it refuses the connection"
    )
    assert len(tried(made)) == 1, "one round"
    assert "guest/g1/checks" not in made.state.alerts, "nobody but who asked is told"


def test_who_is_only_looked_at_is_restarted_as_ever() -> None:
    """The job that looks at a guest is not the one that carries it on."""
    made = Bench().put(guest("g1", "h1", policy=CHECKED, since=NOW - 100.0))
    (key,) = asked_for(made).operations
    crashed = domain("g1", DomainState.CRASHED, reason="crashed")
    made.send(Reported(host="h1", session="s-h1", guests=(crashed,)), after=0.1)
    assert made.guest("g1").phase is not GuestPhase.RUNNING
    made.send(Tick(), after=0.1)
    assert made.state.operations[key].state is OperationState.FAILED
    assert any(each.kind == "restart" for each in made.state.operations.values())


def test_what_cannot_be_checked_is_refused() -> None:
    made = Bench().put(guest("g1", "h1"), guest("g2", phase=GuestPhase.STOPPED, policy=CHECKED))
    reply = next(
        each for each in made.send(AskCheck(id="c", by="ops", guests=("g1", "g2"))) if isinstance(each, Reply)
    )
    assert not reply.accepted
    assert "g1 has no checks: dr guest set g1 --check" in reply.blockers[0]
    assert "g2 does not run (stopped)" in reply.blockers[1]


def test_a_host_is_not_asked_for_all_its_guests_at_once() -> None:
    """Its agent has testimonies to give."""
    names = [f"g{number}" for number in range(3 * checks.INSIDE_PER_HOST)]
    inside = GuestPolicy(checks=(Agent(),))
    made = Bench().put(*(guest(name, "h1", policy=inside, since=NOW) for name in names))
    made.put(guest("x", "h2", policy=inside, since=NOW))
    made.send(AskCheck(id="c", by="ops", guests=(*names, "x")))
    made.send(Tick(), after=0.1)
    asked = [order.host for order in orders(made)]
    assert (asked.count("h1"), asked.count("h2")) == (checks.INSIDE_PER_HOST, 1)
    for _ in range(5):
        for order in orders(made):
            answer = Answer(outcome=Outcome.DONE, checks=(CheckResult(check=Agent(), passed=True),))
            made.send(Answered(host=order.host, session=order.session, effect=order.id, answer=answer))
        made.send(Tick(), after=0.6)
    assert job(made).state is OperationState.DONE
