"""What the kernel says of itself: an oops, a machine check, a lockup. It stays said until the next boot."""

from __future__ import annotations

from pathlib import Path

from dr.adapters.health.files import number
from dr.model.facts import Level, Reading

# Bits of /proc/sys/kernel/tainted (Documentation/admin-guide/tainted-kernels.rst), worst first.
TAINTS: tuple[tuple[int, Level, str], ...] = (
    (
        4,
        Level.CRITICAL,
        "the processor reported a machine check (hardware error): see `journalctl -k | grep -i mce`.",
    ),
    (
        7,
        Level.CRITICAL,
        "the kernel had an oops and may misbehave until it is rebooted: see `journalctl -k`.",
    ),
    (5, Level.WARN, "the kernel found a bad memory page: see `journalctl -k`."),
    (14, Level.WARN, "the kernel had a soft lockup: see `journalctl -k`."),
    (9, Level.WARN, "the kernel issued a warning: see `journalctl -k`."),
)


def kernel(root: Path) -> tuple[Reading, ...]:
    """Raises OSError."""
    tainted = number(root / "proc/sys/kernel/tainted") or 0
    for bit, level, reason in TAINTS:
        if tainted & 1 << bit:
            return (Reading(part="kernel", level=level, reason=reason),)
    return (Reading(part="kernel", level=Level.OK),)
