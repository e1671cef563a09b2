"""What a drain, or a move that a person asks for, would do, guest by guest.

Where each would go live, or everything that keeps it, its whole pre-flight, and what would help. That of a drain is
made by beginning the moves on a draft that nobody takes over: by the same rules, in the same order, each seeing the
places that those before it took. Only the bounds on moves at once are left out, as they pass: a guest may go to another
host than is told here if that has its hands full when its turn comes. When each begins and ends follows from what it
sends and how fast links are (`core.schedule`), and the forecast says what that rests on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dr.core import links, moves, preflight, schedule, upkeep
from dr.core.preflight import Preflight
from dr.core.schedule import Sending, Ways
from dr.core.state import Draft
from dr.core.wishes import with_wishes
from dr.model.base import GuestId, HostName, changed
from dr.model.effects import Forecast, Foreseen
from dr.model.facts import GuestFacts
from dr.model.preflight import CheckName
from dr.model.records import GuestPhase, GuestRecord, HostPhase, HostRecord, Wish

HOSTS_MAX = 6  # whose help is named, or that a sentence names
ON_ITS_WAY = Preflight("", ())  # of a guest whose move was under way before
# Of each move beside the sending, as it is in the lab: until its turn is noticed (half a `upkeep.AGAIN_S`), then the
# tickets, QEMU's start at the destination, the switch-over and the proofs.
EXTRA_S = 1.5


class Evacuation(NamedTuple):
    """What would become of everybody on a host, and when."""

    guests: tuple[Foreseen, ...]
    forecast: Forecast | None  # None: nobody would move


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


def of_drain(draft: Draft, host: HostRecord, wish: Wish) -> Evacuation:
    """Protected guests in the order of their turns, then the others that run there."""
    trial = Draft(draft.state, draft.now)
    trial.put_host(with_wishes(host, cordon=host.cordon, drain=wish))
    here = upkeep.in_turn(draft, upkeep.guests_on(draft, host))
    # All begin before any is told: a guest that must share a host goes with the first of its company.
    why: dict[GuestId, list[str]] = {}
    flights: dict[GuestId, Preflight] = {}
    company: dict[GuestId, str] = {}
    for each in here:
        guest = trial.guest(each.id) or each
        if guest.phase is GuestPhase.MIGRATING:
            continue
        together = moves.preflight_together(trial, guest)
        for one, flight in together.items():
            flights.setdefault(one, flight)
        why[guest.id] = moves.begin_together(trial, guest, bounded=False)
        company |= dict.fromkeys(together, guest.id)
    sendings = [*_under_way(draft, host), *_in_turn(draft, trial, here, company)]
    told = [
        _told(
            trial, host, trial.guest(each.id) or each, why.get(each.id, []), flights.get(each.id, ON_ITS_WAY)
        )
        for each in here
    ]
    told += [_loose(facts, wish) for facts in upkeep.unprotected_on(draft, host)]
    return _timed(draft, host, told, sendings)


# ---- times


def _under_way(draft: Draft, host: HostRecord) -> Iterator[Sending]:
    """Moves that take their share of the links, whoever wanted them. Those to that host are about to be called off."""
    for guest, move in links.moving(draft):
        if move.destination != host.name:
            left_mib = links.left_mib(draft, guest, move)
            yield Sending(guest.id, move.source, move.destination, left_mib, under_way=True)


def _in_turn(
    draft: Draft, trial: Draft, here: list[GuestRecord], company: dict[GuestId, str]
) -> Iterator[Sending]:
    for each in here:
        then = trial.guest(each.id)
        if each.phase is not GuestPhase.MIGRATING and then is not None and then.move is not None:
            mib = links.to_send_mib(draft, each)
            yield Sending(each.id, then.move.source, then.move.destination, mib, company.get(each.id, ""))


def _timed(draft: Draft, host: HostRecord, told: list[Foreseen], sendings: list[Sending]) -> Evacuation:
    mine = {each.key: each for each in sendings if each.source == host.name}
    if not mine:
        return Evacuation(tuple(told), None)
    rates, limits = links.rates(draft), draft.config.limits
    ways = Ways(
        lambda name: rates.of(name).mib_s, limits.moves_out_per_host, limits.moves_in_per_host, EXTRA_S
    )
    spans = schedule.spans(sendings, ways)
    guests = tuple(
        changed(
            each,
            send_mib=round(mine[each.guest].mib),
            begins_s=round(spans[each.guest].begins_s, 1),
            ends_s=round(spans[each.guest].ends_s, 1),
        )
        if each.guest in mine
        else each
        for each in told
    )
    forecast = Forecast(
        total_s=round(max(spans[key].ends_s for key in mine), 1),
        bound_s=round(schedule.bound_s(list(mine.values()), ways.mib_s), 1),
        rests_on=tuple(_rests_on(draft, host, mine)),
    )
    return Evacuation(guests, forecast)


def _rests_on(draft: Draft, host: HostRecord, mine: dict[GuestId, Sending]) -> Iterator[str]:
    """What is known, measured and assumed: no figure is better than that."""
    rates = links.rates(draft)
    alike: dict[links.Rate, list[HostName]] = {}
    for name in sorted({host.name, *(each.to for each in mine.values())}):
        alike.setdefault(rates.of(name), []).append(name)
    for rate, names in alike.items():
        yield f"{', '.join(names)}: {rate.mib_s:.0f} MiB/s each way, {rate.in_words(names)}"
    here = (draft.guest(key) for key in mine)
    whole = [guest.name for guest in here if guest is not None and not links.resident_known(draft, guest)]
    if whole:
        yield f"the whole memory of {_some(whole)}: what of it is in use is not known"
    yield "what guests write meanwhile is sent again, and is not counted"
    others = [op.subject for op in draft.open_operations() if op.kind == "drain" and op.subject != host.name]
    if others:
        yield f"{_some(others)} being drained at the same time: only what is on its way from there is counted"
    if host.phase not in (HostPhase.ONLINE, HostPhase.DRAINING):
        yield f"{host.name} is {host.phase}: it begins when it is online again"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - HOSTS_MAX} more" if len(names) > HOSTS_MAX else ""
    return ", ".join(names[:HOSTS_MAX]) + more


# ---- in words


def in_words(draft: Draft, host: HostRecord, evacuation: Evacuation) -> str:
    """The whole of it in one sentence."""
    guests, forecast = evacuation
    go = sum(guest.fate == "live" for guest in guests)
    stay = [guest.name for guest in guests if guest.fate == "blocked"]
    silent = not upkeep.says_what_runs(draft, host)
    parts = [f"{go} of {len(guests)} guests would move live" if guests else "no guest is known to run there"]
    if forecast is not None:
        parts[0] += f", in about {forecast.total_s:.0f} s ({forecast.bound_s:.0f} s at best)"
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
