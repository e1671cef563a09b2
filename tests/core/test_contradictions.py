"""Strict rules that cannot all hold are found, with the names of all that take part; at run time they are an alert."""

from itertools import combinations, permutations, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dr.core import seating
from dr.core.contradictions import contradictions, imagined
from dr.model.base import changed
from dr.model.events import Reconfigured, Tick
from dr.model.policy import GuestRule, HostRule, Rule
from tests.core.build import guest
from tests.core.test_rules import apart, like, must, ruled, together


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ([], []),
        ([together("t", "a", "b"), apart("x", "a", "b", strict=False)], []),
        ([together("t", "a", "b"), apart("x", "a", "b")], [("t", "x")]),
        ([together("t1", "a", "b"), together("t2", "b", "c"), apart("x", "a", "c")], [("t1", "t2", "x")]),
        ([must("m1", ["a"], "h1", "h2"), must("m2", ["a"], "h2", "h3")], []),
        ([must("m1", ["a"], "h1"), must("m2", ["a"], "h2"), must("m3", ["b"], "h3")], [("m1", "m2")]),
        ([must("m1", ["a"], "h1"), must("m2", ["b"], "h2"), together("t", "a", "b")], [("m1", "m2", "t")]),
        (
            [must("m1", ["a"], "h1", "h2"), must("m2", ["a"], "h2", "h3"), must("m3", ["a"], "h1", "h3")],
            [("m1", "m2", "m3")],
        ),
        ([must("m1", ["a", "b"], "h1"), apart("x", "a", "b", "c")], [("m1", "x")]),
        ([must("m1", ["a", "b", "c"], "h1", "h2"), apart("x", "a", "b", "c")], [("m1", "x")]),
        ([must("m1", ["a", "b"], "h1", "h2"), apart("x", "a", "b", "c", "d")], []),
        ([apart("x", "label:r=db"), together("t", "label:r=db")], [("t", "x")]),
        ([apart("x", "label:r=db", "b"), together("t", "label:r=db", "c")], []),
        (
            [must("m", ["a", "b", "c"], "h1", "h2"), apart("ab", "a", "b"), apart("bc", "b", "c")],
            [],
        ),
        (
            [
                must("m", ["a", "b", "c"], "h1", "h2"),
                apart("ab", "a", "b"),
                apart("bc", "b", "c"),
                apart("ca", "c", "a"),
                like("idle", ["a"], h1=3),
                apart("other", "a", "z"),
            ],
            [("ab", "bc", "ca", "m")],
        ),
        (  # a chain: each end leaves its neighbour one host, and it is the same one
            [
                must("a", ["a"], "h1"),
                must("b", ["b", "c"], "h1", "h2"),
                apart("ab", "a", "b"),
                apart("bc", "b", "c"),
                together("t", "c", "d"),
                must("d", ["d"], "h2", "h3"),
            ],
            [("a", "ab", "b", "bc", "d", "t")],
        ),
    ],
)
def test_all_that_take_part_are_named(rules: list[Rule], named: list[tuple[str, ...]]) -> None:
    found = contradictions(rules, imagined(rules))
    assert [each.rules for each in found] == named
    for each in found:
        assert all(name in each.text for name in each.rules)


