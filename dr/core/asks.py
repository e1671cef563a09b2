"""What every ask needs: its answer, and the guests that it names."""

from __future__ import annotations

from dr.core.state import Draft
from dr.model.effects import Reply
from dr.model.events import Ask
from dr.model.operations import Operation
from dr.model.records import GuestRecord


def yes(ask: Ask, message: str = "", *operations: Operation) -> Reply:
    return Reply(id=ask.id, accepted=True, message=message, operations=tuple(op.id for op in operations))


def no(ask: Ask, *blockers: str) -> Reply:
    return Reply(id=ask.id, accepted=False, blockers=blockers)


def not_now(ask: Ask, *blockers: str) -> Reply:
    """Refused for what is over in a moment."""
    return Reply(id=ask.id, accepted=False, blockers=blockers, soon=True)


def no_such(ask: Ask, kind: str, names: list[str]) -> Reply:
    text = f"no such {kind}: {', '.join(names)}"
    return Reply(id=ask.id, accepted=False, blockers=(text,), missing=True)


def protected(draft: Draft, names: tuple[str, ...]) -> tuple[list[GuestRecord], list[str]]:
    by_name: dict[str, GuestRecord] = {}
    for guest in draft.guests():
        by_name[guest.name] = by_name[guest.id] = guest
    found = {by_name[name].id: by_name[name] for name in names if name in by_name}  # one named twice is one
    return list(found.values()), [name for name in names if name not in by_name]
