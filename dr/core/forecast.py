"""What a drain, or a move that a person asks for, would do, guest by guest.

Where each would go live, or everything that keeps it, its whole pre-flight, and what would help. That of a drain is
made by beginning the moves on a draft that nobody takes over: by the same rules, in the same order, each seeing the
places that those before it took. Only the bounds on moves at once are left out, as they pass: a host that has its hands
full when the turn of a guest comes may send it to another than is told here.
"""

from __future__ import annotations

from collections.abc import Iterator

from dr.core import moves, preflight, upkeep
from dr.core.preflight import Preflight
from dr.core.state import Draft
from dr.core.wishes import with_wishes
from dr.model.base import GuestId, HostName
from dr.model.effects import Foreseen
from dr.model.facts import GuestFacts
from dr.model.preflight import CheckName
from dr.model.records import GuestPhase, GuestRecord, HostRecord, Wish

HOSTS_MAX = 6  # whose help is named; those that need one command first
ON_ITS_WAY = Preflight("", ())  # of a guest whose move was under way before


def of_move(draft: Draft, guest: GuestRecord, to: HostName, along: tuple[GuestRecord, ...] = ()) -> Foreseen:
    """If a person asked for it now, alone or with those."""
    flight = preflight.of(draft, guest, to, asked=True, along=along)
    why = flight.refusals
    return Foreseen(
        guest=guest.id,
        name=guest.name,
        fate="blocked" if why else "live",
        to="" if why else flight.to,
        why=tuple(why),
        todo=tuple(dict.fromkeys(_fixes(flight))) if why else (),
        checks=flight.checks,
    )


def of_drain(draft: Draft, host: HostRecord, wish: Wish) -> tuple[Foreseen, ...]:
    """Protected guests in the order of their turns, then the others that run there."""
    trial = Draft(draft.state, draft.now)
    trial.put_host(with_wishes(host, cordon=host.cordon, drain=wish))
    here = upkeep.in_turn(draft, upkeep.guests_on(draft, host))
    # All begin before any is told: a guest that must share a host goes with the first of its company.
    why: dict[GuestId, list[str]] = {}
    flights: dict[GuestId, Preflight] = {}
    for each in here:
        guest = trial.guest(each.id) or each
        if guest.phase is GuestPhase.MIGRATING:
            continue
        for one, flight in moves.preflight_together(trial, guest).items():
            flights.setdefault(one, flight)
        why[guest.id] = moves.begin_together(trial, guest, bounded=False)
    told = [
        _told(
            trial, host, trial.guest(each.id) or each, why.get(each.id, []), flights.get(each.id, ON_ITS_WAY)
        )
        for each in here
    ]
    told += [_loose(facts, wish) for facts in upkeep.unprotected_on(draft, host)]
    return tuple(told)


def in_words(draft: Draft, host: HostRecord, guests: tuple[Foreseen, ...]) -> str:
    """The whole of it in one sentence."""
    go = sum(guest.fate == "live" for guest in guests)
    stay = [guest.name for guest in guests if guest.fate == "blocked"]
    silent = not upkeep.says_what_runs(draft, host)
    parts = [f"{go} of {len(guests)} guests would move live" if guests else "no guest is known to run there"]
    if stay:
        parts.append(f"it would not get empty before these have left: {', '.join(stay)}")
    if silent:
        parts.append("its agent does not say what runs there, and it would not count as empty before it does")
    if not stay and not silent:
        parts.append("then it would be in maintenance")
    return f"{host.name}: {'; '.join(parts)}"


def _told(trial: Draft, host: HostRecord, guest: GuestRecord, why: list[str], flight: Preflight) -> Foreseen:
    move = guest.move
    if guest.phase is GuestPhase.MIGRATING and move is not None:
        to = (
            move.destination if move.source == host.name else move.source
        )  # on its way here: it is called off
        return Foreseen(guest=guest.id, name=guest.name, fate="live", to=to, checks=flight.checks)
    todo = tuple(dict.fromkeys(_helps(trial, host, guest, flight)))
    return Foreseen(
        guest=guest.id, name=guest.name, fate="blocked", why=tuple(why), todo=todo, checks=flight.checks
    )


def _fixes(flight: Preflight) -> Iterator[str]:
    yield from (check.fix for check in flight.checks if check.refuses and check.fix)


def _loose(facts: GuestFacts, wish: Wish) -> Foreseen:
    if wish.leave_unprotected:
        why = "it is not protected: it stays, as asked"
        return Foreseen(guest=facts.id, name=facts.name, fate="left", why=(why,))
    return Foreseen(
        guest=facts.id,
        name=facts.name,
        fate="blocked",
        why=("it is not protected, so nobody moves it",),
        todo=(f"dr guest protect {facts.name}", f"stop or move {facts.name} by hand", "--leave-unprotected"),
    )


def _helps(trial: Draft, host: HostRecord, guest: GuestRecord, flight: Preflight) -> Iterator[str]:
    """What would let it leave; each may be one of several that are needed. Stopping it always does."""
    if guest.phase is not GuestPhase.RUNNING:
        yield from (check.fix for check in flight.checks if check.name is CheckName.STATE and check.fix)
        return
    yield from _fixes(flight)
    if not moves.fits_live(trial, guest):
        others = (each for each in trial.hosts() if each.name != host.name)
        yield from [text for other in others if (text := _would_take(other))][:HOSTS_MAX]
    if not moves.why_not_relocate(trial, guest, ""):
        yield f"dr guest relocate {guest.name}"
    yield f"dr guest stop {guest.name}"


def _would_take(host: HostRecord) -> str:
    """What would let that host take live guests; "" where something else stands against it."""
    return preflight.back_into_play(host) or ("" if host.facts.live_migration else preflight.live_fix(host))
