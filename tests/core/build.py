"""States and records for tests of the core, each as small as the question needs."""

from __future__ import annotations

from typing import Any

from dr.core.decide import decide
from dr.core.state import Draft, State
from dr.core.volatile import View
from dr.model.base import changed
from dr.model.checks import CheckResult
from dr.model.effects import CheckGuest, Effect
from dr.model.events import CheckEnded, Event
from dr.model.evidence import DeviceReading, Power, PowerReport
from dr.model.facts import (
    CpuOffer,
    DomainState,
    GuestFacts,
    HookState,
    HostFacts,
    Needs,
    RunningCpu,
)
from dr.model.policy import FenceDevice, FenceLevel, GuestPolicy, HostPolicy, Limits, Timers
from dr.model.records import (
    Cluster,
    DeviceIdentity,
    GuestPhase,
    GuestRecord,
    HostPhase,
    HostRecord,
    Place,
    StoredDefinition,
)
from dr.model.settings import Settings

NOW = 1000.0
EPOCH = 3
PROTECTED_VERSION = 5
OFFER = CpuOffer(models=("Skylake",), model="Skylake", vendor="Intel", features=("avx2", "sse4.2"))


def facts(name: str, **fields: Any) -> HostFacts:
    base = HostFacts(
        boot_id=f"{name}-b1",
        arch="x86_64",
        domain_types=("kvm",),
        machines=("q35",),
        cpu_offers={"kvm": OFFER},
        running_cpus={"c1": RunningCpu(domain_type="kvm", vendor="Intel", features=OFFER.features)},
        memory_mib=8192,
        addresses={"mgmt": f"10.0.0.{name[1:]}"},
        networks=("bridge:br0",),
        storage=("nbd:a",),
        hook=HookState(proven=True),
    )
    return changed(base, **fields)


def host(name: str, phase: HostPhase = HostPhase.ONLINE, **fields: Any) -> HostRecord:
    fields.setdefault("facts", facts(name))
    base = HostRecord(name=name, phase=phase, boot_id=f"{name}-b1", protected_version=PROTECTED_VERSION)
    return changed(base, **fields)


def view(**fields: Any) -> View:
    """Connected, heard just now, its inventory empty."""
    base = View(
        session="s", acked_epoch=EPOCH, heard=NOW, fresh=NOW, interval=0.5, inventory=True, guests_at=NOW
    )
    return changed(base, **fields)


def guest(name: str, at: str = "", phase: GuestPhase = GuestPhase.RUNNING, **fields: Any) -> GuestRecord:
    """A protected guest of 1 GiB; `at`: its only place."""
    places = (Place(host=at, boot_id=f"{at}-b1", generation=1),) if at else ()
    base = GuestRecord(
        id=name,
        name=name,
        phase=phase,
        generation=1,
        may_run_on=places,
        holder=at,
        definition=1,
        digest="d1",
        needs=Needs(memory_mib=1024, networks=("bridge:br0",), storage=("nbd:a",)),
        policy=GuestPolicy(),
    )
    return changed(base, **fields)


def domain(name: str, state: DomainState = DomainState.RUNNING, **fields: Any) -> GuestFacts:
    return changed(
        GuestFacts(id=name, name=name, state=state, memory_mib=1024, digest="d1", cpu="c1"), **fields
    )


def levels(name: str, *devices: tuple[str, ...]) -> tuple[FenceLevel, ...]:
    wanted = devices or ((f"bmc-{name}",),)
    return tuple(
        FenceLevel(devices=tuple(FenceDevice(name=device, agent="fence_sim") for device in level))
        for level in wanted
    )


def reading(device: str, power: Power = Power.OFF, **fields: Any) -> DeviceReading:
    base = DeviceReading(device=device, power=power, guid=f"guid-{device}", fingerprint=f"fp-{device}")
    return changed(base, **fields)


def report(*readings: DeviceReading, level: int = 0) -> PowerReport:
    return PowerReport(level=level, readings=readings)


class Bench:
    """A state with a few hosts, all online and heard; events go in, effects come out."""

    def __init__(self, *names: str, limits: Limits | None = None, **fencing: tuple[FenceLevel, ...]) -> None:
        names = names or ("h1", "h2", "h3")
        policies = {name: HostPolicy(name=name, fencing=fencing.get(name, levels(name))) for name in names}
        self.state = State(
            settings=Settings(timers=Timers(), limits=limits or Limits(), hosts=policies),
            cluster=Cluster(
                id="c", epoch=EPOCH, leader_id="L", machine="m", protected_version=PROTECTED_VERSION
            ),
        )
        for name in names:
            self.state.hosts[name] = host(name)
            self.state.views[name] = view(session=f"s-{name}")
            for level in policies[name].fencing:
                for device in level.devices:
                    self.prove(name, device.name)
        self.now = NOW
        self.effects: list[Effect] = []
        self.definitions: list[StoredDefinition] = []

    def prove(self, name: str, device: str) -> None:
        self.state.identities[name, device] = DeviceIdentity(
            host=name, device=device, guid=f"guid-{device}", fingerprint=f"fp-{device}"
        )

    def put(self, *records: HostRecord | GuestRecord) -> Bench:
        """Records as if they had been decided; a running guest is also seen by its host."""
        draft = self.draft()
        for record in records:
            if isinstance(record, HostRecord):
                draft.put_host(record)
            else:
                draft.put_guest(record)
        self.state.apply(draft)
        for record in records:
            if isinstance(record, GuestRecord) and record.phase is GuestPhase.RUNNING:
                for place in record.may_run_on:
                    self.see(place.host, domain(record.name))
        return self

    def see(self, name: str, *domains: GuestFacts) -> None:
        """These domains are in the host's inventory too."""
        before = self.state.views[name]
        seen = before.guests | {item.id: item for item in domains}
        self.state.views[name] = changed(before, guests=seen)

    def look(self, name: str, **fields: Any) -> None:
        self.state.views[name] = changed(self.state.views[name], **fields)

    def silence(self, name: str, since: float = 10.0) -> None:
        """Its link is down and unheard for so long."""
        self.look(name, session="", heard=self.now - since, fresh=self.now - since, inventory=False)

    def hear(self, *names: str) -> None:
        for name in names or self.state.hosts:
            self.look(name, heard=self.now, fresh=self.now)

    def draft(self) -> Draft:
        return Draft(self.state, self.now)

    def send(self, event: Event, after: float = 0.0) -> list[Effect]:
        """Decide, take over, return the effects."""
        self.now += after
        draft = decide(self.state, event, self.now)
        changes = draft.changes()
        self.definitions += changes.definitions
        effects = list(draft.decision().effects)
        self.state.apply(draft)
        self.state.revision += 1 if changes else 0
        self.effects += effects
        return effects

    def host(self, name: str) -> HostRecord:
        return self.state.hosts[name]

    def guest(self, name: str) -> GuestRecord:
        return self.state.guests[name]


def checked(effect: CheckGuest, passed: bool, why: str = "nothing answers") -> CheckEnded:
    """The end of that round, all of it alike."""
    found = tuple(CheckResult(check=each, passed=passed, why="" if passed else why) for each in effect.checks)
    return CheckEnded(effect=effect.id, guest=effect.guest, results=found)
