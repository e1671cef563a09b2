"""The coordinator's other ways into the world: fence devices, probes, people."""

from __future__ import annotations

from typing import Protocol

from dr.model.allowed import Report
from dr.model.checks import CheckResult, Reached
from dr.model.effects import RunCommand
from dr.model.evidence import PowerReport
from dr.model.policy import FenceLevel
from dr.model.records import Alert
from dr.model.wire import LeaveKind


class Fencer(Protocol):
    """Fence devices. No method raises for a device's failure: it is in the report."""

    async def read(self, levels: tuple[FenceLevel, ...]) -> tuple[PowerReport, ...]:
        """Power and identity of every device, all in parallel, changing nothing."""

    async def off(self, level: int, devices: FenceLevel, timeout_s: float) -> PowerReport:
        """Read, switch off what is on, and after the last one went off read all of them again."""

    async def on(self, levels: tuple[FenceLevel, ...]) -> tuple[bool, str]:
        """Switch on; (ok, reason)."""


class Prober(Protocol):
    """Looks for a host."""

    async def probe(self, addresses: tuple[str, ...], window_s: float) -> dict[str, bool]:
        """ICMP echo, several within the window, and TCP connect (a refused connection is an answer too)."""


class Departure(Protocol):
    """Whether the host that we run on goes down."""

    async def kind(self, *, sure: bool = False) -> LeaveKind:
        """What has begun; "" = it stays, or nobody knows. Cheap, unless it is to be `sure`. Never raises."""

    def hold(self, on: bool) -> None:
        """Keep it from going further, now or once it begins; or let it go on. Never raises. Ends with this process."""


class Checker(Protocol):
    """Checks over the network whether guests do their work."""

    async def check(self, checks: tuple[Reached, ...], window_s: float) -> tuple[CheckResult, ...]:
        """One result each, in their order; each is tried until it passes, or the window is over. Never raises."""


class Runner(Protocol):
    """Runs commands on hosts."""

    async def run(self, command: RunCommand) -> Report:
        """Once for its id, in that boot of the host; asked again, what came of it. Bounded in time; never raises."""


class Notifier(Protocol):
    """Tells people; retries by itself; never raises."""

    async def send(self, alert: Alert, cleared: bool) -> None: ...
