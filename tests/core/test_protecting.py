"""The beginning of a protection: what it waits for is said, with the host and its reason."""

from dr.core import guests
from dr.model.base import changed
from dr.model.commands import Answer, Describe, Outcome
from dr.model.effects import Send
from dr.model.events import Answered, Tick
from dr.model.facts import Level, Reading
from dr.model.records import GuestPhase, Place
from tests.core.build import Bench, guest, host


def test_a_host_that_cannot_take_the_list_is_named_with_its_reason() -> None:
    """A full disk on one host holds every new protection up: whoever waits must read where and why."""
    full = Reading(part="state", level=Level.CRITICAL, reason="disk full")
    bench = Bench().put(host("h2", protected_version=1, health=(full,)), host("h3", protected_version=1))
    places = tuple(Place(host=name, boot_id=f"{name}-b1", generation=1) for name in ("h1", "h2", "h3"))
    bench.put(changed(guest("g1", "h1"), phase=GuestPhase.PROTECTING, may_run_on=places))
    draft = bench.draft()
    guests.step(draft, bench.guest("g1"))
    after = draft.guest("g1")
    assert after is not None
    assert "h2: its agent can take no ticket (disk full)" in after.reason
    assert "h3" not in after.reason


def test_a_definition_that_cannot_be_read_is_not_asked_for_in_a_loop_and_its_reason_is_said() -> None:
    """Its host fails to describe it at once, each time: it is asked again later, and whoever waits reads why."""
    bench = Bench()
    bench.put(guest("g1", "h1"))
    bench.put(changed(bench.guest("g1"), phase=GuestPhase.PROTECTING, definition=0, digest=""))
    asked = 0
    effects = bench.send(Tick())
    for _ in range(20):
        describes = [e for e in effects if isinstance(e, Send) and isinstance(e.body, Describe)]
        asked += len(describes)
        effects = bench.send(Tick())
        for send in describes:
            answer = Answer(outcome=Outcome.FAILED, reason="its NVRAM is too large")
            effects += bench.send(Answered(host="h1", session="s-h1", effect=send.id, answer=answer))
    assert asked == 1
    assert bench.guest("g1").reason == "runs on h1; its definition could not be read: its NVRAM is too large"
