"""What libvirtd's own file of an active domain tells (`/run/libvirt/qemu/NAME.xml`): what ties it here, its CPU.

libvirtd keeps it for its own restart. Reading it costs no call and waits for no QEMU: one that hangs must not hold up
the inventory. The file is libvirt's own business, so what cannot be read there is unknown, never absent; libvirt itself
looks again before it sends a guest. Seen with libvirt 9.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from dr.adapters.libvirt import cpus, ties
from dr.adapters.libvirt.cpus import Described
from dr.model.facts import Tie


class Running(NamedTuple):
    """Of one active domain; None where it cannot be told."""

    ties: tuple[Tie, ...] | None = None
    cpu: Described | None = None


def read(path: Path) -> Running:
    """By libvirt's file of it."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, ElementTree.ParseError):
        return Running()
    domain = root.find("domain")
    if root.tag != "domstatus" or domain is None:
        return Running()
    return Running(ties.of_running(root, domain), cpus.of_running(domain))
