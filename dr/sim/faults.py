"""Everything that DESIGN.md says can go wrong, one function for each kind, and the odds of each.

Here: what a fault does to the world. Not here: which faults a world gets (`dr.sim.plan`), what must hold
(`dr.sim.truth`).

A fence device that lies while it shows the right identity can only be found out by somebody who hears the host. So in
worlds with such liars no host is cut off from everybody or frozen for long: that combination is what DESIGN.md admits.
"""

from __future__ import annotations

from dr.model.base import changed
from dr.model.events import (
    AskCancelMove,
    AskClearQuarantine,
    AskConfirmDown,
    AskFence,
    AskFenceTest,
    AskMigrate,
    AskPause,
    AskProtect,
    AskRelocate,
    AskRemoveHost,
    AskResume,
    AskStart,
    AskStop,
    AskUnprotect,
    OperatorAsk,
)
from dr.model.records import Condition, GuestPhase, HostPhase, Pause
from dr.sim import migration
from dr.sim.plan import LONG, SECONDS, Fault, Kind
from dr.sim.world import World

OPS = "ops"


def _submit(world: World, ask: OperatorAsk) -> None:
    if world.coordinator.listening:
        world.coordinator.submit(ask)


# ---- hosts and networks


def _power_off(world: World, fault: Fault) -> None:
    world.power_off(fault.host)
    if fault.seconds:
        world.clock.after(fault.seconds, lambda: world.power_on(fault.host))


def _reboot(world: World, fault: Fault) -> None:
    world.hosts[fault.host].reboot()


def _frozen(world: World, fault: Fault) -> None:
    world.freeze(fault.host, fault.seconds)


def _cut(world: World, fault: Fault) -> None:
    world.cut(fault.host, management=fault.how != "storage", storage=fault.how != "management")
    if fault.seconds:
        world.clock.after(fault.seconds, lambda: world.mend(fault.host))


def _blocked(world: World, fault: Fault) -> None:
    pairs = {(fault.peer, fault.host), (fault.host, fault.peer)}
    if fault.how == "one way":
        pairs = {(fault.peer, fault.host)}
    world.network.blocked |= pairs
    world.say(f"{fault.peer or 'coordinator'} and {fault.host} do not reach each other ({fault.how})")

    def mend() -> None:
        world.network.blocked -= pairs
        world.network.changed()

    world.clock.after(fault.seconds, mend)


def _coordinator_cut(world: World, fault: Fault) -> None:
    world.cut_coordinator(bmcs=fault.how == "from hosts and BMCs")
    world.clock.after(fault.seconds, world.mend_coordinator)


def _slow(world: World, fault: Fault) -> None:
    world.slowness = float(fault.how)
    world.clock.after(fault.seconds, lambda: setattr(world, "slowness", 1.0))


def _unmasked(world: World, fault: Fault) -> None:
    host = world.hosts[fault.host]
    host.hibernation_masked = False
    host.agent.look_again()


def _hibernates(world: World, fault: Fault) -> None:
    """The moment between unmasking and the agent's report of it is what the design admits: it is not used."""
    record = world.store.hosts.get(fault.host)
    if record is None or record.facts.hibernation_masked or world.truth.doubtful:
        return
    world.hosts[fault.host].hibernate()
    if fault.seconds:
        world.clock.after(fault.seconds, lambda: world.power_on(fault.host))


# ---- on hosts


def _agent_down(world: World, fault: Fault) -> None:
    agent = world.hosts[fault.host].agent
    {"killed": agent.kill, "stopped": agent.stop, "state lost": agent.lose_state}[fault.how]()
    world.clock.after(fault.seconds, agent.start)


def _agent_frozen(world: World, fault: Fault) -> None:
    world.hosts[fault.host].agent.freeze(fault.seconds)


def _session_broken(world: World, fault: Fault) -> None:
    link = world.hosts[fault.host].agent.link
    if link is not None:
        link.reset()


def _libvirtd(world: World, fault: Fault) -> None:
    host = world.hosts[fault.host]
    if fault.how == "slow":
        host.libvirt_slow_s = fault.count / 2
        world.clock.after(fault.seconds, lambda: setattr(host, "libvirt_slow_s", 0.0))
    else:
        host.set_libvirtd(fault.how)
        world.clock.after(fault.seconds, lambda: host.set_libvirtd("up"))


def _hook_broken(world: World, fault: Fault) -> None:
    host = world.hosts[fault.host]
    host.hook_broken = True
    host.agent.look_again()

    def mend() -> None:
        host.hook_broken = False
        host.agent.look_again()

    world.clock.after(fault.seconds, mend)


