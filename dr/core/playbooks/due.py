"""Which times a schedule means, in its own time zone; which of them have come and are not decided about.

As in Debian's cron: a time that daylight saving leaves out comes right after the change, one that it repeats, once.
A function of its arguments and of the machine's time zones; no clock is read. Not here: what is decided as one comes
(`scheduled`), whose clock that is (`coordinator.service`, `sim.coordinator`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice

from cronsim import CronSim

from dr.model.events import ScheduleDue
from dr.model.schedules import Blackout, Schedule, ScheduleRecord, zone_of

FOUND_MAX = 100  # times that one look tells of, the newest; that there are more is told
COMING_MAX = 1000  # times that are gone through for one that lies in no blackout
CHANGE_S = 3 * 3600.0  # longer than any change of the clock: going back begins beyond it
LOOK_S = 1.0  # how often the clock is looked at
TRY_AGAIN_S = 10.0


def coming(schedule: Schedule, after: float) -> float | None:
    """The first time after that, in a blackout or not; None: there is none."""
    return next(_forward(schedule, after), None)


def next_run(schedule: Schedule, after: float) -> float | None:
    """The first time after that that lies in no blackout; None: not in sight."""
    found = islice(_forward(schedule, after), COMING_MAX)
    return next((at for at in found if blackout(schedule, at) is None), None)


def blackout(schedule: Schedule, at: float) -> Blackout | None:
    """Which one that time lies in."""
    day = _local(schedule, at).date()
    return next((days for days in schedule.blackouts if days.first <= day <= days.last), None)


def shown(schedule: Schedule, at: float) -> str:
    """A time as people of that zone write it."""
    return f"{_local(schedule, at):%a %Y-%m-%d %H:%M} {schedule.zone}"


def _local(schedule: Schedule, at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone(zone_of(schedule.zone))


def _forward(schedule: Schedule, after: float) -> Iterator[float]:
    for each in CronSim(schedule.cron, _local(schedule, after)):
        if (at := each.timestamp()) > after:
            yield at


def _since(schedule: Schedule, after: float, until: float) -> Iterator[float]:
    """Times after the one and up to the other, the newest first."""
    begin = _local(schedule, until) + timedelta(seconds=CHANGE_S)
    for each in CronSim(schedule.cron, begin.replace(microsecond=0), reverse=True):
        at = each.timestamp()
        if at <= after:
            return
        if at <= until:
            yield at


class Lookout:
    """Looks at the clock for the coordinator: what is to be decided about now."""

    def __init__(self) -> None:
        self._next: dict[str, tuple[str, float, float | None]] = {}
        self._told: dict[str, tuple[tuple[float, ...], float]] = {}

    def look(
        self, schedules: Mapping[str, Schedule], records: Mapping[str, ScheduleRecord], wall: float
    ) -> list[ScheduleDue]:
        """What has not been decided about is told again from time to time."""
        found = []
        for name, schedule in schedules.items():
            event = self._due(name, schedule, records.get(name), wall)
            if event is None:
                continue
            newest, at = self._told.get(name, ((-1.0,), 0.0))
            if newest == event.times[-1:] and 0 <= wall - at < TRY_AGAIN_S:
                continue
            self._told[name] = (event.times[-1:], wall)
            found.append(event)
        return found

    def _due(
        self, name: str, schedule: Schedule, record: ScheduleRecord | None, wall: float
    ) -> ScheduleDue | None:
        if record is None or record.times != schedule.times or record.ahead(wall):
            return ScheduleDue(name=name, wall=wall)
        first = self._first(name, schedule, record.decided)
        if first is None or wall < first:
            return None
        some = list(islice(_since(schedule, record.decided, wall), FOUND_MAX + 1))
        times = tuple(reversed(some[:FOUND_MAX]))
        now = blackout(schedule, wall)
        return ScheduleDue(
            name=name,
            wall=wall,
            times=times,
            left_out=tuple(at for at in times if blackout(schedule, at) is not None),
            more=len(some) > FOUND_MAX,
            blackout=now.text() if now is not None else "",
        )

    def _first(self, name: str, schedule: Schedule, after: float) -> float | None:
        """As `coming`; worked out once for each time that was decided about."""
        times, since, at = self._next.get(name, ("", 0.0, None))
        if (times, since) != (schedule.times, after):
            at = coming(schedule, after)
            self._next[name] = (schedule.times, after, at)
        return at
