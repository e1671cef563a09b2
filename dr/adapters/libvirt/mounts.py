"""Mounted file systems and block devices, by identity: which of them other hosts can have too."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dr.adapters.libvirt.layout import Layout

# Those that libvirt itself takes for shared (virfile.c), cluster file systems on shared block devices included.
NETWORK_FS = frozenset({"nfs", "nfs4", "afs", "smb2", "smb3", "smbfs", "cifs", "ceph", "gpfs", "quobyte", "glusterfs",
                        "beegfs", "lustre"})  # fmt: skip
CLUSTER_FS = frozenset({"gfs2", "ocfs2", "acfs", "oracleasmfs"})
FLEETING_FS = frozenset({"tmpfs", "ramfs", "devtmpfs", "overlay", "squashfs", "iso9660"})
FUSE_FS = frozenset(
    {"glusterfs", "quobyte", "ceph", "ceph-fuse", "beegfs", "moosefs", "mfs", "lizardfs", "juicefs"}
)


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    device: str  # "major:minor"
    root: str  # the folder of that file system which is mounted
    point: str
    kind: str  # "nfs4", "ext4", …
    source: str
    read_only: bool = False
    options: str = ""  # of the file system, as it says itself

    @property
    def keeps_disks(self) -> bool:
        """Whether it is the host's own, and keeps what is written to it over a reboot."""
        return not self.shared and self.kind not in FLEETING_FS

    @property
    def shared(self) -> bool:
        """Whether other hosts can have this file system mounted at the same time."""
        if self.kind.startswith("fuse."):
            return self.kind.removeprefix("fuse.") in FUSE_FS
        return self.kind in NETWORK_FS or self.kind in CLUSTER_FS


def _plain(field: str) -> str:
    """mountinfo writes blanks and the like as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def mounts(layout: Layout) -> list[Mount]:
    """All mounts, in the kernel's order. Raises OSError."""
    found = []
    for line in (
        (layout.proc / "self" / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    ):
        front, dash, back = line.partition(" - ")
        left, right = front.split(" "), back.split(" ")
        if not dash or len(left) < 6 or len(right) < 2:
            continue
        options = right[2] if len(right) > 2 else ""
        found.append(
            Mount(
                device=left[2],
                root=_plain(left[3]),
                point=_plain(left[4]),
                kind=right[0],
                source=_plain(right[1]),
                read_only="ro" in left[5].split(",") or "ro" in options.split(","),
                options=options,
            )
        )
    return found


def mount_of(path: str, among: list[Mount]) -> Mount | None:
    """The mount that holds a path without symbolic links; of two at one place the later covers the earlier."""
    best: Mount | None = None
    for mount in among:
        point = mount.point.rstrip("/") + "/"
        if (path.rstrip("/") + "/").startswith(point) and (
            best is None or len(mount.point) >= len(best.point)
        ):
            best = mount
    return best


def machine_id(layout: Layout) -> str:
    """This installation's id; empty when it has none."""
    try:
        return layout.at("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def identity_of_mount(layout: Layout, mount: Mount) -> str:
    """What makes two hosts' mounts the same: the source as the server knows it, and where it is mounted.

    The place belongs to it, for a definition names its disks by path.
    """
    if not mount.shared:
        return f"local:{machine_id(layout)}:{mount.point}"
    if mount.kind in ("nfs", "nfs4"):
        return f"{_nfs(layout, mount)}@{mount.point}"
    if mount.kind in CLUSTER_FS:
        return f"{mount.kind}:{_wwid_of_number(layout, mount.device) or mount.source}@{mount.point}"
    kind = mount.kind.removeprefix("fuse.")
    return f"{kind}:{mount.source}@{mount.point}"


def _nfs(layout: Layout, mount: Mount) -> str:
    """`nfs:SERVER:/EXPORT#FSID`: the server by the address that is used, the fsid as the server gave it."""
    server, colon, export = mount.source.rpartition(":/")
    address = re.search(r"(?:^|,)addr=([^,]+)", mount.options)
    name = address[1] if address else server.strip("[]")
    fsid = _nfs_fsid(layout, mount.device)
    export = f"/{export}" if colon else mount.source
    return f"nfs:{name}:{export}" + (f"#{fsid}" if fsid else "")


def _nfs_fsid(layout: Layout, device: str) -> str:
    """The FSID column of /proc/fs/nfsfs/volumes for a device; empty when it is not listed."""
    try:
        lines = (layout.proc / "fs" / "nfsfs" / "volumes").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return ""
    for line in lines:
        fields = line.split()
        if len(fields) >= 5 and fields[3] == device:
            return "" if fields[4] in ("0:0", "0") else fields[4]
    return ""


def wwid_of_path(layout: Layout, path: str) -> str:
    """`wwid:…` of a block device, empty when it has no name of its own that is the same on every host."""
    try:
        status = layout.at(path).stat()
    except OSError:
        return ""
    return _wwid_of_number(layout, f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")


def _wwid_of_number(layout: Layout, number: str) -> str:
    device = layout.sys / "dev" / "block" / number
    found = _wwid(device)
    if found or not (device / "partition").exists():
        return found
    whole = _wwid(device.resolve().parent)
    part = _text(device / "partition")
    return f"{whole}-part{part}" if whole else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _wwid(device: Path) -> str:
    """The WWID of one folder of /sys/block (or /sys/dev/block)."""
    mapped = _text(device / "dm" / "uuid")
    if mapped.startswith("mpath-"):
        return f"wwid:{mapped.removeprefix('mpath-')}"
    if mapped:
        return f"wwid:dm-{mapped}"
    raw = _text(device / "device" / "wwid") or _text(device / "wwid")
    if raw.startswith("naa."):
        return f"wwid:3{raw.removeprefix('naa.')}"  # as udev's by-id and multipath write it
    return "wwid:" + re.sub(r"\s+", "_", raw) if raw else ""


def wwids(layout: Layout) -> set[str]:
    """Every block device here that has a WWID, partitions included."""
    found: set[str] = set()
    try:
        devices = list((layout.sys / "block").iterdir())
    except OSError:
        return found
    for device in devices:
        name = _wwid(device)
        if not name:
            continue
        found.add(name)
        try:
            parts = [_text(part / "partition") for part in device.iterdir() if (part / "partition").exists()]
        except OSError:
            parts = []
        found.update(f"{name}-part{part}" for part in parts if part)
    return found
