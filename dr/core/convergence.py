"""Whether a live migration that is under way comes to its end, and what may be done so that it does.

Here: one pure judgement of the figures of its passes. Not here: how libvirt is told (`dr.ports.hypervisor`), who asks
(`dr.agent.moves`).

The rungs, in the order in which they hurt: plain passes over the memory; a longer standstill at the switch-over, up to
what policy allows, as soon as passes do not get shorter; QEMU's own slowing down of virtual CPUs (auto-converge), which
begins by itself when a guest dirties more than half of what is sent; then it is given up. Progress is judged by passes,
not by a clock: a large guest on a slow network takes hours, and each pass may still be shorter than the one before.
"""

from __future__ import annotations

from dr.model.base import Record
from dr.model.facts import Progress

PLAIN_DOWNTIME_S = 0.3  # QEMU's own limit of the standstill
SHORTER = 0.9  # a pass that leaves more than this part of what the one before it left does not get on
PASSES_MAX = 4  # that do not get on, in a row, with nothing left to try
THROTTLE_MAX_PCT = 99  # QEMU slows down no further
MARGIN = 1.1  # allowed above the standstill that is foreseen: rates vary


class Limits(Record):
    """What policy allows."""

    max_downtime_s: float
    auto_converge: bool


class Course(Record):
    """What was seen of one migration so far; made anew with each look."""

    passes: int = 1
    left_mib: float = 0.0  # when the pass that is under way began
    stalled: int = 0  # passes in a row that did not get on
    downtime_s: float = PLAIN_DOWNTIME_S  # the limit that QEMU was given
    hopeless: str = ""  # why it is to be given up


def seen(course: Course, now: Progress, limits: Limits) -> Course:
    """After one more look. `downtime_s` and `hopeless` say what is to be done."""
    if now.passes <= course.passes or not now.rate_mib_s:
        return course
    gets_on = course.passes == 1 or now.remaining_mib < SHORTER * course.left_mib
    stalled = 0 if gets_on else course.stalled + 1
    after = Course(
        passes=now.passes, left_mib=now.remaining_mib, stalled=stalled, downtime_s=course.downtime_s
    )
    if not stalled:
        return after
    wanted_s = MARGIN * now.remaining_mib / now.rate_mib_s
    if course.downtime_s < wanted_s <= limits.max_downtime_s:
        return Course(passes=now.passes, left_mib=now.remaining_mib, downtime_s=wanted_s)
    throttled_out = not limits.auto_converge or now.throttle_pct >= THROTTLE_MAX_PCT
    if stalled < PASSES_MAX or not throttled_out:
        return after
    return Course(
        passes=now.passes,
        left_mib=now.remaining_mib,
        stalled=stalled,
        downtime_s=course.downtime_s,
        hopeless=(
            f"it does not converge: {now.dirty_mib_s:.0f} MiB/s become dirty and {now.rate_mib_s:.0f} MiB/s get"
            f" through, so it would stand still for {now.remaining_mib / now.rate_mib_s:.1f} s, where its policy allows"
            f" {limits.max_downtime_s:g} s"
        ),
    )
