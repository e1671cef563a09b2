"""Moves of running guests: who may move and where, how a live move begins or is called off, and relocation.

Here: what stands against a move, its beginning, bounds for each host, stop-here-start-elsewhere. Not here: what becomes
of a live move (`core.migration`), places and tickets (`core.onecopy`), who wants a move (asks, drains, failback).
"""

from __future__ import annotations

from dr.core import onecopy, placement, quorum, whereabouts
from dr.core.state import Draft
from dr.model.base import HostName, changed
from dr.model.facts import Part
from dr.model.policy import StopMode
from dr.model.records import (
    GuestPhase,
    GuestRecord,
    Move,
    MoveStage,
)

NO_LIVE = (
    "its agent cannot migrate guests live (dr guest relocate stops a guest and starts it elsewhere);"
    " migration_uri in its /etc/dr/agent.yaml lets it"
)

NAMED_MAX = 6  # hosts that a sentence names; the others are counted


# ---- who may move, and where


def may_move(guest: GuestRecord) -> bool:
    """Whether its records allow a live move; its hosts may still object."""
    return guest.phase is GuestPhase.RUNNING and guest.move is None and not guest.blockers


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
    why, holder = _not_from_here(draft, guest)
    if draft.cluster.pause is not None and not asked:
        why.append(f"automation is paused ({draft.cluster.pause.reason})")
    if reason := quorum.hold(draft):
        why.append(reason)
    if holder:
        facts = draft.view(holder).guests[guest.id]
        if not facts.runs:
            why.append(f"{guest.name} is {facts.state} on {holder}: only a guest that runs is moved live")
        if facts.part is not Part.NONE:
            why.append(f"{guest.name} is {facts.part} on {holder}: a migration of it is under way there")
        if not draft.require_host(holder).facts.live_migration:
            why.append(f"{holder}: {NO_LIVE}")
    if to:
        why += _not_to(draft, guest, to, holder, along)
        host = draft.host(to)
        if host is not None and not host.facts.live_migration:
            why.append(f"{to}: {NO_LIVE}")
    elif holder and not (found := _elsewhere(draft, guest, {holder}, along)).host:
        why.append(f"{guest.name} fits nowhere else: {found.sentence()}")
        why += _left_out(draft, holder)
    return list(dict.fromkeys(why))


def _left_out(draft: Draft, holder: HostName) -> list[str]:
    """Hosts that were not even asked for a place, and why."""
    names = sorted(_not_live(draft) - {holder})
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    text = (
        f"{', '.join(names[:NAMED_MAX])}{more}: not live, without migration_uri in /etc/dr/agent.yaml there"
    )
    return [text] if names else []


def _not_from_here(draft: Draft, guest: GuestRecord) -> tuple[list[str], HostName]:
    """What stands against taking it away from where it is, live or not; and where that is."""
    why = []
    if guest.move is not None and guest.phase is not GuestPhase.MIGRATING:
        why.append(f"{guest.name} is on its way already ({guest.move.stage})")
    if guest.phase is not GuestPhase.RUNNING:
        why.append(f"{guest.name} is {guest.phase}: {guest.reason}")
    why += [f"{guest.name} could not run elsewhere: {blocker}" for blocker in guest.blockers]
    holder = whereabouts.sole_holder(draft, guest)
    if not holder and guest.phase is GuestPhase.RUNNING:
        why.append(f"{guest.name} is not seen on {guest.holder} alone now: {guest.reason}")
    return why, holder


def fits_live(draft: Draft, guest: GuestRecord) -> bool:
    """Whether some other host would take it, by a live move, with those who must share its host."""
    _, along = company(draft, guest)
    return bool(_elsewhere(draft, guest, {guest.holder}, along).host)


def _elsewhere(
    draft: Draft, guest: GuestRecord, without: set[HostName], along: tuple[GuestRecord, ...] = ()
) -> placement.Placement:
    return placement.choose(draft, guest, without=_not_live(draft) | without, along=along)


def _not_to(
    draft: Draft, guest: GuestRecord, to: HostName, holder: HostName, along: tuple[GuestRecord, ...] = ()
) -> list[str]:
    """What stands against that very host."""
    host = draft.host(to)
    if host is None:
        return [f"no such host: {to}"]
    if to == holder:
        return [f"{guest.name} runs on {to} already"]
    return [f"{to} {why}" for why in placement.why_not(draft, guest, host, along=along)]


def _not_live(draft: Draft) -> set[HostName]:
    return {host.name for host in draft.hosts() if not host.facts.live_migration}


