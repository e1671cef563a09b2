"""What the hook holds back, as far as the agent may rely on it."""

from dr.agent.hook import TOLD_S, Hook
from dr.agent.journal import Worker
from dr.model.facts import Level
from tests.agent.fakes import G, Process, World, listing

G2 = "11111111-0000-0000-0000-000000000002"


async def test_only_what_was_surely_written_is_relied_on() -> None:
    world = World()
    process = Process(world)
    hook = Hook(process, process, Worker("test"))
    await hook.install(listing(G).entries)
    assert hook.in_force(listing(G).entries)
    assert not hook.open_for(G)
    assert "does not know" in hook.open_for(G2)
    world.gate_broken = True
    await hook.protect(listing(G, G2).entries)
    assert "Read-only" in hook.open_for(G)
    assert "Read-only" in hook.open_for(G2)
    assert not (await hook.prove()).proven
    world.gate_broken = False
    await hook.install(listing(G, G2).entries)
    assert not hook.open_for(G2)
    assert (await hook.ensure()).proven


async def test_a_proof_is_made_once_until_libvirtd_is_new() -> None:
    process = Process(World())
    hook = Hook(process, process, Worker("test"))
    await hook.ensure()
    await hook.ensure()
    assert process.proofs == 1
    hook.stale()
    await hook.ensure()
    assert process.proofs == 2


async def test_a_hook_that_somebody_removed_is_put_back_and_proven_anew() -> None:
    world = World()
    process = Process(world)
    now = 1000.0
    hook = Hook(process, process, Worker("test"), clock=lambda: now)
    await hook.install(listing(G).entries)
    assert (await hook.ensure()).proven
    assert hook.reading() is None
    for alteration in ("hook", "list"):
        if alteration == "hook":
            world.hook_there = False
        else:
            world.protected.clear()
        proofs = process.proofs
        await hook.look_after()
        assert world.hook_there
        assert G in world.protected
        assert not hook.state.proven
        told = hook.reading()
        assert told is not None
        assert told.level is Level.CRITICAL
        assert "removed" in told.reason
        assert (await hook.ensure()).proven
        assert process.proofs == proofs + 1
        told = hook.reading()
        assert told is not None
        assert told.level is Level.WARN
        assert "put it back" in told.reason
    now += TOLD_S
    assert hook.reading() is None


async def test_before_a_start_the_hook_is_looked_after() -> None:
    """It was removed a moment ago, and libvirtd was started without it: what was proven before counts for nothing."""
    world = World()
    process = Process(world)
    hook = Hook(process, process, Worker("test"))
    await hook.install(listing(G).entries)
    assert (await hook.ensure()).proven
    world.hook_there = False
    world.hook_works = False
    state = await hook.ensure()
    assert not state.proven
    assert "canary" in state.reason


async def test_a_hook_that_cannot_be_put_back_is_trouble() -> None:
    world = World()
    process = Process(world)
    hook = Hook(process, process, Worker("test"))
    await hook.install(listing(G).entries)
    world.hook_there, world.gate_broken = False, True
    await hook.look_after()
    assert "Read-only" in hook.open_for(G)
    told = hook.reading()
    assert told is not None
    assert told.level is Level.CRITICAL
