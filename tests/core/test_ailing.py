"""Guests that are looked after: when one is unhealthy, what follows, and what is doubted first."""

from __future__ import annotations

from typing import Any

import pytest

from dr.core import ailing, checks
from dr.model.base import changed
from dr.model.checks import CheckResult, Ping
from dr.model.commands import Stop
from dr.model.effects import CheckGuest, Effect, Send
from dr.model.events import AskPause, CheckEnded, Tick
from dr.model.facts import DomainState
from dr.model.policy import GuestPolicy, OnUnhealthy
from dr.model.records import Condition, Desired, GuestPhase, GuestRecord
from tests.core.build import NOW, Bench, checked, domain, guest

PING = Ping(address="10.0.0.5")
RESTART = GuestPolicy(checks=(PING,), on_unhealthy=OnUnhealthy.RESTART)
ALERT = changed(RESTART, on_unhealthy=OnUnhealthy.ALERT)


def well(name: str = "g1", host: str = "h1", policy: GuestPolicy = RESTART, **fields: Any) -> GuestRecord:
    """It has run for long, and its checks passed lately."""
    return guest(name, host, policy=policy, **({"since": NOW - 500.0, "checked_at": NOW - 10.0} | fields))


def begun(effects: list[Effect]) -> list[CheckGuest]:
    return [each for each in effects if isinstance(each, CheckGuest)]


def passes(made: Bench, seconds: float) -> None:
    """Time goes by, second by second; hosts whose link is up are heard."""
    for _ in range(round(seconds)):
        made.now += 1.0
        made.hear(*(name for name, view in made.state.views.items() if view.session))
        made.send(Tick())


def rounds(made: Bench, times: int, *failing: str, made_: bool = True) -> None:
    """So many rounds of all that are looked after; those that are named fail."""
    for _ in range(times):
        new: list[CheckGuest] = []
        for _ in range(60):
            before = len(made.effects)
            passes(made, ailing.LOOK_S)
            if new := begun(made.effects[before:]):
                break
        for each in new:
            end = checked(each, each.guest not in failing, "it refuses the connection")
            if not made_:
                found = tuple(CheckResult(check=one.check, passed=False, made=False) for one in end.results)
                end = CheckEnded(effect=each.id, guest=each.guest, results=found)
            made.send(end)
    passes(made, 2 * ailing.LOOK_S)


def site(*guests: GuestRecord, **timers: float) -> Bench:
    made = Bench().put(*guests)
    settings = made.state.settings
    made.state.settings = changed(settings, timers=changed(settings.timers, **({"health_s": 5.0} | timers)))
    return made


def stops(made: Bench) -> list[tuple[str, str]]:
    return [
        (each.body.ticket.guest, each.body.mode)
        for each in made.effects
        if isinstance(each, Send) and isinstance(each.body, Stop)
    ]


def test_several_rounds_in_a_row_make_it_unhealthy() -> None:
    made = site(well())
    rounds(made, 2, "g1")
    rounds(made, 1)
    rounds(made, 2, "g1")
    assert (stops(made), made.state.alerts) == ([], {}), "they were not in a row"
    rounds(made, 1, "g1")
    assert stops(made) == [("g1", "destroy")]
    assert "3 rounds of its checks failed in a row" in made.state.alerts["guest/g1/checks"].why
    record = made.guest("g1")
    assert (record.phase, record.desired) == (GuestPhase.STOPPING, Desired.RUNNING)
    assert len(record.restarts) == 1
    assert [each.kind for each in made.state.operations.values()] == ["restart"]


def test_people_are_told_and_nothing_else_where_the_policy_says_so() -> None:
    made = site(well(policy=ALERT))
    rounds(made, 4, "g1")
    assert stops(made) == []
    assert "guest/g1/checks" in made.state.alerts
    rounds(made, 1)
    assert "guest/g1/checks" not in made.state.alerts


def test_without_that_policy_nobody_looks() -> None:
    made = site(well(policy=GuestPolicy(checks=(PING,))))
    passes(made, 60.0)
    assert begun(made.effects) == []


def test_one_that_never_passed_is_left_alone() -> None:
    made = site(well(checked_at=0.0))
    rounds(made, 5, "g1")
    assert (stops(made), made.state.alerts) == ([], {})


def test_what_could_not_be_made_says_nothing_of_the_guest() -> None:
    made = site(well())
    rounds(made, 5, "g1", made_=False)
    assert (stops(made), made.state.alerts) == ([], {})


def paused(made: Bench) -> None:
    made.send(AskPause(id="p", by="ops", reason="work"))


def silent(made: Bench) -> None:
    made.silence("h1")


def lost(made: Bench) -> None:
    host = made.host("h1")
    made.put(changed(host, conditions=host.conditions | {Condition.AGENT_LOST}))


def going(made: Bench) -> None:
    made.put(changed(made.host("h1"), leaving="reboot"))


def stopped(made: Bench) -> None:
    made.put(changed(made.guest("g1"), desired=Desired.IGNORED))


def restored(made: Bench) -> None:
    made.state.cluster = changed(made.state.cluster, restored="an older copy")


@pytest.mark.parametrize(
    "why", [paused, silent, lost, going, stopped, restored], ids=lambda each: each.__name__
)
def test_what_keeps_it_from_being_restarted(why: Any) -> None:
    made = site(well())
    rounds(made, 2, "g1")
    why(made)
    rounds(made, 2, "g1")
    assert stops(made) == []


