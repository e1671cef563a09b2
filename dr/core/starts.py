"""Who starts next, and where: by priority, bounded for each host, only guests that may be running nowhere."""

from __future__ import annotations

import numpy as np

from dr.core import definitions, dependencies, disks, leaving, onecopy, placement, quorum, transfer
from dr.core.fleet import Fleet, Mask, fleet_of
from dr.core.guests import asked_to_start
from dr.core.plan import Plan
from dr.core.state import Draft
from dr.core.tables import say
from dr.model.base import GuestId, HostName, changed
from dr.model.records import GuestPhase, GuestRecord, HostPhase, MoveStage

# In one decision, so that none takes long; with the next tick the next ones come.
PLANNED_MAX = 64  # guests that are planned together
AT_ONCE_MAX = 64  # further ones that start if they can at once
PATIENCE_OVER = -1.0  # of `waits_since`: it has waited long enough for others


def start_order(guests: list[GuestRecord]) -> list[GuestRecord]:
    """Higher priority first, then who has waited longest, then by name."""
    return sorted(guests, key=lambda guest: (-guest.policy.priority, guest.since, guest.name))


def place_waiting(draft: Draft) -> None:
    """Give out starts: by priority, bounded for each host, only to guests that may run nowhere."""
    waiting = [
        guest
        for guest in draft.unsettled()
        if guest.phase is GuestPhase.RECOVERING and not guest.may_run_on and draft.now >= guest.retry_at
        if not transfer.due(draft, guest)
    ]
    if not waiting:
        return
    if reason := quorum.hold(draft):
        for guest in waiting:
            say(draft, guest, f"waits: {reason}")
        return
    ready: list[GuestRecord] = []
    prefer: dict[GuestId, HostName] = {}
    for guest in start_order(waiting):
        if draft.cluster.pause is not None and not asked_to_start(draft, guest):
            say(draft, guest, f"waits: automation is paused ({draft.cluster.pause.reason})")
            continue
        if _waits_its_turn(draft, guest):
            continue
        if mates := _being_stopped(draft, guest):
            say(draft, guest, f"waits for {', '.join(mates)}, which must share its host and is being stopped")
            continue
        home = leaving.home_of(draft, guest)
        if home and placement.why_not(draft, guest, draft.require_host(home)):
            say(draft, guest, leaving.in_words(guest))
            continue
        prefer[guest.id] = _elsewhere(draft, guest) or home or guest.tried_on
        ready.append(guest)
    _give_out(draft, ready, prefer, _turns(draft))


def _turns(draft: Draft) -> dict[HostName, int]:
    """How many more starts may be under way at each host."""
    turns = dict.fromkeys(draft.host_names(), draft.config.limits.starts_per_host)
    for _, pending in draft.pendings():
        if pending.kind == "start" and pending.host in turns:
            turns[pending.host] -= 1
    return turns


def _give_out(
    draft: Draft, ready: list[GuestRecord], prefer: dict[GuestId, HostName], turns: dict[HostName, int]
) -> None:
    """The first ones get their places as a whole, so that they fit; of the others, who can start at once does."""
    fleet = fleet_of(draft)
    if not ready or not any(turns[fleet.names[at]] > 0 for at in fleet.able.nonzero()[0]):
        if not fleet.able.any():
            for guest in ready[:PLANNED_MAX]:
                _fits_nowhere(draft, guest, placement.choose(draft, guest))
        return
    first = {guest.id: guest for guest in ready[:PLANNED_MAX]}
    along = {mate.id: mate for guest in first.values() for mate in placement.waiting_mates(draft, guest)}
    plan = Plan(fleet, (first | along).values(), prefer)
    hosts, after = plan.hosts, plan.fleet
    open_turns = np.array([turns[name] > 0 for name in after.names])
    for guest in first.values():
        if guest.id in plan.nowhere:
            _fits_nowhere(draft, guest, plan.nowhere[guest.id])
            continue
        at = after.index[hosts[guest.id]]
        if not open_turns[at] and open_turns.any() and guest.id not in along and not prefer[guest.id]:
            at = _sooner(after, guest, at, open_turns)
        if open_turns[at]:
            _start(draft, guest, after.names[at], turns)
            open_turns[at] = turns[after.names[at]] > 0
        else:
            say(draft, guest, "waits for its turn: only so many guests start on a host at once")
    for guest in ready[PLANNED_MAX : PLANNED_MAX + AT_ONCE_MAX]:
        if guest.id in along or placement.waiting_mates(draft, guest):
            continue  # a group is planned as a whole, when it is among the first
        case = placement.Case(after, (guest,), prefer[guest.id])
        at = case.best(after, case.eligible(after) & open_turns)
        if at >= 0:
            after.place(guest, at)
            _start(draft, guest, after.names[at], turns)
            open_turns[at] = turns[after.names[at]] > 0


