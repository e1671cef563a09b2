"""What guests want of a host that nobody hears although it may have power: the coordinator's half of their policy.

`leave`: one such guest keeps its host from being fenced by itself. `shut_down`: the host's own agent shuts it down when
it hears nobody (`core.warden`), and the coordinator gives it the time before it fences.
"""

from __future__ import annotations

from dr.core.state import Draft
from dr.model.base import HostName
from dr.model.policy import Isolation
from dr.model.records import Desired, GuestRecord, HostPhase, HostRecord

STOP_MARGIN_S = (
    10.0  # beyond isolation_s and stop_s: the agent looks every second, and a destroy takes its time
)
PEERS_MAX = 64  # addresses that a host is told; who hears none of so many is alone


def _wanting(draft: Draft, host: HostRecord, isolation: Isolation) -> list[GuestRecord]:
    found = (draft.guest(key) for key in draft.guests_at(host.name))
    return [
        guest
        for guest in found
        if guest is not None and guest.policy.isolation is isolation and guest.desired is not Desired.STOPPED
    ]


def left_alone(draft: Draft, host: HostRecord) -> str:
    """Why this host is not fenced by itself for the sake of guests that are to be left running; "" = no such guest."""
    names = sorted(guest.name for guest in _wanting(draft, host, Isolation.LEAVE))
    if not names:
        return ""
    return f"the isolation policy of {', '.join(names)} is to be left running"


def patience(draft: Draft, host: HostRecord) -> str:
    """Why to wait before it is fenced: its agent may be shutting guests down; "" = no need."""
    guests = _wanting(draft, host, Isolation.SHUT_DOWN)
    if not guests:
        return ""
    timers = draft.config.timers
    last = max(draft.view(host.name).heard, draft.state.started_at)
    if draft.now - last >= timers.isolation_s + timers.stop_s + STOP_MARGIN_S:
        return ""
    names = ", ".join(sorted(guest.name for guest in guests))
    return f"is given time to shut down {names} by itself, as their isolation policy says"


def peers(draft: Draft, name: HostName) -> tuple[str, ...]:
    """Addresses by which that host can tell whether it is alone: of hosts that are in use, first of those heard now."""
    found: dict[str, None] = {}
    for other, addresses in _in_use(draft):
        if other != name:
            found |= dict.fromkeys(addresses)
        if len(found) >= PEERS_MAX:
            break
    return tuple(found)[:PEERS_MAX]


def _in_use(draft: Draft) -> list[tuple[HostName, tuple[str, ...]]]:
    """Hosts with their addresses, as this decision first asked for them: all hosts may be told in one decision."""
    kept: list[tuple[HostName, tuple[str, ...]]] | None = draft.memo.get("peers")
    if kept is None:
        away = (HostPhase.JOINING, HostPhase.FENCED, HostPhase.MAINTENANCE)
        hosts = [host for host in draft.hosts() if host.phase not in away]
        hosts.sort(key=lambda host: (not draft.view(host.name).session, host.name))
        kept = draft.memo["peers"] = [
            (
                host.name,
                tuple(draft.policy(host.name).addresses or sorted(set(host.facts.addresses.values()))),
            )
            for host in hosts
        ]
    return kept
