"""The loop: what is durable before what is done, and what a slow or failing store may not cause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from dr import __version__
from dr.coordinator.recorder import WAITING_MAX
from dr.coordinator.service import Coordinator
from dr.core.decide import StoreElsewhere, decide
from dr.core.saved import decode
from dr.model.base import changed
from dr.model.commands import Describe, Outcome
from dr.model.drills import KEPT_MAX
from dr.model.effects import Send
from dr.model.events import Admitted, Answered, AskKeepDrill, AskPause, AskRemoveHost, Connected, Event, Heard
from dr.model.facts import HookState, HostFacts
from dr.model.playbooks import Playbook, StepSpec
from dr.model.policy import Timers
from dr.model.records import HostPhase, HostRecord, Wish
from dr.model.schedules import Schedule, ScheduleRecord
from dr.model.settings import Settings
from dr.model.verbs import Wait
from dr.model.wire import PROTOCOL, Command, FromAgent, FromCoordinator, Hello, Memory
from dr.ports.store import StoreConflict
from tests.coordinator.fakes import MemoryDecisions, MemoryStore, NoWorld
from tests.core.test_drills import report_of

SETTINGS = Settings(timers=Timers(settle_s=0.1, gap_s=60.0))


def coordinator(
    store: MemoryStore,
    machine: str = "m1",
    decisions: MemoryDecisions | None = None,
    settings: Settings = SETTINGS,
) -> Coordinator:
    world = NoWorld()
    return Coordinator(
        store=store,
        fencer=world,
        prober=world,
        checker=world,
        runner=world,
        notifier=world,
        decisions=decisions or MemoryDecisions(),
        settings=settings,
        machine=machine,
        leader_id="leader",
        cluster="test",
        stopping=asyncio.Event(),
    )


@asynccontextmanager
async def running(
    store: MemoryStore, decisions: MemoryDecisions | None = None, settings: Settings = SETTINGS
) -> AsyncIterator[Coordinator]:
    leader = coordinator(store, decisions=decisions, settings=settings)
    await leader.start()
    task = asyncio.create_task(leader.run())
    try:
        yield leader
    finally:
        leader._stopping.set()
        await asyncio.wait_for(task, 5)


async def add_online_host(leader: Coordinator) -> None:
    """A host that said hello and was seen; nothing is protected, so it needs no more."""
    facts = HostFacts(boot_id="b1", hook=HookState(proven=True))
    hello = Hello(
        protocol=PROTOCOL, version="x", cluster="test", boot_id="b1", nonce="n", memory=Memory(), facts=facts
    )
    await leader.ask(Admitted(id="a", by="ops", host="h1"))
    await leader._queue.put(Connected(host="h1", session="s", hello=hello))
    await leader._queue.put(Heard(host="h1", session="s", fresh=leader.now()))
    await leader.ask(
        Admitted(id="b", by="ops", host="h1")
    )  # answered in order: the host has been heard by then
    leader.state.hosts["h1"] = changed(leader.state.hosts["h1"], phase=HostPhase.ONLINE)


async def test_a_slow_store_makes_no_host_late() -> None:
    """Beats that came while a commit took its time are heard before anybody is called late."""
    store = MemoryStore()
    async with running(store) as leader:
        await add_online_host(leader)
        await asyncio.sleep(0.2)
        store.delay_s = 2.0
        pause = asyncio.create_task(leader.ask(AskPause(id="p", by="ops", reason="test")))
        for _ in range(4):  # the first tick of that time stands in the queue before the first beat
            await asyncio.sleep(0.45)
            await leader._queue.put(Heard(host="h1", session="s", fresh=leader.now()))
        assert (await pause).accepted
        await asyncio.sleep(0.3)
        notes = [stored.note.kind for stored in await leader.notes()]
        assert "host.suspect" not in notes


async def test_nothing_is_answered_before_it_is_durable() -> None:
    """A refused commit is decided anew; the operator hears of it only when it stands in the store."""
    store = MemoryStore()
    async with running(store) as leader:
        store.refusals = 1
        ask = asyncio.create_task(leader.ask(AskPause(id="p", by="ops", reason="test")))
        await asyncio.sleep(0.2)
        assert not ask.done()
        assert leader.state.cluster.pause is None
        assert (await ask).accepted
        assert b'"pause"' in store.entries["cluster"].value


async def test_somebody_else_writes_to_the_store() -> None:
    """Another writer ends this leader at its next commit; nothing of it is written."""
    store = MemoryStore()
    leader = coordinator(store)
    await leader.start()
    await store.commit({"cluster": store.entries["cluster"].value})
    task = asyncio.create_task(leader.run())
    asking = asyncio.create_task(leader.ask(AskPause(id="p", by="ops", reason="test")))
    with pytest.raises(StoreConflict):
        await asyncio.wait_for(task, 5)
    asking.cancel()


async def test_leader_time_goes_on_where_the_last_term_left_it() -> None:
    """It never runs backwards over a restart, and the epoch grows."""
    store = MemoryStore()
    async with running(store) as first:
        await asyncio.sleep(0.1)
        left, epoch = first.now(), first.state.cluster.epoch
        await first.ask(AskPause(id="p", by="ops", reason="test"))  # committed later than that
    async with running(store) as second:
        assert second.now() >= left
        assert second.state.cluster.epoch == epoch + 1
        assert second.state.cluster.pause is not None


async def test_a_deadline_comes_nearer_while_nobody_leads() -> None:
    """Leader time stands still then; a host on batteries does not wait for it."""
    store = MemoryStore()
    async with running(store) as first:
        await first.ask(AskPause(id="p", by="ops", reason="test"))
    clock = msgspec.json.decode(store.entries["clock"].value)
    drained = HostRecord(name="h1", boot_id="b", drain=Wish(by="ops", at=1.0, deadline=600.0))
    left = {"clock": {**clock, "wall": clock["wall"] - 100.0}, "host/h1": drained}
    await store.commit({key: msgspec.json.encode(value) for key, value in left.items()})
    async with running(store) as second:
        wish = second.state.hosts["h1"].drain
        assert wish is not None
        assert 490.0 < wish.deadline <= 500.0
        assert wish.deadline - wish.at == pytest.approx(599.0)


async def test_a_store_of_another_machine_is_refused() -> None:
    """A copied store may be older than the world."""
    store = MemoryStore()
    async with running(store):
        pass
    with pytest.raises(StoreElsewhere, match="belongs to machine m1, and this is m2"):
        await coordinator(store, machine="m2").start()


class Crowded:
    """A host's link that takes no message larger than this."""

    host = "h1"

    def __init__(self, hello: Hello) -> None:
        self.hello: Hello | None = hello
        self.taken = asyncio.Event()

    async def receive(self) -> FromAgent:
        if self.hello is None:
            self.taken.set()
            await asyncio.Event().wait()
        assert self.hello is not None
        hello, self.hello = self.hello, None
        return hello

    def post(self, message: FromCoordinator) -> None:
        if isinstance(message, Command):
            raise ValueError("a Command of 9000000 bytes is larger than a link message may be (8388608)")

    async def close(self, reason: str) -> None: ...


