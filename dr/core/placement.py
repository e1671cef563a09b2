"""Where a guest could run: for each host why not, or its score. Pure and complete: every reason, not the first."""

from __future__ import annotations

from collections.abc import Iterable

from dr.core.state import Draft
from dr.core.wishes import why_not_placed
from dr.model.base import HostName, Record
from dr.model.facts import HostFacts, Level, Needs
from dr.model.records import Condition, GuestRecord, HostPhase, HostRecord

# Critical readings with which a host could neither start a guest nor testify afterwards that it did not.
UNFIT = {
    "libvirt": "its libvirt does not answer",
    "state": "its agent can take no ticket",
    "hook": "its permit hook is not in force",
}


class Placement(Record):
    """The outcome: a host, or every host's reasons."""

    host: HostName = ""
    reasons: dict[HostName, tuple[str, ...]] = {}
    scores: dict[HostName, float] = {}

    def sentence(self) -> str:
        """Why nothing fits, in one sentence."""
        if not self.reasons:
            return "there is no other host"
        return "; ".join(f"{host}: {', '.join(why)}" for host, why in sorted(self.reasons.items()))


def used_mib(draft: Draft, host: HostName) -> int:
    """Memory that guests take there: active domains, and protected guests that may be about to run there, in MiB."""
    view = draft.view(host)
    seen = {facts.id: facts.memory_mib for facts in view.guests.values() if facts.active}
    for guest_id in draft.guests_at(host):
        guest = draft.guest(guest_id)
        if guest is not None and guest_id not in seen:
            seen[guest_id] = guest.needs.memory_mib
    return sum(seen.values())


def unmet(needs: Needs, facts: HostFacts) -> list[str]:
    """What a host does not have that the guest needs; memory apart."""
    why: list[str] = []
    if needs.arch != facts.arch:
        why.append(f"is {facts.arch or 'unknown'}, not {needs.arch}")
    if needs.domain_type not in facts.domain_types:
        why.append(f"cannot run {needs.domain_type} guests")
    if needs.machine and needs.machine not in facts.machines:
        why.append(f"has no machine type {needs.machine}")
    if needs.cpu_model and needs.cpu_model not in facts.cpu_models:
        why.append(f"its CPU cannot be a {needs.cpu_model}")
    why += [f"has no network {network}" for network in needs.networks if network not in facts.networks]
    why += [f"does not see storage {storage}" for storage in needs.storage if storage not in facts.storage]
    return why


def unfit(draft: Draft, name: HostName) -> list[str]:
    """What its agent says of itself that keeps it from taking any ticket or list."""
    return [
        f"{UNFIT[reading.part]} ({reading.reason})"
        for reading in draft.require_host(name).health
        if reading.part in UNFIT and reading.level is Level.CRITICAL
    ]


def why_not(draft: Draft, guest: GuestRecord, host: HostRecord, *, in_place: bool = False) -> list[str]:
    """Every reason against that host; empty = eligible. `in_place`: it crashed there, and is restarted."""
    why: list[str] = []
    view = draft.view(host.name)
    if host.phase is not HostPhase.ONLINE:
        why.append(f"is {host.phase}")
    elif not view.session:
        why.append("its agent is not connected")
    if not in_place or host.drain is not None:
        why += why_not_placed(host)
    if Condition.QUARANTINED in host.conditions:
        why.append("is quarantined (fenced too often)")
    why += unfit(draft, host.name)
    if not host.facts.hook.proven:
        why.append(f"its permit hook is not proven ({host.facts.hook.reason})")
    if host.protected_version != draft.cluster.protected_version:
        why.append("has not yet acknowledged the protected list")
    if host.name in guest.avoid:
        why.append("starting it there just failed")
    why += unmet(guest.needs, host.facts)
    reserve = draft.policy(host.name).memory_reserve_mib
    if reserve is None:
        reserve = draft.config.limits.memory_reserve_mib
    free = host.facts.memory_mib - reserve - used_mib(draft, host.name)
    if guest.needs.memory_mib > free:
        why.append(
            f"has {max(free, 0)} MiB free above the reserve of {reserve}, it needs {guest.needs.memory_mib}"
        )
    return why


def score(draft: Draft, guest: GuestRecord, host: HostRecord) -> float:
    """How full the host would be with this guest, 0 to 1; lower is better."""
    return (used_mib(draft, host.name) + guest.needs.memory_mib) / max(host.facts.memory_mib, 1)


def choose(
    draft: Draft, guest: GuestRecord, *, prefer: HostName = "", without: Iterable[HostName] = ()
) -> Placement:
    """The eligible host that stays emptiest; `prefer` wins if it is eligible (restart in place)."""
    excluded = set(without)
    reasons: dict[HostName, tuple[str, ...]] = {}
    scores: dict[HostName, float] = {}
    for host in draft.hosts():
        if host.name in excluded:
            continue
        if why := why_not(draft, guest, host, in_place=host.name == prefer):
            reasons[host.name] = tuple(why)
        else:
            scores[host.name] = score(draft, guest, host)
    if not scores:
        return Placement(reasons=reasons)
    best = prefer if prefer in scores else min(scores, key=lambda name: (scores[name], name))
    return Placement(host=best, reasons=reasons, scores=scores)
