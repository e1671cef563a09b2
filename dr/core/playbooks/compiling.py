"""From a playbook to the steps of one run: parameters, `targets`, labels and `each_…` become names, once, as it begins.

So what a run is about is settled when somebody asks for it, and is what `--dry-run` showed. Not here: what a step does
(`deeds`), what no playbook can mean (`check`).
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from collections.abc import Mapping as Map
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

from dr.core.playbooks.check import why_no_value
from dr.core.state import Draft
from dr.model.base import HostName, Record, changed
from dr.model.conditions import ALL, LABEL, ON, PARAMETER, TARGETS, Chosen, Reference
from dr.model.playbooks import Bubble, OwnAddress, Playbook, RunStep, StepSpec
from dr.model.verbs import VERBS
from dr.model.words import Many, Mapping, OneOf, Problems, Where, fields_of, nearest

STEPS_MAX = 1000  # of one run; its record is written anew with each of them
NAMES_MAX = 100_000  # in all of them together


class Fleet(NamedTuple):
    """Names and labels of all hosts; of all guests also where they are."""

    hosts: Map[HostName, Map[str, str]]
    guests: Map[str, tuple[Map[str, str], HostName]]


def fleet_of(draft: Draft) -> Fleet:
    return Fleet(
        {host.name: host.labels for host in draft.hosts()},
        {guest.name: (guest.labels, guest.holder) for guest in draft.guests()},
    )


class Unclear(Exception):
    """What a run cannot be about; all of it, each with its place in the playbook."""

    def __init__(self, found: list[tuple[Where, str]]) -> None:
        super().__init__("; ".join(text for _, text in found))
        self.found = found


def steps_of(playbook: Playbook, params: Map[str, str], fleet: Fleet) -> tuple[RunStep, ...]:
    """The steps of a run, in their order. Raises Unclear."""
    making = _Making(playbook, fleet, values_of(playbook, params))
    steps = list(islice(chain(making.part("steps"), making.part("finally")), STEPS_MAX + 1))
    if len(steps) > STEPS_MAX:
        raise Unclear(
            [(("steps",), f"would be more than {STEPS_MAX} steps: name fewer in each_host, each_guest")]
        )
    for at, condition in enumerate(playbook.require):
        making.resolved(condition, ("require", at), {})
    if making.found:
        raise Unclear(making.found)
    return tuple(steps)


def required(playbook: Playbook, params: Map[str, str], fleet: Fleet) -> tuple[Any, ...]:
    """What must be so before the first step, with names."""
    making = _Making(playbook, fleet, values_of(playbook, params))
    return tuple(making.resolved(each, ("require", at), {}) for at, each in enumerate(playbook.require))


def bubble(playbook: Playbook, params: Map[str, str], fleet: Fleet) -> Bubble:
    """Its bubble, with an address in place of a parameter. Raises Unclear."""
    making = _Making(playbook, fleet, values_of(playbook, params))
    return making.bubble()


def values_of(playbook: Playbook, params: Map[str, str]) -> dict[str, str]:
    """What every parameter stands for. Raises Unclear."""
    found: list[tuple[Where, str]] = []
    for name in params:
        if name not in playbook.params:
            has = ", ".join(playbook.params) or "none"
            found.append(
                (("params", name), f"no such parameter{nearest(name, playbook.params)}; it has: {has}")
            )
    values: dict[str, str] = {}
    for name, parameter in playbook.params.items():
        value = params.get(name, parameter.default)
        if value is None:
            says = f" ({parameter.says})" if parameter.says else ""
            found.append((("params", name), f"must be told{says}: {name}=…"))
        elif why := why_no_value(parameter, value):
            found.append((("params", name), why))
        else:
            values[name] = value
    if found:
        raise Unclear(found)
    return values


class _Making:
    """One playbook on its way to steps; `found` collects what cannot be."""

    def __init__(self, playbook: Playbook, fleet: Fleet, values: dict[str, str]) -> None:
        self._playbook = playbook
        self._fleet = fleet
        self._values = values
        self._named = 0
        self.found: list[tuple[Where, str]] = []

    def part(self, part: Literal["steps", "finally"]) -> Iterator[RunStep]:
        entries = self._playbook.steps if part == "steps" else self._playbook.finally_
        for at, entry in enumerate(entries):
            if isinstance(entry, StepSpec):
                yield RunStep(spec=self._step(entry, (part, at), {}), part=part)
                continue
            of = "host" if entry.each_host else "guest"
            names = self._chosen(entry.each_host or entry.each_guest, of, (part, at, f"each_{of}"), {})
            for name in names:
                for inner, spec in enumerate(entry.steps):
                    step = self._step(spec, (part, at, "steps", inner), {of: name})
                    shown = f"{name}: {spec.name}" if spec.name else spec.name
                    yield RunStep(spec=changed(step, name=shown), part=part)

    def bubble(self) -> Bubble:
        of, where = self._playbook.bubble, ("bubble", "address")
        problems = Problems()
        address = self._filled(of.address, where, {})
        if address:
            OwnAddress().read(address, where, problems)
        if self.found or problems:
            raise Unclear([*self.found, *problems.found])
        return changed(of, address=address)

    def _step(self, spec: StepSpec, where: Where, one: dict[str, str]) -> StepSpec:
        verb = self.resolved(spec.verb, where, one)
        undo = spec.undo
        if isinstance(undo, str):
            (key, *_), taken = fields_of(VERBS[undo]), getattr(verb, fields_of(type(verb))[0].name)
            undo = typing.cast(Any, VERBS[undo](**{key.name: taken}))
        elif undo is not None:
            undo = self.resolved(undo, (*where, "undo"), one)
        when = spec.when if spec.when is None else self.resolved(spec.when, (*where, "when"), one)
        return changed(spec, verb=verb, undo=undo, when=when, name=self._filled(spec.name, where, one))

    def resolved(self, record: Any, where: Where, one: dict[str, str]) -> Any:
        """A verb or condition with names in place of everything that stands for names."""
        values: dict[str, Any] = {}
        for field in fields_of(type(record)):
            value, at = getattr(record, field.name), (*where, field.key)
            each = field.kind.each if isinstance(field.kind, Many) else field.kind
            if isinstance(each, Chosen):
                values[field.name] = self._chosen(value, each.of, at, one)
            elif isinstance(each, Reference) and value:
                values[field.name], *others = self._chosen((value,), each.of, at, one) or ("",)
                if others:
                    self.found.append((at, f"names several {each.of}s, and one is wanted here"))
            elif isinstance(each, OneOf) and isinstance(value, Record):
                values[field.name] = self.resolved(value, at, one)
            elif isinstance(field.kind, Mapping):
                values[field.name] = {key: self._filled(text, (*at, key), one) for key, text in value.items()}
            elif isinstance(value, str) and type(value) is str:
                values[field.name] = self._filled(value, at, one)
        return changed(record, **values)

    def _filled(self, text: str, where: Where, one: dict[str, str]) -> str:
        """Text with values in place of parameters."""

        def value(match: Any) -> str:
            known = self._values | one
            if match[1] not in known:
                self.found.append((where, f"${{{match[1]}}} stands for nothing here"))
            return known.get(match[1], "")

        return PARAMETER.sub(value, text)

    def _chosen(self, words: tuple[str, ...], of: str, where: Where, one: dict[str, str]) -> tuple[str, ...]:
        """Names, each once, in the order in which they were chosen."""
        names: dict[str, None] = {}
        for word in words:
            names |= dict.fromkeys(self._names(self._filled(word, where, one), of, where, one))
        self._named += len(names)
        if self._named > NAMES_MAX:
            raise Unclear([(where, f"more than {NAMES_MAX:,} names in all its steps: say less at once")])
        return tuple(names)

    def _names(self, word: str, of: str, where: Where, one: dict[str, str]) -> list[str]:
        fleet = self._fleet
        labels = fleet.hosts if of == "host" else {name: own for name, (own, _) in fleet.guests.items()}
        if word == TARGETS:
            targets = self._playbook.targets
            chosen = targets.hosts if of == "host" else targets.guests
            if not chosen:
                self.found.append((where, f"the playbook's targets name no {of}s"))
            return list(self._chosen(tuple(each for each in chosen if each != TARGETS), of, where, one))
        if word == ALL:
            return sorted(labels)
        if match := LABEL.fullmatch(word):
            found = sorted(name for name, own in labels.items() if own.get(match[1]) == match[2])
            if not found:
                self.found.append((where, f"no {of} has the label {match[1]}={match[2]}"))
            return found
        if of == "guest" and word.startswith(ON):
            host = word.removeprefix(ON)
            if host not in fleet.hosts:
                self.found.append((where, f"no such host: {host}{nearest(host, fleet.hosts)}"))
            return sorted(name for name, (_, holder) in fleet.guests.items() if holder == host)
        if word not in labels:
            self.found.append((where, f"no such {of}: {word}{nearest(word, labels)}"))
        return [word]
