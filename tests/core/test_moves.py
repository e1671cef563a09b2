"""Moves in the core: what stands against one, and what only the source's own word allows."""

from __future__ import annotations

from typing import Any

import pytest

from dr.core import departures, migration, moves, onecopy, warden, whereabouts
from dr.model import commands
from dr.model.base import changed
from dr.model.commands import (
    Abort,
    Answer,
    Body,
    Discard,
    Migrate,
    Outcome,
    ProtectedEntry,
    Receive,
    Resume,
    Ticket,
    TicketKind,
)
from dr.model.effects import Reply, Send
from dr.model.events import Answered, AskDrain, AskMigrate, AskRelocate, Disconnected, Reported, Tick
from dr.model.evidence import Proof, ProofKind
from dr.model.facts import DomainState, Part, Progress, Sighting
from dr.model.memory import AgentMemory
from dr.model.policy import Limits
from dr.model.records import Condition, GuestPhase, HostPhase, MoveStage, Pause
from tests.core.build import NOW, PROTECTED_VERSION, Bench, domain, facts, guest, host
from tests.core.test_members import beat, hello


def bench(**fields: Any) -> Bench:
    names = ("h1", "h2", "h3")
    made = Bench(*names).put(*(host(n, facts=facts(n, live_migration=True)) for n in names))
    return made.put(guest("g1", "h1", **fields))


def ask(made: Bench, to: str = "h2") -> Reply:
    made.send(AskMigrate(id="m", by="ops", guests=("g1",), to=to))
    reply = made.effects[-1] if isinstance(made.effects[-1], Reply) else None
    reply = reply or next(e for e in reversed(made.effects) if isinstance(e, Reply))
    return reply


def last(made: Bench, kind: type[Body]) -> Any:
    """The newest order of that kind."""
    return next(e for e in reversed(made.effects) if isinstance(e, Send) and isinstance(e.body, kind))


def sent(made: Bench, kind: type[Body]) -> int:
    return sum(isinstance(e, Send) and isinstance(e.body, kind) for e in made.effects)


def answer(
    made: Bench, order: Send, outcome: Outcome = Outcome.DONE, *told: commands.Testimony, reason: str = ""
) -> None:
    done = Answer(outcome=outcome, testimony=told, reason=reason)
    made.send(Answered(host=order.host, session=order.session, effect=order.id, answer=done), after=0.1)


def absent(made: Bench, **fields: Any) -> commands.Testimony:
    base = commands.Testimony(guest="g1", sighting=Sighting.ABSENT, sealed=made.guest("g1").generation)
    return changed(base, **fields)


PRESENT = commands.Testimony(guest="g1", sighting=Sighting.PRESENT)


def copying() -> Bench:
    made = bench()
    assert ask(made).accepted
    answer(made, last(made, Receive))
    return made


def migrated() -> Bench:
    made = copying()
    order = last(made, Migrate)
    answer(made, order, Outcome.DONE, absent(made, left_by=order.id))
    return made


def stage(made: Bench) -> MoveStage:
    move = made.guest("g1").move
    assert move is not None
    return move.stage


def test_the_destinations_place_is_durable_before_anything_goes_out() -> None:
    made = bench()
    made.send(AskMigrate(id="m", by="ops", guests=("g1",), to="h2"))
    record = made.guest("g1")
    assert record.phase is GuestPhase.MIGRATING
    assert {place.host: place.generation for place in record.may_run_on} == {"h1": 1, "h2": 2}
    assert last(made, Receive).body.ticket.generation == 2
    assert sent(made, Migrate) == 0, "the source is told only when the destination waits"


def test_a_dry_run_tells_and_does_nothing() -> None:
    made = bench()
    before = made.guest("g1")
    for to, there in (("h3", "h3"), ("", "h2")):
        made.send(AskMigrate(id="m", by="ops", guests=("g1",), to=to, dry_run=True))
        reply = next(e for e in reversed(made.effects) if isinstance(e, Reply))
        assert reply.accepted
        assert (reply.message, reply.operations) == (f"g1 would move live from h1 to {there}", ())
    made.send(AskMigrate(id="m", by="ops", guests=("g1",), to="h1", dry_run=True))
    reply = next(e for e in reversed(made.effects) if isinstance(e, Reply))
    assert (reply.accepted, reply.message, reply.operations) == (True, "g1 would not be moved", ())
    (told,) = reply.guests
    assert (told.fate, told.to, told.why) == ("blocked", "", ("g1 runs on h1 already",))
    assert made.guest("g1") == before
    assert sent(made, Receive) == 0


