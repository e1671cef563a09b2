"""A file that is written: locked against everybody, sparse where its source is, read again from disk at the end."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from dr.adapters.courier.chunks import (
    CHUNK_B,
    MIB,
    Extents,
    Pieces,
    Total,
    chunk_count,
    chunks_in,
    digest_of,
    gaps_of,
    next_data,
    open_regular,
    pieces_of,
    read_at,
    size_of,
    told,
)
from dr.adapters.courier.locks import lock_to_write
from dr.adapters.libvirt.layout import Layout

FLUSH_B = 128 * MIB  # as much again may be written while these go to the disk; other guests write there too
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # of fallocate(2)
_ZEROS = bytes(MIB)

Tick = Callable[[], None]  # called between chunks; what it raises ends the work


class Target:
    """One such file, open and locked until `close`. Raises CourierError throughout."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.path = path
        self.length_b = 0
        self._fd = open_regular(layout.at(path), path, os.O_RDWR)
        self._extents = Extents(self._fd)
        self._flusher = _Flusher(self._fd)
        try:
            lock_to_write(self._fd, path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others use it."""
        with suppress(OSError):  # told by `settle`, where it counts
            self._flusher.end()
        os.close(self._fd)

    def set_length(self, length_b: int) -> None:
        """Cut it, or let it grow by a hole."""
        with told(self.path, "written"):
            os.ftruncate(self._fd, length_b)
        self.length_b = length_b

    def held(self, window: int, tick: Tick) -> dict[int, bytes]:
        """The digest of each chunk of the window in which it holds data."""
        found = {}
        for index in chunks_in(window, self.length_b):
            tick()
            if data := self._data(self._extents, index):
                found[index] = digest_of(data)
        return found

    def write(self, index: int, pieces: Pieces, data: memoryview) -> None:
        """Make one chunk those pieces, whose bytes follow each other in `data`, and nothing else."""
        begin = index * CHUNK_B
        with told(self.path, "written"):
            for offset, length in gaps_of(pieces, size_of(index, self.length_b)):
                self._clear(begin + offset, length)
            taken = 0
            for offset, length in pieces:
                self._put(begin + offset, data[taken : taken + length])
                taken += length
            self._flusher.wrote(taken)

    def clear(self, index: int) -> None:
        """Make one chunk zero."""
        with told(self.path, "written"):
            self._clear(index * CHUNK_B, size_of(index, self.length_b))

    def settle(self) -> None:
        """Have it durable, and nothing of it in memory: what is read from now on comes from the disk."""
        with told(self.path, "written"):
            self._flusher.end()
            os.fsync(self._fd)
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def total(self, tick: Tick) -> tuple[bytes, int]:
        """What proves it equal to its source, and how many bytes of it are not zero; all of it is read."""
        total, filled_b, extents = Total(), 0, Extents(self._fd)
        for index in range(chunk_count(self.length_b)):
            tick()
            data = self._data(extents, index)
            if pieces := pieces_of(data):
                total.add(index, digest_of(data))
                filled_b += sum(length for _, length in pieces)
                with told(self.path, "read"):
                    os.posix_fadvise(self._fd, index * CHUNK_B, CHUNK_B, os.POSIX_FADV_DONTNEED)
        return total.digest(self.length_b), filled_b

    def _data(self, extents: Extents, index: int) -> bytes:
        """A chunk; empty where all of it is a hole."""
        begin, size = index * CHUNK_B, size_of(index, self.length_b)
        with told(self.path, "read"):
            if not extents.within(begin, begin + size):
                return b""
            return read_at(self._fd, begin, size)

    def _clear(self, at: int, length: int) -> None:
        if next_data(self._fd, at) < at + length and not punch(self._fd, at, length):
            for zero in range(at, at + length, len(_ZEROS)):
                self._put(zero, memoryview(_ZEROS)[: at + length - zero])

    def _put(self, at: int, data: memoryview) -> None:
        while data:
            written = os.pwrite(self._fd, data, at)
            data, at = data[written:], at + written


def punch(fd: int, at: int, length: int) -> bool:
    """Make a hole; False: this file system cannot. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.posix_fallocate makes no holes
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, at, length) == 0:
        return True
    if (number := ctypes.get_errno()) in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))


class _Flusher:
    """Sends to the disk what was written while more is written: little is left to do at the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._dirty_b = 0
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def wrote(self, size_b: int) -> None:
        """Raises OSError of an earlier flush."""
        self._dirty_b += size_b
        if self._dirty_b >= FLUSH_B:
            self.end()
            self._dirty_b = 0
            self._thread = threading.Thread(target=self._flush, name="flush of a copy", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Wait for the flush that is under way. Raises OSError."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _flush(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._error = error
