"""Upkeep: hosts that a person sets aside. Cordon, drain, maintenance.

A wish stands in the host's record until it is taken back. `step` brings the phase in line with it, again and again,
so a fencing, a reboot or a restart of the coordinator in the middle of a drain changes nothing but the time it takes.
A cordoned host takes no guests and keeps those that it has: one that crashes there is restarted in place. A host in
maintenance is empty; it may be silent, off and on again as it likes, and is cleaned before it counts again.
"""

from __future__ import annotations

from dr.core import checks, deadline, departures
from dr.core.departures import Emptying
from dr.core.state import Draft
from dr.core.tables import HostEvent, move_host
from dr.core.whereabouts import seen_active
from dr.core.wishes import in_words
from dr.model.base import GuestId, changed
from dr.model.facts import GuestFacts
from dr.model.operations import Operation
from dr.model.records import Condition, GuestPhase, GuestRecord, HostPhase, HostRecord, Wish

SILENCED = (
    "agent-lost",
    "held",
    "fence-failed",
    "degraded",
    "unprotected",
)  # nobody is alarmed of maintenance
NAMED_MAX = 10  # guests that a reason names; the operation has all of them


# ---- phases


def step(draft: Draft, host: HostRecord) -> None:
    """Bring the phase in line with the wish."""
    wish = host.drain
    match host.phase:
        case HostPhase.DRAINING | HostPhase.MAINTENANCE if wish is None:
            move_host(draft, host, HostEvent.UNDRAIN, "no longer to be drained")
        case HostPhase.ONLINE if wish is not None:
            host = move_host(draft, host, HostEvent.DRAIN, f"is being drained: {in_words(wish)}")
            _drain(draft, host, wish)
        case HostPhase.DRAINING if wish is not None:
            _drain(draft, host, wish)
        case HostPhase.MAINTENANCE if wish is not None:
            if names := [guest.name for guest in guests_on(draft, host) if _occupies(draft, guest, host)]:
                move_host(draft, host, HostEvent.OCCUPIED, f"is not empty any more: {', '.join(names)}")


def guests_on(draft: Draft, host: HostRecord) -> list[GuestRecord]:
    """Protected guests that may be running there."""
    return [guest for key in draft.guests_at(host.name) if (guest := draft.guest(key)) is not None]


def _occupies(draft: Draft, guest: GuestRecord, host: HostRecord) -> bool:
    """Whether it is more than a question: a guest whose protection begins stands in the set of every host."""
    asked_only = guest.phase is GuestPhase.PROTECTING
    return not asked_only or seen_active(draft, guest.id, host.name, host.boot_id)


def _drain(draft: Draft, host: HostRecord, wish: Wish) -> None:
    """Aside when it is empty; else its operation, and what its deadline asks for."""
    operation = operation_of(draft, host)
    left = guests_on(draft, host)
    unprotected = _unprotected(draft, host, wish)
    if not left and not unprotected:
        for kind in SILENCED:
            draft.clear_alert(f"host/{host.name}/{kind}")
        conditions = host.conditions - {Condition.AGENT_LOST, Condition.DEGRADED}
        move_host(draft, host, HostEvent.EMPTY, f"in maintenance: {in_words(wish)}", conditions=conditions)
        return
    if operation is None:
        operation = draft.open_operation("drain", host.name, in_words(wish), wish.by)
    deadline.step(draft, host, wish, left, operation)


