"""`dr sim run`: tables, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from dr.cli.failure import Exit
from tests.cli.conftest import Dr

SCENARIO = """
shows: A host loses power.
hosts: [h1, h2, h3]
guests: {g1: h1}
do: [{at: 5s, power_off: h1}]
expect: [{guest: g1, is: running, runs_on: [h2, h3]}]
"""


def file(folder: Path, name: str, text: str = SCENARIO) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return str(path)


def test_the_table_tells_the_story(dr: Dr, tmp_path: Path) -> None:
    ended = dr("sim", "run", file(tmp_path, "cut"))
    assert ended.code == Exit.OK
    for text in (
        "cut: A host loses power.",
        "    5.000  >>> power_off: h1",
        "[guest.recovering] g1: lost with h1",
        "✓ {guest: g1, is: running, runs_on: [h2, h3]}",
        "as expected",
    ):
        assert text in ended.out, ended.out
    assert "takes ticket" not in ended.out
    assert "takes ticket" in dr("sim", "run", file(tmp_path, "cut"), "--trace").out


def test_what_is_not_as_expected_ends_with_1(dr: Dr, tmp_path: Path) -> None:
    ended = dr("sim", "run", file(tmp_path, "bad", SCENARIO.replace("[h2, h3]", "h1")))
    assert ended.code == Exit.FAILED
    assert "✗ {guest: g1, is: running, runs_on: h1}: g1 runs on" in ended.out
    assert ended.out.endswith("NOT as expected\n")


def test_json_and_seeds(dr: Dr, tmp_path: Path) -> None:
    first = dr("sim", "run", file(tmp_path, "cut"), "-o", "json")
    assert first.err == ""
    plain = json.loads(first.out)
    assert plain["ok"] is True
    assert plain["guests"]["g1"]["phase"] == "running"
    assert dr("sim", "run", file(tmp_path, "cut"), "-o", "json").out == first.out, "byte for byte"
    assert dr("sim", "run", file(tmp_path, "cut"), "-o", "json", "--seed", "5").out != first.out


def test_a_file_that_is_no_scenario_ends_with_65(dr: Dr, tmp_path: Path) -> None:
    """Every problem of every file is told, and nothing is run."""
    good, bad = (
        file(tmp_path, "good"),
        file(tmp_path, "bad", SCENARIO.replace("power_off: h1", "powr_off: h9")),
    )
    ended = dr("sim", "run", good, bad, str(tmp_path / "none.yaml"))
    assert ended.code == Exit.BAD_DATA
    assert ended.out == ""
    assert f"{bad}:5: do[0].powr_off: unknown key; did you mean power_off?" in ended.err
    assert "none.yaml: no such file" in ended.err


def test_a_world_that_cannot_begin_as_it_should_ends_with_65(dr: Dr, tmp_path: Path) -> None:
    ended = dr(
        "sim",
        "run",
        file(tmp_path, "late", SCENARIO.replace("g1: h1", "g1: {on: h1, policy: {boot_after: g1}}")),
    )
    assert ended.code == Exit.BAD_DATA
    assert "late: it cannot begin like this" in ended.err


def test_several_files_are_a_line_each(dr: Dr, tmp_path: Path) -> None:
    good, bad = file(tmp_path, "good"), file(tmp_path, "bad", SCENARIO.replace("[h2, h3]", "h1"))
    ended = dr("sim", "run", good, bad)
    assert ended.code == Exit.FAILED
    assert f"✓ {good}: A host loses power." in ended.out
    assert f"✗ {bad}: A host loses power." in ended.out
    assert "1 of 2 scenarios as expected" in ended.err
    assert list(json.loads(dr("sim", "run", good, bad, "-o", "json").out)) == [good, bad]
