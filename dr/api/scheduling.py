"""Routes of schedules and hooks. Not here: how they are made (`dr.cli.config`), what they do (`core.playbooks`)."""

from __future__ import annotations

import time

from fastapi import APIRouter
from starlette.responses import Response

from dr.api.builtin_schema import BuiltIn, built_in
from dr.api.desk import Desk, built, encoded
from dr.api.schedule_schema import LastRun, Missed, ScheduleList, ScheduleRow
from dr.core.playbooks import due
from dr.core.state import State
from dr.model.operations import OperationState
from dr.model.schedules import Schedule, ScheduleRecord


def scheduling_routes(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["playbooks"])

    @api.get("/v1/schedules", response_model=ScheduleList)
    async def schedules() -> Response:
        """What is run by itself: when next, and what became of it last."""
        wall = time.time()
        return await built(
            desk,
            lambda snap: ScheduleList(
                items=[
                    _row(snap.state, name, schedule, wall)
                    for name, schedule in sorted(snap.state.settings.schedules.items())
                ]
            ),
        )

    @api.get("/v1/playbooks/failover", response_model=BuiltIn)
    async def failover() -> Response:
        """The failover that is built in, by the configuration in force, with its hooks."""
        return encoded(built_in(desk.coordinator.state.settings))

    return api


def _row(state: State, name: str, schedule: Schedule, wall: float) -> ScheduleRow:
    record = state.schedules.get(name)
    at = due.next_run(schedule, max(wall, record.decided) if record is not None else wall)
    now = due.blackout(schedule, wall)
    return ScheduleRow(
        name=name,
        playbook=schedule.playbook.playbook,
        playbook_kind=schedule.playbook.kind,
        params=schedule.params,
        cron=schedule.cron,
        zone=schedule.zone,
        window_s=schedule.window,
        blackouts=[each.text() for each in schedule.blackouts],
        reason=schedule.reason,
        next_wall=at,
        next=due.shown(schedule, at) if at is not None else "",
        blackout=now.text() if now is not None else "",
        waits=record.waits if record is not None else "",
        last=_last(state, record),
        missed=_missed(record),
    )


def _last(state: State, record: ScheduleRecord | None) -> LastRun | None:
    if record is None or not record.run:
        return None
    operation = state.operations.get(record.run)
    if operation is None:
        return LastRun(
            job=record.run, due_wall=record.run_at, state="unknown", text="it is not kept any more"
        )
    over = operation.state is not OperationState.OPEN and operation.steps
    return LastRun(
        job=record.run,
        due_wall=record.run_at,
        state=operation.state.value,
        text=operation.steps[-1].text if over else "",
    )


def _missed(record: ScheduleRecord | None) -> Missed | None:
    if record is None or not record.missed_at:
        return None
    return Missed(due_wall=record.missed_at, why=record.missed, since_last_run=record.missed_since)
