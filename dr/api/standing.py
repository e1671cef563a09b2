"""How a host or a guest stands, in a word or a sentence: what rows, status, doctor and metrics all judge by.

Here: what follows from one record and its evidence. Not here: the shapes that it fills (`views`), the fleet as a
whole (`summary`), what to do about it (`doctor`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from dr.api.snapshot import Snapshot
from dr.model.facts import ACTIVE_STATES, GuestFacts, Level, Reading
from dr.model.records import Desired, GuestPhase, GuestRecord, HostPhase


def health_of(readings: Iterable[Reading]) -> Literal["ok", "warn", "critical", "unknown"]:
    """The worst of a health report."""
    levels = {reading.level for reading in readings}
    if not levels:
        return "unknown"
    return "critical" if Level.CRITICAL in levels else "warn" if Level.WARN in levels else "ok"


def fencing_of(snap: Snapshot, name: str) -> Literal["none", "unproven", "proven"]:
    """Proven: every device of at least one level showed its identity."""
    levels = snap.policy(name).fencing
    if not levels:
        return "none"
    whole = any(all(snap.proven(name, device) for device in level.devices) for level in levels)
    return "proven" if whole else "unproven"


def blockers_of(guest: GuestRecord) -> list[str]:
    """Why it could not start elsewhere; said where its name stands already."""
    return [blocker.removeprefix(f"{guest.name}: ") for blocker in guest.tied]


def in_doubt(snap: Snapshot, guest: GuestRecord) -> str:
    """Why a guest that is on record as running may not: a host of it is silent, or is not as it should be."""
    if guest.phase is not GuestPhase.RUNNING:
        return ""
    for place in guest.may_run_on:
        host = snap.state.hosts.get(place.host)
        if host is None:
            return f"{place.host} is not a member any more"
        if host.phase in (HostPhase.SUSPECT, HostPhase.FENCING, HostPhase.FENCED):
            why = f"{host.name} is {host.phase.value}{because(host.reason)}"
            return f"{why}; it may still run there, and starts nowhere else until {host.name} is proven off"
        if not snap.view(host.name).session:
            return f"{host.name} is not heard{because(host.reason)}; it ran there when {host.name} was last heard"
    return ""


def phase_of(snap: Snapshot, guest: GuestRecord) -> GuestPhase:
    """The phase that people are shown: nobody knows whether a guest of a silent host runs."""
    return GuestPhase.UNKNOWN if in_doubt(snap, guest) else guest.phase


def settled(snap: Snapshot, guest: GuestRecord) -> bool:
    """Whether it is what its owner wants, in one place that answers, and could be recovered."""
    if guest.tied or in_doubt(snap, guest):
        return False
    if guest.desired is Desired.RUNNING:
        return guest.phase is GuestPhase.RUNNING and len(guest.may_run_on) == 1
    if guest.desired is Desired.IGNORED:
        return guest.phase in (GuestPhase.RUNNING, GuestPhase.STOPPED)
    return guest.phase is GuestPhase.STOPPED


def not_as_wanted(guest: GuestRecord) -> str:
    """What it is, beside what it should be."""
    if guest.desired is Desired.IGNORED:
        return f"{guest.name} is {guest.phase.value}, and is left alone (ignored)"
    return f"{guest.name} is {guest.phase.value} and should be {guest.desired.value}"


def running_unprotected(snap: Snapshot) -> list[GuestFacts]:
    """Active domains that nobody asked to protect."""
    return [
        facts
        for guest, where in snap.sightings().items()
        if guest not in snap.state.guests
        for _, facts in where
        if facts.state in ACTIVE_STATES
    ]


def because(reason: str) -> str:
    return f": {reason}" if reason else ""
