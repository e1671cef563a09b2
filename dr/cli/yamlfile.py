"""Read one YAML file into plain values that remember their line.

Here: reading, YAML 1.2 scalars (`off` is a word, not False), duplicate keys refused, merge keys (`<<`), positions.
Not here: what the values should be (`config`, `agent_config`). Loaded by the agent too, so no pydantic.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scanner import Scanner, ScannerError

from dr.model.words import dotted

DEPTH_MAX = 32
BYTES_MAX = 8 * 1024 * 1024
VALUES_MAX = 200_000  # aliases are copied out: a few short lines could otherwise ask for all memory
INTEGER_MAX = 100  # characters; more is a word, as sums with it overflow and printing it is refused by Python
FIELD_SHOWN, MESSAGE_SHOWN = 200, 1000  # characters of what a file may have written itself

TOO_DEEP = "nested too deeply, or an alias that contains itself"

TAGS = {"map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge"}

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with a file. `line` 0: the file as a whole."""

    line: int
    field: str
    message: str

    def text(self, file: str) -> str:
        where = f"{file}:{self.line}" if self.line else file
        message = in_line(self.message, MESSAGE_SHOWN)
        return (
            f"{where}: {in_line(self.field, FIELD_SHOWN)}: {message}" if self.field else f"{where}: {message}"
        )


def in_line(text: str, most: int) -> str:
    """What a file says, so that a terminal shows it in one line: no control characters, not for ever."""
    text = text if len(text) <= most else f"{text[:most]}…"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class BadFile(Exception):
    """A file that cannot be used; `problems` are all that was found, in the file's order."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = sorted(problems)
        super().__init__("\n".join(problem.text(file) for problem in self.problems))


@dataclass
class Document:
    """The plain values of one file, and where each of them stood."""

    file: str
    data: Any
    lines: dict[Path_, int] = field(default_factory=dict)
    world_readable: bool = False

    def line(self, path: Path_) -> int:
        """Line of a field, or of the nearest thing around it. Parts that only a schema knows are passed over."""
        found: Path_ = ()
        for part in path:
            if (*found, part) in self.lines:
                found = (*found, part)
        return self.lines.get(found, 1)


def read(path: Path, *, bytes_max: int = BYTES_MAX, values_max: int = VALUES_MAX) -> Document:
    """Raises BadFile: unreadable, too large, not YAML, duplicate keys."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(bytes_max + 1)
            mode = path.stat().st_mode
    except FileNotFoundError:
        raise BadFile(file, [Problem(0, "", "no such file")]) from None
    except OSError as error:
        raise BadFile(file, [Problem(0, "", f"cannot be read: {error.strerror}")]) from None
    if len(raw) > bytes_max:
        raise BadFile(file, [Problem(0, "", f"larger than {bytes_max} bytes")])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadFile(file, [Problem(line, "", "not UTF-8 text")]) from None
    document = parse(text, file, values_max=values_max)
    document.world_readable = bool(mode & stat.S_IROTH)
    return document


HINTS = {  # by what is in the parser's own words
    "'\\t'": "a tab: YAML is indented with spaces",
    "undefined alias": "what begins with a star needs quotes",
    "alphabetic or numeric": "what begins with a star, or an &, needs quotes",
    "but got '{'": "`${…}` inside of { } or [ ] needs quotes",
}


def parse(text: str, file: str, *, values_max: int = VALUES_MAX) -> Document:
    """Raises BadFile."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _Scanner
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "not YAML"
        hint = next((f" ({hint})" for sign, hint in HINTS.items() if sign in str(what)), "")
        raise BadFile(file, [Problem(mark.line + 1 if mark else 0, "", f"{what}{hint}")]) from None
    except YAMLError as error:
        raise BadFile(file, [Problem(0, "", str(error).splitlines()[0])]) from None
    except RecursionError:
        raise BadFile(file, [Problem(0, "", TOO_DEEP)]) from None
    except ValueError as error:
        raise BadFile(file, [Problem(0, "", f"not usable YAML: {error}")]) from None
    document = Document(file=file, data=None, lines={(): 1})
    builder = _Builder(document, values_max)
    document.data = None if root is None else builder.value(root, ())
    if builder.problems:
        raise BadFile(file, builder.problems)
    return document


class _Scanner(Scanner):
    """Stops where nobody can follow any more: what it does at each bracket grows with those that are open."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:
        self._not_too_deep()
        super().fetch_flow_collection_start(TokenClass, to_push)

    def add_indent(self, column: int) -> bool:
        self._not_too_deep()
        return super().add_indent(column)

    def _not_too_deep(self) -> None:
        if len(self.flow_context) + len(self.indents) > 2 * DEPTH_MAX:  # a list in a mapping may indent twice
            raise ScannerError(None, None, TOO_DEEP, self.reader.get_mark())


class _Builder:
    """Turns nodes into values, noting lines and collecting problems."""

    def __init__(self, document: Document, values_max: int) -> None:
        self.document = document
        self.values_max = values_max
        self.problems: list[Problem] = []
        self.count = 0

    def problem(self, node: Node, path: Path_, message: str) -> None:
        self.problems.append(Problem(node.start_mark.line + 1, dotted(path), message))

    def value(self, node: Node, path: Path_) -> Any:
        self.count += 1
        if len(path) > DEPTH_MAX or self.count > self.values_max:
            message = TOO_DEEP if len(path) > DEPTH_MAX else f"more than {self.values_max} values"
            self.problem(node, path[:4], message)
            raise BadFile(self.document.file, self.problems)
        if str(node.tag).removeprefix("tag:yaml.org,2002:") not in TAGS:
            self.problem(node, path, f"YAML tags such as {node.tag} have no meaning here")
            return None
        if isinstance(node, MappingNode):
            return self.mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.item(child, (*path, index)) for index, child in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return self.scalar(node, path)

    def item(self, node: Node, path: Path_) -> Any:
        self.document.lines.setdefault(path, node.start_mark.line + 1)
        return self.value(node, path)

    def mapping(self, node: MappingNode, path: Path_) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag.endswith(":merge"):
                merged = self.merge(value_node, path) | merged
                continue
            if not isinstance(key_node, ScalarNode):
                self.problem(key_node, path, "a key must be a word")
                continue
            key = str(key_node.value)
            here = (*path, key)
            if key in seen:
                self.problem(key_node, here, f"given twice, first on line {seen[key]}; keep one of them")
                continue
            seen[key] = line
            self.document.lines[here] = line
            own[key] = self.value(value_node, here)
        return merged | own

    def merge(self, node: Node, path: Path_) -> dict[str, Any]:
        nodes = node.value if isinstance(node, SequenceNode) else [node]
        result: dict[str, Any] = {}
        for each in nodes:
            if not isinstance(each, MappingNode):
                self.problem(each, path, "`<<` takes a mapping, as in `<<: *name`")
                continue
            inner = self.value(each, path)
            result = (inner or {}) | result
        return result

    def scalar(self, node: ScalarNode, path: Path_) -> Any:
        text: str = node.value
        kind = str(node.tag).rpartition(":")[2]
        plain = text.replace("_", "")
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true" if text.lower() in ("true", "false") else text
                case "int" if len(text) <= INTEGER_MAX:
                    return int(plain, 0) if plain.lstrip("+-")[:2].lower() in ("0x", "0o") else int(plain)
                case "float":
                    return float(plain.lower().replace(".inf", "inf").replace(".nan", "nan"))
                case _:
                    pass
        except ValueError:
            return text
        return text
