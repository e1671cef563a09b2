"""`dr playbook`: what a team does in a case, kept as files. Looking at them needs no coordinator.

Not here: running one (`playbook_run`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dr.cli import playbook_run
from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import Column, Form, Output, facts, plain, table

if TYPE_CHECKING:
    from dr.cli.playbook_file import PlaybookFile, Shelved
    from dr.cli.yamlfile import BadFile
    from dr.model.playbooks import EachSpec, Parameter, Playbook, StepSpec
    from dr.model.words import Where

app = typer.Typer(help="Playbooks: what is done in a case, step by step.", no_args_is_help=True)
app.command("run")(playbook_run.run)

PROBLEMS_SHOWN = 50
TODO = "correct it; the language is explained in docs/playbooks.md, and `dr playbook schema` helps an editor"


# ---- validate


@app.command()
def validate(
    *,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Playbooks.")],
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", help="Do not ask the coordinator whether hosts, guests and commands are there."
        ),
    ] = False,
) -> None:
    """Say everything that is wrong with playbooks; exit code 78 if anything is. Nothing is done.

    Names and labels of hosts and guests, and commands, are looked up, if a coordinator answers.
    """
    from dr.cli.playbook_file import opened
    from dr.cli.yamlfile import BadFile

    good: list[PlaybookFile] = []
    bad: list[BadFile] = []
    for file in files:
        try:
            good.append(opened(file))
        except BadFile as error:
            bad.append(error)
    names = _fleet(offline=offline) if good else Fleet()
    for each in good:
        if unknown := names.unknown_of(each.playbook):
            bad.append(each.bad(unknown))
        else:
            tell(f"{each.document.file}: good ({_counted(each.playbook)}; {names.told})")
    if bad:
        raise _unusable(bad, len(files))


@dataclass(frozen=True)
class Fleet:
    """Labels of hosts and protected guests by name, and parameters of commands, if a coordinator told them; and what is
    to be said of that."""

    hosts: dict[str, dict[str, str]] | None = None
    guests: dict[str, dict[str, str]] | None = None
    commands: dict[str, tuple[str, ...]] = field(default_factory=dict)
    told: str = ""

    def unknown_of(self, playbook: Playbook) -> list[tuple[Where, str]]:
        from dr.core.playbooks.check import unknown_of

        if self.hosts is None or self.guests is None:
            return []
        return unknown_of(playbook, self.hosts, self.guests, {}, self.commands)


def _fleet(*, offline: bool) -> Fleet:
    from dr.api.run_schema import CommandList
    from dr.api.schema import GuestList, HostList
    from dr.cli.client import connect

    if offline:
        return Fleet(told="checked without the fleet")
    try:
        api = connect()
        hosts = {host.name: host.labels for host in api.get("/v1/hosts", HostList).items}
        guests = {
            guest.name: guest.labels for guest in api.get("/v1/guests", GuestList).items if guest.protected
        }
        commands = {each.name: tuple(each.params) for each in api.get("/v1/commands", CommandList).items}
    except Failure as failure:
        return Fleet(told=f"checked without the fleet: {failure.what.rstrip('.')}")
    return Fleet(
        hosts, guests, commands, f"checked against the fleet of {len(hosts)} hosts and {len(guests)} guests"
    )


def _counted(playbook: Playbook) -> str:
    from dr.model.playbooks import StepSpec

    entries = (*playbook.steps, *playbook.finally_)
    steps = sum(1 if isinstance(each, StepSpec) else len(each.steps) for each in entries)
    return f"{playbook.playbook}, {_many(steps, 'step')}, {_many(len(playbook.params), 'parameter')}"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _unusable(bad: Sequence[BadFile], of: int) -> Failure:
    lines = [problem.text(each.file) for each in bad for problem in each.problems]
    more = len(lines) - PROBLEMS_SHOWN
    if more > 0:
        lines[PROBLEMS_SHOWN:] = [f"… and {more} more"]
    what = f"{bad[0].file} cannot be used." if of == 1 else f"{len(bad)} of {of} files cannot be used."
    return Failure(what, blockers=lines, todo=TODO, code=Exit.BAD_CONFIG)


# ---- list and show


def _parameters(row: Shelved) -> list[str]:
    """Those that need not be told in brackets."""
    params = row.playbook.params if row.playbook is not None else {}
    return [name if each.default is None else f"[{name}]" for name, each in params.items()]


def _description(row: Shelved) -> str:
    if row.built_in:
        return f"Built in, not to be run: {row.built_in}"
    if row.playbook is None:
        return f"cannot be used: dr playbook validate {row.path}"
    return " ".join(row.playbook.description.split())


COLUMNS: tuple[Column[Shelved], ...] = (
    Column("PLAYBOOK", lambda row: row.name),
    Column("PARAMETERS", lambda row: ", ".join(_parameters(row))),
    Column("DESCRIPTION", _description),
    Column("FILE", lambda row: "" if row.built_in else str(row.path), wide=True),
)


@app.command("list")
def list_(form: Output = Form.TABLE) -> None:
    """Playbooks that ship with dr, the team's own in /etc/dr/playbooks, and the failover that is built in."""
    from dr.cli.playbook_builtin import listed
    from dr.cli.playbook_file import shelved

    rows = sorted([*shelved(), listed()], key=lambda each: each.name)
    match form:
        case Form.JSON | Form.YAML:
            plain({"version": 1, "kind": "playbooks", "items": [_item(row) for row in rows]}, form)
        case Form.NAME:
            for row in rows:
                print(row.name)
        case Form.TABLE | Form.WIDE:
            table(rows, COLUMNS, wide=form is Form.WIDE)


