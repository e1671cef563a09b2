"""Disks of a guest that runs nowhere, copied from host to host: what the agent at each end does."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from dr.model.base import changed
from dr.model.commands import Abort, Answer, Outcome, SendDisks, TakeDisks
from dr.model.facts import IMAGES_ONLY, DomainState, Part, Progress, Sighting
from dr.model.memory import Image
from dr.ports.courier import CourierError, CourierLost
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown
from tests.agent.fakes import TIMING, G, Host, Sent, Session, Taken, World, listing
from tests.agent.test_local_disks import DISK, SECOND, discard
from tests.agent.test_moves import seen

LOST = CourierLost("h2 said nothing for 60 s")
NO = CourierError("h2 has no room for it")
ENDS = ["send", "take"]


def home(world: World) -> None:
    """G is off here, and has its disks here."""
    world.domains[G] = DomainState.SHUTOFF
    world.local = (DISK, SECOND)
    world.files |= {DISK.path: 7, SECOND.path: 8}
    world.inodes = 10


async def linked(host: Host, end: str) -> Session:
    if end == "send":
        home(host.world)
    return await host.linked()


def order(session: Session, end: str, generation: int) -> SendDisks | TakeDisks:
    make = session.send_disks if end == "send" else session.take_disks
    return make(generation, DISK, SECOND)


async def run(session: Session, end: str, generation: int) -> Answer:
    """The coordinator's commands have the ids of their tickets."""
    return await session.ask(order(session, end, generation), f"t{generation}")


def took(world: World) -> list[tuple[str, ...]]:
    return [asked.files for asked in world.copies if isinstance(asked, Taken)]


def sent_on(session: Session) -> bool:
    """Whether it is told that files of it are left here, of a guest that libvirt does not know."""
    facts = seen(session)
    return facts is not None and facts.reason == IMAGES_ONLY


async def under_way(host: Host, session: Session, end: str, generation: int = 1) -> str:
    """It is copied, until somebody ends that."""
    host.world.hold_copy = asyncio.Event()
    asked = session.post(order(session, end, generation), f"t{generation}")
    await session.until(lambda: host.courier.under_way)
    return asked


# ---- either end


@pytest.mark.parametrize("end", ENDS)
async def test_nothing_is_copied_of_who_may_run_here(host: Host, end: str) -> None:
    session = await linked(host, end)
    host.world.domains[G] = DomainState.RUNNING
    answer = await run(session, end, 1)
    assert (answer.outcome, answer.testimony[0].sighting) == (Outcome.FAILED, Sighting.PRESENT)
    assert "vm is not known to be off here: present" in answer.reason
    host.world.sight_unknown = "libvirtd is dead"
    answer = await run(session, end, 2)
    assert (answer.outcome, answer.testimony[0].sighting) == (Outcome.FAILED, Sighting.UNKNOWN)
    assert (host.world.copies, host.world.hidden) == ([], {})


@pytest.mark.parametrize("end", ENDS)
async def test_a_permit_that_was_left_is_taken_back_first(host: Host, end: str) -> None:
    session = await linked(host, end)
    host.world.permits[G] = "t0"
    await under_way(host, session, end)
    assert host.world.permits == {}


@pytest.mark.parametrize("end", ENDS)
async def test_while_it_is_copied_nobody_says_that_it_is_not_here(host: Host, end: str) -> None:
    session = await linked(host, end)
    await under_way(host, session, end)
    testimony = await session.testify(1)
    assert (testimony.sighting, testimony.left_by) == (Sighting.UNKNOWN, "")
    assert "a ticket is still under way here" in testimony.reason


