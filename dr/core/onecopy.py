"""One copy: the only place that writes `may_run_on` and generations, and that issues tickets.

Everything that could start, stop or remove a protected guest goes through here, so nothing goes round the
checks. A place is added before the effect that could start the guest there and removed only by a proof;
docs/one-copy.md tells why each rule is needed. Not here: what only reads or asks (`whereabouts`), whether this leader
may place anything yet (`quorum`).
"""

from __future__ import annotations

from dr.core.quorum import hold
from dr.core.state import Draft
from dr.core.tables import GuestEvent, move_guest
from dr.core.volatile import TICKETED, Pending
from dr.core.whereabouts import ASK_AGAIN_S, COPIES, places, seen_active, sole_holder
from dr.model.base import GuestId, HostName, changed
from dr.model.commands import (
    Clean,
    Discard,
    Migrate,
    Order,
    Receive,
    Resume,
    SendDisks,
    Stop,
    TakeDisks,
    Testimony,
    Ticket,
    TicketKind,
)
from dr.model.effects import Send, SendStart
from dr.model.evidence import Proof, ProofKind
from dr.model.facts import DomainState, Part, Sighting
from dr.model.policy import StopMode
from dr.model.records import GuestPhase, GuestRecord, HostPhase, HostRecord, Move, MoveStage, Place

UNKNOWN_BOOT = "unknown"  # of a host that only agents know; whatever boot it shows stands in for this one
IMAGES_S = 60.0  # that an agent has to make images, beyond what it has to answer
GENERATION_JUMP = 1_000_000  # after a restored store: past anything that the lost records may have issued


# ---- places


def add_place(draft: Draft, guest: GuestRecord, host: HostRecord, generation: int) -> GuestRecord:
    """It may be running there from now on."""
    return _add_places(draft, guest, [host], generation)


def _add_places(draft: Draft, guest: GuestRecord, hosts: list[HostRecord], generation: int) -> GuestRecord:
    """On each of them as it is booted now. No place leaves, and no generation of a place falls."""
    found = {(place.host, place.boot_id): place for place in guest.may_run_on}
    for host in hosts:
        before = found.pop((host.name, host.boot_id), None)
        newest = max(before.generation, generation) if before is not None else generation
        found[host.name, host.boot_id] = Place(host=host.name, boot_id=host.boot_id, generation=newest)
    guest = changed(guest, may_run_on=tuple(found.values()), generation=max(guest.generation, generation))
    draft.put_guest(guest)
    return guest


def begin_protection(draft: Draft, guest: GuestRecord) -> None:
    """It may run anywhere until every host has testified (rule 4); above whatever seals its earlier life left."""
    guest = changed(guest, generation=draft.cluster.generation_floor + 1)
    draft.put_guest(guest)
    add_every_place(draft, guest)


def add_every_place(draft: Draft, guest: GuestRecord) -> GuestRecord:
    """It may be running on any host that ever said hello: protection begins, or the store is an older copy."""
    return _add_places(draft, guest, [host for host in draft.hosts() if host.boot_id], guest.generation)


def _without(draft: Draft, guest: GuestRecord, place: Place, proof: Proof) -> GuestRecord:
    assert place in guest.may_run_on
    guest = changed(guest, may_run_on=tuple(p for p in guest.may_run_on if p != place))
    draft.put_guest(guest)
    draft.note(
        "proof",
        f"{guest.name} does not run on {place.host}: {proof.text}",
        host=place.host,
        guest=guest.id,
        proof=changed(proof, at=draft.now),
    )
    return guest


