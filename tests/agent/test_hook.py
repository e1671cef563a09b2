"""What the hook holds back, as far as the agent may rely on it."""

from dr.agent.hook import Hook
from dr.agent.journal import Worker
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
