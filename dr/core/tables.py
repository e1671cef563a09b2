"""The state machines of hosts and guests, as tables. Everything that may change a phase is here.

A pair that is not in a table is a bug in the caller and raises `IllegalTransition`, changing nothing. The
diagrams in docs/architecture.md are rendered from these tables by `python -m dr.core.tables`.
"""

from __future__ import annotations

from enum import StrEnum

from dr.core.state import SETTLED, Draft
from dr.model.base import changed
from dr.model.records import GuestPhase, GuestRecord, HostPhase, HostRecord


class IllegalTransition(AssertionError):
    """A bug: that event cannot happen in that phase."""


class HostEvent(StrEnum):
    LATE = "late"  # its link is silent for too long
    HEARD = "heard"  # the same boot answered a fresh nonce
    HEARD_OLD = "heard_old"  # the same, but what it must do before it counts is not done (again)
    ANSWERS = "answers"  # the link is down, but witnesses hear the host: its agent is lost, not the host
    CONDEMN = "condemn"  # to be fenced
    DEAD = "dead"  # proven dead
    BOOTED = "booted"  # a new boot id said hello
    CLEANED = "cleaned"  # acknowledged the protected list, testified, holds nothing that runs elsewhere
    DOUBTED = "doubted"  # a fencing was cut short by our own restart: judge the host anew
    CONTRADICTED = "contradicted"  # proven dead, and yet the same boot answers a nonce issued afterwards
    DRAIN = "drain"  # a person wants it empty (or still does, now that it counts again)
    EMPTY = "empty"  # nothing that is protected may run there
    OCCUPIED = "occupied"  # in maintenance, and yet a protected guest runs there
    UNDRAIN = "undrain"  # its person wants it back in use


HOST_TABLE: dict[HostPhase, dict[HostEvent, HostPhase]] = {
    HostPhase.JOINING: {
        HostEvent.BOOTED: HostPhase.JOINING,
        HostEvent.CLEANED: HostPhase.ONLINE,
        HostEvent.CONDEMN: HostPhase.FENCING,
        HostEvent.DEAD: HostPhase.FENCED,
    },
    HostPhase.ONLINE: {
        HostEvent.LATE: HostPhase.SUSPECT,
        HostEvent.CONDEMN: HostPhase.FENCING,
        HostEvent.DEAD: HostPhase.FENCED,
        HostEvent.BOOTED: HostPhase.RETURNING,
        HostEvent.DRAIN: HostPhase.DRAINING,
    },
    HostPhase.SUSPECT: {
        HostEvent.HEARD: HostPhase.ONLINE,
        HostEvent.HEARD_OLD: HostPhase.RETURNING,
        HostEvent.ANSWERS: HostPhase.ONLINE,
        HostEvent.CONDEMN: HostPhase.FENCING,
        HostEvent.DEAD: HostPhase.FENCED,
        HostEvent.BOOTED: HostPhase.RETURNING,
    },
    HostPhase.FENCING: {
        HostEvent.HEARD: HostPhase.ONLINE,
        HostEvent.ANSWERS: HostPhase.ONLINE,
        HostEvent.DEAD: HostPhase.FENCED,
        HostEvent.BOOTED: HostPhase.RETURNING,
        HostEvent.DOUBTED: HostPhase.SUSPECT,
    },
    HostPhase.FENCED: {
        HostEvent.BOOTED: HostPhase.RETURNING,
        HostEvent.CONTRADICTED: HostPhase.RETURNING,
        HostEvent.DEAD: HostPhase.FENCED,  # proven again, under a later leader
    },
    # The wish to drain stands in the record: a host that was suspect or fenced meanwhile drains on once it is online.
    HostPhase.DRAINING: {
        HostEvent.LATE: HostPhase.SUSPECT,
        HostEvent.CONDEMN: HostPhase.FENCING,
        HostEvent.DEAD: HostPhase.FENCED,
        HostEvent.BOOTED: HostPhase.RETURNING,
        HostEvent.EMPTY: HostPhase.MAINTENANCE,
        HostEvent.UNDRAIN: HostPhase.ONLINE,
    },
    # Silence, power-off and new boots are what maintenance is for. Before it counts again it is cleaned.
    HostPhase.MAINTENANCE: {
        HostEvent.CONDEMN: HostPhase.FENCING,  # a person's fence, or a fence test
        HostEvent.DEAD: HostPhase.MAINTENANCE,
        HostEvent.BOOTED: HostPhase.MAINTENANCE,
        HostEvent.CONTRADICTED: HostPhase.RETURNING,
        HostEvent.OCCUPIED: HostPhase.DRAINING,
        HostEvent.UNDRAIN: HostPhase.RETURNING,
    },
    HostPhase.RETURNING: {
        HostEvent.CLEANED: HostPhase.ONLINE,
        HostEvent.LATE: HostPhase.SUSPECT,
        HostEvent.CONDEMN: HostPhase.FENCING,
        HostEvent.DEAD: HostPhase.FENCED,
        HostEvent.BOOTED: HostPhase.RETURNING,
    },
}


