"""The world of a scenario, as it stands at the beginning: hosts online or not, guests protected, running or not.

Here: how it is brought about, with the same commands that people have wherever there is one. Not here: what happens
afterwards (`dr.sim.run`).
"""

from __future__ import annotations

from collections.abc import Callable

from dr.model.base import GuestId, changed
from dr.model.events import (
    AskCordon,
    AskDrain,
    AskLabel,
    AskProtect,
    AskSet,
    AskStop,
    OperatorAsk,
    Reconfigured,
)
from dr.model.hooks import Hooks
from dr.model.policy import GuestPolicy, PolicyChange
from dr.model.records import Condition, Desired, GuestPhase, HostPhase
from dr.model.settings import Settings
from dr.sim.dirtying import Writes
from dr.sim.scenario.language import HostSpec, Scenario
from dr.sim.world import World

PATIENCE_S = 30.0
RHYTHM_S = 6.0  # until every link's rhythm was measured, so that silence is judged as in a cluster that runs for long
PRESET = "so since the scenario began"
DOWN = ("stopped", "recovering", "error")
PHASES = {"recovering": GuestPhase.RECOVERING, "error": GuestPhase.ERROR}


class CannotBegin(AssertionError):
    """The world did not come to stand as the scenario wants it."""


def begin(scenario: Scenario) -> World:
    """Raises CannotBegin."""
    home = next((name for name, spec in scenario.hosts.items() if spec.coordinator_here), "")
    world = World(
        scenario.seed, hosts=scenario.hosts, timers=scenario.timers, limits=scenario.limits, home=home
    )
    _machines(world, scenario)
    world.begin(protect=False)
    _protect(world, scenario)
    _stand(world, scenario)
    world.run(RHYTHM_S)
    world.set_clock(scenario.clock)
    if scenario.schedules or scenario.hooks != Hooks():
        world.settings = changed(world.settings, schedules=scenario.schedules, hooks=scenario.hooks)
        world.coordinator.submit(Reconfigured(settings=world.settings))
    return world


def _machines(world: World, scenario: Scenario) -> None:
    settings = changed(
        world.settings,
        rules=scenario.rules,
        on_leave=scenario.on_leave,
        on_critical=scenario.on_critical,
        auto_fence=scenario.auto_fence,
    )
    for name, spec in scenario.hosts.items():
        host = world.hosts[name]
        host.memory_mib, host.cpus, host.cpu = spec.memory_mib, spec.cpus, spec.cpu
        settings = _with_policy(world, settings, name, spec)
    world.settings = settings
    for name, guest in scenario.guests.items():
        in_use_mib = guest.resident_mib or guest.memory_mib
        writes = Writes(guest.dirty_mib_s, guest.working_set_mib or in_use_mib) if guest.dirty_mib_s else None
        world.add_guest(
            guest.on,
            name,
            guest.memory_mib,
            guest.vcpus,
            resident_mib=guest.resident_mib,
            disk_mib=guest.disk_mib,
            writes=writes,
        )


def _with_policy(world: World, settings: Settings, name: str, spec: HostSpec) -> Settings:
    policy = settings.hosts[name]
    if spec.fencing == "bmc_and_pdu":
        policy = world.policy(name, True, spec.power_on_after_fence)
    policy = changed(
        policy,
        fencing=() if spec.fencing == "none" else policy.fencing,
        power_on_after_fence=spec.power_on_after_fence,
        coordinator_here=spec.coordinator_here,
        on_leave=spec.on_leave,
        labels=spec.labels,
    )
    if spec.fencing in ("none", "unproven"):
        for host, device in list(world.store.identities):
            if host == name:
                del world.store.identities[host, device]
    record = world.store.hosts[name]
    world.store.hosts[name] = changed(record, labels=spec.labels)
    return changed(settings, hosts=settings.hosts | {name: policy})


