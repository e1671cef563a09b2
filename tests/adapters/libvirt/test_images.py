"""Images of disks that only one host has: made for who arrives, taken back, and what becomes of old ones."""

from __future__ import annotations

import json
import os
import subprocess
import time
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from dr.adapters.libvirt import images
from dr.adapters.libvirt.bases import Bases
from dr.adapters.libvirt.images import Digest
from dr.adapters.libvirt.layout import Layout
from dr.model.base import changed
from dr.model.facts import Base, LocalDisk
from dr.ports.hypervisor import HypervisorError
from tests.adapters.libvirt.conftest import OTHER, G, put

MIB = 2**20
DISK = LocalDisk(target="vda", path="/vm/web.img", form="raw", size_b=8 * MIB)
SECOND = changed(DISK, target="vdb", path="/vm/data.qcow2", form="qcow2")


def qcow2(size: int, encrypted: int = 0, incompatible: int = 0, snapshots: int = 0) -> bytes:
    head = b"QFI\xfb" + (3).to_bytes(4) + bytes(12) + (16).to_bytes(4)
    head = (head + size.to_bytes(8) + encrypted.to_bytes(4)).ljust(60, b"\0") + snapshots.to_bytes(4)
    return head.ljust(72, b"\0") + incompatible.to_bytes(8) + bytes(24)


def unread(path: str) -> str:
    """No file is read."""
    return ""


@pytest.fixture
def host(layout: Layout) -> Layout:
    layout.at("/vm").mkdir()
    return layout


def there(host: Layout) -> set[str]:
    return {file.name for file in host.at("/vm").iterdir()}


# ---- what is one


def disk(xml: str = "", form: str = "raw", kind: str = "disk") -> Any:
    return fromstring(
        f"<disk type='file' device='{kind}'><driver type='{form}'/><target dev='vda'/>{xml}</disk>"
    )


def test_a_raw_file_is_as_large_as_it_is(host: Layout) -> None:
    file = put(host.root, "/vm/web.img", b"x" * 8192)
    with file.open("r+b") as raw:
        raw.truncate(8 * MIB)
    found = images.local_disk(host, disk(), "/vm/web.img")
    assert found is not None
    assert (found.target, found.form, found.size_b) == ("vda", "raw", 8 * MIB)
    assert 8192 <= found.used_b < MIB
    assert found.folder == "/vm"


def test_a_qcow2_file_is_as_large_as_its_guest_sees_it(host: Layout) -> None:
    put(host.root, "/vm/web.img", qcow2(8 * MIB))
    found = images.local_disk(host, disk(form="qcow2"), "/vm/web.img")
    assert found is not None
    assert found.size_b == 8 * MIB


@pytest.mark.parametrize(
    ("content", "xml", "form", "kind"),
    [
        (qcow2(MIB, encrypted=2), "", "qcow2", "disk"),
        (qcow2(MIB, incompatible=4), "", "qcow2", "disk"),
        (qcow2(MIB, snapshots=1), "", "qcow2", "disk"),
        (b"no image", "", "qcow2", "disk"),
        (b"x", "", "vmdk", "disk"),
        (b"x", "", "raw", "cdrom"),
        (b"x", "<readonly/>", "raw", "disk"),
        (b"x", "<shareable/>", "raw", "disk"),
        (b"x", "<transient/>", "raw", "disk"),
        (b"x", "<source><encryption format='luks'/></source>", "raw", "disk"),
    ],
)
def test_what_a_copy_would_not_be_the_same_as(
    host: Layout, content: bytes, xml: str, form: str, kind: str
) -> None:
    """Encrypted, its data elsewhere, not an image, read by others too, encrypted, …"""
    put(host.root, "/vm/web.img", content)
    assert images.local_disk(host, disk(xml, form, kind), "/vm/web.img") is None


