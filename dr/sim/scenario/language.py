"""A scenario: a world, what happens to it, and what must and must not come of it. `docs/simulator.md` explains it.

Here: the parts of a scenario as records, how they are written in YAML, and back. Not here: the words themselves
(`verbs`, `facts`), what cannot mean anything (`check`), files and their lines (`dr.cli.scenario_file`).
"""

from __future__ import annotations

import io
from typing import Annotated, Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from dr.model.base import GuestId, HostName, Record, changed
from dr.model.hooks import Hooks
from dr.model.policy import GuestPolicy, HostRule, Limits, OnCritical, OnLeave, Rule, Timers
from dr.model.schedules import Schedule
from dr.model.words import (
    TIME,
    Count,
    HostRef,
    Kind,
    Nested,
    OneOf,
    Problems,
    Seconds,
    Where,
    Whole,
    read_fields,
    write_fields,
)
from dr.sim.cpus import CpuKind
from dr.sim.scenario.facts import FACTS, Fact
from dr.sim.scenario.moment import MONDAY, Moment
from dr.sim.scenario.rule import RULE
from dr.sim.scenario.verb import Verb
from dr.sim.scenario.verbs import VERBS
from dr.sim.world import POLICY, TIMERS

AFTERWARDS_S = 30.0  # how long a scenario goes on after the last moment that it names

Fencing = Literal["bmc", "bmc_and_pdu", "unproven", "none"]
HostStart = Literal["online", "off", "cordoned", "maintenance", "quarantined"]
GuestStart = Literal["running", "stopped", "recovering", "error", "unprotected"]


class HostSpec(Record):
    """One host, and how it stands at the beginning."""

    memory_mib: Annotated[Count, "its memory"] = 8192
    cpus: Annotated[Count, "its processors"] = 16
    cpu: Annotated[
        CpuKind,
        "their kind: `older` lacks features that `newer` has, `other` is of another vendor; guests run with all of it",
    ] = "newer"
    fencing: Annotated[Fencing, "its fence devices; `unproven`: a BMC that no `dr fence test` has shown"] = (
        "bmc"
    )
    power_on_after_fence: Annotated[bool, "it is switched on again when its guests have a place"] = True
    coordinator_here: Annotated[bool, "the coordinator runs on it, so it is never fenced"] = False
    on_leave: Annotated[OnLeave | None, "what becomes of its guests when it announces its shutdown"] = None
    labels: Annotated[dict[str, str], "keys and values"] = {}
    is_: Annotated[HostStart, "how it stands at the beginning"] = "online"


class GuestSpec(Record):
    """One guest, and how it stands at the beginning."""

    on: Annotated[HostRef, "the host where it runs, or ran last"]
    memory_mib: Annotated[Count, "its memory"] = 1024
    resident_mib: Annotated[int, Whole(0), "of its memory, what is in use and would be sent; 0: all"] = 0
    dirty_mib_s: Annotated[int, Whole(0), "so fast it writes to its memory"] = 0
    working_set_mib: Annotated[int, Whole(0), "over and over this much of it; 0: all that is in use"] = 0
    vcpus: Annotated[Count, "its processors"] = 1
    disk_mib: Annotated[
        int, Whole(0), "used of its disk, which only that host has; 0: its disks are shared"
    ] = 0
    policy: Annotated[GuestPolicy | None, Nested(GuestPolicy, POLICY), "instead of the general policy"] = None
    labels: Annotated[dict[str, str], "keys and values"] = {}
    is_: Annotated[
        GuestStart, "how it stands at the beginning; `unprotected`: it runs, and nobody protects it"
    ] = "running"


class Act(Record):
    """One entry of `do`: a verb, and when. Without a time it happens together with the entry before it."""

    verb: Verb
    at: float | None = None  # since the beginning
    when: Fact | None = None  # as soon as this is so, watched from when the entry before has happened
    after: float | None = None  # so long after the entry before, or after `when` came true
    if_: Fact | None = (
        None  # nothing is done unless this is so; what is asked again is dropped once it is not
    )


class Expectation(Record):
    """One entry of `expect`: a fact, at the end or at a time."""

    fact: Fact
    at: float | None = None


