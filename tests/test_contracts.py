"""Promises about the shape of the package that import-linter (pyproject.toml) cannot see from the source."""

import pkgutil
import subprocess
import sys
from importlib import import_module, resources
from importlib.util import find_spec

import dr.agent

# Each costs the agent megabytes on every host: 56 MiB instead of 32 (STYLE.md, "the agent's memory").
HEAVY = {
    "asyncssh",
    "cryptography",
    "fastapi",
    "httpx",
    "numpy",
    "paramiko",
    "pydantic",
    "rich",
    "typer",
    "uvicorn",
}

# What the agent process is made of besides dr.agent: its adapters, and the part of the command that wires them.
AGENT_SIDE = [
    "dr.adapters.clones",
    "dr.adapters.courier",
    "dr.adapters.libvirt",
    "dr.adapters.health",
    "dr.adapters.link",
    "dr.adapters.probe",
    "dr.adapters.store.memory",
    "dr.adapters.pki.credentials",
    "dr.adapters.systemd",
    "dr.adapters.watchdog",
    "dr.cli.agent_process",
]

LOAD = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sys.modules)
"""


def modules_below(name: str) -> list[str]:
    """Name the module and everything in it; nothing if it was not written yet."""
    if find_spec(name) is None:
        return []
    path = getattr(import_module(name), "__path__", [])
    return [name, *(found.name for found in pkgutil.walk_packages(path, f"{name}."))]


def test_agent_loads_no_heavy_library() -> None:
    names = modules_below(dr.agent.__name__) + [below for name in AGENT_SIDE for below in modules_below(name)]
    run = subprocess.run([sys.executable, "-c", LOAD, *names], check=True, capture_output=True, text=True)
    loaded = {module.partition(".")[0] for module in run.stdout.split()}
    assert not loaded & HEAVY, f"imported by one of {names}"


def test_package_ships_playbooks_and_units() -> None:
    shipped = resources.files("dr")
    assert (shipped / "playbooks" / "README.md").is_file()
    for unit in ("dr-agent.service", "dr-coordinator.service"):
        assert "Type=notify" in (shipped / "systemd" / unit).read_text()
    assert "dr agent leave" in (shipped / "systemd" / "dr-leave.service").read_text()