def carry_on(draft: Draft) -> None:
    """All hosts that are being emptied one step on, together: who is there still, and why."""
    emptied: list[tuple[Emptying, Wish]] = []
    for operation in draft.open_operations():
        host = draft.host(operation.subject) if operation.kind == "drain" else None
        if host is not None and host.phase is HostPhase.DRAINING and host.drain is not None:
            emptied.append((Emptying(host, guests_on(draft, host), operation, host.drain), host.drain))
    outcomes = departures.send_away(draft, [each for each, _ in emptied])
    for (host, left, operation, _), wish in emptied:
        _record(draft, operation, {guest.id: outcomes[guest.id] for guest in left})
        waits = [f"{guest.name} ({outcomes[guest.id]})" for guest in left] + _unprotected(draft, host, wish)
        more = f"; and {len(waits) - NAMED_MAX} more" if len(waits) > NAMED_MAX else ""
        hurry = ", in a hurry" if deadline.hurried(draft, wish) else ""
        said = f"is being drained: {in_words(wish)}{hurry}; still there: {'; '.join(waits[:NAMED_MAX])}{more}"
        if host.reason != said:
            draft.put_host(changed(draft.require_host(host.name), reason=said))


def says_what_runs(draft: Draft, host: HostRecord) -> bool:
    view = draft.view(host.name)
    return bool(view.session) and view.inventory


def unprotected_on(draft: Draft, host: HostRecord) -> list[GuestFacts]:
    """What runs there and nobody protects, by name."""
    seen = draft.view(host.name).guests.values()
    return sorted((f for f in seen if f.active and draft.guest(f.id) is None), key=lambda facts: facts.name)


def _unprotected(draft: Draft, host: HostRecord, wish: Wish) -> list[str]:
    """What keeps an otherwise empty host from maintenance."""
    if not says_what_runs(draft, host):
        return ["its agent does not say what runs there"]
    names = [facts.name for facts in unprotected_on(draft, host)]
    if not names or wish.leave_unprotected:
        return []
    return [f"not protected, so to be stopped or moved by hand: {', '.join(names)}"]


# ---- the operation


def operation_of(draft: Draft, host: HostRecord) -> Operation | None:
    """The open drain of that host."""
    return next(
        (op for op in draft.open_operations() if op.kind == "drain" and op.subject == host.name), None
    )


def _record(draft: Draft, operation: Operation, here: dict[GuestId, str]) -> None:
    """What became of each guest so far: those that left, and why the others are there."""
    operation = draft.operation(operation.id) or operation  # with the steps of this very decision
    outcomes = dict(operation.guests)
    for guest_id in outcomes:
        guest = draft.guest(guest_id)
        if guest is None:
            outcomes[guest_id] = "no longer protected"
        elif guest.phase is GuestPhase.RUNNING:
            end = checks.after_move(draft, guest) if checks.moved_by(guest, operation) else ""
            outcomes[guest_id] = f"runs on {guest.holder}{end}"
        else:
            outcomes[guest_id] = f"{guest.phase}: {guest.reason}"
    outcomes |= here
    if outcomes != operation.guests:
        draft.put_operation(changed(operation, guests=outcomes))


def close_if_over(draft: Draft, operation: Operation) -> None:
    """A drain ends in maintenance, or when it was taken back, or with its host."""
    host = draft.host(operation.subject)
    if host is None:
        draft.close_operation(operation, "failed", f"{operation.subject} was removed")
    elif host.drain is None:
        _record(draft, operation, {})
        draft.close_operation(operation, "failed", f"{host.name}: taken back before it was empty")
    elif host.phase is HostPhase.MAINTENANCE:
        _record(draft, operation, {})
        found = [guest for key in operation.guests if (guest := draft.guest(key)) is not None]
        if any(guest.phase is GuestPhase.MIGRATING for guest in found):
            return  # they have left, and have not arrived
        arrived = [guest for guest in found if checks.moved_by(guest, operation)]
        if any(checks.awaited(draft, guest) for guest in arrived):
            return
        took_s = max(host.since, *(guest.since for guest in arrived), operation.opened) - operation.opened
        text = f"{host.name} is empty and in maintenance after {took_s:.1f} s"
        if operation.foreseen_s:
            text += f" (forecast when it began: {operation.foreseen_s:.1f} s)"
        draft.close_operation(operation, "done", text)
    elif host.phase is HostPhase.FENCED:
        _record(draft, operation, {})
        text = f"{host.name} died before it was empty; it goes to maintenance when it is back"
        draft.close_operation(operation, "failed", text)
