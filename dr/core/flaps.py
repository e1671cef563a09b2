"""Hosts that fail or restart too often: quarantined until a person says otherwise.

A host that was fenced, or came back with a new boot, too often within the window takes no guests. If most hosts did so,
the likeliest fault is not theirs (power, a switch, an update of all of them), and none is quarantined for its returns.
"""

from __future__ import annotations

from dr.core.state import Draft
from dr.model.base import changed
from dr.model.records import Condition, HostPhase, HostRecord

KEPT = 20  # times of each kind


def fenced(draft: Draft, host: HostRecord) -> HostRecord:
    """It was fenced just now. Returns the record to go on with; the caller puts it."""
    host = changed(host, fenced_at=(*host.fenced_at, draft.now)[-KEPT:])
    often = _lately(draft, host.fenced_at)
    if often < draft.config.limits.fences_per_window:
        return host
    return _quarantined(draft, host, f"was fenced {often} times")


def returned(draft: Draft, host: HostRecord) -> HostRecord:
    """It is back with a new boot. In maintenance, and for a fence test, that is what it was asked to do."""
    if host.phase is HostPhase.MAINTENANCE or (host.fencing is not None and host.fencing.test):
        return host
    host = changed(host, returned_at=(*host.returned_at, draft.now)[-KEPT:])
    limit = draft.config.limits.returns_per_window
    often = _lately(draft, host.returned_at)
    others = [other for other in draft.hosts() if other.name != host.name]
    # Who is one behind may be on its way back from what restarted them all.
    restless = [other for other in others if _lately(draft, other.returned_at) >= max(1, limit - 1)]
    if often < limit or 2 * (len(restless) + 1) > len(others) + 1:
        return host
    return _quarantined(draft, host, f"came back with a new boot {often} times")


def _lately(draft: Draft, times: tuple[float, ...]) -> int:
    return sum(draft.now - at < draft.config.limits.fence_window_s for at in times)


def _quarantined(draft: Draft, host: HostRecord, what: str) -> HostRecord:
    draft.alert(
        f"host/{host.name}/quarantined",
        f"{host.name} {what} within {draft.config.limits.fence_window_s / 60:.0f} minutes",
        "a host that keeps failing takes no guests and is not powered on until a person has looked",
        f"repair it, then: dr host clear-quarantine {host.name}",
    )
    return changed(host, conditions=host.conditions | {Condition.QUARANTINED})
