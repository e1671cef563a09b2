"""What operators ask of moves: migrate live, relocate (stop here, start elsewhere), call off. All named, or none."""

from __future__ import annotations

from dr.core import moves
from dr.core.asks import no, no_such, protected, yes
from dr.core.state import Draft
from dr.model.effects import Reply
from dr.model.events import AskCancelMove, AskMigrate, AskRelocate


def migrate(draft: Draft, ask: AskMigrate) -> Reply:
    have, missing = protected(draft, ask.guests)
    if missing:
        return no_such(ask, "protected guest", missing)
    why = [reason for guest in have for reason in moves.objections(draft, guest, ask.to, asked=True)]
    if why:
        return no(ask, *dict.fromkeys(why))
    if ask.dry_run:
        return yes(ask, "; ".join(moves.foreseen(draft, guest, ask.to) for guest in have))
    operation = draft.open_operation(
        "guest-migrate", ", ".join(g.name for g in have), ask.reason, ask.by, [g.id for g in have]
    )
    waits = 0
    for guest in have:
        if moves.begin(draft, guest, ask.to, operation=operation.id, asked=True):
            moves.queue(draft, guest, ask.to, operation.id)
            waits += 1
    return yes(ask, f"{waits} wait until others have moved" if waits else "", operation)


def relocate(draft: Draft, ask: AskRelocate) -> Reply:
    have, missing = protected(draft, ask.guests)
    if missing:
        return no_such(ask, "protected guest", missing)
    why = [reason for guest in have for reason in moves.why_not_relocate(draft, guest, ask.to)]
    if why:
        return no(ask, *dict.fromkeys(why))
    operation = draft.open_operation(
        "guest-relocate", ", ".join(g.name for g in have), ask.reason, ask.by, [g.id for g in have]
    )
    for guest in have:
        objected = moves.relocate(draft, guest, ask.to, ask.mode, operation=operation.id)
        assert not objected
    return yes(ask, "", operation)


def cancel(draft: Draft, ask: AskCancelMove) -> Reply:
    have, missing = protected(draft, ask.guests)
    if missing:
        return no_such(ask, "protected guest", missing)
    why = [reason for guest in have if (reason := moves.why_not_cancel(guest))]
    if why:
        return no(ask, *why)
    for guest in have:
        moves.cancel(draft, guest, f"{ask.by} called it off{f': {ask.reason}' if ask.reason else ''}")
    return yes(ask, "they stay where they run, unless they have left already")
