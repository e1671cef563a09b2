"""Random worlds with every fault there is; a failure prints its seed, and `python -m dr.sim.fuzz` replays it."""

import pytest

from dr.sim import fuzz

BATCHES = 10
PER_BATCH = 10


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_worlds(batch: int) -> None:
    """Promises 1 to 6 hold at every step; after all is repaired, every wanted guest runs and nothing hangs."""
    for seed in range(1 + batch * PER_BATCH, 1 + (batch + 1) * PER_BATCH):
        fuzz.run(seed)


def test_a_seed_replays_byte_for_byte() -> None:
    assert fuzz.run(77).trace == fuzz.run(77).trace
