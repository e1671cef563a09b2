"""Runs of playbooks: what is asked for, what follows from its end, and what was so before is left as it was."""

from __future__ import annotations

import pytest

from dr.core import asks_playbooks
from dr.model.base import changed
from dr.model.events import AskCordon, AskPause, AskResume
from dr.model.operations import OperationState
from dr.model.playbooks import StepState
from dr.model.records import Desired, GuestPhase, HostPhase
from tests.core.build import Bench, facts, guest, host
from tests.core.playbooks.runs import Runs

NEVER = "{until: {automation: paused}, timeout: 1s, on_fail: rollback}"


@pytest.fixture
def runs() -> Runs:
    bench = Bench()
    bench.put(*(host(name, facts=facts(name, live_migration=True)) for name in ("h1", "h2", "h3")))
    bench.put(guest("g1", "h1"), guest("g2", "h2"))
    return Runs(bench)


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("{cordon: [h1, h2]}", "no such host: h2"),
        ("{drain: h2}", "no such host: h2"),
        ("{drain: [h1, h2]}", "no such host: h2"),
        ("{fence: h2}", "no such host: h2"),
        ("{undrain: h2}", "no such host: h2"),
        ("{stop: g2}", "no such protected guest: g2"),
        ("{start: g2}", "no such protected guest: g2"),
        ("{migrate: g2, to: h3}", "no such protected guest: g2"),
        ("{migrate: g2}", "no such protected guest: g2"),
        ("{relocate: g2}", "no such protected guest: g2"),
        ("{check: g2}", "g2 is not protected"),
    ],
)
def test_what_vanished_since_the_run_began_fails_its_step_and_leaves_no_job(
    step: str, told: str, runs: Runs
) -> None:
    runs.run(f"steps: [{{wait: 1s}}, {step}]")
    draft = runs.bench.draft()
    draft.drop_guest("g2")
    draft.remove_host("h2")
    runs.bench.state.apply(draft)
    runs.go(160)
    assert runs.operation.state is OperationState.FAILED
    assert told in runs.told()[1][1]
    others = [op.id for op in runs.bench.state.operations.values() if op.id != runs.job]
    assert [key for key in others if key in runs.bench.state.open_operations] == []


def test_a_rollback_leaves_what_was_so_before(runs: Runs) -> None:
    runs.ask(AskCordon(id="c", by="other", host="h1", reason="mine"))
    runs.ask(AskPause(id="p", by="other", reason="mine"))
    runs.run(
        "steps: [{cordon: [h1, h2], undo: uncordon}, {cordon: h1, undo: uncordon}, {pause: x, undo: {resume: y}}, "
        "{until: {automation: 'on'}, timeout: 1s, on_fail: rollback}]"
    )
    runs.go(5)
    assert runs.operation.state is OperationState.FAILED
    assert runs.bench.host("h1").cordon is not None
    assert runs.bench.host("h2").cordon is None
    assert runs.bench.state.cluster.pause is not None


def test_a_rollback_starts_nothing_that_was_off_before(runs: Runs) -> None:
    runs.bench.put(guest("g3", phase=GuestPhase.STOPPED, desired=Desired.STOPPED))
    runs.run(f"steps: [{{stop: g3, undo: start}}, {NEVER}]")
    runs.go(5)
    assert runs.operation.state is OperationState.FAILED
    assert runs.opened("guest-start") == []


def test_no_step_begins_when_the_run_is_out_of_time(runs: Runs) -> None:
    runs.run(
        "limits: {timeout: 10s}\nsteps: [{wait: 10s}, {cordon: h1, on_fail: continue}, {cordon: h2}]\n"
        "finally: [{cordon: h3}]"
    )
    runs.go(15)
    assert [step.state for step in runs.steps] == ["done", "failed", "failed", "done"]
    assert runs.told()[1][1] == "the run may take 10 s"
    assert [runs.bench.host(name).cordon is not None for name in ("h1", "h2", "h3")] == [False, False, True]


def test_what_is_refused_is_not_asked_for_longer_than_the_step_may_take(runs: Runs) -> None:
    runs.bench.put(guest("g3", "h1", phase=GuestPhase.ERROR))
    runs.run("steps: [{stop: g3, timeout: 5s, retry: 3}]")
    runs.go(7)
    ((state, text),) = runs.told()
    assert state == "failed"
    assert text.startswith("not done within 5 s: g3 is in error")


def test_a_job_that_is_done_is_done_whatever_came_after_it(runs: Runs) -> None:
    runs.run("steps: [{fence: h2}]")
    (fence,) = runs.opened("fence")
    runs.end(fence.id, OperationState.DONE)
    runs.bench.put(changed(runs.bench.host("h2"), phase=HostPhase.RETURNING, fencing=None))
    runs.go()
    assert runs.steps[0].state is StepState.DONE


