"""Which times a schedule means, in its own time zone; which of them have come and are not decided about.

As in Debian's cron: a time that daylight saving leaves out comes right after the change, one that it repeats, once.
A function of its arguments and of the machine's time zones; no clock is read. Not here: what is decided as one comes
(`scheduled`), whose clock that is (`coordinator.service`, `sim.coordinator`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple

from cronsim import CronSim

from dr.model.events import ScheduleDue
from dr.model.schedules import Blackout, Schedule, ScheduleRecord, zone_of

FOUND_MAX = 100  # times that one look tells of, the newest; that there are more is told
COMING_MAX = 1000  # times that are gone through for one that lies in no blackout
CHANGE_S = 3 * 3600.0  # longer than any change of the clock: beside one, going back begins beyond it
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
    begin = _local(schedule, until)
    around = {_local(schedule, until + beside).utcoffset() for beside in (-CHANGE_S, CHANGE_S)}
    # In an hour that comes twice, what came the first time is not before it by the clock.
    ahead_s = 1.0 if around == {begin.utcoffset()} else CHANGE_S
    begin = (begin + timedelta(seconds=ahead_s)).replace(microsecond=0)
    for each in CronSim(schedule.cron, begin, reverse=True):
        at = each.timestamp()
        if at <= after:
            return
        if at <= until:
            yield at


class _Told(NamedTuple):
    """What was told of a schedule, and when; `newer`: the first time after all of it."""

    times: str
    decided: float
    wall: float
    newer: float | None

    def holds(self, schedule: Schedule, record: ScheduleRecord | None, wall: float) -> bool:
        """Nothing is new since, and it is too soon to tell it again."""
        same = record is not None and (schedule.times, record.decided) == (self.times, self.decided)
        before = self.newer is None or wall < self.newer
        return same and before and 0 <= wall - self.wall < TRY_AGAIN_S


class Lookout:
    """Looks at the clock for the coordinator: what is to be decided about now."""

    def __init__(self) -> None:
        self._next: dict[str, tuple[str, float, float | None]] = {}
        self._told: dict[str, _Told] = {}

    def look(
        self, schedules: Mapping[str, Schedule], records: Mapping[str, ScheduleRecord], wall: float
    ) -> list[ScheduleDue]:
        """What has not been decided about is told again from time to time."""
        found = []
        for name, schedule in schedules.items():
            told = self._told.get(name)
            if told is not None and told.holds(schedule, records.get(name), wall):
                continue
            event = self._due(name, schedule, records.get(name), wall)
            if event is None:
                self._told.pop(name, None)
                continue
            if event.times:
                newer = coming(schedule, event.times[-1])
                self._told[name] = _Told(schedule.times, records[name].decided, wall, newer)
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
