"""Schedules: when which playbook is run by itself, and what is kept of it.

Here: how they are written, as records. Not here: which times that means (`core.playbooks.due`), what is decided as
such a time comes (`core.playbooks.scheduled`), the coordinator's file (`dr.cli.config_schedules`).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, tzinfo
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from dr.model.base import Record
from dr.model.playbooks import Playbook
from dr.model.words import Duration, Kind, Many, Problems, Where

CRON_MAX = 200  # characters
WINDOW_S_MIN = 60.0
BLACKOUTS_MAX = 100
SCHEDULES_MAX = 100
AHEAD_S = 24 * 3600.0  # a clock that was set back by less finds nothing due until it has caught up


def cron_of(text: str) -> str:
    """Raises ValueError."""
    if len(text) > CRON_MAX or len(text.split()) != 5:
        raise ValueError(f"five fields, and at most {CRON_MAX} characters")
    try:
        next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(str(error).lower()) from None
    except StopIteration:
        raise ValueError("it never comes") from None
    return " ".join(text.split())


def zone_of(text: str) -> tzinfo:
    """Raises ValueError. UTC needs no time zones on the machine."""
    if text == "UTC":
        return UTC
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        raise ValueError("this machine knows no such time zone") from None


class Cron(Kind):
    """When it is due."""

    means = (
        'minute, hour, day of the month, month and day of the week as in crontab(5), such as "0 3 * * sun"'
    )

    def read(self, value: Any, where: Where, problems: Problems) -> str:
        try:
            if isinstance(value, str):
                return cron_of(value)
            hint = ""
        except ValueError as error:
            hint = f" ({error})"
        self.wrong(value, where, problems, hint)
        return ""


class Zone(Kind):
    """Whose clock that is."""

    means = "a time zone such as Europe/Vienna, or UTC"

    def read(self, value: Any, where: Where, problems: Problems) -> str:
        try:
            if isinstance(value, str):
                zone_of(value)
                return value
        except ValueError:
            pass
        self.wrong(value, where, problems)
        return ""


class Window(Duration):
    """How late it may be."""

    means = "a time such as 30m or 2h, from 1m to 240h"

    def read(self, value: Any, where: Where, problems: Problems) -> float:
        seconds = super().read(value, where, problems)
        if not problems and seconds < WINDOW_S_MIN:
            self.wrong(value, where, problems)
        return seconds


class Blackout(Record):
    """Days on which nothing is begun, both of them among these; in the schedule's own time zone."""

    first: date
    last: date

    def text(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}..{self.last}"


class Days(Kind):
    """One day, or all from one to another."""

    means = "a day such as 2026-12-24, or days such as 2026-12-24..2027-01-02"

    def read(self, value: Any, where: Where, problems: Problems) -> Blackout | None:
        try:
            if isinstance(value, str):
                first, dots, last = value.partition("..")
                days = Blackout(
                    first=date.fromisoformat(first), last=date.fromisoformat(last if dots else first)
                )
                if days.first <= days.last:
                    return days
        except ValueError:
            pass
        self.wrong(value, where, problems)
        return None

    def write(self, value: Any) -> str:
        days: Blackout = value
        return days.text()


class Schedule(Record):
    """One of the configuration. Its playbook was read with it: nothing is read when it is due."""

    playbook: Annotated[Playbook, "what is run"]
    cron: Annotated[str, Cron(), "when it is due"]
    params: Annotated[dict[str, str], "what a run is told"] = {}
    window: Annotated[float, Window(), "so late it may begin; then it is missed"] = 3600.0
    zone: Annotated[str, Zone(), "whose clock `cron` and `blackouts` mean"] = "UTC"
    blackouts: Annotated[tuple[Blackout, ...], Many(Days()), "days on which it is not begun"] = ()
    reason: Annotated[str, "as every run of it says"] = ""

    @property
    def times(self) -> str:
        """What its times are made of: where that is another, none of before counts."""
        return f"{self.cron} {self.zone}"


class ScheduleRecord(Record):
    """What is kept of one schedule. Times are unix seconds: they are about dates."""

    name: str
    times: str  # of the schedule as of `decided`
    decided: float  # no time up to this is looked at again
    tried: float = 0.0  # the time that it is being tried to begin for; 0: none
    waits: str = ""  # why that has not begun yet
    run: str = ""  # the last job that it began, and for which time
    run_at: float = 0.0
    missed_at: float = 0.0  # the last time that was missed
    missed: str = ""  # why
    missed_since: int = 0  # so many since it last began
    left_out: float = 0.0  # the last time that lay in a blackout

    def ahead(self, wall: float) -> bool:
        """The clock was wrong by days when it was last looked at, or is now."""
        return self.decided - wall > AHEAD_S
