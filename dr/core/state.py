"""What `decide` looks at: durable records beside volatile evidence, and the draft that collects a decision.

`State` is owned by whoever runs `decide` (the coordinator's runtime, the simulator) and changed only by
`State.apply`. `decide` reads it and writes to a `Draft`, an overlay that becomes the `Decision`. Records
survive a crash; views and pending effects (`volatile`) do not, and every decision is right without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dr.core.rules import Members
from dr.core.volatile import LOOKS, OF_SESSION, Checked, Pending, View
from dr.model.allowed import Output
from dr.model.base import GuestId, HostName, changed
from dr.model.decision import Changes, Decision, Note
from dr.model.drills import KEPT_MAX, DrillHead, DrillReport, head_of
from dr.model.effects import DropSession, Effect, Notify
from dr.model.evidence import Proof
from dr.model.operations import GUEST_CHECK, Operation, OperationState, Step
from dr.model.policy import HostPolicy, OnUnhealthy
from dr.model.records import (
    Alert,
    Cluster,
    Desired,
    DeviceIdentity,
    GuestPhase,
    GuestRecord,
    HostRecord,
    StoredDefinition,
    StoredPicture,
)
from dr.model.schedules import ScheduleRecord
from dr.model.settings import Settings

K = TypeVar("K")
V = TypeVar("V")


def _overlay(base: dict[K, V], decided: Mapping[K, V | None]) -> None:
    """Take over what was decided; None removes."""
    for key, value in decided.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = value


def _note_pending(index: dict[str, dict[str, Pending]], key: str, pending: Pending) -> None:
    looked_at = pending.detail if pending.kind in LOOKS else ""
    for name in {pending.guest, pending.host, looked_at} - {""}:
        index.setdefault(name, {})[key] = pending


SETTLED = frozenset({GuestPhase.RUNNING, GuestPhase.STOPPED, GuestPhase.ERROR})


def settled(guest: GuestRecord) -> bool:
    """Nothing is left to do for it. One that runs and whose owner wants it off is still to be stopped."""
    wanted_off = guest.phase is GuestPhase.RUNNING and guest.desired is Desired.STOPPED
    return guest.phase in SETTLED and not wanted_off


def _looked_after(guest: GuestRecord) -> bool:
    return guest.policy.on_unhealthy is not OnUnhealthy.IGNORE and bool(guest.policy.checks)


@dataclass
class State:
    """All records and all evidence. Plain dictionaries, changed only by `apply`."""

    settings: Settings = field(default_factory=Settings)
    cluster: Cluster = field(default_factory=lambda: Cluster(id=""))
    hosts: dict[HostName, HostRecord] = field(default_factory=dict)
    guests: dict[GuestId, GuestRecord] = field(default_factory=dict)
    identities: dict[tuple[HostName, str], DeviceIdentity] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)  # open ones, and some that just ended
    alerts: dict[str, Alert] = field(default_factory=dict)
    drills: dict[str, DrillHead] = field(default_factory=dict)  # whose reports are kept
    schedules: dict[str, ScheduleRecord] = field(default_factory=dict)
    views: dict[HostName, View] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)
    looked_after: set[GuestId] = field(default_factory=set)  # whose checks are made all the time
    looked_after_at: float = 0.0  # when it was last seen which of these are due
    checked: dict[GuestId, Checked] = field(default_factory=dict)  # the newest round of each guest's checks
    sequence: int = 0  # of ids, in this term
    lag_s: float = 0.0  # how late our own loop ran lately
    ticked_at: float = 0.0  # our last tick; what comes long after it was decided by a loop that stood still
    moves: int = 0  # guests that changed their host in this term
    failback_at: float = 0.0  # when guests that may go home were last looked at
    own_boot: str = ""  # boot id of the machine that the coordinator runs on
    started_at: float = 0.0  # leader time at which this term began
    quiet_until: float = 0.0  # before this, unheard is not late (after a start or a gap in our own clock)
    revision: int = 0  # of the store's last commit, without the offset

    # Indexes, kept by `apply`: what still needs work.
    unsettled: set[GuestId] = field(default_factory=set)
    homing: set[GuestId] = field(default_factory=set)  # whose policy lets them go home
    open_operations: set[str] = field(default_factory=set)
    at_host: dict[HostName, set[GuestId]] = field(default_factory=dict)  # who may run there
    touched: dict[HostName, int] = field(
        default_factory=dict
    )  # goes up when a guest that may run there changes
    # Derived from all the above by rooms that keep it between decisions; dropping it costs time, nothing else.
    memo: dict[str, Any] = field(default_factory=dict)
    named: dict[str, GuestId] = field(default_factory=dict)

    @property
    def members(self) -> Members:
        """The guests that each rule is about."""
        kept: Members | None = self.memo.get("members")
        if kept is None or kept.rules is not self.settings.rules:
            kept = self.memo["members"] = Members(self.settings.rules, self.guests.values())
        return kept

    def _index_guest(self, guest_id: GuestId, guest: GuestRecord | None) -> None:
        before = self.guests.get(guest_id)
        # A branch of this state may hold the same sets: they are never changed.
        for place in before.may_run_on if before else ():
            self.at_host[place.host] = self.at_host.get(place.host, set()) - {guest_id}
            self.touched[place.host] = self.touched.get(place.host, 0) + 1
        for place in guest.may_run_on if guest else ():
            self.at_host[place.host] = self.at_host.get(place.host, set()) | {guest_id}
            self.touched[place.host] = self.touched.get(place.host, 0) + 1
        if guest is None:
            self.members.drop(guest_id)
        else:
            self.members.put(guest)

    def _index_name(self, guest_id: GuestId, guest: GuestRecord | None) -> None:
        before = self.guests.get(guest_id)
        if before is not None and self.named.get(before.name) == guest_id:
            del self.named[before.name]
        if guest is not None:
            self.named[guest.name] = guest_id

    def apply(self, draft: Draft) -> None:
        """Take over what a draft decided. Called after its changes are durable."""
        changes = draft.changes()
        self._apply_records(changes)
        self.views.update(draft.views)
        for name in changes.hosts_removed:
            self.views.pop(name, None)
        _overlay(self.pending, draft.pending)
        _overlay(
            self.checked, draft.checked | {key: None for key, at in changes.guests.items() if at is None}
        )
        if draft.settings is not None:
            self.settings = draft.settings
        self.quiet_until = draft.quiet_until
        self.started_at = draft.started_at
        self.own_boot = draft.own_boot
        self.ticked_at = draft.ticked_at
        self.sequence = draft.sequence
        self.lag_s = draft.lag_s
        self.moves = draft.moves
        self.failback_at = draft.failback_at
        self.looked_after_at = draft.looked_after_at

    def _apply_records(self, changes: Changes) -> None:
        if changes.cluster is not None:
            self.cluster = changes.cluster
        self.hosts.update(changes.hosts)
        for name in changes.hosts_removed:
            self.hosts.pop(name, None)
        for guest_id, guest in changes.guests.items():
            self._index_guest(guest_id, guest)
            self._index_name(guest_id, guest)
            done = guest is None or settled(guest)
            (self.unsettled.discard if done else self.unsettled.add)(guest_id)
            homes = guest is not None and guest.policy.failback
            (self.homing.add if homes else self.homing.discard)(guest_id)
            ours = guest is not None and _looked_after(guest)
            (self.looked_after.add if ours else self.looked_after.discard)(guest_id)
        _overlay(self.guests, changes.guests)
        for identity in changes.identities:
            self.identities[identity.host, identity.device] = identity
        for key, operation in changes.operations.items():
            self.operations[key] = operation
            is_open = operation.state is OperationState.OPEN
            (self.open_operations.add if is_open else self.open_operations.discard)(key)
        _overlay(self.alerts, changes.alerts)
        for key, report in changes.drills.items():
            _overlay(self.drills, {key: None if report is None else head_of(report)})
        _overlay(self.schedules, changes.schedules)

    def load(
        self,
        *,
        cluster: Cluster,
        hosts: Iterable[HostRecord],
        guests: Iterable[GuestRecord],
        identities: Iterable[DeviceIdentity],
        operations: Iterable[Operation],
        alerts: Iterable[Alert],
        drills: Iterable[DrillHead] = (),
        schedules: Iterable[ScheduleRecord] = (),
    ) -> None:
        """Fill an empty state from the store's records."""
        self.cluster = cluster
        self.hosts = {host.name: host for host in hosts}
        self.guests = {guest.id: guest for guest in guests}
        self.identities = {(item.host, item.device): item for item in identities}
        self.operations = {operation.id: operation for operation in operations}
        self.alerts = {alert.key: alert for alert in alerts}
        self.drills = {drill.id: drill for drill in drills}
        self.schedules = {schedule.name: schedule for schedule in schedules}
        self.at_host = {}
        self.memo = {}
        self.named = {guest.name: guest.id for guest in self.guests.values()}
        for guest in self.guests.values():
            for place in guest.may_run_on:
                self.at_host.setdefault(place.host, set()).add(guest.id)
        self.unsettled = {guest.id for guest in self.guests.values() if not settled(guest)}
        self.homing = {guest.id for guest in self.guests.values() if guest.policy.failback}
        self.looked_after = {guest.id for guest in self.guests.values() if _looked_after(guest)}
        self.open_operations = {
            key for key, operation in self.operations.items() if operation.state is OperationState.OPEN
        }