def _starts(world: World, fault: Fault) -> None:
    world.hosts[fault.host].start_faults.append(fault.how)


def _stops(world: World, fault: Fault) -> None:
    world.hosts[fault.host].stop_faults.append(fault.how)


# ---- fence devices


def _bmc(world: World, fault: Fault) -> None:
    device = world.fencer.devices[fault.device]
    device.fault = "" if fault.how == "works" else fault.how


def _bmc_swapped(world: World, fault: Fault) -> None:
    device = world.fencer.devices[fault.device]
    device.acts_on = fault.host if fault.host != device.host else ""
    if fault.seconds:
        world.clock.after(fault.seconds, lambda: setattr(device, "acts_on", ""))


def _bmc_replaced(world: World, fault: Fault) -> None:
    world.fencer.devices[fault.device].serial += 1


def _fenced_through(world: World, fault: Fault) -> None:
    """A host falls silent whose fencing hangs on this one device: "alone", the others being dead, or "swapped"."""
    devices = world.fencer.devices
    device = devices[fault.device]
    if fault.how == "swapped":
        device.acts_on = fault.host if fault.host != device.host else ""
    changed_ones = [other for other in devices.values() if other.host == device.host and other is not device]
    for other in changed_ones:
        other.fault = "dead"
    world.cut(device.host, storage=True)

    def mend() -> None:
        device.acts_on = ""
        for other in changed_ones:
            other.fault = ""
        world.mend(device.host)

    world.clock.after(fault.seconds, mend)


def _fenced_by_hand(world: World, fault: Fault) -> None:
    """A person's wish, for a host whose device only says that it obeys."""
    device = world.fencer.devices[fault.device]
    device.fault = fault.how
    _submit(world, AskFence(id=world.next_ask(), by=OPS, host=device.host, reason="it acts up"))


# ---- messages


def _message(world: World, fault: Fault) -> None:
    """The next of that kind, to or from that host: lost, or delivered twice, or late and out of order."""
    what, how = fault.how.split(": ")
    world.disturb(fault.host, what, how, fault.seconds, fault.count)


# ---- the coordinator and its store


def _coordinator_crash(world: World, fault: Fault) -> None:
    world.crash_coordinator(fault.seconds)


def _crash_in_act(world: World, fault: Fault) -> None:
    """Between a commit and its effects, before an effect, after one: one that is soon to come."""
    coordinator = world.coordinator
    if fault.how == "after a commit":
        coordinator.die_after_commit = coordinator.commits + fault.count
    elif fault.how == "before an effect":
        coordinator.die_before_effect = coordinator.effects + fault.count
    else:
        coordinator.die_after_effect = coordinator.effects + fault.count
    world.clock.after(fault.seconds, world.restart_coordinator)


def _coordinator_frozen(world: World, fault: Fault) -> None:
    world.coordinator.freeze(fault.seconds)


def _second(world: World, fault: Fault) -> None:
    """The process stands still, a second one takes over its store, and the first goes on beside it."""
    if world.coordinator.listening:
        world.coordinator.freeze(fault.seconds)
        world.replace_coordinator()


def _store(world: World, fault: Fault) -> None:
    world.store.trouble, world.store.slow_s = fault.how, fault.count / 4

    def mend() -> None:
        world.store.trouble = ""

    world.clock.after(fault.seconds, mend)


def _backup(world: World, fault: Fault) -> None:
    world.backups.append(world.store.copy())


def _restored(world: World, fault: Fault) -> None:
    """Put back: silently ("as it is"), by command ("marked"), or so that who knows least is heard first."""
    if not world.backups or not world.coordinator.listening:
        return
    backup, machine = world.backups[fault.count % len(world.backups)].copy(), world.coordinator.machine
    if fault.how == "marked" or backup.cluster.machine != machine:  # of another machine: only by command
        pause = Pause(reason="the store was restored", by=OPS)
        backup.cluster = changed(backup.cluster, machine=machine, restored="restored by ops", pause=pause)
    if fault.how == "who knows least first":
        world.hosts[fault.host].agent.lose_state()
        world.clock.after(0.5, world.hosts[fault.host].agent.start)
        for name in world.hosts:
            if name != fault.host:
                world.cut(name)
                world.clock.after(fault.seconds, lambda name=name: world.mend(name))  # type: ignore[misc]
    world.restore_store(backup, 0.3)


