"""Disk images of guests that are off, from one host's agent to another's. Real: adapters/courier."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from dr.model.base import GuestId, HostName
from dr.model.facts import Progress


class CourierTrouble(Exception):
    """It was not copied: one of the two below."""


class CourierError(CourierTrouble):
    """It cannot be copied, and to try again would change nothing; the text is for people."""


class CourierLost(CourierTrouble):
    """The other end went away, or said nothing for too long. What has arrived is not sent again by a later try."""


class Courier(Protocol):
    """Copies files between hosts: only what holds data and is not over there already; proven equal at the end."""

    async def send(
        self,
        guest: GuestId,
        copy: str,
        *,
        to: HostName,
        addresses: tuple[str, ...],
        port: int,
        files: tuple[str, ...],
        mib_s: int = 0,
    ) -> str:
        """Send those files, in that order, to the host that takes this very copy; `mib_s` 0: as fast as it goes.

        Returns when that host has them whole, durable and in their places; what it took, in words. Nobody else on this
        host may write to them meanwhile: they are locked as QEMU locks its images. A link that breaks is made anew.
        Raises CourierError (also where a file is in use, changed meanwhile, or it was called off), CourierLost.
        """

    async def take(
        self,
        guest: GuestId,
        copy: str,
        *,
        source: HostName,
        files: tuple[str, ...],
        placed: Callable[[], Awaitable[None]],
    ) -> str:
        """Take this very copy from that host into those files, whatever is in them.

        When each was read again and found to be as it is over there, and is durable, `placed` is awaited, and then the
        sender is told. Returns what it took, in words. Raises CourierError, CourierLost, and what `placed` raises.
        """

    def cancel(self, guest: GuestId, *, again: bool = False) -> bool:
        """Call off what is under way with that guest here. False: nothing is.

        It ends with CourierError; `again`: with CourierLost, as it will be tried again.
        """

    def progress(self) -> tuple[Progress, ...]:
        """How far each copy is that is sent from here."""

    async def close(self) -> None:
        """Call everything off, and listen no more."""
