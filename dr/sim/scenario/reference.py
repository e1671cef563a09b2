"""The language's own description as Markdown tables, for docs/simulator.md: `tests.test_docs` writes and compares it.

Here: which records it has tables of. Not here: how one is made (`dr.model.reference`), prose.
"""

from __future__ import annotations

from collections.abc import Callable

from dr.model.reference import keys, table
from dr.model.words import fields_of
from dr.sim.scenario.facts import FACTS
from dr.sim.scenario.language import GuestSpec, HostSpec, Scenario
from dr.sim.scenario.verbs import GROUPS
from dr.sim.scenario.verbs_people import AskVerb


def verbs(group: str) -> str:
    """Every verb of a group."""
    inherited = frozenset(field.name for field in fields_of(AskVerb))
    return table("verb", GROUPS[group], inherited)


def facts() -> str:
    """Every fact."""
    return table("fact", FACTS.values())


def slug(group: str) -> str:
    return group.split(",", maxsplit=1)[0].lower().replace(" ", "_")


RENDERED: dict[str, Callable[[], str]] = {
    "scenario": lambda: keys(Scenario),
    "hosts": lambda: keys(HostSpec),
    "guests": lambda: keys(GuestSpec),
    "facts": facts,
} | {f"verbs_{slug(group)}": (lambda group=group: verbs(group)) for group in GROUPS}
