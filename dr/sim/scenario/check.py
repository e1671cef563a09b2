"""What a scenario cannot mean: names that nobody has, times after the end, guests that do not fit, and the like.

Here: checks between the parts of a scenario, all at once. Not here: how single values are written (`words`).
"""

from __future__ import annotations

from collections.abc import Iterator

from dr.core.contradictions import contradictions
from dr.model.base import Record
from dr.model.policy import GuestRule, HostRule, Rule
from dr.model.records import GuestRecord
from dr.model.words import ALL, Many, Name, Problems, Where, fields_of, nearest
from dr.sim.scenario.facts import Fact
from dr.sim.scenario.language import GuestSpec, Scenario
from dr.sim.scenario.verbs_coordinator import Backup, Restore
from dr.sim.scenario.verbs_guests import AddGuest
from dr.sim.scenario.verbs_hosts import Join
from dr.sim.scenario.verbs_people import AddRule, Apply, PlanEvacuation, RemoveRule


def problems_of(scenario: Scenario) -> list[tuple[Where, str]]:
    """Everything that the scenario cannot mean, each with its place in the file."""
    problems = Problems()
    _names(scenario, problems)
    _places(scenario, problems)
    _times(scenario, problems)
    _facts(scenario, problems)
    _backups(scenario, problems)
    _rules(scenario, problems)
    if not scenario.hosts:
        problems.add(("hosts",), "a world needs at least one host")
    if scenario.end == "as expected" and not scenario.expect and not scenario.never:
        problems.add(("end",), "nothing is expected: then nothing could fail")
    return problems.found


def _names(scenario: Scenario, problems: Problems) -> None:
    """Every name is somebody's, and new names are new."""
    known = {"host": set(scenario.hosts), "guest": set(scenario.guests)}
    for at, act in enumerate(scenario.do):
        for of, kind in (("host", Join), ("guest", AddGuest)):
            if isinstance(act.verb, kind):
                word = act.verb.word()
                name = getattr(act.verb, word)
                if name in known[of]:
                    problems.add(("do", at, word), f"there is a {of} {name} already")
                known[of].add(name)
    for where, of, name in _references(scenario):
        if name and name not in known[of]:
            hint = nearest(name, known[of]) or f"; there are: {', '.join(sorted(known[of])) or 'none'}"
            problems.add(where, f"no {of} is named {name}{hint}")


def _references(scenario: Scenario) -> Iterator[tuple[Where, str, str]]:
    for name, guest in scenario.guests.items():
        yield ("guests", name, "on"), "host", guest.on
        for after in guest.policy.boot_after if guest.policy else ():
            yield ("guests", name, "policy", "boot_after"), "guest", after.guest
    for after in scenario.policy.boot_after:
        yield ("policy", "boot_after"), "guest", after.guest
    for at, rule in enumerate(scenario.rules):
        yield from named_in(rule, ("rules", at))
    for at, act in enumerate(scenario.do):
        yield from named_in(act.verb, ("do", at))
        for key, fact in (("when", act.when), ("if", act.if_)):
            if fact is not None:
                yield from named_in(fact, ("do", at, key))
    for at, expectation in enumerate(scenario.expect):
        yield from named_in(expectation.fact, ("expect", at))
    for at, fact in enumerate(scenario.never):
        yield from named_in(fact, ("never", at))


def named_in(record: Record, where: Where) -> Iterator[tuple[Where, str, str]]:
    """Every host and guest that a rule, a verb or a fact speaks of: where in it, "host" or "guest", the name."""
    if isinstance(record, HostRule | GuestRule):
        yield from _of_rule(record, where)
        return
    if isinstance(record, AddRule):
        yield from _of_rule(record.add_rule, (*where, "add_rule"))
    for field in fields_of(type(record)):
        kind = field.kind.each if isinstance(field.kind, Many) else field.kind
        value = getattr(record, field.name)
        if not isinstance(kind, Name) or kind.new or value is None:
            continue
        for name in value if isinstance(value, tuple) else (value,):
            if name not in kind.also:
                yield (*where, field.key), kind.of, name


def _of_rule(rule: Rule, where: Where) -> Iterator[tuple[Where, str, str]]:
    for name in rule.guests:
        if not name.startswith("label:"):
            yield (*where, "guests"), "guest", name
    if isinstance(rule, HostRule):
        for host in rule.hosts:
            yield (*where, "hosts"), "host", host


