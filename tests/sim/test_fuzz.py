"""Random worlds with every fault there is; `dr sim fuzz --seeds 1 --from SEED` shrinks one that fails."""

import pytest

from dr.sim import fuzz, plan

SEEDS = 100
KEPT = (12, 77, 157, 250, 346)  # that showed something once
BASE = 149  # where no others are asked for, as `make test` does with --fresh


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.function is test_random_worlds:
        fresh: int | None = metafunc.config.getoption("--fresh")
        first = BASE if fresh is None else fresh
        metafunc.parametrize("seed", range(first, first + SEEDS))


@pytest.mark.long(keep=10)
def test_random_worlds(seed: int) -> None:
    """Promises 1 to 6 hold at every step; after all is repaired, every wanted guest runs and nothing hangs."""
    fuzz.run(fuzz.plan_of(seed))


@pytest.mark.parametrize("seed", KEPT)
def test_worlds_that_showed_something(seed: int) -> None:
    fuzz.run(fuzz.plan_of(seed))


def test_a_seed_replays_byte_for_byte() -> None:
    first, again = fuzz.run(fuzz.plan_of(77)), fuzz.run(fuzz.plan_of(77))
    assert first.trace == again.trace
    assert first.clock.now >= fuzz.WORLD_S


def test_a_plan_survives_its_file() -> None:
    made = fuzz.plan_of(77)
    assert len(made.faults) >= plan.FAULTS_MIN
    assert plan.load(plan.dump(made)) == made
