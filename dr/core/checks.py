"""Whether a guest does its work: its policy's checks, all of them, made in rounds.

Rounds are made while somebody asks: an operation that brought the guest up or moved it, a guest that starts after it, a
playbook, and people who were told that they fail. That all passed counts until the guest starts anew, or arrives on
another host: whoever moved it wants to know whether it is still reached. Until they have, an operation that was to
bring it up has not done so; when `check_s` is over that is said, and people are told.
"""

from __future__ import annotations

from dr.core import measured
from dr.core.state import Draft
from dr.core.volatile import Checked, Pending
from dr.model.base import GuestId, changed
from dr.model.checks import CheckResult, Reached, Running
from dr.model.effects import CheckGuest
from dr.model.events import CheckEnded
from dr.model.operations import Operation
from dr.model.playbooks import StepState
from dr.model.records import GuestPhase, GuestRecord
from dr.model.spelling import check_text
from dr.model.verbs import Check

WINDOW_S = (
    5.0  # of one round: each check is tried again and again in it, so that rounds follow without a pause
)
ANSWER_S = 10.0  # more than the window, and a part of a round is not answered any more
ROUND_S = 0.5  # a round that took less is not followed by the next one at once
ROUNDS_MAX = 200  # under way at a time
AGAIN_S = 30.0  # between rounds of a guest that people were told of
# Operations that say whether the checks passed: of all of their guests, and of those that have arrived.
BROUGHT_UP = frozenset({"failover", "restart", "guest-start"})
MOVED = frozenset({"guest-migrate", "guest-relocate", "failback", "drain", "leave"})


def passed(guest: GuestRecord) -> bool:
    """Whether all its checks have passed since it runs."""
    return guest.phase is GuestPhase.RUNNING and guest.checked_at >= guest.since


def awaited(draft: Draft, guest: GuestRecord) -> bool:
    """Whether the end of its operation still waits for its checks."""
    if not guest.policy.checks or passed(guest) or _suspended(draft, guest):
        return False
    return draft.now < guest.since + draft.config.timers.check_s


def failing(draft: Draft, guest: GuestRecord) -> bool:
    """Whether it runs, and yet does not do its work as far as anybody knows."""
    return bool(guest.policy.checks) and not passed(guest) and not _suspended(draft, guest)


def in_words(draft: Draft, guest: GuestRecord) -> str:
    """Where it runs, and what its checks say."""
    if not guest.policy.checks:
        return f"running on {guest.holder}"
    if passed(guest):
        return f"running on {guest.holder}, its checks passed"
    if _suspended(draft, guest):
        return f"running on {guest.holder}, suspended"
    return f"running on {guest.holder}, but its checks have not passed: {what_fails(draft, guest)}"


def what_fails(draft: Draft, guest: GuestRecord) -> str:
    """Each check that failed in its last round, and why."""
    last = draft.checked_of(guest.id)
    if last is None or last.ended < guest.since:
        return "no round of them has ended"
    bad = [f"{check_text(each.check)}: {each.why}" for each in last.results if not each.passed]
    return "; ".join(bad) or "they passed once"


def moved_by(guest: GuestRecord, operation: Operation) -> bool:
    """Whether that operation, which moves guests, is done with it: it runs, there or where it was."""
    here = guest.phase is GuestPhase.RUNNING and guest.move is None
    return operation.kind in MOVED and here and guest.since >= operation.opened


def after_move(draft: Draft, guest: GuestRecord) -> str:
    """To go on with, after where it runs: whether it answers there; empty while its checks are tried, and without."""
    if _suspended(draft, guest):
        return ", suspended as it was"
    if not guest.policy.checks or awaited(draft, guest):
        return ""
    if passed(guest):
        return f", and answers after {guest.checked_at - guest.since:.1f} s"
    return f", and its checks have not passed since: {what_fails(draft, guest)}"


def _suspended(draft: Draft, guest: GuestRecord) -> bool:
    """Whether it stands still because its owner wants so: then it answers nobody."""
    facts = draft.view(guest.holder).guests.get(guest.id)
    return facts is not None and facts.suspended


# ---- rounds


def step(draft: Draft, *, tick: bool) -> None:
    """Begin the rounds that somebody waits for; tell people of those that were waited for long enough."""
    brought = _brought(draft)
    for guest in brought:
        if failing(draft, guest) and not awaited(draft, guest):
            _tell(draft, guest)
    names = {
        after.guest
        for guest in draft.unsettled()
        if guest.phase is GuestPhase.RECOVERING
        for after in guest.policy.boot_after
        if after.until == "check"
    }
    wanted = {guest.id for guest in brought}
    wanted.update(found.id for name in names if (found := draft.guest_named(name)) is not None)
    since = dict.fromkeys(wanted, 0.0) | _wanted_anew(draft)
    if tick:
        since |= {key: at for key, at in _told_of(draft).items() if key not in since}
    if since:
        _begin_rounds(draft, since)


def _brought(draft: Draft) -> list[GuestRecord]:
    """Guests that run, and whose open operation says whether their checks passed."""
    found: dict[GuestId, GuestRecord] = {}
    for operation in draft.open_operations():
        up = operation.kind in BROUGHT_UP
        for guest_id in operation.guests if up or operation.kind in MOVED else ():
            guest = draft.guest(guest_id)
            if guest is None or guest.phase is not GuestPhase.RUNNING:
                continue
            if up or moved_by(guest, operation):
                found[guest_id] = guest
    return list(found.values())