def test_the_source_is_told_where_the_destination_wants_memory_sent() -> None:
    made = bench()
    there = changed(made.host("h2").facts, migration_address="10.9.0.2")
    made.put(changed(made.host("h2"), facts=there))
    ask(made)
    answer(made, last(made, Receive))
    assert last(made, Migrate).body.data_address == "10.9.0.2"


def test_what_the_sending_took_is_in_the_jobs_history() -> None:
    made = copying()
    order = last(made, Migrate)
    answer(made, order, Outcome.DONE, absent(made, left_by=order.id), reason="84 MiB sent in 1.3 s")
    (key,) = made.state.open_operations
    assert "g1: 84 MiB sent in 1.3 s" in [step.text for step in made.state.operations[key].steps]


def test_who_waits_for_free_hands_goes_as_soon_as_another_has_arrived() -> None:
    """Not when a drain would look again: the link would be idle for so long after each guest."""
    made = bench().put(guest("g2", "h1"))
    made.state.settings = changed(made.state.settings, limits=Limits(moves_out_per_host=1))
    made.send(AskDrain(id="d", by="ops", host="h1"))
    answer(made, last(made, Receive))
    order = last(made, Migrate)
    made.send(Tick(), after=departures.AGAIN_S)
    answer(made, order, Outcome.DONE, absent(made, left_by=order.id))
    assert made.guest("g2").phase is GuestPhase.RUNNING
    answer(made, last(made, Resume))
    assert made.guest("g1").phase is GuestPhase.RUNNING
    assert made.guest("g2").phase is GuestPhase.MIGRATING


def test_a_move_to_where_nothing_of_it_is_any_more_is_called_off() -> None:
    """Proven: libvirt alone would wait for a silent peer, and with copies of disks until TCP gives up."""
    made = copying()
    made.send(Tick())
    assert sent(made, Abort) == 0
    draft = made.draft()
    proof = Proof(kind=ProofKind.POWER, host="h2", boot_id="h2-b1", text="off")
    onecopy.prove_boot_over(draft, proof)
    made.state.apply(draft)
    made.send(Tick())
    assert sent(made, Abort) == 1
    move = made.guest("g1").move
    assert move is not None
    assert (move.stage, move.why) == (MoveStage.COPYING, "h2 is proven to have no copy of it")


def test_every_ticket_has_a_new_generation() -> None:
    made = migrated()
    tickets = [last(made, kind).body.ticket for kind in (Receive, Migrate, Resume)]
    assert [(t.kind, t.host, t.generation) for t in tickets] == [
        (TicketKind.RECEIVE, "h2", 2),
        (TicketKind.MIGRATE, "h1", 3),
        (TicketKind.RESUME, "h2", 4),
    ]
    answer(made, last(made, Resume))
    record = made.guest("g1")
    assert (record.phase, record.holder, record.move) == (GuestPhase.RUNNING, "h2", None)


@pytest.mark.parametrize("left_by", ["", "ticket-9-9"])
def test_another_proof_of_the_sources_emptiness_resumes_nothing(left_by: str) -> None:
    """Rule 2: no word, or the word of another job. The copy is destroyed, and the guest starts cold."""
    made = copying()
    answer(made, last(made, Migrate), Outcome.DONE, absent(made, left_by=left_by))
    assert sent(made, Resume) == 0
    answer(made, last(made, Discard), Outcome.DONE, absent(made))
    assert made.guest("g1").phase is GuestPhase.MIGRATING, "h1 may tell in a moment that its owner ended it"
    made.now += migration.TELLS_S
    made.hear()
    made.send(Tick())
    assert made.guest("g1").phase is GuestPhase.STARTING
    assert sent(made, Resume) == 0


@pytest.mark.parametrize(
    ("reason", "phase"), [("crashed", GuestPhase.STARTING), ("shutdown", GuestPhase.STOPPED)]
)
def test_a_guest_lost_on_its_way_waits_for_its_host_to_tell_how(reason: str, phase: GuestPhase) -> None:
    """Proofs come before the inventory that says why, and the leader or the agent may die between them."""
    made = copying()
    answer(made, last(made, Migrate), Outcome.FAILED, absent(made))
    answer(made, last(made, Discard), Outcome.DONE, absent(made))
    assert made.guest("g1").phase is GuestPhase.MIGRATING
    assert "waits for h1 to say how it ended" in made.guest("g1").reason
    told = (domain("g1", DomainState.SHUTOFF, reason=reason),)
    made.send(Reported(host="h1", session=made.state.views["h1"].session, guests=told), after=0.1)
    made.send(Tick(), after=0.1)
    assert made.guest("g1").phase is phase


