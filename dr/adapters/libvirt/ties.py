"""What keeps a domain on this host as it is now: snapshots, block jobs, backups, and devices of the running domain.

From libvirtd's own file of it (`running`): no other place tells of all block jobs without asking QEMU.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from dr.adapters.libvirt.blockers import findings
from dr.model.facts import Tie, TieKind


def of_running(root: Element, domain: Element) -> tuple[Tie, ...] | None:
    """Of an active domain; None where libvirt's file does not tell."""
    if root.find("blockjobs") is None:
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
