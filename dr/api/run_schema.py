"""The shape of what is asked of playbooks and told of their runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dr.api.shapes import Body, Document, Part


class RunBody(Body):
    playbook: dict[str, Any] = Field(description="the playbook, as its YAML reads")
    params: dict[str, str] = Field(default={}, max_length=100)
    dry_run: bool = Field(default=False, description="only tell what each step would do now; nothing is done")


class AnswerBody(Body):
    agree: bool


class PlannedStep(Part):
    """What one step would do if it were its turn now."""

    part: Literal["steps", "finally"]
    text: str
    todo: list[str] = Field(
        default=[], description="what it wants and is not so yet; empty: nothing is to be done"
    )
    why: list[str] = Field(default=[], description="it would be refused, or not be whole")
    left_out: str = Field(default="", description="its `when` is not so now")
    takes_s: float | None = Field(default=None, description="as foretold; null: nothing was")
    timeout_s: float


class RunAccepted(Document):
    """A playbook is run, or would be."""

    kind: Literal["run"] = "run"
    message: str = Field(default="", description="of a dry run: what it requires and is not so")
    operations: list[str] = []
    steps: list[PlannedStep] = []


class RunStepSeen(Part):
    """One step of a run."""

    part: Literal["steps", "undo", "finally"]
    text: str
    state: Literal["waiting", "running", "done", "failed", "skipped"]
    says: str = Field(default="", description="what came of it, or what it waits for")
    began_wall: float | None = None
    took_s: float | None = Field(default=None, description="so far, if it runs")
    tries: int = 0
    jobs: list[str] = Field(default=[], description="what it opened")


class CloneSeen(Part):
    """One clone of a drill."""

    guest: str = Field(description="the name of the guest that was cloned")
    host: str
    state: Literal["making", "made", "booting", "running", "failed"]
    domain: str = Field(default="", description="what it was called there")
    point_wall: float | None = Field(
        default=None, description="all that its disks held was written before that"
    )
    copied_s: float | None = Field(default=None, description="how long the copying took")
    copied_mib: int | None = None
    booted_s: float | None = Field(default=None, description="from when its start was asked for until it ran")
    answers_s: float | None = Field(default=None, description="and until its guest's checks had passed")
    left_out: list[str] = Field(default=[], description="what the guest has and its clone had not")
    says: str = ""


class DrillEnded(Part):
    """What a drill left on one host, and how it found the guests that it cloned there."""

    host: str
    done: bool = Field(description="the host says that nothing is left")
    says: str = ""
    kept: list[str] = Field(
        default=[], description="guests that are as they were before, and how that is known"
    )
    changed: list[str] = Field(default=[], description="guests that are not, and what is different")
    bridge: str = ""
    ports: list[str] = Field(default=[], description="what hung on its network")
    strangers: list[str] = Field(default=[], description="of these, what should not have")
    removed: list[str] = []


class RunSeen(Part):
    """How far the run of a playbook is."""

    params: dict[str, str] = {}
    part: Literal["steps", "undo", "finally"] = "steps"
    failed: str = ""
    cancelled: str = ""
    rto_s: float = Field(default=0.0, description="what was to be reached; 0: nothing")
    steps: list[RunStepSeen] = []
    clones: list[CloneSeen] = Field(default=[], description="of a drill")
    ends: list[DrillEnded] = Field(default=[], description="of a drill, on each host that it came to")
