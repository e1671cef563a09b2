"""Guards of schedules: each time once, never two at once, in their window, no blackout; what is missed is told."""

from __future__ import annotations

from dr.core.playbooks import scheduled
from tests.sim.mutants.mutant import m

GROUPS = {
    "schedules": (
        m(
            "a time is decided about once",
            "schedules/the-clock-jumps",
            (scheduled._begin, "decided=at,", "decided=record.decided,"),
        ),
        m(
            "what was looked at is not looked at again",
            "schedules/not-run-again-on-an-older-copy",
            (scheduled.came, "changed(record, decided=newest, tried", "changed(record, tried"),
        ),
        m(
            "never two at once",
            "schedules/two-are-due-together",
            (scheduled._held, "operation.run is not None and operation.asked_by.startswith(BY)", "False"),
        ),
        m(
            "beyond its window it does not begin",
            "schedules/missed-while-nobody-was-there",
            (scheduled.came, "event.wall - newest < schedule.window", "True"),
        ),
        m(
            "within its window it begins late",
            "schedules/late-but-in-its-window",
            (scheduled.came, "event.wall - newest < schedule.window", "event.wall - newest < 20.0"),
        ),
        m(
            "what is missed is told",
            "schedules/paused",
            (scheduled._missed, "if draft.alert_of(alert.key) is None:", "if False:"),
        ),
        m(
            "nothing begins while automation is paused",
            "schedules/paused",
            (scheduled._held, "if draft.cluster.pause is not None:", "if False:"),
        ),
        m(
            "nothing begins during a failover",
            "schedules/waits-for-a-failover",
            (scheduled._held, "return isolated.trouble(draft)", 'return ""'),
        ),
        m(
            "what is due in a blackout is not run",
            "schedules/a-blackout",
            (scheduled.came, "newest not in event.left_out and ", ""),
            (scheduled._held, "if event.blackout:", "if False:"),
        ),
        m(
            "a restored store does not know whether it was run",
            "schedules/not-run-again-on-an-older-copy",
            (scheduled.came, "in_time and not restored", "in_time"),
        ),
        m(
            "an alert of what was missed clears as it begins again",
            "schedules/missed-while-nobody-was-there",
            (scheduled._begin, "draft.clear_alert(_key(event.name))", "pass"),
        ),
    ),
}
