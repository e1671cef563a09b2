"""Whether something that a playbook names is so: why not, in a sentence, or "" if it is."""

from __future__ import annotations

from dr.core import spare
from dr.core.state import Draft
from dr.model.conditions import AnyCondition, AutomationIs, GuestIs, HostIs, Nothing, Spare


def why_not(draft: Draft, condition: AnyCondition, own: str = "") -> str:
    """`own`: the id of the run that asks."""
    match condition:
        case HostIs():
            hosts = [(name, draft.host(name)) for name in condition.host]
            return _all(
                [(name, host.phase if host else "gone", host.reason if host else "") for name, host in hosts],
                condition.is_,
            )
        case GuestIs():
            guests = [(name, draft.guest_named(name)) for name in condition.guest]
            return _all(
                [
                    (name, guest.phase if guest else "not protected", guest.reason if guest else "")
                    for name, guest in guests
                ],
                condition.is_,
            )
        case AutomationIs():
            pause = draft.cluster.pause
            now = "on" if pause is None else f"paused by {pause.by}: {pause.reason}"
            return "" if (pause is None) is (condition.automation == "on") else f"automation is {now}"
        case Spare():
            return spare.why_not(draft)
        case Nothing():
            others = (op for op in draft.open_operations() if op.kind == condition.no_open and op.id != own)
            return next((f"{op.id} ({op.kind} of {op.subject}) is open" for op in others), "")


def _all(found: list[tuple[str, str, str]], phase: str) -> str:
    """The first of them that is in another phase."""
    for name, now, reason in found:
        if now != phase:
            return f"{name} is {now}, not {phase}" + (f": {reason}" if reason else "")
    return ""
