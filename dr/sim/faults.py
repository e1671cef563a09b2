"""Random faults: everything that DESIGN.md names, drawn from the world's own seed.

Here: what may happen and with what odds. Not here: how it works (`dr.sim.world`), what must hold (`dr.sim.truth`).

A fence device that lies while it shows the right identity can only be found out by somebody who hears the host. So in
worlds with such liars no host is cut off from everybody or frozen: that combination is what DESIGN.md admits.
"""

from __future__ import annotations

from collections.abc import Callable

from dr.model.base import HostName
from dr.model.events import (
    AskCancelMove,
    AskConfirmDown,
    AskFence,
    AskMigrate,
    AskPause,
    AskProtect,
    AskRelocate,
    AskRemoveHost,
    AskResume,
    AskStart,
    AskStop,
    AskUnprotect,
)
from dr.model.records import GuestPhase
from dr.sim import migration
from dr.sim.network import COORDINATOR
from dr.sim.store import SimStore
from dr.sim.world import World

Fault = Callable[[], None]


class Faults:
    """Throws faults at one world."""

    def __init__(self, world: World, *, liars: bool, restores: bool) -> None:
        self.world = world
        self.rng = world.rng
        self.backups: list[SimStore] = []
        self.restored = False
        w = world
        self.kinds: dict[str, tuple[int, Fault]] = {
            "power off": (6, lambda: self._off(self._host())),
            "reboot": (4, lambda: self._reboot(self._host())),
            "management cut": (4, lambda: self._cut(storage=False)),
            "agent killed": (4, self._agent_killed),
            "agent stopped": (2, self._agent_stopped),
            "agent frozen": (3, lambda: w.hosts[self._host()].agent.freeze(self._seconds())),
            "agent state lost": (2, self._state_lost),
            "session broken": (4, self._session_broken),
            "libvirtd": (3, self._libvirtd),
            "hook broken": (1, self._hook_broken),
            "BMC": (4, self._bmc),
            "starts": (4, self._starts),
            "stops": (1, self._stops),
            "coordinator crashes": (5, lambda: w.crash_coordinator(self.rng.choice([0.3, 1.0, 5.0]))),
            "coordinator crashes in mid-act": (5, self._crash_in_act),
            "coordinator frozen": (3, lambda: w.coordinator.freeze(self._seconds())),
            "guest crashes": (3, lambda: self._guest_ends("crashed")),
            "owner shuts down": (1, lambda: self._guest_ends("shutdown")),
            "virsh destroy": (1, lambda: self._guest_ends("destroyed")),
            "virsh start": (3, self._virsh_start),
            "definition edited": (1, self._redefine),
            "autostart": (1, self._autostart),
            "answers lost": (3, self._answers_lost),
            "slow network": (2, self._slow),
            "protection ends and begins": (1, self._unprotect),
            "host joins": (1, self._join),
            "host removed": (1, self._remove),
            "ask": (5, self._ask),
            "move": (8, self._move),
            "migration goes wrong": (4, self._migration),
            "virsh migrate or resume": (1, self._by_hand),
        }
        if liars:
            self.kinds["BMC lies"] = (6, self._bmc_lies)
        else:
            self.kinds |= {
                "frozen": (5, lambda: w.freeze(self._host(), self._seconds())),
                "cut off": (5, lambda: self._cut(storage=True)),
                "storage cut": (2, self._storage),
                "one-way or pair blocked": (2, self._block),
                "coordinator cut off": (3, self._coordinator_cut),
            }
        if restores:
            self.kinds["backup"] = (4, lambda: self.backups.append(w.store.copy()))
            self.kinds["store restored"] = (6, self._restore)

    def plan(self, until: float) -> None:
        """Faults at random times from now until then; healed by `World.heal` later."""
        at = self.world.clock.now + self.rng.uniform(0.0, 3.0)
        while at < until:
            self.world.clock.at(at, self._one)
            gap_s = self.rng.choice([0.05, 0.5, 2.0, 6.0, 15.0])
            at += self.rng.expovariate(1 / gap_s)

    def _one(self) -> None:
        names = list(self.kinds)
        name = self.rng.choices(names, [self.kinds[name][0] for name in names])[0]
        self.world.say(f"--- {name}", "fault")
        self.kinds[name][1]()

    def _host(self) -> HostName:
        return self.rng.choice(list(self.world.hosts))

    def _seconds(self) -> float:
        return self.rng.choice([0.3, 1.0, 3.0, 10.0, 20.0])

    def _later(self, action: Fault) -> None:
        self.world.clock.after(self._seconds(), action)

    # ---- hosts and networks

    def _off(self, name: HostName) -> None:
        self.world.power_off(name)
        if self.rng.random() < 0.6:
            self._later(lambda: self.world.power_on(name))

    def _reboot(self, name: HostName) -> None:
        self.world.hosts[name].reboot()

    def _cut(self, *, storage: bool) -> None:
        name = self._host()
        self.world.cut(name, storage=storage)
        if self.rng.random() < 0.8:
            self._later(lambda: self.world.mend(name))

    def _storage(self) -> None:
        name = self._host()
        self.world.cut(name, management=False, storage=True)
        self._later(lambda: self.world.mend(name))

    def _block(self) -> None:
        pair = (self.rng.choice([COORDINATOR, *self.world.hosts]), self._host())
        network = self.world.network
        network.blocked.add(pair)

        def mend() -> None:
            network.blocked.discard(pair)
            network.changed()

        self._later(mend)

    def _coordinator_cut(self) -> None:
        self.world.cut_coordinator(bmcs=self.rng.random() < 0.7)
        self._later(self.world.mend_coordinator)

    # ---- on hosts

    def _restart_later(self, name: HostName) -> None:
        self._later(self.world.hosts[name].agent.start)

    def _agent_killed(self) -> None:
        name = self._host()
        self.world.hosts[name].agent.kill()
        self._restart_later(name)

    def _agent_stopped(self) -> None:
        name = self._host()
        self.world.hosts[name].agent.stop()
        self._restart_later(name)

    def _state_lost(self) -> None:
        name = self._host()
        self.world.hosts[name].agent.lose_state()
        self._restart_later(name)

    def _session_broken(self) -> None:
        link = self.world.hosts[self._host()].agent.link
        if link is not None:
            link.close_by_agent()
            link.host.agent.link_lost(link)

    def _libvirtd(self) -> None:
        host = self.world.hosts[self._host()]
        host.set_libvirtd(self.rng.choice(["down", "hung"]))
        self._later(lambda: host.set_libvirtd("up"))

    def _hook_broken(self) -> None:
        host = self.world.hosts[self._host()]
        host.hook_broken = True

        def mend() -> None:
            host.hook_broken = False
            host.agent.look_again()

        host.agent.look_again()
        self._later(mend)

    def _bmc(self) -> None:
        device = self.world.fencer.devices[self.rng.choice(list(self.world.fencer.devices))]
        device.fault = self.rng.choice(["", "dead", "hang"])
        if self.rng.random() < 0.2:
            device.acts_on = self._host()

    def _bmc_lies(self) -> None:
        device = self.world.fencer.devices[self.rng.choice(list(self.world.fencer.devices))]
        device.fault = self.rng.choice(["deaf", "says_off"])

    def _starts(self) -> None:
        host = self.world.hosts[self._host()]
        host.start_faults.append(self.rng.choice(["fail", "die", "slow", "hang", "lost"]))

    def _stops(self) -> None:
        self.world.hosts[self._host()].stop_faults.append(self.rng.choice(["deaf", "hang"]))

    # ---- the coordinator

    def _crash_in_act(self) -> None:
        """Between a commit and its effects, before an effect, after one: some that are soon to come."""
        coordinator = self.world.coordinator
        soon = self.rng.randint(1, 8)
        which = self.rng.choice(["commit", "before", "after"])
        if which == "commit":
            coordinator.die_after_commit = coordinator.commits + soon
        elif which == "before":
            coordinator.die_before_effect = coordinator.effects + soon
        else:
            coordinator.die_after_effect = coordinator.effects + soon
        self.world.clock.after(10.0, self.world.restart_coordinator)

    def _restore(self) -> None:
        if self.backups and self.world.coordinator.alive:
            self.restored = True
            self.world.restore_store(self.rng.choice(self.backups), self.rng.choice([0.3, 3.0]))

    # ---- guests and people

    def _guest_ends(self, how: str) -> None:
        guest = self.rng.choice(list(self.world.definitions))
        for name in self.world.running(guest):
            self.world.hosts[name].end(guest, how)

    def _virsh_start(self) -> None:
        guest, host = self.rng.choice(list(self.world.definitions)), self.world.hosts[self._host()]
        if guest in host.guarded:  # what nobody protects, nobody keeps from running twice
            host.hand_start(guest)

    def _autostart(self) -> None:
        for host in self.world.hosts.values():
            for domain in host.domains.values():
                domain.autostart = True

    def _answers_lost(self) -> None:
        self.world.hosts[self._host()].agent.answers_to_lose += self.rng.randint(1, 3)

    def _slow(self) -> None:
        self.world.slowness = self.rng.choice([10.0, 100.0, 500.0])
        self._later(lambda: setattr(self.world, "slowness", 1.0))

    def _listening(self) -> bool:
        return self.world.coordinator.alive and not self.world.coordinator.frozen

    def _unprotect(self) -> None:
        """Only of a guest that runs in one place, so that nobody's own double start follows."""
        world, guest = self.world, self.rng.choice(list(self.world.definitions))
        if (
            self._listening()
            and guest in world.store.guests
            and world.guest(guest).phase is GuestPhase.RUNNING
        ):
            world.coordinator.submit(AskUnprotect(id=world.next_ask(), by="ops", guests=(guest,)))
            self._later(lambda: protect_again(world))

    def _join(self) -> None:
        if self._listening() and len(self.world.hosts) < 6:
            self.world.add_host(f"h{len(self.world.hosts) + 1}")

    def _remove(self) -> None:
        """A machine that is off for good; its record goes when nothing may run on it."""
        name = self._host()
        if self._listening() and not self.world.hosts[name].up and len(self.world.hosts) > 3:
            self.world.coordinator.submit(AskRemoveHost(id=self.world.next_ask(), by="ops", host=name))
            if name not in self.world.store.hosts:
                self.world.hosts[name].agent.enabled = False
                self.world.scrapped.add(name)

    def _redefine(self) -> None:
        guest = self.rng.choice(list(self.world.definitions))
        self.world.redefine(guest, f"d{self.world.clock.steps}-{guest}")

    def _move(self) -> None:
        if self._listening():
            key, guest = self.world.next_ask(), self.rng.choice(list(self.world.definitions))
            kind = self.rng.choice((AskMigrate, AskMigrate, AskMigrate, AskRelocate, AskCancelMove))
            self.world.coordinator.submit(kind(id=key, by="ops", guests=(guest,)))

    def _migration(self) -> None:
        host = self._host()
        if self.rng.random() < 0.7:
            self.world.hosts[host].migrate_faults.append(self.rng.choice(migration.FAULTS))
        else:
            self.world.network.migration_down.add(host)
            self._later(lambda: self.world.network.migration_down.discard(host))

    def _by_hand(self) -> None:
        """What nobody should do with a protected guest: the hook refuses the one, agents undo the other."""
        world, guest, host = self.world, self.rng.choice(list(self.world.definitions)), self._host()
        if guest in world.store.guests and self.rng.random() < 0.7:
            for name in world.running(guest):
                if name != host and guest in world.hosts[host].guarded:
                    world.hosts[name].hand_migrate(guest, host)
        else:
            world.hosts[host].hand_resume(guest)

    def _ask(self) -> None:
        world, rng = self.world, self.rng
        if not world.coordinator.alive or world.coordinator.frozen:
            return
        key, by, why = world.next_ask(), "ops", "to see"
        guest = rng.choice(list(world.definitions))
        what = rng.choice(["start", "stop", "fence", "pause", "resume", "confirm"])
        name = self._host()
        if what == "start":
            world.coordinator.submit(AskStart(id=key, by=by, guests=(guest,)))
        elif what == "stop":
            mode = rng.choice(("shutdown", "destroy"))
            world.coordinator.submit(
                AskStop(id=key, by=by, guests=(guest,), mode="shutdown" if mode == "shutdown" else "destroy")
            )
        elif what == "fence" and rng.random() < 0.3:
            world.coordinator.submit(AskFence(id=key, by=by, host=name, reason=why))
        elif what == "pause":
            world.coordinator.submit(AskPause(id=key, by=by, reason=why))
        elif what == "resume" and not world.store.cluster.restored:
            world.coordinator.submit(AskResume(id=key, by=by, reason=why))
        elif what == "confirm" and not world.hosts[name].up:
            boot = world.store.hosts[name].boot_id
            world.coordinator.submit(
                AskConfirmDown(id=key, by=by, host=name, boot_id=boot, reason="I stand beside it")
            )


def protect_again(world: World) -> None:
    """Protect what runs and is not protected."""
    coordinator = world.coordinator
    if not coordinator.alive or coordinator.frozen:
        return
    for guest in world.definitions:
        if guest not in world.store.guests:
            coordinator.submit(AskProtect(id=world.next_ask(), by="ops", guests=(guest,)))


def help_by_people(world: World) -> None:
    """What an operator does in the end: looks over, resumes, starts again what was given up."""
    coordinator = world.coordinator
    if not coordinator.alive or coordinator.frozen:
        return
    for name, host in world.hosts.items():
        if not host.up:
            world.power_on(name)
    if world.store.cluster.pause is not None:
        coordinator.submit(AskResume(id=world.next_ask(), by="ops", reason="all is repaired"))
    for name in sorted(world.scrapped & set(world.store.hosts)):  # an older copy of the store has it again
        ask = AskConfirmDown(id=world.next_ask(), by="ops", host=name, reason="it was scrapped")
        coordinator.submit(ask)
    for guest in list(world.store.guests.values()):
        if guest.phase is GuestPhase.ERROR:
            coordinator.submit(AskStart(id=world.next_ask(), by="ops", guests=(guest.id,)))
