"""Each guard of the core, taken out in turn, is missed: the scenario that is named for it fails without it.

`python -m tests.sim.test_mutants [WORDS]` hunts by random worlds, from seed 1, and prints the first one that catches
each; `--scenarios` looks for all scenarios that catch those named.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import pytest

from dr.cli.scenario_file import load
from dr.sim import fuzz
from dr.sim.run import run
from tests.sim.mutants import GROUPS, MUTANTS, Mutant, broken

ROOT = Path(__file__).parent.parent
SCENARIOS = ROOT / "scenarios"
HUNT = 100

# Parts of the design that no group names, and why.
NOT_BUILT = {
    "rule 3": "post-copy: there is no such rung, so no guard that could be broken",
    "proof 3": "watchdog: no such proof is accepted (`onecopy.prove_boot_over` asserts it)",
}
PARTS = ("may_run_on", "ticket", "epoch", "seal", *(f"rule {n}" for n in range(1, 8)))
PROOFS = tuple(f"proof {n}" for n in range(1, 6))
PROMISES = ("promise 3", "promise 5", "promise 6")  # 1, 2 and 4 are what the parts and proofs are for


@cache
def violations(name: str) -> tuple[str, ...]:
    """Of that scenario with the core as it is."""
    return tuple(run(load(SCENARIOS / f"{name}.yaml")).violations)


def without(mutant: Mutant, name: str) -> str:
    """What shows in that scenario that the guard is missing; "" = nothing."""
    scenario = load(SCENARIOS / f"{name}.yaml")
    with broken(mutant):
        try:
            return "; ".join(run(scenario).violations)
        except Exception as error:  # the core cannot go on, or the world does not even come to stand
            return f"{type(error).__name__}: {error}"


@pytest.mark.long(keep=12)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_missing_guard_is_caught(mutant: Mutant) -> None:
    assert violations(mutant.scenario) == ()
    assert without(mutant, mutant.scenario), f"{mutant.scenario} does not show that this is missing"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_lines_are_there(mutant: Mutant) -> None:
    with broken(mutant):
        pass


def test_each_part_of_the_design_is_broken() -> None:
    for part in (*PARTS, *PROOFS, *PROMISES):
        assert (part in NOT_BUILT) != any(re.match(rf"{re.escape(part)}\b", group) for group in GROUPS), part
    numbered = set(re.findall(r"^(\d)\. ", (ROOT.parent / "docs/one-copy.md").read_text(), re.MULTILINE))
    assert {f"rule {number}" for number in numbered} <= {*PARTS}


def test_names_are_told_apart() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


# ---- the hunt


def caught(mutant: Mutant, seeds: range) -> int | None:
    """The first of these worlds in which the missing guard shows."""
    with broken(mutant):
        for seed in seeds:
            try:
                fuzz.run(seed)
            except Exception:
                return seed
    return None


def main(words: list[str]) -> int:
    scenarios = "--scenarios" in words
    wanted = " ".join(word for word in words if word != "--scenarios")
    chosen = [mutant for mutant in MUTANTS if wanted in mutant.name]
    found = 0
    for mutant in chosen:
        if scenarios:
            names = sorted(f"{file.parent.name}/{file.stem}" for file in SCENARIOS.glob("*/*.yaml"))
            shown = ", ".join(name for name in names if without(mutant, name))
        else:
            seed = caught(mutant, range(1, 1 + HUNT))
            shown = "" if seed is None else str(seed)
        found += bool(shown)
        print(f"{shown or '-':>5}  {mutant.name}", flush=True)
    print(f"{found} of {len(chosen)} are shown by {'scenarios' if scenarios else f'the first {HUNT} worlds'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
