"""What arrives: the same bytes, in the same places on the disk, and only what was not there."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from dr.adapters.courier import chunks, source, target
from dr.adapters.courier.chunks import BLOCK_B, CHUNK_B, MIB
from dr.adapters.courier.wire import Wire
from dr.adapters.libvirt.layout import Layout
from dr.ports.courier import CourierError
from tests.adapters.courier.conftest import HERE, OTHER, G, Host, Proxy, copied, noise


def qemu_img(*arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], check=True)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def counts(text: object) -> tuple[int, int]:
    """MiB sent, and MiB that were there already."""
    found = re.fullmatch(
        r"(\d+) MiB of \d+ MiB sent in [\d.]+ s, (\d+) MiB were there already, checked over there", str(text)
    )
    assert found, text
    return int(found[1]), int(found[2])


async def test_a_sparse_file_arrives_bit_for_bit_and_as_sparse(h1: Host, h2: Host) -> None:
    size = 300 * MIB + 12_345
    parts = [
        (0, noise(MIB)),
        (63 * MIB, noise(3 * MIB + 17)),
        (200 * MIB + 4096, b"x"),
        (size - 10, b"0123456789"),
    ]
    here, there = h1.file("web.img", *parts, size=size), h2.file("web.img")
    sent, taken = await copied(h1, h2, "web.img")
    assert there.read_bytes() == here.read_bytes()
    assert allocated(there) <= allocated(here) + len(parts) * 2 * BLOCK_B
    assert counts(sent) == (4, 0)
    assert re.fullmatch(
        r"4 MiB came in [\d.]+ s, 0 MiB were there already, all read again and found equal", str(taken)
    )


async def test_only_what_is_not_zero_goes_over_the_network(h1: Host, h2: Host) -> None:
    """Also where zeros were written."""
    here = h1.file("web.img", (0, bytes(32 * MIB)), (9 * MIB, b"a"), (20 * MIB, noise(MIB)), size=32 * MIB)
    there = h2.file("web.img")
    sent, _ = await copied(h1, h2, "web.img")
    assert there.read_bytes() == here.read_bytes()
    assert counts(sent) == (1, 0)
    assert allocated(there) <= MIB + 2 * BLOCK_B


async def test_a_qcow2_image_arrives_bit_for_bit(h1: Host, h2: Host) -> None:
    raw = h1.file("raw", (5 * MIB, noise(7 * MIB)), size=64 * MIB)
    here = h1.root / "vm/web.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", str(raw), str(here))
    there = h2.root / "vm/web.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", str(there), "64M")
    await copied(h1, h2, "web.qcow2")
    assert there.read_bytes() == here.read_bytes()
    qemu_img("compare", "-q", str(raw), str(there))


@pytest.mark.parametrize("size", [0, 1, CHUNK_B - 1, CHUNK_B, CHUNK_B + 1, 17 * CHUNK_B + 5])
async def test_lengths_that_are_no_multiple_of_anything(h1: Host, h2: Host, size: int) -> None:
    data = noise(size)
    h1.file("web.img", (0, data))
    there = h2.file("web.img", (0, noise(3 * MIB)))
    await copied(h1, h2, "web.img")
    assert there.read_bytes() == data


async def test_several_files_in_their_order(h1: Host, h2: Host) -> None:
    one, two = h1.file("one", (0, noise(5 * MIB))), h1.file("two", (MIB, noise(9 * MIB)))
    h2.file("one")
    h2.file("two")
    await copied(h1, h2, "one", "two")
    assert (h2.root / "vm/one").read_bytes() == one.read_bytes()
    assert (h2.root / "vm/two").read_bytes() == two.read_bytes()


async def test_what_is_over_there_already_is_not_sent(h1: Host, h2: Host) -> None:
    data = noise(40 * MIB)
    h1.file("web.img", (0, data))
    there = h2.file("web.img", (0, data), (13 * MIB, b"changed"))
    sent, taken = await copied(h1, h2, "web.img")
    assert counts(sent) == (4, 36)
    assert "36 MiB were there already" in str(taken)
    assert there.read_bytes() == data


@pytest.mark.parametrize("punches", [True, False])
async def test_zeros_replace_old_data(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch, punches: bool
) -> None:
    """As holes; as zeros where the file system makes none."""
    if not punches:
        monkeypatch.setattr(target, "punch", lambda *_: False)
    size = 24 * MIB
    here = h1.file("web.img", (9 * MIB, noise(MIB)), size=size)
    there = h2.file("web.img", (0, noise(size + 5 * MIB)))
    sent, _ = await copied(h1, h2, "web.img")
    assert there.read_bytes() == here.read_bytes()
    assert counts(sent) == (1, 0)
    if punches:
        assert allocated(there) <= MIB + 2 * BLOCK_B


async def test_two_copies_at_once(h1: Host, h2: Host) -> None:
    one, two = h1.file("one", (0, noise(30 * MIB))), h1.file("two", (0, noise(30 * MIB)))
    h2.file("one")
    h2.file("two")
    await asyncio.gather(copied(h1, h2, "one"), copied(h1, h2, "two", guest=OTHER, copy="copy-2", mib_s=100))
    assert (h2.root / "vm/one").read_bytes() == one.read_bytes()
    assert (h2.root / "vm/two").read_bytes() == two.read_bytes()


async def test_both_ways_at_once(h1: Host, h2: Host) -> None:
    h1.file("one", (0, noise(9 * MIB)))
    h2.file("one")
    h2.file("two", (0, noise(9 * MIB)))
    h1.file("two")
    await asyncio.gather(copied(h1, h2, "one"), copied(h2, h1, "two", guest=OTHER, copy="copy-2"))
    for name in ("one", "two"):
        assert (h1.root / "vm" / name).read_bytes() == (h2.root / "vm" / name).read_bytes()


async def test_a_write_that_goes_wrong_at_the_disk_is_noticed(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was received was right; what lies on the disk is not. Nothing is put into its place."""
    h1.file("web.img", (0, noise(9 * MIB)))
    h2.file("web.img")
    placed: list[str] = []
    write = os.pwrite

    def flips(fd: int, data: bytes, at: int) -> int:
        flipped = bytearray(data)
        flipped[100] ^= at == 4 * MIB
        return write(fd, flipped, at)

    async def place() -> None:
        placed.append("web.img")

    monkeypatch.setattr(os, "pwrite", flips)
    ends = await copied(h1, h2, "web.img", placed=place)
    for end in ends:
        assert "/vm/web.img is not the same as on host h1" in str(end)
        assert not isinstance(end, str)
    assert not placed