def test_a_link_is_none_nor_is_a_pipe(host: Layout) -> None:
    put(host.root, "/vm/real.img", b"x")
    host.at("/vm/link.img").symlink_to("real.img")
    os.mkfifo(host.at("/vm/pipe.img"))
    for name in ("link", "pipe"):
        assert images.local_disk(host, disk(), f"/vm/{name}.img") is None


# ---- made for who arrives


def test_images_get_their_names_only_when_told(host: Layout) -> None:
    made = images.prepare(host, G, (DISK, SECOND), unread)
    assert there(host) == {f".web.img.{G}.dr-new", f".data.qcow2.{G}.dr-new"}
    images.put_in_place(host, G, made)
    assert there(host) == {"web.img", "data.qcow2"}
    assert host.at("/vm/web.img").stat().st_size == 8 * MIB
    seen = images.local_disk(host, disk(form="qcow2"), "/vm/data.qcow2")
    assert seen is not None
    assert seen.size_b == 8 * MIB
    images.remove(host, G, made)
    assert there(host) == set()


def test_a_file_that_is_there_is_not_touched_and_nothing_is_made(host: Layout) -> None:
    put(host.root, "/vm/data.qcow2", b"somebody's")
    with pytest.raises(HypervisorError, match=r"there is a file /vm/data\.qcow2 on this host already"):
        images.prepare(host, G, (DISK, SECOND), unread)
    assert there(host) == {"data.qcow2"}
    assert host.at("/vm/data.qcow2").read_bytes() == b"somebody's"


def test_a_link_to_nowhere_is_a_file_too(host: Layout) -> None:
    host.at("/vm/web.img").symlink_to("/nowhere")
    with pytest.raises(HypervisorError, match="already"):
        images.prepare(host, G, (DISK,), unread)


def test_a_file_that_came_meanwhile_is_not_overwritten_nor_removed(host: Layout) -> None:
    made = images.prepare(host, G, (DISK,), unread)
    put(host.root, "/vm/web.img", b"somebody's")
    with pytest.raises(HypervisorError, match="could not be put in its place"):
        images.put_in_place(host, G, made)
    images.remove(host, G, made)
    assert there(host) == {"web.img"}
    assert host.at("/vm/web.img").read_bytes() == b"somebody's"


def test_a_file_made_after_ours_was_gone_is_not_removed(host: Layout) -> None:
    made = images.prepare(host, G, (DISK,), unread)
    images.put_in_place(host, G, made)
    host.at("/vm/web.img").unlink()
    put(host.root, "/vm/web.img", b"somebody's")
    images.remove(host, G, made)
    assert there(host) == {"web.img"}


def test_two_guests_whose_disks_have_one_path_do_not_meet(host: Layout) -> None:
    """They arrive at once, from two hosts: one gets its image, the other is refused and takes nothing back."""
    first = images.prepare(host, G, (DISK,), unread)
    second = images.prepare(host, OTHER, (changed(DISK, size_b=16 * MIB),), unread)
    images.put_in_place(host, G, first)
    with pytest.raises(HypervisorError, match="could not be put in its place"):
        images.put_in_place(host, OTHER, second)
    images.remove(host, OTHER, second)
    assert there(host) == {"web.img"}
    assert host.at("/vm/web.img").stat().st_size == DISK.size_b


def test_a_file_put_in_the_place_of_ours_is_not_removed(host: Layout) -> None:
    made = images.prepare(host, G, (DISK,), unread)
    images.put_in_place(host, G, made)
    kept = host.at("/vm/web.img").rename(host.at("/vm/kept"))
    put(host.root, "/vm/web.img", b"somebody's")
    images.remove(host, G, made)
    assert there(host) == {"web.img", "kept"}
    assert kept.exists()


def test_what_a_killed_process_left_is_made_anew(host: Layout) -> None:
    images.prepare(host, G, (DISK,), unread)
    made = images.prepare(host, G, (DISK,), unread)
    images.put_in_place(host, G, made)
    assert there(host) == {"web.img"}


