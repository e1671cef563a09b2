"""The host's own disks: errors, RAID arrays that lost a member, NVMe controllers, a root that went read-only."""

from __future__ import annotations

import re
from pathlib import Path

from dr.adapters.health.files import number, text
from dr.model.facts import Level, Reading

# Since boot. The kernel counts harmless refusals of optional commands here too, a few dozen on a sound disk.
ERRORS_MAX = 200


def disks(root: Path) -> tuple[Reading, ...]:
    """Raises OSError."""
    return (*_root(root), *_errors(root), *_arrays(root), *_nvme(root))


def _root(root: Path) -> tuple[Reading, ...]:
    for line in (text(root / "proc/self/mounts") or "").splitlines():
        fields = line.split()
        if (
            len(fields) >= 4
            and fields[1] == "/"
            and fields[2] not in ("rootfs", "squashfs", "erofs", "iso9660")
        ):
            if "ro" in fields[3].split(","):
                return (
                    Reading(
                        part="disk:root",
                        level=Level.CRITICAL,
                        reason=f"the root file system ({fields[0]}) is read-only, as after an error: see `dmesg`.",
                    ),
                )
            return (Reading(part="disk:root", level=Level.OK),)
    return ()


def _errors(root: Path) -> tuple[Reading, ...]:
    found = []
    for path in sorted((root / "sys/block").glob("*/device/ioerr_cnt")):
        name, count = path.parent.parent.name, number(path) or 0
        if count > ERRORS_MAX:
            found.append(
                Reading(
                    part=f"disk:{name}",
                    level=Level.WARN,
                    reason=f"{count} I/O errors since boot: look at `smartctl -a /dev/{name}`.",
                )
            )
        else:
            found.append(Reading(part=f"disk:{name}", level=Level.OK))
    return tuple(found)


def _arrays(root: Path) -> tuple[Reading, ...]:
    """/proc/mdstat: `md0 : active raid1 …`, then on the next line `… [2/1] [U_]`."""
    found = []
    name, line_of = "", ""
    for line in (text(root / "proc/mdstat") or "").splitlines():
        header = re.match(r"(md\w+) : (.*)", line)
        if header:
            name, line_of = header[1], header[2]
            if line_of.startswith("inactive"):
                found.append(_array(name, Level.WARN, "is not active"))
            continue
        members = re.search(r"\[(\d+)/(\d+)\] \[[U_]+\]", line)
        if members and name:
            want, have = int(members[1]), int(members[2])
            if have < want:
                found.append(_array(name, Level.WARN, f"runs with {have} of {want} disks"))
            elif "(F)" in line_of:
                found.append(_array(name, Level.WARN, "has a failed disk"))
            else:
                found.append(Reading(part=f"raid:{name}", level=Level.OK))
            name = ""
    return tuple(found)


def _array(name: str, level: Level, what: str) -> Reading:
    return Reading(
        part=f"raid:{name}",
        level=level,
        reason=f"RAID array {name} {what}: see `mdadm --detail /dev/{name}`.",
    )


def _nvme(root: Path) -> tuple[Reading, ...]:
    found = []
    for path in sorted((root / "sys/class/nvme").glob("*/state")):
        state, name = text(path) or "", path.parent.name
        bad = state in ("dead", "deleting", "deleting (no IO)")
        reason = f"NVMe controller {name} is {state}." if bad else ""
        found.append(Reading(part=f"disk:{name}", level=Level.CRITICAL if bad else Level.OK, reason=reason))
    return tuple(found)
