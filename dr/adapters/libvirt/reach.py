"""Which storage is reachable from this host now: watched endpoints, shared mounts, block devices."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

from dr.adapters.health.trials import Ended, Trials
from dr.adapters.libvirt.images import Digest
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.mounts import Mount, identity_of_mount, mount_of, mounts, wwids
from dr.adapters.libvirt.storage import ceph_fsid
from dr.model.facts import BASE, folder_identity

FOLDER = folder_identity("")
CONNECT_S = 1.0
FRESH_S = 3.0
PARALLEL = 32
MOUNT_S = 1.0
ROOM_DIGITS = 6  # binary ones of a folder's free room that are told: within 3 %
NOT_ENDPOINTS = ("wwid:", "pool:", "local:", "nfs:", "rbd:ceph.conf", FOLDER)


def endpoints(identity: str) -> list[tuple[str, int]]:
    """(host, port) pairs of a network identity, any of which will do; empty for one that is no endpoint."""
    if identity.startswith(NOT_ENDPOINTS) or "@" in identity:
        return []
    _, _, rest = identity.partition(":")
    found = []
    for each in rest.split("/")[0].split(","):
        host, colon, port = each.rpartition(":")
        if colon and port.isdigit() and 0 < int(port) < 65536:
            found.append((host.strip("[]"), int(port)))
    return found


class Reach:
    """Answers with what was seen within the last seconds."""

    def __init__(self, layout: Layout, digest: Digest) -> None:
        self._layout = layout
        self._watched: tuple[str, ...] = ()
        self._seen: set[str] = set()
        self._seen_at = float("-inf")
        self._looking = asyncio.Lock()
        self._mounts: Trials[os.statvfs_result] = Trials()
        self._folders: Trials[int | None] = Trials()
        self._digest = digest
        self._bases: Trials[bool] = Trials()
        self.room_mib: dict[str, int] = {}  # as of the last look, in watched folders of this host's own

    def watch(self, identities: tuple[str, ...]) -> None:
        """Look at these from now on; the next `reachable` looks anew if they changed."""
        wanted = tuple(sorted(set(identities)))
        if wanted != self._watched:
            self._watched = wanted
            self._seen_at = float("-inf")

    async def reachable(self) -> set[str]:
        """Identities that this host reaches; at most FRESH_S old."""
        async with self._looking:
            if time.monotonic() - self._seen_at > FRESH_S:
                watched = self._watched
                self._seen = await self._look()
                if (
                    watched == self._watched
                ):  # else somebody asked for more in the meantime: not yet looked at
                    self._seen_at = time.monotonic()
            return set(self._seen)

    async def _look(self) -> set[str]:
        limit = asyncio.Semaphore(PARALLEL)
        watched = self._watched

        async def try_one(identity: str) -> bool:
            async with limit:
                for host, port in endpoints(identity):
                    if await connects(host, port):
                        return True
            return False

        answers = await asyncio.gather(*(try_one(identity) for identity in watched))
        seen = {identity for identity, answered in zip(watched, answers, strict=True) if answered}
        fsid = ceph_fsid(self._layout)
        if fsid:
            seen.add(f"rbd:{fsid}")
        try:
            shared = [mount for mount in mounts(self._layout) if mount.shared]
        except OSError:
            shared = []
        # The kernel asks the server; one that hangs holds one thread.
        asked = {mount.point: partial(os.statvfs, mount.point) for mount in shared}
        answers_of = await self._mounts.run(asked, MOUNT_S)
        good = {point for point, end in answers_of.items() if isinstance(end, Ended) and end.error is None}
        answering = [mount for mount in shared if mount.point in good]
        folders = {
            name: name.removeprefix(FOLDER).partition("@") for name in watched if name.startswith(FOLDER)
        }
        asked_room = {
            name: partial(self._room, folder, mount) for name, (folder, _, mount) in folders.items()
        }
        rooms = await self._folders.run(asked_room, MOUNT_S)
        found = {
            name: end.value
            for name, end in sorted(rooms.items())
            if isinstance(end, Ended) and end.value is not None
        }
        self.room_mib = {folders[name][0]: free_mib for name, free_mib in found.items()}
        bases = {name: partial(self._has, name) for name in watched if name.startswith(BASE)}
        told = await self._bases.run(bases, MOUNT_S)
        seen |= set(found) | {name for name, end in told.items() if isinstance(end, Ended) and end.value}
        return seen | {identity_of_mount(self._layout, mount) for mount in answering} | wwids(self._layout)

    def _has(self, base: str) -> bool:
        """Whether that file is here with that content, as far as it was read."""
        digest, _, path = base.removeprefix(BASE).partition("@")
        mount = self._mount_of(path)
        return mount is not None and mount.keeps_disks and self._digest(path) == digest

    def _room(self, folder: str, below: str) -> int | None:
        """MiB free there; None where it is no folder on a file system of this host's own, mounted there or deeper.

        In steps, so that a disk that is written to is not news every few seconds.
        """
        path, mount = self._layout.at(folder), self._mount_of(folder)
        if not path.is_dir() or mount is None or not mount.keeps_disks or mount.read_only:
            return None
        if not f"{mount.point.rstrip('/')}/".startswith(f"{below.rstrip('/')}/"):
            return None
        status = os.statvfs(path)
        free_mib = status.f_bavail * status.f_frsize // 2**20
        return free_mib - free_mib % (1 << max(0, free_mib.bit_length() - ROOM_DIGITS))

    def _mount_of(self, path: str) -> Mount | None:
        real = os.path.realpath(path) if self._layout.root == Path("/") else path
        return mount_of(real, mounts(self._layout))


async def connects(host: str, port: int) -> bool:
    """Whether a TCP connection is taken within CONNECT_S."""
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError, UnicodeError):
        return False
    writer.close()
    return True
