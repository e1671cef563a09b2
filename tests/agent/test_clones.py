"""What the agent does with the commands of drills, and what comes before them."""

import asyncio
from typing import Any

import pytest

from dr.agent.clones import Drills
from dr.model.checks import Ping
from dr.model.commands import Answer, BootClone, CheckClone, EndDrill, LookInside, MakeClone, Outcome
from dr.model.facts import DomainState, GuestFacts, Level, Reading, Tie, TieKind
from tests.agent.fake_clones import OURS
from tests.agent.fakes import G, Host

MAKE = MakeClone(drill="d1", guest=G, name="vm", disk_mib=5, life_s=60.0)
BOOT = BootClone(drill="d1", guest=G, name="vm", address="10.0.0.1/24")
CHECK = CheckClone(drill="d1", guest=G, name="vm", check=Ping(address="10.0.0.2"), window_s=5.0)
END = EndDrill(drill="d1")


async def test_a_drill_from_its_first_command_to_its_end(host: Host) -> None:
    session = await host.linked()
    made = await session.ask(MAKE)
    assert made.clone is not None
    assert made.clone.guest == G
    assert [(await session.ask(body)).outcome for body in (BOOT, CHECK)] == [Outcome.DONE, Outcome.DONE]
    ended = await session.ask(END)
    assert ended.drill is not None
    assert ended.drill.removed == ("all",)
    assert host.clones.asked == [
        "make d1 vm 5 60",
        f"boot d1 {G} 10.0.0.1/24",
        f"check d1 {G} Ping 5",
        "end d1",
    ]


@pytest.mark.parametrize("body", [MAKE, BOOT, CHECK, END])
async def test_what_is_refused_has_failed_with_its_reason(host: Host, body: Any) -> None:
    session = await host.linked()
    host.clones.refuses = "there is no room"
    answer = await session.ask(body)
    assert (answer.outcome, answer.reason) == (Outcome.FAILED, "there is no room")


async def test_a_check_that_does_not_pass_says_why(host: Host) -> None:
    session = await host.linked()
    host.clones.why = "ping: no answer"
    answer = await session.ask(CHECK)
    assert (answer.outcome, answer.reason) == (Outcome.FAILED, "ping: no answer")


async def test_an_order_about_the_guest_ends_its_copy_first(host: Host) -> None:
    session = await host.linked()
    host.clones.copied.clear()
    host.world.domains[G] = DomainState.RUNNING
    copy = session.post(MAKE)
    await session.until(lambda: host.clones.copying)
    assert (await session.ask(session.stop(1))).outcome is Outcome.DONE
    assert host.clones.gave_way == [G]
    assert "gave way" in (await session.answer(copy)).reason


async def test_no_copy_is_begun_while_an_order_about_the_guest_is_under_way(host: Host) -> None:
    session = await host.linked()
    host.world.hold_start = asyncio.Event()
    start = session.post(session.start(1))
    await session.until(lambda: G in host.world.permits)
    answer = await session.ask(MAKE)
    assert answer.outcome is Outcome.FAILED
    assert "an order about the guest itself" in answer.reason
    assert host.clones.asked == []
    host.world.hold_start.set()
    await session.answer(start)


async def test_a_long_copy_holds_no_testimony_up(host: Host) -> None:
    session = await host.linked()
    host.clones.copied.clear()
    copies = [session.post(MAKE) for _ in range(80)]
    answers = [await session.answer(copy) for copy in copies[64:]]
    assert {answer.outcome for answer in answers} == {Outcome.UNKNOWN}
    assert (await session.testify(1)).sealed == 1
    ended = await session.ask(EndDrill(drill="d1"))
    assert ended.outcome is Outcome.DONE, "whatever waits, a drill can be ended"
    host.clones.copied.set()


async def test_clones_are_told_to_nobody(host: Host) -> None:
    host.world.domains[f"{OURS}-0000-8000-8000-000000000001"] = DomainState.RUNNING
    host.world.domains[G] = DomainState.RUNNING
    session = await host.linked()
    if session.hello.guests is None:
        await session.until(lambda: any(report.guests is not None for report in session.reports))
    told = [session.hello.guests, *(report.guests for report in session.reports)]
    assert {facts.id for guests in told for facts in guests or ()} == {G}


async def test_a_copy_for_a_drill_keeps_no_guest_where_it_is(host: Host) -> None:
    """It gives way to a migration, where somebody's own backup would not."""

    async def look(order: LookInside) -> Answer:
        raise AssertionError(order)

    drills = Drills(host.clones, look=look, every_s=1.0, busy=lambda _: False, tell=lambda: None)
    ties = (Tie(kind=TieKind.BACKUP), Tie(kind=TieKind.SNAPSHOT))
    guest = GuestFacts(id=G, name="vm", state=DomainState.RUNNING, ties=ties)
    assert drills.told((guest,)) == (guest,)
    host.clones.copying.add(G)
    assert [each.ties for each in drills.told((guest,))] == [ties[1:]]


async def test_what_is_left_of_drills_is_a_reading(host: Host) -> None:
    session = await host.linked()
    await session.until(lambda: host.clones.sweeps > 2)
    host.clones.trouble = "drill d1 could not be removed: libvirt is dead"

    def told() -> list[Reading]:
        found = [each for report in session.reports for each in report.health or ()]
        return [each for each in found if each.part == "drills"]

    await session.until(told)
    assert told()[0].level is Level.WARN
    assert "d1 could not be removed" in told()[0].reason


async def test_drills_end_with_the_agent(host: Host) -> None:
    session = await host.linked()
    assert (await session.ask(MAKE)).outcome is Outcome.DONE
    host.stop.set()
    await host.running
    assert host.clones.closed
