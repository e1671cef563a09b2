"""`ports.world.Fencer` through fence agents: read, off, on. Nothing here decides what a reading proves.

An agent says off by exit code 2 *and* "Status: OFF": python itself ends with 2 when it cannot open the script.
What cannot be told for sure is `unknown`, with a sentence.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
)

from dr.adapters.fencing import catalogue, identity, parameters, process
from dr.adapters.fencing.identity import Identity
from dr.model.evidence import DeviceReading, Power, PowerReport
from dr.model.policy import FenceDevice, FenceLevel

log = structlog.get_logger(__name__)
T = TypeVar("T")

READ_S = 5.0  # one device, power and identity, retry included; a real BMC takes 0.2 to 2 s, ipmi_sim 0.1
ON_S = 60.0  # a BMC whose outlet was just switched on needs most of it to start
READS_MAX = 16  # agents are python programs: reading hundreds of hosts at once would starve this one
RETRY_WAIT_S = 0.2
ROUND_WAIT_S = 1.0  # between two last readings, where a device that went off does not yet say so
ROUNDS_MAX = 3

# fence_ipmilan sleeps 2 s after each command and then reads the status; the status alone is proof enough.
DEFAULTS = {"fence_ipmilan": {"power_wait": "0"}, "fence_ipmilanplus": {"power_wait": "0"}}
_HINTS = (
    ("ipmitool not found", "run: apt install ipmitool"),
    ("unable to connect/login", "check the device's address, user name and password"),
    ("correct plug status", "check address, user name, password and plug, then run: dr fence list"),
)


@dataclass(frozen=True)
class _Told:
    """What one run of an agent told."""

    power: Power
    reason: str = ""
    transient: bool = False  # worth another try


@dataclass(frozen=True)
class _Switched:
    """How switching one device off went."""

    before: DeviceReading
    note: str
    said_off: bool = False  # the agent claims it, or it was off already


class FenceAgents:
    """Fence devices of all hosts. Stateless but for the bound on parallel reads; one per process."""

    def __init__(
        self,
        *,
        folders: tuple[Path, ...] = catalogue.AGENT_FOLDERS,
        read_s: float = READ_S,
        on_s: float = ON_S,
        reads_max: int = READS_MAX,
        ask: Callable[[FenceDevice, float], Awaitable[Identity]] = identity.ask,
    ) -> None:
        self._folders = folders
        self._read_s = read_s
        self._on_s = on_s
        self._reads = asyncio.Semaphore(reads_max)
        self._ask = ask

    def problem(self, device: FenceDevice) -> str:
        """Why this device cannot be used from this machine, with what to do; empty when it can. No I/O with it."""
        return catalogue.why_unusable(device.agent, self._folders) or parameters.problem(device)

    async def read(self, levels: tuple[FenceLevel, ...]) -> tuple[PowerReport, ...]:
        """Power and identity of every device, all in parallel, changing nothing."""
        return tuple(await asyncio.gather(*(self._read_bounded(n, level) for n, level in enumerate(levels))))

    async def off(self, level: int, devices: FenceLevel, timeout_s: float) -> PowerReport:
        """Read, switch off what is on, and after the last one went off read all of them again.

        Ends within `timeout_s` (+ process.END_S). The report is that of the last reading of all devices together.
        """
        until = time.monotonic() + timeout_s
        reserve_s = min(self._read_s, timeout_s / 3)
        switched = await asyncio.gather(
            *(self._switch_off(device, until - reserve_s) for device in devices.devices)
        )
        readings: list[DeviceReading] = []
        for last in range(ROUNDS_MAX):
            readings = await self._read_all(devices, until)
            late = any(_worth_another_look(s, r) for s, r in zip(switched, readings, strict=True))
            if not late or last == ROUNDS_MAX - 1 or until - time.monotonic() < ROUND_WAIT_S + reserve_s / 2:
                break
            await asyncio.sleep(ROUND_WAIT_S)
        judged = tuple(_judge(s, r) for s, r in zip(switched, readings, strict=True))
        report = PowerReport(level=level, readings=judged, reason=_summary(judged))
        log.info(
            "fence-off", level=level, devices=[f"{r.device}={r.power}" for r in judged], reason=report.reason
        )
        return report

    async def on(self, levels: tuple[FenceLevel, ...]) -> tuple[bool, str]:
        """Switch on every device of every level; (all are on, reason). Outlet and BMC alike: a BMC without power
        is asked again until its outlet gave it some.
        """
        until = time.monotonic() + self._on_s
        all_devices = [device for level in levels for device in level.devices]
        told = await asyncio.gather(*(self._switch_on(device, until) for device in all_devices))
        failed = [
            f"{device.name}: {t.reason}"
            for device, t in zip(all_devices, told, strict=True)
            if t.power is not Power.ON
        ]
        reason = "; ".join(failed) or f"switched on: {', '.join(d.name for d in all_devices) or 'no device'}"
        log.info("fence-on", devices=[device.name for device in all_devices], ok=not failed, reason=reason)
        return not failed and bool(all_devices), reason

    # --- one device ---

    async def _read_bounded(self, number: int, level: FenceLevel) -> PowerReport:
        readings = await asyncio.gather(*(self._read_in_turn(device) for device in level.devices))
        return PowerReport(level=number, readings=tuple(readings), reason=_summary(tuple(readings)))

    async def _read_in_turn(self, device: FenceDevice) -> DeviceReading:
        async with self._reads:
            return await self._read(device, time.monotonic() + self._read_s)

    async def _read_all(self, level: FenceLevel, until: float) -> list[DeviceReading]:
        until = min(until, time.monotonic() + self._read_s)
        return await asyncio.gather(*(self._read(device, until) for device in level.devices))

    async def _read(self, device: FenceDevice, until: float) -> DeviceReading:
        """Power and identity, at the same time."""
        if why := self.problem(device):
            told, who = _Told(Power.UNKNOWN, why), Identity()
        else:
            told, who = await asyncio.gather(
                _again(
                    lambda left_s: self._run(device, "status", left_s), lambda t: t.transient, until, tries=2
                ),
                _again(lambda left_s: self._who(device, left_s), lambda w: w.transient, until, tries=2),
            )
        return DeviceReading(
            device=device.name,
            power=told.power,
            guid=who.guid,
            fingerprint=parameters.fingerprint(device),
            reason="; ".join(filter(None, (told.reason, who.reason))),
        )

    async def _switch_off(self, device: FenceDevice, until: float) -> _Switched:
        before = await self._read(device, min(until, time.monotonic() + self._read_s))
        if before.power is Power.OFF:
            return _Switched(before, "was off already", said_off=True)
        if self.problem(device):
            return _Switched(before, "")
        # Unknown is tried too: it may have been one lost packet, and the last reading decides.
        began = time.monotonic()
        told = await _again(
            lambda left_s: self._run(device, "off", left_s), lambda t: t.transient, until, tries=3
        )
        took_s = time.monotonic() - began
        if told.power is Power.OFF:
            return _Switched(before, f"switched off in {took_s:.1f} s", said_off=True)
        return _Switched(before, f"switching off failed: {told.reason}")

    async def _switch_on(self, device: FenceDevice, until: float) -> _Told:
        if why := self.problem(device):
            return _Told(Power.UNKNOWN, why)
        return await _again(
            lambda left_s: self._run(device, "on", left_s), lambda t: t.transient, until, tries=20, wait_s=3.0
        )

    async def _who(self, device: FenceDevice, timeout_s: float) -> Identity:
        try:
            return await self._ask(device, timeout_s)
        except OSError as error:
            return Identity(reason=f"the device's identity was not read: {error.strerror or error}")

    async def _run(self, device: FenceDevice, action: str, timeout_s: float) -> _Told:
        """Run the agent once. Never raises for what the agent does."""
        path = catalogue.find(device.agent, self._folders)
        body = parameters.render(device, action, DEFAULTS.get(device.agent))
        if path is None:
            return _Told(Power.UNKNOWN, catalogue.why_unusable(device.agent, self._folders))
        try:
            done = await process.run((str(path),), body, timeout_s)
        except OSError as error:
            return _Told(
                Power.UNKNOWN, f"{device.agent} could not be started: {error.strerror or error}", True
            )
        told = understand(device, action, done, timeout_s)
        log.debug("fence-agent", device=device.name, action=action, code=done.code, power=told.power)
        return told


def understand(device: FenceDevice, action: str, done: process.Finished, timeout_s: float) -> _Told:
    """What an agent's end means. Off takes the exit code and the words."""
    agent = device.agent
    if done.code is None:
        return _Told(Power.UNKNOWN, f"{agent} gave no answer within {timeout_s:.1f} s and was killed")
    if action != "status" and done.code == 0:
        return _Told(Power(action))
    words = re.search(r"^Status: (ON|OFF)\s*$", done.out, re.MULTILINE | re.IGNORECASE)
    word = words[1].lower() if words else ""
    if action == "status" and done.code == 0 and word != "off":
        return _Told(Power.ON)
    if action == "status" and done.code == 2 and word == "off":
        return _Told(Power.OFF)
    said = parameters.Redactor(device).sentence(done.err) or parameters.Redactor(device).sentence(done.out)
    hint = next((hint for sign, hint in _HINTS if sign in said.lower()), "")
    if action == "status" and done.code in (0, 2):
        said = f"exit code {done.code} and {f'Status: {word.upper()}' if word else 'no status'} do not go together"
    ended = f"signal {done.code - 128}" if done.code > 128 else f"exit code {done.code}"
    reason = f"{agent} {action} failed ({ended}): {said or 'it said nothing'}" + (f"; {hint}" if hint else "")
    # A refused password is not tried again: some BMCs lock the user out.
    transient = "login" not in said.lower() and "you have to" not in said.lower()
    return _Told(Power.UNKNOWN, reason, transient)


