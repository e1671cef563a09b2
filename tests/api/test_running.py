"""Playbooks through the API: taken or refused with the field, answered, cancelled, and seen in their job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from dr.adapters.pki.credentials import client_context
from dr.adapters.pki.identity import Role
from dr.model.allowed import Allowed, Output, Report
from dr.model.base import changed
from dr.model.effects import PlannedStep, Reply
from dr.model.events import AskAgree, AskCancelRun, AskRun
from dr.model.operations import Operation
from dr.model.playbooks import CommandRun, Run, RunStep, StepSpec, StepState
from dr.model.records import HostPhase
from dr.model.verbs import Approve, Cordon, Drain
from tests.api.service import NOW, WALL, Service

BOOK = {"playbook": "x", "params": {"h": {"is": "host"}}, "steps": [{"cordon": "${h}"}]}
RUN = Operation(
    id="playbook-3-2",
    kind="playbook",
    subject="x",
    opened=NOW - 9,
    run=Run(
        playbook="x",
        params={"h": "h1"},
        rto_s=60.0,
        steps=(
            RunStep(
                spec=StepSpec(verb=Drain(drain=("h1",)), name="empty it"),
                state=StepState.DONE,
                began=NOW - 9,
                ended=NOW - 4,
                tries=2,
                jobs=("drain-3-3",),
            ),
            RunStep(spec=StepSpec(verb=Approve(approve="go on?")), state=StepState.RUNNING, began=NOW - 4),
            RunStep(spec=StepSpec(verb=Cordon(cordon=("h2",))), part="finally"),
        ),
    ),
)


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    context = client_context(service.credentials(Role.ADMIN, "alice"))
    with httpx.Client(base_url=service.url, verify=context, trust_env=False, timeout=5) as client:
        yield client


def test_a_playbook_is_run_with_what_it_is_told(http: httpx.Client, service: Service) -> None:
    service.coordinator.reply = lambda ask: Reply(id=ask.id, accepted=True, operations=("playbook-3-1",))
    told = http.post(
        "/v1/playbooks/run", json={"playbook": BOOK, "params": {"h": "h1"}, "reason": "work"}
    ).json()
    assert (told["kind"], told["operations"]) == ("run", ["playbook-3-1"])
    (ask,) = service.coordinator.asked
    assert isinstance(ask, AskRun)
    assert (ask.by, ask.reason, ask.params, ask.dry_run) == ("alice", "work", {"h": "h1"}, False)
    assert ask.playbook.steps[0] == StepSpec(verb=Cordon(cordon=("${h}",)))


def test_a_dry_run_tells_each_step(http: httpx.Client, service: Service) -> None:
    step = PlannedStep(part="steps", text="drain: h1", todo=("h1 is online",), takes_s=8.0, timeout_s=60.0)
    service.coordinator.reply = lambda ask: changed(
        Reply(id=ask.id, accepted=True, message="automation is paused"), steps=(step,)
    )
    told = http.post("/v1/playbooks/run", json={"playbook": BOOK, "dry_run": True}).json()
    assert told["message"] == "automation is paused"
    assert [(each["text"], each["todo"], each["takes_s"]) for each in told["steps"]] == [
        ("drain: h1", ["h1 is online"], 8.0)
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": [{"darin": "h1"}]}, "steps[0].darin: unknown key; did you mean drain?"),
        ({"steps": [{"cordon": "${x}"}]}, "steps[0].cordon: no parameter is named x"),
        ({"steps": [[]]}, "steps[0]: must be a step"),
        ({"steps": [None]}, "steps[0]: must be a step"),
        ({"steps": {"wait": {}}}, "steps.wait: must be a time"),
        ({"steps": []}, "steps: must be a step"),
        ({"steps": [{"cordon": "h1", "undo": []}]}, "steps[0].undo: must be"),
        ({"params": {"h": {"is": "host", "default": 5}}}, "params.h.default: must be"),
        ({"limits": {"timeout": 1e300}}, "limits.timeout: must be a time"),
        ({"playbook": "../x"}, "playbook: must be a name"),
    ],
)
def test_what_is_no_playbook_is_refused_with_the_field(
    changes: dict[str, Any], told: str, http: httpx.Client, service: Service
) -> None:
    answer = http.post("/v1/playbooks/run", json={"playbook": BOOK | changes, "params": {"h": "h1"}})
    assert answer.status_code == 400
    assert any(each.startswith(told) for each in answer.json()["blockers"]), answer.json()["blockers"]
    assert service.coordinator.asked == []


def test_a_refusal_has_every_reason(http: httpx.Client, service: Service) -> None:
    service.coordinator.reply = lambda ask: Reply(
        id=ask.id, accepted=False, blockers=("required: this", "and that")
    )
    answer = http.post("/v1/playbooks/run", json={"playbook": BOOK})
    assert answer.status_code == 409
    assert answer.json()["blockers"] == ["required: this", "and that"]


def test_answers_and_cancelling_name_the_job_and_who(http: httpx.Client, service: Service) -> None:
    http.post("/v1/operations/playbook-3-2/answer", json={"agree": False, "reason": "not now"})
    http.post("/v1/operations/playbook-3-2/cancel", json={"reason": "wrong host"})
    no, cancel = service.coordinator.asked
    assert isinstance(no, AskAgree)
    assert (no.job, no.agree, no.by, no.reason) == ("playbook-3-2", False, "alice", "not now")
    assert isinstance(cancel, AskCancelRun)
    assert (cancel.job, cancel.by, cancel.reason) == ("playbook-3-2", "alice", "wrong host")
    assert http.post("/v1/operations/playbook-3-2/answer", json={}).status_code in (400, 422), "yes or no?"


def test_an_agent_may_not_run_one(service: Service) -> None:
    context = client_context(service.credentials(Role.AGENT, "h1"))
    with httpx.Client(base_url=service.url, verify=context, trust_env=False, timeout=5) as agent:
        for path in ("playbooks/run", "operations/playbook-3-2/answer", "operations/playbook-3-2/cancel"):
            assert agent.post(f"/v1/{path}", json={"playbook": BOOK, "agree": True}).status_code == 403
    assert service.coordinator.asked == []


def test_its_job_tells_how_far_each_step_is(http: httpx.Client, service: Service) -> None:
    service.coordinator.state.operations[RUN.id] = RUN
    run = http.get(f"/v1/operations/{RUN.id}").json()["item"]["run"]
    assert (run["params"], run["part"], run["rto_s"]) == ({"h": "h1"}, "steps", 60.0)
    drain, approve, last = run["steps"]
    assert (drain["text"], drain["state"], drain["took_s"], drain["tries"]) == ("empty it", "done", 5.0, 2)
    assert (drain["began_wall"], drain["jobs"]) == (WALL + NOW - 9, ["drain-3-3"])
    assert (approve["text"], approve["state"], approve["took_s"]) == ("approve: go on?", "running", 4.0)
    assert (last["part"], last["state"], last["took_s"], last["began_wall"]) == (
        "finally",
        "waiting",
        None,
        None,
    )


SAID = Output(
    operation="playbook-3-9",
    command="command-L1-3-10",
    step=2,
    name="update",
    on="h1",
    argv=("/usr/bin/dnf", "-y", "upgrade"),
    report=Report(state="ended", code=1, output="no\x1b[2J space\n", bytes=12, digest="abc"),
    at=NOW - 5,
)


def test_what_commands_said_is_told_with_how_they_ended(http: httpx.Client, service: Service) -> None:
    service.coordinator.outputs_kept = [SAID, changed(SAID, operation="playbook-3-8")]
    (item,) = http.get("/v1/operations/playbook-3-9/outputs").json()["items"]
    assert (item["step"], item["on"], item["name"], item["code"]) == (2, "h1", "update", 1)
    assert (item["output"], item["output_bytes"], item["output_sha256"]) == ("no\x1b[2J space\n", 12, "abc")
    assert item["wall"] == WALL + NOW - 5
    assert http.get("/v1/operations/playbook-3-7/outputs").json()["items"] == []
    assert http.get("/v1/operations/..%2f/outputs").status_code == 404
    assert http.get("/v1/operations/playbook/outputs").status_code == 404


def test_the_allow_list_is_told_with_what_each_needs(http: httpx.Client, service: Service) -> None:
    tell = Allowed(name="tell", argv=("/opt/tell", "${whom}"), where="guest")
    state = service.coordinator.state
    state.settings = changed(state.settings, commands={"tell": tell})
    (item,) = http.get("/v1/commands").json()["items"]
    assert (item["name"], item["where"], item["argv"]) == ("tell", "guest", ["/opt/tell", "${whom}"])
    assert item["params"] == ["whom"]


def test_agents_learn_nothing_of_commands(service: Service) -> None:
    context = client_context(service.credentials(Role.AGENT, "h1"))
    with httpx.Client(base_url=service.url, verify=context, trust_env=False, timeout=5) as agent:
        for path in ("commands", "operations/playbook-3-9/outputs"):
            assert agent.get(f"/v1/{path}").status_code == 403


def test_a_job_tells_what_came_of_each_command(http: httpx.Client, service: Service) -> None:
    run = RUN.run
    assert run is not None
    command = CommandRun(
        id="command-L1-3-10",
        on="h1",
        host="h1",
        boot_id="b",
        phase=HostPhase.MAINTENANCE,
        argv=("/usr/bin/dnf",),
        at=NOW - 9,
        limit_s=60.0,
        state="failed",
        code=1,
        last="no space",
        said="exit code 1 after 2.0 s: no space",
    )
    steps = (changed(run.steps[0], commands=(command,)), *run.steps[1:])
    service.coordinator.state.operations[RUN.id] = changed(RUN, run=changed(run, steps=steps))
    (told,) = http.get(f"/v1/operations/{RUN.id}").json()["item"]["run"]["steps"][0]["commands"]
    assert (told["on"], told["state"], told["code"], told["last"]) == ("h1", "failed", 1, "no space")
