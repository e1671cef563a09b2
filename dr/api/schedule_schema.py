"""The shape of what is told of schedules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dr.api.shapes import Document, Part


class LastRun(Part):
    """The last run that a schedule began."""

    job: str
    due_wall: float = Field(description="the time of the schedule that it was begun for")
    state: Literal["open", "done", "failed", "unknown"]
    text: str = ""


class Missed(Part):
    """The last time that was missed."""

    due_wall: float
    why: str
    since_last_run: int = Field(description="so many were, since one began")


class ScheduleRow(Part):
    name: str
    playbook: str
    playbook_kind: Literal["playbook", "drill"]
    params: dict[str, str] = {}
    cron: str
    zone: str
    window_s: float
    blackouts: list[str] = []
    reason: str = ""
    next_wall: float | None = Field(
        default=None, description="the next time in no blackout; null: not in sight"
    )
    next: str = Field(default="", description="the same, as its zone writes it")
    blackout: str = Field(default="", description="the one that it is now")
    waits: str = Field(default="", description="it is due, and this is why it has not begun yet")
    last: LastRun | None = None
    missed: Missed | None = None


class ScheduleList(Document):
    kind: Literal["schedules"] = "schedules"
    items: list[ScheduleRow] = []
