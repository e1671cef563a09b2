"""Hosts whose own hardware fails: what is remembered of parts, and whom a host that does not get empty holds up."""

from __future__ import annotations

from dr.core import failing
from dr.core.failing import GONE_S, STUCK_S
from dr.core.tables import GuestEvent, move_guest
from dr.model.base import changed
from dr.model.events import Tick
from dr.model.facts import Level, Reading
from dr.model.operations import OperationState
from dr.model.policy import OnCritical
from dr.model.records import HostPhase, Wish
from tests.core.build import Bench, guest, host
from tests.core.test_links import bench, moving

DISK = Reading(part="disk:sdb", level=Level.CRITICAL, reason="it fails")
WELL = Reading(part="ecc:mc0", level=Level.OK)


def step(made: Bench, after: float, *readings: Reading) -> frozenset[str]:
    """So much later it tells of these parts; those that are remembered then."""
    made.now += after
    made.hear()
    draft = made.draft()
    draft.put_host(changed(made.host("h1"), health=readings))
    failing.step(draft, draft.require_host("h1"))
    made.state.apply(draft)
    return made.host("h1").failed


def test_a_part_that_is_not_told_of_any_more_is_forgotten_after_an_hour() -> None:
    """It was taken out: one that is put in under its name, and fails, is another."""
    made = Bench().put(host("h1", failed=frozenset({"disk:sdb"})))
    assert step(made, 1, WELL) == {"disk:sdb"}, "it could not be looked at for a moment"
    assert step(made, GONE_S - 10, WELL) == {"disk:sdb"}
    assert step(made, 5, WELL, DISK) == {"disk:sdb"}, "there it is again"
    assert step(made, GONE_S, WELL) == {"disk:sdb"}, "counted from when it was told of last"
    assert step(made, GONE_S - 1, WELL) == {"disk:sdb"}
    assert step(made, 2, WELL) == frozenset()


def test_a_host_that_tells_nothing_forgets_nothing() -> None:
    made = Bench().put(host("h1", failed=frozenset({"disk:sdb"})))
    assert step(made, 1, WELL) == {"disk:sdb"}
    made.silence("h1")
    assert step(made, 2 * GONE_S, WELL) == {"disk:sdb"}
    made.look("h1", session="s-h1")
    assert step(made, 1, WELL) == {"disk:sdb"}, "the hour begins anew"


def held_up(made: Bench) -> str:
    return failing.why_not(made.draft(), made.host("h2"))


def test_a_host_that_nobody_leaves_holds_the_next_up_for_ten_minutes() -> None:
    stuck, goes = guest("stuck", "h1", blockers=("has a host device",)), guest("goes", "h1")
    made = bench(stuck, goes)
    made.state.settings = changed(made.state.settings, on_critical=OnCritical.EVACUATE)
    drain = Wish(by=failing.BY, reason="ecc:mc0: it fails", at=made.now)
    draining = changed(made.host("h1"), drain=drain, phase=HostPhase.DRAINING, since=made.now)
    made.put(draining)
    draft = made.draft()
    draft.open_operation("drain", "h1", "it fails", failing.BY, ["stuck", "goes"])
    made.state.apply(draft)
    made.put(changed(moving("goes", "h1", "h3"), since=made.now))
    made.now += 2 * STUCK_S
    assert held_up(made) == "h1 is emptied first, one at a time", "one is on its way"
    draft = made.draft()
    there = changed(made.guest("goes"), may_run_on=made.guest("goes").may_run_on[1:], holder="h3", move=None)
    move_guest(draft, there, GuestEvent.SEEN_RUNNING, "runs on h3")
    made.state.apply(draft)
    made.now += STUCK_S - 1
    assert held_up(made) == "h1 is emptied first, one at a time", "one left not long ago"
    made.now += 2
    assert held_up(made) == ""
    made.put(changed(draining, phase=HostPhase.MAINTENANCE, since=made.now))
    assert held_up(made) == ""
    assert {job.state for job in made.state.operations.values()} == {OperationState.OPEN}
    made.put(changed(draining, since=made.now))
    assert held_up(made) == "h1 is emptied first, one at a time", "it has just begun"
    made.send(Tick())
