"""Free memory and memory pressure. Never critical: moving guests away needs memory too, and it passes."""

from __future__ import annotations

from pathlib import Path

from dr.adapters.health.files import pressure, text
from dr.model.facts import Level, Reading

AVAILABLE_PERCENT_MIN = 3.0
PRESSURE_PERCENT_MAX = 20.0  # of the last minute, all tasks at once waited for memory


def memory(root: Path) -> tuple[Reading, ...]:
    """Raises OSError."""
    values = {}
    for line in (text(root / "proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0])
    total, available = values.get("MemTotal", 0), values.get("MemAvailable", 0)
    if total and 100 * available / total < AVAILABLE_PERCENT_MIN:
        return (
            Reading(
                part="memory",
                level=Level.WARN,
                reason=f"only {available // 1024} of {total // 1024} MiB of memory are available.",
            ),
        )
    stalled = pressure(root, "memory", "full")
    if stalled is not None and stalled > PRESSURE_PERCENT_MAX:
        return (
            Reading(
                part="memory",
                level=Level.WARN,
                reason=f"everything waited for memory {stalled:.0f} % of the last minute.",
            ),
        )
    return (Reading(part="memory", level=Level.OK),)
