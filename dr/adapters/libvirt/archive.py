"""The archive: what a host keeps of a guest before its definition is removed or replaced. Never a disk."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.definition import is_shared, needed_by_others
from dr.adapters.libvirt.digest import nvram_path
from dr.adapters.libvirt.gate import sync_folder, write_durably
from dr.adapters.libvirt.guests import XML_FLAGS
from dr.adapters.libvirt.images import part_with
from dr.adapters.libvirt.layout import Layout
from dr.model.base import GuestId
from dr.model.memory import Image
from dr.ports.hypervisor import HypervisorError


def keep(layout: Layout, guest: GuestId, name: str, xml: str, note: str) -> Path:
    """Copy XML, NVRAM, TPM state, saved image, snapshot and checkpoint metadata; durable when it returns.

    Raises HypervisorError, and leaves no half archive behind.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = layout.archive / f"{stamp}-{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}-{guest}"
    number = 1
    while folder.exists():
        number += 1
        folder = folder.with_name(f"{folder.name.split('~')[0]}~{number}")
    half = folder.with_name(f".{folder.name}.half")
    try:
        half.mkdir(mode=0o700, parents=True)
        write_durably(half / "note.txt", f"{note}\n".encode(), mode=0o600)
        _fill(layout, half, guest, name, xml)
        for path, _, files in os.walk(half):
            for file in files:
                _sync_file(Path(path) / file)
            sync_folder(Path(path))
        half.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(half, ignore_errors=True)
        raise HypervisorError(f"{name} was not archived, so nothing was removed: {error}") from error
    return folder


def _fill(layout: Layout, half: Path, guest: GuestId, name: str, xml: str) -> None:
    write_durably(half / "domain.xml", xml.encode(), mode=0o600)
    nvram = nvram_path(ElementTree.fromstring(xml))
    if nvram and layout.at(nvram).is_file():
        shutil.copy2(layout.at(nvram), half / "nvram.fd")
    save = layout.state / "save" / f"{name}.save"
    if save.is_file():
        _link_or_copy(save, half / "managed.save")
    for source, target in (
        (layout.tpm / guest, "tpm"),
        (layout.state / "snapshot" / name, "snapshot"),
        (layout.state / "checkpoint" / name, "checkpoint"),
    ):
        if source.is_dir():
            shutil.copytree(source, half / target, ignore=_only_files)


def _link_or_copy(source: Path, target: Path) -> None:
    """A saved image is as big as the guest's memory: keep the very file where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _only_files(folder: str, names: list[str]) -> list[str]:
    """Sockets, pipes and locks of a daemon cannot be copied and say nothing."""
    paths = {name: Path(folder, name) for name in names}
    return [name for name, path in paths.items() if not (path.is_file() or path.is_dir())]


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def archive_and_undefine(
    conn: Any, layout: Layout, guest: GuestId, note: str, old_disks: tuple[Image, ...], *, remove: bool
) -> str:
    """See ports.hypervisor. Raises HypervisorError, libvirt's error."""
    try:
        domain = conn.lookupByUUIDString(guest)
        name, xml = str(domain.name()), str(domain.XMLDesc(XML_FLAGS))
        active, persistent = bool(domain.isActive()), bool(domain.isPersistent())
    except libvirt.libvirtError as error:
        if api.is_missing(error):  # disks may have come and gone without it
            return _part_with(conn, layout, guest, old_disks, remove=remove)
        raise
    if active:
        raise HypervisorError(f"{name} still runs here, so it was not undefined: stop it first")
    if not persistent:
        return ""
    keep(layout, guest, name, xml, note)
    # Before it is undefined: while it is defined, somebody looks after it again.
    told = _part_with(conn, layout, guest, old_disks, remove=remove)
    undefine(conn, layout, domain, xml)
    return told


def _part_with(
    conn: Any, layout: Layout, guest: GuestId, old_disks: tuple[Image, ...], *, remove: bool
) -> str:
    taken = needed_by_others(conn, layout, guest) if old_disks else set()
    return "; ".join(part_with(layout, old_disks, taken, remove=remove))


def undefine(conn: Any, layout: Layout, domain: Any, xml: str) -> None:
    """Remove a definition and libvirt's own files of it; what lies on shared storage stays. Raises libvirt's error."""
    if conn.getType() == "TEST":
        domain.undefine()
        return
    flags = (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    )
    root = ElementTree.fromstring(xml)
    if root.find("./os/nvram") is not None:
        path = nvram_path(root)
        foreign = not path or is_shared(layout, path)
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM if foreign else libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    if root.find("./devices/tpm") is not None and hasattr(libvirt, "VIR_DOMAIN_UNDEFINE_KEEP_TPM"):
        foreign = is_shared(layout, str(layout.tpm)) if layout.root == Path("/") else False
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM if foreign else libvirt.VIR_DOMAIN_UNDEFINE_TPM
    domain.undefineFlags(flags)
