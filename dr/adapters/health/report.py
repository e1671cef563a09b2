"""All parts together, each in a thread and with a time limit: one that hangs is a reading, not a silence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dr.adapters.health.clock import clock
from dr.adapters.health.cpu import cpu
from dr.adapters.health.disks import disks
from dr.adapters.health.ecc import ecc
from dr.adapters.health.kernel import kernel
from dr.adapters.health.memory import memory
from dr.adapters.health.shutdown import shutdown
from dr.adapters.health.state import state
from dr.adapters.health.trials import Ended, Hangs, Trials
from dr.model.facts import Level, Reading

Part = Callable[[], tuple[Reading, ...]]

PART_S = 2.0
HUNG_S = 10.0


def parts(root: Path, state_folder: Path) -> dict[str, Part]:
    """Every part of this host's report."""
    return {
        "memory": partial(memory, root),
        "cpu": partial(cpu, root),
        "ecc": partial(ecc, root),
        "disk": partial(disks, root),
        "kernel": partial(kernel, root),
        "clock": clock,
        "shutdown": partial(shutdown, root),
        "state": partial(state, state_folder),
    }


class HostReport:
    """`ports.hypervisor.HostHealth` of a Debian host. `root` and `state_folder` are elsewhere in tests."""

    def __init__(
        self,
        root: Path = Path("/"),
        state_folder: Path = Path("/var/lib/dr/agent"),
        *,
        part_timeout_s: float = PART_S,
        only: dict[str, Part] | None = None,
    ) -> None:
        self._parts = parts(root, state_folder) if only is None else only
        self._part_timeout_s = part_timeout_s
        self._trials: Trials[tuple[Reading, ...]] = Trials()

    async def health(self) -> tuple[Reading, ...]:
        """Readings of all parts, in a steady order. Takes at most the time limit of one; never raises."""
        ends = await self._trials.run(self._parts, self._part_timeout_s)
        return tuple(reading for name, end in ends.items() for reading in _readings(name, end))


def _readings(name: str, end: Ended[tuple[Reading, ...]] | Hangs) -> tuple[Reading, ...]:
    if isinstance(end, Hangs):
        level = Level.CRITICAL if end.for_s >= HUNG_S else Level.WARN
        return (Reading(part=name, level=level, reason=f"looking at {name} has hung for {end.for_s:.0f} s."),)
    if end.value is None:
        return (Reading(part=name, level=Level.WARN, reason=f"{name} could not be read: {end.error}."),)
    return end.value
