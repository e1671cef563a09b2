"""Scenario files: read, checked, with every problem at once and the line where it stands.

Here: files and lines. Not here: the language (`dr.sim.scenario`), running (`dr.sim.run`).
"""

from __future__ import annotations

from pathlib import Path

from dr.cli.yamlfile import BadFile, Document, Problem, parse, read
from dr.model.words import Problems, Where, dotted
from dr.sim.scenario.check import problems_of
from dr.sim.scenario.language import Scenario, from_plain, named


def load(path: Path) -> Scenario:
    """Raises BadFile."""
    return named(_scenario(read(path)), path.stem)


def loads(text: str, file: str = "scenario") -> Scenario:
    """The same from text. Raises BadFile."""
    return named(_scenario(parse(text, file)), Path(file).stem)


def _scenario(document: Document) -> Scenario:
    if not isinstance(document.data, dict):
        raise BadFile(document.file, [Problem(1, "", "a scenario is a mapping that begins with `shows:`")])
    problems = Problems()
    scenario = from_plain(document.data, problems)
    found = problems.found + (problems_of(scenario) if scenario is not None else [])
    if scenario is None or found:
        raise BadFile(document.file, [_problem(document, where, message) for where, message in found])
    return scenario


def _problem(document: Document, where: Where, message: str) -> Problem:
    return Problem(document.line(where), dotted(where), message)
