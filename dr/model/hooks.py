"""Hooks: playbooks of a team's own that run beside the built-in failover, as it begins and when it is over."""

from __future__ import annotations

from typing import Annotated, Literal

from dr.model.base import Record
from dr.model.playbooks import Playbook

When = Literal["failover_begins", "failover_ends"]


class Hooks(Record):
    """Of the configuration. Their playbooks were read with it."""

    failover_begins: Annotated[Playbook | None, "run when a failover has begun"] = None
    failover_ends: Annotated[Playbook | None, "run when one is over, however it went"] = None


# What a hook's playbook is told, if it has a parameter of that name.
TOLD: dict[When, dict[str, str]] = {
    "failover_begins": {"failed_host": "the host whose guests are recovered", "job": "the failover"},
    "failover_ends": {
        "failed_host": "the host whose guests were recovered",
        "job": "the failover",
        "outcome": "done or failed",
    },
}


def why_no_hook(playbook: Playbook, when: When) -> str:
    """Why it can be none; "": it can."""
    if playbook.kind != "playbook":
        return f"{playbook.playbook} is a {playbook.kind}: no hook can be one"
    told = TOLD[when]
    for name, parameter in playbook.params.items():
        if name not in told and parameter.default is None:
            return (
                f"{playbook.playbook} must be told {name}, and this hook tells {', '.join(told)} only: "
                "give it a default"
            )
    return ""
