"""What a random world is drawn with: chance, what there is so far, and faults as entries that follow each other.

Here: the words of a drawing. Not here: a whole world (`dr.sim.draw`), faults (`dr.sim.faults`, `dr.sim.faults_people`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from dr.model.base import GuestId, HostName
from dr.sim.scenario.facts import Fact
from dr.sim.scenario.verb import Verb
from dr.sim.scenario.verbs_fencing import OneDevice

T = TypeVar("T")

SECONDS = (0.3, 1.0, 3.0, 10.0, 20.0)
LONG = (*SECONDS, 45.0)


@dataclass
class Drawing:
    """A world while it is drawn: chance, and what there is so far."""

    rng: random.Random
    hosts: tuple[HostName, ...]  # from the beginning
    guests: list[GuestId]  # those that are added later too
    pdu: frozenset[HostName]  # hosts with two power outlets as a second fencing level
    home: HostName  # the host that the coordinator runs on; "" = a machine of its own
    guest_mib: int
    room_mib: (
        int  # for guests that come: so much that each fits somewhere even if the others were not placed well
    )
    backups: list[str]
    rules: list[str] = field(default_factory=list)  # names of those in force
    rules_made: int = 0
    renamed: int = 0
    plans: int = 0
    added: int = 0
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


Faults = Iterator[Then]


def lasting(begin: Verb, end: Verb, seconds: float) -> Faults:
    """A fault and its repair; 0 s: it stays until the end."""
    yield Then(begin)
    if seconds:
        yield Then(end, seconds)
