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


class RunSeen(Part):
    """How far the run of a playbook is."""

    params: dict[str, str] = {}
    part: Literal["steps", "undo", "finally"] = "steps"
    failed: str = ""
    cancelled: str = ""
    rto_s: float = Field(default=0.0, description="what was to be reached; 0: nothing")
    steps: list[RunStepSeen] = []