def test_a_move_that_an_earlier_leader_called_off_is_ended() -> None:
    """Its source's agent does not say that it sends: a ticket is under way there, so it says nothing."""
    made = copying()
    made.state.pending.clear()  # as with a new leader
    record = made.guest("g1")
    assert record.move is not None
    made.put(changed(record, move=changed(record.move, why="ops called it off")))
    made.send(Tick(), after=0.1)
    assert stage(made) is MoveStage.UNRESOLVED
    assert last(made, Abort).host == "h1"


def test_a_word_that_seals_too_little_commits_nothing() -> None:
    made = copying()
    order = last(made, Migrate)
    answer(made, order, Outcome.DONE, absent(made, left_by=order.id, sealed=2))
    assert stage(made) is MoveStage.UNRESOLVED
    assert sent(made, Resume) == sent(made, Discard) == 0


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.FAILED, Outcome.REFUSED])
def test_the_outcome_alone_decides_nothing(outcome: Outcome) -> None:
    """The source is asked; until it has said where the guest is, nothing is resumed or destroyed."""
    made = copying()
    answer(made, last(made, Migrate), outcome, reason="some error")
    assert stage(made) is MoveStage.UNRESOLVED
    assert last(made, commands.Testify).host == "h1"
    assert sent(made, Resume) == sent(made, Discard) == 0
    answer(made, last(made, commands.Testify), Outcome.DONE, changed(PRESENT, part=Part.LEAVING))
    assert sent(made, Resume) == sent(made, Discard) == 0
    made.send(Tick(), after=2.0)
    answer(made, last(made, commands.Testify), Outcome.DONE, PRESENT)
    assert last(made, Discard).host == "h2"
    assert made.guest("g1").phase is GuestPhase.MIGRATING
    answer(made, last(made, Discard), Outcome.DONE, absent(made))
    record = made.guest("g1")
    assert (record.phase, record.holder) == (GuestPhase.RUNNING, "h1")
    assert [place.host for place in record.may_run_on] == ["h1"]


def test_a_destination_that_does_not_let_it_in_must_testify_too() -> None:
    made = bench()
    ask(made)
    answer(made, last(made, Receive), Outcome.REFUSED, reason="no hook")
    assert made.guest("g1").phase is GuestPhase.MIGRATING
    assert {place.host for place in made.guest("g1").may_run_on} == {"h1", "h2"}
    answer(made, last(made, Discard), Outcome.DONE, absent(made))
    assert made.guest("g1").phase is GuestPhase.RUNNING
    assert sent(made, Migrate) == 0


def test_a_source_that_stands_at_the_switch_over_is_resumed_after_the_copy_is_gone() -> None:
    made = copying()
    stands = domain("g1", DomainState.PAUSED, reason="migration")
    made.send(Reported(host="h1", session="s-h1", guests=(stands,)))
    answer(made, last(made, Migrate), Outcome.UNKNOWN, PRESENT)
    assert sent(made, Resume) == 0
    answer(made, last(made, Discard), Outcome.DONE, absent(made))
    order = last(made, Resume)
    assert order.host == "h1"
    answer(made, order)
    assert (made.guest("g1").phase, made.guest("g1").holder) == (GuestPhase.RUNNING, "h1")


def test_a_source_that_stands_is_not_resumed_when_the_host_of_the_copy_says_that_it_ran() -> None:
    made = copying()
    stands = domain("g1", DomainState.PAUSED, reason="migration")
    made.send(Reported(host="h1", session="s-h1", guests=(stands,)))
    answer(made, last(made, Migrate), Outcome.UNKNOWN, PRESENT)
    received = last(made, Receive).body.ticket.generation
    answer(made, last(made, Discard), Outcome.DONE, absent(made, ran=received))
    assert sent(made, Resume) == 0
    assert last(made, Discard).host == "h1", "its memory may be older than the disk: it starts anew"
    assert "guest/g1/resumed-by-hand" in made.state.alerts


def test_that_the_copy_of_an_earlier_move_ran_says_nothing_of_this_one() -> None:
    made = copying()
    stands = domain("g1", DomainState.PAUSED, reason="migration")
    made.send(Reported(host="h1", session="s-h1", guests=(stands,)))
    answer(made, last(made, Migrate), Outcome.UNKNOWN, PRESENT)
    earlier = last(made, Receive).body.ticket.generation - 1
    answer(made, last(made, Discard), Outcome.DONE, absent(made, ran=earlier))
    assert last(made, Resume).host == "h1"
    assert "guest/g1/resumed-by-hand" not in made.state.alerts


