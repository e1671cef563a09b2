"""What `decide` returns: changes to write, then effects to run. Pure data."""

from __future__ import annotations

from dr.model.allowed import Output
from dr.model.base import GuestId, HostName, Record
from dr.model.drills import DrillReport
from dr.model.effects import Effect
from dr.model.evidence import Proof
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


class Note(Record):
    """One line of the decision timeline: what was decided and why, in a sentence. Kept for ever by the store."""

    now: float
    kind: str  # "host.suspect", "fence.off", "guest.start", "proof", "audit", …
    text: str
    host: HostName = ""
    guest: GuestId = ""
    operation: str = ""
    by: str = ""  # for audit lines: who asked
    proof: Proof | None = None


class Changes(Record):
    """Durable changes, written as ONE guarded transaction before any effect runs."""

    cluster: Cluster | None = None
    hosts: dict[HostName, HostRecord] = {}
    guests: dict[GuestId, GuestRecord | None] = {}  # None: no longer protected
    hosts_removed: tuple[HostName, ...] = ()
    definitions: tuple[StoredDefinition, ...] = ()
    pictures: tuple[StoredPicture, ...] = ()
    identities: tuple[DeviceIdentity, ...] = ()
    operations: dict[str, Operation] = {}
    alerts: dict[str, Alert | None] = {}  # None: cleared
    drills: dict[str, DrillReport | None] = {}  # None: no longer kept
    schedules: dict[str, ScheduleRecord | None] = {}  # None: no such schedule any more
    outputs: tuple[Output, ...] = ()
    notes: tuple[Note, ...] = ()

    def __bool__(self) -> bool:
        return self != _NOTHING


_NOTHING = Changes()


class Decision(Record):
    """The outcome of one `decide`. `state` handling of volatile evidence is in `core.state`."""

    changes: Changes = _NOTHING
    effects: tuple[Effect, ...] = ()
