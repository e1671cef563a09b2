"""One session with the coordinator, as the agent's parts share it. Nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from dr.ports.link import AgentLink


@dataclass(eq=False)
class Session:
    """From Welcome to the end of its link."""

    link: AgentLink
    id: str  # the coordinator's nonce: tickets of this session carry it
    echo: str  # newest nonce that came from the coordinator
    heartbeat_s: float
    heard: float  # when the last message came, on the agent's clock
