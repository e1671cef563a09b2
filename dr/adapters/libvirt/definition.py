"""`describe`: all that another host needs to start a guest, and what keeps it from doing so."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import libvirt

from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.blockers import blockers
from dr.adapters.libvirt.digest import digest, nvram_path, read_nvram
from dr.adapters.libvirt.guests import XML_FLAGS
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.mounts import mount_of, mounts
from dr.adapters.libvirt.storage import Pool, Resolver
from dr.model.base import GuestId
from dr.model.facts import Definition, LocalDisk
from dr.ports.hypervisor import HypervisorError

REMOVABLE = ("cdrom", "floppy")
NVRAM_BYTES_MAX = 4 * 1024 * 1024  # a variable store is 128 KiB to 1 MiB; more would not fit into one message


def describe(conn: Any, layout: Layout, guest: GuestId) -> Definition:
    """Raises HypervisorError when there is no such guest, libvirt's error otherwise."""
    try:
        domain = conn.lookupByUUIDString(guest)
        name = str(domain.name())
        xml = str(domain.XMLDesc(XML_FLAGS))
        snapshots = int(domain.snapshotNum()) if conn.getType() != "TEST" else 0
    except libvirt.libvirtError as error:
        if api.is_missing(error):
            raise HypervisorError(f"there is no guest {guest} on this host") from error
        raise
    root = ElementTree.fromstring(xml)
    resolver = Resolver(layout, mounts(layout), lambda pool, volume: find_volume(conn, pool, volume))
    identities, found, local = _disks(resolver, root)
    nvram, more = _nvram(layout, root, resolver, identities)
    found += more + blockers(root)
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


def local_disks(conn: Any, layout: Layout, root: Element) -> tuple[LocalDisk, ...]:
    """Disks of a definition that lie on this host alone, and whose copies other hosts can have."""
    resolver = Resolver(layout, mounts(layout), lambda pool, volume: find_volume(conn, pool, volume))
    return _disks(resolver, root)[2]


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
