"""Files below disks: each is read once, in its own time, and what is told of it is what is in it now."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dr.adapters.libvirt import bases
from dr.adapters.libvirt.bases import Bases
from dr.adapters.libvirt.layout import Layout
from tests.adapters.libvirt.conftest import put

BASE = "/images/golden.qcow2"
LONG_AGO = 1_700_000_000


class Counting(Bases):
    """Counts how often files are read."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.reads: list[str] = []

    def _read(self, path: str) -> bases._Known | None:
        self.reads.append(path)
        return super()._read(path)

    def idle(self) -> bool:
        return not self._reads


def base(layout: Layout, content: bytes = b"golden", path: str = BASE, changed_at: int = LONG_AGO) -> Path:
    file = put(layout.root, path, content)
    os.utime(file, (changed_at, changed_at))
    return file


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wait_idle(known: Counting) -> None:
    deadline = time.monotonic() + 10
    while not known.idle():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def looked_at(known: Counting) -> str:
    """What is told once it was read as often as it was asked for."""
    known.digest(BASE)
    wait_idle(known)
    return known.digest(BASE)


def wait(known: Counting, path: str = BASE) -> str:
    """What is told in the end."""
    deadline = time.monotonic() + 10
    while not (found := known.digest(path)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def at_each_chunk(monkeypatch: pytest.MonkeyPatch, act: Callable[[float], None]) -> None:
    monkeypatch.setattr(bases, "time", SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=act))


@pytest.fixture
def known(layout: Layout) -> Iterator[Counting]:
    known = Counting(layout)
    yield known
    wait_idle(known)  # what is still read in one test must not meet what another one puts in its way


def test_it_is_read_once_for_all_who_ask(layout: Layout, known: Counting) -> None:
    content = os.urandom(3 * bases.CHUNK_BYTES + 17)
    base(layout, content)
    assert [known.digest(BASE) for _ in range(3)].count("") > 0, "nobody waits for it"
    wait_idle(known)
    assert [known.digest(BASE) for _ in range(3)] == [sha(content)] * 3
    assert known.reads == [BASE]


def test_an_empty_file_has_a_content_too(layout: Layout, known: Counting) -> None:
    base(layout, b"")
    assert wait(known) == sha(b"")


def test_a_new_owner_is_no_new_content(layout: Layout, known: Counting) -> None:
    """libvirt gives bases to QEMU's user and back whenever a guest starts and ends."""
    file = base(layout)
    assert wait(known) == sha(b"golden")
    for mode in (0o600, 0o640):
        file.chmod(mode)
        assert known.digest(BASE) == sha(b"golden")
    assert known.reads == [BASE]


def test_one_that_has_changed_is_read_again(layout: Layout, known: Counting) -> None:
    base(layout)
    assert wait(known) == sha(b"golden")
    base(layout, b"silver", changed_at=LONG_AGO + 1)
    assert known.digest(BASE) == "", "not told any more from then on"
    assert wait(known) == sha(b"silver")


@pytest.mark.parametrize("how", ["renamed over it", "removed and made anew"])
def test_another_file_of_that_size_and_time_is_read_again(layout: Layout, known: Counting, how: str) -> None:
    """The file system may give out the same inode number at once: the time of its birth is not the same."""
    file = base(layout)
    assert wait(known) == sha(b"golden")
    if how.startswith("renamed"):
        base(layout, b"silver", path="/images/new").rename(file)
    else:
        file.unlink()
        base(layout, b"silver")
    assert known.digest(BASE) == ""
    assert wait(known) == sha(b"silver")


