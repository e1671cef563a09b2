"""The language's own description as Markdown tables, for docs/simulator.md: `tests.test_docs` writes and compares it.

Here: tables made from the records. Not here: prose.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

from dr.model.base import Record
from dr.model.words import Field, Flag, Many, Name, Whole, Word, fields_of, written
from dr.sim.scenario.facts import FACTS
from dr.sim.scenario.language import GuestSpec, HostSpec, Scenario
from dr.sim.scenario.verbs import GROUPS
from dr.sim.scenario.verbs_people import AskVerb


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


def _call(field: Field) -> str:
    """The key with what stands behind it: `power_off: HOSTS`, `libvirtd: down | hung | up`."""
    many = isinstance(field.kind, Many)
    kind = field.kind.each if isinstance(field.kind, Many) else field.kind
    if isinstance(kind, Word):
        value = " | ".join(kind.words)
    elif isinstance(kind, Name):
        value = "NAME" if kind.new else kind.of.upper() + ("S" if many else "")
    else:
        value = "true | false" if isinstance(kind, Flag) else "N" if isinstance(kind, Whole) else "TEXT"
    return f"`{field.key}: {value}`"


def _table(title: str, kinds: Iterable[type[Record]], inherited: frozenset[str] = frozenset()) -> str:
    rows = [_row(title, "what it is", "with"), "|---|---|---|"]
    for kind in kinds:
        first, *options = fields_of(kind)
        told = [
            f"`{each.key}`: {_says(each)}{_if_any(each)}" for each in options if each.name not in inherited
        ]
        rows.append(_row(_call(first), doc(kind), "<br>".join(told)))
    return "\n".join(rows)


def _if_any(field: Field) -> str:
    default = _default(field)
    return f"; {default if field.required else f'else {default}'}" if default else ""


def verbs(group: str) -> str:
    """Every verb of a group."""
    inherited = frozenset(field.name for field in fields_of(AskVerb))
    return _table("verb", GROUPS[group], inherited)


def facts() -> str:
    """Every fact."""
    return _table("fact", FACTS.values())


def slug(group: str) -> str:
    return group.split(",", maxsplit=1)[0].lower().replace(" ", "_")


RENDERED: dict[str, Callable[[], str]] = {
    "scenario": lambda: keys(Scenario),
    "hosts": lambda: keys(HostSpec),
    "guests": lambda: keys(GuestSpec),
    "facts": facts,
} | {f"verbs_{slug(group)}": (lambda group=group: verbs(group)) for group in GROUPS}
