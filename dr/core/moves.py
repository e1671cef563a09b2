"""Moves of running guests: who may move and where, how a live move begins or is called off, and relocation.

Here: the beginning of a move, bounds for each host, stop-here-start-elsewhere. Not here: what stands against a live
move (`core.preflight`), what becomes of one (`core.migration`), places and tickets (`core.onecopy`), who wants a move
(asks, drains, failback).
"""

from __future__ import annotations

from typing import NamedTuple

from dr.core import dirtying, links, onecopy, placement, preflight, whereabouts
from dr.core.looks import addresses_of
from dr.core.preflight import Preflight
from dr.core.state import Draft
from dr.core.volatile import TICKETED
from dr.model.base import GuestId, HostName, changed
from dr.model.commands import Abort
from dr.model.effects import Send
from dr.model.policy import StopMode
from dr.model.records import (
    Condition,
    GuestPhase,
    GuestRecord,
    HostPhase,
    HostRecord,
    Move,
    MoveStage,
)

ABORT_AGAIN_S = 2.0

# ---- who may move, and where


def may_move(guest: GuestRecord) -> bool:
    """Whether its records allow a live move; its hosts may still object."""
    return guest.phase is GuestPhase.RUNNING and guest.move is None and not guest.tied


def objections(
    draft: Draft,
    guest: GuestRecord,
    to: HostName = "",
    *,
    asked: bool = False,
    along: tuple[GuestRecord, ...] = (),
) -> list[str]:
    """Everything that stands against moving it live now, except that its hosts have their hands full.

    `along`: guests that move there with it, as strict rules may demand.
    """
    return preflight.of(draft, guest, to, asked=asked, along=along).refusals


def fits_live(draft: Draft, guest: GuestRecord) -> bool:
    """Whether some other host would take it, by a live move, with those who must share its host."""
    _, along = company(draft, guest)
    return bool(preflight.elsewhere(draft, guest, {guest.holder}, along).host)


def begin(
    draft: Draft,
    guest: GuestRecord,
    to: HostName = "",
    *,
    operation: str = "",
    asked: bool = False,
    along: tuple[GuestRecord, ...] = (),
    bounded: bool = True,
) -> list[str]:
    """Begin a live move: every objection, [] when it is under way. `asked`: a person wants it, pause or not.

    `bounded`: no more at once than each host may send and receive, and none by itself to a host that has just turned
    it away; those are objections too, and pass.
    """
    if why := objections(draft, guest, to, asked=asked, along=along):
        return why
    return _begin(draft, guest, to, operation=operation, asked=asked, along=along, bounded=bounded)


def _begin(
    draft: Draft,
    guest: GuestRecord,
    to: HostName,
    *,
    operation: str,
    asked: bool,
    along: tuple[GuestRecord, ...],
    bounded: bool,
) -> list[str]:
    """As `begin`, of a guest against whose move nothing was found in this very state of the draft."""
    why: list[str] = []
    holder = whereabouts.sole_holder(draft, guest)
    now, limits = links.traffic(draft), draft.config.limits
    if bounded and now.leaving.get(holder, 0) >= limits.moves_out_per_host:
        why.append(f"{holder} is sending {now.leaving[holder]} guests already")
    full = {name for name, count in now.coming.items() if bounded and count >= limits.moves_in_per_host}
    if bounded:
        full |= {name for way, name in now.alone if way == "in"}
        if ("out", holder) in now.alone:
            why.append(f"{holder} is sending one that makes memory dirty too fast to share the link")
    if bounded and not along and links.needs_links_alone(draft, guest):
        full |= now.coming.keys()
        if now.leaving.get(holder, 0):
            why.append(f"{guest.name} makes memory dirty too fast to share the link of {holder}")
    if not to:
        to = preflight.elsewhere(draft, guest, full | {holder}, along).host
        if not to:
            why.append(f"every host that could take {guest.name} is receiving guests already")
        elif bounded and not asked and (reason := links.why_not_yet(draft, guest, to)):
            why.append(reason)
    elif to in full:
        why.append(f"{to} is receiving {now.coming[to]} guests already")
    if why:
        return why
    rate_mib_s = links.rates(draft).of(holder).mib_s / (1 + now.leaving.get(holder, 0))
    foreseen = links.outlook(draft, guest, rate_mib_s).rung if dirtying.of(draft, guest) else None
    move = Move(stage=MoveStage.RECEIVING, source=holder, operation=operation, asked=asked, foreseen=foreseen)
    draft.clear_alert(f"guest/{guest.id}/resumed-by-hand")
    return onecopy.issue_receive(draft, guest, draft.require_host(holder), draft.require_host(to), move)