def _under_way(draft: Draft) -> tuple[dict[HostName, int], dict[HostName, int]]:
    """Live moves out of and into each host."""
    leaving: dict[HostName, int] = {}
    coming: dict[HostName, int] = {}
    for guest in draft.unsettled():
        if guest.phase is GuestPhase.MIGRATING and guest.move is not None:
            leaving[guest.move.source] = leaving.get(guest.move.source, 0) + 1
            coming[guest.move.destination] = coming.get(guest.move.destination, 0) + 1
    return leaving, coming


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

    `bounded`: no more at once than each host may send and receive; that is an objection too, and passes.
    """
    if why := objections(draft, guest, to, asked=asked, along=along):
        return why
    holder = whereabouts.sole_holder(draft, guest)
    leaving, coming = _under_way(draft)
    limits = draft.config.limits
    if bounded and leaving.get(holder, 0) >= limits.moves_out_per_host:
        why.append(f"{holder} is sending {leaving[holder]} guests already")
    full = {name for name, count in coming.items() if bounded and count >= limits.moves_in_per_host}
    if not to:
        to = _elsewhere(draft, guest, full | {holder}, along).host
        if not to:
            why.append(f"every host that could take {guest.name} is receiving guests already")
    elif to in full:
        why.append(f"{to} is receiving {coming[to]} guests already")
    if why:
        return why
    move = Move(stage=MoveStage.RECEIVING, source=holder, operation=operation, asked=asked)
    draft.clear_alert(f"guest/{guest.id}/resumed-by-hand")
    return onecopy.issue_receive(draft, guest, draft.require_host(holder), draft.require_host(to), move)


def foreseen(draft: Draft, guest: GuestRecord, to: HostName, along: tuple[GuestRecord, ...] = ()) -> str:
    """Where a live move, against which nothing stands, would take it if it began now, alone."""
    holder = whereabouts.sole_holder(draft, guest)
    there = to or _elsewhere(draft, guest, {holder}, along).host
    return f"{guest.name} would move live from {holder} to {there}"


# ---- guests that must share a host


def company(draft: Draft, guest: GuestRecord) -> tuple[HostName, tuple[GuestRecord, ...]]:
    """Who must share its host and runs beside it, or is on its way from there; and where to ("": nobody is)."""
    if not draft.members.about(guest.id):
        return "", ()
    mates = [mate for key in sorted(draft.members.group(guest.id)) if (mate := draft.guest(key)) is not None]
    beside = [mate for mate in mates if mate.phase is GuestPhase.RUNNING and mate.holder == guest.holder]
    ahead = [mate for mate in mates if mate.move is not None and _ahead(mate, guest.holder)]
    to = {mate.move.destination for mate in ahead if mate.move is not None}
    return (to.pop() if len(to) == 1 else ""), (*ahead, *beside)


def _ahead(guest: GuestRecord, source: HostName) -> bool:
    move = guest.move
    live = guest.phase is GuestPhase.MIGRATING and move is not None and move.stage is not MoveStage.UNDOING
    return live and move is not None and move.source == source


def objections_together(draft: Draft, guest: GuestRecord, to: HostName = "") -> list[str]:
    """Everything that stands against moving it live now, with those who must share its host and run beside it."""
    bound, along = company(draft, guest)
    to = to or bound
    why = objections(draft, guest, to, along=along)
    for mate in along:
        if mate.phase is GuestPhase.RUNNING:
            others = (guest, *(other for other in along if other.id != mate.id))
            objected = objections(draft, mate, to, along=others)
            why += [f"{mate.name}, which must share its host: {each}" for each in objected if each not in why]
    return why


def begin_together(
    draft: Draft, guest: GuestRecord, to: HostName = "", *, operation: str = "", bounded: bool = True
) -> list[str]:
    """Begin its live move and that of those who must share its host and run beside it: all go now, or none does.

    They count as one against the bounds of their hosts: who waited for free hands would be on the one host while the
    others have arrived on the other. Who cannot go yet for another reason follows: `company` says where to.
    """
    if why := objections_together(draft, guest, to):
        return why
    bound, along = company(draft, guest)
    if why := begin(draft, guest, to or bound, operation=operation, along=along, bounded=bounded):
        return why
    for mate in along:
        to, others = company(draft, mate)
        if mate.phase is GuestPhase.RUNNING:
            begin(draft, mate, to, operation=operation, along=others, bounded=False)
    return []


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
    if why := why_not_relocate(draft, guest, to):
        return why
    holder = whereabouts.sole_holder(draft, guest)
    move = Move(
        stage=MoveStage.STOPPING,
        source=holder,
        destination=to,
        operation=operation,
        asked=True,
        began=draft.now,
        at=draft.now,
    )
    on_its_way = changed(guest, move=move)
    return onecopy.issue_stop(draft, on_its_way, draft.require_host(holder), mode, operation=operation)


def why_not_relocate(draft: Draft, guest: GuestRecord, to: HostName) -> list[str]:
    """Every objection against stopping it here and starting it elsewhere."""
    why, holder = _not_from_here(draft, guest)
    if reason := quorum.hold(draft):
        why.append(reason)
    if holder:
        why += onecopy.why_not_stop(draft, guest, draft.require_host(holder))
    if to:
        why += _not_to(draft, guest, to, holder)
    elif holder and not (found := placement.choose(draft, guest, without={holder})).host:
        why.append(f"{guest.name} fits nowhere else: {found.sentence()}")
    return list(dict.fromkeys(why))


def why_not_cancel(guest: GuestRecord) -> str:
    """Why its live move cannot be called off; "" = it can."""
    move = guest.move
    if move is not None and move.stage is MoveStage.QUEUED:
        return ""
    if guest.phase is not GuestPhase.MIGRATING or move is None:
        return f"{guest.name} is not being moved live: it is {guest.phase}"
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
