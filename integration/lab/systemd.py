"""A machine whose PID 1 is a real systemd: how to ask for it, and its units.

What of the real machine's systemd it gets to see is in systemd.d/view.sh, the lab's own units are in systemd.d/units.
Its /etc/systemd is its own, on its disk.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from integration.lab import proc

if TYPE_CHECKING:
    from integration.lab.machine import Machine

Init = Literal["tini", "systemd"]
_UNITS: Final = "etc/systemd/system"


class Systemd:
    """The systemd of one machine. Reached as `machine.systemd`, or through the machine's own methods."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._disk = machine.directory / "disk"

    @property
    def _choice(self) -> Path:
        return self._machine.directory / "init"

    @property
    def init(self) -> Init:
        """What becomes PID 1 at the next power-on."""
        return "systemd" if self._choice.exists() else "tini"

    @init.setter
    def init(self, init: Init) -> None:
        if init == "systemd":
            self._choice.touch()
        else:
            self._choice.unlink(missing_ok=True)

    def units(self) -> list[str]:
        """The units that were installed or changed here."""
        files = (self._disk / _UNITS).glob("*.*")
        return sorted({file.name.removesuffix(".d") for file in files if not file.name.endswith(".wants")})

    def install(self, name: str, text: str, drop_in: str | None = None, *, enable: bool = True) -> None:
        """Add (or replace) a unit, and with `enable` what its [Install] says; not started now."""
        proc.write_atomic(self._disk / _UNITS / name, text)
        if enable:
            proc.run(["systemctl", f"--root={self._disk}", "--quiet", "enable", name])
        if drop_in is None:
            self._reload()
        else:
            self.drop_in(name, drop_in)

    def drop_in(self, name: str, text: str) -> None:
        """Change a unit, as `systemctl edit` does."""
        proc.write_atomic(self._disk / _UNITS / f"{name}.d/override.conf", text)
        self._reload()

    def remove(self, name: str) -> None:
        """Stop a unit and forget it, or what was changed of one that is the system's."""
        units = self._disk / _UNITS
        if (units / name).exists():
            if self._answers():
                self._machine.systemctl("stop", name)
            proc.run(["systemctl", f"--root={self._disk}", "--quiet", "disable", name])
            (units / name).unlink()
        shutil.rmtree(units / f"{name}.d", ignore_errors=True)
        self._reload()

    def _answers(self) -> bool:
        return self._machine.is_on() and self._machine.path("/run/systemd/private").exists()

    def _reload(self) -> None:
        """A machine that is on without systemd (yet) needs none."""
        if self._answers():
            self._machine.systemctl("daemon-reload")
