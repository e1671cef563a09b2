"""Records described as Markdown tables: the reference parts of docs/simulator.md and docs/playbooks.md.

Here: tables made from any records. Not here: which ones a page has (`sim.scenario.reference`,
`core.playbooks.reference`); `tests.test_docs` writes and compares them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

from dr.model.base import Record
from dr.model.conditions import Chosen
from dr.model.words import Duration, Field, Flag, Many, Name, OneOf, Whole, Word, fields_of, written


def row(*cells: str) -> str:
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


def keys(record: type[Record], but: str = "") -> str:
    """Every key of a record, but one."""
    rows = [row("key", "default", "what it is"), "|---|---|---|"]
    rows += [
        row(f"`{field.key}`", _default(field), _says(field))
        for field in fields_of(record)
        if field.key != but
    ]
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
    elif isinstance(kind, Chosen):
        value = f"{kind.of.upper()}S"
    elif isinstance(kind, OneOf):
        value = kind.what.upper()
    elif isinstance(kind, Duration):
        value = "TIME"
    else:
        value = "true | false" if isinstance(kind, Flag) else "N" if isinstance(kind, Whole) else "TEXT"
    return f"`{field.key}: {value}`"


def table(
    title: str,
    kinds: Iterable[type[Record]],
    inherited: frozenset[str] = frozenset(),
    more: Callable[[type[Record]], str] = lambda kind: "",
) -> str:
    """What one may be, by its first key. `more`: what else is to be told of one."""
    rows = [row(title, "what it is", "with"), "|---|---|---|"]
    for kind in kinds:
        first, *options = fields_of(kind)
        told = [
            f"`{each.key}`: {_says(each)}{_if_any(each)}" for each in options if each.name not in inherited
        ]
        told += [last] if (last := more(kind)) else []
        rows.append(row(_call(first), doc(kind), "<br>".join(told)))
    return "\n".join(rows)


def _if_any(field: Field) -> str:
    default = _default(field)
    return f"; {default if field.required else f'else {default}'}" if default else ""
