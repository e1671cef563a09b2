"""The language of playbooks as a JSON Schema (draft 2020-12), for editors: `dr playbook schema` prints it.

Made from the records, so it knows every key, word and pattern; what parts mean together only `check` knows.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping as Map
from typing import Any

from dr.model.base import Record
from dr.model.conditions import LABEL, PARAMETER, Chosen, Reference
from dr.model.playbooks import EachSpec, EntryKind, OwnAddress, OwnName, Playbook, StepKind, StepSpec
from dr.model.verbs import VERB, VERBS, Undo
from dr.model.words import (
    DURATION,
    NAME,
    SIZE,
    Duration,
    Field,
    Flag,
    Kind,
    Many,
    Mapping,
    Name,
    Nested,
    OneOf,
    Size,
    Text,
    Whole,
    Word,
    fields_of,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

_PARTLY = rf"(?:{PARAMETER.pattern}|[A-Za-z0-9._-])+"  # a name with parameters in it


def schema() -> Schema:
    """The whole of it."""
    defs: dict[str, Schema] = {}
    whole = _record(Playbook, defs)
    return {"$schema": DIALECT, "title": "dr playbook", **whole, "$defs": dict(sorted(defs.items()))}


def _record(record: type[Record], defs: dict[str, Schema], beside: Map[str, Schema] | None = None) -> Schema:
    """`beside`: keys that stand in the same mapping."""
    fields = fields_of(record)
    return {
        "type": "object",
        "description": " ".join(inspect.cleandoc(record.__doc__ or "").split()),
        "properties": {field.key: _field(field, defs) for field in fields} | dict(beside or {}),
        "required": [field.key for field in fields if field.required],
        "additionalProperties": False,
    }


def _field(field: Field, defs: dict[str, Schema]) -> Schema:
    found = _kind(field.kind, defs) | {"description": field.says or field.kind.means}
    plain = not field.required and isinstance(field.default, str | int | float)
    return found | ({"default": field.kind.write(field.default)} if plain and field.default != "" else {})


def _kind(kind: Kind, defs: dict[str, Schema]) -> Schema:  # noqa: PLR0911, PLR0912  # one case for each way of writing
    match kind:
        case Duration():
            return {"anyOf": [{"type": "number", "minimum": 0}, _text(rf"(?=.){DURATION.pattern}")]}
        case Whole():
            return {"type": "integer", "minimum": kind.least}
        case Size():
            return _text(SIZE.pattern)
        case OwnAddress():
            return _text(rf"[0-9A-Fa-f.:]+/[0-9]{{1,3}}|{PARAMETER.pattern}")
        case Flag():
            return {"type": "boolean"}
        case Word():
            return {"enum": list(kind.words)}
        case Text():
            return {"type": "string", "pattern": r"\S"}
        case OwnName():
            return _text(NAME.pattern)
        case Reference():
            return _text(rf"{NAME.pattern}|{PARAMETER.pattern}")
        case Name():
            return _text(NAME.pattern)
        case Chosen():
            on = "(?:on:)?" if kind.of == "guest" else ""
            return _text(rf"{LABEL.pattern}|label:.*{PARAMETER.pattern}.*|{on}{_PARTLY}")
        case Many():
            each = _kind(kind.each, defs)
            return {"anyOf": [each, {"type": "array", "items": each, "minItems": 1}]}
        case Mapping():
            names = PARAMETER.pattern.removeprefix(r"\$\{").removesuffix(r"\}")
            each = _kind(kind.each, defs)
            return {"type": "object", "propertyNames": _text(names), "additionalProperties": each}
        case Nested():
            return _named(kind.record.__name__, _record(kind.record, defs), defs)
        case Undo():
            return {"anyOf": [{"enum": list(VERBS)}, _kind(VERB, defs)]}
        case OneOf():
            some = [_named(each.__name__, _record(each, defs), defs) for each in kind.types.values()]
            return _named(kind.what, {"anyOf": some}, defs)
        case StepKind():
            return _named("step", {"anyOf": _steps(defs)}, defs)
        case EntryKind():
            return {"anyOf": [*_steps(defs), *_eaches(defs)]}
        case _:
            raise AssertionError(f"how is {kind.means} written?")


def _steps(defs: dict[str, Schema]) -> list[Schema]:
    """A verb with the keys of a step beside it, for each verb."""
    beside = {field.key: _field(field, defs) for field in fields_of(StepSpec) if field.key != "verb"}
    return [_named(f"Step{each.__name__}", _record(each, defs, beside), defs) for each in VERBS.values()]


def _eaches(defs: dict[str, Schema]) -> list[Schema]:
    """One of the two keys that say of whom."""
    whole = _record(EachSpec, defs)
    both = ("each_host", "each_guest")
    found = []
    for one, other in (both, both[::-1]):
        properties = {key: value for key, value in whole["properties"].items() if key != other}
        found.append(
            _named(one, whole | {"properties": properties, "required": [one, *whole["required"]]}, defs)
        )
    return found


def _named(name: str, found: Schema, defs: dict[str, Schema]) -> Schema:
    """Once, however often it is used."""
    defs[name] = found
    return {"$ref": f"#/$defs/{name}"}


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}
