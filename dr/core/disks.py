"""Disks that only a guest's own host has: where such a guest may start, where it may be sent, and what that copies.

One rule carries it: from cold it starts on the host with the newest copy (`GuestRecord.disks_on`), and nowhere else,
whatever is proven of other hosts. A host has the newest copy once the guest is seen to run there, or a resume ticket
for it was issued there; both are written by `core.onecopy` and `core.guests`. A live move copies the disks along, so it
may go wherever their folders are and have room. Here: reading. Not here: images and what becomes of them (the agents).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil

from dr.core.state import Draft
from dr.model.base import HostName
from dr.model.facts import Base
from dr.model.records import GuestPhase, GuestRecord, HostRecord

MIB = 2**20


def to_copy_mib(guest: GuestRecord) -> int:
    """What a live move of it copies of its disks, as its host last told."""
    return ceil(sum(disk.used_b for disk in guest.needs.local) / MIB)


def why_not_cold(guest: GuestRecord, name: HostName) -> str:
    """Why it may not be started from cold on that host; "" = its disks do not stand against it."""
    if not guest.needs.local or guest.disks_on == name:
        return ""
    if not guest.disks_on:
        return (
            f"is not known to have the newest copy of {guest.name}'s disks, and no host is: a person must say which one"
            f" has it (dr guest start {guest.name} --disks-on HOST)"
        )
    return f"does not have {guest.name}'s disks, which lie on {guest.disks_on} only"


def todo(guest: GuestRecord) -> str:
    """What lets it start, where its disks stand against it; "" = it has none that only one host has."""
    if not guest.needs.local:
        return ""
    restored = f"dr guest start {guest.name} --disks-on HOST"
    if not guest.disks_on:
        return f"say which host has its newest disks: {restored}"
    return f"bring {guest.disks_on} back, it starts there then; or restore its disks on another host, then: {restored}"


def why_no_room(draft: Draft, guests: Iterable[GuestRecord], host: HostRecord) -> Iterator[str]:
    """Of guests that would be sent there: each folder without room for their disks. Folders it lacks are `fleet`'s."""
    together = tuple(guests)
    ids = {guest.id for guest in together}
    needed: dict[str, int] = {}
    for guest in together:
        moves = guest.phase is GuestPhase.MIGRATING  # they are there already, or nearly
        there = moves and guest.move is not None and guest.move.destination == host.name
        if not there:
            _add(needed, guest)
    if not needed:
        return
    coming: dict[str, int] = {}
    for guest_id in draft.guests_at(host.name):
        other = draft.guest(guest_id)
        if other is not None and other.id not in ids and other.phase is GuestPhase.MIGRATING:
            _add(coming, other)
    for folder, need_mib in sorted(needed.items()):
        have_mib = host.facts.room_mib.get(folder)
        if have_mib is None:
            continue
        free_mib = max(0, have_mib - coming.get(folder, 0))
        if need_mib > free_mib:
            yield f"has {free_mib} MiB free in {folder}, and {need_mib} MiB of disks would be copied there"


def unread(guest: GuestRecord, host: HostRecord) -> tuple[Base, ...]:
    """What its disks lie on, and that host does not say just now that it has it: it may be reading it."""
    return tuple(base for base in guest.needs.bases if base.identity not in host.facts.storage)


def why_no_bases(draft: Draft, guest: GuestRecord, host: HostRecord) -> Iterator[str]:
    """What its disks lie on, and the host that they would be sent to is not known to have: each file by its content."""
    source = draft.host(guest.disks_on or guest.holder)
    at_source = unread(guest, source) if source is not None else ()
    there = f"on {source.name}" if source is not None else "where its disks are"
    for base in guest.needs.bases:
        if base in at_source:
            yield f"is not known to have the same {base.path} as is {there}, where it is being read"
        elif base in unread(guest, host):
            yield f"has no {base.path} with the same content as {there}, or has not read it yet"


def _add(sums: dict[str, int], guest: GuestRecord) -> None:
    for disk in guest.needs.local:
        sums[disk.folder] = sums.get(disk.folder, 0) + ceil(disk.used_b / MIB)
