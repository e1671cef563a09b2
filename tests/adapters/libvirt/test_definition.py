"""Blockers: each kind of tie is found, and says what to do; NVRAM, digest, units."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from dr.adapters.libvirt import definition
from dr.adapters.libvirt.blockers import blockers
from dr.adapters.libvirt.digest import digest, nvram_path
from dr.adapters.libvirt.guests import memory_mib, networks, page_kib
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.mounts import mounts
from dr.adapters.libvirt.storage import Resolver
from tests.adapters.libvirt.conftest import put


def unread(path: str) -> str:
    """No file is read."""
    return ""


def domain(devices: str = "", rest: str = "") -> ElementTree.Element:
    return ElementTree.fromstring(f"<domain><name>web1</name>{rest}<devices>{devices}</devices></domain>")


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ("<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>", "virtual TPM"),
        ("<tpm model='tpm-crb'><backend type='passthrough'/></tpm>", "host's own TPM"),
        ("<hostdev mode='subsystem' type='pci'/>", "pci device"),
        ("<hostdev mode='subsystem' type='mdev'/>", "mdev device"),
        ("<interface type='hostdev'/>", "type hostdev"),
        ("<interface type='vhostuser'/>", "type vhostuser"),
        ("<filesystem type='mount'><source dir='/srv'/></filesystem>", "/srv of this host"),
        ("<serial type='dev'><source path='/dev/ttyS0'/></serial>", "/dev/ttyS0"),
        ("<shmem name='ivshmem'/>", "shares memory"),
        ("<memory model='nvdimm'/>", "nvdimm"),
        ("<input type='evdev'/>", "input device"),
        ("<disk><auth><secret uuid='u-1'/></auth><target dev='vda'/></disk>", "libvirt secret u-1"),
        (
            "<disk><source><encryption><secret uuid='u-2'/></encryption></source><target dev='vda'/></disk>",
            "u-2",
        ),
    ],
)
def test_each_tie_is_found(devices: str, says: str) -> None:
    (sentence,) = blockers(domain(devices))
    assert says in sentence
    assert sentence.endswith(".")
    assert ":" in sentence


def test_launch_security() -> None:
    assert blockers(domain(rest="<launchSecurity type='sev'/>"))


def test_a_plain_guest_is_free() -> None:
    devices = (
        "<interface type='bridge'><source bridge='br0'/></interface><serial type='pty'/><memballoon model='virtio'/>"
        "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng><graphics type='vnc'/>"
    )
    assert blockers(domain(devices)) == []


@pytest.mark.parametrize(("policy", "blocked"), [("", True), ("startupPolicy='optional'", False)])
def test_local_media(layout: Layout, policy: str, blocked: bool) -> None:
    put(layout.root, "/iso/a.iso", b"")
    root = domain(
        f"<disk type='file' device='cdrom'><source file='/iso/a.iso' {policy}/><target dev='sda'/></disk>"
    )
    identities, found, _ = definition._disks(Resolver(layout, mounts(layout), lambda *_: None, unread), root)
    assert identities == []
    assert bool(found) is blocked
    if blocked:
        assert "virsh change-media web1 sda --eject" in found[0]


NVRAM = "<os><nvram>/var/lib/libvirt/qemu/nvram/web1.fd</nvram></os>"


def carried(layout: Layout, xml: str = NVRAM) -> tuple[bytes, list[str]]:
    resolver = Resolver(layout, mounts(layout), lambda *_: None, unread)
    return definition._nvram(layout, domain(rest=xml), resolver, [])


def test_nvram_is_carried(layout: Layout) -> None:
    put(layout.root, "/var/lib/libvirt/qemu/nvram/web1.fd", b"vars")
    assert carried(layout) == (b"vars", [])


def test_nvram_on_shared_storage_stays_there(layout: Layout) -> None:
    put(layout.root, "/proc/self/mountinfo", "22 1 0:46 / / rw - nfs4 nas:/x rw,addr=10.0.0.9\n")
    put(layout.root, "/var/lib/libvirt/qemu/nvram/web1.fd", b"vars")
    assert carried(layout) == (b"", [])


def test_missing_and_oversized_nvram(layout: Layout) -> None:
    assert "is missing" in carried(layout)[1][0]
    put(layout.root, "/var/lib/libvirt/qemu/nvram/web1.fd", b"x" * (definition.NVRAM_BYTES_MAX + 1))
    assert "too big" in carried(layout)[1][0]
    assert carried(layout, "<os/>") == (b"", [])


@pytest.mark.parametrize(
    ("xml", "path"),
    [(NVRAM, "/var/lib/libvirt/qemu/nvram/web1.fd"), ("<os/>", ""), ("<os><nvram/></os>", ""),
     ("<os><nvram type='file'><source file='/a'/></nvram></os>", "/a"),
     ("<os><nvram type='network'><source protocol='nbd'/></nvram></os>", "")],
)  # fmt: skip
def test_nvram_path(xml: str, path: str) -> None:
    assert nvram_path(domain(rest=xml)) == path


def test_digest_ignores_spacing_and_sees_nvram() -> None:
    one, two = "<d a='1' b='2'>\n  <x/>\n</d>", '<d b="2" a="1"><x></x></d>'
    assert digest(one, b"") == digest(two, b"") != digest(one, b"n")
    assert digest(one, b"") != digest(one.replace("1", "3"), b"")


@pytest.mark.parametrize(
    ("memory", "mib"), [("<memory unit='KiB'>1025</memory>", 2), ("<memory>2048</memory>", 2),
                        ("<memory unit='GiB'>1</memory>", 1024), ("<memory unit='b'>1</memory>", 1)],
)  # fmt: skip
def test_memory(memory: str, mib: int) -> None:
    assert memory_mib(domain(rest=memory)) == mib


def test_huge_pages_under_the_memory() -> None:
    assert page_kib(domain(rest="")) is None
    assert page_kib(domain(rest="<memoryBacking><hugepages/></memoryBacking>")) == 0
    sized = "<memoryBacking><hugepages><page size='1048576' unit='KiB'/></hugepages></memoryBacking>"
    assert page_kib(domain(rest=sized)) == 1048576


def test_networks() -> None:
    found = networks(
        domain(
            "<interface type='network'><source network='default'/></interface>"
            "<interface type='bridge'><source bridge='br0'/></interface>"
            "<interface type='bridge'><source bridge='br0'/></interface><interface type='user'/>"
        )
    )
    assert found == ("bridge:br0", "network:default")
