"""What is known of how fast guests make memory dirty, and what follows from it for moves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.core import convergence, deadline, dirtying, forecast, links, moves
from dr.core.dirtying import ASK_AGAIN_S, ASKED_MAX, OLD_S
from dr.core.volatile import Sampled
from dr.model.base import changed
from dr.model.commands import Sample
from dr.model.effects import Effect, Forecast, Foreseen, Reply, Send
from dr.model.events import AskDrain, AskMigrate, Reported
from dr.model.facts import DirtyPoint, DirtySample, Progress
from dr.model.policy import GuestPolicy, Limits
from dr.model.records import GuestPhase, GuestRecord, Rung, Wish
from tests.core.build import Bench, domain, guest, host
from tests.core.test_forecast_times import evacuation
from tests.core.test_ladder import Points, writes
from tests.core.test_links import NAMES, bench, moving

SLOW = dict.fromkeys(("h1", "h2", "h3"), 20)
BUSY = writes(8, 60)  # alone 20 MiB/s are enough for it, half of that is not
QUIET = writes(0, 0)


def sampled(
    made: Bench, name: str, points: tuple[DirtyPoint, ...], at: str = "h1", age_s: float = 0.0
) -> None:
    """As its host measured it so long ago."""
    one = Sampled(points=points, at=made.now - age_s)
    made.look(at, samples=made.state.views[at].samples | {name: one})


def tells(made: Bench, *samples: DirtySample, clock_s: float = 100.0) -> None:
    made.send(Reported(host="h1", session="s-h1", samples=samples, clock_s=clock_s))


def asked(effects: list[Effect]) -> list[tuple[str, ...]]:
    return [each.body.guests for each in effects if isinstance(each, Send) and isinstance(each.body, Sample)]


def dry(made: Bench, *names: str) -> tuple[dict[str, Foreseen], Forecast]:
    sent = made.send(AskMigrate(id="q", by="ops", guests=names, dry_run=True))
    (reply,) = [each for each in sent if isinstance(each, Reply)]
    assert reply.forecast is not None
    return {each.name: each for each in reply.guests}, reply.forecast


# ---- what is told


def test_a_sample_is_dated_by_the_clock_of_the_host() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1"))
    tells(made, DirtySample(guest="a", points=BUSY, taken_s=40.0))
    tells(made, DirtySample(guest="b", points=QUIET, taken_s=100.0))
    tells(made, DirtySample(guest="gone", points=QUIET, taken_s=100.0))
    found = made.state.views["h1"].samples
    assert {key: made.now - each.at for key, each in found.items()} == {"a": 60.0, "b": 0.0}
    assert dirtying.of(made.draft(), made.guest("a")) == BUSY


def test_a_session_that_is_over_tells_nothing() -> None:
    made = bench(guest("a", "h1"))
    sample = DirtySample(guest="a", points=BUSY)
    made.send(Reported(host="h1", session="older", samples=(sample,), clock_s=1.0))
    assert not made.state.views["h1"].samples


def test_it_moves_with_its_guest() -> None:
    made = bench(guest("a", "h1"))
    sampled(made, "a", BUSY)
    draft = made.draft()
    dirtying.carry(draft, made.guest("a"), "h1", "h3")
    assert draft.view("h3").samples == made.state.views["h1"].samples


# ---- what is asked for


def asking(*guests: GuestRecord) -> Bench:
    """Whose agents can measure."""
    made = bench(*guests)
    return made.put(*(host(n, facts=changed(made.host(n).facts, samples_memory=True)) for n in NAMES))


def drain(made: Bench, **fields: float) -> list[tuple[str, ...]]:
    return asked(made.send(AskDrain(id="q", by="ops", host="h1", dry_run=True, **fields)))  # type: ignore[arg-type]


def test_what_is_missing_or_old_is_measured_afresh_for_a_forecast() -> None:
    made = asking(*(guest(n, "h1") for n in "abc"), guest("d", "h2"))
    sampled(made, "a", BUSY, age_s=OLD_S + 1)
    sampled(made, "b", BUSY, age_s=OLD_S - 1)
    assert drain(made) == [("a", "c")]
    assert drain(made) == [], "that is under way"
    made.now += ASK_AGAIN_S
    made.hear()
    assert drain(made)
    assert asked(made.send(AskMigrate(id="q", by="ops", guests=("d",), dry_run=True))) == [("d",)]


def test_few_at_once() -> None:
    made = asking(*(guest(f"g{n:02}", "h1") for n in range(20)))
    (found,) = drain(made)
    assert len(found) == ASKED_MAX


def test_a_drain_in_a_hurry_has_nobody_measured() -> None:
    made = asking(guest("a", "h1"))
    assert drain(made, deadline_s=60.0) == []
    made.send(AskDrain(id="q", by="ops", host="h1", deadline_s=60.0))
    assert asked(made.effects) == []


def test_a_guest_in_a_migration_is_not_asked_for() -> None:
    made = asking(moving("m", "h1", "h2"), guest("a", "h1"))
    assert drain(made) == [("a",)]


def test_an_agent_that_cannot_measure_is_not_asked() -> None:
    """An older one would not even understand it, and end its session."""
    assert drain(bench(guest("a", "h1"))) == []


def test_an_agent_that_is_not_heard_is_not_asked() -> None:
    made = asking(guest("a", "h1"))
    made.look("h1", session="")
    draft = made.draft()
    dirtying.ask(draft, "h1", [made.guest("a")])
    assert not draft.decision().effects


# ---- what is foretold


def test_one_move_is_told_with_its_rung_and_what_is_sent_again() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1"), resident={"a": 100, "b": 100}, mib_s=SLOW)
    sampled(made, "a", writes(2, 1000))
    sampled(made, "b", writes(100, 80))
    (a,), (b,) = dry(made, "a")[0].values(), dry(made, "b")[0].values()
    assert (a.rung, a.send_mib, a.begins_s) == (Rung.PLAIN, 110, 0.0)
    assert a.ends_s == 6.5, "1 s beside the sending"
    assert b.rung is Rung.SLOWED
    assert b.send_mib > 500
    assert 0 < b.downtime_s <= 1.0


def test_a_cap_of_its_own_counts() -> None:
    made = bench(guest("a", "h1", policy=GuestPolicy(move_mib_s=5)), resident={"a": 100}, mib_s=SLOW)
    sampled(made, "a", BUSY)
    (a,) = dry(made, "a")[0].values()
    assert a.rung is Rung.SLOWED
    made = bench(guest("a", "h1", policy=GuestPolicy(move_mib_s=5)), guest("b", "h1"), mib_s=SLOW)
    for name in "ab":
        made.see("h1", domain(name, memory_mib=4096, resident_mib=100))
    told, whole = dry(made, "a", "b")
    assert told["a"].ends_s == 21.0
    assert told["b"].ends_s == pytest.approx(1 + 100 / 15, abs=0.05), "the rest of the link is its own"
    assert whole.bound_s == 20.0


def test_a_guest_that_may_not_be_sent_fast_enough_for_a_deadline_is_late() -> None:
    capped = GuestPolicy(move_mib_s=1)
    for known in (SLOW, {}):  # or not: that of the link may be doubted, its own may not
        made = bench(
            guest("a", "h1", policy=capped), guest("b", "h1"), resident={"a": 100, "b": 100}, mib_s=known
        )
        wish = Wish(by="ops", at=made.now, deadline=made.now + 60)
        late = {name: deadline.too_late(made.draft(), made.guest(name), wish) for name in "ab"}
        assert "would not move live in time" in late["a"]
        assert not late["b"]


def test_several_share_the_link() -> None:
    made = bench(*(guest(n, "h1") for n in "abc"), resident=dict.fromkeys("abc", 100), mib_s=SLOW)
    told, whole = dry(made, *"abc")
    assert [told[name].begins_s for name in "abc"][:2] == [0.0, 0.0]
    assert (told["c"].begins_s or 0) > 5, "two at once"
    assert whole.bound_s == 15.0
    assert whole.total_s == max(each.ends_s or 0 for each in told.values())


def test_what_it_rests_on() -> None:
    made = bench(*(guest(n, "h1") for n in "abcd"), resident=dict.fromkeys("abcd", 100), mib_s=SLOW)
    sampled(made, "a", BUSY, age_s=30)
    sampled(made, "b", BUSY, age_s=300)
    sampled(made, "c", BUSY, age_s=2 * OLD_S)
    found = dry(made, *"abcd")[1].rests_on
    assert "a, b: what is sent again, as measured at most 5 min ago" in found
    assert "c: what is sent again, as measured up to 40 min ago: that is old" in found
    assert "d: how fast they make memory dirty is not measured yet: nothing is counted as sent again" in found


def test_a_drain_tells_the_same() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1"), resident={"a": 100, "b": 100}, mib_s=SLOW)
    sampled(made, "a", writes(100, 80))
    sampled(made, "b", QUIET)
    told = {
        each.name: each for each in forecast.of_drain(made.draft(), made.host("h1"), Wish(by="ops")).guests
    }
    assert (told["a"].rung, told["b"].rung) == (Rung.SLOWED, Rung.PLAIN)
    assert told["a"].send_mib > 500
    assert told["b"].send_mib == 100


def test_a_move_that_would_be_called_off_says_so_and_what_would_help() -> None:
    """It is no refusal: a sample is a sample, and the move itself is judged as it goes."""
    stubborn = GuestPolicy(move_downtime_s=0.5, move_auto_converge=False)
    made = bench(
        guest("a", "h1", policy=stubborn), guest("b", "h1"), resident={"a": 100, "b": 100}, mib_s=SLOW
    )
    sampled(made, "a", writes(100, 80))
    sampled(made, "b", QUIET)
    found = forecast.of_drain(made.draft(), made.host("h1"), Wish(by="ops"))
    (a,) = [each for each in found.guests if each.name == "a"]
    assert (a.fate, a.rung) == ("live", Rung.CALLED_OFF)
    assert "it does not converge" in a.why[0]
    assert a.todo == ("dr guest set a --move-auto-converge", "dr guest relocate a")
    assert "whose move is foreseen to be called off: a" in forecast.in_words(made.draft(), found, ["h1"])
    sent = made.send(AskMigrate(id="q", by="ops", guests=("a",)))
    assert [each.accepted for each in sent if isinstance(each, Reply)] == [True]
    made = bench(guest("b", "h1", policy=GuestPolicy(move_s=2)), resident={"b": 100}, mib_s=SLOW)
    (b,) = dry(made, "b")[0].values()
    assert (b.rung, b.todo[0]) == (Rung.CALLED_OFF, "a longer --move-time, 5 s at least: dr guest set b")


def test_who_shares_the_link_sends_more_again() -> None:
    """The first that begins too: the others join it at once."""
    both = bench(guest("a", "h1"), guest("b", "h1"), resident={"a": 100, "b": 100}, mib_s=SLOW)
    one = bench(guest("a", "h1"), resident={"a": 100}, mib_s=SLOW)
    found = []
    for made in (one, both):
        sampled(made, "a", writes(3, 1000))
        assert not links.needs_links_alone(made.draft(), made.guest("a"))
        told = forecast.of_drain(made.draft(), made.host("h1"), Wish(by="ops")).guests
        found.append(next(each.send_mib for each in told if each.name == "a"))
    assert found[1] > 1.1 * found[0] > 110


# ---- alone on its link


def test_who_only_converges_alone_goes_alone() -> None:
    """In the rehearsal as in the drain: nothing else leaves its host meanwhile, and it is plain then."""
    made = bench(*(guest(n, "h1") for n in "abc"), resident={"a": 120, "b": 100, "c": 90}, mib_s=SLOW)
    for name, points in (("a", BUSY), ("b", QUIET), ("c", QUIET)):
        sampled(made, name, points)
    assert links.needs_links_alone(made.draft(), made.guest("a"))
    told = {
        each.name: each for each in forecast.of_drain(made.draft(), made.host("h1"), Wish(by="ops")).guests
    }
    assert told["a"].rung not in (Rung.SLOWED, Rung.CALLED_OFF)
    assert told["a"].begins_s == 0.0
    assert told["b"].begins_s == told["c"].begins_s == told["a"].ends_s
    draft = made.draft()
    assert not moves.begin_together(draft, made.guest("a"))
    assert moves.begin_together(draft, made.guest("b")) == [
        "h1 is sending one that makes memory dirty too fast to share the link"
    ]
    draft = made.draft()
    assert not moves.begin_together(draft, made.guest("b"))
    assert moves.begin_together(draft, made.guest("a")) == [
        "a makes memory dirty too fast to share the link of h1"
    ]


def test_nothing_else_arrives_where_it_goes() -> None:
    made = bench(guest("a", "h1"), moving("m", "h3", "h2"), resident={"a": 120}, mib_s=SLOW)
    sampled(made, "a", BUSY)
    draft = made.draft()
    assert moves.begin(draft, made.guest("a"), "h2") == ["h2 is receiving 1 guests already"]
    assert not moves.begin(draft, made.guest("a"))
    after = draft.guest("a")
    assert after is not None
    assert after.move is not None
    assert after.move.destination == "h3"
    made = bench(guest("b", "h3"), moving("a", "h1", "h2"), resident={"a": 120}, mib_s=SLOW)
    sampled(made, "a", BUSY)
    draft = made.draft()
    assert moves.begin(draft, made.guest("b"), "h2")
    assert not moves.begin(draft, made.guest("b"))


def test_who_is_too_fast_in_any_case_or_in_none_shares() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1"), resident={"a": 120, "b": 120}, mib_s=SLOW)
    sampled(made, "a", writes(1, 10))
    sampled(made, "b", writes(500, 110))
    assert not links.needs_links_alone(made.draft(), made.guest("a"))
    assert not links.needs_links_alone(made.draft(), made.guest("b"))
    assert not links.needs_links_alone(made.draft(), guest("c", "h1"))


def test_where_one_leaves_at_a_time_each_is_alone_anyway() -> None:
    made = bench(guest("a", "h1"), resident={"a": 120}, mib_s=SLOW)
    sampled(made, "a", BUSY)
    limits = Limits(moves_out_per_host=1, moves_in_per_host=1)
    made.state.settings = changed(made.state.settings, limits=limits)
    assert not links.needs_links_alone(made.draft(), made.guest("a"))


# ---- what it came to


def under_way(made: Bench, passes: int, standstill_s: float, throttle_pct: int = 0) -> None:
    told = Progress(
        guest="m",
        elapsed_s=passes,
        total_mib=1024,
        remaining_mib=100,
        rate_mib_s=20,
        passes=passes,
        standstill_s=standstill_s,
        throttle_pct=throttle_pct,
    )
    made.send(Reported(host="h1", session="s-h1", moves=(told,)), after=1.0)


def rung(made: Bench) -> Rung:
    move = made.guest("m").move
    assert move is not None
    return move.rung


def test_a_move_remembers_the_rung_that_it_took() -> None:
    """A standstill longer than QEMU's own, then slowed down; its job may be over when that is asked."""
    made = bench(moving("m", "h1", "h2"))
    under_way(made, 2, 0.8)
    assert rung(made) is Rung.PLAIN
    under_way(made, 3, 0.8)
    assert rung(made) is Rung.STANDSTILL
    under_way(made, 4, 0.8, throttle_pct=20)
    assert rung(made) is Rung.SLOWED
    made.send(Reported(host="h1", session="s-h1", moves=()), after=1.0)
    assert rung(made) is Rung.SLOWED


