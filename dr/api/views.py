"""From a snapshot to the shapes of the API. Pure; runs in a thread.

Here: what people are shown and how it is summed up. Not here: HTTP (`app`), what to do about it (`doctor`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from dr import __version__
from dr.api import policies, schema
from dr.api.snapshot import Line, Snapshot
from dr.core import checks, failback, spare
from dr.core.state import Draft
from dr.core.wishes import why_not_placed
from dr.model.effects import Reply
from dr.model.evidence import PowerReport
from dr.model.facts import ACTIVE_STATES, GuestFacts, Level, Reading
from dr.model.policy import FenceDevice
from dr.model.records import (
    Alert,
    Condition,
    Desired,
    GuestPhase,
    GuestRecord,
    HostPhase,
    HostRecord,
    Operation,
    OperationState,
    StoredDefinition,
)

ADDRESS_PARAMETERS = ("ip", "ipaddr", "plug", "port")
TROUBLE = (Condition.AGENT_LOST, Condition.DEGRADED, Condition.UNPROTECTED, Condition.QUARANTINED)


# ---- hosts


def hosts(snap: Snapshot) -> schema.HostList:
    names = sorted(snap.state.hosts)
    return schema.HostList(items=[host_row(snap, snap.state.hosts[name]) for name in names])


def host_row(snap: Snapshot, host: HostRecord) -> schema.HostRow:
    view = snap.view(host.name)
    running = [facts for facts in view.guests.values() if facts.active]
    return schema.HostRow(
        name=host.name,
        phase=host.phase.value,
        conditions=sorted(condition.value for condition in host.conditions),
        reason=host.reason,
        cordon="; ".join(why_not_placed(host)),
        leaving=host.leaving,
        since_s=snap.age(host.since),
        connected=bool(view.session),
        heard_s=snap.heard(host.name),
        fencing=fencing_of(snap, host.name),
        hook=host.facts.hook.proven,
        health=health_of(host.health),
        guests_running=len(running),
        guests_protected=len(snap.state.at_host.get(host.name, ())),
        memory_mib=host.facts.memory_mib,
        memory_used_mib=sum(facts.memory_mib for facts in running),
        agent_version=host.facts.agent_version,
        labels=labels_of(snap, host),
    )


def host(snap: Snapshot, name: str) -> schema.HostDocument | None:
    record = snap.state.hosts.get(name)
    if record is None:
        return None
    view, facts, fencing = snap.view(name), record.facts, record.fencing
    current = view.power_at > view.heard  # what was read before it was last heard says nothing about it now
    row = host_row(snap, record)
    return schema.HostDocument(
        item=schema.Host(
            **dict(row),
            boot_id=record.boot_id,
            dead_boot=record.dead_boot,
            addresses=facts.addresses,
            probed_addresses=list(snap.policy(name).addresses),
            cpus=facts.cpus,
            cpu_model=facts.cpu_model,
            libvirt_version=facts.libvirt_version,
            networks=list(facts.networks),
            storage=list(facts.storage),
            hook_reason=facts.hook.reason,
            hibernation_masked=facts.hibernation_masked,
            live_migration=facts.live_migration,
            readings=[_reading(reading) for reading in record.health],
            looks=[
                schema.Look(witness=look.witness, answered=look.answered, age_s=snap.age(look.asked))
                for look in view.looks.values()
            ],
            power=list(_power(view.power)) if current else [],
            power_age_s=snap.age(view.power_at) if current else None,
            verdict=view.verdict,
            fencing_now=None
            if fencing is None
            else schema.FencingSeen(
                boot_id=fencing.boot_id,
                level=fencing.level,
                attempt=fencing.attempt,
                why=fencing.why,
                operator=fencing.operator,
                verified=fencing.verified,
            ),
            guests=sorted(
                snap.state.guests[guest].name
                for guest in snap.state.at_host.get(name, ())
                if guest in snap.state.guests
            ),
            configured=name in snap.state.settings.hosts,
        )
    )


def labels_of(snap: Snapshot, host: HostRecord) -> dict[str, str]:
    """Labels of the configuration, and over them those that were set by command."""
    return snap.policy(host.name).labels | host.labels


def health_of(readings: Iterable[Reading]) -> Literal["ok", "warn", "critical", "unknown"]:
    """The worst of a health report."""
    levels = {reading.level for reading in readings}
    if not levels:
        return "unknown"
    return "critical" if Level.CRITICAL in levels else "warn" if Level.WARN in levels else "ok"


def fencing_of(snap: Snapshot, name: str) -> Literal["none", "unproven", "proven"]:
    """Proven: every device of at least one level showed its identity."""
    levels = snap.policy(name).fencing
    if not levels:
        return "none"
    whole = any(all(snap.proven(name, device) for device in level.devices) for level in levels)
    return "proven" if whole else "unproven"


def _reading(reading: Reading) -> schema.Reading:
    return schema.Reading(part=reading.part, level=reading.level.value, reason=reading.reason)


def _power(reports: Iterable[PowerReport]) -> Iterable[schema.DeviceSeen]:
    for report in reports:
        for reading in report.readings:
            yield schema.DeviceSeen(
                device=reading.device, power=reading.power.value, guid=reading.guid, reason=reading.reason
            )


# ---- guests


def guests(snap: Snapshot) -> schema.GuestList:
    """Protected guests, and every other domain in an inventory."""
    seen = snap.sightings()
    rows = [guest_row(snap, guest) for guest in snap.state.guests.values()]
    rows += [_unprotected(snap, where) for guest, where in seen.items() if guest not in snap.state.guests]
    return schema.GuestList(items=sorted(rows, key=lambda row: (row.name, row.id)))


def guest_row(snap: Snapshot, guest: GuestRecord) -> schema.GuestRow:
    places = [
        schema.PlaceSeen(host=place.host, boot_id=place.boot_id, generation=place.generation)
        for place in guest.may_run_on
    ]
    where = places[0].host if len(places) == 1 else ""
    if guest.holder and any(place.host == guest.holder for place in places):
        where = guest.holder
    return schema.GuestRow(
        id=guest.id,
        name=guest.name,
        protected=True,
        phase=phase_of(snap, guest).value,
        desired=guest.desired.value,
        host=where,
        reason=in_doubt(snap, guest) or guest.reason,
        since_s=snap.age(guest.since),
        heard_s=snap.heard(where) if where else None,
        priority=guest.policy.priority,
        memory_mib=guest.needs.memory_mib,
        vcpus=guest.needs.vcpus,
        blockers=blockers_of(guest),
        may_run_on=places,
        labels=guest.labels,
    )


def _unprotected(snap: Snapshot, where: list[tuple[str, GuestFacts]]) -> schema.GuestRow:
    active = [(host, facts) for host, facts in where if facts.active]
    host, facts = (active or where)[0]
    reason = f"runs on {' and '.join(name for name, _ in active)} at once" if len(active) > 1 else ""
    return schema.GuestRow(
        id=facts.id,
        name=facts.name,
        protected=False,
        phase=facts.state.value,
        host=host,
        reason=reason,
        heard_s=snap.heard(host),
        memory_mib=facts.memory_mib,
        vcpus=facts.vcpus,
    )


def find_guest(snap: Snapshot, name: str) -> list[str]:
    """Ids of the guests with that name or UUID; more than one if the name is not unique."""
    wanted = name.lower()
    if wanted in snap.state.guests:
        return [wanted]
    ids = {guest.id for guest in snap.state.guests.values() if guest.name == name}
    for guest, where in snap.sightings().items():
        if guest == wanted:
            return [guest]
        if any(facts.name == name for _, facts in where):
            ids.add(guest)
    return sorted(ids)


def guest(snap: Snapshot, guest_id: str, definition: StoredDefinition | None) -> schema.GuestDocument:
    """`guest_id` is one that `find_guest` returned."""
    where = snap.sightings().get(guest_id, [])
    seen = [
        schema.Sighting(host=name, state=facts.state.value, heard_s=snap.heard(name)) for name, facts in where
    ]
    record = snap.state.guests.get(guest_id)
    if record is None:
        return schema.GuestDocument(item=schema.Guest(**dict(_unprotected(snap, where)), seen=seen))
    needs = record.needs
    wants = {
        "arch": needs.arch,
        "domain_type": needs.domain_type,
        "machine": needs.machine,
        "cpu_model": needs.cpu_model,
        "networks": ", ".join(needs.networks),
        "storage": ", ".join(needs.storage),
    }
    return schema.GuestDocument(
        item=schema.Guest(
            **dict(guest_row(snap, record)),
            generation=record.generation,
            definition=record.definition,
            definition_by=definition.reported_by if definition else "",
            digest=record.digest,
            seen=seen,
            max_restarts=record.policy.max_restarts,
            max_relocations=record.policy.max_relocations,
            restarts=len(record.restarts),
            relocations=len(record.relocations),
            needs={key: value for key, value in wants.items() if value},
            avoid=list(record.avoid),
            policy=policies.seen(record),
            failback=failback.in_words(Draft(snap.state, snap.now), record),
            check_age_s=snap.age(record.checked_at) if checks.passed(record) else None,
        )
    )


# ---- operations


def operation_row(snap: Snapshot, operation: Operation) -> schema.OperationRow:
    end = snap.now if operation.state is OperationState.OPEN else operation.closed
    names = {key: snap.state.guests[key].name for key in operation.guests if key in snap.state.guests}
    return schema.OperationRow(
        id=operation.id,
        op=operation.kind,
        subject=operation.subject,
        state=operation.state.value,
        why=operation.why,
        asked_by=operation.asked_by,
        opened_wall=snap.wall(operation.opened),
        age_s=snap.age(operation.opened),
        duration_s=round(max(0.0, end - operation.opened), 2),
        guests=operation.guests,
        guest_names=names,
    )


def operations(snap: Snapshot, found: Iterable[Operation]) -> schema.OperationList:
    return schema.OperationList(items=[operation_row(snap, each) for each in found])


def operation(snap: Snapshot, found: Operation) -> schema.OperationDocument:
    steps = [
        schema.StepSeen(wall=snap.wall(step.at), after_s=round(step.at - found.opened, 2), text=step.text)
        for step in found.steps
    ]
    return schema.OperationDocument(item=schema.Operation(**dict(operation_row(snap, found)), steps=steps))


# ---- status


def blockers_of(guest: GuestRecord) -> list[str]:
    """Why it could not start elsewhere; said where its name stands already."""
    return [blocker.removeprefix(f"{guest.name}: ") for blocker in guest.blockers]


def in_doubt(snap: Snapshot, guest: GuestRecord) -> str:
    """Why a guest that is on record as running may not: a host of it is silent, or is not as it should be."""
    if guest.phase is not GuestPhase.RUNNING:
        return ""
    for place in guest.may_run_on:
        host = snap.state.hosts.get(place.host)
        if host is None:
            return f"{place.host} is not a member any more"
        if host.phase in (HostPhase.SUSPECT, HostPhase.FENCING, HostPhase.FENCED):
            why = f"{host.name} is {host.phase.value}{_because(host.reason)}"
            return f"{why}; it may still run there, and starts nowhere else until {host.name} is proven off"
        if not snap.view(host.name).session:
            return f"{host.name} is not heard{_because(host.reason)}; it ran there when {host.name} was last heard"
    return ""


def phase_of(snap: Snapshot, guest: GuestRecord) -> GuestPhase:
    """The phase that people are shown: nobody knows whether a guest of a silent host runs."""
    return GuestPhase.UNKNOWN if in_doubt(snap, guest) else guest.phase


def settled(snap: Snapshot, guest: GuestRecord) -> bool:
    """Whether it is what its owner wants, in one place that answers, and could be recovered."""
    if guest.blockers or in_doubt(snap, guest):
        return False
    if guest.desired is Desired.RUNNING:
        return guest.phase is GuestPhase.RUNNING and len(guest.may_run_on) == 1
    if guest.desired is Desired.IGNORED:
        return guest.phase in (GuestPhase.RUNNING, GuestPhase.STOPPED)
    return guest.phase is GuestPhase.STOPPED


def not_as_wanted(guest: GuestRecord) -> str:
    """What it is, beside what it should be."""
    if guest.desired is Desired.IGNORED:
        return f"{guest.name} is {guest.phase.value}, and is left alone (ignored)"
    return f"{guest.name} is {guest.phase.value} and should be {guest.desired.value}"


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
            found.append(f"{name} is {host.phase.value}{_because(host.reason)}")
        elif not snap.view(name).session:
            found.append(f"{name} is not connected{_because(host.reason)}")
        for condition in TROUBLE:
            if condition in host.conditions:
                found.append(
                    f"{name} is {condition.value.replace('_', ' ')}{_because(_condition_reason(snap, host, condition))}"
                )
    for guest in sorted(state.guests.values(), key=lambda each: each.name):
        if guest.blockers:
            found.append(f"{guest.name} could not start elsewhere: {'; '.join(blockers_of(guest))}")
        if doubt := in_doubt(snap, guest):
            found.append(f"{guest.name} is unknown: {doubt}")
        elif not settled(snap, guest) and not (guest.blockers and guest.phase is GuestPhase.RUNNING):
            found.append(f"{not_as_wanted(guest)}{_because(guest.reason)}")
    names = {name: name for name in state.hosts} | {guest.id: guest.name for guest in state.guests.values()}
    said = tuple(found)
    for alert in state.alerts.values():
        subject = next((names[part] for part in alert.key.split("/") if part in names), "")
        told = subject and any(text.startswith(f"{subject} ") for text in said)
        if alert.severity != "info" and not told:
            found.append(alert.what)
    return found


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


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


# ---- fencing


def fencing(snap: Snapshot) -> schema.FenceList:
    rows = []
    names = sorted({*snap.state.hosts, *snap.state.settings.hosts})
    for name in names:
        levels = snap.policy(name).fencing
        if not levels:
            rows.append(
                schema.FenceRow(host=name, level=0, device="", agent="", reason="no fencing is configured")
            )
        for number, level in enumerate(levels, start=1):
            rows += [_fence_row(snap, name, number, device) for device in level.devices]
    return schema.FenceList(items=rows)


def _fence_row(snap: Snapshot, host: str, level: int, device: FenceDevice) -> schema.FenceRow:
    identity = snap.proven(host, device)
    if reason := snap.devices.problem(device):
        pass
    elif identity is not None:
        reason = ""
    elif (host, device.name) in snap.state.identities:
        reason = f"its parameters changed since it was proven; run: dr fence test {host}"
    else:
        reason = f"never tested; run: dr fence test {host}"
    return schema.FenceRow(
        host=host,
        level=level,
        device=device.name,
        agent=device.agent,
        address=" ".join(device.parameters[key] for key in ADDRESS_PARAMETERS if key in device.parameters),
        proven=identity is not None,
        proven_wall=snap.wall(identity.proven_at) if identity else 0.0,
        guid=identity.guid if identity else "",
        reason=reason,
    )


# ---- asks


def accepted(reply: Reply) -> schema.Accepted:
    foreseen = [
        schema.Foreseen(
            id=each.guest,
            name=each.name,
            fate=each.fate,
            to=each.to,
            why=list(each.why),
            todo=list(each.todo),
        )
        for each in reply.guests
    ]
    return schema.Accepted(message=reply.message, operations=list(reply.operations), guests=foreseen)


# ---- timeline


def notes(snap: Snapshot, lines: Iterable[Line], cursor: str) -> schema.NoteList:
    names = {guest.id: guest.name for guest in snap.state.guests.values()}
    return schema.NoteList(items=[note(line, names) for line in lines], next=cursor)


def note(line: Line, names: dict[str, str]) -> schema.NoteSeen:
    found = line.note
    return schema.NoteSeen(
        key=line.key,
        wall=line.wall,
        topic=found.kind,
        text=found.text,
        host=found.host,
        guest=found.guest,
        guest_name=names.get(found.guest, ""),
        operation=found.operation,
        by=found.by,
        proof=found.proof.kind.value if found.proof else "",
        decision=line.decision,
    )


def running_unprotected(snap: Snapshot) -> list[GuestFacts]:
    """Active domains that nobody asked to protect."""
    return [
        facts
        for guest, where in snap.sightings().items()
        if guest not in snap.state.guests
        for _, facts in where
        if facts.state in ACTIVE_STATES
    ]