def test_a_resume_that_is_not_answered_is_looked_at_before_it_is_tried_again() -> None:
    made = migrated()
    answer(made, last(made, Resume), Outcome.UNKNOWN, changed(PRESENT, part=Part.WAITING))
    assert sent(made, Resume) == 1
    assert stage(made) is MoveStage.MIGRATED
    made.send(Reported(host="h2", session="s-h2", guests=(domain("g1"),)), after=0.1)
    assert (made.guest("g1").phase, made.guest("g1").holder) == (GuestPhase.RUNNING, "h2")
    assert sent(made, Resume) == 1


def joined() -> Bench:
    """As `migrated`, with a host that said its first hello in between: it may run anything until it has testified."""
    made = copying()
    made.put(host("h4", HostPhase.JOINING, boot_id="", facts=facts("h4")))
    hello(made, "h4")
    order = last(made, Migrate)
    answer(made, order, Outcome.DONE, absent(made, left_by=order.id))
    return made


def test_a_host_that_joins_meanwhile_must_testify_before_the_copy_is_resumed() -> None:
    made = joined()
    assert stage(made) is MoveStage.MIGRATED
    assert sent(made, Resume) == sent(made, Discard) == 0
    beat(made, "h4")
    made.put(changed(made.host("h4"), protected_version=PROTECTED_VERSION))
    made.send(Tick(), after=1.0)
    asked = last(made, commands.Testify)
    assert asked.host == "h4"
    answer(made, asked, Outcome.DONE, absent(made))
    assert last(made, Resume).host == "h2"


def test_a_copy_is_not_resumed_over_what_another_host_ran() -> None:
    """Somebody started it on a host that did not guard it yet: the copy is older than the disk from then on."""
    made = joined()
    beat(made, "h4")
    made.send(Reported(host="h4", session="new", guests=(domain("g1"),)), after=0.1)
    answer(made, last(made, Discard), Outcome.DONE, absent(made))
    assert sent(made, Resume) == 0
    record = made.guest("g1")
    assert (record.phase, record.holder) == (GuestPhase.RUNNING, "h4")
    assert [place.host for place in record.may_run_on] == ["h4"]


def test_a_waiting_copy_is_no_second_guest() -> None:
    made = copying()
    copy = domain("g1", DomainState.PAUSED, part=Part.WAITING)
    made.send(Reported(host="h2", session="s-h2", guests=(copy,)))
    assert made.guest("g1").phase is GuestPhase.MIGRATING
    assert not whereabouts.seen_active(made.draft(), "g1", "h2", "h2-b1")


def test_a_copy_of_no_move_is_destroyed_and_the_guest_goes_on() -> None:
    made = bench()
    copy = domain("g1", DomainState.PAUSED, part=Part.WAITING)
    made.send(Reported(host="h3", session="s-h3", guests=(copy,)))
    assert last(made, Discard).host == "h3"
    answer(made, last(made, Discard), Outcome.DONE, absent(made))
    record = made.guest("g1")
    assert (record.phase, [place.host for place in record.may_run_on]) == (GuestPhase.RUNNING, ["h1"])


def test_what_takes_too_long_is_aborted_not_given_up() -> None:
    made = copying()
    made.hear()
    made.send(Tick(), after=made.guest("g1").policy.move_s + 1)
    assert last(made, Abort).host == "h1"
    assert sent(made, Discard) == 0


def test_a_destination_that_was_cordoned_gets_no_guest() -> None:
    made = bench()
    ask(made)
    made.put(changed(made.host("h2"), conditions=frozenset({Condition.CORDONED})))
    answer(made, last(made, Receive))
    assert sent(made, Migrate) == 0
    assert last(made, Discard).host == "h2"


# ---- objections


def test_every_objection_at_once() -> None:
    made = bench()
    made.put(changed(made.host("h2"), facts=facts("h2", storage=(), networks=())))
    reply = ask(made)
    assert not reply.accepted
    text = " ".join(reply.blockers)
    for reason in ("does not see storage", "has no network", "cannot migrate guests live"):
        assert reason in text


OTHERS = (
    GuestPhase.RECOVERING,
    GuestPhase.STOPPED,
    GuestPhase.ERROR,
    GuestPhase.UNKNOWN,
    GuestPhase.STOPPING,
)