class _Hosts(Kind):
    means = "a list of names, or a mapping of names to what each host is"

    def read(self, value: Any, where: Where, problems: Problems) -> dict[HostName, HostSpec]:
        if isinstance(value, list):
            for at, name in enumerate(value):
                if not isinstance(name, str) or name in value[:at]:
                    problems.add(
                        (*where, at), f"{name} is named twice" if isinstance(name, str) else "must be a name"
                    )
            return {str(name): HostSpec() for name in value}
        if not isinstance(value, dict):
            self.wrong(value, where, problems)
            return {}
        spec = Nested(HostSpec)
        read = {
            name: HostSpec() if each is None else spec.read(each, (*where, name), problems)
            for name, each in value.items()
        }
        return {name: each or HostSpec() for name, each in read.items()}

    def write(self, value: Any) -> Any:
        if all(each == HostSpec() for each in value.values()):
            return list(value)
        return {name: write_fields(each) for name, each in value.items()}


class _Guests(Kind):
    means = "a mapping of each guest to its host, or to what it is"

    def read(self, value: Any, where: Where, problems: Problems) -> dict[GuestId, GuestSpec]:
        if not isinstance(value, dict):
            self.wrong(value, where, problems)
            return {}
        read = {}
        for name, each in value.items():
            plain = each if isinstance(each, dict) else {"on": each}
            spec = read_fields(GuestSpec, plain, (*where, name), problems, partly=True)
            read[name] = spec or GuestSpec(on="")
        return read

    def write(self, value: Any) -> Any:
        plain = {name: write_fields(each) for name, each in value.items()}
        return {name: each["on"] if list(each) == ["on"] else each for name, each in plain.items()}


class _List(Kind):
    """A list, each entry of one kind; `blank` stands for one with problems, so that the others keep their place."""

    def __init__(self, each: Kind, means: str, blank: Record) -> None:
        self.each = each
        self.means = means
        self.blank = blank

    def read(self, value: Any, where: Where, problems: Problems) -> tuple[Any, ...]:
        if not isinstance(value, list):
            self.wrong(value, where, problems)
            return ()
        read = [self.each.read(item, (*where, at), problems) for at, item in enumerate(value)]
        return tuple(self.blank if item is None else item for item in read)

    def write(self, value: Any) -> Any:
        return [self.each.write(item) for item in value]


RULES = _List(RULE, "a list of rules", HostRule(name="", guests=(), hosts={}))
FACT = OneOf(FACTS, "fact")
VERB = OneOf(VERBS, "verb")


class _Act(Kind):
    means = "a mapping of a verb and when it happens"
    WHEN = ("at", "when", "after")
    ALSO = (*WHEN, "if")

    def read(self, value: Any, where: Where, problems: Problems) -> Act | None:
        verb = VERB.read(value, where, problems, self.ALSO)
        if not isinstance(value, dict):
            return None
        times = {
            key: TIME.read(value[key], (*where, key), problems) for key in ("at", "after") if key in value
        }
        fact = FACT.read(value["when"], (*where, "when"), problems) if "when" in value else None
        only = FACT.read(value["if"], (*where, "if"), problems) if "if" in value else None
        if "at" in times and len({*self.WHEN} & {*value}) > 1:
            problems.add((*where, "at"), "a time since the beginning, `when` and `after` exclude each other")
        if verb is None:
            return None
        verb.check(where, problems)
        return Act(verb=verb, at=times.get("at"), when=fact, after=times.get("after"), if_=only)

    def write(self, value: Any) -> Any:
        times = {
            key: TIME.write(time) for key in ("at", "after") if (time := getattr(value, key)) is not None
        }
        when = {} if value.when is None else {"when": FACT.write(value.when)}
        only = {} if value.if_ is None else {"if": FACT.write(value.if_)}
        return when | times | only | VERB.write(value.verb)


class _Expectation(Kind):
    means = "a mapping of a fact, and at which time if not at the end"

    def read(self, value: Any, where: Where, problems: Problems) -> Expectation | None:
        fact = FACT.read(value, where, problems, ("at",))
        if not isinstance(value, dict):
            return None
        at = TIME.read(value["at"], (*where, "at"), problems) if "at" in value else None
        return None if fact is None else Expectation(fact=fact, at=at)

    def write(self, value: Any) -> Any:
        return ({} if value.at is None else {"at": TIME.write(value.at)}) | FACT.write(value.fact)


