"""Looking for one guest on this host, and calling libvirt with patience: what every ticket and testimony rests on.

Here: taking permits back, the sighting with all that goes into a testimony, how a call ended. Not here: what a ticket
does (`dr.agent.tickets`, `dr.agent.moves`, `dr.agent.transfers`), when it is looked (`dr.agent.executor`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from dr.agent.hook import Hook
from dr.agent.journal import Journal
from dr.core import warden
from dr.model.base import BootId, GuestId, Record
from dr.model.commands import Answer, Outcome, Testimony
from dr.model.facts import DomainState, Part, Sighting
from dr.ports.hypervisor import Hypervisor, HypervisorError, HypervisorUnknown

log = logging.getLogger("dr.agent.looks")


class Patience(Record):
    """How long a call to libvirt may take before its end counts as not seen."""

    start_s: float = 120.0
    stop_s: float = 30.0  # beyond the time that the order gives the guest
    clean_s: float = 60.0
    images_s: float = 60.0  # to make or to remove empty images
    sight_s: float = 5.0
    testify_s: float = 8.0  # all looks of one testimony; the coordinator waits 10 s for it
    describe_s: float = 30.0
    probe_s: float = 5.0  # beyond the probe's own window
    standing_s: float = 4.0
    abort_s: float = 20.0
    resume_s: float = 40.0
    migrate_s: float = 60.0  # beyond the time that the order gives the migration


class Ended(Record):
    """How one call ended; neither failed nor unseen: it did what it was asked."""

    failed: str = ""
    unseen: str = ""
    said: str = ""  # of one that did

    @property
    def well(self) -> bool:
        """Whether it did what it was asked."""
        return not self.failed and not self.unseen


class Looks:
    """What is seen of a guest here. Never raises for what the world does."""

    def __init__(
        self, boot_id: BootId, *, hypervisor: Hypervisor, hook: Hook, journal: Journal, patience: Patience
    ) -> None:
        self._boot_id = boot_id
        self._hypervisor = hypervisor
        self._hook = hook
        self._journal = journal
        self._patience = patience

    async def look(self, guest: GuestId, sealed: int) -> Testimony:
        """Testify within this guest's own turn, its generation being sealed: revoke, then look."""
        return self.revoke(guest) or await self.sight(guest, sealed)

    def revoke(self, guest: GuestId) -> Testimony | None:
        """Take back any permit. Where that or the hook itself fails, nobody may be testified absent.

        Whether the hook is *proven* is not asked: a start was sent to libvirt only after this libvirtd's hook was
        proven, and a libvirtd that restarted since has no such start in its queue.
        """
        reason = self._hook.open_for(guest)
        try:
            self._hook.revoke(guest)
        except OSError as error:
            reason = f"a permit may be left: {error}"
        return unseen(guest, reason) if reason else None

    async def sight(self, guest: GuestId, sealed: int) -> Testimony:
        """Look only. `sealed` goes into the testimony with `absent` only: elsewhere it would prove nothing."""
        try:
            async with asyncio.timeout(self._patience.sight_s):
                sighting, reason = await self._hypervisor.sight(guest)
                if sighting is Sighting.ABSENT:
                    left = await self.left_by(guest)
                    ran = self._journal.memory.ran.get(guest, 0)
                    return Testimony(
                        guest=guest, sighting=sighting, sealed=sealed, reason=reason, left_by=left, ran=ran
                    )
                if sighting is Sighting.PRESENT:
                    return await self._present(guest, reason)
        except TimeoutError:
            reason = f"no answer within {self._patience.sight_s:g} s"
        except (HypervisorError, HypervisorUnknown) as error:
            reason = str(error)
        except Exception as error:
            log.exception("looking for %s failed", guest)
            reason = f"looking for it failed: {error}"
        return unseen(guest, reason)

    async def left_by(self, guest: GuestId) -> str:
        """The ticket that took an absent guest or its disks away, where libvirt or the ticket's own end says so."""
        if guest not in self._journal.memory.left:
            return warden.left_by(self._journal.memory, guest, migrated=False)
        try:
            standing = await self._hypervisor.standing(guest)
            migrated = standing.state is DomainState.SHUTOFF and standing.reason == "migrated"
        except (HypervisorError, HypervisorUnknown):
            migrated = False
        return warden.left_by(self._journal.memory, guest, migrated=migrated)

    async def _present(self, guest: GuestId, reason: str) -> Testimony:
        """What it is in a migration, where one may be under way: without libvirt nobody can say how that goes."""
        memory = self._journal.memory
        if guest not in warden.moving(memory):
            return Testimony(guest=guest, sighting=Sighting.PRESENT, reason=reason)
        try:
            standing = await self._hypervisor.standing(guest)
        except (HypervisorError, HypervisorUnknown) as error:
            return unseen(guest, f"{reason}, and nobody can say whether its migration goes on: {error}")
        if not standing.active:
            return unseen(guest, f"{reason}, and it is ending at this moment")
        part = standing.part
        if part is Part.NONE and warden.copy_here(memory, guest, self._boot_id):
            part = Part.WAITING
            if standing.runs:
                self._journal.put(warden.seen_running(memory, guest, self._boot_id))
        ran = self._journal.memory.ran.get(guest, 0)
        return Testimony(guest=guest, sighting=Sighting.PRESENT, reason=reason, part=part, ran=ran)

    async def call(self, call: Awaitable[str | None], patience_s: float) -> Ended:
        """How it ended, within that time."""
        try:
            async with asyncio.timeout(patience_s):
                said = await call
        except TimeoutError:  # before OSError-like failures: the call itself may still run
            return Ended(unseen=f"libvirt did not answer within {patience_s:g} s")
        except HypervisorUnknown as error:
            return Ended(unseen=str(error) or "the end was not seen")
        except HypervisorError as error:
            return Ended(failed=str(error) or "libvirt refused without a reason")
        except Exception as error:
            log.exception("a call to libvirt failed in an unforeseen way")
            return Ended(unseen=f"{type(error).__name__}: {error}")
        return Ended(said=said or "")


def unseen(guest: GuestId, reason: str) -> Testimony:
    """It cannot be said."""
    return Testimony(guest=guest, sighting=Sighting.UNKNOWN, reason=reason)


def refused(reason: str) -> Answer:
    """Not run."""
    return Answer(outcome=Outcome.REFUSED, reason=reason)


def unknown(reason: str, seen: Testimony) -> Answer:
    """Begun, and how it ended was not seen."""
    return Answer(outcome=Outcome.UNKNOWN, reason=reason, testimony=(seen,))


def said(error: Exception) -> str:
    """What a call to libvirt that failed, or had no end in time, is told as."""
    return str(error) or "libvirt did not answer in time"