def unwanted(draft: Draft, guest: GuestRecord, host: HostRecord) -> str:
    """Why a host that was to take it should not any longer: set aside, or ruled out by new rules."""
    if Condition.CORDONED in host.conditions or Condition.QUARANTINED in host.conditions:
        return f"{host.name} was set aside meanwhile"
    if host.phase in (HostPhase.DRAINING, HostPhase.MAINTENANCE):
        return f"{host.name} is {host.phase}"
    if draft.settings is not None and (why := placement.why_not(draft, guest, host, with_disks=True)):
        return f"by the new configuration {host.name} cannot take it: {', '.join(why)}"
    return ""


def ask_abort(draft: Draft, guest: GuestRecord, name: HostName, *, again: bool = False) -> None:
    """Ask that host to end its part; asked again until it has ended. Its answer changes nothing."""
    view = draft.view(name)
    if not view.session or draft.now - view.aborted.get(guest.id, -ABORT_AGAIN_S) < ABORT_AGAIN_S:
        return
    draft.put_view(name, aborted=view.aborted | {guest.id: draft.now})
    body = Abort(guest=guest.id, name=guest.name, again=again)
    draft.effect(Send(id=draft.next_id("abort"), host=name, session=view.session, body=body))


# ---- guests that must share a host


class Way(NamedTuple):
    """Where it is to be tried ("": wherever it fits best), and the pre-flights of that."""

    to: HostName
    flights: dict[GuestId, Preflight]
    instead: tuple[str, ...] = ()  # why not where it was to go


def company(draft: Draft, guest: GuestRecord) -> tuple[HostName, tuple[GuestRecord, ...]]:
    """Who must share its host and runs beside it, or is on its way from there; and where to ("": nobody is)."""
    if not draft.members.about(guest.id):
        return "", ()
    mates = [mate for key in sorted(draft.members.group(guest.id)) if (mate := draft.guest(key)) is not None]
    beside = [mate for mate in mates if mate.phase is GuestPhase.RUNNING and mate.holder == guest.holder]
    ahead = [mate for mate in mates if mate.move is not None and _ahead(mate, guest.holder)]
    to = {mate.move.destination for mate in ahead if mate.move is not None}
    return (to.pop() if len(to) == 1 else ""), (*ahead, *beside)


def together_mib(draft: Draft, guest: GuestRecord) -> int:
    """What its live move would send, with those who would go along."""
    _, along = company(draft, guest)
    together = (guest, *(mate for mate in along if mate.phase is GuestPhase.RUNNING))
    return sum(links.to_send_mib(draft, each) for each in together)


def _ahead(guest: GuestRecord, source: HostName) -> bool:
    move = guest.move
    if guest.phase is not GuestPhase.MIGRATING or move is None or move.stage is MoveStage.UNDOING:
        return False
    # A destination that is proven empty lets nobody arrive, also while the source has not told yet how its job ended.
    arrives = (move.destination, move.destination_boot) in whereabouts.places(guest)
    return arrives and move.source == source