class Scenario(Record):
    """The whole file."""

    shows: Annotated[str, "one sentence: what it shows"]
    name: Annotated[str, "its name; the file's name if not named"] = ""
    seed: Annotated[int, Whole(), "all that is left to chance comes from it"] = 1
    lasts: Annotated[
        Seconds, "how long it goes on; 30 s after the last moment that is named, if not named"
    ] = 0.0
    hosts: Annotated[dict[HostName, HostSpec], _Hosts(), "names, or names with what each host is"]
    guests: Annotated[dict[GuestId, GuestSpec], _Guests(), "each with its host, or with what it is"] = {}
    policy: Annotated[
        GuestPolicy, Nested(GuestPolicy, POLICY), "how guests are treated, as in the configuration"
    ] = POLICY
    rules: Annotated[
        tuple[Rule, ...],
        RULES,
        "as in the configuration",
    ] = ()
    timers: Annotated[Timers, Nested(Timers, TIMERS), "as in the configuration"] = TIMERS
    limits: Annotated[Limits, "as in the configuration"] = Limits()
    auto_fence: Annotated[bool, "as in the configuration"] = True
    on_leave: Annotated[OnLeave, "as in the configuration"] = OnLeave.MIGRATE
    on_critical: Annotated[OnCritical, "as in the configuration"] = OnCritical.ALERT
    schedules: Annotated[
        dict[str, Schedule], "as in the configuration, but with playbooks written out; from the beginning on"
    ] = {}
    hooks: Annotated[
        Hooks, "as in the configuration, but with playbooks written out; from the beginning on"
    ] = Hooks()
    clock: Annotated[float, Moment(), "what the coordinator's clock shows at the beginning"] = MONDAY
    do: Annotated[
        tuple[Act, ...], _List(_Act(), "a list of what happens", Act(verb=Verb())), "what happens"
    ] = ()
    expect: Annotated[
        tuple[Expectation, ...],
        _List(_Expectation(), "a list of facts", Expectation(fact=Fact())),
        "what must be so at the end, or at a time",
    ] = ()
    never: Annotated[
        tuple[Fact, ...], _List(FACT, "a list of facts", Fact()), "what must not be so at any moment"
    ] = ()
    end: Annotated[
        Literal["all well", "as expected", "repaired"],
        "`all well`: every guest is as its owner wants it, every host that is up is online, nothing is under way; "
        "`as expected`: only what `expect` says; `repaired`: then everything is repaired, people help where only they "
        "can, and within four minutes all must be well and no alert may stand",
    ] = "all well"

    @property
    def end_s(self) -> float:
        """When it ends, in seconds since the beginning."""
        return self.lasts or max(self.moments(), default=0.0) + AFTERWARDS_S

    def moments(self) -> list[float]:
        """Every time that is named; those after a `when` as if it came true at once."""
        found, now = [each.at for each in self.expect if each.at is not None], 0.0
        for act in self.do:
            now = act.at if act.at is not None else now + (act.after or 0.0)
            found.append(now)
        return found


def from_plain(data: dict[str, Any], problems: Problems) -> Scenario | None:
    """A scenario from the values of a YAML file. After a problem: its good parts, or None."""
    scenario: Scenario | None = read_fields(Scenario, data, (), problems, partly=True)
    return scenario


def named(scenario: Scenario, name: str) -> Scenario:
    """With that name, unless it has one."""
    return scenario if scenario.name else changed(scenario, name=name)


def dump(scenario: Scenario) -> str:
    """As YAML that reads back as the same scenario."""
    yaml = YAML()
    yaml.width = 110
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    plain = write_fields(scenario)
    yaml.dump(CommentedMap((key, _entries(value)) for key, value in plain.items()), stream)
    return stream.getvalue()


def _entries(value: Any) -> Any:
    """Block style for a part of the file, one line for each entry in it."""
    if isinstance(value, dict):
        return CommentedMap((key, _line(item)) for key, item in value.items())
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return CommentedSeq(_line(item) for item in value)
    return _line(value)


def _line(value: Any) -> Any:
    if isinstance(value, dict):
        found: Any = CommentedMap((key, _line(item)) for key, item in value.items())
    elif isinstance(value, list):
        found = CommentedSeq(_line(item) for item in value)
    else:
        return value
    found.fa.set_flow_style()
    return found