@pytest.mark.parametrize("end", ENDS)
async def test_a_ticket_whose_session_ended_copies_nothing(
    host: Host, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked after everything that takes its time."""
    session = await linked(host, end)
    slow, go_on = "identify_files" if end == "send" else "image_files", asyncio.Event()
    call = getattr(host.process, slow)

    async def waits(*arguments: Any) -> Any:
        host.world.held.set()
        await go_on.wait()
        return await call(*arguments)

    monkeypatch.setattr(host.process, slow, waits)
    session.post(order(session, end, 1), "t1")
    await session.until(host.world.held.is_set)
    await session.end()
    session = await host.linked(protect=False)
    go_on.set()
    await session.until(lambda: not _under_way(host.world, "t1"))
    answer = await run(session, end, 1)
    assert answer.outcome is Outcome.REFUSED
    assert "the session of its ticket ended before it was acted on" in answer.reason
    assert host.world.copies == []


def _under_way(world: World, command: str) -> bool:
    return any(known.command == command and known.answer is None for known in world.memory().tickets)


@pytest.mark.parametrize("end", ENDS)
async def test_it_is_called_off_at_either_end(host: Host, end: str) -> None:
    session = await linked(host, end)
    abort = Abort(guest=G, name="vm")
    assert (await session.ask(abort)).outcome is Outcome.FAILED, "nothing is under way: libvirt is asked"
    asked = await under_way(host, session, end)
    before = host.world.steps.count("aborting")
    assert (await session.ask(abort)).outcome is Outcome.DONE
    assert host.world.steps.count("aborting") == before, "libvirt is not asked"
    answer = await session.answer(asked)
    assert (answer.outcome, answer.reason) == (Outcome.FAILED, "called off")
    assert answer.testimony[0].sighting is Sighting.ABSENT
    assert (await session.ask(abort)).outcome is Outcome.FAILED


@pytest.mark.parametrize("end", ENDS)
async def test_what_the_other_end_broke_off_is_called_off_and_stays(host: Host, end: str) -> None:
    """It is tried again at once."""
    session = await linked(host, end)
    asked = await under_way(host, session, end)
    assert (await session.ask(Abort(guest=G, name="vm", again=True))).outcome is Outcome.DONE
    answer = await session.answer(asked)
    assert (answer.outcome, answer.testimony[0].sighting) == (Outcome.UNKNOWN, Sighting.ABSENT)
    assert bool(host.world.hidden) == (end == "take")


@pytest.mark.parametrize(("end", "again"), [*itertools.product(ENDS, [False, True])])
async def test_what_is_called_off_before_it_began_does_not_begin(
    host: Host, end: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await linked(host, end)
    slow = "identify_files" if end == "send" else "image_files"
    call = getattr(host.process, slow)

    async def waits(*arguments: Any) -> Any:
        assert (await session.ask(Abort(guest=G, name="vm", again=again))).outcome is Outcome.DONE
        return await call(*arguments)

    monkeypatch.setattr(host.process, slow, waits)
    answer = await run(session, end, 1)
    assert answer.outcome is (Outcome.UNKNOWN if again else Outcome.FAILED)
    assert "was called off before it began" in answer.reason
    assert host.world.copies == []
    kept = again and end == "take"
    assert (bool(host.world.hidden), bool(host.world.memory().images)) == (kept, kept)
    monkeypatch.undo()
    assert (await run(session, end, 2)).outcome is Outcome.DONE, "the next is not called off"


async def test_a_migration_is_called_off_as_ever_while_nothing_is_copied(host: Host) -> None:
    session = await host.linked()
    host.world.domains[G] = DomainState.RUNNING
    host.world.hold_migration = asyncio.Event()
    asked = session.post(session.migrate(1))
    await session.until(lambda: host.world.parts.get(G) is Part.LEAVING)
    assert (await session.ask(Abort(guest=G, name="vm"))).outcome is Outcome.DONE
    assert (await session.answer(asked)).outcome is Outcome.FAILED


@pytest.mark.parametrize("end", ENDS)
async def test_a_copy_does_not_hold_up_the_end_of_the_agent(host: Host, end: str) -> None:
    """Nor is it called off by that: what has arrived stays for the next try."""
    session = await linked(host, end)
    await under_way(host, session, end)
    loop = asyncio.get_running_loop()
    before = loop.time()
    host.stop.set()
    async with asyncio.timeout(2.0):
        await host.running
    assert loop.time() - before < 2 * TIMING.drain_s
    assert host.courier.closed
    assert _under_way(host.world, "t1")
    assert bool(host.world.hidden) == (end == "take")
    host.boot()
    session = await host.linked(protect=False)
    answer = await run(session, end, 1)
    assert (answer.outcome, "restarted" in answer.reason) == (Outcome.UNKNOWN, True)


# ---- the destination


async def test_disks_have_their_names_only_when_they_are_whole(host: Host) -> None:
    session = await host.linked()
    asked = await under_way(host, session, "take")
    made = (Image(path=DISK.path, inode=1), Image(path=SECOND.path, inode=2))
    assert (host.world.files, host.world.hidden) == ({}, {DISK.path: 1, SECOND.path: 2})
    assert host.world.memory().images == {G: made}, "durable, so that nobody takes them for somebody's"
    assert host.world.hold_copy is not None
    host.world.hold_copy.set()
    answer = await session.answer(asked)
    assert (answer.outcome, answer.reason) == (Outcome.DONE, "96 MiB taken")
    (testimony,) = answer.testimony
    assert (testimony.sighting, testimony.sealed, testimony.left_by) == (Sighting.ABSENT, 1, "")
    assert (host.world.files, host.world.hidden) == ({DISK.path: 1, SECOND.path: 2}, {})
    assert host.world.copies == [Taken(G, "t1", "h2", (f"{DISK.path}.new", f"{SECOND.path}.new"))]
    assert not host.world.permits


async def test_a_file_that_is_there_is_not_written_to(host: Host) -> None:
    session = await host.linked()
    host.world.files[SECOND.path] = 99
    answer = await run(session, "take", 1)
    assert (answer.outcome, answer.testimony[0].sighting) == (Outcome.FAILED, Sighting.ABSENT)
    assert "there is a file /vm/data.img on this host already" in answer.reason
    assert (host.world.files, host.world.hidden, host.world.copies) == ({SECOND.path: 99}, {}, [])


async def test_images_that_could_be_forgotten_are_not_left(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await host.linked()
    prepare = host.process.prepare_images

    async def fills_the_disk(*arguments: Any) -> Any:
        made = await prepare(*arguments)
        host.world.disk_full = True
        return made

    monkeypatch.setattr(host.process, "prepare_images", fills_the_disk)
    answer = await run(session, "take", 1)
    assert "it ended (failed), but the agent cannot write its memory" in answer.reason
    assert (host.world.hidden, host.world.copies) == ({}, [])
    host.world.disk_full = False
    await session.until(lambda: not _under_way(host.world, "t1"))
    assert host.world.memory().images == {}


async def test_images_that_cannot_be_found_at_once_are_not_left(host: Host) -> None:
    host.world.images_unseen = HypervisorUnknown("its disk hangs")
    session = await host.linked()
    answer = await run(session, "take", 1)
    assert (answer.outcome, host.world.copies) == (Outcome.FAILED, [])
    assert "images for vm were not made: its disk hangs" in answer.reason
    assert (host.world.hidden, host.world.memory().images) == ({}, {})


async def test_what_broke_off_stays_and_the_next_try_goes_on_with_it(host: Host) -> None:
    session = await host.linked()
    host.world.copy_ends = LOST
    answer = await run(session, "take", 1)
    assert (answer.outcome, answer.reason) == (Outcome.UNKNOWN, str(LOST))
    assert (answer.testimony[0].sighting, answer.testimony[0].sealed) == (Sighting.ABSENT, 1)
    assert (host.world.files, host.world.hidden) == ({}, {DISK.path: 1, SECOND.path: 2})
    assert [image.inode for image in host.world.memory().images[G]] == [1, 2]
    host.world.copy_ends = None
    again = session.take_disks(2, SECOND, DISK)  # the courier goes by their order
    assert (await session.ask(again)).outcome is Outcome.DONE
    assert took(host.world)[1] == (f"{SECOND.path}.new", f"{DISK.path}.new")
    assert host.world.files == {DISK.path: 1, SECOND.path: 2}


async def test_those_that_have_their_names_already_are_gone_on_with_too(host: Host) -> None:
    session = await host.linked()
    host.world.copy_ends_late = LOST
    answer = await run(session, "take", 1)
    assert (answer.outcome, answer.reason) == (Outcome.UNKNOWN, str(LOST))
    assert host.world.files == {DISK.path: 1, SECOND.path: 2}
    host.world.copy_ends_late = None
    assert (await run(session, "take", 2)).outcome is Outcome.DONE
    assert took(host.world)[1] == (DISK.path, SECOND.path)
    assert host.world.files == {DISK.path: 1, SECOND.path: 2}


@pytest.mark.parametrize("why", ["another disk", "a disk more", "a disk less", "one is gone"])
async def test_images_for_other_disks_are_made_anew(host: Host, why: str) -> None:
    session = await host.linked()
    host.world.copy_ends = LOST
    await run(session, "take", 1)
    third = changed(SECOND, target="vdc", path="/vm/other.img")
    disks = {"another disk": (DISK, third), "a disk more": (DISK, SECOND, third), "a disk less": (DISK,)}
    if why == "one is gone":
        del host.world.hidden[SECOND.path]
    now = disks.get(why, (DISK, SECOND))
    host.world.copy_ends = None
    assert (await session.ask(session.take_disks(2, *now))).outcome is Outcome.DONE
    inodes = dict(zip((disk.path for disk in now), itertools.count(3), strict=False))
    assert (host.world.files, host.world.hidden) == (inodes, {})
    assert [image.inode for image in host.world.memory().images[G]] == [*inodes.values()]


async def test_earlier_images_that_cannot_be_looked_for_are_left_for_the_next_try(host: Host) -> None:
    session = await host.linked()
    host.world.copy_ends = LOST
    await run(session, "take", 1)
    host.world.images_unseen = HypervisorUnknown("its disk hangs")
    assert (await run(session, "take", 2)).outcome is Outcome.FAILED
    host.world.copy_ends = host.world.images_unseen = None
    assert (await run(session, "take", 3)).outcome is Outcome.DONE
    assert host.world.files == {DISK.path: 1, SECOND.path: 2}


async def test_what_cannot_be_copied_is_removed(host: Host) -> None:
    session = await host.linked()
    host.world.copy_ends = NO
    answer = await run(session, "take", 1)
    assert (answer.outcome, answer.reason) == (Outcome.FAILED, str(NO))
    assert (answer.testimony[0].sighting, answer.testimony[0].sealed) == (Sighting.ABSENT, 1)
    assert (host.world.files, host.world.hidden, host.world.memory().images) == ({}, {}, {})


async def test_what_cannot_be_removed_is_told_and_not_forgotten(host: Host) -> None:
    session = await host.linked()
    host.world.copy_ends, host.world.remove_fails = NO, ""
    await under_way(host, session, "take")
    host.world.remove_fails = "Read-only file system"
    assert host.world.hold_copy is not None
    host.world.hold_copy.set()
    answer = await session.answer("t1")
    assert answer.outcome is Outcome.FAILED
    assert answer.reason == f"{NO}; its images are still here: Read-only file system"
    host.world.remove_fails = ""
    assert (await session.ask(discard(session, 2))).outcome is Outcome.DONE
    assert host.world.hidden == {}


async def test_what_its_source_may_know_to_be_here_is_not_removed(host: Host) -> None:
    """Either end's word makes these the disks that count."""
    session = await host.linked()
    host.world.copy_ends_late = NO
    answer = await run(session, "take", 1)
    assert (answer.outcome, answer.testimony[0].sighting) == (Outcome.UNKNOWN, Sighting.ABSENT)
    assert answer.reason == f"all disks of vm are here, and h2 may know: {NO}"
    assert host.world.files == {DISK.path: 1, SECOND.path: 2}
    assert [image.inode for image in host.world.memory().images[G]] == [1, 2]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (HypervisorError("somebody's file is there"), Outcome.FAILED),
        (HypervisorUnknown("its disk hangs"), Outcome.UNKNOWN),
        (TimeoutError(), Outcome.UNKNOWN),
    ],
)
async def test_disks_that_do_not_get_their_names(host: Host, error: Exception, outcome: Outcome) -> None:
    """Where that may yet happen, nothing is removed."""
    session = await host.linked()
    host.world.place_fails = error
    answer = await run(session, "take", 1)
    assert (answer.outcome, answer.testimony[0].sighting) == (outcome, Sighting.ABSENT)
    assert str(error) in answer.reason
    assert answer.reason
    kept = outcome is Outcome.UNKNOWN
    assert (bool(host.world.hidden), bool(host.world.memory().images)) == (kept, kept)


