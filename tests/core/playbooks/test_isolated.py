"""Drills: what is asked of agents and when, what their end says of guests and networks, and what is not known."""

from __future__ import annotations

import pytest

from dr.core.drills import isolated, isolated_report
from dr.model.base import changed
from dr.model.checks import CheckResult, Ping, Screenshot
from dr.model.clones import BubbleSeen, Clone, CloneMade, CloneState, DrillEnd, Kept
from dr.model.commands import Answer, BootClone, CheckClone, EndDrill, MakeClone, Outcome
from dr.model.drills import Verdict
from dr.model.effects import Effect, Send
from dr.model.events import Answered, Tick
from dr.model.operations import OperationState
from dr.model.playbooks import Run
from dr.model.policy import GuestPolicy
from dr.model.records import HostPhase
from tests.core.build import Bench, facts, guest, host
from tests.core.playbooks.runs import Runs

KEPT = Kept(guest="g1", name="g1", ok=True, why="the same QEMU")
ADDRESS = "bubble: {address: 10.0.0.1/24}"
GONE = Kept(guest="g1", name="g1", ok=False, why="gone")
OVER = DrillEnd(kept=(KEPT,), bubble=BubbleSeen(bridge="drb1", ports=("vnet7",)))


class Drill(Runs):
    """A drill of one guest, whose agent answers as it is told to."""

    def begin(self, steps: str = "[{clone: g1}, {boot: g1}, {check: g1}]", more: str = ADDRESS) -> None:
        reply = self.run(f"kind: drill\n{more}\nsteps: {steps}")
        assert reply.accepted, reply.blockers

    def sent(self) -> list[Send]:
        """What agents were asked since the last look."""
        effects: list[Effect] = self.bench.send(Tick(lag_s=0.0), after=0.1)
        return [each for each in effects if isinstance(each, Send)]

    def out(self, kind: type) -> str:
        """The id of the command of that kind that is out."""
        (key,) = (key for key, each in self.bench.state.pending.items() if each.detail == kind.__name__)
        return key

    def says(
        self, kind: type, outcome: Outcome = Outcome.DONE, reason: str = "", end: DrillEnd = OVER
    ) -> None:
        key = self.out(kind)
        pending = self.bench.state.pending[key]
        made = CloneMade(
            guest=pending.guest,
            clone="c1",
            domain="d1",
            point=1.0,
            took_s=2.0,
            size_b=2**20,
            left_out=("tpm",),
        )
        answer = Answer(outcome=outcome, reason=reason, clone=made, drill=end)
        session = self.bench.state.views[pending.host].session
        self.bench.send(Answered(host=pending.host, session=session, effect=key, answer=answer), after=0.1)
        self.go(0.5)

    def passes(self) -> None:
        for kind in (MakeClone, BootClone, CheckClone, CheckClone):
            self.says(kind)


@pytest.fixture
def drill() -> Drill:
    bench = Bench()
    bench.put(*(host(name, facts=facts(name)) for name in ("h1", "h2", "h3")))
    policy = GuestPolicy(checks=(Ping(address="10.0.0.7"),))
    bench.put(guest("g1", "h1", policy=policy), guest("g2", "h2"))
    return Drill(bench)


def test_a_drill_is_done_when_its_host_says_that_nothing_is_left_and_that_the_guest_is_as_it_was(
    drill: Drill,
) -> None:
    drill.begin()
    drill.passes()
    assert drill.job in drill.bench.state.open_operations
    drill.says(EndDrill)
    assert drill.operation.state is OperationState.DONE


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (
            DrillEnd(kept=(Kept(guest="g1", name="g1", ok=False, why="another QEMU"),)),
            "g1 is not as it was: another",
        ),
        (DrillEnd(bubble=BubbleSeen(bridge="b", ports=("eth0",), strangers=("eth0",))), "was also eth0"),
    ],
)
def test_a_drill_that_changed_anything_has_failed_though_its_clones_did_well(
    drill: Drill, end: DrillEnd, told: str
) -> None:
    drill.begin()
    drill.passes()
    drill.says(EndDrill, end=end)
    assert drill.operation.state is OperationState.FAILED
    assert told in drill.operation.steps[-1].text


