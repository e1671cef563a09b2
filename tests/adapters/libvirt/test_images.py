"""Images of disks that only one host has: made for who arrives, taken back, and what becomes of old ones."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from dr.adapters.libvirt import images
from dr.adapters.libvirt.layout import Layout
from dr.model.base import changed
from dr.model.facts import LocalDisk
from dr.ports.hypervisor import HypervisorError, OldDisks
from tests.adapters.libvirt.conftest import put

MIB = 2**20
DISK = LocalDisk(target="vda", path="/vm/web.img", form="raw", size_b=8 * MIB)
SECOND = changed(DISK, target="vdb", path="/vm/data.qcow2", form="qcow2")
XML = "<domain><uuid>11111111-0000-0000-0000-000000000001</uuid></domain>"


def qcow2(size: int, backing: int = 0, incompatible: int = 0) -> bytes:
    head = b"QFI\xfb" + (3).to_bytes(4) + backing.to_bytes(8) + (0).to_bytes(4) + (16).to_bytes(4)
    return (head + size.to_bytes(8)).ljust(72, b"\0") + incompatible.to_bytes(8) + bytes(24)


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
        (qcow2(MIB, backing=104), "", "qcow2", "disk"),
        (qcow2(MIB, incompatible=4), "", "qcow2", "disk"),
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
    """Backed by another file, its data elsewhere, not an image, read by others too, encrypted, …"""
    put(host.root, "/vm/web.img", content)
    assert images.local_disk(host, disk(xml, form, kind), "/vm/web.img") is None


# ---- made for who arrives


def test_images_get_their_names_only_when_told(host: Layout) -> None:
    made = images.prepare(host, (DISK, SECOND))
    assert there(host) == {".web.img.dr-new", ".data.qcow2.dr-new"}
    images.put_in_place(host, made)
    assert there(host) == {"web.img", "data.qcow2"}
    assert host.at("/vm/web.img").stat().st_size == 8 * MIB
    seen = images.local_disk(host, disk(form="qcow2"), "/vm/data.qcow2")
    assert seen is not None
    assert seen.size_b == 8 * MIB
    images.remove(host, made)
    assert there(host) == set()


def test_a_file_that_is_there_is_not_touched_and_nothing_is_made(host: Layout) -> None:
    put(host.root, "/vm/data.qcow2", b"somebody's")
    with pytest.raises(HypervisorError, match=r"there is a file /vm/data\.qcow2 on this host already"):
        images.prepare(host, (DISK, SECOND))
    assert there(host) == {"data.qcow2"}
    assert host.at("/vm/data.qcow2").read_bytes() == b"somebody's"


def test_a_link_to_nowhere_is_a_file_too(host: Layout) -> None:
    host.at("/vm/web.img").symlink_to("/nowhere")
    with pytest.raises(HypervisorError, match="already"):
        images.prepare(host, (DISK,))


def test_a_file_that_came_meanwhile_is_not_overwritten_nor_removed(host: Layout) -> None:
    made = images.prepare(host, (DISK,))
    put(host.root, "/vm/web.img", b"somebody's")
    with pytest.raises(HypervisorError, match="could not be put in its place"):
        images.put_in_place(host, made)
    images.remove(host, made)
    assert there(host) == {"web.img"}
    assert host.at("/vm/web.img").read_bytes() == b"somebody's"


def test_a_file_put_in_the_place_of_ours_is_not_removed(host: Layout) -> None:
    made = images.prepare(host, (DISK,))
    images.put_in_place(host, made)
    kept = host.at("/vm/web.img").rename(host.at("/vm/kept"))
    put(host.root, "/vm/web.img", b"somebody's")
    images.remove(host, made)
    assert there(host) == {"web.img", "kept"}
    assert kept.exists()


def test_what_a_killed_process_left_is_made_anew(host: Layout) -> None:
    images.prepare(host, (DISK,))
    made = images.prepare(host, (DISK,))
    images.put_in_place(host, made)
    assert there(host) == {"web.img"}


def test_a_folder_that_is_not_there(host: Layout) -> None:
    with pytest.raises(HypervisorError, match=r"the image /gone/web\.img could not be made here"):
        images.prepare(host, (changed(DISK, path="/gone/web.img"),))


# ---- of who has left


class Conn:
    """Other domains of a host."""

    def __init__(self, *xml: str) -> None:
        self._xml = xml

    def listAllDomains(self, flags: int) -> list[Conn]:
        return [Conn(each) for each in self._xml]

    def UUIDString(self) -> str:
        return "22222222-0000-0000-0000-000000000002"

    def XMLDesc(self, flags: int) -> str:
        return self._xml[0]


def part(host: Layout, how: OldDisks, *others: str) -> list[str]:
    put(host.root, "/vm/web.img", b"old")
    return images.part_with(Conn(*others), host, XML, (DISK,), how)


def test_an_old_disk_is_set_aside_under_another_name(host: Layout) -> None:
    (told,) = part(host, OldDisks.SET_ASIDE)
    part(host, OldDisks.SET_ASIDE)  # in the same second, from another move
    names = there(host)
    assert len(names) == 2
    assert all(name.startswith("web.img.old-2") for name in names)
    assert told.startswith("/vm/web.img was set aside as web.img.old-2")
    assert all(file.read_bytes() == b"old" for file in host.at("/vm").iterdir())


def test_an_old_disk_is_removed_if_asked(host: Layout) -> None:
    assert part(host, OldDisks.REMOVE) == ["/vm/web.img was removed"]
    assert there(host) == set()


@pytest.mark.parametrize("how", [OldDisks.SET_ASIDE, OldDisks.REMOVE])
def test_what_another_guest_names_is_left(host: Layout, how: OldDisks) -> None:
    other = "<domain><devices><disk type='file'><source file='/vm/web.img'/></disk></devices></domain>"
    part(host, how, other)
    assert there(host) == {"web.img"}
