"""How much of a running domain's memory its host really holds: about what a live migration would send.

Read from /proc by the pid that libvirt noted for each QEMU, as it costs no call and waits for no QEMU (libvirt's own
`rss` asks its monitor beside it). QEMU's own needs are in it too, some tens of MiB, and pages that are all zero and
cost nothing to send: it is an upper bound for a forecast, never more than the guest's maximum.
"""

from __future__ import annotations

from pathlib import Path

from dr.adapters.libvirt.layout import Layout

STEP_MIB = 64  # or a 64th of its maximum: a guest that does its work is not told anew with every look
STEPS = 64
HELD = ("RssAnon:", "RssShmem:", "VmSwap:", "HugetlbPages:")  # swapped pages are sent as well


def resident_mib(layout: Layout, name: str, maximum_mib: int, before_mib: int = 0) -> int:
    """Of an active domain, rounded up; 0 where it cannot be told. `before_mib`: what was told of it last."""
    pid = _text(layout.running / f"{name}.pid").strip()
    kib = _held_kib(_text(layout.proc / pid / "status")) if pid.isdigit() else 0
    if not kib or not maximum_mib:
        return 0
    step = max(STEP_MIB, maximum_mib // STEPS)
    # What lies within two steps below what was told is not told anew: at a boundary it would come and go.
    if before_mib - 2 * step < kib / 1024 <= before_mib:
        return before_mib
    return min(step * -(-kib // (1024 * step)), maximum_mib)


def _held_kib(status: str) -> int:
    """Of `/proc/PID/status`: what the process has in memory of its own, shared or huge, or swapped out."""
    fields = (line.split() for line in status.splitlines())
    return sum(int(each[1]) for each in fields if len(each) > 1 and each[0] in HELD)


def _text(path: Path) -> str:
    """Empty where it cannot be read: the domain has just ended, or its driver is another one."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
