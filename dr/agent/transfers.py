"""What a ticket that copies the disks of a guest does on this host, while that guest runs nowhere: send, or take them.

Here: the effect of SEND and TAKE, and calling either off. Not here: how the bytes get over (`dr.ports.courier`), which
files are images and which leave (`dr.agent.disks`), whose disks count (`dr.core.onecopy`).

Why no interruption ages a disk. Both ends stand in the guest's set while it is copied, so no start ticket is issued,
and without one the hook lets nothing start: nobody writes to the source's disks, which count all the while, and nobody
reads what arrives. The commit is the word of either end that all of it is over there; only then do those disks count.
The destination says so once every file was read again, is durable and has its name; the source once the destination
has told it, and later only where its ticket's own end is durable. What breaks off before leaves files from which
nothing starts, and which the memory knows: the next try ends them, or they are removed. Once they are being given their
names only a failure of that itself removes them, for then the source may have been told.
"""

from __future__ import annotations

from collections.abc import Callable

from dr.agent.disks import TROUBLE, Disks
from dr.agent.looks import Looks, refused, said, unknown
from dr.model.base import GuestId, changed
from dr.model.commands import Answer, Copying, Outcome, SendDisks, TakeDisks, Testimony, Ticket
from dr.model.facts import Sighting
from dr.ports.courier import Courier, CourierError, CourierLost
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown


class TransferTickets:
    """Runs one ticket of a copy to its answer. Never raises for what the world does."""

    def __init__(self, *, courier: Courier, disks: Disks, looks: Looks) -> None:
        self._courier = courier
        self._disks = disks
        self._looks = looks
        # Of each guest of which a ticket is under way, how it ends if the courier does not have it yet.
        self._called_off: dict[GuestId, CourierError | CourierLost | None] = {}

    async def run(self, order: Copying, valid: Callable[[], str]) -> Answer:
        """`valid` says why the ticket has lost its force (empty: it has not); asked right before the effect."""
        guest = order.ticket.guest
        self._called_off[guest] = None
        try:
            match order:
                case SendDisks():
                    return await self._send(order, valid)
                case TakeDisks():
                    return await self._take(order, valid)
        finally:
            del self._called_off[guest]

    def cancel(self, guest: GuestId, *, again: bool = False) -> bool:
        """Call off what is sent or taken of it here, or is about to be; it has its own answer. False: nothing is.

        `again`: as it will be tried again, what has arrived stays.
        """
        if guest not in self._called_off:
            return False
        why = "the copy of its disks was called off before it began"
        self._called_off[guest] = CourierLost(why) if again else CourierError(why)
        self._courier.cancel(guest, again=again)
        return True

    # ---- the destination

    async def _take(self, order: TakeDisks, valid: Callable[[], str]) -> Answer:
        """No time limit: the courier has its own patience with a source that says nothing."""
        ticket = order.ticket
        guest = ticket.guest
        seen = await self._look(ticket)
        if seen.sighting is not Sighting.ABSENT:
            return _not_off(ticket, seen)
        try:
            images, files = await self._disks.take_up(guest, order.disks)
        except TROUBLE as error:
            reason = f"images for {ticket.name} were not made: {said(error)}"
            return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(seen,))
        whole = False

        async def placed() -> None:
            nonlocal whole
            whole = True  # before, as whoever waits for it may be told to end meanwhile
            await self._disks.place(guest, images)

        if reason := valid():
            return refused(reason)
        try:
            self._unless_called_off(ticket)
            told = await self._courier.take(guest, ticket.id, source=order.source, files=files, placed=placed)
        except (CourierLost, HypervisorUnknown, TimeoutError) as error:
            return unknown(said(error), await self._look(ticket))
        except (CourierError, HypervisorError) as error:
            if whole and isinstance(error, CourierError):
                reason = f"all disks of {ticket.name} are here, and {order.source} may know: {said(error)}"
                return unknown(reason, await self._look(ticket))
            reason = "; ".join(filter(None, (said(error), await self._disks.remove(guest))))
            return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(await self._look(ticket),))
        seen = await self._look(ticket)
        if seen.sighting is Sighting.PRESENT:  # it writes to them: they are not as they are at their source
            return _but(f"all disks of {ticket.name} are here", seen)
        return Answer(outcome=Outcome.DONE, reason=told, testimony=(seen,))

    # ---- the source

    async def _send(self, order: SendDisks, valid: Callable[[], str]) -> Answer:
        """No time limit here either."""
        ticket = order.ticket
        seen = await self._look(ticket)
        if seen.sighting is not Sighting.ABSENT:
            return _not_off(ticket, seen)
        taken = await self._disks.were_taken(ticket.guest, order.disks)
        if not taken and (answer := await self._disks.other(ticket, order.disks)) is not None:
            return answer
        await self._disks.remember(ticket, order.disks)
        if reason := valid():
            return refused(reason)
        try:
            self._unless_called_off(ticket)
            told = await self._courier.send(
                ticket.guest,
                order.copy,
                to=order.to,
                addresses=order.addresses,
                port=order.port,
                files=tuple(disk.path for disk in order.disks),
                mib_s=order.mib_s,
            )
        except CourierError as error:
            seen = await self._look(ticket)
            return Answer(outcome=Outcome.FAILED, reason=str(error), testimony=(seen,))
        except CourierLost as error:
            return unknown(str(error), await self._look(ticket))
        seen = await self._look(ticket)
        if seen.sighting is not Sighting.ABSENT:
            return _but(f"all disks of {ticket.name} are over there", seen)
        self._disks.forget_images(ticket.guest)  # what was taken here is old now, as any disk that left
        left = changed(seen, left_by=ticket.id)  # the destination's own word
        return Answer(outcome=Outcome.DONE, reason=told, testimony=(left,))

    # ---- either end

    def _unless_called_off(self, ticket: Ticket) -> None:
        """What was called off before the courier had it. Raises CourierError or CourierLost, as the courier does."""
        if (error := self._called_off[ticket.guest]) is not None:
            raise error

    async def _look(self, ticket: Ticket) -> Testimony:
        return await self._looks.look(ticket.guest, ticket.generation)


def _not_off(ticket: Ticket, seen: Testimony) -> Answer:
    reason = f"{ticket.name} is not known to be off here: {seen.sighting} {seen.reason}".rstrip()
    return Answer(outcome=Outcome.FAILED, reason=reason, testimony=(seen,))


def _but(what: str, seen: Testimony) -> Answer:
    return unknown(f"{what}; then: {seen.sighting} {seen.reason}".rstrip(), seen)
