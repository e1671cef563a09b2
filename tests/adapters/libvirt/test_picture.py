"""Pictures of consoles: read piece by piece, made small, and told apart from a screen of one colour."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from dr.adapters.libvirt.picture import PNG_MAX, BadPicture, Taking
from dr.model.checks import PICTURE_MAX
from dr.ports.hypervisor import Picture

RED, BLACK = b"\xff\0\0", b"\0\0\0"


def ppm(width: int, height: int, points: bytes, head: bytes = b"P6\n%d %d\n255\n") -> bytes:
    return head % (width, height) + points


def fed(data: bytes, piece: int = 65536) -> Picture:
    taking = Taking()
    for at in range(0, len(data), piece):
        taking.feed(data[at : at + piece])
    return taking.picture()


def points_of(png: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height, rows of an unfiltered RGB PNG; every checksum is looked at."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(png):
        (size,) = struct.unpack_from("!I", png, at)
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack_from("!I", png, at + 8 + size)[0] == zlib.crc32(kind + data)
        chunks[kind] = data
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *form = struct.unpack("!IIBBBBB", chunks[b"IHDR"])
    assert form == [8, 2, 0, 0, 0]
    raw = zlib.decompress(chunks[b"IDAT"])
    rows = [raw[at : at + 1 + 3 * width] for at in range(0, len(raw), 1 + 3 * width)]
    assert len(rows) == height
    assert all(row[0] == 0 for row in rows)
    return width, height, [row[1:] for row in rows]


@pytest.mark.parametrize("piece", [1, 7, 65536])
def test_a_small_one_is_kept_point_by_point(piece: int) -> None:
    rows = [RED + BLACK + RED, BLACK + RED + BLACK]
    picture = fed(ppm(3, 2, b"".join(rows)), piece)
    assert (picture.width, picture.height, picture.plain) == (3, 2, False)
    assert points_of(picture.png) == (3, 2, rows)


def test_a_screen_of_one_colour_is_told() -> None:
    assert fed(ppm(720, 400, BLACK * 720 * 400)).plain
    assert fed(ppm(8, 8, RED * 64)).plain
    assert not fed(ppm(8, 8, RED * 63 + BLACK)).plain


def test_a_large_one_is_made_smaller() -> None:
    picture = fed(ppm(2560, 1440, (RED * 1280 + BLACK * 1280) * 1440))
    width, height, rows = points_of(picture.png)
    assert (picture.width, picture.height) == (2560, 1440)
    assert (width, height) == (854, 480)
    assert set(rows) == {RED * 427 + BLACK * 427}


def test_one_that_does_not_pack_is_made_smaller_until_it_fits() -> None:
    noise = random.Random(1).randbytes(3 * 640 * 480)
    picture = fed(ppm(640, 480, noise))
    assert len(picture.png) <= PICTURE_MAX
    assert points_of(picture.png)[0] == 320
    assert fed(ppm(1, 1024, random.Random(2).randbytes(3 * 1024))).png


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "broke off"),
        (b"P6\n2 2\n255\n" + RED * 3, "broke off"),
        (b"P6\n2 2\n255\n" + RED * 5, "more of it than it says"),
        (b"P6\n0 2\n255\n", "it is 0 x 2"),
        (b"P6\n99999 99999\n255\n", "it is 99999 x 99999"),
        (b"GIF89a" + bytes(600), "it is neither a PNG nor a PPM"),
        (b"P6\n2 2\n65535\n" + bytes(600), "it is neither a PNG nor a PPM"),
        (b"\x89PNG\r\n\x1a\n" + bytes(PNG_MAX), "larger than 8 MiB"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadPicture, match=why):
        fed(data)


def test_a_comment_in_its_head_is_nothing() -> None:
    assert fed(ppm(1, 1, RED, b"P6 # QEMU\n# again\n%d %d 255\n")).width == 1


# ---- what is a PNG already


def png(width: int, height: int, raw: bytes, *, form: tuple[int, ...] = (8, 2, 0, 0, 0)) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    head = struct.pack("!IIBBBBB", width, height, *form)
    packed = zlib.compress(raw)
    half = len(packed) // 2
    parts = [(b"IHDR", head), (b"IDAT", packed[:half]), (b"IDAT", packed[half:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def filtered(rows: list[bytes], filters: list[int], point: int = 3) -> bytes:
    """As PNG writes them (its specification, section 9.2)."""

    def paeth(a: int, b: int, c: int) -> int:
        p = a + b - c
        return min((a, b, c), key=lambda each: abs(p - each))

    out, before = b"", bytes(len(rows[0]))
    for row, kind in zip(rows, filters, strict=True):
        made = bytearray()
        for at, value in enumerate(row):
            left, up = row[at - point] if at >= point else 0, before[at]
            corner = before[at - point] if at >= point else 0
            less = (0, left, up, (left + up) // 2, paeth(left, up, corner))[kind]
            made.append((value - less) % 256)
        out, before = out + bytes([kind]) + bytes(made), row
    return out


@pytest.mark.parametrize("colour", [BLACK, RED, b"\x07\xfe\x81"])
@pytest.mark.parametrize("first", range(5))
@pytest.mark.parametrize("then", range(5))
def test_one_colour_is_told_whatever_the_filter(colour: bytes, first: int, then: int) -> None:
    rows = [colour * 5] * 4
    plain = png(5, 4, filtered(rows, [first, then, then, first]))
    picture = fed(plain, 7)
    assert (picture.png, picture.width, picture.height, picture.plain) == (plain, 5, 4, True)
    for at in (0, 3):
        spot = [*rows[:at], colour * 4 + b"\x01\x02\x03", *rows[at + 1 :]]
        assert not fed(png(5, 4, filtered(spot, [first, then, then, first]))).plain


def test_one_with_alpha() -> None:
    clear = b"\x10\x20\x30\xff"
    raw = filtered([clear * 3] * 2, [1, 4], point=4)
    assert fed(png(3, 2, raw, form=(8, 6, 0, 0, 0))).plain


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (png(2, 2, bytes(14))[:40], "broke off"),
        (png(2, 2, bytes(10)), "broke off"),
        (png(2, 2, b"\x09" * 14), "broke off"),
        (png(0, 2, bytes(14)), "it is 0 x 2"),
        (png(2, 2, bytes(14), form=(16, 2, 0, 0, 0)), "a form that is not known"),
        (png(2, 2, bytes(14), form=(8, 2, 0, 0, 1)), "a form that is not known"),
        (png(2, 2, b"").replace(zlib.compress(b"")[:4], b"\0\0\0\0"), "cannot be unpacked|broke off"),
    ],
)
def test_a_png_that_is_none(data: bytes, why: str) -> None:
    with pytest.raises(BadPicture, match=why):
        fed(data)


def test_a_bomb_is_not_unpacked_as_a_whole() -> None:
    """16,384 rows of a width that nobody has; the first that is not plain ends it."""
    raw = bytes(1 + 3 * 16384) + bytes([0]) + b"\x01" * (3 * 16384)
    assert not fed(png(16384, 16384, raw * 8)).plain
