"""Image files of disks that only this host has: what one is, making those for a guest that arrives, and their end.

All functions run on call threads. A file that is there is never overwritten, and none is removed but the very one that
was remembered: by its inode and the time of its birth, as inode numbers are given out again at once. Images are made
under names that hold their guest's UUID, so that nobody else uses them, and then linked to their own, which fails if
anything is there.
"""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

from dr.adapters.libvirt import qcow2
from dr.adapters.libvirt.gate import sync_folder
from dr.adapters.libvirt.layout import Layout
from dr.model.base import GuestId
from dr.model.facts import LocalDisk
from dr.model.memory import Image
from dr.ports.hypervisor import HypervisorError

FORMS = ("raw", "qcow2")
MAKE_S = 30.0
NEW = ".dr-new"

# The digest of the content of the file at a path, "" while it is not known (`bases`). Raises OSError.
Digest = Callable[[str], str]


def local_disk(layout: Layout, disk: Element, path: str, mount: str = "/") -> LocalDisk | None:
    """What a <disk> of type file is that lies at that path on a file system of the host's own, but for its bases.

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
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):  # of a link, the data would stay where it is
        return None
    size = status.st_size
    if form == "qcow2":
        header = qcow2.read(file)
        if header is None or not header.whole:
            return None
        size = header.size_b
    used = status.st_blocks * 512
    named = target.get("dev", "")
    return LocalDisk(target=named, path=path, form=form, size_b=size, used_b=used, mount=mount)


# ---- for a guest that arrives


def prepare(
    layout: Layout, guest: GuestId, disks: tuple[LocalDisk, ...], digest: Digest
) -> tuple[Image, ...]:
    """Empty images on their bases, not under their own names yet. Raises HypervisorError: then none is left."""
    made: list[Image] = []
    try:
        for disk in disks:
            made.append(_prepared(layout, guest, disk, digest))
    except HypervisorError:
        remove(layout, guest, tuple(made))
        raise
    return tuple(made)


def _prepared(layout: Layout, guest: GuestId, disk: LocalDisk, digest: Digest) -> Image:
    file = layout.at(disk.path)
    new = _new_name(file, guest)
    try:
        if os.path.lexists(file):
            raise HypervisorError(
                f"there is a file {disk.path} on this host already: move it away, if nothing needs it"
            )
        new.unlink(missing_ok=True)  # of a process that was killed: nobody else makes that name
        _require_bases(disk, digest)
        _create(layout, disk, new)
        image = image_of(new, disk.path)
        if image is None:
            new.unlink()
            raise HypervisorError(
                f"the file system of {disk.path} here does not tell when files were made, so that nobody could"
                " tell images that were made for guests from other files there"
            )
        return image
    except (OSError, subprocess.SubprocessError) as error:
        raise HypervisorError(f"the image {disk.path} could not be made here: {_said(error)}") from error


def identify(layout: Layout, paths: tuple[str, ...]) -> tuple[Image, ...]:
    """Which files those are now. Raises OSError; what cannot be told apart from others is left out."""
    found = (image_of(layout.at(path), path) for path in paths)
    return tuple(image for image in found if image is not None)


def image_of(file: Path, path: str) -> Image | None:
    """Which file it is now; None where its file system does not tell when it was made. Raises OSError."""
    argv = ["stat", "--format=%i %.9W", "--", str(file)]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=MAKE_S, env={"LC_ALL": "C"}, check=False
    )
    if done.returncode:
        raise FileNotFoundError(2, done.stderr.strip() or "no such file", path)
    inode, born = done.stdout.split()
    return Image(path=path, inode=int(inode), born=born) if float(born) > 0 else None


def _is(file: Path, image: Image) -> bool:
    """Whether that is the very file. Raises OSError."""
    return os.path.lexists(file) and image_of(file, image.path) == image


def _require_bases(disk: LocalDisk, digest: Digest) -> None:
    """What lies below it is here, with the same content. Raises HypervisorError, OSError."""
    for base in disk.bases:
        found = digest(base.path)
        if not found:
            raise HypervisorError(
                f"{base.path}, which {disk.path} lies on, is being read here: try again soon"
            )
        if found != base.digest:
            raise HypervisorError(
                f"{base.path}, which {disk.path} lies on, has another content here than where the guest is"
            )


def _create(layout: Layout, disk: LocalDisk, new: Path) -> None:
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # libvirt gives it to QEMU's user
    below = ["-b", str(layout.at(disk.bases[0].path)), "-F", disk.bases[0].form] if disk.bases else []
    argv = ["qemu-img", "create", "-q", "-f", disk.form, *below, "--", str(new), str(disk.size_b)]
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
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def put_in_place(layout: Layout, guest: GuestId, images: tuple[Image, ...]) -> None:
    """Give images their own names; those that have them already keep them.

    Raises HypervisorError; `remove` takes back whatever was done.
    """
    for image in images:
        file = layout.at(image.path)
        new = _new_name(file, guest)
        try:
            if not _is(file, image):
                if image_of(new, image.path) != image:
                    raise HypervisorError(f"the image {image.path} is not the one that was made for it")
                os.link(new, file)
            new.unlink(missing_ok=True)
            sync_folder(file.parent)
        except (OSError, subprocess.SubprocessError) as error:
            raise HypervisorError(
                f"the image {image.path} could not be put in its place: {_said(error)}"
            ) from error


def where(layout: Layout, guest: GuestId, images: tuple[Image, ...]) -> tuple[str, ...]:
    """The host's path of each: its own or that which it was made under; empty where neither is that very file.

    Raises OSError.
    """
    return tuple(_where(layout, guest, image) for image in images)


def _where(layout: Layout, guest: GuestId, image: Image) -> str:
    own = Path(image.path)
    names = (str(own), str(_new_name(own, guest)))
    return next((name for name in names if _is(layout.at(name), image)), "")


def remove(layout: Layout, guest: GuestId, images: tuple[Image, ...]) -> None:
    """Those that are still the files that were made. Raises OSError."""
    for image in images:
        own = layout.at(image.path)
        for file in (own, _new_name(own, guest)):
            if _is(file, image):
                file.unlink()
                sync_folder(file.parent)


def _new_name(file: Path, guest: GuestId) -> Path:
    return file.with_name(f".{file.name}.{guest}{NEW}")


# ---- of a guest that has left


def part_with(
    layout: Layout, images: tuple[Image, ...], taken: set[tuple[int, int]], *, remove: bool
) -> list[str]:
    """Remove these disks of a guest that left from here, or set them aside; each told. One that fails is left.

    Set aside: renamed beside where it was, so that no definition finds it. `taken`: device and inode of files that
    other guests here need.
    """
    return [_part_with(layout, image, taken, remove=remove) for image in images]


def _part_with(layout: Layout, image: Image, taken: set[tuple[int, int]], *, remove: bool) -> str:
    file = layout.at(image.path)
    try:
        if not _is(file, image):
            return f"{image.path} is not the file that it left any more, so nothing is done to it"
        status = file.stat()
        if (status.st_dev, status.st_ino) in taken:
            return f"{image.path} is left as it is: another guest here needs it"
        if remove:
            file.unlink()
            told = f"{image.path} was removed"
        else:
            aside = _aside(file)
            file.rename(aside)
            told = f"{image.path} was set aside as {aside.name}"
        sync_folder(file.parent)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{image.path} is left as it is: {_said(error)}"
    return told


def _aside(file: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside, number = file.with_name(f"{file.name}.old-{stamp}"), 1
    while os.path.lexists(aside):
        number += 1
        aside = file.with_name(f"{file.name}.old-{stamp}~{number}")
    return aside
