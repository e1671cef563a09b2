"""A simulated world: hosts, networks, fence devices and one coordinator, under virtual time and one seed.

Here: how the parts are put together, and what a scenario may do to them. Not here: random faults (`dr.sim.faults`),
what people do once all is repaired (`dr.sim.repair`), promises (`dr.sim.truth`). Same seed, same calls: same trace,
byte for byte.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dr.core.definition import needs_of
from dr.model.base import GuestId, HostName, changed
from dr.model.effects import Reply
from dr.model.events import Admitted, Ask, AskProtect, OperatorAsk, Reconfigured
from dr.model.facts import Definition, Level
from dr.model.policy import FenceDevice, FenceLevel, GuestPolicy, HostPolicy, Limits, Timers
from dr.model.records import DeviceIdentity, GuestRecord, HostRecord, Pause
from dr.model.settings import Settings
from dr.sim.bmc import Fencer
from dr.sim.clock import Clock
from dr.sim.commands import ALLOWED
from dr.sim.coordinator import SimCoordinator
from dr.sim.dirtying import Writes
from dr.sim.host import STORAGE, SimHost
from dr.sim.images import disk_of
from dr.sim.link import Link
from dr.sim.network import NETWORKS, Network
from dr.sim.shutdown import go_down
from dr.sim.store import SimStore
from dr.sim.trace import Said
from dr.sim.troubles import Troubles
from dr.sim.truth import Truth

XML = (
    "<domain type='kvm'><name>{name}</name><memory unit='MiB'>{memory}</memory><vcpu>{vcpus}</vcpu>"
    "<os><type arch='x86_64' machine='q35'>hvm</type></os>"
    "<devices><interface type='bridge'><source bridge='br0'/></interface></devices></domain>"
)
BESIDE_S = 60.0
TIMERS = Timers(start_s=20.0, stop_s=5.0, testify_s=3.0, fence_s=10.0)
POLICY = GuestPolicy(move_s=20.0)


@dataclass
class Disturbance:
    """A fault planned for the next messages of one kind."""

    host: HostName
    what: str
    how: str
    seconds: float
    count: int


class World:
    """Everything. Guests are named g1, g2, … and run on hosts as `guests` says: host -> how many, or names."""

    def __init__(
        self,
        seed: int,
        *,
        hosts: Iterable[HostName] = ("h1", "h2", "h3"),
        guests: dict[HostName, tuple[GuestId, ...]] | None = None,
        memory_mib: int = 8192,
        guest_mib: int = 1024,
        pdu: Iterable[HostName] = (),
        timers: Timers = TIMERS,
        limits: Limits | None = None,
        power_on: bool = True,
        untested: Iterable[HostName] = (),
        home: HostName = "",
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.trace: list[Said] = []
        self.store = SimStore()
        self.home = home  # the host that the coordinator runs on; "" = a machine of its own
        self._terms = 0
        self._disturbances: list[Disturbance] = []
        self.truth = Truth(self)
        self.network = Network(self)
        self.fencer = Fencer(self)
        self.links: list[Link] = []
        self.troubles = Troubles()
        self._made_links = 0
        self.scrapped: set[HostName] = set()  # machines that were removed and never come back
        self.slowness = 1.0  # of the management network
        # Where decisions of this run are kept, if at all: the id and the pieces of its file (`core.saved`).
        self.save: Callable[[str, Iterable[bytes]], None] | None = None
        self._asks = 0
        self._wall_s = 0.0  # what the coordinator's clock showed at the beginning of the world
        self.definitions: dict[GuestId, Definition] = {}
        self._memory: dict[GuestId, int] = {}
        self._resident: dict[GuestId, int] = {}  # of it, what is in use; of others all is
        self.writes: dict[GuestId, Writes] = {}  # to their memory; others write nothing
        self.silent_agents: set[GuestId] = set()  # guests whose own agent does not answer
        self.ready_after_s: dict[GuestId, float] = {}  # from its start until its checks pass; else at once
        names = self.first_hosts = tuple(hosts)
        policies = {name: self.policy(name, name in tuple(pdu), power_on) for name in names}
        for host, device in list(self.store.identities):
            if host in tuple(untested):
                del self.store.identities[host, device]
        self.settings = Settings(
            timers=timers, limits=limits or Limits(), hosts=policies, guests=POLICY, commands=ALLOWED
        )
        self.coordinator = SimCoordinator(self, self.store)
        self.older: list[SimCoordinator] = []  # another one took over from them, and they may still run
        self.hosts = {name: SimHost(self, name, memory_mib) for name in names}
        for name in names:
            self.store.hosts[name] = HostRecord(name=name)
        for name, ids in (guests or {}).items():
            for guest in ids:
                self.add_guest(name, guest, guest_mib)

    def policy(self, name: HostName, pdu: bool, power_on: bool) -> HostPolicy:
        """What the configuration says of a host whose fence devices were all shown to work; makes these devices."""
        levels = [[f"bmc-{name}"]] + ([[f"pdu-a-{name}", f"pdu-b-{name}"]] if pdu else [])
        self.fencer.add(f"bmc-{name}", name)
        if pdu:
            self.fencer.add(f"pdu-a-{name}", name, "0")
            self.fencer.add(f"pdu-b-{name}", name, "1")
        for level in levels:
            for device in level:
                self.store.identities[name, device] = DeviceIdentity(
                    host=name,
                    device=device,
                    guid=self.fencer.devices[device].guid,
                    fingerprint=f"fp-{device}",
                )
        return HostPolicy(
            name=name,
            fencing=tuple(
                FenceLevel(devices=tuple(FenceDevice(name=device, agent="fence_sim") for device in level))
                for level in levels
            ),
            power_on_after_fence=power_on,
            coordinator_here=name == self.home,
        )

    # ---- plumbing

    def say(self, text: str, kind: str = "world", **fields: str | int | float) -> None:
        """Something happened; `fields` name what takes part."""
        self.trace.append(Said(self.clock.now, kind, text, fields))

    def lines(self) -> list[str]:
        """The trace for people."""
        return [said.line() for said in self.trace]

    def latency_s(self) -> float:
        return self.rng.uniform(0.0005, 0.004) * self.slowness

    def next_term(self) -> int:
        self._terms += 1
        return self._terms

    def disturb(self, host: HostName, what: str, how: str, seconds: float, count: int) -> None:
        """The next messages of that kind, from or to or about that host: "lost", "repeated" or "late"."""
        self._disturbances.append(Disturbance(host, what, how, seconds, count))

    def disturbed(self, host: HostName, what: str) -> tuple[str, float]:
        """What becomes of this message: ("", 0) if nothing."""
        for found in self._disturbances:
            if (found.host, found.what) == (host, what):
                found.count -= 1
                if not found.count:
                    self._disturbances.remove(found)
                self.say(f"{what} of {host} is {found.how}")
                return found.how, found.seconds
        return "", 0.0

    def dial(self, host: SimHost) -> Link | None:
        """An agent looks for its coordinator; which one it finds first is chance."""
        both = [self.coordinator, *(old for old in self.older if old.alive)]
        for coordinator in self.rng.sample(both, len(both)) if len(both) > 1 else both:
            if link := coordinator.accept(host):
                return link
        return None

    def new_link(self, host: SimHost, coordinator: SimCoordinator) -> Link:
        self._made_links += 1
        link = Link(self, host, coordinator, f"s{self._made_links}")
        self.links = [old for old in self.links if old.agent_open or old.coordinator_open]
        self.links.append(link)
        return link

    def memory_of(self, guest: GuestId) -> int:
        return self._memory[guest]

    def resident_of(self, guest: GuestId) -> int:
        """What a live migration sends of its memory."""
        return self._resident.get(guest) or self._memory[guest]

    def disk_of(self, guest: GuestId) -> int:
        """What it copies of local disks, MiB."""
        return sum(disk.used_b for disk in self.definitions[guest].local) // 2**20

    # ---- the beginning

    def add_guest(
        self,
        host: HostName,
        guest: GuestId,
        memory_mib: int = 1024,
        vcpus: int = 1,
        *,
        resident_mib: int = 0,
        writes: Writes | None = None,
        disk_mib: int = 0,
        tied: bool = False,
    ) -> None:
        """A guest that runs there, not protected yet.

        `disk_mib`: used of a disk that only that host has; 0: its disks are shared. `tied`: it could
        start nowhere else.
        """
        definition = Definition(
            id=guest,
            name=guest,
            xml=XML.format(name=guest, memory=memory_mib, vcpus=vcpus),
            digest=f"d1-{guest}",
            storage=() if disk_mib else STORAGE,
            local=(disk_of(guest, disk_mib),) if disk_mib else (),
            blockers=(f"Its disk lies on {host} only.",) if tied else (),
        )
        needs, blockers = needs_of(definition)
        assert (needs.memory_mib, bool(blockers)) == (memory_mib, tied)
        if disk_mib:
            self.hosts[host].images.put(guest)
        self.definitions[guest] = definition
        self._memory[guest], self._resident[guest] = memory_mib, resident_mib
        if writes is not None:
            self.writes[guest] = writes
        self.hosts[host].place(guest, definition, memory_mib)

    def add_host(self, name: HostName, memory_mib: int = 8192) -> None:
        """A new machine joins: its token is made, its agent starts."""
        policy = self.policy(name, False, True)
        self.settings = changed(self.settings, hosts=self.settings.hosts | {name: policy})
        self.hosts[name] = SimHost(self, name, memory_mib)
        self.coordinator.submit(Admitted(id=self.next_ask(), by="ops", host=name))
        self.coordinator.submit(Reconfigured(settings=self.settings))
        for (host, device), identity in self.store.identities.items():
            self.coordinator.state.identities[host, device] = identity
        self.hosts[name].agent.start()

    def redefine(self, guest: GuestId, digest: str) -> None:
        """Somebody edits its definition on the host where it runs."""
        for name in self.truth.where(guest):
            domain = self.hosts[name].domains[guest]
            domain.definition = changed(domain.definition, digest=digest)
            self.hosts[name].agent.look_again()

    def rename(self, guest: GuestId, name: str) -> None:
        """`virsh domrename`, in effect: its definition bears another name where it is defined."""
        for host in self.hosts.values():
            if (domain := host.domains.get(guest)) is not None:
                digest = f"{domain.definition.digest}-{name}"
                domain.definition = changed(domain.definition, name=name, digest=digest)
                host.agent.look_again()

    def undefine(self, guest: GuestId) -> None:
        """Somebody stops it and undefines it where it runs."""
        for name in self.truth.where(guest):
            self.hosts[name].end(guest, "destroyed")
            self.hosts[name].undefine(guest, by_hand=True)
            self.hosts[name].agent.look_again()

    def begin(self, *, protect: bool = True) -> World:
        """Coordinator and agents start, hosts join, guests are protected; then faults may come."""
        self.coordinator.boot()
        for host in self.hosts.values():
            host.agent.start()
        if not self.run(10.0, lambda: all(h.phase.value == "online" for h in self.store.hosts.values())):
            raise AssertionError(f"hosts did not join: {[h.reason for h in self.store.hosts.values()]}")
        if protect and self.definitions:
            reply = self.ask(AskProtect(id="protect", by="ops", guests=tuple(self.definitions)))
            assert reply.accepted, reply
            if not self.run(
                10.0, lambda: all(g.phase.value == "running" for g in self.store.guests.values())
            ):
                raise AssertionError(f"not protected: {[g.reason for g in self.store.guests.values()]}")
        self.run(1.0)
        return self

    # ---- time

    def run(self, seconds: float, done: Callable[[], bool] | None = None) -> bool:
        return self.clock.run(self.clock.now + seconds, done)

    def wall(self) -> float:
        """What the clock of the coordinator's machine shows, in unix seconds."""
        return self._wall_s + self.clock.now

    def set_clock(self, wall: float) -> None:
        self._wall_s = wall - self.clock.now

    # ---- what a scenario may ask and see

    def ask(self, ask: OperatorAsk) -> Reply:
        """Ask the coordinator at once, and return its word."""
        assert isinstance(ask, Ask)
        self.coordinator.submit(ask)
        return self.coordinator.replies.pop(ask.id)

    def next_ask(self) -> str:
        self._asks += 1
        return f"ask{self._asks}"

    def guest(self, guest: GuestId) -> GuestRecord:
        return self.store.guests[guest]

    def host(self, name: HostName) -> HostRecord:
        return self.store.hosts[name]

    def running(self, guest: GuestId) -> list[HostName]:
        return self.truth.where(guest)

    def said(self, text: str) -> list[str]:
        return [said.text for said in self.trace if text in said.text]

    def ready_in(self, guest: GuestId) -> float:
        """Seconds until its checks pass; infinite while it does not run."""
        if not self.truth.where(guest):
            return math.inf
        ready_at = self.truth.began_at[guest] + self.ready_after_s.get(guest, 0.0)
        return max(ready_at - self.clock.now, 0.0)

    # ---- faults

    def power_off(self, name: HostName) -> None:
        """Somebody pulls its plug: BMC and outlets read off from then on."""
        host = self.hosts[name]
        host.chassis_on = False
        host.power_changed("power cut")

    def power_on(self, name: HostName) -> None:
        host = self.hosts[name]
        if name in self.scrapped:
            return
        host.chassis_on = True
        host.outlets_on = [True, True]
        host.power_changed("power back")

    def shutdown(self, name: HostName, *, announced: bool = True, held: bool = True) -> None:
        """Somebody types `poweroff` on it."""
        go_down(self.hosts[name], "shutdown", announced=announced, held=held)

    def reboot_cleanly(self, name: HostName, *, announced: bool = True, held: bool = True) -> None:
        """Somebody types `reboot` on it."""
        go_down(self.hosts[name], "reboot", announced=announced, held=held)

    def freeze(self, name: HostName, seconds: float) -> None:
        self.say(f"{name} stands still for {seconds:.2f} s", "host.frozen", host=name)
        self.hosts[name].freeze(seconds)

    def scrap(self, name: HostName) -> None:
        """It is taken out, its BMC with it; what a hibernated one kept on its disk is lost. Its outlets stay on."""
        host = self.hosts[name]
        self.scrapped.add(name)
        host.asleep = host.agent.enabled = False
        self.power_off(name)

    def cut(
        self, name: HostName, *, management: bool = True, storage: bool = False, migration: bool = False
    ) -> None:
        """Pull cables of a host."""
        cuts = {"management": management, "storage": storage, "migration": migration}
        networks = [word for word, cut in cuts.items() if cut]
        self.say(f"{name} is cut off from {' and '.join(networks)}", "network.cut", host=name)
        if management:
            self.network.management_down.add(name)
        if storage:
            self.network.storage_down.add(name)
            self.hosts[name].agent.look_again()
        if migration:
            self.network.migration_down.add(name)

    def mend(self, name: HostName, networks: Iterable[str] = NETWORKS) -> None:
        self.say(f"{name} has its cables again", "network.mended", host=name)
        down = (self.network.management_down, self.network.storage_down, self.network.migration_down)
        for network, hosts in zip(NETWORKS, down, strict=True):
            if network in networks:
                hosts.discard(name)
        self.hosts[name].agent.look_again()
        self.network.changed()

    def cut_coordinator(self, *, bmcs: bool = True) -> None:
        self.say("the coordinator is cut off", "network.cut")
        self.network.coordinator_up = False
        self.fencer.reachable = not bmcs

    def mend_coordinator(self) -> None:
        self.say("the coordinator has its cable again", "network.mended")
        self.network.coordinator_up = True
        self.fencer.reachable = True
        self.network.changed()

    def crash_coordinator(self, down_s: float = 1.0) -> None:
        self.coordinator.kill()
        self.clock.after(down_s, self.restart_coordinator)

    def restart_coordinator(self) -> None:
        at_home = not self.home or self.hosts[self.home].up
        if not self.coordinator.alive and at_home:
            self.coordinator.boot()

    def replace_coordinator(self) -> None:
        """A second process takes over the store while the first one still exists, which somebody ends before long."""
        self.say("a second coordinator takes over the store")
        self.clock.after(BESIDE_S, self.coordinator.kill)
        self.older = [old for old in self.older if old.alive]
        self.older.append(self.coordinator)
        self.coordinator = SimCoordinator(self, self.store, self.coordinator.machine)
        self.coordinator.boot()

    def start_clone(self, store: SimStore, how: str) -> None:
        """A copy of the store on another machine: "copied" there as it is, or put there by `dr cluster restore`."""
        machine = f"m{self._terms + 1}"
        self.say(f"the store is {how} to {machine}")
        if how == "copied":
            clone = SimCoordinator(self, store, machine)
            clone.boot()
            if clone.alive:
                self.older.append(clone)
            return
        pause = Pause(reason="the store was restored, and is older than the world", by="ops")
        store.cluster = changed(store.cluster, machine=machine, restored="restored by ops", pause=pause)
        self.store = store
        self.home = ""
        self.coordinator = SimCoordinator(self, store, machine)
        self.coordinator.boot()

    # A coordinator that runs on one of the hosts lives and stands still with it.

    def home_died(self, name: HostName) -> None:
        if name == self.home:
            self.coordinator.kill()

    def home_booted(self, name: HostName) -> None:
        if name == self.home:
            self.clock.after(1.0, self.restart_coordinator)

    def home_frozen(self, name: HostName, seconds: float) -> None:
        if name == self.home:
            self.coordinator.freeze(seconds)

    def restore_store(self, backup: SimStore, down_s: float = 1.0) -> None:
        """The coordinator is stopped, its store replaced by an older copy, and started again."""
        self.say(
            f"the store is put back to revision {backup.revision} from {self.store.revision}",
            "store.restored",
            revision=backup.revision,
        )
        self.coordinator.kill()
        self.truth.store_replaced(backup)
        self.store = self.coordinator.store = backup.copy()
        self.clock.after(down_s, self.restart_coordinator)

    def heal(self) -> None:
        """Everything that can be repaired is repaired; what was lost stays lost."""
        self.say("everything is repaired", "healed")
        for old in self.older:
            old.kill()
        coordinator = self.coordinator
        coordinator.die_after_commit = coordinator.die_before_effect = coordinator.die_after_effect = 0
        for device in self.fencer.devices.values():
            device.fault, device.acts_on, device.switched_off, device.serial = "", "", False, 0
        self.network.blocked.clear()
        self.troubles.clear()
        self._disturbances.clear()
        self.store.trouble = ""
        self.slowness = 1.0
        self.mend_coordinator()
        for name, host in self.hosts.items():
            self.mend(name)
            self.power_on(name)
            host.libvirtd = "up"
            host.libvirt_slow_s = 0.0
            host.hook_broken = host.probes_fail = False
            host.hardware = dict.fromkeys(host.hardware, Level.OK)
            host.hibernation_masked = True
            host.start_faults.clear()
            host.stop_faults.clear()
            host.migrate_faults.clear()
            if name not in self.scrapped:
                host.agent.enabled = True
                host.agent.start()
            host.agent.look_again()
        self.restart_coordinator()
