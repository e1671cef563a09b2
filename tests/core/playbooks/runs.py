"""Playbooks as text, run on a bench."""

from __future__ import annotations

from dr.model.effects import Reply
from dr.model.events import AskAgree, AskCancelRun, AskRun, OperatorAsk, Tick
from dr.model.operations import Operation, OperationState
from dr.model.playbooks import RunStep
from tests.core.build import Bench
from tests.core.playbooks.test_check import read


class Runs:
    """A bench on which one playbook is run."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.job = ""

    def run(self, steps: str, *, dry_run: bool = False, **params: str) -> Reply:
        ask = AskRun(
            id="ask",
            by="ops",
            reason="work",
            playbook=read(f"playbook: x\n{steps}"),
            params=params,
            dry_run=dry_run,
        )
        reply = self.ask(ask)
        self.job = reply.operations[0] if reply.operations else ""
        return reply

    def ask(self, ask: OperatorAsk) -> Reply:
        (reply,) = (each for each in self.bench.send(ask) if isinstance(each, Reply))
        return reply

    def answer(self, by: str, *, agree: bool = True) -> Reply:
        return self.ask(AskAgree(id="answer", by=by, job=self.job, agree=agree))

    def cancel(self) -> Reply:
        return self.ask(AskCancelRun(id="cancel", by="ops", job=self.job))

    def go(self, seconds: float = 1.0) -> None:
        """So much time goes by, and every host is heard."""
        for _ in range(round(seconds * 2)):
            self.bench.now += 0.5
            self.bench.hear()
            self.bench.send(Tick(lag_s=0.0))

    def end(self, job: str, state: OperationState) -> None:
        """That job is over."""
        draft = self.bench.draft()
        draft.close_operation(self.bench.state.operations[job], state.value, f"it is {state}")
        self.bench.state.apply(draft)

    @property
    def operation(self) -> Operation:
        return self.bench.state.operations[self.job]

    @property
    def steps(self) -> list[RunStep]:
        assert self.operation.run is not None
        return list(self.operation.run.steps)

    def told(self) -> list[tuple[str, str]]:
        """Each step: how far, and what is said of it."""
        return [(step.state.value, step.text) for step in self.steps]

    def opened(self, kind: str) -> list[Operation]:
        return [op for op in self.bench.state.operations.values() if op.kind == kind]
