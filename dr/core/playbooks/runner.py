"""Runs of playbooks, one step on with every decision: begin, look, try again, take back, and `finally` always.

A step's beginning is one write with what it asked for, so a coordinator that dies anywhere goes on from there, and asks
for nothing twice. Not here: what a step does (`deeds`), how a run is asked for (`core.asks_playbooks`).
"""

from __future__ import annotations

from typing import Literal

from dr.core import operator
from dr.core.drills import isolated, isolated_report
from dr.core.playbooks import commands, conditions, deeds, hooks, scheduled
from dr.core.state import Draft
from dr.model.base import changed
from dr.model.effects import Reply
from dr.model.events import OperatorAsk
from dr.model.operations import Operation, OperationState
from dr.model.playbooks import Run, RunStep, StepSpec, StepState
from dr.model.records import Alert
from dr.model.verbs import Approve, Drain, Notify, RunCommand, Stop
from dr.model.words import fields_of

AGAIN_S = 10.0  # after a step failed, if it is to be tried again
REFUSED_S = 30.0  # what is refused is asked for again for so long: an agent may be restarting, say
ASK_AGAIN_S = 2.0
TOLD_MAX = 10  # reasons of a refusal that a step repeats; the audit has all of them
BY_ITSELF = (scheduled.BY, hooks.BY)  # who asked for it: nobody sits there and looks
OVER = (StepState.DONE, StepState.FAILED, StepState.SKIPPED)


def carry_on(draft: Draft) -> None:
    """Every open run. None on a store that was restored: what it says of them may be long over."""
    if draft.cluster.restored:
        return
    for operation in draft.open_operations():
        if operation.run is not None:
            _step(draft, operation.id)
            if isolated.is_drill(operation.run):
                isolated.carry_on(draft, operation.id)


def current(run: Run) -> int | None:
    """The step whose turn it is, or that is under way; None: its part is over."""
    return next(
        (at for at, step in enumerate(run.steps) if step.part == run.part and step.state not in OVER), None
    )


def _step(draft: Draft, key: str) -> None:
    operation, run = _of(draft, key)
    if run.part == "steps" and not run.cancelled and (why := isolated.gives_way(draft, operation)):
        draft.note("drill.gives_way", why, operation=key)
        draft.clear_alert(f"playbook/{key}/approve")
        operation, run = _of(draft, key)
        run = changed(run, cancelled=why)
        _put_run(draft, operation, run)
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
    if draft.now - (step.began or draft.now) >= _limit_s(draft, operation, step):
        _fail(draft, key, at, _late(draft, operation, step, step.text), again=False)
        return
    # A coordinator that has just begun has not heard everybody yet: what it was asked now would fit nowhere.
    if draft.now < max(step.again_at, draft.quiet_until):
        return
    if not step.began:
        if step.spec.when is not None and (why := conditions.why_not(draft, step.spec.when, key)):
            _end(draft, key, at, StepState.SKIPPED, f"left out: {why}")
            return
        draft.note("playbook.step", f"{at + 1}. {step.spec.text()}: begins", operation=key)
        step = changed(step, began=draft.now)
        if not isinstance(step.spec.verb, Notify) and not deeds.left(draft, step, key):
            _put(draft, key, at, step)
            _end(draft, key, at, StepState.DONE, "it was so already")
            return
        verb = step.spec.verb
        step = changed(step, before=deeds.so_before(draft, verb), was=deeds.where(draft, verb))
    step = changed(step, tried_at=draft.now, tries=step.tries + 1, jobs=(), state=StepState.RUNNING)
    _put(draft, key, at, step)
    isolated.forget_failures(draft, key, step)
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
        step = changed(step, answered=True, acted=True)
    elif isinstance(step.spec.verb, Approve):
        _ask_people(draft, operation, at, step.spec.verb)
    if not deeds.left(draft, step, key):
        done = "given to the notifiers" if isinstance(step.spec.verb, Notify) else "it is so by now"
        _put(draft, key, at, step)
        _end(draft, key, at, StepState.DONE, done)
        return
    blockers: list[str] = []
    jobs: list[str] = []
    if isinstance(verb := step.spec.verb, RunCommand):
        step = commands.begun_anew(step)
        blockers += commands.blockers(draft, step, verb)
    asks = deeds.asks(draft, step, f"{key}/{at}", operation.asked_by, _why(operation))
    acted = step.acted or not (asks or blockers)
    for reply in _ask(draft, asks):
        blockers += reply.blockers
        jobs += reply.operations
        acted = acted or reply.accepted
    step = changed(step, acted=acted)
    why = _reasons(blockers)
    if blockers and not jobs and draft.now - max(step.began, draft.started_at) < REFUSED_S:
        again = changed(step, state=StepState.WAITING, tries=step.tries - 1, again_at=draft.now + ASK_AGAIN_S)
        _put(draft, key, at, changed(again, text=why))
        return
    _put(draft, key, at, changed(step, jobs=tuple(jobs)))
    if blockers:
        _fail(draft, key, at, why)
    else:
        _look(draft, key, at)


