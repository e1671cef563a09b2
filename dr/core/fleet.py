"""All hosts side by side, as arrays: what each has, what is taken, and why it takes no guest at all.

A `Fleet` is a snapshot of one moment of a decision and does not change; `Fleet.copy` gives a working copy for
who plans several placements. Rows are kept between decisions for hosts of which nothing changed, so a snapshot
of 1,000 hosts costs about a millisecond. Here: hosts and room. Not here: which guest fits where (`placement`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dr.core.state import Draft
from dr.core.whereabouts import seen_active
from dr.core.wishes import why_not_placed
from dr.model.base import GuestId, HostName
from dr.model.facts import GuestFacts, HostFacts, Level, Needs
from dr.model.policy import GuestRule, HostPolicy, HostRule
from dr.model.preflight import CheckName
from dr.model.records import Condition, GuestPhase, GuestRecord, HostPhase, HostRecord

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Critical readings with which a host could neither start a guest nor testify afterwards that it did not.
UNFIT = {
    "libvirt": "its libvirt does not answer",
    "state": "its agent can take no ticket",
    "hook": "its permit hook is not in force",
}

MEMORY, CPU, COUNT = "memory", "cpu", "guests"  # resources; huge pages are the others, by their size in KiB
Resource = str | int


class Against(NamedTuple):
    """One reason against a host, and the check that it belongs to."""

    check: CheckName
    text: str


class Room(NamedTuple):
    """One resource of one host. `inf` = without limit, or not known."""

    capacity: float
    used: float


NO_ROOM = Room(0.0, 0.0)


class Row(NamedTuple):
    """One host, before any guest is asked about."""

    host: HostRecord
    blockers: tuple[str, ...]  # why it takes no guest at all
    wishes: tuple[str, ...]  # why it takes no guest from elsewhere
    reserve_mib: int
    rooms: dict[Resource, Room]
    pages_default: int  # size in KiB that a guest gets which names none; 0 = it has no huge pages
    software: int  # hosts with the same number can run the same guests, networks and storage apart
    networks: frozenset[str]
    storage: frozenset[str]


def unfit(draft: Draft, name: HostName) -> list[str]:
    """What its agent says of itself that keeps it from taking any ticket or list."""
    return [
        f"{UNFIT[reading.part]} ({reading.reason})"
        for reading in draft.require_host(name).health
        if reading.part in UNFIT and reading.level is Level.CRITICAL
    ]


def _blockers(draft: Draft, host: HostRecord) -> list[str]:
    why: list[str] = []
    if host.phase is not HostPhase.ONLINE:
        why.append(f"is {host.phase}")
    elif not draft.view(host.name).session:
        why.append("its agent is not connected")
    if host.leaving:
        why.append(f"announced its {host.leaving}")
    if Condition.QUARANTINED in host.conditions:
        why.append("is quarantined (fenced or rebooted too often)")
    why += unfit(draft, host.name)
    if not host.facts.hook.proven:
        why.append(f"its permit hook is not proven ({host.facts.hook.reason})")
    return why


# ---- room


def demand(needs: Needs | GuestFacts, pages_default: int) -> dict[Resource, float]:
    """What a guest takes on a host whose huge pages have that default size. Its memory is counted in one place."""
    taken: dict[Resource, float] = {CPU: needs.vcpus, COUNT: 1.0}
    if needs.page_kib is None:
        taken[MEMORY] = needs.memory_mib
    else:
        taken[needs.page_kib or pages_default] = needs.memory_mib
    return taken


def _rooms(draft: Draft, host: HostRecord, policy: HostPolicy, reserve_mib: int) -> dict[Resource, Room]:
    limits, facts = draft.config.limits, host.facts
    default = _pages_default(facts)
    pools = {pool.size_kib: pool for pool in facts.huge_pages}
    used: dict[Resource, float] = {}
    coming: dict[
        Resource, float
    ] = {}  # of it, by guests that are not seen active, so the host's facts miss them
    seen = set()
    for each in draft.view(host.name).guests.values():
        if each.active:
            seen.add(each.id)
            _add(used, demand(each, default))
    for guest_id in draft.guests_at(host.name):
        guest = draft.guest(guest_id)
        if guest is not None and guest_id not in seen:
            taken = demand(guest.needs, default)
            _add(used, taken)
            _add(coming, taken)
    pools_mib = sum(pool.total * pool.size_kib / 1024 for pool in pools.values())
    ratio = _or(policy.memory_overcommit, limits.memory_overcommit)
    most = _or(policy.guests_max, limits.guests_per_host)
    capacity: dict[Resource, float] = {
        MEMORY: max(facts.memory_mib - pools_mib - reserve_mib, 0.0) * ratio,
        CPU: facts.cpus * _or(policy.cpu_overcommit, limits.cpu_overcommit) or np.inf,
        COUNT: most or np.inf,
    }
    for size, pool in pools.items():
        capacity[size] = pool.total * size / 1024
        # Others than guests may hold pages too: no more is free than the host says, less who is coming.
        held = (pool.total - pool.free) * size / 1024 + coming.get(size, 0.0)
        used[size] = max(used.get(size, 0.0), held)
    return {resource: Room(room, used.get(resource, 0.0)) for resource, room in capacity.items()}


def _pages_default(facts: HostFacts) -> int:
    return next((pool.size_kib for pool in facts.huge_pages if pool.default), 0)


def _software(draft: Draft, facts: HostFacts) -> int:
    """A number for what `_unmet_software` asks."""
    models = tuple((kind, offer.models) for kind, offer in facts.cpu_offers.items())
    key = (facts.arch, facts.domain_types, facts.machines, models, _page_sizes(facts))
    known: dict[object, int] = draft.state.memo.setdefault("software", {})
    return known.setdefault(key, len(known))


def _page_sizes(facts: HostFacts) -> tuple[tuple[int, bool], ...]:
    return tuple((pool.size_kib, pool.default) for pool in facts.huge_pages if pool.total)


def _add(sums: dict[Resource, float], more: dict[Resource, float]) -> None:
    for resource, amount in more.items():
        sums[resource] = sums.get(resource, 0.0) + amount


def _or(own: float | None, common: float) -> float:
    return common if own is None else own


def _row(draft: Draft, host: HostRecord) -> Row:
    policy, limits, facts = draft.policy(host.name), draft.config.limits, host.facts
    reserve_mib = int(_or(policy.memory_reserve_mib, limits.memory_reserve_mib))
    return Row(
        host=host,
        blockers=tuple(_blockers(draft, host)),
        wishes=tuple(why_not_placed(host)),
        reserve_mib=reserve_mib,
        rooms=_rooms(draft, host, policy, reserve_mib),
        pages_default=_pages_default(facts),
        software=_software(draft, facts),
        networks=frozenset(facts.networks),
        storage=frozenset(facts.storage),
    )


# ---- what hosts have and guests need, room apart


def unmet(needs: Needs, facts: HostFacts) -> list[Against]:
    """What a host does not have that the guest needs; room apart."""
    why = _unmet_software(needs, facts)
    for network in needs.networks:
        if network not in facts.networks:
            why.append(Against(CheckName.NETWORKS, f"has no network {network}"))
    for storage in needs.storage:
        if storage not in facts.storage:
            kind, _, folder = storage.partition(":")
            folder, _, mount = folder.partition("@")
            text = (
                f"has no folder {folder} that can be written to, on a disk of its own"
                if kind == "folder"
                else ""
            )
            text += f" that is mounted at {mount} or below" if text and mount else ""
            why.append(Against(CheckName.STORAGE, text or f"does not see storage {storage}"))
    return why


def _unmet_software(needs: Needs, facts: HostFacts) -> list[Against]:
    why: list[Against] = []
    if needs.arch != facts.arch:
        why.append(Against(CheckName.MACHINE, f"is {facts.arch or 'unknown'}, not {needs.arch}"))
    if needs.domain_type not in facts.domain_types:
        why.append(Against(CheckName.MACHINE, f"cannot run {needs.domain_type} guests"))
    if needs.machine and needs.machine not in facts.machines:
        why.append(Against(CheckName.MACHINE, f"has no machine type {needs.machine}"))
    offer = facts.cpu_offers.get(
        needs.domain_type
    )  # without one it cannot tell: libvirt there looks at the start
    if needs.cpu_model and offer is not None and offer.models and needs.cpu_model not in offer.models:
        why.append(Against(CheckName.CPU, f"cannot give it the CPU model {needs.cpu_model}"))
    if needs.page_kib is not None:
        sizes = {size for size, default in _page_sizes(facts) if default or needs.page_kib}
        if (needs.page_kib or _pages_default(facts)) not in sizes:
            size = f" of {needs.page_kib} KiB" if needs.page_kib else ""
            why.append(Against(CheckName.HUGE_PAGES, f"has no huge pages{size}"))
    return why


# ---- side by side


class Fleet:
    """The rows as arrays, one element a host, in order of their names."""

    def __init__(self, draft: Draft, rows: list[Row]) -> None:
        self.rows = rows
        self.names = [row.host.name for row in rows]
        self.index = {name: at for at, name in enumerate(self.names)}
        self.resources = tuple(dict.fromkeys(each for row in rows for each in row.rooms))
        self.capacity: dict[Resource, Floats] = {}
        self.used: dict[Resource, Floats] = {}
        for resource in self.resources:
            rooms = [row.rooms.get(resource, NO_ROOM) for row in rows]
            self.capacity[resource] = np.array([room.capacity for room in rooms])
            self.used[resource] = np.array([room.used for room in rooms])
        self.unblocked: Mask = np.array([not row.blockers for row in rows], dtype=np.bool_)
        self.welcome: Mask = np.array([not row.wishes for row in rows], dtype=np.bool_)
        self.list_version = np.array([row.host.protected_version for row in rows], dtype=np.int64)
        self.pages_default = np.array([row.pages_default for row in rows], dtype=np.int64)
        self._bind(draft)

    def _bind(self, draft: Draft) -> None:
        self.members = draft.members
        self.version = draft.cluster.protected_version
        self.able: Mask = self.unblocked & (self.list_version == self.version)
        self.placed: dict[GuestId, int] = {}  # by who plans on this copy
        self.lost: set[int] = set()  # hosts that are imagined away
        self.lifted: set[GuestId] = set()  # guests that count nowhere
        self.draft = draft
        self._counts: dict[str, Floats] = {}
        self._priority: dict[str, Floats] = {}
        self._capable: dict[tuple[object, ...], Mask] = {}

    def patched(self, draft: Draft, rows: dict[int, Row]) -> Fleet | None:
        """The same with some rows replaced, for that draft; None when they have resources that it lacks."""
        if any(resource not in self.used for row in rows.values() for resource in row.rooms):
            return None
        fleet = self.copy()
        fleet.rows = list(self.rows)
        for at, row in rows.items():
            fleet.rows[at] = row
            for resource in self.resources:
                room = row.rooms.get(resource, NO_ROOM)
                fleet.capacity[resource][at] = room.capacity
                fleet.used[resource][at] = room.used
            fleet.unblocked[at] = not row.blockers
            fleet.welcome[at] = not row.wishes
            fleet.list_version[at] = row.host.protected_version
            fleet.pages_default[at] = row.pages_default
        fleet._bind(draft)
        return fleet

    def copy(self) -> Fleet:
        """One on which placements can be planned."""
        fleet = Fleet.__new__(Fleet)
        fleet.__dict__ = self.__dict__ | {
            "capacity": {resource: array.copy() for resource, array in self.capacity.items()},
            "used": {resource: array.copy() for resource, array in self.used.items()},
            "unblocked": self.unblocked.copy(),
            "welcome": self.welcome.copy(),
            "list_version": self.list_version.copy(),
            "pages_default": self.pages_default.copy(),
            "able": self.able.copy(),
            "placed": dict(self.placed),
            "lost": set(self.lost),
            "lifted": set(self.lifted),
            "_counts": {rule: array.copy() for rule, array in self._counts.items()},
        }
        return fleet

    def __len__(self) -> int:
        return len(self.rows)

    # ---- reading

    def can_run(self, needs: Needs) -> Mask:
        """Which hosts have what it needs, room apart; as `unmet`, for all at once."""
        key = (needs.arch, needs.domain_type, needs.machine, needs.cpu_model, needs.page_kib)
        mask = self._capable.get(key)
        if mask is None:
            known: dict[int, bool] = {}
            for row in self.rows:
                if row.software not in known:
                    known[row.software] = not _unmet_software(needs, row.host.facts)
            mask = self._capable[key] = np.array([known[row.software] for row in self.rows], dtype=np.bool_)
        for name in needs.networks:
            mask = mask & self._have("networks", name)
        for name in needs.storage:
            mask = mask & self._have("storage", name)
        return mask

    def _have(self, what: Literal["networks", "storage"], name: str) -> Mask:
        mask = self._capable.get((what, name))
        if mask is None:
            having = [name in (row.networks if what == "networks" else row.storage) for row in self.rows]
            mask = self._capable[what, name] = np.array(having, dtype=np.bool_)
        return mask

    def of_hosts(self, rule: HostRule) -> Floats:
        """The priority that it gives to each host."""
        array = self._priority.get(rule.name)
        if array is None:
            array = self._priority[rule.name] = np.zeros(len(self))
            for name, priority in rule.hosts.items():
                if name in self.index:
                    array[self.index[name]] = priority
        return array

    def allowed(self, rule: HostRule) -> Mask:
        """The hosts that it names."""
        mask: Mask = np.zeros(len(self), dtype=np.bool_)
        mask[[self.index[name] for name in rule.hosts if name in self.index]] = True
        return mask

    def places(self, guest_id: GuestId) -> set[int]:
        """Every host where it may run, both ends of a migration among them, and where it is planned to."""
        if guest_id in self.placed:
            return {self.placed[guest_id]}
        guest = self.draft.guest(guest_id)
        if guest is None or guest_id in self.lifted:
            return set()
        return {self.index[place.host] for place in guest.may_run_on if place.host in self.index} - self.lost

    def name(self, guest_id: GuestId) -> str:
        guest = self.draft.guest(guest_id)
        return guest.name if guest is not None else guest_id

    def anchors(self, guest_id: GuestId) -> set[int]:
        """Where who must share its host has to go: where it is seen, else wherever it may be."""
        places = self.places(guest_id)
        guest = self.draft.guest(guest_id)
        if guest is None or len(places) < 2 or guest.phase is GuestPhase.MIGRATING:
            return places
        seen = {
            self.index[place.host]
            for place in guest.may_run_on
            if place.host in self.index and seen_active(self.draft, guest_id, place.host, place.boot_id)
        }
        return seen - self.lost or places

    def count(self, rule: GuestRule) -> Floats:
        """How many of its guests count at each host."""
        array = self._counts.get(rule.name)
        if array is None:
            array = self._counts[rule.name] = np.zeros(len(self))
            for guest_id in self.members.of(rule):
                for at in self.places(guest_id):
                    array[at] += 1
        return array

    def load(self) -> Floats:
        """How full each host is in its scarcest resource, huge pages apart; 1 is full."""
        shares = (self.used[each] / np.maximum(self.capacity[each], 1e-9) for each in (MEMORY, CPU, COUNT))
        return np.asarray(np.maximum.reduce(list(shares)))

    def load_at(self, at: int) -> float:
        """As `load`, of one host."""
        return max(
            float(self.used[each][at] / max(self.capacity[each][at], 1e-9)) for each in (MEMORY, CPU, COUNT)
        )

    # ---- planning

    def place(self, guest: GuestRecord, at: int, sign: int = 1) -> None:
        """It is planned to run there (`sign` -1: not any more). Only on a copy."""
        assert (guest.id in self.placed) == (sign < 0)
        for rule in self.members.about(guest.id):
            if isinstance(rule, GuestRule):
                self.count(rule)[at] += sign
        for resource, amount in demand(guest.needs, self.rows[at].pages_default).items():
            if resource in self.used:
                self.used[resource][at] += sign * amount
        if sign > 0:
            self.placed[guest.id] = at
        else:
            del self.placed[guest.id]

    def lift(self, guest: GuestRecord) -> None:
        """Count it nowhere: it is the one that a place is sought for. Only on a copy."""
        for rule in self.members.about(guest.id):
            if isinstance(rule, GuestRule):
                self._counts.pop(rule.name, None)
        for place in guest.may_run_on:
            at = self.index.get(place.host)
            if at is not None:
                seen = self.draft.view(place.host).guests.get(guest.id)
                taken = demand(seen if seen and seen.active else guest.needs, self.rows[at].pages_default)
                for resource, amount in taken.items():
                    if resource in self.used:
                        self.used[resource][at] -= amount
        self.lifted.add(guest.id)

    def lose(self, at: int) -> None:
        """Imagine that host dead. Only on a copy, before anything is asked of rules."""
        self.lost.add(at)
        self.able[at] = False


# ---- the snapshot of a decision


class _Kept(NamedTuple):
    """A fleet of the state between decisions, and what each row was made from."""

    basis: tuple[object, ...]
    sources: dict[HostName, tuple[object, ...]]
    fleet: Fleet


def _source(draft: Draft, host: HostRecord) -> tuple[object, ...]:
    state, view = draft.state, draft.view(host.name)
    return host, view.guests, bool(view.session), state.touched.get(host.name, 0)


def _kept(draft: Draft) -> Fleet:
    """The fleet as the state has it; rows of hosts of which something changed are made anew."""
    state = draft.state
    settings = state.settings
    basis = (settings.hosts, settings.limits, tuple(sorted(state.hosts)))
    kept: _Kept | None = state.memo.get("fleet")
    clean = Draft(state, draft.now)
    if kept is None or not _same(kept.basis[:2], basis[:2]) or kept.basis[2] != basis[2]:
        hosts = list(clean.hosts())
        fleet = Fleet(clean, [_row(clean, host) for host in hosts])
        state.memo["fleet"] = _Kept(basis, {host.name: _source(clean, host) for host in hosts}, fleet)
        return fleet
    stale: dict[int, Row] = {}
    sources = dict(kept.sources)  # a branch of this state may hold the same
    for at, name in enumerate(kept.fleet.names):
        host = state.hosts[name]
        source = _source(clean, host)
        if not _same(source[:3], kept.sources[name][:3]) or source[3] != kept.sources[name][3]:
            stale[at] = _row(clean, host)
            sources[name] = source
    fleet = kept.fleet
    if stale:
        fleet = kept.fleet.patched(clean, stale) or Fleet(
            clean, [stale.get(at, row) for at, row in enumerate(fleet.rows)]
        )
        state.memo["fleet"] = _Kept(kept.basis, sources, fleet)
    return fleet


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """The very same objects: records are frozen, so what is the same has not changed."""
    return all(a is b for a, b in zip(one, other, strict=True))


def _touched(draft: Draft, name: HostName) -> Row:
    """The row of a host of which this decision has changed something; made once for each of these changes."""
    host = draft.require_host(name)
    source = (host, draft.view(name), draft.cluster, *draft.decided_at(name))
    rows: dict[HostName, tuple[tuple[object, ...], Row]] = draft.memo.setdefault("rows", {})
    kept = rows.get(name)
    if kept is None or len(kept[0]) != len(source) or not _same(kept[0], source):
        kept = rows[name] = (source, _row(draft, host))
    return kept[1]


def fleet_of(draft: Draft) -> Fleet:
    """All hosts as this decision sees them so far."""
    now = (draft.writes, draft.cluster.protected_version, draft.config)
    kept: tuple[tuple[object, ...], Fleet] | None = draft.memo.get("fleet")
    if kept is not None and kept[0][:2] == now[:2] and kept[0][2] is now[2]:
        return kept[1]
    if draft.settings is not None or set(draft.host_names()) != draft.state.hosts.keys():
        fleet = Fleet(draft, [_row(draft, host) for host in draft.hosts()])
    else:
        if "base" not in draft.memo:
            draft.memo["base"] = _kept(draft)
        base: Fleet = draft.memo["base"]
        names = draft.touched_hosts() & base.index.keys()
        touched = {base.index[name]: _touched(draft, name) for name in sorted(names)}
        fleet = base.patched(draft, touched) or Fleet(
            draft, [touched.get(at, row) for at, row in enumerate(base.rows)]
        )
    draft.memo["fleet"] = (now, fleet)
    return fleet