class GuestEvent(StrEnum):
    SEEN_RUNNING = "seen_running"  # exactly one place is left and its host says it runs there
    SEEN_NOWHERE = "seen_nowhere"  # every place was proven empty
    CRASHED = "crashed"  # its domain ended, and not by its owner
    ENDED = "ended"  # its owner stopped it
    STOP = "stop"  # a stop ticket is out
    START = "start"  # wanted running (again)
    TICKET = "ticket"  # a start ticket is out
    FAILED = "failed"  # the start failed, and the host testified that nothing runs
    UNANSWERED = "unanswered"  # the end of a ticket was not seen
    GAVE_UP = "gave_up"  # retries used up
    REVERIFY = "reverify"  # every place must be asked again: restored store
    DOUBLED = "doubled"  # seen running in two places
    MOVE = "move"  # its live migration begins, or the copying of its disks while it is off


_ALWAYS = {GuestEvent.REVERIFY: GuestPhase.PROTECTING, GuestEvent.DOUBLED: GuestPhase.ERROR}

GUEST_TABLE: dict[GuestPhase, dict[GuestEvent, GuestPhase]] = {
    GuestPhase.PROTECTING: _ALWAYS
    | {
        GuestEvent.SEEN_RUNNING: GuestPhase.RUNNING,
        GuestEvent.SEEN_NOWHERE: GuestPhase.STOPPED,
        GuestEvent.START: GuestPhase.RECOVERING,
    },
    GuestPhase.RUNNING: _ALWAYS
    | {
        GuestEvent.SEEN_NOWHERE: GuestPhase.RECOVERING,
        GuestEvent.CRASHED: GuestPhase.RECOVERING,
        GuestEvent.ENDED: GuestPhase.STOPPED,
        GuestEvent.STOP: GuestPhase.STOPPING,
        GuestEvent.UNANSWERED: GuestPhase.UNKNOWN,
        GuestEvent.MOVE: GuestPhase.MIGRATING,
    },
    GuestPhase.STOPPING: _ALWAYS
    | {
        GuestEvent.START: GuestPhase.RECOVERING,  # it was stopped in order to start elsewhere
        GuestEvent.SEEN_RUNNING: GuestPhase.RUNNING,
        GuestEvent.SEEN_NOWHERE: GuestPhase.STOPPED,
    },
    GuestPhase.STOPPED: _ALWAYS
    | {
        GuestEvent.SEEN_RUNNING: GuestPhase.RUNNING,
        GuestEvent.START: GuestPhase.RECOVERING,
        GuestEvent.MOVE: GuestPhase.MIGRATING,
    },
    GuestPhase.RECOVERING: _ALWAYS
    | {
        GuestEvent.SEEN_RUNNING: GuestPhase.RUNNING,
        GuestEvent.TICKET: GuestPhase.STARTING,
        GuestEvent.MOVE: GuestPhase.MIGRATING,
        GuestEvent.ENDED: GuestPhase.STOPPED,
        GuestEvent.GAVE_UP: GuestPhase.ERROR,
    },
    GuestPhase.STARTING: _ALWAYS
    | {
        GuestEvent.SEEN_RUNNING: GuestPhase.RUNNING,
        GuestEvent.FAILED: GuestPhase.RECOVERING,
        GuestEvent.UNANSWERED: GuestPhase.UNKNOWN,
    },
    GuestPhase.UNKNOWN: _ALWAYS
    | {
        GuestEvent.SEEN_RUNNING: GuestPhase.RUNNING,
        GuestEvent.SEEN_NOWHERE: GuestPhase.RECOVERING,
    },
    GuestPhase.MIGRATING: _ALWAYS
    | {
        GuestEvent.SEEN_RUNNING: GuestPhase.RUNNING,  # at the one end or at the other
        GuestEvent.SEEN_NOWHERE: GuestPhase.RECOVERING,
        GuestEvent.ENDED: GuestPhase.STOPPED,
    },
    # Only a person takes it out, also where it is seen to run; that it runs twice is known by then.
    GuestPhase.ERROR: {
        GuestEvent.REVERIFY: GuestPhase.PROTECTING,
        GuestEvent.START: GuestPhase.RECOVERING,
        GuestEvent.ENDED: GuestPhase.STOPPED,
    },
}


