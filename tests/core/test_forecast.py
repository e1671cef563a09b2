"""What a drain is told to do before it begins, guest by guest: the same as it then does."""

from __future__ import annotations

from typing import Any

import pytest

from dr.core import fleet
from dr.core.state import Draft
from dr.model.base import changed
from dr.model.effects import Foreseen, Reply
from dr.model.events import AskDrain, Tick
from dr.model.facts import DomainState
from dr.model.policy import GuestPolicy, GuestRule
from dr.model.records import GuestPhase, HostPhase, HostRecord, Pause, Wish
from tests.core.build import NOW, Bench, domain, facts, guest, host

WISH = Wish(by="bob", reason="new DIMM")


def bench(*guests: Any, live: tuple[str, ...] = ("h1", "h2", "h3")) -> Bench:
    made = Bench().put(*(host(n, facts=facts(n, live_migration=n in live)) for n in ("h1", "h2", "h3")))
    return made.put(*guests)


def ask(made: Bench, **fields: Any) -> Reply:
    effects = made.send(changed(AskDrain(id="d", by="ops", host="h1"), **fields))
    return next(each for each in effects if isinstance(each, Reply))


def foreseen(made: Bench, **fields: Any) -> dict[str, Foreseen]:
    """By a dry run, that has done nothing."""
    before = (made.host("h1"), dict(made.state.guests), dict(made.state.operations), dict(made.state.pending))
    reply = ask(made, dry_run=True, **fields)
    after = (made.host("h1"), dict(made.state.guests), dict(made.state.operations), dict(made.state.pending))
    assert reply.accepted
    assert reply.operations == ()
    assert after == before, "it was to be told only"
    return {each.name: each for each in reply.guests}


def test_what_is_told_is_what_is_done() -> None:
    """In the order of their turns, each seeing the place that those before it took."""
    made = bench(
        guest("a", "h1"),
        guest("b", "h1", policy=GuestPolicy(priority=500)),
        guest("c", "h1", GuestPhase.RUNNING),
    )
    told = foreseen(made)
    assert list(told) == ["b", "a", "c"]
    assert {each.fate for each in told.values()} == {"live"}
    assert {told["a"].to, told["b"].to} == {"h2", "h3"}, (
        "the second does not go where the first makes it full"
    )
    reply = ask(made)
    assert {each.name: each.to for each in reply.guests} == {name: each.to for name, each in told.items()}
    moving = {name: record.move.destination for name, record in made.state.guests.items() if record.move}
    assert moving == {name: told[name].to for name in ("a", "b")}, "two leave at once, as the bounds allow"


def test_those_before_it_take_the_place() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1"), guest("c", "h1"), live=("h1", "h2"))
    made.put(host("h2", facts=facts("h2", live_migration=True, memory_mib=512 + 2 * 1024 + 300)))
    told = foreseen(made)
    assert [(told[name].fate, told[name].to) for name in ("a", "b")] == [("live", "h2"), ("live", "h2")]
    assert told["c"].fate == "blocked"
    assert "h2: has 300 MiB free above the reserve of 512, it needs 1024" in told["c"].why[0]
    assert "h3: not live, without migration_uri in /etc/dr/agent.yaml there" in told["c"].why


