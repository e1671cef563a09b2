"""Programs inside guests, by the QEMU guest agents in them. Real: adapters/libvirt/execs.py."""

from __future__ import annotations

from typing import Protocol

from dr.model.allowed import Report
from dr.model.base import GuestId


class Execs(Protocol):
    """The guests of one host. A guest may leave any call unanswered; none takes longer than some seconds."""

    async def begin(self, guest: GuestId, argv: tuple[str, ...]) -> int:
        """Start a program there; its process id. Each call starts it once more.

        Raises HypervisorError (it was not started), HypervisorUnknown.
        """

    async def ended(self, guest: GuestId, process: int) -> Report | None:
        """What came of it; None: it runs. Told once: the guest forgets it then.

        Raises HypervisorError, HypervisorUnknown.
        """