async def test_disks_that_a_guest_runs_from_are_not_as_they_are_at_their_source(host: Host) -> None:
    session = await host.linked()
    asked = await under_way(host, session, "take")
    host.world.domains[G] = DomainState.RUNNING
    assert host.world.hold_copy is not None
    host.world.hold_copy.set()
    answer = await session.answer(asked)
    assert (answer.outcome, answer.testimony[0].sighting) == (Outcome.UNKNOWN, Sighting.PRESENT)


async def test_whoever_starts_from_them_has_them_for_good(host: Host) -> None:
    session = await host.linked()
    await run(session, "take", 1)
    assert (await session.ask(session.start(2))).outcome is Outcome.DONE
    assert host.world.memory().images == {}
    await session.ask(session.stop(3))
    await session.ask(discard(session, 4))
    assert host.world.files == {DISK.path: 1, SECOND.path: 2}


async def test_until_then_a_discard_removes_them(host: Host) -> None:
    session = await host.linked()
    await run(session, "take", 1)
    await session.ask(discard(session, 2))
    assert (host.world.files, host.world.memory().images) == ({}, {})


# ---- the source


async def test_it_is_sent_as_ordered_and_said_that_it_left(host: Host) -> None:
    session = await linked(host, "send")
    answer = await run(session, "send", 1)
    assert (answer.outcome, answer.reason) == (Outcome.DONE, "96 MiB sent")
    (testimony,) = answer.testimony
    assert (testimony.sighting, testimony.sealed, testimony.left_by) == (Sighting.ABSENT, 1, "t1")
    files = (DISK.path, SECOND.path)
    assert host.world.copies == [Sent(G, "t77", "h2", ("10.0.0.2",), 4711, files, 50)]
    assert (await session.testify(2)).left_by == "t1", "and goes on saying so"


