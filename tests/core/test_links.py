"""What links carry: how much a guest sends, how fast hosts are, which destination has it there soon, who goes first."""

from __future__ import annotations

from typing import Any

import pytest

from dr.core import departures, links, moves, preflight, upkeep
from dr.core.departures import Leaver
from dr.core.links import ASSUMED_MIB_S, Rate
from dr.core.state import Draft
from dr.core.volatile import TurnedAway
from dr.model.base import changed
from dr.model.events import Reported, Tick
from dr.model.facts import Progress
from dr.model.policy import GuestPolicy, GuestRule, HostPolicy, Limits
from dr.model.records import GuestPhase, GuestRecord, HostPhase, Move, MoveStage, Place, Wish
from tests.core.build import Bench, domain, facts, guest, host

NAMES = ("h1", "h2", "h3")


def bench(
    *guests: GuestRecord, resident: dict[str, int] | None = None, mib_s: dict[str, int] | None = None
) -> Bench:
    """Hosts that move guests live, each with the rate that is configured for it."""
    made = Bench(*NAMES).put(*(host(n, facts=facts(n, live_migration=True, memory_mib=65536)) for n in NAMES))
    policies = {name: HostPolicy(name=name, migration_mib_s=rate) for name, rate in (mib_s or {}).items()}
    made.state.settings = changed(made.state.settings, hosts=policies)
    made.put(*guests)
    for name, mib in (resident or {}).items():
        made.see(made.guest(name).holder, domain(name, memory_mib=4096, resident_mib=mib))
    return made


def moving(name: str, source: str, to: str, stage: MoveStage = MoveStage.COPYING) -> GuestRecord:
    places = tuple(Place(host=each, boot_id=f"{each}-b1", generation=1) for each in (source, to))
    move = Move(stage=stage, source=source, destination=to)
    return guest(name, source, GuestPhase.MIGRATING, may_run_on=places, move=move)


def sends(made: Bench, name: str, *rates: float, after: float = 1.0) -> None:
    """Its agent tells of moves out of it, together so fast."""
    told = tuple(
        Progress(guest=f"m{n}", elapsed_s=1, total_mib=1024, remaining_mib=512, rate_mib_s=rate)
        for n, rate in enumerate(rates)
    )
    made.send(Reported(host=name, session=f"s-{name}", moves=told), after=after)


def rate(made: Bench, name: str) -> Rate:
    return links.rates(made.draft()).of(name)


def test_a_guest_with_a_bandwidth_of_its_own_shows_nothing_of_the_link() -> None:
    capped = GuestPolicy(move_mib_s=15)
    for policy, basis in ((capped, "assumed"), (GuestPolicy(), "seen")):
        made = bench(changed(moving("m0", "h1", "h2"), policy=policy))
        for _ in range(5):
            sends(made, "h1", 15.0)
        assert rate(made, "h1").basis == basis


# ---- sizes


def test_what_is_resident_would_be_sent_else_all_of_it() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1"), guest("c", "h1"), resident={"a": 640, "b": 0})
    made.look("h1", guests={key: each for key, each in made.state.views["h1"].guests.items() if key != "c"})
    draft = made.draft()
    told = {name: links.to_send_mib(draft, made.guest(name)) for name in "abc"}
    assert told == {"a": 640, "b": 4096, "c": 1024}, "c is not seen: what its definition needs"


# ---- rates


def test_a_configured_rate_is_believed_the_hosts_own_first() -> None:
    made = bench(mib_s={"h1": 20, "h2": 0})
    made.state.settings = changed(made.state.settings, limits=Limits(migration_mib_s=300))
    sends(made, "h1", 999.0)
    assert rate(made, "h1") == Rate(20.0, "configured")
    assert rate(made, "h3") == Rate(300.0, "configured")
    assert rate(made, "h2").basis != "configured", "0 = not known there"


def test_what_was_seen_is_of_all_moves_together_and_of_no_burst() -> None:
    made = bench()
    assert rate(made, "h1") == Rate(ASSUMED_MIB_S, "assumed")
    sends(made, "h1", 50.0, 60.0)
    sends(made, "h1", 55.0, 55.5)
    assert rate(made, "h1").basis == "assumed", "two looks tell too little"
    sends(made, "h1")
    sends(made, "h1", 0.0)
    assert rate(made, "h1").basis == "assumed", "nor does a link that is idle"
    for each in (112.0, 900.0, 30.0, 108.0, 107.0, 20.0):
        sends(made, "h1", each)
    assert rate(made, "h1") == Rate(110.5, "seen", "h1")
    assert rate(made, "h2") == Rate(110.5, "seen", "h1"), "of the others it is the best that is known"


