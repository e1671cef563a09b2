"""`dr sim run`: what this version does in a simulated world. Needs no cluster and touches none.

Here: the command and how results look. Not here: the language and its files (`scenario_file`), running (`dr.sim.run`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dr.cli import output
from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import BAD, DIM, GOOD, Form

if TYPE_CHECKING:
    from dr.sim.run import Result
    from dr.sim.scenario.language import Scenario
    from dr.sim.trace import Said

# What the timeline leaves out unless --trace is given: one line for each ticket that an agent takes, and the like.
FINE = frozenset({"ticket", "alert.cleared", "coordinator.refused"})


def run_(
    *,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Scenarios; docs/simulator.md explains them.")
    ],
    form: output.Output = Form.TABLE,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed than the scenario's own.")] = None,
    crash_at: Annotated[
        str,
        typer.Option(
            "--crash-at",
            metavar="POINT",
            help="Kill a process there, and compare the end: after-commit:N, before-effect:N, after-effect:N of the "
            "coordinator; after-write:HOST:N, after-answer:HOST:N of an agent.",
        ),
    ] = "",
    save: Annotated[
        Path | None,
        typer.Option(
            "--save", metavar="FOLDER", help="Save each decision that matters there, for dr sim replay."
        ),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show every line, tickets and proofs included.")
    ] = False,
) -> None:
    """Run scenarios: what happens, decision by decision with its reason, the end, and whether all was as expected.

    Exit code 0: as expected, and no promise was broken; 1: not so; 65: a file that is no scenario, or one that cannot
    mean anything. With several files and -o json, one object for each file, by its name.
    """
    scenarios = _load(files, seed)
    results = {
        file: _run(scenario, crash_at, save / file.stem if save is not None and len(files) > 1 else save)
        for file, scenario in scenarios.items()
    }
    if form in (Form.JSON, Form.YAML):
        plain = {str(file): result.plain() for file, result in results.items()}
        output.plain(next(iter(plain.values())) if len(plain) == 1 else plain, form)
    elif form is Form.NAME:
        for file, result in results.items():
            print(f"{file}" if result.ok else f"{file} failed")
    elif len(results) == 1:
        _show(next(iter(results.values())), whole=trace)
    else:
        _summary(results)
    failed = [str(file) for file, result in results.items() if not result.ok]
    if len(results) > 1 and form in (Form.TABLE, Form.WIDE):
        tell(f"{len(results) - len(failed)} of {len(results)} scenarios as expected")
    if failed:
        raise typer.Exit(Exit.FAILED)


def _run(scenario: Scenario, crash_at: str, save: Path | None) -> Result:
    """Raises Failure."""
    from dr.adapters.store.decisions import DecisionFiles
    from dr.sim.interrupt import BadPoint, Point, calm, interrupted
    from dr.sim.run import run
    from dr.sim.scenario.setting import CannotBegin
    from dr.sim.world import World

    def prepare(world: World) -> None:
        if save is not None:
            world.save = DecisionFiles(save).put

    try:
        if not crash_at:
            return run(scenario, prepare=prepare)
        point = Point.parse(crash_at)
        return interrupted(calm(scenario), point, prepare)
    except CannotBegin as error:
        raise Failure(f"{scenario.name}: {error}", code=Exit.BAD_DATA) from None
    except BadPoint as error:
        raise Failure(f"{error}.", code=Exit.USAGE) from None
    except OSError as error:
        raise Failure(f"{save} cannot be written.", why=str(error)) from None


def _load(files: list[Path], seed: int | None) -> dict[Path, Scenario]:
    from dr.cli.scenario_file import load
    from dr.cli.yamlfile import BadFile
    from dr.model.base import changed

    scenarios, bad = {}, []
    for file in files:
        try:
            scenario = load(file)
        except BadFile as error:
            bad.append(str(error))
        else:
            scenarios[file] = scenario if seed is None else changed(scenario, seed=seed)
    if bad:
        tell("\n".join(bad))
        raise Failure(
            "not a scenario" if len(bad) == 1 else f"{len(bad)} files are not scenarios",
            todo="docs/simulator.md lists every key and verb",
            code=Exit.BAD_DATA,
        )
    return scenarios


def _show(result: Result, *, whole: bool) -> None:
    """One scenario: the timeline, the end, each expectation."""
    scenario = result.scenario
    output.line(f"{scenario.name}: {scenario.shows}")
    output.line("")
    for said in result.trace:
        if whole or said.kind not in FINE:
            output.line(f"{said.t_s - result.begun_s:9.3f}  {said.text}", _style(said))
    end = result.plain()
    output.line("")
    _table(
        [{"name": name, **guest} for name, guest in end["guests"].items()],
        {"GUEST": "name", "PHASE": "phase", "HOST": "host", "RUNS ON": "running_on", "REASON": "reason"},
    )
    output.line("")
    _table(
        [{"name": name, **host} for name, host in end["hosts"].items()],
        {"HOST": "name", "PHASE": "phase", "CONDITIONS": "conditions", "REASON": "reason"},
    )
    output.line("")
    for check in result.checks:
        mark, style = ("✗", BAD) if check.instead else ("✓", GOOD)
        output.line(f"{mark} {check.text}{f': {check.instead}' if check.instead else ''}", style)
    told = {f"{check.text}: {check.instead}" for check in result.checks}
    for violation in result.violations:
        if not any(violation.endswith(text) for text in told):
            output.line(f"✗ {violation}", BAD)
    output.line("as expected" if result.ok else "NOT as expected", GOOD if result.ok else BAD)


def _style(said: Said) -> str:
    if said.kind == "violation":
        return BAD
    return "bold" if said.kind in ("act", "guest.began", "guest.ended") else DIM if said.kind in FINE else ""


def _table(rows: list[dict[str, Any]], columns: dict[str, str]) -> None:
    def value(key: str, row: dict[str, Any]) -> str:
        found = row[key]
        return ", ".join(found) if isinstance(found, list) else str(found)

    output.table(
        rows,
        [
            output.Column(title, lambda row, key=key: value(key, row), styled=title == "PHASE")  # type: ignore[misc]
            for title, key in columns.items()
        ],
    )


def _summary(results: dict[Path, Result]) -> None:
    """Several scenarios: one line each, and what was not as expected below it."""
    for file, result in results.items():
        output.line(f"{'✓' if result.ok else '✗'} {file}: {result.scenario.shows}", "" if result.ok else BAD)
        for violation in result.violations:
            output.line(f"    {violation}", BAD)
