"""Schedules and hooks in the coordinator's file: their playbooks are read with it, so that nothing is read when due.

Not here: which keys there are (`config_schema`), which times a schedule means (`core.playbooks.due`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dr.cli import playbook_file
from dr.cli.config_errors import at
from dr.cli.config_schema import FileSection, ScheduleSection
from dr.cli.yamlfile import BadFile, Document, Path_, Problem
from dr.core.playbooks import builtin
from dr.core.playbooks.check import not_allowed
from dr.core.playbooks.compiling import Fleet, Unclear, bubble, values_of
from dr.model.allowed import Allowed
from dr.model.hooks import TOLD, Hooks, why_no_hook
from dr.model.playbooks import Playbook
from dr.model.schedules import Blackout, Days, Schedule, Window
from dr.model.words import TIME, Problems, nearest

SHOWN = 10  # problems of one playbook; `dr playbook validate` tells all


Commands = Mapping[str, Allowed]


def schedules_of(
    parsed: FileSection, document: Document, commands: Commands, problems: list[Problem]
) -> dict[str, Schedule]:
    """`commands`: those that the file allows."""
    found = {}
    for name, section in parsed.schedules.items():
        where: Path_ = ("schedules", name)
        playbook = playbook_of(section.playbook, document, (*where, "playbook"), commands, problems)
        if playbook is None:
            continue
        try:
            values_of(playbook, section.params)
            bubble(playbook, section.params, Fleet({}, {}))
        except Unclear as unclear:
            problems += [
                at(document, (*where, "params"), f"{place[-1]}: {text}") for place, text in unclear.found
            ]
        found[name] = _schedule(section, playbook)
    return found


def hooks_of(parsed: FileSection, document: Document, commands: Commands, problems: list[Problem]) -> Hooks:
    found: dict[str, Playbook] = {}
    for when in TOLD:
        word = getattr(parsed.hooks, when)
        playbook = word and playbook_of(word, document, ("hooks", when), commands, problems)
        if not playbook:
            continue
        if why := why_no_hook(playbook, when):
            problems.append(at(document, ("hooks", when), why))
        found[when] = playbook
    return Hooks(**found)


def _schedule(section: ScheduleSection, playbook: Playbook) -> Schedule:
    read = Problems()
    blackouts: list[Blackout] = [Days().read(each, (), read) for each in section.blackouts]  # type: ignore[misc]
    schedule = Schedule(
        playbook=playbook,
        params=section.params,
        cron=section.cron,
        window=Window().read(section.window, (), read),
        zone=section.zone,
        blackouts=tuple(blackouts),
        reason=section.reason,
    )
    assert not read, "the schema took it"
    return schedule


def playbook_of(
    word: str, document: Document, where: Path_, commands: Commands, problems: list[Problem]
) -> Playbook | None:
    """The one of that name, or in that file; a file that is not named by its whole path is beside this one."""
    if playbook_file.is_file(word):
        path = Path(document.file).parent / word
    else:
        known = {row.name: row.path for row in playbook_file.shelved()}
        if word not in known:
            built_in = word == builtin.NAME
            why = "is built in, and runs by itself" if built_in else f"is no playbook{nearest(word, known)}"
            problems.append(at(document, where, f"{word} {why}; see dr playbook list"))
            return None
        path = known[word]
    try:
        file = playbook_file.opened(path)
        allowed = {name: each.parameters for name, each in commands.items()}
        if wrong := not_allowed(file.playbook, allowed):
            raise file.bad(wrong)
    except BadFile as bad:
        told = [each.text(bad.file) for each in bad.problems[:SHOWN]]
        if len(bad.problems) > SHOWN:
            told.append(f"and {len(bad.problems) - SHOWN} more: dr playbook validate {path}")
        problems += [at(document, where, text) for text in told]
        return None
    return file.playbook


def sources_of(parsed: FileSection) -> dict[str, str]:
    """What each schedule and hook says that its playbook is, by `schedules.NAME` and `hooks.WHEN`."""
    found = {f"schedules.{name}": each.playbook for name, each in parsed.schedules.items()}
    return found | {
        f"hooks.{when}": word for when in TOLD if (word := getattr(parsed.hooks, when)) is not None
    }


def shown_hooks(hooks: Hooks, sources: dict[str, str]) -> dict[str, str]:
    """As the file writes them."""
    return {when: sources[f"hooks.{when}"] for when in TOLD if getattr(hooks, when) is not None}


def shown_schedule(schedule: Schedule, source: str) -> dict[str, object]:
    """As the file writes it."""
    return {
        "playbook": source,
        "params": dict(schedule.params),
        "cron": schedule.cron,
        "window": TIME.write(schedule.window),
        "zone": schedule.zone,
        "blackouts": [each.text() for each in schedule.blackouts],
        "reason": schedule.reason,
    }
