"""How fast the simulator is: a quiet world, and random worlds. `make bench-sim`. In seconds of one core."""

from __future__ import annotations

import json
import time

from dr.sim.fuzz import result_of
from dr.sim.world import World

QUIET_S = 600.0
SEEDS = 40
HOSTS, GUESTS = 5, 20


def speedup_quiet() -> float:
    """Simulated seconds a second, nothing happening but beats."""
    hosts = [f"h{n}" for n in range(1, HOSTS + 1)]
    guests = {host: tuple(f"g{n}" for n in range(at + 1, GUESTS + 1, HOSTS)) for at, host in enumerate(hosts)}
    world = World(1, hosts=hosts, guests=guests).begin()
    began = time.process_time()
    world.run(QUIET_S)
    return QUIET_S / (time.process_time() - began)


def seeds_per_min() -> tuple[float, float, float]:
    """Random worlds a minute, the simulated minutes of the shortest, and the fewest entries of one."""
    began = time.process_time()
    shortest, fewest = 1e9, 1e9
    for seed in range(1, SEEDS + 1):
        result = result_of(seed)
        shortest = min(shortest, result.world.clock.now / 60)
        fewest = min(fewest, len(result.scenario.do))
    return 60 * SEEDS / (time.process_time() - began), shortest, fewest


def main() -> None:
    quiet = speedup_quiet()
    print(f"a quiet world of {HOSTS} hosts and {GUESTS} guests: {quiet:.0f} simulated seconds a second")
    seeds, minutes, faults = seeds_per_min()
    print(
        f"random worlds: {seeds:.0f} a minute, each at least {minutes:.1f} min and {faults:.0f} faults and repairs"
    )
    print(json.dumps({"speedup_quiet": round(quiet), "seeds_per_min": round(seeds)}))


if __name__ == "__main__":
    main()
