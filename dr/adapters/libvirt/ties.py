"""What keeps a domain on this host as it is now: snapshots, block jobs, backups, and devices of the running domain.

Read from the file in which libvirtd keeps each active domain for its own restart (`/run/libvirt/qemu/NAME.xml`), as it
costs no call and waits for no QEMU: no other place tells of all block jobs without asking QEMU, and one that hangs must
not hold up the inventory. The file is libvirt's own business, so what cannot be read there is unknown, never absent;
libvirt itself looks again before it sends a guest. Seen with libvirt 9.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from dr.adapters.libvirt.blockers import findings
from dr.model.facts import Tie, TieKind


def of_running(path: Path) -> tuple[Tie, ...] | None:
    """Of an active domain, by libvirt's file of it; None where it does not tell."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, ElementTree.ParseError):
        return None
    domain = root.find("domain")
    if root.tag != "domstatus" or domain is None or root.find("blockjobs") is None:
        return None
    return tuple(dict.fromkeys([*_jobs(root), *findings(domain)]))


def _jobs(root: Element) -> Iterator[Tie]:
    """A backup is a job of each of its disks too, and is told once."""
    if root.find("./backups/domainbackup") is not None:
        yield Tie(kind=TieKind.BACKUP)
    jobs = root.findall("./blockjobs/blockjob")
    for job in jobs:
        disk = job.find("disk")
        if job.get("type") != "backup":
            yield Tie(kind=TieKind.BLOCK_JOB, what=disk.get("dst", "?") if disk is not None else "?")
    if not jobs and root.find("blockjobs[@active='yes']") is not None:
        yield Tie(kind=TieKind.BLOCK_JOB, what="?")
