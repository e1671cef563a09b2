"""What one ticket does on a simulated host, in the order of `dr.agent.tickets`, where the reasons are.

Here: the effect of each kind of ticket, and the look that a testimony rests on. Not here: admission and turns
(`dr.sim.lane`), libvirt (`dr.sim.host`, `dr.sim.migration`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dr.core import warden
from dr.model.base import GuestId, changed
from dr.model.commands import (
    Answer,
    Clean,
    Discard,
    Migrate,
    Order,
    Outcome,
    Receive,
    Resume,
    SendDisks,
    Start,
    Stop,
    TakeDisks,
    Testimony,
    Ticket,
)
from dr.model.facts import Part, Sighting
from dr.sim.domain import Ended
from dr.sim.link import Link

if TYPE_CHECKING:
    from dr.sim.agent import SimAgent

Done = Callable[[Answer], None]
PATIENCE_S = 15.0  # for one call to libvirt
SIGHT_S = 5.0  # for one look


class SimTickets:
    """Runs one ticket to its answer."""

    def __init__(self, agent: SimAgent) -> None:
        self._agent = agent

    def run(self, link: Link, order: Order, ended: Done) -> None:
        match order:
            case Start():
                self._start(link, order, ended)
            case Stop():
                self._stop(link, order, ended)
            case Clean():
                self._clean(link, order, ended)
            case Receive():
                self._receive(link, order, ended)
            case Migrate():
                self._migrate(link, order, ended)
            case Resume():
                self._resume(link, order, ended)
            case Discard():
                self._discard(link, order, ended)
            case SendDisks():
                self._agent.copies.send(link, order, ended)
            case TakeDisks():
                self._agent.copies.take(link, order, ended)

    def sight(self, guest: GuestId, sealed: int) -> Testimony:
        """Look only: does it run here, as what, and if not, did a migration take it away?"""
        host, memory = self._agent.host, self._agent.memory
        sighting, reason = host.sight(guest)
        domain = host.domains.get(guest)
        if sighting is Sighting.ABSENT:
            migrated = host.libvirtd == "up" and domain is not None and domain.reason == "migrated"
            left = warden.left_by(memory, guest, migrated=migrated)
            ran = memory.ran.get(guest, 0)
            return Testimony(
                guest=guest, sighting=sighting, sealed=sealed, reason=reason, left_by=left, ran=ran
            )
        if domain is None or sighting is Sighting.UNKNOWN:
            return Testimony(guest=guest, sighting=Sighting.UNKNOWN, reason=reason)
        if host.libvirtd != "up" and guest in memory.left:
            reason = "its QEMU runs, and without libvirt nobody can say whether its migration goes on"
            return Testimony(guest=guest, sighting=Sighting.UNKNOWN, reason=reason)
        part = self._agent.part(guest, domain)
        if part is Part.WAITING and domain.runs:
            self._agent.memory = warden.seen_running(memory, guest, host.boot_id)
        ran = self._agent.memory.ran.get(guest, 0)
        return Testimony(guest=guest, sighting=sighting, reason=reason, part=part, ran=ran)

    def _start(self, link: Link, order: Start, ended: Done) -> None:
        host, ticket = self._agent.host, order.ticket
        if not host.hook.proven:
            ended(Answer(outcome=Outcome.REFUSED, reason="the permit hook is not proven here"))
            return

        def looked(seen: Testimony) -> None:
            if seen.sighting is Sighting.PRESENT:
                outcome = Outcome.DONE if host.libvirtd == "up" else Outcome.UNKNOWN
                ended(Answer(outcome=outcome, reason="already here"))
            elif seen.sighting is not Sighting.ABSENT:
                ended(Answer(outcome=Outcome.UNKNOWN, reason=seen.reason, testimony=(seen,)))
            elif reason := self._agent.valid(link, order):
                ended(Answer(outcome=Outcome.REFUSED, reason=reason))
            else:
                host.world.truth.obeyed(host, ticket)
                # A process may be stopped between the check and the permit; `dr.agent.tickets` says why that is safe.
                self._agent.later(host.world.rng.uniform(0.0, 0.01), act)

        def over(failed: str, unseen: str) -> None:
            host.permits.pop(ticket.guest, None)
            if not failed and not unseen:
                ended(Answer(outcome=Outcome.DONE))
                return
            after = self.look(ticket.guest, ticket.generation)
            if failed and after.sighting is Sighting.ABSENT:
                ended(Answer(outcome=Outcome.FAILED, reason=failed, testimony=(after,)))
            else:
                ended(Answer(outcome=Outcome.UNKNOWN, reason=failed or unseen))

        def act() -> None:
            host.permits[ticket.guest] = "start"
            host.world.truth.ticket_run(host, ticket)
            self.call(over, lambda once: host.start_domain(order.definition, ticket.id, once))

        self._look_at(ticket, looked)

    def _look_at(self, ticket: Ticket, seen: Callable[[Testimony], None]) -> None:
        """Revoke, then look, which takes libvirt its time."""
        host = self._agent.host
        host.permits.pop(ticket.guest, None)
        wait_s = host.world.rng.uniform(0.002, 0.02) + host.libvirt_slow_s
        if wait_s > SIGHT_S:
            reason = f"no answer within {SIGHT_S:g} s"
            unknown = Testimony(guest=ticket.guest, sighting=Sighting.UNKNOWN, reason=reason)
            self._agent.later(SIGHT_S, lambda: seen(unknown))
        else:
            self._agent.later(wait_s, lambda: seen(self.look(ticket.guest, ticket.generation)))

    def call(
        self,
        over: Ended,
        begin: Callable[[Ended], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        """A call to libvirt with patience: its end counts once, and only in this process."""
        incarnation, open_ = self._agent.incarnation, [True]

        def once(failed: str, unseen: str) -> None:
            if open_ and self._agent.incarnation == incarnation:
                open_.clear()
                self._agent.run(lambda: over(failed, unseen))

        begin(once)
        self._agent.later(patience_s, lambda: once("", "libvirt did not answer in time"))

    def look(self, guest: GuestId, sealed: int) -> Testimony:
        """Within the guest's own turn: revoke, then look."""
        if guest not in self._agent.host.guarded:
            return Testimony(guest=guest, sighting=Sighting.UNKNOWN, reason="the hook does not know it")
        self._agent.host.permits.pop(guest, None)
        return self.sight(guest, sealed)

    def _stop(self, link: Link, order: Stop, ended: Done) -> None:
        ticket = order.ticket
        if reason := self._agent.valid(link, order):
            ended(Answer(outcome=Outcome.REFUSED, reason=reason))
            return
        host = self._agent.host
        host.world.truth.obeyed(host, ticket)
        host.world.truth.ticket_run(host, ticket)

        def over(failed: str, unseen: str) -> None:
            seen = self.look(ticket.guest, ticket.generation)
            if seen.sighting is Sighting.ABSENT:
                domain = host.domains.get(ticket.guest) if host.libvirtd == "up" else None
                definition = domain.definition if domain is not None else None
                ended(Answer(outcome=Outcome.DONE, testimony=(seen,), definition=definition))
            elif failed and seen.sighting is Sighting.PRESENT:
                ended(Answer(outcome=Outcome.FAILED, reason=failed, testimony=(seen,)))
            else:
                ended(Answer(outcome=Outcome.UNKNOWN, reason=failed or unseen, testimony=(seen,)))

        self.call(over, lambda once: host.stop_domain(ticket.guest, order.mode, order.timeout_s, once))

    def _clean(self, link: Link, order: Clean, ended: Done) -> None:
        ticket = order.ticket

        def looked(seen: Testimony) -> None:
            if reason := self._agent.valid(link, order):
                ended(Answer(outcome=Outcome.REFUSED, reason=reason))
                return
            host = self._agent.host
            host.world.truth.obeyed(host, ticket)
            host.world.truth.ticket_run(host, ticket)
            if seen.sighting is Sighting.PRESENT:
                self.call(undefine, lambda once: host.stop_domain(ticket.guest, "destroy", 5.0, once))
            else:
                self._agent.later(0.05, undefine)

        def undefine(failed: str = "", unseen: str = "") -> None:
            now = self.look(ticket.guest, ticket.generation)
            if now.sighting is not Sighting.ABSENT:
                reason = failed or unseen or now.reason
                ended(Answer(outcome=Outcome.UNKNOWN, reason=reason, testimony=(now,)))
            elif reason := self._agent.valid(link, order):
                ended(Answer(outcome=Outcome.REFUSED, reason=reason))
            elif self._agent.host.libvirtd != "up":
                ended(Answer(outcome=Outcome.UNKNOWN, reason="libvirt is gone"))
            else:
                agent, guest = self._agent, ticket.guest
                agent.host.images.remove(guest, agent.memory.images.get(guest, ()))
                agent.memory = warden.with_images(agent.memory, guest, ())
                old = agent.memory.sent.get(guest, ()) if now.left_by else ()
                agent.host.undefine(guest, old=old, remove_disks=order.remove_disks)
                agent.memory = warden.with_sent(agent.memory, guest, ())
                ended(Answer(outcome=Outcome.DONE, testimony=(now,)))

        self._look_at(ticket, looked)

    # ---- migration

    def _receive(self, link: Link, order: Receive, ended: Done) -> None:
        host, ticket = self._agent.host, order.ticket
        if not host.hook.proven:
            ended(Answer(outcome=Outcome.REFUSED, reason="the permit hook is not proven here"))
            return
        seen = self.look(ticket.guest, ticket.generation)
        if seen.sighting is not Sighting.ABSENT:
            ended(Answer(outcome=Outcome.FAILED, reason=seen.reason, testimony=(seen,)))
            return

        def act() -> None:
            if order.disks and not self._make_image(ticket.guest):
                ended(
                    Answer(outcome=Outcome.FAILED, reason="there is such a file already", testimony=(seen,))
                )
                return
            if reason := self._agent.valid(link, order):
                ended(Answer(outcome=Outcome.REFUSED, reason=reason))
                return
            host.permits[ticket.guest] = "receive"
            host.world.truth.obeyed(host, ticket)
            host.world.truth.ticket_run(host, ticket)
            ended(Answer(outcome=Outcome.DONE))

        self._agent.later(host.world.rng.uniform(0.0, 0.01), act)

    def _make_image(self, guest: GuestId) -> bool:
        """Which file it is is durable before it has its name."""
        agent, images = self._agent, self._agent.host.images
        images.remove(guest, agent.memory.images.get(guest, ()))
        made = images.prepare(guest)
        if made is None:
            return False
        agent.memory = warden.with_images(agent.memory, guest, (made,))
        agent.save()
        return images.place(guest, made)

    def _migrate(self, link: Link, order: Migrate, ended: Done) -> None:
        host, ticket = self._agent.host, order.ticket
        if reason := self._agent.valid(link, order):
            ended(Answer(outcome=Outcome.REFUSED, reason=reason))
            return
        host.world.truth.obeyed(host, ticket)
        host.world.truth.ticket_run(host, ticket)
        domain = host.domains.get(ticket.guest)
        if order.suspended and domain is not None and domain.runs:
            seen = self.look(ticket.guest, ticket.generation)
            ended(Answer(outcome=Outcome.FAILED, reason="it was resumed meanwhile", testimony=(seen,)))
            return

        if order.disks:
            sent = host.images.identify(ticket.guest)
            self._agent.memory = warden.with_sent(self._agent.memory, ticket.guest, sent)
            self._agent.save()

        def over(failed: str, unseen: str) -> None:
            seen = self.look(ticket.guest, ticket.generation)
            if seen.sighting is Sighting.ABSENT and not failed and not unseen:
                left = changed(seen, left_by=ticket.id)  # libvirt's own word to its caller
                ended(Answer(outcome=Outcome.DONE, testimony=(left,)))
                return
            outcome = Outcome.FAILED if failed and seen.sighting is not Sighting.UNKNOWN else Outcome.UNKNOWN
            ended(Answer(outcome=outcome, reason=failed or unseen, testimony=(seen,)))

        self.call(
            over,
            lambda once: host.migrate_domain(
                ticket.guest,
                order.to,
                once,
                auto_converge=order.sending.auto_converge,
                disks=bool(order.disks),
            ),
            order.timeout_s + PATIENCE_S,
        )

        def late() -> None:
            host.abort_job(ticket.guest)

        self._agent.later(order.timeout_s, late)

    def _resume(self, link: Link, order: Resume, ended: Done) -> None:
        host, ticket = self._agent.host, order.ticket
        seen = self.sight(ticket.guest, ticket.generation)
        if seen.sighting is Sighting.ABSENT or seen.part is Part.ARRIVING:
            ended(Answer(outcome=Outcome.FAILED, reason=seen.part or seen.reason, testimony=(seen,)))
            return
        if reason := self._agent.valid(link, order):
            ended(Answer(outcome=Outcome.REFUSED, reason=reason))
            return
        host.world.truth.obeyed(host, ticket)
        host.world.truth.ticket_run(host, ticket)

        def over(failed: str, unseen: str) -> None:
            domain = host.domains.get(ticket.guest)
            if domain is not None and domain.runs:
                ended(Answer(outcome=Outcome.DONE))
                return
            after = self.look(ticket.guest, ticket.generation)
            ended(Answer(outcome=Outcome.UNKNOWN, reason=failed or unseen, testimony=(after,)))

        domain = host.domains.get(ticket.guest)
        if order.suspended and domain is not None:
            ended(Answer(outcome=Outcome.DONE))
            return
        self.call(over, lambda once: host.resume_domain(ticket.guest, once))

    def _discard(self, link: Link, order: Discard, ended: Done) -> None:
        agent, ticket = self._agent, order.ticket
        host = agent.host
        seen = self.look(ticket.guest, ticket.generation)
        if reason := agent.valid(link, order):
            ended(Answer(outcome=Outcome.REFUSED, reason=reason))
            return
        host.world.truth.obeyed(host, ticket)
        host.world.truth.ticket_run(host, ticket)
        domain = host.domains.get(ticket.guest)
        mine = warden.copy_here(agent.memory, ticket.guest, host.boot_id)
        if domain is not None and domain.runs and not mine:
            ended(
                Answer(outcome=Outcome.FAILED, reason="it runs, and is no copy that waits", testimony=(seen,))
            )
            return

        agent.save()  # whether it ran must not be lost with it

        def over(failed: str, unseen: str) -> None:
            now = self.look(ticket.guest, ticket.generation)
            if now.sighting is Sighting.ABSENT:
                if order.remove_images:
                    host.images.remove(ticket.guest, agent.memory.images.get(ticket.guest, ()))
                    agent.memory = warden.with_images(agent.memory, ticket.guest, ())
                agent.memory = warden.without_copy(agent.memory, ticket.guest, now.sealed)
                ended(Answer(outcome=Outcome.DONE, testimony=(now,)))
            else:
                ended(Answer(outcome=Outcome.UNKNOWN, reason=failed or unseen, testimony=(now,)))

        if seen.sighting is Sighting.ABSENT:
            over("", "")
        else:
            self.call(over, lambda once: host.stop_domain(ticket.guest, "destroy", 5.0, once))
