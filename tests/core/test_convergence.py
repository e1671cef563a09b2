"""Whether a migration converges: figures of passes in, what is to be done out."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from dr.core.convergence import PASSES_MAX, PLAIN_DOWNTIME_S, Course, Limits, seen
from dr.model.facts import Progress

ONE_S = Limits(max_downtime_s=1.0, auto_converge=False)


def passes(
    *left_mib: float, rate: float = 100.0, dirty: float = 90.0, throttle: int = 0
) -> Iterator[Progress]:
    """The first look of each pass."""
    for number, left in enumerate(left_mib, start=1):
        yield Progress(
            guest="g1",
            elapsed_s=number,
            total_mib=1000,
            remaining_mib=left,
            rate_mib_s=rate,
            dirty_mib_s=dirty,
            passes=number,
            throttle_pct=throttle,
        )


def course(limits: Limits, *left_mib: float, throttle: int = 0) -> Course:
    at = Course()
    for progress in passes(*left_mib, throttle=throttle):
        at = seen(at, progress, limits)
    return at


def test_passes_that_get_shorter_need_nothing() -> None:
    at = course(ONE_S, 1000, 500, 250, 125, 60)
    assert (at.downtime_s, at.stalled, at.hopeless) == (PLAIN_DOWNTIME_S, 0, "")


def test_a_pass_that_gets_no_shorter_is_ended_by_a_standstill_that_policy_allows() -> None:
    at = course(ONE_S, 1000, 80, 79)
    assert 0.79 < at.downtime_s <= 1.0
    assert not at.hopeless


def test_a_longer_standstill_than_policy_allows_is_never_asked_for() -> None:
    at = course(ONE_S, 1000, *[200.0] * PASSES_MAX)
    assert (at.downtime_s, at.hopeless) == (PLAIN_DOWNTIME_S, "")
    at = course(ONE_S, 1000, *[200.0] * (PASSES_MAX + 1))
    assert at.downtime_s == PLAIN_DOWNTIME_S
    assert "90 MiB/s become dirty and 100 MiB/s get through" in at.hopeless
    assert "stand still for 2.0 s, where its policy allows 1 s" in at.hopeless


def test_qemu_slows_it_down_as_far_as_it_can_before_it_is_given_up() -> None:
    both = Limits(max_downtime_s=1.0, auto_converge=True)
    assert not course(both, 1000, *[200.0] * 9, throttle=60).hopeless
    assert course(both, 1000, *[200.0] * 9, throttle=99).hopeless


def test_looks_within_one_pass_change_nothing() -> None:
    at = course(ONE_S, 1000, 200, 200)
    (*_, again) = passes(1000, 200, 10)
    assert seen(at, again, ONE_S) == at


@given(
    st.lists(st.floats(0, 4000), max_size=30),
    st.floats(0, 5),
    st.booleans(),
)
def test_a_limit_is_only_raised_and_never_above_what_policy_allows(
    left_mib: list[float], max_downtime_s: float, auto_converge: bool
) -> None:
    limits, at = Limits(max_downtime_s=max_downtime_s, auto_converge=auto_converge), Course()
    for progress in passes(*left_mib):
        after = seen(at, progress, limits)
        assert at.downtime_s <= after.downtime_s <= max(PLAIN_DOWNTIME_S, max_downtime_s)
        at = after
