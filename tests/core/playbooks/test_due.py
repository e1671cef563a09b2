"""Times of schedules: daylight saving, blackouts, a clock that jumps, and how much is looked at."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.core.playbooks import due
from dr.core.playbooks.due import FOUND_MAX, TRY_AGAIN_S, Lookout
from dr.model.base import changed
from dr.model.events import ScheduleDue
from dr.model.schedules import Days, Schedule, ScheduleRecord
from dr.model.words import Problems
from tests.core.playbooks.test_check import read

BOOK = read("playbook: x\nsteps: [{notify: hello}]")
VIENNA = "Europe/Vienna"


def schedule(cron: str, zone: str = "UTC", *blackouts: str) -> Schedule:
    days = tuple(found for each in blackouts if (found := Days().read(each, (), Problems())) is not None)
    assert len(days) == len(blackouts)
    return Schedule(playbook=BOOK, cron=cron, zone=zone, blackouts=days)


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def record(of: Schedule, decided: float) -> ScheduleRecord:
    return ScheduleRecord(name="s", times=of.times, decided=decided)


def looked(of: Schedule, decided: float, wall: float) -> ScheduleDue | None:
    return next(iter(Lookout().look({"s": of}, {"s": record(of, decided)}, wall)), None)


def all_times(of: Schedule, first: str, last: str) -> list[str]:
    """Found by looking every ten minutes, each time decided about at once; as UTC."""
    lookout, wall, decided, found = Lookout(), at(first), at(first), list[float]()
    while wall < at(last):
        wall += 600.0
        for event in lookout.look({"s": of}, {"s": record(of, decided)}, wall):
            found += event.times
            decided = event.times[-1]
    return [f"{datetime.fromtimestamp(each, ZoneInfo('UTC')):%m-%d %H:%M}" for each in found]


def test_a_time_that_the_change_to_summer_leaves_out_comes_once_right_after_it() -> None:
    daily = schedule("30 2 * * *", VIENNA)  # 02:00 to 03:00 is not there on March 29th
    assert all_times(daily, "2026-03-28T00:00:00", "2026-03-31T00:00:00") == [
        "03-28 01:30",
        "03-29 01:00",
        "03-30 00:30",
    ]


def test_a_time_that_the_change_to_winter_repeats_comes_once() -> None:
    daily = schedule("30 2 * * *", VIENNA)  # 02:00 to 03:00 is there twice on October 25th
    assert all_times(daily, "2026-10-24T00:00:00", "2026-10-27T00:00:00") == [
        "10-24 00:30",
        "10-25 00:30",
        "10-26 01:30",
    ]


def test_what_came_in_the_hour_that_is_repeated_is_found_in_its_second_half() -> None:
    daily = schedule("30 2 * * *", VIENNA)
    event = looked(daily, at("2026-10-24T12:00:00"), at("2026-10-25T01:10:00"))  # 02:10, for the second time
    assert event is not None
    assert event.times == (at("2026-10-25T00:30:00"),)


@settings(max_examples=60, deadline=None)
@given(
    cron=st.sampled_from(
        ["30 2 * * *", "0 * * * *", "15 2 * * sun", "0 3 1 * *", "5,35 1-3 * * *", "0 0 L * *"]
    ),
    zone=st.sampled_from([VIENNA, "America/New_York", "UTC", "Asia/Kolkata"]),
    begin=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1)),  # noqa: DTZ001  # a date, made one below
    hours=st.integers(1, 72),
)
def test_what_is_found_afterwards_is_what_was_foretold(
    cron: str, zone: str, begin: datetime, hours: int
) -> None:
    of = schedule(cron, zone)
    decided = begin.replace(tzinfo=ZoneInfo("UTC")).timestamp()
    wall = decided + timedelta(hours=hours).total_seconds()
    foretold, after = [], decided
    while (next_one := due.coming(of, after)) is not None and next_one <= wall:
        foretold.append(next_one)
        after = next_one
    event = looked(of, decided, wall)
    assert foretold[-FOUND_MAX:] == list(event.times if event is not None else ())
    assert foretold == sorted(set(foretold))


def test_blackouts_are_days_of_the_schedules_own_zone_and_the_next_run_is_after_them() -> None:
    of = schedule("0 0 * * *", VIENNA, "2026-12-24..2026-12-26")
    event = looked(of, at("2026-12-22T12:00:00"), at("2026-12-23T23:30:00"))  # the 24th there, the 23rd here
    assert event is not None
    assert event.left_out == (at("2026-12-24T00:00:00", VIENNA),)
    assert event.blackout == "2026-12-24..2026-12-26"
    assert event.times[0] == at("2026-12-23T00:00:00", VIENNA)
    assert due.next_run(of, at("2026-12-24T12:00:00")) == at("2026-12-27T00:00:00", VIENNA)


def test_a_new_schedule_and_one_with_other_times_is_told_of_without_any() -> None:
    of = schedule("0 3 * * *")
    assert Lookout().look({"s": of}, {}, 1000.0) == [ScheduleDue(name="s", wall=1000.0)]
    other = changed(record(of, 0.0), times="0 4 * * * UTC")
    assert Lookout().look({"s": of}, {"s": other}, at("2026-01-01T12:00:00"))[0].times == ()


def test_what_is_not_decided_about_is_told_again_but_not_at_every_look() -> None:
    of, lookout = schedule("0 3 * * *"), Lookout()
    records = {"s": record(of, at("2026-01-01T00:00:00"))}
    wall = at("2026-01-01T03:00:00")
    told = [bool(lookout.look({"s": of}, records, wall + second)) for second in range(25)]
    assert [second for second, each in enumerate(told) if each] == [0, TRY_AGAIN_S, 2 * TRY_AGAIN_S]


def test_a_clock_that_is_set_back_finds_nothing_until_it_has_caught_up() -> None:
    of = schedule("0 * * * *")
    decided = at("2026-01-01T12:00:00")
    assert looked(of, decided, at("2026-01-01T07:00:30")) is None
    event = looked(of, decided, at("2026-01-01T13:00:00"))
    assert event is not None
    assert event.times == (at("2026-01-01T13:00:00"),)


def test_a_clock_that_is_set_back_by_days_begins_anew() -> None:
    of = schedule("0 * * * *")
    assert looked(of, at("2027-01-01T12:00:00"), at("2026-01-01T12:00:30")) == ScheduleDue(
        name="s", wall=at("2026-01-01T12:00:30")
    )


def test_a_clock_that_is_set_forward_by_a_year_is_looked_at_for_so_many_times_only() -> None:
    of = schedule("* * * * *", VIENNA)
    event = looked(of, at("2026-01-01T12:00:00"), at("2027-01-01T12:00:00"))
    assert event is not None
    assert (len(event.times), event.more) == (FOUND_MAX, True)
    assert event.times[-1] == at("2027-01-01T12:00:00")


@pytest.mark.parametrize(
    "cron", ["0 3 * *", "0 25 * * *", "0 0 30 2 *", "", "@daily", "0 0 0 * * *", "* " * 200]
)
def test_what_is_no_time_is_refused(cron: str) -> None:
    from dr.model.schedules import cron_of

    with pytest.raises(ValueError, match=r"."):
        cron_of(cron)
