"""The beginning of a protection: what it waits for is said, with the host and its reason."""

from dr.core import guests
from dr.model.base import changed
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
