"""Whether a guest does its work: its policy's checks, all of them, made in rounds.

Rounds are made while somebody asks: an operation that brought the guest up or moved it, a guest that starts after it, a
playbook, and people who were told that they fail. That all passed counts until the guest starts anew, or arrives on
another host: whoever moved it wants to know whether it is still reached. Until they have, an operation that was to
bring it up has not done so; when `check_s` is over that is said, and people are told.
"""

from __future__ import annotations

from collections import Counter

from dr.core import measured
from dr.core.state import Draft
from dr.core.volatile import Checked, Pending
from dr.model.base import GuestId, changed
from dr.model.checks import PICTURE_MAX, CheckResult, Inside, Reached, Running, bounded
from dr.model.commands import Answer, LookInside, Outcome
from dr.model.effects import CheckGuest, Send
from dr.model.events import CheckEnded
from dr.model.operations import GUEST_CHECK, Operation
from dr.model.playbooks import StepState
from dr.model.records import GuestPhase, GuestRecord, StoredPicture
from dr.model.spelling import check_text
from dr.model.verbs import Check

WINDOW_S = (
    5.0  # of one round: each check is tried again and again in it, so that rounds follow without a pause
)
ANSWER_S = 10.0  # more than the window, and a part of a round is not answered any more
ROUND_S = 0.5  # a round that took less is not followed by the next one at once
ROUNDS_MAX = 200  # under way at a time
INSIDE_PER_HOST = 8  # of them: an agent has other things to answer
AGAIN_S = 30.0  # between rounds of a guest that people were told of
PARTS = frozenset(
    {"check", "inside"}
)  # kinds of Pending: what the coordinator reaches, what the guest's host looks at
# Operations that say whether the checks passed: of all of their guests, and of those that have arrived.
BROUGHT_UP = frozenset({"failover", "restart", "guest-start"})
MOVED = frozenset({"guest-migrate", "guest-relocate", "failback", "drain", "leave"})


def passed(guest: GuestRecord) -> bool:
    """Whether all its checks have passed since it runs."""
    return guest.phase is GuestPhase.RUNNING and guest.checked_at >= guest.since


def awaited(draft: Draft, guest: GuestRecord) -> bool:
    """Whether the end of its operation still waits for its checks."""
    if not guest.policy.checks or passed(guest) or suspended(draft, guest):
        return False
    return draft.now < guest.since + draft.config.timers.check_s


def failing(draft: Draft, guest: GuestRecord) -> bool:
    """Whether it runs, and yet does not do its work as far as anybody knows."""
    return bool(guest.policy.checks) and not passed(guest) and not suspended(draft, guest)


def in_words(draft: Draft, guest: GuestRecord) -> str:
    """Where it runs, and what its checks say."""
    if not guest.policy.checks:
        return f"running on {guest.holder}"
    if passed(guest):
        return f"running on {guest.holder}, its checks passed"
    if suspended(draft, guest):
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
    if suspended(draft, guest):
        return ", suspended as it was"
    if not guest.policy.checks or awaited(draft, guest):
        return ""
    if passed(guest):
        return f", and answers after {guest.checked_at - guest.since:.1f} s"
    return f", and its checks have not passed since: {what_fails(draft, guest)}"


def suspended(draft: Draft, guest: GuestRecord) -> bool:
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
    once = {
        guest_id: operation.opened
        for operation in draft.open_operations()
        if operation.kind == GUEST_CHECK
        for guest_id in operation.guests
    }
    if since or once:
        begin_rounds(draft, since, once)


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
    ours = ("/checks", "/unhealthy")
    for key in [key for key in draft.state.alerts if key.startswith("guest/") and key.endswith(ours)]:
        guest = draft.guest(key.split("/")[1])
        if guest is None or not guest.policy.checks or guest.phase in (GuestPhase.STOPPED, GuestPhase.ERROR):
            draft.clear_alert(key)
            continue
        last = draft.checked_of(guest.id)
        if last is None or draft.now - last.began >= AGAIN_S:
            found[guest.id] = draft.now
    return found


def begin_rounds(
    draft: Draft, since: dict[GuestId, float], once: dict[GuestId, float], most: int = ROUNDS_MAX
) -> None:
    """`since`: of whom, and from when on that all passed counts. `once`: and that any round does, however it ends.

    No round begins while `most` are under way.
    """
    due: list[tuple[float, GuestId, GuestRecord]] = []
    for guest_id in since.keys() | once.keys():
        guest = draft.guest(guest_id)
        if guest is None or not guest.policy.checks or guest.phase is not GuestPhase.RUNNING:
            continue
        last = draft.checked_of(guest_id)
        looked_at = guest_id not in once or (last is not None and last.began >= once[guest_id])
        does_well = guest_id not in since or (passed(guest) and guest.checked_at >= since[guest_id])
        if looked_at and does_well:
            continue
        if _under_way(draft, guest_id) or (last is not None and draft.now - last.began < ROUND_S):
            continue
        due.append((last.began if last is not None else 0.0, guest_id, guest))
    if not due:
        return
    out = [pending for _, pending in draft.pendings() if pending.kind in PARTS]
    room = most - len({pending.guest for pending in out})
    looked_into = Counter(pending.host for pending in out if pending.kind == "inside")
    for _, _, guest in sorted(due, key=lambda each: each[:2]):
        if any(isinstance(each, Inside) for each in guest.policy.checks):
            if looked_into[guest.holder] >= INSIDE_PER_HOST:
                continue
            looked_into[guest.holder] += 1
        if room <= 0:
            return
        room -= 1
        _begin(draft, guest)


