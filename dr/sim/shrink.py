"""A failing world made small: the few entries, guests, hosts and rules that are enough to break the same promise.

Here: delta debugging over a scenario. Not here: running it (`dr.sim.run`). What counts as the same failure is its
sentence without names and numbers; a scenario that fails in another way is another finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from dr.model.base import GuestId, HostName, Record, changed
from dr.model.policy import GuestPolicy, Limits
from dr.model.words import Many, Name, fields_of
from dr.sim.run import run
from dr.sim.scenario.check import named_in, problems_of
from dr.sim.scenario.language import Act, Scenario
from dr.sim.scenario.setting import CannotBegin
from dr.sim.world import POLICY

RUNS_MAX = 300
_VARIABLE = re.compile(r"\b[a-z]+-?\d[\w-]*\b|\[[^\]]*\]|\([^)]*\)|'[^']*'|[\d.]+")

T = TypeVar("T")
Fails = Callable[[Scenario], bool]


def failure(scenario: Scenario) -> str:
    """How that scenario fails, in a sentence; "" = it does not."""
    try:
        return next(iter(run(scenario).violations), "")
    except CannotBegin as error:
        return f"CannotBegin: {error}"


def signature(violation: str) -> str:
    """What two failures of the same kind have in common."""
    text = violation.partition("s: ")[2] if violation.startswith(("seed ", "at ")) else violation
    if text.startswith("not all well"):
        text = "not all well"
    return _VARIABLE.sub("#", text)[:80]


def shrink(scenario: Scenario, runs_max: int = RUNS_MAX) -> Scenario:
    """The smallest scenario found that fails in the same way. `scenario` must fail."""
    wanted = signature(failure(scenario))
    assert wanted
    runs = 0

    def fails(smaller: Scenario) -> bool:
        nonlocal runs
        if runs >= runs_max or problems_of(smaller):
            return False
        runs += 1
        return signature(failure(smaller)) == wanted

    scenario = _fewer_acts(scenario, fails)
    for smaller_by in (_without_a_guest, _without_a_host, _without_a_rule, _plainer, _shorter):
        scenario = _repeated(smaller_by, scenario, fails)
    return _fewer_acts(scenario, fails)


def _repeated(
    smaller_by: Callable[[Scenario], Iterator[Scenario]], scenario: Scenario, fails: Fails
) -> Scenario:
    """The first that still fails is taken, and made smaller again in the same way."""
    found = True
    while found:
        found = False
        for smaller in smaller_by(scenario):
            if fails(smaller):
                scenario, found = smaller, True
                break
    return scenario


def _fewer_acts(scenario: Scenario, fails: Fails) -> Scenario:
    """Delta debugging: ever smaller runs of entries are left out, as long as it still fails."""
    kept = scenario.do
    size = max(len(kept) // 2, 1)
    while kept:
        at, before = 0, len(kept)
        while at < len(kept):
            fewer = kept[:at] + kept[at + size :]
            if fails(changed(scenario, do=fewer)):
                kept = fewer
            else:
                at += size
        if size == 1 and len(kept) == before:
            break
        size = max(size // 2, 1)
    return changed(scenario, do=kept)


def _without_a_guest(scenario: Scenario) -> Iterator[Scenario]:
    for guest in scenario.guests:
        guests = {
            name: changed(spec, policy=_not_after(spec.policy, guest))
            for name, spec in scenario.guests.items()
            if name != guest
        }
        if guests:
            yield _without(changed(scenario, guests=guests), "guest", guest)


def _not_after(policy: GuestPolicy | None, guest: GuestId) -> GuestPolicy | None:
    if policy is None:
        return None
    return changed(policy, boot_after=tuple(after for after in policy.boot_after if after.guest != guest))


def _without_a_host(scenario: Scenario) -> Iterator[Scenario]:
    used: set[HostName] = {spec.on for spec in scenario.guests.values()}
    for host in scenario.hosts:
        if host not in used:
            hosts = {name: spec for name, spec in scenario.hosts.items() if name != host}
            yield _without(changed(scenario, hosts=hosts), "host", host)


def _without(scenario: Scenario, of: str, name: str) -> Scenario:
    """Without what speaks of it: of several names in one entry, the others stay."""
    acts = [_act_without(act, of, name) for act in scenario.do]
    rules = [rule for rule in scenario.rules if (of, name) not in {pair[1:] for pair in named_in(rule, ())}]
    return changed(scenario, do=tuple(act for act in acts if act is not None), rules=tuple(rules))


def _act_without(act: Act, of: str, name: str) -> Act | None:
    verb = _record_without(act.verb, of, name)
    records: Sequence[Record] = [each for each in (verb, act.if_, act.when) if each is not None]
    if verb is None or any((of, name) in {pair[1:] for pair in named_in(each, ())} for each in records):
        return None
    return changed(act, verb=verb)


def _record_without(record: Record, of: str, name: str) -> Record | None:
    for field in fields_of(type(record)):
        value, kind = getattr(record, field.name), field.kind
        if isinstance(kind, Many) and isinstance(kind.each, Name) and kind.each.of == of and name in value:
            if len(value) == 1:
                return None
            record = changed(record, **{field.name: tuple(each for each in value if each != name)})
    return record


def _without_a_rule(scenario: Scenario) -> Iterator[Scenario]:
    for at in range(len(scenario.rules)):
        yield changed(scenario, rules=scenario.rules[:at] + scenario.rules[at + 1 :])


def _plainer(scenario: Scenario) -> Iterator[Scenario]:
    """What is not as by default becomes so."""
    plain = changed(scenario, limits=Limits(), policy=POLICY)
    if plain != scenario:
        yield plain
    for guest, spec in scenario.guests.items():
        bare = changed(spec, policy=None, labels={})
        if bare != spec:
            yield changed(scenario, guests=scenario.guests | {guest: bare})
    for host, machine in scenario.hosts.items():
        bare_host = type(machine)(memory_mib=machine.memory_mib)
        if bare_host != machine:
            yield changed(scenario, hosts=scenario.hosts | {host: bare_host})


def _shorter(scenario: Scenario) -> Iterator[Scenario]:
    """It ends right after the last thing that happens."""
    if scenario.do:
        lasts = round(max(scenario.moments()) + 1.0, 3)
        if lasts < scenario.lasts:
            yield changed(scenario, lasts=lasts)
