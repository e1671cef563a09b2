"""kill -9 of the coordinator at every point of a failover: it changes nothing but the time it takes."""

from collections.abc import Callable

import pytest

from dr.sim.coordinator import SimCoordinator
from dr.sim.world import World


def failover(plan: Callable[[SimCoordinator], None], how: str) -> World:
    world = World(5, guests={"h1": ("g1", "g2"), "h2": ("g3",)}).begin()
    world.run(6.0)
    if how == "power cut":
        world.power_off("h1")
    else:
        world.freeze("h1", 300.0)
    plan(world.coordinator)
    world.run(8.0)
    coordinator = world.coordinator
    coordinator.die_after_commit = coordinator.die_before_effect = coordinator.die_after_effect = 0
    world.restart_coordinator()
    world.run(40.0)
    return world


def end(world: World) -> tuple[object, ...]:
    return (
        world.truth.unfinished(),
        {guest: len(world.running(guest)) for guest in world.definitions},
        {guest: world.truth.starts[guest] for guest in world.definitions},
    )


@pytest.mark.parametrize("how", ["power cut", "fenced"])
def test_every_commit_and_every_effect(how: str) -> None:
    """Killed after each commit, before and after each effect: the same guests run, each started once again."""
    counts: list[int] = []

    def count(coordinator: SimCoordinator) -> None:
        counts.extend((coordinator.commits, coordinator.effects))

    calm = failover(count, how)
    commits, effects = calm.coordinator.commits - counts[0], calm.coordinator.effects - counts[1]
    assert commits > 5
    assert effects > 5
    expected = end(calm)
    assert expected[0] == []
    points = [("die_after_commit", counts[0] + n) for n in range(1, min(commits, 40) + 1)]
    for n in range(1, min(effects, 60) + 1):
        points += [("die_before_effect", counts[1] + n), ("die_after_effect", counts[1] + n)]
    died = 0
    for name, number in points:
        world = failover(lambda coordinator, n=name, at=number: setattr(coordinator, n, at), how)  # type: ignore[misc]
        died += world.coordinator.term > 1
        assert end(world) == expected, (name, number)
    assert died > len(points) // 2
