"""Disks that only a guest's own host has: from cold it starts where the newest copy is, live it goes where it fits."""

from __future__ import annotations

from typing import Any

import pytest

from dr.core import definitions, disks, fencing, links, migration, onecopy, placement, preflight, spare
from dr.core.definition import needs_of
from dr.model.base import changed
from dr.model.commands import (
    Abort,
    Answer,
    Clean,
    Describe,
    Discard,
    Migrate,
    Outcome,
    Protect,
    Receive,
    Resume,
)
from dr.model.effects import Reply, Send, SendStart
from dr.model.events import Answered, AskDrain, AskProtect, AskRemoveHost, AskSet, AskStart, Reported, Tick
from dr.model.facts import Base, Definition, DomainState, LocalDisk, Part, Progress
from dr.model.policy import GuestPolicy, PolicyChange
from dr.model.preflight import CheckName
from dr.model.records import GuestPhase, HostPhase
from tests.core.build import Bench, domain, facts, guest, host
from tests.core.test_moves import PRESENT, absent, answer, ask, last

MIB = 2**20
DISK = LocalDisk(target="vda", path="/vm/g1.img", form="raw", size_b=8192 * MIB, used_b=4096 * MIB)
CONSENT = GuestPolicy(local_disks=True)
XML = (
    "<domain type='kvm'><name>g1</name><memory unit='MiB'>1024</memory><os><type machine='q35'>hvm</type></os>"
    "</domain>"
)


def local(name: str, at: str = "h1", **fields: Any) -> Any:
    base = guest(name, at, policy=CONSENT, disks_on=at)
    needs = changed(base.needs, storage=("folder:/vm",), local=(changed(DISK, path=f"/vm/{name}.img"),))
    return changed(base, needs=needs, **fields)


def bench(room_mib: int = 100_000, **rooms: int) -> Bench:
    made = Bench("h1", "h2", "h3")
    for name in ("h1", "h2", "h3"):
        room = {"/vm": rooms.get(name, room_mib)}
        has = facts(name, live_migration=True, storage=("folder:/vm", "nbd:a"), room_mib=room)
        made.put(host(name, facts=has))
    return made.put(local("g1"))


def cold(**fields: Any) -> Bench:
    """It runs nowhere, and waits for a place."""
    made = bench()
    made.see("h1", domain("g1", DomainState.SHUTOFF))
    made.put(local("g1", phase=GuestPhase.RECOVERING, may_run_on=(), **fields))
    return made


def test_its_folder_is_needed_as_storage_is() -> None:
    definition = Definition(id="g1", name="g1", xml=XML, digest="d", storage=("nbd:a",), local=(DISK,))
    needs, blockers = needs_of(definition)
    assert (needs.storage, needs.local, blockers) == (("folder:/vm", "nbd:a"), (DISK,), ())


def test_a_host_without_that_folder_takes_it_neither_way() -> None:
    made = bench().put(host("h2", facts=facts("h2", live_migration=True)))
    said = "has no folder /vm that can be written to, on a disk of its own"
    for live in (False, True):
        assert said in placement.why_not(made.draft(), made.guest("g1"), made.host("h2"), with_disks=live)


# ---- from cold


def test_from_cold_it_starts_where_its_newest_disk_is() -> None:
    made = cold(disks_on="h2")
    made.send(Tick())
    (start,) = [e for e in made.effects if isinstance(e, SendStart)]
    assert start.host == "h2"


def test_and_nowhere_else() -> None:
    made = cold(disks_on="h2")
    made.put(changed(made.host("h2"), phase=made.host("h2").phase.SUSPECT))
    made.send(Tick())
    assert not [e for e in made.effects if isinstance(e, SendStart)]
    assert "does not have g1's disks, which lie on h2 only" in made.guest("g1").reason
    assert made.state.alerts["guest/g1/waiting"].todo.startswith(
        "bring h2 back, it starts there then; or restore"
    )


def test_not_even_there_while_nobody_knows_which_is_the_newest() -> None:
    made = cold(disks_on="")
    made.send(Tick())
    assert not [e for e in made.effects if isinstance(e, SendStart)]
    assert "dr guest start g1 --disks-on HOST" in made.guest("g1").reason


