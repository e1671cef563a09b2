"""Disks of a guest that is off go to another host: who may start meanwhile, and which word makes them the newest."""

from __future__ import annotations

from typing import Any

import pytest

from dr.core import transfer
from dr.model import commands
from dr.model.base import changed
from dr.model.commands import Abort, Answer, Outcome, SendDisks, Stop, TakeDisks
from dr.model.effects import Reply, Send, SendStart
from dr.model.events import Answered, AskCancelMove, AskRelocate, AskStart, AskStop, Reported, Tick
from dr.model.facts import IMAGES_ONLY, Definition, DomainState, Progress, Sighting
from dr.model.operations import OperationState
from dr.model.records import Condition, Desired, GuestPhase, HostPhase, Move, MoveStage
from tests.core.build import Bench, domain, facts, guest, host
from tests.core.test_disks import CONSENT, XML, local
from tests.core.test_moves import absent, answer, last, sent


def bench(**fields: Any) -> Bench:
    """Its disk is on h1, where it is off."""
    made = Bench("h1", "h2", "h3")
    for name in ("h1", "h2", "h3"):
        has = facts(name, storage=("folder:/vm", "nbd:a"), room_mib={"/vm": 100_000}, copy_port=7310)
        made.put(host(name, facts=has))
    made.see("h1", domain("g1", DomainState.SHUTOFF))
    off: dict[str, Any] = {"phase": GuestPhase.STOPPED, "desired": Desired.STOPPED, "may_run_on": ()}
    return made.put(local("g1", **(off | fields)))


def ask(made: Bench, to: str = "h2") -> Reply:
    made.send(AskRelocate(id="r", by="ops", guests=("g1",), to=to))
    return next(e for e in reversed(made.effects) if isinstance(e, Reply))


def running() -> Bench:
    """It runs on h1."""
    made = bench(phase=GuestPhase.RUNNING, desired=Desired.RUNNING)
    made.see("h1", domain("g1"))
    return made.put(local("g1"))


def stopped(made: Bench) -> Bench:
    """It is relocated, and its host says that it has ended."""
    assert ask(made).accepted
    made.see("h1", domain("g1", DomainState.SHUTOFF))
    answer(made, last(made, Stop), Outcome.DONE, absent(made))
    return made


def copying() -> Bench:
    made = bench()
    assert ask(made).accepted
    return made


def places(made: Bench) -> list[str]:
    return sorted(place.host for place in made.guest("g1").may_run_on)


def starts(made: Bench) -> list[str]:
    return [effect.host for effect in made.effects if isinstance(effect, SendStart)]


def ended(made: Bench, kind: type[SendDisks | TakeDisks], outcome: Outcome, reason: str = "") -> None:
    """That end's part is over, and nothing runs there."""
    order = last(made, kind)
    left = order.id if outcome is Outcome.DONE and kind is SendDisks else ""
    answer(made, order, outcome, absent(made, left_by=left), reason=reason)


def later(made: Bench, seconds: float) -> None:
    """All hosts are heard meanwhile."""
    made.now += seconds
    made.hear("h1", "h2", "h3")
    made.send(Tick())


def broken_off(made: Bench) -> None:
    ended(made, SendDisks, Outcome.UNKNOWN, "the other end went away")
    ended(made, TakeDisks, Outcome.UNKNOWN, "the other end went away")


def test_both_ends_are_in_its_set_before_anything_goes_out() -> None:
    made = copying()
    assert made.guest("g1").phase is GuestPhase.MIGRATING
    assert places(made) == ["h1", "h2"]
    send, take = last(made, SendDisks), last(made, TakeDisks)
    assert (send.host, take.host) == ("h1", "h2")
    assert send.body.copy == take.body.ticket.id
    assert (send.body.to, send.body.port) == ("h2", 7310)
    assert send.body.disks == take.body.disks == made.guest("g1").needs.local
    generations = {place.host: place.generation for place in made.guest("g1").may_run_on}
    assert generations == {"h1": send.body.ticket.generation, "h2": take.body.ticket.generation}


def test_a_guest_that_runs_is_stopped_first() -> None:
    made = running()
    assert ask(made).accepted
    assert sent(made, Stop) == 1
    assert sent(made, SendDisks) == 0
    made.see("h1", domain("g1", DomainState.SHUTOFF))
    answer(made, last(made, Stop), Outcome.DONE, absent(made))
    assert (sent(made, SendDisks), sent(made, TakeDisks), starts(made)) == (1, 1, [])