def preflight_together(draft: Draft, guest: GuestRecord, to: HostName = "") -> dict[GuestId, Preflight]:
    """Its pre-flight, and that of those who must share its host, run beside it and would move with it now."""
    bound, along = company(draft, guest)
    to = to or bound
    flights = {guest.id: preflight.of(draft, guest, to, along=along)}
    for mate in along:
        if mate.phase is GuestPhase.RUNNING:
            others = (guest, *(other for other in along if other.id != mate.id))
            flights[mate.id] = preflight.of(draft, mate, to, along=others)
    return flights


def objections_together(draft: Draft, guest: GuestRecord, to: HostName = "") -> list[str]:
    """Everything that stands against moving it live now, with those who must share its host and run beside it."""
    return objections_in(draft, guest, preflight_together(draft, guest, to))


def objections_in(draft: Draft, guest: GuestRecord, flights: dict[GuestId, Preflight]) -> list[str]:
    """As `objections_together`, by these pre-flights."""
    why = flights[guest.id].refusals
    for mate in company(draft, guest)[1]:
        objected = flights[mate.id].refusals if mate.id in flights else []
        why += [f"{mate.name}, which must share its host: {each}" for each in objected if each not in why]
    return why


def way(draft: Draft, guest: GuestRecord, first: HostName) -> Way:
    """To that host if it takes the guest now; else wherever it fits best ("": that from the start)."""
    instead: list[str] = []
    if first:
        bound, _ = company(draft, guest)
        flights = preflight_together(draft, guest, bound or first)
        instead = objections_in(draft, guest, flights)
        if not instead and (reason := links.why_not_yet(draft, guest, first)):
            instead = [reason]
        if not instead:
            return Way(bound or first, flights)
    return Way("", preflight_together(draft, guest), tuple(instead))


def begin_together(
    draft: Draft,
    guest: GuestRecord,
    to: HostName = "",
    *,
    operation: str = "",
    bounded: bool = True,
    flights: dict[GuestId, Preflight] | None = None,
) -> list[str]:
    """Begin its live move and that of those who must share its host and run beside it: all go now, or none does.

    They count as one against the bounds of their hosts: who waited for free hands would be on the one host while the
    others have arrived on the other. Who cannot go yet for another reason follows: `company` says where to.
    `flights`: their pre-flights, where somebody has made them of this very state of the draft.
    """
    bound, along = company(draft, guest)
    if why := objections_in(draft, guest, flights or preflight_together(draft, guest, to)):
        return why
    if why := _busy(draft, along):
        return why
    to = to or bound
    if why := _begin(draft, guest, to, operation=operation, asked=False, along=along, bounded=bounded):
        return why
    for mate in along:
        to, others = company(draft, mate)
        if mate.phase is GuestPhase.RUNNING:
            begin(draft, mate, to, operation=operation, along=others, bounded=False)
    return []


def _busy(draft: Draft, along: tuple[GuestRecord, ...]) -> list[str]:
    """Who could not begin right now for a ticket that is under way, a clean-up where it goes to say: it passes soon."""
    return [
        f"{mate.name}, which must share its host: a {pending.kind} of it on {pending.host} has not ended"
        for mate in along
        if mate.phase is GuestPhase.RUNNING
        for _, pending in draft.pendings_of(mate.id)
        if pending.kind in TICKETED
    ]


# ---- moves that people ask for


def queue(draft: Draft, guest: GuestRecord, to: HostName, operation: str) -> None:
    """Nothing stands against its move but full hands: it begins when they are free (`begin_queued`)."""
    move = Move(stage=MoveStage.QUEUED, source=guest.holder, destination=to, operation=operation, asked=True)
    draft.put_guest(changed(guest, move=move))


def begin_queued(draft: Draft) -> None:
    """Moves that people asked for and that waited for their hosts."""
    for operation in draft.open_operations():
        for guest_id in operation.guests if operation.kind == "guest-migrate" else ():
            guest = draft.guest(guest_id)
            if guest is None or guest.move is None or guest.move.stage is not MoveStage.QUEUED:
                continue
            to, free = guest.move.destination, changed(guest, move=None)
            _, along = company(draft, free)
            if why := objections(draft, free, to, asked=True, along=along):
                draft.put_guest(free)
                draft.outcome(operation.id, guest_id, f"not moved: {'; '.join(why)}")
            else:
                begin(draft, free, to, operation=operation.id, asked=True, along=along)


