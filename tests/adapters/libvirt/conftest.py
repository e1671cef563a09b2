"""A host's files in a temporary folder, and libvirt's mock driver."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dr.adapters.libvirt.gate import LibvirtGate
from dr.adapters.libvirt.hypervisor import LibvirtHypervisor
from dr.adapters.libvirt.layout import Layout

G = "6695eb01-f6a4-8304-79aa-97f2502e193f"  # the mock driver's guest "test"
OTHER = "aaaaaaaa-0000-4000-8000-000000000002"

BOOT = "0b1c2d3e-0000-4000-8000-00000000b007"


def put(root: Path, path: str, content: str | bytes) -> Path:
    """Write a file of the fixture tree."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def overlay(layout: Layout, path: str, backing: str, form: str, *options: str) -> Path:
    """A qcow2 image as qemu-img makes it. The file below need not be there yet."""
    file = layout.at(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    below = ["-u", "-b", backing, "-F", form] if backing else []
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", *options, *below, "--", str(file), "8M"], check=True
    )
    return file


def put_process(
    root: Path, pid: int, *arguments: str, state: str = "S", comm: str = "", exe: str = "", flags: int = 0
) -> Path:
    """A process in the fixture's /proc."""
    comm = comm or Path(arguments[0] if arguments else "thing").name[:15]
    put(root, f"/proc/{pid}/cmdline", "".join(f"{a}\0" for a in arguments))
    put(root, f"/proc/{pid}/comm", f"{comm}\n")
    put(root, f"/proc/{pid}/stat", f"{pid} ({comm}) {state} 1 1 1 0 -1 {flags} 0 0\n")
    put_thread(root, pid, pid, state)
    if exe:
        (root / f"proc/{pid}/exe").symlink_to(exe)
    return root / f"proc/{pid}"


def put_thread(root: Path, pid: int, thread: int, state: str, *arguments: str) -> None:
    put(root, f"/proc/{pid}/task/{thread}/stat", f"{thread} (worker) {state} 1 1 1 0 -1 0 0 0\n")
    put(root, f"/proc/{pid}/task/{thread}/cmdline", "".join(f"{a}\0" for a in arguments))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A host with one process that is neither QEMU nor libvirtd, and one local file system."""
    root = tmp_path / "host"
    put_process(root, 1, "/sbin/init")
    put(root, "/proc/sys/kernel/random/boot_id", f"{BOOT}\n")
    put(root, "/proc/self/mountinfo", "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n")
    put(root, "/proc/uptime", "1000.00 1.00\n")
    put(root, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    return Layout(root)


@pytest.fixture
def gate(layout: Layout) -> LibvirtGate:
    """Installed, with nobody protected."""
    gate = LibvirtGate(layout)
    gate.install()
    gate.protect({})
    return gate


NODE = f"""<node>
  <cpu><mhz>1000</mhz><model>x</model><active>16</active><nodes>1</nodes><sockets>1</sockets><cores>16</cores>
    <threads>1</threads></cpu>
  <memory>3145728</memory>
  <domain type='test'><name>test</name><uuid>{G}</uuid><memory>8388608</memory><vcpu>2</vcpu>
    <os><type arch='i686'>hvm</type></os>
    <devices>
      <disk type='file' device='disk'><source file='/guest/diskimage1'/><target dev='vda' bus='virtio'/></disk>
      <interface type='network'><source network='default'/></interface>
    </devices>
  </domain>
  <network><name>default</name><bridge name='virbr-test'/></network>
  <pool type='dir'><name>default-pool</name><target><path>/default-pool</path></target></pool>
</node>
"""


@pytest.fixture
async def mock(layout: Layout) -> AsyncIterator[LibvirtHypervisor]:
    """The mock driver with a pretended host of this test's own, on which one guest runs."""
    node = put(layout.root, "/node.xml", NODE)
    hypervisor = LibvirtHypervisor(f"test://{node}", layout=layout)
    yield hypervisor
    await hypervisor.close()
