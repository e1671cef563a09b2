"""The store: against a dumb twin, killed in the middle, out of space, and in the hands of two."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.adapters.store.sqlite import SqliteStore, prefix_end
from dr.ports.store import Entry, Store, StoreConflict, StoreError


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.db"


class Twin:
    """The same store, as simple as can be."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.now = 0

    def scan(self, prefix: str, after: str, limit: int) -> list[Entry]:
        keys = sorted(key for key in self.entries if key.startswith(prefix) and key > after)
        return [self.entries[key] for key in (keys[:limit] if limit else keys)]

    def last(self, prefix: str, limit: int) -> list[Entry]:
        found = self.scan(prefix, "", 0)
        return found[len(found) - min(limit, len(found)) :]

    def commit(self, puts: dict[str, bytes], deletes: tuple[str, ...], guards: dict[str, int]) -> int:
        for key, revision in guards.items():
            if (self.entries[key].revision if key in self.entries else 0) != revision:
                raise StoreConflict
        self.now += 1
        for key in deletes:
            self.entries.pop(key, None)
        for key, value in puts.items():
            self.entries[key] = Entry(key=key, value=value, revision=self.now)
        return self.now


# Few letters, so that keys meet; among them those at which a prefix's upper bound is hard.
KEYS = st.text(alphabet="a/b\ud7ff\ue000\U0010ffff\x00", min_size=1, max_size=4)
PREFIXES = st.text(alphabet="a/b\ud7ff\ue000\U0010ffff\x00", max_size=3)
COMMITS = st.tuples(
    st.just("commit"),
    st.dictionaries(KEYS, st.binary(max_size=4), max_size=3),
    st.lists(KEYS, max_size=2).map(tuple),
    st.dictionaries(KEYS, st.integers(0, 6), max_size=1),
)
SCANS = st.tuples(st.just("scan"), PREFIXES, st.just("") | KEYS, st.integers(0, 3))
LASTS = st.tuples(st.just("last"), PREFIXES, st.integers(0, 3))


@settings(max_examples=150)
@given(st.lists(COMMITS | SCANS | LASTS | st.tuples(st.just("reopen")), max_size=25))
def test_it_does_what_its_twin_does(script: list[tuple]) -> None:  # type: ignore[type-arg]  # five shapes
    async def play(path: Path) -> None:
        twin = Twin()
        store = await SqliteStore.open(path)
        for verb, *args in script:
            if verb == "scan":
                prefix, after, limit = args
                assert await store.scan(prefix, after=after, limit=limit) == twin.scan(prefix, after, limit)
            elif verb == "last":
                assert await store.last(*args) == twin.last(*args)
            elif verb == "reopen":
                await store.close()
                store = await SqliteStore.open(path)
            else:
                puts, deletes, guards = args
                deletes = tuple(key for key in deletes if key not in puts)
                try:
                    expected: int | None = twin.commit(puts, deletes, guards)
                except StoreConflict:
                    expected = None
                try:
                    assert await store.commit(puts, deletes, guards) == expected
                except StoreConflict:
                    assert expected is None
                for key in puts:
                    assert await store.get(key) == twin.entries.get(key)
            assert await store.revision() == twin.now
        await store.close()

    # Sync to memory: this one is about meaning, the kill -9 below about disks.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        asyncio.run(play(Path(folder) / "store.db"))


@given(PREFIXES, KEYS)
def test_prefix_end(prefix: str, key: str) -> None:
    end = prefix_end(prefix)
    assert (key >= prefix and (end is None or key < end)) == key.startswith(prefix)


async def test_guards(path: Path) -> None:
    async with opened(path) as store:
        port: Store = store
        assert await port.commit({"a": b"1", "b": b"1"}, guards={"a": 0}) == 1
        with pytest.raises(StoreConflict, match="a is at revision 1, not at 0"):
            await port.commit({"a": b"2", "c": b"2"}, ("b",), {"b": 1, "a": 0})
        assert [(entry.key, entry.value) for entry in await port.scan("")] == [("a", b"1"), ("b", b"1")]
        assert await port.commit({"a": b"2"}, ("b", "never"), {"a": 1, "b": 1, "c": 0}) == 2
        assert await port.commit({"b": b"3"}) == 3
        with pytest.raises(StoreConflict):  # deleted and made again is not the same
            await port.commit({}, ("b",), {"b": 1})


async def test_callers_bugs_change_nothing(path: Path) -> None:
    async with opened(path) as store:
        for puts, deletes in (({"": b""}, ()), ({"a": b""}, ("a",)), ({"\ud800": b"", "b": b""}, ())):
            with pytest.raises(ValueError, match=r"key|both|surrogates"):
                await store.commit({"x": b"1"} | puts, deletes)
        assert await store.scan("") == []
        assert await store.commit({"a": b"1"}) == 1


async def test_many_await_at_once(path: Path) -> None:
    async with opened(path) as store:

        async def increment(key: str) -> None:
            while True:
                entry = await store.get(key)
                value, revision = (int(entry.value), entry.revision) if entry else (0, 0)
                try:
                    await store.commit({key: b"%d" % (value + 1)}, guards={key: revision})
                    return
                except StoreConflict:
                    pass

        await asyncio.gather(*(increment(f"n/{number % 8}") for number in range(64)))
        assert [entry.value for entry in await store.scan("n/")] == [b"8"] * 8
        assert await store.revision() == 64


