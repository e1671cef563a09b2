"""A guest that was moved: its check is tried where it is now, and the job says whether it answers there."""

from __future__ import annotations

from typing import Any

from dr.core import checks
from dr.model.base import changed
from dr.model.commands import Discard, Migrate, Outcome, Receive, Resume
from dr.model.effects import CheckGuest
from dr.model.events import AskDrain, CheckEnded, Tick
from dr.model.operations import OperationState
from dr.model.policy import Check, GuestPolicy
from dr.model.records import GuestPhase, HostPhase
from tests.core.build import NOW, Bench
from tests.core.test_moves import absent, answer, ask, bench, last

PING = Check(kind="ping", address="10.0.0.5")
CHECKED = GuestPolicy(check=PING)


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
    made.send(CheckEnded(effect=tried(made)[-1].id, guest="g1", passed=passed), after=0.5)
    made.send(Tick())


def job(made: Bench) -> Any:
    (operation,) = made.state.operations.values()
    return operation


def test_the_job_waits_and_says_when_it_answered() -> None:
    made = migrated()
    (check,) = tried(made)
    assert (check.guest, check.check) == ("g1", PING)
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
    assert job(made).guests["g1"] == "running on h2, and its check has not passed since"


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
