"""How a live move would go, before it begins: its rung, how long it takes, what is sent, how long it stands still.

Here: one pure prediction, from memory in use, the rate of the link, what the guest was seen to make dirty, and its
policy. Its passes are QEMU's (7.2); what is allowed and when it is given up is judged by `core.convergence`, the same
that judges the real one. Not here: where the figures come from (`core.links`, `core.dirtying`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

from dr.core import convergence
from dr.core.convergence import Course
from dr.model.base import changed
from dr.model.facts import DirtyPoint, Progress
from dr.model.policy import GuestPolicy
from dr.model.records import Rung

LOOK_S = 1.0  # as often a real one is looked at, by its agent
SLOT_S = 0.05  # QEMU sends for so long before it looks again whether the rest fits into the standstill
SYNC_S = 1.0  # QEMU judges whether to slow a guest down no more often
HIGH_PCT = 50  # of what was sent; more that became dirty meanwhile is too much
HIGH_TIMES = 2  # so often too much, and it is slowed down, or further
FIRST_PCT, MORE_PCT, MOST_PCT = 20, 10, 99
BEND = 3.0  # all but 5 % of the first interval's, at a third of it
STRAIGHT = 1e-6


class Curve:
    """How much of its memory a guest writes to within any time, from what it was seen to write to within some.

    Straight from point to point, and on like that after the last. Before the first it is the steeper the flatter it is
    afterwards: who has written to most of what it uses within a second may have done so within a third of that.
    """

    def __init__(self, points: tuple[DirtyPoint, ...]) -> None:
        self._at_s, self._mib = [0.0], [0.0]
        for point in points:
            self._at_s.append(point.interval_s)
            self._mib.append(max(point.mib, self._mib[-1]))
        slopes = [
            (more - less) / (later - sooner)
            for sooner, later, less, more in zip(
                self._at_s, self._at_s[1:], self._mib, self._mib[1:], strict=False
            )
        ]
        self._on_mib_s = slopes[-1] if slopes else 0.0
        straight = min(1.0, slopes[1] / slopes[0]) if len(slopes) > 1 and slopes[0] else 1.0
        self._bend = BEND * (1 - straight)

    def mib(self, seconds: float) -> float:
        at = bisect_left(self._at_s, seconds)
        if at == len(self._at_s):
            return self._mib[-1] + self._on_mib_s * (seconds - self._at_s[-1])
        if at == 0:
            return 0.0
        part = (seconds - self._at_s[at - 1]) / (self._at_s[at] - self._at_s[at - 1])
        if at == 1 and self._bend > STRAIGHT:
            part = math.expm1(-self._bend * part) / math.expm1(-self._bend)
        return self._mib[at - 1] + (self._mib[at] - self._mib[at - 1]) * part


class Outlook(NamedTuple):
    """What would become of a live move."""

    rung: Rung
    total_s: float  # of the sending, with the standstill; where it does not converge: until that is plain
    sent_mib: float  # with what is sent again
    downtime_s: float  # of that, as QEMU counts it
    why: str = ""  # it is called off


@lru_cache(maxsize=8192)
def outlook(
    mib: float,
    rate_mib_s: float,
    points: tuple[DirtyPoint, ...],
    policy: GuestPolicy,
    disks_mib: float = 0.0,
) -> Outlook:
    """`mib`: of memory in use; `rate_mib_s`: that its link gives it, more than 0; `points`: none = not measured.

    `disks_mib`: of disks that are copied along, before its memory.
    """
    run = _Run(mib, rate_mib_s, Curve(points), policy, disks_mib)
    while not run.over:
        run.one_pass()
    return run.outcome()


class _Run:
    """One imagined migration."""

    def __init__(
        self, mib: float, rate_mib_s: float, curve: Curve, policy: GuestPolicy, disks_mib: float
    ) -> None:
        self.mib, self.rate_mib_s, self.curve, self.policy = mib, rate_mib_s, curve, policy
        self.disks_mib, self.disks_s = disks_mib, disks_mib / rate_mib_s
        self.left_mib = mib
        self.elapsed_s = self.sent_mib = 0.0
        self._unsent_mib = mib  # of all, what no pass has sent yet
        self.throttle_pct = 0
        self.course = Course()
        self.passes = 1
        self._looked_s = 0.0
        self._since_s = self._since_sent = self._since_dirty = 0.0  # since QEMU last judged
        self._high = 0

    @property
    def over(self) -> bool:
        fits = self.left_mib <= self.course.downtime_s * self.rate_mib_s
        return fits or bool(self.course.hopeless)

    def one_pass(self) -> None:
        """Send until the rest would fit into the standstill, then see what became dirty meanwhile."""
        rest_mib = max(0.0, (self.course.downtime_s - SLOT_S) * self.rate_mib_s)
        send_mib = max(self.left_mib - rest_mib, SLOT_S * self.rate_mib_s)
        took_s = send_mib / self.rate_mib_s
        dirty_mib = min(self.curve.mib(took_s * (1 - self.throttle_pct / 100)), self.mib)
        # What a later pass has left was dirty before, or was never sent: it and what is dirty anew overlap.
        self._unsent_mib = min(self._unsent_mib, max(0.0, self.left_mib - send_mib))
        dirty_before_mib = self.mib if self.passes == 1 else self.curve.mib(self.elapsed_s)
        most_mib = min(dirty_before_mib + self._unsent_mib, self.mib)
        self.left_mib = min(self.left_mib - send_mib + dirty_mib, most_mib)
        self.sent_mib += send_mib
        self.elapsed_s += took_s
        self.passes += 1
        self._since_s += took_s
        self._since_sent += send_mib
        self._since_dirty += dirty_mib
        if self._since_s >= SYNC_S:
            self._judge()
        if self.elapsed_s - self._looked_s >= LOOK_S:
            self._looked_s = self.elapsed_s
            self.course = convergence.seen(self.course, self._progress(dirty_mib / took_s), self.policy)

    def _judge(self) -> None:
        """As QEMU does."""
        self._high += self._since_dirty > self._since_sent * HIGH_PCT / 100
        if self._high >= HIGH_TIMES and self.policy.move_auto_converge:
            more_pct = MORE_PCT if self.throttle_pct else FIRST_PCT
            self._high, self.throttle_pct = 0, min(MOST_PCT, self.throttle_pct + more_pct)
        self._since_s = self._since_sent = self._since_dirty = 0.0

    def _progress(self, dirty_mib_s: float) -> Progress:
        return Progress(
            guest="",
            elapsed_s=self.elapsed_s,
            total_mib=self.mib,
            remaining_mib=self.left_mib,
            rate_mib_s=self.rate_mib_s,
            dirty_mib_s=dirty_mib_s,
            passes=self.passes,
            standstill_s=self.left_mib / self.rate_mib_s,
            throttle_pct=self.throttle_pct,
        )

    def outcome(self) -> Outlook:
        stands_s = self.left_mib / self.rate_mib_s
        elapsed_s, sent_mib = self.disks_s + self.elapsed_s, self.disks_mib + self.sent_mib
        if self.course.hopeless:
            return Outlook(Rung.CALLED_OFF, elapsed_s, sent_mib, 0.0, self.course.hopeless)
        rung, why = convergence.rung_of(changed(self.course, throttle_pct=self.throttle_pct)), ""
        if elapsed_s > self.policy.move_s:
            why = f"it takes {elapsed_s:.0f} s, where its policy allows {self.policy.move_s:.0f} s (move_s)"
            rung = Rung.CALLED_OFF
        return Outlook(rung, elapsed_s + stands_s, sent_mib + self.left_mib, stands_s, why)
