"""CPU pressure. Never critical: a busy host is not a broken one."""

from __future__ import annotations

import os
from pathlib import Path

from dr.adapters.health.files import pressure, text
from dr.model.facts import Level, Reading

PRESSURE_PERCENT_MAX = 80.0
LOAD_PER_CPU_MAX = 4.0  # where the kernel has no PSI


def cpu(root: Path) -> tuple[Reading, ...]:
    """Raises OSError."""
    stalled = pressure(root, "cpu", "some")
    if stalled is None:
        load = float((text(root / "proc/loadavg") or "0 0 0").split()[1])
        cpus = os.cpu_count() or 1
        if load > LOAD_PER_CPU_MAX * cpus:
            return (Reading(part="cpu", level=Level.WARN, reason=f"the load is {load:.0f} on {cpus} CPUs."),)
    elif stalled > PRESSURE_PERCENT_MAX:
        return (
            Reading(
                part="cpu",
                level=Level.WARN,
                reason=f"tasks waited for a CPU {stalled:.0f} % of the last minute.",
            ),
        )
    return (Reading(part="cpu", level=Level.OK),)
