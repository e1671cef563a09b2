"""Hand-made definitions elsewhere are removed so often and no more; the command that the alert names lets it go on."""

from typing import Any

from dr.core import handmade, members
from dr.model import commands
from dr.model.base import changed
from dr.model.commands import Answer, Clean, Outcome
from dr.model.effects import Reply, Send
from dr.model.events import Answered, AskSet, Tick
from dr.model.facts import DomainState, Sighting
from dr.model.records import Desired, GuestPhase, HostPhase
from tests.core.build import NOW, Bench, domain, guest

KEY = "guest/g1/hand-made"


def bench_of(removed: int, **fields: Any) -> Bench:
    """g1 runs on h1, is defined on h2, and was removed from there so often."""
    times = tuple(("h2", NOW - 10 - each) for each in range(removed))
    bench = Bench().put(guest("g1", "h1", since=NOW - 900, removed=times, **fields))
    bench.see("h2", domain("g1", DomainState.SHUTOFF))
    return bench


def cleans(bench: Bench) -> int:
    draft = bench.draft()
    members.step(draft, draft.require_host("h2"))
    bench.state.apply(draft)
    return sum(isinstance(e, Send) and isinstance(e.body, Clean) for e in draft.decision().effects)


def test_it_is_removed_up_to_the_bound_and_then_a_person_is_told() -> None:
    assert cleans(bench_of(handmade.ANSWERS_MAX - 1)) == 1
    bench = bench_of(handmade.ANSWERS_MAX)
    assert cleans(bench) == 0
    assert KEY in bench.state.alerts


def test_a_host_that_returns_is_cleaned_however_often() -> None:
    bench = bench_of(handmade.ANSWERS_MAX)
    bench.put(changed(bench.host("h2"), phase=HostPhase.RETURNING))
    assert cleans(bench) == 1


def test_what_was_before_its_last_move_or_the_window_does_not_count() -> None:
    bench = bench_of(handmade.ANSWERS_MAX)
    bench.put(changed(bench.guest("g1"), since=NOW - 5))
    assert cleans(bench) == 1
    bench = bench_of(handmade.ANSWERS_MAX)
    bench.put(changed(bench.guest("g1"), since=0.0))
    bench.now += handmade.WINDOW_S + 30
    bench.hear()
    assert cleans(bench) == 1


def test_another_host_has_a_count_of_its_own() -> None:
    bench = bench_of(handmade.ANSWERS_MAX)
    assert not handmade.enough(bench.draft(), bench.guest("g1"), "h3")


def test_each_removal_is_written_down_and_old_ones_are_forgotten() -> None:
    bench = bench_of(2)
    draft = bench.draft()
    handmade.removed(draft, changed(bench.guest("g1"), since=NOW - 10), "h2")
    after = draft.guest("g1")
    assert after is not None
    assert after.removed == (("h2", NOW - 10), ("h2", NOW))


def test_the_command_lets_it_be_removed_again() -> None:
    bench = bench_of(handmade.ANSWERS_MAX)
    cleans(bench)
    ask = AskSet(id="a", by="ops", guests=("g1",), desired=Desired.RUNNING)
    (reply,) = [effect for effect in bench.send(ask) if isinstance(effect, Reply)]
    assert reply.accepted
    assert KEY not in bench.state.alerts
    assert bench.guest("g1").removed == ()


def test_the_alert_clears_when_the_definition_is_gone() -> None:
    bench = bench_of(handmade.ANSWERS_MAX)
    cleans(bench)
    draft = bench.draft()
    handmade.review(draft, bench.guest("g1"))
    assert draft.alert_of(KEY) is not None, "it is still there"
    bench.look("h2", guests={})
    draft = bench.draft()
    handmade.review(draft, bench.guest("g1"))
    assert draft.alert_of(KEY) is None


def test_a_stopped_guest_that_is_not_proven_down_is_asked_about_until_it_is() -> None:
    bench = Bench().put(guest("g1", "h1", phase=GuestPhase.STOPPED, desired=Desired.STOPPED))
    bench.see("h1", domain("g1", DomainState.SHUTOFF))
    asked = [each for each in bench.send(Tick(), after=1.0) if isinstance(each, Send)]
    assert [(each.host, type(each.body)) for each in asked] == [("h1", commands.Testify)]
    for sighting, left in ((Sighting.UNKNOWN, 1), (Sighting.ABSENT, 0)):
        key, _ = next(each for each in bench.state.pending.items() if each[1].kind == "testify")
        said = commands.Testimony(guest="g1", sighting=sighting, sealed=int(sighting is Sighting.ABSENT))
        answer = Answer(outcome=Outcome.DONE, testimony=(said,))
        bench.send(Answered(effect=key, host="h1", session="s-h1", answer=answer))
        assert len(bench.guest("g1").may_run_on) == left
        for _ in range(3):
            bench.now += 1.0
            bench.hear()
            bench.send(Tick())
    assert bench.guest("g1").phase is GuestPhase.STOPPED
