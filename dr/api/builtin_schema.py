"""The shape of what is told of the failover that is built in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dr.api.shapes import Document, Part
from dr.core.playbooks import builtin
from dr.model.settings import Settings


class BuiltInStep(Part):
    step: str
    says: str = Field(default="", description="how, and what bounds it by the configuration in force")
    hook: Literal["", "failover_begins", "failover_ends"] = ""
    playbook: str = Field(default="", description="of a hook: what is run there; empty: nothing is set")


class BuiltIn(Document):
    """A playbook that is built in: it is shown, and nobody can run it."""

    kind: Literal["built-in"] = "built-in"
    name: str
    description: str
    steps: list[BuiltInStep] = []


def built_in(settings: Settings) -> BuiltIn:
    """As these settings have it."""
    steps = []
    for line in builtin.failover(settings):
        hook = getattr(settings.hooks, line.hook) if line.hook is not None else None
        steps.append(
            BuiltInStep(
                step=line.step,
                says=line.says,
                hook=line.hook or "",
                playbook=hook.playbook if hook is not None else "",
            )
        )
    return BuiltIn(name=builtin.NAME, description=builtin.DESCRIPTION, steps=steps)
