"""The image files on one simulated host: of guests whose disks only their own host has.

A file has a version, as the guest's disk has one (`Truth.disk`): a new one whenever CPUs begin to run over it. So it is
seen when a guest starts from an older copy, and when the newest one is removed. Here: the files. Not here: who
may make and remove them (`dr.sim.tickets`), copying (`dr.sim.migration`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dr.model.base import GuestId
from dr.model.facts import LocalDisk
from dr.model.memory import Image

if TYPE_CHECKING:
    from dr.sim.host import SimHost

FOLDER = "/images"
MIB = 2**20


def disk_of(guest: GuestId, mib: int) -> LocalDisk:
    """The only local disk that a simulated guest may have."""
    return LocalDisk(
        target="vda", path=f"{FOLDER}/{guest}.raw", form="raw", size_b=2 * mib * MIB, used_b=mib * MIB
    )


@dataclass
class File:
    """One image."""

    inode: int
    version: int = 0


class SimImages:
    """By guest: each has one disk at most."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self._inodes = 0
        self.files: dict[GuestId, File] = {}
        self._half: dict[GuestId, tuple[int, float]] = {}  # inode, and MiB that arrived in it: no name yet
        self.aside: list[tuple[GuestId, int]] = []  # guest and version
        self.room_mib = 1_000_000

    def prepare(self, guest: GuestId) -> Image | None:
        """A file that has no name yet; None where one of that name is."""
        if guest in self.files:
            return None
        self._inodes += 1
        self._half[guest] = (self._inodes, 0.0)
        return Image(path=disk_of(guest, 0).path, inode=self._inodes)

    def is_there(self, guest: GuestId, image: Image) -> bool:
        """Whether that very file is, under its name or without one."""
        file = self.files.get(guest)
        return image.inode in (file.inode if file is not None else 0, self._half.get(guest, (0, 0.0))[0])

    def arrived(self, guest: GuestId, image: Image, mib: float) -> None:
        """So much of a copy is in that file."""
        self._half[guest] = (image.inode, mib)

    def arrived_mib(self, guest: GuestId) -> float:
        """What an earlier try has brought here."""
        return self._half.get(guest, (0, 0.0))[1]

    def place(self, guest: GuestId, image: Image) -> bool:
        """Under its name, unless anything else is there."""
        return self.files.setdefault(guest, File(image.inode)).inode == image.inode

    def put(self, guest: GuestId) -> None:
        """Somebody's own file, under that name."""
        self._inodes += 1
        self.files.setdefault(guest, File(self._inodes))

    def remove(self, guest: GuestId, images: tuple[Image, ...]) -> None:
        """What was made, and is still there."""
        if any(image.inode == self._half.get(guest, (0, 0.0))[0] for image in images):
            del self._half[guest]
        file = self.files.get(guest)
        if file is not None and any(image.inode == file.inode for image in images):
            self._gone(guest, file)

    def part_with(self, guest: GuestId, old: tuple[Image, ...], *, remove: bool) -> None:
        """Of a guest that runs elsewhere: with the very file that left."""
        file = self.files.get(guest)
        if file is None or all(image.inode != file.inode for image in old):
            return
        if not remove:
            self.aside.append((guest, file.version))
        self._gone(guest, file)

    def identify(self, guest: GuestId) -> tuple[Image, ...]:
        """Which file it has now."""
        file = self.files.get(guest)
        return (Image(path=disk_of(guest, 0).path, inode=file.inode),) if file is not None else ()

    def _gone(self, guest: GuestId, file: File) -> None:
        del self.files[guest]
        self._host.world.truth.lost_image(guest, self._host, file.version)
