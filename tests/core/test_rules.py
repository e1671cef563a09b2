"""What rules mean: who is named, who belongs together, which hosts are liked; and what placement makes of them."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dr.core import placement
from dr.core.rules import Members
from dr.model.base import changed
from dr.model.facts import Needs
from dr.model.policy import GuestRule, HostRule, Rule
from dr.model.records import GuestPhase, GuestRecord, HostPhase, Place
from tests.core.build import Bench, domain, guest, host


def like(name: str, guests: list[str], strict: bool = False, **hosts: int) -> HostRule:
    return HostRule(name=name, guests=tuple(guests), hosts=hosts, strict=strict)


def must(name: str, guests: list[str], *hosts: str) -> HostRule:
    return HostRule(name=name, guests=tuple(guests), hosts=dict.fromkeys(hosts, 1), strict=True)


def together(name: str, *guests: str, strict: bool = True) -> GuestRule:
    return GuestRule(name=name, guests=guests, kind="together", strict=strict)


def apart(name: str, *guests: str, strict: bool = True) -> GuestRule:
    return GuestRule(name=name, guests=guests, kind="apart", strict=strict)


def waiting(name: str, **fields: Any) -> GuestRecord:
    return guest(name, phase=GuestPhase.RECOVERING, **fields)


def ruled(*rules: Rule, hosts: tuple[str, ...] = ("h1", "h2", "h3")) -> Bench:
    bench = Bench(*hosts)
    bench.state.settings = changed(bench.state.settings, rules=rules)
    return bench


def chosen(bench: Bench, name: str, **how: Any) -> placement.Placement:
    return placement.choose(bench.draft(), bench.guest(name), **how)


# ---- who is meant


def test_names_ids_and_labels_select() -> None:
    by_label = apart("db", "label:role=db")
    by_name = like("web", ["web1"], h1=1)
    members = Members(
        (by_label, by_name), [guest("a", labels={"role": "db"}), guest("b", labels={"role": "web"})]
    )
    assert members.of(by_label) == {"a"}
    members.put(changed(guest("b"), name="web1", labels={"role": "db"}))
    assert (members.of(by_label), members.of(by_name)) == ({"a", "b"}, {"b"})
    assert {rule.name for rule in members.about("b")} == {"db", "web"}
    members.put(guest("b"))
    members.drop("a")
    assert not members.of(by_label)
    assert not members.about("b")


def test_members_follow_what_is_decided_and_what_is_applied() -> None:
    rule = apart("db", "label:role=db")
    bench = ruled(rule).put(guest("a", "h1"), guest("b", "h2", labels={"role": "db"}))
    draft = bench.draft()
    draft.put_guest(guest("a", "h1", labels={"role": "db"}))
    draft.drop_guest("b")
    assert draft.members.of(rule) == {"a"}
    assert bench.state.members.of(rule) == {"b"}, "nothing leaks out of a draft"
    bench.state.apply(draft)
    assert bench.state.members.of(rule) == {"a"}
    fresh = changed(bench.state.settings, rules=(like("db", ["a"], h1=1),))
    bench.state.settings = fresh
    assert [each.name for each in bench.draft().members.about("a")] == ["db"]


def test_overlapping_rules_make_one_group() -> None:
    members = Members(
        (together("t1", "a", "b"), together("t2", "b", "c"), together("soft", "c", "d", strict=False)),
        [guest(name) for name in "abcd"],
    )
    assert members.group("a") == {"b": "t1", "c": "t2"}
    assert members.group("d") == {}


# ---- hosts


def test_a_strict_host_rule_holds_even_if_that_means_not_at_all() -> None:
    bench = ruled(must("licence", ["g1"], "h2")).put(waiting("g1"))
    assert chosen(bench, "g1").host == "h2"
    bench.put(host("h2", HostPhase.SUSPECT))
    found = chosen(bench, "g1")
    assert found.host == ""
    assert found.reasons["h1"] == ("is not among the hosts of rule licence",)


def test_the_highest_priority_wins_over_load_and_next_best_is_taken_without_it() -> None:
    bench = ruled(like("fast", ["g1"], h2=10, h3=5)).put(waiting("g1"))
    bench.see("h2", domain("x", memory_mib=5000))
    assert chosen(bench, "g1").host == "h2"
    bench.put(host("h2", HostPhase.SUSPECT))
    assert chosen(bench, "g1").host == "h3"
    bench.put(host("h3", HostPhase.SUSPECT))
    assert chosen(bench, "g1").host == "h1", "preferred is not must"


def test_several_host_rules_add_up_and_strict_ones_intersect() -> None:
    rules = (must("r1", ["g1"], "h1", "h2"), must("r2", ["g1"], "h2", "h3"), like("r3", ["g1"], h1=100))
    bench = ruled(*rules).put(waiting("g1"))
    assert chosen(bench, "g1").host == "h2"
    assert chosen(bench, "g1").reasons["h3"] == ("is not among the hosts of rule r1",)


def test_restart_in_place_respects_strict_rules() -> None:
    bench = ruled(must("r", ["g1"], "h2")).put(waiting("g1", holder="h1"))
    assert chosen(bench, "g1", prefer="h1").host == "h2"


# ---- other guests


def test_apart_counts_every_place_where_the_other_may_run() -> None:
    moving = guest("g2", phase=GuestPhase.MIGRATING, may_run_on=places("h1", "h2"), holder="h1")
    bench = ruled(apart("r", "g1", "g2")).put(waiting("g1"), moving)
    found = chosen(bench, "g1")
    assert found.host == "h3"
    assert found.reasons["h1"] == ("rule r keeps it away from g2, which may run there",)
    assert found.reasons["h2"] == found.reasons["h1"]


def test_together_goes_where_the_other_is_seen_and_waits_while_it_moves() -> None:
    bench = ruled(together("r", "g1", "g2")).put(waiting("g1"), guest("g2", "h3"))
    assert chosen(bench, "g1").host == "h3"
    assert "beside g2, which may run on h3" in " ".join(chosen(bench, "g1").reasons["h1"])
    bench.put(guest("g2", phase=GuestPhase.MIGRATING, may_run_on=places("h2", "h3"), holder="h3"))
    assert chosen(bench, "g1").host == ""
    bench.put(guest("g2", phase=GuestPhase.PROTECTING, may_run_on=places("h2", "h3")))
    assert chosen(bench, "g1").host == "h3", "one host shows it; the other has not yet testified"


def test_a_group_that_waits_needs_room_for_all_of_it() -> None:
    big = Needs(memory_mib=5000)
    bench = ruled(together("r", "g1", "g2")).put(waiting("g1", needs=big), waiting("g2", needs=big))
    found = chosen(bench, "g1")
    assert found.host == ""
    assert "g1 and g2 need 10000" in found.sentence()
    assert "more hosts" not in found.sentence()
    bench.put(waiting("g2", needs=Needs(memory_mib=1000)))
    bench.see("h1", domain("x", memory_mib=3000))
    assert chosen(bench, "g1").host == "h2"


def test_those_that_move_along_do_not_bind() -> None:
    bench = ruled(together("r", "g1", "g2"), apart("a", "g2", "g3"))
    bench.put(guest("g1", "h1"), guest("g2", "h1"), guest("g3", "h2"))
    draft = bench.draft()
    alone = placement.choose(draft, bench.guest("g1"), without=("h1",))
    assert alone.host == ""
    with_it = placement.choose(draft, bench.guest("g1"), without=("h1",), along=(bench.guest("g2"),))
    assert with_it.host == "h3", "rules of all that move count"


def test_preferred_rules_outrank_load_and_yield_to_room() -> None:
    bench = ruled(apart("a", "g1", "g2", strict=False), together("t", "g1", "g3", strict=False))
    bench.put(waiting("g1"), guest("g2", "h1"), guest("g3", "h3"))
    bench.see("h3", domain("x", memory_mib=4000))
    assert chosen(bench, "g1").host == "h3"
    bench.see("h3", domain("x", memory_mib=8000))
    assert chosen(bench, "g1").host == "h2"
    bench.put(host("h2", HostPhase.SUSPECT))
    assert chosen(bench, "g1").host == "h1"


def test_apart_inside_a_group_fits_nowhere_and_says_so() -> None:
    bench = ruled(together("t", "g1", "g2"), apart("a", "g1", "g2")).put(waiting("g1"), waiting("g2"))
    assert "rule a keeps apart guests that must share a host" in chosen(bench, "g1").reasons["h1"]


def places(*names: str) -> tuple[Place, ...]:
    return tuple(Place(host=name, boot_id=f"{name}-b1", generation=1) for name in names)


# ---- failback


@pytest.mark.parametrize(
    ("rules", "at", "better"),
    [
        ([], "h1", ""),
        ([like("r", ["g1"], h2=2, h3=1)], "h1", "h2"),
        ([like("r", ["g1"], h2=2, h3=1)], "h2", ""),
        ([like("r", ["g1"], h2=1, h3=1)], "h3", ""),
        ([must("r", ["g1"], "h2")], "h1", "h2"),
        ([like("r", ["g1"], h2=2), apart("a", "g1", "g2")], "h1", ""),
        ([like("r", ["g1"], h2=-1)], "h2", "h1"),
    ],
)
def test_better_host_is_strictly_better_and_eligible(rules: list[Rule], at: str, better: str) -> None:
    bench = ruled(*rules).put(guest("g1", at), guest("g2", "h2"))
    assert placement.better_host(bench.draft(), bench.guest("g1")) == better


def test_a_better_host_without_room_is_not_better() -> None:
    bench = ruled(like("r", ["g1"], h2=2, h3=1)).put(guest("g1", "h1"))
    bench.see("h2", domain("x", memory_mib=7500))
    assert placement.better_host(bench.draft(), bench.guest("g1")) == "h3"


def test_a_guest_that_forbidden_rules_left_behind_goes_to_an_allowed_host() -> None:
    bench = ruled(HostRule(name="r", guests=("g1",), hosts={"h2": 0}, strict=True)).put(guest("g1", "h1"))
    assert placement.better_host(bench.draft(), bench.guest("g1")) == "h2"


# ---- a dumb twin

NAMES = ["h1", "h2", "h3"]
GUESTS = ["a", "b", "c", "d", "e"]
rules_drawn = st.lists(
    st.one_of(
        st.builds(
            lambda who, where, strict: HostRule(name="", guests=tuple(who), hosts=where, strict=strict),
            st.lists(st.sampled_from(GUESTS), min_size=1, unique=True),
            st.dictionaries(st.sampled_from(NAMES), st.integers(-2, 3), min_size=1),
            st.booleans(),
        ),
        st.builds(
            lambda who, kind, strict: GuestRule(name="", guests=tuple(who), kind=kind, strict=strict),
            st.lists(st.sampled_from(GUESTS), min_size=2, max_size=3, unique=True),
            st.sampled_from(["together", "apart"]),
            st.booleans(),
        ),
    ),
    max_size=5,
)


def broken(rules: list[Rule], who: str, at: str, where: dict[str, str]) -> bool:
    """Whether a strict rule forbids that guest there, the slow way. `where`: who runs where."""
    for rule in rules:
        if not rule.strict or who not in rule.guests:
            continue
        if isinstance(rule, HostRule):
            if at not in rule.hosts:
                return True
            continue
        others = {where[other] for other in rule.guests if other != who and other in where}
        if (rule.kind == "apart" and at in others) or (rule.kind == "together" and others - {at}):
            return True
    return False


def chained(*pairs: str) -> list[Rule]:
    return [together("", *pair) for pair in pairs]


@settings(max_examples=150)
@example(chained("ab", "bc", "cd"), {"b": "h1", "c": "h1", "d": "h2"})  # who must share a host does not
@example(chained("ab", "bc"), {"c": "h2"})  # the one in the middle is not protected
@example([*chained("ab", "bc"), apart("", "a", "c")], {"b": "h1", "c": "h1"})
@example([*chained("ab"), HostRule(name="", guests=("b",), hosts={"h1": 0}, strict=True)], {"b": "h2"})
@given(rules_drawn, st.dictionaries(st.sampled_from(GUESTS[1:]), st.sampled_from(NAMES)))
def test_strict_rules_are_never_broken_and_every_reason_agrees(
    drawn: list[Rule], where: dict[str, str]
) -> None:
    rules = [changed(rule, name=f"r{number}") for number, rule in enumerate(drawn)]
    bench = ruled(*rules).put(waiting("a"), *(guest(name, at) for name, at in where.items()))
    found = chosen(bench, "a")
    linked = Members(tuple(rules), [guest(name) for name in ("a", *where)]).group("a")
    hosts_only: list[Rule] = [rule for rule in rules if isinstance(rule, HostRule)]
    for name in NAMES:
        group_elsewhere = any(where.get(mate, name) != name for mate in linked)
        # What allows those beside it only other hosts binds it as well: they could never follow.
        group_barred = any(broken(hosts_only, mate, name, where) for mate in linked)
        forbidden = broken(rules, "a", name, where) or group_elsewhere or group_barred
        assert (name in found.reasons) == forbidden
        assert (name in found.scores) != forbidden
        assert bool(placement.why_not(bench.draft(), bench.guest("a"), bench.host(name))) == forbidden
    fleet, case = placement._case(bench.draft(), bench.guest("a"))
    assert [case.fits_at(fleet, at) for at in range(len(fleet))] == case.eligible(fleet).tolist()
    assert [fleet.load_at(at) for at in range(len(fleet))] == fleet.load().tolist()
    assert bool(found.host) == bool(found.scores)
    if found.host:
        members = bench.state.members
        assert members.liking("a", found.host) == max(members.liking("a", name) for name in found.scores)