def test_a_long_forecast_looks_at_what_has_changed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else hundreds of guests keep the coordinator from its heartbeats for seconds."""
    names = [f"h{number}" for number in range(1, 41)]
    made = Bench(*names).put(*(host(n, facts=facts(n, live_migration=True, memory_mib=10**6)) for n in names))
    made.put(*(guest(f"g{number}", "h1") for number in range(40)))
    made.send(Tick())
    looked: list[str] = []
    row = fleet._row

    def counted(draft: Draft, record: HostRecord) -> fleet.Row:
        looked.append(record.name)
        return row(draft, record)

    monkeypatch.setattr(fleet, "_row", counted)
    assert len({each.to for each in foreseen(made).values()}) == 39
    assert len(looked) < 4 * 40, "each move changes two hosts"


def test_it_says_who_stays_in_one_sentence() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1", blockers=("has a host device",)))
    made.see("h1", domain("loose"))
    reply = ask(made, dry_run=True)
    assert (
        reply.message == "h1: 1 of 3 guests would move live, in about 11 s (10 s at best);"
        " it would not get empty before these have left: b, loose"
    )
    assert ask(bench(guest("a", "h1")), dry_run=True).message == (
        "h1: 1 of 1 guests would move live, in about 11 s (10 s at best); then it would be in maintenance"
    )
    assert ask(bench(), dry_run=True).message == (
        "h1: no guest is known to run there; then it would be in maintenance"
    )
    silent = bench(guest("a", "h1"))
    silent.look("h1", inventory=False)
    assert "does not say what runs there" in ask(silent, dry_run=True).message


def test_every_reason_and_what_would_help() -> None:
    made = bench(guest("a", "h1"), live=("h2",))
    made.put(
        host("h2", cordon=WISH, facts=facts("h2", live_migration=True)),
        host("h3", HostPhase.SUSPECT, facts=facts("h3")),
    )
    made.see("h1", domain("a", DomainState.PMSUSPENDED))
    made.state.cluster = changed(made.state.cluster, pause=Pause(reason="night", by="ops", at=NOW))
    told = foreseen(made)["a"]
    assert told.fate == "blocked"
    text = "; ".join(told.why)
    for reason in (
        "automation is paused (night)",
        "a is pmsuspended on h1",
        "h1: its agent cannot migrate guests live",
        "h2: is cordoned by bob: new DIMM",
        "h3: not live",
    ):
        assert reason in text, reason
    for fix in (
        "dr resume",
        "virsh dompmwakeup a, on h1",
        "migration_uri in /etc/dr/agent.yaml of h1",
        "dr host uncordon h2",
        "bring h3 back: dr host show h3",
        "dr guest stop a",
    ):
        assert fix in told.todo, fix


@pytest.mark.parametrize(
    ("fields", "fix"),
    [
        ({"drain": WISH, "phase": HostPhase.MAINTENANCE}, "dr host undrain h2"),
        ({"facts": facts("h2")}, "migration_uri in /etc/dr/agent.yaml of h2"),
    ],
    ids=str,
)
def test_hosts_that_could_be_brought_back_into_play(fields: dict[str, Any], fix: str) -> None:
    made = bench(guest("a", "h1"), live=("h1",)).put(changed(host("h2"), **fields))
    assert fix in foreseen(made)["a"].todo


def test_a_stop_here_and_start_there_is_offered_where_it_can_be_done() -> None:
    assert "dr guest relocate a" in foreseen(bench(guest("a", "h1"), live=()))["a"].todo
    tied = bench(guest("a", "h1", blockers=("has a host device",)))
    assert foreseen(tied)["a"].todo == ("dr guest stop a",)


def test_a_guest_that_does_not_run_is_to_be_looked_at() -> None:
    made = bench(guest("a", "h1", GuestPhase.STOPPING, reason="because"))
    told = next(iter(ask(made, dry_run=True).guests))
    assert (told.fate, told.why[0]) == ("blocked", "a is stopping: because")
    assert told.todo == ("see what it waits for: dr guest show a",)


def test_unprotected_guests_stay_if_they_may() -> None:
    made = bench()
    made.see("h1", domain("loose"))
    told = foreseen(made)["loose"]
    assert (told.fate, told.to) == ("blocked", "")
    assert "dr guest protect loose" in told.todo
    assert foreseen(made, leave_unprotected=True)["loose"].fate == "left"


def test_guests_that_must_share_a_host_are_told_to_go_together() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1"))
    rule = GuestRule(name="pair", kind="together", guests=("a", "b"), strict=True)
    made.state.settings = changed(made.state.settings, rules=(rule,))
    told = foreseen(made)
    assert told["a"].to == told["b"].to != ""


def test_a_guest_on_its_way_is_told_where_it_will_be() -> None:
    made = bench(guest("a", "h1"))
    ask(made)
    assert made.guest("a").phase is GuestPhase.MIGRATING
    to = made.guest("a").move
    assert to is not None
    assert foreseen(made)["a"].to == to.destination
    reply = ask(made, host=to.destination, dry_run=True)
    assert [(each.fate, each.to) for each in reply.guests] == [("live", "h1")], (
        "it is called off, and stays there"
    )
