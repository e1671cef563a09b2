"""A process killed at any point of a scenario changes nothing but the time it takes: a sample of points."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr.cli.scenario_file import load
from dr.sim.interrupt import BadPoint, End, Point, calm, interrupted, killed
from dr.sim.world import World

FOLDER = Path(__file__).parent.parent / "scenarios"
FILES = sorted(FOLDER.glob("*/*.yaml"))
ID = [f"{file.parent.name}/{file.stem}" for file in FILES]
IN_ALL = 160  # points that are tried here, spread over the scenarios; `make soak` tries all


@pytest.mark.long(keep=10)
@pytest.mark.parametrize("file", FILES, ids=ID)
def test_some_points_of_each_scenario(file: Path) -> None:
    plain = calm(load(file))
    for point in plain.sample(max(1, IN_ALL // len(FILES))):
        assert interrupted(plain, point).violations == [], f"dr sim run {file} --crash-at {point}"


@pytest.mark.long(keep=0)
@pytest.mark.parametrize("name", ["failover/power-cut"])
def test_every_point_of_a_failover(name: str) -> None:
    """Killed after each commit, before and after each effect: and it really died there."""
    plain = calm(load(FOLDER / f"{name}.yaml"))
    points = [point for point in plain.points() if not point.host]
    assert len(points) > 20
    for point in points:
        assert interrupted(plain, point).violations == [], point
        assert killed(plain.scenario, point).world.coordinator.term > 1, point


def test_agents_really_die() -> None:
    plain = calm(load(FOLDER / "failover/power-cut.yaml"))
    nobody = killed(plain.scenario, Point("after-commit", 10_000)).world
    points = [point for point in plain.points() if point.host]
    assert {point.kind for point in points} == {"after-write", "after-answer"}
    for point in points[::3]:
        agent = killed(plain.scenario, point).world.hosts[point.host].agent
        assert agent.incarnation > nobody.hosts[point.host].agent.incarnation, point
        assert agent.alive == nobody.hosts[point.host].agent.alive, point


# ---- the comparison can fail


def test_points_are_spread_and_the_same_each_time() -> None:
    plain = calm(load(FOLDER / "failover/power-cut.yaml"))
    points = list(plain.points())
    assert len(set(points)) == len(points)
    assert plain.sample(7) == plain.sample(7)
    assert {point.kind for point in plain.sample(len(points))} == {
        "after-commit",
        "before-effect",
        "after-effect",
        "after-write",
        "after-answer",
    }
    assert [Point.parse(str(point)) for point in points] == points


@pytest.mark.parametrize(
    "text", ["", "after-commit", "after-commit:0", "x:1", "after-write:1", "after-commit:h1:1"]
)
def test_what_is_no_point(text: str) -> None:
    with pytest.raises(BadPoint, match="is no point: after-commit:N"):
        Point.parse(text)


def test_a_coordinator_that_stays_dead_comes_to_another_end(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = calm(load(FOLDER / "failover/power-cut.yaml"))
    monkeypatch.setattr(World, "restart_coordinator", lambda world: None)
    unlike = interrupted(plain, Point("after-commit", 1)).violations
    assert any("guest g1" in text for text in unlike), unlike


def test_each_part_of_an_end_is_compared() -> None:
    end = calm(load(FOLDER / "failover/power-cut.yaml")).end
    phase, wanted, places = end.guests["g1"]
    others = {
        "guest g1": End(**{**vars(end), "guests": end.guests | {"g1": (phase, wanted, places + 1)}}),
        "host h2": End(**{**vars(end), "hosts": end.hosts | {"h2": ("suspect", (), True)}}),
        "open_operations": End(**{**vars(end), "open_operations": frozenset({("failover", "h1")})}),
        "alerts": End(**{**vars(end), "alerts": frozenset({"host/h1/held"})}),
        "automation": End(**{**vars(end), "automation": (True, False)}),
    }
    compared = {"guests", "hosts", "open_operations", "alerts", "automation"}
    assert set(vars(end)) == compared | {"failed_tests"}, "and what a failed test excuses is below"
    for what, other in others.items():
        (unlike,) = other.unlike(end)
        assert unlike.startswith(what)
        assert other.at_rest().unlike(end.at_rest())
    assert end.unlike(end) == []


def test_a_test_that_was_cut_short_excuses_only_what_it_would_have_shown() -> None:
    end = calm(load(FOLDER / "failover/power-cut.yaml")).end
    unproven = ("online", ("unprotected",), True)
    alerts = end.alerts | {"host/h2/unprotected"}
    bad = End(**{**vars(end), "hosts": end.hosts | {"h2": unproven}, "alerts": alerts})
    assert len(bad.unlike(end)) == 2
    h2, h3 = frozenset({"h2"}), frozenset({"h3"})
    assert bad.untested(h2).unlike(end.untested(h2)) == []
    assert len(bad.untested(h3).unlike(end.untested(h3))) == 2
