"""Routes of playbooks: run one, answer what it asks, cancel it.

Not here: the language (`dr.model.playbooks`), files (`dr.cli.playbook_file`), what becomes of it (`dr.core.playbooks`).
"""

from __future__ import annotations

import re
import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from dr.api import programs, schema, views
from dr.api.asking import replied, submitted, who
from dr.api.desk import Desk, built, encoded
from dr.api.problem import Problem, missing
from dr.api.run_schema import AnswerBody, CommandList, OutputList, RunAccepted, RunBody
from dr.api.shapes import Body
from dr.core.playbooks.check import problems_of
from dr.model import events
from dr.model.playbooks import Playbook
from dr.model.words import Problems, dotted, read_fields

JOB = re.compile(r"[a-z-]+-[0-9]{1,12}-[0-9]{1,12}")


def running_routes(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["playbooks"])

    @api.post("/v1/playbooks/run", response_model=RunAccepted)
    async def run(request: Request, body: RunBody) -> Response:
        """Run it, or tell what each of its steps would do now."""
        ask = events.AskRun(
            **who(request, body),
            playbook=_read(body),
            params=body.params,
            dry_run=body.dry_run,
            wall=time.time(),
        )
        return encoded(views.run_accepted(await replied(desk, ask)))

    @api.post("/v1/operations/{job}/answer", response_model=schema.Accepted)
    async def answer(request: Request, job: str, body: AnswerBody) -> Response:
        """What the run of a playbook waits for: whether it may go on."""
        return await submitted(desk, events.AskAgree(**who(request, body), job=job, agree=body.agree))

    @api.post("/v1/operations/{job}/cancel", response_model=schema.Accepted)
    async def cancel(request: Request, job: str, body: Body) -> Response:
        """No step of it begins any more, but what it does in the end."""
        return await submitted(desk, events.AskCancelRun(**who(request, body), job=job))

    @api.get("/v1/operations/{job}/outputs", response_model=OutputList)
    async def outputs(job: str) -> Response:
        """What the commands said that the run of a playbook has run."""
        if not JOB.fullmatch(job):
            raise missing("job", job)
        found = await desk.coordinator.outputs(job)
        return await built(desk, lambda snap: programs.outputs(snap, found))

    @api.get("/v1/commands", response_model=CommandList)
    async def commands() -> Response:
        """What playbooks may run on hosts and in guests."""
        return await built(desk, programs.allowed)

    return api


def _read(body: RunBody) -> Playbook:
    """Raises Problem."""
    problems = Problems()
    playbook = read_fields(Playbook, body.playbook, (), problems)
    found = problems.found + (problems_of(playbook) if playbook is not None else [])
    if playbook is None or found:
        wrong = [f"{dotted(where)}: {text}" for where, text in found]
        raise Problem(400, "invalid", "This playbook cannot be run.", blockers=wrong)
    read: Playbook = playbook
    return read
