"""The report of an isolated drill that is over: each guest with its times and checks, what was found, the verdict.

Its zero is the moment at which the first clone was asked to start: what was copied before that is told, and is no part
of what a recovery takes. Not here: how it goes (`isolated`), how a report looks (`dr.api.drill_page`).
"""

from __future__ import annotations

from collections.abc import Iterator

from dr.core.drills.report import named
from dr.core.state import Draft
from dr.model.base import GuestId
from dr.model.checks import Check, Running
from dr.model.clones import Clone, CloneState, Ended
from dr.model.drills import (
    FINDINGS_MAX,
    TIMELINE_MAX,
    CheckSeen,
    DrillKind,
    DrillReport,
    Evidence,
    Finding,
    GuestRow,
    PhaseTook,
    TimelineEntry,
    Verdict,
)
from dr.model.operations import Operation, OperationState
from dr.model.playbooks import Run
from dr.model.records import GuestPhase, GuestRecord
from dr.model.spelling import check_text

STATES = {
    OperationState.DONE: Verdict.PASSED,
    OperationState.FAILED: Verdict.FAILED,
    OperationState.UNKNOWN: Verdict.UNKNOWN,
}


def of_run(draft: Draft, operation: Operation, run: Run) -> DrillReport:
    """Of an operation that has been closed."""
    zero = zero_of(operation, run)
    rows = tuple(_row(draft, run, clone, zero) for clone in run.clones)
    began = run.asked_wall
    said = operation.steps[-1].text if operation.steps else ""
    return DrillReport(
        id=operation.id,
        kind=DrillKind.ISOLATED,
        title=f"clones of {named([clone.name for clone in run.clones]) or 'nobody'}, by {run.playbook}",
        asked_by=operation.asked_by,
        began=began,
        ended=began + operation.closed - operation.opened,
        verdict=STATES[operation.state],
        says=said,
        reason=operation.why,
        cluster=draft.cluster.id,
        revision=draft.state.revision,
        objective_s=run.rto_s,
        recovered_s=took_s(operation, run),
        guests=rows,
        timeline=tuple(_timeline(operation, zero))[-TIMELINE_MAX:],
        findings=tuple(_findings(draft, operation, run))[:FINDINGS_MAX],
        evidence=tuple(_evidence(run)),
        rests_on=(
            "clones of disks as they were at one moment, as after a power cut: nothing was asked to write first",
            "each clone ran on the host of its guest, beside it, with a lower share of the CPUs",
            *(
                f"{name}'s checks were made from {run.bubble.address}"
                for name in _hosts(run)
                if run.bubble.address
            ),
        ),
    )


def moved_since(draft: Draft, run: Run, guest: GuestId) -> bool:
    """Whether somebody has moved that guest to another host since it was cloned, where it runs."""
    record = draft.guest(guest)
    cloned = next((clone for clone in run.clones if clone.guest == guest), None)
    if record is None or cloned is None:
        return False
    if any(at >= cloned.asked for at in (*record.restarts, *record.relocations)):
        return False  # it crashed, and was started there
    return record.phase is GuestPhase.RUNNING and record.holder != cloned.host


def same_since(draft: Draft, run: Run, guest: GuestId) -> bool:
    """Whether nobody moved that guest or started it anew since it was cloned."""
    record = draft.guest(guest)
    cloned = next((clone for clone in run.clones if clone.guest == guest), None)
    return record is not None and cloned is not None and record.generation == cloned.generation


def zero_of(operation: Operation, run: Run) -> float:
    """When the first clone was asked to start."""
    return min((clone.boot_at for clone in run.clones if clone.boot_at), default=operation.opened)


def took_s(operation: Operation, run: Run) -> float | None:
    """From then until the last clone did its work; None: not all did."""
    if not run.clones or any(not clone.passed_at for clone in run.clones if clone.boot_at):
        return None
    ends = [clone.worked_at for clone in run.clones if clone.boot_at]
    return round(max(ends) - zero_of(operation, run), 1) if ends else None


def _hosts(run: Run) -> list[str]:
    return list(dict.fromkeys(clone.host for clone in run.clones))


def checks_of(guest: GuestRecord | None) -> tuple[Check, ...]:
    """What a clone has to pass: that it runs, and what its guest's policy says."""
    own = guest.policy.checks if guest is not None else ()
    return (Running(), *(check for check in own if not isinstance(check, Running)))


# ---- guests


def _row(draft: Draft, run: Run, clone: Clone, zero: float) -> GuestRow:
    verdict, why = Verdict.PASSED, ""
    if clone.state is CloneState.FAILED:
        verdict, why = Verdict.FAILED, clone.text
    elif not clone.passed_at:
        verdict, why = Verdict.UNKNOWN, "its checks had no turn"
        if clone.runs_at and clone.text:
            verdict, why = Verdict.FAILED, f"its checks have not passed: {clone.text}"
        elif not clone.runs_at:
            why = "its clone was not started" if clone.made is not None else "its clone was not whole"
    return GuestRow(
        guest=clone.guest,
        name=clone.name,
        host=clone.host,
        to=clone.host if clone.runs_at else "",
        verdict=verdict,
        why=why,
        phases=tuple(_phases(clone, zero)),
        recovered_s=round(clone.worked_at - zero, 1) if clone.passed_at else None,
        objective_s=run.rto_s,
        checks=tuple(_checks(clone)),
        evidence=tuple(
            Evidence(title=f"the console of {clone.name}'s clone", text=each.evidence, png=each.picture)
            for each in clone.results
            if each.picture
        ),
    )


