"""`dr drill schedule`: when next, how the last run ended, what was missed, over the served API."""

from __future__ import annotations

import json
import time

import pytest

from dr.cli.failure import Exit
from dr.model.base import changed
from dr.model.operations import Operation, OperationState, Step
from dr.model.schedules import Schedule, ScheduleRecord
from tests.api.service import Service
from tests.cli.conftest import Dr
from tests.core.playbooks.test_due import BOOK, schedule


@pytest.fixture
def scheduled(service: Service) -> Service:
    """One that ran and was missed since, one that waits, one that is new."""
    state = service.coordinator.state
    yearly: Schedule = schedule("0 3 1 1 *", "Europe/Vienna")
    state.settings = changed(
        state.settings,
        schedules={"ran": yearly, "waits": yearly, "new": changed(yearly, reason="proof", params={"a": "b"})},
    )
    now = time.time()
    state.operations["playbook-1-1"] = Operation(
        id="playbook-1-1",
        kind="playbook",
        subject=BOOK.playbook,
        state=OperationState.FAILED,
        steps=(Step(at=1.0, text="g1 is stopped, not running; 0 of 1 steps done, 3 s"),),
    )
    ran = ScheduleRecord(name="ran", times=yearly.times, decided=now, run="playbook-1-1", run_at=now - 9e6)
    state.schedules = {
        "ran": changed(ran, missed_at=now - 60.0, missed="automation was paused", missed_since=2),
        "waits": ScheduleRecord(
            name="waits", times=yearly.times, decided=0.0, tried=now, waits="h1 is fenced"
        ),
    }
    return service


def test_each_with_its_next_time_and_what_became_of_it(scheduled: Service, dr: Dr) -> None:
    ended = dr("drill", "schedule")
    assert ended.code == Exit.OK, ended.err
    head, *rows = ended.out.splitlines()
    assert head.split() == [
        "SCHEDULE", "PLAYBOOK", "CRON", "NEXT", "WINDOW", "LAST", "MISSED", "BLACKOUT", "WHY",
    ]  # fmt: skip
    new, ran, waits = rows
    assert "-01-01 03:00 Europe/Vienna" in new
    assert "failed " in ran
    assert "2, last " in ran
    assert ran.endswith("missed: automation was paused")
    assert "now, waits" in waits
    assert waits.endswith("h1 is fenced")


def test_as_json(scheduled: Service, dr: Dr) -> None:
    document = json.loads(dr("drill", "schedule", "-o", "json").out)
    assert (document["version"], document["kind"]) == (1, "schedules")
    new, ran, _ = document["items"]
    assert (new["params"], new["reason"], new["window_s"], new["last"]) == ({"a": "b"}, "proof", 3600.0, None)
    assert new["next_wall"] > time.time()
    assert ran["last"]["job"] == "playbook-1-1"
    assert ran["last"]["state"] == "failed"
    assert ran["missed"]["since_last_run"] == 2


def test_nothing_is_scheduled(service: Service, dr: Dr) -> None:
    ended = dr("drill", "schedule")
    assert (ended.code, ended.out) == (Exit.OK, "")
    assert "`schedules` in the coordinator's file" in ended.err
