"""Where a guest belongs, as its record keeps it beyond what rules say. Not here: how it goes home (`core.failback`)."""

from __future__ import annotations

from dr.model.base import HostName, changed
from dr.model.records import GuestRecord, Homing


def taken_from(guest: GuestRecord, host: HostName) -> Homing:
    """A drain or a failover takes it from there: where no host rule is about it, that is its home."""
    if not guest.policy.failback or guest.homing.left:
        return guest.homing
    return changed(guest.homing, left=host)


def arrived(guest: GuestRecord, host: HostName, *, drained: bool) -> Homing:
    """What is to be known when it runs there: a person's move keeps it there, any other lets go of it.

    `drained`: the host that it was on is to be emptied, so that the move is a part of that.
    """
    homing, move = guest.homing, guest.move
    if host == guest.holder and (move is None or host == move.source):
        return homing
    if move is not None and move.asked and not drained:
        return Homing(stays=host)
    if move is not None and move.asked:
        homing = taken_from(guest, move.source)
    return Homing(left="" if homing.left == host else homing.left)
