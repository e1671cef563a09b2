"""Commands in guests, as the agent of their host sees to them: begun once for an id, watched, told of again."""

from __future__ import annotations

import asyncio

import pytest

from dr.agent import execs
from dr.agent.execs import Insides
from dr.model.allowed import Report
from dr.model.base import changed
from dr.model.commands import RunInside
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown
from tests.agent.fakes import FakeInside

ORDER = RunInside(guest="g", name="db", argv=("/opt/flush", "now"), timeout_s=30.0, window_s=0.05)
WELL = Report(state="ended", code=0, output="flushed\n", bytes=8)


async def soon(_: float) -> None:
    await asyncio.sleep(0.001)


async def asked(insides: Insides, again: bool = False, **fields: object) -> Report:
    answer = await insides.run("command-1-1", changed(ORDER, again=again, **fields))
    assert answer.report is not None
    return answer.report


async def test_it_is_begun_once_and_told_to_all_who_ask() -> None:
    guest = FakeInside()
    insides = Insides(guest, sleep=soon)
    for report in await asyncio.gather(asked(insides), asked(insides, again=True)):
        assert report == Report(state="lost", reason="it is under way")
    guest.ends[1] = WELL
    assert await asked(insides, again=True) == WELL
    assert await asked(insides) == WELL
    assert guest.begun == [ORDER.argv]


async def test_what_another_process_of_ours_had_begun_is_unknown() -> None:
    guest = FakeInside()
    report = await asked(Insides(guest, sleep=soon), again=True)
    assert report.state == "unknown"
    assert guest.begun == []


@pytest.mark.parametrize(
    ("error", "state"), [(HypervisorError("no agent"), "refused"), (HypervisorUnknown("late"), "unknown")]
)
async def test_what_could_not_be_begun(error: Exception, state: str) -> None:
    guest = FakeInside()
    guest.begin_fails = error
    assert (await asked(Insides(guest, sleep=soon))).state == state


async def test_a_guest_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while that is nothing: it may be moving. Then what became of it is unknown."""
    guest = FakeInside()
    guest.silent = HypervisorUnknown("no answer")
    insides = Insides(guest, sleep=soon)
    assert (await asked(insides)).state == "lost"
    guest.silent = None
    guest.ends[1] = WELL
    assert await asked(insides) == WELL
    monkeypatch.setattr(execs, "SILENT_S", 0.01)
    guest.silent = HypervisorUnknown("no answer")
    gone = Insides(guest, sleep=soon)
    assert await asked(gone, window_s=2.0) == Report(state="unknown", reason="no answer")


async def test_what_does_not_end_is_not_watched_for_ever() -> None:
    report = await asked(Insides(FakeInside(), sleep=soon), timeout_s=0.02, window_s=2.0)
    assert report.state == "unknown"
    assert "may go on" in report.reason
