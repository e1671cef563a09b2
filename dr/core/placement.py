"""Where a guest could run: one pure function over the fleet, with every host's reasons when somebody asks for them.

Strict rules, room and what a host must have decide where a guest may run. Among those hosts the ones that its host
rules like best win, then those that preferred guest rules ask for, then the host that stays emptiest in its
scarcest resource. Here: one guest, or some that must share a host. Not here: many at once (`plan`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property

import numpy as np

from dr.core import disks
from dr.core.fleet import (
    COUNT,
    CPU,
    MEMORY,
    Against,
    Fleet,
    Floats,
    Mask,
    Resource,
    Row,
    fleet_of,
    unfit,
    unmet,
)
from dr.core.state import Draft
from dr.core.whereabouts import sole_holder
from dr.model.base import GuestId, HostName
from dr.model.policy import GuestRule, HostRule
from dr.model.preflight import CheckName
from dr.model.records import Desired, GuestPhase, GuestRecord, HostRecord

__all__ = [
    "Case",
    "Placement",
    "against",
    "better_host",
    "choose",
    "score",
    "unfit",
    "unmet",
    "waiting_mates",
    "why_not",
]

NAMED_MAX = 6  # hosts that a sentence names; the others are counted
SOON = 1.25  # who would be there so much later than at the earliest goes there as gladly: rates are estimates


class Case:
    """Guests that go to one host together: what is true of them on every host, whatever else is placed meanwhile."""

    def __init__(
        self,
        fleet: Fleet,
        guests: tuple[GuestRecord, ...],
        in_place: HostName = "",
        *,
        with_disks: bool = False,
    ) -> None:
        """`in_place`: where they crashed and are restarted; a host that takes no more guests keeps those it has.

        `with_disks`: those that only their host has would be sent there with them, or before them.
        """
        self.guests = guests
        self.in_place = in_place
        self.with_disks = with_disks
        ids = {guest.id for guest in guests}
        members = fleet.members
        self.host_rules: list[HostRule] = []
        self.apart: dict[str, GuestRule] = {}
        self.wishes: list[tuple[int, GuestRule]] = []
        self.mates: dict[GuestId, str] = {}  # who else must share that host, and by which rule
        mask: Mask = fleet.able & fleet.welcome
        if (at := fleet.index.get(in_place)) is not None and not self._unwelcome(fleet.rows[at]):
            mask[at] = fleet.able[at]
        for guest in guests:
            mask = mask & fleet.can_run(guest.needs)
            for name in guest.avoid:
                mask[[fleet.index[name]] if name in fleet.index else []] = False
            if not members.about(guest.id):
                continue
            self.host_rules += members.host_rules(guest.id)
            self.apart |= {rule.name: rule for rule in members.guest_rules(guest.id, "apart", strict=True)}
            self.wishes += ((-1, rule) for rule in members.guest_rules(guest.id, "apart", strict=False))
            self.wishes += ((1, rule) for rule in members.guest_rules(guest.id, "together", strict=False))
            self.mates |= {key: rule for key, rule in members.group(guest.id).items() if key not in ids}
        if any(guest.needs.local for guest in guests):
            mask = mask & [not self._against_disks(fleet, row) for row in fleet.rows]
        # Who must share their host wants to run there too, now or later: what is forbidden to one is to all.
        for mate in self.mates:
            self.host_rules += (rule for rule in members.host_rules(mate) if rule.strict)
        # Rules that keep apart who must be together: nothing fits both.
        self.torn = [rule.name for rule in self.apart.values() if len(members.of(rule) & ids) > 1]
        self.liking: Floats | None = None
        for rule in self.host_rules:
            if rule.strict:
                mask = mask & fleet.allowed(rule)
            given = fleet.of_hosts(rule)
            self.liking = given if self.liking is None else self.liking + given
        self.may: Mask = mask & (not self.torn)  # where they could run, but for room and other guests
        self.taken = self._taken(fleet)

    def _against_disks(self, fleet: Fleet, row: Row) -> list[str]:
        """What stands against that host of disks that only the guests' own host has."""
        if self.with_disks:
            bases = (why for guest in self.guests for why in disks.why_no_bases(fleet.draft, guest, row.host))
            return [*bases, *disks.why_no_room(fleet.draft, self.guests, row.host)]
        why = (disks.why_not_cold(guest, row.host.name) for guest in self.guests)
        return [reason for reason in why if reason]

    def _unwelcome(self, row: Row) -> tuple[str, ...]:
        """Why a person's wish keeps them away. A drained host is to be left: it keeps nothing."""
        in_place = row.host.name == self.in_place and row.host.drain is None
        return () if in_place else row.wishes

    def _taken(self, fleet: Fleet) -> dict[Resource, Floats | float]:
        taken: dict[Resource, Floats | float] = {CPU: 0.0, COUNT: float(len(self.guests)), MEMORY: 0.0}
        for guest in self.guests:
            needs = guest.needs
            taken[CPU] += needs.vcpus
            if needs.page_kib is None:
                taken[MEMORY] += needs.memory_mib
            elif needs.page_kib:
                taken[needs.page_kib] = taken.get(needs.page_kib, 0.0) + needs.memory_mib
            else:
                for size in {int(size) for size in fleet.pages_default} - {0}:
                    mine = np.where(fleet.pages_default == size, float(needs.memory_mib), 0.0)
                    taken[size] = taken.get(size, 0.0) + mine
        return {resource: amount for resource, amount in taken.items() if resource in fleet.used}

    # ---- now, with what is placed by now

    def has_room(self, fleet: Fleet) -> Mask:
        mask: Mask = np.ones(len(fleet), dtype=np.bool_)
        for resource, amount in self.taken.items():
            mask &= (fleet.used[resource] + amount <= fleet.capacity[resource]) | (np.equal(amount, 0.0))
        return mask

    def suits(self, fleet: Fleet) -> Mask:
        """Where strict guest rules allow them."""
        mask: Mask = np.ones(len(fleet), dtype=np.bool_)
        for rule in self.apart.values():
            mask &= fleet.count(rule) == 0
        at = self.bound(fleet)
        if at:
            mask &= np.arange(len(fleet)) == (at.pop() if len(at) == 1 else -1)
        return mask

    def bound(self, fleet: Fleet) -> set[int]:
        """Where those are with whom they must share a host: none, one, or more than can be."""
        return set().union(*(fleet.anchors(mate) for mate in self.mates)) if self.mates else set()

    def eligible(self, fleet: Fleet) -> Mask:
        mask = self.may & self.has_room(fleet)
        return mask & self.suits(fleet) if self.apart or self.mates else mask

    def fits_at(self, fleet: Fleet, at: int) -> bool:
        """As `eligible`, of one host."""
        if not self.may[at]:
            return False
        for resource, amounts in self.taken.items():
            amount = amounts if isinstance(amounts, float) else amounts[at]
            if amount and fleet.used[resource][at] + amount > fleet.capacity[resource][at]:
                return False
        if any(fleet.count(rule)[at] for rule in self.apart.values()):
            return False
        return not self.mates or self.bound(fleet) <= {at}

    def load(self, fleet: Fleet) -> Floats:
        """How full each host would be with them in its scarcest resource; 1 is full."""
        load: Floats = np.zeros(len(fleet))
        for resource, amount in self.taken.items():
            full = (fleet.used[resource] + amount) / np.maximum(fleet.capacity[resource], 1e-9)
            load = np.maximum(load, full)
        return load

    def wished(self, fleet: Fleet) -> Floats | None:
        """What preferred guest rules say of each host: more is better."""
        if not self.wishes:
            return None
        return np.asarray(sum(sign * fleet.count(rule) for sign, rule in self.wishes))

    def best(self, fleet: Fleet, mask: Mask, soon: Floats | None = None) -> int:
        """The host among these that wins; the first by name of equals. -1 when there is none.

        `soon`: when they would be on each, if that matters: more than rules do, and less than a little.
        """
        hosts = np.flatnonzero(mask)
        for liked in (self.liking, self.wished(fleet)):
            if liked is not None and len(hosts) > 1:
                hosts = hosts[liked[hosts] == liked[hosts].max()]
        if soon is not None and len(hosts) > 1:
            hosts = hosts[soon[hosts] <= SOON * soon[hosts].min()]
        if not len(hosts):
            return -1
        return int(hosts[0] if len(hosts) == 1 else hosts[np.argmin(self.load(fleet)[hosts])])

    # ---- why not

    def why_not(self, fleet: Fleet, at: int) -> list[str]:
        """Every reason against that host; empty = eligible."""
        return [each.text for each in self.against(fleet, at)]

    def against(self, fleet: Fleet, at: int) -> list[Against]:
        """As `why_not`, with the check that each belongs to."""
        row = fleet.rows[at]
        name = row.host.name
        texts = [*row.blockers, *self._unwelcome(row)]
        if row.host.protected_version != fleet.version:
            texts.append("has not yet acknowledged the protected list")
        texts += ["is lost"] * (at in fleet.lost)
        texts += ["starting it there just failed"] * any(name in guest.avoid for guest in self.guests)
        why = [Against(CheckName.DESTINATION, text) for text in texts]
        for guest in self.guests:
            why += (each for each in unmet(guest.needs, row.host.facts) if each not in why)
        why += (Against(CheckName.DISKS, text) for text in self._against_disks(fleet, row))
        why += (Against(CheckName.RULES, text) for text in self._against_rules(fleet, at))
        return why + self._no_room(fleet, at)

    def _against_rules(self, fleet: Fleet, at: int) -> list[str]:
        name = fleet.names[at]
        why = [
            f"is not among the hosts of rule {rule.name}"
            for rule in {rule.name: rule for rule in self.host_rules}.values()
            if rule.strict and name not in rule.hosts
        ]
        for rule in self.apart.values():
            there = [
                fleet.name(other) for other in sorted(fleet.members.of(rule)) if at in fleet.places(other)
            ]
            if there:
                why.append(f"rule {rule.name} keeps it away from {_some(there)}, which may run there")
        why += [f"rule {rule} keeps apart guests that must share a host" for rule in self.torn]
        for mate, rule_name in sorted(self.mates.items()):
            anchors = fleet.anchors(mate)
            if anchors - {at}:
                where = " and ".join(fleet.names[each] for each in sorted(anchors))
                why.append(f"rule {rule_name} wants it beside {fleet.name(mate)}, which may run on {where}")
        return why

    def _no_room(self, fleet: Fleet, at: int) -> list[Against]:
        why: list[Against] = []
        row = fleet.rows[at]
        for resource, amounts in self.taken.items():
            amount = float(amounts if isinstance(amounts, float) else amounts[at])
            capacity, used = fleet.capacity[resource][at], fleet.used[resource][at]
            if not amount or used + amount <= capacity:
                continue
            free, need = max(int(capacity - used), 0), f"{self._they()} {amount:.0f}"
            if resource == MEMORY:
                text = f"has {free} MiB free above the reserve of {row.reserve_mib}, {need}"
            elif resource == CPU:
                text = f"has {free} of {capacity:.0f} virtual CPUs free, {need}"
            elif resource == COUNT:
                text = f"takes {capacity:.0f} guests at most and has {used:.0f}"
            elif resource in row.rooms:
                text = f"has {free} MiB free in huge pages of {resource} KiB, {need}"
            else:
                continue
            pages = resource not in (MEMORY, CPU, COUNT)
            why.append(Against(CheckName.HUGE_PAGES if pages else CheckName.ROOM, text))
        return why

    def _they(self) -> str:
        names = [guest.name for guest in self.guests]
        return f"{_some(names)} need" if len(names) > 1 else "it needs"


