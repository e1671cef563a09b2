"""Operations: what was asked for or decided, with its history. What `dr job` shows, and the store keeps.

Times are seconds of leader time, as in `dr.model.records`.
"""

from __future__ import annotations

from enum import StrEnum

from dr.model.base import GuestId, HostName, Record
from dr.model.playbooks import Run

GUEST_CHECK = "guest-check"  # the kind that only looks at its guests: whatever else goes on with them goes on


class OperationState(StrEnum):
    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Step(Record):
    """One line in an operation's history."""

    at: float  # leader time
    text: str


class Planned(Record):
    """Where an approved plan sends a guest, and its turn among all guests of the plan."""

    to: HostName
    turn: int


class Operation(Record):
    """Something that was asked for or decided, with its history; what `dr job` shows."""

    id: str
    kind: str  # "failover", "fence", "fence-test", "guest-start", "guest-stop", "protect", …
    subject: str  # host or guest name
    state: OperationState = OperationState.OPEN
    why: str = ""
    asked_by: str = "dr"
    opened: float = 0.0
    closed: float = 0.0
    guests: dict[GuestId, str] = {}  # outcome so far, per guest
    planned: dict[GuestId, Planned] = {}  # of a drain that follows an approved plan
    foreseen_s: float = 0.0  # how long it was to take, told when it was opened; 0 = nothing was told
    steps: tuple[Step, ...] = ()
    run: Run | None = None  # of a playbook
    hooks: dict[
        str, str
    ] = {}  # of a failover: what became of each, by when: the job that it is, or why it is none
