"""A start interrupted at every durable write and every effect: never two copies, never a false `absent`."""

import asyncio

import pytest

from dr.model.commands import Outcome
from dr.model.facts import DomainState, Sighting
from tests.agent.fakes import G, Host, World, listing


async def steps_of_one_start() -> int:
    """How many moments there are from the ticket's arrival to its answer."""
    host = Host()
    session = await host.linked()
    before = len(host.world.steps)
    answer = await session.ask(session.start(1), "start-1")
    assert answer.outcome is Outcome.DONE, answer
    assert host.world.starts == [G]
    await host.kill()
    session.pump.cancel()
    return len(host.world.steps) - before


async def crash_in_a_start(moment: int) -> tuple[Host, str]:
    """A host whose agent died at that moment of its first start; the step's name."""
    host = Host()
    session = await host.linked()
    await asyncio.sleep(0.05)  # nothing else left to write
    host.world.crash_at = len(host.world.steps) + moment
    session.post(session.start(1), "start-1")
    await session.until(lambda: host.world.crashed)
    await host.kill()
    await session.end()
    assert "start-1" not in session.answers or host.world.starts == [G]
    host.world.crash_at = 0
    return host, host.world.steps[-1]


@pytest.mark.parametrize("late", [False, True], ids=["libvirtd-at-once", "libvirtd-late"])
async def test_every_interruption(late: bool) -> None:
    moments = await steps_of_one_start()
    assert moments >= 12
    seen = set()
    for moment in range(1, moments + 1):
        host, step = await crash_in_a_start(moment)
        seen.add(step)
        world = host.world
        begun = any(known.command == "start-1" for known in world.memory().tickets)
        assert begun or not world.permits, f"acted before it was written down (died at {step!r})"
        if not late:
            world.libvirtd()
        host.boot()
        session = await host.linked()

        # The same command again: its end is told or unknown, and it is not run a second time.
        again = await session.ask(session.start(1, session="gone"), "start-1")
        assert again.outcome in {Outcome.UNKNOWN, Outcome.REFUSED, Outcome.DONE}, (step, again)
        # The same ticket under a new id and for this session: only if it was never written down.
        other = await session.ask(session.start(1), "start-1-again")
        assert (other.outcome is Outcome.REFUSED) == begun, (step, other)
        assert len(world.starts) <= 1, step

        testimony = await session.testify(1)
        assert (testimony.sighting is Sighting.PRESENT) == (G in world.domains), (step, testimony)
        world.libvirtd()
        if testimony.sighting is Sighting.ABSENT:
            assert testimony.sealed >= 1
            assert G not in world.domains, f"testified absent, started later (died at {step!r})"
            # Now the next generation may start, and does.
            assert (await session.ask(session.start(2), "start-2")).outcome is Outcome.DONE
        assert world.starts == [G], step
        await host.kill()
        await session.end()
    assert {"saving", "saved", "permitting", "permitted", "start in libvirtd's queue", "start done"} <= seen


async def test_a_start_still_in_libvirtd_when_it_is_asked_for(host: Host) -> None:
    """Connection lost in mid-start: unknown; a testimony then makes the queued start harmless."""
    session = await host.linked()
    host.world.start_unknown = True
    answer = await session.ask(session.start(1))
    assert answer.outcome is Outcome.UNKNOWN
    assert not answer.testimony
    assert host.world.queue == [G]
    testimony = await session.testify(1)
    assert (testimony.sighting, testimony.sealed) == (Sighting.ABSENT, 1)
    host.world.libvirtd()
    assert not host.world.domains


async def test_state_lost_with_a_start_in_libvirtd() -> None:
    """The state directory is gone too: no `absent` before the list is back, and none of the old tickets after it."""
    host = Host()
    session = await host.linked()
    host.world.start_unknown = True
    await session.ask(session.start(3))
    await host.kill()
    await session.end()
    host.world.disk = None
    host.world.start_unknown = False
    host.boot()
    session = await host.linked(protect=False)
    assert session.hello.memory.protected_version == 0
    assert host.world.protected, "without a list the old hook files stay"
    assert (await session.testify(3)).sighting is Sighting.UNKNOWN
    refused = await session.ask(session.start(4))
    assert refused.outcome is Outcome.REFUSED
    assert "send the list first" in refused.reason
    await session.ask(listing(generation=3))
    assert "sealed up to 3" in (await session.ask(session.start(3))).reason
    assert (await session.testify(3)).sighting is Sighting.ABSENT
    host.world.libvirtd()
    assert not host.world.domains
    assert (await session.ask(session.start(4))).outcome is Outcome.DONE
    assert host.world.starts == [G]
    await host.kill()
    await session.end()


async def test_what_ended_is_remembered_across_a_restart() -> None:
    world = World()
    host = Host(world)
    session = await host.linked()
    assert (await session.ask(session.start(1), "a")).outcome is Outcome.DONE
    await host.kill()
    await session.end()
    host.boot()
    session = await host.linked()
    assert session.hello.memory.sealed == {G: 1}
    assert (await session.ask(session.start(1, session="old"), "a")).outcome is Outcome.DONE
    assert world.starts == [G]
    assert world.domains == {G: DomainState.RUNNING}
    await host.kill()
    await session.end()
