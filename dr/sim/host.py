"""One KVM host, simulated: power, boots, a libvirtd with its permit hook, domains, an agent's durable memory.

Here: the truth of what runs. Not here: what its agent makes of orders (`dr.sim.agent`), fence devices (`dr.sim.bmc`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from dr.model.base import GuestId, HostName, changed
from dr.model.facts import (
    Definition,
    DomainState,
    GuestFacts,
    HookState,
    HostFacts,
    Level,
    Part,
    Progress,
    Sighting,
    Tie,
    TieKind,
    folder_identity,
)
from dr.model.memory import AgentMemory, Image
from dr.model.policy import StopMode
from dr.model.wire import LeaveKind
from dr.sim.agent import SimAgent
from dr.sim.clock import Action
from dr.sim.commands import CommandFault, Ran
from dr.sim.cpus import CPUS, RUNNING
from dr.sim.domain import Domain, Ended
from dr.sim.images import FOLDER, SimImages
from dr.sim.migration import Migration

if TYPE_CHECKING:
    from dr.sim.world import World

NETWORKS = ("bridge:br0",)
STORAGE = ("nbd:storage:10809",)


class SimHost:
    """Everything on one machine. Events of an older boot never run; those of a frozen one run when it thaws."""

    def __init__(self, world: World, name: str, memory_mib: int) -> None:
        self.world = world
        self.name = name
        self.memory_mib = memory_mib
        self.cpus = 16
        self.cpu = "newer"
        self.chassis_on = True  # what the BMC switches
        self.outlets_on = [True, True]  # what the two outlets of its PDU switch; either is enough
        self.up = True  # an operating system runs
        self.up_since = 0.0
        self.died_at = -1e9
        self.froze_at = self.thawed_at = -1e9
        self.boots = 1
        self.boot_id = f"{name}-b1"
        self.frozen = False
        self.asleep = False  # hibernated: its memory lies on its disk, and will go on from there
        self.hibernation_masked = True
        self.libvirtd = "up"  # "up", "down", "hung"
        self.libvirt_slow_s = 0.0  # that each call takes longer
        self.hook_broken = False
        self.hardware: dict[str, Level] = {}  # how parts of it are, where a look at them shows that
        self.probes_fail = False  # its agent can send no echoes
        self.domains: dict[GuestId, Domain] = {}
        self.guarded: set[GuestId] = set()  # the hook's list, durable
        self.permits: dict[GuestId, str] = {}  # on tmpfs: what a permit is for
        self.disk = AgentMemory()
        self.images = SimImages(self)
        self.parked: deque[Action] = deque()
        self.start_faults: deque[str] = deque()  # for the next starts: "fail", "die", "slow", "hang", "lost"
        self.stop_faults: deque[str] = deque()  # for the next stops: "deaf", "hang"
        self.leaving: LeaveKind = ""  # what its init has begun, as an agent can see it
        self.migrate_faults: deque[str] = deque()  # for the next migrations from here: `migration.FAULTS`
        self.drills_left: set[str] = set()  # drills of which anything lies on its disk
        self.commands: dict[str, Ran] = {}  # of playbooks, in this boot
        self.command_faults: deque[CommandFault] = deque()  # for the next of them
        self.agent = SimAgent(self)

    # ---- power and boots

    @property
    def powered(self) -> bool:
        return self.chassis_on and any(self.outlets_on) and self.name not in self.world.scrapped

    @property
    def heard(self) -> bool:
        """Whether a coordinator and its agent hear each other at this moment."""
        link = self.agent.link
        return link is not None and link.quick and not self.frozen and not self.agent.frozen

    def power_changed(self, why: str) -> None:
        """Some switch was thrown: does it run on, go dark, or boot?"""
        if self.asleep:
            self.world.clock.after(self.world.rng.uniform(2.0, 6.0), self._wake)
        elif self.up and not self.powered:
            self._die(why)
        elif self.powered and not self.up:
            self.world.say(f"{self.name} boots: {why}", "host.boots", host=self.name, reason=why)
            boots = self.boots
            self.world.clock.after(
                self.world.rng.uniform(2.0, 6.0), lambda: self._booted() if self.boots == boots else None
            )

    def _die(self, why: str) -> None:
        """The kernel is gone, without a word to anybody."""
        self.world.say(f"{self.name} is dead: {why}", "host.dead", host=self.name, reason=why)
        self.up = False
        self.died_at = self.world.clock.now
        self.frozen = False
        self.boots += 1
        self.world.home_died(self.name)
        self.parked.clear()
        self.permits.clear()
        self.commands.clear()
        self.leaving = ""
        self.agent.gone()
        for guest, domain in self.domains.items():
            if domain.active:
                self.ended(guest, domain, "crashed")
            domain.reason = "unknown"  # libvirt's of every domain after a boot
        for guest in [guest for guest, domain in self.domains.items() if domain.incoming is not None]:
            del self.domains[guest]  # it was never defined here

    def _booted(self) -> None:
        if not self.powered or self.up:
            return
        self.up = True
        self.up_since = self.world.clock.now
        self.libvirtd = "up"
        self.boot_id = f"{self.name}-b{self.boots}"
        self.world.say(f"{self.name} is up: boot {self.boot_id}", "host.up", host=self.name)
        self.later(self.world.rng.uniform(0.1, 0.5), self._autostart)
        if self.agent.enabled:
            self.later(self.world.rng.uniform(0.1, 1.0), self.agent.start)
        self.world.network.changed()
        self.world.home_booted(self.name)

    def _autostart(self) -> None:
        for guest in sorted(self.domains):
            if self.domains[guest].autostart:
                self.hand_start(guest)

    def reboot(self, why: str = "reboot") -> None:
        """A reset, or a kernel panic: everything on it dies and it boots anew."""
        if self.up and not self.asleep:
            self._die(why)
            self.power_changed(why)

    def hibernate(self) -> None:
        """Somebody types `systemctl hibernate`: its image lies on its disk, and the power is off."""
        if not self.up or self.frozen:
            return
        if self.hibernation_masked:
            self.world.say(f"{self.name}: Unit hibernate.target is masked")
            return
        self.world.say(f"{self.name} hibernates")
        for guest, domain in sorted(self.domains.items()):
            if domain.runs:
                self.world.truth.ended(guest, self, "hibernated")
        self.asleep = self.frozen = True
        self.chassis_on = False

    def _wake(self) -> None:
        """Its image is thawed: the same boot goes on, and so do its guests."""
        if not self.asleep or not self.powered:
            return
        self.asleep = False
        for guest, domain in sorted(self.domains.items()):
            if domain.runs:
                self.world.truth.resumed(guest, self, domain)
        self._thaw()

    def freeze(self, seconds: float) -> None:
        """Everything on it stands still, and goes on later as if nothing had been."""
        if self.up and not self.frozen:
            self.frozen, self.froze_at = True, self.world.clock.now
            boots = self.boots
            self.world.clock.after(seconds, lambda: self._thaw() if self.boots == boots else None)
            self.world.home_frozen(self.name, seconds)

    def _thaw(self) -> None:
        if not self.frozen or self.asleep:
            return
        self.world.say(f"{self.name} thaws", "host.thaws", host=self.name)
        self.frozen, self.thawed_at = False, self.world.clock.now
        waiting, self.parked = self.parked, deque()
        for action in waiting:
            action()
        self.world.network.changed()

    def later(self, delay_s: float, action: Action) -> None:
        """In this boot only; when frozen, at thaw."""
        boots = self.boots

        def run() -> None:
            if self.boots != boots or not self.up:
                return
            if self.frozen:
                self.parked.append(run)
            else:
                action()

        self.world.clock.after(delay_s, run)

    # ---- what it looks like

    @property
    def hook(self) -> HookState:
        if self.hook_broken:
            return HookState(proven=False, reason="the hook does not refuse")
        return HookState(proven=True)

    def facts(self) -> HostFacts:
        shared = STORAGE if self.name not in self.world.network.storage_down else ()
        return HostFacts(
            boot_id=self.boot_id,
            agent_version="0",
            libvirt_version="9",
            arch="x86_64",
            domain_types=("kvm",),
            machines=("q35",),
            cpu_offers={"kvm": CPUS[self.cpu]},
            running_cpus={cpu: RUNNING[cpu] for cpu in sorted(self._running_cpus())},
            cpus=self.cpus,
            memory_mib=self.memory_mib,
            addresses={"mgmt0": f"mgmt:{self.name}", "storage0": f"storage:{self.name}"},
            networks=NETWORKS,
            storage=(folder_identity(FOLDER), *shared),
            room_mib={FOLDER: self.images.room_mib},
            hook=self.hook,
            live_migration=True,
            copy_port=7310,
            samples_memory=bool(self.world.writes),
            hibernation_masked=self.hibernation_masked,
        )

    def _running_cpus(self) -> set[str]:
        return {domain.cpu for domain in self.domains.values() if domain.active}

    def inventory(self, part: Callable[[GuestId, Domain], Part]) -> tuple[GuestFacts, ...]:
        return tuple(
            GuestFacts(
                id=guest,
                name=domain.definition.name,
                state=domain.state,
                reason=domain.reason,
                autostart=domain.autostart,
                memory_mib=domain.memory_mib,
                resident_mib=self.world.resident_of(guest) if domain.active else 0,
                digest=domain.definition.digest,
                part=part(guest, domain),
                ties=domain.ties,
                cpu=domain.cpu if domain.active else "",
            )
            for guest, domain in sorted(self.domains.items())
        )

    def sight(self, guest: GuestId) -> tuple[Sighting, str]:
        """Works without libvirtd, from /proc; a libvirtd that hangs may have a start in its queue."""
        domain = self.domains.get(guest)
        if domain is not None and domain.active:
            return Sighting.PRESENT, "its QEMU runs"
        if self.libvirtd == "hung":
            return Sighting.UNKNOWN, "libvirt does not answer"
        return Sighting.ABSENT, "no domain and no QEMU"

    # ---- libvirt's calls

    def start_domain(self, definition: Definition, ticket: str, ended: Ended) -> None:
        """Define and start from cold. `ended` may come late or never; the start itself may go on regardless."""
        definition = changed(definition, local=self.world.definitions[definition.id].local)  # as its XML says
        fault = self._trouble("start", definition.id, self.start_faults)
        if self.libvirtd == "down":
            ended("", "libvirt is gone")
            return
        if fault == "fail":
            self.later(0.1, lambda: ended("no space left on device", ""))
            return
        rng = self.world.rng
        queue_s = {"slow": rng.uniform(2.0, 12.0), "hang": rng.uniform(10.0, 60.0)}.get(
            fault, rng.uniform(0.01, 0.1)
        )
        queue_s += self.libvirt_slow_s

        def hook() -> None:
            if self.libvirtd == "down":
                return  # its queue died with it
            if definition.id in self.guarded and not self.take_permit(definition.id, "start"):
                ended("refused by the dr hook: no permit", "")
                return
            domain = self.domains.get(definition.id)
            if definition.local and definition.id not in self.images.files:
                ended("cannot access storage file: no such file or directory", "")
                return
            if domain is None or not domain.active:
                memory = domain.memory_mib if domain else self.world.memory_of(definition.id)
                domain = self.domains[definition.id] = Domain(definition, memory)
                self._began(definition.id, domain, "booted")
            if fault == "die":
                self.later(0.3, lambda: self._fell(definition.id, ended))
            elif fault != "lost":
                self.later(rng.uniform(0.1, 0.6), lambda: ended("", ""))

        self.later(queue_s, hook)

    def _trouble(self, call: str, guest: GuestId, own: deque[str], to: HostName = "") -> str:
        """What goes wrong with this call: a fault of this host, or one that waits for this guest."""
        return own.popleft() if own else self.world.troubles.meet(call, guest, self.name, to)

    def take_permit(self, guest: GuestId, what: str) -> bool:
        """The hook's answer; a permit works once, and for what it was written."""
        if self.permits.get(guest) != what:
            return False
        del self.permits[guest]
        return True

    def _fell(self, guest: GuestId, ended: Ended) -> None:
        domain = self.domains.get(guest)
        if domain is not None and domain.active:
            self.ended(guest, domain, "failed")
        ended("qemu ended unexpectedly", "")

    def stop_domain(self, guest: GuestId, mode: StopMode, timeout_s: float, ended: Ended) -> None:
        fault = self._trouble("stop", guest, self.stop_faults)
        if self.libvirtd == "down":
            ended("", "libvirt is gone")
            return
        if fault == "deaf" and mode == "shutdown":
            self.later(timeout_s, lambda: ended(f"it did not shut down within {timeout_s:g} s", ""))
            return
        if fault == "hang":
            return

        def stop() -> None:
            domain = self.domains.get(guest)
            if self.libvirtd == "down":
                return
            if domain is not None and domain.active and not domain.runs and mode == "shutdown":
                ended("a guest that is paused hears nobody", "")
                return
            if domain is not None and domain.active:
                self.ended(guest, domain, "destroyed" if mode == "destroy" else "shutdown")
            ended("", "")

        self.later(self.world.rng.uniform(0.1, 0.6) + self.libvirt_slow_s, stop)

    def undefine(
        self,
        guest: GuestId,
        *,
        by_hand: bool = False,
        old: tuple[Image, ...] = (),
        remove_disks: bool = False,
    ) -> None:
        """Archive and undefine what is not active: on a ticket, or by hand."""
        domain = self.domains.get(guest)
        if domain is not None and domain.active:
            return
        if not by_hand:
            self.images.part_with(guest, old, remove=remove_disks)
        if domain is None:  # its disks may have come and gone without it
            return
        if not by_hand:
            self.world.truth.undefined(guest, self)
        del self.domains[guest]
        self.agent.look_again()

    def migrate_domain(
        self,
        guest: GuestId,
        to: HostName,
        ended: Ended,
        *,
        paused: bool = True,
        auto_converge: bool = False,
        disks: bool = False,
    ) -> None:
        """Peer to peer: it goes on without the agent that asked."""
        fault = self._trouble("migrate", guest, self.migrate_faults, to)
        domain = self.domains.get(guest)
        if self.libvirtd != "up":
            ended("", "libvirt does not answer")
        elif (
            domain is None
            or not (domain.runs or (domain.suspended and paused))
            or domain.outgoing is not None
        ):
            ended("the domain does not run, or is on its way already", "")
        elif domain.definition.local and not disks:
            ended("migration without shared storage is unsafe", "")
        elif domain.ties:
            ended(f"cannot migrate domain with a {domain.ties[0].kind}", "")
        else:
            there = self.world.hosts[to]
            Migration(self, there, guest, fault, ended, paused=paused, auto_converge=auto_converge).begin()

    def abort_job(self, guest: GuestId) -> str:
        """Says why not."""
        job = self._job(guest)
        return job.abort() if job else "there is no job, or libvirt does not answer"

    def allow_downtime(self, guest: GuestId, downtime_s: float) -> str:
        """Says why not."""
        job = self._job(guest)
        if job is None:
            return "there is no job, or libvirt does not answer"
        job.downtime_s = downtime_s
        return ""

    def _job(self, guest: GuestId) -> Migration | None:
        domain = self.domains.get(guest)
        return domain.outgoing if self.libvirtd == "up" and domain is not None else None

    def progress(self, left: Collection[GuestId]) -> tuple[Progress, ...]:
        """Of those guests that are on their way from here."""
        jobs = (self._job(guest) for guest in sorted(left))
        found = (job.progress() for job in jobs if job is not None)
        return tuple(progress for progress in found if progress is not None)

    def resume_domain(self, guest: GuestId, ended: Ended) -> None:
        fault = self._trouble("start", guest, self.start_faults)

        def resume() -> None:
            domain = self.domains.get(guest)
            if self.libvirtd != "up":
                return
            if domain is None or domain.state is not DomainState.PAUSED or domain.incoming or domain.outgoing:
                ended("it cannot be resumed", "")
                return
            if fault == "fail":
                ended("its image is locked", "")
                return
            self.resumed(guest, domain, "unpaused")
            if fault == "die":
                self.later(0.3, lambda: self._fell(guest, ended))
            elif fault != "lost":
                ended("", "")

        self.later(self.world.rng.uniform(0.01, 0.2), resume)

    def resumed(self, guest: GuestId, domain: Domain, reason: str) -> None:
        domain.state, domain.reason, domain.by_hand = DomainState.RUNNING, reason, False
        self.world.truth.resumed(guest, self, domain)
        self.agent.look_again()

    def paused(self, guest: GuestId, domain: Domain, reason: str) -> None:
        domain.state, domain.reason = DomainState.PAUSED, reason
        self.world.truth.ended(guest, self, f"paused: {reason}")
        self.agent.look_again()

    def _began(self, guest: GuestId, domain: Domain, reason: str) -> None:
        domain.state, domain.reason, domain.by_hand = DomainState.RUNNING, reason, False
        domain.cpu = self.cpu
        self.world.truth.began(guest, self, domain)
        self.agent.look_again()

    def ended(self, guest: GuestId, domain: Domain, reason: str) -> None:
        """Its QEMU is gone."""
        domain.state = DomainState.CRASHED if reason == "crashed" and self.up else DomainState.SHUTOFF
        domain.reason = reason
        domain.ties = tuple(
            tie for tie in domain.ties if tie.kind is TieKind.SNAPSHOT
        )  # the rest was its QEMU's
        self.world.truth.ended(guest, self, reason)
        job, domain.outgoing = domain.outgoing or domain.incoming, None
        if job is not None:
            job.lost_end(self)
        self.agent.look_again()

    # ---- what people and guests do by themselves

    def place(
        self, guest: GuestId, definition: Definition, memory_mib: int, *, autostart: bool = False
    ) -> None:
        """Before the world begins: a guest runs here, unprotected."""
        domain = self.domains[guest] = Domain(definition, memory_mib, autostart=autostart)
        self._began(guest, domain, "booted")

    def hand_start(self, guest: GuestId) -> bool:
        """`virsh start`, autostart, libvirt-guests: the hook decides."""
        domain = self.domains.get(guest)
        if domain is None or domain.active or not self.up or self.libvirtd != "up":
            return False
        if domain.definition.local and guest not in self.images.files:
            return False
        if guest in self.guarded and not self.take_permit(guest, "start"):
            self.world.say(
                f"{self.name}: the hook refuses {guest}", "hook.refused", host=self.name, guest=guest
            )
            return False
        self._began(guest, domain, "booted")
        return True

    def hand_define(self, guest: GuestId) -> None:
        """`virsh define` of a guest that is not defined here."""
        if guest not in self.domains and self.up and self.libvirtd == "up":
            self.domains[guest] = Domain(self.world.definitions[guest], self.world.memory_of(guest))
            self.agent.look_again()

    def end(self, guest: GuestId, reason: str) -> bool:
        """Its owner shuts it down ("shutdown"), somebody destroys it, or it crashes ("crashed")."""
        domain = self.domains.get(guest)
        if domain is None or not domain.active or self.frozen:
            return False
        if not domain.runs and reason != "destroyed":
            return False
        self.ended(guest, domain, reason)
        return True

    def tie(self, guest: GuestId, tie: Tie) -> None:
        """Somebody makes a snapshot of what runs here, begins a backup or a block job of it, plugs a device in."""
        domain = self.domains.get(guest)
        if domain is not None and domain.runs and domain.outgoing is None and tie not in domain.ties:
            domain.ties = (*domain.ties, tie)
            self.agent.look_again()

    def untie(self, guest: GuestId, kind: TieKind | None) -> None:
        """That has ended, or is taken away."""
        domain = self.domains.get(guest)
        if domain is not None:
            domain.untie(kind)
            self.agent.look_again()

    def hand_migrate(self, guest: GuestId, to: HostName) -> None:
        """`virsh migrate --live`, without --paused: at the other end the hook decides."""
        if self.up and not self.frozen:
            self.migrate_domain(guest, to, lambda failed, unseen: None, paused=False)

    def hand_suspend(self, guest: GuestId) -> bool:
        """`virsh suspend` of what runs."""
        domain = self.domains.get(guest)
        if domain is None or not domain.runs or self.libvirtd != "up" or not self.up or self.frozen:
            return False
        if domain.incoming is not None or domain.outgoing is not None:
            return False
        self.paused(guest, domain, "user")
        domain.by_hand = True
        return True

    def pause_for_io(self, guest: GuestId) -> None:
        """Its disk gave an error: QEMU stops its CPUs. Nothing is lost by resuming it."""
        domain = self.domains.get(guest)
        if domain is not None and domain.runs and domain.outgoing is None and not self.frozen:
            self.paused(guest, domain, "ioerror")
            domain.by_hand = True

    def hand_resume(self, guest: GuestId) -> bool:
        """`virsh resume` of what stands still: no hook is asked."""
        domain = self.domains.get(guest)
        if domain is None or domain.state is not DomainState.PAUSED or self.libvirtd != "up" or not self.up:
            return False
        if self.frozen or domain.incoming is not None or domain.outgoing is not None:
            return False
        if not domain.by_hand:  # a copy that waits: rule 7, what the hook cannot see
            self.world.truth.excuse_until_cold(guest)
        self.resumed(guest, domain, "unpaused")
        return True

    def set_libvirtd(self, state: str) -> None:
        self.libvirtd = state
        self.agent.look_again()
