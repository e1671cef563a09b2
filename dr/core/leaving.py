"""Hosts that announce their own shutdown or reboot, and what becomes of their guests by policy.

From the announcement on, guests that end there are ended by their host, not by their owner, and its silence is what was
announced: nobody is alarmed and nothing is fenced for as long as going down (or, where guests are held, coming back)
may take. Places still need their proof: an agent's testimony, power that reads off, or the newer boot.
Not here: how guests are moved away beforehand (`core.departures`).
"""

from __future__ import annotations

from dr.core import checks, departures, homing, moves, placement
from dr.core.state import Draft
from dr.core.tables import GuestEvent, move_guest
from dr.core.volatile import Bidden
from dr.model.base import HostName, changed
from dr.model.commands import STAY_S, Stay
from dr.model.effects import Send
from dr.model.facts import ISOLATED, GuestFacts
from dr.model.operations import Operation
from dr.model.policy import OnLeave
from dr.model.records import Condition, Desired, GuestPhase, GuestRecord, HostPhase, HostRecord, MoveStage

ENDED_BY_HOST = (
    "",
    "shutdown",
    "destroyed",
    "saved",
)  # as libvirt-guests, or the end of libvirtd, leaves them
STAY_AGAIN_S = STAY_S / 3
STUCK_S = 30.0  # nobody was on the way from it for so long, nor could have been: nothing is waited for
UNDECIDED = (GuestPhase.RECOVERING, GuestPhase.STARTING, GuestPhase.UNKNOWN, GuestPhase.MIGRATING)


# ---- the announcement


def announced(draft: Draft, host: HostRecord, kind: str) -> None:
    """Its agent says that the host goes down, or (with no kind) that it stays after all."""
    if kind == host.leaving:
        return
    if not kind:
        back_in_use(draft, host, "the shutdown was called off")
        return
    policy = policy_of(draft, host)
    draft.note("host.leaving", f"{host.name}: announces its {kind}; its guests: {policy}", host=host.name)
    draft.put_host(changed(host, leaving=kind, leaving_at=host.leaving_at or draft.now))
    here = [guest.id for guest in _guests_of(draft, host) if guest.desired is Desired.RUNNING]
    if here and operation_of(draft, host.name) is None and host.phase is not HostPhase.MAINTENANCE:
        draft.open_operation(
            "leave", host.name, f"{host.name} announced its {kind}; policy {policy}", guests=here
        )


def back_in_use(draft: Draft, host: HostRecord, why: str) -> HostRecord:
    """It no longer goes down: its boot is over, or it changed its mind. Guests that run there are not held any more."""
    if host.leaving:
        draft.note("host.stays", f"{host.name}: {why}", host=host.name)
    for guest in _guests_of(draft, host):
        if guest.held_at == host.name and guest.phase is GuestPhase.RUNNING:
            draft.put_guest(changed(guest, held_at=""))
    host = changed(host, leaving="", leaving_at=0.0)
    draft.put_host(host)
    return host


def policy_of(draft: Draft, host: HostRecord) -> OnLeave:
    return draft.policy(host.name).on_leave or draft.config.on_leave


def _guests_of(draft: Draft, host: HostRecord) -> list[GuestRecord]:
    return [guest for key in draft.guests_at(host.name) if (guest := draft.guest(key)) is not None]


# ---- what it explains


def patience(draft: Draft, host: HostRecord) -> str:
    """Why its silence is no cause to fence it or to wake anybody yet; "" = judge it like any other."""
    if not host.leaving:
        return ""
    timers = draft.config.timers
    hold = policy_of(draft, host) is OnLeave.HOLD
    last = max(draft.view(host.name).heard, host.leaving_at, draft.state.started_at)
    if draft.now - last >= (timers.hold_s if hold else timers.leave_s):
        return ""
    return f"silent since it announced its {host.leaving}" + ("; its guests are held for it" if hold else "")


def ended_by_host(host: HostRecord, facts: GuestFacts | None) -> str:
    """How a guest that ended there was ended by its host, not by its owner; "" = it was not."""
    if facts is not None and facts.reason == ISOLATED:
        return f"was shut down by {host.name} while that was isolated, as its policy says"
    if host.leaving and (facts is None or facts.reason in ENDED_BY_HOST):
        return f"ended with {host.name}, which announced its {host.leaving}"
    return ""


def lose(draft: Draft, guest: GuestRecord, host: HostRecord, text: str) -> GuestRecord:
    """It ended with its host: to be recovered, here or elsewhere, and no restart of its own is counted."""
    operation = operation_of(draft, host.name)
    return move_guest(
        draft,
        guest,
        GuestEvent.CRASHED,
        text,
        operation=operation.id if operation else "",
        avoid=(),
        retry_at=draft.now,
        homing=homing.taken_from(guest, host.name),
    )


# ---- guests that are held


def step(draft: Draft, host: HostRecord) -> None:
    """Move its guests away while there is time, and have it wait; or keep them its own until it is back."""
    if not host.leaving:
        return
    policy, operation = policy_of(draft, host), operation_of(draft, host.name)
    if operation is not None and moves_away(draft, host):
        departures.send_away(draft, [departures.Emptying(host, _guests_of(draft, host), operation)])
    _bid(draft, host, operation)
    if policy is not OnLeave.HOLD:
        return
    for guest in _guests_of(draft, host):
        mine = guest.holder == host.name and guest.desired is Desired.RUNNING
        if mine and guest.phase is GuestPhase.RUNNING and guest.held_at != host.name:
            draft.put_guest(changed(guest, held_at=host.name))


