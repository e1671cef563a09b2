"""Strict rules, read by a dumb twin of `core.rules`: what a ticket that brings a guest to a host would break.

Both ends of a migration count, and so does every place where a guest may run. Shares no code with `dr.core`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dr.model.base import GuestId, HostName
from dr.model.policy import HostRule, Rule
from dr.model.records import GuestRecord


def broken_rules(
    rules: Iterable[Rule], guests: Mapping[GuestId, GuestRecord], guest_id: GuestId, host: HostName
) -> list[str]:
    """What would not hold with that guest on that host; `guests` as recorded, its place there included."""
    return [
        text
        for rule in rules
        if rule.strict and _about(rule, guests[guest_id])
        for text in _broken(rule, guests, guest_id, host)
    ]


def _about(rule: Rule, guest: GuestRecord) -> bool:
    labels = {f"label:{key}={value}" for key, value in guest.labels.items()}
    return not labels.union((guest.name, guest.id)).isdisjoint(rule.guests)


def _broken(
    rule: Rule, guests: Mapping[GuestId, GuestRecord], guest_id: GuestId, host: HostName
) -> Iterable[str]:
    if isinstance(rule, HostRule):
        if host not in rule.hosts:
            yield f"rule {rule.name} allows {', '.join(rule.hosts)}"
        return
    for other in guests.values():
        if other.id == guest_id or not _about(rule, other):
            continue
        at = {place.host for place in other.may_run_on}
        if rule.kind == "apart" and host in at:
            yield f"rule {rule.name} keeps it apart from {other.name}, which may run there"
        if rule.kind == "together" and len(at) == 1 and host not in at:
            yield f"rule {rule.name} wants it beside {other.name}, which is on {', '.join(at)}"