def _under_way(draft: Draft, guest_id: GuestId) -> bool:
    return any(draft.find_pending(kind, guest=guest_id) for kind in PARTS)


def _begin(draft: Draft, guest: GuestRecord) -> None:
    reached = tuple(each for each in guest.policy.checks if isinstance(each, Reached))
    inside = tuple(each for each in guest.policy.checks if isinstance(each, Inside))
    last = draft.checked_of(guest.id) or Checked(began=draft.now)
    draft.checked[guest.id] = changed(last, began=draft.now, heard=())
    if reached:
        key = _wait(draft, guest, "check")
        draft.effect(CheckGuest(id=key, guest=guest.id, checks=reached, window_s=WINDOW_S))
    if inside and (session := draft.view(guest.holder).session):
        body = LookInside(guest=guest.id, name=guest.name, checks=inside, window_s=WINDOW_S)
        key = _wait(draft, guest, "inside")
        draft.effect(Send(id=key, host=guest.holder, session=session, body=body))
    if not _under_way(draft, guest.id):
        _end(draft, guest.id)


def _wait(draft: Draft, guest: GuestRecord, kind: str) -> str:
    """The id of one part of its round."""
    key = draft.next_id("check")
    deadline = draft.now + WINDOW_S + ANSWER_S
    draft.wait_for(
        key, Pending(kind=kind, host=guest.holder, guest=guest.id, at=draft.now, deadline=deadline)
    )
    return key


def ended(draft: Draft, event: CheckEnded) -> None:
    """What the coordinator reached is known."""
    pending = draft.pending_of(event.effect)
    if pending is None:
        return
    draft.forget(event.effect)
    _heard(draft, pending.guest, event.results)


def looked(draft: Draft, pending: Pending, answer: Answer) -> None:
    """What its host found is known. A picture goes to the store and nowhere else."""
    guest = draft.guest(pending.guest)
    found: list[CheckResult] = []
    for each in answer.checks:
        if guest is not None and each.picture and len(each.picture) <= PICTURE_MAX:
            draft.put_picture(
                StoredPicture(guest=guest.id, host=pending.host, at=draft.now, png=each.picture)
            )
        found.append(changed(each, picture=b"", why=bounded(each.why), evidence=bounded(each.evidence)))
    if answer.outcome is not Outcome.DONE and guest is not None:
        why = f"{pending.host} could not look: {answer.reason}"
        inside = (each for each in guest.policy.checks if isinstance(each, Inside))
        found = [CheckResult(check=each, passed=False, made=False, why=bounded(why)) for each in inside]
    _heard(draft, pending.guest, tuple(found))


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
        made.get(check, CheckResult(check=check, passed=False, made=False, why="nobody told how it ended"))
        for check in guest.policy.checks
    )
    before = found.failures if found.ended >= guest.since else 0
    bad = any(each.made and not each.passed for each in results)
    failures = 0 if all(each.passed for each in results) else before + bad
    draft.checked[guest_id] = changed(found, heard=(), results=results, ended=draft.now, failures=failures)
    if not all(each.passed for each in results):
        return
    well_before = passed(guest)
    draft.put_guest(changed(measured.answered(guest, draft.now), checked_at=draft.now))
    for kind in ("checks", "unhealthy"):
        draft.clear_alert(f"guest/{guest.id}/{kind}")
    if well_before:
        return
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


def close_if_over(draft: Draft, operation: Operation) -> None:
    """A round that was asked for: it ends when each guest had one, and says what failed."""
    outcomes: dict[GuestId, str] = {}
    for guest_id in operation.guests:
        guest, last = draft.guest(guest_id), draft.checked_of(guest_id)
        if guest is None or not guest.policy.checks:
            outcomes[guest_id] = "not protected any longer" if guest is None else "its checks were taken away"
        elif guest.phase is not GuestPhase.RUNNING:
            outcomes[guest_id] = f"not running: {guest.phase}: {guest.reason}"
        elif last is not None and last.ended >= last.began >= operation.opened:
            well = all(each.passed for each in last.results)
            outcomes[guest_id] = "its checks passed" if well else what_fails(draft, guest)
        elif draft.now >= operation.opened + draft.config.timers.check_s:
            outcomes[guest_id] = "no round of its checks has ended"
        else:
            return
    bad = [key for key, text in outcomes.items() if text != "its checks passed"]
    draft.put_operation(changed(operation, guests=outcomes))
    names = {key: guest.name if (guest := draft.guest(key)) is not None else key for key in outcomes}
    told = [f"{names[key]}: {outcomes[key]}" for key in bad] or [f"{len(outcomes)} of {len(outcomes)} pass"]
    draft.close_operation(operation, "failed" if bad else "done", "; ".join(told))
