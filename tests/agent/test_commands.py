"""What the agent answers to each command, and when it refuses."""

import asyncio
from typing import Any

import pytest

from dr.model import commands
from dr.model.commands import Describe, Outcome, Probe, ProveHook, Question, TicketKind
from dr.model.facts import DomainState, Level, Sighting
from dr.model.memory import AgentMemory
from tests.agent.fakes import BOOT, G, Host, Link, listing

G2 = "11111111-0000-0000-0000-000000000002"


async def test_start_stop_clean(host: Host) -> None:
    session = await host.linked()
    assert (await session.ask(session.start(1))).outcome is Outcome.DONE
    assert not host.world.permits
    assert (await session.testify(1)).sighting is Sighting.PRESENT
    stopped = await session.ask(session.stop(2))
    assert stopped.outcome is Outcome.DONE
    assert [(seen.sighting, seen.sealed) for seen in stopped.testimony] == [(Sighting.ABSENT, 2)]
    cleaned = await session.ask(session.clean(3))
    assert cleaned.outcome is Outcome.DONE
    assert [(seen.sighting, seen.sealed) for seen in cleaned.testimony] == [(Sighting.ABSENT, 3)]
    assert host.world.undefined == [G]
    assert host.world.memory().sealed == {G: 3}


async def test_a_stop_tells_the_definition_as_it_was_left(host: Host) -> None:
    """The guest may have written to its NVRAM until its end."""
    session = await host.linked()
    await session.ask(session.start(1))
    host.world.stays_defined = True
    host.world.nvram = b"its last boot order"
    stopped = await session.ask(session.stop(2))
    assert stopped.definition is not None
    assert stopped.definition.nvram == b"its last boot order"


async def test_a_stop_is_one_also_where_its_definition_cannot_be_told(host: Host) -> None:
    session = await host.linked()
    stopped = await session.ask(session.stop(1))
    assert (stopped.outcome, stopped.definition) == (Outcome.DONE, None)


async def test_a_stray_is_stopped_before_it_is_undefined(host: Host) -> None:
    session = await host.linked()
    host.world.domains[G] = DomainState.PAUSED
    assert (await session.ask(session.clean(1))).outcome is Outcome.DONE
    assert not host.world.domains
    host.world.domains[G] = DomainState.RUNNING
    host.world.stop_fails = "device busy"
    failed = await session.ask(session.clean(2))
    assert (failed.outcome, failed.reason) == (Outcome.FAILED, "device busy")
    assert failed.testimony[0].sighting is Sighting.PRESENT
    assert failed.testimony[0].sealed == 0
    assert host.world.undefined == [G]


async def test_a_failed_stop_is_never_taken_for_a_stop(host: Host) -> None:
    session = await host.linked()
    host.world.domains[G] = DomainState.RUNNING
    host.world.stop_fails = "device busy"
    answer = await session.ask(session.stop(1))
    assert answer.outcome is Outcome.FAILED
    assert answer.testimony[0].sighting is Sighting.PRESENT
    host.world.sight_unknown = "libvirtd is dead and /proc says nothing"
    answer = await session.ask(session.stop(2))
    assert answer.outcome is Outcome.UNKNOWN


async def test_a_start_that_failed_says_what_is_left(host: Host) -> None:
    session = await host.linked()
    host.world.start_fails = "no such disk"
    answer = await session.ask(session.start(1))
    assert (answer.outcome, answer.reason) == (Outcome.FAILED, "no such disk")
    assert [(seen.sighting, seen.sealed) for seen in answer.testimony] == [(Sighting.ABSENT, 1)]
    assert not host.world.permits
    host.world.sight_unknown = "a job is under way"
    answer = await session.ask(session.start(2))
    assert answer.outcome is Outcome.UNKNOWN


async def test_a_guest_that_runs_here_already(host: Host) -> None:
    session = await host.linked()
    host.world.domains[G] = DomainState.RUNNING
    answer = await session.ask(session.start(1))
    assert (answer.outcome, answer.reason) == (Outcome.DONE, "vm already runs here")
    host.world.domains[G] = DomainState.PAUSED
    answer = await session.ask(session.start(2))
    assert answer.outcome is Outcome.UNKNOWN
    assert answer.testimony[0].sighting is Sighting.PRESENT
    assert not host.world.starts


async def test_nothing_starts_while_the_hook_is_not_proven(host: Host) -> None:
    host.world.hook_works = False
    session = await host.linked()
    answer = await session.ask(session.start(1))
    assert answer.outcome is Outcome.REFUSED
    assert "canary ran" in answer.reason
    host.world.hook_works = True
    proof = await session.ask(ProveHook())
    assert proof.hook is not None
    assert proof.hook.proven
    assert (await session.ask(session.start(2))).outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"host": "h2"}, "for host h2"),
        ({"boot_id": "old"}, f"now runs boot {BOOT}"),
        ({"session": "s0"}, "another session"),
        ({"epoch": 0}, "epoch 0"),
        ({"leader_id": "l0"}, "leader l0"),
    ],
)
async def test_tickets_of_another_time_or_place(host: Host, fields: dict[str, Any], word: str) -> None:
    session = await host.linked()
    answer = await session.ask(session.start(1, **fields))
    assert answer.outcome is Outcome.REFUSED
    assert word in answer.reason
    assert not host.world.starts


async def test_a_ticket_of_another_kind(host: Host) -> None:
    session = await host.linked()
    order = commands.Start(
        ticket=session.ticket(TicketKind.UNDEFINE, 1), definition=session.start(1).definition
    )
    answer = await session.ask(order)
    assert answer.outcome is Outcome.REFUSED
    assert "a ticket to undefine does not allow this" in answer.reason
    assert host.world.memory().sealed == {}


@pytest.mark.parametrize("fields", [{"session": "s0"}, {"epoch": 0}, {"leader_id": "l0"}])
async def test_commands_of_another_session_or_leader(host: Host, fields: dict[str, Any]) -> None:
    session = await host.linked()
    assert (await session.ask(session.start(1), **fields)).outcome is Outcome.REFUSED
    question = commands.Testify(questions=(Question(guest=G, name="vm", generation=1),))
    assert (await session.ask(question, **fields)).outcome is Outcome.REFUSED
    assert not host.world.memory().sealed


async def test_testify_while_a_start_is_under_way(host: Host) -> None:
    session = await host.linked()
    host.world.hold_start = asyncio.Event()
    command = session.post(session.start(1))
    await session.until(lambda: G in host.world.permits)
    testimony = await session.testify(1)
    assert testimony.sighting is Sighting.UNKNOWN
    assert "still under way" in testimony.reason
    assert G in host.world.permits, "a testimony does not take the permit of a ticket under way"
    repeated = session.post(session.start(1), command)
    await asyncio.sleep(0.02)
    assert repeated == command
    host.world.hold_start.set()
    await session.until(lambda: host.world.starts == [G])


async def test_tickets_of_one_guest_take_turns(host: Host) -> None:
    session = await host.linked(protect=False)
    await session.ask(listing(G, G2))
    host.world.hold_start = asyncio.Event()
    first = session.post(session.start(1))
    second = session.post(session.stop(2))
    await session.until(lambda: host.world.permits)
    assert host.world.steps.count("stop sent") == 0
    late = await session.ask(session.start(1), "late")
    assert "sealed up to 2" in late.reason
    host.world.hold_start.set()
    assert (await session.answer(first)).outcome is Outcome.DONE
    assert (await session.answer(second)).outcome is Outcome.DONE
    assert not host.world.domains


async def test_a_ticket_that_waited_into_another_session_is_not_acted_on(host: Host) -> None:
    session = await host.linked()
    host.world.hold_start = asyncio.Event()
    session.post(session.start(1))
    waiting = session.post(session.stop(2), "stop")
    await session.until(lambda: host.world.permits and host.world.memory().sealed == {G: 2})
    await session.end()
    host.coordinator.epoch, host.coordinator.leader = 2, "l2"
    session = await host.coordinator.accept()
    await session.until(lambda: session.beats)
    assert (await session.testify(1)).sighting is Sighting.UNKNOWN
    host.world.hold_start.set()
    await session.until(lambda: len([known for known in host.world.memory().tickets if known.answer]) == 2)
    assert host.world.domains, "the start under way could not be taken back"
    assert "stop sent" not in host.world.steps
    told = await session.ask(session.stop(3), waiting)
    assert told.outcome is Outcome.REFUSED
    assert "session of its ticket ended" in told.reason
    assert (await session.testify(2)).sighting is Sighting.PRESENT


async def test_testimony_seals_before_it_speaks_and_with_one_write(host: Host) -> None:
    session = await host.linked(protect=False)
    await session.ask(listing(G, G2))
    await asyncio.sleep(0.05)
    before = host.world.steps.count("saving")
    questions = tuple(Question(guest=guest, name="vm", generation=4) for guest in (G, G2, "unlisted"))
    answer = await session.ask(commands.Testify(questions=questions))
    assert host.world.steps.count("saving") == before + 1
    assert {seen.guest: (seen.sighting, seen.sealed) for seen in answer.testimony} == {
        G: (Sighting.ABSENT, 4),
        G2: (Sighting.ABSENT, 4),
        "unlisted": (Sighting.UNKNOWN, 0),
    }
    assert host.world.memory().sealed == {G: 4, G2: 4}
    assert (await session.ask(session.start(4))).outcome is Outcome.REFUSED
    assert (await session.ask(session.start(5))).outcome is Outcome.DONE


async def test_no_permit_outlives_a_testimony(host: Host) -> None:
    session = await host.linked()
    host.world.permits[G] = "left by whatever"
    host.world.queue.append(G)
    assert (await session.testify(1)).sighting is Sighting.ABSENT
    host.world.libvirtd()
    assert not host.world.domains


async def test_protect(host: Host) -> None:
    session = await host.linked()
    assert host.world.protected == {G: "vm"}
    assert host.world.watched == ("nfs:a",)
    answer = await session.ask(listing(G, G2, version=3))
    assert (answer.outcome, answer.protected_version) == (Outcome.DONE, 3)
    assert answer.hook is not None
    assert answer.hook.proven
    older = await session.ask(listing(version=2))
    assert (older.outcome, older.protected_version) == (Outcome.REFUSED, 3)
    assert set(host.world.protected) == {G, G2}
    assert host.world.memory().protected_version == 3


async def test_a_list_that_the_hook_could_not_take(host: Host) -> None:
    session = await host.linked(protect=False)
    host.world.gate_broken = True
    answer = await session.ask(listing())
    assert answer.outcome is Outcome.FAILED
    assert answer.protected_version == 0
    assert (await session.ask(session.start(1))).outcome is Outcome.REFUSED
    assert (await session.testify(1)).sighting is Sighting.UNKNOWN
    await session.until(lambda: any(critical(report, "hook") for report in session.reports))
    host.world.gate_broken = False
    await session.until(lambda: host.world.protected)  # put right without being asked
    await session.until(lambda: session.reports[-1].health and not critical(session.reports[-1], "hook"))
    assert (await session.ask(session.start(2))).outcome is Outcome.DONE


def critical(report: object, part: str) -> bool:
    readings = getattr(report, "health", None) or ()
    return any(reading.part == part and reading.level is Level.CRITICAL for reading in readings)


async def test_state_that_cannot_be_written(host: Host) -> None:
    session = await host.linked()
    host.world.disk_full = True
    answer = await session.ask(session.start(1), "a")
    assert answer.outcome is Outcome.REFUSED
    assert "No space left" in answer.reason
    testimony = await session.testify(1)
    assert testimony.sighting is Sighting.UNKNOWN
    assert "No space left" in testimony.reason
    beats = len(session.beats)
    await session.until(lambda: any(critical(report, "state") for report in session.reports))
    await session.until(lambda: len(session.beats) > beats + 3)
    assert not host.world.starts
    host.world.disk_full = False
    await session.until(lambda: session.reports[-1].health and not critical(session.reports[-1], "state"))
    assert (await session.ask(session.start(1), "a")).outcome is Outcome.REFUSED
    assert (await session.testify(1)).sighting is Sighting.ABSENT
    assert (await session.ask(session.start(2))).outcome is Outcome.DONE


async def test_an_end_that_cannot_be_written_is_not_told(host: Host) -> None:
    session = await host.linked()
    host.world.hold_start = asyncio.Event()
    command = session.post(session.start(1))
    await session.until(lambda: host.world.permits)
    host.world.disk_full = True
    host.world.hold_start.set()
    answer = await session.answer(command)
    assert answer.outcome is Outcome.UNKNOWN
    assert "it ended (done), but" in answer.reason


async def test_memory_that_cannot_be_read_is_kept_and_nothing_is_taken(host: Host) -> None:
    session = await host.linked()
    await host.kill()
    await session.end()
    host.world.disk = b"corrupt"
    host.boot()
    session = await host.linked(protect=False)
    assert any(reading.part == "state" for reading in session.hello.health)
    assert (await session.ask(listing())).outcome is Outcome.REFUSED
    assert (await session.ask(session.start(1))).outcome is Outcome.REFUSED
    assert (await session.testify(1)).sighting is Sighting.UNKNOWN
    assert host.world.disk == b"corrupt"
    assert host.world.protected == {G: "vm"}


async def test_the_revision_is_durable_before_a_ticket_acts(host: Host) -> None:
    session = await host.linked()
    session.revision = 77
    host.world.hold_start = asyncio.Event()
    session.post(session.start(1))
    await session.until(lambda: host.world.permits)
    memory: AgentMemory = host.world.memory()
    assert memory.revision == 77
    assert [known.answer for known in memory.tickets] == [None]
    host.world.hold_start.set()


async def test_what_is_too_large_for_a_message_is_said_in_a_small_one(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A definition with much NVRAM: the coordinator is told so, and the link stands; a report is left out."""
    session = await host.linked()
    host.world.domains[G] = DomainState.RUNNING
    monkeypatch.setattr(Link, "bytes_max", 3000)
    host.world.nvram = bytes(4000)
    answer = await session.ask(Describe(guest=G))
    assert answer.outcome is Outcome.FAILED
    assert answer.definition is None
    assert "larger than 3000 bytes" in answer.reason
    beats, reports = len(session.beats), len(session.reports)
    host.world.domains |= {f"{number:08}": DomainState.RUNNING for number in range(100)}
    await session.until(lambda: len(session.beats) > beats + 20)
    assert len(session.reports) == reports, "it was too large"
    assert not session.is_closed()


async def test_describe_and_probe(host: Host) -> None:
    session = await host.linked()
    assert (await session.ask(Describe(guest=G))).outcome is Outcome.FAILED
    host.world.domains[G] = DomainState.RUNNING
    definition = (await session.ask(Describe(guest=G))).definition
    assert definition is not None
    assert definition.id == G
    probe = await session.ask(Probe(target="h2", addresses=("10.0.0.1", "10.0.0.2")))
    assert probe.answered == {"10.0.0.1": True, "10.0.0.2": False}
    host.world.deaf = True
    assert (await session.ask(Describe(guest=G))).outcome is Outcome.UNKNOWN
