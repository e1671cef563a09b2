"""Routes of drills: a dry run is begun, followed, and its report read.

A dry run is worked through on a branch of the coordinator's state, in slices (`slices`). One at a time; and more slowly
while a real failover is under way.
Not here: what a dry run does (`dr.core.drills`), shapes (`drill_schema`), pages (`drill_page`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from starlette.responses import Response

from dr.api.access import PEER, Peer
from dr.api.desk import Desk, encoded
from dr.api.drill_schema import DrillBody, DrillDocument, DrillList, DrillReport, DrillRow, shown
from dr.api.problem import Problem, missing
from dr.api.slices import PAUSE_S, in_slices
from dr.core.branch import branched
from dr.core.drills import sweep
from dr.core.drills.paper import Paper, takeable
from dr.core.drills.report import of_loss
from dr.core.drills.sweep import Progress
from dr.core.rules import label_of
from dr.core.state import State
from dr.model import drills, events
from dr.model.base import HostName, changed
from dr.model.records import HostRecord

RECOVERY_PAUSE_S = 0.1  # while a real failover is under way: it comes first
REMEMBERED_MAX = 8  # of this process, that are over: whoever waits for one that is not kept reads it here

Drill = Generator[Progress, None, drills.DrillReport]


@dataclass
class _Run:
    """One dry run of this process."""

    id: str
    by: str
    reason: str
    save: bool
    began: float
    progress: Progress
    report: drills.DrillReport | None = None
    kept: bool = False
    failed: str = ""
    task: asyncio.Task[None] | None = None

    def follow(self, progress: Progress) -> None:
        self.progress = progress


class _Runs:
    """Those of this process: one under way, and the newest that are over."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._runs: OrderedDict[str, _Run] = OrderedDict()

    def get(self, key: str) -> _Run | None:
        return self._runs.get(key)

    def begin(self, drill: Drill, by: str, body: DrillBody) -> _Run:
        """Raises Problem while another one is under way."""
        busy = next(
            (run for run in self._runs.values() if run.task is not None and not run.task.done()), None
        )
        if busy is not None:
            why = f"{busy.id}, asked for by {busy.by}, is at {busy.progress.done} of {busy.progress.of}"
            raise Problem(
                503, "try-again", "A drill is under way.", why, todo="the same once more when it is over"
            )
        now = time.time()
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S")
        run = _Run(f"drill-{stamp}-{uuid.uuid4().hex[:4]}", by, body.reason, body.save, now, Progress(0, 0))
        self._runs[run.id] = run
        while len(self._runs) > REMEMBERED_MAX:
            self._runs.popitem(last=False)
        run.task = asyncio.create_task(self._work(run, drill), name=run.id)
        return run

    async def _work(self, run: _Run, drill: Drill) -> None:
        try:
            found = await in_slices(drill, run.follow, self._pause_s)
            report = changed(
                found,
                id=run.id,
                asked_by=run.by,
                reason=run.reason,
                began=run.began,
                ended=time.time(),
                cluster=self._desk.cluster,
            )
            if run.save:
                ask = events.AskKeepDrill(id=uuid.uuid4().hex, by=run.by, reason=run.reason, report=report)
                reply = await self._desk.coordinator.ask(ask)
                run.kept, run.failed = reply.accepted, "; ".join(reply.blockers)
            run.report = report
        except TimeoutError:
            run.failed = "whether its report is kept is not known: the coordinator did not answer in time"
        except Exception as error:
            run.failed = f"{type(error).__name__}: {error}"
            raise

    def _pause_s(self) -> float:
        return RECOVERY_PAUSE_S if _recovering(self._desk.coordinator.state) else PAUSE_S


def _recovering(state: State) -> bool:
    return any(state.operations[key].kind == "failover" for key in state.open_operations)