def prove_boot_over(draft: Draft, proof: Proof, *, now: HostRecord | None = None) -> list[GuestId]:
    """That boot of the host is over (power, reboot, operator): it leaves every set. Returns whose set it left.

    `now`: the host with its newer boot. Where we do not yet know what ran on it (protection has not begun, the
    store is an older copy, or its boot was never known), that boot stands in for the old one, until it has testified.
    """
    assert proof.kind in (ProofKind.POWER, ProofKind.REBOOT, ProofKind.OPERATOR)
    assert proof.boot_id
    left = []
    for guest_id in draft.guests_at(proof.host):
        guest = draft.guest(guest_id)
        assert guest is not None
        for place in guest.may_run_on:
            if (place.host, place.boot_id) == (proof.host, proof.boot_id):
                if _starts_unguarded(draft, guest, proof):
                    continue
                unsure = guest.phase is GuestPhase.PROTECTING or place.boot_id == UNKNOWN_BOOT
                if now is not None and unsure:
                    guest = add_place(draft, guest, now, guest.generation)
                guest = _without(draft, guest, place, proof)
                left.append(guest_id)
    return left


def _starts_unguarded(draft: Draft, guest: GuestRecord, proof: Proof) -> bool:
    """Whether a host without power could start it again at its next boot, unseen: its hook may not know it (rule 4).

    Only what it says then, or a person who vouches for it, takes it out of the set of a guest whose protection begins.
    """
    return proof.kind is ProofKind.POWER and stays_when_off(draft, guest, proof.host)


def stays_when_off(draft: Draft, guest: GuestRecord, name: HostName) -> bool:
    """Whether it would be no proof for this guest that the host has no power."""
    host = draft.host(name)
    guards = host is not None and host.protected_version == draft.cluster.protected_version
    return guest.phase is GuestPhase.PROTECTING and not guards


def accept_testimony(draft: Draft, host: HostRecord, testimony: Testimony) -> GuestRecord | None:
    """An agent's own word about one guest on its present boot. `absent` counts for sealed generations only.

    The caller made sure that the answer came in the live session, so the agent has adopted this epoch: an
    older leader's tickets are refused there from then on. Where the source of a migration says that this very job
    took the guest away, that is recorded with the place that goes: it alone lets the copy be resumed (rule 2).
    """
    guest = draft.guest(testimony.guest)
    if guest is not None and testimony.sighting is Sighting.PRESENT:
        _here_again(draft, host, testimony)
    if guest is not None and guest.move is not None and testimony.ran == guest.move.received > 0:
        guest = changed(guest, move=changed(guest.move, ran=True))  # before its place may go
        draft.put_guest(guest)
    if guest is None or testimony.sighting is not Sighting.ABSENT:
        return guest
    if (
        guest.move is not None
        and guest.move.stage is MoveStage.SENDING
        and testimony.left_by == guest.move.job
    ):
        guest = disks_arrived(draft, guest)
    view = draft.view(host.name)
    assert view.acked_epoch == draft.cluster.epoch
    seen = view.guests.get(guest.id)
    if seen is not None and seen.active:  # an inventory from before
        off = changed(seen, state=DomainState.SHUTOFF, reason="", part=Part.NONE)
        overruled = view.overruled | {guest.id: seen}
        draft.put_view(host.name, guests=view.guests | {guest.id: off}, overruled=overruled)
    for place in guest.may_run_on:
        if (place.host, place.boot_id) != (host.name, host.boot_id) or place.generation > testimony.sealed:
            continue
        proof = Proof(
            kind=ProofKind.SELF,
            host=host.name,
            boot_id=host.boot_id,
            sealed=testimony.sealed,
            text=testimony.reason or "its agent sealed the generation and sees no domain and no QEMU",
        )
        move, here = guest.move, (host.name, host.boot_id)
        guest = _without(draft, guest, place, proof)
        if move is None or move.stage not in (MoveStage.COPYING, MoveStage.UNRESOLVED):
            continue
        left = here == (move.source, move.source_boot) and testimony.left_by == move.job
        # Others may stand in the set meanwhile, as a host that joins does: they must testify before it is resumed.
        if left and (move.destination, move.destination_boot) in places(guest):
            guest = changed(guest, move=changed(move, stage=MoveStage.MIGRATED, at=draft.now))
            draft.put_guest(guest)
    return guest


