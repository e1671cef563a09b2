"""The durable store, simulated: whole decisions or nothing, and older copies that can be put back.

Here: records, the revision, leader time. Not here: when to commit (`dr.sim.coordinator`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from dr.core.state import State
from dr.model.base import GuestId, HostName, Record
from dr.model.decision import Changes
from dr.model.drills import DrillReport, head_of
from dr.model.operations import Operation
from dr.model.records import Alert, Cluster, DeviceIdentity, GuestRecord, HostRecord, StoredDefinition
from dr.model.schedules import ScheduleRecord

R = TypeVar("R", bound=Record)


class Unwritable(Exception):
    """`ports.store.StoreError`: nothing was written."""


class Conflict(Exception):
    """`ports.store.StoreConflict`: another coordinator has written since; this one must stop."""


def _read_back(record: R) -> R:
    """What a real store would give back: encoded and decoded."""
    return msgspec.json.decode(msgspec.json.encode(record), type=type(record))


def _take_over(records: dict[str, R], written: Mapping[str, R | None]) -> None:
    for key, record in written.items():
        if record is None:
            records.pop(key, None)
        else:
            records[key] = record


@dataclass
class SimStore:
    """Survives every crash of the coordinator. Records are frozen, so a copy of the dictionaries is a backup."""

    cluster: Cluster = field(default_factory=lambda: Cluster(id=""))
    hosts: dict[HostName, HostRecord] = field(default_factory=dict)
    guests: dict[GuestId, GuestRecord] = field(default_factory=dict)
    definitions: dict[tuple[GuestId, int], StoredDefinition] = field(default_factory=dict)
    identities: dict[tuple[HostName, str], DeviceIdentity] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    drills: dict[str, DrillReport] = field(default_factory=dict)
    schedules: dict[str, ScheduleRecord] = field(default_factory=dict)
    revision: int = 0
    cluster_revision: int = 0  # at which the cluster record was written last
    leader_time: float = 0.0
    committed_at: float = 0.0  # in the world's time
    trouble: str = ""  # "fails": no commit succeeds; "slow": each takes `slow_s`
    slow_s: float = 0.0

    def commit(self, changes: Changes, now: float, at: float, guard: int | None = None) -> int:
        """Everything of one decision, or (if the caller crashes before) nothing. Guarded as in `coordinator.service`.

        Raises Unwritable, and Conflict if the cluster record is not at revision `guard` any more.
        """
        self.check(guard)
        if changes.cluster is not None:
            self.cluster = changes.cluster
            self.cluster_revision = self.revision + 1
        self.hosts.update(changes.hosts)
        for name in changes.hosts_removed:
            self.hosts.pop(name, None)
        _take_over(self.guests, changes.guests)
        for definition in changes.definitions:
            self.definitions[definition.guest, definition.version] = definition
        for identity in changes.identities:
            self.identities[identity.host, identity.device] = identity
        self.operations.update(changes.operations)
        _take_over(self.alerts, changes.alerts)
        _take_over(self.drills, changes.drills)
        _take_over(self.schedules, changes.schedules)
        self.revision += 1
        self.leader_time, self.committed_at = now, at
        return self.revision

    def check(self, guard: int | None) -> None:
        """Whether a commit with that guard would succeed now. Raises as `commit` does."""
        if self.trouble == "fails":
            raise Unwritable
        if guard is not None and guard != self.cluster_revision:
            raise Conflict(f"the cluster record is at revision {self.cluster_revision}, not at {guard}")

    def copy(self) -> SimStore:
        """A backup."""
        return replace(
            self,
            trouble="",
            hosts=dict(self.hosts),
            guests=dict(self.guests),
            definitions=dict(self.definitions),
            identities=dict(self.identities),
            operations=dict(self.operations),
            alerts=dict(self.alerts),
            drills=dict(self.drills),
            schedules=dict(self.schedules),
        )

    def load_into(self, state: State) -> None:
        """As `coordinator.journal.load` does."""
        state.load(
            cluster=_read_back(self.cluster),
            hosts=[_read_back(self.hosts[key]) for key in sorted(self.hosts)],
            guests=[_read_back(self.guests[key]) for key in sorted(self.guests)],
            identities=[_read_back(self.identities[key]) for key in sorted(self.identities)],
            operations=[_read_back(self.operations[key]) for key in sorted(self.operations)],
            alerts=[_read_back(self.alerts[key]) for key in sorted(self.alerts)],
            drills=[head_of(_read_back(self.drills[key])) for key in sorted(self.drills)],
            schedules=[_read_back(self.schedules[key]) for key in sorted(self.schedules)],
        )
        state.revision = self.revision
