"""Where a guest could run: never over memory, never where something is missing, every reason named."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dr.core import placement
from dr.model.facts import DomainState, HookState, Level, Needs, Reading
from dr.model.records import Condition, GuestPhase, HostPhase, HostRecord
from tests.core.build import Bench, domain, facts, guest, host

RESERVE = 512

flaws: dict[str, dict[str, Any]] = {
    "is suspect": {"phase": HostPhase.SUSPECT},
    "quarantined": {"conditions": frozenset({Condition.QUARANTINED})},
    "hook is not proven": {"facts": {"hook": HookState(proven=False, reason="no")}},
    "has not yet acknowledged": {"protected_version": 1},
    "libvirt does not answer": {"health": (Reading(part="libvirt", level=Level.CRITICAL, reason="dead"),)},
    "agent can take no ticket": {
        "health": (Reading(part="state", level=Level.CRITICAL, reason="disk full"),)
    },
    "is aarch64": {"facts": {"arch": "aarch64"}},
    "cannot run kvm": {"facts": {"domain_types": ("qemu",)}},
    "has no machine type q35": {"facts": {"machines": ()}},
    "its CPU cannot be a Skylake": {"facts": {"cpu_models": ()}},
    "has no network bridge:br0": {"facts": {"networks": ()}},
    "does not see storage nbd:a": {"facts": {"storage": ()}},
    "MiB free above the reserve": {"facts": {"memory_mib": 1024}},
}
needs = Needs(
    memory_mib=1024, machine="q35", cpu_model="Skylake", networks=("bridge:br0",), storage=("nbd:a",)
)


def flawed(name: str, chosen: list[str]) -> HostRecord:
    fields: dict[str, Any] = {}
    of_facts: dict[str, Any] = {}
    for flaw in chosen:
        for key, value in flaws[flaw].items():
            if key == "facts":
                of_facts |= value
            elif key == "health":
                fields[key] = (*fields.get(key, ()), *value)
            else:
                fields[key] = value
    return host(name, fields.pop("phase", HostPhase.ONLINE), facts=facts(name, **of_facts), **fields)


@given(st.lists(st.sampled_from(sorted(flaws)), unique=True))
def test_every_reason_is_named(chosen: list[str]) -> None:
    """An explanation names all that stands against a host, not the first thing found."""
    bench = Bench("h1").put(flawed("h1", chosen))
    record = guest("g1", phase=GuestPhase.RECOVERING, needs=needs)
    why = placement.why_not(bench.draft(), record, bench.host("h1"))
    for flaw in flaws:
        assert any(flaw in text for text in why) == (flaw in chosen), (flaw, why)
    assert len(why) == len(chosen)
    found = placement.choose(bench.draft(), record)
    assert (found.host == "h1") == (not chosen)
    assert all(flaw in found.sentence() for flaw in chosen)


def test_no_host_at_all_is_said() -> None:
    bench = Bench("h1")
    found = placement.choose(bench.draft(), guest("g1"), without=("h1",))
    assert found.sentence() == "there is no other host"


sizes = st.integers(64, 4096)


@given(
    st.lists(sizes, min_size=1, max_size=4), st.lists(st.tuples(sizes, st.integers(0, 3)), max_size=8), sizes
)
def test_against_a_dumb_twin(hosts: list[int], loads: list[tuple[int, int]], size: int) -> None:
    """Free memory counted the slow way gives the same hosts and the same choice."""
    names = [f"h{n}" for n in range(1, len(hosts) + 1)]
    bench = Bench(*names)
    used = dict.fromkeys(names, 0)
    for name, memory in zip(names, hosts, strict=True):
        bench.put(host(name, facts=facts(name, memory_mib=memory)))
    for number, (memory, where) in enumerate(loads):
        name = names[where % len(names)]
        used[name] += memory
        if number % 3 == 0:  # an unprotected guest that runs there
            bench.see(name, domain(f"x{number}", memory_mib=memory))
        elif number % 3 == 1:  # a protected guest that may be about to run there
            record = guest(f"p{number}", name, GuestPhase.STARTING, needs=Needs(memory_mib=memory))
            bench.put(record)
        else:  # a protected guest that runs there: counted once
            bench.put(guest(f"p{number}", name, needs=Needs(memory_mib=memory)))
            bench.see(name, domain(f"p{number}", memory_mib=memory))
        bench.see(name, domain(f"off{number}", DomainState.SHUTOFF, memory_mib=memory))
    fits = {
        name: (used[name] + size) / (memory - RESERVE)
        for name, memory in zip(names, hosts, strict=True)
        if used[name] + size <= memory - RESERVE
    }
    found = placement.choose(bench.draft(), guest("new", needs=Needs(memory_mib=size)))
    assert set(found.scores) == set(fits)
    assert found.host == (min(fits, key=lambda name: (fits[name], name)) if fits else "")


@given(st.lists(st.integers(256, 3000), min_size=1, max_size=12), st.integers(1, 3))
def test_a_whole_failover_never_overfills(sizes_mib: list[int], count: int) -> None:
    """Starts given out in one decision count for each other."""
    names = [f"h{n}" for n in range(1, count + 1)]
    bench = Bench(*names)
    for number, size in enumerate(sizes_mib):
        bench.put(guest(f"g{number}", phase=GuestPhase.RECOVERING, needs=Needs(memory_mib=size)))
    from dr.core.starts import place_waiting

    draft = bench.draft()
    place_waiting(draft)
    bench.state.apply(draft)
    for name in names:
        placed = [
            g.needs.memory_mib
            for g in bench.state.guests.values()
            if any(p.host == name for p in g.may_run_on)
        ]
        assert sum(placed) <= 8192 - RESERVE
        assert len(placed) <= bench.state.settings.limits.starts_per_host


def test_starts_go_out_by_priority_and_bounded_per_host() -> None:
    from dr.core.starts import place_waiting

    bench = Bench("h1")
    for number in range(8):
        policy = guest("x").policy
        from dr.model.base import changed

        bench.put(guest(f"g{number}", phase=GuestPhase.RECOVERING, policy=changed(policy, priority=number)))
    draft = bench.draft()
    place_waiting(draft)
    bench.state.apply(draft)
    starting = sorted(g.name for g in bench.state.guests.values() if g.phase is GuestPhase.STARTING)
    assert starting == ["g4", "g5", "g6", "g7"]


def test_prefer_wins_only_if_eligible() -> None:
    bench = Bench()
    bench.see("h1", domain("x", memory_mib=4096))
    record = guest("g1", phase=GuestPhase.RECOVERING)
    assert placement.choose(bench.draft(), record, prefer="h1").host == "h1"
    assert placement.choose(bench.draft(), record).host == "h2"
    bench.put(host("h1", HostPhase.SUSPECT))
    assert placement.choose(bench.draft(), record, prefer="h1").host == "h2"
