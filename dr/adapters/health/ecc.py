"""Memory errors that the chipset counted (EDAC), one reading per controller. No EDAC driver, no reading."""

from __future__ import annotations

from pathlib import Path

from dr.adapters.health.files import number, text
from dr.model.facts import Level, Reading

CORRECTED_MAX = 1000  # since boot; a sound module has a few


def ecc(root: Path) -> tuple[Reading, ...]:
    """Raises OSError."""
    return tuple(_controller(mc) for mc in sorted((root / "sys/devices/system/edac/mc").glob("mc[0-9]*")))


def _controller(controller: Path) -> Reading:
    part = f"ecc:{controller.name}"
    uncorrected, corrected = number(controller / "ue_count") or 0, number(controller / "ce_count") or 0
    if uncorrected:
        return Reading(
            part=part,
            level=Level.CRITICAL,
            reason=f"{uncorrected} memory errors could not be corrected{_where(controller, 'ue')}: replace the module.",
        )
    if corrected > CORRECTED_MAX:
        return Reading(
            part=part,
            level=Level.WARN,
            reason=f"{corrected} memory errors were corrected{_where(controller, 'ce')}: a module is failing.",
        )
    return Reading(part=part, level=Level.OK)


def _where(controller: Path, kind: str) -> str:
    """The module with most errors, by the label that the firmware or an administrator gave it."""
    worst, label = 0, ""
    for module in (*controller.glob("dimm[0-9]*"), *controller.glob("rank[0-9]*")):
        count = number(module / f"dimm_{kind}_count") or 0
        if count > worst:
            worst, label = count, text(module / "dimm_label") or module.name
    return f" (most on {label})" if label else ""
