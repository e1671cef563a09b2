"""What happened in a simulated world, in order: a kind, the names that take part, and a sentence.

Here: one entry and how it is shown. Not here: who says what. Entries are made by the world's own seed only, so the
same world says the same, byte for byte.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Said(NamedTuple):
    """One entry. `fields` name what takes part: host, guest, operation, reason, …"""

    t_s: float  # since the beginning of the world
    kind: str
    text: str
    fields: dict[str, str | int | float]

    def line(self) -> str:
        """For people."""
        return f"{self.t_s:10.4f} {self.text}"

    def plain(self, begun_s: float = 0.0) -> dict[str, Any]:
        """For programs; times count from `begun_s`."""
        return {"t_s": round(self.t_s - begun_s, 4), "kind": self.kind} | self.fields | {"text": self.text}
