"""Plans that a person approved: what was foretold of each guest, and what that rests on. Not here: the file."""

from __future__ import annotations

from typing import Literal

from dr.model.base import GuestId, HostName, Record
from dr.model.records import Desired, GuestRecord, Rung

Fate = Literal["live", "blocked", "left"]  # it moves, keeps the host from getting empty, or may stay


class Terms(Record):
    """What of a guest's policy decides how it leaves, and whether it is stopped for a deadline."""

    desired: Desired = Desired.RUNNING
    priority: int = 100
    move_s: float = 3600.0
    move_downtime_s: float = 1.0
    move_auto_converge: bool = True
    move_mib_s: int = 0
    move_streams: int = 1
    local_disks: bool = False
    remove_old_disks: bool = False


def terms_of(guest: GuestRecord) -> Terms:
    policy = guest.policy
    return Terms(
        desired=guest.desired,
        priority=policy.priority,
        move_s=policy.move_s,
        move_downtime_s=policy.move_downtime_s,
        move_auto_converge=policy.move_auto_converge,
        move_mib_s=policy.move_mib_s,
        move_streams=policy.move_streams,
        local_disks=policy.local_disks,
        remove_old_disks=policy.remove_old_disks,
    )


class Approved(Record):
    """What a plan says of one guest; its turn is its place among the others."""

    guest: GuestId
    name: str
    host: HostName  # that it leaves
    fate: Fate
    to: HostName = ""
    rung: Rung | None = None  # that its move ends on; None: not foretold
    late: str = ""  # where it would not leave live before the deadline: what becomes of it
    terms: Terms | None = None  # None: nobody protects it
