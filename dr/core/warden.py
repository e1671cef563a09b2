"""The rules of the host's side of one copy: what an agent adopts, admits, remembers and seals.

Here: pure functions over `AgentMemory`, each returning the memory that must be durable before its verdict is acted on.
Not here: saving it, asking libvirt, the link (`dr.agent`), or who gets a ticket (`dr.core.onecopy`).

Three ideas carry it:

- **One comparison for every kind of ticket**: its generation must be greater than the guest's seal. START, DESTROY
  and UNDEFINE all carry a *new* generation, so a genuine ticket is newer than anything that this host has begun
  or been asked about; whatever is not newer is late, repeated or forged. A kind of its own rule would only make a hole:
  a late DESTROY kills a newer copy, a late UNDEFINE removes its definition.
- **Beginning a ticket seals its generation.** So older tickets, another ticket of the same generation, and the same
  ticket under another id or after its id was forgotten are refused for ever, even across a crash in mid-act. A seal
  therefore says "nothing up to here will be *begun* again", not "nothing up to here runs": only a testimony,
  given while no ticket for the guest is under way, says that.
- **No list, no ticket.** A guest that is not on this host's protected list is not guarded by the hook, so no ticket for
  it is taken. That is also what holds an agent that lost its memory: it refuses everything until the list comes, and
  a guest that is new on the list is sealed up to the generation that comes with it, which restores the lost seals
  (the next ticket is newer by rule, so nothing genuine is lost; a guest that already runs here goes on running,
  since a seal only refuses tickets). When a guest leaves the list its seal goes too: protected again, its
  generations may start anew, and tickets of its earlier life cannot arrive, being bound to sessions that keep order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum

from dr.model.base import BootId, GuestId, HostName, Record, changed
from dr.model.commands import (
    Answer,
    Clean,
    Discard,
    Migrate,
    Order,
    Outcome,
    Protect,
    ProtectedEntry,
    Receive,
    Resume,
    SendDisks,
    Start,
    Stop,
    TakeDisks,
    Ticket,
    TicketKind,
)
from dr.model.facts import IMAGES_ONLY, ISOLATED, DomainState, GuestFacts
from dr.model.memory import AgentMemory, Copy, Image, Remembered
from dr.model.policy import Isolation
from dr.model.wire import Command, Welcome, speaks

BEGUN_MAX = 1000  # commands in guests
PROCESSES_MAX = 50
REMEMBERED_MAX = 512  # finished tickets kept; the seal refuses a ticket whose id was forgotten


class Accept(Record, tag="accept"):
    """Go on, once the memory returned with it is durable."""


class Known(Record, tag="known"):
    """This id was taken before: answer this, do nothing."""

    answer: Answer


class Refuse(Record, tag="refuse"):
    """No; the sentence says why."""

    reason: str


ACCEPT = Accept()


# ---- leaders


def adopt(memory: AgentMemory, welcome: Welcome) -> tuple[AgentMemory, Accept | Refuse]:
    """Take a coordinator's epoch, or refuse to be led by it. Epoch and revision never go down."""
    if not speaks(welcome.protocol):
        return memory, Refuse(
            reason=f"the coordinator speaks protocol {welcome.protocol}: upgrade dr on the older side"
        )
    if memory.cluster and welcome.cluster != memory.cluster:
        return memory, Refuse(
            reason=f"the coordinator is of cluster {welcome.cluster}, this host belongs to {memory.cluster}"
        )
    if welcome.epoch < memory.epoch:
        return memory, Refuse(
            reason=f"the coordinator leads in epoch {welcome.epoch}, this host already follows epoch {memory.epoch}"
        )
    if welcome.epoch == memory.epoch and memory.leader_id and welcome.leader_id != memory.leader_id:
        return memory, Refuse(
            reason=f"epoch {welcome.epoch} belongs to leader {memory.leader_id}, not to {welcome.leader_id}"
        )
    adopted = changed(memory, cluster=welcome.cluster, epoch=welcome.epoch, leader_id=welcome.leader_id)
    return acknowledge(adopted, welcome.revision), ACCEPT