def _places(scenario: Scenario, problems: Problems) -> None:
    """Guests fit where they are said to run."""
    for name, host in scenario.hosts.items():
        here = {guest: spec for guest, spec in scenario.guests.items() if spec.on == name}
        running = {guest: spec for guest, spec in here.items() if spec.is_ in ("running", "unprotected")}
        if host.is_ in ("off", "maintenance") and running:
            message = f"is {host.is_}, and {', '.join(running)} cannot run on it"
            problems.add(("hosts", name, "is"), message)
        free = host.memory_mib - scenario.limits.memory_reserve_mib
        if running and _memory(running) > free:
            message = f"guests there take {_memory(running)} MiB, and above the reserve there are {free}"
            problems.add(("hosts", name), message)
        for guest, spec in running.items():
            if spec.vcpus > host.cpus:
                problems.add(("guests", guest, "vcpus"), f"{name} has only {host.cpus} processors")


def _memory(guests: dict[str, GuestSpec]) -> int:
    return sum(spec.memory_mib for spec in guests.values())


def _times(scenario: Scenario, problems: Problems) -> None:
    if not scenario.lasts:
        return
    named = [(("do", at, "at"), act.at) for at, act in enumerate(scenario.do)]
    named += [(("expect", at, "at"), each.at) for at, each in enumerate(scenario.expect)]
    for where, time in named:
        if time is not None and time > scenario.lasts:
            problems.add(where, f"is after the end at {scenario.lasts:g} s: it would never come")


def _facts(scenario: Scenario, problems: Problems) -> None:
    """A fact says something of what it names."""
    found: list[tuple[Where, Fact]] = [(("expect", at), each.fact) for at, each in enumerate(scenario.expect)]
    found += [(("never", at), fact) for at, fact in enumerate(scenario.never)]
    found += [(("do", at, "when"), act.when) for at, act in enumerate(scenario.do) if act.when is not None]
    found += [(("do", at, "if"), act.if_) for at, act in enumerate(scenario.do) if act.if_ is not None]
    for where, fact in found:
        if type(fact) is Fact:
            continue  # it was not understood, which is a problem already
        first, *more = fields_of(type(fact))
        if fact.needs_more and all(getattr(fact, field.name) == field.default for field in more):
            allowed = ", ".join(field.key for field in more)
            problems.add(where, f"says nothing of {first.key}; one of {allowed}")
        if ALL in (getattr(fact, first.name) or ()) and first.key == "guest" and not scenario.guests:
            problems.add(where, "there is no guest at all")


def _backups(scenario: Scenario, problems: Problems) -> None:
    """Backups, and plans, are there before they are used."""
    taken: set[str] = set()
    plans: set[str] = set()
    for at, act in enumerate(scenario.do):
        if isinstance(act.verb, Backup):
            taken.add(act.verb.backup)
        elif isinstance(act.verb, PlanEvacuation):
            plans.add(act.verb.as_)
        elif isinstance(act.verb, Apply) and act.verb.apply not in plans:
            have = ", ".join(sorted(plans)) or "none"
            problems.add(("do", at, "apply"), f"no plan is named {act.verb.apply} before this, only: {have}")
        elif isinstance(act.verb, Restore) and act.verb.restore not in taken:
            have = ", ".join(sorted(taken)) or "none"
            problems.add(
                ("do", at, "restore"), f"no backup is named {act.verb.restore} before this, only: {have}"
            )


def _rules(scenario: Scenario, problems: Problems) -> None:
    """Names of rules are unlike each other, strict ones can all hold, and a rule that is removed was there."""
    guests = [GuestRecord(id=name, name=name, labels=spec.labels) for name, spec in scenario.guests.items()]
    for found in contradictions(scenario.rules, guests, scenario.hosts):
        problems.add(("rules",), found.text)
    names: set[str] = set()
    for at, rule in enumerate(scenario.rules):
        if rule.name and rule.name in names:
            problems.add(("rules", at, "name"), f"there is a rule {rule.name} already")
        names.add(rule.name)
    for at, act in enumerate(scenario.do):
        if isinstance(act.verb, AddRule):
            names.add(act.verb.add_rule.name)
        elif isinstance(act.verb, RemoveRule) and act.verb.remove_rule not in names:
            have = ", ".join(sorted(names)) or "none"
            problems.add(
                ("do", at, "remove_rule"), f"no rule is named {act.verb.remove_rule}; there are: {have}"
            )
