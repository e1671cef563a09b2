"""Places for many guests at once: greedy, then a bounded repair of what did not fit, then a bounded levelling of load.

One pure function over a copy of the fleet. Guests that must share a host and wait together are one unit. Higher
priority goes first; among equals who has fewest hosts, then who is largest, since small ones still fit afterwards.
What did not fit tries to push one or two units of this plan to other hosts; no guest that runs is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np

from dr.core.fleet import Fleet, Floats
from dr.core.placement import Case, Placement
from dr.model.base import GuestId, HostName
from dr.model.records import GuestRecord

TRIES_MAX = 400  # of repair in one plan; each costs about 0.1 ms
DEPTH_MAX = 2  # who is pushed away may push on as often
LEVELLED_MAX = 64  # units; more spread by themselves
SWAPS_MAX = 300
PAIRS_HOSTS_MAX = 12


class Unit:
    """Guests that go to one host, and the host that is planned for them."""

    def __init__(self, fleet: Fleet, guests: tuple[GuestRecord, ...], prefer: HostName) -> None:
        self.guests = guests
        self.case = Case(fleet, guests, prefer)
        self.prefer = fleet.index.get(prefer, -1)
        self.at = -1
        hosts = int(self.case.may.sum())
        size = sum(
            float(np.max(amount)) / _typical(fleet.capacity[each]) for each, amount in self.case.taken.items()
        )
        self.order = (
            -max(guest.policy.priority for guest in guests),
            hosts,
            -size,
            guests[0].since,
            guests[0].name,
        )


def _typical(capacity: Floats) -> float:
    finite = capacity[np.isfinite(capacity) & (capacity > 0)]
    return float(finite.mean()) if len(finite) else np.inf


class Plan:
    """Where each guest goes; `nowhere`: for those that fit nowhere, what to say about it."""

    def __init__(
        self,
        fleet: Fleet,
        guests: Iterable[GuestRecord],
        prefer: Mapping[GuestId, HostName],
        *,
        level: bool = True,
    ) -> None:
        self.fleet = fleet.copy()
        self.units = sorted(
            (
                Unit(self.fleet, unit, prefer.get(unit[0].id, "") if len(unit) == 1 else "")
                for unit in _units(self.fleet, guests)
            ),
            key=lambda unit: unit.order,
        )
        self._there: dict[int, list[Unit]] = {}
        self._tries = TRIES_MAX
        self.nowhere: dict[GuestId, Placement] = {}
        for unit in self.units:
            if not self._settle(unit) and not self._push(unit, DEPTH_MAX):
                placement = Placement("", unit.case, self.fleet, frozenset())
                self.nowhere |= {guest.id: placement for guest in unit.guests}
        if level and len(self.units) <= LEVELLED_MAX:
            self._level()

    @property
    def hosts(self) -> dict[GuestId, HostName]:
        names = self.fleet.names
        return {guest.id: names[unit.at] for unit in self.units if unit.at >= 0 for guest in unit.guests}

    # ---- one unit

    def _put(self, unit: Unit, at: int) -> None:
        for guest in unit.guests:
            self.fleet.place(guest, at)
        unit.at = at
        self._there.setdefault(at, []).append(unit)

    def _take(self, unit: Unit) -> int:
        """Take it away again; returns where it was."""
        at = unit.at
        for guest in unit.guests:
            self.fleet.place(guest, at, -1)
        self._there[at].remove(unit)
        unit.at = -1
        return at

    def _settle(self, unit: Unit, but: int = -1) -> bool:
        """Put it where it fits best as things are."""
        mask = unit.case.eligible(self.fleet)
        if but >= 0:
            mask[but] = False
        at = unit.prefer if unit.prefer >= 0 and mask[unit.prefer] else unit.case.best(self.fleet, mask)
        if at >= 0:
            self._put(unit, at)
        return at >= 0

    # ---- repair

    def _push(self, unit: Unit, depth: int) -> bool:
        """Make room for it by moving one or two others of this plan to other hosts."""
        for at in np.flatnonzero(unit.case.may):
            there = list(self._there.get(int(at), ()))
            for count in (1, 2):
                for others in combinations(there, count):
                    if self._tries <= 0:
                        return False
                    self._tries -= 1
                    if self._push_out(unit, int(at), others, depth):
                        return True
        return False

    def _push_out(self, unit: Unit, at: int, others: tuple[Unit, ...], depth: int) -> bool:
        for other in others:
            self._take(other)
        if unit.case.fits_at(self.fleet, at):
            before = {each: each.at for each in self.units}
            self._put(unit, at)
            if all(
                self._settle(other, but=at) or (depth > 0 and self._push(other, depth - 1))
                for other in others
            ):
                return True
            self._back_to(before)
        for other in others:
            self._put(other, at)
        return False

    def _back_to(self, before: dict[Unit, int]) -> None:
        """Undo: what was moved meanwhile goes back."""
        moved = [unit for unit, at in before.items() if unit.at != at]
        for unit in moved:
            if unit.at >= 0:
                self._take(unit)
        for unit in moved:
            if before[unit] >= 0:
                self._put(unit, before[unit])

    # ---- levelling

    def _level(self) -> None:
        """Move or swap units away from the fullest hosts, as long as that lowers the higher of two loads."""
        done: set[int] = set()
        swaps = SWAPS_MAX
        for _ in range(4 * len(self.units)):
            load = self.fleet.load()
            hosts = [at for at, units in self._there.items() if units and at not in done]
            if not hosts:
                return
            hot = max(hosts, key=lambda at: (load[at], -at))
            if self._cool(hot, load):
                continue
            done_here, swaps = self._swap(hot, load, swaps)
            if not done_here:
                done.add(hot)

    def _cool(self, hot: int, load: Floats) -> bool:
        """Move the unit away for which that helps most."""
        best: tuple[float, int, Unit] | None = None
        for unit in [each for each in self._there[hot] if each.at != each.prefer]:
            self._take(unit)
            mask = unit.case.eligible(self.fleet) & self._as_good(unit, hot)
            mask[hot] = False
            if mask.any():
                there = unit.case.load(self.fleet)
                to = int(np.argmin(np.where(mask, there, np.inf)))
                if best is None or there[to] < best[0]:
                    best = (float(there[to]), to, unit)
            self._put(unit, hot)
        if best is None or best[0] >= load[hot] - 1e-9:
            return False
        self._take(best[2])
        self._put(best[2], best[1])
        return True

    def _as_good(self, unit: Unit, at: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Hosts that rules like no less than that one."""
        mask = np.ones(len(self.fleet), dtype=np.bool_)
        for liked in (unit.case.liking, unit.case.wished(self.fleet)):
            if liked is not None:
                mask &= liked >= liked[at]
        return mask

    def _likes(self, unit: Unit, to: int, back: int) -> bool:
        """As `_as_good`, of one host."""
        likings = (unit.case.liking, unit.case.wished(self.fleet))
        return all(bool(liked[to] >= liked[back]) for liked in likings if liked is not None)

    def _swap(self, hot: int, load: Floats, tries: int) -> tuple[bool, int]:
        """Exchange units with a host that is less full: one for one, and on small sites two for one or two."""
        most = 2 if len(self.fleet) <= PAIRS_HOSTS_MAX else 1
        here = self._some(hot, most)
        for cold in sorted((at for at, there in self._there.items() if there), key=lambda at: (load[at], at)):
            if cold == hot or load[cold] >= load[hot]:
                continue
            for ours in here:
                for theirs in self._some(cold, most):
                    if tries <= 0:
                        return False, 0
                    tries -= 1
                    if self._exchange(ours, hot, theirs, cold, float(load[hot])):
                        return True, tries
        return False, tries

    def _some(self, at: int, most: int) -> list[tuple[Unit, ...]]:
        movable = [unit for unit in self._there[at] if unit.at != unit.prefer]
        return [some for count in range(1, most + 1) for some in combinations(movable, count)]

    def _exchange(
        self, ours: tuple[Unit, ...], hot: int, theirs: tuple[Unit, ...], cold: int, limit: float
    ) -> bool:
        """True if that lowers the load of the fuller of both; else nothing has changed."""
        moves = [*((unit, cold, hot) for unit in ours), *((unit, hot, cold) for unit in theirs)]
        for unit, _, _ in moves:
            self._take(unit)
        for unit, to, back in moves:
            if not (unit.case.fits_at(self.fleet, to) and self._likes(unit, to, back)):
                break
            self._put(unit, to)
        else:
            if max(self.fleet.load_at(hot), self.fleet.load_at(cold)) < limit - 1e-9:
                return True
        for unit, _, _ in moves:
            if unit.at >= 0:
                self._take(unit)
        for unit, _, back in moves:
            self._put(unit, back)
        return False


def _units(fleet: Fleet, guests: Iterable[GuestRecord]) -> list[tuple[GuestRecord, ...]]:
    """Guests that must share a host as one."""
    waiting = {guest.id: guest for guest in guests}
    units = []
    seen: set[GuestId] = set()
    for guest in waiting.values():
        if guest.id in seen:
            continue
        mates = fleet.members.group(guest.id) if fleet.members.about(guest.id) else {}
        unit = (guest, *(waiting[mate] for mate in sorted(mates) if mate in waiting))
        seen.update(each.id for each in unit)
        units.append(unit)
    return units
