"""The store on SQLite: one file, one connection, one thread.

SQLite 3.40 (Debian 12) can corrupt a WAL that two connections reset at once, so there is only one: a lock file
keeps out a second coordinator, and SQLite's own exclusive locking keeps out everything else (`sqlite3`, backups
by copying). `synchronous=FULL`: a commit that returned survives a power cut.
After an I/O error nothing is known of what the disk will say later; the store then answers nothing until reopened.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from dr.adapters.store.atomic import sync_folder
from dr.adapters.store.lock import Held, hold
from dr.ports.store import Entry, StoreConflict, StoreError

SCHEMA = 1
VALUE_BYTES_MAX = 64 * 1024 * 1024
KEY_CHARS_MAX = 1024
WAL_BYTES_MAX = 64 * 1024 * 1024  # what of a WAL that grew is kept for reuse

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE entry (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) STRICT;
"""
_GO_ON = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_NOMEM,
}  # nothing was written, the store is sound

T = TypeVar("T")
P = ParamSpec("P")


class SqliteStore:
    """`ports.store.Store`. Make one with `open`.

    A commit whose caller is cancelled may still happen, as with any lost reply: read the key to know.
    """

    def __init__(self, file: _File, thread: ThreadPoolExecutor) -> None:
        self._file = file
        self._thread = thread
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> SqliteStore:
        """Open or create (0600), after looking it over for damage. Raises StoreError with a sentence."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dr-store")
        try:
            file = await asyncio.get_running_loop().run_in_executor(thread, _File, path)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(file, thread)

    async def get(self, key: str) -> Entry | None:
        """Raises StoreError."""
        found = await self._run(_File.range, key, key + "\0", limit=1)
        return found[0] if found else None

    async def scan(self, prefix: str, *, after: str = "", limit: int = 0) -> list[Entry]:
        """Entries whose key starts with `prefix`, in key order, keys > `after`; limit 0 = all. Raises StoreError."""
        assert limit >= 0
        begin = max(prefix, after + "\0") if after else prefix
        return await self._run(_File.range, begin, prefix_end(prefix), limit=limit or -1)

    async def last(self, prefix: str, limit: int) -> list[Entry]:
        """The `limit` entries with the greatest keys under `prefix`, in key order. Raises StoreError."""
        assert limit >= 0, "SQLite would take it for `all`"
        found = await self._run(_File.range, prefix, prefix_end(prefix), limit=limit, backwards=True)
        return found[::-1]

    async def commit(
        self, puts: dict[str, bytes], deletes: tuple[str, ...] = (), guards: dict[str, int] | None = None
    ) -> int:
        """See `ports.store.Store.commit`. Raises StoreConflict, StoreError, ValueError (a bug of the caller)."""
        for key in [*puts, *deletes]:
            if not 0 < len(key) <= KEY_CHARS_MAX:
                raise ValueError(f"a key has 1 to {KEY_CHARS_MAX} characters, not {len(key)}")
        if twice := puts.keys() & set(deletes):
            raise ValueError(f"cannot both put and delete {min(twice)}")
        if large := [key for key, value in puts.items() if len(value) > VALUE_BYTES_MAX]:
            raise ValueError(f"the value of {large[0]} is larger than {VALUE_BYTES_MAX} bytes")
        return await self._run(_File.commit, dict(puts), deletes, dict(guards or {}))

    async def revision(self) -> int:
        """The revision of the last commit."""
        return await self._run(_File.revision)

    async def backup(self, path: Path) -> None:
        """Write a consistent copy to `path` (0600, one file, replaced whole). Raises StoreError.

        Commits wait meanwhile: about a second for each gigabyte on a good disk.
        """
        await self._run(_File.backup, path)

    async def close(self) -> None:
        """Finish what was asked for, then let go of file and lock. Safe to repeat."""
        if not self._closed:
            self._closed = True
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
            finally:
                self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[Concatenate[_File, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise StoreError(f"The store {self._file.path} is closed.")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: self._file.run(work, *args, **kwargs))


def prefix_end(prefix: str) -> str | None:
    """The smallest text greater than everything that starts with `prefix`; None = there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[at]) + 1
        if code == 0xD800:
            code = 0xE000  # surrogates are no characters
        if code <= 0x10FFFF:
            return prefix[:at] + chr(code)
    return None


