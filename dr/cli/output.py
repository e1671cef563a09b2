"""How answers look: tables, JSON, YAML, names on stdout; everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from dr.cli.failure import Exit, Failure, tell

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console
    from ruamel.yaml import YAML


class Form(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Color(StrEnum):
    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


Output = Annotated[Form, typer.Option("--output", "-o", help="How to print it.", show_choices=True)]

color = Color.AUTO  # --color

T = TypeVar("T")

GOOD, BAD, ODD, DIM = "green", "bold red", "yellow", "dim"
STYLES = {
    "online": GOOD, "running": GOOD, "proven": GOOD, "done": GOOD, "ok": GOOD, "yes": GOOD, "passed": GOOD,
    "suspect": BAD, "fencing": BAD, "fenced": BAD, "error": BAD, "critical": BAD, "failed": BAD, "none": BAD,
    "lost": BAD, "no": BAD, "unknown": ODD, "recovering": ODD, "starting": ODD, "returning": ODD, "joining": ODD,
    "protecting": ODD, "stopping": ODD, "unproven": ODD, "warn": ODD, "warning": ODD, "open": ODD,
    "stopped": DIM, "shutoff": DIM, "info": DIM,
}  # fmt: skip


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column of a table."""

    title: str
    value: Callable[[T], str]
    wide: bool = False
    styled: bool = False


def console(*, stderr: bool = False) -> Console:
    """A console that keeps to --color and NO_COLOR, and never cuts text that is not for a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    no_color = color is Color.NEVER or (color is Color.AUTO and bool(os.environ.get("NO_COLOR")))
    terminal = stream.isatty()
    return Console(
        stderr=stderr,
        no_color=no_color,
        force_terminal=True if color is Color.ALWAYS else None,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not terminal,
        width=None if terminal else 100_000,
    )


def table(rows: Sequence[T], columns: Iterable[Column[T]], *, wide: bool = False) -> None:
    """Aligned columns on stdout. On a terminal long text wraps; elsewhere each row stays one line."""
    shown = [column for column in columns if wide or not column.wide]
    cells = [[column.value(row) for column in shown] for row in rows]
    screen = console()
    if not screen.is_terminal:
        widths = [
            max(len(column.title), *(len(line[at]) for line in cells), 0) for at, column in enumerate(shown)
        ]
        for line in [[column.title for column in shown], *cells]:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for column in shown:
        grid.add_column(column.title, overflow="fold", no_wrap=column.styled)
    for line in cells:
        grid.add_row(
            *(
                Text(text, style=style_of(text) if column.styled else "")
                for text, column in zip(line, shown, strict=True)
            )
        )
    screen.print(grid)


def style_of(text: str) -> str:
    return STYLES.get(text.partition(",")[0].partition(" ")[0], "")


def line(text: str, style: str = "") -> None:
    """One line of data on stdout, coloured on a terminal."""
    console().print(text, style=style or None)


def document(answer: BaseModel, form: Form, *, one_line: bool = False) -> None:
    """The API's own document as JSON or YAML."""
    data = answer.model_dump(mode="json")
    plain(data, form, one_line=one_line)


def plain(data: Any, form: Form, *, one_line: bool = False) -> None:
    if form is Form.JSON:
        print(json.dumps(data, ensure_ascii=False, indent=None if one_line else 2), flush=True)
        return
    if one_line:
        print("---")
    yaml_writer().dump(data, sys.stdout)


def yaml_writer() -> YAML:
    """Of plain values, in their order."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # stubs say None
    yaml.allow_unicode = True
    yaml.width = 4096
    return yaml


def write_file(file: Path, data: bytes, *, replace: bool) -> None:
    """What a command makes for people: whole or not at all, and over another file only if told so. Raises Failure."""
    from dr.adapters.store.atomic import write_atomic, write_new

    try:
        (write_atomic if replace else write_new)(file, data, 0o644)
    except FileExistsError:
        raise Failure(
            f"{file} is there already; nothing was written.",
            todo="another name, or --replace",
            code=Exit.REFUSED,
        ) from None
    except OSError as error:
        raise Failure(f"{file} cannot be written.", why=str(error)) from None


def listing(
    answer: BaseModel,
    rows: Sequence[T],
    columns: Iterable[Column[T]],
    form: Form,
    *,
    name: Callable[[T], str],
    empty: str,
) -> None:
    """A list in whichever form was asked for."""
    match form:
        case Form.JSON | Form.YAML:
            document(answer, form)
        case Form.NAME:
            for row in rows:
                print(name(row))
        case Form.TABLE | Form.WIDE:
            if rows:
                table(rows, columns, wide=form is Form.WIDE)
            else:
                tell(empty)


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """`name: value` lines of one thing; empty values are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    screen = console()
    for name, value in shown:
        head, *rest = value.split("\n")
        if screen.is_terminal:
            screen.print(f"{name:<{width}}  ", end="", style="bold")
            screen.print(head, style=style_of(head) or None)
        else:
            print(f"{name:<{width}}  {head}")
        for more in rest:
            print(f"{'':<{width}}  {more}")


def age(seconds: float | None) -> str:
    """`12 s`, `3 min`, `5 h`, `2 d`."""
    if seconds is None:
        return "never"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def heard(seconds: float | None, connected: bool) -> str:
    """How old what is shown of a host is."""
    if seconds is None:
        return "not heard yet"
    if connected and seconds < 2:
        return "now"
    return f"{age(seconds)} ago"


def clock(wall: float, *, date: bool = True, parts: bool = True) -> str:
    """Local time, with milliseconds unless `parts` is False."""
    if not wall:
        return ""
    local = datetime.fromtimestamp(wall, UTC).astimezone()
    text = local.strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S")
    return f"{text}.{local.microsecond // 1000:03d}" if parts else text


def mib(size: int) -> str:
    if not size:
        return ""
    return f"{size / 1024:.1f} GiB" if size >= 10 * 1024 else f"{size} MiB"
