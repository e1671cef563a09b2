"""Hosts that are emptied together, and plans of that: made, approved, followed, or refused with every difference."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.core import approval, forecast, moves, upkeep
from dr.core.forecast import Evacuation
from dr.core.wishes import with_wishes
from dr.model.base import changed
from dr.model.effects import Foreseen, Reply
from dr.model.events import AskApply, AskDrain, AskUndrain, Leaving, Tick
from dr.model.operations import OperationState
from dr.model.policy import GuestPolicy, GuestRule, HostPolicy, HostRule, Limits
from dr.model.records import Desired, GuestRecord, HostPhase, Wish
from tests.core.build import Bench, domain, facts, guest, host
from tests.core.test_dirtying import sampled
from tests.core.test_drain_times import Net
from tests.core.test_ladder import writes

WISH = Wish(by="ops")


def bench(
    *guests: GuestRecord, names: str = "h1 h2 h3 h4", resident: dict[str, int] | None = None, **limits: int
) -> Bench:
    """All hosts move guests live, at 100 MiB/s."""
    hosts = names.split()
    made = Bench(*hosts).put(*(host(n, facts=facts(n, live_migration=True, memory_mib=65536)) for n in hosts))
    made.state.settings = changed(
        made.state.settings,
        limits=Limits(**limits),
        hosts={name: HostPolicy(name=name, migration_mib_s=100) for name in hosts},
    )
    made.put(*guests)
    for name, mib in (resident or {}).items():
        made.see(made.guest(name).holder, domain(name, memory_mib=4096, resident_mib=mib))
    return made


def foretold(made: Bench, *names: str, **wish: Any) -> Evacuation:
    return forecast.of_drains(made.draft(), dict.fromkeys(names, changed(WISH, **wish)))


def plan_of(made: Bench, *names: str, deadline_s: float = 0.0) -> AskApply:
    draft = made.draft()
    wish = changed(WISH, at=made.now, deadline=made.now + deadline_s if deadline_s else 0.0)
    told = forecast.of_drains(draft, dict.fromkeys(names, wish))
    return AskApply(
        id="a",
        by="ops",
        plan="p",
        hosts=names,
        approved=approval.approved(draft, told.guests),
        rules=approval.digest_of_rules(draft.config),
        deadline_s=deadline_s,
    )


def ask(made: Bench, plan: AskApply, **fields: Any) -> Reply:
    return next(each for each in made.send(changed(plan, **fields)) if isinstance(each, Reply))


def together(found: list[Foreseen], at_s: float, which: Callable[[Foreseen], str]) -> dict[str, int]:
    """How many are under way at that moment, by host."""
    counts: dict[str, int] = {}
    for each in found:
        assert each.begins_s is not None
        assert each.ends_s is not None
        if each.begins_s <= at_s < each.ends_s:
            counts[which(each)] = counts.get(which(each), 0) + 1
    return counts


# ---- one rehearsal over several hosts


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40).map(lambda size: 64 * size), min_size=2, max_size=12),
    hosts=st.lists(st.sampled_from(["h1", "h2"]), min_size=12, max_size=12),
    priorities=st.lists(st.sampled_from([100, 500]), min_size=12, max_size=12),
    bounds=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_bounds_hold_at_every_moment_and_the_emptied_take_nobody(
    sizes: list[int], hosts: list[str], priorities: list[int], bounds: tuple[int, int]
) -> None:
    names = [f"g{at}" for at in range(len(sizes))]
    guests = [
        guest(name, on, policy=GuestPolicy(priority=priority))
        for name, on, priority in zip(names, hosts, priorities, strict=False)
    ]
    made = bench(
        *guests,
        resident=dict(zip(names, sizes, strict=True)),
        moves_out_per_host=bounds[0],
        moves_in_per_host=bounds[1],
    )
    told = foretold(made, "h1", "h2")
    found = list(told.guests)
    assert {each.fate for each in found} == {"live"}
    assert {each.to for each in found} <= {"h3", "h4"}
    assert {each.name: each.host for each in found} == dict(zip(names, hosts, strict=False))
    for moment in [each.begins_s or 0.0 for each in found]:
        assert max(together(found, moment, lambda each: each.host).values()) <= bounds[0]
        assert max(together(found, moment, lambda each: each.to).values()) <= bounds[1]
    assert told.forecast is not None
    assert told.forecast.total_s >= told.forecast.bound_s


def test_a_priority_on_one_host_goes_before_what_is_long_on_another() -> None:
    first = GuestPolicy(priority=500)
    made = bench(
        guest("long", "h1"), guest("first", "h2", policy=first), guest("second", "h2"),
        names="h1 h2 h3", resident={"long": 4000, "first": 100, "second": 200}, moves_in_per_host=1,
    )  # fmt: skip
    told = sorted(foretold(made, "h1", "h2").guests, key=lambda each: each.begins_s or 0.0)
    assert [each.name for each in told] == ["first", "long", "second"]
    for name in ("h1", "h2"):
        made.put(with_wishes(made.host(name), cordon=None, drain=WISH))
    made.send(Tick())
    assert [each.id for each in made.state.guests.values() if each.move] == ["first"], "so it is done"


def test_whose_host_is_in_a_hurry_goes_first() -> None:
    made = bench(guest("a", "h1"), guest("b", "h2"), names="h1 h2 h3", moves_in_per_host=1)
    draft = made.draft()
    hurried = changed(WISH, at=made.now, deadline=made.now + 600)
    told = forecast.of_drains(draft, {"h1": WISH, "h2": hurried})
    assert {each.name: each.begins_s for each in told.guests} == {"b": 0.0, "a": 11.2}


def test_what_waits_on_a_host_that_is_drained_already_is_counted() -> None:
    """Else two drains that a person began one after the other would each be told half of their time."""
    made = bench(
        guest("z", "h1"), guest("b", "h2"), guest("c", "h2"),
        names="h1 h2 h3", resident={"c": 2048}, moves_in_per_host=1,
    )  # fmt: skip
    cordon(made, "h1")
    alone = foretold(made, "h1").forecast
    assert alone is not None
    assert alone.total_s == 11.2
    reply = next(each for each in made.send(AskDrain(id="1", by="ops", host="h2")) if isinstance(each, Reply))
    assert reply.accepted
    told = foretold(made, "h1")
    assert told.forecast is not None
    assert told.forecast.total_s == pytest.approx(20.5 + 11.2 + 11.2, abs=0.2), (
        "c is on its way, b waits before z"
    )
    assert [each.name for each in told.guests] == ["z"], (
        "only those of the host that was asked about are told"
    )
    assert told.forecast.bound_s == alone.bound_s
    assert "h2 being emptied at the same time: the moves from there are counted" in told.forecast.rests_on


def test_what_leaves_a_host_that_announced_its_shutdown_is_counted() -> None:
    made = bench(guest("z", "h1"), guest("b", "h2"), names="h1 h2 h3", moves_in_per_host=1)
    cordon(made, "h1")
    made.send(Leaving(host="h2", session="s-h2", kind="shutdown"))
    assert made.guest("b").move is not None
    told = foretold(made, "h1")
    assert told.forecast is not None
    assert told.forecast.total_s == pytest.approx(10.2 + 11.2, abs=0.2)
    assert "h2 being emptied at the same time: the moves from there are counted" in told.forecast.rests_on
    made.now += made.state.settings.timers.leave_drain_s
    late = foretold(made, "h1").forecast
    assert late is not None
    assert not [each for each in late.rests_on if "h2 being emptied" in each], (
        "it is too late for moves from there"
    )


def test_a_destination_that_is_busy_does_not_make_everybody_be_tried_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two hosts with a hundred guests, and one that takes them: each is tried when there is room for it."""
    made = bench(
        *(guest(f"g{at:03}", f"h{1 + at % 2}") for at in range(100)), names="h1 h2 h3", moves_in_per_host=1
    )
    tried: list[str] = []
    way = moves.way

    def counted(draft: Any, record: GuestRecord, first: str) -> Any:
        tried.append(record.id)
        return way(draft, record, first)

    monkeypatch.setattr(moves, "way", counted)
    assert foretold(made, "h1", "h2").forecast is not None
    assert len(tried) < 5 * 100


def test_in_words_each_host_is_told() -> None:
    made = bench(guest("a", "h1"), guest("b", "h2", blockers=("has a host device",)))
    told = foretold(made, "h1", "h2")
    assert forecast.in_words(made.draft(), told, ["h1", "h2"]).splitlines() == [
        "2 hosts: 1 of 2 guests would move live, in about 11 s (10 s at best)",
        "h1: 1 of 1 guests would move live, in about 11 s; then it would be in maintenance",
        "h2: 0 of 1 guests would move live; it would not get empty before these have left: b",
    ]


def test_who_is_on_its_way_between_two_of_them_is_not_said_to_arrive() -> None:
    made = bench(guest("a", "h1"))
    made.send(AskDrain(id="1", by="ops", host="h1"))
    move = made.guest("a").move
    assert move is not None
    (told,) = foretold(made, "h1", move.destination).guests
    assert (told.fate, told.why) == (
        "blocked",
        (f"it is on its way to {move.destination}, which is to be emptied too: called off first",),
    )


# ---- plans that are followed


@pytest.mark.parametrize("seed", range(3))
def test_a_plan_for_two_hosts_comes_true(seed: int) -> None:
    """Each goes where it was approved to go, within the bounds, in about the time that was told."""
    rng = random.Random(seed)
    sizes = {f"g{at}": 64 * rng.randint(1, 16) for at in range(10)}
    made = bench(*(guest(name, rng.choice(["h1", "h2"])) for name in sizes), resident=sizes)
    plan = plan_of(made, "h1", "h2")
    net = Net(made, dict.fromkeys(("h1", "h2", "h3", "h4"), 100))
    told, jobs = net.run(plan)
    assert {job.state for job in jobs} == {OperationState.DONE}
    assert {name: made.guest(name).holder for name in sizes} == {each.name: each.to for each in plan.approved}
    took_s = max(job.closed for job in jobs) - jobs[0].opened
    assert took_s == pytest.approx(told.total_s, rel=0.2)
    assert (net.most_in, net.most_out) <= (2, 2)
    assert not [step for job in jobs for step in job.steps if "not to" in step.text]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40).map(lambda size: 64 * size), min_size=1, max_size=10),
    seed=st.integers(0, 1000),
)
def test_a_plan_holds_as_long_as_nothing_happens(sizes: list[int], seed: int) -> None:
    """Whatever the rules, priorities and bounds: followed, it comes to the same fates and destinations."""
    rng = random.Random(seed)
    names = [f"g{at}" for at in range(len(sizes))]
    guests = [
        guest(
            name,
            rng.choice(["h1", "h2"]),
            policy=GuestPolicy(priority=rng.choice([100, 500])),
            desired=rng.choice([Desired.RUNNING, Desired.IGNORED]),
            blockers=("has a host device",) if rng.random() < 0.1 else (),
            needs=changed(guest("x").needs, memory_mib=rng.choice([1024, 30_000])),
        )
        for name in names
    ]
    made = bench(*guests, resident=dict(zip(names, sizes, strict=True)), moves_in_per_host=rng.randint(1, 2))
    rules = (
        GuestRule(name="pair", guests=tuple(names[:2]), kind="together", strict=True),
        GuestRule(name="apart", guests=tuple(names[2:4]), kind="apart", strict=rng.random() < 0.5),
        HostRule(name="likes", guests=tuple(names[4:6]), hosts={"h4": 10}),
    )
    made.state.settings = changed(made.state.settings, rules=rules)
    plan = plan_of(made, "h1", "h2", deadline_s=rng.choice([0.0, 0.0, 60.0]))
    reply = ask(made, plan, dry_run=True)
    assert reply.accepted
    assert (reply.differences, reply.noted) == ((), ())
    assert reply.operations == ()
    assert {host.drain for host in made.state.hosts.values()} == {None}, "it was to be told only"


def test_the_destination_of_the_plan_is_the_first_choice_and_its_turn_counts() -> None:
    """Though without it the guest would go elsewhere, and another first."""
    made = bench(guest("a", "h1"), guest("b", "h1"), resident={"a": 2048, "b": 100}, moves_out_per_host=1)
    plan = plan_of(made, "h1")
    assert [(each.name, each.to) for each in plan.approved] == [("a", "h2"), ("b", "h3")]
    a, b = plan.approved
    edited = changed(plan, approved=(changed(b, to="h4"), changed(a, to="h4")))
    reply = ask(made, edited)
    assert reply.accepted
    assert reply.differences == ()
    assert [each.to for each in reply.guests] == ["h4", "h4"]
    assert made.guest("a").move is None
    move = made.guest("b").move
    assert move is not None
    assert move.destination == "h4"
    (key,) = reply.operations
    job = made.state.operations[key]
    assert {name: each.to for name, each in job.planned.items()} == {"a": "h4", "b": "h4"}
    assert job.foreseen_s > 0
    assert job.steps[0].text == "h1: follows plan p: 2 guests with their destinations"


def test_applied_twice_nothing_more_is_begun() -> None:
    made = bench(guest("a", "h1"), guest("b", "h2"))
    plan = plan_of(made, "h1", "h2")
    first = ask(made, plan)
    assert len(first.operations) == 2
    before = (made.state.hosts, made.state.operations)
    again = ask(made, plan, id="again")
    assert again.accepted
    assert again.operations == first.operations
    assert again.message == "plan p was applied already: h1 is draining, h2 is draining"
    assert (made.state.hosts, made.state.operations) == before
    assert ask(made, changed(plan, plan="other")).operations == first.operations
    assert {made.host(name).drain.plan for name in plan.hosts} == {"other"}, "compared anew, and taken on"  # type: ignore[union-attr]


def test_what_a_person_took_back_is_begun_again_only_if_it_holds() -> None:
    made = bench(guest("a", "h1", blockers=("has a host device",)))
    plan = plan_of(made, "h1")
    (first,) = ask(made, plan).operations
    made.send(AskUndrain(id="u", by="ops", host="h1"))
    made.send(Tick(), after=1.0)
    (second,) = ask(made, plan).operations
    assert first != second


def test_a_drain_that_was_under_way_follows_it_from_then_on() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1"), moves_out_per_host=1)
    made.send(AskDrain(id="d", by="ops", host="h1"))
    draft = made.draft()
    operation = upkeep.operation_of(draft, made.host("h1"))
    assert operation is not None
    plan = plan_of(made, "h1")
    assert ask(made, plan).operations == (operation.id,)
    assert made.host("h1").drain == Wish(by="ops", reason="plan p", at=made.now, plan="p")
    assert set(made.state.operations[operation.id].planned) == {"a", "b"}


# ---- plans that do not hold


def cordon(made: Bench, name: str) -> None:
    made.put(with_wishes(made.host(name), cordon=changed(WISH, reason="new fan"), drain=None))


def gone(made: Bench) -> None:
    draft = made.draft()
    draft.drop_guest("a")
    draft.put_view("h1", guests={k: v for k, v in draft.view("h1").guests.items() if k != "a"})
    made.state.apply(draft)


def moved(made: Bench, to: str) -> None:
    gone(made)
    made.put(guest("a", to))


