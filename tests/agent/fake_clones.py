"""Clones as far as the agent needs them: what was asked for, and copies that last until they are let go."""

from __future__ import annotations

import asyncio

from dr.model.base import GuestId
from dr.model.checks import CheckResult, Reached, Running
from dr.model.clones import CloneMade, DrillEnd
from dr.ports.clones import CloneError

OURS = "dc10ed00"  # how the ids of clones begin here


class FakeClones:
    """`ports.clones.Clones` of one life of the agent."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuses = ""
        self.why = ""  # checks do not pass
        self.trouble = ""
        self.sweeps = 0
        self.closed = False
        self.copied = asyncio.Event()  # copies are whole
        self.copied.set()
        self.copying: set[GuestId] = set()
        self.gave_way: list[GuestId] = []

    async def make(self, drill: str, guest: GuestId, name: str, *, disk_mib: int, life_s: float) -> CloneMade:
        self._ask(f"make {drill} {name} {disk_mib} {life_s:g}")
        self.copying.add(guest)
        await self.copied.wait()
        if guest not in self.copying:
            raise CloneError("it gave way")
        self.copying.discard(guest)
        return CloneMade(guest=guest, clone=OURS, domain="clone", point=1.0, took_s=0.0, size_b=1)

    async def boot(self, drill: str, guest: GuestId, *, address: str) -> None:
        self._ask(f"boot {drill} {guest} {address}")

    def clone_of(self, drill: str, guest: GuestId) -> GuestId:
        return f"{OURS}-{guest}"

    async def check(
        self, drill: str, guest: GuestId, check: Reached | Running, window_s: float
    ) -> CheckResult:
        self._ask(f"check {drill} {guest} {type(check).__name__} {window_s:g}")
        return CheckResult(check=check, passed=not self.why, why=self.why)

    async def end(self, drill: str) -> DrillEnd:
        self._ask(f"end {drill}")
        return DrillEnd(removed=("all",))

    async def sweep(self) -> None:
        self.sweeps += 1

    async def give_way(self, guest: GuestId) -> None:
        if guest in self.copying:
            self.copying.discard(guest)
            self.gave_way.append(guest)
            self.copied.set()

    def copies(self, guest: GuestId) -> bool:
        return guest in self.copying

    async def close(self) -> None:
        self.closed = True

    def owns(self, guest: GuestId) -> bool:
        return guest.startswith(OURS)

    def _ask(self, what: str) -> None:
        if self.refuses:
            raise CloneError(self.refuses)
        self.asked.append(what)
