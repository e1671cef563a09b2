"""Clones of running guests for drills, and the networks they live in, on one host. Real: adapters/clones."""

from __future__ import annotations

from typing import Protocol

from dr.model.base import GuestId
from dr.model.checks import CheckResult, Reached, Running
from dr.model.clones import CloneMade, DrillEnd


class CloneError(Exception):
    """It was refused or failed, and nothing of it is left half done; the text is for people."""


class Clones(Protocol):
    """All that exists of drills on this host. What an earlier process left is removed before anything new is made."""

    async def make(self, drill: str, guest: GuestId, name: str, *, disk_mib: int, life_s: float) -> CloneMade:
        """Copy its disks as they are at one moment, while it runs on. Asked again: the same copy, once it is whole.

        Raises CloneError (it does not run, its disks cannot be copied, no room, another job of libvirt is under way,
        it gave way, the drill has ended), HypervisorUnknown.
        """

    async def boot(self, drill: str, guest: GuestId, *, address: str) -> None:
        """Start the clone, in the drill's network. One that runs already: nothing to do.

        Raises CloneError (also when it ran and ended), HypervisorUnknown.
        """

    def clone_of(self, drill: str, guest: GuestId) -> GuestId:
        """The id of the clone's domain. Raises CloneError where none was started, or the drill has ended."""

    async def check(
        self, drill: str, guest: GuestId, check: Reached | Running, window_s: float
    ) -> CheckResult:
        """Tried until it passes or the window is over: its last try. Raises CloneError."""

    async def end(self, drill: str) -> DrillEnd:
        """Remove all of it; what is under way of it ends first. One that nobody knows: all that bears its name.

        Raises CloneError if anything is left, with its name; HypervisorUnknown.
        """

    async def sweep(self) -> None:
        """End every drill whose time is over and, the first time, everything that an earlier process left.

        Never raises: what cannot be removed now is tried again by the next sweep, and said in `trouble`.
        """

    async def give_way(self, guest: GuestId) -> None:
        """End a copy of that guest's disks that is under way: somebody needs the guest itself. Never raises."""

    async def close(self) -> None:
        """End every drill, as far as that goes in seconds: this process ends. Never raises."""

    def copies(self, guest: GuestId) -> bool:
        """Whether that guest's disks are being copied for a drill, which gives way."""

    def owns(self, guest: GuestId) -> bool:
        """Whether that is the id of a clone, and of no guest that anybody should be told of."""

    @property
    def trouble(self) -> str:
        """What is left of drills and could not be removed, for people; "" when nothing is."""