def _here_again(draft: Draft, host: HostRecord, testimony: Testimony) -> None:
    """It went and came back between two inventories, which are alike then: its agent has nothing to report."""
    view = draft.view(host.name)
    told = view.overruled.get(testimony.guest)
    if told is not None:
        left = {guest: facts for guest, facts in view.overruled.items() if guest != testimony.guest}
        again = changed(told, part=testimony.part)
        draft.put_view(host.name, guests=view.guests | {testimony.guest: again}, overruled=left)


def doubt_everything(draft: Draft, guest: GuestRecord, seen_generation: int) -> GuestRecord:
    """The records may be older than the world: jump generations, ask every host (rule 1)."""
    generation = max(guest.generation, seen_generation) + GENERATION_JUMP
    guest = changed(guest, generation=generation, disks_on="")
    draft.put_guest(guest)
    guest = add_every_place(draft, guest)
    return move_guest(
        draft,
        guest,
        GuestEvent.REVERIFY,
        "the store is an older copy: every host is asked whether it runs there",
    )


def vouch_for_disks(draft: Draft, guest: GuestRecord, name: HostName) -> GuestRecord:
    """A person says that this host has the newest copy of its local disks. Where it is seen to run counts for more."""
    before = guest.disks_on or "no host for sure"
    text = f"{guest.name}: its newest disks are on {name}, as a person says; known before: {before}"
    draft.note("guest.disks", text, host=name, guest=guest.id)
    guest = changed(guest, disks_on=name)
    draft.put_guest(guest)
    return guest


def disks_gone(draft: Draft, guest: GuestRecord, name: HostName) -> None:
    """That host is no member any more: whatever comes under its name later may have other disks."""
    if guest.disks_on != name:
        return
    if guest.needs.local:
        draft.note(
            "guest.disks", f"{guest.name}: its newest disks were on {name}, which was removed", guest=guest.id
        )
    draft.put_guest(changed(guest, disks_on=""))


def adopt_unknown(draft: Draft, guest_id: GuestId, name: str, generation: int) -> GuestRecord:
    """A guest that agents know as protected and this older store does not."""
    guest = GuestRecord(
        id=guest_id,
        name=name,
        since=draft.now,
        generation=generation + GENERATION_JUMP,
        reason="known to agents, not to this older copy of the store: every host is asked",
    )
    draft.put_guest(guest)
    return add_every_place(draft, guest)


def forget(draft: Draft, guest: GuestRecord) -> None:
    """It is no longer protected. Hosts that miss this keep seals of it: a later protection must start above them."""
    floor = max(draft.cluster.generation_floor, guest.generation)
    draft.cluster = changed(draft.cluster, generation_floor=floor)
    draft.drop_guest(guest.id)


# ---- tickets


def _refuse_ticket(draft: Draft, guest: GuestRecord, host: HostRecord) -> list[str]:
    view = draft.view(host.name)
    why = []
    if not view.session:
        why.append(f"{host.name} is not connected")
    if view.acked_epoch != draft.cluster.epoch:
        why.append(f"{host.name} has not acknowledged epoch {draft.cluster.epoch}")
    busy = next((p for _, p in draft.pendings_of(guest.id) if p.kind in TICKETED), None)
    if busy is not None:
        why.append(f"a {busy.kind} of {guest.name} on {busy.host} has not ended")
    return why


def _ticket(draft: Draft, kind: TicketKind, guest: GuestRecord, host: HostRecord, generation: int) -> Ticket:
    return Ticket(
        id=draft.next_id("ticket"),
        kind=kind,
        guest=guest.id,
        name=guest.name,
        generation=generation,
        host=host.name,
        boot_id=host.boot_id,
        epoch=draft.cluster.epoch,
        leader_id=draft.cluster.leader_id,
        session=draft.view(host.name).session,
        # The revision of the commit that will hold this decision: there is one writer, and it adds one.
        revision=draft.state.revision + draft.cluster.revision_offset + 1,
    )


