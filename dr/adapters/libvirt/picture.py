"""A console as QEMU dumps it (PPM), made a small PNG: piece by piece, so that a large one takes little memory.

Here: the two forms, in as much as they are needed. Not here: where it comes from (`inside`).
"""

from __future__ import annotations

import re
import struct
import zlib

from dr.model.checks import PICTURE_MAX
from dr.ports.hypervisor import Picture

WIDTH_MAX, HEIGHT_MAX = 1024, 768  # of what is kept
SIDE_MAX = 16384  # of what is read
HEAD_MAX = 512
_HEAD = re.compile(rb"P6\s+(?:#[^\n]*\n\s*)*(\d{1,6})\s+(\d{1,6})\s+255\s")


class BadPicture(Exception):
    """What came is no picture that is known here; the text says why."""


class Shrinking:
    """Takes a PPM piece by piece, and keeps every so-manieth point of every so-manieth row."""

    def __init__(self) -> None:
        self._left = bytearray()  # not looked at yet
        self._rows: list[bytes] = []
        self._seen = 0  # rows
        self._first = b""
        self._plain = True
        self._width = self._height = self._step = 0

    def feed(self, data: bytes) -> None:
        """Raises BadPicture."""
        self._left += data
        if not self._width and not self._head():
            return
        size = 3 * self._width
        rows = min(len(self._left) // size, self._height - self._seen)
        for at in range(rows):
            self._row(bytes(self._left[at * size : (at + 1) * size]))
        del self._left[: rows * size]
        if self._seen == self._height and self._left:
            raise BadPicture("there is more of it than it says")

    def picture(self) -> Picture:
        """All of it has come. Raises BadPicture."""
        if not self._width or self._seen < self._height:
            raise BadPicture("it broke off")
        rows = self._rows
        while len(png := _png(rows)) > PICTURE_MAX and len(rows) > 1:
            rows = [_thin(row, 2) for row in rows[::2]]
        return Picture(png=png, width=self._width, height=self._height, plain=self._plain)

    def _head(self) -> bool:
        match = _HEAD.match(self._left)
        if match is None:
            if len(self._left) > HEAD_MAX:
                raise BadPicture(f"it is no PPM: it begins with {bytes(self._left[:8])!r}")
            return False
        self._width, self._height = int(match[1]), int(match[2])
        if not 0 < self._width <= SIDE_MAX or not 0 < self._height <= SIDE_MAX:
            raise BadPicture(f"it is {self._width} x {self._height}")
        self._step = max(-(-self._width // WIDTH_MAX), -(-self._height // HEIGHT_MAX))
        del self._left[: match.end()]
        return True

    def _row(self, row: bytes) -> None:
        if not self._seen:
            self._first = row[:3] * self._width
        self._plain = self._plain and row == self._first
        if self._seen % self._step == 0:
            self._rows.append(_thin(row, self._step))
        self._seen += 1


def _thin(row: bytes, step: int) -> bytes:
    """Every so-manieth point."""
    if step == 1:
        return row
    thin = bytearray(3 * -(-len(row) // (3 * step)))
    for colour in range(3):
        thin[colour::3] = row[colour :: 3 * step]
    return bytes(thin)


def _png(rows: list[bytes]) -> bytes:
    """Eight bits for each of three colours, unfiltered."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    packer = zlib.compressobj(6)
    packed = b"".join(packer.compress(b"\0" + row) for row in rows) + packer.flush()
    head = struct.pack("!IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
