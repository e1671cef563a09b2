"""Drains rehearsed: moves begun by the same rules, in the same order and within the same bounds, in imagined time.

On a draft that nobody takes over, whose guests are on their way for good: what ends is only imagined to end, by what
it sends and how fast links are (`schedule`). Each sees the places that those before it took. Here: who goes where and
when, or what keeps it. Not here: what is told of that (`forecast`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dr.core import departures, leaving, links, moves, schedule, upkeep
from dr.core.departures import Leaver
from dr.core.ladder import Outlook
from dr.core.preflight import Preflight
from dr.core.schedule import Link, Sending
from dr.core.state import Draft
from dr.core.wishes import with_wishes
from dr.model.base import GuestId, HostName
from dr.model.operations import Planned
from dr.model.records import GuestPhase, GuestRecord, HostPhase, Move, Wish

# Of each move beside the sending, about as it is in the lab: the tickets, QEMU's start at the destination, the
# switch-over and the proofs.
EXTRA_S = 1.0


class Rehearsal:
    """What came of it, of these hosts. Others that are being emptied are rehearsed with them, as they share links."""

    def __init__(
        self, draft: Draft, drains: Mapping[HostName, Wish], approved: Mapping[GuestId, Planned] | None = None
    ) -> None:
        """`approved`: where those go if that is possible; without it, as the plan says that these drains follow."""
        self.drains = dict(drains)
        self.others = tuple(sorted(set(_emptied_anyway(draft, drains))))
        self.trial = Draft(draft.state, draft.now)
        for name, wish in drains.items():
            host = draft.require_host(name)
            self.trial.put_host(with_wishes(host, cordon=host.cordon, drain=wish))
        wishes = self.drains | {name: draft.require_host(name).drain for name in self.others}
        self._planned = dict(approved or {})
        for operation in draft.open_operations():
            if operation.kind == "drain" and (approved is None or operation.subject not in drains):
                self._planned |= operation.planned
        leavers = [
            Leaver(guest, wish, self._planned.get(guest.id))
            for name, wish in wishes.items()
            for guest in upkeep.guests_on(draft, draft.require_host(name))
        ]
        queue = departures.in_turn(draft, {each.guest.id: each for each in leavers}.values())
        self.at = {key: name for name in drains for key in draft.guests_at(name)}
        self.here = [each.guest for each in queue if each.guest.id in self.at]
        self.flights: dict[GuestId, Preflight] = {}  # those of guests that were not under way before
        self.why: dict[GuestId, list[str]] = {}  # of those that do not go
        self.instead: dict[GuestId, tuple[str, ...]] = {}  # why not where they were to go
        self.outlooks: dict[GuestId, Outlook] = {}  # of those that begin
        # Moves share the links whoever wanted them; those that come to hosts of which all is to leave are called off.
        under_way = [each for each in links.sendings(draft) if each.to not in drains]
        self.sendings = {each.key: each for each in under_way if each.source in drains}
        self._waiting = [each.guest.id for each in queue if each.guest.phase is not GuestPhase.MIGRATING]
        self._alone: dict[GuestId, bool] = {}
        self._held: dict[GuestId, set[Link]] = {}  # what kept those that wait when they were last tried
        rates = links.rates(draft)
        self.spans = schedule.spans(under_way, self._begin, lambda name: rates.of(name).mib_s, EXTRA_S)

    def _begin(self, now_s: float, busy: Sequence[Sending]) -> list[Sending]:
        """Who begins now. What only waits for others does not wait for ever, whatever the bounds."""
        under_way, begun = list(busy), list[Sending]()
        taken = self._taken(under_way)
        for guest_id in list(self._waiting):
            guest = self.trial.guest(guest_id)
            if guest is None or not self._may_try(guest, taken):
                continue
            if more := self._try(guest_id, under_way):
                under_way += more
                begun += more
                taken = self._taken(under_way)
            elif guest_id in self._waiting:
                self._held[guest_id] = taken[self._picky(guest)]
        while self._waiting and not under_way:
            begun = under_way = self._try(self._waiting[0], [], bounded=False)
        return begun

    def _may_try(self, guest: GuestRecord, taken: tuple[set[Link], set[Link]]) -> bool:
        """Whether anything that kept it has ended since; else trying it again and again would take seconds."""
        mine, held = taken[self._picky(guest)], self._held.get(guest.id)
        return ("out", guest.holder) not in mine and (held is None or not held <= mine)

    def _picky(self, guest: GuestRecord) -> bool:
        """Whether it shares its links with nobody."""
        if guest.id not in self._alone:
            alone = guest.phase is GuestPhase.RUNNING and not moves.company(self.trial, guest)[1]
            self._alone[guest.id] = alone and links.needs_links_alone(self.trial, guest)
        return self._alone[guest.id]

    def _taken(self, under_way: list[Sending]) -> tuple[set[Link], set[Link]]:
        """Links over which nothing more may go now; and those that are not free for somebody alone."""
        now, limits = links.traffic_of(under_way), self.trial.config.limits
        full: set[Link] = {("out", name) for name, n in now.leaving.items() if n >= limits.moves_out_per_host}
        full |= {("in", name) for name, n in now.coming.items() if n >= limits.moves_in_per_host}
        used: set[Link] = {link for each in under_way for link in each.links}
        return full | now.alone, used

    def _try(self, guest_id: GuestId, under_way: list[Sending], *, bounded: bool = True) -> list[Sending]:
        guest = self.trial.guest(guest_id)
        if guest_id not in self._waiting:
            return []  # it went along with another
        assert guest is not None
        planned = self._planned.get(guest_id)
        to, flights, instead = moves.way(self.trial, guest, planned.to if planned is not None else "")
        if instead:
            self.instead[guest_id] = instead
        for one, flight in flights.items():
            self.flights.setdefault(one, flight)
        self.flights[guest_id] = flights[guest_id]
        why = moves.objections_in(self.trial, guest, flights)
        blocked = bool(why) or not bounded
        if not why:
            links.imagine(self.trial, under_way)
            why = moves.begin_together(self.trial, guest, to, bounded=bounded, flights=flights)
        if why and blocked:
            self.why[guest_id] = why
            self._waiting.remove(guest_id)
        return [] if why else self._gone(guest.holder, list(flights), under_way)

    def _sent(self, guest: GuestRecord, move: Move, leaving: int, coming: int) -> Sending:
        """What it sends at the rate that so many share with it: the slower, the more is sent again."""
        alone = links.needs_links_alone(self.trial, guest)
        rates, (out, into) = links.rates(self.trial), (1, 1) if alone else (leaving, coming)
        rate_mib_s = min(rates.of(move.source).mib_s / out, rates.of(move.destination).mib_s / into)
        self.outlooks[guest.id] = outlook = links.outlook(self.trial, guest, rate_mib_s)
        return links.sending(guest, move.source, move.destination, outlook.sent_mib, alone=alone)

    def _gone(self, source: HostName, ids: list[GuestId], under_way: Sequence[Sending]) -> list[Sending]:
        """Those that began together, beside others; who waits there will join them, as many as may."""
        beside = sum(each.source == source for each in under_way)
        waiting = [guest for key in self._waiting if (guest := self.trial.guest(key)) is not None]
        joining = beside + sum(guest.holder == source for guest in waiting)
        leaving = max(beside + len(ids), min(self.trial.config.limits.moves_out_per_host, joining))
        gone = list[Sending]()
        for guest_id in ids:
            guest = self.trial.guest(guest_id)
            if guest is not None and guest.phase is GuestPhase.MIGRATING and guest.move is not None:
                coming = 1 + sum(each.to == guest.move.destination for each in (*under_way, *gone))
                gone.append(self._sent(guest, guest.move, leaving, coming))
                self._waiting = [each for each in self._waiting if each != guest_id]
        self.sendings |= {each.key: each for each in gone if each.source in self.drains}
        return gone


def _emptied_anyway(draft: Draft, drains: Mapping[HostName, Wish]) -> Iterator[HostName]:
    """Other hosts whose guests are on their way out, or wait for that."""
    for operation in draft.open_operations():
        host = draft.host(operation.subject)
        if host is None or host.name in drains or host.phase not in (HostPhase.ONLINE, HostPhase.DRAINING):
            continue
        drained = operation.kind == "drain" and host.drain is not None
        if drained or (operation.kind == "leave" and leaving.moves_away(draft, host)):
            yield host.name
