"""Upkeep: hosts that a person sets aside. Cordon, drain, maintenance.

A wish stands in the host's record until it is taken back. `step` brings the phase in line with it, again and again,
so a fencing, a reboot or a restart of the coordinator in the middle of a drain changes nothing but the time it takes.
A cordoned host takes no guests and keeps those that it has: one that crashes there is restarted in place. A host in
maintenance is empty; it may be silent, off and on again as it likes, and is cleaned before it counts again.
"""

from __future__ import annotations

from dr.core import checks, deadline, dirtying, homing, moves
from dr.core.state import Draft
from dr.core.tables import HostEvent, move_host
from dr.core.whereabouts import seen_active
from dr.core.wishes import in_words
from dr.model.base import GuestId, changed
from dr.model.facts import GuestFacts
from dr.model.records import (
    Condition,
    GuestPhase,
    GuestRecord,
    HostPhase,
    HostRecord,
    Operation,
    Wish,
)

SILENCED = (
    "agent-lost",
    "held",
    "fence-failed",
    "degraded",
    "unprotected",
)  # nobody is alarmed of maintenance
AGAIN_S = 1.0  # moves that could not begin are tried again this often
FIRST_MAX = 10  # of them each time, whose turn it is; of the others
OTHERS_MAX = 30  # so many, by turns, so that a host with hundreds of guests holds up nothing else
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
    """One step on with an emptying: who is there still, and why."""
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
    left = [draft.guest(guest.id) or guest for guest in left]
    outcomes = move_away(draft, host, left, operation, wish)
    _record(draft, operation, outcomes)
    waits = [f"{guest.name} ({outcomes[guest.id]})" for guest in left] + unprotected
    more = f"; and {len(waits) - NAMED_MAX} more" if len(waits) > NAMED_MAX else ""
    hurry = ", in a hurry" if deadline.hurried(draft, wish) else ""
    reason = f"is being drained: {in_words(wish)}{hurry}; still there: {'; '.join(waits[:NAMED_MAX])}{more}"
    if host.reason != reason:
        draft.put_host(changed(host, reason=reason))


def in_turn(draft: Draft, guests: list[GuestRecord], wish: Wish | None = None) -> list[GuestRecord]:
    """Who goes first: a person's priority, then who takes longest with those who must go along, then names.

    The longest first, as whoever begins last ends last: small ones fill the gaps. But with a deadline the smallest
    first, so that as many as can be have left when it comes.
    """
    sign = 1 if deadline.hurried(draft, wish) else -1

    def turn(guest: GuestRecord) -> tuple[int, int, str]:
        return -guest.policy.priority, sign * moves.together_mib(draft, guest), guest.name

    return sorted(guests, key=turn)


def move_away(
    draft: Draft, host: HostRecord, guests: list[GuestRecord], operation: Operation, wish: Wish | None = None
) -> dict[GuestId, str]:
    """Begin the moves that can begin now, in turn; for each guest, how far it is, or all that stands against it.

    Asked again every `AGAIN_S`, as hosts get free, come and go, and when one has arrived. Nothing is stopped: a guest
    that cannot be moved live stays, and its reason says what to type.
    """
    tried: set[GuestId] = set()
    if draft.now - draft.view(host.name).drained_at >= AGAIN_S:
        draft.put_view(host.name, drained_at=draft.now)
        guests = in_turn(draft, guests, wish)
        tried = _tried_now(draft, guests)
        if not deadline.hurried(draft, wish):
            dirtying.ask(draft, host.name, guests)
    outcomes: dict[GuestId, str] = {}
    for each in guests:
        guest = draft.guest(each.id) or each  # some go along with those before them
        late = deadline.too_late(draft, guest, wish) if wish is not None else ""
        if guest.phase is GuestPhase.RUNNING and late:
            outcomes[guest.id] = late
        elif guest.phase is GuestPhase.RUNNING and guest.id in tried:
            why = moves.begin_together(draft, guest, operation=operation.id)
            now = draft.guest(guest.id) or guest
            outcomes[guest.id] = f"waits: {'; '.join(why)}" if why else f"{now.phase}: {now.reason}"
        elif guest.phase is GuestPhase.RUNNING:
            outcomes[guest.id] = operation.guests.get(guest.id) or "waits for its turn"
        else:
            outcomes[guest.id] = f"{guest.phase}: {guest.reason}"
        _remember_home(draft, host, guest.id)
    return outcomes


def _tried_now(draft: Draft, guests: list[GuestRecord]) -> set[GuestId]:
    """Whose move is tried: those that come first, and of those behind others each time, as the first may be stuck."""
    waiting = [guest.id for guest in guests if guest.phase is GuestPhase.RUNNING]
    first, others = waiting[:FIRST_MAX], waiting[FIRST_MAX:]
    turns = max(1, -(-len(others) // OTHERS_MAX))
    begin = int(draft.now / AGAIN_S) % turns * OTHERS_MAX
    return {*first, *others[begin : begin + OTHERS_MAX]}


def _remember_home(draft: Draft, host: HostRecord, guest_id: GuestId) -> None:
    """Who is on its way from there comes back one day, if its policy says so."""
    guest = draft.guest(guest_id)
    move = guest.move if guest is not None else None
    if guest is not None and move is not None and move.source == host.name and not move.asked:
        home = homing.taken_from(guest, host.name)
        if home != guest.homing:
            draft.put_guest(changed(guest, homing=home))


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
