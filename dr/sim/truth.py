"""What really runs, and the promises checked against it after every step.

Here: invariants, each with the sentence that a violation prints. Not here: anything that could change the world.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from dr.core.state import Draft
from dr.model.base import BootId, GuestId, HostName
from dr.model.commands import Body, Clean, Discard, Migrate, Resume, Ticket
from dr.model.decision import Changes
from dr.model.effects import Fence, SendStart
from dr.model.records import Desired, GuestPhase, HostPhase, OperationState

if TYPE_CHECKING:
    from dr.sim.domain import Domain
    from dr.sim.host import SimHost
    from dr.sim.world import World

COMMANDS_PER_S_MAX = 60  # to one host: more is a loop that feeds itself
EVIDENCE_S = 12.0  # a fence rests on a look no older than this


class Violation(AssertionError):
    """A promise was broken; the text says which and how."""


class Truth:
    """Watches the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.active: dict[GuestId, set[tuple[HostName, BootId]]] = {}  # where CPUs run
        self.disk: Counter[GuestId] = Counter()  # its version: a new one whenever CPUs begin to run over it
        self.doubtful = False  # the store is an older copy and nobody has noticed yet
        self.excused: set[GuestId] = set()  # doubled by a fault that the design admits
        self.began_at: dict[GuestId, float] = {}
        self.starts: Counter[GuestId] = Counter()
        self.fenced: Counter[HostName] = Counter()
        self._tickets: set[str] = set()
        self._epochs: dict[HostName, int] = {}
        self._commands: dict[HostName, deque[float]] = {}

    def where(self, guest: GuestId) -> list[HostName]:
        return sorted(host for host, _ in self.active.get(guest, ()))

    def _broken(self, text: str) -> None:
        self._world.say(f"VIOLATION {text}", "violation")
        raise Violation(f"seed {self._world.seed}, at {self._world.clock.now:.3f} s: {text}")

    # ---- promise 1 and 2

    def began(self, guest: GuestId, host: SimHost, domain: Domain) -> None:
        """From cold: its memory is read from the disk as it is now."""
        self.starts[guest] += 1
        self.began_at[guest] = self._world.clock.now
        self._runs(guest, host, domain)

    def resumed(self, guest: GuestId, host: SimHost, domain: Domain) -> None:
        """With the memory that it had: nobody may have written to the disk since."""
        if domain.memory_at != self.disk[guest] and guest not in self.excused:
            self._broken(f"{guest} resumes on {host.name} with stale memory over a newer disk")
        self._runs(guest, host, domain)

    def _runs(self, guest: GuestId, host: SimHost, domain: Domain) -> None:
        self.disk[guest] += 1
        domain.memory_at = self.disk[guest]
        self._world.say(f"{guest} runs on {host.name}", "guest.began", guest=guest, host=host.name)
        places = self.active.setdefault(guest, set())
        places.add((host.name, host.boot_id))
        if len(places) > 1 and guest not in self.excused:
            self._broken(f"{guest} runs in {len(places)} places: {sorted(places)}")
        self._covered(guest)

    def ended(self, guest: GuestId, host: SimHost, reason: str) -> None:
        self._world.say(
            f"{guest} ends on {host.name}: {reason}",
            "guest.ended",
            guest=guest,
            host=host.name,
            reason=reason,
        )
        self.active.setdefault(guest, set()).discard((host.name, host.boot_id))

    def _covered(self, guest: GuestId) -> None:
        """Every place where it runs is in its set."""
        record = self._world.store.guests.get(guest)
        if record is None or self.doubtful or guest in self.excused:
            return
        known = {(place.host, place.boot_id) for place in record.may_run_on}
        for host, boot in sorted(self.active.get(guest, ())):
            # An older copy of the store does not know a newer boot until it said hello; its host's place stands for it.
            if host not in self._world.store.hosts:
                continue  # an older copy of the store, and a host that joined since
            recorded = self._world.store.hosts[host].boot_id
            if (host, boot) not in known and not (recorded != boot and (host, recorded) in known):
                self._broken(f"{guest} runs at {host} ({boot}), and may_run_on is {sorted(known)}")

    def before_commit(self, draft: Draft) -> None:
        if self.doubtful and draft.cluster.restored:
            self.doubtful = False

    def committed(self, changes: Changes) -> None:
        for guest in changes.guests:
            self._covered(guest)

    def start_sent(self, effect: SendStart) -> None:
        ticket = effect.ticket
        record = self._world.store.guests[ticket.guest]
        others = [
            place
            for place in record.may_run_on
            if (place.host, place.boot_id) != (ticket.host, ticket.boot_id)
        ]
        if others:
            self._broken(f"a start of {ticket.guest} on {ticket.host} while {others} may run it")
        if not any(place.generation == ticket.generation for place in record.may_run_on):
            self._broken(f"a start of {ticket.guest} on {ticket.host} whose place is not durable")
        real = self.active.get(ticket.guest, set()) - {(ticket.host, ticket.boot_id)}
        if real and ticket.guest not in self.excused:
            self._broken(f"a start of {ticket.guest} on {ticket.host} while it runs at {sorted(real)}")

    # ---- tickets and epochs

    def ticket_run(self, host: SimHost, ticket: Ticket) -> None:
        if ticket.id in self._tickets:
            self._broken(f"ticket {ticket.id} was run twice")
        self._tickets.add(ticket.id)
        known = self._epochs.get(host.name, 0)
        # A frozen agent may go on with what it had begun: docs in dr.agent.tickets. Nothing else may.
        if ticket.epoch < known and not any(
            place.generation == ticket.generation
            for guest in [self._world.store.guests.get(ticket.guest)]
            if guest is not None
            for place in guest.may_run_on
        ):
            self._broken(f"{host.name} ran {ticket.id} of epoch {ticket.epoch}, having adopted {known}")

    def adopted(self, host: SimHost, epoch: int) -> None:
        self._epochs[host.name] = max(epoch, self._epochs.get(host.name, 0))

    def command_sent(self, host: HostName, body: Body) -> None:
        what = type(body).__name__
        if isinstance(body, (Migrate, Resume, Discard, Clean)):
            self._move_sent(body)
        now = self._world.clock.now
        recent = self._commands.setdefault(host, deque())
        recent.append(now)
        while recent and recent[0] < now - 1.0:
            recent.popleft()
        if len(recent) > COMMANDS_PER_S_MAX + 4 * len(self._world.definitions):
            self._broken(f"{len(recent)} commands to {host} within a second, the last a {what}")

    def _move_sent(self, order: Migrate | Resume | Discard | Clean) -> None:
        """Nothing is resumed while another place may run it, nothing is destroyed or undefined before proof."""
        ticket = order.ticket
        record = self._world.store.guests[ticket.guest]
        known = {(place.host, place.boot_id) for place in record.may_run_on}
        here, real = (ticket.host, ticket.boot_id), self.active.get(ticket.guest, set())
        excused = ticket.guest in self.excused or self.doubtful
        what = f"a {ticket.kind} of {ticket.guest} on {ticket.host}"
        if isinstance(order, Migrate) and (here not in known or len(known) != 2):
            self._broken(f"{what} while its set is {sorted(known)}")
        if isinstance(order, Resume) and known != {here}:
            self._broken(f"{what} while its set is {sorted(known)}")
        if isinstance(order, Resume) and real - {here} and not excused:
            self._broken(f"{what} while it runs at {sorted(real)}")
        if isinstance(order, Discard) and here in real and not excused:
            self._broken(f"{what} although it runs there")
        if isinstance(order, Clean) and (here in known or len(known) != 1):
            self._broken(f"{what} while its set is {sorted(known)}")

    # ---- fencing

    def fence_sent(self, effect: Fence, draft: Draft) -> None:
        """Only to recover somebody, and only on the word of somebody, unless a person asked."""
        world = self._world
        self.fenced[effect.host] += 1
        record = world.store.hosts[effect.host]
        assert record.fencing is not None
        if record.boot_id != effect.boot_id:
            self._broken(f"a fence of {effect.host} for boot {effect.boot_id}, on record is {record.boot_id}")
        if record.fencing.operator or record.fencing.test:
            return
        saved = [
            guest.name
            for guest in world.store.guests.values()
            if any(place.host == effect.host for place in guest.may_run_on)
            and guest.desired is Desired.RUNNING
            and guest.phase is not GuestPhase.ERROR
            and guest.definition
            and not guest.blockers
        ]
        if not saved:
            self._broken(f"{effect.host} is fenced, and nobody is saved by it")
        if not any(
            world.hosts[n].up and world.hosts[n].agent.link is not None
            for n in world.hosts
            if n != effect.host
        ):
            self._broken(f"{effect.host} is fenced without a living witness")
        looks = draft.view(effect.host).looks.values()
        if any(look.answered for look in looks):
            self._broken(f"{effect.host} is fenced although somebody hears it")
        silent = [look.ended for look in looks if look.witness and look.answered is False]
        if not silent or draft.now - max(silent) > EVIDENCE_S:
            self._broken(f"{effect.host} is fenced on no fresh evidence: {sorted(silent)} at {draft.now:.2f}")

    # ---- the end

    def unfinished(self) -> list[str]:
        """What should not be so, once every fault is healed and time has passed; empty = all is well."""
        world, store = self._world, self._world.store
        wrong = []
        for guest in sorted(store.guests.values(), key=lambda g: g.id):
            real = self.where(guest.id)
            if guest.desired is Desired.RUNNING and (len(real) != 1 or guest.phase is not GuestPhase.RUNNING):
                wrong.append(f"{guest.name} is wanted and is {guest.phase} ({guest.reason}); runs on {real}")
            if guest.desired is Desired.STOPPED and guest.phase is not GuestPhase.STOPPED:
                wrong.append(
                    f"{guest.name} is not wanted and is {guest.phase} ({guest.reason}); runs on {real}"
                )
            if guest.desired is Desired.STOPPED and real:
                wrong.append(f"{guest.name} is not wanted and runs on {real}")
            if guest.move is not None:
                wrong.append(f"{guest.name} is still on its way: {guest.move.stage} ({guest.reason})")
        for host in world.hosts.values():
            left = sorted(g for g, domain in host.domains.items() if domain.active and not domain.runs)
            if left:
                wrong.append(f"copies that do not run are left on {host.name}: {left}")
        for operation in store.operations.values():
            if operation.state is OperationState.OPEN:
                wrong.append(f"operation {operation.id} ({operation.kind} {operation.subject}) is open")
        for record in sorted(store.hosts.values(), key=lambda h: h.name):
            aside = record.drain is not None and record.phase is HostPhase.MAINTENANCE  # as somebody wants it
            if world.hosts[record.name].up and record.phase is not HostPhase.ONLINE and not aside:
                wrong.append(f"host {record.name} is {record.phase}: {record.reason}")
        return wrong