def test_what_was_seen_long_ago_gives_way() -> None:
    made = bench()
    for _ in range(10):
        sends(made, "h1", 500.0)
    for _ in range(links.SAMPLES_MAX):
        sends(made, "h1", 80.0)
    assert rate(made, "h1").mib_s == 80.0
    assert len(made.state.views["h1"].sent_mib_s) == links.SAMPLES_MAX


# ---- traffic


def test_traffic_counts_what_is_still_to_be_sent() -> None:
    made = bench(
        moving("m0", "h1", "h2"),
        moving("m1", "h1", "h3", MoveStage.RECEIVING),
        moving("m2", "h3", "h2", MoveStage.RESUMING),
    )
    half = Progress(guest="m0", elapsed_s=1, total_mib=1024, remaining_mib=512, rate_mib_s=50)
    made.look("h1", progress={"m0": half})
    now = links.traffic(made.draft())
    assert now.leaving == {"h1": 2, "h3": 1}
    assert now.coming == {"h2": 2, "h3": 1}
    assert now.out_mib == {"h1": 512 + 1024, "h3": 0.0}, "what has arrived and resumes sends nothing more"
    assert now.in_mib == {"h2": 512.0, "h3": 1024.0}
    busy = changed(half, dirty_mib_s=25)
    made.look("h1", progress={"m0": busy})
    assert links.traffic(made.draft()).in_mib["h2"] == 1024.0, "half of what is sent becomes dirty again"
    made.look("h1", progress={"m0": changed(half, dirty_mib_s=60)})
    assert links.traffic(made.draft()).in_mib["h2"] == 512.0, "it never ends like this: nothing is known"


def test_traffic_follows_what_is_decided() -> None:
    made = bench(guest("a", "h1"))
    draft = made.draft()
    assert links.traffic(draft).leaving == {}
    draft.put_guest(moving("a", "h1", "h2"))
    assert links.traffic(draft).leaving == {"h1": 1}


# ---- destinations


def chosen(made: Bench, name: str) -> str:
    return preflight.elsewhere(made.draft(), made.guest(name), {"h1"}).host


def test_of_two_alike_the_free_link_takes_it() -> None:
    """The emptier host is receiving from another one; where both links are free, it is chosen."""
    fuller = [guest(f"x{n}", "h3") for n in range(8)]
    made = bench(guest("a", "h1"), *fuller)
    assert chosen(made, "a") == "h2"
    made.put(moving("m0", "h3", "h2"))
    assert chosen(made, "a") == "h3"


def test_where_the_source_is_the_narrow_place_load_decides() -> None:
    made = bench(guest("a", "h1"), moving("m0", "h1", "h2"), *(guest(f"x{n}", "h3") for n in range(8)))
    assert chosen(made, "a") == "h2", "behind what goes out of h1 it is no later there"


def test_a_slow_link_is_not_given_all() -> None:
    made = bench(
        guest("a", "h1"), *(guest(f"x{n}", "h3") for n in range(8)), mib_s={"h1": 1000, "h2": 50, "h3": 500}
    )
    assert chosen(made, "a") == "h3"
    made.put(*(moving(f"m{n}", "h2", "h3") for n in range(20)))
    assert chosen(made, "a") == "h2", "twenty are on their way to the other"


def test_a_little_later_is_as_good() -> None:
    made = bench(
        guest("a", "h1"), *(guest(f"x{n}", "h3") for n in range(8)), mib_s={"h1": 1000, "h2": 90, "h3": 100}
    )
    assert chosen(made, "a") == "h2"


def test_a_guest_that_was_seen_nowhere_yet_is_judged_too() -> None:
    made = bench(guest("a", "h1", holder=""), guest("b", "h1", holder="h9"))
    assert {chosen(made, "a"), chosen(made, "b")} == {"h2"}


def test_rules_come_before_links() -> None:
    made = bench(guest("a", "h1"), guest("x", "h2"), moving("m0", "h3", "h2"))
    rule = GuestRule(name="beside", guests=("a", "x"), kind="together")
    made.state.settings = changed(made.state.settings, rules=(rule,))
    assert chosen(made, "a") == "h2"


