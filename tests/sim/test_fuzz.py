"""Random worlds with every fault there is; `dr sim fuzz` makes one that fails small.

What such worlds have found stands in tests/scenarios, small, and in `test_found`.
"""

from __future__ import annotations

import pytest

from dr.cli.scenario_file import loads
from dr.model.base import changed
from dr.sim import draw, fuzz
from dr.sim.run import run
from dr.sim.scenario.check import problems_of
from dr.sim.scenario.language import Scenario, dump
from dr.sim.truth import Violation

SEEDS = 100
SAME = 77
BASE = 1  # where no others are asked for, as `make test` does with --fresh


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.function is test_random_worlds:
        fresh: int | None = metafunc.config.getoption("--fresh")
        first = BASE if fresh is None else fresh
        metafunc.parametrize("seed", range(first, first + SEEDS))


@pytest.mark.long(keep=5)
def test_random_worlds(seed: int) -> None:
    """Promises 1 to 6 hold at every step; after all is repaired, every wanted guest runs and nothing hangs."""
    try:
        fuzz.run(seed)
    except Violation as broken:
        pytest.fail(f"{broken}\nmake it small with: dr sim fuzz --seeds 1 --from {seed}")


def bytes_of(scenario: Scenario) -> list[str]:
    return run(scenario).world.lines()


def test_a_seed_replays_byte_for_byte_and_so_does_its_file() -> None:
    scenario = fuzz.scenario_of(SAME)
    first = run(scenario)
    assert first.world.lines() == bytes_of(fuzz.scenario_of(SAME)) == bytes_of(loads(dump(scenario)))
    assert first.world.clock.now >= 600.0


@pytest.mark.parametrize("seed", range(30))
def test_what_is_drawn_is_a_scenario(seed: int) -> None:
    """Long enough, faults enough, nothing that the language would refuse, and the same when it is read back."""
    scenario = fuzz.scenario_of(seed)
    assert problems_of(scenario) == []
    assert loads(dump(scenario), "world.yaml") == changed(scenario, name="world")
    assert scenario.lasts >= 600.0
    assert len(scenario.do) >= draw.FAULTS_MIN


def test_size_as_it_was_asked_for() -> None:
    scenario = fuzz.scenario_of(5, hosts=6, guests=9, faults=7)
    assert (len(scenario.hosts), len(scenario.guests)) == (6, 9)
    assert len({act.at for act in scenario.do}) >= 7
    assert scenario.do != fuzz.scenario_of(5, faults=7).do


def test_every_kind_of_fault_is_drawn() -> None:
    """No verb of a fault is out of reach, and no character either."""
    worlds = [fuzz.scenario_of(seed) for seed in range(200)]
    drawn = {act.verb.word() for scenario in worlds for act in scenario.do}
    assert {"hibernate", "clone_store", "restore", "scrap", "join", "replace_device", "messages"} <= drawn
    for character in draw.CHARACTERS:
        assert any(f" {character} faults" in scenario.shows for scenario in worlds)
