"""Protection begins: every host that may run the guest has answered, or a person vouches for it."""

from dr.model.events import AskConfirmDown, AskProtect, AskResume
from dr.model.records import GuestPhase, HostPhase
from dr.sim.world import World


def test_a_host_without_power_holds_protection_up_until_a_person_vouches_for_it() -> None:
    """Its hook does not know the new guest, so at its next boot autostart could start a second copy (rule 4)."""
    world = World(5, power_on=False, guests={"h1": ("g1",), "h2": ("g2",)}).begin(protect=False)
    world.power_off("h3")
    assert world.run(20.0, lambda: world.host("h3").phase is HostPhase.FENCED)
    assert world.ask(AskProtect(id="p", by="ops", guests=("g1",))).accepted
    assert not world.run(20.0, lambda: world.guest("g1").phase is GuestPhase.RUNNING)
    for number in range(2):  # now somebody looks for it; then the word counts
        world.ask(AskConfirmDown(id=f"c{number}", by="ops", host="h3", reason="it has no cable"))
        world.run(3.0)
    assert world.run(10.0, lambda: world.guest("g1").phase is GuestPhase.RUNNING)


def test_every_host_remembers_where_a_guest_went() -> None:
    """Hosts are told of a guest's new place, so that an older store can learn of a host that it does not know."""
    world = World(6, guests={"h1": ("g1",)}).begin()
    world.power_off("h1")
    assert world.run(30.0, lambda: world.running("g1") not in ([], ["h1"]))
    (holder,) = world.running("g1")
    other = "h2" if holder == "h3" else "h3"
    world.run(25.0)
    entries = world.hosts[other].agent.memory.entries
    assert [entry.holder for entry in entries] == [holder]


def test_a_host_that_only_other_agents_know_stands_in_every_set() -> None:
    """It joined after the copy was made, took the guest, and its agent is down: nobody else may start the guest."""
    world = World(7, hosts=("h1", "h2"), guests={"h1": ("g1",)}).begin()
    backup = world.store.copy()
    world.add_host("h3")
    assert world.run(20.0, lambda: world.host("h3").phase is HostPhase.ONLINE)
    world.hosts["h2"].start_faults.extend(["fail"] * 9)
    world.power_off("h1")
    assert world.run(60.0, lambda: world.running("g1") == ["h3"])
    world.run(25.0)
    world.hosts["h3"].agent.kill()
    world.cut("h3", storage=True)
    world.hosts["h2"].start_faults.clear()
    world.restore_store(backup)
    world.run(20.0, lambda: bool(world.store.cluster.restored))
    world.ask(AskResume(id=world.next_ask(), by="test", reason="looked over"))
    world.run(40.0)
    assert world.running("g1") == ["h3"]
    assert "h3" in {place.host for place in world.guest("g1").may_run_on}