def test_one_that_somebody_suspended_is_not_ill() -> None:
    made = site(well())
    made.see("h1", domain("g1", DomainState.PAUSED, reason="user"))
    rounds(made, 4, "g1")
    assert (stops(made), made.state.alerts) == ([], {})


def test_restarts_are_bounded_and_then_people_are_told() -> None:
    policy = changed(RESTART, max_restarts=1, max_relocations=1)
    made = site(well(policy=policy, restarts=(NOW - 1.0,), relocations=(NOW - 1.0,)))
    rounds(made, 3, "g1")
    assert stops(made) == []
    assert "not restarted any more" in made.state.alerts["guest/g1/unhealthy"].what
    rounds(made, 1)
    assert made.state.alerts == {}, "it came to itself"


def test_after_restarts_in_place_it_goes_elsewhere() -> None:
    made = site(well(policy=changed(RESTART, max_restarts=0)))
    rounds(made, 3, "g1")
    assert stops(made) == [("g1", "destroy")]
    assert made.guest("g1").avoid == ("h1",)


def test_a_second_restart_waits() -> None:
    """Doubling, as after crashes."""
    made = site(well(restarts=(NOW,)), restart_backoff_s=60.0)
    rounds(made, 4, "g1")
    assert stops(made) == []
    rounds(made, 12, "g1")
    assert stops(made) == [("g1", "destroy")]


def test_one_that_fails_after_its_restart_has_the_time_to_come_up() -> None:
    made = site(well(), check_s=500.0)
    made.put(changed(made.guest("g1"), since=NOW))  # it was started just now, and has passed only before
    rounds(made, 4, "g1")
    assert stops(made) == []


def test_many_at_once_on_one_host_are_not_to_blame() -> None:
    names = ("g1", "g2", "g3")
    made = site(*(well(name, "h1") for name in names), *(well(f"x{n}", "h2") for n in range(5)))
    rounds(made, 4, *names)
    assert stops(made) == []
    assert set(made.state.alerts) == {"host/h1/checks"}
    assert "3 of 3 guests of h1" in made.state.alerts["host/h1/checks"].what
    rounds(made, 1, "g1")
    assert "host/h1/checks" not in made.state.alerts
    assert stops(made) == [("g1", "destroy")], "the others are well, so this one is ill"


def test_two_that_are_all_there_are_mean_the_same() -> None:
    made = site(well("g1", "h1"), well("g2", "h1"), well("g3", "h2"))
    rounds(made, 4, "g1", "g2")
    assert stops(made) == []
    assert set(made.state.alerts) == {"host/h1/checks"}
    rounds(made, 3, "g1")
    assert stops(made) == [("g1", "destroy")]


def test_many_everywhere_mean_that_we_are_blind() -> None:
    """Two of three on each host: no host alone would show it."""
    names = [f"g{n}" for n in range(8)]
    made = site(*(well(name, f"h{n % 3 + 1}") for n, name in enumerate(names)))
    rounds(made, 4, *names[:6])
    assert stops(made) == []
    assert set(made.state.alerts) == {"cluster/checks"}
    rounds(made, 1)
    assert made.state.alerts == {}


def test_load_is_bounded() -> None:
    names = [f"g{number}" for number in range(3 * ailing.BEGUN_MAX)]
    made = site(*(well(name) for name in names))
    seen: set[str] = set()
    for _ in names:
        before = len(made.effects)
        passes(made, ailing.LOOK_S)
        now = begun(made.effects[before:])
        assert len(now) <= ailing.BEGUN_MAX
        out = sum(pending.kind in checks.PARTS for pending in made.state.pending.values())
        assert out <= ailing.UNDER_WAY_MAX
        seen |= {each.guest for each in now}
        for each in now:
            made.send(checked(each, True), after=0.001)
        if len(seen) == len(names):
            return
    raise AssertionError(f"{len(seen)} of {len(names)} had a round")


def test_few_are_restarted_at_a_time() -> None:
    """Four of twelve are no outage by their share; but if the first do not come back well, the cause is another."""
    made = site(*(well(f"g{number}", f"h{number % 3 + 1}") for number in range(12)))
    rounds(made, 4, "g0", "g1", "g2", "g3")
    stopped = {
        each.body.ticket.guest
        for each in made.effects
        if isinstance(each, Send) and isinstance(each.body, Stop)
    }
    assert len(stopped) == ailing.AT_ONCE


def test_those_that_nobody_would_restart_keep_nobody_from_it() -> None:
    """Ten services that are off for days, of which people are only told."""
    off = [well(f"g{number}", f"h{number % 3 + 1}", ALERT) for number in range(10)]
    made = site(*off, *(well(f"w{number}", f"h{number % 3 + 1}") for number in range(26)))
    rounds(made, 4, *(each.name for each in off), "w0")
    orders = [each.body for each in made.effects if isinstance(each, Send)]
    assert {each.ticket.guest for each in orders if isinstance(each, Stop)} == {"w0"}


def test_many_that_fail_are_not_restarted_whatever_their_share() -> None:
    """A third of a site that is not reached any more, on all hosts: some router is away."""
    made = site(*(well(f"g{number}", f"h{number % 3 + 1}") for number in range(36)))
    failing = [f"g{number}" for number in range(36) if number % 9 in (0, 1, 2)]
    rounds(made, 4, *failing)
    assert not [each for each in made.effects if isinstance(each, Send) and isinstance(each.body, Stop)]
    assert made.state.alerts["cluster/checks"].what.startswith("12 of 36 guests")
