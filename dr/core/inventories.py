"""Inventories: what a host reports to run, beside what is known of the guests that are, or should be, there.

Here: guests that are seen, seen twice, paused, or not seen any more; facts are followed, never fought. Level-triggered:
the same inventory may be compared any number of times. Not here: what follows for the guest (`guests`), its host's word
that it does not run there (`onecopy.accept_testimony`).
"""

from __future__ import annotations

from dr.core import definitions, handmade, onecopy
from dr.core.guests import gone, running_on
from dr.core.state import Draft
from dr.core.tables import GuestEvent, move_guest, say
from dr.core.whereabouts import COPIES, ask_testimony, seen_active, sole_holder
from dr.model.base import HostName, changed
from dr.model.facts import DomainState, GuestFacts
from dr.model.records import GuestPhase, GuestRecord, HostRecord

SUSPENDED = "was suspended by hand"
AFTER_START_S = 1.0  # an inventory that comes this soon after a change may have been taken before it


def observe(draft: Draft, host: HostRecord) -> None:
    """Compare a host's inventory with what is known of the guests that are, or should be, there."""
    view = draft.view(host.name)
    if not view.inventory or view.acked_epoch != draft.cluster.epoch:
        return
    for guest_id, facts in view.guests.items():
        guest = draft.guest(guest_id)
        if guest is not None and facts.active:
            _seen_active(draft, guest, host, facts)
        elif guest is not None and guest.needs.local and not guest.may_run_on and guest.disks_on == host.name:
            definitions.want(draft, guest, host, facts)  # its disks may leave from here while it is off
    for guest_id in draft.guests_at(host.name):
        guest = draft.guest(guest_id)
        seen = view.guests.get(guest_id)
        if guest is not None and (seen is None or not seen.active):
            _seen_inactive(draft, guest, host, seen)


def _seen_active(draft: Draft, guest: GuestRecord, host: HostRecord, facts: GuestFacts) -> None:
    at = [place for place in guest.may_run_on if (place.host, place.boot_id) == (host.name, host.boot_id)]
    if not at:
        # Started round us (an emergency override, a hook that was not there). It runs: so it is in the set.
        guest = onecopy.add_place(draft, guest, host, guest.generation)
        draft.note(
            "guest.found",
            f"{guest.name}: found running on {host.name}, where nothing of ours started it",
            host=host.name,
            guest=guest.id,
        )
    move = guest.move if guest.phase is GuestPhase.MIGRATING else None
    if facts.part in COPIES and (move is None or host.name != move.destination):
        if not onecopy.discarded_lately(draft, guest, host):  # rule 7; what stands against it passes
            onecopy.issue_discard(draft, guest, host)
        return
    running = [p.host for p in guest.may_run_on if seen_active(draft, guest.id, p.host, p.boot_id)]
    if move is not None:  # a copy that stands still is none that runs, even where its agent forgot what it is
        copy = draft.view(move.destination).guests.get(guest.id)
        running = [name for name in running if name != move.destination or (copy is not None and copy.runs)]
    if len(running) > 1 and guest.phase is not GuestPhase.ERROR:
        _doubled(draft, guest, running)
        return
    if move is not None:
        return  # `core.migration` brings it to its end
    if sole_holder(draft, guest) == host.name:
        busy = draft.find_pending("stop", guest=guest.id) or draft.find_pending("start", guest=guest.id)
        # `step` asks for more than to be seen: a protection that begins, a stop whose end may not be told yet.
        begins = guest.phase in (GuestPhase.PROTECTING, GuestPhase.STOPPING)
        if not begins and guest.phase not in (GuestPhase.RUNNING, GuestPhase.ERROR) and not busy:
            guest = running_on(draft, guest, host.name, f"runs on {host.name}")
        elif guest.holder != host.name:
            draft.moves += (
                1  # here too: its start may be seen before it is answered, and every host must learn of it
            )
            guest = changed(guest, holder=host.name, disks_on=host.name)
            draft.put_guest(guest)
        _paused_for_io(draft, guest, host, facts)
        _suspended(draft, guest, host, facts)
        handmade.review(draft, guest)
    if host.name == guest.holder or guest.phase is GuestPhase.PROTECTING:
        definitions.want(draft, guest, host, facts)


def _doubled(draft: Draft, guest: GuestRecord, running: list[HostName]) -> None:
    where = " and ".join(sorted(running))
    text = f"seen running on {where} at once"
    draft.alert(
        f"guest/{guest.id}/doubled",
        f"{guest.name} runs twice: on {where}",
        "its disk may be damaged already; neither copy is provably right, so none is stopped by itself",
        f"decide which copy is right, stop the other one on its host (virsh destroy {guest.name}), check its disk, "
        f"then: dr guest start {guest.name}",
        severity="critical",
    )
    # Both wrote to disks of their own, where those are local: which of them counts is for a person to say.
    move_guest(draft, guest, GuestEvent.DOUBLED, text, disks_on="")


def _paused_for_io(draft: Draft, guest: GuestRecord, host: HostRecord, facts: GuestFacts) -> None:
    key = f"guest/{guest.id}/io-error"
    if facts.state is DomainState.PAUSED and facts.reason == "ioerror":
        draft.alert(
            key,
            f"{guest.name} is paused on {host.name} by an I/O error",
            "its storage failed or is full; starting it elsewhere would meet the same disk",
            f"repair the storage, then on {host.name}: virsh resume {guest.name}",
        )
    else:
        draft.clear_alert(key)


def _suspended(draft: Draft, guest: GuestRecord, host: HostRecord, facts: GuestFacts) -> None:
    """By hand: its owner's doing, so it is only said."""
    now = draft.guest(guest.id) or guest
    if now.phase is not GuestPhase.RUNNING:
        return
    if facts.suspended and not now.reason.startswith(SUSPENDED):
        say(draft, now, f"{SUSPENDED} on {host.name} (virsh resume {guest.name} lets it go on)")
    elif not facts.suspended and now.reason.startswith(SUSPENDED):
        say(draft, now, f"runs on {host.name}")


def _seen_inactive(draft: Draft, guest: GuestRecord, host: HostRecord, facts: GuestFacts | None) -> None:
    """Its host does not see it running. Whether it ended or never began, the set still needs a proof."""
    if guest.phase is GuestPhase.STOPPED:  # at rest, and yet not proven to run nowhere: an answer was lost
        ask_testimony(draft, host, [guest])
    if guest.phase is not GuestPhase.RUNNING:
        return
    elsewhere = any(seen_active(draft, guest.id, p.host, p.boot_id) for p in guest.may_run_on)
    if guest.holder != host.name or elsewhere:  # something of it was here once: the set still needs a proof
        ask_testimony(draft, host, [guest])
        return
    if draft.now < guest.since + AFTER_START_S:
        return
    if draft.view(host.name).guests_at <= guest.since:
        ask_testimony(
            draft, host, [guest]
        )  # an older inventory: perhaps it ended before its start was answered
        return
    gone(draft, guest, host, facts)