def _worth_another_look(switched: _Switched, last: DeviceReading) -> bool:
    """It says that it is off, and the reading misses its power or the identity that it had before."""
    return switched.said_off and (last.power is not Power.OFF or bool(switched.before.guid and not last.guid))


def _judge(switched: _Switched, last: DeviceReading) -> DeviceReading:
    """The last reading, with the story of the device; unknown where the device changed its identity under way."""
    power, reasons = last.power, [switched.note, last.reason]
    if switched.said_off and power is Power.ON:
        reasons.append("it said that it is off, but the status read afterwards says on")
    if switched.before.guid and last.guid and switched.before.guid != last.guid:
        power = Power.UNKNOWN
        reasons.append(
            f"another device answered after the fence: GUID {last.guid} instead of {switched.before.guid}"
        )
    return DeviceReading(
        device=last.device,
        power=power,
        guid=last.guid,
        fingerprint=last.fingerprint,
        reason="; ".join(dict.fromkeys(filter(None, reasons))),
    )


def _summary(readings: tuple[DeviceReading, ...]) -> str:
    """One sentence for the level."""
    if not readings:
        return "the level has no fence device"
    if len({reading.power for reading in readings}) == 1 and readings[0].power is not Power.UNKNOWN:
        return f"{', '.join(reading.device for reading in readings)}: {readings[0].power}"
    return "; ".join(
        f"{reading.device}: {reading.power}" + (f" ({reading.reason})" if reading.reason else "")
        for reading in readings
    )


async def _again(
    once: Callable[[float], Awaitable[T]],
    failed: Callable[[T], bool],
    until: float,
    *,
    tries: int,
    wait_s: float | None = None,
) -> T:
    """Call `once(seconds left)` until it succeeds, at most `tries` times; its last result."""
    wait_s = RETRY_WAIT_S if wait_s is None else wait_s

    def last_result(state: RetryCallState) -> T:
        assert state.outcome is not None
        result: T = state.outcome.result()
        return result

    retrying = AsyncRetrying(
        stop=stop_after_attempt(tries) | stop_after_delay(max(0.0, until - time.monotonic() - wait_s)),
        wait=wait_fixed(wait_s),
        retry=retry_if_result(failed),
        reraise=True,
        retry_error_callback=last_result,
    )

    async def attempt() -> T:
        return await once(max(0.05, until - time.monotonic()))

    return await retrying(attempt)
