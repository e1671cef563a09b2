"""Local disks of guests on this host: images made for who arrives, and which files leave.

Here: what tickets of migrations and of copies share; what is made and what leaves is durable in the memory before
anything rests on it. Not here: when (`dr.agent.moves`, `dr.agent.transfers`), the files themselves
(`dr.adapters.libvirt.images`), what is old and parted with (`dr.agent.tickets`).
"""

from __future__ import annotations

import asyncio
import logging

from dr.agent.journal import Journal, StateTrouble
from dr.agent.looks import Looks, Patience, said
from dr.core import warden
from dr.model.base import GuestId
from dr.model.commands import Answer, Outcome, Ticket
from dr.model.facts import LocalDisk
from dr.model.memory import Image
from dr.ports.hypervisor import Hypervisor, HypervisorError, HypervisorUnknown

log = logging.getLogger("dr.agent.disks")

TROUBLE = (HypervisorError, HypervisorUnknown, TimeoutError, StateTrouble)


class Disks:
    """Files of disks, and the memory of which they are."""

    def __init__(self, *, hypervisor: Hypervisor, journal: Journal, looks: Looks, patience: Patience) -> None:
        self._hypervisor = hypervisor
        self._journal = journal
        self._looks = looks
        self._patience = patience

    # ---- images for who arrives

    async def make(self, guest: GuestId, disks: tuple[LocalDisk, ...]) -> tuple[Image, ...]:
        """Empty images, in place of any made before. Which files they are is durable; they lack their names yet.

        Raises one of TROUBLE: then no new one is left.
        """
        async with asyncio.timeout(self._patience.images_s):
            await self._hypervisor.remove_images(guest, self._made(guest))
            made = await self._hypervisor.prepare_images(guest, disks)
            self._journal.put(warden.with_images(self._journal.memory, guest, made))
            try:
                await self._journal.save()
            except StateTrouble:
                await self._hypervisor.remove_images(guest, made)
                self.forget_images(guest)
                raise
            return made

    async def take_up(
        self, guest: GuestId, disks: tuple[LocalDisk, ...]
    ) -> tuple[tuple[Image, ...], tuple[str, ...]]:
        """Images for these disks, in their order, and the files that they are now: of an earlier try, or new ones.

        Raises one of TROUBLE: then no new one is left, and earlier ones are as they were.
        """
        if images := self._made_for(guest, disks):
            files = await self._files(guest, images)
            if all(files):
                return images, files
        images = await self.make(guest, disks)
        try:
            return images, await self._files(guest, images)
        except TROUBLE:
            await self.remove(guest)
            raise

    async def were_taken(self, guest: GuestId, disks: tuple[LocalDisk, ...]) -> bool:
        """Whether these are images that have their names, and that it never ran from: libvirt may not know it here."""
        images = self._made_for(guest, disks)
        try:
            return bool(images) and await self._files(guest, images) == tuple(disk.path for disk in disks)
        except TROUBLE:
            return False

    def forget_images(self, guest: GuestId) -> None:
        """They are removed by nobody as images any more."""
        self._journal.put(warden.with_images(self._journal.memory, guest, ()))

    async def _files(self, guest: GuestId, images: tuple[Image, ...]) -> tuple[str, ...]:
        async with asyncio.timeout(self._patience.images_s):
            return await self._hypervisor.image_files(guest, images)

    async def place(self, guest: GuestId, images: tuple[Image, ...]) -> None:
        """Give them their names. Raises one of TROUBLE."""
        async with asyncio.timeout(self._patience.images_s):
            await self._hypervisor.place_images(guest, images)

    async def remove(self, guest: GuestId) -> str:
        """Those made for it, which was never let run from them; why they are still here."""
        try:
            async with asyncio.timeout(self._patience.images_s):
                await self._hypervisor.remove_images(guest, self._made(guest))
        except TROUBLE as error:
            return f"its images are still here: {said(error)}"
        self.forget_images(guest)
        return ""

    def _made(self, guest: GuestId) -> tuple[Image, ...]:
        return self._journal.memory.images.get(guest, ())

    def _made_for(self, guest: GuestId, disks: tuple[LocalDisk, ...]) -> tuple[Image, ...]:
        """Those that were made for the paths of these disks and no others, in their order."""
        made = {image.path: image for image in self._made(guest)}
        paths = [disk.path for disk in disks]
        return tuple(made[path] for path in paths) if made.keys() == set(paths) else ()

    # ---- disks that leave

    async def other(self, ticket: Ticket, disks: tuple[LocalDisk, ...]) -> Answer | None:
        """Whether its local disks are other ones than its images over there are made for: resized, added, moved."""
        try:
            async with asyncio.timeout(self._patience.describe_s):
                definition = await self._hypervisor.describe(ticket.guest)
        except (HypervisorError, HypervisorUnknown, TimeoutError) as error:
            reason = f"{ticket.name} was not sent, as its disks could not be looked at: {said(error)}"
            seen = await self._looks.look(ticket.guest, ticket.generation)
            return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(seen,))
        unread = {base.path for disk in definition.local for base in disk.bases if not base.digest}
        reason = "; ".join([*definition.blockers, *(_being_read(path) for path in sorted(unread))])
        if not reason and _shape(definition.local) != _shape(disks):
            reason = f"the disks of {ticket.name} are not as they were when images were made for them"
        if not reason:
            return None
        seen = await self._looks.look(ticket.guest, ticket.generation)
        return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(seen,), definition=definition)

    async def remember(self, ticket: Ticket, disks: tuple[LocalDisk, ...]) -> None:
        """Which files they are, durably, before they are sent: once the guest has left, those and no others are old.

        Where that cannot be told they stay where they are.
        """
        try:
            async with asyncio.timeout(self._patience.images_s):
                sent = await self._hypervisor.identify_files(tuple(disk.path for disk in disks))
                self._journal.put(warden.with_sent(self._journal.memory, ticket.guest, sent))
                await self._journal.save()
        except TROUBLE as error:
            log.warning("%s: its disks here will not be parted with: %s", ticket.name, said(error))


def _being_read(path: str) -> str:
    return f"{path}, which its disks lie on, is being read on this host: try again soon"


def _shape(disks: tuple[LocalDisk, ...]) -> set[tuple[object, ...]]:
    """What an image must have of a disk."""
    return {(disk.target, disk.path, disk.form, disk.size_b, disk.bases) for disk in disks}
