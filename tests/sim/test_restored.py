"""A restored store, and hosts that are off: what was proven before must be shown again, and can be."""

from dr.model.events import AskResume
from dr.model.records import HostPhase
from tests.sim.test_found import all_run_once, lively


def test_a_host_that_is_off_is_proven_off_again_after_a_restore() -> None:
    """The restored store puts a fenced host back into every set; its power says off, so nobody waits for a person."""
    world = lively(5, power_on=False)
    world.power_off("h3")
    world.run(20.0, lambda: world.host("h3").phase is HostPhase.FENCED)
    backup = world.store.copy()
    world.power_off("h1")
    world.run(20.0)
    all_run_once(world)
    world.restore_store(backup)
    world.run(20.0, lambda: bool(world.store.cluster.restored))
    world.ask(AskResume(id=world.next_ask(), by="test", reason="looked over"))
    world.run(40.0)
    all_run_once(world)
