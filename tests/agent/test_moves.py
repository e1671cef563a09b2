"""Tickets of live migrations on a host: the same promises as for a start, at both ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dr.model.base import changed
from dr.model.commands import Abort, AllowDowntime, Outcome
from dr.model.facts import DomainState, GuestFacts, HookState, Part, Progress, Sighting
from dr.model.policy import Sending
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown
from tests.agent.fakes import TIMING, G, Host, Session, World, listing


async def source(host: Host) -> Session:
    """G runs here and is protected."""
    host.world.domains[G] = DomainState.RUNNING
    return await host.linked()


def seen(session: Session) -> GuestFacts | None:
    """G as the agent told it last."""
    told = [report.guests for report in session.reports if report.guests is not None]
    told.insert(0, session.hello.guests or ())
    return next((facts for facts in told[-1] if facts.id == G), None)


async def test_how_far_it_is_is_told_until_it_ends(host: Host) -> None:
    session = await source(host)
    host.world.hold_migration = asyncio.Event()
    sent = session.post(session.migrate(1))
    await session.until(lambda: (moves := _moves(session)) and (moves[0].guest, moves[0].done_pct) == (G, 75))
    host.world.hold_migration.set()
    await session.answer(sent)
    await session.until(lambda: _moves(session) == ())


def _moves(session: Session) -> tuple[Progress, ...] | None:
    told = [report.moves for report in session.reports if report.moves is not None]
    return told[-1] if told else None


# ---- the destination


async def test_a_guest_is_let_in_waits_and_runs_when_told(host: Host) -> None:
    session = await host.linked()
    assert (await session.ask(session.receive(1))).outcome is Outcome.DONE
    assert host.world.arrive(G)
    host.world.reasons[G] = "migration"
    await session.until(lambda: (facts := seen(session)) and facts.part is Part.ARRIVING)
    early = await session.ask(session.resume(2))
    assert (early.outcome, early.testimony[0].part) == (Outcome.FAILED, Part.ARRIVING)
    await asyncio.sleep(5 * TIMING.copies_s)
    assert host.world.domains[G] is DomainState.PAUSED, "told to run too early, it arrives all the same"
    del host.world.parts[G]
    assert (await session.ask(session.resume(3))).outcome is Outcome.DONE
    assert host.world.domains[G] is DomainState.RUNNING
    await session.until(lambda: (facts := seen(session)) and facts.runs and facts.part is Part.NONE)


async def test_who_was_resumed_has_its_clock_set_and_nothing_waits_for_that(host: Host) -> None:
    session = await host.linked()
    assert (await session.ask(session.receive(1))).outcome is Outcome.DONE
    assert host.world.arrive(G)
    del host.world.parts[G]
    assert host.world.clocks == [], "it stands still"
    held = host.world.hold_clock = asyncio.Event()
    assert (await session.ask(session.resume(2))).outcome is Outcome.DONE
    await session.until(lambda: (facts := seen(session)) and facts.runs)
    held.set()
    await session.until(lambda: host.world.clocks == [G])


@pytest.mark.parametrize("error", [HypervisorError("no"), HypervisorUnknown("late"), RuntimeError("bug")])
async def test_a_clock_that_cannot_be_set_costs_nothing(host: Host, error: Exception) -> None:
    session = await host.linked()
    host.world.clock_fails = error
    for generation in (1, 3):
        assert (await session.ask(session.receive(generation))).outcome is Outcome.DONE
        assert host.world.arrive(G)
        del host.world.parts[G]
        assert (await session.ask(session.resume(generation + 1))).outcome is Outcome.DONE
        if generation == 1:
            await asyncio.sleep(0.02)
            host.world.clock_fails = None
            del host.world.domains[G]
    await session.until(lambda: host.world.clocks == [G])


async def test_a_guest_that_was_not_resumed_keeps_its_clock(host: Host) -> None:
    session = await host.linked()
    assert (await session.ask(session.receive(1))).outcome is Outcome.DONE
    assert host.world.arrive(G)
    del host.world.parts[G]
    host.world.resume_fails = "libvirt could not"
    assert (await session.ask(session.resume(2))).outcome is Outcome.UNKNOWN
    await asyncio.sleep(0.05)
    assert host.world.clocks == []


async def test_a_copy_waits_and_is_told_as_that(host: Host) -> None:
    session = await host.linked()
    await session.ask(session.receive(1))
    host.world.arrive(G)
    del host.world.parts[G]
    await session.until(lambda: (facts := seen(session)) and facts.part is Part.WAITING)
    testimony = await session.testify(2)
    assert (testimony.sighting, testimony.part) == (Sighting.PRESENT, Part.WAITING)


async def test_nothing_is_let_in_where_something_of_it_is(host: Host) -> None:
    session = await source(host)
    answer = await session.ask(session.receive(1))
    assert answer.outcome is Outcome.FAILED
    assert answer.testimony[0].sighting is Sighting.PRESENT
    assert not host.world.permits


async def test_nothing_is_let_in_while_the_hook_is_not_proven(host: Host) -> None:
    host.world.hook_works = False
    session = await host.linked()
    answer = await session.ask(session.receive(1))
    assert answer.outcome is Outcome.REFUSED
    assert not host.world.permits


async def test_a_testimony_takes_the_leave_back(host: Host) -> None:
    session = await host.linked()
    await session.ask(session.receive(1))
    testimony = await session.testify(1)
    assert testimony.sighting is Sighting.ABSENT
    assert not host.world.arrive(G)


async def test_discard_destroys_a_copy_and_nothing_that_runs(host: Host) -> None:
    session = await host.linked()
    await session.ask(session.receive(1))
    host.world.arrive(G)
    done = await session.ask(session.discard(2))
    assert (done.outcome, done.testimony[0].sighting) == (Outcome.DONE, Sighting.ABSENT)
    assert done.testimony[0].sealed == 2
    assert G not in host.world.memory().copies or not host.world.domains
    assert (await session.ask(session.start(3))).outcome is Outcome.DONE
    kept = await session.ask(session.discard(4))
    assert kept.outcome is Outcome.FAILED
    assert host.world.domains[G] is DomainState.RUNNING


async def test_discard_of_what_libvirt_does_not_tell_destroys_nothing(host: Host) -> None:
    session = await host.linked()
    await session.ask(session.receive(1))
    host.world.arrive(G)
    host.world.standing_unknown = "libvirt is busy"
    assert (await session.ask(session.discard(2))).outcome is Outcome.UNKNOWN
    assert G in host.world.domains


async def test_a_copy_that_was_made_to_run_by_hand_is_suspended(host: Host) -> None:
    session = await host.linked()
    await session.ask(session.receive(1))
    host.world.arrive(G)
    del host.world.parts[G]
    host.world.domains[G] = DomainState.RUNNING
    await session.until(lambda: host.world.domains[G] is DomainState.PAUSED)
    assert (await session.ask(session.resume(2))).outcome is Outcome.DONE
    await asyncio.sleep(0.3)
    assert host.world.domains[G] is DomainState.RUNNING


async def test_what_arrives_without_a_ticket_is_destroyed(host: Host) -> None:
    session = await host.linked()
    host.world.domains[G], host.world.parts[G] = DomainState.PAUSED, Part.ARRIVING
    host.world.reasons[G] = "migration"
    await session.until(lambda: G not in host.world.domains)


async def test_a_paused_guest_that_does_not_arrive_is_left_alone(host: Host) -> None:
    """At the source, too, libvirt pauses it with that reason, at the switch-over."""
    await host.linked()
    host.world.domains[G] = DomainState.PAUSED
    host.world.reasons[G] = "migration"
    await asyncio.sleep(0.3)
    assert host.world.domains[G] is DomainState.PAUSED


# ---- the source


async def test_it_leaves_and_says_by_which_job(host: Host) -> None:
    session = await source(host)
    answer = await session.ask(session.migrate(1))
    (testimony,) = answer.testimony
    assert (answer.outcome, answer.reason) == (Outcome.DONE, "96 MiB sent")
    assert (testimony.sighting, testimony.left_by) == (Sighting.ABSENT, "t1")
    assert testimony.sealed == 1
    assert (await session.testify(2)).left_by == "t1"


async def test_a_migration_that_fails_leaves_it_here(host: Host) -> None:
    host.world.migration_fails = "the destination has no memory for it"
    session = await source(host)
    answer = await session.ask(session.migrate(1))
    assert (answer.outcome, answer.reason) == (Outcome.FAILED, host.world.migration_fails)
    assert (answer.testimony[0].sighting, answer.testimony[0].part) == (Sighting.PRESENT, Part.NONE)
    assert host.world.domains[G] is DomainState.RUNNING


async def test_an_end_that_was_not_seen_is_unknown_and_told_later(host: Host) -> None:
    """libvirtd goes on with it: leaving, then gone."""
    host.world.migration_unknown = True
    session = await source(host)
    assert (await session.ask(session.migrate(1))).outcome is Outcome.UNKNOWN
    testimony = await session.testify(1)
    assert (testimony.sighting, testimony.part) == (Sighting.PRESENT, Part.LEAVING)
    host.world.leave(G)
    testimony = await session.testify(1)
    assert (testimony.sighting, testimony.left_by) == (Sighting.ABSENT, "t1")


async def test_absent_for_another_reason_is_not_left(host: Host) -> None:
    host.world.migration_unknown = True
    session = await source(host)
    await session.ask(session.migrate(1))
    host.world.domains.pop(G)  # it crashed
    testimony = await session.testify(1)
    assert (testimony.sighting, testimony.left_by) == (Sighting.ABSENT, "")


async def test_libvirt_that_does_not_tell_makes_it_unknown(host: Host) -> None:
    host.world.migration_unknown = True
    session = await source(host)
    await session.ask(session.migrate(1))
    host.world.standing_unknown = "libvirt is gone"
    testimony = await session.testify(1)
    assert testimony.sighting is Sighting.UNKNOWN
    await session.until(lambda: (facts := seen(session)) and facts.part is Part.LEAVING)


async def test_it_is_called_off(host: Host) -> None:
    session = await source(host)
    nothing = await session.ask(Abort(guest=G, name="vm"))
    assert nothing.outcome is Outcome.FAILED
    host.world.hold_migration = asyncio.Event()
    sent = session.post(session.migrate(1))
    await session.until(lambda: host.world.parts.get(G) is Part.LEAVING)
    assert (await session.ask(Abort(guest=G, name="vm"))).outcome is Outcome.DONE
    assert (await session.answer(sent)).outcome is Outcome.FAILED
    assert host.world.domains[G] is DomainState.RUNNING


async def test_it_is_sent_as_policy_wants_and_may_stand_still_for_longer(host: Host) -> None:
    session = await source(host)
    longer = AllowDowntime(guest=G, name="vm", downtime_s=0.8)
    assert (await session.ask(longer)).outcome is Outcome.FAILED
    host.world.hold_migration = asyncio.Event()
    sending = Sending(auto_converge=True, mib_s=50, streams=2)
    session.post(changed(session.migrate(1), sending=sending))
    await session.until(lambda: host.world.parts.get(G) is Part.LEAVING)
    assert host.world.sending == sending
    assert (await session.ask(longer)).outcome is Outcome.DONE
    assert host.world.downtime_s == 0.8


async def test_it_is_sent_over_the_network_that_is_named(host: Host) -> None:
    session = await source(host)
    await session.ask(changed(session.migrate(1), data_address="10.9.0.2"))
    assert host.world.data_address == "10.9.0.2"


async def test_one_that_takes_too_long_is_ended_by_the_agent(host: Host) -> None:
    session = await source(host)
    host.world.hold_migration = asyncio.Event()
    answer = await session.ask(session.migrate(1, timeout_s=0.1))
    assert (answer.outcome, answer.reason) == (Outcome.FAILED, "operation aborted")


async def test_a_source_that_stands_at_its_switch_over_is_resumed_but_not_while_it_leaves(host: Host) -> None:
    session = await source(host)
    host.world.domains[G], host.world.parts[G] = DomainState.PAUSED, Part.LEAVING
    refused = await session.ask(session.resume(1))
    assert (refused.outcome, refused.testimony[0].part) == (Outcome.FAILED, Part.LEAVING)
    del host.world.parts[G]
    assert (await session.ask(session.resume(2))).outcome is Outcome.DONE
    host.world.domains[G] = DomainState.PAUSED
    host.world.resume_fails = "libvirt could not"
    answer = await session.ask(session.resume(3))
    assert (answer.outcome, answer.testimony[0].sighting) == (Outcome.UNKNOWN, Sighting.PRESENT)


async def test_who_was_resumed_meanwhile_is_not_sent_as_one_that_is_suspended(host: Host) -> None:
    """It would be left standing where it arrives, though its owner has it running."""
    session = await source(host)
    answer = await session.ask(changed(session.migrate(1), suspended=True))
    assert (answer.outcome, answer.testimony[0].sighting) == (Outcome.FAILED, Sighting.PRESENT)
    assert "was resumed meanwhile" in answer.reason
    assert host.world.domains[G] is DomainState.RUNNING
    host.world.domains[G] = DomainState.PAUSED
    assert (await session.ask(changed(session.migrate(2), suspended=True))).outcome is Outcome.DONE


async def test_a_suspended_guest_stays_so_and_its_copy_waits_for_nobody_any_more(host: Host) -> None:
    session = await host.linked()
    await session.ask(session.receive(1))
    assert host.world.arrive(G)
    del host.world.parts[G]
    await session.until(lambda: (facts := seen(session)) and facts.part is Part.WAITING)
    assert (await session.ask(changed(session.resume(2), suspended=True))).outcome is Outcome.DONE
    assert host.world.domains[G] is DomainState.PAUSED
    await session.until(lambda: (facts := seen(session)) and facts.part is Part.NONE)
    host.world.domains[G] = DomainState.RUNNING
    await session.until(lambda: (facts := seen(session)) and facts.runs)
    await asyncio.sleep(0.05)
    assert host.world.domains[G] is DomainState.RUNNING, "whoever resumes it is not put back"


async def test_a_host_migrates_only_while_its_hook_is_proven(host: Host) -> None:
    session = await host.linked()
    await session.until(
        lambda: (
            any(report.facts and report.facts.live_migration for report in session.reports)
            or session.hello.facts.live_migration
        )
    )
    host.world.hook_works = False
    host.world.hook_there = False  # altered: put back, and tried anew
    await session.until(
        lambda: (
            (facts := next((r.facts for r in reversed(session.reports) if r.facts), None))
            and facts.hook == HookState(proven=False, reason="canary ran")
            and not facts.live_migration
        )
    )


# ---- interrupted


async def moments(kind: str) -> int:
    """How many steps one ticket has from its arrival to its answer."""
    host, session = await prepared(kind)
    before = len(host.world.steps)
    assert (await session.ask(order(session, kind, 2), "move-1")).outcome is Outcome.DONE
    await host.kill()
    session.pump.cancel()
    return len(host.world.steps) - before


async def prepared(kind: str) -> tuple[Host, Session]:
    world = World()
    if kind == "migrate":
        world.domains[G] = DomainState.RUNNING
    host = Host(world)
    session = await host.linked()
    if kind in ("resume", "discard"):
        await session.ask(session.receive(1))
        world.arrive(G)
        del world.parts[G]
    await asyncio.sleep(0.05)
    return host, session


def order(session: Session, kind: str, generation: int) -> Any:
    return getattr(session, kind)(generation)


@pytest.mark.parametrize("kind", ["receive", "migrate", "resume", "discard"])
async def test_every_interruption(kind: str) -> None:
    """Killed anywhere: never acted on before it was written down, never run twice, never a false testimony."""
    count = await moments(kind)
    assert count >= 4
    for moment in range(1, count + 1):
        host, session = await prepared(kind)
        world = host.world
        world.crash_at = len(world.steps) + moment
        session.post(order(session, kind, 2), "move-1")
        await session.until(lambda world=world: world.crashed)  # type: ignore[misc]
        step = world.steps[-1]
        await host.kill()
        await session.end()
        world.crash_at = 0
        begun = any(known.command == "move-1" for known in world.memory().tickets)
        if not begun:
            assert G not in world.permits, step
            assert world.parts.get(G) is not Part.LEAVING, step
            assert world.domains.get(G) is not DomainState.RUNNING or kind == "migrate", step
        host.boot()
        session = await host.linked(protect=False)
        again = await session.ask(order(session, kind, 2), "move-1-again")
        assert (again.outcome is Outcome.REFUSED) == begun, (step, again)
        assert G not in world.permits or not begun, f"a permit of a dead agent is left (died at {step!r})"
        testimony = await session.testify(3)
        assert (testimony.sighting is Sighting.ABSENT) == (G not in world.domains), (step, testimony)
        if kind == "migrate" and begun:
            # libvirtd has the job, or had it: it goes on without the agent.
            leaving = world.parts.get(G) is Part.LEAVING
            assert leaving == (testimony.part is Part.LEAVING), (step, testimony)
            if leaving:
                world.leave(G)
                testimony = await session.testify(3)
            assert (testimony.left_by == "t2") == (G in world.migrated), (step, testimony)
        if kind == "receive" and begun:
            assert not world.arrive(G), f"let in by a dead agent (died at {step!r})"
        await host.kill()
        await session.end()


async def test_a_waiting_copy_is_known_again_after_a_restart(host: Host) -> None:
    session = await host.linked()
    await session.ask(session.receive(1))
    host.world.arrive(G)
    del host.world.parts[G]
    await host.kill()
    await session.end()
    host.world.domains[G] = DomainState.RUNNING  # by hand, while nobody looked
    host.boot()
    session = await host.coordinator.accept()
    await session.ask(listing())
    await session.until(lambda: host.world.domains[G] is DomainState.PAUSED)
    assert (await session.testify(3)).ran == 1, "it may have written: its host says so"
    await host.kill()
    await session.end()
    del host.world.domains[G]
    host.boot()
    session = await host.linked(protect=False)
    assert (await session.testify(4)).ran == 1, "and goes on saying so, though nothing of it is left"
    await session.ask(session.receive(5))
    assert (await session.testify(6)).ran == 1, "of that one, not of the next"


async def test_a_copy_that_ran_is_not_destroyed_before_that_is_written_down() -> None:
    """Killed anywhere in its discard: what is gone, and ran, is known to have run."""
    count = await moments("discard")
    for moment in range(1, count + 1):
        host, session = await prepared("discard")
        world = host.world
        world.domains[G] = DomainState.RUNNING  # by hand, and seen by nobody yet
        world.crash_at = len(world.steps) + moment
        session.post(session.discard(2), "move-1")
        await session.until(lambda world=world: world.crashed)  # type: ignore[misc]
        step = world.steps[-1]
        await host.kill()
        await session.end()
        world.crash_at = 0
        host.boot()
        session = await host.linked(protect=False)
        testimony = await session.testify(3)
        assert testimony.ran == 1 or testimony.sighting is not Sighting.ABSENT, step
        await host.kill()
        await session.end()