def test_a_person_says_which_is_the_newest() -> None:
    made = cold(disks_on="")
    made.send(Tick())
    for to, said in (("h9", "no such host: h9"), ("h3", "")):
        made.send(AskStart(id="a", by="ops", guests=("g1",), disks_on=to))
        reply = next(e for e in reversed(made.effects) if isinstance(e, Reply))
        assert "".join(reply.blockers) == said
    made.send(Tick())
    assert [e.host for e in made.effects if isinstance(e, SendStart)] == ["h3"]


def test_that_is_for_local_disks_only() -> None:
    made = bench().put(guest("g2", phase=GuestPhase.STOPPED))
    made.send(AskStart(id="a", by="ops", guests=("g2",), disks_on="h2"))
    reply = next(e for e in reversed(made.effects) if isinstance(e, Reply))
    assert reply.blockers == ("g2 has no disks that only one host has",)


def test_nobody_is_fenced_for_it_nor_is_room_kept() -> None:
    made = bench()
    assert list(fencing.recoverable(made.draft(), made.host("h1"))) == []
    assert spare.stranded(made.draft(), "h1") == []
    made.put(changed(guest("g1", "h1"), policy=CONSENT))
    assert list(fencing.recoverable(made.draft(), made.host("h1"))) == ["g1"], "with a shared disk it is"


def test_two_that_ran_at_once_leave_it_open_which_disk_counts() -> None:
    made = bench()
    onecopy.add_place(draft := made.draft(), made.guest("g1"), made.host("h2"), 2)
    made.state.apply(draft)
    made.see("h2", domain("g1"))
    for name in ("h1", "h2"):
        made.look(name, told={})
    made.send(Reported(host="h2", session="s-h2", guests=(domain("g1"),)))
    assert made.guest("g1").phase is GuestPhase.ERROR
    assert made.guest("g1").disks_on == ""


def test_an_older_store_does_not_know_it() -> None:
    made = bench()
    onecopy.doubt_everything(draft := made.draft(), made.guest("g1"), 1)
    assert draft.guest("g1").disks_on == ""  # type: ignore[union-attr]


# ---- live


def test_live_it_goes_where_there_is_room_for_its_disks() -> None:
    made = bench(h2=4095)
    flight = preflight.of(made.draft(), made.guest("g1"))
    assert (flight.to, flight.refusals) == ("h3", [])
    assert "disk vda (4096 MiB in /vm/g1.img) is copied to h3" in [check.text for check in flight.checks]
    why = preflight.of(made.draft(), made.guest("g1"), "h2").refusals
    assert why == ["h2 has 4095 MiB free in /vm, and 4096 MiB of disks would be copied there"]


def test_what_is_sent_is_what_images_were_made_for() -> None:
    """Though its disks were looked at again in between."""
    made = bench()
    ask(made)
    described(made, changed(DISK, size_b=2 * DISK.size_b))
    order = last(made, Receive)
    answer(made, order)
    assert last(made, Migrate).body.disks == order.body.disks


def described(made: Bench, *found: LocalDisk, blockers: tuple[str, ...] = (), digest: str = "d1") -> None:
    """Its host describes it."""
    draft = made.draft()
    definition = Definition(id="g1", name="g1", xml=XML, digest=digest, local=found, blockers=blockers)
    told = Answer(outcome=Outcome.DONE, definition=definition)
    definitions.described(draft, made.guest("g1"), made.host("h1"), told)
    made.state.apply(draft)


def test_a_disk_that_cannot_be_read_for_a_moment_is_still_local() -> None:
    made = bench()
    described(made, blockers=("g1: disk vda (/vm/g1.img) cannot be read here: Input/output error.",))
    record = made.guest("g1")
    assert record.needs.local
    assert "Input/output error" in preflight.of(made.draft(), record).refusals[0]
    assert made.draft().alert_of("guest/g1/blocked") is not None
    described(made, *record.needs.local)
    assert made.draft().alert_of("guest/g1/blocked") is None


