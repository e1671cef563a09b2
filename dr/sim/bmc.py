"""Fence devices, simulated: BMCs and power outlets that work, are dead, hang, lie, or belong to another machine.

Here: what devices do and say. Not here: whether they are believed (`dr.core.fencing`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dr.model.base import HostName
from dr.model.evidence import DeviceReading, Power, PowerReport
from dr.model.policy import FenceLevel
from dr.sim.clock import Action

if TYPE_CHECKING:
    from dr.sim.host import SimHost
    from dr.sim.world import World

NO_ANSWER_S = 1.0
HANG_S = 8.0


@dataclass
class Device:
    """One fence device. `switch`: "chassis", or the number of an outlet."""

    name: str
    host: HostName
    switch: str = "chassis"
    fault: str = ""  # "dead", "hang", "says_off" (whatever is), "deaf" (off succeeds and does nothing)
    acts_on: HostName = ""  # swapped cables: it answers for this host instead, and shows that one's GUID
    switched_off: bool = False  # what a deaf device believes
    serial: int = 0  # of the BMC itself: another one was built in
    showed: HostName = ""  # whose GUID it showed in the last reading that a coordinator got
    showed_at: float = 0.0
    misled: bool = False  # its last reading said off of a machine of its own that had power

    @property
    def guid(self) -> str:
        return f"guid-{self.acts_on or self.host}-{self.switch}" + (f"-{self.serial}" if self.serial else "")

    @property
    def lies(self) -> bool:
        """Whether what it says or does may differ from what is."""
        return self.fault in ("deaf", "says_off")


class Fencer:
    """`dr.ports.world.Fencer`, with callbacks instead of awaits. `alive`: does the asking process still run?"""

    def __init__(self, world: World) -> None:
        self._world = world
        self.devices: dict[str, Device] = {}
        self.reachable = True  # the coordinator's way to the management network of BMCs

    def add(self, name: str, host: HostName, switch: str = "chassis") -> None:
        self.devices[name] = Device(name, host, switch)

    def read(
        self,
        levels: tuple[FenceLevel, ...],
        alive: Callable[[], bool],
        told: Callable[[tuple[PowerReport, ...]], None],
    ) -> None:
        names = [[device.name for device in level.devices] for level in levels]
        wait_s = max([self._wait_s(name) for level in names for name in level], default=0.1)

        def look() -> None:
            reports = tuple(
                PowerReport(level=number, readings=tuple(self._reading(name) for name in level))
                for number, level in enumerate(names)
            )
            if alive():
                told(reports)

        self._world.clock.after(wait_s, look)

    def heard_of(self, reports: tuple[PowerReport, ...]) -> None:
        """A coordinator got these readings: from now on it could know whose machine each device switches."""
        for reading in (reading for report in reports for reading in report.readings if reading.guid):
            device = self.devices[reading.device]
            device.showed, device.showed_at = reading.guid.split("-")[1], self._world.clock.now

    def off(
        self,
        level: int,
        devices: FenceLevel,
        timeout_s: float,
        alive: Callable[[], bool],
        told: Callable[[PowerReport], None],
    ) -> None:
        names = [device.name for device in devices.devices]
        rng = self._world.rng
        wait_s = 0.0
        for name in names:
            delay_s = min(self._wait_s(name) + rng.uniform(0.1, 0.6), timeout_s)
            wait_s = max(wait_s, delay_s)
            self._world.clock.after(delay_s, self._switch(name, False, alive))

        def look() -> None:
            if alive():
                told(PowerReport(level=level, readings=tuple(self._reading(name) for name in names)))

        self._world.clock.after(wait_s + rng.uniform(0.05, 0.3), look)

    def on(
        self, levels: tuple[FenceLevel, ...], alive: Callable[[], bool], told: Callable[[bool, str], None]
    ) -> None:
        names = [device.name for level in levels for device in level.devices]
        for name in names:
            self._world.clock.after(0.2, self._switch(name, True, alive))

        def look() -> None:
            if alive():
                failed = [n for n in names if self._reading(n).power is not Power.ON]
                told(not failed and bool(names), f"no power from {', '.join(failed)}" if failed else "")

        self._world.clock.after(0.6, look)

    def says_on(self, host: HostName) -> bool:
        """Whether a device that was wired for this host says that it has power."""
        return any(self._reading(d.name).power is Power.ON for d in self.devices.values() if d.host == host)

    def _answers(self, device: Device) -> bool:
        host = self._host(device)
        fed = device.switch != "chassis" or (any(host.outlets_on) and host.name not in self._world.scrapped)
        return self.reachable and device.fault not in ("dead", "hang") and fed

    def _host(self, device: Device) -> SimHost:
        return self._world.hosts[device.acts_on or device.host]

    def _wait_s(self, name: str) -> float:
        device = self.devices[name]
        if device.fault == "hang":
            return HANG_S
        return self._world.rng.uniform(0.05, 0.3) if self._answers(device) else NO_ANSWER_S

    def _is_on(self, device: Device) -> bool:
        host = self._host(device)
        return host.chassis_on if device.switch == "chassis" else host.outlets_on[int(device.switch)]

    def _reading(self, name: str) -> DeviceReading:
        device = self.devices[name]
        if not self._answers(device):
            return DeviceReading(
                device=name, power=Power.UNKNOWN, reason="no answer", fingerprint=f"fp-{name}"
            )
        off = not self._is_on(device) or device.fault == "says_off"
        off = off or (device.fault == "deaf" and device.switched_off)
        device.misled = off and self._is_on(device) and not device.acts_on
        power = Power.OFF if off else Power.ON
        return DeviceReading(device=name, power=power, guid=device.guid, fingerprint=f"fp-{name}")

    def _switch(self, name: str, on: bool, alive: Callable[[], bool]) -> Action:
        def act() -> None:
            device = self.devices[name]
            if not alive() or not self._answers(device):
                return
            device.switched_off = not on
            if device.lies:
                return
            host = self._host(device)
            if not on:
                self._world.truth.switched_off(device)
            if device.switch == "chassis":
                host.chassis_on = on
            else:
                host.outlets_on[int(device.switch)] = on
            host.power_changed(f"{name} switched {'on' if on else 'off'}")

        return act
