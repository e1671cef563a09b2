"""Drains that must be over in time: a host on batteries, or one that overheats.

Live what fits, by priority and then the smallest first. Then, rung by rung: nothing begins that would be late; moves
under way that would be late may stand still for as long as is left; what is still there is stopped, cleanly while there
is time for that, and starts elsewhere (or waits for a place) once it is proven stopped. After the deadline nothing is
stopped any more: the host did not go down.
"""

from __future__ import annotations

from typing import NamedTuple

from dr.core import disks, links, migration, moves, quorum
from dr.core.state import Draft
from dr.model.base import changed
from dr.model.operations import Operation
from dr.model.policy import StopMode
from dr.model.records import Desired, GuestPhase, GuestRecord, HostRecord, MoveStage, Wish

PAUSE_S = 30.0  # a guest stands still for no longer than that so that it still moves live
PULL_S = 15.0  # before the deadline, who has not shut down is destroyed
AGAIN_S = 1.0  # between two attempts to stop what is left
SENDING = (MoveStage.RECEIVING, MoveStage.COPYING, MoveStage.UNRESOLVED)


class Rungs(NamedTuple):
    """When each begins, in leader time. Of a short time, each has its part."""

    pause_at: float
    stop_at: float
    pull_at: float


def rungs(draft: Draft, wish: Wish) -> Rungs:
    given_s = wish.deadline - wish.at
    pull_at = wish.deadline - min(PULL_S, given_s / 10)
    stop_at = pull_at - min(draft.config.timers.stop_s, given_s / 3)
    return Rungs(stop_at - min(PAUSE_S, given_s / 6), stop_at, pull_at)


def nearer(draft: Draft, away_s: float) -> None:
    """A new term: leader time stood still, the time that is left of a deadline did not.

    It goes by the wall: a clock that is wrong, or a store that is older than the world, at worst ends the hurry, and
    then nothing is stopped.
    """
    for host in list(draft.hosts()):
        if (wish := host.drain) is not None and hurried(draft, wish) and away_s > 0:
            wish = changed(wish, at=wish.at - away_s, deadline=wish.deadline - away_s)
            draft.put_host(changed(host, drain=wish))


def hurried(draft: Draft, wish: Wish | None) -> bool:
    """Whether that drain has a deadline that is not over."""
    return wish is not None and draft.now < wish.deadline


def too_late(draft: Draft, guest: GuestRecord, wish: Wish) -> str:
    """Why its live move is not begun any more; "" = it would be in time, or no deadline is near.

    Who must share its host goes along, so that one who is late would leave them apart: then all are stopped. A rate
    that is not configured may be wrong: while nothing else uses the link, one is tried all the same.
    """
    if not hurried(draft, wish):
        return ""
    at = rungs(draft, wish)
    rate = links.rates(draft).of(guest.holder)
    # Its own bandwidth may be less than that of the link, and is not doubted.
    least_mib = links.in_use_mib(draft, guest) + disks.to_copy_mib(guest)
    own_s = least_mib / guest.policy.move_mib_s if guest.policy.move_mib_s else 0.0
    takes_s = moves.together_mib(draft, guest) / rate.mib_s
    ends_at = draft.now + max(takes_s, own_s, links.outlook(draft, guest).total_s)
    idle = not links.traffic(draft).leaving.get(guest.holder)
    doubted = rate.basis == "assumed" or (rate.basis == "seen" and idle)
    if ends_at <= at.stop_at or (doubted and draft.now < at.pause_at and draft.now + own_s <= at.stop_at):
        return ""
    if guest.desired is Desired.IGNORED:
        return "would not move live in time: it is left alone, as its desired state is ignored"
    return "would not move live in time: it is stopped before the deadline"


def step(draft: Draft, host: HostRecord, wish: Wish, here: list[GuestRecord], operation: Operation) -> None:
    """Hasten what would be late."""
    if not hurried(draft, wish) or draft.cluster.pause is not None or quorum.hold(draft):
        return
    at = rungs(draft, wish)
    if draft.now < at.pause_at:
        return
    stopping = draft.now >= at.stop_at and draft.now - draft.view(host.name).stopped_at >= AGAIN_S
    if stopping:
        draft.put_view(host.name, stopped_at=draft.now)
    for guest in here:
        move = guest.move
        if guest.phase is GuestPhase.MIGRATING and move is not None and move.stage in SENDING:
            if move.source != host.name or move.why:
                continue
            if draft.now < at.stop_at:
                migration.may_stand_still(draft, guest, at.stop_at - draft.now)
            elif guest.desired is not Desired.IGNORED:  # that is not stopped, so it may as well arrive
                moves.cancel(draft, guest, f"it would be late: {host.name} goes down")
        elif guest.phase is GuestPhase.RUNNING and stopping and guest.desired is not Desired.IGNORED:
            mode: StopMode = "destroy" if draft.now >= at.pull_at else "shutdown"
            moves.take_down(draft, guest, mode, at.pull_at - draft.now, operation=operation.id)