def test_what_was_foreseen_is_kept_with_the_move() -> None:
    def begun(points: tuple[DirtyPoint, ...], *others: GuestRecord) -> GuestRecord:
        made = bench(guest("a", "h1"), *others, resident={"a": 100}, mib_s=SLOW)
        if points:
            sampled(made, "a", points)
        draft = made.draft()
        assert not moves.begin(draft, made.guest("a"), bounded=not others)
        after = draft.guest("a")
        assert after is not None
        assert after.phase is GuestPhase.MIGRATING
        return after

    found = [begun(points).move for points in ((), QUIET, writes(100, 80))]
    assert [move.foreseen for move in found if move] == [None, Rung.PLAIN, Rung.SLOWED]
    shared = [begun(BUSY, *others).move for others in ((), (moving("m", "h1", "h2"),))]
    assert [move.foreseen for move in shared if move] == [Rung.PLAIN, Rung.SLOWED]


def test_a_longer_standstill_and_slower_cpus_are_rungs() -> None:
    course = convergence.Course()
    assert convergence.rung_of(course) is Rung.PLAIN
    assert convergence.rung_of(changed(course, downtime_s=1.0)) is Rung.STANDSTILL
    assert convergence.rung_of(changed(course, downtime_s=1.0, throttle_pct=20)) is Rung.SLOWED


