"""Playbook files: found, read, checked, with every problem at once and the line where it stands.

Here: files, their lines and where they lie. Not here: the language (`dr.model.playbooks`), what it cannot mean
(`core.playbooks.check`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from dr.cli.yamlfile import BadFile, Document, Problem, read
from dr.core.playbooks.check import problems_of
from dr.model.playbooks import Playbook
from dr.model.words import Problems, Where, dotted, read_fields

SHIPPED = Path(str(resources.files("dr"))) / "playbooks"
OWN = Path("/etc/dr/playbooks")  # one of the same name stands for that which is shipped

# Far above what a person writes, and read in a second or two.
BYTES_MAX = 64 * 1024
VALUES_MAX = 5_000


@dataclass(frozen=True)
class PlaybookFile:
    """One good file."""

    playbook: Playbook
    document: Document

    def bad(self, found: Iterable[tuple[Where, str]]) -> BadFile:
        """What turned out to be wrong with it later, with the lines."""
        return _bad(self.document, found)


def load(path: Path) -> Playbook:
    """Raises BadFile."""
    return opened(path).playbook


def opened(path: Path) -> PlaybookFile:
    """Raises BadFile. What it cannot mean is looked at once all of it can be read."""
    document = read(path, bytes_max=BYTES_MAX, values_max=VALUES_MAX)
    if not isinstance(document.data, dict):
        raise BadFile(document.file, [Problem(1, "", "a playbook is a mapping that begins with `playbook:`")])
    problems = Problems()
    playbook: Playbook | None = read_fields(Playbook, document.data, (), problems)
    found = problems.found if playbook is None else problems_of(playbook)
    if playbook is None or found:
        raise _bad(document, found)
    return PlaybookFile(playbook, document)


def _bad(document: Document, found: Iterable[tuple[Where, str]]) -> BadFile:
    return BadFile(
        document.file, [Problem(document.line(where), dotted(where), text) for where, text in found]
    )


# ---- where they lie


@dataclass(frozen=True)
class Shelved:
    """A file in one of the two folders; `bad`: why it cannot be used."""

    name: str
    path: Path
    playbook: Playbook | None = None
    bad: BadFile | None = None
    built_in: str = ""  # what it is for; it has no file


def is_file(word: str) -> bool:
    """Whether somebody means a file by that, or the name of a playbook."""
    return "/" in word or word.endswith((".yaml", ".yml"))


def shelved() -> list[Shelved]:
    """Those that ship with dr and the team's own, by name."""
    found = {each.name: each for folder in (SHIPPED, OWN) for each in _in(folder)}
    return [found[name] for name in sorted(found)]


def _in(folder: Path) -> Iterator[Shelved]:
    for path in sorted(folder.glob("*.yaml")):
        try:
            playbook = load(path)
        except BadFile as bad:
            yield Shelved(path.stem, path, bad=bad)
        else:
            yield Shelved(playbook.playbook, path, playbook)