def _phases(clone: Clone, zero: float) -> Iterator[PhaseTook]:
    if not clone.boot_at:
        return
    if clone.boot_at > zero:
        yield PhaseTook(
            phase="wait", begins_s=0.0, ends_s=clone.boot_at - zero, text="for its step of the playbook"
        )
    if clone.runs_at:
        yield PhaseTook(phase="start", begins_s=clone.boot_at - zero, ends_s=clone.runs_at - zero)
    if clone.worked_at > clone.runs_at:
        yield PhaseTook(phase="check", begins_s=clone.runs_at - zero, ends_s=clone.worked_at - zero)


def _checks(clone: Clone) -> Iterator[CheckSeen]:
    found = {each.check: each for each in clone.results}
    for check in clone.checks:
        result = found.get(check)
        if result is None or not result.made:
            yield CheckSeen(
                check=check_text(check), passed=None, text=result.why if result is not None else ""
            )
        else:
            text = result.evidence if result.passed else result.why
            took_s = round(result.took_s, 2)
            yield CheckSeen(check=check_text(check), passed=result.passed, text=text, took_s=took_s)


# ---- what was found


def _findings(draft: Draft, operation: Operation, run: Run) -> Iterator[Finding]:
    if run.cancelled:
        yield Finding(
            severity="warning", text=run.cancelled, todo=f"dr job show {operation.id}; then run it again"
        )
    elif run.failed:
        yield Finding(severity="critical", text=run.failed, todo=f"dr job show {operation.id}")
    for host, ended in run.ends.items():
        yield from _of_host(draft, run, host, ended)
    for clone in run.clones:
        guest = draft.guest(clone.guest)
        if clone.runs_at and guest is not None and not guest.policy.checks:
            text = f"{clone.name} has no check: that its clone ran is all that is shown of it"
            yield Finding(
                severity="warning", text=text, todo=f"dr guest set {clone.name} --check tcp:ADDRESS:PORT"
            )
        if clone.made is not None and clone.made.left_out:
            text = f"the clone of {clone.name} ran without its {', '.join(clone.made.left_out)}"
            yield Finding(severity="info", text=text)
    if len(hosts := _hosts(run)) > 1:
        text = f"clones on {named(hosts)} did not reach each other: each host has a network of its own"
        yield Finding(severity="info", text=text)


def _of_host(draft: Draft, run: Run, host: str, ended: Ended) -> Iterator[Finding]:
    if ended.end is None:
        why = f": {ended.text}" if ended.text else ""
        text = f"{host} has not said that nothing of the drill is left there{why}"
        yield Finding(severity="warning", text=text, todo=f"dr host show {host}")
        return
    for kept in ended.end.kept:
        if kept.ok:
            continue
        if moved_since(draft, run, kept.guest):
            yield Finding(severity="info", text=f"{kept.name} was moved meanwhile: {kept.why}")
        elif same_since(draft, run, kept.guest):
            yield Finding(severity="critical", text=f"{kept.name} is not as it was before: {kept.why}")
        else:
            text = f"{kept.name} was started anew meanwhile, and nobody knows what ended it: {kept.why}"
            yield Finding(severity="warning", text=text)
    if ended.end.bubble is not None and ended.end.bubble.strangers:
        others = ", ".join(ended.end.bubble.strangers)
        yield Finding(severity="critical", text=f"on the clones' network on {host} was also {others}")


def _evidence(run: Run) -> Iterator[Evidence]:
    """What each host says: the proof that guests were left alone, and that nothing led out."""
    for clone in run.clones:
        if clone.made is not None:
            made = clone.made
            size = f"{made.size_b / 2**20:,.0f} MiB in {made.took_s:.1f} s"
            text = f"{made.domain} ({made.clone}) on {clone.host}: {size}"
            yield Evidence(title=f"{clone.name}: its clone", text=text)
    for host, ended in run.ends.items():
        if ended.end is None:
            continue
        lines = [f"{kept.name}: {'untouched: ' if kept.ok else ''}{kept.why}" for kept in ended.end.kept]
        if (bubble := ended.end.bubble) is not None:
            ports = ", ".join(bubble.ports) or "nothing"
            lines.append(f"on {bubble.bridge}, which led nowhere, hung {ports}, and nothing else")
            if bubble.strangers:
                lines[-1] = (
                    f"on {bubble.bridge} hung {ports}; of these, {', '.join(bubble.strangers)} should not"
                )
        lines.append(f"removed in the end: {', '.join(ended.end.removed) or 'nothing'}")
        yield Evidence(title=f"{host} says", text="\n".join(lines))


def _timeline(operation: Operation, zero: float) -> Iterator[TimelineEntry]:
    for step in operation.steps:
        yield TimelineEntry(at_s=round(step.at - zero, 1) + 0.0, text=step.text)