async def test_a_cancelled_caller_breaks_nothing(path: Path) -> None:
    async with opened(path) as store:
        tasks = [asyncio.create_task(store.commit({f"k{number}": b""})) for number in range(20)]
        await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(await store.scan("k")) == await store.revision()
        await store.commit({"after": b""})


async def test_a_second_coordinator_is_refused(path: Path) -> None:
    async with opened(path):
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
            await SqliteStore.open(path)
        reader = sqlite3.connect(path, timeout=0)  # nor does anything else get in while it is open
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            reader.execute("SELECT * FROM entry").fetchall()
        reader.close()
    async with opened(path):
        pass
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM entry").fetchall()
    with pytest.raises(StoreError, match="another program"):
        await SqliteStore.open(path)
    other.close()


async def test_closed_is_closed(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.get("a")


async def test_files_are_private(path: Path) -> None:
    async with opened(path) as store:
        await store.commit({"a": b"1"})
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db.lock": 0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_damage_is_noticed_and_left_alone(path: Path) -> None:
    async with opened(path) as store:
        await store.commit({f"key/{number:05}": b"x" * 100 for number in range(2000)})
    whole = path.read_bytes()
    middle = len(whole) // 2 // 4096 * 4096
    for damaged in (b"not a database at all" * 100, whole[:middle] + b"\xff" * 4096 + whole[middle + 4096 :]):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"is damaged .*dr cluster restore"):
            await SqliteStore.open(path)
        assert path.read_bytes() == damaged


async def test_what_is_not_ours_is_left_alone(path: Path) -> None:
    async with opened(path):
        pass
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = 2 WHERE name = 'schema'")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="has schema 2, this version of dr reads 1"):
        await SqliteStore.open(path)
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipes (name)")
    db.close()
    with pytest.raises(StoreError, match="not a store of dr"):
        await SqliteStore.open(path)
    with pytest.raises(StoreError, match="cannot be opened"):
        await SqliteStore.open(Path("/proc/no/such/store.db"))


async def pragma(store: SqliteStore, text: str) -> int:
    found: int = await store._run(lambda file: file._db.execute(f"PRAGMA {text}").fetchone()[0])
    return found


async def test_a_full_disk_writes_nothing_and_heals(path: Path) -> None:
    async with opened(path) as store:
        await store.commit({"a": b"1"})
        await pragma(store, f"max_page_count = {await pragma(store, 'page_count') + 4}")
        with pytest.raises(StoreError, match=r"full\. Free some space; nothing was written"):
            await store.commit({"a": b"2", "big": b"x" * 100_000}, guards={"a": 1})
        entry = await store.get("a")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"1", 1)
        assert await store.get("big") is None
        assert await store.commit({"a": b"2"}, guards={"a": 1}) == 2
        await pragma(store, "max_page_count = 1000000")
        assert await store.commit({"big": b"x" * 100_000}) == 3


async def test_after_an_io_error_it_answers_nothing(path: Path) -> None:
    async with opened(path) as store:
        await store.commit({"a": b"1"})

        def fail(_file: object) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

        with pytest.raises(StoreError, match="I/O error"):
            await store._run(fail)
        with pytest.raises(StoreError, match="answers nothing until the coordinator is started again"):
            await store.get("a")
    async with opened(path) as store:
        assert await store.revision() == 1


async def test_backup_while_commits_go_on(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with opened(path) as store:
        await store.commit({f"key/{number}": b"x" * 1000 for number in range(500)})
        later = [store.commit({"a": b"%d" % number, "b": b"%d" % number}) for number in range(20)]
        first = [asyncio.create_task(commit) for commit in later]
        await store.backup(copy)
        await asyncio.gather(*first)
        await store.backup(copy)  # replaces
        with pytest.raises(StoreError, match="No backup was written"):
            await store.backup(tmp_path / "no" / "such" / "folder.db")
        await store.commit({"c": b"1"})
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not [file for file in tmp_path.iterdir() if file.name.startswith("copy.db") and file != copy]
    async with opened(copy) as store:
        assert await store.revision() == 21
        a, b = await store.get("a"), await store.get("b")
        assert a is not None
        assert b is not None
        assert a.value == b.value == b"19"
        assert len(await store.scan("key/")) == 500


WRITER = """
import asyncio, sys
from pathlib import Path
from dr.adapters.store.sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    number = await store.revision()
    while True:
        number += 1
        value = b"%d" % number
        old = (f"log/{number - 3:09}",) if number > 3 else ()
        await store.commit({"a": value, "b": value * 500, f"log/{number:09}": value, "z": value}, old)
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("round_", range(6))
def test_kill_9_loses_no_acknowledged_commit(tmp_path: Path, round_: int) -> None:
    path = tmp_path / "store.db"
    acknowledged = 0
    for kill_after_s in (0.02, 0.05 + round_ * 0.013):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            acknowledged = max(acknowledged, int(writer.stdout.readline()))
            time.sleep(kill_after_s)
            writer.send_signal(signal.SIGKILL)
            lines = writer.stdout.read().split(b"\n")
        acknowledged = max([acknowledged, *(int(line) for line in lines[:-1])])
        asyncio.run(check_log(path, acknowledged))


async def check_log(path: Path, acknowledged: int) -> None:
    async with opened(path) as store:
        revision = await store.revision()
        assert acknowledged <= revision <= acknowledged + 1
        values = {entry.key: entry.value for entry in await store.scan("")}
        now = b"%d" % revision
        logs = {f"log/{number:09}": b"%d" % number for number in range(max(1, revision - 2), revision + 1)}
        assert values == {"a": now, "b": now * 500, "z": now} | logs
