"""The fleet summed up: `dr status`, and whatever keeps the fleet from being protected, a sentence each.

Here: which troubles are told, in which order, and none of them twice. Not here: how one host or guest stands
(`standing`), rows of lists (`views`).
"""

from __future__ import annotations

from dr import __version__
from dr.api import schema
from dr.api.snapshot import Snapshot
from dr.api.standing import because, blockers_of, fencing_of, in_doubt, not_as_wanted, phase_of, settled
from dr.api.views import guest_row, host_row, operation_row
from dr.core import spare
from dr.model.facts import Level
from dr.model.operations import OperationState
from dr.model.records import Alert, Condition, GuestPhase, HostPhase, HostRecord

TROUBLE = (Condition.AGENT_LOST, Condition.DEGRADED, Condition.UNPROTECTED, Condition.QUARANTINED)


def status(snap: Snapshot) -> schema.Status:
    state = snap.state
    unsettled = [guest_row(snap, guest) for guest in state.guests.values() if not settled(snap, guest)]
    problems = _problems(snap)
    pause = state.cluster.pause
    return schema.Status(
        cluster=state.cluster.id,
        healthy=not problems,
        problems=problems,
        epoch=state.cluster.epoch,
        leader=state.cluster.leader_id,
        revision=state.revision + state.cluster.revision_offset,
        leader_time_s=round(snap.now, 3),
        wall=snap.wall(snap.now),
        coordinator_version=__version__,
        settling_s=round(max(0.0, state.quiet_until - snap.now), 1),
        pause=None
        if pause is None
        else schema.PauseSeen(reason=pause.reason, by=pause.by, age_s=snap.age(pause.at)),
        restored=state.cluster.restored,
        hosts=[host_row(snap, state.hosts[name]) for name in sorted(state.hosts)],
        guests_total=len(set(state.guests) | set(snap.sightings())),
        guests_protected=len(state.guests),
        guests_running=sum(phase_of(snap, guest) is GuestPhase.RUNNING for guest in state.guests.values()),
        unsettled=sorted(unsettled, key=lambda row: (-row.priority, row.name)),
        spare=[text for name in sorted(state.hosts) if (text := spare.in_words(name, snap.view(name)))],
        operations=[
            operation_row(snap, operation)
            for key, operation in sorted(state.operations.items())
            if operation.state is OperationState.OPEN
        ],
        alerts=[_alert(snap, alert) for alert in sorted(state.alerts.values(), key=lambda each: each.raised)],
    )


def _problems(snap: Snapshot) -> list[str]:
    """Whatever keeps the fleet from being protected, a sentence each."""
    state = snap.state
    found = []
    if state.cluster.restored:
        found.append(
            f"This store is a restored copy ({state.cluster.restored}); nothing is done until `dr resume`."
        )
    if state.cluster.pause is not None:
        found.append(f"Automation is paused by {state.cluster.pause.by}: {state.cluster.pause.reason}")
    for name, host in sorted(state.hosts.items()):
        if host.phase is HostPhase.MAINTENANCE:
            continue  # a person wants it so, and nothing runs there
        if host.phase not in (HostPhase.ONLINE, HostPhase.DRAINING):
            found.append(f"{name} is {host.phase.value}{because(host.reason)}")
        elif not snap.view(name).session:
            found.append(f"{name} is not connected{because(host.reason)}")
        for condition in TROUBLE:
            if condition in host.conditions:
                found.append(
                    f"{name} is {condition.value.replace('_', ' ')}{because(_condition_reason(snap, host, condition))}"
                )
    for guest in sorted(state.guests.values(), key=lambda each: each.name):
        if guest.tied:
            found.append(f"{guest.name} could not start elsewhere: {'; '.join(blockers_of(guest))}")
        if doubt := in_doubt(snap, guest):
            found.append(f"{guest.name} is unknown: {doubt}")
        elif not settled(snap, guest) and not (guest.tied and guest.phase is GuestPhase.RUNNING):
            found.append(f"{not_as_wanted(guest)}{because(guest.reason)}")
    names = {name: name for name in state.hosts} | {guest.id: guest.name for guest in state.guests.values()}
    said = tuple(found)
    for alert in state.alerts.values():
        subject = next((names[part] for part in alert.key.split("/") if part in names), "")
        told = subject and any(text.startswith(f"{subject} ") for text in said)
        if alert.severity != "info" and not told:
            found.append(alert.what)
    return found


def _condition_reason(snap: Snapshot, host: HostRecord, condition: Condition) -> str:
    if condition is Condition.DEGRADED:
        bad = [reading for reading in host.health if reading.level is not Level.OK]
        return "; ".join(f"{reading.part}: {reading.reason}" for reading in bad)
    if condition is Condition.UNPROTECTED:
        why = {"none": "no fencing is configured", "unproven": "its fencing is not proven", "proven": ""}
        parts = [why[fencing_of(snap, host.name)]]
        if not host.facts.hook.proven:
            parts.append(f"its permit hook is not proven ({host.facts.hook.reason})")
        if not host.facts.hibernation_masked:
            parts.append("hibernation is not masked")
        return ", ".join(part for part in parts if part)
    return ""


def _alert(snap: Snapshot, alert: Alert) -> schema.AlertSeen:
    return schema.AlertSeen(
        key=alert.key,
        severity=alert.severity,
        what=alert.what,
        why=alert.why,
        todo=alert.todo,
        age_s=snap.age(alert.raised),
    )
