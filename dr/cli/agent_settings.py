"""What an agent is told by its file. Small on purpose: what the coordinator can tell an agent is not repeated here.

Apart from `agent_config`, which reads the file, so that a running agent does not carry the YAML reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

DEFAULT_FILE = Path("/etc/dr/agent.yaml")
DEFAULT_STATE_DIR = "/var/lib/dr/agent"
DEFAULT_CLONES_DIR = "/var/lib/dr/clones"
COPY_PORT = 7312  # next to the API's 7310 and the link's 7311
LEVELS = ("debug", "info", "warning", "error")


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent's configuration that can be used."""

    host: str
    cluster: str
    coordinators: list[str]
    state_dir: str = DEFAULT_STATE_DIR
    libvirt_uri: str = "qemu:///system"
    migration_uri: str = ""  # empty: no live migration
    migration_tls: bool = False  # memory that is sent is encrypted by QEMU
    migration_address: str = (
        ""  # where memory and disks of guests that come here are sent; empty: as libvirt has it
    )
    copy_port: int = COPY_PORT
    clones_dir: str = DEFAULT_CLONES_DIR
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def pki_dir(self) -> Path:
        return Path(self.state_dir) / "pki"