def test_its_definition_is_that_of_its_end() -> None:
    """It may have written to its NVRAM until then."""
    made = running()
    assert ask(made).accepted
    order = last(made, Stop)
    newest = Definition(
        id="g1", name="g1", xml=XML, digest="d2", nvram=b"last words", local=made.guest("g1").needs.local
    )
    made.see("h1", domain("g1", DomainState.SHUTOFF, digest="d2"))
    done = Answer(outcome=Outcome.DONE, testimony=(absent(made),), definition=newest)
    made.send(Answered(host="h1", session=order.session, effect=order.id, answer=done))
    assert made.guest("g1").digest == "d2"
    assert sent(made, SendDisks) == 1


def test_a_stop_may_end_when_its_guest_cannot_be_protected_any_more() -> None:
    """The store was found to be an older copy meanwhile, and the definition of its end ties the guest to its host."""
    made = running()
    assert ask(made).accepted
    order = last(made, Stop)
    made.put(changed(made.guest("g1"), phase=GuestPhase.PROTECTING, move=None))
    tied = Definition(id="g1", name="g1", xml=XML, digest="d2", blockers=("g1: it has a TPM.",))
    done = Answer(outcome=Outcome.DONE, testimony=(absent(made),), definition=tied)
    made.send(Answered(host="h1", session=order.session, effect=order.id, answer=done))
    assert "g1" not in made.state.guests


@pytest.mark.parametrize("end", [SendDisks, TakeDisks])
def test_either_ends_word_makes_them_the_newest(end: type[SendDisks | TakeDisks]) -> None:
    made = stopped(running())
    assert made.guest("g1").disks_on == "h1"
    ended(made, end, Outcome.DONE)
    assert made.guest("g1").disks_on == "h2"
    assert starts(made) == [], "the other end has not said yet that its part is over"
    ended(made, TakeDisks if end is SendDisks else SendDisks, Outcome.UNKNOWN)
    assert starts(made) == ["h2"]


def test_the_sources_word_counts_when_it_is_asked_later() -> None:
    """A leader that has just begun, or an answer that was lost: the agent remembers how its ticket ended."""
    made = copying()
    job = last(made, SendDisks).id
    made.state.pending.clear()
    made.send(Tick(), after=2.0)
    told = absent(made, left_by=job)
    for name in ("h1", "h2"):
        order = next(
            e
            for e in reversed(made.effects)
            if isinstance(e, Send) and e.host == name and isinstance(e.body, commands.Testify)
        )
        answer(made, order, Outcome.DONE, told if name == "h1" else absent(made))
    assert (made.guest("g1").phase, made.guest("g1").disks_on) == (GuestPhase.STOPPED, "h2")


def test_the_word_on_another_ticket_does_not_count() -> None:
    made = copying()
    answer(made, last(made, SendDisks), Outcome.UNKNOWN, absent(made, left_by="some-other"))
    ended(made, TakeDisks, Outcome.UNKNOWN)
    assert made.guest("g1").disks_on == "h1"


def test_a_guest_that_was_off_stays_off() -> None:
    made = copying()
    ended(made, TakeDisks, Outcome.DONE)
    ended(made, SendDisks, Outcome.DONE)
    record = made.guest("g1")
    assert (record.phase, record.disks_on, record.move, starts(made)) == (
        GuestPhase.STOPPED,
        "h2",
        None,
        [],
    )
    (job,) = [op for op in made.state.operations.values() if op.kind == "guest-relocate"]
    assert job.state is OperationState.DONE


def test_what_failed_for_good_is_not_tried_again() -> None:
    made = stopped(running())
    ended(made, TakeDisks, Outcome.FAILED, "there is a file of that name")
    assert last(made, Abort).host == "h1"
    assert not last(made, Abort).body.again
    ended(made, SendDisks, Outcome.FAILED, "it was called off")
    assert (starts(made), sent(made, SendDisks)) == (["h1"], 1)
    order = next(e for e in reversed(made.effects) if isinstance(e, SendStart))
    made.see("h1", domain("g1"))
    made.send(
        Answered(host="h1", session=order.session, effect=order.id, answer=Answer(outcome=Outcome.DONE))
    )
    (job,) = [op for op in made.state.operations.values() if op.kind == "guest-relocate"]
    assert job.state is OperationState.FAILED
    assert "there is a file of that name" in job.guests["g1"]


