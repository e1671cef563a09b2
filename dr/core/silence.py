"""The silence of a host: suspected, looked at, judged; then proven dead, fenced, held, or waited for.

Here: which way the evidence points, and that nothing is done in a doubt without saying why. Not here: how late is late
and what evidence means (`detector`), who looks (`looks`), whether and how a host is fenced (`fencing`).
"""

from __future__ import annotations

from dr.core import fencing, isolation, leaving, looks, onecopy, quorum
from dr.core.detector import VERDICTS, Verdict, is_late, peers_say, power_says
from dr.core.state import Draft
from dr.core.tables import HostEvent, move_host
from dr.model.base import HostName, changed
from dr.model.evidence import Proof, ProofKind
from dr.model.records import Condition, HostPhase, HostRecord

IN_USE = (HostPhase.ONLINE, HostPhase.DRAINING)  # guests run there, so silence is a matter
SET_ASIDE = (HostPhase.FENCED, HostPhase.MAINTENANCE)  # nothing runs; only death may have to be proven anew
GOODBYE_GRACE_S = 30.0  # an agent that said goodbye (upgrade, restart) is not reported as lost for this long


def watch(draft: Draft, host: HostRecord) -> None:
    """Silence of one host: suspect, look, judge."""
    timers = draft.config.timers
    view = draft.view(host.name)
    if host.phase in (*IN_USE, HostPhase.RETURNING):
        if not is_late(draft, host):
            return
        excused = bool(view.goodbye) and draft.now - view.heard < GOODBYE_GRACE_S
        if host.phase in IN_USE and (excused or Condition.AGENT_LOST in host.conditions):
            _look_again(draft, host, timers.probe_every_s)
            return
        silent = (
            f"not heard for {draft.now - view.heard:.2f} s" if view.heard else "not heard since the start"
        )
        move_host(draft, host, HostEvent.LATE, silent)
        looks.begin_round(draft, host, looks.LOOK_S)
        return
    if draft.now >= draft.quiet_until and (host.phase is HostPhase.SUSPECT or _unproven_in_term(draft, host)):
        _look_again(draft, host, timers.probe_every_s)


def _unproven_in_term(draft: Draft, host: HostRecord) -> bool:
    """Proven dead once (or in maintenance and silent), and guests wait for that to be shown (again).

    Either an earlier leader proved it (see `quorum.hold`), or the store turned out to be an older copy and the
    host went back into every set.
    """
    if host.phase not in SET_ASIDE or draft.view(host.name).session or not draft.state.unsettled:
        return False
    old = host.dead_at < draft.state.started_at
    guests_here = (draft.guest(guest_id) for guest_id in draft.guests_at(host.name))
    waits = any(g is not None and not onecopy.stays_when_off(draft, g, host.name) for g in guests_here)
    return waits or (old and bool(quorum.hold(draft)))


def _look_again(draft: Draft, host: HostRecord, every_s: float) -> None:
    view = draft.view(host.name)
    if view.round_at > view.judged_at:
        judge_if_complete(draft, host.name)
    elif draft.now - view.round_at >= every_s:
        looks.begin_round(draft, host, looks.LOOK_S)


def judge_if_complete(draft: Draft, name: HostName) -> None:
    host, view = draft.host(name), draft.view(name)
    if host is None or draft.now < draft.quiet_until or view.round_at <= view.judged_at:
        return
    if host.phase in (*IN_USE, *SET_ASIDE, HostPhase.SUSPECT) and looks.complete(draft, name):
        draft.put_view(name, judged_at=view.round_at)
        if is_late(draft, host):
            _judge(draft, host)


