"""Dry runs: hosts are taken away on paper, and what is told is what the real failover would decide."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import combinations
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr.core import measured, placement, spare, starts
from dr.core.drills import sweep
from dr.core.drills.paper import Loss, Paper
from dr.core.drills.report import of_loss
from dr.core.saved import copied
from dr.model.base import changed
from dr.model.checks import CheckResult, Tcp
from dr.model.commands import Answer, Outcome
from dr.model.drills import KEPT_MAX, Case, DrillKind, DrillReport, Evidence, GuestRow, Known, Verdict
from dr.model.effects import CheckGuest, Reply, SendStart
from dr.model.events import Answered, AskKeepDrill, CheckEnded, Tick
from dr.model.facts import LocalDisk, Needs
from dr.model.policy import After, GuestPolicy, Isolation, Limits
from dr.model.records import Desired, Ended, GuestPhase, GuestRecord, HostPhase, Pause, StartTook, Wish
from tests.core.build import Bench, domain, facts, guest, host
from tests.core.test_rules import apart, ruled

T = TypeVar("T")
MEASURED = StartTook(at=1.0, start_s=2.0)
CHECK = Tcp(address="10.0.0.9", port=80)


def end(work: Generator[Any, None, T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as ended:
            found: T = ended.value
            return found


def site(*guests: GuestRecord, hosts: Sequence[str] = ("h1", "h2", "h3"), **limits: Any) -> Bench:
    """Fencing takes 1.5 s to notice and 3 s to prove on each host; hibernation is masked."""
    bench = Bench(*hosts, limits=Limits(**limits))
    masked = {name: changed(facts(name), hibernation_masked=True) for name in hosts}
    took = (Ended(detect_s=1.5, prove_s=3.0),)
    bench.put(*(host(name, facts=masked[name], ended=took) for name in hosts))
    return bench.put(*guests)


def lost(bench: Bench, *hosts: str) -> Loss:
    return end(Paper(bench.state, bench.now).lose(hosts))


def told(bench: Bench, *hosts: str, rto_s: float = 0.0) -> DrillReport:
    paper = Paper(bench.state, bench.now)
    return of_loss(end(paper.lose(hosts)), paper.takes, rto_s)


def rows(report: DrillReport) -> dict[str, GuestRow]:
    return {row.name: row for row in report.guests}


def swept(bench: Bench, rto_s: float = 0.0) -> DrillReport:
    return end(sweep.each(Paper(bench.state, bench.now), rto_s))


def test_each_guest_has_its_way_back() -> None:
    bench = site(guest("a", "h1", starts=(MEASURED,)), guest("b", "h2"))
    report = told(bench, "h1")
    (row,) = report.guests
    assert (row.name, row.host, row.verdict, row.recovered_s) == ("a", "h1", Verdict.PASSED, 6.5)
    assert row.to == "h3", "the emptier one"
    assert [(each.phase, each.begins_s, each.ends_s) for each in row.phases] == [
        ("detect", 0.0, 1.5),
        ("prove", 1.5, 4.5),
        ("start", 4.5, 6.5),
    ]
    assert (report.verdict, report.recovered_s) == (Verdict.PASSED, 6.5)
    assert [(each.at_s, each.text) for each in report.timeline][-1] == (6.5, "a runs on h3")


def test_nothing_of_it_reaches_the_state() -> None:
    bench = site(guest("a", "h1"), guest("b", "h1"))
    before = copied(bench.state)
    paper = Paper(bench.state, bench.now)
    end(paper.lose(["h1"]))
    end(sweep.pairs(paper))
    for name in (
        "hosts",
        "guests",
        "operations",
        "alerts",
        "pending",
        "unsettled",
        "at_host",
        "views",
        "named",
    ):
        assert getattr(bench.state, name) == getattr(before, name), name


def test_asked_twice_it_says_the_same() -> None:
    paper = Paper(site(guest("a", "h1"), guest("b", "h1"), guest("c", "h2")).state, 1000.0)
    first = end(paper.lose(["h1"]))
    end(paper.lose(["h2"]))
    assert end(paper.lose(["h1"])).ways == first.ways


def test_turns_priority_and_dependencies_are_those_of_real_starts() -> None:
    bench = site(
        guest(
            "web",
            "h1",
            policy=GuestPolicy(boot_after=(After(guest="db", until="check"),)),
            starts=(MEASURED,),
        ),
        guest("db", "h1", policy=GuestPolicy(checks=(CHECK,)), starts=(changed(MEASURED, check_s=4.0),)),
        guest("low", "h1", policy=GuestPolicy(priority=1), starts=(MEASURED,)),
        guest("high", "h1", policy=GuestPolicy(priority=900), starts=(MEASURED,)),
        hosts=("h1", "h2"),
        starts_per_host=1,
    )
    found = rows(told(bench, "h1"))
    assert found["high"].recovered_s == 6.5
    assert found["db"].recovered_s == 12.5, "its turn after that one, and 4 s until its check passes"
    assert found["low"].recovered_s == 10.5
    assert found["web"].recovered_s == 14.5
    (wait,) = [each for each in found["web"].phases if each.phase == "wait"]
    assert (wait.begins_s, wait.ends_s) == (4.5, 12.5)
    assert "the checks of db" in wait.text


def test_a_dependency_that_never_comes_holds_up_only_so_long() -> None:
    bench = site(
        guest("web", "h1", policy=GuestPolicy(boot_after=(After(guest="db"),)), starts=(MEASURED,)),
        guest("db", "h1", needs=Needs(memory_mib=90_000, networks=("bridge:br0",))),
    )
    found = rows(told(bench, "h1"))
    assert found["db"].verdict is Verdict.FAILED
    recovered_s = found["web"].recovered_s
    patience_s = bench.state.settings.timers.boot_after_s
    assert recovered_s is not None
    assert patience_s + 4.5 < recovered_s < patience_s + 8


def test_what_does_not_fit_says_why() -> None:
    bench = site(guest("big", "h1", needs=Needs(memory_mib=7900)), guest("a", "h1"))
    report = told(bench, "h1")
    row = rows(report)["big"]
    assert (row.verdict, row.to, row.recovered_s) == (Verdict.FAILED, "", None)
    assert "MiB free above the reserve of 512" in row.why
    assert (report.verdict, report.recovered_s) == (Verdict.FAILED, None)
    assert "1 of 2 guests would not be recovered as wanted: big" in report.says
    assert report.guests[0].name == "big", "what matters first"
    assert report.findings[0].severity == "critical"


def test_all_hosts_of_a_rack_are_lost_at_once() -> None:
    bench = site(guest("a", "h1"), guest("b", "h2"), hosts=("h1", "h2", "h3", "h4", "h5"))
    found = rows(told(bench, "h1", "h2"))
    assert {row.verdict for row in found.values()} == {Verdict.PASSED}
    assert {row.to for row in found.values()} <= {"h3", "h4", "h5"}


def test_an_objective_is_held_against_each_guest() -> None:
    bench = site(
        *(guest(name, "h1", starts=(MEASURED,)) for name in "abc"), hosts=("h1", "h2"), starts_per_host=1
    )
    report = told(bench, "h1", rto_s=9.0)
    found = rows(report)
    assert [found[name].verdict for name in "abc"] == [Verdict.PASSED, Verdict.PASSED, Verdict.FAILED]
    assert found["c"].why == "it would do its work after 10.5 s, 1.5 s too late"
    assert report.verdict is Verdict.FAILED
    assert told(bench, "h1", rto_s=11.0).verdict is Verdict.PASSED


def test_what_was_never_measured_is_not_judged_by_what_it_may_take_at_most() -> None:
    bench = site(guest("a", "h1"))
    report = told(bench, "h1", rto_s=30.0)
    assert report.verdict is Verdict.UNKNOWN
    assert "if its start took as long as it may at most" in report.guests[0].why
    assert any("never measured here: taken as 60 s" in each for each in report.rests_on)
    assert told(bench, "h1", rto_s=70.0).verdict is Verdict.PASSED, "not even then"
    assert told(bench, "h1").verdict is Verdict.PASSED


def test_others_that_were_measured_stand_for_who_was_not() -> None:
    bench = site(guest("a", "h1"), guest("b", "h2", starts=(MEASURED,)))
    row = told(bench, "h1").guests[0]
    assert row.recovered_s == 6.5
    assert [each.known for each in row.phases] == [Known.MEASURED, Known.MEASURED, Known.ALIKE]


def test_a_host_that_cannot_be_proven_dead_recovers_nobody() -> None:
    bench = site(guest("a", "h1"))
    del bench.state.identities["h1", "bmc-h1"]
    report = told(bench, "h1")
    row = report.guests[0]
    assert (row.verdict, row.recovered_s) == (Verdict.FAILED, None)
    assert row.to == "h2", "it has a place: that is not what is missing"
    assert row.todo == "dr fence test h1"
    assert "until a person says that it is off" in row.why
    assert report.findings[0].severity == "critical"


def test_automation_that_is_paused_recovers_nobody() -> None:
    bench = site(guest("a", "h1"))
    bench.state.cluster = changed(bench.state.cluster, pause=Pause(reason="work", by="alice"))
    assert "automation is paused (work)" in told(bench, "h1").guests[0].why


def test_the_brake_leaves_it_open() -> None:
    report = told(site(guest("a", "h1"), guest("b", "h2")), "h1", "h2")
    assert {row.verdict for row in report.guests} == {Verdict.UNKNOWN}
    assert "more than half" in report.guests[0].why
    assert report.verdict is Verdict.UNKNOWN


def test_an_isolation_policy_that_leaves_it_running_leaves_it_open() -> None:
    bench = site(guest("a", "h1", policy=GuestPolicy(isolation=Isolation.LEAVE)))
    assert "is to be left running" in told(bench, "h1").guests[0].why


def test_disks_of_its_own_host_keep_it_there_if_its_owner_agrees() -> None:
    own = Needs(memory_mib=512, local=(LocalDisk(target="vda", path="/var/a.img", form="raw", size_b=1),))
    bench = site(guest("a", "h1", needs=own, policy=GuestPolicy(local_disks=True)), guest("b", "h1"))
    report = told(bench, "h1")
    assert rows(report)["a"].verdict is Verdict.LEFT
    assert report.verdict is Verdict.PASSED, "its owner wants it so"
    assert "1 guests" not in report.says
    not_agreed = site(guest("a", "h1", needs=own, blockers=("its disk is local",)))
    assert told(not_agreed, "h1").guests[0].verdict is Verdict.FAILED


def test_who_need_not_run_is_not_recovered() -> None:
    bench = site(guest("a", "h1", desired=Desired.IGNORED))
    report = told(bench, "h1")
    assert (report.guests, report.verdict) == ((), Verdict.PASSED)


def test_bystanders_are_named() -> None:
    bench = site(guest("a", "h1"))
    bench.see("h1", domain("stray"))
    assert any(
        "that nobody protects would be lost with it: stray" in each.text
        for each in told(bench, "h1").findings
    )


def test_somebody_who_is_not_where_he_should_be_is_not_foretold() -> None:
    bench = site(guest("a", "h1", phase=GuestPhase.UNKNOWN))
    other = changed(
        bench.guest("a"), may_run_on=(*bench.guest("a").may_run_on, guest("a", "h2").may_run_on[0])
    )
    bench.put(other)
    row = told(bench, "h1").guests[0]
    assert row.verdict is Verdict.UNKNOWN
    assert "not foretold" in row.why


def test_starts_that_are_under_way_elsewhere_take_their_turns() -> None:
    bench = site(
        guest("a", "h1", starts=(MEASURED,)),
        guest("b", phase=GuestPhase.RECOVERING, starts=(changed(MEASURED, start_s=20.0),)),
        hosts=("h1", "h2"),
        starts_per_host=1,
    )
    bench.put(changed(bench.host("h1"), cordon=Wish(by="alice")))
    draft = bench.draft()
    starts.place_waiting(draft)
    bench.state.apply(draft)
    assert bench.guest("b").phase is GuestPhase.STARTING
    assert told(bench, "h1").guests[0].recovered_s == 22.0, "when that start is over"


loads = st.lists(st.tuples(st.integers(200, 5000), st.integers(1, 3)), max_size=9)


@settings(max_examples=40, deadline=None)
@given(loads, st.integers(1, 3))
def test_of_one_host_it_agrees_with_what_is_kept_of_n_plus_one(loads: list[tuple[int, int]], of: int) -> None:
    bench = site(starts_per_host=20)
    for number, (memory, at) in enumerate(loads):
        bench.put(guest(f"g{number}", f"h{at}", needs=Needs(memory_mib=memory)))
    stranded = {name for name, _ in spare.stranded(bench.draft(), f"h{of}")}
    assert {row.name for row in told(bench, f"h{of}").guests if not row.to} == stranded


# ---- sweeps


def test_every_single_host_is_looked_at_the_worst_first() -> None:
    bench = site(guest("big", "h2", needs=Needs(memory_mib=7900)), guest("a", "h1"))
    report = swept(bench)
    assert [case.lost for case in report.cases] == [("h2",), ("h1",), ("h3",)]
    assert [case.verdict for case in report.cases] == [Verdict.FAILED, Verdict.PASSED, Verdict.PASSED]
    assert [case.stranded for case in report.cases] == [1, 0, 0]
    assert report.verdict is Verdict.FAILED
    assert "not without h2: 1 of 3 cases" in report.says
    assert report.findings[0].todo == "dr drill run --lose h2"
    assert report.looked is not None
    assert (report.looked.of, report.looked.worked) == (3, 3)


def test_hosts_that_are_out_of_use_are_told_not_taken() -> None:
    bench = site(guest("a", "h1"))
    bench.put(changed(bench.host("h3"), phase=HostPhase.MAINTENANCE))
    report = swept(bench)
    assert {case.lost for case in report.cases} == {("h1",), ("h2",)}
    assert any(each.text == "not in use, so not taken away: h3" for each in report.findings)


MANY = tuple(f"h{number}" for number in range(1, 11))


def crowd(loads: Sequence[tuple[int, int]]) -> Bench:
    bench = site(hosts=MANY, starts_per_host=20)
    for number, (memory, at) in enumerate(loads):
        bench.put(guest(f"g{number}", f"h{at}", needs=Needs(memory_mib=memory)))
    return bench


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1500, 7600), st.integers(1, 10)), min_size=4, max_size=14))
def test_no_pair_is_proven_that_would_not_fit(loads: list[tuple[int, int]]) -> None:
    """Each that is not worked through is worked through here."""
    paper = Paper(crowd(loads).state, 1000.0)
    report = end(sweep.pairs(paper))
    looked = report.looked
    assert looked is not None
    assert looked.worked + looked.proven == looked.of == 45
    worked = {case.lost for case in report.cases}
    for one in range(10):
        for two in range(one + 1, 10):
            pair = tuple(sorted((MANY[one], MANY[two])))
            if pair not in worked:
                found = of_loss(end(paper.lose(pair)), paper.takes, 0.0)
                assert found.verdict is Verdict.PASSED, pair


def test_most_pairs_of_a_site_with_room_are_proven_and_the_rest_has_a_limit() -> None:
    roomy = end(sweep.pairs(Paper(crowd([(1000, at) for at in range(1, 11)]).state, 1000.0)))
    assert roomy.looked is not None
    assert (roomy.looked.proven, roomy.looked.worked, roomy.verdict) == (45, 0, Verdict.PASSED)
    tight = Paper(crowd([(7000, at) for at in range(1, 10)]).state, 1000.0)
    all_of_it = end(sweep.pairs(tight))
    assert all_of_it.looked is not None
    assert all_of_it.looked.proven < 45
    some = end(sweep.pairs(tight, 3))
    assert some.looked is not None
    assert some.looked.worked == 3
    left = 45 - 3 - some.looked.proven
    assert any(each.text.startswith(f"{left} pairs were neither") for each in some.findings)


def test_what_was_not_looked_at_is_unknown() -> None:
    bench = crowd([(7000, at) for at in range(1, 10)])
    none = end(sweep.pairs(Paper(bench.state, bench.now), 0))
    assert none.verdict is Verdict.UNKNOWN
    assert "were not looked at" in none.says


def test_rules_are_never_proven_by_room_alone() -> None:
    bench = ruled(apart("x", "g0", "g1"), hosts=MANY)
    bench.put(guest("g0", "h1"), guest("g1", "h2"))
    report = end(sweep.pairs(Paper(bench.state, bench.now)))
    worked = {case.lost for case in report.cases}
    assert {pair for pair in worked if {"h1", "h2"} & set(pair)} == {
        pair for pair in combinations(sorted(MANY), 2) if {"h1", "h2"} & set(pair)
    }


# ---- reports that are kept


def report_of(key: str, **fields: Any) -> DrillReport:
    base = DrillReport(
        id=key,
        kind=DrillKind.DRY,
        title="without h1",
        asked_by="ops",
        began=1.0,
        ended=2.0,
        verdict=Verdict.PASSED,
        says="all is well",
    )
    return changed(base, **fields)


def kept(bench: Bench, report: DrillReport) -> Reply:
    effects = bench.send(AskKeepDrill(id="ask", by="ops", report=report))
    return next(each for each in effects if isinstance(each, Reply))


def test_a_report_is_kept_with_its_head_in_the_state() -> None:
    bench = Bench()
    assert kept(bench, report_of("drill-1")).accepted
    assert bench.state.drills["drill-1"].says == "all is well"
    again = kept(bench, report_of("drill-1", says="otherwise"))
    assert not again.accepted
    assert bench.state.drills["drill-1"].says == "all is well"


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (report_of("../drill"), "is no id of a drill"),
        (
            report_of("d", evidence=(Evidence(title="x", text="x" * (16 * 1024 * 1024 + 1)),)),
            "bytes of evidence",
        ),
        (
            report_of("d", cases=(Case(lost=("h1",), verdict=Verdict.PASSED),) * 2001),
            "2001 cases, and 2000 are kept",
        ),
    ],
)
def test_a_report_that_is_too_large_is_not_kept(report: DrillReport, why: str) -> None:
    bench = Bench()
    reply = kept(bench, report)
    assert not reply.accepted
    assert why in reply.blockers[0]
    assert bench.state.drills == {}


def test_the_oldest_report_goes() -> None:
    bench = Bench()
    for number in range(KEPT_MAX + 2):
        kept(bench, report_of(f"drill-{number}", ended=1000.0 - number))
    assert len(bench.state.drills) == KEPT_MAX
    left = {f"drill-{number}" for number in range(KEPT_MAX + 2)} - set(bench.state.drills)
    assert left == {f"drill-{KEPT_MAX - 1}", f"drill-{KEPT_MAX}"}, "by when they ended; the new one stays"


# ---- what is measured


def test_a_start_and_its_check_are_measured() -> None:
    bench = Bench().put(guest("a", phase=GuestPhase.RECOVERING, policy=GuestPolicy(checks=(CHECK,))))
    (start,) = [each for each in bench.send(Tick()) if isinstance(each, SendStart)]
    done = Answered(
        host=start.host, session=start.ticket.session, effect=start.id, answer=Answer(outcome=Outcome.DONE)
    )
    bench.send(done, after=2.5)
    assert [each.start_s for each in bench.guest("a").starts] == [2.5]
    draft = bench.draft()
    draft.open_operation("guest-start", "a", "test", guests=("a",))
    bench.state.apply(draft)
    checks = [each for each in bench.send(Tick(), after=0.1) if isinstance(each, CheckGuest)]
    bench.send(
        CheckEnded(effect=checks[0].id, guest="a", results=(CheckResult(check=CHECK, passed=True),)),
        after=1.0,
    )
    assert [(each.start_s, each.check_s) for each in bench.guest("a").starts] == [(2.5, 1.1)]


def test_only_the_newest_are_kept() -> None:
    record = guest("a")
    for number in range(5):
        record = measured.started(record, float(number), number + 0.5)
    assert [each.start_s for each in record.starts] == [2.5, 3.5, 4.5]


def test_a_check_that_passes_after_a_move_says_nothing_of_a_start() -> None:
    moved = guest("a", starts=(StartTook(at=5.0, start_s=2.0),), since=50.0)
    assert measured.answered(moved, 52.0) == moved


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(100, 8000), min_size=10, max_size=10),
    st.sets(st.integers(1, 10)),
    st.integers(900, 7000),
)
def test_the_sentence_names_the_hosts_that_come_nearest(
    used: list[int], cordoned: set[int], memory: int
) -> None:
    """As if every reason against every host had been looked for."""
    bench = site(hosts=MANY)
    for name, taken in zip(MANY, used, strict=True):
        bench.see(name, domain(f"x{name}", memory_mib=taken))
    bench.put(*(changed(bench.host(f"h{at}"), cordon=Wish(by="alice")) for at in sorted(cordoned)))
    bench.put(
        guest("g", phase=GuestPhase.RECOVERING, needs=Needs(memory_mib=memory, networks=("bridge:br9",)))
    )
    found = placement.choose(bench.draft(), bench.guest("g"))
    assert not found.host
    near = sorted(found.reasons.items(), key=lambda item: (len(item[1]), item[0]))
    told = "; ".join(f"{name}: {', '.join(why)}" for name, why in near[: placement.NAMED_MAX])
    assert found.sentence() == f"{told}; and {len(near) - placement.NAMED_MAX} more hosts"


def test_a_host_in_maintenance_leaves_the_other_pairs_proven() -> None:
    bench = crowd([(1000, at) for at in range(1, 10)])
    bench.put(changed(bench.host("h10"), phase=HostPhase.MAINTENANCE))
    report = end(sweep.pairs(Paper(bench.state, bench.now)))
    assert report.looked is not None
    assert (report.looked.of, report.looked.proven) == (36, 36)


def test_nothing_is_proven_while_somebody_waits_for_a_place_or_the_brake_is_near() -> None:
    waits = crowd([(1000, at) for at in range(1, 10)])
    waits.put(guest("w", phase=GuestPhase.RECOVERING, needs=Needs(memory_mib=9000)))
    troubled = crowd([(1000, at) for at in range(1, 10)])
    for name in ("h1", "h2", "h3", "h4"):
        troubled.put(changed(troubled.host(name), fenced_at=(troubled.now - 1,)))
    for bench in (waits, troubled):
        report = end(sweep.pairs(Paper(bench.state, bench.now)))
        assert report.looked is not None
        assert (report.looked.proven, report.looked.worked) == (0, 45)