def test_what_broke_off_is_tried_again() -> None:
    made = stopped(running())
    broken_off(made)
    assert (starts(made), sent(made, SendDisks), places(made)) == ([], 1, [])
    later(made, transfer.AGAIN_S * 2 + 0.1)
    assert (sent(made, SendDisks), places(made)) == (2, ["h1", "h2"])


def test_where_one_end_broke_off_the_other_is_told_to_and_keeps_what_it_has() -> None:
    made = copying()
    ended(made, SendDisks, Outcome.UNKNOWN)
    assert (last(made, Abort).host, last(made, Abort).body.again) == ("h2", True)


def test_it_is_not_tried_for_ever() -> None:
    made = stopped(running())
    for _ in range(transfer.TRIES_MAX):
        broken_off(made)
        later(made, 100.0)
    assert (sent(made, SendDisks), starts(made)) == (transfer.TRIES_MAX, ["h1"])


def test_a_destination_that_cannot_go_on_is_not_waited_for_long() -> None:
    made = stopped(running())
    broken_off(made)
    made.look("h2", acked_epoch=0)
    later(made, 10.0)
    assert starts(made) == []
    later(made, transfer.WAITS_S + 10.0)
    assert starts(made) == ["h1"]


def test_a_destination_whose_room_others_took_meanwhile_does_not_get_its_disks() -> None:
    """It could not start there."""
    made = stopped(running())
    broken_off(made)
    there = made.host("h2")
    made.put(changed(there, facts=changed(there.facts, memory_mib=512)))
    later(made, 10.0)
    assert (sent(made, SendDisks), starts(made)) == (1, [])
    assert "MiB" in made.guest("g1").reason
    later(made, transfer.WAITS_S + 10.0)
    assert (sent(made, SendDisks), starts(made)) == (1, ["h1"])


def test_a_destination_that_is_dead_is_not_waited_for() -> None:
    made = stopped(running())
    made.put(changed(made.host("h2"), phase=HostPhase.FENCED))
    broken_off(made)
    assert starts(made) == ["h1"]


def test_disks_wait_for_their_turn_on_their_links() -> None:
    """However long; the guest before them does not end in vain because of those that follow."""
    made = running()
    limits = changed(made.state.settings.limits, moves_out_per_host=1)
    made.state.settings = changed(made.state.settings, limits=limits)
    off: dict[str, Any] = {
        "phase": GuestPhase.RECOVERING,
        "may_run_on": (),
        "desired": Desired.RUNNING,
    }
    for name in ("g1", "g2"):
        move = Move(stage=MoveStage.STOPPING, source="h1", destination="h2")
        made.put(local(name, move=move, since=made.now, **off))
    made.see("h1", domain("g1", DomainState.SHUTOFF), domain("g2", DomainState.SHUTOFF))
    later(made, 0.1)
    later(made, transfer.WAITS_S + 1.0)
    assert (sent(made, SendDisks), starts(made)) == (1, [])
    assert "is sending 1 guests already" in made.guest("g2").reason
    ended(made, TakeDisks, Outcome.DONE)
    ended(made, SendDisks, Outcome.DONE)
    later(made, 0.1)
    assert sent(made, SendDisks) == 2


def test_a_destination_that_cannot_begin_is_not_waited_for_long() -> None:
    made = running()
    assert ask(made).accepted
    made.see("h1", domain("g1", DomainState.SHUTOFF))
    made.look("h2", acked_epoch=0)
    answer(made, last(made, Stop), Outcome.DONE, absent(made))
    later(made, 1.0)
    assert (sent(made, SendDisks), starts(made)) == (0, [])
    later(made, transfer.WAITS_S)
    later(made, 1.0)
    assert (sent(made, SendDisks), starts(made)) == (0, ["h1"])


def test_a_definition_that_cannot_be_read_is_not_waited_for_long() -> None:
    made = running()
    assert ask(made).accepted
    made.see("h1", domain("g1", DomainState.SHUTOFF, digest="d9"))
    answer(made, last(made, Stop), Outcome.DONE, absent(made))
    later(made, 1.0)
    assert "another definition" in made.guest("g1").reason
    later(made, transfer.WAITS_S)
    later(made, 1.0)
    move = made.guest("g1").move
    assert (sent(made, SendDisks), move.destination if move else None) == (0, "")


