"""What a ticket of a live migration does on this host: let the guest in, send it, make its copy run, destroy its copy.

Here: the effect of RECEIVE, MIGRATE, RESUME and DISCARD, and calling a migration off. Not here: how libvirt migrates
(`dr.adapters.libvirt.migration`), its local disks (`dr.agent.disks`), copies that nobody asked for (`dr.agent.copies`).

Why no interruption doubles the guest. The copy is marked in the memory, durably, before its permit is written, and
libvirt leaves it paused; nothing here resumes it but a RESUME ticket, which the coordinator issues only on the source's
own testimony that this very job took the guest away. The source says that in two cases: libvirt told so to the caller
that was this ticket, or gives a migration as the reason why the domain is off, while the ticket is the last that let it
leave. If the agent dies meanwhile the job goes on in libvirtd, and the next process finds it there, or its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from dr.agent.clocks import Clocks
from dr.agent.disks import TROUBLE, Disks
from dr.agent.hook import Hook
from dr.agent.journal import Journal
from dr.agent.looks import Ended, Looks, Patience, refused, said, unknown
from dr.core import warden
from dr.model.base import BootId, changed
from dr.model.commands import (
    Abort,
    AllowDowntime,
    Answer,
    Discard,
    Migrate,
    Outcome,
    Receive,
    Resume,
    Testimony,
    Ticket,
)
from dr.model.facts import Part, Sighting
from dr.ports.hypervisor import Gate, Hypervisor, HypervisorError, HypervisorUnknown, Standing

log = logging.getLogger("dr.agent.moves")

Order = Receive | Migrate | Resume | Discard
ABORT_AGAIN_S = 5.0


class MoveTickets:
    """Runs one ticket of a migration to its answer. Never raises for what the world does."""

    def __init__(
        self,
        boot_id: BootId,
        *,
        hypervisor: Hypervisor,
        gate: Gate,
        hook: Hook,
        journal: Journal,
        looks: Looks,
        disks: Disks,
        clocks: Clocks,
        patience: Patience,
    ) -> None:
        self._boot_id = boot_id
        self._hypervisor = hypervisor
        self._gate = gate
        self._hook = hook
        self._journal = journal
        self._looks = looks
        self._disks = disks
        self._clocks = clocks
        self._patience = patience

    async def run(self, order: Order, valid: Callable[[], str]) -> Answer:
        """`valid` says why the ticket has lost its force (empty: it has not); asked right before the effect."""
        match order:
            case Receive():
                return await self._receive(order, valid)
            case Migrate():
                return await self._migrate(order, valid)
            case Resume():
                return await self._resume(order, valid)
            case Discard():
                return await self._discard(order, valid)

    async def abort(self, order: Abort) -> Answer:
        """Ask libvirt to end the outgoing migration. `done` means asked."""
        return await self._tell(self._hypervisor.abort_migration(order.guest))

    async def allow_downtime(self, order: AllowDowntime) -> Answer:
        """Give the outgoing migration a longer standstill."""
        return await self._tell(self._hypervisor.allow_downtime(order.guest, order.downtime_s))

    async def _tell(self, call: Awaitable[None]) -> Answer:
        ended = await self._looks.call(call, self._patience.abort_s)
        if ended.well:
            return Answer(outcome=Outcome.DONE)
        outcome = Outcome.FAILED if ended.failed else Outcome.UNKNOWN
        return Answer(outcome=outcome, reason=ended.failed or ended.unseen)

    # ---- the destination

    async def _receive(self, order: Receive, valid: Callable[[], str]) -> Answer:
        """The permit stays until the guest uses it, or anything that looks for the guest takes it back."""
        ticket = order.ticket
        hook = await self._hook.ensure()
        if not hook.proven:
            return refused(f"{ticket.name} is not let in: the permit hook is not proven here ({hook.reason})")
        seen = await self._look(ticket)
        if seen.sighting is not Sighting.ABSENT:
            reason = f"something of {ticket.name} is here already: {seen.sighting} {seen.reason}".rstrip()
            return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(seen,))
        if order.disks and (failed := await self._make_images(order)):
            return Answer(outcome=Outcome.FAILED, reason=failed, testimony=(seen,))
        if reason := valid() or self._hook.open_for(ticket.guest):
            return refused(reason)
        try:
            self._gate.permit(ticket.guest, ticket.kind, ticket.id)
        except OSError as error:
            seen = await self._look(ticket)
            reason = f"no permit could be written for {ticket.name}: {error}"
            return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(seen,))
        return Answer(outcome=Outcome.DONE)

    async def _make_images(self, order: Receive) -> str:
        """Empty images for its disks; why not."""
        guest = order.ticket.guest
        try:
            await self._disks.place(guest, await self._disks.make(guest, order.disks))
        except TROUBLE as error:
            return f"images for {order.ticket.name} were not made: {said(error)}"
        return ""

    async def _discard(self, order: Discard, valid: Callable[[], str]) -> Answer:
        ticket = order.ticket
        seen = await self._look(ticket)
        if reason := valid():
            return refused(reason)
        if seen.sighting is not Sighting.ABSENT:
            try:
                standing = await self._standing(ticket)
            except (HypervisorError, HypervisorUnknown, TimeoutError) as error:
                return unknown(f"{ticket.name} was not destroyed: {said(error)}", seen)
            mine = warden.copy_here(self._journal.memory, ticket.guest, self._boot_id)
            if standing.runs and not mine:
                reason = f"{ticket.name} runs here, and is no copy that waits"
                return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(seen,))
            if standing.part is Part.LEAVING:
                reason = f"{ticket.name} is being sent from here: it is no copy"
                return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(seen,))
            await self._journal.save()  # whether it ran must not be lost with it
            if reason := valid():
                return refused(reason)
            stopping = self._hypervisor.stop(ticket.guest, "destroy", self._patience.stop_s)
            ended = await self._looks.call(stopping, 2 * self._patience.stop_s)
            seen = await self._look(ticket)
            if seen.sighting is not Sighting.ABSENT:
                reason = ended.failed or ended.unseen or "libvirt says that it was destroyed"
                return unknown(f"{reason}; then: {seen.sighting} {seen.reason}".rstrip(), seen)
        kept = await self._disks.remove(ticket.guest) if order.remove_images else ""
        self._journal.put(warden.without_copy(self._journal.memory, ticket.guest, seen.sealed))
        return Answer(outcome=Outcome.DONE, reason=kept, testimony=(seen,))

    # ---- the source

    async def _migrate(self, order: Migrate, valid: Callable[[], str]) -> Answer:
        """Its testimony decides what becomes of the guest, not how the call ended."""
        ticket = order.ticket
        if order.disks:
            if (answer := await self._disks.other(ticket, order.disks)) is not None:
                return answer
            await self._disks.remember(ticket, order.disks)
        if order.suspended and await self._goes_on(ticket):
            reason = f"{ticket.name} was resumed meanwhile, and would stand still where it arrives"
            return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(await self._look(ticket),))
        if reason := valid():
            return refused(reason)
        late = asyncio.create_task(self._call_off_late(order))
        try:
            ended = await self._looks.call(
                self._hypervisor.migrate(
                    ticket.guest,
                    order.to,
                    order.addresses,
                    order.sending,
                    disks=order.disks,
                    data_address=order.data_address,
                ),
                order.timeout_s + self._patience.migrate_s,
            )
        finally:
            late.cancel()
        seen = await self._look(ticket)
        if ended.well and seen.sighting is Sighting.ABSENT:
            left = changed(seen, left_by=ticket.id)  # libvirt's own word to its caller
            return Answer(outcome=Outcome.DONE, reason=ended.said, testimony=(left,))
        reason = ended.failed or ended.unseen or "libvirt says that it has left"
        if ended.failed and seen.sighting is not Sighting.UNKNOWN:
            return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(seen,))
        return unknown(f"{reason}; then: {seen.sighting} {seen.reason}".rstrip(), seen)

    async def _goes_on(self, ticket: Ticket) -> bool:
        """Asked right before it is sent: from then on libvirt lets nobody resume it here."""
        try:
            return (await self._standing(ticket)).runs
        except (HypervisorError, HypervisorUnknown, TimeoutError):
            return False  # libvirt does not answer: then it hardly sends either

    async def _call_off_late(self, order: Migrate) -> None:
        await asyncio.sleep(order.timeout_s)
        while True:
            log.warning("%s: its migration takes longer than %g s: ended", order.ticket.name, order.timeout_s)
            answer = await self.abort(Abort(guest=order.ticket.guest, name=order.ticket.name))
            if answer.outcome is not Outcome.DONE:
                log.warning("%s: its migration could not be ended: %s", order.ticket.name, answer.reason)
            await asyncio.sleep(ABORT_AGAIN_S)

    # ---- either end

    async def _resume(self, order: Resume, valid: Callable[[], str]) -> Answer:
        """The guest stands still until this is done: /proc is read only where libvirt does not have it."""
        ticket = order.ticket
        try:
            standing = await self._standing(ticket)
        except (HypervisorError, HypervisorUnknown, TimeoutError) as error:
            return unknown(f"{ticket.name} was not resumed: {said(error)}", await self._look(ticket))
        if (
            not standing.active or standing.part is not Part.NONE
        ):  # its memory is not whole, or goes elsewhere
            seen = await self._look(ticket)
            if seen.sighting is Sighting.PRESENT:
                seen = changed(seen, part=standing.part)
            reason = f"{ticket.name} is {standing.part or 'not here'}"
            if seen.sighting is Sighting.UNKNOWN:
                return unknown(f"{reason}; then: {seen.reason}", seen)
            return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(seen,))
        if reason := valid():
            return refused(reason)
        if order.suspended:
            return Answer(outcome=Outcome.DONE)
        ended = await self._looks.call(self._hypervisor.resume(ticket.guest), self._patience.resume_s)
        try:
            if (await self._standing(ticket)).runs:
                self._clocks.set_soon(ticket.guest, ticket.name)
                return Answer(outcome=Outcome.DONE)
        except (HypervisorError, HypervisorUnknown, TimeoutError) as error:
            ended = Ended(unseen=said(error))
        reason = (
            ended.failed
            or ended.unseen
            or f"libvirt says that {ticket.name} was resumed, and it does not run"
        )
        return unknown(reason, await self._look(ticket))

    async def _look(self, ticket: Ticket) -> Testimony:
        return await self._looks.look(ticket.guest, ticket.generation)

    async def _standing(self, ticket: Ticket) -> Standing:
        async with asyncio.timeout(self._patience.standing_s):
            return await self._hypervisor.standing(ticket.guest)