def test_what_its_host_has_defined_since_comes_before_its_start_there() -> None:
    """Its disk was pivoted to another file while nobody of ours looked, say; then its host rebooted."""
    made = cold(disks_on="h1")
    made.see("h1", domain("g1", DomainState.SHUTOFF, digest="d2"))
    made.send(Tick())
    assert not [e for e in made.effects if isinstance(e, SendStart)]
    (order,) = [e for e in made.effects if isinstance(e, Send) and isinstance(e.body, Describe)]
    assert order.host == "h1"
    definition = Definition(id="g1", name="g1", xml=XML, digest="d2", local=made.guest("g1").needs.local)
    told = Answer(outcome=Outcome.DONE, definition=definition)
    made.send(Answered(host="h1", session=order.session, effect=order.id, answer=told))
    made.now += 10.0
    made.hear()
    made.send(Tick())
    (start,) = [e for e in made.effects if isinstance(e, SendStart)]
    assert (start.host, start.version, made.guest("g1").digest) == ("h1", 2, "d2")


def test_a_host_that_was_removed_is_not_known_by_its_name() -> None:
    """It may join anew with other disks."""
    made = cold(disks_on="h2")
    made.put(changed(made.host("h2"), phase=HostPhase.FENCED))
    made.send(AskRemoveHost(id="r", by="ops", host="h2"))
    assert made.guest("g1").disks_on == ""
    made.now += 60.0
    made.hear("h1", "h3")
    made.send(Tick())
    assert "dr guest start g1 --disks-on HOST" in made.guest("g1").reason


@pytest.mark.parametrize("deadline_s", [0.0, 36000.0])
def test_a_copy_that_stands_still_is_given_up_in_a_hurry_too(deadline_s: float) -> None:
    made = bench()
    ask(made)
    answer(made, last(made, Receive))
    made.send(AskDrain(id="d", by="ops", host="h1", deadline_s=deadline_s))
    for elapsed_s in range(0, 200, 10):
        made.now += 10.0
        made.hear()
        progress = Progress(guest="g1", elapsed_s=float(elapsed_s), total_mib=9000.0, remaining_mib=4000.0)
        made.send(Reported(host="h1", session="s-h1", moves=(progress,)))
        made.send(Tick())
    assert [e for e in made.effects if isinstance(e, Send) and isinstance(e.body, Abort)]


def test_it_does_not_come_back_before_its_old_disk_is_out_of_the_way() -> None:
    made = bench()
    made.put(local("g1", "h2"))
    made.see("h1", domain("g1", DomainState.SHUTOFF))
    why = preflight.of(made.draft(), made.guest("g1"), "h1").refusals
    assert why == ["h1 has not parted with what an earlier stay of g1 left there"]


def test_consent_ends_the_alert_and_taking_it_back_raises_it() -> None:
    made = bench()
    for consent in (False, True):
        part = PolicyChange(local_disks=consent)
        made.send(AskSet(id="s", by="ops", guests=("g1",), policy=part))
        assert (made.draft().alert_of("guest/g1/blocked") is None) == consent


def test_those_who_arrive_need_that_room_too() -> None:
    made = bench(room_mib=8000).put(local("g2"))
    assert ask(made).accepted
    why = preflight.of(made.draft(), made.guest("g2"), "h2").refusals
    assert why == ["h2 has 3904 MiB free in /vm, and 4096 MiB of disks would be copied there"]
    assert placement.why_not(made.draft(), made.guest("g1"), made.host("h2"), with_disks=True) == [], (
        "not to itself"
    )


def test_guests_that_go_together_need_it_together() -> None:
    made = bench(room_mib=8000).put(local("g2"))
    pair = (made.guest("g1"), made.guest("g2"))
    assert len(list(disks.why_no_room(made.draft(), pair, made.host("h2")))) == 1
    assert list(disks.why_no_room(made.draft(), pair[:1], made.host("h2"))) == []


def test_what_is_sent_counts_its_disks() -> None:
    made = bench()
    assert links.to_send_mib(made.draft(), made.guest("g1")) == 1024 + 4096


def test_both_ends_are_told_which_disks() -> None:
    made = bench()
    assert ask(made).accepted
    assert last(made, Receive).body.disks == made.guest("g1").needs.local
    answer(made, last(made, Receive))
    assert last(made, Migrate).body.disks == made.guest("g1").needs.local


def test_the_newest_disk_moves_when_the_copy_may_first_run() -> None:
    """Not before: until then both are alike, and the source's host may be the one that lives on."""
    made = bench()
    ask(made)
    answer(made, last(made, Receive))
    order = last(made, Migrate)
    assert made.guest("g1").disks_on == "h1"
    answer(made, order, Outcome.DONE, absent(made, left_by=order.id))
    assert last(made, Resume).host == "h2"
    assert made.guest("g1").disks_on == "h2"


