"""What operators ask of playbooks: run one, answer what it asks, cancel it."""

from __future__ import annotations

from dr.core import asks_moves, asks_upkeep
from dr.core.asks import no, no_such, yes
from dr.core.drills import isolated
from dr.core.playbooks import commands, compiling, conditions, deeds
from dr.core.playbooks.compiling import Unclear, fleet_of, required, steps_of
from dr.core.state import Draft
from dr.model.base import changed
from dr.model.effects import PlannedStep, Reply
from dr.model.events import AskAgree, AskCancelRun, AskDrain, AskMigrate, AskRelocate, AskRun
from dr.model.operations import Operation, OperationState
from dr.model.playbooks import Run, RunStep, StepState
from dr.model.verbs import Approve, Drain, Migrate, Relocate, RunCommand
from dr.model.words import dotted

FORETOLD_MAX = 20  # steps of a run that somebody asks about: each takes as long as foretelling that alone
HOOK_LIMIT_S = 3600.0  # of a hook that says nothing of it
SHOWN = 3  # jobs of the kind that are named where another one is meant


def run(draft: Draft, ask: AskRun) -> Reply:
    book = ask.playbook
    fleet = fleet_of(draft)
    try:
        steps = steps_of(book, ask.params, fleet)
        needs = required(book, ask.params, fleet)
        bubble = compiling.bubble(book, ask.params, fleet)
    except Unclear as unclear:
        return no(ask, *(f"{dotted(where)}: {text}" for where, text in unclear.found))
    if wrong := _not_allowed(draft, steps):
        return no(ask, *wrong)
    why = [reason for each in needs if (reason := conditions.why_not(draft, each))]
    drill = book.kind == isolated.KIND
    keeps = isolated.why_not(draft, steps, bubble) if drill else []
    if ask.dry_run:
        planned = isolated.planned(steps) if drill else _planned(draft, steps, ask)
        return changed(yes(ask, "; ".join((*why, *keeps))), steps=planned)
    if why or keeps:
        return no(ask, *(f"required: {reason}" for reason in why), *keeps)
    if draft.cluster.restored:
        return no(
            ask,
            f"the store is a restored copy ({draft.cluster.restored}): see that guests are where dr guest list says, "
            "then dr resume",
        )
    twin = next((op for op in _open(draft) if op.subject == book.playbook), None)
    if twin is not None and not ask.hook:
        return no(ask, f"{book.playbook} is being run already: {twin.id}, asked for by {twin.asked_by}")
    operation = draft.open_operation(book.kind, book.playbook, ask.reason, ask.by)
    begun = Run(
        playbook=book.playbook,
        kind=book.kind,
        params=ask.params,
        rto_s=book.objectives.rto,
        limit_s=book.limits.timeout or (isolated.LIMIT_S if drill else HOOK_LIMIT_S if ask.hook else 0.0),
        bubble=bubble,
        asked_wall=ask.wall,
        steps=steps,
    )
    draft.put_operation(changed(operation, run=begun))
    return yes(ask, "", operation)


def _not_allowed(draft: Draft, steps: tuple[RunStep, ...]) -> list[str]:
    """Commands that the configuration does not allow as they are asked for; each once."""
    verbs = (verb for step in steps for verb in (step.spec.verb, step.spec.undo))
    found = (
        why for verb in verbs if isinstance(verb, RunCommand) for why in commands.why_not(draft.config, verb)
    )
    return list(dict.fromkeys(found))


def _planned(draft: Draft, steps: tuple[RunStep, ...], ask: AskRun) -> tuple[PlannedStep, ...]:
    """What each would do now. What steps before it would change is not so yet."""
    told: list[PlannedStep] = []
    foretold = 0
    for step in steps:
        found = _todo(draft, step)
        if found.todo and isinstance(step.spec.verb, Drain | Migrate | Relocate):
            foretold += 1
            if foretold <= FORETOLD_MAX:
                found = _foretold(draft, step, ask, found)
            else:
                found = changed(found, todo=(*found.todo, f"not foretold: {FORETOLD_MAX} before it are"))
        told.append(found)
    return tuple(told)