async def test_files_get_their_names_before_the_sender_hears_of_it(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")
    order: list[str] = []
    send = Wire.send

    def watched(self: Wire, message: object) -> None:
        order.append(type(message).__name__)
        send(self, message)  # type: ignore[arg-type]

    async def place() -> None:
        assert "Placed" not in order
        order.append("in place")

    monkeypatch.setattr(Wire, "send", watched)
    await copied(h1, h2, "web.img", placed=place)
    assert order[-4:] == ["Complete", "in place", "Placed", "Bye"]


async def test_the_sender_hears_that_they_could_not_be_put_in_place(h1: Host, h2: Host) -> None:
    h1.file("web.img", (0, noise(MIB)))
    h2.file("web.img")

    async def place() -> None:
        raise ValueError("there is a file already")

    sending = asyncio.create_task(
        h1.courier.send(G, "copy-1", to="h2", addresses=(HERE,), port=h2.port, files=("/vm/web.img",))
    )
    with pytest.raises(ValueError, match="there is a file already"):
        await h2.courier.take(G, "copy-1", source="h1", files=("/vm/web.img",), placed=place)
    with pytest.raises(CourierError, match="host h2: not put in place: there is a file already"):
        await sending


async def test_progress_and_a_limit(h1: Host, h2: Host) -> None:
    h1.file("web.img", (0, noise(8 * MIB)), size=200 * MIB)
    h2.file("web.img")
    copying = asyncio.create_task(copied(h1, h2, "web.img", mib_s=8))
    await asyncio.sleep(0.2)
    (now,) = h1.courier.progress()
    for _ in range(100):
        if now.rate_mib_s:
            break
        await asyncio.sleep(0.05)
        (now,) = h1.courier.progress()
    sent, _ = await copying
    assert now.guest == G
    assert now.total_mib == pytest.approx(8, abs=0.2)
    assert now.remaining_mib in {4, 8}, "counted by the chunk"
    assert 0 < now.rate_mib_s < 12
    assert 0.2 < now.elapsed_s < 10
    seconds = float(str(sent).partition("sent in ")[2].partition(" s")[0])
    assert 0.9 <= seconds < 10
    assert h1.courier.progress() == ()


def test_what_was_read_does_not_stay_in_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy must not push everybody else's files out of it."""
    (tmp_path / "web.img").write_bytes(noise(12 * MIB))
    forgotten: list[tuple[int, int]] = []
    monkeypatch.setattr(source, "FORGET_B", 8 * MIB)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, at, size, __: forgotten.append((at, size)))
    read = source.Source(Layout(tmp_path), "/web.img")
    assert len(list(read.chunks(range(3)))) == 3
    read.close()
    assert forgotten == [(0, 8 * MIB)]