def test_images_of_a_copy_go_unless_it_may_have_run() -> None:
    made = bench()
    ask(made)
    answer(made, last(made, Receive), Outcome.FAILED)
    assert last(made, Discard).body.remove_images
    made = bench()
    ask(made)
    answer(made, last(made, Receive))
    order = last(made, Migrate)
    answer(made, order, Outcome.DONE, absent(made, left_by=order.id))
    made.see("h2", domain("g1", DomainState.PAUSED, part=Part.WAITING))
    for _ in range(migration.RESUMES_MAX):
        answer(made, last(made, Resume), Outcome.FAILED)
        made.now += 40.0
        made.hear()
        made.send(Tick())
    assert not last(made, Discard).body.remove_images


def test_other_disks_than_were_known_are_taken_up_for_the_next_try() -> None:
    made = bench()
    ask(made)
    answer(made, last(made, Receive))
    order = last(made, Migrate)
    larger = changed(DISK, size_b=2 * DISK.size_b)
    definition = Definition(id="g1", name="g1", xml=XML, digest="d1", local=(larger,))
    said = Answer(outcome=Outcome.FAILED, reason="resized", testimony=(PRESENT,), definition=definition)
    made.send(Answered(host=order.host, session=order.session, effect=order.id, answer=said))
    assert made.guest("g1").needs.local == (larger,)
    assert made.guest("g1").definition == 1, "its definition is the same"


def test_an_old_disk_is_removed_only_if_its_policy_says_so() -> None:
    for remove in (False, True):
        made = bench()
        record = made.guest("g1")
        policy = changed(record.policy, remove_old_disks=remove)
        made.put(local("g1", "h2", policy=policy))
        made.see("h1", domain("g1", DomainState.SHUTOFF))
        made.send(Tick())
        (order,) = [e for e in made.effects if isinstance(e, Send) and isinstance(e.body, Clean)]
        assert (order.host, order.body.remove_disks) == ("h1", remove)  # type: ignore[union-attr]


# ---- what they lie on

GOLDEN = Base(path="/images/golden.qcow2", form="qcow2", digest="11aa")
MID = Base(path="/images/mid.qcow2", form="qcow2", digest="22bb")
LAID = changed(DISK, form="qcow2", bases=(MID, GOLDEN))
STORAGE = ("folder:/vm", "nbd:a")


def laid(*missing: Base, on: str = "h2", disk: LocalDisk = LAID, at: str = "h1", **fields: Any) -> Bench:
    """A guest at h1 whose disk lies on two files; all hosts have them, but one."""
    made = bench()
    for name in ("h1", "h2", "h3"):
        told = [base.identity for base in LAID.bases if name != on or base not in missing]
        has = changed(made.host(name).facts, storage=(*STORAGE, *told))
        made.put(changed(made.host(name), facts=has))
    record = local("g1", at, **fields)
    return made.put(changed(record, needs=changed(record.needs, local=(disk,))))


def test_hosts_are_asked_for_what_lies_below_by_its_content() -> None:
    definition = Definition(id="g1", name="g1", xml=XML, digest="d", storage=("nbd:a",), local=(LAID,))
    needs, blockers = needs_of(definition)
    assert needs.bases == (MID, GOLDEN)
    below = {"base:sha256:22bb@/images/mid.qcow2", "base:sha256:11aa@/images/golden.qcow2"}
    assert needs.watched == {*STORAGE, *below}
    assert (needs.storage, blockers) == (STORAGE, ()), (
        "not from cold, where they are there or it does not start"
    )
    unread = changed(definition, local=(changed(LAID, bases=(MID, changed(GOLDEN, digest=""))),))
    assert needs_of(unread)[0].watched == {*STORAGE, MID.identity}


def test_a_host_without_its_base_does_not_take_it_with_its_disks() -> None:
    made = laid(GOLDEN)
    said = "has no /images/golden.qcow2 with the same content as on h1, or has not read it yet"
    why = placement.why_not(made.draft(), made.guest("g1"), made.host("h2"), with_disks=True)
    assert why == [said]
    assert preflight.of(made.draft(), made.guest("g1"), "h2").refusals == [f"h2 {said}"]
    assert preflight.cold(made.draft(), made.guest("g1"), "h2").refusals[0] == f"h2 {said}"
    assert preflight.of(made.draft(), made.guest("g1")).to == "h3"
    assert not ask(made, to="h2").accepted


