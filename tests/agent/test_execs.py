"""Commands in guests, as the agent of their host sees to them: begun once for an id, watched, told of again."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from dr.agent import execs
from dr.agent.execs import Insides
from dr.agent.journal import Journal, StateTrouble
from dr.model.allowed import Report
from dr.model.base import changed
from dr.model.commands import RunInside
from dr.model.memory import AgentMemory
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown
from tests.agent.fakes import FakeInside

ORDER = RunInside(
    guest="g", name="db", argv=("/opt/flush", "now"), timeout_s=30.0, window_s=0.05, process="p1"
)
WELL = Report(state="ended", code=0, output="flushed\n", bytes=8)


class Memory:
    """Of the agent: the parts of `dr.agent.journal.Journal` that are used."""

    def __init__(self, memory: AgentMemory) -> None:
        self.memory = memory
        self.saved: list[AgentMemory] = []
        self.trouble: Exception | None = None

    def put(self, memory: AgentMemory) -> None:
        self.memory = memory

    async def save(self) -> None:
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble
        self.saved.append(self.memory)


def insides_of(guest: FakeInside, journal: Memory | None = None, begun: tuple[str, ...] = ()) -> Insides:
    """In the process p1."""
    journal = journal or Memory(AgentMemory(processes=("p0", "p1"), begun=begun))
    return Insides(guest, cast(Journal, journal), sleep=soon)


async def soon(_: float) -> None:
    await asyncio.sleep(0.001)


async def asked(insides: Insides, **fields: object) -> Report:
    answer = await insides.run("command-1-1", changed(ORDER, **fields))
    assert answer.report is not None
    return answer.report


async def test_it_is_begun_once_and_told_to_all_who_ask() -> None:
    guest = FakeInside()
    insides = insides_of(guest)
    for report in await asyncio.gather(asked(insides), asked(insides)):
        assert report == Report(state="lost", reason="it is under way")
    guest.ends[1] = WELL
    assert await asked(insides) == WELL
    assert await asked(insides) == WELL
    assert guest.begun == [ORDER.argv]


async def test_what_another_process_of_ours_had_begun_is_unknown() -> None:
    guest = FakeInside()
    report = await asked(insides_of(guest, begun=("command-1-1",)))
    assert report.state == "unknown"
    assert guest.begun == []


@pytest.mark.parametrize(
    ("error", "state"), [(HypervisorError("no agent"), "refused"), (HypervisorUnknown("late"), "unknown")]
)
async def test_what_could_not_be_begun(error: Exception, state: str) -> None:
    guest = FakeInside()
    guest.begin_fails = error
    assert (await asked(insides_of(guest))).state == state


async def test_a_guest_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while that is nothing: it may be moving. Then what became of it is unknown."""
    guest = FakeInside()
    guest.silent = HypervisorUnknown("no answer")
    insides = insides_of(guest)
    assert (await asked(insides)).state == "lost"
    guest.silent = None
    guest.ends[1] = WELL
    assert await asked(insides) == WELL
    monkeypatch.setattr(execs, "SILENT_S", 0.01)
    guest.silent = HypervisorUnknown("no answer")
    gone = insides_of(guest)
    assert await asked(gone, window_s=2.0) == Report(state="unknown", reason="no answer")


async def test_what_does_not_end_is_not_watched_for_ever() -> None:
    report = await asked(insides_of(FakeInside()), timeout_s=0.02, window_s=2.0)
    assert report.state == "unknown"
    assert "may go on" in report.reason


async def test_that_it_is_begun_is_durable_before_it_is() -> None:
    guest, journal = FakeInside(), Memory(AgentMemory(processes=("p1",)))
    journal.trouble = StateTrouble("the disk is full")
    assert await asked(insides_of(guest, journal)) == Report(state="refused", reason="the disk is full")
    assert guest.begun == []
    journal.trouble = None
    await insides_of(guest, journal).run("command-1-2", ORDER)
    assert journal.saved[-1].begun == ("command-1-1", "command-1-2")
    assert len(guest.begun) == 1


async def test_what_was_asked_of_an_agent_before_its_restart_is_begun_if_it_was_not() -> None:
    """And is unknown for one that lost its memory: nobody knows what that had begun."""
    guest = FakeInside()
    assert (await asked(insides_of(guest), process="p0")).state == "lost"
    assert len(guest.begun) == 1
    assert (await asked(insides_of(guest), process="older")).state == "unknown"
    assert len(guest.begun) == 1