def acknowledge(memory: AgentMemory, revision: int) -> AgentMemory:
    """Remember the highest store revision seen: it unmasks a restored copy of the store."""
    return changed(memory, revision=revision) if revision > memory.revision else memory


def stale(memory: AgentMemory, command: Command, session: str) -> str:
    """Why a command is not of this session and its leader; empty if it is."""
    if command.session != session:
        return "the command belongs to another session of this host"
    return _not_led_by(memory, command.epoch, command.leader_id)


def _not_led_by(memory: AgentMemory, epoch: int, leader_id: str) -> str:
    if (epoch, leader_id) == (memory.epoch, memory.leader_id):
        return ""
    return (
        f"it comes from leader {leader_id} of epoch {epoch}; this host follows {memory.leader_id or 'nobody'}"
        f" of epoch {memory.epoch}"
    )


# ---- tickets


NEEDED: Mapping[type[Order], TicketKind] = {
    Start: TicketKind.START,
    Stop: TicketKind.DESTROY,
    Clean: TicketKind.UNDEFINE,
    Receive: TicketKind.RECEIVE,
    Migrate: TicketKind.MIGRATE,
    Resume: TicketKind.RESUME,
    Discard: TicketKind.DISCARD,
    SendDisks: TicketKind.SEND,
    TakeDisks: TicketKind.TAKE,
}


def mismatch(order: Order) -> str:
    """Why an order's ticket does not allow what the order asks; empty if it does."""
    needed = NEEDED[type(order)]
    if order.ticket.kind is not needed:
        return f"a ticket to {order.ticket.kind} does not allow this; it needs one to {needed}"
    if isinstance(order, Start) and order.definition.id != order.ticket.guest:
        return f"the definition is of {order.definition.id}, the ticket of {order.ticket.guest}"
    return ""


def admit(
    memory: AgentMemory, command: str, ticket: Ticket, *, host: HostName, boot_id: BootId, session: str
) -> tuple[AgentMemory, Accept | Known | Refuse]:
    """Judge a ticket that came under this command id. Accepted: it is begun in the memory returned."""
    for known in memory.tickets:
        if known.command == command:
            return memory, Known(answer=known.answer or STILL_UNDER_WAY)
    if reason := invalid(memory, ticket, host=host, boot_id=boot_id, session=session):
        return memory, Refuse(reason=reason)
    sealed = memory.sealed.get(ticket.guest, 0)
    if ticket.generation <= sealed:
        return memory, Refuse(
            reason=f"{ticket.name}: generation {ticket.generation} is over, this host has sealed up to {sealed}"
        )
    return begin(memory, command, ticket), ACCEPT


STILL_UNDER_WAY = Answer(outcome=Outcome.UNKNOWN, reason="it was begun here and its end has not been seen")
LOST_IN_RESTART = Answer(
    outcome=Outcome.UNKNOWN, reason="the agent restarted while it ran: its end was not seen"
)


def invalid(memory: AgentMemory, ticket: Ticket, *, host: HostName, boot_id: BootId, session: str) -> str:
    """Why a ticket has no force here now, whatever its generation; empty if it has.

    Asked again right before the effect: between beginning and acting, leader, session or list may have changed.
    """
    if ticket.host != host:
        return f"{ticket.name}: the ticket is for host {ticket.host}, this is {host}"
    if ticket.boot_id != boot_id:
        return f"{ticket.name}: the ticket is for boot {ticket.boot_id}, {host} now runs boot {boot_id}"
    if ticket.session != session:
        return f"{ticket.name}: the ticket belongs to another session of this host"
    if reason := _not_led_by(memory, ticket.epoch, ticket.leader_id):
        return f"{ticket.name}: {reason}"
    if ticket.guest not in listed(memory):
        version = memory.protected_version
        return f"{ticket.name}: not on the protected list of {host} (version {version}); send the list first"
    return ""


def begin(memory: AgentMemory, command: str, ticket: Ticket) -> AgentMemory:
    """Write down that a ticket is taken: its id, its generation's end, and the revision that recorded it."""
    assert ticket.generation > memory.sealed.get(ticket.guest, 0)
    assert all(known.command != command for known in memory.tickets)
    begun = changed(memory, tickets=_bounded(memory, (*memory.tickets, Remembered(command=command))))
    begun = _follow(begun, ticket)
    return acknowledge(seal(begun, {ticket.guest: ticket.generation}), ticket.revision)


