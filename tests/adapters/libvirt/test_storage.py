"""Identities of disks and mounts, from XML and fixture trees."""

from __future__ import annotations

import asyncio
import struct
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.mounts import Mount, identity_of_mount, mount_of, mounts, wwids
from dr.adapters.libvirt.reach import Reach, endpoints
from dr.adapters.libvirt.storage import Found, Pool, Resolver, backing_file
from dr.model.facts import Base
from tests.adapters.libvirt.conftest import overlay, put

MOUNTS = """22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:46 / /srv/vm rw shared:2 - nfs4 nas:/export/vm rw,vers=4.2,addr=10.0.0.9
41 22 0:47 / /srv/ceph rw - ceph 10.0.0.1:6789,10.0.0.2:6789:/ rw
42 22 0:48 / /srv/gl\\040uster rw - fuse.glusterfs g1:/vol rw
43 22 0:49 / /srv/home rw - fuse.sshfs x:/ rw
44 22 253:3 / /srv/gfs rw - gfs2 /dev/mapper/gfs rw
46 22 0:50 / /run rw - tmpfs tmpfs rw
45 40 8:2 / /srv/vm/local rw - xfs /dev/sdb1 rw
"""
VOLUMES = "NV SERVER   PORT DEV   FSID         FSC\nv4 0a000009  801 0:46  5b1f2d8b:1   no\n"
NFS = "nfs:10.0.0.9:/export/vm#5b1f2d8b:1@/srv/vm"


@pytest.fixture
def host(layout: Layout) -> Layout:
    put(layout.root, "/proc/self/mountinfo", MOUNTS)
    put(layout.root, "/proc/fs/nfsfs/volumes", VOLUMES)
    put(layout.root, "/sys/dev/block/253:3/dm/uuid", "mpath-36001405aaa\n")
    put(layout.root, "/sys/block/sda/device/wwid", "naa.5000c500a1b2c3d4\n")
    put(layout.root, "/sys/block/sda/sda1/partition", "1\n")
    put(layout.root, "/sys/block/dm-3/dm/uuid", "mpath-36001405aaa\n")
    put(layout.root, "/sys/block/dm-4/dm/uuid", "LVM-abcdef\n")
    put(layout.root, "/sys/block/nvme0n1/wwid", "eui.0025385b21404321\n")
    put(layout.root, "/sys/block/vda/size", "1\n")
    return layout


def qcow2(backing: str = "") -> bytes:
    name = backing.encode()
    header = struct.pack(">4sIQI", b"QFI\xfb", 3, 512 if name else 0, len(name))
    return header.ljust(512, b"\0") + name


def digest(path: str) -> str:
    """As if each file but those had been read."""
    if "missing" in path:
        raise FileNotFoundError(2, "No such file or directory", path)
    return f"content of {path}"


def resolve(layout: Layout, disk: str, pool: Pool | None = None) -> Found:
    return Resolver(layout, mounts(layout), lambda _pool, _volume: pool, digest).disk(
        ElementTree.fromstring(disk)
    )


def test_mounts_by_identity(host: Layout) -> None:
    found = {mount.point: identity_of_mount(host, mount) for mount in mounts(host)}
    assert found == {
        "/": "local:0123456789abcdef0123456789abcdef:/",
        "/srv/vm": NFS,
        "/srv/ceph": "ceph:10.0.0.1:6789,10.0.0.2:6789:/@/srv/ceph",
        "/srv/gl uster": "glusterfs:g1:/vol@/srv/gl uster",
        "/srv/home": "local:0123456789abcdef0123456789abcdef:/srv/home",
        "/srv/gfs": "gfs2:wwid:36001405aaa@/srv/gfs",
        "/srv/vm/local": "local:0123456789abcdef0123456789abcdef:/srv/vm/local",
        "/run": "local:0123456789abcdef0123456789abcdef:/run",
    }


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/srv/vm/a.img", "/srv/vm"),
        ("/srv/vmx/a.img", "/"),
        ("/srv/vm/local/a", "/srv/vm/local"),
        ("/a", "/"),
    ],
)
def test_mount_of_a_path(host: Layout, path: str, point: str) -> None:
    mount = mount_of(path, mounts(host))
    assert mount is not None
    assert mount.point == point


