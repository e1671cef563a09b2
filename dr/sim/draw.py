"""A random world, drawn from its seed as a scenario: its shape, and when which kind of fault comes.

Here: hosts, guests, limits, times, the character of a world. Not here: what the faults are (`dr.sim.faults`), running
it (`dr.sim.fuzz`). What is drawn is all that there is: a fault looks at the world by `if` only, so the scenario that is
written to a file is the world itself, and an entry that is left out changes no other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from dr.model.base import GuestId, HostName, changed
from dr.model.policy import Limits
from dr.sim.scenario.facts import Fact
from dr.sim.scenario.language import Act, Fencing, GuestSpec, HostSpec, Scenario
from dr.sim.scenario.verb import Verb
from dr.sim.scenario.verbs_coordinator import Backup
from dr.sim.scenario.verbs_fencing import OneDevice

T = TypeVar("T")

SECONDS = (0.3, 1.0, 3.0, 10.0, 20.0)
LONG = (*SECONDS, 45.0)
GAPS_S = (0.05, 0.5, 2.0, 6.0, 15.0, 40.0)  # means: faults come in bursts, then there is peace
FAULTS_MIN = 5
LASTS_S = (600.0, 660.0)
FIRST_BACKUP = "first"

# What the design admits, or what would hide other things, stays apart: a world has one character.
# liars: fence devices that show the right identity and lie. restores: older copies of the store are put back.
CHARACTERS = {"plain": 5, "liars": 3, "restores": 3}


@dataclass
class Drawing:
    """A world while it is drawn: chance, and what there is so far."""

    rng: random.Random
    hosts: tuple[HostName, ...]  # from the beginning
    guests: tuple[GuestId, ...]
    pdu: frozenset[HostName]  # hosts with two power outlets as a second fencing level
    home: HostName  # the host that the coordinator runs on; "" = a machine of its own
    backups: list[str]
    joined: int = 0
    scrapped: set[HostName] = field(default_factory=set)

    def one(self, of: Sequence[T]) -> T:
        return self.rng.choice(of)

    def host(self) -> HostName:
        return self.rng.choice(self.hosts)

    def guest(self) -> GuestId:
        return self.rng.choice(self.guests)

    def peer(self, host: HostName) -> str:
        """Another host, or the coordinator."""
        return self.rng.choice(["coordinator", *(other for other in self.hosts if other != host)])

    def devices(self, host: HostName) -> list[OneDevice]:
        return ["bmc", "pdu_a", "pdu_b"] if host in self.pdu else ["bmc"]

    def device(self) -> tuple[HostName, OneDevice]:
        """A fence device: of which host, and which of its own."""
        return self.rng.choice([(host, which) for host in self.hosts for which in self.devices(host)])


@dataclass(frozen=True)
class Then:
    """One entry of what a fault does: so long after it began, and only if that is so."""

    verb: Verb
    after_s: float = 0.0
    only: Fact | None = None


@dataclass(frozen=True)
class Kind:
    """One kind of fault: how likely it is, and what it does, its repair included; nothing: it is not possible."""

    weight: int
    draw: Callable[[Drawing], Iterable[Then]]
    only: str = ""  # only in worlds of this character
    never: tuple[str, ...] = ()  # not in worlds of these


def draw(
    seed: int, kinds: Mapping[str, Kind], *, hosts: int = 0, guests: int = 0, faults: int = 0
) -> Scenario:
    """The world of a seed. `hosts`, `guests`, `faults`: so many; 0 = drawn too."""
    rng = random.Random(seed)
    character = rng.choices(list(CHARACTERS), list(CHARACTERS.values()))[0]
    scenario = _shape(rng, seed, hosts, guests)
    drawing = Drawing(
        rng,
        hosts=tuple(scenario.hosts),
        guests=tuple(scenario.guests),
        pdu=frozenset(name for name, spec in scenario.hosts.items() if spec.fencing == "bmc_and_pdu"),
        home=next((name for name, spec in scenario.hosts.items() if spec.coordinator_here), ""),
        backups=[FIRST_BACKUP],
    )
    eligible = [
        kind
        for kind in kinds.values()
        if kind.only in ("", character) and character not in kind.never and kind.weight
    ]
    acts = [Act(verb=Backup(backup=FIRST_BACKUP), at=0.0)] if character == "restores" else []
    for at in _times(rng, scenario.lasts, faults):
        acts += _fault(drawing, eligible, at)
    happen = [act for act in acts if act.at is not None and act.at <= scenario.lasts]
    return changed(
        scenario,
        shows=f"Seed {seed} of dr sim fuzz, a world of {character} faults: all is well once they are repaired.",
        do=tuple(sorted(happen, key=lambda act: act.at or 0.0)),
    )


def _shape(rng: random.Random, seed: int, hosts: int, guests: int) -> Scenario:
    names = [f"h{n}" for n in range(1, (hosts or rng.randint(3, 5)) + 1)]
    memory_mib = rng.choice([4096, 8192, 16384])
    home = rng.choice(names) if rng.random() < 0.25 else ""
    power_on = rng.random() < 0.7
    fencing: list[Fencing] = ["bmc", "bmc_and_pdu", "unproven"]
    specs = {
        name: HostSpec(
            memory_mib=memory_mib,
            fencing=rng.choices(fencing, [65, 30, 5])[0],
            power_on_after_fence=power_on,
            coordinator_here=name == home,
        )
        for name in names
    }
    free = {name: (memory_mib - Limits().memory_reserve_mib) // 1024 for name in names}
    placed: dict[GuestId, GuestSpec] = {}
    for number in range(1, (guests or rng.randint(2, 8)) + 1):
        on = rng.choice([name for name in names if free[name] > 0] or names)
        free[on] -= 1
        placed[f"g{number}"] = GuestSpec(on=on)
    return Scenario(
        shows="",
        seed=seed,
        lasts=round(rng.uniform(*LASTS_S), 3),
        hosts=specs,
        guests=placed,
        limits=Limits(
            brake_window_s=rng.choice([30.0, 600.0]),
            starts_per_host=rng.choice([1, 4]),
            fences_per_window=rng.choice([2, 3]),
        ),
        end="repaired",
    )


def _times(rng: random.Random, seconds: float, wanted: int) -> list[float]:
    if wanted:
        return sorted(rng.uniform(0.0, seconds) for _ in range(wanted))
    times: list[float] = []
    while len(times) < FAULTS_MIN:
        times, at = [], rng.uniform(0.0, 3.0)
        while at < seconds:
            times.append(at)
            at += rng.expovariate(1 / rng.choice(GAPS_S))
    return times


def _fault(drawing: Drawing, kinds: Sequence[Kind], at: float) -> list[Act]:
    """One fault that is possible as things stand."""
    weights = [kind.weight for kind in kinds]
    while True:
        kind = drawing.rng.choices(kinds, weights)[0]
        if thens := list(kind.draw(drawing)):
            return [Act(verb=each.verb, at=round(at + each.after_s, 3), if_=each.only) for each in thens]
