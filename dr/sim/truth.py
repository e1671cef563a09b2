"""What really runs, and the promises checked against it after every step.

Here: what runs where, and what agents, devices and libvirt do, against the promises, each with the sentence that a
violation prints. Not here: what a coordinator decides (`dr.sim.judge`), what must be so at the end (`dr.sim.ending`).
Nothing here changes the world.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NoReturn

from dr.core import warden
from dr.core.state import Draft
from dr.model.base import BootId, GuestId, HostName
from dr.model.commands import Body, Ticket
from dr.model.decision import Changes
from dr.model.effects import Fence, Reply, SendStart
from dr.model.records import GuestPhase
from dr.model.wire import Welcome
from dr.sim.bmc import Device
from dr.sim.ending import unfinished
from dr.sim.judge import Judge
from dr.sim.store import SimStore

if TYPE_CHECKING:
    from dr.sim.coordinator import SimCoordinator
    from dr.sim.domain import Domain
    from dr.sim.host import SimHost
    from dr.sim.world import World

RAN_LATELY_S = 30.0  # a clean-up may rest on a run elsewhere that ended just now
READ_LATELY_S = 6.0  # a device that showed another machine's identity so lately must not be switched


class Violation(AssertionError):
    """A promise was broken; the text says which and how."""


class Truth:
    """Watches the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.active: dict[GuestId, set[tuple[HostName, BootId]]] = {}  # where CPUs run
        self.disk: Counter[GuestId] = Counter()  # its version: a new one whenever CPUs begin to run over it
        self.doubtful = False  # the store is an older copy and nobody has noticed yet
        self.knowing: set[HostName] = set()  # agents that know more than that copy
        self.excused: set[GuestId] = set()  # doubled by a fault that the design admits
        self.vouched: set[tuple[GuestId, HostName]] = set()  # by a person, for a host that never guarded it
        self._until_cold: set[GuestId] = set()  # of them, those whose next cold start ends the excuse
        self.began_at: dict[GuestId, float] = {}  # where it runs
        self.starts: Counter[GuestId] = Counter()
        self.fenced: Counter[HostName] = Counter()
        self.commands: Counter[tuple[str, str]] = Counter()  # on a host or in a guest, by program
        self._commands: set[str] = set()
        self.led: dict[HostName, tuple[int, str]] = {}  # epoch and leader that each agent adopted last
        self.operations: set[str] = set()  # that somebody was told of
        self._ran: dict[GuestId, dict[HostName, float]] = {}  # when it was last seen to run there
        self._tickets: set[tuple[str, str]] = set()
        self._sealed: dict[tuple[HostName, GuestId], int] = {}  # what each host said that it refuses
        self._lists: dict[HostName, int] = {}  # version of the protected list
        self._rewound = False  # an older copy of the store was put back
        self._forgot: set[HostName] = set()  # agents that lost their state and have no list since
        self._judge = Judge(world, self)

    def where(self, guest: GuestId) -> list[HostName]:
        return sorted(host for host, _ in self.active.get(guest, ()))

    def command_begins(self, command: str, argv: tuple[str, ...]) -> None:
        """A command runs once for its id."""
        if command in self._commands:
            self.broken(f"{command} ({' '.join(argv)}) runs a second time")
        self._commands.add(command)

    def broken(self, text: str) -> NoReturn:
        """A promise is broken: raises Violation."""
        self._world.say(f"VIOLATION {text}", "violation")
        raise Violation(f"seed {self._world.seed}, at {self._world.clock.now:.3f} s: {text}")

    # ---- one copy

    def began(self, guest: GuestId, host: SimHost, domain: Domain) -> None:
        """From cold: its memory is read from the disk as it is now."""
        self.starts[guest] += 1
        if guest in self._until_cold and not self.active.get(guest):
            self._until_cold.discard(guest)
            self.excused.discard(guest)
        self.began_at[guest] = self._world.clock.now
        file = host.images.files.get(guest) if domain.definition.local else None
        ours = guest in host.guarded or guest in self._world.store.guests  # else it is its owner's risk
        if file is not None and ours and file.version != self.disk[guest] and guest not in self.excused:
            self.broken(
                f"{guest} starts on {host.name} from version {file.version} of its disk,"
                f" and the newest is {self.disk[guest]}"
            )
        self._runs(guest, host, domain)

    def lost_image(self, guest: GuestId, host: SimHost, version: int) -> None:
        """A file is gone from where definitions find it: another host must have one that is as new."""
        files = [other.images.files.get(guest) for other in self._world.hosts.values()]
        if not any(file is not None and file.version >= version for file in files):
            self.broken(
                f"version {version} of the disk of {guest} is gone from {host.name}, and nobody has it"
            )

    def resumed(self, guest: GuestId, host: SimHost, domain: Domain) -> None:
        """With the memory that it had: nobody may have written to the disk since."""
        if guest not in host.guarded and guest not in self._world.store.guests:
            self.excuse_until_cold(guest)  # nobody protects it any more: what virsh does is its owner's risk
        if domain.memory_at != self.disk[guest] and guest not in self.excused:
            self.broken(f"{guest} resumes on {host.name} with stale memory over a newer disk")
        if self.ran_last(guest) != host.name:
            self.began_at[guest] = self._world.clock.now
        self._runs(guest, host, domain)

    def _runs(self, guest: GuestId, host: SimHost, domain: Domain) -> None:
        self.disk[guest] += 1
        domain.memory_at = self.disk[guest]
        if domain.definition.local:
            host.images.files[guest].version = self.disk[guest]
        self._world.say(f"{guest} runs on {host.name}", "guest.began", guest=guest, host=host.name)
        places = self.active.setdefault(guest, set())
        places.add((host.name, host.boot_id))
        if guest not in host.guarded and (len(places) > 1 or (guest, host.name) in self.vouched):
            record = self._world.store.guests.get(guest)
            if record is None or record.phase is GuestPhase.PROTECTING or (guest, host.name) in self.vouched:
                self.excused.add(guest)  # nobody protects it there yet: its owner may start it twice
        if len(places) > 1 and guest not in self.excused:
            self.broken(f"{guest} runs in {len(places)} places: {sorted(places)}")
        self._covered(guest)

    def excuse_until_cold(self, guest: GuestId) -> None:
        """A person made a waiting copy run, which no hook sees: its runs are not judged until it starts anew, alone."""
        if guest not in self.excused:
            self._until_cold.add(guest)
            self.excused.add(guest)

    def ended(self, guest: GuestId, host: SimHost, reason: str) -> None:
        self._world.say(
            f"{guest} ends on {host.name}: {reason}",
            "guest.ended",
            guest=guest,
            host=host.name,
            reason=reason,
        )
        self.active.setdefault(guest, set()).discard((host.name, host.boot_id))
        self._ran.setdefault(guest, {})[host.name] = self._world.clock.now

    def ran_last(self, guest: GuestId) -> HostName:
        """Where it ended last; "" = it never did."""
        ran = self._ran.get(guest, {})
        return max(ran, key=lambda host: ran[host], default="")

    def ended_since(self, guest: GuestId, host: HostName, seconds: float) -> bool:
        """Whether it ended there within that time."""
        return self._world.clock.now - self._ran.get(guest, {}).get(host, -1e9) < seconds

    def _covered(self, guest: GuestId) -> None:
        """Every place where it runs is in its set."""
        store = self._world.store
        record = store.guests.get(guest)
        if record is None or self.doubtful or guest in self.excused:
            return
        known = {(place.host, place.boot_id) for place in record.may_run_on}
        for host, boot in sorted(self.active.get(guest, ())):
            # An older copy of the store does not know a newer boot until it said hello; its host's place stands for it.
            if host not in store.hosts:
                continue  # an older copy of the store, and a host that joined since
            recorded = store.hosts[host].boot_id
            if (host, boot) not in known and not (recorded != boot and (host, recorded) in known):
                self.broken(f"{guest} runs at {host} ({boot}), and may_run_on is {sorted(known)}")

    # ---- what a coordinator does

    def leads(self, coordinator: SimCoordinator) -> None:
        """A new term began."""
        bound = coordinator.store.cluster.machine
        if bound != coordinator.machine:
            self.broken(f"a coordinator leads on {coordinator.machine}, its store belongs to {bound}")
        lost = self.operations - set(coordinator.store.operations)
        if lost:
            self.broken(f"operations that were accepted are not in the store: {sorted(lost)}")

    def before_commit(self, coordinator: SimCoordinator, draft: Draft, changes: Changes) -> None:
        if self.doubtful and draft.cluster.restored and coordinator.store is self._world.store:
            self.doubtful = False
        self._judge.decided(coordinator, draft, changes)

    def committed(self, coordinator: SimCoordinator, changes: Changes) -> None:
        if coordinator.store is self._world.store:
            for guest in changes.guests:
                self._covered(guest)

    def start_sent(self, coordinator: SimCoordinator, effect: SendStart, draft: Draft) -> None:
        self._judge.start_sent(coordinator, effect, draft)

    def fence_sent(self, coordinator: SimCoordinator, effect: Fence, draft: Draft) -> None:
        self.fenced[effect.host] += 1
        self._judge.fence_sent(coordinator, effect, draft)

    def command_sent(self, coordinator: SimCoordinator, host: HostName, body: Body, draft: Draft) -> None:
        self._judge.command_sent(coordinator, host, body, draft)

    def replied(self, coordinator: SimCoordinator, reply: Reply) -> None:
        """What was accepted is in the store, now and after every crash."""
        for operation in reply.operations:
            if operation not in coordinator.store.operations:
                self.broken(f"operation {operation} was accepted and is not in the store")
        if coordinator.store is self._world.store:
            self.operations.update(reply.operations)

    def store_replaced(self, backup: SimStore) -> None:
        """An older copy takes its place: what was accepted since is lost with what it knew."""
        # Also where a person says so (`dr cluster restore`): its sets are widened when a leader begins, not before.
        present = self._world.store
        another = not any(
            (term.epoch, term.leader_id) == (backup.cluster.epoch, backup.cluster.leader_id)
            for term in present.cluster.terms
        )  # of a line that was left by an earlier restore
        self.doubtful = backup.revision < present.revision or another
        known = backup.cluster.epoch, backup.revision + backup.cluster.revision_offset
        self.knowing = {
            name for name, host in self._world.hosts.items() if (host.disk.epoch, host.disk.revision) > known
        }
        self._rewound = True
        self.operations &= set(backup.operations)

    # ---- what agents do

    def adopted(self, host: SimHost, welcome: Welcome) -> None:
        epoch, leader = self.led.get(host.name, (0, ""))
        if host.name in self._forgot:  # it cannot know better: its seals come back with the list
            epoch, leader = 0, ""
        if welcome.epoch < epoch:
            self.broken(f"{host.name} follows epoch {welcome.epoch} after {epoch}")
        if welcome.epoch == epoch and leader not in ("", welcome.leader_id):
            self.broken(f"{host.name} follows {welcome.leader_id} in epoch {epoch} of {leader}")
        self.led[host.name] = (welcome.epoch, welcome.leader_id)

    def admitted(self, host: SimHost, ticket: Ticket) -> None:
        """An agent accepts a ticket: newer than all that it ever sealed."""
        sealed = self._sealed.get((host.name, ticket.guest), 0)
        if ticket.generation <= sealed:
            self.broken(
                f"{host.name} takes {ticket.id} of generation {ticket.generation}, sealed is {sealed}"
            )
        self._sealed[host.name, ticket.guest] = ticket.generation

    def testified(self, host: SimHost, guest: GuestId, sealed: int) -> None:
        """An agent says `absent`, and refuses up to that generation from now on."""
        if guest not in warden.listed(host.disk):
            return  # off the list since: a later protection begins above whatever was testified
        if host.disk.sealed.get(guest, 0) < sealed:
            self.broken(f"{host.name} testifies for {guest} up to {sealed}, which is not durable")
        key = host.name, guest
        self._sealed[key] = max(sealed, self._sealed.get(key, 0))

    def listed(self, host: SimHost) -> None:
        """It took a protected list: guests that left it begin anew, seals of the others are (back) in force."""
        version = host.disk.protected_version
        if version < self._lists.get(host.name, 0) and host.name not in self._forgot:
            self.broken(f"{host.name} goes back to list {version} from {self._lists[host.name]}")
        self._lists[host.name] = version
        self._forgot.discard(host.name)
        for name, guest in list(self._sealed):
            if name == host.name and guest not in host.guarded:
                del self._sealed[name, guest]
            elif name == host.name and host.disk.sealed.get(guest, 0) < self._sealed[name, guest]:
                kept, before = host.disk.sealed.get(guest, 0), self._sealed[name, guest]
                self._sealed[name, guest] = kept
                if not self._rewound:  # an older copy of the store cannot give back what it does not know
                    self.broken(f"{name} has sealed {guest} up to {kept}, it was {before}")

    def lost_state(self, host: SimHost) -> None:
        self._forgot.add(host.name)
        self.knowing.discard(host.name)

    def obeyed(self, host: SimHost, ticket: Ticket) -> None:
        """The last check before the effect was passed: the ticket is of this boot, session and leader."""
        agent = host.agent
        link, memory = agent.link, agent.memory
        if link is None or ticket.session != link.nonce:
            self.broken(f"{host.name} acts on {ticket.id} of a session that is over")
        if (ticket.epoch, ticket.leader_id) != (memory.epoch, memory.leader_id):
            self.broken(f"{host.name} acts on {ticket.id} of epoch {ticket.epoch}, it follows {memory.epoch}")
        if ticket.boot_id != host.boot_id or ticket.host != host.name:
            self.broken(f"{host.name} ({host.boot_id}) acts on {ticket.id} for {ticket.boot_id}")
        if ticket.guest not in host.guarded:
            self.broken(f"{host.name} acts on {ticket.id} of {ticket.guest}, which its hook does not guard")

    def ticket_run(self, host: SimHost, ticket: Ticket) -> None:
        key = (
            ticket.leader_id,
            ticket.id,
        )  # on an older copy of the store another leader may count the same ids again
        if key in self._tickets:
            self.broken(f"ticket {ticket.id} was run twice")
        self._tickets.add(key)
        known, _ = self.led.get(host.name, (0, ""))
        # A frozen agent may go on with what it had begun: docs in dr.agent.tickets. Nothing else may.
        if ticket.epoch < known and not any(
            place.generation == ticket.generation
            for guest in [self._world.store.guests.get(ticket.guest)]
            if guest is not None
            for place in guest.may_run_on
        ):
            self.broken(f"{host.name} ran {ticket.id} of epoch {ticket.epoch}, having adopted {known}")

    def undefined(self, guest: GuestId, host: SimHost) -> None:
        """A definition is removed on a ticket: the guest runs elsewhere, or did just now, or is suspended there."""
        now = self._world.clock.now
        if set(self.where(guest)) - {host.name}:
            return
        others = (other.domains.get(guest) for other in self._world.hosts.values() if other is not host)
        if any(domain is not None and domain.suspended for domain in others):
            return
        lately = [
            name
            for name, at in self._ran.get(guest, {}).items()
            if name != host.name and now - at < RAN_LATELY_S
        ]
        if not lately:
            self.broken(f"{guest} is undefined on {host.name} and runs nowhere else")

    # ---- what devices do

    def switched_off(self, device: Device) -> None:
        """A device that had just shown another machine's identity was told to switch it off.

        A GUID that nobody ever proved to be anybody's, on a device that nobody tested, tells nothing: such a device is
        switched only for a person. Nor does it in a test, which is how a device that was replaced is proven again.
        """
        identities, record = self._world.store.identities, self._world.store.hosts.get(device.host)
        test = record is not None and record.fencing is not None and bool(record.fencing.test)
        told = (device.host, device.name) in identities and not test
        if not told and all(identity.guid != device.guid for identity in identities.values()):
            return
        fresh = self._world.clock.now - device.showed_at < READ_LATELY_S
        if fresh and device.showed not in ("", device.host):
            self.broken(
                f"{device.name} of {device.host} switched {device.showed} off, whose GUID it had shown"
            )

    # ---- the end

    def unfinished(self) -> list[str]:
        """What should not be so, once every fault is healed and time has passed; empty = all is well."""
        return unfinished(self._world, self)
