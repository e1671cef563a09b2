"""What a dry run tells is what the simulator then really does when that host dies: who goes where, and who waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr.cli.scenario_file import load
from dr.core.drills.paper import Loss, Paper, takeable
from dr.core.saved import copied
from dr.model.records import GuestPhase
from dr.sim.scenario.setting import begin
from dr.sim.world import World

FOLDER = Path(__file__).parent.parent / "scenarios"
# Their worlds as they stand at the beginning; what happens in them afterwards is another matter.
FILES = sorted(
    file for kind in ("failover", "rules", "placement", "starts") for file in (FOLDER / kind).glob("*.yaml")
)
ID = [f"{file.parent.name}/{file.stem}" for file in FILES]
AFTER_S = 60.0


def lost(world: World, name: str) -> Loss:
    coordinator = world.coordinator
    work = Paper(copied(coordinator.state), coordinator.now).lose([name])
    while True:
        try:
            next(work)
        except StopIteration as ended:
            found: Loss = ended.value
            return found


@pytest.mark.long(keep=25)
@pytest.mark.parametrize("file", FILES, ids=ID)
def test_the_simulator_does_what_was_told(file: Path) -> None:
    scenario = load(file)
    world = begin(scenario)
    busiest = max(sorted(world.hosts), key=lambda name: len(world.coordinator.state.at_host.get(name, ())))
    assert takeable(world.coordinator.state.hosts[busiest])
    told = lost(world, busiest)
    world.power_off(busiest)
    world.run(AFTER_S)
    for guest_id, way in told.ways.items():
        now = world.coordinator.state.guests[guest_id]
        if way.runs_s is not None:
            assert world.running(guest_id) == [way.to], (guest_id, now.reason)
        elif way.now is not None and way.now.phase is GuestPhase.RECOVERING:
            assert world.running(guest_id) == [], guest_id
