"""Processes: run a command, start a long-lived one that records itself, signal one by pid and start time.

Nothing here knows what a host or a guest is. No process is ever looked up by name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from integration.lab.layout import LabError

# The process writes its own pid and start time, then becomes the real thing: a launcher killed at any moment
# leaves either nothing or a process that is on record. `$1` pid file, `$2` cgroup (or empty), the rest is argv.
_RECORD_AND_EXEC = r"""
pid_file=$1; group=$2; shift 2
if [ -n "$group" ]; then echo $$ > "$group/cgroup.procs" || exit 97; fi
read -r line < /proc/self/stat
printf '%s\n' "$line" | { read -r pid _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ start _; echo "$pid $start"; } \
    > "$pid_file.new" && mv "$pid_file.new" "$pid_file" || exit 98
exec "$@"
"""


@dataclass(frozen=True)
class Process:
    """A process, told from a later one with the same pid by its start time (clock ticks since boot)."""

    pid: int
    start_ticks: int

    def alive(self) -> bool:
        """False also for a zombie without another thread: it does nothing any more.

        A killed process is a zombie before its last thread has ended, and till then its sockets still answer.
        """
        stat = _stat(self.pid)
        return (
            stat is not None
            and stat.start_ticks == self.start_ticks
            and (stat.state not in "ZX" or stat.threads > 1)
        )

    def signal(self, number: int) -> bool:
        """Send a signal to exactly this process; False if it is gone. A reused pid is never hit."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def stop(self, timeout_s: float = 10.0) -> None:
        """SIGSTOP and wait until every thread stands still: each stops only when it is next on a CPU.

        Nothing where the process is gone. Raises LabError if one goes on.
        """
        if self.signal(signal.SIGSTOP):
            wait_for(self._stands_still, timeout_s, f"process {self.pid} to heed SIGSTOP")

    def _stands_still(self) -> bool:
        try:
            threads = [int(name) for name in os.listdir(f"/proc/{self.pid}/task")]
        except (FileNotFoundError, ProcessLookupError):
            return True
        return all((stat := _stat(thread)) is None or stat.state in "TtZX" for thread in threads)

    def kill(self, timeout_s: float = 10.0) -> None:
        """SIGKILL and wait until it is gone. Raises LabError if it does not go."""
        if self.signal(signal.SIGKILL):
            wait_for(lambda: not self.alive(), timeout_s, f"process {self.pid} to die of SIGKILL")


class _Stat(NamedTuple):
    state: str  # one letter: R, S, D, Z, …
    threads: int
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    """What /proc says of a process, None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[17]), int(fields[19]))


def process(pid: int) -> Process | None:
    """The process that has this pid now, None if there is none."""
    stat = _stat(pid)
    return None if stat is None else Process(pid, stat.start_ticks)


def recorded(pid_file: Path) -> Process | None:
    """The process on record in a pid file, if it still lives."""
    try:
        pid, start = pid_file.read_text().split()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    found = Process(int(pid), int(start))
    return found if found.alive() else None


def spawn(
    argv: Sequence[str],
    *,
    pid_file: Path,
    log: Path,
    netns: Path | None = None,
    cgroup: Path | None = None,
    env: dict[str, str] | None = None,
) -> Process:
    """Start a process that outlives this one and return it once it is on record in `pid_file`.

    It belongs to PID 1 of the machine, in a session of its own, so nobody here has to reap it.
    """
    pid_file.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    enter = ["nsenter", f"--net={netns}", "--"] if netns else []
    group = str(cgroup) if cgroup else ""
    inner = ["setsid", "sh", "-c", _RECORD_AND_EXEC, "lab-spawn", str(pid_file), group, *enter, *argv]
    with log.open("ab") as out:
        subprocess.run(
            ["sh", "-c", '"$@" &', "lab-spawn", *inner],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=env,
            cwd="/",
            check=True,
        )
    wait_for(pid_file.exists, 5.0, f"{argv[0]} to start (its output is in {log})", interval_s=0.002)
    started = recorded(pid_file)
    if started is None:
        raise LabError(f"{argv[0]} ended at once; its output is in {log}")
    return started


def run(
    argv: Sequence[str], *, stdin: str | None = None, timeout_s: float = 30.0, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command and return its output as text. Raises LabError with its stderr when it fails.

    It dies with this process: what a killed `up` had begun must not go on beside the next one.
    """
    try:
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL if stdin is None else None,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end after {timeout_s:g} s: {' '.join(argv)}") from error
    if done.returncode == 127:
        raise LabError(f"{argv[0]} is not installed: packages/apt-install integration/lab/apt.txt")
    if check and done.returncode != 0:
        raise LabError(
            f"exit {done.returncode} from {' '.join(argv)}: {(done.stderr or done.stdout).strip()}"
        )
    return done


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str, interval_s: float = 0.005) -> None:
    """Wait until `condition()` holds. Raises LabError naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(interval_s)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, against other processes and other threads. The kernel frees it at death."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader, or a kill half way, sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