def _refuse_host(draft: Draft, guest: GuestRecord, host: HostRecord) -> list[str]:
    """What stands against bringing it to that host, beyond the ticket itself."""
    why = _refuse_ticket(draft, guest, host)
    if reason := hold(draft):
        why.append(reason)
    if host.phase is not HostPhase.ONLINE:
        why.append(f"{host.name} is {host.phase}")
    if not host.facts.hook.proven or host.protected_version != draft.cluster.protected_version:
        why.append(f"{host.name} does not guard {guest.name} yet")
    if not guest.definition:
        why.append(f"no definition of {guest.name} is stored")
    return why


def issue_start(draft: Draft, guest: GuestRecord, host: HostRecord, *, operation: str = "") -> list[str]:
    """A start ticket, if nothing stands against it: returns every objection, [] when the ticket is out."""
    why = _refuse_host(draft, guest, host)
    if guest.may_run_on:
        where = ", ".join(sorted({place.host for place in guest.may_run_on}))
        why.append(f"{guest.name} may still run on {where}")
    if why:
        return why
    generation = guest.generation + 1
    guest = add_place(draft, guest, host, generation)
    text = f"starts on {host.name}"
    guest = move_guest(draft, guest, GuestEvent.TICKET, text, operation=operation, tried_on=host.name)
    ticket = _ticket(draft, TicketKind.START, guest, host, generation)
    timers = draft.config.timers
    draft.wait_for(
        ticket.id,
        Pending(
            kind="start",
            host=host.name,
            guest=guest.id,
            at=draft.now,
            deadline=draft.now + timers.start_s,
            operation=operation,
            generation=generation,
        ),
    )
    draft.effect(
        SendStart(
            id=ticket.id, host=host.name, session=ticket.session, ticket=ticket, version=guest.definition
        )
    )
    return []


def why_not_stop(draft: Draft, guest: GuestRecord, host: HostRecord) -> list[str]:
    """Every objection against a destroy ticket for it there."""
    why = _refuse_ticket(draft, guest, host)
    if {place.host for place in guest.may_run_on} != {host.name}:
        why.append(f"{guest.name} is not known to run on {host.name} alone")
    return why


def issue_stop(
    draft: Draft,
    guest: GuestRecord,
    host: HostRecord,
    mode: StopMode,
    *,
    operation: str = "",
    timeout_s: float | None = None,
) -> list[str]:
    """A destroy ticket for the holder. The place stays until the agent has testified.

    `timeout_s`: that it has to shut down, in place of what the configuration says.
    """
    if why := why_not_stop(draft, guest, host):
        return why
    generation = guest.generation + 1
    guest = add_place(draft, guest, host, generation)
    guest = move_guest(draft, guest, GuestEvent.STOP, f"is being stopped on {host.name}", operation=operation)
    ticket = _ticket(draft, TicketKind.DESTROY, guest, host, generation)
    if timeout_s is None:
        timeout_s = draft.config.timers.stop_s
    draft.wait_for(
        ticket.id,
        Pending(
            kind="stop",
            host=host.name,
            guest=guest.id,
            at=draft.now,
            deadline=draft.now + timeout_s + draft.config.timers.testify_s,
            operation=operation,
            generation=generation,
        ),
    )
    body = Stop(ticket=ticket, mode=mode, timeout_s=timeout_s)
    draft.effect(Send(id=ticket.id, host=host.name, session=ticket.session, body=body))
    return []


def issue_clean(draft: Draft, guest: GuestRecord, host: HostRecord) -> list[str]:
    """Archive and undefine what is left of a guest on a host that does not hold it.

    Only while exactly one other place is in the set and its host says that the guest runs there now.
    """
    why = _refuse_ticket(draft, guest, host)
    holder = sole_holder(draft, guest)
    if guest.phase is not GuestPhase.RUNNING or holder in ("", host.name):
        why.append(f"{guest.name} is not proven to run elsewhere")
    if why:
        return why
    # A generation of its own, so that the ticket is above any seal; the holder's generation is not touched.
    ticket = _ticket(draft, TicketKind.UNDEFINE, guest, host, guest.generation + 1)
    draft.put_guest(changed(guest, generation=guest.generation + 1))
    draft.wait_for(
        ticket.id,
        Pending(
            kind="clean",
            host=host.name,
            guest=guest.id,
            at=draft.now,
            deadline=draft.now + draft.config.timers.start_s,
            generation=ticket.generation,
        ),
    )
    clean = Clean(ticket=ticket, remove_disks=guest.policy.remove_old_disks)
    draft.effect(Send(id=ticket.id, host=host.name, session=ticket.session, body=clean))
    return []