def _todo(draft: Draft, step: RunStep) -> PlannedStep:
    spec = step.spec
    verb = spec.verb
    return PlannedStep(
        part=step.part,
        text=spec.text(),
        todo=tuple(deeds.left(draft, step)),
        why=tuple(commands.all_blockers(draft, verb)) if isinstance(verb, RunCommand) else (),
        when=conditions.why_not(draft, spec.when) if spec.when is not None else "",
        timeout_s=spec.timeout or type(verb).TIMEOUT_S,
    )


def _foretold(draft: Draft, step: RunStep, ask: AskRun, found: PlannedStep) -> PlannedStep:
    for each in deeds.asks(draft, step, ask.id, ask.by, ask.reason):
        reply = None
        if isinstance(each, AskDrain):
            reply = asks_upkeep.drain(draft, changed(each, dry_run=True))
        elif isinstance(each, AskMigrate):
            reply = asks_moves.migrate(draft, changed(each, dry_run=True))
        elif isinstance(each, AskRelocate):
            reply = asks_moves.relocate(draft, changed(each, dry_run=True))
        if reply is not None:
            stays = [f"{guest.name}: {why}" for guest in reply.guests for why in guest.why]
            takes_s = reply.forecast.total_s if reply.forecast is not None else None
            found = changed(found, why=(*found.why, *reply.blockers, *stays), takes_s=takes_s)
    return found


def _open(draft: Draft) -> list[Operation]:
    return [op for op in draft.open_operations() if op.run is not None]


def _job(draft: Draft, ask: AskAgree | AskCancelRun) -> tuple[Operation, Run] | Reply:
    operation = draft.operation(ask.job)
    if operation is None or operation.run is None:
        runs = ", ".join(op.id for op in _open(draft)[:SHOWN])
        missing = no_such(ask, "run of a playbook", [ask.job])
        return changed(missing, blockers=(*missing.blockers, f"open are: {runs}")) if runs else missing
    if operation.state is not OperationState.OPEN:
        return no(ask, f"{ask.job} is over: {operation.state}")
    return operation, operation.run


def agree(draft: Draft, ask: AskAgree) -> Reply:
    found = _job(draft, ask)
    if isinstance(found, Reply):
        return found
    operation, run = found
    waits = [
        (at, step, step.spec.verb)
        for at, step in enumerate(run.steps)
        if step.state is StepState.RUNNING and isinstance(step.spec.verb, Approve)
    ]
    if not waits:
        return no(ask, f"{ask.job} does not wait for an answer")
    at, step, verb = waits[0]
    if verb.by and ask.by not in verb.by:
        return no(ask, f"{ask.by} is not one of those who may answer: {', '.join(verb.by)}")
    said = f"{ask.by} {'agreed' if ask.agree else 'refused'}" + (f": {ask.reason}" if ask.reason else "")
    draft.clear_alert(f"playbook/{ask.job}/approve")
    draft.note("playbook.answer", f"{at + 1}. {verb.approve}: {said}", operation=ask.job, by=ask.by)
    operation = draft.operation(ask.job) or operation
    step = changed(step, answered=ask.agree, text=said, refused=not ask.agree)
    steps = (*run.steps[:at], step, *run.steps[at + 1 :])
    draft.put_operation(changed(operation, run=changed(run, steps=steps)))
    return yes(ask, said)


def cancel(draft: Draft, ask: AskCancelRun) -> Reply:
    found = _job(draft, ask)
    if isinstance(found, Reply):
        return found
    operation, run = found
    if run.cancelled:
        return no(ask, f"{ask.job} is being ended already: {run.cancelled}")
    if run.part != "steps":
        does = "is being rolled back" if run.part == "undo" else "does only what it does in the end"
        return no(ask, f"{ask.job} {does}: that is not called off")
    said = f"cancelled by {ask.by}" + (f": {ask.reason}" if ask.reason else "")
    draft.clear_alert(f"playbook/{ask.job}/approve")
    draft.put_operation(changed(operation, run=changed(run, cancelled=said)))
    return yes(ask, "no step begins any more but those in `finally`; what a step began goes on by itself")
