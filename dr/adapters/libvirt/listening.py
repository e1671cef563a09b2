"""Whether other hosts can reach this host's libvirtd, as far as this host can say: something listens where they knock.

Each host can tell this of itself at no cost, where asking every host about every other would not scale. That a firewall
lets them through is found when one knocks (`way`), before anything is sent.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from dr.adapters.libvirt.layout import Layout
from dr.model.facts import Level, Reading

LISTEN = "0A"  # net/tcp_states.h


def migration_reading(layout: Layout, port: int) -> Reading:
    """`port`: where other hosts' `migration_uri` leads, if it is like this host's."""
    try:
        listens = port in set(_open_ports(layout))
    except (OSError, ValueError, IndexError):
        listens = True  # nobody is alarmed of what cannot be read
    if listens:
        return Reading(part="migration", level=Level.OK)
    why = (
        f"nothing listens on port {port}, where other hosts' migration_uri leads if it is like this host's: guests"
        " cannot come here live (with TLS: systemctl enable --now libvirtd-tls.socket)"
    )
    return Reading(part="migration", level=Level.WARN, reason=why)


def address_reading(address: str) -> Reading:
    """`address`: this host's `migration_address`. Of a name nothing is said: asking for it may take long."""
    part = "migration:address"
    try:
        found = ip_address(address)
    except ValueError:
        return Reading(part=part, level=Level.OK)
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as tried:
        try:
            tried.bind((address, 0))
        except OSError as error:
            why = (
                f"migration_address {address} is no address of this host now ({error.strerror}): guests cannot come"
                " here live (see /etc/dr/agent.yaml)"
            )
            return Reading(part=part, level=Level.WARN, reason=why)
    return Reading(part=part, level=Level.OK)


def _open_ports(layout: Layout) -> Iterator[int]:
    """On addresses that others reach. /proc/net/tcp: number, local address and port, remote ones, state, …"""
    for path in (layout.proc / "net/tcp", layout.proc / "net/tcp6"):
        if path.name == "tcp6" and not path.exists():
            continue  # a kernel without IPv6
        for line in path.read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == LISTEN and not _is_loopback(address):
                yield int(port, 16)


def _is_loopback(address: str) -> bool:
    """The kernel writes each four bytes of an address as a number of its own byte order."""
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if len(packed) == 4:
        return IPv4Address(packed).is_loopback
    found = IPv6Address(packed)
    return (found.ipv4_mapped or found).is_loopback
