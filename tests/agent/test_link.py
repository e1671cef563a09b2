"""Sessions, beats and reports: the link lives, whatever becomes of libvirt and the disk."""

import asyncio
import time
from itertools import pairwise
from typing import Any

from dr.model.commands import Outcome
from dr.model.facts import DomainState, Level
from dr.model.wire import Refused
from dr.ports.hypervisor import DomainEvent
from tests.agent.fakes import BEAT_S, G, Host, Session


def gaps(session: Session) -> list[float]:
    times = [at for at, _ in session.beats]
    return [later - earlier for earlier, later in pairwise(times)]


async def test_hello_and_beats(host: Host) -> None:
    host.world.domains[G] = DomainState.RUNNING
    session = await host.linked()
    hello = session.hello
    assert (hello.boot_id, hello.facts.boot_id, hello.facts.cpus) == ("boot-1", "boot-1", 4)
    assert hello.guests is not None
    assert [guest.id for guest in hello.guests] == [G]
    assert hello.facts.hook.proven
    await session.until(lambda: len(session.beats) > 5)
    assert session.beats[0][1].echo == "first"
    assert session.beats[-1][1].echo.startswith(session.welcome.session)
    assert [beat.seq for _, beat in session.beats] == list(range(1, len(session.beats) + 1))
    assert "READY=1" in host.told
    assert "WATCHDOG=1" in host.told


async def test_the_epoch_is_durable_before_the_first_beat(host: Host) -> None:
    session = await host.coordinator.accept(epoch=5, leader_id="l5")
    await session.until(lambda: session.beats)
    memory = host.world.memory()
    assert (memory.epoch, memory.leader_id, memory.cluster) == (5, "l5", "c1")


async def test_an_epoch_that_could_be_forgotten_is_not_acknowledged(host: Host) -> None:
    await (await host.coordinator.accept()).end()
    host.world.disk_full = True
    session = await host.coordinator.accept(epoch=2, leader_id="l2")
    await session.until(lambda: len(session.beats) > 3)
    assert {beat.echo for _, beat in session.beats} == {""}
    host.world.disk_full = False
    await session.until(lambda: session.beats[-1][1].echo)
    assert host.world.memory().epoch == 2


async def test_older_and_rival_leaders_are_not_followed(host: Host) -> None:
    await (await host.coordinator.accept(epoch=5, leader_id="l5")).end()
    others: list[dict[str, Any]] = [
        {"epoch": 4, "leader_id": "l4"},
        {"epoch": 5, "leader_id": "l6"},
        {"epoch": 9, "cluster": "x"},
    ]
    for fields in others:
        session = await host.coordinator.accept(**fields)
        await session.until(session.is_closed)
        assert not session.beats
    session = await host.coordinator.accept(epoch=6, leader_id="l6")
    assert session.hello.memory.epoch == 5
    await session.until(lambda: session.beats)


async def test_libvirt_that_hangs_delays_no_beat(host: Host) -> None:
    host.world.deaf = True
    session = await host.linked(protect=False)
    assert session.hello.guests is None
    assert any(
        reading.part == "libvirt" and reading.level is Level.CRITICAL for reading in session.hello.health
    )
    session.post(session.start(1))
    await session.until(lambda: len(session.beats) > 15)
    assert max(gaps(session)) < 10 * BEAT_S
    host.world.deaf = False
    await session.until(lambda: any(report.guests is not None for report in session.reports))


async def test_a_disk_that_hangs_delays_no_beat(host: Host) -> None:
    session = await host.linked()
    host.world.disk_hangs = lambda: time.sleep(1.2)
    answer = await session.ask(session.start(1))
    assert answer.outcome is Outcome.REFUSED
    assert "no answer from its disk" in answer.reason
    await session.until(
        lambda: any(reading.part == "state" for report in session.reports for reading in report.health or ())
    )
    assert max(gaps(session)) < 10 * BEAT_S
    await session.end()
    session = await host.linked(protect=False)  # and a new session is taken all the same
    await session.until(lambda: len(session.beats) > 3)
    assert not host.world.starts
    host.world.disk_hangs = None