def test_it_is_called_off() -> None:
    made = stopped(running())
    made.send(AskCancelMove(id="c", by="ops", guests=("g1",)))
    made.send(Tick(), after=0.1)
    aborted = {e.host for e in made.effects if isinstance(e, Send) and isinstance(e.body, Abort)}
    assert aborted == {"h1", "h2"}
    ended(made, SendDisks, Outcome.FAILED, "it was called off")
    ended(made, TakeDisks, Outcome.FAILED, "it was called off")
    assert starts(made) == ["h1"]


def test_what_has_arrived_cannot_be_called_off() -> None:
    made = copying()
    ended(made, TakeDisks, Outcome.DONE)
    made.send(AskCancelMove(id="c", by="ops", guests=("g1",)))
    reply = next(e for e in reversed(made.effects) if isinstance(e, Reply))
    assert reply.blockers == ("the disks of g1 have arrived on h2 already",)


def test_it_is_stopped_for_good_meanwhile() -> None:
    made = stopped(running())
    made.send(AskStop(id="s", by="ops", guests=("g1",)))
    ended(made, SendDisks, Outcome.FAILED, "it was called off")
    ended(made, TakeDisks, Outcome.FAILED, "it was called off")
    assert (made.guest("g1").phase, starts(made), made.guest("g1").disks_on) == (
        GuestPhase.STOPPED,
        [],
        "h1",
    )


def test_one_that_is_ignored_is_stopped_for_good_too() -> None:
    """That somebody asked to relocate it is no wish to start it any more."""
    made = running()
    made.put(changed(made.guest("g1"), desired=Desired.IGNORED))
    made = stopped(made)
    made.send(AskStop(id="s", by="ops", guests=("g1",)))
    ended(made, SendDisks, Outcome.FAILED, "it was called off")
    ended(made, TakeDisks, Outcome.FAILED, "it was called off")
    made.send(Tick(), after=1.0)
    assert (made.guest("g1").phase, starts(made)) == (GuestPhase.STOPPED, [])


def test_a_destination_that_is_set_aside_ends_it() -> None:
    made = copying()
    there = made.host("h2")
    made.put(changed(there, conditions=there.conditions | {Condition.CORDONED}))
    made.send(Tick(), after=0.1)
    assert last(made, Abort) is not None
    assert "set aside" in (made.guest("g1").move or pytest.fail("no move")).why


def test_it_ends_when_its_policys_time_is_over() -> None:
    made = copying()
    made.send(Tick(), after=made.guest("g1").policy.move_s + 1)
    assert "move_s" in (made.guest("g1").move or pytest.fail("no move")).why


def test_somebody_starts_it_meanwhile() -> None:
    """Round us: facts are followed, and its newest disks are where it runs."""
    made = stopped(running())
    made.see("h1", domain("g1"))
    ended(made, TakeDisks, Outcome.UNKNOWN)
    answer(
        made, last(made, SendDisks), Outcome.FAILED, commands.Testimony(guest="g1", sighting=Sighting.PRESENT)
    )
    record = made.guest("g1")
    assert (record.phase, record.holder, record.disks_on) == (GuestPhase.RUNNING, "h1", "h1")


def test_a_source_that_dies_before_it_begins_keeps_its_guest_waiting() -> None:
    made = running()
    assert ask(made).accepted
    made.see("h1", domain("g1", DomainState.SHUTOFF))
    made.put(changed(made.host("h1"), phase=HostPhase.FENCED))
    answer(made, last(made, Stop), Outcome.DONE, absent(made))
    assert (sent(made, SendDisks), starts(made)) == (0, [])
    made.send(Tick(), after=1.0)
    assert made.state.alerts.get("guest/g1/waiting") is not None


def test_another_host_takes_it_where_the_first_does_not_any_more() -> None:
    made = running()
    assert ask(made).accepted
    made.see("h1", domain("g1", DomainState.SHUTOFF))
    there = made.host("h2")
    made.put(changed(there, conditions=there.conditions | {Condition.CORDONED}))
    made.put(changed(there, conditions=frozenset({Condition.QUARANTINED})))
    answer(made, last(made, Stop), Outcome.DONE, absent(made))
    assert last(made, TakeDisks).host == "h3"


