"""How far runs of playbooks are, as the API tells it. Not here: the shape of it (`dr.api.run_schema`)."""

from __future__ import annotations

from dr.api.programs import command
from dr.api.run_schema import CloneSeen, DrillEnded, RunSeen, RunStepSeen
from dr.api.snapshot import Snapshot
from dr.model.base import HostName
from dr.model.clones import Clone, Ended
from dr.model.playbooks import Run


def run_seen(snap: Snapshot, run: Run) -> RunSeen:
    steps = [
        RunStepSeen(
            part=step.part,
            text=step.spec.text(),
            state=step.state.value,
            says=step.text,
            began_wall=snap.wall(step.began) if step.began else None,
            took_s=round((step.ended or snap.now) - step.began, 2) if step.began else None,
            tries=step.tries,
            jobs=list(step.jobs),
            commands=[command(each) for each in step.commands],
        )
        for step in run.steps
    ]
    return RunSeen(
        params=run.params,
        part=run.part,
        failed=run.failed,
        cancelled=run.cancelled,
        rto_s=run.rto_s,
        steps=steps,
        clones=[_clone(snap, clone) for clone in run.clones],
        ends=[_ended(host, ended) for host, ended in run.ends.items()],
    )


def _clone(snap: Snapshot, clone: Clone) -> CloneSeen:
    made = clone.made
    return CloneSeen(
        guest=clone.name,
        host=clone.host,
        state=clone.state.value,
        domain=made.domain if made is not None else "",
        point_wall=made.point if made is not None else None,
        copied_s=made.took_s if made is not None else None,
        copied_mib=round(made.size_b / 2**20) if made is not None else None,
        booted_s=round(clone.runs_at - clone.boot_at, 2) if clone.runs_at else None,
        answers_s=round(clone.worked_at - clone.boot_at, 2) if clone.worked_at else None,
        left_out=list(made.left_out) if made is not None else [],
        says=clone.text,
    )


def _ended(host: HostName, ended: Ended) -> DrillEnded:
    end = ended.end
    if end is None:
        return DrillEnded(host=host, done=False, says=ended.text)
    bubble = end.bubble
    return DrillEnded(
        host=host,
        done=True,
        kept=[f"{kept.name}: {kept.why}" for kept in end.kept if kept.ok],
        changed=[f"{kept.name}: {kept.why}" for kept in end.kept if not kept.ok],
        bridge=bubble.bridge if bubble is not None else "",
        ports=list(bubble.ports) if bubble is not None else [],
        strangers=list(bubble.strangers) if bubble is not None else [],
        removed=list(end.removed),
    )
