"""Disks that only one host has, on the host's side: images for who arrives, and what is left of who went."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dr.model.base import changed
from dr.model.commands import Discard, Outcome, TicketKind
from dr.model.facts import IMAGES_ONLY, Base, DomainState, GuestFacts, LocalDisk, Part, Sighting
from dr.model.memory import Image
from tests.agent.fakes import G, Host, Session, World
from tests.agent.test_moves import seen, source

DISK = LocalDisk(target="vda", path="/vm/web.img", form="raw", size_b=1 << 30, used_b=1 << 20)
BASE = Base(path="/vm/base.img", form="raw", digest="d1")
SECOND = changed(DISK, target="vdb", path="/vm/data.img")


def receive(session: Session, generation: int) -> Any:
    return changed(session.receive(generation), disks=(DISK, SECOND))


def discard(session: Session, generation: int, *, remove_images: bool = True) -> Discard:
    ticket = session.ticket(TicketKind.DISCARD, generation)
    return Discard(ticket=ticket, remove_images=remove_images)


def paths(world: World) -> set[str]:
    return set(world.files)


async def test_images_are_there_before_anything_is_let_in(host: Host) -> None:
    session = await host.linked()
    assert (await session.ask(receive(session, 1))).outcome is Outcome.DONE
    assert paths(host.world) == {DISK.path, SECOND.path}
    assert host.world.permits
    assert host.world.memory().images[G] == (Image(path=DISK.path, inode=1), Image(path=SECOND.path, inode=2))


async def test_a_file_that_is_there_lets_nothing_in(host: Host) -> None:
    session = await host.linked()
    host.world.files[SECOND.path] = 99
    answer = await session.ask(receive(session, 1))
    assert (answer.outcome, host.world.permits) == (Outcome.FAILED, {})
    assert "there is a file /vm/data.img on this host already" in answer.reason
    assert host.world.files == {SECOND.path: 99}


async def test_which_files_are_ours_is_durable_before_they_have_their_names(host: Host) -> None:
    session = await host.linked()
    host.world.disk_full = True  # after the ticket itself was written down, were it not for that
    answer = await session.ask(receive(session, 1))
    assert answer.outcome is Outcome.REFUSED
    assert paths(host.world) == set()


async def test_a_discard_removes_them_with_the_copy(host: Host) -> None:
    session = await host.linked()
    await session.ask(receive(session, 1))
    host.world.arrive(G)
    assert (await session.ask(discard(session, 2))).outcome is Outcome.DONE
    assert (paths(host.world), host.world.domains) == (set(), {})
    assert host.world.memory().images == {}


async def test_a_discard_keeps_what_may_be_the_newest(host: Host) -> None:
    """A resume was issued, and may have come: the coordinator says so, and what ran from them is known here too."""
    session = await host.linked()
    await session.ask(receive(session, 1))
    await session.ask(discard(session, 2, remove_images=False))
    assert paths(host.world) == {DISK.path, SECOND.path}


async def test_who_was_told_to_run_has_them_for_good(host: Host) -> None:
    session = await host.linked()
    await session.ask(receive(session, 1))
    host.world.arrive(G)
    del host.world.parts[G]
    assert (await session.ask(session.resume(2))).outcome is Outcome.DONE
    assert host.world.memory().images == {}
    host.world.domains.clear()
    await session.ask(discard(session, 3))
    assert paths(host.world) == {DISK.path, SECOND.path}


@pytest.mark.parametrize("looked", [False, True])
async def test_a_copy_that_ran_by_hand_keeps_them(host: Host, looked: bool) -> None:
    """Whatever is asked of it later: somebody may need what it wrote."""
    session = await host.linked()
    await session.ask(receive(session, 1))
    host.world.arrive(G)
    del host.world.parts[G]
    host.world.domains[G] = DomainState.RUNNING
    await session.until(lambda: host.world.domains[G] is DomainState.PAUSED)
    if looked:
        host.world.domains.clear()
        await session.testify(2)
    assert (await session.ask(discard(session, 3))).outcome is Outcome.DONE
    await session.ask(session.clean(4))
    assert paths(host.world) == {DISK.path, SECOND.path}


async def test_what_is_left_of_a_move_is_told_and_cleaned(host: Host) -> None:
    """Its host rebooted in the middle, say: libvirt knows no such guest there, and images of it lie around."""
    session = await host.linked()
    await session.ask(receive(session, 1))

    def left() -> GuestFacts | None:
        facts = seen(session)
        return facts if facts is not None and facts.reason == IMAGES_ONLY else None

    await session.until(left)
    facts = left()
    assert facts is not None
    assert (facts.state, facts.name, facts.persistent) == (DomainState.SHUTOFF, "vm", False)
    assert (await session.ask(session.clean(2))).outcome is Outcome.DONE
    assert paths(host.world) == set()
    await session.until(lambda: seen(session) is None)


async def test_the_next_arrival_makes_them_anew(host: Host) -> None:
    session = await host.linked()
    await session.ask(receive(session, 1))
    assert (await session.ask(receive(session, 2))).outcome is Outcome.DONE
    assert sorted(host.world.files.values()) == [3, 4]


async def test_off_the_list_nothing_of_it_is_ours_to_remove(host: Host) -> None:
    from tests.agent.fakes import listing

    session = await host.linked()
    await session.ask(receive(session, 1))
    await session.ask(changed(listing(), version=7, entries=()))
    assert host.world.memory().images == {}
    assert paths(host.world) == {DISK.path, SECOND.path}


# ---- the source


async def test_its_disks_are_sent_along_and_no_others(host: Host) -> None:
    session = await source(host)
    host.world.local = (DISK, SECOND)
    order = changed(session.migrate(1), disks=(DISK, changed(SECOND, used_b=7)))
    assert (await session.ask(order)).outcome is Outcome.DONE
    assert [disk.target for disk in host.world.sent_disks] == ["vda", "vdb"]


@pytest.mark.parametrize(
    "now",
    [
        (DISK,),
        (DISK, SECOND, changed(DISK, target="vdc", path="/vm/more.img")),
        (DISK, changed(SECOND, size_b=2 << 30)),
        (DISK, changed(SECOND, form="qcow2")),
        (DISK, changed(SECOND, path="/vm/other.img")),
        (DISK, changed(SECOND, bases=(changed(BASE, digest="d2"),))),
        (DISK, changed(SECOND, bases=(changed(BASE, form="qcow2"),))),
        (DISK, changed(SECOND, bases=(changed(BASE, path="/vm/b.img"),))),
        (DISK, changed(SECOND, bases=())),
        (DISK, changed(SECOND, bases=(BASE, changed(BASE, path="/vm/b.img")))),
    ],
)
async def test_other_disks_than_images_were_made_for_are_not_sent(
    host: Host, now: tuple[LocalDisk, ...]
) -> None:
    """What is right now is told with it."""
    session = await source(host)
    host.world.local = now
    answer = await session.ask(changed(session.migrate(1), disks=(DISK, changed(SECOND, bases=(BASE,)))))
    assert answer.outcome is Outcome.FAILED
    assert answer.reason.endswith("are not as they were when images were made for them")
    assert answer.testimony[0].sighting is Sighting.PRESENT
    assert answer.definition is not None
    assert answer.definition.local == now
    assert host.world.parts.get(G) is not Part.LEAVING


async def test_disks_on_a_base_that_is_being_read_are_not_sent(host: Host) -> None:
    """Its agent was started anew, or the base has changed: whether it is the same is not known."""
    session = await source(host)
    disk = changed(DISK, bases=(changed(BASE, digest=""),))
    host.world.local = (disk,)
    answer = await session.ask(changed(session.migrate(1), disks=(disk,)))
    assert answer.outcome is Outcome.FAILED
    assert "/vm/base.img, which its disks lie on, is being read on this host" in answer.reason
    assert host.world.parts.get(G) is not Part.LEAVING


async def test_disks_are_sent_with_what_they_lie_on(host: Host) -> None:
    session = await source(host)
    disk = changed(DISK, bases=(BASE,))
    host.world.local = (disk,)
    assert (await session.ask(changed(session.migrate(1), disks=(disk,)))).outcome is Outcome.DONE
    assert host.world.sent_disks == (disk,)


@pytest.mark.parametrize("remove", [False, True])
async def test_old_disks_of_who_left_are_parted_with(host: Host, remove: bool) -> None:
    """Once: what somebody defines there afterwards has other disks, even under the same names."""
    session = await leaves(host)
    answer = await session.ask(changed(session.clean(2), remove_disks=remove))
    assert (answer.outcome, answer.reason) == (Outcome.DONE, "parted with")
    await session.ask(changed(session.clean(3), remove_disks=remove))
    assert host.world.parted == [((DISK.path,), remove), ((), remove)]


async def leaves(host: Host) -> Session:
    """It was sent with its disk."""
    session = await source(host)
    host.world.local, host.world.files[DISK.path] = (DISK,), 7
    await session.ask(changed(session.migrate(1), disks=(DISK,)))
    return session


async def test_a_suspended_guest_that_was_resumed_while_its_disks_were_looked_at_is_not_sent(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await source(host)
    host.world.local, host.world.files[DISK.path] = (DISK,), 7
    host.world.domains[G] = DomainState.PAUSED
    identify = host.process.identify_files

    async def is_resumed(paths: tuple[str, ...]) -> tuple[Image, ...]:
        host.world.domains[G] = DomainState.RUNNING
        return await identify(paths)

    monkeypatch.setattr(host.process, "identify_files", is_resumed)
    answer = await session.ask(changed(session.migrate(1), suspended=True, disks=(DISK,)))
    assert answer.outcome is Outcome.FAILED
    assert "was resumed meanwhile" in answer.reason
    assert "migration sent" not in host.world.steps


async def test_which_disks_leave_is_durable_before_they_are_sent(host: Host) -> None:
    session = await source(host)
    host.world.local, host.world.files[DISK.path] = (DISK,), 7
    host.world.hold_migration = asyncio.Event()
    session.post(changed(session.migrate(1), disks=(DISK,)))
    await session.until(lambda: host.world.parts.get(G) is Part.LEAVING)
    assert host.world.memory().sent == {G: (Image(path=DISK.path, inode=7),)}


async def test_disks_that_cannot_be_told_from_others_stay_and_the_guest_goes(host: Host) -> None:
    host.world.unidentified = "its file system tells nothing"
    session = await leaves(host)
    await session.ask(session.clean(2))
    assert host.world.parted == [((), False)]


@pytest.mark.parametrize("how", ["never", "failed", "came back"])
async def test_disks_of_who_did_not_leave_are_not_parted_with(host: Host, how: str) -> None:
    if how == "failed":
        host.world.migration_fails = "no"
    session = await (leaves(host) if how != "never" else source(host))
    if how == "came back":
        await session.ask(session.receive(2))
        host.world.arrive(G)
        del host.world.parts[G]
        await session.ask(session.resume(3))
    host.world.domains.clear()
    await session.ask(changed(session.clean(4), remove_disks=True))
    assert host.world.parted == [((), True)]


async def test_a_guest_whose_disks_cannot_be_looked_at_is_not_sent(host: Host) -> None:
    """It runs from another file than its definition says, say."""
    session = await source(host)
    host.world.local, host.world.blockers = (DISK,), ("disk vda (/vm/other.img) is not in its definition.",)
    answer = await session.ask(changed(session.migrate(1), disks=(DISK,)))
    assert (answer.outcome, answer.reason) == (Outcome.FAILED, host.world.blockers[0])
    assert host.world.parts.get(G) is not Part.LEAVING


# ---- interrupted


async def prepared(kind: str) -> tuple[Host, Session]:
    host = Host(World())
    session = await host.linked()
    if kind == "discard":
        await session.ask(receive(session, 1))
        host.world.arrive(G)
        del host.world.parts[G]
    return host, session


@pytest.mark.parametrize("kind", ["receive", "discard"])
async def test_every_interruption(kind: str) -> None:
    """Killed anywhere: whatever file has its name is known to be ours, and the next discard removes it."""
    orders = {"receive": receive, "discard": discard}
    host, session = await prepared(kind)
    before = len(host.world.steps)
    assert (await session.ask(orders[kind](session, 2))).outcome is Outcome.DONE
    count = len(host.world.steps) - before
    await host.kill()
    session.pump.cancel()
    assert count >= 6
    for moment in range(1, count + 1):
        host, session = await prepared(kind)
        world = host.world
        world.crash_at = len(world.steps) + moment
        session.post(orders[kind](session, 2))
        await session.until(lambda world=world: world.crashed)  # type: ignore[misc]
        step = world.steps[-1]
        await host.kill()
        await session.end()
        world.crash_at = 0
        known = {(image.path, image.inode) for image in world.memory().images.get(G, ())}
        assert set(world.files.items()) <= known, step
        host.boot()
        session = await host.linked(protect=False)
        assert (await session.ask(discard(session, 3))).outcome is Outcome.DONE
        assert paths(world) == set(), step
        await host.kill()
        await session.end()
