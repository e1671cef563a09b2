"""Where saved decisions are kept. Real: adapters/store/decisions.py (a folder). The file's form: `core.saved`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Decisions(Protocol):
    """Bounded: the oldest go first. Both methods block."""

    def put(self, decision: str, pieces: Iterable[bytes]) -> None:
        """Keep it under that id. Raises OSError, and then there is no half of it."""

    def read(self, decision: str) -> bytes | None:
        """None: it was never kept, or is gone by now. Raises OSError."""
