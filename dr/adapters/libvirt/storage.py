"""The identity of a disk's source as this host resolves it, and what of it keeps a guest from starting elsewhere.

An identity is a string that another host can compare with what it sees itself:
`nbd:HOST:PORT`, `rbd:HOST:PORT,…`, `iscsi:HOST:PORT/IQN`, `gluster:HOST:PORT/VOLUME`, `https:HOST:PORT`,
`nfs:SERVER:/EXPORT#FSID@MOUNTPOINT`, `ceph:SOURCE@MOUNTPOINT`, `wwid:…`, `pool:UUID`, and
`local:MACHINE:MOUNTPOINT` for what only this host has.
Whether one is reachable now is told by reach.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from dr.adapters.libvirt import qcow2
from dr.adapters.libvirt.images import FORMS, Digest, local_disk
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.mounts import Mount, identity_of_mount, mount_of, wwid_of_path
from dr.model.base import changed
from dr.model.facts import Base, LocalDisk

PORTS = {"nbd": 10809, "rbd": 6789, "iscsi": 3260, "gluster": 24007, "http": 80, "https": 443, "ftp": 21, "ftps": 990,
         "tftp": 69, "ssh": 22, "nfs": 2049, "sheepdog": 7000, "vxhs": 9999}  # fmt: skip
CHAIN_MAX = 50
NETWORK_POOLS = frozenset({"rbd", "iscsi", "iscsi-direct", "gluster", "sheepdog"})


@dataclass(frozen=True)
class Pool:
    """A libvirt storage pool as far as a volume's identity needs it."""

    uuid: str
    kind: str
    path: str  # of the volume asked for


# Finds the pool and path of (pool, volume); None when this libvirt has no such volume.
FindVolume = Callable[[str, str], Pool | None]


@dataclass(frozen=True)
class Found:
    """What one disk's source comes to."""

    identities: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()
    local: LocalDisk | None = None  # in place of both: another host can have a copy of it