# What only a host that lives brings about.
ALIVE = frozenset({HostEvent.HEARD, HostEvent.HEARD_OLD, HostEvent.ANSWERS})

# Wherever it is then, it is no longer on its way.
_MOVE_ENDS = (GuestPhase.RUNNING, GuestPhase.STOPPED, GuestPhase.ERROR, GuestPhase.PROTECTING)


def host_after(phase: HostPhase, event: HostEvent) -> HostPhase:
    """The phase that follows. Raises IllegalTransition."""
    try:
        return HOST_TABLE[phase][event]
    except KeyError:
        raise IllegalTransition(f"host in {phase}: {event}") from None


def guest_after(phase: GuestPhase, event: GuestEvent) -> GuestPhase:
    """The phase that follows. Raises IllegalTransition."""
    try:
        return GUEST_TABLE[phase][event]
    except KeyError:
        raise IllegalTransition(f"guest in {phase}: {event}") from None


def move_host(draft: Draft, host: HostRecord, event: HostEvent, reason: str, **fields: object) -> HostRecord:
    """Move a host along its table, with the sentence that says why; it becomes a line of the timeline."""
    phase = host_after(host.phase, event)
    if event in ALIVE:
        fields.setdefault("power_on", False)
    since = draft.now if phase is not host.phase else host.since
    moved = changed(host, phase=phase, reason=reason, since=since, **fields)
    draft.put_host(moved)
    if phase is HostPhase.ONLINE:
        for kind in ("held", "fence-failed"):
            draft.clear_alert(f"host/{host.name}/{kind}")
    draft.note(f"host.{phase}", f"{host.name}: {reason}", host=host.name)
    return moved


def move_guest(
    draft: Draft, guest: GuestRecord, event: GuestEvent, reason: str, *, operation: str = "", **fields: object
) -> GuestRecord:
    """Move a guest along its table, with the sentence that says why."""
    phase = guest_after(guest.phase, event)
    since = draft.now if phase is not guest.phase else guest.since
    if phase in _MOVE_ENDS:
        fields.setdefault("move", None)
    moved = changed(guest, phase=phase, reason=reason, since=since, **fields)
    draft.put_guest(moved)
    if phase in SETTLED:
        draft.clear_alert(f"guest/{guest.id}/waiting")
    if phase is GuestPhase.RUNNING or not moved.may_run_on:  # proven to run in one place, or in none
        draft.clear_alert(f"guest/{guest.id}/doubled")
    draft.note(f"guest.{phase}", f"{guest.name}: {reason}", guest=guest.id, operation=operation)
    return moved


def say(draft: Draft, guest: GuestRecord, reason: str) -> None:
    """Why it is where it is, in one sentence; written only when it changed."""
    if guest.reason != reason:
        draft.put_guest(changed(guest, reason=reason))


def mermaid(
    table: dict[HostPhase, dict[HostEvent, HostPhase]] | dict[GuestPhase, dict[GuestEvent, GuestPhase]],
) -> str:
    """A table as a Mermaid state diagram, for the docs: one arrow between two phases, with all that leads there."""
    lines = ["stateDiagram-v2"]
    for phase, row in table.items():
        for after in dict.fromkeys(row.values()):
            events = ", ".join(event for event, to in row.items() if to is after)
            lines.append(f"    {phase} --> {after}: {events}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(mermaid(HOST_TABLE), mermaid(GUEST_TABLE), sep="\n\n")
