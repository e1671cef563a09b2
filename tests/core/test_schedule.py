"""Times of an evacuation: by hand where that can be done, and what holds for any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.core import schedule
from dr.core.schedule import Sending, Span, bound_s, shares

FAST = 1e9


def rates(**mib_s: float) -> Callable[[str], float]:
    """Of hosts that are not named: as fast as anybody likes."""
    return lambda name: mib_s.get(name, FAST)


class Ways(NamedTuple):
    mib_s: Callable[[str], float]
    out_max: int
    in_max: int
    extra_s: float


def ways(out_max: int = 2, in_max: int = 2, extra_s: float = 0.0, **mib_s: float) -> Ways:
    return Ways(rates(**mib_s), out_max, in_max, extra_s)


def spans(sendings: Iterable[Sending], allowed: Ways, under_way: Iterable[Sending] = ()) -> dict[str, Span]:
    """In this order, as many at once as hosts may send and receive; who cannot begin lets those behind go ahead."""
    waiting = list(sendings)

    def begin(_: float, busy: Sequence[Sending]) -> list[Sending]:
        begun: list[Sending] = []
        for each in list(waiting):
            there = [*busy, *begun]
            leaving = sum(other.source == each.source for other in there)
            coming = sum(other.to == each.to for other in there)
            if leaving < allowed.out_max and coming < allowed.in_max:
                waiting.remove(each)
                begun.append(each)
        return begun

    return schedule.spans(under_way, begin, allowed.mib_s, allowed.extra_s)


def sending(key: str, mib: float, to: str = "h2", source: str = "h1") -> Sending:
    return Sending(key, source, to, mib)


def times(found: dict[str, Span]) -> dict[str, tuple[float, float]]:
    return {key: (round(span.begins_s, 6), round(span.ends_s, 6)) for key, span in found.items()}


# ---- shares


@pytest.mark.parametrize(
    ("sendings", "mib_s", "found"),
    [
        ([("h1", "h2")], {"h1": 10}, [10]),
        ([("h1", "h2")], {"h1": 10, "h2": 4}, [4]),
        ([("h1", "h2"), ("h1", "h3")], {"h1": 10}, [5, 5]),
        ([("h1", "h2"), ("h1", "h3")], {"h1": 10, "h2": 2}, [2, 8]),  # what one cannot use the other does
        ([("h1", "h3"), ("h2", "h3")], {"h1": 10, "h2": 10, "h3": 10}, [5, 5]),
        ([("h1", "h2"), ("h2", "h1")], {"h1": 10, "h2": 10}, [10, 10]),  # each way for itself
        ([("h1", "h3"), ("h1", "h4"), ("h2", "h4")], {"h1": 6, "h2": 9, "h3": 1, "h4": 9}, [1, 4.5, 4.5]),
    ],
)
def test_links_are_shared(
    sendings: list[tuple[str, str]], mib_s: dict[str, float], found: list[float]
) -> None:
    made = [sending(str(at), 1, to, source) for at, (source, to) in enumerate(sendings)]
    assert shares(made, rates(**mib_s)) == pytest.approx(found)


# ---- by hand


def test_one_after_the_other_and_two_at_once() -> None:
    made = [sending("a", 40), sending("b", 20), sending("c", 10)]
    assert times(spans(made, ways(out_max=1, h1=10))) == {"a": (0, 4), "b": (4, 6), "c": (6, 7)}
    # a and b at 5 each until b ends at 4; a has 20 left; c and a at 5 until c ends at 6; a 10 left at 10
    assert times(spans(made, ways(h1=10))) == {"b": (0, 4), "c": (4, 6), "a": (0, 7)}


def test_what_a_move_takes_beside_the_sending_is_no_ones_share() -> None:
    made = [sending("a", 10), sending("b", 10), sending("c", 10)]
    found = times(spans(made, ways(out_max=1, extra_s=2.0, h1=10)))
    assert found == {"a": (0, 3), "b": (3, 6), "c": (6, 9)}
    # while c is prepared, b has the link alone
    found = times(spans([sending("a", 10), sending("b", 20), sending("c", 10)], ways(extra_s=1.0, h1=10)))
    assert found == {"a": (0, 3), "b": (0, 4), "c": (3, 5)}


def test_who_cannot_begin_lets_the_next_go_ahead() -> None:
    made = [sending("a", 10), sending("b", 10), sending("c", 10, "h3")]
    found = times(spans(made, ways(in_max=1, h1=10)))
    assert (found["a"], found["c"], found["b"]) == ((0, 2), (0, 2), (2, 3))


def test_who_begins_is_asked_whenever_one_has_ended_and_told_what_is_left() -> None:
    asked: list[tuple[float, dict[str, float]]] = []
    first = [[sending("a", 40), sending("b", 20)], [sending("c", 10)]]

    def begin(now_s: float, busy: Sequence[Sending]) -> list[Sending]:
        asked.append((round(now_s, 6), {each.key: round(each.mib, 6) for each in busy}))
        return first.pop(0) if first and not (len(first) == 1 and now_s < 4) else []

    schedule.spans([], begin, rates(h1=10))
    assert asked == [(0, {}), (4, {"a": 20.0}), (6, {"a": 10.0}), (7, {})]


def test_what_is_under_way_goes_on_and_takes_its_place() -> None:
    on = [sending("on", 10), sending("too", 40, "h2", "h9"), sending("three", 10, "h3")]
    found = times(spans([sending("a", 10)], ways(extra_s=1.0, h1=10, h2=10), under_way=on))
    assert found["on"] == (0, 2), "nothing is prepared any more"
    assert found["three"] == (0, 2)
    assert found["a"][0] == 2, "two leave already"
    assert found["too"][1] > 4, "its link was shared with one of another host"


def test_nothing_to_send_is_no_move_less() -> None:
    assert spans([], ways()) == {}
    assert times(spans([], ways(h1=10), under_way=[sending("a", 0)])) == {"a": (0, 0)}
    assert times(spans([sending("a", 0)], ways(extra_s=1.5, h1=10))) == {"a": (0, 1.5)}


def test_the_bound() -> None:
    made = [sending("a", 40), sending("b", 20, "h3"), sending("c", 20, "h3")]
    assert bound_s(made, rates(h1=10)) == 8.0, "all of it over the source's link"
    assert bound_s(made, rates(h1=100, h2=5, h3=10)) == 8.0, "the longest, on its way to h2"
    assert bound_s(made, rates(h1=100, h2=50, h3=4)) == 10.0, "all that goes to h3"
    assert bound_s([], rates()) == 0.0


# ---- whatever it is

SIZES = st.lists(st.integers(1, 4000), min_size=1, max_size=12)


@st.composite
def evacuations(draw: st.DrawFn) -> list[Sending]:
    sources = draw(st.sampled_from([["h1"], ["h1", "h2"]]))
    return [
        sending(
            f"g{at}",
            mib,
            draw(st.sampled_from(["h3", "h4", "h5"])),
            draw(st.sampled_from(sources)),
        )
        for at, mib in enumerate(draw(SIZES))
    ]


@settings(max_examples=200, deadline=None)
@given(
    made=evacuations(),
    mib_s=st.lists(st.integers(1, 1000), min_size=5, max_size=5),
    out_max=st.integers(1, 4),
    in_max=st.integers(1, 4),
    extra_s=st.sampled_from([0.0, 1.5]),
)
def test_no_schedule_beats_the_bound_and_everybody_arrives(
    made: list[Sending], mib_s: list[int], out_max: int, in_max: int, extra_s: float
) -> None:
    allowed = ways(out_max, in_max, extra_s, **{f"h{at}": rate for at, rate in enumerate(mib_s, 1)})
    found = spans(made, allowed)
    assert found.keys() == {each.key for each in made}
    last = max(span.ends_s for span in found.values())
    assert last >= bound_s(made, allowed.mib_s) * (1 - 1e-9)
    for each in made:
        alone_s = extra_s + each.mib / min(allowed.mib_s(each.source), allowed.mib_s(each.to))
        span = found[each.key]
        assert span.ends_s - span.begins_s >= alone_s * (1 - 1e-9)


@settings(max_examples=200, deadline=None)
@given(
    made=evacuations(),
    out_max=st.integers(1, 3),
    in_max=st.integers(1, 3),
)
def test_bounds_hold_at_every_moment(made: list[Sending], out_max: int, in_max: int) -> None:
    found = spans(made, ways(out_max, in_max, 0.5, h1=100, h2=100, h3=70, h4=70, h5=70))
    for moment in {span.begins_s for span in found.values()}:
        now = [each for each in made if found[each.key].begins_s <= moment < found[each.key].ends_s]
        for name in ("h1", "h2", "h3", "h4", "h5"):
            assert sum(each.source == name for each in now) <= out_max
            assert sum(each.to == name for each in now) <= in_max


@settings(max_examples=200, deadline=None)
@given(sizes=SIZES, out_max=st.integers(1, 4))
def test_one_hosts_link_is_never_idle(sizes: list[int], out_max: int) -> None:
    """Links alike: whatever the order and the destinations, it ends when all has gone out of the source."""
    made = [sending(f"g{at}", mib, f"h{2 + at % 3}") for at, mib in enumerate(sizes)]
    same = {f"h{at}": 100.0 for at in range(1, 5)}
    found = spans(made, ways(out_max, 2, **same))
    assert max(span.ends_s for span in found.values()) == pytest.approx(bound_s(made, rates(**same)))


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=8))
def test_the_longest_first_is_near_the_best(sizes: list[int]) -> None:
    """One at a time into each of three equal links, over a source that is faster than all: Graham's 4/3 of the best."""
    loads = [0.0, 0.0, 0.0]
    made = []
    for at, mib in enumerate(sorted(sizes, reverse=True)):
        to = loads.index(min(loads))
        loads[to] += mib
        made.append(sending(f"g{at}", mib, f"h{to + 2}"))
    found = spans(made, ways(3, 1, h2=100, h3=100, h4=100))
    makespan_s = max(span.ends_s for span in found.values())
    assert makespan_s == pytest.approx(max(loads) / 100), "no link waits for another"
    assert makespan_s <= (4 / 3 - 1 / 9) * best(sizes) / 100 + 1e-9


def best(sizes: list[int]) -> float:
    """The least that the fullest of three links can have, by trying all."""
    reached: set[tuple[int, ...]] = {(0, 0, 0)}
    for mib in sizes:
        reached = {
            tuple(sorted((*loads[:at], loads[at] + mib, *loads[at + 1 :])))
            for loads in reached
            for at in range(3)
        }
    return min(max(loads) for loads in reached)