DIFFERENT: dict[str, tuple[Callable[[Bench], object], str]] = {
    "appeared": (
        lambda made: made.put(guest("new", "h1")),
        "new: is on h1 now, and not in the plan; it moves live to h4",
    ),
    "appeared, and nobody protects it": (
        lambda made: made.see("h1", domain("loose")),
        "loose: is on h1 now, and not in the plan; it cannot leave",
    ),
    "gone": (gone, "a: is not on h1 any more"),
    "moved elsewhere": (
        lambda made: moved(made, "h3"),
        "a: is on h3 now (running); in the plan it moves live to h2 from h1",
    ),
    "goes elsewhere": (
        lambda made: cordon(made, "h2"),
        "a: moves live to h3; in the plan it moves live to h2 (now: h2 is cordoned by ops: new fan)",
    ),
    "cannot leave": (
        lambda made: made.put(changed(made.guest("a"), blockers=("has a host device",))),
        "a: cannot leave; in the plan it moves live to h2 (now: a could not run elsewhere: has a host device)",
    ),
    "can leave": (
        lambda made: made.put(changed(made.guest("tied"), blockers=())),
        "tied: moves live to h4; in the plan it cannot leave",
    ),
    "policy": (
        lambda made: made.put(changed(made.guest("a"), policy=GuestPolicy(move_downtime_s=9.0))),
        "a: its policy was changed: move_downtime_s is 9.0 now, 1.0 in the plan",
    ),
    "what becomes of its old disks": (
        lambda made: made.put(changed(made.guest("a"), policy=GuestPolicy(remove_old_disks=True))),
        "a: its policy was changed: remove_old_disks is True now, False in the plan",
    ),
    "desired": (
        lambda made: made.put(changed(made.guest("a"), desired=Desired.IGNORED)),
        "a: its policy was changed: desired is ignored now, running in the plan",
    ),
}


@pytest.mark.parametrize("what", list(DIFFERENT))
def test_every_difference_is_named_and_refused(what: str) -> None:
    happen, said = DIFFERENT[what]
    made = bench(
        guest("a", "h1"), guest("b", "h1"), guest("tied", "h1", blockers=("has a host device",)),
        resident={"a": 640, "b": 320},
    )  # fmt: skip
    plan = plan_of(made, "h1")
    happen(made)
    reply = ask(made, plan)
    assert not reply.accepted
    assert said in reply.blockers
    assert reply.message == "The plan does not hold any more; nothing was done."
    assert made.host("h1").drain is None
    assert ask(made, plan, dry_run=True).differences == reply.blockers
    accepted = ask(made, plan, anyway=True)
    assert accepted.accepted
    assert accepted.differences == reply.blockers
    assert len(accepted.operations) == 1


def test_all_differences_are_listed_at_once() -> None:
    made = bench(guest("a", "h1"), guest("b", "h2"))
    plan = plan_of(made, "h1", "h2")
    made.put(guest("new", "h2"), changed(made.guest("a"), policy=GuestPolicy(priority=1, move_streams=4)))
    said = [each.partition(";")[0] for each in ask(made, plan).blockers]
    assert said == [
        "a: its policy was changed: priority is 1 now, 100 in the plan",
        "a: its policy was changed: move_streams is 4 now, 1 in the plan",
        "new: is on h2 now, and not in the plan",
    ]


def test_who_would_be_stopped_now_was_not_approved_to_be() -> None:
    made = bench(guest("a", "h1"), resident={"a": 640})
    plan = plan_of(made, "h1", deadline_s=60)
    assert [each.late for each in plan.approved] == [""]
    made.see("h1", domain("a", memory_mib=65536, resident_mib=60_000))
    (said,) = ask(made, plan).blockers
    assert said == "a: is stopped after 34 s, starts anew on h2; in the plan it leaves in time"


def test_a_move_that_would_be_called_off_was_not_approved_and_a_harder_rung_is_told() -> None:
    """Its policy allows it to be slowed down, and the plan has that policy; that it would stay is another fate."""
    gentle = GuestPolicy(move_downtime_s=0.5, move_auto_converge=False)
    made = bench(guest("a", "h1"), guest("b", "h1", policy=gentle), resident={"a": 100, "b": 100})
    plan = plan_of(made, "h1")
    sampled(made, "a", writes(100, 800))
    sampled(made, "b", writes(100, 800))
    reply = ask(made, plan)
    assert reply.blockers == ("b: its move is foreseen to be called off; in the plan it is plain",)
    assert ask(made, plan, dry_run=True).noted == (
        "a: its move is foreseen to be slowed down; in the plan it is plain",
    )