def test_a_guest_that_was_moved_meanwhile_is_not_held_against_the_drill(drill: Drill) -> None:
    drill.begin()
    drill.passes()
    record = drill.bench.guest("g1")
    drill.bench.put(guest("g1", "h2", generation=record.generation + 2, policy=record.policy))
    drill.says(EndDrill, end=changed(OVER, kept=(GONE,)))
    assert drill.operation.state is OperationState.DONE


def test_a_guest_that_was_started_anew_meanwhile_leaves_its_drill_unknown(drill: Drill) -> None:
    drill.begin()
    drill.passes()
    record = drill.bench.guest("g1")
    drill.bench.put(guest("g1", "h1", generation=record.generation + 2, policy=record.policy))
    drill.says(EndDrill, end=changed(OVER, kept=(GONE,)))
    assert drill.operation.state is OperationState.UNKNOWN
    assert "g1 was started anew meanwhile" in drill.operation.steps[-1].text


def test_a_host_that_has_forgotten_what_it_did_proves_nothing(drill: Drill) -> None:
    """Its agent was killed after the checks had passed."""
    drill.begin()
    drill.passes()
    drill.says(EndDrill, end=DrillEnd())
    assert drill.operation.state is OperationState.UNKNOWN
    text = drill.operation.steps[-1].text
    assert "h1 does not know any more whether g1 is as it was before" in text
    assert "h1 does not know any more what hung on the clones' network" in text


def test_what_is_checked_is_settled_as_a_clone_is_started(drill: Drill) -> None:
    """Nobody passes as its policy was changed, or its protection ended, in the middle."""
    drill.begin()
    drill.says(MakeClone)
    drill.says(BootClone)
    draft = drill.bench.draft()
    draft.drop_guest("g1")
    drill.bench.state.apply(draft)
    drill.says(CheckClone)
    (clone,) = drill.operation.run.clones if drill.operation.run is not None else ()
    assert (clone.checked, clone.passed_at) == (1, 0.0)
    drill.says(CheckClone)
    (clone,) = drill.operation.run.clones if drill.operation.run is not None else ()
    assert clone.passed_at > 0


def test_a_start_that_failed_is_tried_again_with_the_same_copy(drill: Drill) -> None:
    drill.begin("[{clone: g1}, {boot: g1, retry: 1}, {check: g1}]")
    drill.says(MakeClone)
    drill.says(BootClone, Outcome.FAILED, "no memory")
    drill.go(12)
    drill.says(BootClone)
    drill.says(CheckClone)
    drill.says(CheckClone)
    drill.says(EndDrill)
    assert drill.operation.state is OperationState.DONE


def test_a_clone_that_was_never_made_is_not_checked(drill: Drill) -> None:
    """Its step goes on after the failure, the start is left out, and the check finds nothing to look at."""
    steps = "[{clone: g1, on_fail: continue}, {boot: g1, when: {automation: paused}}, {check: g1, on_fail: continue}]"
    drill.begin(steps)
    drill.says(MakeClone, Outcome.FAILED, "no room")
    drill.go(2)
    drill.says(EndDrill, end=DrillEnd())
    assert drill.operation.state is OperationState.FAILED
    (clone,) = drill.operation.run.clones if drill.operation.run is not None else ()
    assert (clone.state, clone.text, clone.boot_at) == (CloneState.FAILED, "no room", 0.0)


def test_a_guest_that_crashed_and_was_started_elsewhere_was_not_moved(drill: Drill) -> None:
    drill.begin()
    drill.passes()
    record = drill.bench.guest("g1")
    now = drill.bench.now
    anew = guest("g1", "h2", generation=record.generation + 2, policy=record.policy, relocations=(now,))
    drill.bench.put(anew)
    drill.says(EndDrill, end=changed(OVER, kept=(GONE,)))
    assert drill.operation.state is OperationState.UNKNOWN


