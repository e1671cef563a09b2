"""What operators ask of moves: migrate live, relocate (stop here, start elsewhere), call off. All named, or none."""

from __future__ import annotations

from dr.core import dirtying, forecast, moves
from dr.core.asks import no, no_such, protected, yes
from dr.core.state import Draft
from dr.model.base import GuestId, changed
from dr.model.effects import Foreseen, Reply
from dr.model.events import AskCancelMove, AskMigrate, AskRelocate
from dr.model.records import GuestRecord


def migrate(draft: Draft, ask: AskMigrate) -> Reply:
    have, missing = protected(draft, ask.guests)
    if missing:
        return no_such(ask, "protected guest", missing)
    named = {guest.id for guest in have}
    foreseen = tuple(
        forecast.of_move(draft, guest, ask.to, _going_along(draft, guest, named)) for guest in have
    )
    stays = [reason for guest in foreseen for reason in guest.why]
    foreseen, times = forecast.of_moves(draft, have, foreseen)
    for holder in {guest.holder for guest in have}:
        dirtying.ask(draft, holder, have)
    if ask.dry_run:
        words = (_in_words(guest, told) for guest, told in zip(have, foreseen, strict=True))
        return changed(yes(ask, "; ".join(words)), guests=foreseen, forecast=times)
    if stays:
        return no(ask, *dict.fromkeys(stays))
    operation = draft.open_operation(
        "guest-migrate", ", ".join(g.name for g in have), ask.reason, ask.by, [g.id for g in have]
    )
    waits = 0
    for guest in have:
        bound, _ = moves.company(draft, guest)
        along = _going_along(draft, guest, named)
        if moves.begin(draft, guest, ask.to or bound, operation=operation.id, asked=True, along=along):
            moves.queue(draft, guest, ask.to or bound, operation.id)
            waits += 1
    text = f"{waits} wait until others have moved" if waits else ""
    return changed(yes(ask, text, operation), guests=foreseen, forecast=times)


def _in_words(guest: GuestRecord, told: Foreseen) -> str:
    if told.fate == "live":
        return f"{guest.name} would move live from {guest.holder} to {told.to}"
    return f"{guest.name} would not be moved"


def _going_along(draft: Draft, guest: GuestRecord, named: set[GuestId]) -> tuple[GuestRecord, ...]:
    """Of those who must share its host, the ones that are to be moved too, by the same ask or already."""
    _, along = moves.company(draft, guest)
    return tuple(mate for mate in along if mate.id in named or mate.move is not None)


def relocate(draft: Draft, ask: AskRelocate) -> Reply:
    have, missing = protected(draft, ask.guests)
    if missing:
        return no_such(ask, "protected guest", missing)
    foreseen = tuple(forecast.of_relocation(draft, guest, ask.to) for guest in have)
    words = [forecast.relocated_in_words(draft, g, told) for g, told in zip(have, foreseen, strict=True)]
    if ask.dry_run:
        return changed(yes(ask, "; ".join(words)), guests=foreseen)
    if why := [reason for told in foreseen for reason in told.why]:
        return no(ask, *dict.fromkeys(why))
    operation = draft.open_operation(
        "guest-relocate", ", ".join(g.name for g in have), ask.reason, ask.by, [g.id for g in have]
    )
    for number, guest in enumerate(have):
        if why := moves.relocate(draft, guest, ask.to, ask.mode, operation=operation.id):
            words[number] = f"not moved: {'; '.join(why)}"  # disks of those before it took the room, say
            draft.outcome(operation.id, guest.id, words[number])
    copied = any(guest.needs.local for guest in have)
    return changed(yes(ask, "; ".join(words) if copied else "", operation), guests=foreseen if copied else ())


def cancel(draft: Draft, ask: AskCancelMove) -> Reply:
    have, missing = protected(draft, ask.guests)
    if missing:
        return no_such(ask, "protected guest", missing)
    why = [reason for guest in have if (reason := moves.why_not_cancel(guest))]
    if why:
        return no(ask, *why)
    for guest in have:
        if guest.move is not None and not guest.move.asked:  # by itself it is not moved again
            guest = changed(guest, homing=changed(guest.homing, stays=guest.move.source))
        moves.cancel(draft, guest, f"{ask.by} called it off{f': {ask.reason}' if ask.reason else ''}")
    return yes(ask, "they stay where they are, unless they have left already")
