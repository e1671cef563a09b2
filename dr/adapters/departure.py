"""Whether this host goes down, as systemd says it, and holding that up. Without systemd nothing is known, nor held.

Files are looked at first, as they cost nothing: a scheduled shutdown, /run/nologin, which systemd makes as it begins
one, and the mark that dr-leave.service leaves. Only then, or when somebody has to know for sure, `systemctl` is asked.

It is held up by dr-leave.service, which is stopped before guests, libvirt and the network are: it waits until the
agent lets go of a lock. The kernel lets go of it if the agent dies. Not by an inhibitor of logind's: how long one may
delay is a setting for all of them, and libvirtd has one of its own for as long as any guest runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from dr.adapters.store.lock import Held, hold
from dr.model.wire import LeaveKind

log = logging.getLogger("dr.departure")

LEAD_S = 300.0  # a shutdown that is scheduled for later than this is not announced yet
ASK_S = 2.0
REBOOTS = ("reboot", "kexec", "soft-reboot")
SHUTDOWNS = ("poweroff", "halt", "shutdown")
LOCK = Path("dr/leave.lock")  # below /run: held while this host must not go down
MARK = Path("dr/leaving")  # dr-leave.service is being stopped, and the host with it
LOOK_S = 0.2

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
        self._lock: int | None = None
        self._trouble = ""

    async def kind(self, *, sure: bool = False) -> LeaveKind:
        """What has begun, or is about to; "" = it stays. `sure`: ask systemd although nothing hints at it."""
        if not (self._run / "systemd" / "system").is_dir():
            return ""
        scheduled = self._scheduled()
        if scheduled or not (sure or any((self._run / hint).exists() for hint in (MARK, "nologin"))):
            return scheduled
        return await self._begun()

    async def _begun(self) -> LeaveKind:
        if (await self._ask(("is-system-running",))).strip() != "stopping":
            return ""
        jobs = await self._ask(("list-jobs", "--no-legend", "--plain", "--no-pager"))
        starts = [line.split()[1] for line in jobs.splitlines() if line.split()[2:3] == ["start"]]
        return "reboot" if any(f"{each}.target" in starts for each in REBOOTS) else "shutdown"

    def hold(self, on: bool) -> None:
        """Take the lock, or let go of it."""
        if not on and self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if not on or self._lock is not None:
            return
        trouble = ""
        try:
            self._lock = hold(self._run / LOCK)
        except Held:
            trouble = "dr-leave.service has stopped waiting already"
        except OSError as error:
            trouble = str(error)
        if trouble and trouble != self._trouble:
            log.warning("a shutdown of this host cannot be held up: %s", trouble)
        self._trouble = trouble

    async def until_let_go(self) -> bool:
        """For dr-leave.service as it is stopped: returns when no agent holds this host any more; whether one did.

        At once where the host does not go down. Bounded by the agent, and by the unit. Raises OSError.
        """
        if not await self._begun():
            return False
        (self._run / MARK).parent.mkdir(mode=0o700, exist_ok=True)
        (self._run / MARK).touch()
        held = False
        while True:
            try:
                os.close(hold(self._run / LOCK))
            except Held:
                held = True
                await asyncio.sleep(LOOK_S)
            else:
                return held

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
