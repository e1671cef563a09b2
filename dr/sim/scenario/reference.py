"""The language's own description as Markdown tables, for docs/simulator.md: `tests.test_docs` writes and compares it.

Here: tables made from the records. Not here: prose.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from dr.model.base import Record
from dr.sim.scenario.facts import FACTS
from dr.sim.scenario.language import GuestSpec, HostSpec, Scenario
from dr.sim.scenario.verbs import GROUPS
from dr.sim.scenario.words import Field, fields_of, written


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(field: Field) -> str:
    if field.required:
        return "required"
    value = field.default
    if value in (None, (), {}, ""):
        return ""
    if isinstance(value, Record):
        return "its defaults"
    plain = field.kind.write(value)
    return f"`{written(plain)}`"


def keys(record: type[Record]) -> str:
    """Every key of a record."""
    rows = [_row("key", "default", "what it is"), "|---|---|---|"]
    rows += [_row(f"`{field.key}`", _default(field), _says(field)) for field in fields_of(record)]
    return "\n".join(rows)


def _says(field: Field) -> str:
    """What a field is, and how it is written where that is not clear from it."""
    means = field.kind.means
    return f"{field.says} ({means})" if means.startswith("one of") else field.says


def doc(record: type[Record]) -> str:
    return " ".join(inspect.cleandoc(record.__doc__ or "").split())


def _with_options(kind: type[Record]) -> str:
    first, *options = fields_of(kind)
    words = [f"{first.says} ({first.kind.means})" if first.kind.means.startswith("one of") else ""]
    words += [
        f"`{field.key}`: {_says(field)}{f', {default}' if (default := _default(field)) else ''}"
        for field in options
    ]
    return "; ".join(word for word in words if word)


def verbs(group: str) -> str:
    """Every verb of a group."""
    rows = [_row("verb", "what happens", "with"), "|---|---|---|"]
    for kind in GROUPS[group]:
        first = fields_of(kind)[0]
        rows.append(_row(f"`{first.key}`", doc(kind), _with_options(kind)))
    return "\n".join(rows)


def facts() -> str:
    """Every fact."""
    rows = [_row("fact", "what it says", "with"), "|---|---|---|"]
    rows += [_row(f"`{key}`", doc(kind), _with_options(kind)) for key, kind in FACTS.items()]
    return "\n".join(rows)


def slug(group: str) -> str:
    return group.split(",", maxsplit=1)[0].lower().replace(" ", "_")


RENDERED: dict[str, Callable[[], str]] = {
    "scenario": lambda: keys(Scenario),
    "hosts": lambda: keys(HostSpec),
    "guests": lambda: keys(GuestSpec),
    "facts": facts,
} | {f"verbs_{slug(group)}": (lambda group=group: verbs(group)) for group in GROUPS}  # type: ignore[misc]