async def test_a_command_that_is_too_large_is_answered_at_once() -> None:
    """A start whose definition holds much NVRAM: it is known not to have run, with the reason; the loop goes on."""
    async with running(MemoryStore()) as leader:
        await add_online_host(leader)
        hello = Hello(
            protocol=PROTOCOL,
            version="x",
            cluster="test",
            boot_id="b1",
            nonce="n",
            memory=Memory(),
            facts=HostFacts(boot_id="b1"),
        )
        link = Crowded(hello)
        serving = asyncio.create_task(leader.serve_session(link))
        await link.taken.wait()
        ((_, nonce),) = leader._sessions._sessions
        seen: list[Event] = []
        told = asyncio.Event()
        put = leader._queue.put

        async def spy(item: Event) -> None:
            seen.append(item)
            told.set()
            await put(item)

        leader._queue.put = spy  # type: ignore[method-assign]
        leader._run_effect(Send(id="e1", host="h1", session=nonce, body=Describe(guest="g")))
        await told.wait()
        (answered,) = [event for event in seen if isinstance(event, Answered)]
        assert (answered.effect, answered.answer.outcome) == ("e1", Outcome.REFUSED)
        assert "larger than a link message" in answered.answer.reason
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


# ---- saved decisions


async def test_a_line_of_the_timeline_names_the_file_that_explains_it() -> None:
    """A refusal is saved: its audit line names it, and the file gives the same refusal again."""
    files = MemoryDecisions()
    async with running(MemoryStore(), files) as leader:
        reply = await leader.ask(AskRemoveHost(id="r", by="ops", host="nobody"))
        (line,) = await leader.notes(last=True, limit=1)
        assert line.note.kind == "audit"
        await eventually(lambda: line.decision in files.files)
        data = await leader.decision(line.decision)
        assert data is not None
        saved = decode(data)
        assert (saved.id, saved.version) == (line.decision, __version__)
        assert abs(saved.wall - time.time()) < 60
        assert reply in decide(saved.state, saved.event, saved.now).decision().effects
        assert leader.state.cluster.epoch == 1
        assert line.decision == f"1-{leader.state.revision}"
        await leader.ask(Admitted(id="a", by="ops", host="h1"))
        assert [each.decision for each in await leader.notes(last=True, limit=1)] == [""], (
            "nothing to ask about"
        )
        assert await leader.decision("9-9") is None


