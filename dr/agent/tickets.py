"""What one ticket does on this host, once it was admitted and written down.

Here: the effect of START, DESTROY and UNDEFINE, in an order in which every interruption is safe.
Not here: admission, memory, turns of one guest (`dr.agent.executor`), the look (`dr.agent.looks`), tickets of a
migration (`dr.agent.moves`).

Why a start that was interrupted anywhere is safe. The order is: ticket begun and its generation sealed (durable),
permit, libvirt, permit revoked. Whoever says `absent` later does, in this order: seal, revoke, look. A start that is
still in libvirt's queue then meets the hook without a permit and is refused; one that has passed the hook is an active
domain already (libvirt gives it an id before it asks the hook), so the look sees it. There is no third case.

A thawed agent (stopped by SIGSTOP, or by a host that stood still) goes on where it was, at worst between `valid()` and
the permit, for a session that ended long ago. That is safe, because the ticket's place was put into `may_run_on` before
the ticket was sent, and nothing takes it out while this process exists: a power or reboot proof names this boot, which
ended; a `self` proof comes from this very process, which answers `unknown` while the ticket is under way; the same
testimony over SSH must hold the lock on the state directory, which a frozen process still holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dr.agent.hook import Hook
from dr.agent.journal import Journal
from dr.agent.looks import Ended, Looks, Patience, refused, unknown
from dr.core import warden
from dr.model.commands import Answer, Clean, Outcome, Start, Stop, Testimony, Ticket
from dr.model.facts import Definition, DomainState, Sighting
from dr.ports.hypervisor import Gate, Hypervisor, HypervisorError, HypervisorUnknown

log = logging.getLogger("dr.agent.tickets")

Order = Start | Stop | Clean


class Tickets:
    """Runs one ticket to its answer. Never raises for what the world does."""

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        gate: Gate,
        hook: Hook,
        journal: Journal,
        looks: Looks,
        patience: Patience,
    ) -> None:
        self._hypervisor = hypervisor
        self._gate = gate
        self._hook = hook
        self._journal = journal
        self._looks = looks
        self._patience = patience

    async def run(self, order: Order, valid: Callable[[], str]) -> Answer:
        """`valid` says why the ticket has lost its force (empty: it has not); asked right before the effect."""
        match order:
            case Start():
                return await self._start(order, valid)
            case Stop():
                return await self._stop(order, valid)
            case Clean():
                return await self._clean(order, valid)

    async def _start(self, order: Start, valid: Callable[[], str]) -> Answer:
        ticket = order.ticket
        hook = await self._hook.ensure()
        if not hook.proven:
            return refused(
                f"{ticket.name} is not started: the permit hook is not proven here ({hook.reason})"
            )
        seen = await self._looks.look(ticket.guest, ticket.generation)
        if seen.sighting is Sighting.PRESENT:
            return await self._already(ticket, seen)
        if seen.sighting is not Sighting.ABSENT:
            return unknown(f"{ticket.name} was not started: {seen.reason}", seen)
        if reason := valid() or self._hook.open_for(ticket.guest):
            return refused(reason)
        ended = await self._permitted(order)  # no await between here and the permit
        if ended.well:
            return Answer(outcome=Outcome.DONE)
        seen = await self._looks.look(ticket.guest, ticket.generation)
        if ended.failed and seen.sighting is Sighting.ABSENT:
            return Answer(outcome=Outcome.FAILED, reason=ended.failed, testimony=(seen,))
        # After a call whose end was not seen even `absent` is only a moment's truth: a testimony will tell.
        reason = f"{ended.failed or ended.unseen}; then: {seen.sighting} {seen.reason}".rstrip()
        return Answer(outcome=Outcome.UNKNOWN, reason=reason)

    async def _permitted(self, order: Start) -> Ended:
        """Start with a permit that exists only meanwhile."""
        ticket = order.ticket
        ended = Ended(unseen="interrupted")
        try:
            try:
                self._gate.permit(ticket.guest, ticket.kind, ticket.id)
            except OSError as error:
                ended = Ended(failed=f"no permit could be written for {ticket.name}: {error}")
            else:
                ended = await self._looks.call(
                    self._hypervisor.start(order.definition), self._patience.start_s
                )
        finally:
            try:
                self._hook.revoke(ticket.guest)
            except OSError as error:
                log.error("permit of %s not revoked: %s", ticket.guest, error)
                if ended.failed:  # it may let a later start through: not a clean failure
                    ended = Ended(unseen=f"{ended.failed}; and its permit could not be removed: {error}")
        return ended

    async def _already(self, ticket: Ticket, seen: Testimony) -> Answer:
        """Something of the guest is here. If it is a running domain, the ticket's wish is fulfilled."""
        try:
            async with asyncio.timeout(self._patience.sight_s):
                guests = await self._hypervisor.guests()
        except (HypervisorError, HypervisorUnknown, TimeoutError):
            guests = ()
        running = {DomainState.RUNNING, DomainState.BLOCKED}
        if any(guest.id == ticket.guest and guest.state in running for guest in guests):
            return Answer(outcome=Outcome.DONE, reason=f"{ticket.name} already runs here")
        return unknown(f"{ticket.name} was not started: something of it is here already; {seen.reason}", seen)

    async def _stop(self, order: Stop, valid: Callable[[], str]) -> Answer:
        ticket = order.ticket
        if reason := valid():
            return refused(reason)
        patience_s = order.timeout_s + self._patience.stop_s
        ended = await self._looks.call(
            self._hypervisor.stop(ticket.guest, order.mode, order.timeout_s), patience_s
        )
        seen = await self._looks.look(ticket.guest, ticket.generation)
        if seen.sighting is Sighting.ABSENT:  # whatever the call said: what counts is that it does not run
            definition = await self._as_it_ended(ticket)
            return Answer(outcome=Outcome.DONE, testimony=(seen,), definition=definition)
        if ended.failed and seen.sighting is Sighting.PRESENT:
            return Answer(outcome=Outcome.FAILED, reason=ended.failed, testimony=(seen,))
        reason = ended.failed or ended.unseen or "libvirt says that it stopped"
        return unknown(f"{reason}; then: {seen.sighting} {seen.reason}".rstrip(), seen)

    async def _as_it_ended(self, ticket: Ticket) -> Definition | None:
        """With its NVRAM, to which it may have written until now; None: it cannot be told just now."""
        try:
            async with asyncio.timeout(self._patience.sight_s):
                return await self._hypervisor.describe(ticket.guest)
        except (HypervisorError, HypervisorUnknown, TimeoutError) as error:
            log.warning("%s: how it is defined now could not be told: %s", ticket.name, error)
            return None

    async def _clean(self, order: Clean, valid: Callable[[], str]) -> Answer:
        """Stop what still runs, keep what there is, undefine. An active domain is never undefined."""
        ticket = order.ticket
        seen = await self._looks.look(ticket.guest, ticket.generation)
        if reason := valid():
            return refused(reason)
        if seen.sighting is Sighting.PRESENT:
            stopping = self._hypervisor.stop(ticket.guest, "destroy", self._patience.stop_s)
            ended = await self._looks.call(stopping, 2 * self._patience.stop_s)
            seen = await self._looks.look(ticket.guest, ticket.generation)
            if ended.failed and seen.sighting is Sighting.PRESENT:
                return Answer(outcome=Outcome.FAILED, reason=ended.failed, testimony=(seen,))
        if seen.sighting is not Sighting.ABSENT:
            return unknown(f"{ticket.name} was not cleaned up: {seen.sighting} {seen.reason}".rstrip(), seen)
        if reason := valid():
            return refused(reason)
        note = (
            f"cleaned up by dr: ticket {ticket.id}, generation {ticket.generation}, epoch {ticket.epoch}"
            f" of leader {ticket.leader_id}; the guest's place is another host"
        )
        ended = await self._looks.call(self._undefine(order, note), self._patience.clean_s)
        seen = await self._looks.look(ticket.guest, ticket.generation)
        if ended.failed and seen.sighting is Sighting.ABSENT:
            return Answer(outcome=Outcome.FAILED, reason=ended.failed, testimony=(seen,))
        if not ended.well or seen.sighting is not Sighting.ABSENT:
            reason = ended.failed or ended.unseen or "libvirt says that it was undefined"
            return unknown(f"{reason}; then: {seen.sighting} {seen.reason}".rstrip(), seen)
        return Answer(outcome=Outcome.DONE, reason=ended.said, testimony=(seen,))

    async def _undefine(self, order: Clean, note: str) -> str:
        """What became of its local disks here. Images that were made for its arrival, and never ran, are removed."""
        guest, memory = order.ticket.guest, self._journal.memory
        await self._hypervisor.remove_images(guest, memory.images.get(guest, ()))
        self._journal.put(warden.with_images(self._journal.memory, guest, ()))
        old = memory.sent.get(guest, ()) if await self._looks.left_by(guest) else ()
        told = await self._hypervisor.archive_and_undefine(
            guest, note, old_disks=old, remove_disks=order.remove_disks
        )
        self._journal.put(warden.with_sent(self._journal.memory, guest, ()))
        return told