async def test_what_was_taken_and_never_started_here_is_sent_on(host: Host) -> None:
    """libvirt does not know the guest here; and then its disks are old, as those of any other."""
    session = await host.linked()
    await run(session, "take", 1)
    assert (await run(session, "send", 2)).outcome is Outcome.DONE
    await session.until(lambda: sent_on(session))  # who is not told of is not cleaned up
    assert (await session.ask(session.clean(3))).outcome is Outcome.DONE
    await session.until(lambda: not sent_on(session))
    assert host.world.parted == [((DISK.path, SECOND.path), False)]
    assert host.world.files == {DISK.path: 1, SECOND.path: 2}, "not removed as images of nobody's"


@pytest.mark.parametrize("how", ["not whole", "another file", "who can tell"])
async def test_what_was_not_taken_whole_is_not_sent_on(host: Host, how: str) -> None:
    session = await host.linked()
    host.world.copy_ends = LOST if how == "not whole" else None
    await run(session, "take", 1)
    host.world.copy_ends = None
    if how == "another file":
        host.world.files[SECOND.path] = 99
    if how == "who can tell":
        host.world.images_unseen = HypervisorUnknown("its disk hangs")
    answer = await run(session, "send", 2)
    assert answer.outcome is Outcome.FAILED
    assert "its disks could not be looked at" in answer.reason


