"""The report: a part that hangs or fails is a reading of its own, and the others are not held up."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from dr.adapters.health import report
from dr.adapters.health.report import HostReport
from dr.adapters.health.trials import Ended, Hangs, Trials
from dr.model.facts import Level, Reading
from dr.ports.hypervisor import HostHealth


def fine() -> tuple[Reading, ...]:
    return (Reading(part="fine", level=Level.OK),)


async def test_a_part_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "HUNG_S", 1.5)
    end = threading.Event()

    def hang() -> tuple[Reading, ...]:
        end.wait(10)
        return (Reading(part="disk", level=Level.OK),)

    host: HostHealth = HostReport(only={"disk": hang, "fine": fine}, part_timeout_s=0.3)
    first = {reading.part: reading for reading in await host.health()}
    assert (first["disk"].level, first["fine"].level) == (Level.WARN, Level.OK)
    await asyncio.sleep(1.5)
    again = {reading.part: reading for reading in await host.health()}
    assert again["disk"].level is Level.CRITICAL
    assert "has hung for" in again["disk"].reason
    assert sum(thread.name == "look: disk" for thread in threading.enumerate()) == 1
    end.set()
    for thread in threading.enumerate():
        if thread.name == "look: disk":
            thread.join(1)
    assert {reading.level for reading in await host.health()} == {Level.OK}


async def test_a_part_that_fails() -> None:
    def fail() -> tuple[Reading, ...]:
        raise PermissionError(13, "Permission denied")

    readings = await HostReport(only={"ecc": fail, "fine": fine}).health()
    assert [(reading.part, reading.level) for reading in readings] == [
        ("ecc", Level.WARN),
        ("fine", Level.OK),
    ]
    assert "Permission denied" in readings[0].reason


async def test_this_machine(tmp_path: Path) -> None:
    readings = await HostReport(state_folder=tmp_path).health()
    assert {"memory", "cpu", "kernel", "clock", "state"} <= {reading.part for reading in readings}


async def test_trials_without_jobs() -> None:
    trials: Trials[int] = Trials()
    assert await trials.run({}, 1.0) == {}
    ended = (await trials.run({"a": lambda: 7}, 5.0))["a"]
    assert isinstance(ended, Ended)
    assert ended.value == 7
    assert not isinstance(ended, Hangs)