# ---- tickets of a migration


def _order(draft: Draft, order: Order, kind: str, deadline_s: float, operation: str = "") -> None:
    """A ticket goes out, and its answer is waited for."""
    ticket = order.ticket
    draft.wait_for(
        ticket.id,
        Pending(
            kind=kind,
            host=ticket.host,
            guest=ticket.guest,
            at=draft.now,
            deadline=draft.now + deadline_s,
            operation=operation,
            generation=ticket.generation,
        ),
    )
    draft.effect(Send(id=ticket.id, host=ticket.host, session=ticket.session, body=order))


def issue_receive(
    draft: Draft, guest: GuestRecord, source: HostRecord, host: HostRecord, move: Move
) -> list[str]:
    """Begins a migration: the destination's place, durably, and leave to let it in. Every objection, or []."""
    why = _refuse_host(draft, guest, host)
    if guest.phase is not GuestPhase.RUNNING or sole_holder(draft, guest) != source.name:
        why.append(f"{guest.name} is not known to run on {source.name} alone")
    if draft.view(source.name).acked_epoch != draft.cluster.epoch:
        why.append(f"{source.name} has not acknowledged epoch {draft.cluster.epoch}")
    if host.name == source.name:
        why.append(f"{guest.name} runs on {host.name} already")
    if why:
        return why
    generation = guest.generation + 1
    guest = add_place(draft, guest, host, generation)
    move = changed(
        move,
        stage=MoveStage.RECEIVING,
        source_boot=source.boot_id,
        destination=host.name,
        destination_boot=host.boot_id,
        received=generation,
        disks=guest.needs.local,
        began=draft.now,
        at=draft.now,
    )
    text = f"moves from {source.name} to {host.name}"
    guest = move_guest(draft, guest, GuestEvent.MOVE, text, operation=move.operation, move=move)
    ticket = _ticket(draft, TicketKind.RECEIVE, guest, host, generation)
    timers = draft.config.timers
    order = Receive(ticket=ticket, source=source.name, disks=guest.needs.local)
    wait_s = timers.testify_s + (IMAGES_S if order.disks else 0.0)
    _order(draft, order, "receive", wait_s, move.operation)
    return []


def why_not_copy(draft: Draft, guest: GuestRecord, source: HostRecord, host: HostRecord) -> list[str]:
    """Every objection against copying its disks from the one to the other now, while it is off."""
    why = [*_refuse_ticket(draft, guest, source), *_refuse_host(draft, guest, host)]
    if guest.may_run_on:
        where = ", ".join(sorted({place.host for place in guest.may_run_on}))
        why.append(f"{guest.name} may still run on {where}")
    if guest.disks_on != source.name:
        why.append(f"the newest disks of {guest.name} are not known to be on {source.name}")
    facts = draft.view(source.name).guests.get(guest.id)
    if facts is not None and facts.digest not in ("", guest.digest):  # over there the stored one is started
        why.append(
            f"{source.name} has another definition of {guest.name} than is stored; it is asked for now"
        )
    if source.protected_version != draft.cluster.protected_version:
        why.append(f"{source.name} does not guard {guest.name} yet")
    if host.name == source.name:
        why.append(f"the disks of {guest.name} are on {host.name} already")
    if not host.facts.copy_port:
        why.append(f"the agent of {host.name} takes no disks of guests that are off: upgrade it")
    return list(dict.fromkeys(why))


