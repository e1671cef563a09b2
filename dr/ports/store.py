"""The durable store: small, keyed, guarded. Real: adapters/store (SQLite; etcd later behind the same suite)."""

from __future__ import annotations

from typing import Protocol

from dr.model.base import Record


class StoreConflict(Exception):
    """A guard did not hold: somebody else wrote. Nothing was written."""


class StoreError(Exception):
    """The store could not be read or written (disk full, I/O error, corrupt). Nothing was half written."""


class Entry(Record):
    """One key's value and the revision that wrote it."""

    key: str
    value: bytes
    revision: int


class Store(Protocol):
    """All methods are awaited; implementations do their blocking work on one writer thread."""

    async def get(self, key: str) -> Entry | None:
        """Raises StoreError."""

    async def scan(self, prefix: str, *, after: str = "", limit: int = 0) -> list[Entry]:
        """Entries whose key starts with `prefix`, in key order, keys > `after`; limit 0 = all. Raises StoreError."""

    async def last(self, prefix: str, limit: int) -> list[Entry]:
        """The `limit` entries with the greatest keys under `prefix`, in key order. Raises StoreError."""

    async def commit(
        self, puts: dict[str, bytes], deletes: tuple[str, ...] = (), guards: dict[str, int] | None = None
    ) -> int:
        """Write everything or nothing, durably, and return the new store revision (+1 a commit).

        `guards`: key -> revision that it must still have (0 = must not exist). Raises StoreConflict, StoreError.
        """

    async def revision(self) -> int:
        """The revision of the last commit."""

    async def close(self) -> None: ...
