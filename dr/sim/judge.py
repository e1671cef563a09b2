"""What a coordinator decides, judged by what is really so: before each commit, and when a start or a fence is sent.

Here: proofs, sets, phases, starts, fences, each against the physical truth or against the records before the decision.
Not here: what agents and devices do with it (`dr.sim.truth`). Nothing here shares code with the decisions in `dr.core`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from dr.core import warden
from dr.core.state import Draft
from dr.core.volatile import TICKETED
from dr.model.base import GuestId, HostName
from dr.model.commands import (
    Body,
    Clean,
    Discard,
    Migrate,
    Receive,
    Resume,
    SendDisks,
    Start,
    Stop,
    TakeDisks,
    Ticket,
)
from dr.model.decision import Changes
from dr.model.effects import Fence, SendStart
from dr.model.evidence import Proof, ProofKind
from dr.model.operations import OperationState
from dr.model.playbooks import Run
from dr.model.records import Condition, Desired, GuestPhase, GuestRecord, HostPhase, HostRecord, MoveStage
from dr.sim.network import COORDINATOR
from dr.sim.strict import broken_rules

if TYPE_CHECKING:
    from dr.sim.coordinator import SimCoordinator
    from dr.sim.host import SimHost
    from dr.sim.truth import Truth
    from dr.sim.world import World

COMMANDS_PER_S_MAX = 60  # to one host: more is a loop that feeds itself
EVIDENCE_S = 12.0  # a fence rests on a look no older than this
LOOK_LATE_S = 1.0  # a witness whose answer is on its way for longer counts as having given none
TOLD_S = 6.0  # by then an agent has told that a guest ended
BACK_S = 10.0  # a host whose power is back for less than this may still be read as off
UNKNOWN_BOOT = "unknown"


class Judge:
    """Watches what coordinators decide."""

    def __init__(self, world: World, truth: Truth) -> None:
        self._world = world
        self._truth = truth
        self._commands: dict[HostName, deque[float]] = {}

    def _broken(self, text: str) -> None:
        self._truth.broken(text)

    # ---- a decision

    def decided(self, coordinator: SimCoordinator, draft: Draft, changes: Changes) -> None:
        """Before it is written: `coordinator.store` still holds what was so before."""
        store = coordinator.store
        proofs = [(note.guest, note.proof) for note in changes.notes if note.proof is not None]
        for guest_id, proof in proofs:
            self._proof_is_true(draft, guest_id, proof)
        for guest_id, after in changes.guests.items():
            before = store.guests.get(guest_id)
            if before is not None and after is not None:
                self._sets_shrink_by_proof(before, after, [p for g, p in proofs if g == guest_id])
                self._disks_are_there(before, after)
                if (
                    before.phase is GuestPhase.PROTECTING
                    and after.phase is GuestPhase.RUNNING
                    and not self._truth.doubtful
                ):
                    self._guarded_everywhere(draft, after)
        for name, host in changes.hosts.items():
            was = store.hosts.get(name)
            if host.boot_id and (was is None or not was.boot_id):
                self._stands_everywhere(draft, host)
            if was is not None and was.phase is not host.phase:
                self._phase_is_right(coordinator, draft, was, host)
        for name in changes.hosts_removed:  # rule 6
            kept = [g.name for g in draft.guests() if any(p.host == name for p in g.may_run_on)]
            if kept:
                self._broken(f"{name} is removed, and {', '.join(kept)} may run on it")
        for operation in changes.operations.values():
            if operation.state is not OperationState.OPEN and operation.run is not None:
                self._nothing_left(operation.id, operation.run)
        if changes.cluster is not None and changes.cluster.epoch < store.cluster.epoch:
            self._broken(f"epoch {changes.cluster.epoch} follows {store.cluster.epoch}")

    def _nothing_left(self, drill: str, run: Run) -> None:
        """A drill that is over has left nothing where it was said so, and was asked to end wherever it was."""
        for clone in run.clones:
            if clone.made is not None and clone.host not in run.ends:
                self._broken(
                    f"{drill} is over, and {clone.host}, where it has a clone, was not asked to end it"
                )
        for name, ended in run.ends.items():
            real = self._world.hosts.get(name)
            if ended.end is not None and real is not None and drill in real.drills_left:
                self._broken(f"{drill} is over on {name}, and something of it is left there")

    def _sets_shrink_by_proof(self, before: GuestRecord, after: GuestRecord, proofs: list[Proof]) -> None:
        if after.generation < before.generation:
            self._broken(f"{after.name}: generation {after.generation} follows {before.generation}")
        for place in before.may_run_on:
            at = (place.host, place.boot_id)
            still = [p for p in after.may_run_on if (p.host, p.boot_id) == at]
            if still:
                if still[0].generation < place.generation:
                    self._broken(f"{after.name}: its place at {place.host} goes back in generation")
                continue
            proved = [p for p in proofs if (p.host, p.boot_id) == at]
            if not proved:
                self._broken(f"{after.name}: {place.host} left its set without a proof")
            unsealed = all(p.kind is ProofKind.SELF and (p.sealed or 0) < place.generation for p in proved)
            if unsealed:
                self._broken(f"{after.name}: {place.host} left its set by a testimony that is not sealed")

    def _proof_is_true(self, draft: Draft, guest: GuestId, proof: Proof) -> None:
        host = self._world.hosts.get(proof.host)
        if host is None or proof.boot_id == UNKNOWN_BOOT:
            return
        if proof.kind is ProofKind.SELF:
            if (proof.host, proof.boot_id) in self._truth.active.get(guest, ()):
                self._broken(f"{guest} was proven not to run on {proof.host}, where it runs")
            if guest in host.permits:
                self._broken(
                    f"{guest} was proven not to run on {proof.host}, where a permit to start it lies"
                )
        elif not _lives(host, proof.boot_id):
            if proof.kind is ProofKind.OPERATOR and guest not in host.guarded:
                self._truth.vouched.add((guest, host.name))
        elif proof.kind is ProofKind.REBOOT or not self._admitted(draft, host):
            self._broken(f"{proof.host} ({proof.boot_id}) was proven dead by {proof.kind}, and lives")

    def _admitted(self, draft: Draft, host: SimHost) -> bool:
        """A device of the right identity lied, and nobody could hear the host: DESIGN.md has no answer to that.

        The lie is the last reading of it: an earlier one is no evidence any more. Could hear: at this moment, or, where
        it stood still when it was looked for and goes on since, then.
        """
        world = self._world
        mine = [device for device in world.fencer.devices.values() if device.host == host.name]
        if not any(device.misled for device in mine):
            return False
        addresses = host.facts().addresses.values()
        heard = any(
            world.network.hears(witness, host, address)
            for witness in (COORDINATOR, *world.hosts)
            if witness == COORDINATOR or (witness != host.name and world.hosts[witness].agent.link)
            for address in addresses
        )
        if heard and not self._stood_still(draft, host):
            return False
        for guest, domain in host.domains.items():
            if domain.active:
                self._truth.excuse_until_cold(guest)
        return True

    def _stood_still(self, draft: Draft, host: SimHost) -> bool:
        """Whether it was frozen when the witnesses' last look at it ended."""
        looks = draft.view(host.name).looks.values()
        ago = [draft.now - look.ended for look in looks if look.answered is False]
        ended = self._world.clock.now - min(ago, default=1e9)
        return host.froze_at < ended < host.thawed_at + LOOK_LATE_S

    def _guarded_everywhere(self, draft: Draft, guest: GuestRecord) -> None:
        """Rule 4: protection begins when every host that is not proven dead guards it."""
        for host in draft.hosts():
            real = self._world.hosts.get(host.name)
            if real is None or not host.boot_id or not real.up or host.phase is HostPhase.FENCED:
                continue
            if real.boot_id == host.boot_id and guest.id not in real.guarded:
                self._broken(f"{guest.name} counts as protected, and {host.name} does not guard it")

    def _stands_everywhere(self, draft: Draft, host: HostRecord) -> None:
        """Rule 4: a host that joins may run anything until it has testified."""
        for guest in draft.guests():
            if all(place.host != host.name for place in guest.may_run_on):
                self._broken(f"{host.name} joins, and {guest.name} is taken not to run there")

    def _phase_is_right(
        self, coordinator: SimCoordinator, draft: Draft, was: HostRecord, host: HostRecord
    ) -> None:
        real = self._world.hosts[host.name]
        if host.phase is HostPhase.FENCED and _lives(real, host.boot_id) and not self._admitted(draft, real):
            self._broken(f"{host.name} ({host.boot_id}) counts as dead, and lives: {host.reason}")
        late = host.phase is HostPhase.SUSPECT and was.phase in (HostPhase.ONLINE, HostPhase.RETURNING)
        if late and self._world.clock.now < coordinator.blind_until - 1e-6:
            self._broken(f"{host.name} is called late by a coordinator that could not have heard it")
        if host.phase is HostPhase.ONLINE and was.phase in (HostPhase.JOINING, HostPhase.RETURNING):
            lists = (draft.cluster.protected_version, coordinator.store.cluster.protected_version)
            if host.protected_version not in lists:  # the same decision may change the list once more
                self._broken(f"{host.name} is online and has not acknowledged the protected list")
            for guest in draft.guests():
                here = any(p.host == host.name and p.boot_id == host.boot_id for p in guest.may_run_on)
                runs = guest.id in real.domains and real.domains[guest.id].active
                stood = self._world.clock.now - real.agent.thawed_at < TOLD_S
                runs = runs or self._truth.ended_since(
                    guest.id, host.name, math.inf if stood else TOLD_S
                )  # perhaps not told yet
                invited = guest.phase is GuestPhase.STARTING or self._moves_in(coordinator, guest, host)
                if here and not runs and not invited and real.up:
                    self._broken(f"{host.name} is online and has not testified for {guest.name}")

    def _moves_in(self, coordinator: SimCoordinator, guest: GuestRecord, host: HostRecord) -> bool:
        """Whether the same decision begins to move it there: nothing of it can be there yet.

        Or to copy its disks, from there too: that begins when its set is empty, so its host has testified just now.
        """
        before, move = coordinator.store.guests.get(guest.id, guest), guest.move
        fresh = all(place.host != host.name for place in before.may_run_on)
        if move is not None and move.stage is MoveStage.SENDING:
            fresh = fresh or before.move is None or before.move.job != move.job
        return fresh and guest.phase is GuestPhase.MIGRATING

    # ---- starts and other tickets

    def start_sent(self, coordinator: SimCoordinator, effect: SendStart, draft: Draft) -> None:
        """A start leaves for its host, being durable in the store."""
        ticket, store = effect.ticket, coordinator.store
        record, host = store.guests[ticket.guest], store.hosts[ticket.host]
        what = f"a start of {ticket.guest} on {ticket.host}"
        others = [p for p in record.may_run_on if (p.host, p.boot_id) != (ticket.host, ticket.boot_id)]
        if others:
            self._broken(f"{what} while {others} may run it")
        if not any(place.generation == ticket.generation for place in record.may_run_on):
            self._broken(f"{what} whose place is not durable")
        real = self._truth.active.get(ticket.guest, set()) - {(ticket.host, ticket.boot_id)}
        if real and ticket.guest not in self._truth.excused:
            self._broken(f"{what} while it runs at {sorted(real)}")
        if store.cluster.restored:
            self._broken(f"{what} by an older copy of the store")
        if host.phase is not HostPhase.ONLINE or Condition.QUARANTINED in host.conditions:
            self._broken(f"{what}, which is {host.phase} and {sorted(host.conditions)}")
        if not host.facts.hook.proven or host.protected_version != store.cluster.protected_version:
            self._broken(f"{what}, which is not known to guard it")
        asked = any(
            op.state is OperationState.OPEN
            and op.kind in ("guest-start", "guest-relocate")
            and ticket.guest in op.guests
            for op in store.operations.values()
        )
        if store.cluster.pause is not None and not asked:
            self._broken(f"{what} while automation is paused")
        self._enough_follow(coordinator, what)
        self._rules_hold(coordinator, ticket, what, draft)
        self._ticket_sent(coordinator, ticket, draft)

    def _enough_follow(self, coordinator: SimCoordinator, what: str) -> None:
        """More than half of the hosts follow this leader, or were proven dead since it began."""
        cluster = coordinator.store.cluster
        members = [h for h in coordinator.store.hosts.values() if h.phase is not HostPhase.JOINING]
        mine = (cluster.epoch, cluster.leader_id)
        known = [
            h.name
            for h in members
            if self._truth.led.get(h.name) == mine
            or (
                (
                    h.phase is HostPhase.FENCED
                    or (h.phase is HostPhase.MAINTENANCE and h.boot_id == h.dead_boot)
                )
                and h.dead_at >= coordinator.state.started_at
            )
        ]
        if len(known) < len(members) and 2 * len(known) <= len(members):
            self._broken(f"{what}, and only {known} of {len(members)} hosts follow this leader")

    def _rules_hold(self, coordinator: SimCoordinator, ticket: Ticket, what: str, draft: Draft) -> None:
        """Strict rules, by the records as they are with this decision."""
        why = broken_rules(draft.config.rules, coordinator.store.guests, ticket.guest, ticket.host)
        if why:
            self._broken(f"{what}: {'; '.join(why)}")

    def _ticket_sent(self, coordinator: SimCoordinator, ticket: Ticket, draft: Draft) -> None:
        cluster = coordinator.store.cluster
        if self._truth.led.get(ticket.host) != (cluster.epoch, cluster.leader_id):
            link = coordinator.links.get(ticket.session)
            if link is not None and link.agent_open:  # else it has gone over to another leader meanwhile
                self._broken(f"{ticket.id} for {ticket.host}, which has not adopted epoch {cluster.epoch}")
        under_way = [
            f"{p.kind} on {p.host}"
            for _, p in draft.pendings()
            if p.guest == ticket.guest and p.kind in TICKETED
        ]
        if len({"copy" if p.split()[0] in ("send", "take") else p for p in under_way}) > 1:
            self._broken(f"several tickets of {ticket.guest} are under way: {', '.join(under_way)}")

    def command_sent(self, coordinator: SimCoordinator, host: HostName, body: Body, draft: Draft) -> None:
        """Any command: tickets are judged, and a loop is noticed."""
        if isinstance(body, Stop | Clean | Receive | Migrate | Resume | Discard | SendDisks | TakeDisks):
            self._ticket_sent(coordinator, body.ticket, draft)
        if isinstance(body, SendDisks | TakeDisks):
            self._copy_sent(coordinator, body)
        if isinstance(body, Receive | TakeDisks):
            what = f"a move of {body.ticket.guest} to {host}"
            self._rules_hold(coordinator, body.ticket, what, draft)
        if isinstance(body, Migrate | Resume | Discard | Clean):
            self._move_sent(coordinator, body)
        assert not isinstance(body, Start) or body.definition.xml
        now = self._world.clock.now
        recent = self._commands.setdefault(host, deque())
        recent.append(now)
        while recent and recent[0] < now - 1.0:
            recent.popleft()
        if len(recent) > COMMANDS_PER_S_MAX + 4 * len(self._world.definitions):
            self._broken(
                f"{len(recent)} commands to {host} within a second, the last a {type(body).__name__}"
            )

    def _copy_sent(self, coordinator: SimCoordinator, order: SendDisks | TakeDisks) -> None:
        """Disks are copied only while their guest runs nowhere, and nobody may start it."""
        ticket = order.ticket
        record = coordinator.store.guests[ticket.guest]
        known = {place.host for place in record.may_run_on}
        ends = {ticket.host, order.to if isinstance(order, SendDisks) else order.source}
        what = f"a {ticket.kind} of {ticket.guest} on {ticket.host}"
        if known != ends:
            self._broken(f"{what} while its set is {sorted(known)}")
        real = self._truth.active.get(ticket.guest, set())
        if real and ticket.guest not in self._truth.excused and not self._truth.doubtful:
            self._broken(f"{what} while it runs at {sorted(real)}")

    def _disks_are_there(self, before: GuestRecord, after: GuestRecord) -> None:
        """Disks that were copied count as the newest once they are: whole, and no older than any."""
        move = after.move
        if move is None or not move.copied or after.disks_on == before.disks_on:
            return
        file = self._world.hosts[after.disks_on].images.files.get(after.id)
        newest = self._truth.disk[after.id]
        if file is None or file.version != newest:
            version = file.version if file is not None else "none"
            self._broken(
                f"{after.name}: its newest disks are said to be on {after.disks_on}, where version {version}"
                f" is, and the newest is {newest}"
            )

    def _move_sent(self, coordinator: SimCoordinator, order: Migrate | Resume | Discard | Clean) -> None:
        """Nothing is resumed while another place may run it, nothing is destroyed or undefined before proof."""
        ticket = order.ticket
        record = coordinator.store.guests[ticket.guest]
        known = {(place.host, place.boot_id) for place in record.may_run_on}
        here, real = (ticket.host, ticket.boot_id), self._truth.active.get(ticket.guest, set())
        excused = ticket.guest in self._truth.excused or self._truth.doubtful
        what = f"a {ticket.kind} of {ticket.guest} on {ticket.host}"
        if isinstance(order, Migrate) and (here not in known or len(known) != 2):
            self._broken(f"{what} while its set is {sorted(known)}")
        if isinstance(order, Resume) and known != {here}:
            self._broken(f"{what} while its set is {sorted(known)}")
        if isinstance(order, Resume) and real - {here} and not excused:
            self._broken(f"{what} while it runs at {sorted(real)}")
        host = self._world.hosts[ticket.host]
        copy = warden.copy_here(host.agent.memory, ticket.guest, ticket.boot_id)  # made to run by hand
        if isinstance(order, Discard) and here in real and not copy and not excused:
            self._broken(f"{what} although it runs there")
        if isinstance(order, Clean) and (here in known or len(known) != 1):
            self._broken(f"{what} while its set is {sorted(known)}")

    # ---- fencing

    def fence_sent(self, coordinator: SimCoordinator, effect: Fence, draft: Draft) -> None:
        """Only to recover somebody, and only on the word of somebody, unless a person asked."""
        world, store = self._world, coordinator.store
        record = store.hosts[effect.host]
        assert record.fencing is not None
        if record.boot_id != effect.boot_id:
            self._broken(f"a fence of {effect.host} for boot {effect.boot_id}, on record is {record.boot_id}")
        if effect.host == world.home:
            self._broken(f"the coordinator fences {effect.host}, on which it runs")
        if record.since < coordinator.state.started_at:
            self._broken(f"{effect.host} is fenced on the word of an earlier leader")
        if record.fencing.operator or record.fencing.test:
            return
        if store.cluster.pause is not None or store.cluster.restored:
            self._broken(f"{effect.host} is fenced while automation is paused")
        self._somebody_is_saved(coordinator, effect.host)
        self._no_blackout(draft, effect.host)
        for device in effect.devices.devices:
            if (effect.host, device.name) not in store.identities:
                self._broken(f"{effect.host} is fenced through {device.name}, which nobody has tested")
        self._somebody_looked(draft, effect.host)

    def _somebody_is_saved(self, coordinator: SimCoordinator, name: HostName) -> None:
        store = coordinator.store
        if not store.hosts[name].facts.hibernation_masked:
            self._broken(f"{name} is fenced, and its guests could be thawed again")
        saved = [
            guest.name
            for guest in store.guests.values()
            if any(place.host == name for place in guest.may_run_on)
            and guest.desired is Desired.RUNNING
            and guest.phase is not GuestPhase.ERROR
            and guest.definition
            and not guest.tied
            and not (guest.needs.local and guest.disks_on == name)
            and not any(
                Condition.AGENT_LOST in store.hosts[place.host].conditions for place in guest.may_run_on
            )  # it may run there too, and nobody can say
        ]
        elsewhere = [
            host.name
            for host in store.hosts.values()
            if host.name != name and host.phase is HostPhase.ONLINE and host.facts.hook.proven
        ]
        if not saved or not elsewhere:
            self._broken(f"{name} is fenced, and nobody is saved by it")

    def _no_blackout(self, draft: Draft, name: HostName) -> None:
        """The brake: not while more than half of the hosts look dead that have power and did not announce their end."""
        apart = (HostPhase.JOINING, HostPhase.MAINTENANCE)
        members = [host for host in draft.hosts() if host.phase not in apart]
        window_s = draft.config.limits.brake_window_s
        down = (HostPhase.SUSPECT, HostPhase.FENCING)
        troubled = [
            host.name
            for host in members
            if any(draft.now - at < window_s for at in host.fenced_at)
            or (host.phase in down and not host.leaving and self._surely_up(host.name))
        ]
        if 2 * len(troubled) > len(members):
            self._broken(f"{name} is fenced although {troubled} of {len(members)} hosts are in trouble")

    def _surely_up(self, name: HostName) -> bool:
        host = self._world.hosts[name]
        devices = [d for d in self._world.fencer.devices.values() if d.host == name]
        honest = not any(d.lies for d in devices)
        return honest and host.powered and host.up and self._world.clock.now - host.up_since > BACK_S

    def _somebody_looked(self, draft: Draft, name: HostName) -> None:
        now = self._world.clock.now
        lived = [
            h for h in self._world.hosts.values() if (h.up and h.agent.link) or now - h.died_at < EVIDENCE_S
        ]
        if all(host.name == name for host in lived):
            self._broken(f"{name} is fenced without a living witness")
        looks = draft.view(name).looks.values()
        if any(look.answered for look in looks):
            self._broken(f"{name} is fenced although somebody hears it")
        silent = [look.ended for look in looks if look.witness and look.answered is False]
        if not silent or draft.now - max(silent) > EVIDENCE_S:
            self._broken(f"{name} is fenced on no fresh evidence: {sorted(silent)} at {draft.now:.2f}")


def _lives(host: SimHost, boot_id: str) -> bool:
    """Whether that boot goes on, or will: a hibernated one is thawed."""
    return host.up and host.boot_id == boot_id
