"""Many guests at once: rules and room always hold, nobody is left out who could fit, and load is spread."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.core import fencing
from dr.core.fleet import fleet_of
from dr.core.plan import Plan
from dr.core.starts import PLANNED_MAX, place_waiting
from dr.model.base import changed
from dr.model.facts import Needs
from dr.model.policy import GuestPolicy, Limits
from dr.model.records import GuestPhase, GuestRecord, HostPhase
from integration.bench.optimum import Instance, broken, imbalance, instance, placed
from tests.core.build import Bench, domain, facts, guest, host
from tests.core.test_rules import apart, must, places, ruled, together


def waiting(name: str, memory_mib: int = 1024, **fields: Any) -> GuestRecord:
    return guest(name, phase=GuestPhase.RECOVERING, needs=Needs(memory_mib=memory_mib), **fields)


def planned(bench: Bench, **prefer: str) -> Plan:
    waits = [each for each in bench.state.guests.values() if each.phase is GuestPhase.RECOVERING]
    return Plan(fleet_of(bench.draft()), waits, prefer)


@settings(max_examples=60)
@given(st.integers(0, 100_000))
def test_no_strict_rule_and_no_host_is_ever_broken(seed: int) -> None:
    case = instance(seed)
    where = placed(case)
    assert not broken(case, where)
    assert where == placed(case), "the same answer every time"


def test_what_the_first_choice_leaves_out_is_made_room_for() -> None:
    """The largest goes where it is emptiest; the one that is bound to that host needs it to move on."""
    for name in ("h1", "h2"):
        bench = ruled(must("r", ["small"], name), hosts=("h1", "h2"))
        for each in ("h1", "h2"):
            bench.put(host(each, facts=facts(each, memory_mib=4096 + 512)))
        high = GuestPolicy(priority=200)
        bench.put(waiting("large", 3072, policy=high), waiting("small", 2048))
        hosts = planned(bench).hosts
        assert hosts == {"small": name, "large": "h2" if name == "h1" else "h1"}


def test_who_has_priority_is_never_left_out_for_others() -> None:
    bench = Bench("h1")
    bench.put(waiting("low", 7000), waiting("high", 7000, policy=GuestPolicy(priority=200)))
    plan = planned(bench)
    assert plan.hosts == {"high": "h1"}
    assert "it needs 7000" in plan.nowhere["low"].sentence()


def test_a_swap_levels_what_greedy_leaves_uneven() -> None:
    case = Instance(
        hosts=(("h1", 32768, 8), ("h2", 32768, 8)),
        running=(),
        waiting=tuple((f"g{n}", size * 1024, 1) for n, size in enumerate((7, 6, 5, 4, 4))),
        rules=(),
    )
    assert imbalance(case, placed(case)) == 0


def test_groups_are_planned_as_one_and_apart_holds_between_them() -> None:
    bench = ruled(together("t1", "a", "b"), together("t2", "c", "d"), apart("x", "b", "c"))
    bench.put(*(waiting(name) for name in "abcd"))
    hosts = planned(bench).hosts
    assert hosts["a"] == hosts["b"] != hosts["c"] == hosts["d"]


def test_who_restarts_in_place_stays() -> None:
    bench = Bench().put(waiting("a"), waiting("b"), waiting("c"))
    bench.see("h1", domain("x", memory_mib=4096))
    assert planned(bench, a="h1").hosts["a"] == "h1"


def start(bench: Bench) -> dict[str, str]:
    draft = bench.draft()
    place_waiting(draft)
    bench.state.apply(draft)
    return {g.name: g.may_run_on[0].host for g in bench.state.guests.values() if g.may_run_on}


def test_a_group_without_room_for_all_waits_and_does_not_stop_others() -> None:
    bench = ruled(together("t", "a", "b")).put(waiting("a", 5000), waiting("b", 5000), waiting("c"))
    assert set(start(bench)) == {"c"}
    assert "a and b need 10000" in bench.guest("a").reason
    assert "a and b need 10000" in bench.guest("b").reason


def test_more_than_are_planned_together_still_start_at_once() -> None:
    names = [f"h{n}" for n in range(1, 41)]
    bench = Bench(*names).put(*(waiting(f"g{n}") for n in range(PLANNED_MAX + 60)))
    assert len(start(bench)) == PLANNED_MAX + 60


def test_who_waits_for_its_turn_says_so() -> None:
    bench = Bench("h1", limits=Limits(starts_per_host=1)).put(waiting("a"), waiting("b"))
    assert start(bench) == {"a": "h1"}
    assert "waits for its turn" in bench.guest("b").reason


@pytest.mark.parametrize(("free", "saved"), [(8192, True), (2048, False)])
def test_a_group_that_dies_with_its_host_is_recoverable_if_it_fits_elsewhere(free: int, saved: bool) -> None:
    bench = ruled(together("t", "a", "b"), hosts=("h1", "h2")).put(guest("a", "h1"), guest("b", "h1"))
    bench.put(host("h2", facts=facts("h2", memory_mib=free)))
    assert list(fencing.recoverable(bench.draft(), bench.host("h1"))) == (["a", "b"] if saved else [])


def test_a_host_that_a_guest_moves_to_is_full_for_others() -> None:
    moving = guest(
        "m", phase=GuestPhase.MIGRATING, may_run_on=places("h1", "h2"), needs=Needs(memory_mib=7000)
    )
    bench = Bench().put(moving, waiting("a", 2000))
    assert start(bench)["a"] == "h3"
    bench.put(host("h3", HostPhase.SUSPECT), waiting("b", 2000))
    start(bench)
    assert not bench.guest("b").may_run_on


def test_snapshots_follow_what_is_decided() -> None:
    """The rows that are kept between decisions are the rows that are made from nothing."""
    bench = Bench().put(guest("a", "h1"), waiting("b"))
    for _ in range(2):
        start(bench)
        kept = fleet_of(bench.draft())
        bench.state.memo.clear()
        fresh = fleet_of(bench.draft())
        for resource in fresh.used:
            assert (kept.used[resource] == fresh.used[resource]).all()
        assert kept.names == fresh.names
        bench.put(changed(bench.host("h2"), phase=HostPhase.SUSPECT), guest("c", "h3"))
