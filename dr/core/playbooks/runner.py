"""Runs of playbooks, one step on with every decision: begin, look, try again, take back, and `finally` always.

A step's beginning is one write with what it asked for, so a coordinator that dies anywhere goes on from there, and asks
for nothing twice. Not here: what a step does (`deeds`), how a run is asked for (`core.asks_playbooks`).
"""

from __future__ import annotations

from typing import Literal

from dr.core import operator
from dr.core.playbooks import conditions, deeds
from dr.core.state import Draft
from dr.model.base import changed
from dr.model.operations import Operation, OperationState
from dr.model.playbooks import Approve, Notify, Run, RunStep, StepSpec, StepState
from dr.model.records import Alert

KIND = "playbook"
AGAIN_S = 10.0  # after a step failed, if it is to be tried again
REFUSED_S = 30.0  # what is refused is asked for again for so long: an agent may be restarting, say
ASK_AGAIN_S = 2.0
OVER = (StepState.DONE, StepState.FAILED, StepState.SKIPPED)


def carry_on(draft: Draft) -> None:
    """Every open run."""
    for operation in draft.open_operations():
        if operation.run is not None:
            _step(draft, operation.id)


def current(run: Run) -> int | None:
    """The step whose turn it is, or that is under way; None: its part is over."""
    return next(
        (at for at, step in enumerate(run.steps) if step.part == run.part and step.state not in OVER), None
    )


def _step(draft: Draft, key: str) -> None:
    operation, run = _of(draft, key)
    at = current(run)
    if run.cancelled and run.part == "steps":
        if at is not None and run.steps[at].state is StepState.RUNNING:
            _fail(draft, key, at, run.cancelled, again=False)
        else:
            _to_part(draft, key, "finally")
    elif at is None:
        _next_part(draft, operation, run)
    elif run.steps[at].state is StepState.WAITING:
        _begin(draft, key, at)
    else:
        _look(draft, key, at)


# ---- one step


def _begin(draft: Draft, key: str, at: int) -> None:
    operation, run = _of(draft, key)
    step = run.steps[at]
    if draft.now < step.again_at:
        return
    if not step.began:
        if step.spec.when is not None and (why := conditions.why_not(draft, step.spec.when, key)):
            _end(draft, key, at, StepState.SKIPPED, f"left out: {why}")
            return
        draft.note("playbook.step", f"{at + 1}. {shown(step.spec)}: begins", operation=key)
        step = changed(step, began=draft.now)
    step = changed(step, tried_at=draft.now, tries=step.tries + 1, jobs=(), state=StepState.RUNNING)
    _put(draft, key, at, step)
    if isinstance(step.spec.verb, Notify):
        draft.tell(
            Alert(
                key=f"playbook/{key}/{at}",
                what=step.spec.verb.notify,
                why=f"playbook {run.playbook}, step {at + 1}; asked for by {operation.asked_by}",
                todo=f"dr job show {key}",
                severity=step.spec.verb.severity,
                raised=draft.now,
            )
        )
        step = changed(step, answered=True)
    elif isinstance(step.spec.verb, Approve):
        _ask_people(draft, operation, at, step.spec.verb)
    if not deeds.left(draft, step, key):
        done = "told" if isinstance(step.spec.verb, Notify) else "it was so already"
        _put(draft, key, at, step)
        _end(draft, key, at, StepState.DONE, done)
        return
    blockers: list[str] = []
    jobs: list[str] = []
    for number, ask in enumerate(deeds.asks(draft, step, f"{key}/{at}", operation.asked_by, _why(operation))):
        reply = operator.decided(draft, changed(ask, id=f"{ask.id}/{number}"))
        blockers += reply.blockers
        jobs += reply.operations
    why = "; ".join(blockers)
    if blockers and not jobs and draft.now - max(step.began, draft.started_at) < REFUSED_S:
        again = changed(step, state=StepState.WAITING, tries=step.tries - 1, again_at=draft.now + ASK_AGAIN_S)
        _put(draft, key, at, changed(again, text=why))
        return
    _put(draft, key, at, changed(step, jobs=tuple(jobs)))
    if blockers:
        _fail(draft, key, at, why)
    else:
        _look(draft, key, at)


def _look(draft: Draft, key: str, at: int) -> None:
    """Whether it is done, has failed, or took too long."""
    operation, run = _of(draft, key)
    step = run.steps[at]
    if step.refused:
        _fail(draft, key, at, step.text, again=False)
        return
    jobs = [job for name in step.jobs if (job := draft.operation(name)) is not None]
    if any(job.state is OperationState.OPEN for job in jobs):
        left = [f"{job.id} is under way" for job in jobs if job.state is OperationState.OPEN]
    elif bad := [job for job in jobs if job.state is not OperationState.DONE]:
        _fail(
            draft,
            key,
            at,
            "; ".join(f"{job.id}: {job.steps[-1].text if job.steps else job.state}" for job in bad),
        )
        return
    else:
        left = deeds.left(draft, step, key)
    if not left:
        ends = [job.steps[-1].text for job in jobs if job.steps]
        _end(draft, key, at, StepState.DONE, "; ".join(ends) or f"after {draft.now - step.began:.1f} s")
        return
    limit_s = step.spec.timeout or type(step.spec.verb).TIMEOUT_S
    if run.limit_s and run.part == "steps":
        limit_s = min(limit_s, max(0.0, operation.opened + run.limit_s - step.began))
    if draft.now - step.began < limit_s:
        if step.text != (text := left[0]):
            _put(draft, key, at, changed(step, text=text))
        return
    if isinstance(step.spec.verb, Approve):
        draft.clear_alert(f"playbook/{key}/approve")
        if step.spec.verb.otherwise == "go on":
            _end(draft, key, at, StepState.DONE, f"nobody answered within {limit_s:g} s: it goes on")
            return
    _fail(draft, key, at, f"not done within {limit_s:g} s: {'; '.join(left[:3])}", again=False)