def _sooner(after: Fleet, guest: GuestRecord, at: int, open_turns: Mask) -> int:
    """Another host with room beyond the plan where it may start now, before those that come after it; else `at`."""
    after.place(guest, at, -1)
    case = placement.Case(after, (guest,))
    other = case.best(after, case.eligible(after) & open_turns)
    at = other if other >= 0 else at
    after.place(guest, at)
    return at


def _start(draft: Draft, guest: GuestRecord, name: HostName, turns: dict[HostName, int]) -> None:
    host = draft.require_host(name)
    facts = draft.view(name).guests.get(guest.id)
    if guest.needs.local and facts is not None and facts.digest not in ("", guest.digest):
        # Its disks are its host's own, and so is what was changed there while nobody looked: another path, say.
        definitions.want(draft, guest, host, facts)
        say(draft, guest, f"waits for its definition as {name} has it now")
        return
    why = onecopy.issue_start(draft, guest, host, operation=draft.operation_about(guest.id))
    if why:
        say(draft, guest, f"waits: {'; '.join(why)}")
    else:
        turns[name] -= 1


def _elsewhere(draft: Draft, guest: GuestRecord) -> HostName:
    """Where a guest goes that was stopped to start elsewhere: not where it was, unless there is no other ("")."""
    move = guest.move
    if move is None or move.stage is not MoveStage.STOPPING:
        return ""
    to = draft.host(move.destination)
    if to is not None and not placement.why_not(draft, guest, to):
        return to.name
    return placement.choose(draft, guest, without={move.source}).host


def _being_stopped(draft: Draft, guest: GuestRecord) -> list[str]:
    """Who must share its host, and is about to be stopped there in order to start elsewhere: they go together."""
    mates = (draft.guest(key) for key in draft.members.group(guest.id))
    return sorted(
        mate.name for mate in mates if mate and mate.phase is GuestPhase.STOPPING and mate.move is not None
    )


def _waits_its_turn(draft: Draft, guest: GuestRecord) -> bool:
    """Whether it is held up by a guest that starts before it; bounded, and said when patience is over."""
    if guest.waits_since == PATIENCE_OVER:
        return False
    why = dependencies.waits_for(draft, guest)
    if not why:
        return False
    if not guest.waits_since:
        draft.put_guest(changed(guest, reason=why, waits_since=draft.now))
    elif draft.now < guest.waits_since + draft.config.timers.boot_after_s:
        say(draft, guest, why)
    else:
        draft.put_guest(changed(guest, waits_since=PATIENCE_OVER))
        text = f"{guest.name}: {why.partition(', at most')[0]} no longer: it starts all the same"
        draft.note("guest.unordered", text, guest=guest.id, operation=draft.operation_about(guest.id))
    return True  # and next time it may start


def _fits_nowhere(draft: Draft, guest: GuestRecord, found: placement.Placement) -> None:
    if any((host := draft.host(name)) and host.phase is HostPhase.ONLINE for name in guest.avoid):
        # Elsewhere is better, not required. It was counted as a relocation, so this ends.
        draft.put_guest(changed(guest, avoid=()))
        return
    text = f"fits nowhere: {found.sentence()}"
    draft.put_guest(
        changed(guest, reason=text, retry_at=draft.now + draft.config.timers.recovery_retry_s)
        if guest.reason != text
        else changed(guest, retry_at=draft.now + draft.config.timers.recovery_retry_s)
    )
    todo = disks.todo(guest) or "bring a host back, or free what it needs; it starts by itself then"
    what = f"{guest.name} waits: no host can take it"
    draft.alert(f"guest/{guest.id}/waiting", what, text, todo, severity="critical")
