"""A console as libvirt sends it: a PNG is taken as it is, an older QEMU's PPM made a small one, piece by piece.

Here: both forms, in as much as they are needed: sizes, and whether all of it has one colour. Not here: where it comes
from (`inside`).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from dr.model.checks import PICTURE_MAX
from dr.ports.hypervisor import Picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"
POINT = {2: 3, 6: 4}  # bytes of a point, by PNG's number for its colours: RGB, RGB with alpha
PNG_MAX = 8 << 20  # of what is read
WIDTH_MAX, HEIGHT_MAX = 1024, 768  # of what is made of a PPM
SIDE_MAX = 16384  # of what is read
HEAD_MAX = 512
_HEAD = re.compile(rb"P6\s+(?:#[^\n]*\n\s*)*(\d{1,6})\s+(\d{1,6})\s+255\s")


class BadPicture(Exception):
    """What came is no picture that is known here; the text says why."""


class Taking:
    """Takes a picture of either form, piece by piece."""

    def __init__(self) -> None:
        self._begun = b""
        self._form: Shrinking | Whole | None = None

    def feed(self, data: bytes) -> None:
        """Raises BadPicture."""
        if self._form is None:
            self._begun += data
            if len(self._begun) < len(SIGNATURE):
                return
            self._form = Whole() if self._begun.startswith(SIGNATURE) else Shrinking()
            data, self._begun = self._begun, b""
        self._form.feed(data)

    def picture(self) -> Picture:
        """All of it has come. Raises BadPicture."""
        if self._form is None:
            raise BadPicture("it broke off")
        return self._form.picture()


class Whole:
    """A PNG as it is. It is not unpacked as a whole: whether it has one colour shows row by row."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Raises BadPicture."""
        self._data += data
        if len(self._data) > PNG_MAX:
            raise BadPicture(f"it is larger than {PNG_MAX >> 20} MiB")

    def picture(self) -> Picture:
        """Raises BadPicture."""
        chunks = list(self._chunks())
        if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13 or chunks[-1][0] != b"IEND":
            raise BadPicture("it broke off")
        width, height, bits, colours, packing, filters, woven = struct.unpack("!IIBBBBB", chunks[0][1])
        if (bits, packing, filters, woven) != (8, 0, 0, 0) or colours not in POINT:
            raise BadPicture("it is a PNG of a form that is not known here")
        if not 0 < width <= SIDE_MAX or not 0 < height <= SIDE_MAX:
            raise BadPicture(f"it is {width} x {height}")
        packed = b"".join(data for kind, data in chunks if kind == b"IDAT")
        plain = _plain(packed, width, height, POINT[colours])
        return Picture(png=bytes(self._data), width=width, height=height, plain=plain)

    def _chunks(self) -> Iterator[tuple[bytes, bytes]]:
        at, data = len(SIGNATURE), self._data
        while at + 12 <= len(data):
            (size,) = struct.unpack_from("!I", data, at)
            if at + 12 + size > len(data):
                return
            yield bytes(data[at + 4 : at + 8]), bytes(data[at + 8 : at + 8 + size])
            at += 12 + size


def _plain(packed: bytes, width: int, height: int, point: int) -> bool:
    """Whether all points are like the first: then each row is one of a few, by its filter. Raises BadPicture."""
    unpacker, size = zlib.decompressobj(), 1 + point * width
    first: dict[int, bytes] = {}
    below: dict[int, bytes] = {}
    try:
        for number in range(height):
            row = b""
            while len(row) < size and (more := unpacker.decompress(packed, size - len(row))):
                row, packed = row + more, unpacker.unconsumed_tail
            if len(row) < size or row[0] > 4:
                raise BadPicture("it broke off")
            if not number:
                first, below = _plain_rows(row[1 : 1 + point], width)
            if row[1:] != (below if number else first)[row[0]]:
                return False
    except zlib.error as error:
        raise BadPicture(f"it cannot be unpacked: {error}") from error
    return True


def _plain_rows(colour: bytes, width: int) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """A row of that colour alone as each of PNG's filters writes it: the first one, and one below another."""
    same, rest = colour * width, width - 1
    nothing = bytes(len(colour))
    half = bytes(each - each // 2 for each in colour)
    left = colour + nothing * rest
    first = {0: same, 1: left, 2: same, 3: colour + half * rest, 4: left}
    below = {0: same, 1: left, 2: nothing * width, 3: half + nothing * rest, 4: nothing * width}
    return first, below


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
            if len(self._left) > HEAD_MAX or not self._left.startswith(b"P6"[: len(self._left)]):
                raise BadPicture(f"it is neither a PNG nor a PPM: it begins with {bytes(self._left[:8])!r}")
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
    return SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
