"""Schedules and hooks in the coordinator's file: read with their playbooks; what is wrong is told with its line."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from dr.cli.config import load, translate
from dr.cli.config_shown import effective
from dr.cli.yamlfile import BadFile, parse
from dr.model.schedules import Blackout
from tests.cli.conftest import Dr

HEAD = "cluster: lab\naddresses: [10.0.0.1]\nschedules:\n"
BOOK = "playbook: look\nparams: {vm: {is: guest}}\nsteps:\n  - check: ${vm}\n"
GOOD = "  s: {playbook: ./look.yaml, cron: 0 3 * * sun, params: {vm: web1}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "look.yaml").write_text(BOOK)
    return tmp_path / "c.yaml"


def problems(file: Path, text: str) -> list[str]:
    file.write_text(HEAD + text)
    with pytest.raises(BadFile) as bad:
        load(file)
    return [each.text("f.yaml") for each in bad.value.problems]


def test_a_schedule_is_read_with_its_playbook(file: Path) -> None:
    file.write_text(
        HEAD
        + GOOD
        + ", window: 2h, zone: Europe/Vienna, blackouts: [2026-12-24..2027-01-02, 2026-05-01], reason: proof}\n"
        + "  t: {playbook: evacuate-host, cron: '*/5 8-17 1 jan *', params: {source: h1}, blackouts: 2026-12-24}\n"
    )
    config = load(file)
    one, other = config.settings.schedules["s"], config.settings.schedules["t"]
    assert (one.playbook.playbook, one.cron, one.window, one.zone) == (
        "look",
        "0 3 * * sun",
        7200.0,
        "Europe/Vienna",
    )
    assert one.blackouts[0] == Blackout(first=date(2026, 12, 24), last=date(2027, 1, 2))
    assert (one.params, one.reason) == ({"vm": "web1"}, "proof")
    assert (other.playbook.playbook, other.window, other.zone) == ("evacuate-host", 3600.0, "UTC")
    (file.parent / "look.yaml").unlink()
    assert config.settings.schedules["s"].playbook.steps, "nothing is read when it is due"


def test_what_is_shown_can_be_used(file: Path) -> None:
    file.write_text(HEAD + GOOD + ", blackouts: [2026-12-24..2027-01-02]}\n")
    config = load(file)
    again = parse(json.dumps(effective(config)), str(file))
    assert translate(again).settings == config.settings


BAD = {
    "cron": (
        GOOD.replace("0 3 * * sun", "0 25 * * *") + "}",
        "f.yaml:4: schedules.s.cron: must be minute, hour, ",
    ),
    "cron with seconds": (
        GOOD.replace("0 3 * * sun", "0 0 3 * * sun") + "}",
        "f.yaml:4: schedules.s.cron: must be",
    ),
    "never": (
        GOOD.replace("0 3 * * sun", "0 3 30 2 *") + "}",
        "f.yaml:4: schedules.s.cron: must be minute, hour, ",
    ),
    "zone": (
        GOOD + ", zone: Europe/Wien}",
        "f.yaml:4: schedules.s.zone: must be a time zone such as Europe/Vienna, or UTC; this machine knows no such",
    ),
    "path": (GOOD + ", zone: ../../etc/passwd}", "f.yaml:4: schedules.s.zone: must be a time zone"),
    "window": (
        GOOD + ", window: 10s}",
        "f.yaml:4: schedules.s.window: must be a time such as 30m or 2h, from 1m",
    ),
    "blackout": (
        GOOD + ", blackouts: [2026-12-24..2026-12-01]}",
        "f.yaml:4: schedules.s.blackouts[0]: must be a day such as 2026-12-24, or days such as",
    ),
    "no day": (
        GOOD + ", blackouts: [2026-02-30]}",
        "f.yaml:4: schedules.s.blackouts[0]: must be a day such as",
    ),
    "unknown key": (GOOD + ", crno: x}", "f.yaml:4: schedules.s.crno: unknown key; did you mean cron?"),
    "no cron": (
        "  s: {playbook: evacuate-host, params: {source: h1}}",
        "f.yaml:4: schedules.s.cron: is required",
    ),
    "no such playbook": (
        "  s: {playbook: evacuate-hsot, cron: 0 3 * * *}",
        "f.yaml:4: schedules.s.playbook: evacuate-hsot is no playbook; did you mean evacuate-host?",
    ),
    "no such file": (
        "  s:\n    playbook: ./none.yaml\n    cron: 0 3 * * *",
        "f.yaml:5: schedules.s.playbook: {folder}/none.yaml: no such file",
    ),
    "no parameter": (
        "  s: {playbook: evacuate-host, cron: 0 3 * * *}",
        "f.yaml:4: schedules.s.params: source: must be told (the host that is emptied): source=…",
    ),
    "other parameter": (
        GOOD.replace("{vm: web1}", "{vm: web1, vn: x}") + "}",
        "f.yaml:4: schedules.s.params: vn: no such parameter",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_with_its_line(case: str, file: Path) -> None:
    text, expected = BAD[case]
    found = problems(file, text + "\n")
    assert [line.startswith(expected.format(folder=file.parent)) for line in found] == [True], found


def test_what_is_wrong_with_its_playbook_is_told_with_that_files_line(file: Path) -> None:
    (file.parent / "look.yaml").write_text(BOOK + "  - cehck: all\n")
    (found,) = problems(file, GOOD + "}\n")
    assert found.startswith(
        f"f.yaml:4: schedules.s.playbook: {file.parent}/look.yaml:5: steps[1].cehck: unknown key; did you mean check?"
    )


def test_a_command_that_the_same_file_does_not_allow_is_told(file: Path) -> None:
    (file.parent / "look.yaml").write_text(BOOK + "  - {run: update, in: all}\n")
    (found,) = problems(file, GOOD + "}\n")
    assert found.startswith(
        f"f.yaml:4: schedules.s.playbook: {file.parent}/look.yaml:5: steps[1].run: the configuration allows no command"
    )
    file.write_text(HEAD + GOOD + "}\ncommands: {update: {where: guest, argv: [/usr/bin/apt]}}\n")
    assert load(file).settings.schedules["s"].playbook.playbook == "look"


def test_config_check_looks_at_schedules(file: Path, dr: Dr) -> None:
    file.write_text(HEAD + GOOD + ", zone: nowhere}\n")
    bad = dr("config", "check", str(file))
    assert bad.code == 78
    assert "schedules.s.zone" in bad.err


# ---- hooks

HOOK = (
    "playbook: hook\nparams: {failed_host: {is: host}, job: {}}\nsteps:\n  - notify: ${failed_host} ${job}\n"
)


def hooks(file: Path, hook: str, text: str = "hooks:\n  failover_begins: hook.yaml\n") -> None:
    (file.parent / "hook.yaml").write_text(hook)
    file.write_text(HEAD.removesuffix("schedules:\n") + text)


def test_hooks_are_read_with_their_playbooks_and_shown(file: Path) -> None:
    hooks(file, HOOK, "hooks: {failover_begins: ./hook.yaml, failover_ends: hook.yaml}\n")
    config = load(file)
    assert config.settings.hooks.failover_begins == config.settings.hooks.failover_ends
    assert config.settings.hooks.failover_begins is not None
    again = parse(json.dumps(effective(config)), str(file))
    assert translate(again).settings == config.settings


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        (
            HOOK.replace("job: {}", "whom: {}").replace("${job}", "${whom}"),
            "hook must be told whom, and this hook",
        ),
        (
            HOOK.replace("job: {}", "outcome: {}").replace("${job}", "${outcome}"),
            "hook must be told outcome, and",
        ),
        ("playbook: d\nkind: drill\nsteps: [{clone: g1}, {boot: g1}]\n", "d is a drill: no hook can be one"),
        (
            "playbook: d\nsteps: [{ntfy: x}]\n",
            "{folder}/hook.yaml:2: steps[0].ntfy: unknown key; did you mean notify?",
        ),
    ],
)
def test_what_can_be_no_hook_is_told(file: Path, hook: str, expected: str) -> None:
    hooks(file, hook)
    with pytest.raises(BadFile) as bad:
        load(file)
    (found,) = [each.text("f.yaml") for each in bad.value.problems]
    assert found.startswith("f.yaml:4: hooks.failover_begins: " + expected.format(folder=file.parent)), found


def test_another_word_for_a_hook_is_told(file: Path) -> None:
    hooks(file, HOOK, "hooks: {failover_begin: hook.yaml}\n")
    with pytest.raises(BadFile, match="did you mean failover_begins"):
        load(file)
