"""A file that is sent: locked against writers, read in chunks, and proven not to have changed meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from dr.adapters.courier.chunks import (
    CHUNK_B,
    MIB,
    Extents,
    Pieces,
    data_in,
    digest_of,
    open_regular,
    pieces_of,
    read_at,
    size_of,
    told,
)
from dr.adapters.courier.locks import lock_to_read
from dr.adapters.libvirt.layout import Layout
from dr.ports.courier import CourierError

FORGET_B = 64 * MIB


@dataclass(frozen=True, slots=True)
class Read:
    """One chunk as it is read."""

    index: int
    data_b: int  # what of it takes room on this host's disk
    data: bytes = b""  # empty: nothing but zeros
    pieces: Pieces = ()
    digest: bytes = b""


class Source:
    """One such file, open and locked until `close`. Raises CourierError throughout."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.path = path
        self._file = layout.at(path)
        self._fd = open_regular(self._file, path, os.O_RDONLY)
        try:
            lock_to_read(self._fd, path)
            with told(path, "read"):
                # What a file system has not yet placed on its disk, it may not tell from holes (OpenZFS issue 15526).
                os.fsync(self._fd)
                status = os.fstat(self._fd)
                self.length_b = status.st_size
                self._was = _stamp(status)
                self._extents = Extents(self._fd)
                self.data_b = data_in(self._extents, 0, self.length_b)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others use it."""
        os.close(self._fd)

    def chunks(self, indexes: range) -> Iterator[Read]:
        """Read those; what was read does not stay in this host's page cache."""
        kept_from = indexes.start * CHUNK_B
        for index in indexes:
            yield self._chunk(index)
            read_to = (index + 1) * CHUNK_B
            if read_to - kept_from >= FORGET_B:
                with told(self.path, "read"):
                    os.posix_fadvise(self._fd, kept_from, read_to - kept_from, os.POSIX_FADV_DONTNEED)
                kept_from = read_to

    def _chunk(self, index: int) -> Read:
        begin, size = index * CHUNK_B, size_of(index, self.length_b)
        with told(self.path, "read"):
            data_b = data_in(self._extents, begin, begin + size)
            data = read_at(self._fd, begin, size) if data_b else b""
        if data_b and len(data) < size:
            raise self._changed()
        pieces = pieces_of(data)
        if not pieces:
            return Read(index, data_b)
        return Read(index, data_b, data, pieces, digest_of(data))

    def check_unchanged(self) -> None:
        """Raises CourierError if it was written to, resized, renamed or removed since it was opened."""
        with told(self.path, "read"):
            now = _stamp(os.fstat(self._fd))
        if now != self._was:
            raise self._changed()

    def _changed(self) -> CourierError:
        return CourierError(f"{self.path} changed while it was copied")


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink
