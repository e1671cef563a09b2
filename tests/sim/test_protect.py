"""Protection begins: every host that may run the guest has answered, or is proven not to."""

from dr.model.events import AskProtect
from dr.model.records import GuestPhase, HostPhase
from dr.sim.world import World


def test_a_host_that_is_proven_dead_does_not_hold_up_protection() -> None:
    """It stands in the new guest's set as every host does (rule 4); its power says off, so nobody waits for it."""
    world = World(5, power_on=False, guests={"h1": ("g1",), "h2": ("g2",)}).begin(protect=False)
    world.power_off("h3")
    assert world.run(20.0, lambda: world.host("h3").phase is HostPhase.FENCED)
    assert world.ask(AskProtect(id="p", by="ops", guests=("g1",))).accepted
    assert world.run(10.0, lambda: world.guest("g1").phase is GuestPhase.RUNNING)