def _protect(world: World, scenario: Scenario) -> None:
    """Each under its own policy, as if the configuration had said so at that moment."""
    wanted = {name: spec for name, spec in scenario.guests.items() if spec.is_ != "unprotected"}
    groups: list[tuple[GuestPolicy, list[GuestId]]] = []
    for name, spec in wanted.items():
        policy = changed(spec.policy or scenario.policy, boot_after=())  # those it waits for may come later
        group = next((names for known, names in groups if known == policy), None)
        if group is None:
            groups.append((policy, [name]))
        else:
            group.append(name)
    for policy, names in groups:
        _configure(world, policy)
        _ask(world, AskProtect(id=world.next_ask(), by="ops", guests=tuple(names)))
    _configure(world, scenario.policy)
    _wait(world, lambda: all(_runs(world, name) for name in wanted), "protected")
    for name, spec in wanted.items():
        if after := (spec.policy or scenario.policy).boot_after:
            part = PolicyChange(boot_after=after)
            _ask(world, AskSet(id=world.next_ask(), by="ops", guests=(name,), policy=part))
        if spec.labels:
            labels: dict[str, str | None] = {**spec.labels}
            _ask(world, AskLabel(id=world.next_ask(), by="ops", kind="guest", name=name, labels=labels))


def _runs(world: World, name: GuestId) -> bool:
    """Protected and running; a guest whose protection was refused is not known any more."""
    return name in world.store.guests and world.guest(name).phase is GuestPhase.RUNNING


def _configure(world: World, policy: GuestPolicy) -> None:
    world.settings = changed(world.settings, guests=policy)
    world.coordinator.submit(Reconfigured(settings=world.settings))


def _stand(world: World, scenario: Scenario) -> None:
    """Hosts and guests that do not begin online and running."""
    for name, host in scenario.hosts.items():
        if host.is_ == "off":
            world.power_off(name)
    off = [name for name, host in scenario.hosts.items() if host.is_ == "off"]
    _wait(world, lambda: all(world.host(name).phase is HostPhase.FENCED for name in off), "proven off")
    down = tuple(name for name, spec in scenario.guests.items() if spec.is_ in DOWN)
    if down:
        _ask(world, AskStop(id=world.next_ask(), by="ops", guests=down, mode="destroy"))
        _wait(world, lambda: all(world.guest(name).phase is GuestPhase.STOPPED for name in down), "stopped")
    for name, host in scenario.hosts.items():
        if host.is_ == "cordoned":
            _ask(world, AskCordon(id=world.next_ask(), by="ops", host=name, reason=PRESET))
        if host.is_ == "maintenance":
            _ask(world, AskDrain(id=world.next_ask(), by="ops", host=name, reason=PRESET))
    aside = [name for name, host in scenario.hosts.items() if host.is_ == "maintenance"]
    _wait(world, lambda: all(world.host(n).phase is HostPhase.MAINTENANCE for n in aside), "set aside")
    _write(world, scenario)


def _write(world: World, scenario: Scenario) -> None:
    """What no command brings about is written into the store, while the coordinator is down."""
    hosts = [name for name, spec in scenario.hosts.items() if spec.is_ == "quarantined"]
    guests = {name: PHASES[spec.is_] for name, spec in scenario.guests.items() if spec.is_ in PHASES}
    if not hosts and not guests:
        return
    world.coordinator.kill()
    for name in hosts:
        host = world.store.hosts[name]
        world.store.hosts[name] = changed(host, conditions=host.conditions | {Condition.QUARANTINED})
    for guest_id, phase in guests.items():
        guest = world.store.guests[guest_id]
        world.store.guests[guest_id] = changed(guest, phase=phase, desired=Desired.RUNNING, reason=PRESET)
    world.restart_coordinator()


def _ask(world: World, ask: OperatorAsk) -> None:
    reply = world.ask(ask)
    if not reply.accepted:
        raise CannotBegin(f"it cannot begin like this: {'; '.join(reply.blockers)}")


def _wait(world: World, done: Callable[[], bool], what: str) -> None:
    if not done() and not world.run(PATIENCE_S, done):
        raise CannotBegin(f"it cannot begin like this: what should be is not {what} after {PATIENCE_S:g} s")
