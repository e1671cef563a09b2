"""On which rung a live move would end, and what it would cost, foretold from what was measured."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dr.core.convergence import PLAIN_DOWNTIME_S
from dr.core.ladder import Curve, outlook
from dr.model.facts import DirtyPoint
from dr.model.policy import GuestPolicy
from dr.model.records import Rung

POLICY = GuestPolicy()
Points = tuple[DirtyPoint, ...]


def writes(mib_s: float, set_mib: float) -> Points:
    """As a guest is measured that writes so fast over and over the same part of its memory."""
    return tuple(DirtyPoint(interval_s=s, mib=min(mib_s * s, set_mib)) for s in (1.0, 4.0, 16.0))


# ---- the curve


def test_through_its_points_and_on_as_it_went_last() -> None:
    curve = Curve(tuple(DirtyPoint(interval_s=s, mib=mib) for s, mib in ((1, 10), (4, 28), (16, 52))))
    assert [curve.mib(s) for s in (0, 1, 4, 10, 16, 26)] == pytest.approx([0, 10, 28, 40, 52, 72])


def test_what_stays_flat_is_the_working_set_and_was_reached_early() -> None:
    curve = Curve(writes(100, 32))
    assert curve.mib(3600) == 32
    assert curve.mib(1 / 3) > 0.6 * 32, "not a third of it: it may have been reached at once"
    assert Curve(writes(2, 1000)).mib(0.5) == pytest.approx(1.0), "who goes on so writes evenly"


def test_a_longer_interval_that_tells_less_is_a_bad_sample() -> None:
    curve = Curve((DirtyPoint(interval_s=1, mib=14), DirtyPoint(interval_s=4, mib=8)))
    assert curve.mib(4) == curve.mib(100) == 14


samples = st.lists(st.floats(0, 1e5), min_size=0, max_size=4).map(
    lambda mibs: tuple(DirtyPoint(interval_s=4.0**at, mib=mib) for at, mib in enumerate(mibs))
)


@given(points=samples, sooner=st.floats(0, 1e4), later=st.floats(0, 1e4))
def test_more_time_is_never_less_dirty(points: Points, sooner: float, later: float) -> None:
    curve = Curve(points)
    low, high = sorted((sooner, later))
    assert 0 <= curve.mib(low) <= curve.mib(high) + 1e-6


# ---- rungs


@pytest.mark.parametrize(
    ("mib", "rate_mib_s", "points", "policy", "rung"),
    [
        (75, 15, (), POLICY, Rung.PLAIN),
        (100, 20, writes(2, 16), POLICY, Rung.PLAIN),
        (512, 1000, writes(500, 256), POLICY, Rung.PLAIN),
        # Those of integration/test_converging.py.
        (75, 15, writes(20, 32), GuestPolicy(move_downtime_s=4, move_auto_converge=False), Rung.STANDSTILL),
        (75, 15, writes(40, 32), GuestPolicy(move_downtime_s=1), Rung.SLOWED),
        (75, 15, writes(40, 32), GuestPolicy(move_downtime_s=0.5, move_auto_converge=False), Rung.CALLED_OFF),
        (65536, 1000, writes(3000, 20000), POLICY, Rung.SLOWED),
    ],
)
def test_the_rung(mib: float, rate_mib_s: float, points: Points, policy: GuestPolicy, rung: Rung) -> None:
    assert outlook(mib, rate_mib_s, points, policy).rung is rung


def test_a_quiet_guest_is_sent_once() -> None:
    found = outlook(640, 100, (), POLICY)
    assert found.rung is Rung.PLAIN
    assert found[1:4] == pytest.approx((6.4, 640, 0.25))


def test_what_is_written_meanwhile_is_sent_again() -> None:
    """5 s of sending at 2 MiB/s, and the tenth part of that again, and so on."""
    found = outlook(100, 20, writes(2, 1000), POLICY)
    assert found.sent_mib == pytest.approx(100 / (1 - 2 / 20), rel=0.02)
    assert found.total_s == pytest.approx(found.sent_mib / 20)


def test_why_it_would_be_called_off_is_what_the_real_one_would_say() -> None:
    why = outlook(75, 15, writes(40, 32), GuestPolicy(move_downtime_s=0.5, move_auto_converge=False)).why
    assert "it does not converge" in why
    assert "where its policy allows 0.5 s (move_downtime_s)" in why


def test_who_may_take_no_longer_is_called_off() -> None:
    found = outlook(1000, 10, (), GuestPolicy(move_s=60))
    assert (found.rung, found.sent_mib) == (Rung.CALLED_OFF, 1000), "that is what it would take"
    assert found.why == "it takes 100 s, where its policy allows 60 s (move_s)"
    assert outlook(1000, 10, (), GuestPolicy(move_s=120)).rung is Rung.PLAIN


# ---- of anything

sizes = st.floats(1, 1e6)
rates = st.floats(0.5, 1e4)
policies = st.builds(
    GuestPolicy,
    move_downtime_s=st.sampled_from([0.1, 0.3, 1.0, 5.0, 60.0]),
    move_auto_converge=st.booleans(),
    move_s=st.sampled_from([10.0, 600.0, 3600.0]),
)


@example(
    mib=14.0,
    rate_mib_s=42.0,
    points=(DirtyPoint(interval_s=1.0, mib=33.0),),
    policy=GuestPolicy(move_downtime_s=0.1),
)
@given(mib=sizes, rate_mib_s=rates, points=samples, policy=policies)
def test_it_ends_within_policy_or_says_why_not(
    mib: float, rate_mib_s: float, points: Points, policy: GuestPolicy
) -> None:
    found = outlook(mib, rate_mib_s, points, policy)
    if found.rung is Rung.CALLED_OFF:
        assert found.why
        return
    assert not found.why
    assert found.downtime_s <= max(PLAIN_DOWNTIME_S, policy.move_downtime_s) + 1e-6
    assert found.downtime_s <= PLAIN_DOWNTIME_S + 1e-6 or found.rung is not Rung.PLAIN
    assert policy.move_auto_converge or found.rung is not Rung.SLOWED
    assert found.sent_mib >= mib - 1e-6, "all of it, at least once"
    assert found.total_s == pytest.approx(found.sent_mib / rate_mib_s)
    assert found.total_s <= policy.move_s + found.downtime_s + 1e-6


@given(mib=sizes, rate_mib_s=rates)
def test_who_writes_nothing_needs_nothing(mib: float, rate_mib_s: float) -> None:
    found = outlook(mib, rate_mib_s, (), GuestPolicy(move_s=1e9))
    assert found.rung is Rung.PLAIN
    assert found.sent_mib == pytest.approx(mib)