curves = st.sampled_from([QUIET, BUSY, writes(8, 100), writes(2, 10), writes(40, 60)])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(20, 300), curves), min_size=2, max_size=7))
def test_nobody_overlaps_with_who_needs_its_link_alone(guests: list[tuple[int, Points]]) -> None:
    """Of a whole drain, in imagined time; and everybody leaves in the end."""
    names = [f"g{n}" for n in range(len(guests))]
    resident = {name: mib for name, (mib, _) in zip(names, guests, strict=True)}
    made = bench(*(guest(name, "h1") for name in names), resident=resident, mib_s=SLOW)
    for name, (_, points) in zip(names, guests, strict=True):
        sampled(made, name, points)
    alone = {name for name in names if links.needs_links_alone(made.draft(), made.guest(name))}
    told = evacuation(made).guests
    spans = {each.name: (each.begins_s or 0.0, each.ends_s or 0.0) for each in told}
    assert all(each.ends_s is not None for each in told)
    for name, (begins, ends) in spans.items():
        others = [spans[other] for other in names if other != name]
        overlap = [each for each in others if each[0] < ends - 0.1 and each[1] > begins + 0.1]
        assert not overlap or name not in alone
    hard = {each.name for each in told if each.rung in (Rung.SLOWED, Rung.CALLED_OFF)}
    assert not hard & alone, "alone they need none of that"
