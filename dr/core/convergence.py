"""Whether a live migration that is under way comes to its end, and what may be done so that it does.

Here: one pure judgement of the figures of its passes. Not here: what is done about it (`core.migration`), how libvirt
is told (`dr.ports.hypervisor`).

The rungs, in the order in which they hurt: plain passes over the memory; a longer standstill at the switch-over, up to
what policy allows, as soon as passes no longer bring the end nearer; QEMU's own slowing down of virtual CPUs
(auto-converge), which begins by itself when a guest makes more dirty than half of what is sent; then it is given up.
Progress is judged by passes, not by a clock: a large guest on a slow network takes hours, and each pass may still bring
the end nearer.
"""

from __future__ import annotations

from dr.model.base import Record, changed
from dr.model.facts import Progress
from dr.model.policy import GuestPolicy
from dr.model.records import Rung

PLAIN_DOWNTIME_S = 0.3  # QEMU's own limit of the standstill
SHORTER = 0.9  # a pass whose standstill is longer than this part of the shortest so far does not get on
PASSES_MAX = 6  # in a row that do not get on, with nothing left to try
# Without a byte that gets through it is given up: TCP alone would try for a quarter of an hour. Before the first byte
# it has longer: QEMU may write zeros to a whole disk at the destination, and tells of none.
STILL_S = 60.0
BEGINS_S = 600.0
MARGIN = 1.1  # allowed above the standstill that is foreseen: rates vary


class Course(Record):
    """What was seen of one migration so far; made anew with each look."""

    job: str = ""  # the ticket that it belongs to
    passes: int = 1
    shortest_s: float = 0.0  # standstill that a pass would have ended with; 0: none is known yet
    throttle_pct: int = 0
    stalled: int = (
        0  # passes in a row in which the standstill got no shorter, and QEMU slowed down no further
    )
    downtime_s: float = PLAIN_DOWNTIME_S  # the limit that QEMU should have
    told_s: float = (
        PLAIN_DOWNTIME_S  # the limit that it was told; 0: in an earlier session, and maybe it was lost
    )
    hopeless: str = ""  # why it is to be given up
    still: str = ""  # nothing gets through now: given up whoever is in a hurry
    left: tuple[int, float, float] = (
        0,
        0.0,
        0.0,
    )  # passes, MiB of this one, MiB in all, as last seen to change
    moved_s: float = 0.0  # how long it was under way then, by libvirt's own clock


def begun(job: str, allowed_s: float) -> Course:
    """Of a migration that may be under way for long: its host may have been told before how long it may stand still."""
    return Course(job=job) if not allowed_s else Course(job=job, downtime_s=allowed_s, told_s=0.0)


def unhurried(course: Course, policy: GuestPolicy) -> Course:
    """Without what a drain in a hurry, taken back or over by now, allowed beyond the policy."""
    allowed_s = max(PLAIN_DOWNTIME_S, policy.move_downtime_s)
    return changed(course, downtime_s=min(course.downtime_s, allowed_s))


def rung_of(course: Course) -> Rung:
    """What it has needed so far."""
    if course.throttle_pct:
        return Rung.SLOWED
    return Rung.STANDSTILL if course.downtime_s > PLAIN_DOWNTIME_S else Rung.PLAIN


def _patience_s(now: Progress) -> float:
    return STILL_S if now.remaining_mib < now.total_mib else BEGINS_S


def seen(course: Course, now: Progress, policy: GuestPolicy) -> Course:
    """After one more look. `downtime_s` and `hopeless` say what is to be done."""
    left = (now.passes, now.remaining_mib, now.total_mib)
    if left != course.left or now.elapsed_s < course.moved_s:
        course = changed(course, left=left, moved_s=now.elapsed_s, still="")
    elif now.elapsed_s - course.moved_s >= _patience_s(now):
        why = f"nothing got through for {now.elapsed_s - course.moved_s:.0f} s"
        course = changed(course, still=why)
    if now.passes <= course.passes or not now.standstill_s:
        return course
    gets_on = not course.shortest_s or now.standstill_s < SHORTER * course.shortest_s
    waits = now.throttle_pct > course.throttle_pct
    stalled = 0 if gets_on or waits else course.stalled + now.passes - course.passes
    shortest_s = now.standstill_s if gets_on else course.shortest_s
    downtime_s, hopeless = course.downtime_s, ""
    wanted_s = MARGIN * now.standstill_s
    if not gets_on and downtime_s < wanted_s <= policy.move_downtime_s:
        downtime_s, stalled = wanted_s, 0
    elif stalled >= PASSES_MAX:
        hopeless = (
            f"it does not converge: {now.dirty_mib_s:.0f} MiB/s become dirty and {now.rate_mib_s:.0f} MiB/s get"
            f" through, so it would stand still for {now.standstill_s:.1f} s, where its policy allows"
            f" {policy.move_downtime_s:g} s (move_downtime_s)"
        )
    return changed(
        course,
        passes=now.passes,
        shortest_s=shortest_s,
        throttle_pct=now.throttle_pct,
        stalled=stalled,
        downtime_s=downtime_s,
        hopeless=hopeless,
    )
