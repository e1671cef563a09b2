"""Each time of a schedule is decided about once: it begins, waits, is missed and told, or lies in a blackout."""

from __future__ import annotations

import pytest

from dr.core.playbooks import due
from dr.core.playbooks.due import Lookout
from dr.model.base import changed
from dr.model.effects import Notify
from dr.model.events import AskPause, AskResume, Reconfigured, Tick
from dr.model.operations import OperationState
from dr.model.schedules import Schedule, ScheduleRecord
from tests.core.build import Bench, guest
from tests.core.playbooks.test_check import read
from tests.core.playbooks.test_due import at, schedule

NINE = at("2026-06-01T09:00:00")
BOOK = read("playbook: look\nsteps: [{wait: 30s}]")
HOURLY = changed(schedule("0 * * * *"), playbook=BOOK, window=1800.0)


class Clocked:
    """A bench with schedules, whose wall clock the test sets; it was last looked at a minute before nine."""

    def __init__(self, **schedules: Schedule) -> None:
        self.bench = Bench().put(guest("g1", "h1"))
        self.lookout = Lookout()
        self.configure(**schedules)
        self.wall = NINE - 60.0
        self.look()

    def configure(self, **schedules: Schedule) -> None:
        settings = changed(self.bench.state.settings, schedules=schedules)
        self.bench.send(Reconfigured(settings=settings))

    def look(self, wall: float | None = None) -> None:
        """As the runtime does, ten seconds at least after the last time."""
        self.wall = self.wall + due.TRY_AGAIN_S if wall is None else wall
        state = self.bench.state
        for event in self.lookout.look(state.settings.schedules, state.schedules, self.wall):
            self.bench.send(event)
        self.bench.hear()
        self.bench.send(Tick())

    def restart(self) -> None:
        """Another process looks at the clock."""
        self.lookout = Lookout()

    def record(self, name: str = "s") -> ScheduleRecord:
        return self.bench.state.schedules[name]

    def jobs(self, name: str = "schedule s") -> list[str]:
        return [op.id for op in self.bench.state.operations.values() if op.asked_by == name]

    def told(self) -> list[str]:
        """What people are told of missed ones."""
        alerts = [each.alert for each in self.bench.effects if isinstance(each, Notify) and not each.cleared]
        return [f"{each.what}: {each.why}" for each in alerts if each.key.startswith("schedule/")]

    def end(self, job: str) -> None:
        draft = self.bench.draft()
        draft.close_operation(self.bench.state.operations[job], OperationState.DONE.value, "over")
        self.bench.state.apply(draft)


@pytest.fixture
def clocked() -> Clocked:
    return Clocked(s=HOURLY)


def test_it_begins_when_it_is_due_once_also_for_another_process(clocked: Clocked) -> None:
    assert not clocked.jobs(), "what was before it was there is not due"
    clocked.look(NINE)
    (job,) = clocked.jobs()
    operation = clocked.bench.state.operations[job]
    assert (operation.kind, operation.subject) == ("playbook", "look")
    assert operation.why == "due Mon 2026-06-01 09:00 UTC"
    clocked.end(job)
    clocked.restart()
    clocked.look(NINE + 60.0)
    assert clocked.jobs() == [job]
    assert (clocked.record().decided, clocked.record().run, clocked.record().run_at) == (NINE, job, NINE)
    assert clocked.told() == []


def test_one_that_still_runs_makes_the_next_one_wait_and_then_missed(clocked: Clocked) -> None:
    clocked.look(NINE)
    (job,) = clocked.jobs()
    clocked.look(NINE + 3600.0)
    assert clocked.record().waits == f"{job} of schedule s is under way"
    assert clocked.told() == []
    clocked.look(NINE + 3600.0 + 1799.0)
    clocked.look(NINE + 3600.0 + 1810.0)
    assert clocked.jobs() == [job]
    (told,) = clocked.told()
    assert told == (
        "schedule s: Mon 2026-06-01 10:00 UTC was missed: look was not run: "
        f"it could not begin in time: {job} of schedule s is under way"
    )
    clocked.look()
    assert len(clocked.told()) == 1
    clocked.end(job)
    clocked.look(NINE + 2 * 3600.0)
    assert len(clocked.jobs()) == 2
    assert "schedule/s/missed" not in clocked.bench.state.alerts, "it runs again"


def test_one_that_ends_within_the_window_lets_the_next_begin_late(clocked: Clocked) -> None:
    clocked.look(NINE)
    (job,) = clocked.jobs()
    clocked.look(NINE + 3600.0)
    clocked.end(job)
    clocked.look()
    assert clocked.record().run_at == NINE + 3600.0
    assert clocked.record().waits == ""
    assert clocked.told() == []