def test_progress_of_a_copy_is_no_pass_over_a_memory() -> None:
    made = copying()
    moving = Progress(guest="g1", elapsed_s=5.0, total_mib=4096, remaining_mib=2048, rate_mib_s=100)
    made.send(Reported(host="h1", session="s-h1", moves=(moving,)))
    assert made.state.views["h1"].progress["g1"] == moving
    assert not made.state.views["h1"].courses


def test_the_disks_that_it_left_are_the_newest_by_a_persons_word() -> None:
    """It starts from them, and they are not sent once more."""
    made = stopped(running())
    ended(made, TakeDisks, Outcome.DONE)
    made.put(changed(made.host("h2"), phase=HostPhase.FENCED))
    ended(made, SendDisks, Outcome.DONE)
    later(made, 1.0)
    assert starts(made) == []
    made.send(AskStart(id="s", by="ops", guests=("g1",), disks_on="h1"))
    later(made, 1.0)
    assert (starts(made), sent(made, SendDisks)) == (["h1"], 1)


def test_a_destination_that_was_removed_is_told() -> None:
    made = stopped(running())
    broken_off(made)
    del made.state.hosts["h2"]
    made.send(Tick())
    assert (starts(made), (made.guest("g1").move or pytest.fail("no move")).why) == (["h1"], "h2 is removed")


# ---- refusals


def without(made: Bench, name: str, **fields: Any) -> Bench:
    there = made.host(name)
    return made.put(changed(there, facts=changed(there.facts, **fields)))


def test_a_host_whose_agent_takes_no_disks_is_not_chosen() -> None:
    made = without(bench(), "h2", copy_port=0)
    assert ask(made, "").accepted
    assert last(made, TakeDisks).host == "h3"


@pytest.mark.parametrize("off", [True, False])
def test_a_host_whose_agent_takes_no_disks_is_refused(off: bool) -> None:
    made = without(bench() if off else running(), "h2", copy_port=0)
    reply = ask(made)
    assert reply.blockers == ("the agent of h2 takes no disks of guests that are off: upgrade it",)


@pytest.mark.parametrize("off", [True, False])
def test_a_host_without_room_for_its_disks_is_refused(off: bool) -> None:
    made = without(bench() if off else running(), "h2", room_mib={"/vm": 100})
    assert "h2 has 100 MiB free in /vm" in ask(made).blockers[0]


@pytest.mark.parametrize("off", [True, False])
def test_a_host_with_another_guest_of_its_name_is_not_chosen(off: bool) -> None:
    """It could not be started there, and its newest disks would lie there."""
    made = bench() if off else running()
    made.see("h2", changed(domain("other", DomainState.SHUTOFF), name="g1"))
    assert "h2 has another guest that is named g1" in ask(made).blockers[0]
    foreseen = told(made).guests[0]
    assert (foreseen.why, foreseen.to) == ((), "h3")


@pytest.mark.parametrize("off", [True, False])
def test_a_host_that_has_not_parted_with_its_old_disks_is_refused(off: bool) -> None:
    made = bench() if off else running()
    made.see("h2", domain("g1", DomainState.SHUTOFF))
    (check,) = [check for check in told(made, "h2").guests[0].checks if check.refuses]
    assert check.text == "h2 has not parted with what an earlier stay of g1 left there"
    assert check.fix == (
        "it is cleaned up when g1 runs elsewhere: dr guest start g1"
        if off
        else "it is cleaned up in a moment: dr host show h2"
    )


def test_what_an_earlier_try_left_is_gone_on_with() -> None:
    made = bench()
    made.see("h2", domain("g1", DomainState.SHUTOFF, reason=IMAGES_ONLY, digest=""))
    assert ask(made).accepted


def test_a_guest_that_is_off_is_not_sent_with_an_older_definition() -> None:
    """It was edited since, or wrote to its NVRAM at its end: what starts over there is what is stored."""
    made = bench()
    made.see("h1", domain("g1", DomainState.SHUTOFF, digest="d2"))
    assert "h1 has another definition of g1 than is stored" in ask(made).blockers[0]
    later(made, 3.0)
    order = last(made, commands.Describe)
    newest = Definition(id="g1", name="g1", xml=XML, digest="d2", local=made.guest("g1").needs.local)
    done = Answer(outcome=Outcome.DONE, definition=newest)
    made.send(Answered(host="h1", session=order.session, effect=order.id, answer=done))
    assert ask(made).accepted
    assert made.guest("g1").digest == "d2"


