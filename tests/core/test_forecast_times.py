"""When each guest of a drained host begins and ends, how long the whole takes, what that rests on, and the record."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dr.core import deadline, forecast, links, upkeep
from dr.core.forecast import Evacuation
from dr.core.rehearsal import EXTRA_S
from dr.core.schedule import Sending
from dr.core.tables import GuestEvent, move_guest
from dr.core.volatile import TurnedAway
from dr.model.base import changed
from dr.model.effects import Forecast, Reply
from dr.model.events import AskDrain, Tick
from dr.model.facts import Progress
from dr.model.operations import OperationState
from dr.model.policy import GuestPolicy, GuestRule, Limits
from dr.model.records import Desired, GuestRecord, HostPhase, MoveStage, Wish
from tests.core.build import Bench, domain, guest, host
from tests.core.test_links import bench, moving

WISH = Wish(by="ops")
MANY = dict.fromkeys(("h1", "h2", "h3"), 100)


def evacuation(made: Bench) -> Evacuation:
    return forecast.of_drain(made.draft(), made.host("h1"), WISH)


def whole(made: Bench) -> Forecast:
    found = evacuation(made).forecast
    assert found is not None
    return found


def times(made: Bench) -> dict[str, tuple[int, float | None, float | None]]:
    return {each.name: (each.send_mib, each.begins_s, each.ends_s) for each in evacuation(made).guests}


def test_two_at_once_over_the_link_and_each_with_what_it_takes_beside() -> None:
    made = bench(*(guest(n, "h1") for n in "abc"), resident={"a": 640, "b": 320, "c": 320}, mib_s=MANY)
    found = times(made)
    assert list(found) == ["a", "b", "c"]
    # a and b at 50 MiB/s each from 1.0 on; b ends at 7.4; a alone until c is prepared, at 8.4
    assert found["b"] == (320, 0.0, 7.4)
    assert found["c"][:2] == (320, 7.4)
    # then a has 640 - 320 - 100 = 220 left: until 12.8 at 50, where c has 100 left, alone until 13.8
    assert found["a"] == (640, 0.0, 12.8)
    assert found["c"][2] == 13.8
    assert (whole(made).total_s, whole(made).bound_s) == (13.8, 12.8)


def test_a_slow_destination_is_the_bound_of_what_goes_there() -> None:
    made = bench(guest("a", "h1"), resident={"a": 640}, mib_s={"h1": 100, "h2": 10, "h3": 20})
    (a,) = evacuation(made).guests
    assert (a.to, a.ends_s) == ("h3", EXTRA_S + 32)
    assert whole(made).bound_s == 32


def test_who_stays_has_no_times() -> None:
    made = bench(guest("a", "h1", blockers=("has a host device",)), guest("b", "h1"), mib_s=MANY)
    made.see("h1", domain("loose"))
    found = times(made)
    assert (found["a"], found["loose"]) == ((0, None, None), (0, None, None))
    assert found["b"] == (1024, 0.0, 11.2)
    alone = bench(guest("a", "h1", blockers=("has a host device",)))
    assert evacuation(alone).forecast is None, "nobody would move"
    assert evacuation(bench()).forecast is None


def test_what_is_under_way_counts_with_what_is_left() -> None:
    made = bench(guest("a", "h1"), moving("m", "h1", "h2"), moving("far", "h3", "h2"), mib_s=MANY)
    made.put(host("h1", HostPhase.DRAINING, facts=made.host("h1").facts, drain=WISH))
    left = Progress(guest="m", elapsed_s=5, total_mib=1024, remaining_mib=100, rate_mib_s=50)
    made.look("h1", progress={"m": left})
    found = times(made)
    assert found["m"][:2] == (100, 0.0)
    # m shares h2's link with the one from h3
    assert found["m"][2] == 2.0
    assert found["a"][1] == 0.0
    assert "far" not in found
    assert whole(made).bound_s == 11.2, "1124 MiB over the link of h1"


def test_a_move_that_comes_to_the_host_is_called_off_and_takes_no_time() -> None:
    made = bench(guest("a", "h1"), moving("in", "h3", "h1"), mib_s=MANY)
    found = times(made)
    assert found["in"] == (0, None, None)
    assert found["a"] == (1024, 0.0, 11.2)


def test_who_must_go_together_begins_together() -> None:
    made = bench(*(guest(n, "h1") for n in "abcd"), resident=dict.fromkeys("abcd", 640), mib_s=MANY)
    rule = GuestRule(name="trio", guests=("b", "c", "d"), kind="together", strict=True)
    made.state.settings = changed(made.state.settings, rules=(rule,))
    found = times(made)
    assert [found[name][1] for name in "bcd"] == [0.0, 0.0, 0.0]
    assert (found["a"][1] or 0) > 0, "three leave already"


def only_to_h2(*guests: GuestRecord) -> Bench:
    made = bench(*guests, mib_s=MANY)
    return made.put(host("h3", facts=changed(made.host("h3").facts, live_migration=False)))


def test_who_finds_its_destination_busy_begins_when_that_is_free() -> None:
    made = only_to_h2(guest("a", "h1"), moving("m", "h3", "h2"), moving("n", "h3", "h2"))
    left = Progress(guest="m", elapsed_s=5, total_mib=1024, remaining_mib=100, rate_mib_s=50)
    made.look("h3", progress={"m": left})
    found = times(made)
    assert found["a"][1] == 2.0, "m has gone, with half the link of h2"


def test_who_only_waits_for_a_pause_to_end_is_not_said_to_stay() -> None:
    made = only_to_h2(guest("a", "h1"))
    made.look("h2", turned_away={"a": TurnedAway(times=1, at=made.now, why="full")})
    assert times(made)["a"] == (1024, 0.0, 11.2)


def test_destinations_are_chosen_as_they_will_be_when_their_turn_comes() -> None:
    """Both are slow; told as if all left at once, the second half would be shared otherwise."""
    sizes = {"a": 1000, "b": 600, "c": 300}
    made = bench(*(guest(n, "h1") for n in sizes), resident=sizes, mib_s={"h1": 1000, "h2": 100, "h3": 100})
    to = {each.name: each.to for each in evacuation(made).guests}
    assert to["a"] != to["b"]
    assert to["c"] == to["b"], "that link is free when its turn comes"
    assert times(made)["c"][1] == times(made)["b"][2]


def test_what_it_rests_on_is_said() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1"), resident={"a": 640}, mib_s={"h2": 50})
    made.look("h3", sent_mib_s=(80.0, 80.0, 80.0))
    rests_on = whole(made).rests_on
    assert "h1, h3: 80 MiB/s each way, as h3 sent lately" in rests_on
    assert "h2: 50 MiB/s each way, as configured (migration_mib_s)" in rests_on
    assert "the whole memory of b: what of it is in use is not known" in rests_on
    assert (
        "a, b: how fast they make memory dirty is not measured yet: nothing is counted as sent again"
        in rests_on
    )
    assert len(rests_on) == 4
    seen = bench(guest("a", "h1"), resident={"a": 640}, mib_s={"h2": 50, "h3": 50})
    seen.look("h1", sent_mib_s=(80.0, 80.0, 80.0))
    assert whole(seen).rests_on[0] == "h1: 80 MiB/s each way, as it sent lately"
    bare = bench(guest("a", "h1"), resident={"a": 640})
    bare.put(host("h1", HostPhase.SUSPECT, facts=bare.host("h1").facts))
    bare.put(host("h2", HostPhase.DRAINING, facts=bare.host("h2").facts, drain=WISH))
    draft = bare.draft()
    draft.open_operation("drain", "h2", "new DIMM")
    bare.state.apply(draft)
    first, _, *others = whole(bare).rests_on
    assert first.startswith("h1, h3: 100 MiB/s each way, assumed, as none is configured")
    assert others == [
        "h2 being emptied at the same time: the moves from there are counted",
        "h1 is suspect: it begins when it is online again",
    ]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 64).map(lambda size: 64 * size), min_size=1, max_size=10),
    priorities=st.lists(st.sampled_from([100, 500]), min_size=10, max_size=10),
    out_max=st.integers(1, 4),
)
def test_over_links_alike_it_is_near_what_they_carry(
    sizes: list[int], priorities: list[int], out_max: int
) -> None:
    """Never below the bound; never above 4/3 of it but for what the first and last moves take beside the sending."""
    names = [f"g{at}" for at in range(len(sizes))]
    policies = [GuestPolicy(priority=each) for each in priorities]
    guests = [guest(n, "h1", policy=policy) for n, policy in zip(names, policies, strict=False)]
    made = bench(*guests, resident=dict(zip(names, sizes, strict=True)), mib_s=MANY)
    made.state.settings = changed(made.state.settings, limits=Limits(moves_out_per_host=max(2, out_max)))
    found = whole(made)
    assert found.bound_s == round(sum(sizes) / 100, 1)
    assert found.total_s >= found.bound_s
    assert found.total_s <= 4 / 3 * found.bound_s + EXTRA_S * (2 + len(sizes) / 2)


def test_who_is_late_and_what_becomes_of_it() -> None:
    """It is stopped before the deadline, and starts elsewhere if there is room."""
    names = ("gone", "half", "wait", "stuck", "huge")
    sizes = {"gone": 2048, "half": 1024, "wait": 512}
    made = bench(
        *(guest(name, "h1") for name in names[:3]),
        guest("stuck", "h1", blockers=("has a host device",)),
        guest("off", "h1", desired=Desired.STOPPED, blockers=("has a host device",)),
        guest("huge", "h1", needs=changed(guest("x").needs, memory_mib=10**6)),
        resident=sizes,
        mib_s=MANY,
    )
    made.state.settings = changed(made.state.settings, limits=Limits(moves_out_per_host=1))
    made.see("h1", domain("loose"))

    def foretold(deadline_s: float) -> forecast.Evacuation:
        now = made.draft().now
        wish = changed(WISH, at=now, deadline=now + deadline_s if deadline_s else 0.0)
        return forecast.of_drain(made.draft(), made.host("h1"), wish)

    assert {each.late for each in foretold(0.0).guests} == {""}
    told = foretold(50.0)  # a third of it for clean ends, and a tenth before they are destroyed
    assert told.forecast is not None
    assert told.forecast.deadline_s == 50.0
    found = {each.name: each.late for each in told.guests}
    assert found["wait"] == found["half"] == "", "the smallest first: both have arrived after 17.4 s"
    assert found["gone"] == "is stopped after 28 s, starts anew on h2"
    assert found["stuck"] == "is stopped after 28 s; it could not run elsewhere"
    assert found["off"] == "is stopped after 28 s; nobody starts it elsewhere"
    assert found["huge"] == "is stopped after 28 s; no other host could start it"
    assert found["loose"] == "nobody stops it, nor starts it elsewhere"
    assert {each.name for each in told.guests if each.stopped} == {"gone", "stuck", "off", "huge"}
    text = forecast.in_words(made.draft(), told, ["h1"])
    assert "too late to move live: huge, off, stuck, gone, loose" in text


def test_who_would_be_stopped_is_told_also_of_moves_under_way_and_not_of_who_is_left_alone() -> None:
    """A person confirms exactly these."""
    ignored = guest("ignored", "h1", desired=Desired.IGNORED, blockers=("has a host device",))
    made = bench(moving("sent", "h1", "h2"), ignored, resident={"sent": 8192}, mib_s=MANY)
    made.see("h1", domain("loose"))
    now = made.draft().now
    wish = changed(WISH, at=now, deadline=now + 50.0)
    told = {each.name: each for each in forecast.of_drain(made.draft(), made.host("h1"), wish).guests}
    assert {name: bool(each.late) for name, each in told.items()} == {
        "sent": True,
        "ignored": True,
        "loose": True,
    }
    assert [name for name, each in told.items() if each.stopped] == ["sent"]
    stays = changed(wish, leave_unprotected=True)
    left = forecast.of_drain(made.draft(), made.host("h1"), stays).guests
    assert {each.name for each in left if each.late} == {"sent", "ignored"}


def test_who_must_share_a_host_with_one_that_is_late_is_late() -> None:
    made = bench(*(guest(n, "h1") for n in "abc"), resident={"a": 512, "b": 4096, "c": 512}, mib_s=MANY)
    now = made.draft().now
    wish = changed(WISH, at=now, deadline=now + 50.0)

    def late() -> list[str]:
        told = forecast.of_drain(made.draft(), made.host("h1"), wish)
        return sorted(each.name for each in told.guests if each.late)

    assert late() == ["b"]
    rule = GuestRule(name="pair", guests=("a", "b"), kind="together", strict=True)
    made.state.settings = changed(made.state.settings, rules=(rule,))
    assert late() == ["a", "b"]


def test_a_rate_that_was_only_seen_is_doubted_while_the_link_is_idle() -> None:
    """Nothing would be measured anew, and everybody be stopped for one slow move."""
    made = bench(guest("big", "h1"), resident={"big": 1024})
    made.state.views["h1"] = changed(made.state.views["h1"], sent_mib_s=(1.0, 1.0, 1.0))
    draft = made.draft()
    wish = changed(WISH, at=draft.now, deadline=draft.now + 300.0)
    assert links.rates(draft).of("h1").basis == "seen"
    assert deadline.too_late(draft, made.guest("big"), wish) == ""
    links.imagine(draft, [Sending("other", "h1", "h2", 10.0)])
    assert "would not move live in time" in deadline.too_late(draft, made.guest("big"), wish)


# ---- the record


def drained(made: Bench) -> Reply:
    effects = made.send(AskDrain(id="d", by="ops", host="h1", reason="new DIMM"))
    return next(each for each in effects if isinstance(each, Reply))


def arrived(made: Bench, name: str) -> GuestRecord:
    """It has left, and runs where it was to go."""
    record = made.guest(name)
    assert record.move is not None
    to, boot = record.move.destination, record.move.destination_boot
    places = tuple(place for place in record.may_run_on if place.host == to)
    draft = made.draft()
    there = changed(record, may_run_on=places, holder=to, move=None)
    move_guest(draft, there, GuestEvent.SEEN_RUNNING, f"runs on {to}")
    draft.put_view("h1", guests={})
    made.state.apply(draft)
    assert boot
    made.see(to, domain(name))
    return made.guest(name)


def test_the_record_says_how_long_it_took_and_what_was_foretold() -> None:
    made = bench(guest("a", "h1"), mib_s=MANY)
    reply = drained(made)
    assert reply.forecast is not None
    (key,) = reply.operations
    assert made.state.operations[key].foreseen_s == reply.forecast.total_s == 11.2
    move = made.guest("a").move
    assert move is not None
    assert move.stage is MoveStage.RECEIVING
    made.now += 9.0
    made.hear()
    arrived(made, "a")
    made.send(Tick())
    operation = made.state.operations[key]
    assert operation.state is OperationState.DONE
    text = "h1 is empty and in maintenance after 9.0 s (forecast when it began: 11.2 s)"
    assert operation.steps[-1].text == text


def test_where_somebody_stays_nothing_is_foretold_of_the_end() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1", blockers=("has a host device",)), mib_s=MANY)
    (key,) = drained(made).operations
    assert made.state.operations[key].foreseen_s == 0.0
    empty = bench()
    (key,) = drained(empty).operations
    assert empty.state.operations[key].steps[-1].text == "h1 is empty and in maintenance after 0.0 s"
    assert upkeep.operation_of(empty.draft(), empty.host("h1")) is None