@pytest.mark.parametrize(("error", "outcome"), [(LOST, Outcome.UNKNOWN), (NO, Outcome.FAILED)])
async def test_what_did_not_arrive_did_not_leave(host: Host, error: Exception, outcome: Outcome) -> None:
    session = await linked(host, "send")
    host.world.copy_ends = error
    answer = await run(session, "send", 1)
    assert (answer.outcome, answer.reason) == (outcome, str(error))
    (testimony,) = answer.testimony
    assert (testimony.sighting, testimony.sealed, testimony.left_by) == (Sighting.ABSENT, 1, "")
    assert (await session.testify(2)).left_by == ""


@pytest.mark.parametrize("known", [True, False])
async def test_disks_of_who_may_run_here_again_have_not_left(host: Host, known: bool) -> None:
    """Nobody may write to them meanwhile; somebody did, or may have."""
    session = await linked(host, "send")
    asked = await under_way(host, session, "send")
    if known:
        host.world.domains[G] = DomainState.RUNNING
    else:
        host.world.sight_unknown = "libvirtd is dead"
    assert host.world.hold_copy is not None
    host.world.hold_copy.set()
    answer = await session.answer(asked)
    (testimony,) = answer.testimony
    assert answer.outcome is Outcome.UNKNOWN
    assert (testimony.sighting is Sighting.PRESENT, testimony.left_by) == (known, "")
    host.world.sight_unknown = ""
    host.world.domains[G] = DomainState.SHUTOFF
    assert (await session.testify(2)).left_by == ""


