"""Files that cannot be read or written, that change, or that are none."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from dr.adapters.courier import target, wire
from dr.adapters.courier.chunks import MIB
from dr.adapters.courier.wire import Wire
from dr.ports.courier import CourierError
from tests.adapters.courier.conftest import (
    Host,
    copied,
    noise,
    send,
    take,
)


async def test_a_full_disk_is_told_at_both_ends(h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    h1.file("web.img", (0, noise(100 * MIB)))
    h2.file("web.img")
    write = os.pwrite

    def full(fd: int, data: bytes, at: int) -> int:
        if at >= 20 * MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    sent, taken = await copied(h1, h2, "web.img")
    assert isinstance(taken, CourierError)
    assert str(taken) == "/vm/web.img could not be written: No space left on device"
    assert isinstance(sent, CourierError)
    assert str(sent) == f"host h2: {taken}"


async def test_why_it_ended_is_read_from_a_connection_that_broke(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The taker said why and is gone; the sender notices only because it can send no more."""
    h1.file("web.img", (0, noise(100 * MIB)))
    h2.file("web.img")

    def full(_fd: int, _data: bytes, _at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(wire, "linger", lambda _: None)
    monkeypatch.setattr(Wire, "heard", False)
    sent, _ = await copied(h1, h2, "web.img")
    assert "No space left on device" in str(sent)


async def test_a_slow_sender_hears_of_it_at_once(h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when it next asks for something, after all of a window."""
    h1.file("web.img", (0, noise(60 * MIB)))
    h2.file("web.img")

    def full(_fd: int, _data: bytes, _at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    began = monotonic()
    sent, _ = await copied(h1, h2, "web.img", mib_s=8)
    assert "No space left on device" in str(sent)
    assert monotonic() - began < 4.5


@pytest.mark.parametrize("flush_mib", [4, 8])
async def test_a_disk_that_fails_late_is_told_too(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch, flush_mib: int
) -> None:
    """The kernel took the data, and the disk did not: a flush beside the copy says so."""
    h1.file("web.img", (0, noise(9 * MIB)))
    h2.file("web.img")
    monkeypatch.setattr(target, "FLUSH_B", flush_mib * MIB)

    def fails(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fails)
    for end in await copied(h1, h2, "web.img"):
        assert isinstance(end, CourierError)
        assert "/vm/web.img could not be written: Input/output error" in str(end)


async def test_a_disk_that_cannot_be_read_is_told_at_both_ends(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    h1.file("web.img", (0, noise(9 * MIB)))
    h2.file("web.img")

    def fails(_fd: int, _size: int, _at: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fails)
    for end in await copied(h1, h2, "web.img"):
        assert isinstance(end, CourierError)
        assert "/vm/web.img could not be read: Input/output error" in str(end)


@pytest.mark.parametrize("late", [False, True])
async def test_a_file_that_changes_meanwhile_is_not_copied(h1: Host, h2: Host, late: bool) -> None:
    """Written to by somebody who looks at no locks; `late`: a file that was sent already."""
    h1.file("web.img", (0, noise(20 * MIB)))
    second = h1.file("two.img", (0, noise(20 * MIB)))
    h2.file("web.img")
    h2.file("two.img")
    placed: list[str] = []

    async def place() -> None:
        placed.append("web.img")

    copying = asyncio.create_task(copied(h1, h2, "two.img", "web.img", placed=place, mib_s=20))
    await asyncio.sleep(1.5 if late else 0.5)
    with second.open("r+b") as file:
        file.write(b"changed")
    for end in await copying:
        assert isinstance(end, CourierError)
        assert "/vm/two.img changed while it was copied" in str(end)
    assert not placed


async def test_a_file_that_becomes_shorter_meanwhile_is_not_copied(h1: Host, h2: Host) -> None:
    here = h1.file("web.img", (0, noise(20 * MIB)))
    h2.file("web.img")
    copying = asyncio.create_task(copied(h1, h2, "web.img", mib_s=20))
    await asyncio.sleep(0.3)
    os.truncate(here, 17 * MIB + 1)
    sent, _ = await copying
    assert isinstance(sent, CourierError)
    assert "changed while it was copied" in str(sent)


@pytest.mark.parametrize("end", ["h1", "h2"])
async def test_only_plain_files(h1: Host, h2: Host, tmp_path: Path, end: str) -> None:
    """A link could lead anywhere; a FIFO would hang."""
    (tmp_path / "elsewhere").write_bytes(b"x")
    host, other = (h1, h2) if end == "h1" else (h2, h1)
    other.file("web.img")
    bad = host.root / "vm/web.img"
    makes: dict[str, Callable[[], object]] = {
        "is a link": lambda: bad.symlink_to(tmp_path / "elsewhere"),
        "is no plain file": lambda: os.mkfifo(bad),
        "cannot be opened: No such file or directory": lambda: None,
    }
    for why, make in makes.items():
        make()
        found = await (send(h1, h2) if end == "h1" else take(h2))
        assert isinstance(found, CourierError)
        assert f"/vm/web.img {why}" in str(found)
        bad.unlink(missing_ok=True)
