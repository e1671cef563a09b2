"""The way from one host's libvirtd to another's: `migration_uri`, and the address by which it leads there now.

Nothing of libvirt is imported here: the agent's file is checked where there may be none.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from dr.model.base import HostName
from dr.ports.hypervisor import HypervisorError

PORTS = {"tls": 16514, "tcp": 16509, "ssh": 22}  # of libvirtd, by the transport in its URI
KNOCK_S = 2.0  # an address that does not take a connection for so long is not used


def why_not(uri: str) -> str:
    """Why this is no `migration_uri`; empty if it is one."""
    try:
        parts = urlsplit(uri.format(address="192.0.2.1", host="h1"))
        port = port_of(uri)
    except (KeyError, IndexError, ValueError):
        return "may hold {address} and {host} and nothing else in braces"
    if "{address}" not in uri and "{host}" not in uri:
        return "must hold {address} or {host}, where the other host's goes"
    if not parts.scheme.startswith("qemu+") or not port:
        return f"must begin with qemu+{', qemu+'.join(PORTS)}"
    return ""


def is_address(text: str) -> bool:
    """Whether this is an IP address, or could be a host's name."""
    try:
        ip_address(text)
    except ValueError:
        return re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", text) is not None
    return True


def port_of(uri: str) -> int:
    """Where libvirtd takes connections on the hosts to which this `migration_uri` leads."""
    return _port(uri.format(address="192.0.2.1", host="h1"))


def _port(uri: str) -> int:
    parts = urlsplit(uri)
    return parts.port or PORTS.get(parts.scheme.partition("+")[2], 0)


def way_to(uri: str, to: HostName, addresses: Sequence[str]) -> str:
    """libvirt's URI of the other host, by the first of its addresses where its libvirtd takes connections.

    Raises HypervisorError when none does.
    """
    if "{address}" not in uri:
        return uri.format(host=to)
    tried = []
    for address in addresses:
        candidate = uri.format(address=f"[{address}]" if ":" in address else address, host=to)
        try:
            with socket.create_connection((address, _port(candidate)), KNOCK_S):
                return candidate
        except OSError as error:
            tried.append(f"{address} port {_port(candidate)}: {error.strerror or error}")
    why = "; ".join(tried) or "no address of it is known"
    raise HypervisorError(
        f"libvirtd on {to} takes no connection from here ({why}): see migration_uri in /etc/dr/agent.yaml, and whether"
        f" libvirtd listens on {to}"
    )
