"""The content of files that lie below disks as their backing files, told by digest: each is read once, in its own time.

A base may have many GiB, so nobody waits for it: who asks is told what is known by now, and what is not is read by one
thread, no faster than others can bear. What was read counts for as long as it is the same file (device, inode, time of
birth) of that size and that time of its last change; else it is read again. Not from its ctime: libvirt changes owners
whenever a guest starts. What changed while it was read, or so lately that the file system's clock could not tell a
further change, counts for nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dr.adapters.libvirt.images import image_of
from dr.adapters.libvirt.layout import Layout
from dr.model.memory import Image

log = logging.getLogger("dr.adapters.libvirt.bases")

CHUNK_BYTES = 1 << 20
RATE_MIB_S = 64.0
SETTLED_S = 2.0
AGAIN_S = 30.0  # after it was read in vain; longer where that took longer


class _Stamp(NamedTuple):
    """What a file is while its content is the same."""

    device: int
    inode: int
    size: int
    changed_ns: int


@dataclass(frozen=True)
class _Known:
    stamp: _Stamp
    touched_ns: int  # its ctime: while that is the same too, it was not made anew, and its birth need not be looked at
    image: Image | None
    digest: str


class Bases:
    """Answers at once, from any thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._wanted: dict[str, None] = {}  # to be read, in this order
        self._not_before: dict[str, float] = {}  # what was read in vain: a disk that a guest writes to, say
        self._reads = False

    def digest(self, path: str) -> str:
        """sha256 of its content, hex; "" while it is not known, and it is read then. Raises OSError."""
        file = self._file(path)
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(22, "no regular file", path)
        stamp = _stamp(status)
        known = self._known.get(path)
        if known is not None and known.stamp == stamp:
            if known.touched_ns == status.st_ctime_ns:
                return known.digest
            if _is(file, known.image):
                with self._lock:
                    self._known[path] = _Known(stamp, status.st_ctime_ns, known.image, known.digest)
                return known.digest
        if _settled(status):
            self._want(path)
        return ""

    def _file(self, path: str) -> Path:
        return Path(os.path.realpath(self._layout.at(path)))

    def _want(self, path: str) -> None:
        with self._lock:
            if time.monotonic() < self._not_before.get(path, 0.0):
                return
            self._wanted.setdefault(path)
            if self._reads:
                return
            try:
                threading.Thread(target=self._work, name="bases", daemon=True).start()
            except RuntimeError:  # no more threads on this host: the next who asks tries again
                return
            self._reads = True

    def _work(self) -> None:
        """Read what is wanted, until nothing is. What was read in vain may be wanted again some time after."""
        while True:
            with self._lock:
                path = next(iter(self._wanted), None)
                self._reads = path is not None
            if path is None:
                return
            known, began = None, time.monotonic()
            try:
                known = self._read(path)
            except Exception as error:  # whatever it is, other bases are to be read
                log.warning("%s could not be read: %s", path, error)
            now = time.monotonic()
            with self._lock:
                del self._wanted[path]
                if known is not None:
                    self._known[path] = known
                else:
                    self._not_before[path] = now + max(AGAIN_S, now - began)

    def _read(self, path: str) -> _Known | None:
        """None where it changes meanwhile. Raises OSError."""
        file = self._file(path)
        began, done, digest = time.monotonic(), 0, hashlib.sha256()
        with file.open("rb", buffering=0) as content:
            before = os.fstat(content.fileno())
            if not _settled(before):
                return None
            while done <= before.st_size and (chunk := content.read(CHUNK_BYTES)):
                digest.update(chunk)
                done += len(chunk)
                ahead_s = done / (RATE_MIB_S * 2**20) - (time.monotonic() - began)
                time.sleep(max(0.0, ahead_s))
        image = image_of(file, path)
        after = file.stat()
        if _stamp(after) != _stamp(before) or done != before.st_size:
            return None
        return _Known(_stamp(after), after.st_ctime_ns, image, digest.hexdigest())


def _settled(status: os.stat_result) -> bool:
    return abs(time.time() - status.st_mtime) >= SETTLED_S


def _is(file: Path, known: Image | None) -> bool:
    try:
        return image_of(file, known.path if known is not None else "") == known
    except subprocess.SubprocessError:
        return False


def _stamp(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