def test_what_is_checked_at_the_end_comes_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Durable first, as only then the page cache lets go of it."""
    (tmp_path / "web.img").write_bytes(noise(MIB))
    done: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: done.append("fsync"))
    monkeypatch.setattr(os, "posix_fadvise", lambda _, at, size, advice: done.append(f"{at} {size} {advice}"))
    written = target.Target(Layout(tmp_path), "/web.img")
    written.settle()
    written.close()
    assert done == ["fsync", f"0 0 {os.POSIX_FADV_DONTNEED}"]


def test_where_data_is_is_asked_once_for_each_stretch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question may make the file system walk the whole file."""
    path = tmp_path / "web.img"
    with path.open("wb") as file:
        file.write(noise(40 * MIB))
        file.truncate(400 * MIB)
    asked: list[int] = []
    seek = os.lseek

    def counted(fd: int, at: int, how: int) -> int:
        asked.append(at)
        return seek(fd, at, how)

    monkeypatch.setattr(os, "lseek", counted)
    with path.open("rb") as read:
        extents = chunks.Extents(read.fileno())
        found = [
            (start, end)
            for index in range(100)
            for start, end in extents.within(index * CHUNK_B, (index + 1) * CHUNK_B)
        ]
    assert found == [(index * CHUNK_B, (index + 1) * CHUNK_B) for index in range(10)]
    assert len(asked) <= 12  # a file system may tell of one stretch in parts
    again = chunks.Extents(os.open(path, os.O_RDWR))
    assert again.within(0, MIB) == [(0, MIB)]
    assert target.punch(again._fd, 0, MIB)
    assert again.within(0, MIB) == [(0, MIB)], "remembered"
    again.within(CHUNK_B, CHUNK_B + 1)
    assert again.within(0, MIB) == [], "asked again from the beginning on"
    os.close(again._fd)


def test_pieces_and_gaps() -> None:
    chunk = bytes(BLOCK_B) + b"a" * (2 * BLOCK_B) + bytes(BLOCK_B) + b"b" + bytes(9)
    pieces = chunks.pieces_of(chunk)
    assert pieces == ((BLOCK_B, 2 * BLOCK_B), (4 * BLOCK_B, 10))
    assert chunks.gaps_of(pieces, len(chunk)) == ((0, BLOCK_B), (3 * BLOCK_B, BLOCK_B))
    assert chunks.pieces_of(bytes(CHUNK_B)) == chunks.pieces_of(b"") == ()


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_in_either_file(
    h1: Host, h2: Host, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Holes, zeros, old data and the same data in any mixture, over a network that breaks now and then."""
    chance = random.Random(seed)
    monkeypatch.setattr(chunks, "WINDOW", chance.choice([1, 2, 16]))
    here, there = h1.file("web.img"), h2.file("web.img")
    blocks = [chance.randbytes(BLOCK_B) for _ in range(4)]
    size = chance.randrange(1, 40 * MIB)
    for path, length in ((here, size), (there, chance.choice([0, size, chance.randrange(1, 40 * MIB)]))):
        with path.open("wb") as file:
            at = 0
            while at < length:
                run = chance.choice([1, 2, 50, 64, 200])
                what = chance.choice(["hole", "zeros", "data", "data"])
                if what != "hole":
                    file.seek(at)
                    block = bytes(BLOCK_B) if what == "zeros" else chance.choice(blocks)
                    file.write((block * run)[: length - at])
                at += run * BLOCK_B
            file.truncate(length)
    expected = here.read_bytes()
    proxy.breaks_after = [chance.randrange(20 * MIB) for _ in range(chance.randrange(4))]
    sent, taken = await copied(h1, h2, "web.img", port=proxy.port)
    assert isinstance(sent, str), sent
    assert isinstance(taken, str), taken
    assert there.read_bytes() == expected
    holes = sum(end - start for start, end in empty(expected))
    assert allocated(there) <= size - holes + 2 * CHUNK_B


def empty(data: bytes) -> list[tuple[int, int]]:
    """Its blocks that are zero."""
    return [
        (at, at + BLOCK_B)
        for at in range(0, len(data) - BLOCK_B + 1, BLOCK_B)
        if data.startswith(bytes(BLOCK_B), at)
    ]
