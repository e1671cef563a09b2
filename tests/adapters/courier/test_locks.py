"""Files in use are not copied, and what is being copied is not used: against QEMU's own tools."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dr.adapters.courier.source import Source
from dr.adapters.courier.target import Target
from dr.adapters.libvirt.layout import Layout
from dr.ports.courier import CourierError
from tests.adapters.courier.conftest import Host, copied

MIB = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "web.img"
    path.write_bytes(os.urandom(MIB))
    return path


def qemu_io(file: Path, command: str, *options: str) -> str:
    """What it says when it cannot; empty when it could."""
    argv = ["qemu-io", *options, "-f", "raw", "-c", command, str(file)]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    said = run.stdout + run.stderr
    return said if run.returncode or "ops" not in said else ""


@contextmanager
def opened(file: Path, *options: str) -> Iterator[None]:
    """While qemu-io has it open."""
    argv = ["qemu-io", *options, "-f", "raw", str(file)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        while b"MiB" not in (line := holder.stdout.readline()):
            assert line, "qemu-io ended"
        yield
        holder.stdin.close()


def test_nobody_writes_to_what_is_sent(disk: Path, tmp_path: Path) -> None:
    """QEMU may read it meanwhile, as a backup does."""
    source = Source(Layout(tmp_path), "/web.img")
    assert 'Failed to get "write" lock' in qemu_io(disk, "write 0 512")
    assert not qemu_io(disk, "read 0 512", "-r")
    source.close()
    assert not qemu_io(disk, "write 0 512")


def test_nobody_uses_what_is_taken(disk: Path, tmp_path: Path) -> None:
    target = Target(Layout(tmp_path), "/web.img")
    assert "Failed to get" in qemu_io(disk, "write 0 512")
    assert "Failed to get" in qemu_io(disk, "read 0 512", "-r")
    target.close()
    assert not qemu_io(disk, "write 0 512")


def test_what_qemu_writes_to_is_not_sent(disk: Path, tmp_path: Path) -> None:
    with (
        opened(disk),
        pytest.raises(CourierError, match=r"/web.img is in use by another process on this host"),
    ):
        Source(Layout(tmp_path), "/web.img")
    Source(Layout(tmp_path), "/web.img").close()


def test_what_qemu_only_reads_is_sent(disk: Path, tmp_path: Path) -> None:
    with opened(disk, "-r"):
        Source(Layout(tmp_path), "/web.img").close()


@pytest.mark.parametrize("options", [[], ["-r"]])
def test_what_qemu_uses_in_any_way_is_not_overwritten(disk: Path, tmp_path: Path, options: list[str]) -> None:
    before = disk.read_bytes()
    in_use = pytest.raises(CourierError, match=r"/web.img is in use by another process on this host")
    with opened(disk, *options), in_use:
        Target(Layout(tmp_path), "/web.img")
    assert disk.read_bytes() == before


def test_what_qemu_nbd_serves_is_not_sent(disk: Path, tmp_path: Path) -> None:
    """The server of a block device on the host; nobody need be connected to it."""
    argv = ["qemu-nbd", "-f", "raw", "-k", str(tmp_path / "nbd"), str(disk)]
    with subprocess.Popen(argv) as server:
        until = time.monotonic() + 10
        while not (tmp_path / "nbd").exists() and time.monotonic() < until:
            time.sleep(0.02)
        with socket.socket(socket.AF_UNIX) as client:  # it listens before it has opened the image
            client.settimeout(10)
            client.connect(str(tmp_path / "nbd"))
            assert client.recv(8) == b"NBDMAGIC"
        with pytest.raises(CourierError, match="in use"):
            Source(Layout(tmp_path), "/web.img")
        server.terminate()


def test_two_copies_of_one_file(disk: Path, tmp_path: Path) -> None:
    """May be sent twice at once, but neither taken twice nor taken while it is sent."""
    sources = [Source(Layout(tmp_path), "/web.img") for _ in range(2)]
    with pytest.raises(CourierError, match="in use"):
        Target(Layout(tmp_path), "/web.img")
    for each in sources:
        each.close()
    target = Target(Layout(tmp_path), "/web.img")
    with pytest.raises(CourierError, match="in use"):
        Target(Layout(tmp_path), "/web.img")
    with pytest.raises(CourierError, match="in use"):
        Source(Layout(tmp_path), "/web.img")
    target.close()


HOLDER = """
import fcntl, struct, sys
file = open(sys.argv[1], "r+b")
fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, int(sys.argv[2]), 1, 0))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("byte", "sent", "why"),
    [
        (100, True, "reads"),
        (101, False, "writes"),
        (103, False, "resizes"),
        (200, False, "lets nobody read"),
        (201, True, "lets nobody write"),
    ],
)
def test_each_of_qemus_locks(disk: Path, tmp_path: Path, byte: int, sent: bool, why: str) -> None:
    argv = [sys.executable, "-c", HOLDER, str(disk), str(byte)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        if sent:
            Source(Layout(tmp_path), "/web.img").close()
        else:
            with pytest.raises(CourierError, match="in use"):
                Source(Layout(tmp_path), "/web.img")
        holder.communicate()


async def test_it_is_locked_for_as_long_as_it_is_sent(h1: Host, h2: Host) -> None:
    disk = h1.file("web.img", (0, os.urandom(8 * MIB)))
    there = h2.file("web.img")
    copying = asyncio.create_task(copied(h1, h2, "web.img", mib_s=8))
    await asyncio.sleep(0.4)
    for file in (disk, there):
        assert "Failed to get" in await asyncio.to_thread(qemu_io, file, "write 0 512")
    sent, _ = await copying
    assert isinstance(sent, str)
    for file in (disk, there):
        assert not await asyncio.to_thread(qemu_io, file, "write 0 512")