class _File:
    """The blocking half; every method runs on the one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._broken = ""
        self._lock = _lock(path)
        try:
            self._db = _connect(path)
            try:
                self._revision = _begin(self._db, path)
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def run(self, work: Callable[Concatenate[_File, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do one piece of work; whatever SQLite raises leaves as StoreError, with nothing half written."""
        if self._broken:
            raise StoreError(self._broken)
        try:
            return work(self, *args, **kwargs)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(self._undo(error)) from error
        except BaseException as error:  # a conflict, or a bug of the caller
            self._undo(error)
            raise

    def range(self, begin: str, end: str | None, *, limit: int, backwards: bool = False) -> list[Entry]:
        """Entries with begin <= key < end."""
        where = "key >= ?" if end is None else "key >= ? AND key < ?"
        order = "DESC" if backwards else "ASC"
        rows = self._db.execute(
            f"SELECT key, value, revision FROM entry WHERE {where} ORDER BY key {order} LIMIT ?",
            (begin, limit) if end is None else (begin, end, limit),
        )
        return [Entry(key=key, value=value, revision=revision) for key, value, revision in rows]

    def commit(self, puts: dict[str, bytes], deletes: tuple[str, ...], guards: dict[str, int]) -> int:
        """All or nothing."""
        revision = self._revision + 1
        self._db.execute("BEGIN IMMEDIATE")
        for key, expected in guards.items():
            row = self._db.execute("SELECT revision FROM entry WHERE key = ?", (key,)).fetchone()
            found = row[0] if row else 0
            if found != expected:
                raise StoreConflict(f"{key} is at revision {found}, not at {expected}: somebody else wrote")
        self._db.executemany("DELETE FROM entry WHERE key = ?", [(key,) for key in deletes])
        self._db.executemany(
            "INSERT INTO entry VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE SET value = ?2, revision = ?3",
            [(key, value, revision) for key, value in puts.items()],
        )
        self._db.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))
        self._db.execute("COMMIT")
        self._revision = revision
        return revision

    def revision(self) -> int:
        """Of the last commit."""
        return self._revision

    def backup(self, path: Path) -> None:
        """Copy with SQLite's own backup, then rename into place."""
        beside = path.with_name(path.name + ".new")
        beside.unlink(missing_ok=True)
        try:
            os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            copy = sqlite3.connect(beside, isolation_level=None)
            try:
                self._db.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
            finally:
                copy.close()
            fd = os.open(beside, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            beside.rename(path)
            sync_folder(path.parent)
        except sqlite3.Error as error:  # of the copy, or of reading: the store itself was not written
            raise StoreError(f"No backup was written to {path}: {error}.") from error
        except OSError as error:
            raise StoreError(f"No backup was written to {path}: {error.strerror}.") from error
        finally:
            beside.unlink(missing_ok=True)

    def close(self) -> None:
        """Fold the WAL into the file, then let the lock go."""
        try:
            self._db.close()
        finally:
            os.close(self._lock)

    def _undo(self, error: BaseException) -> str:
        """Leave no transaction open; the sentence that says what happened."""
        try:
            if self._db.in_transaction:  # SQLite ends it by itself after some errors
                self._db.execute("ROLLBACK")
        except sqlite3.Error as worse:
            error = worse
        if isinstance(error, sqlite3.Error | OSError) and _code(error) not in _GO_ON:
            self._broken = (
                f"The store {self.path} failed: {error}. It answers nothing until the coordinator is started "
                "again; look at the disk first (journalctl -k)."
            )
            return self._broken
        return f"The store {self.path} could not be written: {error}. Free some space; nothing was written."


def _code(error: BaseException) -> int:
    """SQLite's primary result code."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF


def _lock(path: Path) -> int:
    """Hold the lock file beside the store for as long as the returned descriptor is open."""
    try:
        return hold(path.with_name(path.name + ".lock"))
    except Held as error:
        raise StoreError(
            f"The store {path} is in use by process {error.holder}: a second coordinator would decide against it. "
            f"Stop that one first (see: ps -p {error.holder})."
        ) from error
    except OSError as error:
        raise StoreError(f"The store {path} cannot be opened: {error}.") from error


def _connect(path: Path) -> sqlite3.Connection:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.fchmod(fd, 0o600)  # SQLite gives the WAL the same
        os.close(fd)
        sync_folder(path.parent)
        return sqlite3.connect(path, isolation_level=None, timeout=0)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"The store {path} cannot be opened: {error}.") from error


def _begin(db: sqlite3.Connection, path: Path) -> int:
    """Set it up or look it over; the revision of the last commit."""
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before WAL: keeps its index in memory, and others out
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
        damage = [row[0] for row in db.execute("PRAGMA quick_check(3)") if row[0] != "ok"]
        if damage:
            raise StoreError(_damaged(path, damage[0]))
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not tables:
            db.executescript(
                f"BEGIN IMMEDIATE; {_TABLES} INSERT INTO meta VALUES ('schema', {SCHEMA}), ('revision', 0); COMMIT"
            )
        elif not tables >= {"meta", "entry"}:
            raise StoreError(f"{path} is a SQLite file but not a store of dr; it was left as it is.")
        meta = dict(db.execute("SELECT name, value FROM meta"))
    except sqlite3.DatabaseError as error:
        if _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise StoreError(
                f"The store {path} is open in another program (sqlite3, a backup?). Close that first."
            ) from error
        if _code(error) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
            raise StoreError(_damaged(path, str(error))) from error
        raise StoreError(f"The store {path} cannot be opened: {error}.") from error
    if meta.get("schema") != SCHEMA or "revision" not in meta:
        raise StoreError(
            f"The store {path} has schema {meta.get('schema')}, this version of dr reads {SCHEMA}. "
            "Run the version of dr that wrote it."
        )
    return int(meta["revision"])


def _damaged(path: Path, why: str) -> str:
    return (
        f"The store {path} is damaged ({why.splitlines()[0]}) and was left as it is. "
        "Restore a backup with `dr cluster restore`."
    )
