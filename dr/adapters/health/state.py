"""The agent's own state folder: room, and how long a durable write takes. Without it no ticket can be run."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dr.model.facts import Level, Reading

FREE_MIB_MIN = 64
SLOW_S = 1.0


def state(folder: Path) -> tuple[Reading, ...]:
    """A durable write, tried."""
    began = time.monotonic()
    file = folder / f".dr-health-{os.getpid()}"
    try:
        room = os.statvfs(folder)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(handle, b"dr tests that its state can be written; safe to delete\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        file.unlink(missing_ok=True)
    except FileNotFoundError:  # as a host boots; the agent makes it when it writes, and tells if it cannot
        return (Reading(part="state", level=Level.WARN, reason=f"{folder} is not there (yet)."),)
    except OSError as error:
        reason = f"{folder} cannot be written ({error.strerror}), so this host can take no orders."
        return (Reading(part="state", level=Level.CRITICAL, reason=reason),)
    free_mib = room.f_bavail * room.f_frsize // 2**20
    took_s = time.monotonic() - began
    if free_mib < FREE_MIB_MIN:
        return (Reading(part="state", level=Level.WARN, reason=f"only {free_mib} MiB are free in {folder}."),)
    if took_s > SLOW_S:
        return (
            Reading(
                part="state", level=Level.WARN, reason=f"a durable write to {folder} took {took_s:.1f} s."
            ),
        )
    return (Reading(part="state", level=Level.OK),)
