"""The shape of what is asked of drills and told of them; field by field as `dr.model.drills` has it.

Not here: how a dry run is carried out (`drilling`), how a report looks on paper (`drill_page`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

import msgspec
from pydantic import Base64Bytes, BaseModel, Field

from dr.api.shapes import Body, Document, Part
from dr.model.base import Record

Verdict = Literal["passed", "failed", "unknown", "left"]
Kind = Literal["dry", "isolated", "live"]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class DrillBody(Body):
    """What a dry run is to be about: `lose`, or `sweep`."""

    lose: list[Name] = Field(
        default=[], max_length=1000, description="hosts, or label:key=value for all that have it; all at once"
    )
    sweep: Literal["", "each", "pairs"] = Field(
        default="", description="every single host, or every pair, one after the other"
    )
    rto_s: float = Field(default=0.0, ge=0, le=864_000, description="the objective; 0: none")
    limit: int = Field(default=2000, ge=0, le=1_000_000, description="pairs that are worked through at most")
    save: bool = True


class PhaseTook(Part):
    phase: str = Field(description="detect, prove, wait, start, check, …")
    begins_s: float
    ends_s: float
    known: Literal["measured", "alike", "assumed"] = Field(
        default="measured",
        description="of this very thing; of others here; nowhere: the most that it may take",
    )
    text: str = ""


class CheckSeen(Part):
    check: str
    passed: bool | None
    text: str = ""
    took_s: float | None = None


class Evidence(Part):
    title: str
    text: str = ""
    png: Base64Bytes = Field(default=b"", description="a picture")


class GuestRow(Part):
    """What became of one guest, or would."""

    guest: str
    name: str
    host: str = Field(default="", description="that it was lost with")
    to: str = Field(default="", description="where it runs again; empty: nowhere")
    verdict: Verdict = "passed"
    why: str = ""
    todo: str = ""
    phases: list[PhaseTook] = []
    recovered_s: float | None = Field(
        default=None, description="until it does its work; null: it never does, or nobody knows when"
    )
    objective_s: float = 0.0
    checks: list[CheckSeen] = []
    evidence: list[Evidence] = []


class Case(Part):
    """One case of a sweep: these hosts at once."""

    lost: list[str]
    verdict: Verdict
    guests: int = 0
    stranded: int = Field(default=0, description="of these, who would fit nowhere")
    recovered_s: float | None = None
    why: str = ""


class Looked(Part):
    """How many cases there are, and what was done about them."""

    of: int
    worked: int = Field(description="worked through one by one")
    proven: int = Field(default=0, description="fit for sure, by room alone")
    shown: int = Field(default=0, description="stand in `cases`")


class TimelineEntry(Part):
    at_s: float
    text: str


class Finding(Part):
    severity: Literal["critical", "warning", "info"]
    text: str
    todo: str = ""


class DrillRow(Part):
    """What a list tells of a drill."""

    id: str
    kind: Kind
    title: str
    asked_by: str
    began: float = Field(description="unix time")
    ended: float
    verdict: Verdict
    says: str = Field(description="the verdict in one sentence")
    objective_s: float = 0.0
    recovered_s: float | None = None


class DrillReport(DrillRow):
    """One drill, from its question to its verdict."""

    reason: str = ""
    cluster: str = ""
    revision: int = 0
    lost: list[str] = []
    guests: list[GuestRow] = []
    cases: list[Case] = Field(default=[], description="of a sweep: the worst first")
    looked: Looked | None = None
    timeline: list[TimelineEntry] = []
    findings: list[Finding] = []
    evidence: list[Evidence] = []
    rests_on: list[str] = []


class DrillList(Document):
    kind: Literal["drills"] = "drills"
    items: list[DrillRow]


class DrillDocument(Document):
    """A drill: under way, over, or come to nothing."""

    kind: Literal["drill"] = "drill"
    id: str
    state: Literal["running", "done", "failed"]
    done: int = Field(default=0, description="cases that are looked at by now")
    of: int = 0
    why: str = Field(default="", description="it came to nothing")
    kept: bool = Field(default=True, description="its report is in the store")
    report: DrillReport | None = None


# Before a time that was not measured of this very thing: as others here took, or the most that it may take.
MARKS = {"measured": "", "alike": "≈ ", "assumed": "≤ "}


def mark(phases: Sequence[PhaseTook]) -> str:
    """Before the time that these take together."""
    known = {each.known for each in phases}
    return MARKS["assumed" if "assumed" in known else "alike" if "alike" in known else "measured"]


S = TypeVar("S", bound=BaseModel)


def shown(record: Record, shape: type[S]) -> S:
    """A record in its shape. Both have the same fields, so there is nothing to choose."""
    return shape.model_validate(msgspec.to_builtins(record))
