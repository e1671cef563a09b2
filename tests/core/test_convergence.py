"""Whether a migration converges: figures of passes in, what is to be done out."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from dr.core.convergence import PASSES_MAX, PLAIN_DOWNTIME_S, Course, seen
from dr.model.base import changed
from dr.model.facts import Progress
from dr.model.policy import GuestPolicy

ONE_S = GuestPolicy(move_downtime_s=1.0)


def passes(*standstills_s: float, throttle: int = 0) -> Iterator[Progress]:
    """The first look of each pass after the first, with the standstill that it would end with."""
    for number, standstill_s in enumerate(standstills_s, start=2):
        yield Progress(
            guest="g1",
            elapsed_s=number,
            total_mib=1000,
            remaining_mib=100 * standstill_s,
            rate_mib_s=100.0,
            dirty_mib_s=90.0,
            passes=number,
            standstill_s=standstill_s,
            throttle_pct=throttle,
        )


def course(policy: GuestPolicy, *standstills_s: float) -> Course:
    at = Course()
    for progress in passes(*standstills_s):
        at = seen(at, progress, policy)
    return at


def test_passes_that_get_shorter_need_nothing() -> None:
    at = course(ONE_S, 5, 2.5, 1.2, 0.6)
    assert (at.downtime_s, at.stalled, at.hopeless) == (PLAIN_DOWNTIME_S, 0, "")


def test_a_pass_that_gets_no_shorter_is_ended_by_a_standstill_that_policy_allows() -> None:
    at = course(ONE_S, 0.8, 0.79)
    assert 0.79 < at.downtime_s <= 1.0
    assert not at.hopeless


def test_a_longer_standstill_than_policy_allows_is_never_asked_for() -> None:
    at = course(ONE_S, *[2.0] * PASSES_MAX)
    assert (at.downtime_s, at.hopeless) == (PLAIN_DOWNTIME_S, "")
    at = course(ONE_S, *[2.0] * (PASSES_MAX + 1))
    assert at.downtime_s == PLAIN_DOWNTIME_S
    assert "90 MiB/s become dirty and 100 MiB/s get through" in at.hopeless
    assert "stand still for 2.0 s, where its policy allows 1 s" in at.hopeless


def test_it_is_not_given_up_while_qemu_slows_it_down_further() -> None:
    at = course(ONE_S, 2.0)
    (slowed,) = passes(2.0)
    for number in range(3, 43):
        at = seen(at, changed(slowed, passes=number, throttle_pct=number), ONE_S)
    assert not at.hopeless
    for number in range(43, 43 + PASSES_MAX):
        at = seen(at, changed(slowed, passes=number, throttle_pct=42), ONE_S)
    assert at.hopeless


def test_passes_that_nobody_looked_at_count() -> None:
    (first,) = passes(2.0)
    at = seen(Course(), first, ONE_S)
    assert seen(at, changed(first, passes=2 + PASSES_MAX), ONE_S).hopeless


def test_looks_within_one_pass_change_nothing() -> None:
    at = course(ONE_S, 2.0, 2.0)
    (*_, again) = passes(2.0, 1.0)
    assert changed(seen(at, again, ONE_S), left=at.left, moved_s=at.moved_s) == at


@given(st.lists(st.floats(0, 40), max_size=30), st.floats(0.1, 5))
def test_a_limit_is_only_raised_and_never_above_what_policy_allows(
    standstills_s: list[float], move_downtime_s: float
) -> None:
    policy, at = GuestPolicy(move_downtime_s=move_downtime_s), Course()
    for progress in passes(*standstills_s):
        after = seen(at, progress, policy)
        assert at.downtime_s <= after.downtime_s <= max(PLAIN_DOWNTIME_S, move_downtime_s)
        at = after


def test_it_is_given_up_when_nothing_gets_through_at_all() -> None:
    """However many disks are copied before its memory: bytes count, not passes."""

    def looks(*lefts_mib: float, every_s: float) -> Course:
        at = Course()
        for number, left_mib in enumerate(lefts_mib):
            elapsed_s = number * every_s
            at = seen(
                at, Progress(guest="g1", elapsed_s=elapsed_s, total_mib=1000, remaining_mib=left_mib), ONE_S
            )
        return at

    still = looks(*([600.0] * 7), every_s=10)
    assert still.still == "nothing got through for 60 s"
    assert not looks(*([600.0] * 7), every_s=9).still
    assert not looks(*([600.0] * 5), *([599.9] * 5), every_s=10).still
    assert not looks(*([1000.0] * 7), every_s=10).still, "not a byte yet: a whole disk is zeroed first"
    assert looks(*([1000.0] * 7), every_s=100).still
    assert not looks(*([600.0] * 9), 599.0, every_s=10).still, "bytes flow again"
