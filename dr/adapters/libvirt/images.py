"""Image files of disks that only this host has: what one is, making those for a guest that arrives, and their end.

All functions run on call threads. A file that is there is never overwritten, and none is removed that somebody put in
the place of ours: each is made under a name that nobody uses, remembered by its inode, and then linked to its own name,
which fails if anything is there.
"""

from __future__ import annotations

import os
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import libvirt

from dr.adapters.libvirt.gate import sync_folder
from dr.adapters.libvirt.guests import XML_FLAGS
from dr.adapters.libvirt.layout import Layout
from dr.model.facts import LocalDisk
from dr.model.memory import Image
from dr.ports.hypervisor import HypervisorError, OldDisks

FORMS = ("raw", "qcow2")
MAKE_S = 30.0
NEW = ".dr-new"


def local_disk(layout: Layout, disk: Element, path: str) -> LocalDisk | None:
    """What a <disk> of type file is that lies at that path on a file system of the host's own, backed by no other file.

    None where its copy would not be the same disk. Raises OSError.
    """
    driver, target = disk.find("driver"), disk.find("target")
    form = driver.get("type", "raw") if driver is not None else "raw"
    fixed = ("readonly", "shareable", "transient", "encryption", "source/encryption", "source/slices")
    if target is None or form not in FORMS or any(disk.find(each) is not None for each in fixed):
        return None
    if disk.get("device", "disk") != "disk" or not os.path.isabs(path):
        return None
    file = layout.at(path)
    status = file.stat()
    size = _qcow2_size(file) if form == "qcow2" else status.st_size
    if size is None:
        return None
    used = status.st_blocks * 512
    return LocalDisk(target=target.get("dev", ""), path=path, form=form, size_b=size, used_b=used)


def _qcow2_size(file: Path) -> int | None:
    """As the guest sees it; None where it is no qcow2 image, or one with a backing or a data file."""
    with file.open("rb", buffering=0) as image:
        header = image.read(104)
    if len(header) < 72 or header[:4] != b"QFI\xfb":
        return None
    version, backing, size = int.from_bytes(header[4:8]), int.from_bytes(header[8:16]), header[24:32]
    incompatible = int.from_bytes(header[72:80]) if version >= 3 and len(header) >= 80 else 0
    data_file = bool(incompatible & 4)
    return None if backing or data_file else int(struct.unpack(">Q", size)[0])


# ---- for a guest that arrives


def prepare(layout: Layout, disks: tuple[LocalDisk, ...]) -> tuple[Image, ...]:
    """Empty images, not under their own names yet. Raises HypervisorError: then none is left."""
    made: list[Image] = []
    try:
        for disk in disks:
            made.append(_prepared(layout, disk))
    except HypervisorError:
        remove(layout, tuple(made))
        raise
    return tuple(made)


def _prepared(layout: Layout, disk: LocalDisk) -> Image:
    file = layout.at(disk.path)
    new = _new_name(file)
    try:
        if os.path.lexists(file):
            raise HypervisorError(
                f"there is a file {disk.path} on this host already: move it away, if nothing needs it"
            )
        new.unlink(missing_ok=True)  # of a process that was killed: the name is ours alone
        _create(disk, new)
        return Image(path=disk.path, inode=new.stat().st_ino)
    except (OSError, subprocess.SubprocessError) as error:
        raise HypervisorError(f"the image {disk.path} could not be made here: {_said(error)}") from error


def _create(disk: LocalDisk, new: Path) -> None:
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # libvirt gives it to QEMU's user
    argv = ["qemu-img", "create", "-q", "-f", disk.form, "--", str(new), str(disk.size_b)]
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True, timeout=MAKE_S)
    except FileNotFoundError as error:
        new.unlink()
        raise HypervisorError("qemu-img is missing on this host: apt install qemu-utils") from error
    except BaseException:
        new.unlink()
        raise


def _said(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return str(error.stderr).strip() or str(error)
    return str(error)


def put_in_place(layout: Layout, images: tuple[Image, ...]) -> None:
    """Give prepared images their own names. Raises HypervisorError; `remove` takes back whatever was done."""
    for image in images:
        file = layout.at(image.path)
        try:
            os.link(_new_name(file), file)
            _new_name(file).unlink()
            sync_folder(file.parent)
        except OSError as error:
            raise HypervisorError(
                f"the image {image.path} could not be put in its place: {error.strerror}"
            ) from error


def remove(layout: Layout, images: tuple[Image, ...]) -> None:
    """Those that are still the files that were made. Raises OSError."""
    for image in images:
        for file in (layout.at(image.path), _new_name(layout.at(image.path))):
            with suppress(FileNotFoundError):
                if file.stat(follow_symlinks=False).st_ino == image.inode:
                    file.unlink()
                    sync_folder(file.parent)


def _new_name(file: Path) -> Path:
    return file.with_name(f".{file.name}{NEW}")


# ---- of a guest that has left


def part_with(
    conn: Any, layout: Layout, xml: str, disks: tuple[LocalDisk, ...], old_disks: OldDisks
) -> list[str]:
    """Remove the disks of a guest that left from here, or set them aside; each told. Raises OSError, libvirt's error.

    Set aside: renamed beside where it was, so that no definition finds it. What another guest here names is left.
    """
    told = []
    others = _named_by_others(conn, fromstring(xml).findtext("uuid") or "") if disks else set()
    for disk in disks:
        file = layout.at(disk.path)
        if disk.path in others:
            told.append(f"{disk.path} is left as it is: another guest here names it")
        elif old_disks is OldDisks.REMOVE:
            file.unlink()
            told.append(f"{disk.path} was removed")
        else:
            aside = _aside(file)
            file.rename(aside)
            told.append(f"{disk.path} was set aside as {aside.name}")
        sync_folder(file.parent)
    return told


def _aside(file: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside, number = file.with_name(f"{file.name}.old-{stamp}"), 1
    while os.path.lexists(aside):
        number += 1
        aside = file.with_name(f"{file.name}.old-{stamp}~{number}")
    return aside


def _named_by_others(conn: Any, guest: str) -> set[str]:
    """Files that disks of other domains here name, as they are defined and as they run."""
    found = set()
    for domain in conn.listAllDomains(0):
        if domain.UUIDString() == guest:
            continue
        try:
            texts = [domain.XMLDesc(0), domain.XMLDesc(XML_FLAGS)]
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            continue  # undefined meanwhile
        for text in texts:
            found |= {source.get("file", "") for source in fromstring(text).iter("source")}
    return found