def test_a_host_that_ended_it_by_itself_leaves_it_unknown(drill: Drill) -> None:
    drill.begin()
    drill.passes()
    drill.says(EndDrill, end=changed(OVER, why="the drill was ended here: no room"))
    assert drill.operation.state is OperationState.UNKNOWN
    assert "h1: the drill was ended here: no room" in drill.operation.steps[-1].text


def test_an_agent_that_is_busy_is_asked_again(drill: Drill) -> None:
    drill.begin()
    drill.says(MakeClone, Outcome.REFUSED, "too many commands of drills are under way")
    drill.go(2)
    drill.passes()
    drill.says(EndDrill)
    assert drill.operation.state is OperationState.DONE


def test_a_drill_ends_where_its_host_goes_down(drill: Drill) -> None:
    drill.begin()
    drill.says(MakeClone)
    record = drill.bench.host("h1")
    drill.bench.put(changed(record, leaving="reboot", leaving_at=drill.bench.now))
    drill.go(0.5)
    drill.says(EndDrill)
    assert drill.operation.state is OperationState.FAILED
    assert "h1, where it has clones, announced its reboot" in drill.operation.steps[-1].text


def test_an_address_that_a_guest_s_own_check_looks_for_is_not_taken(drill: Drill) -> None:
    """It would answer itself."""
    reply = drill.run(
        "kind: drill\nbubble: {address: 10.0.0.7/24}\nsteps: [{clone: g1}, {boot: g1}, {check: g1}]"
    )
    assert "10.0.0.7 is looked for by its own checks" in reply.blockers[0]


def test_pictures_of_many_clones_do_not_swell_the_record() -> None:
    run = Run(playbook="x", kind="drill")
    for number in range(9):
        clone = Clone(guest=f"g{number}", name=f"g{number}", host="h1", asked=0.0)
        shot = CheckResult(check=Screenshot(), passed=True, picture=bytes(400 * 1024))
        run = changed(run, clones=(*run.clones, isolated._with_results(run, clone, (shot,))))
    kept = [len(each.picture) for clone in run.clones for each in clone.results]
    assert sum(kept) <= isolated.PICTURES_MAX
    assert len(kept) == 9


def test_what_no_host_ever_said_is_unknown_in_the_end(drill: Drill) -> None:
    drill.begin()
    drill.passes()
    drill.says(EndDrill, Outcome.FAILED, "an image is busy")
    assert "an image is busy" in isolated.not_ended(drill.bench.draft(), drill.operation)[0]
    drill.go(isolated.LIMIT_S + isolated.BEYOND_S + 10)
    assert drill.operation.state is OperationState.UNKNOWN
    assert "h1 never said that nothing of it is left" in drill.operation.steps[-1].text


def test_an_answer_that_says_nothing_has_the_agent_asked_again(drill: Drill) -> None:
    drill.begin()
    first = drill.out(MakeClone)
    drill.says(MakeClone, Outcome.UNKNOWN, "libvirtd is away")
    drill.go(2)
    assert drill.out(MakeClone) != first
    drill.passes()
    drill.says(EndDrill)
    assert drill.operation.state is OperationState.DONE


def test_an_agent_is_not_asked_for_the_same_twice_at_once(drill: Drill) -> None:
    drill.begin()
    for _ in range(20):
        assert [each for each in drill.sent() if isinstance(each.body, MakeClone)] == []


def test_the_end_is_asked_for_again_and_again_but_not_at_once(drill: Drill) -> None:
    drill.begin("[{clone: g1}]")
    drill.says(MakeClone)
    asked = 0
    for _ in range(4):
        drill.says(EndDrill, Outcome.FAILED, "an image is busy")
        asked += sum(isinstance(each.body, EndDrill) for each in drill.sent())
        drill.go(isolated.END_AGAIN_S)
    assert asked == 0
    drill.says(EndDrill)
    assert drill.operation.state is OperationState.UNKNOWN
    assert "g1: never checked as a clone" in drill.operation.steps[-1].text


def test_a_drill_ends_at_once_where_its_host_is_in_trouble_and_does_not_wait_for_a_dead_one(
    drill: Drill,
) -> None:
    drill.begin()
    drill.says(MakeClone)
    drill.bench.put(host("h1", HostPhase.FENCED, facts=facts("h1")))
    drill.bench.send(Tick(lag_s=0.0), after=0.1)
    drill.bench.send(Tick(lag_s=0.0), after=0.1)
    assert drill.operation.state is OperationState.FAILED
    assert "gave way: h1, where it has clones, is fenced" in drill.operation.steps[-1].text


def test_what_an_agent_may_use_and_how_long_it_may_live_is_told_to_it(drill: Drill) -> None:
    drill.begin(
        "[{clone: g1}, {boot: g1}]", "bubble: {address: 10.0.0.1/24, disk: 2GiB}\nlimits: {timeout: 10m}"
    )
    (make,) = (p for p in drill.bench.state.pending.values() if p.detail == "MakeClone")
    reply = drill.bench.now  # the order itself went out with the first decision
    assert make.at <= reply
    drill.says(MakeClone, Outcome.UNKNOWN)
    drill.bench.now += 1.0
    (again,) = (each.body for each in drill.sent() if isinstance(each.body, MakeClone))
    assert again.disk_mib == 2048
    assert 1150.0 < again.life_s <= 1200.0  # the run's time, and ten minutes
    drill.says(MakeClone)
    drill.says(BootClone, Outcome.UNKNOWN)
    drill.bench.now += 1.0
    (boot,) = (each.body for each in drill.sent() if isinstance(each.body, BootClone))
    assert boot.address == "10.0.0.1/24"


def test_a_dry_run_says_what_would_be_cloned_and_what_stands_against_it(drill: Drill) -> None:
    reply = drill.run("kind: drill\nsteps: [{clone: [g1, g2]}, {boot: g1}, {check: g2}]", dry_run=True)
    assert [step.todo for step in reply.steps][:2] == [
        ("g1 is cloned", "g2 is cloned"),
        ("g1 is started as a clone",),
    ]
    assert reply.message == "check g2: no step before boots it"
    reply = drill.run("kind: drill\nsteps: [{clone: g1}, {boot: g1}, {check: g1}]", dry_run=True)
    assert "g1: checked over the network, so the drill needs `bubble" in reply.message
    assert not drill.job


def test_a_drill_with_nobody_to_clone_does_not_begin(drill: Drill) -> None:
    reply = drill.run("kind: drill\ntargets: {guests: on:h3}\nsteps: [{clone: targets}]")
    assert reply.blockers == ("there is nobody to clone",)


def test_a_later_check_counts_for_itself_and_lengthens_no_recovery(drill: Drill) -> None:
    drill.begin("[{clone: g1}, {boot: g1}, {check: g1}, {wait: 60s}, {check: g1, timeout: 10s}]")
    drill.passes()
    (clone,) = drill.operation.run.clones if drill.operation.run is not None else ()
    worked_at = clone.worked_at
    drill.go(62)
    drill.says(CheckClone)
    missed = CheckResult(check=Ping(address="10.0.0.7"), passed=False, why="no echo")
    key = drill.out(CheckClone)
    answer = Answer(outcome=Outcome.FAILED, reason="no echo", checks=(missed,))
    drill.bench.send(
        Answered(host="h1", session=drill.bench.state.views["h1"].session, effect=key, answer=answer)
    )
    (clone,) = drill.operation.run.clones if drill.operation.run is not None else ()
    assert (clone.passed_at, clone.worked_at) == (0.0, worked_at)
    assert worked_at > 0
    drill.go(12)
    drill.says(EndDrill)
    assert drill.operation.run is not None
    report = isolated_report.of_run(drill.bench.draft(), drill.operation, drill.operation.run)
    assert [(row.verdict, row.why) for row in report.guests] == [
        (Verdict.FAILED, "its checks have not passed: no echo")
    ]