def _judge(draft: Draft, host: HostRecord) -> None:
    """A round is complete: what does the evidence say, and what follows?"""
    verdict, meaning = VERDICTS[False, peers_say(draft.view(host.name)), power_says(draft, host)]
    evidence = looks.in_words(draft, host.name)
    draft.put_view(host.name, verdict=f"{verdict}: {meaning} ({evidence})")
    if host.phase in SET_ASIDE:
        if verdict is Verdict.DEAD:
            _dead_already(draft, host, f"still {meaning} ({evidence})")
        return
    if verdict is Verdict.AGENT_LOST:
        _agent_lost(draft, host, f"{meaning} ({evidence})")
        return
    draft.clear_alert(f"host/{host.name}/agent-lost")
    if host.phase in IN_USE:
        conditions = host.conditions - {Condition.AGENT_LOST}
        host = move_host(draft, host, HostEvent.LATE, f"{meaning} ({evidence})", conditions=conditions)
    if verdict is Verdict.DEAD:
        _dead_already(draft, host, f"{meaning} ({evidence})")
    elif wait := leaving.patience(draft, host):
        _be_patient(draft, host, wait)
    elif verdict is Verdict.HOLD:
        _hold(draft, host, [meaning], evidence)
    elif wait := isolation.patience(draft, host):
        _be_patient(draft, host, wait)
    elif why := fencing.why_not_fence(draft, host):
        _hold(draft, host, why, f"{meaning} ({evidence})")
    else:
        draft.clear_alert(f"host/{host.name}/held")
        host = fencing.condemn(draft, host, f"{meaning} ({evidence})")
        fencing.step(draft, host)


def _dead_already(draft: Draft, host: HostRecord, text: str) -> None:
    proof = Proof(kind=ProofKind.POWER, host=host.name, boot_id=host.boot_id, text=text)
    # It was switched off by a fencing whose end came too late, or to nobody: an earlier leader's.
    cut_short = host.phase is HostPhase.SUSPECT and host.power_on
    fencing.dead(draft, host, proof, fenced=cut_short)


def _agent_lost(draft: Draft, host: HostRecord, text: str) -> None:
    view = draft.view(host.name)
    if bool(view.goodbye) and draft.now - view.heard < GOODBYE_GRACE_S:
        return
    if wait := leaving.patience(draft, host):
        _be_patient(draft, host, wait)
        return
    for kind in ("held", "fence-failed"):
        draft.clear_alert(f"host/{host.name}/{kind}")
    if Condition.AGENT_LOST in host.conditions and host.phase in IN_USE:
        return
    conditions = host.conditions | {Condition.AGENT_LOST}
    if host.phase in IN_USE:
        draft.put_host(changed(host, conditions=conditions))
        draft.note("host.agent_lost", f"{host.name}: {text}", host=host.name)
    else:
        move_host(draft, host, HostEvent.ANSWERS, text, conditions=conditions)
    draft.alert(
        f"host/{host.name}/agent-lost",
        f"the agent of {host.name} is lost; the host lives, nothing is fenced, its guests keep running",
        text,
        f"on {host.name}: systemctl status dr-agent, and check its management network",
    )


def _be_patient(draft: Draft, host: HostRecord, why: str) -> None:
    """Its silence has an explanation, for a time: nobody is alarmed, nothing is fenced."""
    if host.reason != why:
        draft.put_host(changed(host, reason=why))
        draft.note("host.waits", f"{host.name}: {why}", host=host.name)


def _hold(draft: Draft, host: HostRecord, why: list[str], evidence: str) -> None:
    """Looks dead, and yet nothing is done: say so, with what would unblock it."""
    text = "; ".join(why)
    if host.reason != f"held: {text}":
        draft.put_host(changed(host, reason=f"held: {text}"))
        draft.note("host.held", f"{host.name}: not fenced: {text} ({evidence})", host=host.name)
    held = [guest.name for g in draft.guests_at(host.name) if (guest := draft.guest(g)) is not None]
    names = f"; {', '.join(held)} stay where they were" if held else ""
    draft.alert(
        f"host/{host.name}/held",
        f"{host.name} is silent and is not fenced{names}",
        f"{text} ({evidence})",
        f"if it lives: repair its network or agent; if it hangs: dr host fence {host.name}; "
        f"if it is off for sure: dr host confirm-down {host.name}",
        severity="critical",
    )
