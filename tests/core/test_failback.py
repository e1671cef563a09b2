"""Failback: who goes home when, what keeps a guest away, and what is remembered of its home."""

from typing import Any

import pytest

from dr.core import failback, homing, moves, spare
from dr.model.base import changed
from dr.model.commands import Receive
from dr.model.effects import Reply, Send
from dr.model.events import AskSet, Tick
from dr.model.facts import Needs
from dr.model.operations import OperationState as OpState
from dr.model.policy import GuestPolicy, PolicyChange
from dr.model.records import Condition, Desired, GuestPhase, GuestRecord, Homing, HostPhase, Move, MoveStage
from tests.core.build import NOW, Bench, facts, guest, host
from tests.core.test_rules import like, must, ruled, together

HOME = GuestPolicy(failback=True)


def away(name: str = "g1", at: str = "h2", **fields: Any) -> GuestRecord:
    return guest(name, at, policy=HOME, **fields)


def bench_of(*rules: object, live: bool = True) -> Bench:
    bench = ruled(*rules)  # type: ignore[arg-type]
    for name in bench.state.hosts:
        bench.put(host(name, facts=facts(name, live_migration=live)))
    return bench


def pass_by(bench: Bench, seconds: float, step_s: float = 1.0) -> list[str]:
    """Guests that began to move, in their order."""
    gone: list[str] = []
    for _ in range(int(seconds / step_s)):
        bench.hear()
        for name in bench.state.hosts:
            bench.look(name, heard=bench.now + step_s, fresh=bench.now + step_s)
        sent = bench.send(Tick(), after=step_s)
        gone += [e.body.ticket.guest for e in sent if isinstance(e, Send) and isinstance(e.body, Receive)]
    return gone


def test_it_goes_when_its_home_has_been_well_for_so_long_and_not_sooner() -> None:
    bench = bench_of(like("r", ["g1"], h1=5)).put(away())
    assert pass_by(bench, 298) == []
    assert pass_by(bench, 5) == ["g1"]
    move = bench.guest("g1").move
    assert move is not None
    assert move.destination == "h1"


def test_without_the_policy_nobody_goes_and_nothing_is_looked_at() -> None:
    bench = bench_of(like("r", ["g1"], h1=5)).put(guest("g1", "h2"))
    assert pass_by(bench, 400) == []
    assert not bench.state.views["h1"].well_since
    assert failback.in_words(bench.draft(), bench.guest("g1")) == "off"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"desired": Desired.IGNORED}, "desired state is ignored"),
        ({"homing": Homing(stays="h2")}, "where a person moved it"),
        ({"homing": Homing(tries=5)}, "not tried again by itself"),
        ({"homing": Homing(tries=2, tried_at=NOW + 250)}, "its last move there failed; tried again in"),
        ({"blockers": ("Its disk is local.",)}, "Its disk is local"),
    ],
)
def test_what_its_record_says_keeps_it_away(change: dict[str, object], said: str) -> None:
    bench = bench_of(like("r", ["g1"], h1=5)).put(changed(away(), **change))
    assert pass_by(bench, 305) == []
    assert said in failback.in_words(bench.draft(), bench.guest("g1"))


@pytest.mark.parametrize("condition", sorted(failback.ILL - {Condition.CORDONED}))
def test_a_home_that_is_ill_is_not_well(condition: Condition) -> None:
    bench = bench_of(like("r", ["g1"], h1=5)).put(away())
    bench.put(changed(bench.host("h1"), conditions=frozenset({condition})))
    draft = bench.draft()
    failback._note_well(draft)
    bench.state.apply(draft)
    bench.now += 1000
    assert condition.value in failback.in_words(bench.draft(), bench.guest("g1"))


def test_agents_that_cannot_migrate_live_are_named_and_nothing_is_stopped() -> None:
    bench = bench_of(like("r", ["g1"], h1=5), live=False).put(away())
    assert pass_by(bench, 400) == []
    assert "h2: its agent cannot migrate guests live" in failback.in_words(bench.draft(), bench.guest("g1"))
    assert bench.guest("g1").phase is GuestPhase.RUNNING


