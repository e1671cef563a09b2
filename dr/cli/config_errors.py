"""What is wrong with the coordinator's file, as sentences: line, field, what is allowed, the nearest right word."""

from __future__ import annotations

import difflib
import re
import types
import typing
from typing import Annotated, Any

from pydantic import BaseModel

from dr.adapters.fencing.parameters import is_secret
from dr.cli.config_schema import FileSection
from dr.cli.yamlfile import Document, Path_, Problem
from dr.model.words import dotted


def _shown(document: Document, path: Path_) -> Path_:
    """The path as its author wrote it: parts that only the schema knows are left out, except the last."""
    found: Path_ = ()
    for part in path:
        if (*found, part) in document.lines:
            found = (*found, part)
    rest = path[-1:] if path and found[-1:] != path[-1:] else ()
    return found + tuple(part for part in rest if isinstance(part, str))


def at(document: Document, path: Path_, message: str) -> Problem:
    return Problem(document.line(path), dotted(_shown(document, path)), message)


_TYPES = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping of keys and values",
    "model_type": "a mapping of keys and values",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def explain(document: Document, error: Any, shape: type[BaseModel] = FileSection) -> Problem:
    """One error of pydantic as a sentence with what is allowed. `shape`: what the whole file should be."""
    kind: str = error["type"]
    path: Path_ = tuple(part for part in error["loc"] if part != "[key]")
    given, context = error["input"], error.get("ctx", {})
    shown = "" if path and is_secret(str(path[-1])) else f", not {_quote(given)}"
    match kind:
        case "extra_forbidden":
            keys = _keys_at(path[:-1], shape)
            nearest = difflib.get_close_matches(str(path[-1]), keys, n=1, cutoff=0.6)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            message = f"unknown key{hint} Allowed here: {', '.join(keys)}"
            return at(document, path, message if nearest else message.replace(" Allowed", "; allowed", 1))
        case "missing":
            return at(document, path, "is required")
        case "literal_error" | "enum":
            return at(
                document,
                path,
                f"must be one of {context['expected']}{shown}{_nearest(given, context['expected'])}",
            )
        case "string_pattern_mismatch":
            return at(document, path, f"{_PATTERNS[context['pattern']]}{shown}")
        case "too_long":
            return at(document, path, f"at most {context['max_length']} may stand here")
        case "too_short":
            return at(document, path, "must not be empty")
        case "value_error":
            return at(document, path, f"{context['error']}{shown}")
        case _:
            pass
    if kind in _TYPES:
        return at(document, path, f"must be {_TYPES[kind]}{shown}{_quote_hint(kind, given)}")
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return at(document, path, f"must be {words} {context[key]:g}{shown}")
    return at(document, path, f"{error['msg']}{shown}")


_PATTERNS = {
    r"^fence_[a-z0-9_]+$": "must be the name of a fence agent, as in fence_ipmilan",
    r"^https?://\S+$": "must be an http:// or https:// address",
    r"^[a-z_][a-z0-9_-]{0,31}$": "must be the name of a user",
    r"^/": "must be a whole path that starts with /",
}


def _nearest(given: object, expected: str) -> str:
    words = re.findall(r"'([^']*)'", expected)
    nearest = difflib.get_close_matches(str(given).lower(), words, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _quote_hint(kind: str, given: object) -> str:
    if kind == "string_type" and isinstance(given, int | float):
        return "; put it in quotes"
    if kind == "bool_type" and str(given).lower() in ("yes", "on", "off", "no"):
        return "; YAML 1.2 knows true and false only"
    return ""


def _quote(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value[:60]}"'
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)


def _keys_at(path: Path_, shape: type[BaseModel]) -> list[str]:
    """Keys that the schema allows in the mapping at `path`."""
    here: Any = shape
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            if part not in here.model_fields:
                return []
            here = here.model_fields[str(part)].annotation
        else:
            here = typing.get_args(here)[-1]
        while typing.get_origin(here) in (Annotated, typing.Union, types.UnionType):
            here = typing.get_args(here)[0]
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []
