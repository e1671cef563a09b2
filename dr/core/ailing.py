"""Guests that run and do no work: looked after by their checks, told of, restarted where their policy says so.

Their checks are made every `health_s`. One whose checks have passed and then fail several rounds in a row is unhealthy:
people are told, and it is restarted as after a crash: in place, then elsewhere, within the same bounds. Doubt comes
first: where many fail at once the likeliest fault is here, or in the network between, and nobody is restarted for it.
Not here: rounds (`checks`), bounds (`retries`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dr.core import checks, detector, onecopy, retries
from dr.core.state import Draft
from dr.model.base import GuestId, HostName, changed
from dr.model.policy import OnUnhealthy
from dr.model.records import Condition, Desired, GuestPhase, GuestRecord, HostPhase

LOOK_S = 1.0  # it is looked this often who is due
BEGUN_MAX = 100  # rounds begun by one look: 20,000 guests are through in 200 s
UNDER_WAY_MAX = checks.ROUNDS_MAX // 2  # the other half is for those that somebody waits for
MANY = 3  # so many that fail, and more than half of those that are known: not the guests are to blame
TOO_MANY = 10  # nor are so many that would be restarted at once, whatever their share: a part of a network is away, say
AT_ONCE = 2  # restarts under way at a time
ALL_OF = 2  # nor are these, where all that are known fail
KNOWN_S = 300.0  # beyond two intervals: what was found longer ago says nothing of now


class Found(NamedTuple):
    """One guest whose last round says something of now."""

    guest: GuestRecord
    failures: int


def step(draft: Draft) -> None:
    """Begin the rounds that are due; see who is unhealthy, and whether that is to be believed."""
    if not draft.state.looked_after or 0.0 <= draft.now - draft.looked_after_at < LOOK_S:
        return
    draft.looked_after_at = draft.now
    _begin_due(draft)
    found = list(_found(draft))
    unhealthy = [each for each in found if each.failures >= draft.config.limits.unhealthy_rounds]
    doubted = _doubted(draft, found)
    # Who was not restarted for longest comes first: two that never come back well must not take every turn.
    for each in sorted(unhealthy, key=lambda each: (_restarted_at(each.guest), each.guest.id)):
        if _had_its_time(draft, each.guest) and each.guest.holder not in doubted:
            _answer(draft, each.guest, each.failures)


def _restarted_at(guest: GuestRecord) -> float:
    return max((*guest.restarts, *guest.relocations), default=0.0)


def _restarting(draft: Draft) -> int:
    """Guests that are being restarted now, for whatever reason, and of which it is known where they are."""
    restarts = [operation for operation in draft.open_operations() if operation.kind == "restart"]
    guests = (draft.guest(key) for operation in restarts for key in operation.guests)
    return sum(guest is not None and guest.phase is not GuestPhase.UNKNOWN for guest in guests)


def _begin_due(draft: Draft) -> None:
    """Those whose last round is longest ago; of many, some with each look."""
    due: list[tuple[float, GuestId]] = []
    for guest_id in draft.state.looked_after:
        last = draft.checked_of(guest_id)
        began = last.began if last is not None else -1.0
        if last is None or draft.now - began >= draft.config.timers.health_s:
            due.append((began, guest_id))
    if due:
        next_ = sorted(due)[:BEGUN_MAX]
        checks.begin_rounds(draft, {}, {guest_id: draft.now for _, guest_id in next_}, UNDER_WAY_MAX)


def _found(draft: Draft) -> Iterator[Found]:
    known_s = 2 * draft.config.timers.health_s + KNOWN_S
    for guest_id in sorted(draft.state.looked_after):
        guest, last = draft.guest(guest_id), draft.checked_of(guest_id)
        if guest is None or last is None or guest.phase is not GuestPhase.RUNNING:
            continue
        if (
            guest.since <= last.ended
            and draft.now - last.ended < known_s
            and not checks.suspended(draft, guest)
        ):
            yield Found(guest, last.failures)


def _had_its_time(draft: Draft, guest: GuestRecord) -> bool:
    """It did its work once with these checks, and since it runs as it does now it passed, or had the time to."""
    up = checks.passed(guest) or draft.now >= guest.since + draft.config.timers.check_s
    return guest.checked_at > 0.0 and up


# ---- doubt


def _doubted(draft: Draft, found: list[Found]) -> frozenset[HostName]:
    """Hosts whose guests are not to be blamed now. Told of, and cleared."""
    holders = sorted({each.guest.holder for each in found})
    everywhere = _many(draft, found)
    at = {name: [each for each in found if each.guest.holder == name] for name in holders}
    here = {name for name in holders if _many(draft, at[name])}
    if everywhere:
        todo = "see that the coordinator reaches the guests' network"
        draft.alert("cluster/checks", *_words(found, "of the site", todo))
    else:
        draft.clear_alert("cluster/checks")
    for name in sorted(here) if not everywhere else ():
        todo = f"see that its guests' network is up: dr host show {name}"
        draft.alert(f"host/{name}/checks", *_words(at[name], f"of {name}", todo))
    for key in [key for key in draft.state.alerts if key.startswith("host/") and key.endswith("/checks")]:
        if everywhere or key.split("/")[1] not in here:
            draft.clear_alert(key)
    return frozenset(holders if everywhere else here)


def _many(draft: Draft, found: list[Found]) -> bool:
    failing = sum(each.failures > 0 for each in found)
    waiting = [each for each in found if _would_be_restarted(draft, each)]
    share = (failing >= MANY and 2 * failing > len(found)) or (failing >= ALL_OF and failing == len(found))
    return share or len(waiting) >= TOO_MANY


def _would_be_restarted(draft: Draft, each: Found) -> bool:
    """Now, if that is to be believed; not who was given up."""
    restarts = each.guest.policy.on_unhealthy is OnUnhealthy.RESTART
    given_up = draft.alert_of(f"guest/{each.guest.id}/unhealthy") is not None
    return restarts and not given_up and each.failures >= draft.config.limits.unhealthy_rounds


def _words(found: list[Found], of: str, todo: str) -> tuple[str, str, str]:
    bad = [each.guest.name for each in found if each.failures]
    names = ", ".join(bad[:5]) + (" …" if len(bad) > 5 else "")
    return (
        f"{len(bad)} of {len(found)} guests {of} that are looked after fail their checks: {names}",
        "so many at once: the likeliest fault is here or in the network between; no guest is restarted for it",
        f"{todo}; dr guest check {bad[0]}",
    )


# ---- one guest


def _answer(draft: Draft, guest: GuestRecord, failures: int) -> None:
    why = f"{failures} rounds of its checks failed in a row: {checks.what_fails(draft, guest)}"
    draft.alert(
        f"guest/{guest.id}/checks",
        f"{guest.name} runs on {guest.holder}, but its checks do not pass",
        why,
        f"dr guest check {guest.name}; see that its service is up",
    )
    if guest.policy.on_unhealthy is not OnUnhealthy.RESTART or _keeps(draft, guest):
        return
    host = draft.require_host(guest.holder)
    again = retries.next_try(draft, guest, host.name)
    if again is None:
        draft.alert(
            f"guest/{guest.id}/unhealthy",
            f"{guest.name} is not restarted any more: its checks still fail",
            "restarts and relocations are used up",
            f"find the cause, then: dr guest stop {guest.name}; dr guest start {guest.name}",
            severity="critical",
        )
        return
    what, wait_s, fields = again
    if draft.now < _restarted_at(guest) + wait_s or _restarting(draft) >= AT_ONCE:
        return  # its turn comes
    text = f"{guest.name}: {why}; {what}"
    operation = draft.open_operation("restart", guest.name, text, guests=(guest.id,))
    draft.note("guest.unhealthy", text, host=host.name, guest=guest.id, operation=operation.id)
    guest = changed(guest, retry_at=draft.now, **fields)
    draft.put_guest(guest)
    onecopy.issue_stop(draft, guest, host, "destroy", operation=operation.id)


def _keeps(draft: Draft, guest: GuestRecord) -> bool:
    """Whether anything stands against a restart now; then it is looked at again with the next look."""
    host = draft.host(guest.holder)
    if draft.cluster.pause is not None or draft.cluster.restored or detector.blind(draft):
        return True
    if (
        host is None
        or host.phase is not HostPhase.ONLINE
        or host.leaving
        or not draft.view(host.name).session
    ):
        return True
    if detector.is_late(draft, host) or Condition.AGENT_LOST in host.conditions:
        return True
    if guest.desired is not Desired.RUNNING or guest.move is not None or draft.operation_about(guest.id):
        return True
    return bool(onecopy.why_not_stop(draft, guest, host))
