"""Interruption: a scenario with one process killed at one point must come to the same end as without.

Here: the points, the killing, what an end is. Not here: the scenarios (`dr.sim.run`), which points are tried
(tests/sim/test_interruption.py: a sample; tests/sim/soak.py: all of them).

What may differ between two ends, and nothing else: on which host a guest runs, how often something was tried or
started, sentences, times, ids. So only untimed facts are compared, once both worlds have come to rest.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dr.model.base import HostName, changed
from dr.model.operations import OperationState
from dr.model.records import Condition
from dr.sim.agent import Killed
from dr.sim.run import Prepare, Result, run
from dr.sim.scenario.language import Scenario
from dr.sim.world import World

DOWN_S = 1.0  # how long a killed process is down
SETTLED_S = 60.0  # after the end of the scenario; the uninterrupted world rests by then
PATIENCE_S = 240.0  # the interrupted one may take so much longer
LOOK_S = 5.0
AT_REST = ("online", "fenced", "maintenance")
UNPROTECTED = Condition.UNPROTECTED.value
LATER = "not all well at the end"

# What a fence device said in a fencing that died with the process, its successor may never see. What somebody tried by
# hand may fail where the process died just before.
OF_THE_MOMENT = ("/fence-lies", "/resumed-by-hand")

COORDINATOR = ("after-commit", "before-effect", "after-effect")
AGENT = (
    "after-write",
    "after-answer",
)  # of the agent of one host: its durable state, its word to the coordinator


class BadPoint(ValueError):
    """The text says what a point looks like."""


@dataclass(frozen=True)
class Point:
    """Where a process dies: the n-th time that it comes to it since the scenario began."""

    kind: str
    number: int
    host: HostName = ""  # of the agent; "" = the coordinator

    def __str__(self) -> str:
        return f"{self.kind}:{self.host}:{self.number}" if self.host else f"{self.kind}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Point:
        """Raises BadPoint."""
        kind, *host, number = text.split(":") if ":" in text else (text, "0")
        known = (kind in COORDINATOR and not host) or (kind in AGENT and len(host) == 1)
        if not known or not number.isdigit() or int(number) < 1:
            shapes = ", ".join(
                [*(f"{each}:N" for each in COORDINATOR), *(f"{each}:HOST:N" for each in AGENT)]
            )
            raise BadPoint(f"{text!r} is no point: {shapes}, with N from 1")
        return cls(kind, int(number), *host)


@dataclass(frozen=True)
class End:
    """What a world came to."""

    guests: dict[str, tuple[str, str, int]]  # phase, what its owner wants, in how many places it runs
    hosts: dict[str, tuple[str, tuple[str, ...], bool]]  # phase, conditions, whether it is up
    open_operations: frozenset[tuple[str, str]]  # kind, subject
    alerts: frozenset[str]
    automation: tuple[bool, bool]  # paused, restored
    failed_tests: frozenset[str] = frozenset()  # hosts of which a fence test ended without a proof

    @classmethod
    def of(cls, world: World) -> End:
        store = world.store
        guests = {
            guest.name: (guest.phase.value, guest.desired.value, len(world.running(guest.id)))
            for guest in store.guests.values()
        }
        hosts = {
            host.name: (
                host.phase.value,
                tuple(sorted(c.value for c in host.conditions)),
                world.hosts[host.name].up,
            )
            for host in store.hosts.values()
        }
        is_open = (op for op in store.operations.values() if op.state is OperationState.OPEN)
        return cls(
            guests=guests,
            hosts=hosts,
            open_operations=frozenset((op.kind, op.subject) for op in is_open),
            alerts=frozenset(key for key in store.alerts if not key.endswith(OF_THE_MOMENT)),
            automation=(store.cluster.pause is not None, bool(store.cluster.restored)),
            failed_tests=frozenset(
                op.subject
                for op in store.operations.values()
                if (op.kind, op.state) == ("fence-test", OperationState.FAILED)
            ),
        )

    def at_rest(self) -> End:
        """With hosts in two kinds: those that rest, and those that something goes on with.

        An agent that was down makes its host look worse for a moment. So a host that loses power just then is fenced
        instead of found off, and switched on again by policy; the rest must be the same all the same.
        """
        hosts = {
            name: ("at rest", (), True) if phase in AT_REST else (phase, conditions, up)
            for name, (phase, conditions, up) in self.hosts.items()
        }
        return replace(self, hosts=hosts)

    def untested(self, names: frozenset[str]) -> End:
        """Whatever a fence test would have shown of these hosts: a test that the coordinator died over has failed."""
        hosts = {
            name: (phase, tuple(c for c in conditions if name not in names or c != UNPROTECTED), up)
            for name, (phase, conditions, up) in self.hosts.items()
        }
        alerts = self.alerts - {f"host/{name}/{UNPROTECTED}" for name in names}
        return replace(self, hosts=hosts, alerts=alerts, failed_tests=frozenset())

    def unlike(self, other: End) -> list[str]:
        """What is not the same, as `what: here, there`."""
        found = []
        for name, here, there in (
            ("guest", self.guests, other.guests),
            ("host", self.hosts, other.hosts),
        ):
            for key in sorted(here.keys() | there.keys()):
                if here.get(key) != there.get(key):
                    found.append(f"{name} {key}: {here.get(key)}, not {there.get(key)}")
        for name in ("open_operations", "alerts", "automation"):
            if getattr(self, name) != getattr(other, name):
                found.append(f"{name}: {getattr(self, name)}, not {getattr(other, name)}")
        return found


@dataclass(frozen=True)
class Calm:
    """A scenario that nobody interrupted."""

    scenario: Scenario
    passed: dict[tuple[str, HostName], int]  # how often a process came to a point of that kind
    end: End

    def points(self) -> Iterator[Point]:
        """Every point at which a process can be killed."""
        for (kind, host), count in sorted(self.passed.items()):
            for number in range(1, count + 1):
                yield Point(kind, number, host)

    def sample(self, count: int) -> list[Point]:
        """So many of them, the same ones each time; spread by a hash, so that neighbours are not tried together."""
        return sorted(self.points(), key=lambda point: _hash(self.scenario.name, point))[:count]


def _hash(name: str, point: Point) -> bytes:
    return hashlib.sha256(f"{name} {point}".encode()).digest()


def calm(scenario: Scenario) -> Calm:
    """Run it to its end, and to rest. Raises AssertionError where a promise is broken."""
    passed: Counter[tuple[str, HostName]] = Counter()
    begun: list[int] = []

    def watch(world: World) -> None:
        begun.extend((world.coordinator.commits, world.coordinator.effects))
        for name, host in world.hosts.items():
            host.agent.at_point = lambda kind, name=name: passed.update([(f"after-{kind}", name)])  # type: ignore[misc]

    result = run(_without_times(scenario), prepare=watch)
    if result.violations:
        raise AssertionError(f"{scenario.name}, without interruption: {'; '.join(result.violations)}")
    world, coordinator = result.world, result.world.coordinator
    passed["after-commit", ""] = coordinator.commits - begun[0]
    passed["before-effect", ""] = passed["after-effect", ""] = coordinator.effects - begun[1]
    found = dict(passed)
    world.run(SETTLED_S)
    return Calm(scenario, found, End.of(world))


def interrupted(calm: Calm, point: Point, prepare: Prepare | None = None) -> Result:
    """Run it again, killed there. Its violations say what is broken, or not the same in the end."""
    result = killed(calm.scenario, point, prepare)
    world, waited_s = result.world, 0.0
    try:
        while not result.violations:
            world.run(LOOK_S)
            waited_s += LOOK_S
            here, there = End.of(world), calm.end
            cut_short = here.failed_tests ^ there.failed_tests
            here, there = here.untested(cut_short), there.untested(cut_short)
            unlike = here.at_rest().unlike(there.at_rest()) if point.host else here.unlike(there)
            if not unlike and waited_s >= SETTLED_S:
                break
            if waited_s >= PATIENCE_S:
                result.violations = [f"another end than without the crash: {text}" for text in unlike]
    except AssertionError as broken:
        result.violations.append(str(broken) or type(broken).__name__)
    return result


def killed(scenario: Scenario, point: Point, prepare: Prepare | None = None) -> Result:
    """The scenario up to its own end, with a process killed there."""
    bare = _without_times(scenario)
    if point.host:
        bare = changed(
            bare, never=()
        )  # what befalls its host while it is down is one fault more: see `End.at_rest`

    def begin(world: World) -> None:
        if prepare is not None:
            prepare(world)
        kill_at(world, point)

    result = run(bare, prepare=begin, patience_s=PATIENCE_S)
    # All is well only later: it took a restart.
    result.violations = [text for text in result.violations if not text.startswith(LATER)]
    return result


def kill_at(world: World, point: Point) -> None:
    """The process will die there, and start again a moment later. Raises BadPoint for a host that is not there."""
    if point.host:
        if point.host not in world.hosts:
            raise BadPoint(f"there is no host {point.host}")
        _kill_agent(world, point)
        return
    coordinator = world.coordinator
    if point.kind == "after-commit":
        coordinator.die_after_commit = coordinator.commits + point.number
    elif point.kind == "before-effect":
        coordinator.die_before_effect = coordinator.effects + point.number
    else:
        coordinator.die_after_effect = coordinator.effects + point.number
    coordinator.when_killed = lambda: world.clock.after(DOWN_S, world.restart_coordinator)


def _kill_agent(world: World, point: Point) -> None:
    agent, left = world.hosts[point.host].agent, [point.number]

    def passed(kind: str) -> None:
        if f"after-{kind}" == point.kind:
            left[0] -= 1
            if left[0] == 0:
                dead = agent.incarnation + 1
                # Unless the scenario did something to it meanwhile.
                world.clock.after(DOWN_S, lambda: agent.start() if agent.incarnation == dead else None)
                raise Killed(agent)

    agent.at_point = passed


def _without_times(scenario: Scenario) -> Scenario:
    """Only what must never be stays: a restart takes time, so what was expected at a time may come later."""
    return changed(scenario, expect=())
