"""How a file is cut for copying, which of it holds anything, and what proves two files equal.

Chunks are what is compared; windows, runs of chunks, are what one end asks the other about at once; and of a chunk only
blocks that are not all zero are sent and written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dr.ports.courier import CourierError

MIB = 2**20
CHUNK_B = 4 * MIB
BLOCK_B = 64 * 1024  # as QEMU's clusters: smaller holes are not worth a piece of their own
WINDOW = 16  # chunks
PIECES_MAX = CHUNK_B // BLOCK_B // 2
FOREVER = 2**63
_NO_HOLES = (errno.EINVAL, errno.EOPNOTSUPP)  # of a file system that knows none
_ZEROS = bytes(BLOCK_B)

Pieces = tuple[tuple[int, int], ...]  # offset in the chunk and length, ascending


class Total:
    """What proves two files equal: a digest over their length and the digests of all chunks that are not zero."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, index: int, digest: bytes) -> None:
        """The next chunk that is not zero, in order."""
        self._hash.update(index.to_bytes(8) + digest)

    def copy(self) -> Total:
        """As it is now."""
        made = Total()
        made._hash = self._hash.copy()
        return made

    def digest(self, length_b: int) -> bytes:
        """With all its chunks added."""
        whole = self._hash.copy()
        whole.update(b"length" + length_b.to_bytes(8))
        return whole.digest()


def digest_of(chunk: bytes) -> bytes:
    """Of one chunk with the zeros in it."""
    return hashlib.sha256(chunk).digest()


def pieces_of(chunk: bytes) -> Pieces:
    """Where it is not zero, in blocks, those side by side joined; empty for zeros alone."""
    found: list[tuple[int, int]] = []
    size = len(chunk)
    for at in range(0, size, BLOCK_B):
        length = min(BLOCK_B, size - at)
        zero = chunk.startswith(_ZEROS, at) if length == BLOCK_B else not any(chunk[at:])
        if zero:
            continue
        if found and sum(found[-1]) == at:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((at, length))
    return tuple(found)


def gaps_of(pieces: Pieces, size: int) -> Pieces:
    """What of a chunk of that size is in no piece."""
    found, at = [], 0
    for offset, length in (*pieces, (size, 0)):
        if offset > at:
            found.append((at, offset - at))
        at = offset + length
    return tuple(found)


def chunk_count(length_b: int) -> int:
    """Into how many chunks a file of that length is cut."""
    return -(-length_b // CHUNK_B)


def window_count(length_b: int) -> int:
    """How many windows it has."""
    return -(-length_b // (CHUNK_B * WINDOW))


def chunks_in(window: int, length_b: int) -> range:
    """The chunks of one window of a file of that length."""
    return range(window * WINDOW, min((window + 1) * WINDOW, chunk_count(length_b)))


def size_of(index: int, length_b: int) -> int:
    """Bytes in one chunk of a file of that length; the last may be short."""
    return min(CHUNK_B, length_b - index * CHUNK_B)


class Extents:
    """Where a file holds data, asked for from its beginning towards its end; moves its file offset.

    What the file system answers is remembered up to where it ends: asked anew for each chunk, it would walk the rest
    of a large file each time.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._known = (0, 0, False)  # start, end, whether it is data
        self._asked = 0

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """Data between those offsets, each as start and end. Raises OSError."""
        if start < self._asked:  # once more: it may have changed
            self._known = (0, 0, False)
        self._asked = start
        found, at = [], start
        while at < end:
            if not self._known[0] <= at < self._known[1]:
                self._known = self._ask(at)
            stop = min(self._known[1], end)
            if self._known[2]:
                found.append((at, stop))
            at = stop
        return found

    def _ask(self, at: int) -> tuple[int, int, bool]:
        begin = next_data(self._fd, at)
        if begin > at:
            return at, begin, False
        try:
            return at, os.lseek(self._fd, at, os.SEEK_HOLE), True
        except OSError as error:
            if error.errno in _NO_HOLES:
                return at, FOREVER, True
            raise


def next_data(fd: int, at: int) -> int:
    """Where data begins from there on, `FOREVER` for nowhere; moves its file offset. Raises OSError."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return FOREVER
        if error.errno in _NO_HOLES:
            return at
        raise


def data_in(extents: Extents, start: int, end: int) -> int:
    """Bytes of data between those offsets. Raises OSError."""
    return sum(stop - begin for begin, stop in extents.within(start, end))


def read_at(fd: int, at: int, size: int) -> bytes:
    """Up to so many bytes, fewer only at the file's end. Raises OSError."""
    data = os.pread(fd, size, at)
    while len(data) < size and (more := os.pread(fd, size - len(data), at + len(data))):
        data += more
    return data


def open_regular(file: Path, path: str, flags: int) -> int:
    """Open a file that is there, and is neither a link nor a device. Raises CourierError."""
    try:
        fd = os.open(file, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CourierError(f"{path} is a link, which is not copied") from None
        raise CourierError(f"{path} cannot be opened: {os.strerror(error.errno or 0)}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CourierError(f"{path} is no plain file")
    return fd


@contextmanager
def told(path: str, done: str) -> Iterator[None]:
    """Errors of a file in words: which one could not be "read", "written", …"""
    try:
        yield
    except OSError as error:
        raise CourierError(f"{path} could not be {done}: {os.strerror(error.errno or 0)}") from error
