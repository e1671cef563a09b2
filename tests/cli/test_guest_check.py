"""`dr guest check`: what each check found, exit codes, the picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dr.cli.failure import Exit
from dr.core.volatile import Checked
from dr.model.base import changed
from dr.model.checks import CheckResult, Ping, Screenshot
from dr.model.effects import Reply
from dr.model.events import AskCheck
from dr.model.operations import GUEST_CHECK, Operation, OperationState
from dr.model.records import StoredPicture
from tests.api.service import NOW, WEB, Service
from tests.cli.conftest import Dr

PASSED = CheckResult(check=Ping(address="10.0.0.5"), passed=True, took_s=0.25, evidence="an echo came back")
FAILED = CheckResult(check=Screenshot(), passed=False, why="its console has one colour only")
UNKNOWN = CheckResult(check=Screenshot(), passed=False, made=False, why="nobody told how it ended")


def ends(service: Service, *results: CheckResult) -> None:
    """The round that is asked for has ended like this."""
    state = service.coordinator.state
    well = all(each.passed for each in results)
    job = Operation(
        id="guest-check-3-7",
        kind=GUEST_CHECK,
        subject="web",
        why="",
        opened=NOW - 1.0,
        closed=NOW,
        state=OperationState.DONE if well else OperationState.FAILED,
    )
    state.operations[job.id] = job
    state.checked[WEB] = Checked(began=NOW - 1.0, ended=NOW, results=results)
    service.coordinator.reply = lambda ask: Reply(id=ask.id, accepted=True, operations=(job.id,))


def test_all_passed(service: Service, dr: Dr) -> None:
    ends(service, PASSED)
    done = dr("guest", "check", "web", "-o", "wide")
    assert done.code == 0, done.err
    (asked,) = service.coordinator.asked
    assert isinstance(asked, AskCheck)
    assert asked.guests == ("web",)
    for word in ("web", "ping:10.0.0.5", "passed", "0.25 s", "an echo came back"):
        assert word in done.out


@pytest.mark.parametrize(("result", "word"), [(FAILED, "failed"), (UNKNOWN, "unknown")])
def test_one_that_did_not_pass(service: Service, dr: Dr, result: CheckResult, word: str) -> None:
    ends(service, PASSED, result)
    done = dr("guest", "check", "web")
    assert done.code == Exit.FAILED
    assert (word in done.out, result.why in done.out) == (True, True)
    plain = dr("guest", "check", "web", "-o", "json")
    found = json.loads(plain.out)["items"]["web"]
    assert [each["result"] for each in found] == ["passed", word]
    assert dr("guest", "check", "web", "-o", "name").out == ""


def test_what_it_found_before_it_ran_as_now_is_not_shown(service: Service, dr: Dr) -> None:
    ends(service, PASSED)
    guests = service.coordinator.state.guests
    guests[WEB] = changed(guests[WEB], since=NOW + 1.0)
    assert "an echo" not in dr("guest", "check", "web", "-o", "wide").out


def test_the_picture_is_saved_whole_or_not_at_all(service: Service, dr: Dr, tmp_path: Path) -> None:
    ends(service, PASSED)
    file = tmp_path / "console.png"
    none = dr("guest", "check", "web", "--screenshot", str(file))
    assert none.code == Exit.MISSING
    assert "--check screenshot" in none.err
    assert list(tmp_path.glob("*.png*")) == [] == list(tmp_path.glob(".*.png*"))
    service.coordinator.pictures[WEB] = StoredPicture(guest=WEB, host="h1", at=NOW, png=b"\x89PNG")
    assert dr("guest", "check", "web", "--screenshot", str(file)).code == 0
    assert file.read_bytes() == b"\x89PNG"
    assert dr("guest", "check", "web", "db", "--screenshot", str(file)).code == Exit.USAGE


def test_a_picture_of_a_guest_that_failed_is_saved_too(service: Service, dr: Dr, tmp_path: Path) -> None:
    ends(service, FAILED)
    service.coordinator.pictures[WEB] = StoredPicture(guest=WEB, host="h1", at=NOW, png=b"\x89PNG")
    file = tmp_path / "console.png"
    assert dr("guest", "check", "web", "--screenshot", str(file)).code == Exit.FAILED
    assert file.read_bytes() == b"\x89PNG"