def relocate(
    draft: Draft, guest: GuestRecord, to: HostName, mode: StopMode, *, operation: str = ""
) -> list[str]:
    """Stop it where it runs; when that is proven it starts elsewhere, on `to` if it can. Every objection, or []."""
    flight = preflight.cold(draft, guest, to)
    if flight.refusals:
        return flight.refusals
    if guest.needs.local:
        to = flight.to
    if guest.phase is GuestPhase.STOPPED:
        return _send_disks(draft, guest, to, operation)
    holder = draft.require_host(whereabouts.sole_holder(draft, guest))
    return onecopy.issue_stop(
        draft, _by_stop(draft, guest, holder, to, operation), holder, mode, operation=operation
    )


def _send_disks(draft: Draft, guest: GuestRecord, to: HostName, operation: str) -> list[str]:
    """Of a guest that is off, and stays so."""
    source, host = draft.require_host(guest.disks_on), draft.require_host(to)
    begun = Move(stage=MoveStage.STOPPING, source=source.name, operation=operation, asked=True, off=True)
    move = changed(begun, began=draft.now)
    return onecopy.issue_copy(draft, guest, source, host, move, addresses=copy_addresses(draft, host))


def copy_addresses(draft: Draft, host: HostRecord) -> tuple[str, ...]:
    """Where disks are sent to that host."""
    own = host.facts.migration_address
    return (own,) if own else addresses_of(draft, host)


def take_down(
    draft: Draft, guest: GuestRecord, mode: StopMode, timeout_s: float, *, operation: str = ""
) -> list[str]:
    """As `relocate`, also where no other host takes it now: its host goes down, and then it waits for a place."""
    holder = draft.host(whereabouts.sole_holder(draft, guest))
    if holder is None:
        return [f"{guest.name} is not seen on {guest.holder} alone now"]
    return onecopy.issue_stop(
        draft,
        _by_stop(draft, guest, holder, "", operation),
        holder,
        mode,
        operation=operation,
        timeout_s=max(0.0, timeout_s),
    )


def _by_stop(
    draft: Draft, guest: GuestRecord, holder: HostRecord, to: HostName, operation: str
) -> GuestRecord:
    """With a move by stop and start."""
    move = Move(
        stage=MoveStage.STOPPING,
        source=holder.name,
        destination=to,
        operation=operation,
        asked=True,
        began=draft.now,
        at=draft.now,
    )
    return changed(guest, move=move)


def why_not_cancel(guest: GuestRecord) -> str:
    """Why its live move cannot be called off; "" = it can."""
    move = guest.move
    if move is not None and move.stage is MoveStage.QUEUED:
        return ""
    if guest.phase is not GuestPhase.MIGRATING or move is None:
        return f"{guest.name} is not being moved: it is {guest.phase}"
    if move.copied:
        return f"the disks of {guest.name} have arrived on {move.destination} already"
    if move.stage in (MoveStage.MIGRATED, MoveStage.RESUMING):
        return f"{guest.name} has left {move.source} already, and resumes on {move.destination}"
    return ""


def cancel(draft: Draft, guest: GuestRecord, why: str) -> None:
    """Call its move off; where it has left already, it arrives."""
    move = guest.move
    assert move is not None
    if move.stage is MoveStage.QUEUED:
        draft.put_guest(changed(guest, move=None))
        draft.outcome(move.operation, guest.id, f"not moved: {why}")
        return
    assert guest.phase is GuestPhase.MIGRATING
    draft.put_guest(changed(guest, move=changed(move, why=move.why or why)))
    draft.note("guest.move", f"{guest.name}: {why}", guest=guest.id, operation=move.operation)