def test_a_job_that_nobody_knows_any_more_is_not_taken_as_done(runs: Runs) -> None:
    runs.run("steps: [{migrate: g1, to: h3}]")
    (move,) = runs.opened("guest-migrate")
    del runs.bench.state.operations[move.id]
    runs.go()
    assert runs.told() == [("failed", f"what became of {move.id} is not known any more")]


def test_who_has_moved_is_not_moved_again_by_the_next_try(runs: Runs) -> None:
    runs.run("steps: [{migrate: [g1, g2], retry: 1}]")
    (first,) = runs.opened("guest-migrate")
    runs.end(first.id, OperationState.FAILED)
    runs.bench.put(guest("g1", "h3"), guest("g2", "h2"))
    runs.go(12)
    _, second = runs.opened("guest-migrate")
    assert list(second.guests) == ["g2"]


def test_a_guest_that_is_being_stopped_is_waited_for(runs: Runs) -> None:
    runs.bench.put(
        guest("g1", "h1", phase=GuestPhase.STOPPING, desired=Desired.STOPPED, since=runs.bench.now)
    )
    runs.run("steps: [{stop: g1}]")
    ((state, text),) = runs.told()
    assert (state, text) == ("running", "g1 is stopping")
    assert runs.opened("guest-stop") == []


def test_nothing_is_written_while_a_step_only_waits(runs: Runs) -> None:
    runs.run("steps: [{wait: 10m}]")
    runs.go(1)
    before = runs.operation
    runs.go(5)
    assert runs.operation is before


def test_a_run_waits_for_a_person_on_a_store_that_was_restored(runs: Runs) -> None:
    runs.run("steps: [{wait: 2s}, {resume: it is over, when: {automation: paused}}]")
    cluster = runs.bench.state.cluster
    runs.bench.state.cluster = changed(cluster, restored="a copy")
    runs.ask(AskPause(id="p", by="ops", reason="look"))
    runs.go(10)
    assert runs.bench.state.cluster.restored
    assert runs.run("steps: [{cordon: h1}]").blockers == (
        "the store is a restored copy (a copy): see that guests are where dr guest list says, then dr resume",
    )
    runs.job = runs.opened("playbook")[0].id
    runs.ask(AskResume(id="r", by="ops", reason="looked"))
    runs.go(3)
    assert runs.operation.state is OperationState.DONE


def test_a_pause_tells_which_run_asked_for_it(runs: Runs) -> None:
    runs.run("steps: [{pause: cables}]")
    pause = runs.bench.state.cluster.pause
    assert pause is not None
    assert pause.reason == f"cables; playbook x ({runs.job}): work"


# ---- approval and cancelling


def test_only_who_is_named_may_answer_and_only_once(runs: Runs) -> None:
    runs.run("steps: [{approve: really?, by: [boss]}, {cordon: h1}]")
    assert runs.answer("intern").blockers == ("intern is not one of those who may answer: boss",)
    assert runs.answer("boss").accepted
    assert runs.answer("boss").blockers == (f"{runs.job} does not wait for an answer",)
    runs.go()
    assert runs.bench.host("h1").cordon is not None


def test_silence_may_mean_yes(runs: Runs) -> None:
    runs.run("steps: [{approve: really?, timeout: 5s, otherwise: go on}, {cordon: h1}]")
    runs.go(8)
    assert runs.operation.state is OperationState.DONE
    assert f"playbook/{runs.job}/approve" not in runs.bench.state.alerts


def test_refused_is_not_tried_again(runs: Runs) -> None:
    runs.run("steps: [{approve: really?, retry: 2}]\nfinally: [{cordon: h1}]")
    runs.answer("ops", agree=False)
    runs.go()
    assert runs.told() == [("failed", "ops refused"), ("done", "after 0.0 s")]
    assert runs.operation.state is OperationState.FAILED


def test_cancelled_once_and_not_in_its_end(runs: Runs) -> None:
    runs.run("steps: [{wait: 10m}, {cordon: h1}]\nfinally: [{approve: are the cables back?}]")
    assert runs.cancel().accepted
    runs.go()
    assert not runs.cancel().accepted
    assert runs.answer("ops").accepted
    runs.go()
    assert runs.told()[1:] == [("skipped", "not its turn any more"), ("done", "ops agreed")]
    assert runs.operation.state is OperationState.FAILED


def test_what_is_done_in_the_end_is_not_called_off(runs: Runs) -> None:
    runs.run("steps: [{cordon: h1}]\nfinally: [{approve: are the cables back?}]")
    runs.go()
    assert runs.cancel().blockers == (
        f"{runs.job} does only what it does in the end: that is not called off",
    )
    assert f"playbook/{runs.job}/approve" in runs.bench.state.alerts


def test_a_rollback_is_not_called_off(runs: Runs) -> None:
    runs.run(f"steps: [{{cordon: h1, undo: {{migrate: g1, to: h3}}}}, {NEVER}]")
    runs.go(3)
    assert runs.cancel().blockers == (f"{runs.job} is being rolled back: that is not called off",)


