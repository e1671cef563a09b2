"""The end of a random world: everything is repaired, people do what only they can, and all must become well.

Here: what people do, and for how long it is waited. Not here: what can be repaired (`dr.sim.world`), what well means
(`dr.sim.ending`).
"""

from __future__ import annotations

from collections.abc import Callable

from dr.model.base import GuestId, HostName, changed
from dr.model.events import (
    AskClearQuarantine,
    AskConfirmDown,
    AskFence,
    AskProtect,
    AskRemoveHost,
    AskResume,
    AskSet,
    AskStart,
    AskUncordon,
    AskUndrain,
    Event,
    Reconfigured,
)
from dr.model.policy import PolicyChange
from dr.model.records import Condition, GuestPhase, GuestRecord, HostPhase, HostRecord
from dr.sim.ending import alerts_left
from dr.sim.world import World

OPS = "ops"
REPAIRED_S = 240.0  # what may be left to do after everything was repaired takes no longer
RULES_LIFTED_S = 120.0  # before that: what rules forbid waits, and people see it and lift them
LOOK_EVERY_S = 10.0


def repair(world: World, wait: Callable[[float], None]) -> list[str]:
    """Repair everything, and help until all is well; what is not well in the end. Raises Violation."""
    world.heal()
    until = world.clock.now + REPAIRED_S
    while True:
        wait(LOOK_EVERY_S)
        _help(world)
        if until - world.clock.now < RULES_LIFTED_S and world.settings.rules:
            _lift_rules(world)
        wrong = world.truth.unfinished() + alerts_left(world)
        if not wrong or world.clock.now >= until:
            return wrong


def _submit(world: World, event: Event) -> None:
    if world.coordinator.listening:
        world.coordinator.submit(event)


def _lift_rules(world: World) -> None:
    world.say("people lift every rule")
    world.settings = changed(world.settings, rules=())
    _submit(world, Reconfigured(settings=world.settings))


def _help(world: World) -> None:
    """What operators do once all is repaired: look over, resume, protect, start again what was given up."""
    for name, host in world.hosts.items():
        if not host.up:
            world.power_on(name)  # the coordinator may be on it
    if not world.coordinator.listening:
        return
    if world.store.cluster.pause is not None:
        _submit(world, AskResume(id=world.next_ask(), by=OPS, reason="all is repaired"))
    for record in list(world.store.hosts.values()):
        name = record.name
        may_run = any(p.host == name for guest in world.store.guests.values() for p in guest.may_run_on)
        if name in world.scrapped and (may_run or record.phase is not HostPhase.FENCED):
            _call_off(world, record)
        elif name in world.scrapped:  # and whoever is held for it waits in vain
            _submit(world, AskRemoveHost(id=world.next_ask(), by=OPS, host=name))
            continue
        if record.drain is not None:
            _submit(world, AskUndrain(id=world.next_ask(), by=OPS, host=name))
        if record.cordon is not None:
            _submit(world, AskUncordon(id=world.next_ask(), by=OPS, host=name))
        if Condition.QUARANTINED in record.conditions:
            _submit(world, AskClearQuarantine(id=world.next_ask(), by=OPS, host=name))
    _help_guests(world)


def _call_off(world: World, host: HostRecord) -> None:
    """A machine that is gone is said to be; that is not believed while one of its devices says on."""
    why = "it was scrapped"
    if world.fencer.says_on(host.name):
        if host.phase is HostPhase.FENCED:  # `dr` switches none off twice
            world.hosts[host.name].outlets_on = [False, False]
        else:
            _submit(world, AskFence(id=world.next_ask(), by=OPS, host=host.name, reason=why))
    ask = AskConfirmDown(id=world.next_ask(), by=OPS, host=host.name, boot_id=host.boot_id, reason=why)
    _submit(world, ask)  # now somebody looks for it
    world.clock.after(2.0, lambda: _submit(world, changed(ask, id=world.next_ask())))


def _help_guests(world: World) -> None:
    for guest_id in world.definitions:
        for name in world.running(guest_id)[1:]:  # runs twice: one of the two is stopped by hand
            world.hosts[name].end(guest_id, "destroyed")
    for guest in list(world.store.guests.values()):
        if guest.phase is GuestPhase.PROTECTING and not world.running(guest.id):
            for host in world.hosts.values():  # a copy that nobody remembers: given up, and started cold
                host.end(guest.id, "destroyed")
        vouched = _newest(world, guest) if guest.needs.local and not guest.disks_on else ""
        if guest.phase is GuestPhase.ERROR or (vouched and not world.running(guest.id)):
            _submit(world, AskStart(id=world.next_ask(), by=OPS, guests=(guest.id,), disks_on=vouched))
    for guest_id in world.definitions:
        if guest_id not in world.store.guests:
            _start_by_hand(world, guest_id)
            local = bool(world.definitions[guest_id].local)
            consent = local or None
            _submit(world, AskProtect(id=world.next_ask(), by=OPS, guests=(guest_id,), local_disks=consent))
    if all(guest in world.store.guests or _is_away(world, guest) for guest in world.definitions):
        _mend_dependencies(world)


def _newest(world: World, guest: GuestRecord) -> HostName:
    """The host where the newest copy of its disk lies, as people can tell by looking."""
    files = {name: host.images.files.get(guest.id) for name, host in world.hosts.items()}
    versions = {name: file.version for name, file in files.items() if file is not None}
    return max(versions, key=lambda name: versions[name], default="")


def _is_away(world: World, guest: GuestId) -> bool:
    """Whether it runs, or could be started, only where nobody of the cluster sees it: on hosts that were removed."""
    places = world.running(guest) or [name for name, host in world.hosts.items() if guest in host.domains]
    return bool(places) and not world.store.hosts.keys() & set(places)


def _mend_dependencies(world: World) -> None:
    """Every guest here is protected: whom one still waits for in vain was renamed while nobody protected it."""
    names = {guest.name for guest in world.store.guests.values()}
    for guest in list(world.store.guests.values()):
        kept = tuple(after for after in guest.policy.boot_after if after.guest in names)
        if f"guest/{guest.id}/boot-after" in world.store.alerts and kept != guest.policy.boot_after:
            part = PolicyChange(boot_after=kept)
            _submit(world, AskSet(id=world.next_ask(), by=OPS, guests=(guest.id,), policy=part))


def _start_by_hand(world: World, guest: GuestId) -> None:
    """Nobody protects it and it runs nowhere: its owner starts it where it ran last, as `dr guest protect` asks."""
    hosts = {name: host for name, host in world.hosts.items() if name not in world.scrapped}
    domains = [host.domains.get(guest) for host in world.hosts.values()]
    if any(domain is not None and domain.active for domain in domains) or not all(
        h.up for h in hosts.values()
    ):
        return
    last = world.truth.ran_last(guest)
    for name in sorted(hosts, key=lambda name: (name != last, name)):
        if hosts[name].hand_start(guest):
            return
