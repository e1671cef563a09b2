"""Whether a guest does its work: its policy's check, made by the coordinator's own prober.

Checks are made while somebody asks: an operation that brought the guest up or moved it, or a guest that starts after
it. A check that passed counts until the guest starts anew, or arrives on another host: whoever moved it wants to know
whether it is still reached. A failed one changes nothing but what is said.
"""

from __future__ import annotations

from dr.core import measured
from dr.core.state import Draft
from dr.core.volatile import Pending
from dr.model.base import GuestId, changed
from dr.model.effects import CheckGuest
from dr.model.events import CheckEnded
from dr.model.operations import Operation
from dr.model.playbooks import StepState
from dr.model.records import GuestPhase, GuestRecord
from dr.model.verbs import Check

WINDOW_S = 2.0  # one round: tried again and again in it, so that rounds follow each other without a pause
# Operations that say whether the check passed: of all of their guests, and of those that have arrived.
BROUGHT_UP = frozenset({"failover", "restart", "guest-start"})
MOVED = frozenset({"guest-migrate", "guest-relocate", "failback", "drain", "leave"})


def passed(guest: GuestRecord) -> bool:
    """Whether its check has passed since it runs."""
    return guest.phase is GuestPhase.RUNNING and guest.checked_at >= guest.since


def awaited(draft: Draft, guest: GuestRecord) -> bool:
    """Whether the end of its operation still waits for its check."""
    if guest.policy.check is None or passed(guest) or _suspended(draft, guest):
        return False
    return draft.now < guest.since + draft.config.timers.check_s


def in_words(guest: GuestRecord) -> str:
    """Where it runs, and what its check says."""
    if guest.policy.check is None:
        return f"running on {guest.holder}"
    return f"running on {guest.holder}, its check {'passed' if passed(guest) else 'has not passed yet'}"


def moved_by(guest: GuestRecord, operation: Operation) -> bool:
    """Whether that operation, which moves guests, is done with it: it runs, there or where it was."""
    here = guest.phase is GuestPhase.RUNNING and guest.move is None
    return operation.kind in MOVED and here and guest.since >= operation.opened


def after_move(draft: Draft, guest: GuestRecord) -> str:
    """To go on with, after where it runs: whether it answers there; empty while its check is tried, and without one."""
    if _suspended(draft, guest):
        return ", suspended as it was"
    if guest.policy.check is None or awaited(draft, guest):
        return ""
    if passed(guest):
        return f", and answers after {guest.checked_at - guest.since:.1f} s"
    return ", and its check has not passed since"


def _suspended(draft: Draft, guest: GuestRecord) -> bool:
    """Whether it stands still because its owner wants so: then it answers nobody."""
    facts = draft.view(guest.holder).guests.get(guest.id)
    return facts is not None and facts.suspended


def step(draft: Draft) -> None:
    """Begin the rounds that somebody waits for."""
    wanted: set[GuestId] = set()
    for operation in draft.open_operations():
        if operation.kind in BROUGHT_UP:
            wanted.update(operation.guests)
        elif operation.kind in MOVED:
            found = (draft.guest(guest_id) for guest_id in operation.guests)
            wanted.update(guest.id for guest in found if guest is not None and moved_by(guest, operation))
    names = {
        after.guest
        for guest in draft.unsettled()
        if guest.phase is GuestPhase.RECOVERING
        for after in guest.policy.boot_after
        if after.until == "check"
    }
    wanted.update(guest.id for name in names if (guest := draft.guest_named(name)) is not None)
    anew = _wanted_anew(draft)
    for guest_id in sorted(wanted | anew.keys()):
        guest = draft.guest(guest_id)
        if guest is None or guest.policy.check is None or guest.phase is not GuestPhase.RUNNING:
            continue
        fresh = passed(guest) and guest.checked_at >= anew.get(guest_id, 0.0)
        if fresh or draft.find_pending("check", guest=guest_id):
            continue
        key = draft.next_id("check")
        deadline = draft.now + 3 * WINDOW_S
        draft.wait_for(
            key, Pending(kind="check", host=guest.holder, guest=guest_id, at=draft.now, deadline=deadline)
        )
        draft.effect(CheckGuest(id=key, guest=guest_id, check=guest.policy.check, window_s=WINDOW_S))


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


def ended(draft: Draft, event: CheckEnded) -> None:
    """One round is over. It counts if the guest still runs as it did when the round began."""
    pending = draft.pending_of(event.effect)
    if pending is None:
        return
    draft.forget(event.effect)
    guest = draft.guest(pending.guest)
    if guest is None or not event.passed or guest.phase is not GuestPhase.RUNNING or pending.at < guest.since:
        return
    draft.put_guest(changed(measured.answered(guest, draft.now), checked_at=draft.now))
    draft.note(
        "guest.checked",
        f"{guest.name}: its check passed, {draft.now - guest.since:.1f} s after it was seen to run",
        guest=guest.id,
        operation=draft.operation_about(guest.id),
    )
