"""`dr sim replay`, `dr events --save`: from a line of the timeline to why."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from dr.cli.failure import Exit
from dr.core.saved import Saved, encode
from dr.model.base import changed
from tests.api.service import Service
from tests.cli.conftest import Dr
from tests.core.test_saved import condemned


def save(file: Path, saved: Saved) -> str:
    file.write_bytes(b"".join(encode(saved)))
    return str(file)


def test_replay_says_why(dr: Dr, tmp_path: Path) -> None:
    file = save(tmp_path / "d.gz", condemned())
    out = dr("sim", "replay", file).out
    for text in (
        "decision 3-9, epoch 3",
        "h1: suspect → fencing: to be fenced",
        "fence: link down, witnesses silent, power on",
        "nothing stands against it",
        "2 more, online and heard: h2, h3",
        "g1: running, wanted running",
        "not on       h1: it may run there already",
        "could run on h2, score",
        "effect  fence: id fence-3-",
    ):
        assert text in out, out
    assert "h2: online" not in out
    assert "h2: online" in dr("sim", "replay", file, "-o", "wide").out


def test_replay_says_why_not(dr: Dr, tmp_path: Path) -> None:
    held = condemned()
    held.state.settings = changed(held.state.settings, auto_fence=False)
    out = dr("sim", "replay", save(tmp_path / "d.gz", held)).out
    assert "not fenced   automatic fencing is off in the configuration" in out
    assert "nothing stands against it" not in out


def test_replay_as_json(dr: Dr, tmp_path: Path) -> None:
    found = json.loads(dr("sim", "replay", save(tmp_path / "d.gz", condemned()), "-o", "json").out)
    assert (found["version"], found["kind"], found["id"]) == (1, "replay", "3-9")
    assert {host["name"] for host in found["hosts"]} == {"h1", "h2", "h3"}
    assert found["guests"][0]["options"][0]["host"] == "h2"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "cannot be read"),
        (b"text", "cannot be replayed: it is not a saved decision (not gzip)."),
        (
            gzip.compress(b'{"dr_decision": 2, "event": {}, "now": 1, "version": "9.1"}\n', mtime=0),
            "format 2 by dr 9.1; this",
        ),
    ],
)
def test_a_bad_file_ends_with_65_and_one_sentence(
    dr: Dr, tmp_path: Path, data: bytes | None, said: str
) -> None:
    file = tmp_path / "d.gz"
    if data is not None:
        file.write_bytes(data)
    ended = dr("sim", "replay", str(file))
    assert ended.code == Exit.BAD_DATA
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_another_version_is_said(dr: Dr, tmp_path: Path) -> None:
    saved = condemned()
    other = Saved(state=saved.state, event=saved.event, now=saved.now, version="9.9.9")
    assert "saved by dr 9.9.9" in dr("sim", "replay", save(tmp_path / "d.gz", other)).out


def test_from_the_timeline_to_the_file(
    service: Service, dr: Dr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    service.coordinator.write("host.fencing", "h1: to be fenced", decision="3-9", operation="failover-3-1")
    service.coordinator.decisions["3-9"] = b"".join(encode(condemned()))
    assert "[3-9]" in dr("events", "-o", "wide").out
    assert "[3-9]" not in dr("events").out
    assert "explained by" in (shown := dr("job", "show", "failover-3-1").out)
    assert "3-9" in shown
    saved = dr("events", "--save", "3-9")
    assert saved.out == "dr-decision-3-9.gz\n"
    assert "dr sim replay dr-decision-3-9.gz" in saved.err
    assert dr("sim", "replay", "dr-decision-3-9.gz").code == Exit.OK
    assert dr("events", "--save", "3-9").code == Exit.REFUSED, "never over a file"
    gone = dr("events", "--save", "3-10")
    assert gone.code == Exit.MISSING
    assert "removed by now" in gone.err
    assert dr("events", "--save", "../3-9").code == Exit.REFUSED
    assert [path.name for path in tmp_path.iterdir()] == ["dr-decision-3-9.gz"]


POWER_CUT = Path(__file__).parent.parent / "scenarios" / "failover" / "power-cut.yaml"


def test_run_killed_at_a_point_and_saved(dr: Dr, tmp_path: Path) -> None:
    """The coordinator dies between the decision to start and the starts; each decision can be replayed."""
    ended = dr("sim", "run", str(POWER_CUT), "--crash-at", "after-commit:3", "--save", str(tmp_path))
    assert ended.code == Exit.OK, ended
    assert "coordinator L2 starts" in ended.out
    files = sorted(tmp_path.iterdir())
    assert any(file.name.startswith("2-") for file in files), "those of the second leader too"
    for file in files:
        assert dr("sim", "replay", str(file)).code == Exit.OK
    assert "coordinator L2" not in dr("sim", "run", str(POWER_CUT)).out


@pytest.mark.parametrize("point", ["nonsense", "after-commit:0", "after-write:h9:1"])
def test_a_point_that_is_none(dr: Dr, point: str) -> None:
    ended = dr("sim", "run", str(POWER_CUT), "--crash-at", point)
    assert ended.code == Exit.USAGE
    assert ("h9" if "h9" in point else "is no point") in ended.err