def test_who_turned_it_away_comes_last_and_is_better_than_nobody() -> None:
    made = bench(guest("a", "h1"), guest("x", "h3"))
    assert chosen(made, "a") == "h2"
    made.look("h2", turned_away={"a": TurnedAway(times=1, at=made.now, why="full")})
    assert chosen(made, "a") == "h3"
    assert chosen(made, "x") == "h2", "others it may take"
    assert preflight.elsewhere(made.draft(), made.guest("a"), {"h1", "h3"}).host == "h2"
    made.now += links.AGAIN_S
    assert chosen(made, "a") == "h2"


def turned_away(made: Bench, times: int) -> str:
    draft = made.draft()
    for _ in range(times):
        links.note_turned_away(draft, "a", "h2", "full")
    made.state.apply(draft)
    return links.why_not_yet(made.draft(), made.guest("a"), "h2")


def test_pauses_grow_and_end_with_an_arrival() -> None:
    made = bench(guest("a", "h1"))
    assert "its last move to h2 came to nothing (full); the next is tried 5 s after" in turned_away(made, 1)
    assert "its last 3 moves to h2 came to nothing (full); the next is tried 20 s after" in turned_away(
        made, 2
    )
    assert "300 s after" in turned_away(made, 20)
    made.now += 2 * links.AGAIN_MAX_S
    assert "its last move" in turned_away(made, 1), "what was long ago does not count"
    draft = made.draft()
    links.note_arrived(draft, "a", "h2")
    assert links.why_not_yet(draft, made.guest("a"), "h2") == ""


# ---- turns


def turns(made: Bench) -> list[str]:
    draft: Draft = made.draft()
    leavers = (Leaver(each, None) for each in upkeep.guests_on(draft, made.host("h1")))
    return [each.guest.name for each in departures.in_turn(draft, leavers)]


def test_priority_then_the_longest_then_names() -> None:
    first = GuestPolicy(priority=500)
    made = bench(
        *(guest(name, "h1") for name in "abcd"),
        guest("small", "h1", policy=first),
        guest("large", "h1", policy=first),
        resident={"a": 640, "b": 2048, "c": 640, "d": 1024, "small": 64, "large": 128},
    )
    assert turns(made) == ["large", "small", "b", "d", "a", "c"]


def test_who_must_go_together_is_as_long_as_all_of_them() -> None:
    made = bench(
        *(guest(name, "h1") for name in "abc"), guest("far", "h3"), resident={"a": 640, "b": 512, "c": 1024}
    )
    rules: tuple[Any, ...] = (GuestRule(name="pair", guests=("a", "b", "far"), kind="together", strict=True),)
    made.state.settings = changed(made.state.settings, rules=rules)
    assert turns(made) == ["a", "b", "c"], "who runs elsewhere does not go along"


def test_of_hundreds_some_are_tried_each_time_and_the_first_that_are_stuck_hold_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = GuestPolicy(priority=500)
    stuck = [guest(f"s{n:02}", "h1", policy=first, blockers=("has a host device",)) for n in range(15)]
    made = bench(*stuck, *(guest(f"w{n:02}", "h1") for n in range(85)))
    made.state.settings = changed(made.state.settings, limits=Limits(moves_out_per_host=1))
    made.put(changed(made.host("h1"), drain=Wish(by="ops"), phase=HostPhase.DRAINING))
    judged: list[str] = []
    begin = moves.begin_together

    def counted(draft: Draft, record: GuestRecord, **how: Any) -> list[str]:
        judged.append(record.name)
        return begin(draft, record, **how)

    monkeypatch.setattr(moves, "begin_together", counted)
    for _ in range(4):
        made.hear()
        before = len(judged)
        made.send(Tick(), after=departures.AGAIN_S)
        assert 0 < len(judged) - before <= departures.FIRST_MAX + departures.OTHERS_MAX
    assert set(judged) == set(made.state.guests), "each has had its turn"
    (operation,) = made.state.operations.values()
    assert "waits for its turn" not in operation.guests.values()
    assert operation.guests["s14"] == "waits: s14 could not run elsewhere: has a host device"
    (moved,) = [record.name for record in made.state.guests.values() if record.move]
    assert moved.startswith("w")
