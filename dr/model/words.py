"""How single values of scenarios and playbooks are written: times, names, choices, lists, and records made of these.

Here: from plain YAML values to Python and back, one class for each way of writing, and the sentence that says what is
allowed. Not here: which fields there are (`verbs`, `facts`, `language`), whether they make sense together (`check`).
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Map
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from dr.model.base import Record, changed
from dr.model.checks import Check
from dr.model.policy import After
from dr.model.spelling import AFTER_FORMS, CHECK_FORMS, after_of, after_text, check_of, check_text

Where = tuple[str | int, ...]  # the path to a value in the file: ("do", 3, "power_off")


def dotted(where: Where) -> str:
    """`hosts.kvm1.fencing[0].agent`."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


ALL = "all"
FEW = 20  # so many allowed words are listed even where the right one was guessed


class Problems:
    """Everything that is wrong with one scenario, each with its place in the file."""

    def __init__(self) -> None:
        self.found: list[tuple[Where, str]] = []

    def add(self, where: Where, message: str) -> None:
        self.found.append((where, message))

    def __bool__(self) -> bool:
        return bool(self.found)


def nearest(word: object, words: Iterable[str]) -> str:
    """`; did you mean fenced?`, or nothing."""
    close = difflib.get_close_matches(str(word).lower(), list(words), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def shown(value: Any) -> str:
    """A value as it stands in the file."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value[:60]}"'
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case int() if abs(value) > 1e60:
            return "a number beyond all bounds"  # Python refuses to print the longest
        case _:
            return str(value)


class Kind:
    """One way of writing a value."""

    means = ""  # what is allowed, as in "must be …"

    def read(self, value: Any, where: Where, problems: Problems) -> Any:
        """The value, or anything at all after a problem was added."""
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        """The plain value that `read` takes."""
        return value

    def wrong(self, value: Any, where: Where, problems: Problems, hint: str = "") -> None:
        problems.add(where, f"must be {self.means}, not {shown(value)}{hint}")


DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")


class Duration(Kind):
    """`5s`, `1m30s`, `250ms`, or a number of seconds."""

    means = "a time such as 5s, 1m30s or 250ms"

    def read(self, value: Any, where: Where, problems: Problems) -> float:
        seconds: float | None = None
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value) if abs(value) < 1e12 else None  # no float holds every integer
        elif isinstance(value, str) and value and (match := DURATION.fullmatch(value)):
            h, m, s, ms = (float(part or 0) for part in match.groups())
            seconds = h * 3600 + m * 60 + s + ms / 1000
        if seconds is None or not 0 <= seconds <= 864_000:
            negative = (isinstance(value, str) and value.startswith("-")) or (
                seconds is not None and seconds < 0
            )
            self.wrong(value, where, problems, "; time does not run backwards" if negative else "")
            return 0.0
        return seconds

    def write(self, value: float) -> str:
        if value >= 120 and not value % 60:
            hours, minutes = divmod(round(value / 60), 60)
            return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
        return f"{value:.6f}".rstrip("0").rstrip(".") + "s"


ANY = -1_000_000  # priorities may be below zero


class Whole(Kind):
    """A whole number."""

    def __init__(self, least: int = 0) -> None:
        self.least = least
        self.means = "a whole number" if least == ANY else f"a whole number, at least {least}"

    def read(self, value: Any, where: Where, problems: Problems) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < self.least:
            self.wrong(value, where, problems)
            return self.least
        return value


SIZE = re.compile(r"(\d{1,9})(MiB|GiB|TiB)")


class Size(Kind):
    """`512MiB`, `8GiB`, `1TiB`; in MiB."""

    means = "a size such as 512MiB, 8GiB or 1TiB"
    UNITS: ClassVar = {"TiB": 2**20, "GiB": 2**10, "MiB": 1}

    def read(self, value: Any, where: Where, problems: Problems) -> int:
        match = SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            self.wrong(value, where, problems)
            return 0
        return int(match[1]) * self.UNITS[match[2]]

    def write(self, value: int) -> str:
        unit = next(unit for unit, mib in self.UNITS.items() if not value % mib)
        return f"{value // self.UNITS[unit]}{unit}" if value else "0MiB"


class Number(Kind):
    means = "a number, at least 0"

    def read(self, value: Any, where: Where, problems: Problems) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
            self.wrong(value, where, problems)
            return 0.0
        return float(value)


class Flag(Kind):
    means = "true or false"

    def read(self, value: Any, where: Where, problems: Problems) -> bool:
        if not isinstance(value, bool):
            hint = "; YAML 1.2 knows true and false only" if value in ("yes", "no", "on", "off") else ""
            self.wrong(value, where, problems, hint)
            return False
        return value


class Text(Kind):
    """Nothing but spaces says nothing, unless `empty`."""

    means = "text"

    def __init__(self, *, empty: bool = False) -> None:
        self.empty = empty

    def read(self, value: Any, where: Where, problems: Problems) -> str:
        if not isinstance(value, str) or not (self.empty or value.strip()):
            hint = "; put it in quotes" if isinstance(value, int | float) else ""
            self.wrong(value, where, problems, hint)
            return ""
        return value


class Word(Kind):
    """One of a few words."""

    def __init__(self, words: Iterable[str], of: type[StrEnum] | None = None) -> None:
        self.words = tuple(words)
        self.of = of
        self.means = f"one of {', '.join(self.words)}"

    def read(self, value: Any, where: Where, problems: Problems) -> Any:
        if value not in self.words:
            self.wrong(value, where, problems, nearest(value, self.words))
            value = self.words[0]
        return self.of(value) if self.of else value

    def write(self, value: Any) -> Any:
        return str(value)


NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class Name(Kind):
    """The name of a host or a guest. `new`: it comes into being here. `also`: other words that may stand here."""

    def __init__(self, of: str, *, new: bool = False, also: tuple[str, ...] = ()) -> None:
        self.of = of
        self.new = new
        self.also = also
        self.means = " or ".join([f"{'a new' if new else 'the name of a'} {of}", *also])

    def read(self, value: Any, where: Where, problems: Problems) -> str:
        if isinstance(value, str) and NAME.fullmatch(value) and (value != ALL or ALL in self.also):
            return value
        hint = "; put it in quotes" if isinstance(value, int | float) else ""
        if isinstance(value, list) and len(value) > 1:
            hint = f"; only one {self.of} can stand here"
        self.wrong(value, where, problems, hint)
        return ""


class Many(Kind):
    """One, or a list of several."""

    def __init__(self, each: Kind, least: int = 1) -> None:
        self.each = each
        self.least = least
        self.means = f"{each.means}, or a list of them" if least == 1 else f"a list of {least} or more"

    def read(self, value: Any, where: Where, problems: Problems) -> tuple[Any, ...]:
        if not isinstance(value, list):
            one = (self.each.read(value, where, problems),)
            if self.least > 1:
                self.wrong(value, where, problems)
            return one
        if len(value) < self.least:
            self.wrong(value, where, problems, " that is empty" if not value else " that is too short")
        found = [self.each.read(item, (*where, at), problems) for at, item in enumerate(value)]
        for at, item in enumerate(found):
            if isinstance(item, str) and item in found[:at]:
                problems.add((*where, at), f"{item} is named twice")
        return tuple(found)

    def write(self, value: Any) -> Any:
        plain = [self.each.write(item) for item in value]
        return plain[0] if len(plain) == 1 and self.least == 1 and not isinstance(plain[0], list) else plain


class Mapping(Kind):
    """Free keys, values of one kind."""

    def __init__(self, each: Kind) -> None:
        self.each = each
        self.means = f"a mapping of names to {each.means}"

    def read(self, value: Any, where: Where, problems: Problems) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.wrong(value, where, problems)
            return {}
        return {key: self.each.read(item, (*where, key), problems) for key, item in value.items()}

    def write(self, value: Any) -> Any:
        return {key: self.each.write(item) for key, item in value.items()}


class Spelled(Kind):
    """A value that people write as one text, as in the configuration."""

    def __init__(self, read: Callable[[str], Any], text: Callable[[Any], str], means: str) -> None:
        self._read, self._text = read, text
        self.means = means.removeprefix("must be ")

    def read(self, value: Any, where: Where, problems: Problems) -> Any:
        try:
            return self._read(str(value))
        except ValueError as error:
            problems.add(where, f"{error}, not {shown(value)}")
            return None

    def write(self, value: Any) -> Any:
        return self._text(value)


SPELLED: dict[Any, Kind] = {
    Check: Spelled(check_of, check_text, CHECK_FORMS),
    After: Spelled(after_of, after_text, AFTER_FORMS),
}


class Field(typing.NamedTuple):
    """One field of a record as it is written."""

    name: str
    key: str  # as in the file: a Python keyword has a trailing underscore there
    kind: Kind
    default: Any
    required: bool
    says: str  # for the documentation


class Nested(Kind):
    """A record as a mapping of its fields. `base`: what the fields are that are not named."""

    means = "a mapping of keys and values"

    def __init__(self, record: type[Record], base: Record | None = None) -> None:
        self.record = record
        self.base = base

    def read(self, value: Any, where: Where, problems: Problems) -> Any:
        if not isinstance(value, dict):
            self.wrong(value, where, problems)
            value = {}
        found = read_fields(self.record, value, where, problems)
        if self.base is None or found is None:
            return found
        given = {
            field.name: getattr(found, field.name) for field in fields_of(self.record) if field.key in value
        }
        return changed(self.base, **given)

    def write(self, value: Any) -> Any:
        return write_fields(value, base=self.base)


def kind_of(hint: Any, name: str = "") -> Kind:  # one line for each way of writing
    """How a field of that type is written."""
    if hint in SPELLED:
        return SPELLED[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        own = [each for each in arguments[1:] if isinstance(each, Kind)]
        return own[-1] if own else kind_of(arguments[0], name)
    if origin in (typing.Union, types.UnionType):
        some = [each for each in arguments if each is not types.NoneType]
        assert len(some) == 1, f"{name}: how is {hint} written?"
        return kind_of(some[0], name)  # None is what stands for a field that is not named
    if origin is Literal:
        return Word(arguments)
    if origin is tuple:
        return Many(kind_of(arguments[0], name))
    if origin is dict:
        return Mapping(kind_of(arguments[1], name))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return Word([str(each.value) for each in hint], hint)
    if isinstance(hint, type) and issubclass(hint, Record):
        return Nested(hint)
    if hint is float and name.endswith("_s"):
        return Duration()
    least = ANY if name in ("priority", "hosts") else 0
    simple: dict[Any, Kind] = {float: Number(), int: Whole(least), bool: Flag(), str: Text()}
    return simple[hint]


_fields: dict[type[Record], tuple[Field, ...]] = {}


def fields_of(record: type[Record]) -> tuple[Field, ...]:
    """The fields of a record, in their order."""
    if record not in _fields:
        hints = typing.get_type_hints(record, include_extras=True)
        own = list(record.__annotations__)  # before those of its base: the first names a verb or a fact
        known_fields = msgspec.structs.fields(typing.cast(Any, record))
        found = []
        for known in sorted(
            known_fields, key=lambda each: own.index(each.name) if each.name in own else len(own)
        ):
            hint = hints[known.name]
            says = [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, str)]
            factory = known.default_factory
            default = factory() if factory is not msgspec.NODEFAULT else known.default
            found.append(
                Field(
                    known.name,
                    known.name.rstrip("_"),
                    kind_of(hint, known.name),
                    default,
                    default is msgspec.NODEFAULT,
                    says[-1] if says else "",
                )
            )
        _fields[record] = tuple(found)
    return _fields[record]


def read_fields(
    record: type[Record],
    data: dict[str, Any],
    where: Where,
    problems: Problems,
    also: Iterable[str] = (),
    *,
    partly: bool = False,
) -> Any:
    """A record from a mapping; None after a problem. `also`: keys that somebody else reads.

    `partly`: a record even then, unless something required is missing, so that more problems can be found in it.
    """
    fields = fields_of(record)
    keys = [field.key for field in fields]
    before, missing = len(problems.found), False
    for key in data:
        if key not in keys and key not in also:
            unknown_key(key, [*keys, *also], where, problems)
    values: dict[str, Any] = {}
    for field in fields:
        if field.key in data:
            found = field.kind.read(data[field.key], (*where, field.key), problems)
            if found is not None or field.required:
                values[field.name] = found
        elif field.required:
            problems.add((*where, field.key), f"is required: {field.kind.means}")
            missing = True
    return None if missing or (len(problems.found) > before and not partly) else record(**values)


def unknown_key(key: str, allowed: list[str], where: Where, problems: Problems) -> None:
    hint = nearest(key, allowed)
    if not hint or len(allowed) <= FEW:
        hint += f"{' A' if hint else '; a'}llowed here: {', '.join(allowed)}"
    problems.add((*where, key), f"unknown key{hint}")


def write_fields(record: Record, base: Record | None = None) -> dict[str, Any]:
    """The mapping that `read_fields` takes; what is as by default, or as in `base`, is left out."""
    written = {}
    for field in fields_of(type(record)):
        value = getattr(record, field.name)
        default = field.default if base is None else getattr(base, field.name)
        if field.required or value != default:
            written[field.key] = field.kind.write(value)
    return written


def written(plain: Any) -> str:
    """Plain values in one line, as a scenario writes them."""
    if isinstance(plain, dict):
        return "{" + ", ".join(f"{key}: {written(value)}" for key, value in plain.items()) + "}"
    if isinstance(plain, list):
        return "[" + ", ".join(written(value) for value in plain) + "]"
    return str(plain).lower() if isinstance(plain, bool) else str(plain)


class OneOf(Kind):
    """Records of several types: the key that stands first in each type tells which one is meant."""

    def __init__(self, types_: Map[str, type[Record]], what: str) -> None:
        self.types = types_
        self.what = what
        self.means = f"a mapping with one of {', '.join(types_)}"

    def read(self, value: Any, where: Where, problems: Problems, also: Iterable[str] = ()) -> Any:
        if not isinstance(value, dict):
            hint = f"; write {{{value}: …}}" if isinstance(value, str) and value in self.types else ""
            problems.add(
                where, f"must be a mapping such as {{{next(iter(self.types))}: …}}, not {shown(value)}{hint}"
            )
            return None
        named = [key for key in value if key in self.types]
        if len(named) == 1:
            return read_fields(self.types[named[0]], value, where, problems, also)
        if named:
            problems.add((*where, named[1]), f"one {self.what} in each entry: {named[0]} stands here already")
            return None
        for key in value:
            if key not in also:
                unknown_key(key, [*self.types, *also], where, problems)
        if not set(value) - set(also):
            problems.add(where, f"no {self.what} is named; one of {', '.join(self.types)}")
        return None

    def write(self, value: Any) -> Any:
        return write_fields(value)


# ---- the kinds that scenarios use by name

TIME = Duration()
Mib = Annotated[int, Size()]
Seconds = Annotated[float, TIME]
Count = Annotated[int, Whole(1)]
HostRef = Annotated[str, Name("host")]
GuestRef = Annotated[str, Name("guest")]
NewHost = Annotated[str, Name("host", new=True)]
NewGuest = Annotated[str, Name("guest", new=True)]
Hosts = Annotated[tuple[str, ...], Many(Name("host", also=(ALL,)))]
Guests = Annotated[tuple[str, ...], Many(Name("guest", also=(ALL,)))]
SomeGuests = Annotated[tuple[str, ...], Many(Name("guest"), least=2)]
End = Annotated[str, Name("host", also=("coordinator",))]