async def test_events_are_told_at_once_and_together(host: Host) -> None:
    session = await host.linked()
    await asyncio.sleep(0.05)
    session.reports.clear()
    host.world.domains[G] = DomainState.RUNNING
    for kind in ("started", "resumed", "io_error"):
        host.world.events.put_nowait(DomainEvent(guest=G, name="vm", kind=kind))
    await session.until(lambda: session.reports)
    (report,) = session.reports
    assert report.guests is not None
    assert [guest.id for guest in report.guests] == [G]
    assert report.facts is None, "only what changed"


async def test_a_new_libvirtd_means_a_new_proof(host: Host) -> None:
    session = await host.linked()
    proofs = host.process.proofs
    host.world.hook_works = False
    host.world.events.put_nowait(DomainEvent(guest="", name="", kind="reconnected"))
    await session.until(lambda: host.process.proofs > proofs)
    await session.until(
        lambda: any(report.facts and not report.facts.hook.proven for report in session.reports)
    )
    assert (await session.ask(session.start(1))).outcome is Outcome.REFUSED


async def test_it_dials_again_at_once_and_keeps_what_it_knows(host: Host) -> None:
    session = await host.linked()
    began = time.monotonic()
    await session.end()
    session = await host.coordinator.accept()
    assert time.monotonic() - began < 0.5
    assert session.hello.memory.protected_version == 1
    assert [entry.guest for entry in session.hello.memory.entries] == [G]
    session.link.to_agent.put_nowait(Refused(reason="removed"))
    await host.coordinator.accept()


async def test_a_silent_coordinator_is_dialled_anew(host: Host) -> None:
    session = await host.linked()
    session.pump.cancel()  # its machine lost power: no word, no reset
    began = time.monotonic()
    async with asyncio.timeout(4):
        link = await host.coordinator.calls.get()
    assert link is not session.link
    assert 0.7 < time.monotonic() - began < 3.0


async def test_the_revision_becomes_durable_in_the_background(host: Host) -> None:
    session = await host.linked()
    session.revision = 9
    await session.until(lambda: host.world.memory().revision == 9)


async def test_it_says_goodbye_and_leaves_guests_alone(host: Host) -> None:
    host.world.domains[G] = DomainState.RUNNING
    session = await host.linked()
    host.stop.set()
    async with asyncio.timeout(2):
        await host.running
    await session.until(lambda: session.goodbye)
    assert session.goodbye.startswith("agent stops:")
    assert session.link.closed
    assert host.world.domains == {G: DomainState.RUNNING}
    assert host.told[-1] == "STOPPING=1"


async def test_stopping_in_a_start_leaves_no_permit_and_an_unknown_end(host: Host) -> None:
    session = await host.linked()
    host.world.hold_start = asyncio.Event()
    session.post(session.start(1), "a")
    await session.until(lambda: host.world.permits)
    host.stop.set()
    async with asyncio.timeout(2):
        await host.running
    assert not host.world.permits
    host.boot()
    session = await host.coordinator.accept()
    answer = await session.ask(session.start(1, session="old"), "a")
    assert answer.outcome is Outcome.UNKNOWN
    assert "the agent restarted" in answer.reason
    assert not host.world.starts


async def test_a_guest_that_ended_while_libvirt_was_telling_is_not_told_as_running(host: Host) -> None:
    """Its stop was answered, so it may start elsewhere by now: an older look would make it run twice."""
    host.world.domains[G] = DomainState.RUNNING
    session = await host.linked()
    host.world.hold_guests = asyncio.Event()
    host.world.domains["other"] = DomainState.RUNNING
    host.world.events.put_nowait(DomainEvent(guest="other", name="other", kind="started"))
    await asyncio.wait_for(host.world.held.wait(), 2.0)
    assert (await session.ask(session.stop(1))).outcome is Outcome.DONE
    session.reports.clear()
    host.world.hold_guests.set()
    await session.until(lambda: any(report.guests is not None for report in session.reports))
    told = next(report.guests for report in session.reports if report.guests is not None)
    assert {guest.id for guest in told if guest.active} == {"other"}