class Resolver:
    """Resolves sources on this host, against the mounts as they were when it was made."""

    def __init__(self, layout: Layout, among: list[Mount], find_volume: FindVolume, digest: Digest) -> None:
        self._layout = layout
        self._mounts = among
        self._find_volume = find_volume
        self._digest = digest

    def disk(self, disk: Element) -> Found:
        """A <disk> with all its backing files."""
        target = disk.find("target")
        label = f"disk {target.get('dev')}" if target is not None else "a disk"
        source = disk.find("source")
        if source is None:
            return Found()  # an empty drive
        kind = disk.get("type", "file")
        driver = disk.find("driver")
        form = driver.get("type", "raw") if driver is not None else "raw"
        if kind == "file" and (local := self._local(disk, source.get("file", ""))) is not None:
            return Found(local=local)
        return self._source(label, kind, source, form)

    def _local(self, disk: Element, path: str) -> LocalDisk | None:
        mount = mount_of(self._real(path), self._mounts)
        if mount is None or not mount.keeps_disks or path.startswith("/dev/"):
            return None
        try:
            found = local_disk(self._layout, disk, path, mount.point)
            bases = self._bases(path, found.form) if found is not None else None
        except OSError:
            return None  # said where it is resolved
        return changed(found, bases=bases) if found is not None and bases is not None else None

    def _bases(self, path: str, form: str) -> tuple[Base, ...] | None:
        """What lies below a local image, down to the last; None where another host could not have the same.

        All of it must be files of the host's own, whose forms are declared: QEMU would believe what a raw one says of
        itself. Raises OSError.
        """
        found: list[Base] = []
        while form == "qcow2":
            header = qcow2.read(self._layout.at(path))
            if header is None or not header.whole:
                return None
            if not header.backing:
                break
            below = self._below(path, header.backing)
            if not below or header.backing_form not in FORMS or len(found) == CHAIN_MAX:
                return None
            path, form = below, header.backing_form
            found.append(Base(path=path, form=form, digest=self._digest(path)))
        return tuple(found)

    def _below(self, path: str, backing: str) -> str:
        """The absolute path of a backing file of the host's own; "" where it is none, or two ways lead to two files."""
        if _is_remote(backing) or not backing.isprintable():
            return ""
        joined = os.path.join(os.path.dirname(path), backing)
        plain = os.path.normpath(joined)
        mount = mount_of(self._real(plain), self._mounts)
        if self._real(joined) != self._real(plain) or mount is None or not mount.keeps_disks:
            return ""
        return "" if plain.startswith("/dev/") else plain

    def _real(self, path: str) -> str:
        return os.path.realpath(path) if self._layout.root == Path("/") else os.path.normpath(path)

    def _source(self, label: str, kind: str, source: Element, form: str) -> Found:
        if kind == "network":
            return self._network(label, source)
        if kind == "volume":
            return self._volume(label, source, form)
        path = {"file": source.get("file"), "block": source.get("dev"), "dir": source.get("dir")}.get(kind)
        if path is None:
            return Found(
                blockers=(f"{label} is of type {kind}, which only this host has: move it to shared storage.",)
            )
        return self.path(label, path, form)

    def _network(self, label: str, source: Element) -> Found:
        protocol = source.get("protocol", "")
        hosts = []
        for host in source.findall("host"):
            if host.get("transport") == "unix":
                return Found(
                    blockers=(
                        f"{label} is reached over a UNIX socket of this host ({host.get('socket')}): "
                        "reach its server over TCP instead.",
                    )
                )
            hosts.append(f"{host.get('name', 'localhost')}:{host.get('port') or PORTS.get(protocol, 0)}")
        return Found(identities=(self._endpoint(protocol, sorted(hosts), source.get("name", "")),))

    def _endpoint(self, protocol: str, hosts: list[str], name: str) -> str:
        where = ",".join(hosts)
        if protocol == "rbd" and not hosts:
            return f"rbd:{ceph_fsid(self._layout) or 'ceph.conf'}"
        if protocol == "iscsi":
            return f"iscsi:{where}/{name.partition('/')[0]}"
        if protocol == "gluster":
            return f"gluster:{where}/{name.partition('/')[0]}"
        if protocol == "nfs":
            return f"nfsd:{where}"
        return f"{protocol}:{where}"

    def _volume(self, label: str, source: Element, form: str) -> Found:
        pool, volume = source.get("pool", ""), source.get("volume", "")
        found = self._find_volume(pool, volume)
        if found is None:
            return Found(
                blockers=(
                    f"{label} is volume {volume} of pool {pool}, which libvirt cannot find here: start the pool.",
                )
            )
        if found.kind in NETWORK_POOLS:
            return Found(identities=(f"pool:{found.uuid}",))
        return self.path(label, found.path, form)

    def path(self, label: str, path: str, form: str) -> Found:
        """A file or block device, with what it is backed by."""
        identities: list[str] = []
        blockers: list[str] = []
        what = label
        for _ in range(CHAIN_MAX):
            found = self._one(what, path)
            identities += found.identities
            blockers += found.blockers
            try:
                header = qcow2.read(self._layout.at(path)) if form == "qcow2" else None
            except OSError as error:
                blockers.append(f"{what} ({path}) cannot be read here: {error.strerror}.")
                break
            if header is None or not header.backing:
                break
            backing, declared = header.backing, header.backing_form
            if _is_remote(backing):
                blockers.append(
                    f"{label} is backed by {backing}, whose place cannot be told: flatten it with `virsh blockpull`."
                )
                break
            if found.blockers and not declared:
                blockers.append(
                    f"{what} does not say of which format {backing} is, so that it could not be copied alone: while the"
                    f" guest is off, `qemu-img rebase -u -b {backing} -F FORMAT {path}`."
                )
            path = os.path.normpath(os.path.join(os.path.dirname(path), backing))
            form = "qcow2"  # probed: a backing file that says it is qcow2 is taken at its word
            what = f"{label}'s backing file"
        else:
            blockers.append(
                f"{label} has more than {CHAIN_MAX} backing files: shorten the chain with `virsh blockpull`."
            )
        return Found(identities=tuple(dict.fromkeys(identities)), blockers=tuple(blockers))

    def _one(self, label: str, path: str) -> Found:
        if path.startswith("/dev/") and not path.startswith("/dev/shm/"):
            return self._device(label, path)
        mount = mount_of(self._real(path), self._mounts)
        if mount is None:
            return Found(blockers=(f"{label} ({path}) is on no file system that this host knows.",))
        identity = identity_of_mount(self._layout, mount)
        if mount.shared:
            return Found(identities=(identity,))
        return Found(
            identities=(identity,),
            blockers=(
                f"{label} is {path}, on {mount.kind} at {mount.point} that only this host has: "
                "move it to shared storage.",
            ),
        )

    def _device(self, label: str, path: str) -> Found:
        wwid = wwid_of_path(self._layout, path)
        if not wwid:
            return Found(
                identities=(f"local:{path}",),
                blockers=(
                    f"{label} is {path}, a device without a WWID, so no other host can have it: move the disk.",
                ),
            )
        stable = path.startswith(("/dev/disk/by-id/", "/dev/disk/by-path/", "/dev/mapper/", "/dev/mpath/"))
        if stable or path.count("/") == 3:  # /dev/VG/LV
            return Found(identities=(wwid,))
        return Found(
            identities=(wwid,),
            blockers=(
                f"{label} is {path}, a name that may mean another device on another host: "
                "use the one in /dev/disk/by-id/ with `virsh edit`.",
            ),
        )


def _is_remote(backing: str) -> bool:
    """`nbd:host:port`, `json:…` and the like, as QEMU takes them for backing files."""
    head, colon, _ = backing.partition(":")
    return "://" in backing or (bool(colon) and "/" not in head)


def ceph_fsid(layout: Layout) -> str:
    """The fsid in /etc/ceph/ceph.conf; empty when there is none."""
    try:
        lines = layout.at("/etc/ceph/ceph.conf").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and key.strip() == "fsid":
            return value.strip()
    return ""


def backing_file(path: Path, form: str) -> str | None:
    """The backing file that a qcow2 image names. Raises OSError.

    Only where the definition says qcow2 (or a chain led here): what a guest writes into a raw disk may look like a
    qcow2 header, and must not be believed.
    """
    if form not in ("qcow2", "qed"):
        return None
    header = qcow2.read(path)
    return header.backing or None if header is not None else None
