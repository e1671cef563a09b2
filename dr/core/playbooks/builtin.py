"""The built-in failover told as a playbook: its steps in their order, with what bounds each by the settings in force.

Here: words for people. Not here: the failover itself (`silence`, `detector`, `fencing`, `starts`): none of this runs.
"""

from __future__ import annotations

from typing import NamedTuple

from dr.model.hooks import When
from dr.model.settings import Settings
from dr.model.words import TIME

NAME = "failover"
DESCRIPTION = (
    "A host is lost: it is proven dead, and its guests start on other hosts. It is done by itself, also for several "
    "hosts at once; nothing is written for it and nobody runs it."
)


class Line(NamedTuple):
    """One step. `hook`: what a team may hang in there."""

    step: str
    says: str
    hook: When | None = None


def failover(settings: Settings) -> list[Line]:
    timers, limits = settings.timers, settings.limits
    seen_to = "it is proven off; nothing is fenced by itself (auto_fence: false)"
    if settings.auto_fence:
        again = f"{_s(timers.fence_retry_s)} later, then up to {_s(timers.fence_retry_max_s)}"
        seen_to = (
            f"each level {limits.fence_attempts_per_level} times, at most {_s(timers.fence_s)} a try, then the next "
            f"level; all of it again {again}. Not if anything stands against it: a pause, the brake, fencing that "
            "is not proven"
        )
    return [
        Line(
            "notice that a host is silent",
            f"after two beats ({_s(timers.heartbeat_s)} each) and its link's jitter: not before "
            f"{_s(timers.late_floor_s)}, not after {_s(timers.late_ceiling_s)}",
        ),
        Line(
            "look at it from elsewhere",
            f"other hosts and the coordinator look, its power is read; who has not answered after "
            f"{_s(timers.probe_s)} did not see it, and it is looked at again every {_s(timers.probe_every_s)}",
        ),
        Line("fence it, unless its power is off", seen_to),
        Line(
            "hook failover_begins",
            "beside all that follows, which does not wait for it",
            "failover_begins",
        ),
        Line(
            "start its guests elsewhere",
            f"the most important first, {limits.starts_per_host} at once on a host; one waits for those that start "
            f"before it at most {_s(timers.boot_after_s)}. A start without an answer after {_s(timers.start_s)} is "
            f"unknown, and is looked for before any other; what fits nowhere is tried again every "
            f"{_s(timers.recovery_retry_s)}",
        ),
        Line("wait for their checks", f"at most {_s(timers.check_s)}, where a guest's policy has any"),
        Line("tell people", "how each guest ended, by every notifier"),
        Line("hook failover_ends", "when each guest runs, or waits with its reason", "failover_ends"),
        Line(
            "switch the host on again", "when its guests have a place, unless power_on_after_fence is false"
        ),
    ]


def _s(seconds: float) -> str:
    return TIME.write(seconds)
