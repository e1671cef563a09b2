"""What /proc shows of QEMU and libvirtd: the second view on a guest, which needs no libvirt.

A process in D state runs: it may still write. A zombie runs only while one of its other threads lives. A QEMU that was
killed while its I/O hangs has already lost its command line, and waits in D state for that I/O: it is told by its name
and its cgroup, and where the cgroup does not say whose it is, it is a doubt about every guest.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

DAEMONS = ("libvirtd", "virtqemud")
ENDED = ("Z", "X", "x")
PF_KTHREAD = 0x00200000  # include/linux/sched.h


class ProcUnreadable(Exception):
    """/proc could not be read for sure; the text says what."""


@dataclass(frozen=True)
class Process:
    """A process as far as it matters here."""

    pid: int
    state: str  # one letter of /proc/PID/stat: R, S, D, T, Z, …
    kernel: bool = False  # a thread of the kernel's own


@dataclass(frozen=True)
class Scan:
    """QEMU processes of one guest, and those that may be anybody's."""

    found: tuple[Process, ...] = ()
    doubtful: tuple[Process, ...] = ()


def find_qemu(proc: Path, guest: str, name: str = "") -> Scan:
    """QEMU processes of a guest that may still act, found by `-uuid UUID` or `-name guest=NAME,…`.

    Raises ProcUnreadable.
    """
    found, doubtful = [], []
    for pid in _pids(proc):
        arguments = _cmdline(proc, pid) or _thread_cmdline(proc, pid)
        if arguments and not _is_qemu_of(arguments, guest, name):
            continue
        process = _living(proc, pid)
        if process is None or process.kernel:
            continue
        if arguments or _belongs(proc, pid, name) is True:
            found.append(process)
        elif _belongs(proc, pid, name) is None:
            doubtful.append(process)
    return Scan(found=tuple(found), doubtful=tuple(doubtful))


def living_daemons(proc: Path) -> list[Process]:
    """libvirt's daemons and their children that have not become another program yet (a start in the making).

    Such a child has the daemon's executable, and the name of the thread that made it. Raises ProcUnreadable.
    """
    found = []
    for pid in _pids(proc):
        if not _is_daemon(proc, pid):
            continue
        process = _living(proc, pid)
        if process is not None:
            found.append(process)
    return found


def _is_daemon(proc: Path, pid: int) -> bool:
    comm = _read(proc / str(pid) / "comm") or b""
    if comm.decode("utf-8", "replace").strip() in DAEMONS:
        return True
    try:
        program = os.readlink(proc / str(pid) / "exe")
    except (FileNotFoundError, ProcessLookupError):
        return False  # gone, a zombie, or a thread of the kernel's
    except OSError as error:
        raise ProcUnreadable(f"{proc}/{pid}/exe cannot be read: {error.strerror}") from error
    return os.path.basename(program.removesuffix(" (deleted)")) in DAEMONS


def _is_qemu_of(arguments: list[str], guest: str, name: str) -> bool:
    """By UUID; by name only where the command line has no UUID."""
    options = dict(pairwise(arguments))
    if "-uuid" in options:
        return options["-uuid"].lower() == guest.lower()
    if not name or "-name" not in options:
        return False
    escaped = name.replace(",", ",,")
    return re.match(rf"(guest=)?{re.escape(escaped)}(,(?!,)|$)", options["-name"]) is not None


def _pids(proc: Path) -> list[int]:
    try:
        pids = [int(entry) for entry in os.listdir(proc) if entry.isdigit()]
    except OSError as error:
        raise ProcUnreadable(f"{proc} cannot be read: {error.strerror}") from error
    if not pids:
        raise ProcUnreadable(f"{proc} shows no process at all")
    return pids


def _read(path: Path) -> bytes | None:
    """None when the process is gone. Raises ProcUnreadable when it is there and may not be read."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise ProcUnreadable(f"{path} cannot be read: {error.strerror}") from error


def _cmdline(proc: Path, pid: int) -> list[str]:
    """Empty for the kernel's threads, and for a process that is ending (see the top)."""
    raw = _read(proc / str(pid) / "cmdline")
    return raw.decode("utf-8", "surrogateescape").split("\0") if raw else []


def _thread_cmdline(proc: Path, pid: int) -> list[str]:
    """The command line through a living thread, for a process whose first thread has ended."""
    stat = _read(proc / str(pid) / "stat")
    if stat is None or _state(stat)[0] not in ENDED:
        return []
    for thread, state in _threads(proc, pid):
        raw = _read(proc / str(pid) / "task" / str(thread) / "cmdline") if state not in ENDED else None
        if raw:
            return raw.decode("utf-8", "surrogateescape").split("\0")
    return []


def _belongs(proc: Path, pid: int, name: str) -> bool | None:
    """Whether a process without a command line is the QEMU of guest `name`; None when that cannot be told."""
    comm = _read(proc / str(pid) / "comm") or b""
    if b"qemu" not in comm and b"kvm" not in comm:
        return False
    cgroup = (_read(proc / str(pid) / "cgroup") or b"").decode("utf-8", "replace")
    scope = _SCOPE.search(cgroup)
    if scope is None or not name:
        return None
    return _escaped(name).startswith(scope["name"])


# machined's scope of a guest, "machine-qemu\x2d7\x2dweb1.scope": the name is escaped and may be cut short.
_SCOPE = re.compile(r"machine-qemu\\x2d\d+\\x2d(?P<name>[^/]+)\.scope")


def _escaped(name: str) -> str:
    """A guest's name as systemd writes it in a unit's name."""
    return "".join(c if c.isascii() and (c.isalnum() or c in ":_.") else _hex(c) for c in name)


def _hex(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode())


def _state(stat: bytes) -> tuple[str, int]:
    """State and flags; the second field is a name in brackets that may hold anything."""
    fields = stat.rpartition(b")")[2].split()
    if len(fields) < 7:
        raise ProcUnreadable("a stat file in /proc has too few fields")
    return fields[0].decode(), int(fields[6])


def _living(proc: Path, pid: int) -> Process | None:
    """The process unless it is gone, dead, or a zombie without another thread."""
    stat = _read(proc / str(pid) / "stat")
    if stat is None:
        return None
    state, flags = _state(stat)
    if state not in ENDED:
        return Process(pid=pid, state=state, kernel=bool(flags & PF_KTHREAD))
    for thread, thread_state in _threads(proc, pid):
        if thread != pid and thread_state not in ENDED:
            return Process(pid=pid, state=thread_state)
    return None


def _threads(proc: Path, pid: int) -> list[tuple[int, str]]:
    try:
        threads = [int(entry) for entry in os.listdir(proc / str(pid) / "task")]
    except (FileNotFoundError, ProcessLookupError):
        return []
    except OSError as error:
        raise ProcUnreadable(f"/proc/{pid}/task cannot be read: {error.strerror}") from error
    found = []
    for thread in threads:
        stat = _read(proc / str(pid) / "task" / str(thread) / "stat")
        if stat is not None:
            found.append((thread, _state(stat)[0]))
    return found