def finish(memory: AgentMemory, command: str, answer: Answer) -> AgentMemory:
    """Write down how it ended. The first answer stays."""
    return changed(
        memory,
        tickets=_bounded(
            memory,
            tuple(
                changed(known, answer=answer) if known.command == command and known.answer is None else known
                for known in memory.tickets
            ),
        ),
    )


def begin_inside(memory: AgentMemory, command: str, process: str) -> AgentMemory | str:
    """A command in a guest, which that process was asked for first, is about to be begun; or why it must not be."""
    if command in memory.begun:
        return "the agent of its host has restarted since it was begun"
    if process not in memory.processes:
        return "the agent of its host has lost its memory, or restarted often, since it was asked for"
    return changed(memory, begun=(*memory.begun[1 - BEGUN_MAX :], command))


def wake(memory: AgentMemory, process: str) -> AgentMemory:
    """The agent started: whatever was under way in the process before has an end that nobody saw."""
    memory = changed(memory, processes=(*memory.processes[1 - PROCESSES_MAX :], process))
    for known in memory.tickets:
        if known.answer is None:
            memory = finish(memory, known.command, LOST_IN_RESTART)
    return memory


def _bounded(memory: AgentMemory, tickets: tuple[Remembered, ...]) -> tuple[Remembered, ...]:
    """The newest finished ones, every unfinished one, and those by which disks left that are still here.

    Those are parted with when their guest runs elsewhere, and it may be off for long.
    """
    needed = {ticket for guest, ticket in memory.disks_left.items() if guest in memory.sent}
    over = [known.answer is not None and known.command not in needed for known in tickets]
    surplus = sum(over) - REMEMBERED_MAX
    kept: list[Remembered] = []
    for known, forgettable in zip(tickets, over, strict=True):
        if forgettable and surplus > 0:
            surplus -= 1
        else:
            kept.append(known)
    return tuple(kept)


# ---- copies of migrations


def _follow(memory: AgentMemory, ticket: Ticket) -> AgentMemory:
    """What a ticket makes of a copy that waits here, and of a guest that left.

    A copy is marked before its permit is written, and no longer from the moment when a ticket lets the guest run here.
    """
    copies, left = dict(memory.copies), dict(memory.left)
    images, sent = dict(memory.images), dict(memory.sent)
    let_in, disks_left = dict(memory.let_in), dict(memory.disks_left)
    if ticket.kind is TicketKind.RECEIVE:
        let_in[ticket.guest] = ticket.boot_id
    elif ticket.kind is not TicketKind.RESUME:  # which may come too early
        let_in.pop(ticket.guest, None)
    match ticket.kind:
        case TicketKind.RECEIVE:
            copies[ticket.guest] = Copy(
                ticket=ticket.id, boot_id=ticket.boot_id, generation=ticket.generation
            )
            left.pop(ticket.guest, None)
        case TicketKind.MIGRATE:
            copies.pop(ticket.guest, None)
            left[ticket.guest] = ticket.id
            disks_left.pop(ticket.guest, None)
            sent.pop(ticket.guest, None)
        case TicketKind.SEND:
            copies.pop(ticket.guest, None)
            left.pop(ticket.guest, None)
            disks_left[ticket.guest] = ticket.id
            sent.pop(ticket.guest, None)
        case TicketKind.START | TicketKind.RESUME:
            copies.pop(ticket.guest, None)
            left.pop(ticket.guest, None)
            disks_left.pop(ticket.guest, None)
            sent.pop(ticket.guest, None)
            images.pop(ticket.guest, None)  # its disks from now on
        case TicketKind.DESTROY | TicketKind.UNDEFINE | TicketKind.DISCARD | TicketKind.TAKE:
            pass
    return changed(
        memory,
        copies=copies,
        let_in=let_in,
        left=left,
        images=images,
        sent=sent,
        disks_left=disks_left,
    )


def copy_here(memory: AgentMemory, guest: GuestId, boot_id: BootId) -> bool:
    """Whether a domain of this guest that is active on this boot is a copy which nobody was told to resume."""
    copy = memory.copies.get(guest)
    return copy is not None and copy.boot_id == boot_id