async def test_slow_or_full_disks_of_decisions_delay_nothing() -> None:
    """What cannot be kept is not named; no ask waits for it."""
    files = MemoryDecisions()
    async with running(MemoryStore(), files) as leader:
        files.delay_s = 1.0
        began = time.monotonic()
        for number in range(WAITING_MAX + 10):
            await leader.ask(AskRemoveHost(id=f"r{number}", by="ops", host="nobody"))
        assert time.monotonic() - began < 1.0
        named = [line.decision for line in await leader.notes(last=True, limit=WAITING_MAX + 10)]
        assert sum(1 for name in named if name) in (WAITING_MAX, WAITING_MAX + 1)
        files.delay_s = 0.0
        files.full = True
        await eventually(leader._recorder._waiting.empty, 5.0)
        files.full = False
        await leader.ask(AskRemoveHost(id="again", by="ops", host="nobody"))
        (line,) = await leader.notes(last=True, limit=1)
        await eventually(lambda: line.decision in files.files)


async def eventually(holds: Callable[[], bool], seconds: float = 2.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  # another thread makes it so
            await asyncio.sleep(0.01)


async def test_reports_of_drills_outlive_the_coordinator() -> None:
    store = MemoryStore()
    report = report_of("drill-1", says="as it was")
    async with running(store) as leader:
        assert (await leader.ask(AskKeepDrill(id="k", by="ops", report=report))).accepted
        assert await leader.drill("drill-1") == report
        assert await leader.drill("drill-2") is None
    async with running(store) as leader:
        assert leader.state.drills["drill-1"].says == "as it was"
        assert await leader.drill("drill-1") == report


async def test_of_a_report_that_is_not_kept_any_longer_nothing_is_left() -> None:
    store = MemoryStore()
    async with running(store) as leader:
        for number in range(KEPT_MAX + 1):
            await leader.ask(AskKeepDrill(id=f"k{number}", by="ops", report=report_of(f"drill-{number:03}")))
        assert await leader.drill("drill-000") is None
    keys = [key for key in store.entries if key.startswith("drill")]
    assert len(keys) == 2 * KEPT_MAX
    assert not [key for key in keys if key.endswith("/drill-000")]


async def test_what_a_schedule_says_is_run_by_itself_once_also_over_a_restart() -> None:
    """The wall clock is looked at; what is decided about lies in the store."""
    minutely = Schedule(
        playbook=Playbook(playbook="look", steps=(StepSpec(verb=Wait(wait=3600.0)),)), cron="* * * * *"
    )
    settings = changed(SETTINGS, schedules={"s": minutely})
    store = MemoryStore()
    async with running(store, settings=settings) as first:
        await until(lambda: "s" in first.state.schedules)
        assert not first.state.operations, "no time before now is due"
    known = msgspec.json.decode(store.entries["schedule/s"].value, type=ScheduleRecord)
    earlier = changed(known, decided=known.decided - 120.0)  # as if it had been down for two minutes since
    await store.commit({"schedule/s": msgspec.json.encode(earlier)})
    async with running(store, settings=settings) as second:
        await until(lambda: bool(second.state.operations))
        (job,) = second.state.operations.values()
        assert (job.subject, job.asked_by) == ("look", "schedule s")
        assert "schedule/s/missed" not in second.state.alerts, "the run that began cleared it"
        told = [stored.note.kind for stored in await second.notes()]
        assert told.count("schedule.missed") == 1
    async with running(store, settings=settings) as third:
        await asyncio.sleep(1.5)
        assert list(third.state.operations) == [job.id]
        assert third.state.schedules["s"].run == job.id


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110  # what a state came to tells nobody
            await asyncio.sleep(0.05)