def _some(names: list[str]) -> str:
    if len(names) > 3:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join(names)


class Placement:
    """The outcome: a host, or "" and for every host why not. Reasons are found when they are asked for."""

    def __init__(self, host: HostName, case: Case, fleet: Fleet, excluded: frozenset[HostName]) -> None:
        self.host = host
        self._case = case
        self._fleet = fleet
        self._excluded = excluded

    @cached_property
    def _asked(self) -> list[tuple[int, HostName]]:
        return [(at, name) for at, name in enumerate(self._fleet.names) if name not in self._excluded]

    @cached_property
    def reasons(self) -> dict[HostName, tuple[str, ...]]:
        """For each host that is not eligible, all that stands against it."""
        found = ((name, tuple(self._case.why_not(self._fleet, at))) for at, name in self._asked)
        return {name: why for name, why in found if why}

    @cached_property
    def scores(self) -> dict[HostName, float]:
        """For each eligible host, how full it would be; lower is better among hosts that rules like equally."""
        mask, load = self._case.eligible(self._fleet), self._case.load(self._fleet)
        return {name: float(load[at]) for at, name in self._asked if mask[at]}

    def sentence(self) -> str:
        """Why nothing fits, in one sentence: the hosts that came nearest first."""
        if not self._asked:
            return "there is no other host"
        eligible = self._case.eligible(self._fleet)
        against = [(at, name) for at, name in self._asked if not eligible[at]]
        text = "; ".join(f"{host}: {', '.join(why)}" for host, why in self._nearest(against))
        return text + (f"; and {len(against) - NAMED_MAX} more hosts" if len(against) > NAMED_MAX else "")

    def _nearest(self, against: list[tuple[int, HostName]]) -> list[tuple[HostName, list[str]]]:
        """Those with fewest reasons, in order of their names. None has less than one: the first that do are enough."""
        found: list[tuple[HostName, list[str]]] = []
        ones = 0
        for at, name in against:
            why = self._case.why_not(self._fleet, at)
            found.append((name, why))
            ones += len(why) == 1
            if ones == NAMED_MAX:
                break
        return sorted(found, key=lambda item: (len(item[1]), item[0]))[:NAMED_MAX]


def waiting_mates(draft: Draft, guest: GuestRecord) -> tuple[GuestRecord, ...]:
    """Guests that must share its host, wait for one too, and may run nowhere: they are placed together."""
    if guest.may_run_on or not draft.members.about(guest.id):
        return ()
    mates = (draft.guest(mate) for mate in sorted(draft.members.group(guest.id)))
    return tuple(
        mate
        for mate in mates
        if mate is not None
        and mate.phase is GuestPhase.RECOVERING
        and mate.desired is Desired.RUNNING
        and not mate.may_run_on
    )


def _case(
    draft: Draft,
    guest: GuestRecord,
    along: tuple[GuestRecord, ...] = (),
    in_place: HostName = "",
    *,
    with_disks: bool = False,
) -> tuple[Fleet, Case]:
    fleet = fleet_of(draft)
    guests = (guest, *along, *waiting_mates(draft, guest))
    if any(each.may_run_on for each in guests):
        # Who is asked about does not stand in its own way.
        fleet = fleet.copy()
        for each in guests:
            fleet.lift(each)
    return fleet, Case(fleet, guests, in_place, with_disks=with_disks)


def why_not(
    draft: Draft,
    guest: GuestRecord,
    host: HostRecord,
    *,
    in_place: bool = False,
    along: tuple[GuestRecord, ...] = (),
    with_disks: bool = False,
) -> list[str]:
    """Every reason against that host; empty = eligible.

    `in_place`: it crashed there, and is restarted. `along`: guests that move there with it. `with_disks`: its own are
    sent there.
    """
    fleet, case = _case(draft, guest, along, host.name if in_place else "", with_disks=with_disks)
    return case.why_not(fleet, fleet.index[host.name])


