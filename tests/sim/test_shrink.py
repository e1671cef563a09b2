"""A world that breaks a promise is made small, and the small one breaks the same promise again."""

import pytest

from dr.cli.scenario_file import loads
from dr.model.base import changed
from dr.sim import fuzz
from dr.sim.scenario.language import Act, dump
from dr.sim.scenario.verbs_coordinator import CloneStore
from dr.sim.shrink import failure, shrink, signature
from tests.sim.mutants import MUTANTS, broken

UNBOUND = next(mutant for mutant in MUTANTS if mutant.name == "a store is bound to its machine")


@pytest.mark.long(keep=0)
def test_few_entries_are_left_and_they_are_enough() -> None:
    drawn = fuzz.scenario_of(5, faults=12)
    clone = Act(verb=CloneStore(clone_store="as_it_is"), at=drawn.do[6].at)
    acts = [changed(act, at=round((act.at or 0.0) / 20, 3)) for act in (*drawn.do[:7], clone, *drawn.do[7:])]
    whole = changed(drawn, do=tuple(acts), lasts=40.0)
    with broken(UNBOUND):
        small = shrink(whole)
        again = failure(loads(dump(small)))
        assert signature(again) == signature(failure(whole))
        assert shrink(whole) == small, "the same every time"
    assert [act.verb.word() for act in small.do] == ["clone_store"]
    assert len(small.hosts) == 1
    assert len(small.guests) == 1
    assert small.lasts < whole.lasts
    assert failure(small) == failure(whole) == "", "the core as it is passes it"


def test_what_two_failures_have_in_common_is_their_sentence_without_names_and_numbers() -> None:
    one = "seed 7, at 12.300 s: g1 runs in 2 places: [('h1', 'h1-b1'), ('h2', 'h2-b1')]"
    other = "seed 9, at 312.010 s: g14 runs in 3 places: [('h4', 'h4-b2'), ('h2', 'h2-b1')]"
    assert signature(one) == signature(other)
    assert signature(one) != signature("seed 7, at 12.300 s: h1 is fenced without a living witness")
