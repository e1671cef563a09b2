"""Names and files of clones: nothing but what is ours is ever removed, and no link is followed."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from dr.adapters.clones.folder import Folder, copy_small
from dr.adapters.clones.names import MARK, clone_id, domain_name, is_clone, of_drill, require_drill
from dr.ports.clones import CloneError

GUEST = "11111111-0000-4000-8000-000000000001"


def test_a_clones_id_tells_what_it_is_and_whose() -> None:
    first = clone_id("drill-1", GUEST)
    assert first == clone_id("drill-1", GUEST)
    assert first != clone_id("drill-2", GUEST)
    assert is_clone(first)
    assert first.startswith(of_drill("drill-1"))
    assert not first.startswith(of_drill("drill-2"))
    assert str(uuid.UUID(first)) == first
    assert uuid.UUID(first).version == 8
    assert not is_clone(f"{MARK}{str(uuid.uuid4())[8:]}"), "one that libvirt made up is no clone's"


@pytest.mark.parametrize("drill", ["", "-x", "..", "a/b", "A", "x" * 65, "a\nb", "*"])
def test_ids_that_are_none(drill: str) -> None:
    with pytest.raises(CloneError, match="no id of a drill"):
        require_drill(drill)


def test_a_long_name_is_cut() -> None:
    assert domain_name("d1", "web") == "d1-web"
    assert len(domain_name("d1", "x" * 200)) == 80


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "clones", "h1")


def test_what_was_made_is_removed_and_nothing_of_others(folder: Folder) -> None:
    old = os.umask(0o077)
    where = folder.make("d1", GUEST)
    os.umask(old)
    assert [path.stat().st_mode & 0o777 for path in (folder.path, where.parent, where)] == [0o711] * 3
    (where / "vda.qcow2").write_bytes(b"x" * 8192)
    (where / "nvram").write_bytes(b"x")
    other = folder.make("d2", GUEST)
    another_host = Folder(folder.path.parent, "h2").make("d1", GUEST)
    assert folder.used_b("d1") >= 8192
    assert folder.used_b("d2") == 0
    assert set(folder.remove("d1")) == {str(where / "vda.qcow2"), str(where / "nvram")}
    assert folder.remove("d1") == ()
    assert folder.drills() == ("d2",)
    assert other.is_dir()
    assert another_host.is_dir()


def test_an_earlier_copy_is_not_written_into(folder: Folder) -> None:
    (folder.make("d1", GUEST) / "vda.qcow2").touch()
    with pytest.raises(CloneError, match="is not empty"):
        folder.make("d1", GUEST)


@pytest.mark.parametrize("what", ["file", "folder", "link", "link instead of an image", "link to a guest"])
def test_what_is_not_ours_stays_and_is_told(folder: Folder, tmp_path: Path, what: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "vda.qcow2").write_text("of somebody else")
    where = folder.make("d1", GUEST)
    if what == "file":
        (where / "notes.txt").write_text("x")
    elif what == "folder":
        (where.parent / "my-own").mkdir()
    elif what == "link":
        where.rmdir()
        where.parent.rmdir()
        where.parent.symlink_to(precious.parent)
    elif what == "link instead of an image":
        (where / "vda.qcow2").symlink_to(precious / "vda.qcow2")
    else:
        where.rmdir()
        where.symlink_to(precious)
    with pytest.raises(CloneError, match="move it away"):
        folder.remove("d1")
    assert (precious / "vda.qcow2").read_text() == "of somebody else"


def test_a_link_is_never_made_a_clones_folder(folder: Folder, tmp_path: Path) -> None:
    folder.make("d2", GUEST)
    (folder.path / "d1").symlink_to(tmp_path)
    with pytest.raises(CloneError, match="is no folder"):
        folder.make("d1", GUEST)


def test_which_paths_lie_in_it(folder: Folder) -> None:
    assert folder.contains(f"{folder.path}/d1/{GUEST}/vda.qcow2")
    assert not folder.contains(f"{folder.path}/../../x")
    assert not folder.contains(f"{folder.path}x/vda.qcow2")
    assert not folder.contains("")
    assert folder.contains(f"{folder.path}/d1/{GUEST}/vda.qcow2", "d1")
    assert not folder.contains(f"{folder.path}/d12/{GUEST}/vda.qcow2", "d1")


def test_only_files_of_a_bounded_size_are_copied(tmp_path: Path) -> None:
    (tmp_path / "nvram").write_bytes(b"variables")
    copy_small(tmp_path / "nvram", tmp_path / "copy", os.getuid(), os.getgid())
    assert (tmp_path / "copy").read_bytes() == b"variables"
    with pytest.raises(CloneError, match="no file that can be copied"):
        copy_small(Path("/dev/zero"), tmp_path / "zero", os.getuid(), os.getgid())
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(513 << 20)
    with pytest.raises(CloneError, match="at most 512 MiB"):
        copy_small(tmp_path / "huge", tmp_path / "copy2", os.getuid(), os.getgid())
