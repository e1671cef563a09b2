"""Which storage is reachable: what is asked for while a look is under way is looked at next, not seconds later."""

import asyncio
import os

import pytest

from dr.adapters.libvirt import reach
from dr.adapters.libvirt.layout import Layout
from tests.adapters.libvirt.conftest import put

MOUNTS = """22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
41 22 0:47 / /run rw - tmpfs tmpfs rw
42 22 8:2 / /data rw - xfs /dev/sdb1 rw
40 22 0:46 / /srv/nfs rw shared:2 - nfs4 nas:/export/vm rw,vers=4.2,addr=10.0.0.9
"""


async def test_what_is_watched_during_a_look_is_looked_at_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second protected guest's storage, named while that of the first is tried, is not missing afterwards."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def connects(host: str, port: int) -> bool:
        begun.set()
        await go_on.wait()
        return True

    monkeypatch.setattr(reach, "connects", connects)
    tried = reach.Reach(Layout(), lambda _: "")
    tried.watch(("nbd:10.0.0.1:10809",))
    first = asyncio.create_task(tried.reachable())
    await begun.wait()
    tried.watch(("nbd:10.0.0.1:10809", "nbd:10.0.0.1:10810"))
    go_on.set()
    await first
    assert "nbd:10.0.0.1:10810" in await tried.reachable()


async def test_folders_of_the_hosts_own_are_told_with_their_room(layout: Layout) -> None:
    """In steps of a few per cent; not one that is missing, fleeting, or shared with other hosts."""
    put(layout.root, "/proc/self/mountinfo", MOUNTS)
    for folder in ("/vm", "/srv/nfs", "/run/vm", "/data/vm"):
        layout.at(folder).mkdir(parents=True)
    tried = reach.Reach(layout, lambda _: "")
    mounted = ("folder:/data/vm@/data", "folder:/data/vm")
    tried.watch(
        (
            "folder:/vm",
            "folder:/vm@/vm",
            "folder:/srv/nfs",
            "folder:/run/vm",
            "folder:/gone",
            *mounted,
            "nbd:h:1",
        )
    )
    found = {name for name in await tried.reachable() if name.startswith("folder:")}
    assert found == {"folder:/vm", *mounted}, "with what is mounted where it was, or deeper"
    status = os.statvfs(layout.at("/vm"))
    free_mib = status.f_bavail * status.f_frsize // 2**20
    assert 0.9 * free_mib - 64 <= tried.room_mib["/vm"] <= free_mib + 64
    assert set(tried.room_mib) == {"/vm", "/data/vm"}


async def test_what_lies_below_disks_is_told_by_its_content(layout: Layout) -> None:
    """Only what is on a file system of this host's own, and was read; a folder that hangs holds up nothing else."""
    put(layout.root, "/proc/self/mountinfo", MOUNTS)
    content = {"/images/a": "11aa", "/images/new": "", "/srv/nfs/a": "11aa", "/run/a": "11aa"}

    def digest(path: str) -> str:
        if path not in content:
            raise FileNotFoundError(2, "no such file", path)
        return content[path]

    tried = reach.Reach(layout, digest)
    names = [f"base:sha256:11aa@{path}" for path in (*content, "/images/gone")]
    other = "base:sha256:22bb@/images/a"
    tried.watch((*names, other))
    assert {name for name in await tried.reachable() if name.startswith("base:")} == {names[0]}