def _fail(draft: Draft, key: str, at: int, why: str, *, again: bool = True) -> None:
    """Tried again, or the end of it, and what follows from that.

    A try in which the coordinator died does not count: what it was about to ask for may never have been said.
    """
    _, run = _of(draft, key)
    step = run.steps[at]
    if step.tried_at <= draft.started_at:
        step = changed(step, tries=step.tries - 1)
    if again and step.tries <= step.spec.retry:
        text = f"{at + 1}. {shown(step.spec)}: try {step.tries} failed, again in {AGAIN_S:g} s: {why}"
        draft.note("playbook.step", text, operation=key)
        _put(draft, key, at, changed(step, state=StepState.WAITING, again_at=draft.now + AGAIN_S, text=why))
        return
    _end(draft, key, at, StepState.FAILED, why)
    operation, run = _of(draft, key)
    failed = run.failed or f"step {at + 1}, {shown(step.spec)}: {why}"
    _put_run(draft, operation, changed(run, failed=failed))
    if run.part != "steps" or (step.spec.on_fail == "continue" and not run.cancelled):
        return
    _to_part(draft, key, "undo" if step.spec.on_fail == "rollback" and not run.cancelled else "finally")


def _end(draft: Draft, key: str, at: int, state: StepState, text: str) -> None:
    _, run = _of(draft, key)
    step = run.steps[at]
    draft.note("playbook.step", f"{at + 1}. {shown(step.spec)}: {state}: {text}", operation=key)
    _put(draft, key, at, changed(step, state=state, ended=draft.now, text=text))


def _ask_people(draft: Draft, operation: Operation, at: int, verb: Approve) -> None:
    who = f" ({', '.join(verb.by)})" if verb.by else ""
    draft.alert(
        f"playbook/{operation.id}/approve",
        f"{operation.subject} waits for an answer{who}: {verb.approve}",
        f"step {at + 1} of the playbook; asked for by {operation.asked_by}",
        f"dr job approve {operation.id}, or dr job deny {operation.id}",
    )


# ---- the parts of a run


def _next_part(draft: Draft, operation: Operation, run: Run) -> None:
    if run.part != "finally":
        _to_part(draft, operation.id, "finally")
        return
    took_s = draft.now - operation.opened
    steps = [step for step in run.steps if step.part == "steps"]
    done = sum(step.state is StepState.DONE for step in steps)
    text = f"{done} of {len(steps)} steps done, {took_s:.0f} s"
    if run.rto_s:
        text += f" (objective: {run.rto_s:g} s{'' if took_s <= run.rto_s else ', missed'})"
    failed = run.cancelled or run.failed
    draft.close_operation(operation, "failed" if failed else "done", f"{failed}; {text}" if failed else text)


def _to_part(draft: Draft, key: str, part: Literal["undo", "finally"]) -> None:
    """What has had no turn has none any more. Before `undo`: what takes back each step that began, the last first."""
    operation, run = _of(draft, key)
    steps = tuple(
        changed(step, state=StepState.SKIPPED, text="not its turn any more")
        if step.part == run.part and step.state not in OVER
        else step
        for step in run.steps
    )
    if part == "undo":
        begun = [step for step in steps if step.part == "steps" and step.tries and step.spec.undo is not None]
        undoing = tuple(RunStep(spec=_undoing(step.spec), part="undo") for step in reversed(begun))
        last = tuple(step for step in steps if step.part == "finally")
        steps = (*steps[: len(steps) - len(last)], *undoing, *last)
    _put_run(draft, operation, changed(run, steps=steps, part=part))


def _undoing(spec: StepSpec) -> StepSpec:
    assert spec.undo is not None
    assert not isinstance(spec.undo, str), "compiling makes a verb of a word"
    return StepSpec(verb=spec.undo, name=f"undo of {shown(spec)}", on_fail="continue")


# ---- keeping it


def shown(spec: StepSpec) -> str:
    """A step as people are shown it."""
    return spec.name or spec.verb.text()


def _why(operation: Operation) -> str:
    return f"playbook {operation.subject} ({operation.id})" + (f": {operation.why}" if operation.why else "")


def _of(draft: Draft, key: str) -> tuple[Operation, Run]:
    operation = draft.operation(key)
    assert operation is not None
    assert operation.run is not None
    return operation, operation.run


def _put(draft: Draft, key: str, at: int, step: RunStep) -> None:
    operation, run = _of(draft, key)
    _put_run(draft, operation, changed(run, steps=(*run.steps[:at], step, *run.steps[at + 1 :])))


def _put_run(draft: Draft, operation: Operation, run: Run) -> None:
    draft.put_operation(changed(operation, run=run))