def test_who_has_its_name_already_keeps_it(host: Layout) -> None:
    """An earlier try got so far; or it was killed between the one name and the other."""
    made = images.prepare(host, G, (DISK, SECOND), unread)
    images.put_in_place(host, G, made[:1])
    os.link(host.at(f"/vm/.data.qcow2.{G}.dr-new"), host.at("/vm/data.qcow2"))
    host.at("/vm/web.img").write_bytes(b"taken")
    for _ in range(2):
        images.put_in_place(host, G, made)
        assert there(host) == {"web.img", "data.qcow2"}
    assert host.at("/vm/web.img").read_bytes() == b"taken"
    images.remove(host, G, made)
    assert there(host) == set()


def test_where_an_image_is_while_it_is_that_very_file(host: Layout) -> None:
    made = images.prepare(host, G, (DISK, SECOND), unread)
    hidden = (f"/vm/.web.img.{G}.dr-new", f"/vm/.data.qcow2.{G}.dr-new")
    assert images.where(host, G, made) == hidden
    images.put_in_place(host, G, made[:1])
    assert images.where(host, G, made) == ("/vm/web.img", hidden[1])
    assert images.where(host, OTHER, made[1:]) == ("",), "made for another guest"
    kept = host.at("/vm/web.img").rename(host.at("/vm/kept"))
    put(host.root, "/vm/web.img", b"somebody's")
    host.at(hidden[1]).unlink()
    assert images.where(host, G, made) == ("", "")
    assert kept.exists()


def test_a_folder_that_is_not_there(host: Layout) -> None:
    with pytest.raises(HypervisorError, match=r"the image /gone/web\.img could not be made here"):
        images.prepare(host, G, (changed(DISK, path="/gone/web.img"),), unread)


# ---- on what lies below


def laid(host: Layout, form: str = "raw") -> LocalDisk:
    """A disk on a base that is here too."""
    file = host.at("/images/golden")
    file.parent.mkdir()
    subprocess.run(["qemu-img", "create", "-q", "-f", form, str(file), "4M"], check=True)
    write = ["qemu-io", "-f", form, "-c", "write -q -P 0x5a 1M 1M", str(file)]
    subprocess.run(write, check=True)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    below = Base(path="/images/golden", form=form, digest=sha256(file.read_bytes()).hexdigest())
    return changed(SECOND, bases=(below,))


def known(host: Layout) -> Digest:
    """Everything here that is asked for has been read."""
    return lambda path: sha256(host.at(path).read_bytes()).hexdigest()


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_an_image_is_made_on_its_base_and_that_is_not_touched(host: Layout, form: str) -> None:
    disk = laid(host, form)
    before = host.at("/images/golden").stat()
    made = images.prepare(host, G, (DISK, disk), known(host))
    images.put_in_place(host, G, made)
    file = str(host.at("/vm/data.qcow2"))
    told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", file]))
    assert told["full-backing-filename"] == str(host.at("/images/golden"))
    assert (told["backing-filename-format"], told["format"]) == (form, "qcow2")
    assert told["virtual-size"] == 8 * MIB
    read = ["qemu-io", "-f", "qcow2", "-c", "read -P 0x5a 1M 1M", "-c", "read -P 0 2M 6M", file]
    assert "Pattern verification failed" not in subprocess.check_output(read, text=True)
    images.remove(host, G, made)
    assert there(host) == set()
    assert known(host)("/images/golden") == disk.bases[0].digest
    assert host.at("/images/golden").stat().st_mtime_ns == before.st_mtime_ns


def test_a_base_of_other_content_is_none(host: Layout) -> None:
    """Of a chain each counts. Nothing is left of the disks before it either."""
    disk = laid(host)
    put(host.root, "/images/lower", b"changed")
    disk = changed(disk, bases=(*disk.bases, Base(path="/images/lower", form="raw", digest="d")))
    with pytest.raises(
        HypervisorError, match=r"/images/lower, which /vm/data\.qcow2 lies on, has another content"
    ):
        images.prepare(host, G, (DISK, disk), known(host))
    assert there(host) == set()