def against(
    draft: Draft,
    guest: GuestRecord,
    host: HostRecord,
    *,
    along: tuple[GuestRecord, ...] = (),
    with_disks: bool = False,
) -> list[Against]:
    """As `why_not` of a host that is not its own, with the check that each reason belongs to."""
    fleet, case = _case(draft, guest, along, with_disks=with_disks)
    return case.against(fleet, fleet.index[host.name])


def score(draft: Draft, guest: GuestRecord, host: HostRecord) -> float:
    """How full the host would be with this guest in its scarcest resource; 1 is full, lower is better."""
    fleet, case = _case(draft, guest)
    return float(case.load(fleet)[fleet.index[host.name]])


def choose(
    draft: Draft,
    guest: GuestRecord,
    *,
    prefer: HostName = "",
    without: Iterable[HostName] = (),
    wary: Collection[HostName] = (),
    along: tuple[GuestRecord, ...] = (),
    soon: Floats | None = None,
    with_disks: bool = False,
) -> Placement:
    """The eligible host that wins; `prefer` wins if it is eligible (restart in place), `wary` only if no other is.

    `along`: guests that move there with it, as strict rules may demand. Guests that wait and must share its host
    count too: a host must have room for all of them. `soon`: seconds until they would be on each host, as in `Fleet`.
    `with_disks`: their own are sent.
    """
    fleet, case = _case(draft, guest, along, prefer, with_disks=with_disks)
    excluded = frozenset(without)
    mask = case.eligible(fleet)
    mask[[fleet.index[name] for name in excluded if name in fleet.index]] = False
    if prefer in fleet.index and mask[fleet.index[prefer]]:
        best = fleet.index[prefer]
    else:
        bold = mask.copy()
        bold[[fleet.index[name] for name in wary if name in fleet.index]] = False
        best = case.best(fleet, bold if bold.any() else mask, soon)
    return Placement(fleet.names[best] if best >= 0 else "", case, fleet, excluded)