def _cloned(world: World, fault: Fault) -> None:
    """The store is copied to another machine: refused there as it is; through restore, once the old one is off."""
    if not world.coordinator.listening:
        return
    world.start_clone(world.store.copy(), "copied")
    if fault.how == "restored there":
        world.coordinator.kill()
        world.start_clone(world.store.copy(), "restored")


# ---- guests and people


def _guest_ends(world: World, fault: Fault) -> None:
    for name in world.running(fault.guest):
        world.hosts[name].end(fault.guest, fault.how)


def _virsh(world: World, fault: Fault) -> None:
    """By hand, of a guest that the hook guards: what nobody protects, nobody keeps from running twice."""
    host, guest = world.hosts[fault.host], fault.guest
    if guest not in host.guarded:
        return
    if fault.how == "start":
        host.hand_start(guest)
    elif fault.how == "define":
        host.hand_define(guest)
    else:
        host.undefine(guest, by_hand=True)


def _redefined(world: World, fault: Fault) -> None:
    world.redefine(fault.guest, f"d{world.clock.steps}-{fault.guest}")


def _autostart(world: World, fault: Fault) -> None:
    for host in world.hosts.values():
        for domain in host.domains.values():
            domain.autostart = True


def _unprotect(world: World, fault: Fault) -> None:
    """Only of a guest that runs in one place, so that nobody's own double start follows."""
    guest = fault.guest
    if guest in world.store.guests and world.guest(guest).phase is GuestPhase.RUNNING:
        if fault.how == "list late":
            world.disturb(fault.host, "command", "late", 5.0, 1)
        _submit(world, AskUnprotect(id=world.next_ask(), by=OPS, guests=(guest,)))
        world.clock.after(fault.seconds, lambda: protect_again(world))


def _join(world: World, fault: Fault) -> None:
    if world.coordinator.listening and len(world.hosts) < len(world.first_hosts) + 2:
        world.add_host(f"h{len(world.hosts) + 1}")


def _remove(world: World, fault: Fault) -> None:
    """A machine that is off for good; its record goes when nothing may run on it."""
    host = world.hosts[fault.host]
    if host.up or host.asleep or len(world.hosts) - len(world.scrapped) <= 3 or fault.host == world.home:
        return
    _submit(world, AskRemoveHost(id=world.next_ask(), by=OPS, host=fault.host))
    if fault.host not in world.store.hosts:
        host.agent.enabled = False
        world.scrapped.add(fault.host)


def _ask_guest(world: World, fault: Fault) -> None:
    key, guests = world.next_ask(), (fault.guest,)
    if fault.how == "start":
        _submit(world, AskStart(id=key, by=OPS, guests=guests))
    elif fault.how == "stop":
        _submit(world, AskStop(id=key, by=OPS, guests=guests))
    else:
        _submit(world, AskStop(id=key, by=OPS, guests=guests, mode="destroy"))


def _ask_host(world: World, fault: Fault) -> None:
    key, host = world.next_ask(), fault.host
    if fault.how == "fence":
        _submit(world, AskFence(id=key, by=OPS, host=host, reason="to see"))
    elif fault.how == "fence the coordinator's own":
        _submit(world, AskFence(id=key, by=OPS, host=world.home or host, reason="to see"))
    elif fault.how == "fence test":
        _submit(world, AskFenceTest(id=key, by=OPS, host=host))
    elif fault.how == "remove":
        if host in world.store.hosts and not world.hosts[host].up:
            return  # that is "host removed"
        _submit(world, AskRemoveHost(id=key, by=OPS, host=host))
    elif fault.how == "clear quarantine":
        _submit(world, AskClearQuarantine(id=key, by=OPS, host=host))
    elif _surely(world, fault):
        boot = world.store.hosts[host].boot_id if host in world.store.hosts else ""
        _submit(world, AskConfirmDown(id=key, by=OPS, host=host, boot_id=boot, reason="I stand beside it"))


def _surely(world: World, fault: Fault) -> bool:
    """A person confirms what is so, or errs about a host that everybody hears: any other error is admitted."""
    host, link = world.hosts[fault.host], world.hosts[fault.host].agent.link
    dead = not host.up and not host.asleep
    heard = link is not None and link.quick and not host.frozen and not host.agent.frozen
    return dead or heard


def _ask_cluster(world: World, fault: Fault) -> None:
    key = world.next_ask()
    if fault.how == "pause":
        _submit(world, AskPause(id=key, by=OPS, reason="to see"))
    elif not world.store.cluster.restored:
        _submit(world, AskResume(id=key, by=OPS, reason="seen"))