def issue_copy(
    draft: Draft,
    guest: GuestRecord,
    source: HostRecord,
    host: HostRecord,
    move: Move,
    *,
    addresses: tuple[str, ...],
) -> list[str]:
    """Its local disks are copied, while it runs nowhere. Every objection, or [].

    Both ends enter its set: from neither copy it is started until each has testified that its part has ended.
    """
    if why := why_not_copy(draft, guest, source, host):
        return why
    guest = add_place(draft, guest, source, guest.generation + 1)
    send = _ticket(draft, TicketKind.SEND, guest, source, guest.generation)
    guest = add_place(draft, guest, host, guest.generation + 1)
    take = _ticket(draft, TicketKind.TAKE, guest, host, guest.generation)
    move = changed(
        move,
        stage=MoveStage.SENDING,
        source=source.name,
        source_boot=source.boot_id,
        destination=host.name,
        destination_boot=host.boot_id,
        job=send.id,
        taking=take.id,
        disks=guest.needs.local,
        began=move.began or draft.now,
        at=move.at if move.stage is MoveStage.SENDING else draft.now,
        tries=move.tries + 1,
        retry_at=0.0,
        broke="",
    )
    text = f"its disks are copied to {host.name} from {source.name}"
    if guest.phase is GuestPhase.MIGRATING:  # again
        draft.put_guest(changed(guest, move=move, reason=text))
    else:
        move_guest(draft, guest, GuestEvent.MOVE, text, operation=move.operation, move=move)
    taking = TakeDisks(ticket=take, source=source.name, disks=move.disks)
    sending = SendDisks(
        ticket=send,
        copy=take.id,
        to=host.name,
        addresses=addresses,
        port=host.facts.copy_port,
        disks=move.disks,
        mib_s=guest.policy.move_mib_s,
    )
    patience_s = guest.policy.move_s + draft.config.timers.stop_s
    _order(draft, taking, "take", patience_s, move.operation)
    _order(draft, sending, "send", patience_s, move.operation)
    return []


def disks_arrived(draft: Draft, guest: GuestRecord) -> GuestRecord:
    """An agent's word on this very copying: all disks are over there, whole, and what stays behind is old."""
    move = guest.move
    assert move is not None
    if move.copied:
        return guest
    text = f"{guest.name}: its newest disks are on {move.destination}: all were read there again"
    draft.note("guest.disks", text, host=move.destination, guest=guest.id, operation=move.operation)
    guest = changed(guest, disks_on=move.destination, move=changed(move, copied=True))
    draft.put_guest(guest)
    return guest


def issue_migrate(
    draft: Draft, guest: GuestRecord, source: HostRecord, addresses: tuple[str, ...]
) -> list[str]:
    """The source sends it. Only while exactly both ends are in the set, and the destination waits for it."""
    move = guest.move
    assert move is not None
    why = _refuse_ticket(draft, guest, source)
    if reason := hold(draft):
        why.append(reason)
    ends = {(move.source, move.source_boot), (move.destination, move.destination_boot)}
    if move.stage is not MoveStage.RECEIVING or places(guest) != ends:
        why.append(f"{guest.name} does not stand between {move.source} and {move.destination}")
    if not seen_active(draft, guest.id, source.name, move.source_boot):
        why.append(f"{guest.name} is not seen on {source.name} now")
    if why:
        return why
    generation = guest.generation + 1
    guest = add_place(draft, guest, source, generation)
    ticket = _ticket(draft, TicketKind.MIGRATE, guest, source, generation)
    suspended = draft.view(source.name).guests[guest.id].suspended
    move = changed(move, stage=MoveStage.COPYING, job=ticket.id, at=draft.now, suspended=suspended)
    draft.put_guest(changed(guest, move=move))
    policy = guest.policy
    order = Migrate(
        ticket=ticket,
        to=move.destination,
        addresses=addresses,
        data_address=draft.require_host(move.destination).facts.migration_address,
        timeout_s=policy.move_s,
        sending=policy.sending,
        disks=move.disks,
        suspended=suspended,
    )
    _order(draft, order, "migrate", policy.move_s + draft.config.timers.stop_s, move.operation)
    return []