def refuge(draft: Draft, guest: GuestRecord, lost: HostName) -> HostName:
    """Where it could start if that host were dead, with those who die with it and must share its host; "" = nowhere."""
    fleet = fleet_of(draft).copy()
    fleet.lose(fleet.index[lost])
    mates = (draft.guest(mate) for mate in sorted(fleet.members.group(guest.id)))
    guests = (guest, *(mate for mate in mates if mate is not None and _only_there(mate, lost)))
    for each in guests:
        fleet.lift(each)
    case = Case(fleet, guests)
    best = case.best(fleet, case.eligible(fleet))
    return fleet.names[best] if best >= 0 else ""


def _only_there(guest: GuestRecord, name: HostName) -> bool:
    return {place.host for place in guest.may_run_on} == {name}


def better_host(draft: Draft, guest: GuestRecord, along: tuple[GuestRecord, ...] = ()) -> HostName:
    """An eligible host that its host rules like strictly better than where it runs; "" = none.

    A host that a strict rule forbids is liked less than any other. `along`: guests that move there with it.
    """
    rules = list(draft.members.host_rules(guest.id))
    holder = sole_holder(draft, guest)
    if not rules or not holder:
        return ""
    forbidden = any(rule.strict and holder not in rule.hosts for rule in rules)
    fleet, case = _case(draft, guest, along, with_disks=True)
    assert case.liking is not None
    mask = case.may.copy()
    mask[fleet.index[holder]] = False
    if not forbidden:
        mask &= case.liking > case.liking[fleet.index[holder]]
    if not mask.any():
        return ""
    best = case.best(fleet, mask & case.eligible(fleet))
    return fleet.names[best] if best >= 0 else ""
