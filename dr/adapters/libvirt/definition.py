"""`describe`: all that another host needs to start a guest, and what keeps it from doing so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import libvirt

from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.blockers import blockers
from dr.adapters.libvirt.digest import digest, nvram_path, read_nvram
from dr.adapters.libvirt.guests import XML_FLAGS
from dr.adapters.libvirt.images import Digest
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.mounts import Mount, mount_of, mounts
from dr.adapters.libvirt.storage import CHAIN_MAX, Pool, Resolver, backing_file
from dr.model.base import GuestId
from dr.model.facts import Definition, LocalDisk
from dr.ports.hypervisor import HypervisorError

REMOVABLE = ("cdrom", "floppy")
NVRAM_BYTES_MAX = 4 * 1024 * 1024  # a variable store is 128 KiB to 1 MiB; more would not fit into one message


def describe(conn: Any, layout: Layout, guest: GuestId, digest_of: Digest) -> Definition:
    """`digest_of`: what is known of files below its disks.

    Raises HypervisorError when there is no such guest, libvirt's error otherwise.
    """
    try:
        domain = conn.lookupByUUIDString(guest)
        name = str(domain.name())
        xml = str(domain.XMLDesc(XML_FLAGS))
        snapshots = int(domain.snapshotNum()) if conn.getType() != "TEST" else 0
        active = str(domain.XMLDesc(0)) if domain.isActive() else ""
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            raise HypervisorError(f"there is no guest {guest} on this host") from error
        raise
    root = ElementTree.fromstring(xml)
    resolver = Resolver(
        layout, mounts(layout), lambda pool, volume: find_volume(conn, pool, volume), digest_of
    )
    identities, found, local = _disks(resolver, root)
    nvram, more = _nvram(layout, root, resolver, identities)
    found += more + blockers(root)
    if active:
        live = _disks(resolver, ElementTree.fromstring(active))[2]
        found += _other_disks(live, local)
    if snapshots:
        found.append(
            f"it has {snapshots} snapshots that only this host knows of: "
            f"delete them with `virsh snapshot-delete {name} NAME` (list: `virsh snapshot-list {name}`)."
        )
    return Definition(
        id=guest,
        name=name,
        xml=xml,
        digest=digest(xml, _content(layout, root)),
        nvram=nvram,
        storage=tuple(dict.fromkeys(identities)),
        local=local,
        blockers=tuple(f"{name}: {sentence}" for sentence in dict.fromkeys(found)),
    )


def _content(layout: Layout, root: Element) -> bytes:
    """What guests.py hashes, so that both come to the same digest."""
    try:
        return read_nvram(layout, nvram_path(root)) or b""
    except OSError:
        return b""


def needed_by_others(conn: Any, layout: Layout, guest: GuestId) -> set[tuple[int, int]]:
    """Device and inode of local files that disks of other domains here need, as defined and as they run.

    With what they are backed by. Raises OSError, libvirt's error.
    """
    among = mounts(layout)
    found: set[tuple[int, int]] = set()
    for domain in conn.listAllDomains(0):
        if domain.UUIDString() == guest:
            continue
        try:
            texts = [domain.XMLDesc(0), domain.XMLDesc(XML_FLAGS)]
        except libvirt.libvirtError as error:
            if not api.is_missing(error):
                raise
            continue  # undefined meanwhile
        for text in texts:
            for disk in ElementTree.fromstring(text).iterfind("./devices/disk"):
                found |= _files_of(conn, layout, disk, among)
    return found


def _files_of(conn: Any, layout: Layout, disk: Element, among: list[Mount]) -> set[tuple[int, int]]:
    source, driver = disk.find("source"), disk.find("driver")
    if source is None:
        return set()
    path = source.get("file") or source.get("dev") or ""
    if disk.get("type") == "volume":
        volume = find_volume(conn, source.get("pool", ""), source.get("volume", ""))
        path = volume.path if volume is not None else ""
    form = driver.get("type", "raw") if driver is not None else "raw"
    found: set[tuple[int, int]] = set()
    for _ in range(CHAIN_MAX):
        mount = mount_of(path, among) if path.startswith("/") else None
        if mount is None or mount.shared:  # what lies there is none of this host's own
            break
        try:
            status = layout.at(path).stat()
            backing = backing_file(layout.at(path), form)
        except OSError:
            break
        found.add((status.st_dev, status.st_ino))
        if backing is None:
            break
        path, form = os.path.normpath(os.path.join(os.path.dirname(path), backing)), "qcow2"
    return found


def _other_disks(live: tuple[LocalDisk, ...], defined: tuple[LocalDisk, ...]) -> Iterator[str]:
    """What a guest runs from beside what is defined: it would be sent with the one and start from the other."""
    runs = {(disk.target, disk.path, disk.form) for disk in live}
    for target, path, _ in sorted(runs ^ {(disk.target, disk.path, disk.form) for disk in defined}):
        yield (
            f"disk {target} ({path}) is in its definition and not in the guest that runs, or the reverse:"
            " make them the same with virsh attach-disk or detach-disk, --config or --live."
        )


def _disks(resolver: Resolver, root: Element) -> tuple[list[str], list[str], tuple[LocalDisk, ...]]:
    identities: list[str] = []
    found: list[str] = []
    local: list[LocalDisk] = []
    for disk in root.findall("./devices/disk"):
        seen = resolver.disk(disk)
        if seen.local is not None:
            local.append(seen.local)
            continue
        if disk.get("device") not in REMOVABLE or not seen.blockers:
            identities += seen.identities
            found += seen.blockers
            continue
        source, target = disk.find("source"), disk.find("target")
        if source is not None and source.get("startupPolicy") in ("optional", "requisite"):
            continue  # libvirt starts the guest without it
        what = source.get("file") or source.get("dev") or "a medium" if source is not None else "a medium"
        drive = target.get("dev") if target is not None else "?"
        found.append(
            f"drive {drive} holds {what}, which only this host has: "
            f"eject it with `virsh change-media {root.findtext('name')} {drive} --eject --config` (and --live)."
        )
    return identities, found, tuple(local)


def _nvram(
    layout: Layout, root: Element, resolver: Resolver, identities: list[str]
) -> tuple[bytes, list[str]]:
    """The content to carry. NVRAM on shared storage is not carried, it is there already."""
    element = root.find("./os/nvram")
    path = nvram_path(root)
    if not path:
        if element is not None and element.get("type", "file") != "file":
            return b"", ["its NVRAM is not a file: define it as a file."]
        return b"", []
    seen = resolver.path("NVRAM", path, "raw") if _exists(layout, path) else None
    if seen is None:
        return b"", [
            f"its NVRAM file {path} is missing: start the guest once here, which makes a new one, or restore the file."
        ]
    if seen.identities and not seen.blockers:
        identities += seen.identities
        return b"", []
    try:
        content = read_nvram(layout, path) or b""
    except OSError as error:
        return b"", [f"its NVRAM file {path} cannot be read ({error.strerror}): check its permissions."]
    if len(content) > NVRAM_BYTES_MAX:
        return b"", [
            f"its NVRAM file {path} has {len(content)} bytes, more than {NVRAM_BYTES_MAX}: too big to carry."
        ]
    return content, []


def _exists(layout: Layout, path: str) -> bool:
    try:
        return layout.at(path).exists()
    except OSError:
        return True  # it is there and cannot be read: said so later


def is_shared(layout: Layout, path: str) -> bool:
    """Whether a file lies on storage that other hosts have too. Then it is never ours to delete. Raises OSError."""
    mount = mount_of(path, mounts(layout))
    return mount is None or mount.shared


def find_volume(conn: Any, pool: str, volume: str) -> Pool | None:
    try:
        found = conn.storagePoolLookupByName(pool)
        kind = ElementTree.fromstring(found.XMLDesc(0)).get("type", "")
        return Pool(
            uuid=str(found.UUIDString()), kind=kind, path=str(found.storageVolLookupByName(volume).path())
        )
    except libvirt.libvirtError:
        return None