def test_of_two_guests_that_are_off_there_is_room_for_one() -> None:
    made = without(bench(), "h2", room_mib={"/vm": 5000})
    made.see("h1", domain("g1", DomainState.SHUTOFF), domain("g2", DomainState.SHUTOFF))
    made.put(local("g2", phase=GuestPhase.STOPPED, desired=Desired.STOPPED, may_run_on=()))
    made.send(AskRelocate(id="r", by="ops", guests=("g1", "g2"), to="h2"))
    reply = next(e for e in reversed(made.effects) if isinstance(e, Reply))
    assert "not moved: h2 has 904 MiB free in /vm" in reply.message
    assert (sent(made, SendDisks), made.guest("g2").phase) == (1, GuestPhase.STOPPED)
    ended(made, TakeDisks, Outcome.DONE)
    ended(made, SendDisks, Outcome.DONE)
    (job,) = [op for op in made.state.operations.values() if op.kind == "guest-relocate"]
    assert job.state is OperationState.FAILED
    assert job.guests["g1"].startswith("moved")
    assert job.guests["g2"].startswith("not moved: h2 has 904 MiB free")


def test_a_guest_that_is_off_and_has_no_disks_of_its_own_is_nowhere_more_than_elsewhere() -> None:
    made = bench().put(guest("g1", phase=GuestPhase.STOPPED))
    assert "dr guest start g1" in ask(made).blockers[0]


def test_nobody_knows_where_its_disks_are() -> None:
    made = bench(disks_on="")
    assert "dr guest start g1 --disks-on HOST" in ask(made).blockers[0]


def test_it_is_where_its_disks_are_already() -> None:
    assert ask(bench(), "h1").blockers == ("the disks of g1 are on h1 already",)


def test_its_source_is_not_connected() -> None:
    made = bench()
    made.look("h1", session="")
    assert "h1 is not connected" in ask(made).blockers


def test_without_consent_it_is_not_moved() -> None:
    made = bench(policy=changed(CONSENT, local_disks=False))
    assert "only its host has" in ask(made).blockers[0]


# ---- what is told before


def told(made: Bench, to: str = "") -> Reply:
    made.send(AskRelocate(id="r", by="ops", guests=("g1",), to=to, dry_run=True))
    return next(e for e in reversed(made.effects) if isinstance(e, Reply))


def test_a_dry_run_tells_what_is_copied_and_how_long_it_is_off() -> None:
    made = running()
    before = made.guest("g1")
    reply = told(made)
    assert reply.accepted
    assert "g1 is stopped on h1 and starts on h2: 4096 MiB of disks are copied meanwhile" in reply.message
    (foreseen,) = reply.guests
    assert (foreseen.cold, foreseen.host, foreseen.to, foreseen.send_mib) == (True, "h1", "h2", 4096)
    assert all(not check.refuses for check in foreseen.checks)
    assert "disk vda (4096 MiB in /vm/g1.img) is copied to h2" in [check.text for check in foreseen.checks]
    assert (made.guest("g1"), sent(made, Stop)) == (before, 0)


def test_a_dry_run_tells_that_the_time_of_its_policy_is_too_short() -> None:
    made = running()
    assert "called off" not in told(made).message
    made.put(local("g1", policy=changed(CONSENT, move_s=30.0)))
    assert told(made).message.endswith(
        "but after 30 s that is called off, and it was off in vain: a longer --move-time helps: dr guest set g1"
    )


def test_a_dry_run_tells_that_a_guest_that_is_off_stays_so() -> None:
    assert "g1 is off and stays off; its disks go from h1 to h2" in told(bench()).message


def test_a_dry_run_has_every_objection_that_the_move_would_meet() -> None:
    made = without(running(), "h2", copy_port=0)
    reply = told(made, "h2")
    assert (reply.accepted, reply.message) == (True, "g1 would not be moved")
    assert reply.guests[0].why == ask(made).blockers


def test_without_local_disks_nothing_is_said_to_be_copied() -> None:
    made = running().put(guest("g1", "h1"))
    assert told(made).message == "g1 is stopped on h1 and starts on h2"