def test_the_gaps_between_tries_double() -> None:
    for tries, wait_s in ((1, 30), (2, 60), (4, 240)):
        record = away(homing=Homing(tries=tries, tried_at=NOW))
        assert failback._again_at(record) == NOW + wait_s


def test_many_come_in_turn_and_each_has_its_turn() -> None:
    bench = bench_of()
    bench.put(*(away(f"g{number:03}") for number in range(100)))
    seen: set[str] = set()
    for _ in range(3):
        looked = failback._in_turn(bench.draft())
        assert len(looked) <= failback.LOOKED_MAX
        seen |= {each.id for each in looked}
        bench.now += failback.LOOK_S
    assert len(seen) == 100


@pytest.mark.parametrize("phase", [HostPhase.SUSPECT, HostPhase.FENCING])
def test_trouble_comes_first(phase: HostPhase) -> None:
    bench = bench_of().put(away())
    assert failback.comes_first(bench.draft()) == ""
    bench.put(host("h3", phase))
    assert failback.comes_first(bench.draft()) == f"h3 is {phase}"


@pytest.mark.parametrize(
    ("phase", "waits"),
    [(GuestPhase.RECOVERING, True), (GuestPhase.UNKNOWN, True), (GuestPhase.STOPPED, False)],
)
def test_who_recovers_comes_first(phase: GuestPhase, waits: bool) -> None:
    bench = bench_of().put(guest("g2", phase=phase))
    assert bool(failback.comes_first(bench.draft())) == waits


def test_who_waits_for_room_holds_nobody_up() -> None:
    bench = bench_of().put(guest("g2", phase=GuestPhase.RECOVERING))
    draft = bench.draft()
    draft.alert("guest/g2/waiting", "g2 waits", "no room", "add some")
    assert failback.comes_first(draft) == ""


@pytest.mark.parametrize("kind", sorted(failback.COMES_FIRST))
def test_an_open_job_comes_first(kind: str) -> None:
    bench = bench_of()
    draft = bench.draft()
    draft.open_operation(kind, "h3", "because")
    assert failback.comes_first(draft) == f"{kind} of h3 is under way"


# ---- home


@pytest.mark.parametrize(
    ("rules", "left", "found"),
    [
        ([], "", ""),
        ([], "h1", "h1"),
        ([], "h2", ""),
        ([], "gone", ""),
        ([like("r", ["g1"], h3=2, h2=1)], "h1", "h3"),
        ([like("r", ["g1"], h2=3, h1=1)], "h1", ""),
        ([must("r", ["g1"], "h3")], "h1", "h3"),
        ([must("r", ["g1"], "h2", "h3"), like("l", ["g1"], h1=9)], "", ""),
    ],
)
def test_home_is_what_rules_like_best_else_where_it_was(rules: list[object], left: str, found: str) -> None:
    bench = bench_of(*rules).put(away(homing=Homing(left=left)))
    assert failback.home(bench.draft(), bench.guest("g1")) == found


def test_the_first_host_that_it_was_taken_from_is_kept() -> None:
    once = changed(away(at="h1"), homing=homing.taken_from(away(at="h1"), "h1"))
    assert once.homing.left == "h1"
    assert homing.taken_from(once, "h2").left == "h1"
    assert homing.taken_from(guest("g1", "h1"), "h1") == Homing()


@pytest.mark.parametrize(
    ("asked", "drained", "at", "after"),
    [
        (False, False, "h1", Homing()),  # home again
        (False, False, "h3", Homing(left="h1")),
        (True, False, "h3", Homing(stays="h3")),
        (True, True, "h3", Homing(left="h1")),  # by hand, off a host that is to be emptied
        (False, False, "h2", Homing(left="h1", tries=3)),  # it did not get away
    ],
)
def test_what_an_arrival_leaves(asked: bool, drained: bool, at: str, after: Homing) -> None:
    move = Move(stage=MoveStage.RESUMING, source="h2", destination=at, asked=asked)
    record = away(homing=Homing(left="h1", tries=3), move=move)
    assert homing.arrived(record, at, drained=drained) == after


