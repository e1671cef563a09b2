"""Random worlds: run, and a failing one shrunk to the few faults that matter.

Here: one plan from beginning to end, many seeds, delta debugging. Not here: the faults (`dr.sim.faults`), drawing them
(`dr.sim.plan`), the promises (`dr.sim.truth`), the command (`dr.cli.sim`).
"""

from __future__ import annotations

from dr.model.policy import Limits
from dr.sim.ending import alerts_left
from dr.sim.faults import KINDS, help_by_people, protect_again, throw
from dr.sim.plan import Plan, draw
from dr.sim.truth import Violation
from dr.sim.world import World

HEALED_S = 240.0  # what may be left to do after everything was repaired takes no longer
LOOK_EVERY_S = 10.0
WORLD_S = 600.0  # each world goes on for at least so long


def plan_of(seed: int, *, hosts: int = 0, guests: int = 0, faults: int = 0) -> Plan:
    """What a seed stands for; 0 = drawn from it too."""
    return draw(seed, KINDS, hosts=hosts, guests=guests, faults=faults)


def make(plan: Plan) -> World:
    """The world as it is before it begins."""
    guests: dict[str, tuple[str, ...]] = dict.fromkeys(plan.hosts, ())
    for guest, host in plan.guests.items():
        guests[host] = (*guests[host], guest)
    return World(
        plan.seed,
        hosts=plan.hosts,
        guests=guests,
        memory_mib=plan.memory_mib,
        pdu=plan.pdu,
        untested=plan.untested,
        home=plan.home,
        limits=Limits(
            brake_window_s=plan.brake_window_s,
            starts_per_host=plan.starts_per_host,
            fences_per_window=plan.fences_per_window,
        ),
        power_on=plan.power_on,
    )


def run(plan: Plan) -> World:
    """Raises Violation, or whatever the core raised; the error's `world` is the world in which it happened."""
    world = make(plan)
    try:
        world.begin()
        world.backups.append(world.store.copy())
        begun = world.clock.now
        for fault in plan.faults:
            world.clock.at(begun + fault.at, lambda fault=fault: throw(world, fault))  # type: ignore[misc]
        world.run(plan.seconds)
        heal(world)
    except Exception as error:
        error.world = world  # type: ignore[attr-defined]  # for whoever prints the trace
        raise
    return world


def heal(world: World) -> None:
    """Repair everything and wait until all is well. Raises Violation if it does not become so."""
    world.heal()
    until = world.clock.now + HEALED_S
    wrong = ["nothing was looked at"]
    while (world.clock.now < until and wrong) or world.clock.now < WORLD_S:
        world.run(LOOK_EVERY_S)
        help_by_people(world)
        protect_again(world)
        wrong = world.truth.unfinished() + alerts_left(world)
    if wrong:
        raise Violation(
            f"seed {world.seed}: not all well {HEALED_S:.0f} s after all was repaired: {'; '.join(wrong)}"
        )
