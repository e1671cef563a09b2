"""`dr sim fuzz`: what it finds is small, in a file, and shown again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dr.cli.failure import Exit
from dr.sim import plan
from dr.sim.fuzz import plan_of
from dr.sim.shrink import failure
from tests.cli.conftest import Dr
from tests.sim.mutants import MUTANTS, broken

UNBOUND = next(mutant for mutant in MUTANTS if mutant.name == "a store is bound to its machine")


def test_worlds_in_which_nothing_is_found(dr: Dr) -> None:
    told = json.loads(dr("sim", "fuzz", "--seeds", "2", "--from", "7", "--faults", "6", "-o", "json").out)
    assert (told["kind"], told["from"], told["seeds"], told["failed"]) == ("fuzz", 7, 2, [])
    assert told["seeds_per_min"] > 0


@pytest.mark.long(keep=0)
def test_a_finding_is_kept_small_and_runs_again(dr: Dr, tmp_path: Path) -> None:
    with broken(UNBOUND):
        seed = next(seed for seed in range(1, 40) if failure(plan_of(seed)) is not None)
        done = dr("sim", "fuzz", "--seeds", "1", "--from", str(seed), "--save", str(tmp_path))
        assert done.code == Exit.FAILED
        file = tmp_path / f"dr-fuzz-{seed}.json"
        assert f"dr sim fuzz --plan {file}" in done.out
        assert len(plan.load(file.read_text()).faults) == 1
        again = dr("sim", "fuzz", "--plan", str(file))
        assert again.code == Exit.FAILED
        assert "VIOLATION a coordinator leads on" in again.out
    assert "no promise was broken" in dr("sim", "fuzz", "--plan", str(file)).err


@pytest.mark.parametrize("text", ["", "{}", "no plan"])
def test_a_file_that_is_no_plan(dr: Dr, tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    done = dr("sim", "fuzz", "--plan", str(file))
    assert done.code == Exit.BAD_DATA
    assert "is no plan of dr sim fuzz" in done.err
    assert "cannot be read" in dr("sim", "fuzz", "--plan", str(tmp_path / "none")).err
