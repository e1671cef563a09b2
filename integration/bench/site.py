"""A site of any size as records: what benchmarks of the core decide about. No processes, no lab."""

from __future__ import annotations

from collections.abc import Iterable

from dr.core.state import State
from dr.core.volatile import View
from dr.model.facts import CpuOffer, DomainState, GuestFacts, HookState, HostFacts, Needs, RunningCpu
from dr.model.records import Cluster, GuestPhase, GuestRecord, HostPhase, HostRecord, Place
from dr.model.settings import Settings

NOW = 1000.0
EPOCH, LIST = 3, 5
MACHINES = tuple(f"pc-q35-{major}.{minor}" for major in range(2, 9) for minor in range(8))
MODELS = tuple(f"Model-{number}" for number in range(60))
FEATURES = tuple(f"feature-{number:03d}" for number in range(110))
OFFER = CpuOffer(models=MODELS, model=MODELS[0], vendor="Intel", features=FEATURES)


def host_record(name: str, memory_mib: int, cpus: int, phase: HostPhase = HostPhase.ONLINE) -> HostRecord:
    facts = HostFacts(
        boot_id=f"{name}-b1",
        arch="x86_64",
        domain_types=("kvm", "qemu"),
        machines=MACHINES,
        cpu_offers={"kvm": OFFER, "qemu": OFFER},
        running_cpus={"c1": RunningCpu(domain_type="kvm", vendor="Intel", features=FEATURES)},
        cpus=cpus,
        memory_mib=memory_mib,
        addresses={"mgmt0": "10.0.0.1"},
        networks=("bridge:br0", "bridge:br1"),
        storage=("nfs:filer:/a", "nfs:filer:/b", f"pool:{name}"),
        hook=HookState(proven=True),
    )
    return HostRecord(name=name, phase=phase, boot_id=f"{name}-b1", facts=facts, protected_version=LIST)


def guest_record(name: str, memory_mib: int, vcpus: int, at: str = "") -> GuestRecord:
    places = (Place(host=at, boot_id=f"{at}-b1", generation=1),) if at else ()
    return GuestRecord(
        id=name,
        name=name,
        phase=GuestPhase.RUNNING if at else GuestPhase.RECOVERING,
        generation=1,
        may_run_on=places,
        holder=at,
        definition=1,
        digest="d1",
        needs=Needs(memory_mib=memory_mib, vcpus=vcpus, networks=("bridge:br0",), storage=("nfs:filer:/a",)),
    )


def state_of(settings: Settings, hosts: Iterable[HostRecord], guests: Iterable[GuestRecord]) -> State:
    """All hosts connected and heard just now, all guests with a place seen there."""
    state = State(settings=settings, started_at=1.0)
    cluster = Cluster(id="c", epoch=EPOCH, leader_id="L", machine="m", protected_version=LIST)
    state.load(cluster=cluster, hosts=hosts, guests=guests, identities=(), operations=(), alerts=())
    seen: dict[str, dict[str, GuestFacts]] = {name: {} for name in state.hosts}
    for guest in state.guests.values():
        for place in guest.may_run_on:
            seen[place.host][guest.id] = GuestFacts(
                id=guest.id,
                name=guest.name,
                state=DomainState.RUNNING,
                memory_mib=guest.needs.memory_mib,
                vcpus=guest.needs.vcpus,
                digest="d1",
                cpu="c1",
            )
    for name in state.hosts:
        state.views[name] = View(
            session=f"s-{name}",
            acked_epoch=EPOCH,
            heard=NOW,
            fresh=NOW,
            interval=0.5,
            inventory=True,
            guests=seen[name],
            guests_at=NOW,
            observed_at=NOW,
        )
    return state
