"""Services of one machine, supervised by runit as systemd would with Restart=always and RestartSec=1.

A definition is kept with the machine and starts at each power-on. There is no `runsvdir`: it scans only every 5 s,
so boot.sh starts one `runsv` for each service, and `install` starts one at once on a machine that runs.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from integration.lab import proc
from integration.lab.layout import LabError

if TYPE_CHECKING:
    from integration.lab.machine import Machine

SERVICE_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FAKETIME_LIBRARY: Final = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
# No pause when somebody asked for the stop: a start that follows must begin at once.
_FINISH: Final = """#!/bin/sh
grep -q 'want down' supervise/stat && exit 0
exec sleep 1
"""


class Services:
    """The services of one machine. Reached as `machine.services`, or through the machine's own methods."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._defined = machine.directory / "sv"

    def names(self) -> list[str]:
        return sorted(entry.name for entry in self._defined.iterdir()) if self._defined.is_dir() else []

    def define(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        log: str | None = None,
        faketime: bool = False,
    ) -> None:
        """Write the definition; it takes effect at the next power-on, or through `install`."""
        full = {"PATH": SERVICE_PATH, "HOME": "/root", "LANG": "C.UTF-8", **(env or {})}
        lines = ["#!/bin/sh", f"exec >> {shlex.quote(log or f'/var/log/dr/{name}.log')} 2>&1"]
        if faketime:
            control = self._faketime_file(name)
            lines.append(f"[ -e {control} ] || echo +0 > {control}")
            full |= {
                "LD_PRELOAD": _FAKETIME_LIBRARY,
                "FAKETIME_TIMESTAMP_FILE": control,
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        pairs = [f"{key}={value}" for key, value in full.items()]
        lines.append(f"exec chpst -P env -i {shlex.join(pairs)} {shlex.join(argv)}")
        target = self._defined / name
        for file, text in (("run", "\n".join(lines) + "\n"), ("finish", _FINISH)):
            proc.write_atomic(target / file, text)
            (target / file).chmod(0o755)

    def install(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        faketime: bool = False,
        start: bool = True,
    ) -> None:
        """Define a service (or replace one) and, on a machine that is on, start it now."""
        if name in self.names():
            self.remove(name)
        self.define(name, argv, env, faketime=faketime)
        if not self._machine.is_on():
            return
        target = self._live(name)
        shutil.copytree(self._defined / name, target)
        if not start:
            (target / "down").touch()
        self._machine.exec(["sh", "-c", f"cd /run/sv && setsid runsv {shlex.quote(name)} > /dev/null 2>&1 &"])
        proc.wait_for((target / "supervise" / "ok").exists, 5, f"{name} to be supervised")
        if start:
            self.start(name)

    def remove(self, name: str) -> None:
        """Stop a service and forget it."""
        if self._machine.is_on() and self._live(name).exists():
            self.stop(name)
            self._control(name, "dx")
            ok = self._live(name) / "supervise" / "ok"
            proc.wait_for(lambda: not _has_reader(ok), 5, f"the supervisor of {name} to end")
            shutil.rmtree(self._live(name))
        shutil.rmtree(self._defined / name, ignore_errors=True)

    def start(self, name: str, timeout_s: float = 5.0) -> int:
        """Start a stopped service; returns its outer pid."""
        self._control(name, "u")
        proc.wait_for(
            lambda: self.pid(name) is not None, timeout_s, f"{name} on {self._machine.name} to start"
        )
        return self.pid(name) or 0

    def stop(self, name: str, timeout_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after `timeout_s`; it stays down until `start` or the next power-on."""
        before = self.process(name)
        self._control(name, "d")
        if before is None:
            return
        try:
            proc.wait_for(lambda: not before.alive(), timeout_s, f"{name} to stop")
        except LabError:
            before.kill()

    def kill(self, name: str, number: int = signal.SIGKILL, *, stay_down: bool = False) -> None:
        """Send a signal to a service's main process. Unless `stay_down`, it is started again 1 s after it died."""
        target = self.process(name)
        if target is None:
            raise LabError(f"{name} does not run on {self._machine.name}: nothing to signal")
        if stay_down:
            self._control(name, "o")
            stat = self._live(name) / "supervise" / "stat"
            proc.wait_for(lambda: "want down" in stat.read_text(), 5, f"the supervisor of {name} to obey")
        target.signal(number)
        if number == signal.SIGKILL:
            proc.wait_for(lambda: not target.alive(), 5, f"{name} to die")

    def pid(self, name: str) -> int | None:
        """The pid of the service's main process as seen from outside the machine; None if it does not run."""
        inside = self.pid_inside(name)
        return None if inside is None else self._machine.outer_pid(inside)

    def pid_inside(self, name: str) -> int | None:
        """The same pid as the machine itself sees it."""
        try:
            # `finish` (the pause before a restart) also has a pid: it is not the service.
            if not (self._live(name) / "supervise" / "stat").read_text().startswith("run"):
                return None
            text = (self._live(name) / "supervise" / "pid").read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return int(text) if text else None

    def process(self, name: str) -> proc.Process | None:
        pid = self.pid(name)
        return None if pid is None else proc.process(pid)

    def set_clock(self, name: str, offset_s: float) -> None:
        """Jump the wall clock of a service that was installed with `faketime=True`; 0 sets it right."""
        run = self._defined / name / "run"
        if not run.exists() or _FAKETIME_LIBRARY not in run.read_text():
            raise LabError(
                f"{name} on {self._machine.name} was not installed with faketime=True: its clock is real"
            )
        control = self._machine.path(self._faketime_file(name))
        proc.wait_for(control.exists, 5.0, f"{name} to have begun")  # its first line makes the file
        control.write_text(f"{offset_s:+g}\n")

    def descendants(self, name: str) -> list[proc.Process]:
        """The service's main process and all its children, parents first."""
        top = self.process(name)
        if top is None:
            raise LabError(f"{name} does not run on {self._machine.name}")
        parents = {pid: _parent(pid) for pid in self._machine.cgroup.pids()}
        family = [top.pid]
        for pid in family:
            family += [child for child, parent in parents.items() if parent == pid]
        return [one for one in (proc.process(pid) for pid in family) if one is not None]

    def _live(self, name: str) -> Path:
        return self._machine.path("/run/sv") / name

    @staticmethod
    def _faketime_file(name: str) -> str:
        return f"/run/faketime/{name}"

    def _control(self, name: str, letters: Iterable[str]) -> None:
        control = self._live(name) / "supervise" / "control"
        for letter in letters:
            with contextlib.suppress(BrokenPipeError):
                try:
                    handle = os.open(control, os.O_WRONLY | os.O_NONBLOCK)
                except FileNotFoundError as error:
                    raise LabError(
                        f"no service {name!r} on {self._machine.name}: it has {self.names()}"
                    ) from error
                except OSError as error:
                    raise LabError(f"nobody supervises {name} on {self._machine.name}: {error}") from error
                os.write(handle, letter.encode())
                os.close(handle)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _has_reader(fifo: Path) -> bool:
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