async def test_an_older_migration_is_not_taken_for_it(host: Host) -> None:
    """libvirt goes on saying that the domain is off because it was migrated."""
    session = await linked(host, "send")
    host.world.domains[G] = DomainState.RUNNING
    assert (await session.ask(session.migrate(1), "t1")).outcome is Outcome.DONE
    assert (await session.testify(1)).left_by == "t1"
    home(host.world)
    host.world.reasons[G] = "migrated"
    host.world.copy_ends = LOST
    await run(session, "send", 2)
    assert (await session.testify(3)).left_by == ""
    host.world.copy_ends = None
    await run(session, "send", 4)
    assert (await session.testify(5)).left_by == "t4"


async def test_a_lost_copy_is_not_said_to_be_an_earlier_one(host: Host) -> None:
    session = await linked(host, "send")
    await run(session, "send", 1)
    host.world.copy_ends = LOST
    await run(session, "send", 2)
    assert (await session.testify(3)).left_by == ""


@pytest.mark.parametrize(
    "now",
    [
        (DISK,),
        (DISK, changed(SECOND, size_b=2 << 30)),
        (DISK, changed(SECOND, path="/vm/other.img")),
        (DISK, SECOND, changed(DISK, target="vdc", path="/vm/more.img")),
    ],
)
async def test_other_disks_than_were_asked_for_are_not_sent(host: Host, now: tuple[Any, ...]) -> None:
    session = await linked(host, "send")
    host.world.local = now
    answer = await run(session, "send", 1)
    assert (answer.outcome, host.world.copies) == (Outcome.FAILED, [])
    assert answer.testimony[0].sighting is Sighting.ABSENT
    assert answer.definition is not None
    assert answer.definition.local == now


async def test_a_guest_whose_disks_cannot_be_copied_as_they_are_is_not_sent(host: Host) -> None:
    session = await linked(host, "send")
    host.world.blockers = ("disk vda has a backing file.",)
    answer = await run(session, "send", 1)
    assert (answer.outcome, answer.reason, host.world.copies) == (
        Outcome.FAILED,
        "disk vda has a backing file.",
        [],
    )
    del host.world.domains[G]
    answer = await run(session, "send", 2)
    assert "its disks could not be looked at: no such domain" in answer.reason


async def test_which_disks_leave_is_durable_before_they_do(host: Host) -> None:
    session = await linked(host, "send")
    await under_way(host, session, "send")
    assert host.world.memory().sent == {G: (Image(path=DISK.path, inode=7), Image(path=SECOND.path, inode=8))}


@pytest.mark.parametrize(
    ("error", "parted"), [(None, (DISK.path, SECOND.path)), (LOST, ()), (NO, ())], ids=["left", "lost", "no"]
)
async def test_only_disks_that_left_are_parted_with(
    host: Host, error: Exception | None, parted: tuple[str, ...]
) -> None:
    """With the clean-up here, once it runs over there."""
    session = await linked(host, "send")
    host.world.copy_ends = error
    await run(session, "send", 1)
    assert (await session.ask(session.clean(2))).outcome is Outcome.DONE
    assert host.world.parted == [(parted, False)]


async def test_disks_that_cannot_be_told_from_others_stay_and_are_copied(host: Host) -> None:
    session = await linked(host, "send")
    host.world.unidentified = "its file system tells nothing"
    assert (await run(session, "send", 1)).outcome is Outcome.DONE
    await session.ask(session.clean(2))
    assert host.world.parted == [((), False)]


