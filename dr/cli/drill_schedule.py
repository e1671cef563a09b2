"""`dr drill schedule`: what is run by itself, when next, and what became of it. Not here: how it is made (`config`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dr.cli.failure import tell
from dr.cli.output import Column, Form, Output, age, clock, listing

if TYPE_CHECKING:
    from dr.api.schedule_schema import ScheduleRow


def _next(row: ScheduleRow) -> str:
    if row.waits:
        return "now, waits"
    return row.next or "not in sight"


def _last(row: ScheduleRow) -> str:
    return f"{row.last.state} {clock(row.last.due_wall, parts=False)}" if row.last is not None else ""


def _missed(row: ScheduleRow) -> str:
    if row.missed is None:
        return ""
    count = row.missed.since_last_run
    return f"{f'{count}, last ' if count else ''}{clock(row.missed.due_wall, parts=False)}"


def _why(row: ScheduleRow) -> str:
    if row.waits:
        return row.waits
    if row.missed is not None and row.missed.since_last_run:
        return f"missed: {row.missed.why}"
    return row.last.text if row.last is not None else ""


COLUMNS: tuple[Column[ScheduleRow], ...] = (
    Column("SCHEDULE", lambda row: row.name),
    Column("PLAYBOOK", lambda row: row.playbook),
    Column("CRON", lambda row: row.cron),
    Column("NEXT", _next),
    Column("WINDOW", lambda row: age(row.window_s)),
    Column("LAST", _last),
    Column("MISSED", _missed),
    Column("BLACKOUT", lambda row: f"now: {row.blackout}" if row.blackout else ""),
    Column("WHY", _why),
    Column("JOB", lambda row: row.last.job if row.last is not None else "", wide=True),
    Column("PARAMETERS", lambda row: ", ".join(f"{k}={v}" for k, v in row.params.items()), wide=True),
    Column("BLACKOUTS", lambda row: ", ".join(row.blackouts), wide=True),
    Column("REASON", lambda row: row.reason, wide=True),
)


def schedule(form: Output = Form.TABLE) -> None:
    """Playbooks and drills that are run by themselves: when next, how the last one ended, what was missed.

    They are made in the coordinator's file, under `schedules`.
    """
    from dr.api.schedule_schema import ScheduleList
    from dr.cli.client import connect

    found = connect().get("/v1/schedules", ScheduleList)
    listing(
        found,
        found.items,
        COLUMNS,
        form,
        name=lambda row: row.name,
        empty="Nothing is scheduled. Write it under `schedules` in the coordinator's file.",
    )
    if form in (Form.TABLE, Form.WIDE) and any(row.last is not None for row in found.items):
        tell("What a run did: dr job show JOB (with -o wide).")
