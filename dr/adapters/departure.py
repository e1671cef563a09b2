"""Whether this host goes down, as systemd says it. Where there is no systemd nothing is known, and nothing announced.

Files are looked at first, as they cost nothing: a scheduled shutdown, and /run/nologin, which systemd makes as it
begins one. Only then, or when somebody has to know for sure, `systemctl` is asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from dr.model.wire import LeaveKind

log = logging.getLogger("dr.departure")

LEAD_S = 300.0  # a shutdown that is scheduled for later than this is not announced yet
ASK_S = 2.0
REBOOTS = ("reboot", "kexec", "soft-reboot")
SHUTDOWNS = ("poweroff", "halt", "shutdown")

Ask = Callable[[tuple[str, ...]], Awaitable[str]]


async def systemctl(arguments: tuple[str, ...]) -> str:
    """What it prints; "" when it cannot be asked in time. Its exit code says nothing that its words do not."""
    try:
        process = await asyncio.create_subprocess_exec(
            "systemctl", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(ASK_S):
            out, _ = await process.communicate()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return ""
    return out.decode(errors="replace")


class SystemdDeparture:
    """Reads it from /run and from systemctl."""

    def __init__(
        self,
        run: Path = Path("/run"),
        *,
        ask: Ask = systemctl,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._ask = ask
        self._wall = wall

    async def kind(self, *, sure: bool = False) -> LeaveKind:
        """What has begun, or is about to; "" = it stays. `sure`: ask systemd although nothing hints at it."""
        if not (self._run / "systemd" / "system").is_dir():
            return ""
        scheduled = self._scheduled()
        if scheduled or not (sure or (self._run / "nologin").exists()):
            return scheduled
        if (await self._ask(("is-system-running",))).strip() != "stopping":
            return ""
        jobs = await self._ask(("list-jobs", "--no-legend", "--plain", "--no-pager"))
        starts = [line.split()[1] for line in jobs.splitlines() if line.split()[2:3] == ["start"]]
        return "reboot" if any(f"{each}.target" in starts for each in REBOOTS) else "shutdown"

    def _scheduled(self) -> LeaveKind:
        """`shutdown -r +1` and the like."""
        try:
            text = (self._run / "systemd" / "shutdown" / "scheduled").read_text()
        except OSError:
            return ""
        lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        usec, mode = lines.get("USEC", ""), lines.get("MODE", "")
        if not usec.isdigit() or int(usec) / 1e6 - self._wall() > LEAD_S:
            return ""
        return "reboot" if mode in REBOOTS else "shutdown" if mode in SHUTDOWNS else ""