def test_what_changes_while_it_is_read_counts_for_nothing(
    layout: Layout, known: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(os.urandom(3 * bases.CHUNK_BYTES))
    file = base(layout, bytes(content))
    written = iter([True])

    def sleep(_: float) -> None:
        if next(written, False):  # behind where the reader is
            with file.open("r+b") as into:
                into.write(b"silver")

    at_each_chunk(monkeypatch, sleep)
    assert looked_at(known) == ""
    os.utime(file, (LONG_AGO + 1, LONG_AGO + 1))
    assert looked_at(known) == ""
    assert known.reads == [BASE], "not at once: a guest may write to it all the time"
    monkeypatch.setattr(bases, "AGAIN_S", 0.0)
    known._not_before.clear()
    content[:6] = b"silver"
    monkeypatch.undo()
    assert wait(known) == sha(bytes(content))


@pytest.mark.parametrize("size", ["grows", "shrinks"])
def test_nor_what_grows_or_shrinks_meanwhile_with_its_time_put_back(
    layout: Layout, known: Counting, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    file = base(layout, bytes(3 * bases.CHUNK_BYTES))

    def sleep(_: float) -> None:
        os.truncate(file, (5 if size == "grows" else 1) * bases.CHUNK_BYTES)
        os.utime(file, (LONG_AGO, LONG_AGO))

    at_each_chunk(monkeypatch, sleep)
    assert looked_at(known) == ""


def test_what_changed_just_now_is_not_read_yet(layout: Layout, known: Counting) -> None:
    """A further change within the same tick of the file system's clock would not be seen."""
    now = int(time.time())
    base(layout, changed_at=now)
    assert looked_at(known) == ""
    base(layout, changed_at=now - 60)
    assert wait(known) == sha(b"golden")


def test_what_is_written_to_while_it_waits_for_its_turn_is_not_read(
    layout: Layout, known: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = base(layout)
    read = Counting._read

    def late(self: Counting, path: str) -> bases._Known | None:
        os.utime(file)
        return read(self, path)

    monkeypatch.setattr(Counting, "_read", late)
    assert looked_at(known) == ""
    assert known.digest(BASE) == ""


def test_one_that_cannot_be_read_is_not_tried_again_at_once(
    layout: Layout, known: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def fails(self: Counting, path: str) -> bases._Known | None:
        tries.append(path)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Counting, "_read", fails)
    base(layout)
    assert [looked_at(known) for _ in range(3)] == [""] * 3
    assert tries == [BASE]


def test_a_time_to_come_is_as_good_as_one_long_ago(layout: Layout, known: Counting) -> None:
    base(layout, changed_at=int(time.time()) + 3600)
    assert wait(known) == sha(b"golden")


def test_a_link_counts_as_the_file_that_it_leads_to(layout: Layout, known: Counting) -> None:
    base(layout, path="/images/golden-1.qcow2")
    base(layout, b"silver", path="/images/golden-2.qcow2")
    link = layout.at(BASE)
    for name, content in (("golden-1.qcow2", b"golden"), ("golden-2.qcow2", b"silver")):
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        assert wait(known) == sha(content)


def test_what_is_no_file_is_an_error(layout: Layout, known: Counting) -> None:
    with pytest.raises(FileNotFoundError):
        known.digest(BASE)
    os.mkfifo(layout.at("/pipe"))
    for path in ("/etc", "/pipe"):
        with pytest.raises(OSError, match="no regular file"):
            known.digest(path)
    assert known.reads == []


def test_one_that_goes_is_told_no_more_and_holds_up_no_other(layout: Layout, known: Counting) -> None:
    base(layout)
    base(layout, b"other", path="/images/other")
    known.digest(BASE)
    shutil.rmtree(layout.at("/images"))
    base(layout, b"other", path="/images/other")
    assert wait(known, "/images/other") == sha(b"other")
    with pytest.raises(FileNotFoundError):
        known.digest(BASE)


def test_one_that_hangs_holds_up_nobody_who_asks(
    layout: Layout, known: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread reads, whatever is asked for meanwhile; the rest comes after."""
    go_on = threading.Event()
    read = Counting._read

    def hangs(self: Counting, path: str) -> bases._Known | None:
        go_on.wait(10)
        return read(self, path)

    monkeypatch.setattr(Counting, "_read", hangs)
    base(layout)
    base(layout, b"other", path="/images/other")
    threads = threading.active_count()
    for _ in range(5):
        assert known.digest(BASE) == known.digest("/images/other") == ""
    assert threading.active_count() == threads + 1
    go_on.set()
    wait_idle(known)
    assert (known.digest(BASE), known.digest("/images/other")) == (sha(b"golden"), sha(b"other"))
    assert known.reads == [BASE, "/images/other"]


def test_it_is_read_no_faster_than_others_can_bear(
    layout: Layout, known: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "RATE_MIB_S", 20.0)
    base(layout, bytes(4 << 20))
    began = time.monotonic()
    assert wait(known) == sha(bytes(4 << 20))
    assert time.monotonic() - began >= 0.19
