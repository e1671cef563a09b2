"""One cgroup for each machine: which processes are on it, seen from outside, and freezing them all at once.

The freezer is better than SIGSTOP to each process: it is one act, new children are caught, and no parent sees it.
Works with cgroup v1 (a `freezer` hierarchy) and v2.
"""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path

from integration.lab import proc
from integration.lab.layout import LabError, Layout

_V1 = Path("/sys/fs/cgroup/freezer")
_V2 = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cgroup:
    """The cgroup of one machine."""

    path: Path
    v1: bool

    @classmethod
    def of(cls, layout: Layout, machine: str) -> Cgroup:
        if (_V1 / "cgroup.procs").exists():
            return cls(_V1 / layout.netns(machine), True)
        if (_V2 / "cgroup.controllers").exists():
            return cls(_V2 / layout.netns(machine), False)
        raise LabError("no cgroup freezer: mount cgroup2 on /sys/fs/cgroup, or the v1 freezer below it")

    def create(self) -> None:
        self.path.mkdir(exist_ok=True)

    def pids(self) -> list[int]:
        """Outer pids of every process on the machine."""
        try:
            return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]
        except (FileNotFoundError, OSError):
            return []

    def freeze(self) -> None:
        """Stop every process of the machine; returns when all of them stand still."""
        if self.v1:

            def frozen() -> bool:
                (self.path / "freezer.state").write_text("FROZEN")
                return self.frozen()
        else:
            (self.path / "cgroup.freeze").write_text("1")
            frozen = self.frozen
        proc.wait_for(frozen, 5.0, f"every process in {self.path} to freeze")

    def thaw(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.v1:
                (self.path / "freezer.state").write_text("THAWED")
            else:
                (self.path / "cgroup.freeze").write_text("0")

    def frozen(self) -> bool:
        try:
            if self.v1:
                return (self.path / "freezer.state").read_text().strip() == "FROZEN"
            return "frozen 1" in (self.path / "cgroup.events").read_text()
        except FileNotFoundError:
            return False

    def kill(self) -> None:
        """SIGKILL everything in it, frozen or not, and wait until it is empty."""

        def emptied() -> bool:
            for pid in self.pids():
                one = proc.process(pid)
                if one is not None:
                    one.signal(signal.SIGKILL)
            self.thaw()  # v1: a frozen process dies only when it thaws; its SIGKILL comes before any of its own code
            return not self.pids()

        proc.wait_for(emptied, 15.0, f"every process in {self.path} to die", interval_s=0.01)

    def remove(self) -> None:
        if self.path.exists():
            self.kill()
            with contextlib.suppress(OSError):
                self.path.rmdir()
