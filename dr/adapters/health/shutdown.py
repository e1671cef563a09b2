"""Whether a shutdown of this host would wait for its guests to be moved away: dr-leave.service must stand by."""

from __future__ import annotations

from pathlib import Path

from dr.model.facts import Level, Reading

UNIT = "dr-leave.service"


def shutdown(root: Path) -> tuple[Reading, ...]:
    """Nothing where there is no systemd. It keeps a link for each unit that is active."""
    if not (root / "run/systemd/system").is_dir():
        return ()
    if (root / f"run/systemd/units/invocation:{UNIT}").is_symlink():
        return (Reading(part="shutdown", level=Level.OK),)
    reason = (
        f"{UNIT} is not active, so a shutdown or reboot would not wait for guests to be moved away. "
        f"Run: systemctl enable --now {UNIT.removesuffix('.service')}."
    )
    return (Reading(part="shutdown", level=Level.WARN, reason=reason),)