def _ask(draft: Draft, asks: list[OperatorAsk]) -> list[Reply]:
    return [operator.decided(draft, changed(ask, id=f"{ask.id}/{number}")) for number, ask in enumerate(asks)]


def _reasons(blockers: list[str]) -> str:
    more = len(blockers) - TOLD_MAX
    return "; ".join(blockers[:TOLD_MAX]) + (f"; and {more} more reasons" if more > 0 else "")


def _next_to_stop(draft: Draft, key: str, at: int) -> bool:
    """The next of a `stop`, those before it being off. False: there is none."""
    operation, run = _of(draft, key)
    step = run.steps[at]
    number = f"{key}/{at}/{len(step.jobs)}"
    replies = _ask(draft, deeds.asks(draft, step, number, operation.asked_by, _why(operation)))
    if blockers := [why for reply in replies for why in reply.blockers]:
        _fail(draft, key, at, _reasons(blockers))
        return True
    jobs = tuple(job for reply in replies for job in reply.operations)
    _put(draft, key, at, changed(step, jobs=(*step.jobs, *jobs)))
    return bool(jobs)


def _look(draft: Draft, key: str, at: int) -> None:
    """Whether it is done, has failed, or took too long."""
    operation, run = _of(draft, key)
    step = run.steps[at]
    if step.refused:
        _fail(draft, key, at, step.text, again=False)
        return
    if bad_clones := isolated.failures(run, step):
        _fail(draft, key, at, "; ".join(bad_clones))
        return
    if isinstance(step.spec.verb, RunCommand):
        step = _run_commands(draft, key, at, step.spec.verb)
        if step.state is not StepState.RUNNING:
            return
    jobs = [job for name in step.jobs if (job := draft.operation(name)) is not None]
    if lost := set(step.jobs) - {job.id for job in jobs}:
        _fail(draft, key, at, f"what became of {', '.join(sorted(lost))} is not known any more", again=False)
        return
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
        done = frozenset[str]().union(*(deeds.of_job(draft, job) for job in jobs))
        left = deeds.left(draft, step, key, done)
        if left and jobs and isinstance(step.spec.verb, Stop) and _next_to_stop(draft, key, at):
            return
    if not left:
        ends = [job.steps[-1].text for job in jobs if job.steps]
        took = f"after {draft.now - step.began:.1f} s"
        said = step.text if step.answered else commands.in_words(step) or took
        _end(draft, key, at, StepState.DONE, "; ".join(ends) or said)
        return
    limit_s = _limit_s(draft, operation, step)
    if draft.now - step.began < limit_s:
        if step.text != (text := left[0]):
            _put(draft, key, at, changed(step, text=text))
        return
    if isinstance(step.spec.verb, Approve):
        draft.clear_alert(f"playbook/{key}/approve")
        if step.spec.verb.otherwise == "go on":
            _end(draft, key, at, StepState.DONE, f"nobody answered within {limit_s:g} s: it goes on")
            return
    _fail(draft, key, at, _late(draft, operation, step, "; ".join(left[:3])), again=False)


def _run_commands(draft: Draft, key: str, at: int, verb: RunCommand) -> RunStep:
    """The step as it is now: none after one that failed, or cannot be begun."""
    operation, run = _of(draft, key)
    before = run.steps[at]
    step = commands.carry_on(draft, operation, at, before, verb)
    if step != before:
        _put(draft, key, at, step)
    bad = commands.failed(step)
    under_way = any(each.state == "running" for each in step.commands)
    if bad is not None:
        _fail(draft, key, at, f"{bad.on}: {bad.said}", again=bad.state == "failed")
    elif not under_way and (why := commands.blockers(draft, step, verb)):
        _fail(draft, key, at, "; ".join(why))
    return _of(draft, key)[1].steps[at]


def _limit_s(draft: Draft, operation: Operation, step: RunStep) -> float:
    """How long it may take from its beginning, which may be now: its own time, within that of the run."""
    own_s = step.spec.timeout or type(step.spec.verb).TIMEOUT_S
    if operation.run is None or not operation.run.limit_s or step.part != "steps":
        return own_s
    return min(own_s, max(0.0, operation.opened + operation.run.limit_s - (step.began or draft.now)))


