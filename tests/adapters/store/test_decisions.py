"""Files of saved decisions: whole, private, bounded."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dr.adapters.store.decisions import DecisionFiles


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def age(path: Path, seconds: float) -> None:
    os.utime(path, (1e9 + seconds, 1e9 + seconds))


def test_kept_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    files = DecisionFiles(folder)
    files.put("3-17", [b"one", b"two"])
    assert files.read("3-17") == b"onetwo"
    assert stat.S_IMODE((folder / "3-17.gz").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files.put("3-17", [b"again"])
    assert files.read("3-17") == b"again"
    assert names(folder) == ["3-17.gz"]


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"secret")
    files = DecisionFiles(tmp_path / "decisions")
    for name in ("3-18", "../store.db", "", "..", "3-17.gz"):
        assert files.read(name) is None


def test_the_oldest_go_first(tmp_path: Path) -> None:
    files = DecisionFiles(tmp_path, count_max=3)
    for number in range(1, 4):
        files.put(f"1-{number}", [b"x"])
        age(tmp_path / f"1-{number}.gz", number)
    files.put("1-4", [b"x"])
    assert names(tmp_path) == ["1-2.gz", "1-3.gz", "1-4.gz"]
    files = DecisionFiles(tmp_path, bytes_max=10)
    files.put("1-5", [b"123456789"])
    assert names(tmp_path) == ["1-4.gz", "1-5.gz"]
    files.put("1-6", [b"more than ten bytes"])
    assert names(tmp_path) == ["1-6.gz"], "the newest is always there"


def test_half_a_file_is_not_left(tmp_path: Path) -> None:
    """Neither by a failure, nor by an earlier crash for ever."""

    def breaks() -> Iterator[bytes]:
        yield b"some"
        raise OSError("disk full")

    files = DecisionFiles(tmp_path, count_max=2)
    with pytest.raises(OSError, match="disk full"):
        files.put("1-1", breaks())
    assert names(tmp_path) == []
    (tmp_path / "1-2.half").write_bytes(b"so")
    age(tmp_path / "1-2.half", 1)
    files.put("1-3", [b"x"])
    assert names(tmp_path) == ["1-2.half", "1-3.gz"]
    files.put("1-4", [b"x"])
    assert names(tmp_path) == ["1-3.gz", "1-4.gz"]
