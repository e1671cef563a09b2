"""The disks of a guest that is off go to another host: a move by stop and start, of disks that only one host has.

Level-triggered as all else: `step` looks at the move, the set and what is out now. Here: when the copying begins, what
goes on meanwhile, and its every end. Not here: places and tickets (`core.onecopy`), where a guest may start from cold
(`core.disks`), how the bytes go (the agents).

Both ends stand in its set from before the first byte until each has said that its part has ended: so nobody starts it
meanwhile, from neither copy, under no leader. The commit is one word, of either agent: that all of its disks are over
there, whole (`onecopy.disks_arrived`). Before it everything ends with the newest disks where they were, and the guest
starts there again if it is wanted; after it, with those over there.
"""

from __future__ import annotations

from dr.core import definitions, guests, links, moves, onecopy, placement, preflight, retries, whereabouts
from dr.core.state import Draft
from dr.core.tables import GuestEvent, move_guest, say
from dr.model.base import GuestId, changed
from dr.model.commands import Answer, Outcome
from dr.model.records import Desired, GuestPhase, GuestRecord, HostPhase, HostRecord, Move, MoveStage

TRIES_MAX = 6  # copies that broke off; each goes on where the one before ended
AGAIN_S = 1.0  # doubles with each try
WAITS_S = 60.0  # beyond that, for an end that cannot go on: the guest is off all the while
LEAVES_FROM = (HostPhase.ONLINE, HostPhase.DRAINING, HostPhase.SUSPECT)


# ---- its beginning


def due(draft: Draft, guest: GuestRecord) -> bool:
    """Whether it was stopped in order to start elsewhere, and its disks are still where it was."""
    move = guest.move
    return (
        guest.phase is GuestPhase.RECOVERING
        and not guest.may_run_on
        and move is not None
        and move.stage is MoveStage.STOPPING
        and bool(move.destination)
        and bool(guest.needs.local)
        and guest.disks_on == move.source
        and not move.copied  # a person says that those it left are the newest: it starts from them
        and _wanted(draft, guest, move)
    )


def _wanted(draft: Draft, guest: GuestRecord, move: Move) -> bool:
    """Whether it is to run when its disks are where they go, or stay."""
    if guest.desired is Desired.IGNORED:
        return guests.asked_to_start(draft, guest) and not move.off
    return guest.desired is Desired.RUNNING


def begin_if_due(draft: Draft, guest_id: GuestId) -> None:
    guest = draft.guest(guest_id)
    if guest is not None and due(draft, guest):
        _begin(draft, guest)


def _begin(draft: Draft, guest: GuestRecord) -> None:
    """Its disks go to where it is to start; where no host takes them any more, it starts again where they are."""
    move = _move(guest)
    source = draft.host(move.source)
    if source is None or source.phase not in LEAVES_FROM:
        _stays(draft, guest, f"{move.source} is {source.phase if source else 'removed'}")
        return
    to = draft.host(move.destination)
    if to is None or not to.facts.copy_port or placement.why_not(draft, guest, to, with_disks=True):
        place = preflight.where_disks_go(draft, guest, move.source)
        if not place.host:
            _stays(draft, guest, f"it fits nowhere else: {place.sentence()}")
            return
        to = draft.require_host(place.host)
    if busy := _busy(draft, source, to):
        say(draft, guest, f"its disks wait for their turn: {busy}")
        return
    if why := _issue(draft, guest, source, to, move):
        text = f"its disks cannot go to {to.name} yet: {'; '.join(why)}"
        if draft.now >= guest.since + WAITS_S:
            _stays(draft, guest, text)
        else:
            say(draft, guest, text)


def _busy(draft: Draft, source: HostRecord, to: HostRecord) -> str:
    """Whether one of them has its hands full: copies share their links with whatever else moves there."""
    now, limits = links.traffic(draft), draft.config.limits
    if (count := now.leaving.get(source.name, 0)) >= limits.moves_out_per_host:
        return f"{source.name} is sending {count} guests already"
    if (count := now.coming.get(to.name, 0)) >= limits.moves_in_per_host:
        return f"{to.name} is receiving {count} guests already"
    return ""


def _issue(draft: Draft, guest: GuestRecord, source: HostRecord, to: HostRecord, move: Move) -> list[str]:
    """Its disks are copied from now on: every objection, or [].

    While nothing is copied it is in no set, and others may have taken its room over there, or stand in its way by rule.
    """
    if why := placement.why_not(draft, guest, to, with_disks=True):
        return why
    return onecopy.issue_copy(draft, guest, source, to, move, addresses=moves.copy_addresses(draft, to))


# ---- answers


def ended(draft: Draft, guest: GuestRecord, host: HostRecord, ticket: str, answer: Answer) -> None:
    """One end's part has ended. Either end's word that the disks have arrived is enough."""
    move = guest.move
    ours = move is not None and move.stage is MoveStage.SENDING and ticket in (move.job, move.taking)
    if ours and answer.outcome is Outcome.DONE:
        if answer.reason and move is not None and ticket == move.job:  # what it took
            text = f"{guest.name}: {answer.reason}"
            draft.note("guest.sent", text, guest=guest.id, operation=move.operation)
        onecopy.disks_arrived(draft, guest)
    elif ours and move is not None and not move.copied:
        failed = answer.outcome is Outcome.FAILED  # what broke off is tried again
        text = f"{host.name}: {answer.reason}"
        why = move.why or (text if failed else "")
        draft.put_guest(changed(guest, move=changed(move, why=why, broke=move.broke or text)))
    guests.testified(draft, host, answer.testimony)
    after = draft.guest(guest.id)
    if after is not None and answer.definition is not None:  # its disks are not as they were told
        definitions.described(draft, after, host, answer)


