"""Who leaves hosts that are emptied: one queue over all of them, as they share the links of those that receive.

Here: whose turn it is, and the moves that can begin now. Not here: which hosts are emptied, and when they are empty
(`upkeep`), who is stopped for a deadline (`deadline`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import NamedTuple

from dr.core import deadline, dirtying, homing, moves
from dr.core.state import Draft
from dr.model.base import GuestId, changed
from dr.model.operations import Operation, Planned
from dr.model.records import GuestPhase, GuestRecord, HostRecord, Wish

AGAIN_S = 1.0  # moves that could not begin are tried again this often
FIRST_MAX = 10  # of each host every time: those whose turn it is; of the others
OTHERS_MAX = 30  # so many, by turns, so that a host with hundreds of guests holds up nothing else


class Emptying(NamedTuple):
    """A host and who is to leave it. No wish: it leaves by itself, and announced that."""

    host: HostRecord
    guests: Sequence[GuestRecord]
    operation: Operation
    wish: Wish | None = None

    def leavers(self) -> Iterator[Leaver]:
        for guest in self.guests:
            yield Leaver(guest, self.wish, self.operation.planned.get(guest.id))


class Leaver(NamedTuple):
    guest: GuestRecord
    wish: Wish | None
    planned: Planned | None = None


def in_turn(draft: Draft, leavers: Iterable[Leaver]) -> list[Leaver]:
    """Who goes first: whose host is in a hurry; a person's priority; the turn that an approved plan gave; who takes
    longest with those who must go along.

    The longest first, as whoever begins last ends last: small ones fill the gaps. But with a deadline the smallest
    first, so that as many as can be have left when it comes.
    """

    def turn(leaver: Leaver) -> tuple[bool, int, float, int, str]:
        guest, hurried = leaver.guest, deadline.hurried(draft, leaver.wish)
        sign = 1 if hurried else -1
        planned = leaver.planned.turn if leaver.planned is not None else inf
        return (
            not hurried,
            -guest.policy.priority,
            planned,
            sign * moves.together_mib(draft, guest),
            guest.name,
        )

    return sorted(leavers, key=turn)


def send_away(draft: Draft, emptyings: Sequence[Emptying]) -> dict[GuestId, str]:
    """Begin the moves that can begin now, in turn; for each guest, how far it is, or all that stands against it.

    Asked again every `AGAIN_S`, as hosts get free, come and go, and when one has arrived. Nothing is stopped: a guest
    that cannot be moved live stays, and its reason says what to type.
    """
    queue = [(leaver, each) for each in emptyings for leaver in each.leavers()]
    tried = _tried_now(draft, emptyings)
    if tried:
        rank = {leaver.guest.id: at for at, leaver in enumerate(in_turn(draft, (each for each, _ in queue)))}
        queue.sort(key=lambda item: rank[item[0].guest.id])
    outcomes: dict[GuestId, str] = {}
    for leaver, each in queue:
        guest = draft.guest(leaver.guest.id) or leaver.guest  # some go along with those before them
        outcomes[guest.id] = _go(draft, guest, each, now=guest.id in tried)
        _remember_home(draft, each.host, guest.id)
    return outcomes


def _go(draft: Draft, guest: GuestRecord, emptying: Emptying, *, now: bool) -> str:
    """Begin its move, if it is tried now; how far it is."""
    if guest.phase is not GuestPhase.RUNNING:
        return f"{guest.phase}: {guest.reason}"
    if emptying.wish is not None and (late := deadline.too_late(draft, guest, emptying.wish)):
        return late
    if not now:
        return emptying.operation.guests.get(guest.id) or "waits for its turn"
    planned = emptying.operation.planned.get(guest.id)
    to, flights, instead = moves.way(draft, guest, planned.to if planned is not None else "")
    if why := moves.begin_together(draft, guest, to=to, operation=emptying.operation.id, flights=flights):
        return f"waits: {'; '.join(why)}"
    begun = draft.guest(guest.id) or guest
    if planned is not None and begun.move is not None and begun.move.destination != planned.to:
        text = f"{guest.name}: goes to {begun.move.destination}, not to {planned.to} as planned"
        because = f" ({'; '.join(instead)})" if instead else ""
        draft.note("drain.replanned", text + because, guest=guest.id, operation=emptying.operation.id)
    return f"{begun.phase}: {begun.reason}"


def _tried_now(draft: Draft, emptyings: Sequence[Emptying]) -> set[GuestId]:
    """Whose move is tried: of hosts that were not for `AGAIN_S` those that come first, and of those behind others
    each time, as the first may be stuck. When one has arrived, the first of all hosts: there is room for one now.
    """
    tried: set[GuestId] = set()
    arrived = any(not draft.view(each.host.name).drained_at for each in emptyings)
    for each in emptyings:
        due = draft.now - draft.view(each.host.name).drained_at >= AGAIN_S
        if not due and not arrived:
            continue
        leavers = in_turn(draft, each.leavers())
        waiting = [leaver.guest.id for leaver in leavers if leaver.guest.phase is GuestPhase.RUNNING]
        if not due:
            tried.update(waiting[: draft.config.limits.moves_out_per_host])
            continue
        draft.put_view(each.host.name, drained_at=draft.now)
        if not deadline.hurried(draft, each.wish):
            dirtying.ask(draft, each.host.name, list(each.guests))
        tried.update(_some(draft, waiting))
    return tried


def _some(draft: Draft, waiting: list[GuestId]) -> list[GuestId]:
    first, others = waiting[:FIRST_MAX], waiting[FIRST_MAX:]
    turns = max(1, -(-len(others) // OTHERS_MAX))
    begin = int(draft.now / AGAIN_S) % turns * OTHERS_MAX
    return [*first, *others[begin : begin + OTHERS_MAX]]


def _remember_home(draft: Draft, host: HostRecord, guest_id: GuestId) -> None:
    """Who is on its way from there comes back one day, if its policy says so."""
    guest = draft.guest(guest_id)
    move = guest.move if guest is not None else None
    if guest is not None and move is not None and move.source == host.name and not move.asked:
        home = homing.taken_from(guest, host.name)
        if home != guest.homing:
            draft.put_guest(changed(guest, homing=home))