def issue_resume(draft: Draft, guest: GuestRecord, host: HostRecord) -> list[str]:
    """Its CPUs may run: there alone, and only where its memory is as new as its disk (rule 2).

    At the destination after the source's testimony that this very job took it away; at the source, which may have been
    left paused at the switch-over, once the copy is proven gone and was never resumed.
    """
    move = guest.move
    assert move is not None
    why = _refuse_ticket(draft, guest, host)
    if reason := hold(draft):
        why.append(reason)
    here = (host.name, host.boot_id)
    forward = move.stage is MoveStage.MIGRATED and here == (move.destination, move.destination_boot)
    back = move.stage is MoveStage.UNDOING and here == (move.source, move.source_boot) and not move.ran
    if guest.phase is not GuestPhase.MIGRATING or not (forward or back) or places(guest) != {here}:
        why.append(f"{guest.name} may not be resumed on {host.name}")
    if why:
        return why
    generation = guest.generation + 1
    guest = add_place(draft, guest, host, generation)
    if forward:
        move = changed(move, stage=MoveStage.RESUMING, at=draft.now, tries=move.tries + 1)
        guest = changed(guest, disks_on=host.name)  # it may write to those from now on
    draft.put_guest(changed(guest, move=move))
    ticket = _ticket(draft, TicketKind.RESUME, guest, host, generation)
    order = Resume(ticket=ticket, suspended=forward and move.suspended)
    _order(draft, order, "resume", draft.config.timers.start_s, move.operation)
    return []


def issue_discard(draft: Draft, guest: GuestRecord, host: HostRecord) -> list[str]:
    """Destroy a copy: of a move that is undone, or one that nothing accounts for. Its place stays until a proof."""
    move = guest.move if guest.phase is GuestPhase.MIGRATING else None
    why = _refuse_ticket(draft, guest, host)
    facts = draft.view(host.name).guests.get(guest.id)
    stray = facts is not None and facts.part in COPIES and (move is None or host.name != move.source)
    undone = move is not None and move.stage is MoveStage.UNDOING and host.name == move.destination
    expected = move is not None and host.name == move.destination
    if move is not None and move.ran and places(guest) == {(move.source, move.source_boot)}:
        # What stands at the source, and whose copy has run.
        undone = move.stage is MoveStage.UNDOING and host.name == move.source
    if (host.name, host.boot_id) not in places(guest) or not (undone or (stray and not expected)):
        why.append(f"no copy of {guest.name} on {host.name} is to be destroyed")
    if why:
        return why
    draft.put_view(host.name, cleaned=draft.view(host.name).cleaned | {guest.id: draft.now})
    generation = guest.generation + 1
    guest = add_place(draft, guest, host, generation)
    ticket = _ticket(draft, TicketKind.DISCARD, guest, host, generation)
    order = Discard(ticket=ticket, remove_images=_worth_nothing(draft, guest, host))
    _order(draft, order, "discard", draft.config.timers.start_s)
    return []


def _worth_nothing(draft: Draft, guest: GuestRecord, host: HostRecord) -> bool:
    """Whether what lies there of its local disks is surely no copy that anybody could need.

    It never may have run from them; and they have not arrived whole, or it is seen to run from others. Else they are
    kept: its source may never come back, and a person may say that it is to start from them.
    """
    if guest.disks_on in ("", host.name):
        return False
    facts = draft.view(host.name).guests.get(guest.id)
    if facts is not None and facts.part is Part.ARRIVING:
        return True
    others = (place for place in guest.may_run_on if place.host != host.name)
    return any(seen_active(draft, guest.id, place.host, place.boot_id) for place in others)


def discarded_lately(draft: Draft, guest: GuestRecord, host: HostRecord) -> bool:
    """Whether that host was told to destroy its copy so short a time ago that it is not told again."""
    return draft.now - draft.view(host.name).cleaned.get(guest.id, -ASK_AGAIN_S) < ASK_AGAIN_S