def test_a_knot_beyond_the_bound_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each two of seven keep apart by a rule of their own, on six hosts: found, unless the search may not look."""
    names = "abcdefg"
    rules = [apart(f"{one}{two}", one, two) for one, two in combinations(names, 2)]
    hosts = [f"h{number}" for number in range(6)]
    (found,) = contradictions(rules, imagined(rules), hosts)
    assert set(found.rules) == {rule.name for rule in rules}
    assert found.text.endswith(
        "cannot all hold for a, b, c, d, e, f and g: there is no way to give each its place on "
        "h0, h1, h2, h3, h4 and h5"
    )
    assert not contradictions(rules[:-1], imagined(rules), hosts)
    monkeypatch.setattr(seating, "STEPS_MAX", 3)
    assert not contradictions(rules, imagined(rules), hosts)
    monkeypatch.setattr(seating, "PARTIES_MAX", 6)
    assert not contradictions(rules, imagined(rules), hosts)


def test_many_guests_and_more_hosts_take_no_search() -> None:
    """Whoever has more hosts than neighbours never stands in the way."""
    rules = [
        apart(f"x{number}", *(f"g{number + each}" for each in range(30))) for number in range(0, 600, 15)
    ]
    assert not contradictions(rules, imagined(rules), [f"h{number}" for number in range(100)])


def test_more_guests_than_there_are_hosts() -> None:
    rules = [apart("x", "a", "b", "c")]
    assert not contradictions(rules, imagined(rules), ["h1", "h2", "h3"])
    (found,) = contradictions(rules, imagined(rules), ["h1", "h2"])
    assert found.text == "rule x keeps a, b and c apart, there are only 2 hosts (h1, h2)"


HOSTS = ("h1", "h2", "h3")
ANY_HOST = (*HOSTS, "h4")  # while nobody says which hosts there are: four guests need no more than four
WHO = ("a", "b", "c", "d")


@settings(max_examples=300)
@example(  # on three hosts the last two would do without the other
    [
        apart("", "a", "b", "d"),
        apart("", "a", "c"),
        must("", ["a", "b", "c"], "h1", "h2"),
        apart("", "b", "c", "d"),
    ]
)
@example(  # which host the three may have is no part of it
    [
        must("", ["c"], "h1"),
        apart("", "a", "b"),
        apart("", "a", "b"),
        together("", "a", "b", "c"),
        together("", "a", "b"),
    ]
)
@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda who, where: HostRule(name="", guests=tuple(who), hosts=where, strict=True),
                st.lists(st.sampled_from(WHO), min_size=1, unique=True),
                st.dictionaries(st.sampled_from(HOSTS), st.just(1), min_size=1),
            ),
            st.builds(
                lambda who, kind: GuestRule(name="", guests=tuple(who), kind=kind, strict=True),
                st.lists(st.sampled_from(WHO), min_size=2, max_size=3, unique=True),
                st.sampled_from(["together", "apart"]),
            ),
        ),
        max_size=6,
    )
)
def test_against_a_dumb_twin_that_tries_everything(drawn: list[Rule]) -> None:
    """What is found is impossible, stays so with the named rules alone, and is possible without any one of them."""
    rules = [changed(rule, name=f"r{number}") for number, rule in enumerate(drawn)]

    def possible(some: list[Rule], hosts: tuple[str, ...] = ANY_HOST) -> bool:
        return any(
            holds(some, dict(zip(WHO, where, strict=True))) for where in product(hosts, repeat=len(WHO))
        )

    found = contradictions(rules, imagined(rules))
    assert bool(found) == (not possible(rules))
    for each in found:
        taking_part = [rule for rule in rules if rule.name in each.rules]
        assert not possible(taking_part)
        for rule in taking_part:
            assert possible([other for other in taking_part if other is not rule])
    here = contradictions(rules, imagined(rules), HOSTS)
    assert bool(here) == (not possible(rules, HOSTS)), "nothing is missed"


def holds(rules: list[Rule], where: dict[str, str]) -> bool:
    for rule in rules:
        at = [where[name] for name in rule.guests]
        if isinstance(rule, HostRule):
            good = all(each in rule.hosts for each in at)
        else:
            good = len(set(at)) == (1 if rule.kind == "together" else len(at))
        if not good:
            return False
    return True


def test_a_new_configuration_that_contradicts_by_labels_leaves_the_old_rules_in_force() -> None:
    old = (like("r", ["a"], h1=1),)
    bench = ruled(*old).put(guest("a", "h1", labels={"r": "db"}), guest("b", "h2", labels={"r": "db"}))
    new = changed(
        bench.state.settings, rules=(together("t", "a", "b"), apart("x", "label:r=db")), auto_fence=False
    )
    bench.send(Reconfigured(settings=new))
    assert bench.state.settings.rules == old
    assert not bench.state.settings.auto_fence, "the rest comes into force"
    assert "rule x keeps a and b apart" in bench.state.alerts["cluster/rules-refused"].why
    bench.send(Reconfigured(settings=changed(new, rules=(apart("x", "label:r=db"),))))
    assert [rule.name for rule in bench.state.settings.rules] == ["x"]
    assert "cluster/rules-refused" not in bench.state.alerts


def test_a_contradiction_that_labels_bring_is_alerted_until_it_is_gone() -> None:
    bench = ruled(together("t", "a", "b"), apart("x", "label:r=db")).put(guest("a", "h1"), guest("b", "h1"))
    bench.send(Tick())
    assert not bench.state.alerts
    for name in ("a", "b"):
        bench.put(changed(bench.guest(name), labels={"r": "db"}))
    bench.hear()
    bench.send(Tick())
    assert list(bench.state.alerts) == ["cluster/contradiction/t+x"]
    bench.put(changed(bench.guest("b"), labels={}))
    bench.send(Tick())
    assert not bench.state.alerts


def test_matching_needs_more_than_counting() -> None:
    """Two of three share one host between them, although the three have three."""
    rules: list[Rule] = [
        must("m1", ["a", "b"], "h1"),
        must("m2", ["c"], "h2", "h3"),
        apart("x", "a", "b", "c"),
    ]
    for order in permutations(rules):
        assert [each.rules for each in contradictions(order, imagined(rules))] == [("m1", "x")]
