"""Whom the words of a playbook name, and conditions: what its `require`, `when` and `until` say.

Not here: whether a condition is so (`core.playbooks.conditions`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from dr.model.base import Record
from dr.model.records import GuestPhase, HostPhase
from dr.model.words import (
    NAME,
    Kind,
    Many,
    Name,
    OneOf,
    Problems,
    Where,
    fields_of,
    written,
)

PARAMETER = re.compile(r"\$\{([A-Za-z][A-Za-z0-9_-]{0,62})\}")
LABEL = re.compile(r"label:([A-Za-z0-9][A-Za-z0-9._/-]{0,62})=([A-Za-z0-9._-]{0,63})")
Job = Literal[
    "failover", "restart", "drain", "leave", "failback", "fence", "fence-test", "confirm-down", "protect",
    "guest-start", "guest-stop", "guest-migrate", "guest-relocate", "playbook", "drill",
]  # fmt: skip
ALL = "all"
ON = "on:"  # guests: those of the host that follows
TARGETS = "targets"  # what the playbook's own `targets` names


class Chosen(Kind):
    """Hosts or guests: a name, `${parameter}`, `label:key=value`, `targets`, `all`; of guests also `on:HOST`."""

    def __init__(self, of: str) -> None:
        self.of = of
        more = ", on:HOST" if of == "guest" else ""
        self.means = f"the name of a {of}, ${{parameter}}, label:key=value, targets{more} or all"

    def read(self, value: Any, where: Where, problems: Problems) -> str:
        text = value if isinstance(value, str) else ""
        like = PARAMETER.sub("x", text)  # what it stands for is looked at when it is known
        if not LABEL.fullmatch(like) and not NAME.fullmatch(
            like.removeprefix(ON if self.of == "guest" else "")
        ):
            hint = "; put it in quotes" if isinstance(value, int | float) else ""
            self.wrong(value, where, problems, hint)
        return text


class Reference(Name):
    """One name, or a parameter that stands for it."""

    def read(self, value: Any, where: Where, problems: Problems) -> str:
        if isinstance(value, str) and PARAMETER.fullmatch(value):
            return value
        return super().read(value, where, problems)


HostsChosen = Annotated[tuple[str, ...], Many(Chosen("host"))]
GuestsChosen = Annotated[tuple[str, ...], Many(Chosen("guest"))]
OneHost = Annotated[str, Reference("host")]
OneGuest = Annotated[str, Reference("guest")]


# ---- conditions


class Condition(Record):
    """Something that is so, or not, as the coordinator knows it."""

    def text(self) -> str:
        """As a playbook writes it, with what it leaves out."""
        plain = {field.key: field.kind.write(getattr(self, field.name)) for field in fields_of(type(self))}
        return written(plain).removeprefix("{").removesuffix("}")


class HostIs(Condition, tag="host"):
    """The phase of hosts: of all of them."""

    host: Annotated[tuple[str, ...], Many(Chosen("host")), "hosts; all of them"]
    is_: Annotated[HostPhase, "their phase"] = HostPhase.ONLINE


class GuestIs(Condition, tag="guest"):
    """The phase of guests: of all of them."""

    guest: Annotated[tuple[str, ...], Many(Chosen("guest")), "guests; all of them"]
    is_: Annotated[GuestPhase, "their phase"] = GuestPhase.RUNNING


class AutomationIs(Condition, tag="automation"):
    """Whether automation is on, or paused by a person."""

    automation: Annotated[Literal["on", "paused"], "which"]


class Spare(Condition, tag="spare"):
    """Every guest would have a place if any one host died now (N+1). Not so until each host was looked at."""

    spare: Annotated[Literal["host"], "`host`: any one of them"]


class Nothing(Condition, tag="nothing"):
    """No other job of that kind is open."""

    no_open: Annotated[Job, "a kind of job, as `dr job list` shows it"]


CONDITIONS: dict[str, type[Condition]] = {
    fields_of(each)[0].key: each for each in (HostIs, GuestIs, AutomationIs, Spare, Nothing)
}
CONDITION = OneOf(CONDITIONS, "condition")
AnyCondition = HostIs | GuestIs | AutomationIs | Spare | Nothing