def test_a_host_with_it_takes_it_and_only_the_topmost_file_is_copied() -> None:
    flight = preflight.of(laid().draft(), laid().guest("g1"), "h2")
    assert flight.refusals == []
    (told,) = [check.text for check in flight.checks if check.name is CheckName.DISKS]
    assert told == (
        "disk vda (4096 MiB in /vm/g1.img) is copied to h2; what it lies on is not, and must be there:"
        " /images/mid.qcow2, /images/golden.qcow2"
    )


@pytest.mark.parametrize("disk", [LAID, changed(LAID, bases=(MID, changed(GOLDEN, digest="")))])
def test_it_stays_while_its_own_host_reads_it(disk: LocalDisk) -> None:
    """For the first time, or anew, as it has changed or the agent was started: what it is to be like is not known."""
    made = laid(GOLDEN, on="h1", disk=disk)
    why = placement.why_not(made.draft(), made.guest("g1"), made.host("h2"), with_disks=True)
    assert why == ["is not known to have the same /images/golden.qcow2 as is on h1, where it is being read"]


def test_from_cold_it_starts_where_its_disks_are_whatever_is_read_there() -> None:
    made = laid(MID, GOLDEN, on="h1", phase=GuestPhase.RECOVERING, may_run_on=())
    made.see("h1", domain("g1", DomainState.SHUTOFF))
    made.send(Tick())
    assert [e.host for e in made.effects if isinstance(e, SendStart)] == ["h1"]


def test_a_base_that_was_read_or_changed_is_asked_for_on_all_hosts() -> None:
    made = laid()
    version = made.state.cluster.protected_version
    other = changed(LAID, bases=(MID, changed(GOLDEN, digest="33cc")))
    described(made, LAID)
    assert made.state.cluster.protected_version == version
    described(made, other)
    assert made.guest("g1").needs.bases == other.bases
    assert made.guest("g1").definition == 1
    assert made.state.cluster.protected_version == version + 1
    made.effects.clear()
    made.send(Tick())
    (order,) = [
        e for e in made.effects if isinstance(e, Send) and isinstance(e.body, Protect) and e.host == "h2"
    ]
    assert "base:sha256:33cc@/images/golden.qcow2" in order.body.watch_storage  # type: ignore[union-attr]
    assert GOLDEN.identity not in order.body.watch_storage  # type: ignore[union-attr]


def test_a_new_version_on_another_base_is_asked_for_as_well() -> None:
    made = laid()
    version = made.state.cluster.protected_version
    described(made, changed(LAID, bases=(MID,)), digest="d2")
    assert made.guest("g1").definition == 2
    assert made.state.cluster.protected_version == version + 1


@pytest.mark.parametrize(("missing", "after_s"), [((), 600.0), ((GOLDEN,), 15.0)])
def test_it_is_asked_about_again_soon_while_its_base_is_read(
    missing: tuple[Base, ...], after_s: float
) -> None:
    made = laid(*missing, on="h1")
    made.state.views["h1"].described["g1"] = ("d1", made.now, "")
    asked: list[float] = []
    began = made.now
    while not asked:
        made.now += 1.0
        made.hear()
        made.send(Reported(host="h1", session="s-h1", guests=(domain("g1"),)))
        asked = [
            made.now - began for e in made.effects if isinstance(e, Send) and isinstance(e.body, Describe)
        ]
    assert asked[0] == pytest.approx(after_s, abs=1.5)


# ---- consent


@pytest.mark.parametrize(("consent", "tied"), [(False, 1), (True, 0)])
def test_without_consent_it_is_tied(consent: bool, tied: int) -> None:
    record = local("g1")
    record = changed(record, policy=GuestPolicy(local_disks=consent))
    assert len(record.tied) == tied
    made = bench().put(record)
    assert len(preflight.of(made.draft(), record).refusals) == tied


def test_consent_is_asked_for_at_protection() -> None:
    for said, consent in ((None, False), (True, True)):
        made = Bench("h1")
        made.see("h1", domain("g1"))
        made.send(AskProtect(id="p", by="ops", guests=("g1",), local_disks=said))
        assert made.guest("g1").policy.local_disks is consent
