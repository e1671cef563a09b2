"""Each guard of the core, taken out in turn, is missed: a random world breaks a promise.

`python -m tests.sim.test_mutants [WORDS]` hunts afresh, from seed 1, and prints the first seed that catches each.
"""

from __future__ import annotations

import sys
from functools import cache

import pytest

from dr.sim import fuzz
from tests.sim.mutants import MUTANTS, RARE, Mutant, broken

SEARCH = 25  # worlds beside the known one, for when the core has changed since it was found
HUNT = 200


def caught(mutant: Mutant, seeds: list[int]) -> int | None:
    """The first of these worlds in which the missing guard shows."""
    with broken(mutant):
        for seed in seeds:
            try:
                fuzz.run(fuzz.plan_of(seed))
            except Exception:
                return seed
    return None


@cache
def well(seed: int) -> bool:
    """Whether the core as it is passes that very world."""
    fuzz.run(fuzz.plan_of(seed))
    return True


@pytest.mark.long(keep=3)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_missing_guard_is_caught(mutant: Mutant) -> None:
    seed = caught(mutant, [mutant.seed, *range(1, 1 + SEARCH)])
    assert seed is not None, f"nothing shows that this is missing: {mutant.name}"
    assert well(seed)


def test_there_are_enough() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25


def main() -> int:
    missed = 0
    for mutant in MUTANTS + RARE:
        if " ".join(sys.argv[1:]) in mutant.name:
            seed = caught(mutant, list(range(1, 1 + HUNT)))
            missed += seed is None
            print(f"{'-' if seed is None else seed:>5}  {mutant.name}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