def _wanted_anew(draft: Draft) -> dict[GuestId, float]:
    """Whom a playbook checks now, and since when: what passed before does not count."""
    found: dict[GuestId, float] = {}
    for operation in draft.open_operations():
        run = operation.run
        for step in run.steps if run is not None and run.kind != "drill" else ():
            if step.state is StepState.RUNNING and isinstance(step.spec.verb, Check):
                guests = (draft.guest_named(name) for name in step.spec.verb.check)
                found |= {guest.id: step.began for guest in guests if guest is not None}
    return found


def _told_of(draft: Draft) -> dict[GuestId, float]:
    """Whose failing checks people were told of, where the next round is due; what is over is cleared."""
    found: dict[GuestId, float] = {}
    for key in [key for key in draft.state.alerts if key.startswith("guest/") and key.endswith("/checks")]:
        guest = draft.guest(key.split("/")[1])
        if guest is None or not guest.policy.checks or guest.phase in (GuestPhase.STOPPED, GuestPhase.ERROR):
            draft.clear_alert(key)
            continue
        last = draft.checked_of(guest.id)
        if last is None or draft.now - last.began >= AGAIN_S:
            found[guest.id] = draft.now
    return found


def _begin_rounds(draft: Draft, since: dict[GuestId, float]) -> None:
    """`since`: of whom, and from when on that all passed counts."""
    due: list[tuple[float, GuestId, GuestRecord]] = []
    for guest_id, at in since.items():
        guest = draft.guest(guest_id)
        if guest is None or not guest.policy.checks or guest.phase is not GuestPhase.RUNNING:
            continue
        if passed(guest) and guest.checked_at >= at:
            continue
        last = draft.checked_of(guest_id)
        if _under_way(draft, guest_id) or (last is not None and draft.now - last.began < ROUND_S):
            continue
        due.append((last.began if last is not None else 0.0, guest_id, guest))
    if not due:
        return
    room = ROUNDS_MAX - sum(pending.kind == "check" for _, pending in draft.pendings())
    for _, _, guest in sorted(due, key=lambda each: each[:2])[: max(room, 0)]:
        _begin(draft, guest)


def _under_way(draft: Draft, guest_id: GuestId) -> bool:
    return draft.find_pending("check", guest=guest_id) is not None


def _begin(draft: Draft, guest: GuestRecord) -> None:
    last = draft.checked_of(guest.id) or Checked(began=draft.now)
    draft.checked[guest.id] = changed(last, began=draft.now, heard=())
    reached = tuple(each for each in guest.policy.checks if isinstance(each, Reached))
    if not reached:
        _end(draft, guest.id)
        return
    key = draft.next_id("check")
    deadline = draft.now + WINDOW_S + ANSWER_S
    draft.wait_for(
        key, Pending(kind="check", host=guest.holder, guest=guest.id, at=draft.now, deadline=deadline)
    )
    draft.effect(CheckGuest(id=key, guest=guest.id, checks=reached, window_s=WINDOW_S))


def ended(draft: Draft, event: CheckEnded) -> None:
    """What the coordinator reached is known."""
    pending = draft.pending_of(event.effect)
    if pending is None:
        return
    draft.forget(event.effect)
    _heard(draft, pending.guest, event.results)


def unanswered(draft: Draft, pending: Pending) -> None:
    """A part of a round was not answered, and is not waited for any longer."""
    _heard(draft, pending.guest, ())


def _heard(draft: Draft, guest_id: GuestId, results: tuple[CheckResult, ...]) -> None:
    found = draft.checked_of(guest_id)
    if found is None:
        return
    draft.checked[guest_id] = changed(found, heard=(*found.heard, *results))
    if not _under_way(draft, guest_id):
        _end(draft, guest_id)


def _end(draft: Draft, guest_id: GuestId) -> None:
    """A round is over. It counts if the guest still runs as it did when the round began."""
    guest, found = draft.guest(guest_id), draft.checked_of(guest_id)
    if guest is None or found is None or guest.phase is not GuestPhase.RUNNING or found.began < guest.since:
        draft.checked[guest_id] = None
        return
    made = {each.check: each for each in found.heard}
    for check in guest.policy.checks:
        if isinstance(check, Running):
            made[check] = _runs(draft, guest, check)
    results = tuple(
        made.get(check, CheckResult(check=check, passed=False, why="nobody told how it ended"))
        for check in guest.policy.checks
    )
    draft.checked[guest_id] = changed(found, heard=(), results=results, ended=draft.now)
    if not all(each.passed for each in results):
        return
    draft.put_guest(changed(measured.answered(guest, draft.now), checked_at=draft.now))
    draft.clear_alert(f"guest/{guest.id}/checks")
    draft.note(
        "guest.checked",
        f"{guest.name}: its checks passed, {draft.now - guest.since:.1f} s after it was seen to run",
        guest=guest.id,
        operation=draft.operation_about(guest.id),
    )


def _runs(draft: Draft, guest: GuestRecord, check: Running) -> CheckResult:
    facts = draft.view(guest.holder).guests.get(guest.id)
    if facts is not None and facts.runs:
        return CheckResult(check=check, passed=True, evidence=f"{facts.state} on {guest.holder}")
    why = (
        f"{guest.holder} has not told of it yet"
        if facts is None
        else f"it is {facts.state} on {guest.holder}"
    )
    return CheckResult(check=check, passed=False, why=why)


def _tell(draft: Draft, guest: GuestRecord) -> None:
    draft.alert(
        f"guest/{guest.id}/checks",
        f"{guest.name} runs on {guest.holder}, but its checks do not pass",
        what_fails(draft, guest),
        f"dr guest show {guest.name}; see that its service is up; other checks: dr guest set {guest.name} --check …",
    )
