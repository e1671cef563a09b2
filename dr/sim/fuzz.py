"""Random worlds: `python -m dr.sim.fuzz --seeds N --from S`. A seed that fails prints its violation and its trace.

Here: one random world from beginning to end. Not here: the faults (`dr.sim.faults`), the promises (`dr.sim.truth`).
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback

from dr.model.policy import Limits
from dr.sim.faults import Faults, help_by_people
from dr.sim.truth import Violation
from dr.sim.world import World

HEALED_S = 240.0  # what may be left to do after everything was repaired takes no longer


def make(seed: int) -> tuple[World, Faults, float]:
    """A world of 3 to 5 hosts with its faults planned, and how long they go on."""
    rng = random.Random(seed)
    names = [f"h{n}" for n in range(1, rng.randint(3, 5) + 1)]
    guests: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    for number in range(1, rng.randint(2, 8) + 1):
        name = rng.choice(names)
        guests[name] = (*guests[name], f"g{number}")
    world = World(
        seed,
        hosts=names,
        guests=guests,
        memory_mib=rng.choice([4096, 8192, 16384]),
        pdu=[name for name in names if rng.random() < 0.3],
        limits=Limits(brake_window_s=rng.choice([30.0, 600.0]), starts_per_host=rng.choice([1, 4])),
        power_on=rng.random() < 0.7,
    )
    liars = rng.random() < 0.25
    faults = Faults(world, liars=liars, restores=not liars and rng.random() < 0.25)
    return world, faults, rng.uniform(30.0, 90.0)


def run(seed: int) -> World:
    """Raises Violation, or whatever the core raised."""
    world, faults, seconds = make(seed)
    try:
        world.begin()
        faults.backups.append(world.store.copy())
        faults.plan(world.clock.now + seconds)
        world.run(seconds)
        world.heal()
        until = world.clock.now + HEALED_S
        wrong = ["nothing was looked at"]
        while world.clock.now < until and wrong:
            world.run(10.0)
            help_by_people(world)
            wrong = world.truth.unfinished()
        if wrong:
            raise Violation(f"seed {seed}: not all well {HEALED_S:.0f} s after all was repaired: {wrong}")
    except Exception as error:
        error.add_note(f"replay: python -m dr.sim.fuzz --seeds 1 --from {seed} --trace")
        error.world = world  # type: ignore[attr-defined]  # for whoever prints the trace
        raise
    return world


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dr.sim.fuzz", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many worlds")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first seed")
    parser.add_argument("--trace", action="store_true", help="print the whole trace of a seed that fails")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure")
    asked = parser.parse_args()
    began, virtual, failed = time.monotonic(), 0.0, 0
    for seed in range(asked.first, asked.first + asked.seeds):
        try:
            virtual += run(seed).clock.now
        except Exception as error:
            failed += 1
            world = getattr(error, "world", None)
            if asked.trace and world is not None:
                print("\n".join(world.lines()))
            if isinstance(error, Violation):
                print(f"seed {seed}: {error}")
            else:
                traceback.print_exc()
                print(f"seed {seed}: {type(error).__name__}: {error}")
            if not asked.keep_going:
                break
    took_s = time.monotonic() - began
    print(
        f"{asked.seeds} seeds, {failed} failed, {virtual:.0f} simulated seconds in {took_s:.1f} s",
        file=sys.stderr,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