def test_to_set_it_anew_forgets_what_kept_it_away() -> None:
    bench = bench_of().put(away(homing=Homing(left="h1", stays="h2", tries=5)))
    draft = bench.draft()
    draft.alert("guest/g1/failback", "away", "why", "todo")
    bench.state.apply(draft)
    ask = AskSet(id="a", by="ops", guests=("g1",), policy=PolicyChange(failback=True))
    (reply,) = [effect for effect in bench.send(ask) if isinstance(effect, Reply)]
    assert reply.accepted
    assert bench.guest("g1").homing == Homing(left="h1")
    assert "guest/g1/failback" not in bench.state.alerts


# ---- groups


def test_who_must_share_its_host_goes_along_or_nobody_goes() -> None:
    bench = bench_of(together("t", "g1", "g2"), like("r", ["g1"], h1=5)).put(away(), away("g2"))
    draft = bench.draft()
    assert moves.begin_together(draft, bench.guest("g1"), "h1") == []
    ends = {name: draft.guest(name).move.destination for name in ("g1", "g2")}  # type: ignore[union-attr]
    assert ends == {"g1": "h1", "g2": "h1"}
    bench.put(changed(bench.guest("g2"), blockers=("Its disk is local.",)))
    draft = bench.draft()
    assert "g2, which must share its host: g2 could not run elsewhere: Its disk is local." in (
        moves.begin_together(draft, bench.guest("g1"), "h1")
    )
    assert not draft.changes()


def test_a_group_that_is_drained_stays_one() -> None:
    bench = bench_of(together("t", "g1", "g2", "g3")).put(
        guest("g1", "h1"), guest("g2", "h1"), guest("g3", "h1")
    )
    draft = bench.draft()
    assert moves.begin_together(draft, bench.guest("g1")) == []
    moving = [g for g in draft.guests() if g.move is not None]
    assert len(moving) == 3 > draft.config.limits.moves_out_per_host, "they count as one against the bounds"
    assert len({g.move.destination for g in moving if g.move is not None}) == 1


def test_who_could_not_set_out_with_its_group_follows_it() -> None:
    bench = bench_of(together("t", "g1", "g2")).put(guest("g1", "h1"), guest("g2", "h1"))
    draft = bench.draft()
    assert moves.begin(draft, bench.guest("g1"), along=(bench.guest("g2"),)) == []
    ahead = draft.guest("g1")
    assert ahead is not None
    assert ahead.move is not None
    assert moves.company(draft, bench.guest("g2"))[0] == ahead.move.destination


# ---- N+1


def test_n_plus_1_with_guests_imagined_elsewhere() -> None:
    bench = Bench("h1", "h2", "h3")
    bench.put(
        guest("g1", "h2", needs=Needs(memory_mib=2000)), guest("g2", "h1", needs=Needs(memory_mib=7000))
    )
    bench.put(changed(host("h3"), facts=facts("h3", memory_mib=512)))
    assert spare.stranded(bench.draft(), "h2", {"g1": "h1"}) == []
    assert [name for name, _ in spare.stranded(bench.draft(), "h1", {"g1": "h1"})] == ["g1"]
    assert (
        spare.worse_if(bench.draft(), {"g1": "h1"}, "h1") == ""
    )  # it is no worse: g2 is without a place now


def test_a_job_that_failed_says_why_and_is_counted() -> None:
    bench = bench_of(like("r", ["g1"], h1=5)).put(away())
    pass_by(bench, 302)
    (job,) = [op for op in bench.state.operations.values() if op.kind == "failback"]
    assert (job.state, bench.guest("g1").homing.tries) == (OpState.OPEN, 1)
