"""A store in memory that can be slow or refuse, and a world that does nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from dr.model.allowed import Report
from dr.model.checks import CheckResult, Reached
from dr.model.effects import RunCommand
from dr.model.evidence import PowerReport
from dr.model.policy import FenceLevel
from dr.model.records import Alert
from dr.ports.store import Entry, StoreConflict, StoreError


class MemoryStore:
    """`ports.store.Store` in a dict."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.commits = 0
        self.delay_s = 0.0  # of the next commit
        self.refusals = 0  # so many commits fail

    async def get(self, key: str) -> Entry | None:
        return self.entries.get(key)

    async def scan(self, prefix: str, *, after: str = "", limit: int = 0) -> list[Entry]:
        keys = sorted(key for key in self.entries if key.startswith(prefix) and key > after)
        return [self.entries[key] for key in (keys[:limit] if limit else keys)]

    async def last(self, prefix: str, limit: int) -> list[Entry]:
        return (await self.scan(prefix))[-limit:]

    async def commit(
        self, puts: dict[str, bytes], deletes: tuple[str, ...] = (), guards: dict[str, int] | None = None
    ) -> int:
        delay_s, self.delay_s = self.delay_s, 0.0
        await asyncio.sleep(delay_s)
        if self.refusals:
            self.refusals -= 1
            raise StoreError("full")
        for key, revision in (guards or {}).items():
            entry = self.entries.get(key)
            if (entry.revision if entry else 0) != revision:
                raise StoreConflict(key)
        self.commits += 1
        for key, value in puts.items():
            self.entries[key] = Entry(key=key, value=value, revision=self.commits)
        for key in deletes:
            self.entries.pop(key, None)
        return self.commits

    async def revision(self) -> int:
        return self.commits

    async def close(self) -> None: ...


class NoWorld:
    """`Fencer`, `Prober`, `Checker`, `Runner` and `Notifier` that see nothing."""

    async def read(self, levels: tuple[FenceLevel, ...]) -> tuple[PowerReport, ...]:
        return ()

    async def off(self, level: int, devices: FenceLevel, timeout_s: float) -> PowerReport:
        return PowerReport(level=level)

    async def on(self, levels: tuple[FenceLevel, ...]) -> tuple[bool, str]:
        return False, "there is no device"

    async def probe(self, addresses: tuple[str, ...], window_s: float) -> dict[str, bool]:
        return {}

    async def check(self, checks: tuple[Reached, ...], window_s: float) -> tuple[CheckResult, ...]:
        return tuple(CheckResult(check=each, passed=False, why="there is no network") for each in checks)

    async def run(self, command: RunCommand) -> Report:
        return Report(state="lost", reason="nobody is there")

    async def send(self, alert: Alert, cleared: bool) -> None: ...


class MemoryDecisions:
    """`ports.decisions.Decisions` in a dict; writing can be slow, or fail."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.delay_s = 0.0
        self.full = False

    def put(self, decision: str, pieces: Iterable[bytes]) -> None:
        time.sleep(self.delay_s)
        if self.full:
            raise OSError("no space left")
        self.files[decision] = b"".join(pieces)

    def read(self, decision: str) -> bytes | None:
        return self.files.get(decision)