def test_what_changes_nobodys_fate_is_told_and_no_reason_to_refuse() -> None:
    made = bench(guest("a", "h1"), guest("b", "h1"), resident={"a": 640, "b": 320})
    plan = plan_of(made, "h1")
    moved(made, plan.approved[0].to)
    rule = HostRule(name="r", guests=("b",), hosts={"h4": 10})
    made.state.settings = changed(made.state.settings, rules=(rule,))
    reply = ask(made, plan)
    assert reply.accepted
    assert reply.noted == (
        "a: is on h2 already",
        "placement rules were changed since the plan was made",
    )
    move = made.guest("b").move
    assert move is not None
    assert move.destination == plan.approved[1].to, "it is the plan that was approved"


def test_a_plan_of_a_newer_store_is_refused_whatever_is_wanted() -> None:
    """The store is an older copy: what happened since the plan was made is not known to it."""
    made = bench(guest("a", "h1"))
    plan = plan_of(made, "h1")
    reply = ask(made, plan, revision=made.state.revision + 1, anyway=True)
    assert not reply.accepted
    assert "it is an older copy" in reply.blockers[0]
    assert ask(made, plan, revision=made.state.revision).accepted


def test_a_host_that_is_not_there_or_has_not_joined_is_refused() -> None:
    made = bench(guest("a", "h1"))
    plan = plan_of(made, "h1")
    reply = ask(made, changed(plan, hosts=("h1", "h9")))
    assert (reply.accepted, reply.missing, reply.blockers) == (False, True, ("no such host: h9",))
    made.put(host("h2", HostPhase.JOINING))
    assert "h2 has not joined yet" in ask(made, changed(plan, hosts=("h1", "h2"))).blockers[0]
    assert made.host("h1").drain is None


def test_a_destination_that_nobody_has_is_a_difference() -> None:
    made = bench(guest("a", "h1"))
    plan = plan_of(made, "h1")
    (only,) = plan.approved
    (said,) = ask(made, changed(plan, approved=(changed(only, to="h9"),))).blockers
    assert said == "a: moves live to h2; in the plan it moves live to h9 (now: no such host: h9)"


# ---- several hosts in one command


def test_several_hosts_are_drained_by_one_command() -> None:
    """None of them takes guests of the others, as those do that are drained one after the other."""
    made = bench(guest("a", "h1"), guest("b", "h2"), names="h1 h2 h3")
    reply = next(
        each
        for each in made.send(AskDrain(id="d", by="ops", host="h1", also=("h2", "h1")))
        if isinstance(each, Reply)
    )
    assert (reply.accepted, reply.message, len(reply.operations)) == (True, "", 2)
    assert {each.name: (each.host, each.to) for each in reply.guests} == {
        "a": ("h1", "h3"),
        "b": ("h2", "h3"),
    }
    jobs = [made.state.operations[key] for key in reply.operations]
    assert [job.subject for job in jobs] == ["h1", "h2"]
    assert {job.subject: job.foreseen_s for job in jobs} == {each.host: each.ends_s for each in reply.guests}
    assert {record.move.destination for record in made.state.guests.values() if record.move} == {"h3"}


def test_a_command_for_several_is_refused_as_a_whole() -> None:
    made = bench(guest("a", "h1"))
    made.put(host("h3", HostPhase.JOINING))
    for also, said in ((("h3",), "h3 has not joined yet: "), (("h8", "h9"), "no such host: h8, h9")):
        sent = made.send(AskDrain(id="d", by="ops", host="h1", also=also))
        (reply,) = [each for each in sent if isinstance(each, Reply)]
        assert (reply.accepted, reply.blockers) == (False, (said,))
        assert made.host("h1").drain is None


def test_of_several_those_that_are_drained_already_go_on() -> None:
    made = bench(guest("a", "h1"), guest("b", "h2"), names="h1 h2")
    made.send(AskDrain(id="1", by="bob", host="h2"))
    (reply,) = [
        each
        for each in made.send(AskDrain(id="2", by="ops", host="h1", also=("h2",)))
        if isinstance(each, Reply)
    ]
    assert reply.message == (
        "h2 is being drained (draining) already: bob asked;"
        " no other host is online: its guests have nowhere to go"
    )
    assert len(reply.operations) == 2
