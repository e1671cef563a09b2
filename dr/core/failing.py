"""Hosts whose own hardware fails: emptied while they still live, where policy says so.

It is a drain like a person's, and ends in maintenance: only a person can say that the host was repaired. Readings that
are not the host's own (storage, networks, libvirt, the hook) never start one: they may be the same on every host.
"""

from __future__ import annotations

from dr.core import quorum, upkeep
from dr.core.state import Draft
from dr.core.wishes import with_wishes
from dr.model.base import changed
from dr.model.facts import Level, Reading
from dr.model.policy import OnCritical
from dr.model.records import GuestPhase, HostPhase, HostRecord, Wish

HARDWARE = ("ecc", "kernel", "disk")  # parts of the health report, with what follows a colon
BY = "on_critical"  # who asks
OVER = (HostPhase.MAINTENANCE, HostPhase.FENCED)  # nothing leaves it any more: it is empty, or it died before
GONE_S = (
    3600.0  # a part that is not told of for so long is not there any more: taken out, or under another name
)
STUCK_S = 600.0  # a host that nobody has left for so long, nor is about to, holds the next one up no longer
STANDS_S = 15.0  # so long it must be told: by then the other hosts have told whether it is the like with them


def bad(host: HostRecord) -> tuple[Reading, ...]:
    """Critical readings of its own hardware."""
    return tuple(
        reading
        for reading in host.health
        if reading.level is Level.CRITICAL and reading.part.partition(":")[0] in HARDWARE
    )


def step(draft: Draft, host: HostRecord) -> None:
    """Begin to empty it, once for each part that fails: a host that a person took back in use is not drained again."""
    if not host.health and not host.failed:
        return
    readings = bad(host)
    parts = {reading.part for reading in readings}
    well = {reading.part for reading in host.health} - parts
    # A drain is what is done about it; and what nobody could look at for a moment has not been well meanwhile.
    failed = (host.failed - well - _gone(draft, host)) | (parts if host.drain is not None else set())
    if failed != host.failed:
        host = changed(host, failed=failed)
        draft.put_host(host)
    view = draft.view(host.name)
    if parts <= failed:
        if view.fails_since:
            draft.put_view(host.name, fails_since=0.0)
        return
    if not view.fails_since:
        draft.put_view(host.name, fails_since=draft.now)
        return
    if draft.now - view.fails_since < STANDS_S or why_not(draft, host):
        return
    why = "; ".join(f"{reading.part}: {reading.reason}" for reading in readings)
    wish = Wish(by=BY, reason=why, at=draft.now)
    host = changed(with_wishes(host, cordon=host.cordon, drain=wish), failed=frozenset(parts))
    draft.put_host(host)
    here = [guest.id for guest in upkeep.guests_on(draft, host)]
    draft.open_operation("drain", host.name, why, BY, here)


def _gone(draft: Draft, host: HostRecord) -> set[str]:
    """Parts that it was drained for, and that nothing was told of for long, though it tells of others."""
    view = draft.view(host.name)
    missing = host.failed - {reading.part for reading in host.health} if view.session else frozenset()
    unseen = {part: view.unseen.get(part, draft.now) for part in sorted(missing)}
    if unseen != view.unseen:
        draft.put_view(host.name, unseen=unseen)
    return {part for part, since in unseen.items() if draft.now - since >= GONE_S}


def why_not(draft: Draft, host: HostRecord) -> str:
    """Why it is not emptied by itself now, though its hardware fails; "" = it is."""
    policy = draft.policy(host.name).on_critical or draft.config.on_critical
    if policy is OnCritical.ALERT:
        return "on_critical is alert"
    if host.drain is not None or host.phase is not HostPhase.ONLINE or host.leaving:
        return (
            f"it is {host.phase} already" if host.drain is not None else f"it is {host.leaving or host.phase}"
        )
    if draft.cluster.pause is not None:
        return f"automation is paused ({draft.cluster.pause.reason})"
    if reason := quorum.hold(draft):
        return reason
    others = [other for other in draft.hosts() if other.name != host.name]
    alike = [other.name for other in others if bad(other)]
    if 2 * (len(alike) + 1) > len(others) + 1:
        return f"most hosts say the like ({', '.join(alike)}), so the fault may not be theirs"
    busy = [
        other.name
        for other in others
        if other.drain is not None
        and other.drain.by == BY
        and other.phase not in OVER
        and not _stuck(draft, other)
    ]
    return f"{busy[0]} is emptied first, one at a time" if busy else ""


def _stuck(draft: Draft, host: HostRecord) -> bool:
    """Whether its emptying does not get on: what keeps its guests there has to be done by a person."""
    operation = upkeep.operation_of(draft, host)
    found = [draft.guest(key) for key in operation.guests] if operation is not None else []
    guests = [guest for guest in found if guest is not None]
    if any(guest.phase is GuestPhase.MIGRATING for guest in guests):
        return False
    left = [guest.since for guest in guests if guest.holder != host.name]
    return draft.now - max([host.since, *left]) >= STUCK_S