def moves_away(draft: Draft, host: HostRecord) -> bool:
    """Whether there is time yet to move its guests live, as policy wants it."""
    in_time = draft.now - host.leaving_at < draft.config.timers.leave_drain_s
    migrates = bool(host.leaving) and policy_of(draft, host) is OnLeave.MIGRATE
    return migrates and in_time and bool(draft.view(host.name).session)


def _bid(draft: Draft, host: HostRecord, operation: Operation | None) -> None:
    """Tell its agent to hold the shutdown up for as long as guests leave, again and again; then that it may go on."""
    view = draft.view(host.name)
    if not view.session:
        return
    wait = moves_away(draft, host) and _leave_still(draft, host)
    told = view.bidden
    if told.wait is wait and not (wait and draft.now - told.at >= STAY_AGAIN_S):
        return
    if told.wait and not wait:
        here = [guest.name for guest in _guests_of(draft, host) if guest.holder == host.name]
        left = f"; still there: {', '.join(here)}" if here else ""
        operation_id = operation.id if operation is not None else ""
        text = f"{host.name}: its {host.leaving} is not held up any longer{left}"
        draft.note("host.goes", text, host=host.name, operation=operation_id)
    draft.put_view(host.name, bidden=Bidden(wait=wait, at=draft.now))
    body = Stay(for_s=STAY_S if wait else 0.0)
    draft.effect(Send(id=draft.next_id("stay"), host=host.name, session=view.session, body=body))


def _leave_still(draft: Draft, host: HostRecord) -> bool:
    """Whether somebody is on the way from it, or could be when hosts get free; or was so a moment ago."""
    here = _guests_of(draft, host)
    view = draft.view(host.name)
    if any(
        guest.move is not None and guest.move.source == host.name and _on_its_way(guest) for guest in here
    ):
        draft.put_view(host.name, left_at=draft.now)
        return True
    waiting = [
        guest for guest in here if guest.phase is GuestPhase.RUNNING and guest.desired is Desired.RUNNING
    ]
    if waiting and draft.now - view.judged_leaving_at >= departures.AGAIN_S:
        some = waiting[: departures.FIRST_MAX]
        free = any(not moves.objections_together(draft, guest) for guest in some)
        left_at = draft.now if free else view.left_at
        draft.put_view(host.name, judged_leaving_at=draft.now, left_at=left_at)
    since = max(draft.view(host.name).left_at, host.leaving_at, draft.state.started_at)
    return bool(waiting) and draft.now - since < STUCK_S


def _on_its_way(guest: GuestRecord) -> bool:
    return guest.move is not None and guest.move.stage not in (MoveStage.QUEUED, MoveStage.UNDOING)


def home_of(draft: Draft, guest: GuestRecord) -> HostName:
    """The host that a waiting guest is held for; "" = it may start anywhere.

    Held in vain is not held: for too long, for a host that a person took out of use, or that cannot take it.
    """
    host = draft.host(guest.held_at) if guest.held_at else None
    if host is None or draft.now - guest.since >= draft.config.timers.hold_s:
        return ""
    unwanted = host.cordon is not None or host.drain is not None or Condition.QUARANTINED in host.conditions
    if unwanted or host.name in guest.avoid:
        return ""
    settled = (
        host.phase is HostPhase.ONLINE
        and not host.leaving
        and host.protected_version == draft.cluster.protected_version
    )
    if settled and draft.view(host.name).session and placement.why_not(draft, guest, host):
        return ""
    return host.name


def in_words(guest: GuestRecord) -> str:
    said = f"is held for {guest.held_at}, which announced that it goes down and is to start it again"
    return said if guest.needs.local else f"{said} (to start it elsewhere now: dr guest start {guest.name})"


# ---- the operation


def operation_of(draft: Draft, host: HostName) -> Operation | None:
    """What was opened at its announcement."""
    return next((op for op in draft.open_operations() if op.kind == "leave" and op.subject == host), None)


def close_if_over(draft: Draft, operation: Operation) -> None:
    """It ends when the host is down or back, and each of its guests runs, or waits for something else."""
    host = draft.host(operation.subject)
    empty = host is not None and host.phase in (HostPhase.FENCED, HostPhase.MAINTENANCE)
    if host is not None and host.leaving and not empty:
        return  # the boot that announced it may still be there, and guests on it
    outcomes: dict[str, str] = {}
    for guest_id in operation.guests:
        guest = draft.guest(guest_id)
        if guest is None:
            outcomes[guest_id] = "no longer protected"
        elif guest.phase is GuestPhase.RUNNING:
            end = checks.after_move(draft, guest) if checks.moved_by(guest, operation) else ""
            outcomes[guest_id] = f"running on {guest.holder}{end}"
        elif guest.phase in UNDECIDED and draft.alert_of(f"guest/{guest.id}/waiting") is None:
            return
        else:
            outcomes[guest_id] = f"{guest.phase}: {guest.reason}"
    bad = [text for text in outcomes.values() if not text.startswith("running")]
    draft.put_operation(changed(operation, guests=outcomes))
    text = f"{len(outcomes) - len(bad)} of {len(outcomes)} guests run, {draft.now - operation.opened:.1f} s after"
    draft.close_operation(operation, "failed" if bad else "done", f"{text} {operation.subject} announced it")
