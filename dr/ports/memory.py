"""Where an agent keeps its memory. Real: adapters/store/memory.py (one JSON file, written atomically with fsync)."""

from __future__ import annotations

from typing import Protocol

from dr.model.memory import AgentMemory


class MemoryStore(Protocol):
    """One agent's durable memory."""

    def load(self) -> AgentMemory:
        """Empty memory when there is none. Raises OSError, ValueError (corrupt: the file is kept as it is)."""

    def save(self, memory: AgentMemory) -> None:
        """Durable when it returns. Raises OSError."""
