"""Who starts next, and where: by priority, bounded for each host, only guests that may be running nowhere."""

from __future__ import annotations

from dr.core import leaving, onecopy, placement
from dr.core.guests import give_up, operation_of, say
from dr.core.state import Draft
from dr.model.base import HostName, changed
from dr.model.records import GuestPhase, GuestRecord, HostPhase


def start_order(guests: list[GuestRecord]) -> list[GuestRecord]:
    """Higher priority first, then who has waited longest, then by name."""
    return sorted(guests, key=lambda guest: (-guest.policy.priority, guest.since, guest.name))


def place_waiting(draft: Draft) -> None:
    """Give out starts: by priority, bounded for each host, only to guests that may run nowhere."""
    waiting = [
        guest
        for guest in draft.unsettled()
        if guest.phase is GuestPhase.RECOVERING and not guest.may_run_on and draft.now >= guest.retry_at
    ]
    if not waiting:
        return
    if reason := onecopy.hold(draft):
        for guest in waiting:
            say(draft, guest, f"waits: {reason}")
        return
    busy: dict[HostName, int] = {}
    for _, pending in draft.pendings():
        if pending.kind == "start":
            busy[pending.host] = busy.get(pending.host, 0) + 1
    limit = draft.config.limits.starts_per_host
    for guest in start_order(waiting):
        if draft.cluster.pause is not None and not _asked_for(draft, guest):
            say(draft, guest, f"waits: automation is paused ({draft.cluster.pause.reason})")
            continue
        full = {name for name, count in busy.items() if count >= limit}
        home = leaving.home_of(draft, guest)
        if home and placement.why_not(draft, guest, draft.require_host(home)):
            say(draft, guest, leaving.in_words(guest))
            continue
        if home in full:
            continue
        prefer = home or (guest.holder if guest.restarts and not guest.avoid else "")
        found = placement.choose(draft, guest, prefer=prefer, without=full)
        if not found.host:
            if not full:
                _fits_nowhere(draft, guest, found)
            continue
        host = draft.require_host(found.host)
        why = onecopy.issue_start(draft, guest, host, operation=operation_of(draft, guest))
        if why:
            say(draft, guest, f"waits: {'; '.join(why)}")
        else:
            busy[found.host] = busy.get(found.host, 0) + 1


def _asked_for(draft: Draft, guest: GuestRecord) -> bool:
    return any(op.kind == "guest-start" and guest.id in op.guests for op in draft.open_operations())


def _fits_nowhere(draft: Draft, guest: GuestRecord, found: placement.Placement) -> None:
    failed_at = [
        name for name in guest.avoid if (host := draft.host(name)) and host.phase is HostPhase.ONLINE
    ]
    if failed_at:
        tried = ", ".join(failed_at)
        window_s = guest.policy.restart_window_s
        moved = tuple(at for at in guest.relocations if draft.now - at < window_s)
        if len(moved) >= guest.policy.max_relocations:
            give_up(draft, guest, f"it started on none of {tried}; last: {guest.reason}")
            return
        # Everywhere was tried once: all over again, later.
        wait_s = draft.config.timers.restart_backoff_s * 2 ** len(moved)
        draft.put_guest(
            changed(
                guest,
                avoid=(),
                relocations=(*moved, draft.now),
                retry_at=draft.now + wait_s,
                reason=f"{guest.reason}; every eligible host was tried, again in {wait_s:.0f} s",
            )
        )
        return
    text = f"fits nowhere: {found.sentence()}"
    draft.put_guest(
        changed(guest, reason=text, retry_at=draft.now + draft.config.timers.recovery_retry_s)
        if guest.reason != text
        else changed(guest, retry_at=draft.now + draft.config.timers.recovery_retry_s)
    )
    draft.alert(
        f"guest/{guest.id}/waiting",
        f"{guest.name} waits: no host can take it",
        text,
        "bring a host back, or free what it needs; it starts by itself then",
        severity="critical",
    )
