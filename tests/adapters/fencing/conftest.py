"""Fake fence agents: real programs that speak the agents' protocol, each with one fault."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dr.adapters.fencing.agents import FenceAgents
from dr.adapters.fencing.identity import Identity
from dr.model.policy import FenceDevice, FenceLevel

# What every fake begins with: parameters from stdin only, state in a file, a journal of all that was asked.
PREAMBLE = f"""#!{sys.executable} -IS
import os, sys, time
assert len(sys.argv) == 1, sys.argv
options = dict(line.strip().split("=", 1) for line in sys.stdin if "=" in line)
action, state = options["action"], options["ip"]
with open(state + ".journal", "a") as journal:
    journal.write(action + "\\n")
def power(to=None):
    if to:
        open(state, "w").write(to)
    return open(state).read()
def status():
    print("Status: " + power().upper())
    sys.exit(2 if power() == "off" else 0)
def switch():
    print("Success: Already " + action.upper() if power() == action else "Success: Powered " + action.upper())
    power(action)
    sys.exit(0)
def fail(text, code=1):
    print("2026-01-01 00:00:00,000 ERROR: " + text + "\\n\\n\\nPlease use '-h' for usage", file=sys.stderr)
    sys.exit(code)
"""
GOOD = "status() if action == 'status' else switch()"


class Rack:
    """A folder of fake agents and the outlets that they switch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def agent(self, name: str, behaviour: str = GOOD) -> str:
        path = self.folder / name
        path.write_text(PREAMBLE + behaviour + "\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return name

    def device(self, agent: str, name: str = "d1", *, power: str = "on", **parameters: str) -> FenceDevice:
        outlet = self.folder / f"outlet-{name}"
        outlet.write_text(power)
        return FenceDevice(name=name, agent=agent, parameters={"ip": str(outlet), **parameters})

    def power(self, device: FenceDevice) -> str:
        return Path(device.parameters["ip"]).read_text()

    def journal(self, device: FenceDevice) -> list[str]:
        path = Path(device.parameters["ip"] + ".journal")
        return path.read_text().split() if path.exists() else []

    def agents(
        self, *, guid: Callable[[FenceDevice], str] = lambda _: "", read_s: float = 3.0, on_s: float = 5.0
    ) -> FenceAgents:
        async def ask(device: FenceDevice, _timeout_s: float) -> Identity:
            return Identity(guid(device))

        return FenceAgents(folders=(self.folder,), read_s=read_s, on_s=on_s, ask=ask)


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return Rack(tmp_path)


def level(*devices: FenceDevice) -> FenceLevel:
    return FenceLevel(devices=devices)
