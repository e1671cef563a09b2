"""What a host is and has. Expensive answers of libvirt are kept for as long as the connection is the same one."""

from __future__ import annotations

import fcntl
import socket
import struct
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import libvirt

from dr.adapters.libvirt import cpus
from dr.adapters.libvirt.layout import Layout
from dr.model.facts import CpuOffer, PagePool

SIOCGIFADDR = 0x8915  # linux/sockios.h
NO_HIBERNATION = ("hibernate.target", "hybrid-sleep.target", "suspend-then-hibernate.target")


@dataclass(frozen=True)
class Capabilities:
    """What libvirt and QEMU on this host can do."""

    libvirt_version: str
    arch: str
    domain_types: tuple[str, ...]
    machines: tuple[str, ...]
    cpu_model: str
    cpu_offers: dict[str, CpuOffer]
    cpus: int
    memory_mib: int


@dataclass(frozen=True)
class Dynamic:
    """What of libvirt's own may change at any time."""

    networks: tuple[str, ...]
    pools: tuple[str, ...]


def capabilities(conn: Any) -> Capabilities:
    """Slow the first time after libvirtd's start (it asks each QEMU binary). Raises libvirt's error."""
    root = ElementTree.fromstring(conn.getCapabilities())
    host_arch = root.findtext("./host/cpu/arch") or ""
    guest = next((g for g in root.findall("guest") if _arch(g) == host_arch), root.find("guest"))
    kinds: list[str] = []
    machines: set[str] = set()
    if guest is not None:
        kinds = [str(domain.get("type")) for domain in guest.findall("./arch/domain")]
        for machine in guest.findall(".//machine"):
            machines |= {machine.text or "", machine.get("canonical", "")}
    _, memory_mib, processors, *_ = conn.getInfo()
    offers = {kind: cpus.offer(conn, host_arch, kind) for kind in sorted(kinds)}
    version = conn.getLibVersion()
    return Capabilities(
        libvirt_version=f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000}",
        arch=host_arch,
        domain_types=tuple(sorted(kinds)),
        machines=tuple(sorted(machines - {""})),
        cpu_model=next((each.model for each in offers.values() if each.model), "")
        or root.findtext("./host/cpu/model")
        or "",
        cpu_offers=offers,
        cpus=int(processors),
        memory_mib=int(memory_mib),
    )


def _arch(guest: ElementTree.Element) -> str:
    arch = guest.find("arch")
    return arch.get("name", "") if arch is not None else ""


def dynamic(conn: Any) -> Dynamic:
    """Active networks and pools. Raises libvirt's error."""
    networks = conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
    pools = conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    return Dynamic(
        networks=tuple(sorted(f"network:{network.name()}" for network in networks)),
        pools=tuple(sorted(f"pool:{pool.UUIDString()}" for pool in pools)),
    )


def boot_id(layout: Layout) -> str:
    """Raises OSError."""
    return (layout.proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def bridges(layout: Layout) -> tuple[str, ...]:
    """`bridge:NAME` of each Linux bridge."""
    return tuple(sorted(f"bridge:{path.parent.name}" for path in (layout.sys / "class/net").glob("*/bridge")))


def huge_pages(layout: Layout) -> tuple[PagePool, ...]:
    """Pools of huge pages, by size; which size is the default is in /proc/meminfo."""
    default = 0
    try:
        lines = (layout.proc / "meminfo").read_text(encoding="ascii").splitlines()
        default = next((int(line.split()[1]) for line in lines if line.startswith("Hugepagesize:")), 0)
    except OSError:
        pass  # then no size is the default, and only guests that name one fit
    pools = []
    for path in (layout.sys / "kernel/mm/hugepages").glob("hugepages-*kB"):
        size_kib = int(path.name.removeprefix("hugepages-").removesuffix("kB"))
        try:
            total, free = (
                int((path / f"{what}_hugepages").read_text(encoding="ascii")) for what in ("nr", "free")
            )
        except (OSError, ValueError):
            continue
        if total:
            pools.append(PagePool(size_kib=size_kib, total=total, free=free, default=size_kib == default))
    return tuple(sorted(pools, key=lambda pool: pool.size_kib))


def addresses(layout: Layout) -> dict[str, str]:
    """One address per interface: its IPv4 address, else its first global IPv6 address. Loopback is left out."""
    found = _ipv6(layout)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        for _, name in socket.if_nameindex():
            address = _ipv4(query, name)
            if address:
                found[name] = address
    return {name: address for name, address in sorted(found.items()) if name != "lo"}


def _ipv4(query: socket.socket, name: str) -> str:
    try:
        answer = fcntl.ioctl(query.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
    except OSError:
        return ""
    return socket.inet_ntoa(answer[20:24])


def _ipv6(layout: Layout) -> dict[str, str]:
    """/proc/net/if_inet6: address, index, prefix length, scope (00 is global), flags, name."""
    found: dict[str, str] = {}
    try:
        lines = (layout.proc / "net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:
        return found
    for line in lines:
        fields = line.split()
        if len(fields) == 6 and fields[3] == "00":
            found.setdefault(fields[5], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[0])))
    return found


def hibernation_masked(layout: Layout) -> bool:
    """Whether this host surely does not hibernate: the targets are masked, or there is nothing to hibernate with.

    A host that wakes from disk runs its guests again, with the same boot id, long after it was found off.
    """
    masks = (layout.at("/etc/systemd/system") / name for name in NO_HIBERNATION)
    if all(mask.is_symlink() and str(mask.readlink()) == "/dev/null" for mask in masks):
        return True
    try:
        if "disk" not in (layout.sys / "power/state").read_text(encoding="ascii").split():
            return True
        if "[disabled]" in (layout.sys / "power/disk").read_text(encoding="ascii"):
            return True
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        swaps = (layout.proc / "swaps").read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return False
    return not any("/zram" not in line for line in swaps if line.strip())