def _item(row: Shelved) -> dict[str, Any]:
    from dr.model.words import write_fields

    params = row.playbook.params if row.playbook is not None else {}
    return {
        "name": row.name,
        "file": "" if row.built_in else str(row.path),
        "built_in": bool(row.built_in),
        "usable": row.playbook is not None,
        "description": row.playbook.description if row.playbook is not None else row.built_in,
        "params": {name: write_fields(each) for name, each in params.items()},
    }


@app.command()
def show(
    playbook: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="One of `dr playbook list`, or a file.")
    ],
    form: Output = Form.TABLE,
) -> None:
    """A playbook as it is understood: what a run is told, and every step with what follows if it fails.

    `failover` is built in: its steps, by the configuration in force, and the hooks around it.
    """
    from dr.cli import playbook_builtin
    from dr.core.playbooks.builtin import NAME
    from dr.model.words import write_fields

    if playbook == NAME:
        playbook_builtin.show(form)
        return
    found, file = chosen(playbook)
    match form:
        case Form.JSON | Form.YAML:
            document = {"version": 1, "kind": "playbook", "file": file, "playbook": write_fields(found)}
            plain(document, form)
        case Form.NAME:
            print(found.playbook)
        case Form.TABLE | Form.WIDE:
            facts(_told(found, file))


def chosen(name: str) -> tuple[Playbook, str]:
    """The playbook of that name, or in that file; and its file. Raises Failure."""
    from dr.cli.playbook_file import is_file, load, shelved
    from dr.cli.yamlfile import BadFile
    from dr.core.playbooks.builtin import NAME
    from dr.model.words import nearest

    if name == NAME:
        raise Failure(
            f"{NAME} is built in: it is done by itself when a host is lost.",
            todo=f"dr playbook show {NAME}; to take a host away by hand: dr host fence HOST",
            code=Exit.USAGE,
        )
    path = Path(name)
    if not is_file(name):
        known = {row.name: row.path for row in shelved()}
        if name not in known:
            raise Failure(
                f"No playbook is named {name}{nearest(name, known)}",
                todo="dr playbook list",
                code=Exit.MISSING,
            )
        path = known[name]
    try:
        return load(path), str(path)
    except BadFile as error:
        raise _unusable([error], 1) from None


def _told(playbook: Playbook, file: str) -> list[tuple[str, str]]:
    from dr.model.words import TIME, write_fields, written

    limit, rto = playbook.limits.timeout, playbook.objectives.rto
    targets = write_fields(playbook.targets)
    return [
        ("playbook", playbook.playbook),
        ("kind", "drill: of clones, no guest is touched" if playbook.kind == "drill" else ""),
        ("file", file),
        ("description", playbook.description.strip()),
        ("parameters", "\n".join(_parameter(name, each) for name, each in playbook.params.items())),
        ("targets", "\n".join(f"{key}: {written(value)}" for key, value in targets.items())),
        ("bubble", "\n".join(f"{key}: {value}" for key, value in write_fields(playbook.bubble).items())),
        ("objective", f"over within {TIME.write(rto)}" if rto else ""),
        ("limit", f"{TIME.write(limit)} for the whole run" if limit else ""),
        ("requires", "\n".join(each.text() for each in playbook.require)),
        ("steps", "\n".join(_entries(playbook.steps))),
        ("finally", "\n".join(_entries(playbook.finally_))),
    ]


def _parameter(name: str, parameter: Parameter) -> str:
    told = "must be told" if parameter.default is None else f"else {parameter.default}"
    return f"{name} ({parameter.is_}, {told}){': ' if parameter.says else ''}{parameter.says}"


def _entries(entries: Sequence[StepSpec | EachSpec]) -> list[str]:
    from dr.model.playbooks import EachSpec

    lines = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, EachSpec):
            lines += _step(f"{number}. ", entry)
            continue
        of, names = ("host", entry.each_host) if entry.each_host else ("guest", entry.each_guest)
        lines.append(f"{number}. for each {of} of {', '.join(names)}, one after the other:")
        for inner, step in enumerate(entry.steps, start=1):
            lines += _step(f"   {number}.{inner} ", step)
    return lines


def _step(number: str, step: StepSpec) -> list[str]:
    """The verb as it is written, and below it what else is said of the step."""
    from dr.model.words import write_fields, written

    beside = write_fields(step)
    del beside["verb"]
    name = beside.pop("name", "")
    told = f"{name}: {step.verb.text()}" if name else step.verb.text()
    return [f"{number}{told}"] + [
        f"{'':<{len(number)}}{key}: {written(value)}" for key, value in beside.items()
    ]


@app.command()
def schema() -> None:
    """Print the language as a JSON Schema, for editors: keys, words and forms of values."""
    from dr.core.playbooks.schema import schema as made

    print(json.dumps(made(), ensure_ascii=False, indent=2))
