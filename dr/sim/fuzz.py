"""Random worlds: a seed stands for a scenario, which is run like any other.

Here: from a seed to its scenario and its world. Not here: drawing (`dr.sim.draw`), the faults (`dr.sim.faults`),
running (`dr.sim.run`), making one small (`dr.sim.shrink`), the command (`dr.cli.sim_fuzz`).
"""

from __future__ import annotations

from dr.sim.draw import draw
from dr.sim.faults import KINDS
from dr.sim.run import Result
from dr.sim.run import run as play
from dr.sim.scenario.language import Scenario
from dr.sim.truth import Violation
from dr.sim.world import World


def scenario_of(seed: int, *, hosts: int = 0, guests: int = 0, faults: int = 0) -> Scenario:
    """What a seed stands for; 0 = drawn from it too."""
    return draw(seed, KINDS, hosts=hosts, guests=guests, faults=faults)


def result_of(seed: int) -> Result:
    """How the world of a seed ends."""
    return play(scenario_of(seed))


def run(seed: int) -> World:
    """The world of a seed at its end. Raises Violation."""
    result = result_of(seed)
    if not result.ok:
        raise Violation(result.violations[0])
    return result.world
