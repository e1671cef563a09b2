"""The guests' kernel and initramfs: built once, kept under /var/cache/dr-lab, told apart by what went into them.

The kernel is Debian's cloud kernel, fetched without installing it; the initramfs holds guest/init.c and a few modules.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from integration.lab import proc
from integration.lab.layout import CACHE, LabError

_SOURCE: Final = Path(__file__).parent / "guest" / "init.c"
# In the order in which they must be loaded.
_MODULES: Final = (
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/acpi/button",
    "drivers/input/evdev",
    "drivers/misc/pvpanic/pvpanic",
    "drivers/misc/pvpanic/pvpanic-mmio",
    "drivers/char/virtio_console",
)


@dataclass(frozen=True)
class Image:
    """What a guest boots from."""

    kernel: Path
    initramfs: Path


def ensure() -> Image:
    """The guest image, built when the cache has none. Needs apt's network only the first time."""
    with proc.locked(CACHE / "image.lock"):
        kernel = _kernel()
        recipe = hashlib.sha256(_SOURCE.read_bytes() + "".join(_MODULES).encode() + kernel.name.encode())
        image = Image(kernel / "vmlinuz", CACHE / f"initramfs-{recipe.hexdigest()[:16]}.cpio")
        if not image.initramfs.exists():
            _build_initramfs(kernel, image.initramfs)
        return image


def _kernel() -> Path:
    """Folder with `vmlinuz` and `modules/`, downloaded with apt when it is not there."""
    have = sorted(CACHE.glob("linux-image-*-cloud-amd64"))
    if have:
        return have[-1]
    depends = proc.run(["apt-cache", "depends", "linux-image-cloud-amd64"]).stdout
    packages = [
        line.split()[1] for line in depends.splitlines() if line.strip().startswith("Depends: linux-image-")
    ]
    if not packages:
        raise LabError("apt knows no linux-image-cloud-amd64: run apt-get update, then try again")
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        work = Path(name)
        proc.run(
            [
                "sh",
                "-c",
                'cd "$1" && exec apt-get -q -o APT::Sandbox::User=root download "$2"',
                "fetch",
                name,
                packages[0],
            ],
            timeout_s=300,
        )
        (deb,) = work.glob("*.deb")
        proc.run(["dpkg", "-x", str(deb), str(work / "x")], timeout_s=120)
        new = work / "new"
        new.mkdir()
        shutil.move(next((work / "x/boot").glob("vmlinuz-*")), new / "vmlinuz")
        shutil.move(next((work / "x/lib/modules").glob("*")) / "kernel", new / "modules")
        new.replace(CACHE / packages[0])
    return CACHE / packages[0]


def _build_initramfs(kernel: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        program = Path(name) / "init"
        proc.run(
            [
                "gcc",
                "-Os",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-static",
                "-pthread",
                "-s",
                "-o",
                str(program),
                str(_SOURCE),
            ],
            timeout_s=120,
        )
        archive = bytearray()
        for directory in ("dev", "proc", "sys", "modules"):
            archive += _cpio_entry(directory, 0o040755, b"")
        archive += _cpio_entry("dev/console", 0o020600, b"", device=(5, 1))
        archive += _cpio_entry("init", 0o100755, program.read_bytes())
        for index, module in enumerate(_MODULES):
            data = (kernel / "modules" / f"{module}.ko").read_bytes()
            archive += _cpio_entry(f"modules/{index:02d}-{Path(module).name}.ko", 0o100644, data)
        archive += _cpio_entry("TRAILER!!!", 0, b"")
        new = Path(name) / "cpio"
        new.write_bytes(archive)
        new.replace(target)


def _cpio_entry(name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> bytes:
    """One entry in the kernel's `newc` format. Not compressed: under TCG unpacking costs more than reading."""
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(header) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
