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


class CommandSeen(Part):
    """A command on one host, or in one guest."""

    id: str
    on: str
    argv: list[str]
    state: Literal["running", "done", "failed", "unknown"]
    says: str = ""
    code: int | None = Field(default=None, description="exit code; negative: the signal that ended it")
    last: str = Field(default="", description="the last line of its output")
    output_bytes: int = Field(default=0, description="of its whole output")
    output_sha256: str = Field(default="", description="of its whole output")


class OutputSeen(Part):
    """What one command said: stdout and stderr as they came; of more than 64 KiB, the first and the last."""

    step: int = Field(description="of the run, from 1")
    command: str = Field(description="its id")
    name: str = Field(description="as the configuration calls it")
    on: str
    argv: list[str]
    code: int | None = None
    timed_out: bool = False
    output: str = ""
    output_bytes: int = 0
    output_sha256: str = ""
    wall: float


class OutputList(Document):
    """What the commands of one run said."""

    kind: Literal["outputs"] = "outputs"
    items: list[OutputSeen] = []


class CommandRow(Part):
    """A command that playbooks may run."""

    name: str
    argv: list[str]
    where: Literal["host", "guest"]
    params: list[str] = Field(default=[], description="what a step says `with`")
    timeout_s: float
    reboots: bool = False
    powers_off: bool = False


class CommandList(Document):
    """The allow-list that is in force."""

    kind: Literal["commands"] = "commands"
    items: list[CommandRow] = []


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
    commands: list[CommandSeen] = Field(default=[], description="that it has run, or runs")


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