def _moved(world: World, fault: Fault) -> None:
    key, guests = world.next_ask(), (fault.guest,)
    kind = {"migrate": AskMigrate, "relocate": AskRelocate, "cancel": AskCancelMove}[fault.how]
    _submit(world, kind(id=key, by=OPS, guests=guests))


def _migration(world: World, fault: Fault) -> None:
    """The next one from that host goes wrong; or its migration network is down for a while."""
    if fault.how != "network":
        world.hosts[fault.host].migrate_faults.append(fault.how)
        return
    world.network.migration_down.add(fault.host)
    world.clock.after(fault.seconds, lambda: world.network.migration_down.discard(fault.host))


def _virsh_moves(world: World, fault: Fault) -> None:
    """What nobody should do with a protected guest: the hook refuses the one, agents undo the other."""
    guest, host = fault.guest, world.hosts[fault.host]
    if fault.how == "resume":
        host.hand_resume(guest)
    elif guest in world.store.guests and guest in host.guarded:
        for name in world.running(guest):
            if name != fault.host:
                world.hosts[name].hand_migrate(guest, fault.host)


KINDS: dict[str, Kind] = {
    "power off": Kind(6, _power_off, host=True, seconds=(0.0, *LONG)),
    "reboot": Kind(4, _reboot, host=True),
    "frozen": Kind(5, _frozen, host=True, seconds=SECONDS, never=("liars",)),
    "frozen for a moment": Kind(4, _frozen, host=True, seconds=(0.3, 1.0, 2.0), only="liars"),
    "cut off": Kind(6, _cut, host=True, how=("everything",), seconds=(0.0, *LONG), never=("liars",)),
    "cut off in part": Kind(6, _cut, host=True, how=("management", "storage"), seconds=LONG),
    "blocked": Kind(
        3, _blocked, host=True, peer=True, how=("both ways", "one way"), seconds=SECONDS, never=("liars",)
    ),
    "coordinator cut off": Kind(
        3, _coordinator_cut, how=("from hosts", "from hosts and BMCs"), seconds=SECONDS
    ),
    "slow network": Kind(2, _slow, how=("10", "100", "500"), seconds=SECONDS),
    "hibernation unmasked": Kind(1, _unmasked, host=True),
    "hibernates": Kind(4, _hibernates, host=True, seconds=(0.0, *LONG)),
    "agent down": Kind(9, _agent_down, host=True, how=("killed", "stopped", "state lost"), seconds=LONG),
    "agent frozen": Kind(3, _agent_frozen, host=True, seconds=SECONDS),
    "session broken": Kind(4, _session_broken, host=True),
    "libvirtd": Kind(4, _libvirtd, host=True, how=("down", "hung", "slow"), seconds=SECONDS, count=(1, 16)),
    "hook broken": Kind(2, _hook_broken, host=True, seconds=SECONDS),
    "start fails": Kind(5, _starts, host=True, how=("fail", "die", "slow", "hang", "lost")),
    "stop fails": Kind(2, _stops, host=True, how=("deaf", "hang")),
    "BMC": Kind(4, _bmc, device=True, how=("works", "dead", "hang")),
    "BMC swapped": Kind(3, _bmc_swapped, device=True, host=True, seconds=(0.0, *LONG)),
    "BMC replaced": Kind(1, _bmc_replaced, device=True),
    "fenced through": Kind(
        4,
        _fenced_through,
        device=True,
        host=True,
        how=("alone", "swapped"),
        seconds=(10.0, 20.0, 45.0),
        never=("liars",),
    ),
    "BMC lies": Kind(6, _bmc, device=True, how=("deaf", "says_off", "works"), only="liars"),
    "fenced by hand": Kind(6, _fenced_by_hand, device=True, how=("deaf", "says_off"), only="liars"),
    "message": Kind(
        8,
        _message,
        host=True,
        how=(
            *(f"{what}: lost" for what in ("command", "answer", "welcome", "hello", "report", "ack", "beat")),
            *(f"{what}: lost" for what in ("look", "power reading", "fence result", "power-on result")),
            *(f"{what}: late" for what in ("power reading", "fence result")),
            *(f"{what}: {how}" for what in ("command", "answer") for how in ("repeated", "late")),
        ),
        seconds=(0.02, 0.5, 2.0, 25.0, 40.0),
        count=(1, 4),
    ),
    "coordinator crashes": Kind(5, _coordinator_crash, seconds=(0.3, 1.0, 5.0)),
    "coordinator crashes in mid-act": Kind(
        5,
        _crash_in_act,
        how=("after a commit", "before an effect", "after an effect"),
        seconds=(10.0,),
        count=(1, 8),
    ),
    "coordinator frozen": Kind(3, _coordinator_frozen, seconds=SECONDS),
    "second coordinator": Kind(3, _second, seconds=LONG),
    "store": Kind(3, _store, how=("fails", "slow"), seconds=SECONDS, count=(1, 8)),
    "store cloned": Kind(1, _cloned, how=("as it is", "restored there")),
    "backup": Kind(4, _backup, only="restores"),
    "store restored": Kind(
        4,
        _restored,
        host=True,
        how=("as it is", "marked", "who knows least first"),
        seconds=(5.0, 10.0, 20.0),
        count=(1, 100),
        only="restores",
    ),
    "guest ends": Kind(
        5, _guest_ends, guest=True, how=("crashed", "crashed", "crashed", "shutdown", "destroyed")
    ),
    "virsh": Kind(4, _virsh, host=True, guest=True, how=("start", "start", "define", "undefine")),
    "definition edited": Kind(1, _redefined, guest=True),
    "autostart": Kind(1, _autostart),
    "protection ends and begins": Kind(
        4, _unprotect, host=True, guest=True, how=("list late", ""), seconds=SECONDS
    ),
    "host joins": Kind(1, _join),
    "host removed": Kind(1, _remove, host=True),
    "ask for a guest": Kind(5, _ask_guest, guest=True, how=("start", "start", "stop", "destroy")),
    "ask for a host": Kind(
        6,
        _ask_host,
        host=True,
        how=(
            "fence",
            "fence the coordinator's own",
            "fence test",
            "remove",
            "clear quarantine",
            "confirm",
            "confirm",
        ),
    ),
    "move": Kind(10, _moved, guest=True, how=("migrate", "migrate", "migrate", "relocate", "cancel")),
    "migration goes wrong": Kind(
        6, _migration, host=True, how=(*migration.FAULTS, "network", "network"), seconds=SECONDS
    ),
    "virsh migrate or resume": Kind(
        2, _virsh_moves, host=True, guest=True, how=("migrate", "migrate", "resume")
    ),
    "ask for the cluster": Kind(2, _ask_cluster, how=("pause", "resume", "resume")),
}


