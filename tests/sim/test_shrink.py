"""A world that breaks a promise is made small, and the small one breaks the same promise again."""

import pytest

from dr.sim import fuzz, plan
from dr.sim.shrink import failure, shrink, signature
from tests.sim.mutants import MUTANTS, broken

UNBOUND = next(mutant for mutant in MUTANTS if mutant.name == "a store is bound to its machine")


@pytest.mark.long(keep=0)
def test_few_faults_are_left_and_they_are_enough() -> None:
    with broken(UNBOUND):
        whole = next(made for seed in range(1, 40) if failure(made := fuzz.plan_of(seed)) is not None)
        small = shrink(whole)
        again = failure(plan.load(plan.dump(small)))
        assert signature(again) == signature(failure(whole))
        assert shrink(whole) == small, "the same every time"
    assert [fault.kind for fault in small.faults] == ["store cloned"]
    assert len(small.hosts) <= 2
    assert len(small.guests) == 1
    assert small.seconds < whole.seconds
    assert failure(small) is None, "the core as it is passes it"


def test_taking_a_fault_out_changes_no_other() -> None:
    whole = fuzz.plan_of(5)
    assert len(whole.faults) >= plan.FAULTS_MIN
    assert fuzz.plan_of(5, faults=7).faults != whole.faults
    assert len(fuzz.plan_of(5, faults=7, hosts=6, guests=9).faults) == 7
    assert len(fuzz.plan_of(5, faults=7, hosts=6, guests=9).hosts) == 6
