"""Saved decisions as files in one folder, the oldest removed first.

They explain, they decide nothing: a crash may lose the last ones, so nothing here waits for the disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

COUNT_MAX = 2_000
BYTES_MAX = 512 * 2**20
ID = re.compile(r"\d{1,12}-\d{1,16}")
HALF = ".half"


class DecisionFiles:
    """`ports.decisions.Decisions`. One thread at a time may `put`."""

    def __init__(self, folder: Path, *, count_max: int = COUNT_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._folder = folder
        self._count_max = count_max
        self._bytes_max = bytes_max

    def put(self, decision: str, pieces: Iterable[bytes]) -> None:
        """Raises OSError."""
        assert ID.fullmatch(decision), decision
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        half = self._folder / (decision + HALF)
        half.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                for piece in pieces:
                    out.write(piece)
            half.rename(self._path(decision))
        except BaseException:
            half.unlink(missing_ok=True)
            raise
        self._make_room(keep=self._path(decision))

    def read(self, decision: str) -> bytes | None:
        """Raises OSError."""
        if not ID.fullmatch(decision):
            return None
        try:
            return self._path(decision).read_bytes()
        except FileNotFoundError:
            return None

    def _path(self, decision: str) -> Path:
        return self._folder / f"{decision}.gz"

    def _make_room(self, keep: Path) -> None:
        """Halves that a crash left go with the rest, by their age."""
        found = sorted((stat.st_mtime_ns, stat.st_size, path) for path, stat in self._files() if path != keep)
        count, size = len(found) + 1, keep.stat().st_size + sum(each for _, each, _ in found)
        for _, each, path in found:
            if count <= self._count_max and size <= self._bytes_max:
                return
            path.unlink(missing_ok=True)
            count, size = count - 1, size - each

    def _files(self) -> Iterable[tuple[Path, os.stat_result]]:
        for entry in os.scandir(self._folder):
            if entry.name.endswith((".gz", HALF)):
                yield Path(entry.path), entry.stat()
