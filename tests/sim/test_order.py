"""The order of starts, when hosts take few at a time and places are planned ahead."""

import pytest

from dr.model.events import AskProtect
from dr.model.policy import Limits
from dr.sim.world import World

NAMES = ("g1", "g2", "g3", "g4", "g5")


@pytest.mark.parametrize("seed", range(8))
def test_nobody_starts_before_a_more_important_guest_that_could_start_there(seed: int) -> None:
    """Whichever host has its turn free first, the most important one that waits takes it."""
    world = World(
        seed, hosts=("h1", "h2", "h3", "h4"), guests={"h1": NAMES}, limits=Limits(starts_per_host=1)
    ).begin(protect=False)
    for priority, name in enumerate(NAMES):
        assert world.ask(
            AskProtect(id=world.next_ask(), by="ops", guests=(name,), priority=priority)
        ).accepted
    world.run(6.0)
    world.power_off("h1")
    world.run(20.0)
    starts = [line.split("] ")[1].split(":")[0] for line in world.lines() if "[guest.starting]" in line]
    assert starts == list(reversed(NAMES))
