"""The folder of a host's clones: BASE/HOST/DRILL/GUEST/ with images and copies of small files, and nothing else.

Names are checked, links are never followed, and only what has a name of ours is removed: what a person put there stays
and is told. The host's own name is in the path, as the base may lie on storage that several hosts share.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dr.adapters.clones.names import DRILL, require_drill, require_guest
from dr.adapters.libvirt.gate import is_guest
from dr.model.base import GuestId
from dr.ports.clones import CloneError

OURS = re.compile(r"[a-z]{1,8}\.qcow2|nvram|kernel|initrd")
FILE_BYTES_MAX = 512 * 2**20  # of a kernel, an initrd, an NVRAM
RESERVE_MIB_MAX = 10 * 1024
RESERVE_PART = 10  # one in so many bytes of its file system stays free
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """All functions block; `OSError` where the host's own files fail."""

    def __init__(self, base: Path, host: str) -> None:
        self.path = base / host

    def of(self, drill: str, guest: GuestId) -> Path:
        """Where the clone of a guest lies."""
        return self.path / require_drill(drill) / require_guest(guest)

    def make(self, drill: str, guest: GuestId) -> Path:
        """An empty folder for a clone, in which QEMU's user finds what it knows the name of. Raises CloneError."""
        where = self.of(drill, guest)
        self.path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        for each in (self.path, where.parent, where):
            with suppress(FileExistsError):
                each.mkdir(mode=0o711)
            mode = each.lstat().st_mode
            if not stat.S_ISDIR(mode):
                raise CloneError(f"{each} is no folder: remove it")
            each.chmod(0o711)  # whatever the umask
        if os.listdir(where):
            raise CloneError(f"{where} is not empty: something of an earlier copy could not be removed")
        return where

    def contains(self, path: str, drill: str = "") -> bool:
        """Whether a path, as libvirt tells it, lies in here; with a drill: in its part."""
        return os.path.normpath(path).startswith(f"{self.path / drill}/")

    def drills(self) -> tuple[str, ...]:
        """Those that anything is left of."""
        try:
            return tuple(sorted(name for name in os.listdir(self.path) if DRILL.fullmatch(name)))
        except FileNotFoundError:
            return ()

    def remove(self, drill: str, only: GuestId = "") -> tuple[str, ...]:
        """Everything of a drill, or of one clone in it; the files that were removed.

        Raises CloneError for what is not ours to remove.
        """
        removed: list[str] = []
        with suppress(FileNotFoundError), _opened(self.path, None) as base:
            with _opened(require_drill(drill), base) as top:
                for guest in [only] if only else os.listdir(top):
                    if not is_guest(guest):
                        raise CloneError(_strange(self.path / drill / guest))
                    removed += self._empty(drill, guest, top)
                    os.rmdir(guest, dir_fd=top)
            if not only:
                os.rmdir(drill, dir_fd=base)
        return tuple(removed)

    def _empty(self, drill: str, guest: GuestId, top: int) -> list[str]:
        where = self.path / drill / guest
        removed = []
        with _opened(guest, top) as folder:
            for name in os.listdir(folder):
                mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                if not OURS.fullmatch(name) or not stat.S_ISREG(mode):
                    raise CloneError(_strange(where / name))
                os.unlink(name, dir_fd=folder)
                removed.append(str(where / name))
        return removed

    def used_b(self, drill: str, guest: GuestId = "*") -> int:
        """What the files of a drill, or of one clone in it, really take."""
        blocks = 0
        with suppress(FileNotFoundError):  # removed while it is read
            for file in (self.path / require_drill(drill)).glob(f"{guest}/*"):
                with suppress(OSError):
                    blocks += file.lstat().st_blocks
        return blocks * 512

    def free_mib(self) -> int:
        """What may still be written here: less than is free, as a part of it is kept. May be negative."""
        there = next(each for each in (self.path, *self.path.parents) if each.is_dir())
        room = os.statvfs(there)
        mib = 2**20
        reserve = min(RESERVE_MIB_MAX, room.f_blocks * room.f_frsize // RESERVE_PART // mib)
        return room.f_bavail * room.f_frsize // mib - reserve


def _strange(path: Path) -> str:
    return f"{path} is nothing that a drill makes, so it was not removed: move it away"


@contextmanager
def _opened(path: str | Path, above: int | None) -> Iterator[int]:
    try:
        handle = os.open(path, _DIRECTORY, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):  # a file, a link
            raise CloneError(_strange(Path(path))) from None
        raise
    try:
        yield handle
    finally:
        os.close(handle)


def copy_small(source: Path, target: Path, uid: int, gid: int) -> None:
    """A file that a guest boots from, for its clone alone. Raises OSError, CloneError where it is no file or huge."""
    status = source.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > FILE_BYTES_MAX:
        raise CloneError(f"{source} is no file that can be copied (at most {FILE_BYTES_MAX >> 20} MiB)")
    with source.open("rb") as whole, target.open("xb") as copy:
        shutil.copyfileobj(whole, copy)
    os.chown(target, uid, gid)
