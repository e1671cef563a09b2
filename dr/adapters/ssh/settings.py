"""How hosts are reached over SSH. Apart from `runner`, so that reading a configuration loads no SSH library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SshSettings:
    """Files are read anew for each connection."""

    user: str
    key: Path
    known_hosts: Path
    port: int = 22
