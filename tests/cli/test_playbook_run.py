"""`dr playbook run`, and `dr job` of a run: what is sent, shown, and exited with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dr.cli.failure import Exit
from dr.model.effects import PlannedStep, Reply
from dr.model.events import AskAgree, AskCancelRun, AskRun, OperatorAsk
from tests.api.service import Service
from tests.api.test_running import RUN
from tests.cli.conftest import Dr

DRAIN = PlannedStep(part="steps", text="drain: h1", todo=("h1 is online",), takes_s=90.0, timeout_s=3600.0)
DONE = PlannedStep(part="steps", text="cordon: h1", timeout_s=60.0)
LEFT_OUT = PlannedStep(part="finally", text="resume: over", when="automation is on", timeout_s=60.0)
TIED = PlannedStep(
    part="steps", text="drain: h2", todo=("h2 is online",), why=("g1: a device",), timeout_s=60.0
)


@pytest.fixture
def book(tmp_path: Path) -> str:
    file = tmp_path / "x.yaml"
    file.write_text("playbook: x\nparams: {h: {is: host}}\nsteps: [{cordon: '${h}'}]\n")
    return str(file)


def foretold(service: Service, *steps: PlannedStep, message: str = "") -> None:
    def reply(ask: OperatorAsk) -> Reply:
        return Reply(id=ask.id, accepted=True, message=message, steps=steps)

    service.coordinator.reply = reply


def test_it_is_sent_with_its_parameters(service: Service, dr: Dr, book: str) -> None:
    service.coordinator.reply = lambda ask: Reply(id=ask.id, accepted=True, operations=("playbook-3-1",))
    ended = dr("playbook", "run", book, "h=h1", "--no-wait", "--reason", "work")
    assert (ended.code, ended.out) == (Exit.OK, "playbook-3-1\n")
    assert "dr job watch playbook-3-1" in ended.err
    (ask,) = service.coordinator.asked
    assert isinstance(ask, AskRun)
    assert (ask.params, ask.reason, ask.by, ask.playbook.playbook) == ({"h": "h1"}, "work", "alice", "x")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("h1",), "'h1' is no parameter."),
        (("=h1",), "'=h1' is no parameter."),
        (("h=h1", "h=h2"), "h is told twice."),
    ],
)
def test_parameters_are_name_and_value_once(
    words: tuple[str, ...], told: str, service: Service, dr: Dr, book: str
) -> None:
    ended = dr("playbook", "run", book, *words)
    assert ended.code == Exit.USAGE
    assert told in ended.err
    assert service.coordinator.asked == []


def test_a_bad_file_is_not_sent(service: Service, dr: Dr, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("playbook: x\nsteps: [[]]\n")
    ended = dr("playbook", "run", str(tmp_path / "x.yaml"))
    assert ended.code == Exit.BAD_CONFIG
    assert "x.yaml:2: steps[0]: must be a step" in ended.err
    assert service.coordinator.asked == []


def test_a_dry_run_is_a_table_of_steps(service: Service, dr: Dr, book: str) -> None:
    foretold(service, DONE, DRAIN, LEFT_OUT)
    ended = dr("playbook", "run", book, "h=h1", "--dry-run")
    assert ended.code == Exit.OK
    assert [re.split(r"  +", line.rstrip()) for line in ended.out.splitlines()] == [
        ["PART", "STEP", "NOW", "TAKES", "AT MOST"],
        ["steps", "cordon: h1", "nothing is to be done", "60 s"],
        ["steps", "drain: h1", "h1 is online", "90 s", "60 min"],
        ["finally", "resume: over", "left out: automation is on", "60 s"],
    ]
    assert "Nothing was done." in ended.err


@pytest.mark.parametrize(("step", "message"), [(TIED, ""), (DONE, "automation is paused")])
def test_a_dry_run_of_what_would_not_be_whole_exits_with_3(
    step: PlannedStep, message: str, service: Service, dr: Dr, book: str
) -> None:
    foretold(service, step, message=message)
    ended = dr("playbook", "run", book, "h=h1", "--dry-run")
    assert ended.code == Exit.DEGRADED
    assert ("It would not begin: automation is paused" in ended.err) is bool(message)


def test_a_dry_run_as_json(service: Service, dr: Dr, book: str) -> None:
    foretold(service, DRAIN)
    told = json.loads(dr("playbook", "run", book, "h=h1", "--dry-run", "-o", "json").out)
    assert (told["steps"][0]["text"], told["steps"][0]["takes_s"]) == ("drain: h1", 90.0)


def test_its_job_shows_every_step(service: Service, dr: Dr) -> None:
    service.coordinator.state.operations[RUN.id] = RUN
    ended = dr("job", "show", RUN.id)
    assert "1. empty it: done (5.0 s)" in ended.out
    assert "2. approve: go on?: running (4.0 s)" in ended.out
    assert "3. finally: cordon: h2: waiting" in ended.out
    assert json.loads(dr("job", "show", RUN.id, "-o", "json").out)["item"]["run"]["params"] == {"h": "h1"}


def test_answers_and_cancelling(service: Service, dr: Dr) -> None:
    assert dr("job", "approve", RUN.id).code == Exit.OK
    assert dr("job", "deny", RUN.id, "--reason", "not now").code == Exit.OK
    assert dr("job", "cancel", RUN.id, "--reason", "wrong host").code == Exit.OK
    yes, no, cancel = service.coordinator.asked
    assert isinstance(yes, AskAgree)
    assert isinstance(no, AskAgree)
    assert isinstance(cancel, AskCancelRun)
    assert [(each.job, each.reason) for each in (yes, no, cancel)] == [
        (RUN.id, ""),
        (RUN.id, "not now"),
        (RUN.id, "wrong host"),
    ]
    assert (yes.agree, no.agree) == (True, False)


def test_a_refused_answer_says_who_may(service: Service, dr: Dr) -> None:
    service.coordinator.reply = lambda ask: Reply(
        id=ask.id, accepted=False, blockers=("alice is not one of those",)
    )
    ended = dr("job", "approve", RUN.id)
    assert ended.code == Exit.REFUSED
    assert "alice is not one of those" in ended.err