def _late(draft: Draft, operation: Operation, step: RunStep, left: str) -> str:
    assert operation.run is not None
    if not step.began:
        return f"the run may take {operation.run.limit_s:g} s"
    return f"not done within {_limit_s(draft, operation, step):g} s: {left}"


def _fail(draft: Draft, key: str, at: int, why: str, *, again: bool = True) -> None:
    """Tried again, or the end of it, and what follows from that.

    A try in which the coordinator died does not count: an order that was about to go out may never have been sent.
    That somebody wants a host empty is no order: it stands, until a person takes it back. A command is asked for again
    under its own id, so how it ended counts; of clones agents are asked again, and go on with what they have begun.
    """
    _, run = _of(draft, key)
    step = run.steps[at]
    lasts = isinstance(step.spec.verb, Drain | RunCommand) or isolated.is_drill(run)
    if step.tried_at <= draft.started_at and not lasts:
        step = changed(step, tries=step.tries - 1)
    if again and step.tries <= step.spec.retry:
        text = f"{at + 1}. {step.spec.text()}: try {step.tries} failed, again in {AGAIN_S:g} s: {why}"
        draft.note("playbook.step", text, operation=key)
        _put(draft, key, at, changed(step, state=StepState.WAITING, again_at=draft.now + AGAIN_S, text=why))
        return
    _end(draft, key, at, StepState.FAILED, why)
    operation, run = _of(draft, key)
    failed = run.failed or f"step {at + 1}, {step.spec.text()}: {why}"
    _put_run(draft, operation, changed(run, failed=failed))
    if run.part != "steps" or (step.spec.on_fail == "continue" and not run.cancelled):
        return
    _to_part(draft, key, "undo" if step.spec.on_fail == "rollback" and not run.cancelled else "finally")


def _end(draft: Draft, key: str, at: int, state: StepState, text: str) -> None:
    _, run = _of(draft, key)
    step = run.steps[at]
    draft.note("playbook.step", f"{at + 1}. {step.spec.text()}: {state}: {text}", operation=key)
    step = commands.given_up(_of(draft, key)[1].steps[at])
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
    if isolated.not_ended(draft, operation):
        return
    took_s = draft.now - operation.opened
    steps = [step for step in run.steps if step.part == "steps"]
    done = sum(step.state is StepState.DONE for step in steps)
    text = f"{done} of {len(steps)} steps done, {took_s:.0f} s"
    if isolated.is_drill(run):
        took = isolated_report.took_s(operation, run)
        text += f"; from the first start to the last check {took:g} s" if took is not None else ""
    elif run.rto_s:
        text += f" (objective: {run.rto_s:g} s{'' if took_s <= run.rto_s else ', missed'})"
    failed, state = run.cancelled or run.failed, "done"
    if not failed:
        state, failed = isolated.verdict(draft, operation)
    else:
        bad, unseen = isolated.left_behind(draft, run)
        failed = "; ".join((failed, *bad, *unseen))
    state = "failed" if failed and state == "done" else state
    draft.close_operation(operation, state, f"{failed}; {text}" if failed else text)
    if state != "done" and operation.asked_by.startswith(BY_ITSELF):
        draft.tell(
            Alert(
                key=f"playbook/{operation.id}",
                what=f"{operation.kind} {operation.subject}, begun by {operation.asked_by}: {state}",
                why=failed,
                todo=f"dr job show {operation.id}",
                severity="warning",
                raised=draft.now,
            )
        )
    if isolated.is_drill(run):
        closed, _ = _of(draft, operation.id)
        draft.put_drill(isolated_report.of_run(draft, closed, run))


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
        begun = [step for step in steps if step.part == "steps" and step.acted]
        undos = (_undoing(step) for step in reversed(begun))
        undoing = tuple(RunStep(spec=undo, part="undo") for undo in undos if undo is not None)
        last = tuple(step for step in steps if step.part == "finally")
        steps = (*steps[: len(steps) - len(last)], *undoing, *last)
    _put_run(draft, operation, changed(run, steps=steps, part=part))


def _undoing(step: RunStep) -> StepSpec | None:
    """What takes it back: all that was its doing. None: nothing."""
    undo = step.spec.undo
    assert not isinstance(undo, str), "compiling makes a verb of a word"
    if undo is None:
        return None
    name, *_ = (field.name for field in fields_of(type(undo)))
    if names := deeds.about(undo):
        own = tuple(each for each in names if each not in step.before)
        if not own:
            return None
        undo = changed(undo, **{name: own})
    return StepSpec(verb=undo, name=f"undo of {step.spec.text()}", on_fail="continue")


# ---- keeping it


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
