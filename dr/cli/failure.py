"""How a command ends badly: exit codes, and errors that say what happened, why, and what to type next.

Loaded by the agent too: standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `dr`; scripts rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DEGRADED = 3
    CHANGES = 4
    BAD_DATA = 65
    UNREACHABLE = 69
    TRY_AGAIN = 75
    DENIED = 77
    BAD_CONFIG = 78
    MISSING = 105
    NO_LEADER = 106
    REFUSED = 107
    UNKNOWN = 112
    TIMED_OUT = 124
    INTERRUPTED = 130


class Failure(Exception):
    """Ends the command with a code and a message for people."""

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        todo: str = "",
        code: Exit = Exit.FAILED,
        blockers: Sequence[str] = (),
    ) -> None:
        super().__init__(what)
        self.what, self.why, self.todo, self.code, self.blockers = what, why, todo, code, tuple(blockers)

    def text(self) -> str:
        lines = [f"error: {self.what}"]
        if self.blockers:
            lines += ["  because:", *(f"    - {blocker}" for blocker in self.blockers)]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.todo:
            lines.append(f"  next: {self.todo}")
        return "\n".join(lines)


def tell(text: str) -> None:
    """Say something that is not data."""
    print(text, file=sys.stderr, flush=True)
