"""What a drain, or a move that a person asks for, would do, guest by guest.

Where each would go live and when, or everything that keeps it, its whole pre-flight, what would help, and what the
times rest on. That of a drain is told from its rehearsal (`core.rehearsal`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from dr.core import deadline, dirtying, disks, links, moves, placement, preflight, schedule, upkeep
from dr.core.ladder import Outlook
from dr.core.preflight import Preflight
from dr.core.rehearsal import EXTRA_S, Rehearsal
from dr.core.schedule import Sending, Span
from dr.core.state import Draft
from dr.model.base import GuestId, HostName, changed
from dr.model.effects import Forecast, Foreseen
from dr.model.facts import GuestFacts
from dr.model.operations import Planned
from dr.model.policy import GuestPolicy
from dr.model.preflight import CheckName
from dr.model.records import Desired, GuestPhase, GuestRecord, HostPhase, HostRecord, Rung, Wish

HOSTS_MAX = 6  # whose help is named, or that a sentence names
ON_ITS_WAY = Preflight("", ())  # of a guest whose move was under way before


class Evacuation(NamedTuple):
    """What would become of everybody on a host, and when."""

    guests: tuple[Foreseen, ...]
    forecast: Forecast | None  # None: nobody would move
    instead: Mapping[GuestId, tuple[str, ...]] = {}  # why some do not go where an approved plan sends them


def of_move(draft: Draft, guest: GuestRecord, to: HostName, along: tuple[GuestRecord, ...] = ()) -> Foreseen:
    """If a person asked for it now, alone or with those."""
    flight = preflight.of(draft, guest, to, asked=True, along=along)
    why = flight.refusals
    return Foreseen(
        guest=guest.id,
        name=guest.name,
        host=guest.holder,
        fate="blocked" if why else "live",
        to="" if why else flight.to,
        why=tuple(why),
        todo=tuple(dict.fromkeys(_fixes(flight))) if why else (),
        checks=flight.checks,
    )


def of_relocation(draft: Draft, guest: GuestRecord, to: HostName) -> Foreseen:
    """If a person asked for it to be stopped and started elsewhere now."""
    flight = preflight.cold(draft, guest, to)
    why = flight.refusals
    off = guest.phase is GuestPhase.STOPPED
    return Foreseen(
        guest=guest.id,
        name=guest.name,
        host=guest.disks_on if off and guest.needs.local else guest.holder,
        fate="blocked" if why else "live",
        cold=not why,
        to="" if why else flight.to,
        why=tuple(why),
        todo=tuple(dict.fromkeys(_fixes(flight))) if why else (),
        checks=flight.checks,
        send_mib=0 if why else disks.to_copy_mib(guest),
    )


def relocated_in_words(draft: Draft, guest: GuestRecord, told: Foreseen) -> str:
    """What that means for it, and for how long."""
    if not told.cold:
        return f"{guest.name} would not be moved"
    off = guest.phase is GuestPhase.STOPPED
    text = f"{guest.name} is stopped on {told.host} and starts on {told.to}"
    if off:
        text = f"{guest.name} is off and stays off; its disks go from {told.host} to {told.to}"
    if told.send_mib:
        rates = links.rates(draft)
        mib_s = min(rates.of(told.host).mib_s, rates.of(told.to).mib_s, guest.policy.move_mib_s or math.inf)
        known = rates.of(told.host).in_words([told.host])
        took_s = math.ceil(told.send_mib / mib_s)
        text += f": {told.send_mib} MiB of disks are copied meanwhile, about {took_s} s at {mib_s:.0f} MiB/s ({known})"
        if took_s > guest.policy.move_s:
            vain = "" if off else ", and it was off in vain"
            text += (
                f"; but after {guest.policy.move_s:.0f} s that is called off{vain}:"
                f" a longer --move-time helps: dr guest set {guest.name}"
            )
    return text


def of_moves(
    draft: Draft, guests: list[GuestRecord], told: tuple[Foreseen, ...]
) -> tuple[tuple[Foreseen, ...], Forecast | None]:
    """With times, if all of these that can go were sent now, as many at once as each host may send."""
    rates = links.rates(draft)
    policies = {guest.id: guest.policy for guest in guests}
    sendings: dict[GuestId, Sending] = {}
    outlooks: dict[GuestId, Outlook] = {}
    for guest, each in zip(guests, told, strict=True):
        if each.fate == "live":
            rate_mib_s = min(rates.of(guest.holder).mib_s, rates.of(each.to).mib_s)
            outlook = outlooks[guest.id] = links.outlook(draft, guest, rate_mib_s)
            sendings[guest.id] = links.sending(guest, guest.holder, each.to, outlook.sent_mib)
    if not sendings:
        return told, None
    spans = schedule.spans(
        links.sendings(draft),
        schedule.in_order(sendings.values(), draft.config.limits.moves_out_per_host),
        lambda name: rates.of(name).mib_s,
        EXTRA_S,
    )
    timed = tuple(
        _timed(each, policies[each.guest], outlooks[each.guest], sendings[each.guest], spans[each.guest])
        if each.guest in sendings
        else each
        for each in told
    )
    hosts = {host for each in sendings.values() for host in (each.source, each.to)}
    forecast = Forecast(
        total_s=round(max(spans[key].ends_s for key in sendings), 1),
        bound_s=round(schedule.bound_s(list(sendings.values()), lambda name: rates.of(name).mib_s), 1),
        rests_on=tuple(_known(draft, hosts, [guest for guest in guests if guest.id in sendings])),
    )
    return timed, forecast


def of_drain(draft: Draft, host: HostRecord, wish: Wish) -> Evacuation:
    """As `of_drains`, of one host."""
    return of_drains(draft, {host.name: wish})


def of_drains(
    draft: Draft, drains: Mapping[HostName, Wish], approved: Mapping[GuestId, Planned] | None = None
) -> Evacuation:
    """Hosts emptied together. Protected guests in the order of their turns, then the others that run there.

    With a deadline it is told too what becomes of those that would be late. `approved`: as of `Rehearsal`.
    """
    rehearsal = Rehearsal(draft, drains, approved)
    told = [_told(rehearsal, rehearsal.trial.guest(each.id) or each) for each in rehearsal.here]
    for name, wish in drains.items():
        told += [
            _loose(name, facts, wish) for facts in upkeep.unprotected_on(draft, draft.require_host(name))
        ]
    by = {each.guest: each for each in told}
    told = [_with_deadline(draft, each, drains[each.host], by) for each in told]
    mine, spans, rates = rehearsal.sendings, rehearsal.spans, links.rates(draft)
    if not mine:
        return Evacuation(tuple(told), None, rehearsal.instead)
    left_s = [wish.deadline - draft.now for wish in drains.values() if deadline.hurried(draft, wish)]
    forecast = Forecast(
        total_s=round(max(spans[key].ends_s for key in mine), 1),
        bound_s=round(schedule.bound_s(list(mine.values()), lambda name: rates.of(name).mib_s), 1),
        rests_on=tuple(_rests_on(draft, rehearsal)),
        deadline_s=round(min(left_s, default=0.0), 1),
    )
    return Evacuation(tuple(told), forecast, rehearsal.instead)


def foreseen_s(evacuation: Evacuation, host: HostRecord) -> float:
    """When that one of them is empty, from now; 0 where that cannot be told."""
    here = [each for each in evacuation.guests if each.host == host.name]
    if host.phase is not HostPhase.ONLINE or any(each.fate == "blocked" for each in here):
        return 0.0
    return max((each.ends_s for each in here if each.ends_s is not None), default=0.0)


def _with_deadline(draft: Draft, told: Foreseen, wish: Wish, by: dict[GuestId, Foreseen]) -> Foreseen:
    """With what becomes of it, if it would not have left when what is left has to be stopped.

    Nobody leaves without those who must share its host.
    """
    if not deadline.hurried(draft, wish):
        return told
    stop_s = deadline.rungs(draft, wish).stop_at - draft.now
    together = [told, *(by[key] for key in draft.members.group(told.guest) if key in by)]
    in_time = all(each.fate == "live" and (each.ends_s is None or each.ends_s <= stop_s) for each in together)
    if in_time or told.fate == "left":
        return told
    guest = draft.guest(told.guest)
    if guest is None:
        return changed(told, late="nobody stops it, nor starts it elsewhere")
    if guest.desired is Desired.IGNORED:
        return changed(told, late="is left alone, as its desired state is ignored")
    when = f"is stopped after {max(0.0, stop_s):.0f} s"
    return changed(told, late=_stopped(draft, told.host, guest, when), stopped=True)


def _stopped(draft: Draft, host: HostName, guest: GuestRecord, when: str) -> str:
    if guest.desired is not Desired.RUNNING:
        return f"{when}; nobody starts it elsewhere"
    if guest.tied:
        return f"{when}; it could not run elsewhere"
    refuge = placement.refuge(draft, guest, host)
    return f"{when}, starts anew on {refuge}" if refuge else f"{when}; no other host could start it"


def _rests_on(draft: Draft, rehearsal: Rehearsal) -> Iterator[str]:
    mine = rehearsal.sendings
    here = [guest for key in mine if (guest := draft.guest(key)) is not None]
    yield from _known(draft, {*rehearsal.drains, *(each.to for each in mine.values())}, here)
    if others := list(rehearsal.others):
        yield f"{_some(others)} being emptied at the same time: the moves from there are counted"
    for name in rehearsal.drains:
        host = draft.require_host(name)
        if host.phase not in (HostPhase.ONLINE, HostPhase.DRAINING):
            yield f"{name} is {host.phase}: it begins when it is online again"


def _known(draft: Draft, hosts: set[HostName], guests: list[GuestRecord]) -> Iterator[str]:
    """What is known, measured and assumed: no figure is better than that."""
    rates = links.rates(draft)
    alike: dict[links.Rate, list[HostName]] = {}
    for name in sorted(hosts):
        alike.setdefault(rates.of(name), []).append(name)
    for rate, names in alike.items():
        yield f"{', '.join(names)}: {rate.mib_s:.0f} MiB/s each way, {rate.in_words(names)}"
    whole = [guest.name for guest in guests if not links.resident_known(draft, guest)]
    if whole:
        yield f"the whole memory of {_some(whole)}: what of it is in use is not known"
    for basis, names in dirtying.in_words(draft, [guest for guest in guests if guest.move is None]):
        yield f"{_some(names)}: {basis}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - HOSTS_MAX} more" if len(names) > HOSTS_MAX else ""
    return ", ".join(names[:HOSTS_MAX]) + more


# ---- in words


def in_words(draft: Draft, evacuation: Evacuation, hosts: Collection[HostName]) -> str:
    """The whole of it: a sentence for each host, and of several hosts one about all of them first."""
    guests, forecast = evacuation.guests, evacuation.forecast
    best = f" ({forecast.bound_s:.0f} s at best)" if forecast is not None else ""
    if len(hosts) == 1:
        return "".join(f"{name}: {_of_host(draft, name, guests, best)}" for name in hosts)
    said = [f"{len(hosts)} hosts: {_moved(guests)}{best}"]
    for name in hosts:
        here = tuple(each for each in guests if each.host == name)
        said.append(f"{name}: {_of_host(draft, name, here, '')}")
    return "\n".join(said)


def _moved(guests: Sequence[Foreseen]) -> str:
    if not guests:
        return "no guest is known to run there"
    go = sum(guest.fate == "live" for guest in guests)
    ends = [guest.ends_s for guest in guests if guest.ends_s is not None]
    return f"{go} of {len(guests)} guests would move live" + (f", in about {max(ends):.0f} s" if ends else "")


def _of_host(draft: Draft, host: HostName, guests: Sequence[Foreseen], best: str) -> str:
    stay = [guest.name for guest in guests if guest.fate == "blocked"]
    silent = not upkeep.says_what_runs(draft, draft.require_host(host))
    parts = [_moved(guests) + best]
    if off := [guest.name for guest in guests if guest.rung is Rung.CALLED_OFF]:
        parts.append(f"whose move is foreseen to be called off: {', '.join(off)}")
    if late := [guest.name for guest in guests if guest.late]:
        parts.append(f"too late to move live: {', '.join(late)}")
    if stay:
        parts.append(f"it would not get empty before these have left: {', '.join(stay)}")
    if silent:
        parts.append("its agent does not say what runs there, and it would not count as empty before it does")
    if not stay and not silent:
        parts.append("then it would be in maintenance")
    return "; ".join(parts)


def _told(rehearsal: Rehearsal, guest: GuestRecord) -> Foreseen:
    move, sending = guest.move, rehearsal.sendings.get(guest.id)
    checks = rehearsal.flights.get(guest.id, ON_ITS_WAY).checks
    told = Foreseen(guest=guest.id, name=guest.name, host=rehearsal.at[guest.id], fate="live", checks=checks)
    if sending is not None:
        timed = _timed(
            told, guest.policy, rehearsal.outlooks.get(guest.id), sending, rehearsal.spans[guest.id]
        )
        return changed(timed, to=sending.to)
    if guest.phase is GuestPhase.MIGRATING and move is not None:  # on its way here: it is called off
        if move.source not in rehearsal.drains:
            return changed(told, to=move.source)
        why = f"it is on its way to {move.destination}, which is to be emptied too: called off first"
        return changed(told, fate="blocked", why=(why,), todo=("wait until it is called off",))
    todo = tuple(dict.fromkeys(_helps(rehearsal.trial, told.host, guest, rehearsal.flights[guest.id])))
    return changed(told, fate="blocked", why=tuple(rehearsal.why.get(guest.id, ())), todo=todo)


def would_converge(name: str, outlook: Outlook, policy: GuestPolicy) -> Iterator[str]:
    """What would let a move end that is foreseen to be called off."""
    if outlook.total_s > policy.move_s:
        yield f"a longer --move-time, {math.ceil(outlook.total_s)} s at least: dr guest set {name}"
    elif not policy.move_auto_converge:
        yield f"dr guest set {name} --move-auto-converge"
    else:
        yield f"a longer --move-downtime: dr guest set {name}"
    yield f"dr guest relocate {name}"


def _timed(
    told: Foreseen, policy: GuestPolicy, outlook: Outlook | None, sending: Sending, span: Span
) -> Foreseen:
    """Without an outlook: its move is under way already."""
    if outlook is not None:
        told = changed(told, rung=outlook.rung, downtime_s=round(outlook.downtime_s, 2))
    if outlook is not None and outlook.rung is Rung.CALLED_OFF:
        told = changed(told, why=(outlook.why,), todo=tuple(would_converge(told.name, outlook, policy)))
    return changed(
        told,
        send_mib=round(sending.mib),
        begins_s=round(span.begins_s, 1),
        ends_s=round(span.ends_s, 1),
    )


def _fixes(flight: Preflight) -> Iterator[str]:
    yield from (check.fix for check in flight.checks if check.refuses and check.fix)


def _loose(host: HostName, facts: GuestFacts, wish: Wish) -> Foreseen:
    if wish.leave_unprotected:
        why = "it is not protected: it stays, as asked"
        return Foreseen(guest=facts.id, name=facts.name, host=host, fate="left", why=(why,))
    return Foreseen(
        guest=facts.id,
        name=facts.name,
        host=host,
        fate="blocked",
        why=("it is not protected, so nobody moves it",),
        todo=(f"dr guest protect {facts.name}", f"stop or move {facts.name} by hand", "--leave-unprotected"),
    )


def _helps(trial: Draft, host: HostName, guest: GuestRecord, flight: Preflight) -> Iterator[str]:
    """What would let it leave; each may be one of several that are needed. Stopping it always does."""
    if guest.phase is not GuestPhase.RUNNING:
        yield from (check.fix for check in flight.checks if check.name is CheckName.STATE and check.fix)
        return
    yield from _fixes(flight)
    if not moves.fits_live(trial, guest):
        others = (each for each in trial.hosts() if each.name != host)
        yield from [text for other in others if (text := _would_take(other))][:HOSTS_MAX]
    if not preflight.cold(trial, guest).refusals:
        yield f"dr guest relocate {guest.name}"
    yield f"dr guest stop {guest.name}"


def _would_take(host: HostRecord) -> str:
    """What would let that host take live guests; "" where something else stands against it."""
    return preflight.back_into_play(host) or ("" if host.facts.live_migration else preflight.live_fix(host))
