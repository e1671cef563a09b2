"""One cgroup for each machine: which processes are on it, seen from outside, and freezing them all at once.

The freezer is better than SIGSTOP to each process: it is one act, new children are caught, and no parent sees it.
Works with cgroup v1 (a `freezer` hierarchy) and v2. A machine's systemd always manages a cgroup2 folder: with v2 that
is the machine's group itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from integration.lab import proc
from integration.lab.layout import LabError, Layout

_V1 = Path("/sys/fs/cgroup/freezer")
_V1_UNIFIED = Path("/sys/fs/cgroup/unified")
_V2 = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cgroup:
    """The cgroup of one machine."""

    path: Path
    v1: bool
    systemd: Path
    """The cgroup2 folder that is the root of the machine's systemd."""

    @classmethod
    def of(cls, layout: Layout, machine: str) -> Cgroup:
        if (_V1 / "cgroup.procs").exists():
            return cls(_V1 / layout.netns(machine), True, _V1_UNIFIED / layout.netns(machine))
        if (_V2 / "cgroup.controllers").exists():
            return cls(_V2 / layout.netns(machine), False, _V2 / layout.netns(machine))
        raise LabError("no cgroup freezer: mount cgroup2 on /sys/fs/cgroup, or the v1 freezer below it")

    @property
    def entry(self) -> Path:
        """Where a process is put that comes from outside: cgroup2 wants none in a folder with divided resources."""
        return self.path if self.v1 else self.path / "lab"

    @property
    def outer(self) -> Path:
        """Where a process goes that leaves the machine."""
        return self.path.parent

    def create(self, *, systemd: bool) -> None:
        """Make it anew, without what the boot before left; `systemd` also makes the folder for systemd."""
        self._remove_folders()
        self.entry.mkdir(parents=True, exist_ok=True)
        if systemd:
            if not (self.systemd.parent / "cgroup.procs").exists():
                raise LabError(f"a host with systemd needs cgroup2: mount it on {self.systemd.parent}")
            self.systemd.mkdir(exist_ok=True)

    def pids(self) -> list[int]:
        """Outer pids of every process on the machine."""
        found: list[int] = []
        for folder in _folders(self.path):
            with contextlib.suppress(OSError):
                found += map(int, (folder / "cgroup.procs").read_text().split())
        return found

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
        self.kill()
        proc.wait_for(self._remove_folders, 5.0, f"{self.path} to be removed")

    def _remove_folders(self) -> bool:
        """A folder can be in use for a moment after its last process is gone: False, and it is still there."""
        folders = [*_folders(self.path), *_folders(self.systemd)]
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in folders)


def _folders(top: Path) -> list[Path]:
    """A cgroup and all below it, children first."""
    return [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]
