"""A drain rehearsed: its moves begun by the same rules, in the same order and within the same bounds, in imagined time.

On a draft that nobody takes over, whose guests are on their way for good: what ends is only imagined to end, by what
it sends and how fast links are (`schedule`). Each sees the places that those before it took. Here: who goes where and
when, or what keeps it. Not here: what is told of that (`forecast`).
"""

from __future__ import annotations

from collections.abc import Sequence

from dr.core import links, moves, schedule, upkeep
from dr.core.ladder import Outlook
from dr.core.preflight import Preflight
from dr.core.schedule import Sending
from dr.core.state import Draft
from dr.core.wishes import with_wishes
from dr.model.base import GuestId
from dr.model.records import GuestPhase, GuestRecord, HostRecord, Move, Wish

# Of each move beside the sending, about as it is in the lab: the tickets, QEMU's start at the destination, the
# switch-over and the proofs.
EXTRA_S = 1.0


class Rehearsal:
    """What came of it."""

    def __init__(self, draft: Draft, host: HostRecord, wish: Wish) -> None:
        self.host = host
        self.here = upkeep.in_turn(draft, upkeep.guests_on(draft, host), wish)
        self.trial = Draft(draft.state, draft.now)
        self.trial.put_host(with_wishes(host, cordon=host.cordon, drain=wish))
        self.flights: dict[GuestId, Preflight] = {}  # those of guests that were not under way before
        self.why: dict[GuestId, list[str]] = {}  # of those that do not go
        self.outlooks: dict[GuestId, Outlook] = {}  # of those that begin
        # Moves share the links whoever wanted them; those that come here are about to be called off.
        under_way = [each for each in links.sendings(draft) if each.to != host.name]
        self.sendings = {each.key: each for each in under_way if each.source == host.name}
        self._waiting = [each.id for each in self.here if each.phase is not GuestPhase.MIGRATING]
        self._out_max = draft.config.limits.moves_out_per_host
        rates = links.rates(draft)
        self.spans = schedule.spans(under_way, self._begin, lambda name: rates.of(name).mib_s, EXTRA_S)

    def _begin(self, now_s: float, busy: Sequence[Sending]) -> list[Sending]:
        """Who begins now. What only waits for others does not wait for ever, whatever the bounds."""
        under_way, begun = list(busy), list[Sending]()
        for guest_id in list(self._waiting):
            if sum(each.source == self.host.name for each in under_way) >= self._out_max:
                break
            more = self._try(guest_id, under_way)
            under_way += more
            begun += more
        while self._waiting and not under_way:
            begun = under_way = self._try(self._waiting[0], [], bounded=False)
        return begun

    def _try(self, guest_id: GuestId, under_way: list[Sending], *, bounded: bool = True) -> list[Sending]:
        guest = self.trial.guest(guest_id)
        if guest_id not in self._waiting:
            return []  # it went along with another
        assert guest is not None
        flights = moves.preflight_together(self.trial, guest)
        for one, flight in flights.items():
            self.flights.setdefault(one, flight)
        self.flights[guest_id] = flights[guest_id]
        why = moves.objections_in(self.trial, guest, flights)
        blocked = bool(why) or not bounded
        if not why:
            links.imagine(self.trial, under_way)
            why = moves.begin_together(self.trial, guest, bounded=bounded, flights=flights)
        if why and blocked:
            self.why[guest_id] = why
            self._waiting.remove(guest_id)
        beside = sum(each.source == self.host.name for each in under_way)
        return [] if why else self._gone(list(flights), beside)

    def _sent(self, guest: GuestRecord, move: Move, sharing: int) -> Sending:
        """What it sends at the rate that so many leave it, itself counted: the slower, the more is sent again."""
        alone = links.needs_links_alone(self.trial, guest)
        rates = links.rates(self.trial)
        rate_mib_s = min(rates.of(move.source).mib_s, rates.of(move.destination).mib_s)
        outlook = links.outlook(self.trial, guest, rate_mib_s / (1 if alone else sharing))
        self.outlooks[guest.id] = outlook
        return links.sending(guest, move.source, move.destination, outlook.sent_mib, alone=alone)

    def _gone(self, ids: list[GuestId], beside: int) -> list[Sending]:
        """Those that began together, beside so many; who waits will join them, as many as may."""
        sharing = max(beside + len(ids), min(self._out_max, beside + len(self._waiting)))
        gone = []
        for guest_id in ids:
            guest = self.trial.guest(guest_id)
            if guest is not None and guest.phase is GuestPhase.MIGRATING and guest.move is not None:
                gone.append(self._sent(guest, guest.move, sharing))
                self._waiting = [each for each in self._waiting if each != guest_id]
        self.sendings |= {each.key: each for each in gone}
        return gone
