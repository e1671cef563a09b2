"""Strict rules are judged by the simulator itself, from records: it notices a core that forgets one."""

from pathlib import Path

import numpy as np
import pytest

from dr.cli.scenario_file import load
from dr.core import placement
from dr.core.fleet import Fleet, Mask
from dr.model.policy import GuestRule, HostRule
from dr.model.records import Place
from dr.sim.run import run
from dr.sim.strict import broken_rules
from tests.core.build import guest

FOLDER = Path(__file__).parent.parent / "scenarios"
APART = GuestRule(name="pair", guests=("a", "b"), kind="apart", strict=True)
TOGETHER = GuestRule(name="team", guests=("a", "label:team=one"), kind="together", strict=True)
LICENCE = HostRule(name="licence", guests=("a",), hosts={"h1": 1}, strict=True)


def test_what_is_broken_and_what_is_not() -> None:
    both_ends = tuple(Place(host=name, boot_id=f"{name}-b1", generation=1) for name in ("h1", "h2"))
    guests = {
        "a": guest("a", "h2"),
        "b": guest("b", may_run_on=both_ends),
        "c": guest("c", "h1", labels={"team": "one"}),
    }
    rules = (APART, TOGETHER, LICENCE, GuestRule(name="loose", guests=("a", "b"), kind="apart"))
    (apart, together, licence) = broken_rules(rules, guests, "a", "h2")
    assert "pair keeps it apart from b" in apart
    assert "team wants it beside c" in together
    assert "licence allows h1" in licence
    assert broken_rules((TOGETHER, LICENCE), guests, "a", "h1") == []
    assert broken_rules((APART,), guests, "a", "h3") == []


def test_a_core_that_forgets_other_guests_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def anywhere(case: placement.Case, fleet: Fleet) -> Mask:
        return np.ones(len(fleet), dtype=np.bool_)

    monkeypatch.setattr(placement.Case, "suits", anywhere)
    result = run(load(FOLDER / "rules" / "keep-apart-strict-waits.yaml"))
    assert any("a start of" in text and ": rule " in text for text in result.violations), result.violations


def test_a_core_that_forgets_which_hosts_are_allowed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fleet, "allowed", lambda fleet, rule: np.ones(len(fleet), dtype=np.bool_))
    result = run(load(FOLDER / "rules" / "strict-host-rule-waits.yaml"))
    assert any("a start of" in text and ": rule " in text for text in result.violations), result.violations
