"""A guest's policy in the API: as it is shown, and as it is asked for; checks and dependencies in the file's words."""

from __future__ import annotations

from typing import Any

from dr.api import schema
from dr.model.policy import Isolation, OnUnhealthy, PolicyChange
from dr.model.records import GuestRecord
from dr.model.spelling import NONE, after_of, after_text, check_text, checks_of


def seen(guest: GuestRecord) -> schema.Policy:
    policy = guest.policy
    return schema.Policy(
        priority=policy.priority,
        max_restarts=policy.max_restarts,
        restart_window_s=policy.restart_window_s,
        max_relocations=policy.max_relocations,
        relocation_window_s=policy.relocation_window_s,
        failback=policy.failback,
        boot_after=[after_text(each) for each in policy.boot_after],
        isolation=policy.isolation.value,
        on_unhealthy=policy.on_unhealthy.value,
        checks=[check_text(each) for each in policy.checks],
        move_s=policy.move_s,
        move_downtime_s=policy.move_downtime_s,
        move_auto_converge=policy.move_auto_converge,
        move_mib_s=policy.move_mib_s,
        move_streams=policy.move_streams,
        local_disks=policy.local_disks,
        remove_old_disks=policy.remove_old_disks,
    )


def change(body: schema.SetBody) -> PolicyChange:
    """What was asked for; the words in it were found valid with the body."""
    given: dict[str, Any] = {
        name: value for name in schema.Policy.model_fields if (value := getattr(body, name)) is not None
    }
    if body.boot_after is not None:
        names = [] if body.boot_after == [NONE] else body.boot_after
        given["boot_after"] = tuple(after_of(each) for each in names)
    if body.isolation is not None:
        given["isolation"] = Isolation(body.isolation)
    if body.on_unhealthy is not None:
        given["on_unhealthy"] = OnUnhealthy(body.on_unhealthy)
    if body.checks is not None:
        given["checks"] = checks_of(body.checks)
    return PolicyChange(**given)