def test_a_base_that_is_not_there(host: Layout) -> None:
    disk = laid(host)
    host.at("/images/golden").unlink()
    with pytest.raises(HypervisorError, match="could not be made here: No such file"):
        images.prepare(host, G, (disk,), known(host))
    assert there(host) == set()


def test_a_base_that_was_changed_since_it_was_told_is_read_first(host: Layout) -> None:
    disk = laid(host)
    bases = Bases(host)
    deadline = time.monotonic() + 10
    while not bases.digest("/images/golden"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    images.remove(host, G, images.prepare(host, G, (disk,), bases.digest))
    os.utime(host.at("/images/golden"))
    with pytest.raises(HypervisorError, match="is being read here: try again soon"):
        images.prepare(host, G, (disk,), bases.digest)
    assert there(host) == set()


# ---- where they are now


def test_files_are_found_under_the_name_that_they_have_now(host: Layout) -> None:
    made = images.prepare(host, G, (DISK, SECOND), unread)
    new = (f"/vm/.web.img.{G}.dr-new", f"/vm/.data.qcow2.{G}.dr-new")
    assert images.where(host, G, made) == new
    images.put_in_place(host, G, made[:1])
    assert images.where(host, G, made) == ("/vm/web.img", new[1])


@pytest.mark.parametrize("name", ["/vm/web.img", f"/vm/.web.img.{G}.dr-new"])
def test_a_file_that_is_another_one_now_is_not_found(host: Layout, name: str) -> None:
    """Also where the file system has given its inode's number out again."""
    made = images.prepare(host, G, (DISK,), unread)
    host.at(f"/vm/.web.img.{G}.dr-new").unlink()
    put(host.root, name, b"somebody's")
    assert images.where(host, G, made) == ("",)


def test_a_file_that_is_gone_is_not_found(host: Layout) -> None:
    made = images.prepare(host, G, (DISK,), unread)
    images.remove(host, G, made)
    assert images.where(host, G, made) == ("",)


# ---- of who has left


def part(host: Layout, *, remove: bool, taken: bool = False) -> list[str]:
    file = put(host.root, "/vm/web.img", b"old")
    status = file.stat()
    old = images.identify(host, ("/vm/web.img",))
    needed = {(status.st_dev, status.st_ino)} if taken else set()
    return images.part_with(host, old, needed, remove=remove)


def test_an_old_disk_is_set_aside_under_another_name(host: Layout) -> None:
    (told,) = part(host, remove=False)
    part(host, remove=False)  # in the same second, from another move
    names = there(host)
    assert len(names) == 2
    assert all(name.startswith("web.img.old-2") for name in names)
    assert told.startswith("/vm/web.img was set aside as web.img.old-2")
    assert all(file.read_bytes() == b"old" for file in host.at("/vm").iterdir())


def test_an_old_disk_is_removed_if_asked(host: Layout) -> None:
    assert part(host, remove=True) == ["/vm/web.img was removed"]
    assert there(host) == set()


@pytest.mark.parametrize("remove", [False, True])
def test_what_another_guest_needs_is_left(host: Layout, remove: bool) -> None:
    part(host, remove=remove, taken=True)
    assert there(host) == {"web.img"}


@pytest.mark.parametrize("remove", [False, True])
def test_a_file_that_somebody_put_in_its_place_is_left(host: Layout, remove: bool) -> None:
    """The file system gives the inode's number out again at once."""
    file = put(host.root, "/vm/web.img", b"old")
    old = images.identify(host, ("/vm/web.img",))
    file.unlink()
    put(host.root, "/vm/web.img", b"somebody's")
    (told,) = images.part_with(host, old, set(), remove=remove)
    assert "not the file that it left any more" in told
    assert host.at("/vm/web.img").read_bytes() == b"somebody's"


def test_one_that_cannot_be_set_aside_is_told(host: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps nobody from undefining the guest: else each try would archive it once more."""

    def rename(self: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", rename)
    assert part(host, remove=False) == ["/vm/web.img is left as it is: Read-only file system"]