def test_two_schedules_that_are_due_at_once_come_one_after_the_other() -> None:
    other = changed(HOURLY, playbook=changed(BOOK, playbook="other"))
    clocked = Clocked(s=HOURLY, t=other)
    clocked.look(NINE)
    (first,) = clocked.jobs()
    assert clocked.jobs("schedule t") == []
    clocked.end(first)
    clocked.look()
    assert len(clocked.jobs("schedule t")) == 1


def test_what_came_while_nobody_was_there_is_missed_and_told_at_once_and_the_last_may_still_begin(
    clocked: Clocked,
) -> None:
    clocked.restart()
    clocked.look(NINE + 5 * 3600.0 + 60.0)
    assert clocked.told() == [
        "schedule s: 5 times from Mon 2026-06-01 09:00 UTC to Mon 2026-06-01 13:00 UTC were missed: "
        "look was not run: the coordinator was not there to begin it"
    ]
    assert len(clocked.jobs()) == 1
    assert clocked.record().run_at == NINE + 5 * 3600.0


def test_beyond_its_window_it_does_not_begin(clocked: Clocked) -> None:
    clocked.restart()
    clocked.look(NINE + 1800.0)
    assert clocked.jobs() == []
    assert len(clocked.told()) == 1
    assert clocked.record().missed_at == NINE


def test_a_clock_that_is_set_forward_and_back_runs_nothing_twice(clocked: Clocked) -> None:
    clocked.look(NINE + 5 * 3600.0)
    (job,) = clocked.jobs()
    clocked.end(job)
    for minute in range(0, 6 * 60 - 1, 10):
        clocked.look(NINE + minute * 60.0)
    assert clocked.jobs() == [job]
    clocked.look(NINE + 6 * 3600.0)
    assert len(clocked.jobs()) == 2


def test_what_is_required_is_tried_again_until_the_window_is_over() -> None:
    needs = read("playbook: look\nrequire: [{guest: g1}]\nsteps: [{wait: 1s}]")
    clocked = Clocked(s=changed(HOURLY, playbook=needs))
    gone = clocked.bench.guest("g1")
    clocked.bench.put(changed(gone, phase="unknown"))
    clocked.look(NINE)
    assert "required: g1 is unknown" in clocked.record().waits
    clocked.bench.put(gone)
    clocked.look()
    assert len(clocked.jobs()) == 1


def test_a_pause_holds_it_and_a_missed_one_says_so(clocked: Clocked) -> None:
    clocked.bench.send(AskPause(id="p", by="ops", reason="network works"))
    clocked.look(NINE)
    clocked.look(NINE + 1800.0)
    assert clocked.jobs() == []
    assert "automation is paused by ops: network works" in clocked.told()[0]
    clocked.bench.send(AskResume(id="r", by="ops"))
    clocked.look()
    assert clocked.jobs() == [], "it is over"


def test_on_a_restored_store_a_time_is_missed_for_good(clocked: Clocked) -> None:
    clocked.bench.state.cluster = changed(clocked.bench.state.cluster, restored="restored by ops")
    clocked.look(NINE)
    assert "whether it was run is not known" in clocked.told()[0]
    clocked.bench.state.cluster = changed(clocked.bench.state.cluster, restored="")
    clocked.look()
    assert clocked.jobs() == []


def test_a_blackout_is_noted_and_alarms_nobody() -> None:
    clocked = Clocked(s=changed(schedule("0 * * * *", "UTC", "2026-06-01"), playbook=BOOK))
    clocked.look(NINE)
    clocked.look(NINE + 4 * 3600.0)
    assert (clocked.jobs(), clocked.told()) == ([], [])
    assert clocked.record().left_out == NINE + 4 * 3600.0
    clocked.look(at("2026-06-02T00:00:00"))
    assert len(clocked.jobs()) == 1


def test_nothing_begins_late_in_a_blackout() -> None:
    late = changed(schedule("50 23 31 5 *", "UTC", "2026-06-01"), playbook=BOOK, window=3600.0)
    clocked = Clocked(s=late)
    clocked.wall = at("2026-05-31T23:40:00")
    clocked.bench.state.schedules["s"] = changed(clocked.record(), decided=clocked.wall)
    clocked.look(at("2026-06-01T00:05:00"))
    assert clocked.jobs() == []
    assert clocked.record().waits == "it is in the blackout 2026-06-01"


def test_other_times_begin_anew_and_one_that_is_gone_is_forgotten(clocked: Clocked) -> None:
    clocked.configure(s=changed(HOURLY, cron="*/5 * * * *"))
    clocked.look(NINE + 1000.0)
    assert (clocked.jobs(), clocked.told()) == ([], []), "the times that it has now were not due then"
    clocked.configure()
    assert clocked.bench.state.schedules == {}


def test_what_waits_for_the_same_reason_writes_nothing(clocked: Clocked) -> None:
    clocked.bench.send(AskPause(id="p", by="ops", reason="network works"))
    clocked.look(NINE)
    revision = clocked.bench.state.revision
    clocked.look()
    clocked.look()
    assert clocked.bench.state.revision == revision
