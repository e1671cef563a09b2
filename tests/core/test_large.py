"""On a large site hosts at rest are carried on in turn: none is forgotten, and what is in motion never waits."""

import pytest

from dr.core import decide as room
from dr.core import protection
from dr.model.base import changed
from dr.model.commands import Protect
from dr.model.effects import Send
from dr.model.events import Tick
from dr.model.facts import Level, Reading
from dr.model.records import Condition, HostPhase
from tests.core.build import Bench, guest

MANY = [f"h{n}" for n in range(1, room.ALL_AT_ONCE + 12)]


def tick(bench: Bench, count: int, step_s: float = 0.1) -> None:
    for _ in range(count):
        bench.now += step_s
        for name in MANY:
            bench.look(name, heard=bench.now, fresh=bench.now)
        bench.send(Tick())


def test_every_host_at_rest_has_its_turn_also_when_ticks_are_late() -> None:
    for step_s in (0.1, 0.2, 0.31):
        bench = Bench(*MANY)
        ill = (Reading(part="mce", level=Level.CRITICAL, reason="bad DIMM"),)
        for name in MANY:
            bench.state.hosts[name] = changed(bench.state.hosts[name], health=ill)
            bench.look(name, observed_at=bench.now)
        tick(bench, 1, step_s)
        known = sum(Condition.DEGRADED in bench.host(name).conditions for name in MANY)
        assert 0 < known < len(MANY)
        tick(bench, 3 * room.TURNS, step_s)
        assert all(Condition.DEGRADED in bench.host(name).conditions for name in MANY)


def test_who_is_silent_or_owes_the_list_does_not_wait() -> None:
    bench = Bench(*MANY)
    late = [MANY[3], MANY[4], MANY[5]]
    for name in late:
        bench.put(changed(bench.host(name), protected_version=1))
    bench.now += 0.1
    bench.hear()
    bench.silence(MANY[20])
    bench.send(Tick())
    assert bench.host(MANY[20]).phase is HostPhase.SUSPECT
    asked = {pending.host for pending in bench.state.pending.values() if pending.kind == "protect"}
    assert asked == set(late)


def test_the_protected_list_is_made_once_for_all_hosts_and_is_as_new_as_the_decision() -> None:
    bench = Bench(*MANY).put(guest("g1", MANY[0]))
    draft = bench.draft()
    protection.list_changed(draft)
    for name in MANY[:2]:
        protection.push_list(draft, bench.host(name))
    draft.put_guest(changed(bench.guest("g1"), generation=7))
    protection.push_list(draft, bench.host(MANY[2]))
    first, second, third = [effect.body for effect in draft.decision().effects if isinstance(effect, Send)]
    assert isinstance(first, Protect)
    assert isinstance(second, Protect)
    assert isinstance(third, Protect)
    assert first.entries is second.entries
    assert [entry.generation for entry in third.entries] == [7]


def told(bench: Bench) -> set[str]:
    return {pending.host for pending in bench.state.pending.values() if pending.kind == "protect"}


def test_the_list_goes_to_so_many_hosts_in_a_decision_and_in_the_end_to_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protection, "TOLD_MAX", 20)
    bench = Bench(*MANY)
    bench.state.cluster = changed(bench.state.cluster, protected_version=99)
    counts = []
    for _ in range(4):
        tick(bench, 1)
        counts.append(len(told(bench)))
    assert counts == [20, 40, 60, len(MANY)]


def test_who_was_just_told_the_list_is_at_rest_until_it_has_had_time_to_answer() -> None:
    """Else every answer of one host would look at all the others again."""
    bench = Bench(*MANY)
    bench.state.cluster = changed(bench.state.cluster, protected_version=99)
    assert len(room._in_turn(bench.draft())) == len(MANY)
    tick(bench, 1)
    assert told(bench) == set(MANY)
    assert len(room._in_turn(bench.draft())) < len(MANY) / 5
    bench.now += protection.PUSH_AGAIN_S
    assert len(room._in_turn(bench.draft())) == len(MANY)


def test_inventories_are_compared_again_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "OBSERVED_AT_ONCE", 25)
    bench = Bench(*MANY)
    for name in MANY:
        bench.look(name, observed_at=bench.now - 60.0)
    for part in (25, 50, len(MANY)):
        tick(bench, 1)
        assert sum(bench.now - bench.state.views[name].observed_at < 1 for name in MANY) == part


def test_many_that_fall_silent_at_once_are_looked_at_by_those_who_are_left() -> None:
    """The witnesses are heard lately themselves, and not among those who became suspect in the same decision."""
    bench = Bench(*MANY)
    tick(bench, 1)
    silent = MANY[:30]
    for name in silent:
        bench.silence(name)
    bench.send(Tick())
    probes = [pending for pending in bench.state.pending.values() if pending.kind == "probe"]
    assert {pending.detail for pending in probes} == set(silent)
    assert not {pending.host for pending in probes} & set(silent)
    assert all(sum(pending.detail == name for pending in probes) == 3 for name in silent)
