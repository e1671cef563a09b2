"""Every file of tests/scenarios runs as it says, and every field of its expectations is able to fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dr.cli.scenario_file import load, loads
from dr.model.base import changed
from dr.model.operations import OperationState
from dr.model.records import Desired, GuestPhase, HostPhase
from dr.model.words import ALL, fields_of
from dr.sim.run import run
from dr.sim.scenario.facts import (
    FACTS,
    NOT_PROTECTED,
    REMOVED,
    AlertStands,
    Apart,
    Fact,
    GuestIs,
    HostIs,
    InOrder,
    LoadIs,
    NoAlert,
    NotTold,
    Ran,
    Together,
    Told,
    WasFenced,
)
from dr.sim.scenario.language import Scenario, dump
from dr.sim.scenario.verbs import VERBS

FOLDER = Path(__file__).parent.parent / "scenarios"
FILES = sorted(FOLDER.glob("*/*.yaml"))
ID = [f"{file.parent.name}/{file.stem}" for file in FILES]


@pytest.mark.long(keep=70)
@pytest.mark.parametrize("file", FILES, ids=ID)
def test_scenario(file: Path) -> None:
    result = run(load(file))
    assert result.violations == [], "\n".join(result.world.lines())


@pytest.mark.long(keep=15)
@pytest.mark.parametrize("file", FILES, ids=ID)
def test_the_opposite_of_each_expectation_fails(file: Path) -> None:
    """Every field of every expectation is compared: with any other value the same run is not as expected."""
    scenario = load(file)
    opposite = tuple(
        changed(expectation, fact=fact)
        for expectation in scenario.expect
        for fact in opposites(scenario, expectation.fact)
    )
    result = run(changed(scenario, expect=opposite, never=()))
    passed = [check.text for check in result.checks if not check.instead]
    assert passed == []
    assert len(result.checks) == len(opposite) >= len(scenario.expect)


WORDS: dict[str, list[str]] = {
    "GuestIs.is_": [*(phase.value for phase in GuestPhase), NOT_PROTECTED],
    "HostIs.is_": [*(phase.value for phase in HostPhase), REMOVED],
}
SUBJECTS = {"guest", "host", "load", "operation"}  # what a fact is about; the other fields say what is so


def opposites(scenario: Scenario, fact: Fact) -> Iterator[Fact]:
    """The same fact with one field turned round, for each of its fields. All of several subjects become one."""
    first, *rest = fields_of(type(fact))
    subject = getattr(fact, first.name)
    if isinstance(subject, tuple) and len(subject) > 1 and first.name in SUBJECTS:
        fact = changed(fact, **{first.name: subject[:1]})
    elif subject == (ALL,) and first.name in SUBJECTS:
        one = next(iter(scenario.guests if first.name == "guest" else scenario.hosts))
        fact = changed(fact, **{first.name: (one,)})
    if first.name not in SUBJECTS:
        yield turned_round(scenario, fact, first.name)
    elif first.name == "operation":
        yield changed(fact, operation="no-such-kind") if fact_count(fact) != 0 else changed(fact, count=1)
    for field in rest:
        if getattr(fact, field.name) != field.default:
            yield turned_round(scenario, fact, field.name)


def fact_count(fact: Fact) -> int | None:
    count: int | None = getattr(fact, "count", None)
    return count


def turned_round(scenario: Scenario, fact: Fact, name: str) -> Fact:
    if isinstance(fact, Ran) and not fact.count:
        name = "count"  # what never ran, did not run elsewhere either
    value: Any = getattr(fact, name)
    match fact:
        case NoAlert():
            return AlertStands(alert=value)
        case NotTold():
            return Told(told=value)
        case Together():
            return Apart(apart=value)
        case Apart():
            return Together(together=value)
        case InOrder():
            return changed(fact, in_order=tuple(reversed(value)))
        case LoadIs() if name == "at_most":
            return LoadIs(load=fact.load, at_least=value + 1)
        case WasFenced():
            return HostIs(host=value[:1], fenced=0)
        case HostIs() if name in ("has", "lacks"):
            return changed(fact, **{name: (), {"has": "lacks", "lacks": "has"}[name]: value})
        case GuestIs() if name == "not_on":
            return changed(fact, not_on=(), runs_on=value)
        case _:
            words = WORDS.get(f"{type(fact).__name__}.{name}") or list(scenario.hosts)
            return changed(fact, **{name: other_than(value, words, least=name == "down_at_most")})


def other_than(value: Any, words: list[str], *, least: bool) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return -1.0 if least else 1e6
        case Desired() | OperationState():
            return next(each for each in type(value) if each is not value)
        case str():
            known = {"up": "down", "down": "up", "on": "paused", "paused": "on", "held": "on"}
            return known.get(value, f"{value} and the opposite")
        case tuple():
            return tuple(word for word in words if word not in value) or ("nowhere",)
        case _:
            raise AssertionError(f"what is the opposite of {value}?")


@pytest.mark.long(keep=15)
@pytest.mark.parametrize("file", FILES, ids=ID)
def test_a_scenario_is_written_as_it_was_read(file: Path) -> None:
    scenario = load(file)
    assert loads(dump(scenario), str(file)) == scenario


def test_every_word_of_the_language_is_used() -> None:
    """Each verb, each of its options, each fact and each of its fields stands in some scenario."""
    used: set[str] = set()
    for file in FILES:
        scenario = load(file)
        whens = [act.when for act in scenario.do if act.when is not None]
        records = [act.verb for act in scenario.do]
        for record in [*records, *whens, *(each.fact for each in scenario.expect), *scenario.never]:
            fields = fields_of(type(record))
            used |= {
                f"{fields[0].key}.{field.key}"
                for field in fields
                if field.required or getattr(record, field.name) != field.default
            }
    every_ask = {"answer", "because"}  # the same for each
    words = {
        f"{key}.{field.key}"
        for key, kind in {**VERBS, **FACTS}.items()
        for field in fields_of(kind)
        if field.key not in every_ask
    }
    assert words - used == set()


def test_at_least_a_hundred() -> None:
    assert len(FILES) >= 100
    sentences = [load(file).shows for file in FILES]
    assert len(set(sentences)) == len(sentences)
    assert all(sentence.endswith(".") for sentence in sentences)


def test_same_seed_same_bytes() -> None:
    scenario = load(FILES[0])
    assert run(scenario).plain() == run(scenario).plain()
    assert run(changed(scenario, seed=7)).plain()["trace"] != run(scenario).plain()["trace"]