def seen_running(memory: AgentMemory, guest: GuestId, boot_id: BootId) -> AgentMemory:
    """Its CPUs run: if it is a copy that waits, what stands at its source is older than its disk from now on."""
    if not copy_here(memory, guest, boot_id) or memory.ran.get(guest) == memory.copies[guest].generation:
        return memory
    ran = memory.ran | {guest: memory.copies[guest].generation}
    return changed(with_images(memory, guest, ()), ran=ran)  # it may have written to them


def moving(memory: AgentMemory) -> frozenset[GuestId]:
    """Guests of which a migration may be under way here, for all that this agent knows."""
    return frozenset(memory.copies) | frozenset(memory.left)


def without_copy(memory: AgentMemory, guest: GuestId, sealed: int) -> AgentMemory:
    """It was looked for, up to that seal, and is not here: whatever runs here later is not that copy."""
    if memory.sealed.get(guest, 0) != sealed or (guest not in memory.copies and guest not in memory.let_in):
        return memory
    copies = {key: copy for key, copy in memory.copies.items() if key != guest}
    return changed(memory, copies=copies, let_in={k: v for k, v in memory.let_in.items() if k != guest})


def with_images(memory: AgentMemory, guest: GuestId, images: tuple[Image, ...]) -> AgentMemory:
    """Files that are made here for its disks; () = none is left."""
    kept = {key: made for key, made in memory.images.items() if key != guest}
    return changed(memory, images=kept | ({guest: images} if images else {}))


def with_sent(memory: AgentMemory, guest: GuestId, disks: tuple[Image, ...]) -> AgentMemory:
    """Local disks that its migration sends from here; () = there is nothing to part with any more."""
    kept = {key: sent for key, sent in memory.sent.items() if key != guest}
    return changed(memory, sent=kept | ({guest: disks} if disks else {}))


def left_by(memory: AgentMemory, guest: GuestId, *, migrated: bool) -> str:
    """The ticket by which an absent guest left, or by which its disks did; empty if that is not sure.

    `migrated`: libvirt gives that as the reason why the domain is off. A ticket's own answer says it for good. That it
    was this job and no other: one place at most has a permit to let the guest in, and a permit works once. Of disks
    nothing but the answer tells.
    """
    done = {
        known.command
        for known in memory.tickets
        if known.answer is not None and known.answer.outcome is Outcome.DONE
    }
    ticket = memory.left.get(guest, "")
    if ticket:
        return ticket if migrated or ticket in done else ""
    ticket = memory.disks_left.get(guest, "")
    return ticket if ticket in done else ""


class Stray(StrEnum):
    """What an agent does by itself, every heartbeat, with a domain that no ticket accounts for."""

    NONE = ""
    SUSPEND = "suspend"  # a copy that waits was made to run by hand: put back, nothing is lost by it
    DESTROY = "destroy"  # something arrives that no ticket let in: its source has it all, and goes on


def stray(memory: AgentMemory, guest: GuestId, boot_id: BootId, *, arriving: bool, runs: bool) -> Stray:
    """Rule 7. A copy that was received whole is never destroyed by this: it may be the only memory there is."""
    if guest not in listed(memory):
        return Stray.NONE
    if copy_here(memory, guest, boot_id):
        return Stray.SUSPEND if runs and not arriving else Stray.NONE
    return Stray.DESTROY if arriving and memory.let_in.get(guest) != boot_id else Stray.NONE


# ---- seals and the protected list


def seal(memory: AgentMemory, generations: Mapping[GuestId, int]) -> AgentMemory:
    """Refuse these generations, each of its guest, and all before them, from now on."""
    higher = {guest: upto for guest, upto in generations.items() if upto > memory.sealed.get(guest, 0)}
    return changed(memory, sealed={**memory.sealed, **higher}) if higher else memory


def listed(memory: AgentMemory) -> frozenset[GuestId]:
    """The guests on this host's protected list."""
    return frozenset(entry.guest for entry in memory.entries)


