"""`dr sim fuzz`: what it finds is small, in a file, and shown again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dr.cli.failure import Exit
from dr.cli.scenario_file import load
from dr.sim.fuzz import scenario_of
from dr.sim.scenario.verbs_coordinator import CloneStore
from tests.cli.conftest import Dr
from tests.sim.mutants import MUTANTS, broken

UNBOUND = next(mutant for mutant in MUTANTS if mutant.name == "a store is bound to its machine")


def test_worlds_in_which_nothing_is_found(dr: Dr) -> None:
    told = json.loads(dr("sim", "fuzz", "--seeds", "2", "--from", "7", "--faults", "6", "-o", "json").out)
    assert (told["kind"], told["from"], told["seeds"], told["failed"]) == ("fuzz", 7, 2, [])
    assert told["seeds_per_min"] > 0


def cloned_at_once(seed: int) -> bool:
    return scenario_of(seed, faults=5).do[0].verb == CloneStore(clone_store="as_it_is")


@pytest.mark.long(keep=0)
def test_a_finding_is_a_small_scenario_that_runs_again(dr: Dr, tmp_path: Path) -> None:
    with broken(UNBOUND):
        seed = next(filter(cloned_at_once, range(5000)))
        size = ["--seeds", "1", "--faults", "5"]
        done = dr("sim", "fuzz", *size, "--from", str(seed), "--save", str(tmp_path))
        assert done.code == Exit.FAILED
        file = tmp_path / f"dr-fuzz-{seed}.yaml"
        assert f"run it again with: dr sim run {file}" in done.out
        assert f"seed {seed}" in done.out.lower()
        scenario = load(file)
        assert len(scenario.do) == 1
        assert f"Seed {seed} of dr sim fuzz" in scenario.shows
        assert "a coordinator leads on" in scenario.shows
        again = dr("sim", "run", str(file))
        assert again.code == Exit.FAILED
        assert "VIOLATION a coordinator leads on" in again.out
    assert dr("sim", "run", str(file)).code == Exit.OK