class Draft:
    """One decision in the making: reads see what was already decided in it; nothing leaks into the state."""

    def __init__(self, state: State, now: float) -> None:
        self.state = state
        self.now = now
        self.cluster = state.cluster
        self.settings: Settings | None = None
        self.quiet_until = state.quiet_until
        self.started_at = state.started_at
        self.own_boot = state.own_boot
        self.ticked_at = state.ticked_at
        self.sequence = state.sequence
        self.lag_s = state.lag_s
        self.moves = state.moves
        self.failback_at = state.failback_at
        self.looked_after_at = state.looked_after_at
        self.views: dict[HostName, View] = {}
        self.pending: dict[str, Pending | None] = {}
        self.checked: dict[GuestId, Checked | None] = {}
        self._hosts: dict[HostName, HostRecord] = {}
        self._hosts_removed: list[HostName] = []
        self._guests: dict[GuestId, GuestRecord | None] = {}
        self._moved: dict[HostName, set[GuestId]] = {}  # decided guests, at each host where one was or is
        self.writes = 0  # goes up with whatever placement depends on
        self.guest_writes = 0  # goes up with what is decided of guests
        self.host_writes = 0  # goes up with what is decided or seen of hosts
        self.memo: dict[str, Any] = {}  # as of `State`, for this decision
        self._definitions: list[StoredDefinition] = []
        self._pictures: list[StoredPicture] = []
        self._identities: list[DeviceIdentity] = []
        self._outputs: list[Output] = []
        self._operations: dict[str, Operation] = {}
        self._alerts: dict[str, Alert | None] = {}
        self._drills: dict[str, DrillReport | None] = {}
        self._schedules: dict[str, ScheduleRecord | None] = {}
        self._notes: list[Note] = []
        self._effects: list[Effect] = []

    # ---- reading

    @property
    def config(self) -> Settings:
        return self.settings or self.state.settings

    def host(self, name: HostName) -> HostRecord | None:
        if name in self._hosts_removed:
            return None
        return self._hosts.get(name) or self.state.hosts.get(name)

    def host_names(self) -> list[HostName]:
        names = set(self.state.hosts) | set(self._hosts)
        return sorted(names.difference(self._hosts_removed))

    def hosts(self) -> Iterator[HostRecord]:
        for name in self.host_names():
            host = self.host(name)
            assert host is not None
            yield host

    def policy(self, name: HostName) -> HostPolicy:
        return self.config.hosts.get(name) or HostPolicy(name=name)

    def guest(self, guest_id: GuestId) -> GuestRecord | None:
        if guest_id in self._guests:
            return self._guests[guest_id]
        return self.state.guests.get(guest_id)

    def guest_named(self, name: str) -> GuestRecord | None:
        """The protected guest of that name."""
        for guest in self._guests.values():
            if guest is not None and guest.name == name:
                return guest
        found = self.guest(self.state.named.get(name, ""))
        return found if found is not None and found.name == name else None

    def guests(self) -> Iterator[GuestRecord]:
        for guest_id in list(self.state.guests):
            guest = self.guest(guest_id)
            if guest is not None:
                yield guest
        for guest_id, guest in list(self._guests.items()):
            if guest is not None and guest_id not in self.state.guests:
                yield guest

    def guests_at(self, host: HostName) -> list[GuestId]:
        """Protected guests that may be running there."""
        ids = self.state.at_host.get(host, set()) | self._moved.get(host, set())
        found = ((guest_id, self.guest(guest_id)) for guest_id in sorted(ids))
        return [
            guest_id for guest_id, guest in found if guest and any(p.host == host for p in guest.may_run_on)
        ]

    @property
    def members(self) -> Members:
        """The guests that each rule is about, as decided so far."""
        kept: Members = self.memo.get("members", self.state.members)
        if kept.rules is not self.config.rules:
            kept = self.memo["members"] = Members(self.config.rules, self.guests())
        return kept

    def touched_hosts(self) -> set[HostName]:
        """Hosts of which something was decided: their record, what is seen of them, or who may run there."""
        return self._hosts.keys() | self.views.keys() | self._moved.keys()

    def decided_at(self, host: HostName) -> list[GuestRecord | None]:
        """What was decided of guests that were or are there; None: it is dropped."""
        return [self._guests[guest_id] for guest_id in sorted(self._moved.get(host, ()))]

    def unsettled(self) -> list[GuestRecord]:
        ids = self.state.unsettled | set(self._guests)
        found = (
            self.guest(guest_id) for guest_id in sorted(ids)
        )  # a set's order is not the same in every run
        return [guest for guest in found if guest is not None and not settled(guest)]

    def view(self, name: HostName) -> View:
        return self.views.get(name) or self.state.views.get(name) or View()

    def pendings(self) -> Iterator[tuple[str, Pending]]:
        for key, pending in self.state.pending.items():
            if key not in self.pending:
                yield key, pending
        for key, decided in self.pending.items():
            if decided is not None:
                yield key, decided

    def pending_of(self, key: str) -> Pending | None:
        return self.pending[key] if key in self.pending else self.state.pending.get(key)

    def pendings_of(self, name: GuestId | HostName) -> Iterator[tuple[str, Pending]]:
        """Those that are about that guest or that host: sent there, or looking at it."""
        index: dict[str, dict[str, Pending]] | None = self.memo.get("pendings")
        if index is None:
            index = self.memo["pendings"] = {}
            for key, pending in self.pendings():
                _note_pending(index, key, pending)
        for key, pending in index.get(name, {}).items():
            if self.pending_of(key) is pending:
                yield key, pending

    def find_pending(
        self, kind: str, *, host: HostName = "", guest: GuestId = ""
    ) -> tuple[str, Pending] | None:
        """The pending effect of that kind for that host and guest, if any ("" = whichever)."""
        about = guest or host
        for key, pending in self.pendings_of(about) if about else self.pendings():
            if pending.kind == kind and host in ("", pending.host) and guest in ("", pending.guest):
                return key, pending
        return None

    def checked_of(self, guest_id: GuestId) -> Checked | None:
        """The newest round of its checks in this term."""
        return self.checked[guest_id] if guest_id in self.checked else self.state.checked.get(guest_id)

    def operation(self, key: str) -> Operation | None:
        return self._operations.get(key) or self.state.operations.get(key)

    def open_operations(self) -> list[Operation]:
        keys = self.state.open_operations | set(self._operations)
        found = (self.operation(key) for key in sorted(keys))
        return [operation for operation in found if operation and operation.state is OperationState.OPEN]

    def operation_about(self, guest_id: GuestId) -> str:
        """The id of the open operation that does something with this guest, or ""."""
        about = (op.id for op in self.open_operations() if guest_id in op.guests and op.kind != GUEST_CHECK)
        return next(about, "")

    def identity(self, host: HostName, device: str) -> DeviceIdentity | None:
        for identity in reversed(self._identities):
            if (identity.host, identity.device) == (host, device):
                return identity
        return self.state.identities.get((host, device))

    # ---- writing

    def next_id(self, prefix: str) -> str:
        """A new id; never used before in this cluster: the epoch is in it, and each term counts from one."""
        self.sequence += 1
        return f"{prefix}-{self.cluster.epoch}-{self.sequence}"

    def put_host(self, host: HostRecord) -> None:
        self.writes += 1
        self.host_writes += 1
        self._hosts[host.name] = host

    def remove_host(self, name: HostName) -> None:
        self.writes += 1
        self.host_writes += 1
        self._hosts.pop(name, None)
        self._hosts_removed.append(name)

    def require_host(self, name: HostName) -> HostRecord:
        host = self.host(name)
        assert host is not None
        return host

    def drop_session(self, name: HostName, session: str, reason: str) -> None:
        """Close a link session; the agent dials again."""
        self._effects.append(DropSession(host=name, session=session, reason=reason))

    def forget_session(self, name: HostName) -> None:
        """Answers of that host's session will not come: what waited for them is asked again."""
        for key, pending in list(self.pendings()):
            if pending.host == name and pending.kind in OF_SESSION:
                self.forget(key)

    def put_guest(self, guest: GuestRecord) -> None:
        before = self._decide_guest(guest.id, guest)
        if before is None or (before.name, before.labels) != (guest.name, guest.labels):
            self._own_members().put(guest)

    def drop_guest(self, guest_id: GuestId) -> None:
        self._decide_guest(guest_id, None)
        self._own_members().drop(guest_id)

    def _decide_guest(self, guest_id: GuestId, guest: GuestRecord | None) -> GuestRecord | None:
        """Returns what it was before."""
        before = self.guest(guest_id)
        seen = guest_id in self._guests  # then what it was is noted already
        for record in (None if seen else before, guest):
            for place in record.may_run_on if record else ():
                self._moved.setdefault(place.host, set()).add(guest_id)
        self.writes += 1
        self.guest_writes += 1
        self._guests[guest_id] = guest
        return before

    def _own_members(self) -> Members:
        if "members" not in self.memo:
            self.memo["members"] = self.members.copy()
        own: Members = self.memo["members"]
        return own

    def put_view(self, name: HostName, **fields: object) -> View:
        view = changed(self.view(name), **fields)
        self.writes += 1
        self.host_writes += 1
        self.views[name] = view
        return view

    def put_definition(self, definition: StoredDefinition) -> None:
        self._definitions.append(definition)

    def put_picture(self, picture: StoredPicture) -> None:
        self._pictures.append(picture)

    def put_identity(self, identity: DeviceIdentity) -> None:
        self._identities.append(identity)

    def put_output(self, output: Output) -> None:
        self._outputs.append(output)

    def wait_for(self, key: str, pending: Pending) -> None:
        self.pending[key] = pending
        if "pendings" in self.memo:
            _note_pending(self.memo["pendings"], key, pending)

    def forget(self, key: str) -> None:
        self.pending[key] = None

    def effect(self, effect: Effect) -> None:
        self._effects.append(effect)

    def note(
        self,
        kind: str,
        text: str,
        *,
        host: HostName = "",
        guest: GuestId = "",
        operation: str = "",
        by: str = "",
        proof: Proof | None = None,
    ) -> None:
        """A line of the timeline, and of the operation's history if one is named."""
        self._notes.append(
            Note(
                now=self.now,
                kind=kind,
                text=text,
                host=host,
                guest=guest,
                operation=operation,
                by=by,
                proof=proof,
            )
        )
        record = self.operation(operation) if operation else None
        if record is not None:
            step = Step(at=self.now, text=text)
            self._operations[record.id] = changed(record, steps=(*record.steps[-199:], step))

    def just_closed(self) -> list[Operation]:
        """Operations that were closed in this decision."""
        before = self.state.open_operations
        return [
            operation
            for key, operation in sorted(self._operations.items())
            if operation.state is not OperationState.OPEN
            and (key in before or key not in self.state.operations)
        ]

    def open_operation(
        self, kind: str, subject: str, why: str, by: str = "dr", guests: Iterable[GuestId] = ()
    ) -> Operation:
        operation = Operation(
            id=self.next_id(kind),
            kind=kind,
            subject=subject,
            why=why,
            asked_by=by,
            opened=self.now,
            guests=dict.fromkeys(guests, ""),
        )
        self._operations[operation.id] = operation
        return operation

    def close_operation(self, operation: Operation, state: str, text: str) -> None:
        """End an operation with its last sentence; `state` is an OperationState value."""
        self.note(f"{operation.kind}.{state}", text, operation=operation.id)
        record = self._operations[operation.id]
        self._operations[operation.id] = changed(record, state=OperationState(state), closed=self.now)

    def outcome(self, operation: str, guest_id: GuestId, text: str) -> None:
        """How an open operation ended for one of its guests."""
        record = self.operation(operation)
        if record is not None and record.state is OperationState.OPEN and guest_id in record.guests:
            self._operations[operation] = changed(record, guests=record.guests | {guest_id: text})

    def put_operation(self, operation: Operation) -> None:
        self._operations[operation.id] = operation

    def put_drill(self, report: DrillReport) -> None:
        """Keep its report. The oldest one goes when there are more than are kept."""
        self._drills[report.id] = report
        kept = sorted(self.state.drills.values(), key=lambda head: (head.ended, head.id))
        self._drills |= dict.fromkeys(head.id for head in kept[: max(0, len(kept) + 1 - KEPT_MAX)])

    def schedule(self, name: str) -> ScheduleRecord | None:
        return self._schedules[name] if name in self._schedules else self.state.schedules.get(name)

    def put_schedule(self, record: ScheduleRecord) -> None:
        self._schedules[record.name] = record

    def drop_schedule(self, name: str) -> None:
        self._schedules[name] = None

    def alert(self, key: str, what: str, why: str, todo: str, severity: str = "warning") -> None:
        """Raise once: people are told again only after it was cleared."""
        if self.alert_of(key) is not None:
            return
        alert = Alert(key=key, what=what, why=why, todo=todo, severity=severity, raised=self.now)
        self._alerts[key] = alert
        self._effects.append(Notify(alert=alert))

    def tell(self, alert: Alert) -> None:
        """Tell people of something that is over: nothing stands, so nothing needs to clear."""
        self._effects.append(Notify(alert=alert))

    def alert_of(self, key: str) -> Alert | None:
        return self._alerts[key] if key in self._alerts else self.state.alerts.get(key)

    def clear_alert(self, key: str) -> None:
        alert = self.alert_of(key)
        if alert is not None:
            self._alerts[key] = None
            self._effects.append(Notify(alert=alert, cleared=True))

    # ---- result

    def changes(self) -> Changes:
        """What must be durable. Unchanged records are left out."""
        return Changes(
            cluster=self.cluster if self.cluster != self.state.cluster else None,
            hosts={name: host for name, host in self._hosts.items() if self.state.hosts.get(name) != host},
            hosts_removed=tuple(self._hosts_removed),
            guests={key: guest for key, guest in self._guests.items() if guest != self.state.guests.get(key)},
            definitions=tuple(self._definitions),
            pictures=tuple(self._pictures),
            identities=tuple(self._identities),
            operations=dict(self._operations),
            alerts=dict(self._alerts),
            drills=dict(self._drills),
            schedules=dict(self._schedules),
            outputs=tuple(self._outputs),
            notes=tuple(self._notes),
        )

    def decision(self) -> Decision:
        return Decision(changes=self.changes(), effects=tuple(self._effects))
