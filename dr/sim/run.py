"""Runs one scenario: a world is built, things happen to it in their order, and what was expected is compared.

Here: time, conditions, the result. Not here: the language (`dr.sim.scenario`), files (`dr.cli`), random faults
(`dr.sim.fuzz`). Same scenario and seed: same result, byte for byte.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dr.model.words import written
from dr.sim.repair import repair
from dr.sim.scenario.facts import Fact
from dr.sim.scenario.language import FACT, Act, Expectation, Scenario
from dr.sim.scenario.observer import Observer
from dr.sim.scenario.setting import begin
from dr.sim.scenario.stage import Stage
from dr.sim.trace import Said
from dr.sim.world import World

Prepare = Callable[[World], None]


@dataclass
class Check:
    """One expectation or `never`, and how it was met."""

    text: str
    at_s: float
    instead: str = ""  # "" = as expected


@dataclass
class Result:
    """How a scenario ended."""

    scenario: Scenario
    world: World
    begun_s: float
    violations: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.violations

    @property
    def trace(self) -> list[Said]:
        """What happened since the beginning."""
        return [said for said in self.world.trace if said.t_s >= self.begun_s]

    def plain(self) -> dict[str, Any]:
        """The result as JSON has it."""
        return {
            "ok": self.ok,
            "violations": list(self.violations),
            "guests": {guest: self._guest(guest) for guest in sorted(self.world.definitions)},
            "hosts": {host: self._host(host) for host in sorted(self.world.hosts)},
            "trace": [said.plain(self.begun_s) for said in self.trace],
        }

    def _guest(self, guest: str) -> dict[str, Any]:
        record, real = self.world.store.guests.get(guest), self.world.running(guest)
        if record is None:
            return {"host": "", "running_on": real, "phase": "unprotected", "reason": ""}
        places = record.may_run_on
        host = places[0].host if len(places) == 1 else record.holder
        return {"host": host, "running_on": real, "phase": record.phase.value, "reason": record.reason}

    def _host(self, host: str) -> dict[str, Any]:
        record, up = self.world.store.hosts.get(host), self.world.hosts[host].up
        if record is None:
            return {"phase": "removed", "conditions": [], "reason": "", "up": up}
        return {
            "phase": record.phase.value,
            "conditions": sorted(each.value for each in record.conditions),
            "reason": record.reason,
            "up": up,
        }


class _Play:
    """One scenario under way."""

    def __init__(self, scenario: Scenario, world: World, patience_s: float) -> None:
        self.scenario = scenario
        self.world = world
        self.stage = Stage(world)
        self.stage.patience_s = patience_s
        self.seen = Observer(world)
        self.result = Result(scenario, world, world.clock.now)
        self._waiting: list[tuple[list[Fact], int]] = []  # conditions and the entries that wait for them
        self._happened: set[int] = set()
        self._never = [(fact, single) for fact in scenario.never for single in fact.single(self.seen)]

    def run(self) -> Result:
        clock, begun = self.world.clock, self.result.begun_s
        for expectation in self.scenario.expect:
            if expectation.at is not None:
                clock.at(begun + expectation.at, lambda each=expectation: self._expect(each))  # type: ignore[misc]
        for number, act in enumerate(self.scenario.do):
            if act.at is not None:
                clock.at(begun + act.at, lambda n=number: self._happen(n))  # type: ignore[misc]
        if self.scenario.do and self.scenario.do[0].at is None:
            self._turn_of(0)
        try:
            clock.run(begun + self.scenario.end_s, self._watch)
            wrong: list[str] = []
            if self.scenario.end == "repaired":
                wrong = repair(self.world, self._wait)
        except Exception as broken:  # a promise, or what no decision may end in
            promise = isinstance(broken, AssertionError) and str(broken)
            self.result.violations.append(
                promise or f"{type(broken).__name__}: {broken} ({_raised_in(broken)})"
            )
            self.result.violations += self.stage.violations
            return self.result
        self.result.violations += [f"not all well although all was repaired: {text}" for text in wrong]
        self._end()
        return self.result

    # ---- what happens

    def _turn_of(self, number: int) -> None:
        """The entry before it has happened."""
        act = self.scenario.do[number]
        if act.when is not None:
            self._waiting.append((list(act.when.single(self.seen)), number))
        else:
            self._after(act, number)

    def _after(self, act: Act, number: int) -> None:
        if act.after:
            self.world.clock.after(act.after, lambda: self._happen(number))
        else:
            self._happen(number)

    def _happen(self, number: int) -> None:
        act = self.scenario.do[number]
        self._happened.add(number)
        if instead := self._instead(act.if_):
            self.world.say(f"--- not {act.verb.text()}: {instead}", "act.not")
        else:
            self.world.say(f">>> {act.verb.text()}", "act", act=act.verb.word())
            self.stage.still = lambda: not self._instead(act.if_)
            act.verb.do(self.stage)
        if number + 1 < len(self.scenario.do) and self.scenario.do[number + 1].at is None:
            self._turn_of(number + 1)

    def _instead(self, fact: Fact | None) -> str:
        """What is so instead of that; "" = it is so."""
        if fact is None:
            return ""
        self.seen.catch_up()
        return "; ".join(why for single in fact.single(self.seen) if (why := single.why_not(self.seen)))

    def _watch(self) -> bool:
        """After each step of the world."""
        if self._waiting or self._never:
            self.seen.catch_up()
        if self._never:
            self._mind_never()
        for waiting in list(self._waiting):
            facts, number = waiting
            if not any(fact.why_not(self.seen) for fact in facts):
                self._waiting.remove(waiting)
                self._after(self.scenario.do[number], number)
        return False

    # ---- what is expected

    def _mind_never(self) -> None:
        for pair in list(self._never):
            fact, single = pair
            if not single.why_not(self.seen):
                self._never = [other for other in self._never if other[0] is not fact]
                self._checked(Check(f"never {written(FACT.write(single))}", self.seen.now_s, "it came to be"))

    def _expect(self, expectation: Expectation) -> None:
        self.seen.catch_up()
        when = "" if expectation.at is None else f"at {expectation.at:g} s "
        instead = [why for single in expectation.fact.single(self.seen) if (why := single.why_not(self.seen))]
        check = Check(f"{when}{written(FACT.write(expectation.fact))}", self.seen.now_s, "; ".join(instead))
        self._checked(check)

    def _checked(self, check: Check) -> None:
        self.result.checks.append(check)
        if check.instead:
            text = f"{check.text}: {check.instead}"
            self.world.say(f"NOT AS EXPECTED {text}", "violation")
            self.result.violations.append(f"at {check.at_s:.1f} s: {text}")

    def _end(self) -> None:
        for expectation in self.scenario.expect:
            if expectation.at is None:
                self._expect(expectation)
        for fact in dict.fromkeys(written(FACT.write(fact)) for fact, _ in self._never):
            self.result.checks.append(Check(f"never {fact}", self.seen.now_s))
        self.result.violations += self.stage.violations
        self.result.violations += [f"nobody answered: {words}" for words in self.stage.unanswered]
        self.result.violations += list(self._never_happened())
        if self.scenario.end == "all well":
            wrong = self.world.truth.unfinished()
            self.result.violations += [f"not all well at the end: {text}" for text in wrong]

    def _wait(self, seconds: float) -> None:
        self.world.clock.run(self.world.clock.now + seconds, self._watch)

    def _never_happened(self) -> Iterator[str]:
        for number, act in enumerate(self.scenario.do):
            if number not in self._happened:
                waits = "" if act.when is None else f", as never {written(FACT.write(act.when))}"
                yield f"never happened{waits}: {act.verb.text()}"
                return


def _raised_in(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"


def run(scenario: Scenario, *, prepare: Prepare | None = None, patience_s: float = 0.0) -> Result:
    """Run it. `prepare` may touch the world at the moment when the scenario begins; `patience_s` is that of people.

    Raises CannotBegin where the world cannot come to stand as the scenario says.
    """
    world = begin(scenario)
    if prepare is not None:
        prepare(world)
    return _Play(scenario, world, patience_s).run()