def drill_routes(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["drills"])
    runs = _Runs(desk)

    @api.post("/v1/drills/run", response_model=DrillDocument)
    async def run(request: Request, body: DrillBody) -> Response:
        """Begin a dry run: hosts are taken away on paper. Nothing of the site is touched."""
        peer: Peer = request.scope[PEER]
        coordinator = desk.coordinator
        _mind(body)
        lost = _hosts(coordinator.state, body.lose)
        paper = Paper(branched(coordinator.state), coordinator.now())
        return encoded(_document(runs.begin(_drill(paper, lost, body), peer.name, body)))

    @api.get("/v1/drills", response_model=DrillList)
    async def list_() -> Response:
        """Drills whose reports are kept, the newest last."""
        heads = sorted(desk.coordinator.state.drills.values(), key=lambda head: (head.ended, head.id))
        return encoded(DrillList(items=[shown(head, DrillRow) for head in heads]))

    @api.get("/v1/drills/{key}", response_model=DrillDocument)
    async def one(key: str) -> Response:
        """One drill: how far it is, or its report."""
        known = runs.get(key)
        if known is not None and not (known.kept and known.report is not None):
            return await asyncio.to_thread(lambda: encoded(_document(known)))
        report = await desk.coordinator.drill(key)
        if report is None:
            raise missing("drill", key)
        return await asyncio.to_thread(
            lambda: encoded(DrillDocument(id=key, state="done", report=shown(report, DrillReport)))
        )

    return api


def _document(run: _Run) -> DrillDocument:
    over = run.report is not None or bool(run.failed)
    return DrillDocument(
        id=run.id,
        state="running" if not over else "failed" if run.report is None else "done",
        done=run.progress.done,
        of=run.progress.of,
        why=run.failed,
        kept=run.kept,
        report=shown(run.report, DrillReport) if run.report is not None else None,
    )


def _mind(body: DrillBody) -> None:
    """Raises Problem for what cannot be meant."""
    if bool(body.lose) == bool(body.sweep):
        raise Problem(
            400, "invalid", "Which hosts are taken away?", "name some, or ask for a sweep, not both"
        )
    if body.sweep == "pairs" and body.rto_s:
        why = "most pairs are proven to fit by room alone, which does not say how long they take"
        raise Problem(
            400, "invalid", "A sweep of pairs has no objective.", why, todo="give one to --each, or to --lose"
        )


def _hosts(state: State, wanted: Iterable[str]) -> list[HostName]:
    """Names, with labels resolved. Raises Problem."""
    found: dict[HostName, None] = {}
    for each in wanted:
        label = label_of(each)
        if label is not None:
            key, value = label
            names = [host.name for host in state.hosts.values() if _labels(state, host).get(key) == value]
            if not names:
                raise Problem(
                    404, "missing", f"No host has the label {key}={value}.", todo="dr host list -o wide"
                )
        elif each not in state.hosts:
            raise missing("host", each)
        else:
            names = [each]
        found |= dict.fromkeys(names)
    apart = [
        f"{name} is {state.hosts[name].phase}: nothing of it runs"
        for name in found
        if not takeable(state.hosts[name])
    ]
    if apart:
        raise Problem(409, "refused", "These cannot be taken away.", todo="dr host list", blockers=apart)
    return sorted(found)


def _labels(state: State, host: HostRecord) -> dict[str, str]:
    policy = state.settings.hosts.get(host.name)
    return (policy.labels if policy is not None else {}) | host.labels


def _drill(paper: Paper, lost: list[HostName], body: DrillBody) -> Drill:
    if body.sweep == "each":
        found = yield from sweep.each(paper, body.rto_s)
    elif body.sweep == "pairs":
        found = yield from sweep.pairs(paper, body.limit)
    else:
        loss = yield from sweep.lost(paper, lost, Progress(0, 1))
        found = of_loss(loss, paper.takes, body.rto_s)
    return changed(found, revision=paper.state.revision + paper.state.cluster.revision_offset)