def test_a_limit_ends_what_is_asked_of_people(runs: Runs) -> None:
    runs.run("limits: {timeout: 5s}\nsteps: [{approve: really?, timeout: 5s}]")
    runs.go(6)
    assert runs.operation.state is OperationState.FAILED
    assert f"playbook/{runs.job}/approve" not in runs.bench.state.alerts


# ---- what follows from a failure


def test_continue_goes_on_and_the_run_has_failed(runs: Runs) -> None:
    runs.run("steps: [{until: {automation: paused}, timeout: 1s, on_fail: continue}, {cordon: h1}]")
    runs.go(4)
    assert [step.state for step in runs.steps] == ["failed", "done"]
    assert runs.operation.state is OperationState.FAILED


def test_an_undo_that_fails_does_not_keep_the_others_from_their_turn(runs: Runs) -> None:
    runs.run(
        "steps: [{cordon: h1, undo: uncordon}, {cordon: h2, undo: {start: g1}}, {cordon: h3, undo: {stop: g9}}, "
        f"{NEVER}]".replace("g9", "g2")
    )
    draft = runs.bench.draft()
    draft.drop_guest("g2")
    runs.bench.state.apply(draft)
    runs.go(45)
    assert [step.state for step in runs.steps if step.part == "undo"] == ["failed", "done", "done"]
    assert runs.bench.host("h1").cordon is None


def test_many_steps_are_not_done_in_one_decision(runs: Runs) -> None:
    runs.run("steps: [{each_host: all, steps: [{cordon: '${host}'}, {uncordon: '${host}'}]}]")
    assert [step.state for step in runs.steps].count(StepState.DONE) <= 1
    runs.go(4)
    assert runs.operation.state is OperationState.DONE


# ---- only told


def test_a_dry_run_changes_nothing_and_tells_what_each_step_would_do(runs: Runs) -> None:
    before = runs.bench.state.operations.copy(), runs.bench.host("h1")
    reply = runs.run(
        "require: [{automation: paused}]\n"
        "steps: [{drain: h1}, {migrate: g2, to: h2}, {stop: g1, when: {guest: g1, is: stopped}}]",
        dry_run=True,
    )
    assert (runs.bench.state.operations, runs.bench.host("h1")) == before
    assert reply.message == "automation is on"
    drain, migrate, stop = reply.steps
    assert drain.todo == ("h1 is online",)
    assert migrate.todo == (), "it is there already"
    assert stop.when == "g1 is running, not stopped"


def test_a_long_dry_run_foretells_only_so_much(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asks_playbooks, "FORETOLD_MAX", 1)
    first, second = runs.run("steps: [{drain: h1}, {drain: h2}]", dry_run=True).steps
    assert first.takes_s is not None
    assert second.takes_s is None
    assert second.todo == ("h2 is online", "not foretold: 1 before it are")


def test_one_run_of_a_playbook_at_a_time(runs: Runs) -> None:
    runs.run("steps: [{wait: 10m}]")
    first = runs.job
    assert runs.run("steps: [{wait: 10m}]").blockers == (
        f"x is being run already: {first}, asked for by ops",
    )


def test_what_was_refused_is_not_taken_back(runs: Runs) -> None:
    runs.bench.put(guest("g3", "h1", phase=GuestPhase.ERROR))
    runs.run("steps: [{stop: g3, undo: start, on_fail: rollback}]")
    runs.go(40)
    assert [step.part for step in runs.steps] == ["steps"]
    assert runs.opened("guest-start") == []
    assert runs.operation.state is OperationState.FAILED


def test_no_step_begins_before_a_new_coordinator_has_heard_everybody(runs: Runs) -> None:
    runs.run("steps: [{wait: 1s}, {cordon: h1}]")
    runs.bench.state.quiet_until = runs.bench.now + 5
    runs.go(4)
    assert runs.bench.host("h1").cordon is None
    runs.go(2)
    assert runs.bench.host("h1").cordon is not None


def test_a_step_about_very_many_is_told_in_a_line(runs: Runs) -> None:
    many = [guest(f"guest-{number}", "h1", phase=GuestPhase.ERROR) for number in range(100)]
    runs.bench.put(*many)
    runs.run("steps: [{stop: all}]")
    runs.go(40)
    assert runs.operation.state is OperationState.FAILED
    assert runs.steps[0].text.endswith("and 90 more reasons")
    assert max(len(line.text) for line in runs.operation.steps) < 3000


def test_n_plus_1_that_nobody_has_looked_at_yet_is_none(runs: Runs) -> None:
    """A coordinator that has just begun knows of nothing that would not fit; that is not to say that all would."""
    steps = "require: [{spare: host}]\nsteps: [{cordon: h1}]"
    assert runs.run(steps).blockers == ("required: what would fit if h1 died was not looked at yet",)
    runs.go(3)
    assert runs.run(steps).accepted