def throw(world: World, fault: Fault) -> None:
    """Let it happen; what names a host or guest that this world does not have is nothing."""
    if (fault.host and fault.host not in world.hosts) or (fault.peer and fault.peer not in world.hosts):
        return
    if fault.guest and fault.guest not in world.definitions:
        return
    if fault.device and fault.device not in world.fencer.devices:
        return
    world.say(f"--- {fault.kind} {fault.host}{fault.guest}{fault.device} {fault.how}".rstrip(), "fault")
    KINDS[fault.kind].throw(world, fault)


# ---- what people do in the end


def protect_again(world: World) -> None:
    """Protect what runs and is not protected."""
    for guest in world.definitions:
        if guest not in world.store.guests:
            _submit(world, AskProtect(id=world.next_ask(), by=OPS, guests=(guest,)))


def help_by_people(world: World) -> None:
    """What an operator does once all is repaired: looks over, resumes, starts again what was given up."""
    coordinator = world.coordinator
    if not coordinator.listening:
        return
    for name, host in world.hosts.items():
        if not host.up:
            world.power_on(name)
    if world.store.cluster.pause is not None:
        _submit(world, AskResume(id=world.next_ask(), by=OPS, reason="all is repaired"))
    for record in list(world.store.hosts.values()):
        name, boot = record.name, record.boot_id
        if name in world.scrapped and record.phase is not HostPhase.FENCED:
            why = "it was scrapped"
            ask = AskConfirmDown(id=world.next_ask(), by=OPS, host=name, boot_id=boot, reason=why)
            _submit(world, ask)  # now somebody looks for it
            again = changed(ask, id=world.next_ask())
            world.clock.after(2.0, lambda again=again: _submit(world, again))  # type: ignore[misc]
        if Condition.QUARANTINED in record.conditions:
            _submit(world, AskClearQuarantine(id=world.next_ask(), by=OPS, host=name))
    for guest in list(world.store.guests.values()):
        for name in world.running(guest.id)[1:]:  # runs twice: one of the two is stopped by hand
            world.hosts[name].end(guest.id, "destroyed")
        if guest.phase is GuestPhase.ERROR:
            _submit(world, AskStart(id=world.next_ask(), by=OPS, guests=(guest.id,)))
