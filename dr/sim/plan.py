"""A random world as data: its shape and its faults, drawn beforehand from a seed.

Here: what is drawn, and how a plan is written to a file. Not here: what a fault does (`dr.sim.faults`), running it
(`dr.sim.fuzz`). A fault that is taken out of a plan changes none of the others, so a plan can be shrunk.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from dr.model.base import GuestId, HostName, Record, changed

if TYPE_CHECKING:
    from dr.sim.world import World

SECONDS = (0.3, 1.0, 3.0, 10.0, 20.0)
LONG = (*SECONDS, 45.0)
GAPS_S = (0.05, 0.5, 2.0, 6.0, 15.0, 40.0)  # means: faults come in bursts, then there is peace
FAULTS_MIN = 5


class Fault(Record):
    """One fault. Which fields mean something depends on its kind; see `dr.sim.faults.KINDS`."""

    at: float  # seconds after all guests were protected
    kind: str
    host: HostName = ""
    peer: HostName = ""  # the other end, "" = the coordinator
    guest: GuestId = ""
    device: str = ""
    how: str = ""
    seconds: float = 0.0  # how long until it is repaired; 0 = it stays until the end
    count: int = 0


class Plan(Record):
    """Everything that makes one world."""

    seed: int
    hosts: tuple[HostName, ...]
    guests: dict[GuestId, HostName]
    faults: tuple[Fault, ...] = ()
    seconds: float = 600.0  # that the faults go on; then everything is repaired
    memory_mib: int = 8192
    pdu: tuple[HostName, ...] = ()  # hosts with two power outlets as a second fencing level
    untested: tuple[HostName, ...] = ()  # hosts whose fence devices nobody has tested
    home: HostName = ""  # the host that the coordinator runs on; "" = a machine of its own
    brake_window_s: float = 600.0
    starts_per_host: int = 4
    fences_per_window: int = 3
    power_on: bool = True


Throw = Callable[["World", Fault], None]


@dataclass(frozen=True)
class Kind:
    """One kind of fault: how likely it is, what is drawn for it, and what it does."""

    weight: int
    throw: Throw
    host: bool = False
    peer: bool = False
    guest: bool = False
    device: bool = False
    how: tuple[str, ...] = ()
    seconds: tuple[float, ...] = ()
    count: tuple[int, int] = (0, 0)
    only: str = ""  # only in worlds of this character
    never: tuple[str, ...] = ()  # not in worlds of these


# What the design admits, or what would hide other things, stays apart: a world has one character.
# liars: fence devices that show the right identity and lie. restores: older copies of the store are put back.
CHARACTERS = {"plain": 5, "liars": 3, "restores": 3}


def draw(seed: int, kinds: Mapping[str, Kind], *, hosts: int = 0, guests: int = 0, faults: int = 0) -> Plan:
    """The plan of a seed. `hosts`, `guests`, `faults`: so many; 0 = drawn too."""
    rng = random.Random(seed)
    names = tuple(f"h{n}" for n in range(1, (hosts or rng.randint(3, 5)) + 1))
    placed = {f"g{n}": rng.choice(names) for n in range(1, (guests or rng.randint(2, 8)) + 1)}
    character = rng.choices(list(CHARACTERS), list(CHARACTERS.values()))[0]
    pdu = tuple(name for name in names if rng.random() < 0.3)
    plan = Plan(
        seed=seed,
        hosts=names,
        guests=placed,
        memory_mib=rng.choice([4096, 8192, 16384]),
        pdu=pdu,
        untested=tuple(name for name in names if rng.random() < 0.05),
        home=rng.choice(names) if rng.random() < 0.25 else "",
        brake_window_s=rng.choice([30.0, 600.0]),
        starts_per_host=rng.choice([1, 4]),
        fences_per_window=rng.choice([2, 3]),
        power_on=rng.random() < 0.7,
        seconds=rng.uniform(480.0, 600.0),
    )
    eligible = {
        name: kind
        for name, kind in kinds.items()
        if kind.only in ("", character) and character not in kind.never
    }
    weights = [kind.weight for kind in eligible.values()]
    thrown: list[Fault] = []
    for at in _times(rng, plan.seconds, faults):
        name = rng.choices(list(eligible), weights)[0]
        thrown.append(_one(rng, at, name, eligible[name], plan))
    return changed(plan, faults=tuple(thrown))


def _times(rng: random.Random, seconds: float, wanted: int) -> list[float]:
    if wanted:
        return sorted(round(rng.uniform(0.0, seconds), 3) for _ in range(wanted))
    times: list[float] = []
    while len(times) < FAULTS_MIN:
        times, at = [], rng.uniform(0.0, 3.0)
        while at < seconds:
            times.append(round(at, 3))
            at += rng.expovariate(1 / rng.choice(GAPS_S))
    return times


def _one(rng: random.Random, at: float, name: str, kind: Kind, plan: Plan) -> Fault:
    devices = [f"bmc-{n}" for n in plan.hosts] + [f"pdu-{s}-{n}" for n in plan.pdu for s in "ab"]
    host = rng.choice(plan.hosts) if kind.host else ""
    return Fault(
        at=at,
        kind=name,
        host=host,
        peer=rng.choice(["", *(other for other in plan.hosts if other != host)]) if kind.peer else "",
        guest=rng.choice(list(plan.guests)) if kind.guest else "",
        device=rng.choice(devices) if kind.device else "",
        how=rng.choice(kind.how) if kind.how else "",
        seconds=rng.choice(kind.seconds) if kind.seconds else 0.0,
        count=rng.randint(*kind.count) if kind.count[1] else 0,
    )


def dump(plan: Plan) -> str:
    """As text that `load` reads: one fault a line."""
    head = msgspec.to_builtins(changed(plan, faults=()))
    lines = [f'  "{key}": {msgspec.json.encode(value).decode()},' for key, value in head.items()]
    faults = ",\n".join(f"    {msgspec.json.encode(fault).decode()}" for fault in plan.faults)
    return "\n".join(["{", *lines, '  "faults": [', faults, "  ]", "}", ""])


def load(text: str) -> Plan:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=Plan)
