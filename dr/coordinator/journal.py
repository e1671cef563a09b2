"""How records lie in the store: keys, encoding, loading, and the one transaction of a decision."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from dr.core.state import State
from dr.model.allowed import Output
from dr.model.base import Record
from dr.model.decision import Changes, Note
from dr.model.drills import DrillHead, DrillReport, head_of
from dr.model.operations import Operation
from dr.model.records import (
    Alert,
    Cluster,
    DeviceIdentity,
    GuestRecord,
    HostRecord,
    StoredDefinition,
    StoredPicture,
)
from dr.model.schedules import ScheduleRecord
from dr.ports.store import Store

T = TypeVar("T")

CLUSTER = "cluster"
CLOCK = "clock"
NOTES = "note/"
OPERATIONS = "operation/"
OUTPUTS = "output/"
TERMS = "term/"
SCHEDULES = "schedule/"
DRILLS = "drill/"  # what a list tells of each; reports lie beside them, as they may be long

_encode = msgspec.json.Encoder().encode


class StoredNote(Record):
    """A line of the timeline with its place in it and the wall time at which it was written."""

    key: str
    wall: float
    note: Note
    decision: str = ""  # what was saved to explain it: an id of `coordinator.recorder`


class Term(Record):
    """When a coordinator's term began: leader time and wall time. Turns leader time into dates for people."""

    epoch: int
    now: float
    wall: float


class Clock(Record):
    """Leader time at the last commit: the next term goes on from here, so it never runs backwards."""

    now: float
    wall: float = 0.0  # 0: written by a version that did not tell


def definition_key(guest: str, version: int) -> str:
    return f"definition/{guest}/{version:08d}"


def picture_key(guest: str) -> str:
    return f"picture/{guest}"


def operation_key(operation_id: str) -> str:
    """Sorts by age: ids end in -EPOCH-SEQUENCE."""
    _, epoch, sequence = operation_id.rsplit("-", 2)
    return f"{OPERATIONS}{int(epoch):08d}-{int(sequence):010d}"


def outputs_of(operation_id: str) -> str:
    """What the keys of its commands' outputs begin with."""
    return f"{OUTPUTS}{operation_key(operation_id).removeprefix(OPERATIONS)}/"


def _output_key(output: Output) -> str:
    _, epoch, sequence = output.command.rsplit("-", 2)
    return f"{outputs_of(output.operation)}{int(epoch):08d}-{int(sequence):010d}"


def decode(value: bytes, kind: type[T]) -> T:
    """Raises msgspec.DecodeError for a value that no version of ours wrote."""
    return msgspec.json.decode(value, type=kind)


def writes(  # noqa: PLR0912  # one case for each kind of record
    changes: Changes, *, now: float, wall: float, next_note: int, definitions_kept: int, decision: str = ""
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """(puts, deletes) of one decision. `next_note`: number of its first line in the timeline."""
    puts: dict[str, bytes] = {CLOCK: _encode(Clock(now=now, wall=wall))}
    deletes: list[str] = []
    if changes.cluster is not None:
        puts[CLUSTER] = _encode(changes.cluster)
    for name, host in changes.hosts.items():
        puts[f"host/{name}"] = _encode(host)
    deletes += [f"host/{name}" for name in changes.hosts_removed]
    for guest_id, guest in changes.guests.items():
        if guest is None:
            deletes += [f"guest/{guest_id}", picture_key(guest_id)]
        else:
            puts[f"guest/{guest_id}"] = _encode(guest)
    for definition in changes.definitions:
        puts[definition_key(definition.guest, definition.version)] = _encode(definition)
        expired = definition.version - definitions_kept
        if expired > 0:
            deletes.append(definition_key(definition.guest, expired))
    for picture in changes.pictures:
        puts[picture_key(picture.guest)] = _encode(picture)
    for identity in changes.identities:
        puts[f"identity/{identity.host}/{identity.device}"] = _encode(identity)
    for operation_id, operation in changes.operations.items():
        puts[operation_key(operation_id)] = _encode(operation)
    for output in changes.outputs:
        puts[_output_key(output)] = _encode(output)
    for key, alert in changes.alerts.items():
        if alert is None:
            deletes.append(f"alert/{key}")
        else:
            puts[f"alert/{key}"] = _encode(alert)
    for drill_id, report in changes.drills.items():
        if report is None:
            deletes += [f"{DRILLS}{drill_id}", drill_report_key(drill_id)]
        else:
            puts[f"{DRILLS}{drill_id}"] = _encode(head_of(report))
            puts[drill_report_key(drill_id)] = _encode(report)
    for name, schedule in changes.schedules.items():
        if schedule is None:
            deletes.append(f"{SCHEDULES}{name}")
        else:
            puts[f"{SCHEDULES}{name}"] = _encode(schedule)
    for offset, note in enumerate(changes.notes):
        key = f"{NOTES}{next_note + offset:012d}"
        puts[key] = _encode(StoredNote(key=key, wall=wall, note=note, decision=decision))
    return puts, tuple(deletes)


async def load(store: Store, state: State) -> tuple[Clock, int, list[Term]]:
    """Fill the state; returns (the clocks to go on from, number of the next note, terms so far).

    Raises StoreError, and msgspec.DecodeError for a store that this version cannot read.
    """

    async def all_of(prefix: str, kind: type[T]) -> list[T]:
        return [decode(entry.value, kind) for entry in await store.scan(prefix)]

    entry = await store.get(CLUSTER)
    cluster = decode(entry.value, Cluster) if entry else Cluster(id="")
    state.load(
        cluster=cluster,
        hosts=await all_of("host/", HostRecord),
        guests=await all_of("guest/", GuestRecord),
        identities=await all_of("identity/", DeviceIdentity),
        operations=await all_of(OPERATIONS, Operation),
        alerts=await all_of("alert/", Alert),
        drills=await all_of(DRILLS, DrillHead),
        schedules=await all_of(SCHEDULES, ScheduleRecord),
    )
    state.revision = await store.revision()
    clock = await store.get(CLOCK)
    last = await store.last(NOTES, 1)
    next_note = int(last[0].key.removeprefix(NOTES)) + 1 if last else 1
    terms = await all_of(TERMS, Term)
    return (decode(clock.value, Clock) if clock else Clock(now=0.0)), next_note, terms


async def definition(store: Store, guest: str, version: int) -> StoredDefinition | None:
    """One stored version, None when it does not exist. Raises StoreError."""
    entry = await store.get(definition_key(guest, version))
    return decode(entry.value, StoredDefinition) if entry else None


def drill_report_key(drill_id: str) -> str:
    return f"drill-report/{drill_id}"


async def drill_report(store: Store, drill_id: str) -> DrillReport | None:
    """One report, None when it is not kept. Raises StoreError."""
    entry = await store.get(drill_report_key(drill_id))
    return decode(entry.value, DrillReport) if entry else None


async def picture(store: Store, guest: str) -> StoredPicture | None:
    """The newest picture of its console, None when there is none. Raises StoreError."""
    entry = await store.get(picture_key(guest))
    return decode(entry.value, StoredPicture) if entry else None


def term_write(term: Term) -> tuple[str, bytes]:
    """The key and value that record the beginning of a term."""
    return f"{TERMS}{term.epoch:08d}", _encode(term)