@pytest.mark.parametrize("phase", OTHERS)
def test_only_what_runs_is_moved(phase: GuestPhase) -> None:
    made = Bench().put(guest("g1", "h1", phase, reason="because"))
    for event in (
        AskMigrate(id="m", by="ops", guests=("g1",)),
        AskRelocate(id="r", by="ops", guests=("g1",)),
    ):
        reply = next(e for e in reversed(made.send(event)) if isinstance(e, Reply))
        assert not reply.accepted
        assert f"g1 is {phase}" in " ".join(reply.blockers)
    assert not moves.may_move(made.guest("g1"))


def test_a_pause_holds_automatic_moves_and_not_what_people_ask() -> None:
    made = bench()
    made.state.cluster = changed(made.state.cluster, pause=Pause(reason="night", by="ops", at=NOW))
    draft = made.draft()
    assert moves.begin(draft, made.guest("g1"), "h2") == ["automation is paused (night)"]
    assert moves.begin(draft, made.guest("g1"), "h2", asked=True) == []


def test_a_place_elsewhere_stands_against_a_move() -> None:
    made = bench()
    draft = made.draft()
    onecopy.add_place(draft, made.guest("g1"), made.host("h3"), 1)
    (why,) = moves.begin(draft, draft.guest("g1") or made.guest("g1"), "h2")
    assert "is not seen on h1 alone" in why


# ---- the agent's side


def ticket(kind: TicketKind, generation: int) -> Ticket:
    return Ticket(
        id=f"t{generation}", kind=kind, guest="g1", name="g1", generation=generation, host="h1", boot_id="b1",
        epoch=1, leader_id="L", session="s", revision=1,
    )  # fmt: skip


def begun(*kinds: TicketKind) -> AgentMemory:
    memory = AgentMemory(epoch=1, leader_id="L")
    memory = changed(memory, entries=(ProtectedEntry(guest="g1", name="g1", generation=0),))
    for number, kind in enumerate(kinds, 1):
        memory = warden.begin(memory, f"t{number}", ticket(kind, number))
    return memory


def test_who_left_by_which_ticket() -> None:
    memory = begun(TicketKind.MIGRATE)
    assert warden.left_by(memory, "g1", migrated=True) == "t1"
    assert warden.left_by(memory, "g1", migrated=False) == "", "begun is not ended"
    ended = warden.finish(memory, "t1", Answer(outcome=Outcome.DONE))
    assert warden.left_by(ended, "g1", migrated=False) == "t1"
    unseen = warden.wake(memory, "p2")
    assert warden.left_by(unseen, "g1", migrated=False) == ""
    back = warden.begin(ended, "t2", ticket(TicketKind.RECEIVE, 2))
    assert warden.left_by(back, "g1", migrated=True) == ""


@pytest.mark.parametrize(
    ("kinds", "arriving", "runs", "verdict"),
    [
        ((TicketKind.RECEIVE,), False, False, warden.Stray.NONE),
        ((TicketKind.RECEIVE,), True, False, warden.Stray.NONE),
        ((TicketKind.RECEIVE,), False, True, warden.Stray.SUSPEND),
        ((TicketKind.RECEIVE, TicketKind.RESUME), False, True, warden.Stray.NONE),
        ((), True, False, warden.Stray.DESTROY),
        ((), False, False, warden.Stray.NONE),  # its owner's virsh suspend
        ((), False, True, warden.Stray.NONE),
    ],
)
def test_strays(kinds: tuple[TicketKind, ...], arriving: bool, runs: bool, verdict: warden.Stray) -> None:
    assert warden.stray(begun(*kinds), "g1", "b1", arriving=arriving, runs=runs) is verdict


def test_a_copy_does_not_outlive_its_boot_or_its_list() -> None:
    memory = begun(TicketKind.RECEIVE)
    assert not warden.copy_here(memory, "g1", "b2")
    assert (
        warden.stray(changed(memory, entries=()), "g1", "b1", arriving=True, runs=False) is warden.Stray.NONE
    )


def test_how_far_it_is_lasts_as_long_as_its_session() -> None:
    made = copying()
    session = made.state.views["h1"].session
    told = (Progress(guest="g1", elapsed_s=2, total_mib=96, remaining_mib=24, rate_mib_s=12),)
    made.send(Reported(host="h1", session=session, moves=told), after=0.1)
    assert made.state.views["h1"].progress == {"g1": told[0]}
    made.send(Reported(host="h1", session=session, guests=(domain("g1"),)), after=0.1)
    assert made.state.views["h1"].progress, "what is not told has not changed"
    made.send(Disconnected(host="h1", session=session), after=0.1)
    assert made.state.views["h1"].progress == {}