@pytest.mark.parametrize(
    ("source", "identity"),
    [
        ("protocol='nbd' name='d1'><host name='10.0.0.3' port='10810'/>", "nbd:10.0.0.3:10810"),
        ("protocol='nbd'><host name='nas'/>", "nbd:nas:10809"),
        ("protocol='rbd' name='vm/a'><host name='m2'/><host name='m1' port='6790'/>", "rbd:m1:6790,m2:6789"),
        ("protocol='rbd' name='vm/a'>", "rbd:f-s-i-d"),
        (
            "protocol='iscsi' name='iqn.2020-01.x:t/1'><host name='10.0.0.3'/>",
            "iscsi:10.0.0.3:3260/iqn.2020-01.x:t",
        ),
        ("protocol='gluster' name='vol/a.img'><host name='g1'/>", "gluster:g1:24007/vol"),
        ("protocol='https' name='a.iso'><host name='mirror'/>", "https:mirror:443"),
    ],
)
def test_network_disks(host: Layout, source: str, identity: str) -> None:
    put(host.root, "/etc/ceph/ceph.conf", "[global]\nfsid = f-s-i-d\n")
    disk = f"<disk type='network' device='disk'><source {source}</source><target dev='vda'/></disk>"
    assert resolve(host, disk) == Found(identities=(identity,))


def test_a_server_behind_a_local_socket_is_a_blocker(host: Layout) -> None:
    disk = ("<disk type='network'><source protocol='nbd'><host transport='unix' socket='/run/x'/></source>"
            "<target dev='vda'/></disk>")  # fmt: skip
    (blocker,) = resolve(host, disk).blockers
    assert "disk vda" in blocker
    assert "TCP" in blocker


def file_disk(path: str, form: str = "raw") -> str:
    return f"<disk type='file'><driver type='{form}'/><source file='{path}'/><target dev='vda'/></disk>"


def test_file_on_a_shared_mount(host: Layout) -> None:
    put(host.root, "/srv/vm/a.img", b"")
    assert resolve(host, file_disk("/srv/vm/a.img")) == Found(identities=(NFS,))


def test_file_on_a_local_mount(host: Layout) -> None:
    """One that can be copied is a local disk; another one keeps its guest there."""
    put(host.root, "/srv/vm/local/a.img", b"12345")
    found = resolve(host, file_disk("/srv/vm/local/a.img"))
    assert (found.identities, found.blockers) == ((), ())
    assert found.local is not None
    assert (found.local.path, found.local.size_b) == ("/srv/vm/local/a.img", 5)
    found = resolve(host, file_disk("/srv/vm/local/a.img", "vmdk"))
    assert found.local is None
    assert found.identities == ("local:0123456789abcdef0123456789abcdef:/srv/vm/local",)
    assert "move it to shared storage" in found.blockers[0]


def test_a_file_on_a_shared_mount_is_never_a_local_disk(host: Layout) -> None:
    put(host.root, "/srv/vm/a.img", b"12345")
    found = resolve(host, file_disk("/srv/vm/a.img"))
    assert (found.identities, found.local) == ((NFS,), None)


# ---- local images on what is below them


TOP = file_disk("/vm/top.qcow2", "qcow2")


def test_a_local_image_is_told_with_the_chain_below_it(host: Layout) -> None:
    """A relative name counts from the folder of who names it; a raw base ends the chain, whatever is in it."""
    overlay(host, "/vm/top.qcow2", "../images/mid.qcow2", "qcow2")
    overlay(host, "/images/mid.qcow2", "golden.raw", "raw")
    put(host.root, "/images/golden.raw", qcow2("/etc/shadow"))
    found = resolve(host, TOP)
    assert (found.identities, found.blockers) == ((), ())
    assert found.local is not None
    assert (found.local.path, found.local.form, found.local.size_b) == ("/vm/top.qcow2", "qcow2", 8 << 20)
    assert found.local.used_b < 1 << 20
    assert found.local.bases == (
        Base(path="/images/mid.qcow2", form="qcow2", digest="content of /images/mid.qcow2"),
        Base(path="/images/golden.raw", form="raw", digest="content of /images/golden.raw"),
    )


def test_a_local_image_on_nothing_has_no_bases(host: Layout) -> None:
    overlay(host, "/vm/top.qcow2", "", "")
    found = resolve(host, TOP)
    assert found.local is not None
    assert found.local.bases == ()


