"""From a snapshot to the shapes of the API. Pure; runs in a thread.

Here: what people are shown of hosts, guests, operations and the rest. Not here: how each stands (`standing`), the fleet
summed up (`summary`), HTTP (`app`), what to do about it (`doctor`).
"""

from __future__ import annotations

from collections.abc import Iterable

from dr.api import foretold, policies, schema
from dr.api.run_schema import PlannedStep, RunAccepted
from dr.api.run_views import run_seen
from dr.api.snapshot import Line, Snapshot
from dr.api.standing import blockers_of, fencing_of, health_of, in_doubt, phase_of
from dr.core import checks, failback
from dr.core.state import Draft
from dr.core.wishes import why_not_placed
from dr.model.effects import Reply
from dr.model.evidence import PowerReport
from dr.model.facts import GuestFacts, Reading
from dr.model.operations import Operation, OperationState
from dr.model.policy import FenceDevice
from dr.model.records import GuestPhase, GuestRecord, HostRecord, Move, MoveStage, StoredDefinition
from dr.model.spelling import check_text

ADDRESS_PARAMETERS = ("ip", "ipaddr", "plug", "port")


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
            migration_address=facts.migration_address,
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
    view = snap.state.views.get(record.holder)
    sample = view.samples.get(record.id) if view is not None else None
    written = sample.points if sample is not None else ()
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
            writes=[schema.Written(interval_s=each.interval_s, mib=each.mib) for each in written],
            writes_age_s=snap.age(sample.at) if sample is not None else None,
            local_disks=[
                schema.LocalDiskSeen(
                    target=disk.target,
                    path=disk.path,
                    form=disk.form,
                    size_b=disk.size_b,
                    used_b=disk.used_b,
                    bases=[base.path for base in disk.bases],
                )
                for disk in needs.local
            ],
            disks_on=record.disks_on if needs.local else "",
            avoid=list(record.avoid),
            policy=policies.seen(record),
            failback=failback.in_words(Draft(snap.state, snap.now), record),
            checks=_checks(snap, record),
            check_age_s=snap.age(record.checked_at) if checks.passed(record) else None,
        )
    )


def _checks(snap: Snapshot, guest: GuestRecord) -> list[schema.CheckSeen]:
    """Nothing of what it was before it ran as it does now."""
    last = snap.state.checked.get(guest.id)
    if last is None or last.ended < guest.since:
        return []
    return [
        schema.CheckSeen(
            check=check_text(each.check),
            result="passed" if each.passed else "failed" if each.made else "unknown",
            why=each.why,
            took_s=each.took_s,
            evidence=each.evidence,
            age_s=snap.age(last.ended),
        )
        for each in last.results
    ]


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
        foreseen_s=operation.foreseen_s or None,
        guests=operation.guests,
        guest_names=names,
        hooks=operation.hooks,
    )


def operations(snap: Snapshot, found: Iterable[Operation]) -> schema.OperationList:
    return schema.OperationList(items=[operation_row(snap, each) for each in found])


def operation(snap: Snapshot, found: Operation) -> schema.OperationDocument:
    steps = [
        schema.StepSeen(wall=snap.wall(step.at), after_s=round(step.at - found.opened, 2), text=step.text)
        for step in found.steps
    ]
    guests = (snap.state.guests.get(key) for key in sorted(snap.state.unsettled))
    moves = [
        _move(snap, guest, guest.move)
        for guest in guests
        if guest is not None
        and guest.phase is GuestPhase.MIGRATING
        and guest.move is not None
        and guest.move.operation == found.id
    ]
    row = dict(operation_row(snap, found))
    run = run_seen(snap, found.run) if found.run is not None else None
    return schema.OperationDocument(item=schema.Operation(**row, steps=steps, moves=moves, run=run))


def _move(snap: Snapshot, guest: GuestRecord, move: Move) -> schema.MoveSeen:
    seen = schema.MoveSeen(
        guest=guest.name,
        source=move.source,
        destination=move.destination,
        stage=move.stage.value,
        age_s=snap.age(move.began),
        rung=move.rung.value,
        foreseen=move.foreseen.value if move.foreseen else "",
    )
    view = snap.state.views.get(move.source)
    progress = view.progress.get(guest.id) if view is not None and view.session else None
    if progress is None or move.stage in (MoveStage.MIGRATED, MoveStage.RESUMING):  # all of it has left
        return seen
    return seen.model_copy(
        update={
            "done_pct": progress.done_pct,
            "remaining_mib": round(progress.remaining_mib, 1),
            "rate_mib_s": round(progress.rate_mib_s, 1),
            "dirty_mib_s": round(progress.dirty_mib_s, 1),
            "passes": progress.passes,
            "throttle_pct": progress.throttle_pct,
            "eta_s": None if progress.eta_s is None else round(progress.eta_s, 1),
        }
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
    return schema.Accepted(
        message=reply.message,
        operations=list(reply.operations),
        guests=foretold.guests(reply.guests),
        forecast=foretold.times(reply.forecast),
        differences=list(reply.differences),
        noted=list(reply.noted),
    )


def run_accepted(reply: Reply) -> RunAccepted:
    steps = [
        PlannedStep(
            part=step.part,
            text=step.text,
            todo=list(step.todo),
            why=list(step.why),
            left_out=step.when,
            takes_s=step.takes_s,
            timeout_s=step.timeout_s,
        )
        for step in reply.steps
    ]
    return RunAccepted(message=reply.message, operations=list(reply.operations), steps=steps)


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
