"""N+1 is known before a host dies: who would not fit, and why; people are told once, and told when it is back."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dr.core import spare
from dr.core.decide import decide
from dr.model.events import Tick
from dr.model.facts import Needs
from dr.model.policy import Limits
from dr.model.records import Desired, HostPhase
from tests.core.build import Bench, domain, facts, guest, host
from tests.core.test_rules import apart, ruled, together


def test_who_would_not_fit_is_named_with_the_reason() -> None:
    bench = Bench("h1", "h2").put(guest("g1", "h1", needs=Needs(memory_mib=3000)), guest("g2", "h1"))
    bench.see("h2", domain("x", memory_mib=4500))
    ((name, why),) = spare.stranded(bench.draft(), "h1")
    assert name == "g2", "the larger one has its place first"
    assert "h2: has 180 MiB free above the reserve of 512" in why
    assert spare.stranded(bench.draft(), "h2") == []


def test_rules_hold_after_a_death_too() -> None:
    bench = ruled(apart("a", "g1", "g2"), together("t", "g1", "g3"), hosts=("h1", "h2"))
    bench.put(guest("g1", "h1"), guest("g2", "h2"), guest("g3", "h1"))
    assert [name for name, _ in spare.stranded(bench.draft(), "h1")] == ["g1", "g3"]
    assert [name for name, _ in spare.stranded(bench.draft(), "h2")] == ["g2"]


def test_what_need_not_run_needs_no_place() -> None:
    bench = Bench("h1", "h2").put(guest("g1", "h1", needs=Needs(memory_mib=9000), desired=Desired.IGNORED))
    bench.put(guest("g2", "h1", needs=Needs(memory_mib=9000), blockers=("Its disk is local.",)))
    assert spare.stranded(bench.draft(), "h1") == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(200, 5000), st.integers(1, 3)), max_size=9), st.integers(1, 3))
def test_it_is_what_a_real_death_would_do(loads: list[tuple[int, int]], lost: int) -> None:
    """The guests that are told are those that find no place when the host is really gone."""
    bench = Bench(limits=Limits(starts_per_host=20))
    for number, (memory, at) in enumerate(loads):
        bench.put(guest(f"g{number}", f"h{at}", needs=Needs(memory_mib=memory)))
    told = {name for name, _ in spare.stranded(bench.draft(), f"h{lost}")}
    draft = bench.draft()
    from dr.core import fencing
    from dr.core.starts import place_waiting
    from dr.model.evidence import Proof, ProofKind

    proof = Proof(kind=ProofKind.OPERATOR, host=f"h{lost}", boot_id=f"h{lost}-b1", text="seen off")
    fencing.dead(draft, draft.require_host(f"h{lost}"), proof, fenced=False)
    place_waiting(draft)
    waits = {g.name for g in draft.guests() if not g.may_run_on}
    assert waits == told


def ticks(bench: Bench, seconds: float, step_s: float = 1.0) -> None:
    for _ in range(int(seconds / step_s)):
        bench.now += step_s
        bench.hear()
        bench.send(Tick())


def test_the_alert_comes_after_a_while_and_goes_when_it_is_back() -> None:
    bench = Bench("h1", "h2").put(guest("g1", "h1", needs=Needs(memory_mib=6000)))
    ticks(bench, 100)
    assert "cluster/spare" not in bench.state.alerts
    bench.see("h2", domain("x", memory_mib=5000))
    ticks(bench, 40)
    assert "would not fit: g1 (" in spare.in_words("h1", bench.state.views["h1"])
    assert "cluster/spare" not in bench.state.alerts, "not for what passes"
    ticks(bench, 70)
    assert "g1" in bench.state.alerts["cluster/spare"].why
    bench.put(host("h2", facts=facts("h2", memory_mib=32768)))
    ticks(bench, 40)
    assert "cluster/spare" not in bench.state.alerts
    assert spare.in_words("h1", bench.state.views["h1"]) == ""


def test_one_host_is_asked_about_at_a_time_and_a_dead_one_is_not() -> None:
    bench = Bench().put(guest("g1", "h1", needs=Needs(memory_mib=9000)))
    bench.put(host("h1", HostPhase.MAINTENANCE))
    for count in (1, 2, 3, 3):
        bench.now += 0.3
        bench.hear()
        bench.state.apply(decide(bench.state, Tick(), bench.now))
        assert sum(view.spare_at > 0 for view in bench.state.views.values()) == count
    assert bench.state.views["h1"].stranded == 0