def test_a_raw_image_has_none_whatever_is_in_it(host: Layout) -> None:
    overlay(host, "/vm/top.qcow2", "/images/golden.raw", "raw")
    put(host.root, "/images/golden.raw", b"x")
    found = resolve(host, file_disk("/vm/top.qcow2"))
    assert found.local is not None
    assert (found.local.form, found.local.bases) == ("raw", ())


def test_a_local_image_on_what_another_host_could_not_have_for_sure(host: Layout) -> None:
    """Shared, fleeting, of another form, in a ring, …: it stays where it is, as any file that is not copied."""
    for path in ("/srv/vm/golden.raw", "/run/golden.raw", "/dev/golden.raw", "/images/golden.raw"):
        put(host.root, path, b"golden")
    for name in ("/images/snapshots.qcow2", "/srv/vm/golden.qcow2"):
        overlay(host, name, "", "")
    subprocess.run(["qemu-img", "snapshot", "-c", "s", str(host.at("/images/snapshots.qcow2"))], check=True)
    overlay(host, "/images/data-file.qcow2", "", "", "-o", f"data_file={host.at('/images/data')}")
    secret = ("--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s")
    overlay(host, "/images/encrypted.qcow2", "", "", *secret)
    overlay(host, "/images/on-shared.qcow2", "/srv/vm/golden.raw", "raw")
    put(host.root, "/images/undeclared.qcow2", qcow2("/images/golden.raw"))
    for backing, form in (
        ("/srv/vm/golden.raw", "raw"),
        ("/srv/vm/golden.qcow2", "qcow2"),
        ("/run/golden.raw", "raw"),
        ("/dev/golden.raw", "raw"),
        ("/images/golden.raw", "vmdk"),
        ("/images/golden.raw", "qcow2"),
        ("/images/snapshots.qcow2", "qcow2"),
        ("/images/data-file.qcow2", "qcow2"),
        ("/images/encrypted.qcow2", "qcow2"),
        ("/images/on-shared.qcow2", "qcow2"),
        ("/images/undeclared.qcow2", "qcow2"),
        ("/images/missing.raw", "raw"),
        ("/vm/top.qcow2", "qcow2"),
    ):
        overlay(host, "/vm/top.qcow2", backing, form)
        found = resolve(host, TOP)
        assert (found.local, bool(found.blockers)) == (None, True), backing


@pytest.mark.parametrize("backing", ["nbd:h:1:exportname=x", "json:{}", "https://x/y", "gold\x07en.raw"])
def test_a_local_image_on_what_is_no_plain_file(host: Layout, backing: str) -> None:
    overlay(host, "/vm/top.qcow2", backing, "raw")
    put(host.root, f"/vm/{backing}", b"golden")
    found = resolve(host, TOP)
    assert (found.local, bool(found.blockers)) == (None, True)


def test_a_local_image_whose_base_has_no_declared_form(host: Layout) -> None:
    """QEMU would look into it for what it is, and believe what a guest once wrote there."""
    put(host.root, "/vm/top.qcow2", qcow2("/images/golden.raw"))
    put(host.root, "/images/golden.raw", b"x")
    found = resolve(host, TOP)
    assert found.local is None
    assert "`qemu-img rebase -u -b /images/golden.raw -F FORMAT /vm/top.qcow2`" in " ".join(found.blockers)
    rebase = [
        "qemu-img",
        "rebase",
        "-u",
        "-b",
        "/images/golden.raw",
        "-F",
        "raw",
        str(host.at("/vm/top.qcow2")),
    ]
    overlay(host, "/vm/top.qcow2", "", "")
    subprocess.run(rebase, check=True)
    found = resolve(host, TOP)
    assert found.local is not None
    assert [base.form for base in found.local.bases] == ["raw"]


@pytest.mark.parametrize(("deep", "local"), [(True, False), (False, True)])
def test_a_way_up_out_of_a_linked_folder_may_lead_to_two_files(
    tmp_path: Path, deep: bool, local: bool
) -> None:
    """The kernel goes up from where the link leads to; who reads the name alone, from where the link is."""
    real = tmp_path / ("deep/er" if deep else "real")
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    for folder in {tmp_path, real.parent}:
        (folder / "golden.raw").write_bytes(b"golden")
    this_host = Layout()
    overlay(this_host, f"{tmp_path}/link/top.qcow2", "../golden.raw", "raw")
    own = Mount(device="8:1", root="/", point="/", kind="ext4", source="/dev/sda1")
    resolver = Resolver(this_host, [own], lambda _pool, _volume: None, digest)
    found = resolver.disk(ElementTree.fromstring(file_disk(f"{tmp_path}/link/top.qcow2", "qcow2")))
    assert (found.local is not None) == local