# ---- one step on


def step(draft: Draft, guest: GuestRecord) -> None:
    """Carry one copying of disks on."""
    move = _move(guest)
    assert move.stage is MoveStage.SENDING
    if not guest.may_run_on:
        _over(draft, guest, move)
    elif holder := whereabouts.sole_holder(draft, guest):  # round us: facts are followed
        guests.running_on(draft, guest, holder, f"runs on {holder}, where somebody started it")
    else:
        _watch(draft, guest, move)
        _ask(draft, guest)


def _watch(draft: Draft, guest: GuestRecord, move: Move) -> None:
    """Called off, overdue, or not wanted there any longer? And where one end has ended, so must the other."""
    ends = {(move.source, move.source_boot), (move.destination, move.destination_boot)}
    if move.copied:
        return  # each ends by itself
    destination = draft.host(move.destination)
    why = move.why or (moves.unwanted(draft, guest, destination) if destination else "it was removed")
    if not why and draft.now - move.at > guest.policy.move_s:
        why = f"it did not end within {guest.policy.move_s:.0f} s (move_s)"
    if why and not move.why:
        moves.cancel(draft, guest, why)
    if why or ends - whereabouts.places(guest):
        for name, boot_id in sorted(ends & whereabouts.places(guest)):
            host = draft.host(name)
            if host is not None and host.boot_id == boot_id:
                moves.ask_abort(draft, guest, name, again=not why)


def _ask(draft: Draft, guest: GuestRecord) -> None:
    """Whose ticket has ended, or is an earlier leader's, is asked whether it is over there."""
    move, out = _move(guest), {pending.host for _, pending in draft.pendings_of(guest.id)}
    waits = []
    for place in guest.may_run_on:
        host = draft.host(place.host)
        if place.host in out or host is None:
            continue
        waits.append(place.host)
        if host.boot_id == place.boot_id:
            whereabouts.ask_testimony(draft, host, [guest])
    whole = "have arrived on" if move.copied else "are copied to"
    text = f"its disks {whole} {move.destination} from {move.source}"
    if waits:
        text += f"; waits for {' and '.join(sorted(waits))} to say that its part has ended"
    say(draft, draft.guest(guest.id) or guest, text)


# ---- ends


def _over(draft: Draft, guest: GuestRecord, move: Move) -> None:
    """Both ends have ended."""
    if move.copied:
        _arrived(draft, guest, move)
        return
    if move.why or move.tries >= TRIES_MAX:
        _stays(draft, guest, move.why or f"its disks could not be copied: {move.broke}")
        return
    source, to = draft.host(move.source), draft.host(move.destination)
    if source is None or source.phase not in LEAVES_FROM:
        _stays(draft, guest, f"{move.source} is {source.phase if source else 'removed'}")
    elif to is None:
        _stays(draft, guest, f"{move.destination} is removed")
    elif why := moves.unwanted(draft, guest, to):
        _stays(draft, guest, why)
    elif to.phase not in (HostPhase.ONLINE, HostPhase.SUSPECT):
        _stays(draft, guest, f"{to.name} is {to.phase}")
    elif not move.retry_at:
        text = f"the copying of its disks broke off ({move.broke or 'how was not seen'}); goes on in a moment"
        draft.note("guest.move", f"{guest.name}: {text}", guest=guest.id, operation=move.operation)
        wait_s = AGAIN_S * 2**move.tries
        draft.put_guest(changed(guest, reason=text, move=changed(move, retry_at=draft.now + wait_s)))
    elif draft.now >= move.retry_at and (objected := _issue(draft, guest, source, to, move)):
        text = f"its disks cannot go on to {to.name}: {'; '.join(objected)}"
        if draft.now >= move.retry_at + WAITS_S and source.phase is not HostPhase.SUSPECT:
            _stays(draft, guest, text)
        else:
            say(draft, guest, text)


def _arrived(draft: Draft, guest: GuestRecord, move: Move) -> None:
    """It starts where they are now, or stays off."""
    text = f"its disks went from {move.source} to {move.destination} in {draft.now - move.at:.1f} s"
    if _wanted(draft, guest, move):
        again = changed(move, stage=MoveStage.STOPPING, why="")
        move_guest(
            draft,
            guest,
            GuestEvent.SEEN_NOWHERE,
            f"{text}; starts there",
            operation=move.operation,
            move=again,
            tried_on=move.destination,
            retry_at=draft.now,
        )
    else:
        draft.outcome(move.operation, guest.id, f"moved: {text}; it is off")
        retries.put_down(draft, guest, f"is off; {text}")


def _stays(draft: Draft, guest: GuestRecord, why: str) -> None:
    """Its newest disks are where they were: there it starts again, if it is wanted."""
    move = _move(guest)
    text = f"its disks stay on {guest.disks_on or 'their host'}: {why}"
    if _wanted(draft, guest, move):
        back = changed(move, stage=MoveStage.STOPPING, destination="", why=why)
        if guest.phase is GuestPhase.RECOVERING:
            draft.put_guest(changed(guest, reason=text, move=back, retry_at=draft.now))
            draft.note("guest.move", f"{guest.name}: {text}", guest=guest.id, operation=move.operation)
        else:
            move_guest(
                draft,
                guest,
                GuestEvent.SEEN_NOWHERE,
                text,
                operation=move.operation,
                move=back,
                retry_at=draft.now,
            )
    else:
        draft.outcome(move.operation, guest.id, f"not moved: {why}")
        retries.put_down(draft, guest, f"is off; {text}")


def _move(guest: GuestRecord) -> Move:
    assert guest.move is not None
    return guest.move
