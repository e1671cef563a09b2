"""One KVM host, simulated: power, boots, a libvirtd with its permit hook, domains, an agent's durable memory.

Here: the truth of what runs. Not here: what its agent makes of orders (`dr.sim.agent`), fence devices (`dr.sim.bmc`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dr.model.base import GuestId
from dr.model.facts import Definition, DomainState, GuestFacts, HookState, HostFacts, Sighting
from dr.model.memory import AgentMemory
from dr.model.policy import StopMode
from dr.model.wire import LeaveKind
from dr.sim.agent import SimAgent
from dr.sim.clock import Action

if TYPE_CHECKING:
    from dr.sim.world import World

Ended = Callable[[str, str], None]  # (failed, unseen): both empty when the call did what it was asked

NETWORKS = ("bridge:br0",)
STORAGE = ("nbd:storage:10809",)


@dataclass
class Domain:
    """One libvirt domain as defined on this host."""

    definition: Definition
    memory_mib: int
    state: DomainState = DomainState.SHUTOFF
    reason: str = ""
    autostart: bool = False

    @property
    def active(self) -> bool:
        return self.state is DomainState.RUNNING


class SimHost:
    """Everything on one machine. Events of an older boot never run; those of a frozen one run when it thaws."""

    def __init__(self, world: World, name: str, memory_mib: int) -> None:
        self.world = world
        self.name = name
        self.memory_mib = memory_mib
        self.cpus = 16
        self.chassis_on = True  # what the BMC switches
        self.outlets_on = [True, True]  # what the two outlets of its PDU switch; either is enough
        self.up = True  # an operating system runs
        self.boots = 1
        self.boot_id = f"{name}-b1"
        self.frozen = False
        self.libvirtd = "up"  # "up", "down", "hung"
        self.hook_broken = False
        self.domains: dict[GuestId, Domain] = {}
        self.guarded: set[GuestId] = set()  # the hook's list, durable
        self.permits: dict[GuestId, str] = {}  # on tmpfs
        self.disk = AgentMemory()
        self.parked: deque[Action] = deque()
        self.start_faults: deque[str] = deque()  # for the next starts: "fail", "die", "slow", "hang", "lost"
        self.stop_faults: deque[str] = deque()  # for the next stops: "deaf", "hang"
        self.leaving: LeaveKind = ""  # what its init has begun, as an agent can see it
        self.agent = SimAgent(self)

    # ---- power and boots

    @property
    def powered(self) -> bool:
        return self.chassis_on and any(self.outlets_on)

    def power_changed(self, why: str) -> None:
        """Some switch was thrown: does it run on, go dark, or boot?"""
        if self.up and not self.powered:
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
        self.frozen = False
        self.boots += 1
        self.parked.clear()
        self.permits.clear()
        self.leaving = ""
        self.agent.gone()
        for guest, domain in self.domains.items():
            if domain.active:
                self._ended(guest, domain, DomainState.SHUTOFF, "crashed")
                domain.reason = "unknown"  # libvirt's reason after a boot

    def _booted(self) -> None:
        if not self.powered or self.up:
            return
        self.up = True
        self.libvirtd = "up"
        self.boot_id = f"{self.name}-b{self.boots}"
        self.world.say(f"{self.name} is up: boot {self.boot_id}", "host.up", host=self.name)
        self.later(self.world.rng.uniform(0.1, 0.5), self._autostart)
        if self.agent.enabled:
            self.later(self.world.rng.uniform(0.1, 1.0), self.agent.start)
        self.world.network.changed()

    def _autostart(self) -> None:
        for guest in sorted(self.domains):
            if self.domains[guest].autostart:
                self.hand_start(guest)

    def reboot(self, why: str = "reboot") -> None:
        """A reset, or a kernel panic: everything on it dies and it boots anew."""
        if self.up:
            self._die(why)
            self.power_changed(why)

    def freeze(self, seconds: float) -> None:
        """Everything on it stands still, and goes on later as if nothing had been."""
        if self.up and not self.frozen:
            self.frozen = True
            boots = self.boots
            self.world.clock.after(seconds, lambda: self._thaw() if self.boots == boots else None)

    def _thaw(self) -> None:
        if not self.frozen:
            return
        self.world.say(f"{self.name} thaws", "host.thaws", host=self.name)
        self.frozen = False
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
        return HostFacts(
            boot_id=self.boot_id,
            agent_version="0",
            libvirt_version="9",
            arch="x86_64",
            domain_types=("kvm",),
            machines=("q35",),
            cpus=self.cpus,
            memory_mib=self.memory_mib,
            addresses={"mgmt0": f"mgmt:{self.name}", "storage0": f"storage:{self.name}"},
            networks=NETWORKS,
            storage=STORAGE if self.name not in self.world.network.storage_down else (),
            hook=self.hook,
        )

    def inventory(self) -> tuple[GuestFacts, ...]:
        return tuple(
            GuestFacts(
                id=guest,
                name=domain.definition.name,
                state=domain.state,
                reason=domain.reason,
                autostart=domain.autostart,
                memory_mib=domain.memory_mib,
                digest=domain.definition.digest,
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

        def hook() -> None:
            if self.libvirtd == "down":
                return  # its queue died with it
            if definition.id in self.guarded and not self._take_permit(definition.id, ticket):
                ended("refused by the dr hook: no permit", "")
                return
            domain = self.domains.get(definition.id)
            if domain is None or not domain.active:
                memory = domain.memory_mib if domain else self.world.memory_of(definition.id)
                domain = self.domains[definition.id] = Domain(definition, memory)
                self._began(definition.id, domain, "booted")
            if fault == "die":
                self.later(0.3, lambda: self._fell(definition.id, ended))
            elif fault != "lost":
                self.later(rng.uniform(0.1, 0.6), lambda: ended("", ""))

        self.later(queue_s, hook)

    def _trouble(self, call: str, guest: GuestId, own: deque[str]) -> str:
        """What goes wrong with this call: a fault of this host, or one that waits for this guest."""
        return own.popleft() if own else self.world.troubles.meet(call, guest, self.name)

    def _take_permit(self, guest: GuestId, ticket: str) -> bool:
        return self.permits.pop(guest, None) is not None

    def _fell(self, guest: GuestId, ended: Ended) -> None:
        domain = self.domains.get(guest)
        if domain is not None and domain.active:
            self._ended(guest, domain, DomainState.SHUTOFF, "failed")
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
            if domain is not None and domain.active:
                why = "destroyed" if mode == "destroy" else "shutdown"
                self._ended(guest, domain, DomainState.SHUTOFF, why)
            ended("", "")

        self.later(self.world.rng.uniform(0.1, 0.6), stop)

    def undefine(self, guest: GuestId) -> str:
        """Archive and undefine; says why not."""
        domain = self.domains.get(guest)
        if domain is not None and domain.active:
            return "it is active"
        self.domains.pop(guest, None)
        return ""

    def _began(self, guest: GuestId, domain: Domain, reason: str) -> None:
        domain.state, domain.reason = DomainState.RUNNING, reason
        self.world.truth.began(guest, self)
        self.agent.look_again()

    def _ended(self, guest: GuestId, domain: Domain, state: DomainState, reason: str) -> None:
        domain.state, domain.reason = state, reason
        self.world.truth.ended(guest, self, reason)
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
        if guest in self.guarded and self.permits.pop(guest, None) is None:
            self.world.say(
                f"{self.name}: the hook refuses {guest}", "hook.refused", host=self.name, guest=guest
            )
            return False
        self._began(guest, domain, "booted")
        return True

    def end(self, guest: GuestId, reason: str) -> bool:
        """Its owner shuts it down ("shutdown"), somebody destroys it, or it crashes ("crashed")."""
        domain = self.domains.get(guest)
        if domain is None or not domain.active or self.frozen:
            return False
        state = DomainState.CRASHED if reason == "crashed" else DomainState.SHUTOFF
        self._ended(guest, domain, state, reason)
        return True

    def set_libvirtd(self, state: str) -> None:
        self.libvirtd = state
        self.agent.look_again()
