"""An approved plan against what would be done now: every difference, a sentence each.

What becomes of a guest must be what was approved; when it begins, and how long that takes, may differ. Here: the
comparison. Not here: how it is foretold (`forecast`), what follows from it (`asks_plans`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Any, NamedTuple, cast

import msgspec

from dr.core.state import Draft
from dr.model.base import GuestId
from dr.model.effects import Foreseen
from dr.model.events import AskApply
from dr.model.operations import Planned
from dr.model.plans import Approved, terms_of
from dr.model.records import Rung
from dr.model.settings import Settings


class Differences(NamedTuple):
    """`against`: something else would become of a guest, or it would be treated otherwise; `noted`: all the rest."""

    against: tuple[str, ...]
    noted: tuple[str, ...]


def digest_of_rules(settings: Settings) -> str:
    """Of the placement rules: two configurations with the same rules have the same."""
    return hashlib.sha256(msgspec.json.encode(settings.rules)).hexdigest()[:16]


def approved(draft: Draft, told: Iterable[Foreseen]) -> tuple[Approved, ...]:
    """What a person approves of, in the turns of those that move; then the others."""
    in_turn = sorted(told, key=lambda each: inf if each.begins_s is None else each.begins_s)
    return tuple(
        Approved(
            guest=each.guest,
            name=each.name,
            host=each.host,
            fate=each.fate,
            to=each.to,
            rung=each.rung,
            late=each.late,
            terms=None if (guest := draft.guest(each.guest)) is None else terms_of(guest),
        )
        for each in in_turn
    )


def planned(plan: AskApply) -> dict[GuestId, Planned]:
    """Who goes where, and when its turn is."""
    return {
        each.guest: Planned(to=each.to, turn=turn)
        for turn, each in enumerate(plan.approved)
        if each.fate == "live" and each.to
    }


def differences(
    draft: Draft, plan: AskApply, told: tuple[Foreseen, ...], instead: Mapping[GuestId, tuple[str, ...]]
) -> Differences:
    """`told`: what would become of everybody on its hosts if it were applied now; `instead`: as of `Rehearsal`."""
    against: list[str] = []
    noted: list[str] = []
    now = {each.guest: each for each in told}
    for guest in plan.approved:
        if guest.guest in now:
            why = instead.get(guest.guest, ())
            against += (f"{guest.name}: {text}" for text in _changed(draft, guest, now[guest.guest], why))
            noted += (f"{guest.name}: {text}" for text in _otherwise(guest, now[guest.guest]))
        elif _arrived(draft, guest):
            noted.append(f"{guest.name}: is on {guest.to} already")
        else:
            against.append(f"{guest.name}: {_gone(draft, guest)}")
    known = {each.guest for each in plan.approved}
    new = (each for each in told if each.guest not in known)
    against += (f"{each.name}: is on {each.host} now, and not in the plan; it {_fate(each)}" for each in new)
    if plan.rules != digest_of_rules(draft.config):
        noted.append("placement rules were changed since the plan was made")
    return Differences(tuple(against), tuple(noted))


def _changed(draft: Draft, then: Approved, now: Foreseen, instead: tuple[str, ...]) -> Iterator[str]:
    """What is otherwise with a guest that is still to leave."""
    if now.host != then.host:
        yield f"is on {now.host} now, on {then.host} in the plan"
    if (then.fate, then.to) != (now.fate, now.to):
        because = "; ".join(instead if now.fate == "live" else now.why)
        text = f"{_fate(now)}; in the plan it {_fate(then)}"
        yield text + (f" (now: {because})" if because else "")
    if now.rung is Rung.CALLED_OFF is not then.rung:
        yield f"its move is foreseen to be called off; in the plan it is {then.rung or 'not foretold'}"
    if then.late != now.late:
        yield f"{_late(now)}; in the plan it {_late(then)}"
    guest = draft.guest(then.guest)
    terms = None if guest is None else terms_of(guest)
    if terms is None or then.terms is None:
        if terms is not then.terms:
            protected = ("not protected", "protected")
            yield f"is {protected[terms is not None]} now, {protected[then.terms is not None]} in the plan"
        return
    for name in msgspec.structs.asdict(cast(Any, terms)):
        value, before = getattr(terms, name), getattr(then.terms, name)
        if value != before:
            yield f"its policy was changed: {name} is {value} now, {before} in the plan"


def _otherwise(then: Approved, now: Foreseen) -> Iterator[str]:
    """What is otherwise with its move, within what its policy allows."""
    if then.rung is not now.rung and now.rung not in (None, Rung.CALLED_OFF):
        yield f"its move is foreseen to be {now.rung}; in the plan it is {then.rung or 'not foretold'}"


def _arrived(draft: Draft, then: Approved) -> bool:
    """Whether it left meanwhile, and runs where the plan would have sent it."""
    guest = draft.guest(then.guest)
    return guest is not None and then.fate == "live" and guest.holder == then.to


def _gone(draft: Draft, then: Approved) -> str:
    guest = draft.guest(then.guest)
    if guest is None:
        return f"is not on {then.host} any more"
    return f"is on {guest.holder or 'no host'} now ({guest.phase}); in the plan it {_fate(then)} from {then.host}"


def _fate(guest: Foreseen | Approved) -> str:
    match guest.fate:
        case "live":
            return f"moves live to {guest.to}"
        case "blocked":
            return "cannot leave"
        case "left":
            return "is left there"


def _late(guest: Foreseen | Approved) -> str:
    return guest.late or "leaves in time"
