"""Which fence agents are on this machine, and which can never prove a host dead."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

AGENT_FOLDERS = (Path("/usr/sbin"), Path("/usr/local/sbin"))
PACKAGE = "fence-agents"

# The symbolic links of fence_ipmilan; True where the agent sets lanplus by itself.
IPMI = {
    "fence_ipmilan": False,
    "fence_ipmilanplus": True,
    "fence_ilo3": True,
    "fence_ilo4": True,
    "fence_ilo5": True,
    "fence_imm": False,
    "fence_idrac": False,
}
REDFISH = frozenset({"fence_redfish"})

_FABRIC = "cuts a host off its storage or network and leaves its guests running"
_BLIND = "cannot read the power state back"
_NOTHING = "switches nothing off"

# From fence-agents 4.12 (`fabric_fencing`, `no_status`) and from what the others do.
NO_PROOF = {
    "fence_ack_manual": f"{_NOTHING}: use `dr host confirm-down`",
    "fence_brocade": _FABRIC,
    "fence_cisco_mds": _FABRIC,
    "fence_compute": _NOTHING,
    "fence_crosslink": _NOTHING,
    "fence_dummy": _NOTHING,
    "fence_evacuate": _NOTHING,
    "fence_heuristics_ping": _NOTHING,
    "fence_ifmib": _FABRIC,
    "fence_kdump": _NOTHING,
    "fence_mpath": _FABRIC,
    "fence_ovh": _BLIND,
    "fence_rcd_serial": _BLIND,
    "fence_sanbox2": _FABRIC,
    "fence_sbd": "asks the host to switch itself off; its status is a message, not a power state",
    "fence_scsi": _FABRIC,
}


@dataclass(frozen=True)
class Agent:
    """One fence agent on this machine."""

    name: str
    path: Path
    why_not: str = ""  # why it can prove nothing; empty: usable
    identifies: bool = False  # its device can be asked for an identity


def available_agents(folders: tuple[Path, ...] = AGENT_FOLDERS) -> tuple[Agent, ...]:
    """Every fence agent found here, by name, usable or not."""
    names = {path.name for folder in folders if folder.is_dir() for path in folder.glob("fence_*")}
    found = []
    for name in sorted(names):
        path = find(name, folders)
        if path and os.access(path, os.X_OK):
            found.append(Agent(name, path, NO_PROOF.get(name, ""), name in IPMI or name in REDFISH))
    return tuple(found)


def find(name: str, folders: tuple[Path, ...] = AGENT_FOLDERS) -> Path | None:
    """Where the agent is. Only a plain agent's name is looked for, never a path."""
    if not re.fullmatch(r"fence_[a-z0-9_]+", name):
        return None
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def why_unusable(name: str, folders: tuple[Path, ...] = AGENT_FOLDERS) -> str:
    """Why this agent cannot be used here, with what to do; empty when it can."""
    if name in NO_PROOF:
        return f"{name} {NO_PROOF[name]}, so it proves nothing about a host; configure a power fence agent"
    path = find(name, folders)
    if path is None:
        return f"fence agent {name} is not on this machine; run: apt install {PACKAGE}"
    if not os.access(path, os.X_OK):
        return f"fence agent {path} is not executable; run: apt install --reinstall {PACKAGE}"
    return ""
