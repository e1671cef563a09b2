"""Whose memory is measured and when, and what is told of it."""

from __future__ import annotations

import asyncio

import pytest

from dr.agent.sampling import Pace
from dr.model.base import GuestId
from dr.model.commands import Outcome, Sample
from dr.model.facts import DirtyPoint, DirtySample, DomainState, Part
from tests.agent.fakes import G, Host, Session, World, listing

MANY = [f"{number:08}-0000-0000-0000-000000000001" for number in range(12)]
POINTS = (DirtyPoint(interval_s=1, mib=10), DirtyPoint(interval_s=4, mib=16))
OFTEN = Pace(every_s=0.06, first_s=0.02, again_s=0.02, look_s=0.01, at_once=4)
SELDOM = Pace(every_s=3600, first_s=3600, again_s=3600, look_s=0.01)


def world(pace: Pace, *guests: GuestId) -> World:
    made = World()
    made.pace = pace
    made.domains = dict.fromkeys(guests or (G,), DomainState.RUNNING)
    made.dirties = dict.fromkeys(guests or (G,), POINTS)
    return made


def told(session: Session) -> list[DirtySample]:
    return [sample for report in session.reports for sample in report.samples or ()]


async def test_a_guest_that_runs_is_measured_again_and_again_and_each_sample_told_once() -> None:
    host = Host(world(OFTEN))
    session = await host.linked()
    await session.until(lambda: len(told(session)) >= 2)
    samples = told(session)
    assert all((sample.guest, sample.points) == (G, POINTS) for sample in samples)
    assert len({sample.taken_s for sample in samples}) >= 1
    assert all(
        report.clock_s >= sample.taken_s for report in session.reports for sample in report.samples or ()
    )
    assert len(told(session)) <= len(host.world.sampled)
    await host.kill()


async def test_a_new_session_is_told_what_is_known() -> None:
    host = Host(world(SELDOM))
    session = await host.linked()
    session.post(Sample(guests=(G,)))
    await session.until(lambda: told(session))
    await session.end()
    again = await host.linked(protect=False)
    await again.until(lambda: told(again))
    assert told(again) == told(session)
    assert len(host.world.sampled) == 1
    await host.kill()


async def test_few_at_once_and_everybody_in_turn() -> None:
    host = Host(world(OFTEN, *MANY))
    host.world.hold_sampling = asyncio.Event()
    session = await host.linked(protect=False)
    await session.ask(listing(*MANY))
    await session.until(lambda: len(host.world.sampling) == OFTEN.at_once)
    await asyncio.sleep(0.05)
    assert len(host.world.sampling) == OFTEN.at_once
    host.world.hold_sampling.set()
    await session.until(lambda: {guest for guest, _ in host.world.sampled} == set(MANY))
    assert max(count for _, count in host.world.sampled) == OFTEN.at_once
    await host.kill()


async def test_not_before_its_time_unless_it_is_asked_for() -> None:
    host = Host(world(SELDOM))
    session = await host.linked()
    await asyncio.sleep(0.1)
    assert not host.world.sampled
    answer = await session.ask(Sample(guests=(G, "nobody")))
    assert answer.outcome is Outcome.DONE
    await session.until(lambda: told(session))
    await asyncio.sleep(0.1)
    assert len(host.world.sampled) == 1
    await host.kill()


async def test_nobody_is_measured_whom_nobody_protects_or_who_does_not_run() -> None:
    host = Host(world(OFTEN, *MANY[:3]))
    host.world.domains[MANY[1]] = DomainState.PAUSED
    session = await host.linked(protect=False)
    await session.ask(listing(*MANY[1:3]))
    await session.until(lambda: len(host.world.sampled) > 2)
    assert {guest for guest, _ in host.world.sampled} == {MANY[2]}
    await host.kill()


@pytest.mark.parametrize("part", [Part.LEAVING, Part.ARRIVING])
async def test_a_guest_in_a_migration_is_left_alone(part: Part) -> None:
    """The agent asks libvirt about a guest that may be moving; until the ticket of its move was taken none may be."""
    host = Host(world(OFTEN, *MANY[:2]))
    host.world.hold_migration = asyncio.Event()
    session = await host.linked(protect=False)
    await session.ask(listing(*MANY[:2]))
    await session.until(lambda: len(host.world.sampled) > 2)
    if part is Part.LEAVING:
        session.post(session.migrate(5, guest=MANY[0]))
        await session.until(lambda: host.world.parts.get(MANY[0]) is Part.LEAVING)
    else:
        host.world.domains[MANY[0]] = DomainState.PAUSED
        host.world.reasons[MANY[0]] = "migration"
        host.world.parts[MANY[0]] = part
    await asyncio.sleep(0.2)
    mark = len(host.world.sampled)
    await session.until(lambda: len(host.world.sampled) > mark + 3)
    assert {guest for guest, _ in host.world.sampled[mark:]} == {MANY[1]}
    await host.kill()


async def test_after_a_move_that_failed_it_is_measured_again() -> None:
    """Although its agent remembers that it was to leave."""
    host = Host(world(OFTEN))
    host.world.migration_fails = "the network is gone"
    session = await host.linked()
    await session.ask(session.migrate(5))
    mark = len(host.world.sampled)
    await session.until(lambda: len(host.world.sampled) > mark + 1)
    await host.kill()


async def test_what_could_not_be_measured_is_not_told_and_tried_again() -> None:
    host = Host(world(OFTEN))
    host.world.dirties = {}
    session = await host.linked()
    await session.until(lambda: len(host.world.sampled) > 2)
    assert not told(session)
    await host.kill()


async def test_a_guest_that_left_is_told_no_more() -> None:
    host = Host(world(OFTEN))
    session = await host.linked()
    await session.until(lambda: told(session))
    host.world.domains.clear()
    await asyncio.sleep(0.3)
    await session.end()
    again = await host.linked(protect=False)
    await asyncio.sleep(0.05)
    assert not told(again)
    await host.kill()