async def test_whoever_starts_here_again_has_not_left(host: Host) -> None:
    session = await linked(host, "send")
    await run(session, "send", 1)
    assert (await session.ask(session.start(2))).outcome is Outcome.DONE
    memory = host.world.memory()
    assert (memory.disks_left, memory.sent) == ({}, {})
    stopped = await session.ask(session.stop(3))
    assert stopped.testimony[0].left_by == ""
    await session.ask(session.clean(4))
    assert host.world.parted == [((), False)]


async def test_off_the_list_it_is_forgotten_that_disks_left(host: Host) -> None:
    session = await linked(host, "send")
    await run(session, "send", 1)
    await session.ask(changed(listing(), version=7, entries=()))
    assert (host.world.memory().disks_left, host.world.memory().sent) == ({}, {})
    await session.ask(listing(version=8))
    assert (await session.testify(2)).left_by == ""


async def test_how_far_it_is_is_told_until_it_ends(host: Host) -> None:
    session = await linked(host, "send")
    asked = await under_way(host, session, "send")
    await session.until(lambda: (moves := _moves(session)) and (moves[0].guest, moves[0].done_pct) == (G, 60))
    assert host.world.hold_copy is not None
    host.world.hold_copy.set()
    await session.answer(asked)
    await session.until(lambda: _moves(session) == ())


def _moves(session: Session) -> tuple[Progress, ...] | None:
    told = [report.moves for report in session.reports if report.moves is not None]
    return told[-1] if told else None


# ---- interrupted


async def test_after_a_restart_in_the_middle_the_next_try_goes_on(host: Host) -> None:
    session = await host.linked()
    await under_way(host, session, "take")
    await host.kill()
    await session.end()
    host.boot()
    host.world.hold_copy = None
    session = await host.linked(protect=False)
    answer = await run(session, "take", 1)
    assert (answer.outcome, "restarted" in answer.reason) == (Outcome.UNKNOWN, True)
    assert (await session.testify(1)).sighting is Sighting.ABSENT
    assert (await run(session, "take", 2)).outcome is Outcome.DONE
    assert host.world.files == {DISK.path: 1, SECOND.path: 2}


async def prepared(end: str) -> tuple[Host, Session]:
    host = Host(World())
    session = await linked(host, end)
    await asyncio.sleep(0.05)
    return host, session


@pytest.mark.parametrize("end", ENDS)
async def test_every_interruption(end: str) -> None:
    """Killed anywhere: never run twice, no false `left by`, and whatever has a disk's name is known to be ours."""
    host, session = await prepared(end)
    before = len(host.world.steps)
    assert (await run(session, end, 1)).outcome is Outcome.DONE
    count = len(host.world.steps) - before
    await host.kill()
    session.pump.cancel()
    assert count >= 8
    seen = set()
    for moment in range(1, count + 1):
        host, session = await prepared(end)
        world = host.world
        world.crash_at = len(world.steps) + moment
        session.post(order(session, end, 1), "t1")
        await session.until(lambda world=world: world.crashed)  # type: ignore[misc]
        step = world.steps[-1]
        seen.add(step)
        await host.kill()
        await session.end()
        world.crash_at = 0
        memory = world.memory()
        begun = any(known.command == "t1" for known in memory.tickets)
        done = any(known.answer and known.answer.outcome is Outcome.DONE for known in memory.tickets)
        assert begun or not (world.copies or world.hidden), step
        if end == "take":
            known = {(image.path, image.inode) for image in memory.images.get(G, ())}
            assert set(world.files.items()) <= known, step
        host.boot()
        session = await host.linked(protect=False)
        again = await session.ask(order(session, end, 1), "t1-again")
        assert (again.outcome is Outcome.REFUSED) == begun, (step, again)
        testimony = await session.testify(1)
        assert testimony.sighting is Sighting.ABSENT, step
        if begun:
            assert (testimony.left_by == "t1") == (done and end == "send"), (step, testimony)
        assert (await run(session, end, 2)).outcome is Outcome.DONE, step
        assert set(world.files) == {DISK.path, SECOND.path}, step
        assert world.hidden == {}, step
        await host.kill()
        await session.end()
    assert {"saving", "saved", "copy begun", "copied"} <= seen
