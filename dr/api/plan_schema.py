"""The shape of an evacuation plan: what `dr plan evacuate --save` writes, people read, and `dr apply` sends back.

Strict: what is not known here is refused, as somebody may have meant something by it. Not here: how it is filled
(`foretold`), the file (`dr.cli.planfile`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dr.api.schema import Evacuation
from dr.api.shapes import Body, Document

Name = Annotated[str, Field(min_length=1, max_length=256)]
Seconds = Annotated[float, Field(ge=0, le=864_000)]
Path = tuple[str | int, ...]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Terms(Strict):
    """What of a guest's policy decides how it leaves; see `dr guest set`."""

    desired: Literal["running", "stopped", "ignored"]
    priority: int
    move_s: float
    move_downtime_s: float
    move_auto_converge: bool
    move_mib_s: int
    move_streams: int
    local_disks: bool
    remove_old_disks: bool


class PlannedGuest(Strict):
    """What becomes of one guest."""

    name: Name
    id: Name
    host: Name = Field(description="that it leaves")
    fate: Literal["live", "blocked", "left"] = Field(
        description="live: it moves; blocked: it keeps the host from getting empty; left: it may stay"
    )
    to: str = Field(default="", description="where a live guest goes; it is tried first")
    rung: Literal["plain", "standstill", "slowed down", "called off"] | None = Field(
        default=None, description="what its move needs to come to its end; null: not foretold"
    )
    late: str = Field(default="", description="what becomes of it if it does not leave live in time")
    stopped: bool = Field(default=False, description="namely that it is stopped")
    why: list[str] = Field(default=[], description="what keeps it; told only, not compared")
    send_mib: int = Field(default=0, description="told only, as are the times")
    begins_s: float | None = None
    ends_s: float | None = None
    terms: Terms | None = Field(default=None, description="null: nobody protects it")


class PlannedTimes(Strict):
    """How long it was to take. Told only."""

    total_s: float
    bound_s: float
    rests_on: list[str] = []


class EvacuationPlan(Strict):
    """Hosts that are emptied together: who goes where, in which order, and what that rests on."""

    version: Literal[1]
    kind: Literal["evacuation-plan"]
    cluster: Name
    made: Name
    by: Name
    revision: int = Field(ge=0, description="of the store that it was made from")
    rules: str = Field(description="digest of the placement rules that it was made under")
    hosts: list[Name] = Field(min_length=1, max_length=1000)
    leave_unprotected: bool = False
    deadline_s: Seconds = 0.0
    summary: list[str] = []
    forecast: PlannedTimes | None = None
    guests: list[PlannedGuest] = Field(max_length=20_000, description="in their turns")

    @property
    def digest(self) -> str:
        """Which plan this is: another word in it, another plan."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def wrong(self) -> Iterator[tuple[Path, str]]:
        """What does not fit together: where, and a sentence."""
        yield from ((("hosts", at), f"{name} is there twice") for at, name in _again(self.hosts))
        yield from ((("guests", at, "id"), f"{each} is there twice") for at, each in _again(self._ids()))
        for at, guest in enumerate(self.guests):
            if guest.host not in self.hosts:
                yield ("guests", at, "host"), f"{guest.host} is not among the plan's hosts"
            if guest.fate == "live" and not guest.to:
                yield ("guests", at, "to"), f"{guest.name} moves live, so it needs a destination"
            if guest.fate != "live" and guest.to:
                yield ("guests", at, "to"), f"{guest.name} does not move, so it has no destination"
            if guest.to in self.hosts:
                yield ("guests", at, "to"), f"{guest.to} is to be emptied itself"

    def _ids(self) -> list[str]:
        return [guest.id for guest in self.guests]


def _again(names: list[Any]) -> Iterator[tuple[int, Any]]:
    seen = set()
    for at, name in enumerate(names):
        if name in seen:
            yield at, name
        seen.add(name)


class PlanDocument(Document):
    """An evacuation foretold, and the plan to save of it."""

    kind: Literal["plan"] = "plan"
    evacuation: Evacuation
    plan: EvacuationPlan


class ApplyBody(Body):
    plan: EvacuationPlan
    anyway: bool = Field(
        default=False, description="also if something is different now: then as things are now"
    )
    dry_run: bool = Field(default=False, description="only tell what is different; nothing is done")
