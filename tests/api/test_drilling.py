"""Routes of drills: begun, followed, one at a time, in slices beside everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Iterator
from typing import Any

import httpx
import pytest

from dr.adapters.pki.credentials import client_context
from dr.adapters.pki.identity import Role
from dr.api import slices
from dr.core.drills import sweep
from dr.core.drills.sweep import Progress
from dr.model.drills import DrillReport
from dr.model.effects import Reply
from dr.model.events import AskKeepDrill, OperatorAsk
from dr.model.operations import Operation
from tests.api.service import Service
from tests.core.build import Bench, guest
from tests.core.test_drills import report_of, site

FOLLOWED_S = 10.0


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    context = client_context(service.credentials(Role.ADMIN, "alice"))
    with httpx.Client(base_url=service.url, verify=context, trust_env=False, timeout=5) as client:
        yield client


@pytest.fixture
def made(service: Service) -> Bench:
    made = site(guest("a", "h1"))
    service.coordinator.state = made.state

    def decided(asked: OperatorAsk) -> Reply:
        if isinstance(asked, AskKeepDrill):
            service.coordinator.drills[asked.report.id] = asked.report
        return next(each for each in made.send(asked) if isinstance(each, Reply))

    service.coordinator.reply = decided
    return made


def over(http: httpx.Client, key: str) -> dict[str, Any]:
    until = time.monotonic() + FOLLOWED_S
    while time.monotonic() < until:
        told: dict[str, Any] = http.get(f"/v1/drills/{key}").json()
        if told["state"] != "running":
            return told
        time.sleep(0.02)
    raise AssertionError("it does not end")


def endless(*_: Any) -> Generator[Progress, None, DrillReport]:
    """A sweep that goes on until it is told to end."""
    number = 0
    while not ENOUGH:
        yield Progress(number, 1000)
        number += 1
    return report_of("")


ENOUGH: list[bool] = []


def test_one_drill_at_a_time_and_how_far_it_is(
    made: Bench, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ENOUGH.clear()
    monkeypatch.setattr(sweep, "each", endless)
    begun = http.post("/v1/drills/run", json={"sweep": "each"}).json()
    try:
        assert begun["state"] == "running"
        told = http.get(f"/v1/drills/{begun['id']}").json()
        assert (told["state"], told["of"], told["report"]) == ("running", 1000, None)
        second = http.post("/v1/drills/run", json={"lose": ["h1"]})
        assert second.status_code == 503
        assert begun["id"] in second.json()["detail"]
        assert http.get("/v1/status").status_code == 200, "everything else is answered meanwhile"
    finally:
        ENOUGH.append(True)
    assert over(http, begun["id"])["state"] == "done"
    third = http.post("/v1/drills/run", json={"lose": ["h1"]}).json()
    assert over(http, third["id"])["report"]["verdict"] == "passed"
    assert [row["id"] for row in http.get("/v1/drills").json()["items"]] == [begun["id"], third["id"]]


def test_a_report_that_is_refused_is_told_all_the_same(
    made: Bench, http: httpx.Client, service: Service
) -> None:
    service.coordinator.reply = lambda ask: Reply(id=ask.id, accepted=False, blockers=("it is too large",))
    told = over(http, http.post("/v1/drills/run", json={"lose": ["h1"]}).json()["id"])
    assert (told["state"], told["kept"], told["why"]) == ("done", False, "it is too large")
    assert told["report"]["verdict"] == "passed"


def test_what_goes_wrong_in_a_drill_ends_it(
    made: Bench, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Generator[Progress, None, DrillReport]:
        yield Progress(0, 1)
        raise RuntimeError("a bug")

    monkeypatch.setattr(sweep, "each", broken)
    told = over(http, http.post("/v1/drills/run", json={"sweep": "each"}).json()["id"])
    assert (told["state"], told["why"], told["report"]) == ("failed", "RuntimeError: a bug", None)
    assert http.post("/v1/drills/run", json={"lose": ["h1"]}).status_code == 200, "and the next one may begin"


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({}, 400, "Which hosts are taken away?"),
        ({"lose": ["h1"], "sweep": "each"}, 400, "Which hosts are taken away?"),
        ({"lose": ["h1"], "rto_s": -1}, 400, "not valid"),
        ({"lose": ["h1"], "unknown": 1}, 400, "not valid"),
        ({"lose": ["h1"] * 1001}, 400, "not valid"),
        ({"sweep": "triples"}, 400, "not valid"),
        ({"lose": ["h9"]}, 404, "There is no host h9."),
    ],
)
def test_what_cannot_be_meant_is_refused(
    body: dict[str, Any], status: int, told: str, made: Bench, http: httpx.Client
) -> None:
    answer = http.post("/v1/drills/run", json=body)
    assert answer.status_code == status
    assert told in answer.json()["title"]


def test_a_host_of_which_nothing_runs_cannot_be_taken_away(http: httpx.Client, service: Service) -> None:
    answer = http.post("/v1/drills/run", json={"lose": ["h3"]})
    assert answer.status_code == 409
    assert answer.json()["blockers"] == ["h3 is joining: nothing of it runs"]


def test_a_real_failover_comes_first(
    made: Bench, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices of a drill are further apart then."""
    ENOUGH.clear()
    monkeypatch.setattr(sweep, "each", endless)

    def steps_in(seconds: float) -> int:
        key = http.post("/v1/drills/run", json={"sweep": "each", "save": False}).json()["id"]
        before = http.get(f"/v1/drills/{key}").json()["done"]
        time.sleep(seconds)
        done: int = http.get(f"/v1/drills/{key}").json()["done"] - before
        ENOUGH.append(True)
        over(http, key)
        ENOUGH.clear()
        return done

    alone = steps_in(0.5)
    made.state.operations["failover-3-9"] = Operation(id="failover-3-9", kind="failover", subject="h2")
    made.state.open_operations.add("failover-3-9")
    assert steps_in(0.5) < alone / 2


async def test_work_in_slices_lets_others_have_their_turn() -> None:
    def work() -> Generator[int, None, str]:
        for number in range(20):
            time.sleep(slices.SLICE_S)
            yield number
        return "done"

    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    told: list[int] = []
    assert await slices.in_slices(work(), told.append) == "done"
    beside.cancel()
    assert told == list(range(20))
    assert turns >= 20