def protect(memory: AgentMemory, order: Protect) -> tuple[AgentMemory, Accept | Refuse]:
    """Replace the protected list, unless it is older than ours. See the module's third idea for what is sealed."""
    if order.version < memory.protected_version:
        return memory, Refuse(
            reason=f"the protected list has version {order.version}, this host already has {memory.protected_version}"
        )
    known = {entry.guest: entry for entry in memory.entries}
    entries = {
        entry.guest: changed(entry, generation=max(entry.generation, known[entry.guest].generation))
        if entry.guest in known
        else entry
        for entry in order.entries
    }
    sealed = {guest: generation for guest, generation in memory.sealed.items() if guest in entries}
    copies = {guest: copy for guest, copy in memory.copies.items() if guest in entries}
    let_in = {guest: boot_id for guest, boot_id in memory.let_in.items() if guest in entries}
    left = {guest: ticket for guest, ticket in memory.left.items() if guest in entries}
    disks_left = {guest: ticket for guest, ticket in memory.disks_left.items() if guest in entries}
    ran = {guest: generation for guest, generation in memory.ran.items() if guest in entries}
    # Whoever has it from now on may use those files: nothing of them is ours to remove any more.
    images = {guest: made for guest, made in memory.images.items() if guest in entries}
    sent = {guest: disks for guest, disks in memory.sent.items() if guest in entries}
    for guest, entry in entries.items():
        if guest not in known and entry.generation > sealed.get(guest, 0):
            sealed[guest] = entry.generation
    return (
        changed(
            memory,
            protected_version=order.version,
            entries=tuple(entries.values()),
            watch_storage=order.watch_storage,
            peers=order.peers,
            isolation_s=order.isolation_s,
            stop_s=order.stop_s,
            sealed=sealed,
            copies=copies,
            let_in=let_in,
            images=images,
            sent=sent,
            left=left,
            disks_left=disks_left,
            ran=ran,
        ),
        ACCEPT,
    )


# ---- isolation


def alone_since(before: float | None, now: float, *, linked: bool, heard: bool | None) -> float | None:
    """Since when this host hears neither its coordinator nor any other host; None = it is not alone.

    `heard`: whether any peer answered just now; None = nobody could be asked, which says nothing about them. A
    coordinator that is merely down isolates nobody: the peers answer.
    """
    if linked or heard is not False:
        return None
    return now if before is None else before


def to_shut_down(memory: AgentMemory, since: float | None, now: float) -> tuple[ProtectedEntry, ...]:
    """Guests that this host, alone since then, is to shut down by their policy."""
    if since is None or not memory.peers or now - since < memory.isolation_s:
        return ()
    return tuple(entry for entry in memory.entries if entry.isolation is Isolation.SHUT_DOWN)


def isolate(memory: AgentMemory, guest: GuestId) -> AgentMemory:
    """Remember whose end that is going to be: not its owner's will."""
    if guest in memory.isolated:
        return memory
    return changed(memory, isolated=(*memory.isolated, guest))


def relieve(memory: AgentMemory, active: Collection[GuestId], busy: Collection[GuestId] = ()) -> AgentMemory:
    """Guests that run (and are not being shut down), or are not protected any more, count as isolated no longer."""
    kept = listed(memory).difference(active) | set(busy)
    left = tuple(guest for guest in memory.isolated if guest in kept)
    return changed(memory, isolated=left) if left != memory.isolated else memory


def told(memory: AgentMemory, guests: tuple[GuestFacts, ...]) -> tuple[GuestFacts, ...]:
    """The inventory with what only this agent knows: reasons, and files of a guest that libvirt does not know here."""
    if memory.isolated:
        guests = tuple(
            changed(facts, reason=ISOLATED) if facts.id in memory.isolated and not facts.active else facts
            for facts in guests
        )
    files = memory.images.keys() | (memory.sent.keys() & memory.disks_left.keys())
    if files:
        known = {facts.id for facts in guests}
        names = {entry.guest: entry.name for entry in memory.entries}
        guests += tuple(
            GuestFacts(
                id=guest, name=names[guest], state=DomainState.SHUTOFF, reason=IMAGES_ONLY, persistent=False
            )
            for guest in sorted(files)
            if guest not in known and guest in names
        )
    return guests
