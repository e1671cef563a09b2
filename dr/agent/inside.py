"""Checks of a guest that only its host can make: its guest agent answers, its console shows something.

Here: trying again within the window, what a result says. Not here: how they are made (`dr.ports.hypervisor`), what
follows (`dr.core.checks`).
"""

from __future__ import annotations

import asyncio
import time

from dr.model.base import GuestId, changed
from dr.model.checks import PICTURE_MAX, Agent, CheckResult, Inside, bounded
from dr.model.commands import Answer, LookInside, Outcome
from dr.ports.hypervisor import Hypervisor, HypervisorError, HypervisorUnknown

AGAIN_S = 1.0  # between two tries of one check
TRY_LEAST_S = 1.0  # libvirt knows no shorter time for a guest's agent
BEYOND_S = 2.0  # a try that began within the window may end so long after it


async def look_inside(hypervisor: Hypervisor, body: LookInside) -> Answer:
    """All of them at the same time. Never raises for what the world does."""
    found = await asyncio.gather(
        *(_until(hypervisor, body.guest, each, body.window_s) for each in body.checks)
    )
    return Answer(outcome=Outcome.DONE, checks=tuple(found))


async def _until(hypervisor: Hypervisor, guest: GuestId, check: Inside, window_s: float) -> CheckResult:
    """Its last try."""
    until = time.monotonic() + window_s
    while True:
        began = time.monotonic()
        left_s = max(until - began, TRY_LEAST_S)
        try:
            async with asyncio.timeout(left_s + BEYOND_S):
                found = await _try(hypervisor, guest, check, left_s)
        except HypervisorError as error:
            found = CheckResult(check=check, passed=False, why=bounded(str(error)))
        except (HypervisorUnknown, TimeoutError) as error:
            why = bounded(str(error)) or "libvirt did not answer in time"
            found = CheckResult(check=check, passed=False, made=False, why=why)
        if found.passed or time.monotonic() + AGAIN_S >= until:
            return changed(found, took_s=time.monotonic() - began)
        await asyncio.sleep(AGAIN_S)


async def _try(hypervisor: Hypervisor, guest: GuestId, check: Inside, timeout_s: float) -> CheckResult:
    if isinstance(check, Agent):
        await hypervisor.agent_answers(guest, timeout_s)
        return CheckResult(check=check, passed=True, evidence="its agent answers")
    picture = await hypervisor.screenshot(guest)
    size = f"{picture.width} x {picture.height}"
    why = "its console has one colour only" if picture.plain else ""
    kept = len(picture.png) <= PICTURE_MAX
    evidence = f"a console of {size}" + ("" if kept else ", of which the picture is too large to be kept")
    png = picture.png if kept else b""
    return CheckResult(check=check, passed=not picture.plain, why=why, evidence=evidence, picture=png)
