"""`dr drill`: a dry run over the served API, decided by the core, and its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dr.cli.failure import Exit
from dr.model.base import changed
from dr.model.effects import Reply
from dr.model.events import AskKeepDrill, OperatorAsk
from dr.model.facts import Needs
from tests.api.service import Service
from tests.cli.conftest import Dr
from tests.core.build import Bench, guest
from tests.core.test_drills import MEASURED, site


@pytest.fixture
def made(service: Service) -> Bench:
    """Three hosts with fencing that was measured; two guests on h1, one on h2, behind the API."""
    made = site(guest("a", "h1", starts=(MEASURED,)), guest("b", "h1", starts=(MEASURED,)), guest("c", "h2"))
    made.put(*(changed(made.host(name), labels={"rack": rack}) for name, rack in (("h1", "a"), ("h2", "a"))))

    def decided(asked: OperatorAsk) -> Reply:
        if isinstance(asked, AskKeepDrill):
            service.coordinator.drills[asked.report.id] = asked.report
        return next(each for each in made.send(asked) if isinstance(each, Reply))

    service.coordinator.state = made.state
    service.coordinator.reply = decided
    return made


def test_a_host_is_taken_away_on_paper(made: Bench, dr: Dr) -> None:
    ended = dr("drill", "run", "--lose", "h1")
    assert ended.code == Exit.OK, ended.err
    head, *rows = [line.split() for line in ended.out.splitlines()]
    assert head == ["GUEST", "FROM", "TO", "VERDICT", "AFTER", "WHY"]
    assert [row[0:2] + row[3:6] for row in rows] == [
        ["a", "h1", "passed", "6.5", "s"],
        ["b", "h1", "passed", "6.5", "s"],
    ]
    assert {row[2] for row in rows} <= {"h2", "h3"}
    assert ended.err.startswith("PASSED: 2 guests would run again, the last after")
    assert made.guest("a").holder == "h1", "nothing was touched"


def test_its_report_is_kept_and_read_again(made: Bench, service: Service, dr: Dr) -> None:
    dr("drill", "run", "--lose", "h1", "--rto", "5s", "--reason", "audit")
    (key,) = made.state.drills
    ask = service.coordinator.asked[-1]
    assert isinstance(ask, AskKeepDrill)
    assert (ask.by, ask.reason, ask.report.objective_s) == ("alice", "audit", 5.0)
    listed = dr("drill", "list")
    assert listed.out.splitlines()[1].split()[:4] == [key, "dry", "without", "h1"]
    told = dr("drill", "report", key, "-o", "json")
    assert told.code == Exit.FAILED, "as when it was run"
    document = json.loads(told.out)
    assert (document["kind"], document["state"], document["id"]) == ("drill", "done", key)
    report = document["report"]
    assert (report["verdict"], report["objective_s"], report["cluster"]) == ("failed", 5.0, "lab")
    assert report["guests"][0]["phases"][0] == {
        "phase": "detect", "begins_s": 0.0, "ends_s": 1.5, "known": "measured", "text": "",
    }  # fmt: skip
    assert report["ended"] >= report["began"] > 1.6e9


def test_one_that_is_not_kept_is_told_all_the_same(made: Bench, service: Service, dr: Dr) -> None:
    ended = dr("drill", "run", "--lose", "h1", "--no-save", "-o", "json")
    assert ended.code == Exit.OK
    document = json.loads(ended.out)
    assert (document["kept"], document["report"]["verdict"]) == (False, "passed")
    assert (made.state.drills, service.coordinator.asked) == ({}, [])
    again = dr("drill", "report", document["id"])
    assert again.code == Exit.OK, "as long as the coordinator runs"


def test_a_label_stands_for_all_that_have_it(made: Bench, dr: Dr) -> None:
    told = json.loads(dr("drill", "run", "--lose", "label:rack=a", "--no-save", "-o", "json").out)
    assert told["report"]["lost"] == ["h1", "h2"]
    assert told["report"]["title"] == "without h1, h2"


def test_every_host_one_after_the_other(made: Bench, dr: Dr) -> None:
    made.put(changed(made.guest("c"), needs=Needs(memory_mib=7900)))
    ended = dr("drill", "run", "--each")
    assert ended.code == Exit.FAILED
    lines = ended.out.splitlines()
    assert lines[0].split() == ["WITHOUT", "VERDICT", "GUESTS", "NO", "PLACE", "AFTER", "WHY"]
    assert [line.split()[0] for line in lines[1:]] == ["h2", "h1", "h3"], "the worst first, then the slowest"
    assert dr("drill", "run", "--pairs").code == Exit.FAILED


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), Exit.USAGE, "Which hosts are taken away?"),
        (("--lose", "h1", "--each"), Exit.USAGE, "One of these at a time."),
        (("drill-host", "source=h1", "--rto", "5m"), Exit.USAGE, "do not go with a playbook"),
        (("--lose", "h9"), Exit.MISSING, "There is no host h9."),
        (("--lose", "label:rack=z"), Exit.MISSING, "No host has the label rack=z."),
        (("--lose", "h1", "--rto", "soon"), Exit.USAGE, "'soon' is no time."),
        (("--pairs", "--rto", "5s"), Exit.BAD_DATA, "A sweep of pairs has no objective."),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: tuple[str, ...], code: Exit, told: str, made: Bench, dr: Dr
) -> None:
    ended = dr("drill", "run", *arguments)
    assert ended.code == code, ended.err
    assert told in ended.err
    assert made.state.drills == {}


def test_there_is_no_drill_of_that_name(made: Bench, dr: Dr) -> None:
    assert dr("drill", "report", "drill-1").code == Exit.MISSING
    assert "No drill was kept yet." in dr("drill", "list").err


def test_the_page_is_written_once(made: Bench, dr: Dr, tmp_path: Path) -> None:
    file = tmp_path / "drill.html"
    ended = dr("drill", "run", "--lose", "h1", "--html", str(file))
    assert ended.code == Exit.OK, ended.err
    assert file.read_text().startswith("<!DOCTYPE html>")
    (key,) = made.state.drills
    assert dr("drill", "report", key, "--html", str(file)).code == Exit.REFUSED
    written = dr("drill", "report", key, "--html", str(file), "--replace")
    assert (written.code, written.out) == (Exit.OK, "")
