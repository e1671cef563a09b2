"""Where a guest could run: never over memory, never where something is missing, every reason named."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dr.core import placement
from dr.model.base import changed
from dr.model.facts import CpuOffer, DomainState, HookState, Level, Needs, PagePool, Reading
from dr.model.policy import HostPolicy, Limits
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
    "cannot give it the CPU model Skylake": {"facts": {"cpu_offers": {"kvm": CpuOffer(models=("Nehalem",))}}},
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


# ---- room other than memory


def test_cpus_are_over_committed_by_ratio_and_unknown_ones_do_not_count() -> None:
    bench = Bench("h1", "h2").put(host("h1", facts=facts("h1", cpus=2)))
    bench.see("h1", domain("x", vcpus=15, memory_mib=0))
    record = guest("g", phase=GuestPhase.RECOVERING, needs=Needs(vcpus=2))
    assert placement.why_not(bench.draft(), record, bench.host("h1")) == [
        "has 1 of 16 virtual CPUs free, it needs 2"
    ]
    assert placement.why_not(bench.draft(), record, bench.host("h2")) == []
    policy = HostPolicy(name="h1", cpu_overcommit=9.0)
    bench.state.settings = changed(bench.state.settings, hosts=bench.state.settings.hosts | {"h1": policy})
    assert placement.why_not(bench.draft(), record, bench.host("h1")) == []


def test_memory_is_over_committed_above_the_reserve_and_guests_are_counted() -> None:
    bench = Bench("h1", limits=Limits(memory_overcommit=1.5, guests_per_host=2))
    bench.see("h1", domain("x", memory_mib=10_000))
    record = guest("g", phase=GuestPhase.RECOVERING)
    assert placement.why_not(bench.draft(), record, bench.host("h1")) == []
    bench.see("h1", domain("y", memory_mib=1000))
    assert placement.why_not(bench.draft(), record, bench.host("h1")) == [
        "takes 2 guests at most and has 2",
        "has 520 MiB free above the reserve of 512, it needs 1024",
    ]


def paged(size_kib: int | None, memory_mib: int = 1024) -> Needs:
    return Needs(memory_mib=memory_mib, page_kib=size_kib)


def test_huge_pages_come_out_of_their_pool_and_not_out_of_memory() -> None:
    pool = PagePool(size_kib=2048, total=2048, free=2048, default=True)  # 4 GiB of 8
    bench = Bench("h1").put(host("h1", facts=facts("h1", huge_pages=(pool,))))

    def why(needs: Needs) -> list[str]:
        record = guest("g", phase=GuestPhase.RECOVERING, needs=needs)
        return placement.why_not(bench.draft(), record, bench.host("h1"))

    assert why(paged(0, 4096)) == why(paged(2048, 4096)) == []
    assert why(paged(None, 3584)) == []
    assert why(paged(None, 3585)) == ["has 3584 MiB free above the reserve of 512, it needs 3585"]
    assert why(paged(1048576)) == ["has no huge pages of 1048576 KiB"]
    assert why(paged(0, 4097)) == ["has 4096 MiB free in huge pages of 2048 KiB, it needs 4097"]
    bench.see("h1", domain("x", memory_mib=1024, page_kib=2048))
    bench.put(guest("p", "h1", GuestPhase.STARTING, needs=paged(0)))
    assert why(paged(0, 2049)) == ["has 2048 MiB free in huge pages of 2048 KiB, it needs 2049"]
    assert why(paged(None, 3584)) == []
    # Others than guests hold pages: the host says that fewer are free, and who is coming takes of those.
    bench.put(host("h1", facts=facts("h1", huge_pages=(changed(pool, free=1000),))))
    assert why(paged(0, 1024)) == ["has 976 MiB free in huge pages of 2048 KiB, it needs 1024"]


def test_the_scarcest_resource_decides_where_a_guest_goes() -> None:
    bench = Bench("h1", "h2")
    for name in ("h1", "h2"):
        bench.put(host(name, facts=facts(name, cpus=2)))
    bench.see("h1", domain("x", vcpus=12, memory_mib=100))
    bench.see("h2", domain("y", vcpus=2, memory_mib=4000))
    assert placement.choose(bench.draft(), guest("g", phase=GuestPhase.RECOVERING)).host == "h2"
