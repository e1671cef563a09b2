"""Runs one program, and takes it and all its descendants along when the coordinator dies or lets go.

A script of its own (`python -I -S keeper.py PARENT_PID PROGRAM [ARGUMENT…]`), standard library only: ~15 ms.

Its standard input is both the program's input and the leash: one line with a byte count, that many bytes for
the program, and then nothing, but held open. End of file there means: the coordinator is gone, or wants an end.
Neither a process group nor PR_SET_PDEATHSIG alone would do: fence_ipmilan's ipmitool is a grandchild that would
go on switching off, and pexpect puts ssh and telnet in sessions of their own. So this process is the subreaper
of all of them and kills until it has no children left. An input that breaks off half way starts nothing.

Exit code: the program's; 128 + signal; 125 = let go; 126 = could not be started.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
INPUT_BYTES_MAX = 64 * 1024 - 1  # what a pipe takes without a reader
KILL_S = 1.0  # a process in D state does not go, however long one waits

LET_GO = 125
NOT_STARTED = 126


class LetGoError(Exception):
    """The coordinator died or closed the leash."""


def let_go(_signal: int, _frame: object) -> None:
    raise LetGoError


def read_input() -> bytes:
    """Read what the program is to get. LetGoError when it is not all there: then nothing was started."""
    buffer = b""
    while b"\n" not in buffer:
        buffer += read_some()
    count, _, body = buffer.partition(b"\n")
    wanted = int(count)
    assert wanted <= INPUT_BYTES_MAX
    while len(body) < wanted:
        body += read_some()
    return body


def read_some() -> bytes:
    data = os.read(0, 65536)
    if not data:
        raise LetGoError
    return data


def start(libc: ctypes.CDLL, argv: list[str], body: bytes) -> int:
    """Start the program with `body` as its whole standard input; its pid."""
    keeper = os.getpid()
    reader, writer = os.pipe()
    os.write(writer, body)
    os.close(writer)
    pid = os.fork()
    if pid:
        os.close(reader)
        return pid
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # only for when this keeper itself is killed
        if os.getppid() == keeper:
            os.dup2(reader, 0)
            os.execv(argv[0], argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def wait(pid: int) -> int:
    """Wait for the program's exit code; LetGoError when the leash is closed first."""
    child = os.pidfd_open(pid)
    while True:
        ready, _, _ = select.select([child, 0], [], [])
        if child in ready:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return code if code >= 0 else 128 - code
        read_some()


def kill_descendants() -> None:
    """Kill until no child is left: being the subreaper, orphans become children of this process.

    Raises OSError on a kernel without CONFIG_PROC_CHILDREN.
    """
    until = time.monotonic() + KILL_S
    while time.monotonic() < until:
        with open("/proc/thread-self/children", encoding="ascii") as children:
            pids = [int(pid) for pid in children.read().split()]
        if not pids:
            return
        for pid in pids:
            os.kill(pid, signal.SIGKILL)  # not yet waited for, so it is still this one
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= until:
                return
            time.sleep(0.002)
        os.waitpid(-1, os.WNOHANG)


def main() -> int:
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGTERM, let_go)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # The leash may have been inherited by a forked worker of the coordinator that outlives it; this cannot.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        return LET_GO
    try:
        code = wait(start(libc, argv, read_input()))
    except LetGoError:
        code = LET_GO
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        kill_descendants()
    except OSError:
        if code == LET_GO:
            os.killpg(0, signal.SIGKILL)  # this one included; what went to another session stays
    return code


if __name__ == "__main__":
    sys.exit(main())