def test_shared_overlay_on_a_local_base(host: Layout) -> None:
    put(host.root, "/srv/vm/top.qcow2", qcow2("mid.qcow2"))
    put(host.root, "/srv/vm/mid.qcow2", qcow2("/images/base.qcow2"))
    put(host.root, "/images/base.qcow2", qcow2())
    found = resolve(host, file_disk("/srv/vm/top.qcow2", "qcow2"))
    assert found.identities == (NFS, "local:0123456789abcdef0123456789abcdef:/")
    assert "backing file is /images/base.qcow2" in found.blockers[0]
    assert "rebase" not in " ".join(found.blockers), "what is shared is not copied"


@pytest.mark.parametrize("backing", ["nbd:h:1:exportname=x", "json:{}", "https://x/y", "missing.qcow2"])
def test_a_base_that_cannot_be_placed(host: Layout, backing: str) -> None:
    put(host.root, "/srv/vm/top.qcow2", qcow2(backing))
    assert resolve(host, file_disk("/srv/vm/top.qcow2", "qcow2")).blockers


def test_a_chain_that_bites_its_tail(host: Layout) -> None:
    put(host.root, "/srv/vm/a.qcow2", qcow2("a.qcow2"))
    assert "backing files" in resolve(host, file_disk("/srv/vm/a.qcow2", "qcow2")).blockers[0]


def test_a_raw_disk_is_never_believed_to_have_a_backing_file(host: Layout) -> None:
    path = put(host.root, "/srv/vm/a.img", qcow2("/etc/shadow"))
    assert backing_file(path, "raw") is None
    assert resolve(host, file_disk("/srv/vm/a.img")) == Found(identities=(NFS,))


def test_block_device_without_wwid(host: Layout) -> None:
    put(host.root, "/dev/vdb", b"")
    disk = "<disk type='block'><source dev='/dev/vdb'/><target dev='vda'/></disk>"
    assert "without a WWID" in resolve(host, disk).blockers[0]


def test_volumes(host: Layout) -> None:
    disk = "<disk type='volume'><source pool='p' volume='v'/><target dev='vda'/></disk>"
    assert resolve(host, disk, Pool(uuid="u-1", kind="rbd", path="vm/v")) == Found(identities=("pool:u-1",))
    put(host.root, "/srv/vm/v.img", b"")
    assert resolve(host, disk, Pool(uuid="u-2", kind="netfs", path="/srv/vm/v.img")) == Found(
        identities=(NFS,)
    )
    assert "start the pool" in resolve(host, disk).blockers[0]


def test_an_empty_drive_needs_nothing(host: Layout) -> None:
    assert resolve(host, "<disk type='file' device='cdrom'><target dev='sda'/></disk>") == Found()


def test_wwids(host: Layout) -> None:
    assert wwids(host) == {
        "wwid:35000c500a1b2c3d4", "wwid:35000c500a1b2c3d4-part1", "wwid:36001405aaa", "wwid:dm-LVM-abcdef",
        "wwid:eui.0025385b21404321",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("identity", "found"),
    [
        ("nbd:10.0.0.3:10809", [("10.0.0.3", 10809)]),
        ("nbd:fd00::3:10809", [("fd00::3", 10809)]),
        ("rbd:m1:6789,m2:6789", [("m1", 6789), ("m2", 6789)]),
        ("iscsi:10.0.0.3:3260/iqn.2020-01.x:t", [("10.0.0.3", 3260)]),
        ("rbd:f-s-i-d", []),
        (NFS, []),
        ("wwid:35000:99", []),
        ("local:x:/", []),
        ("nbd:h:99999", []),
    ],
)
def test_endpoints(identity: str, found: list[tuple[str, int]]) -> None:
    assert endpoints(identity) == found


async def test_reachable_endpoints_come_and_go(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dr.adapters.libvirt.reach.FRESH_S", 0.0)
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    alive, dead = f"nbd:127.0.0.1:{port}", "nbd:127.0.0.1:1"
    reach = Reach(layout, lambda _: "")
    reach.watch((alive, dead))
    assert await reach.reachable() == {alive}
    server.close()
    await server.wait_closed()
    assert await reach.reachable() == set()
