"""A frozen look at the coordinator's state, so that answers are built in a thread while the loop decides on.

Records are immutable, so copying the dictionaries is enough: under a millisecond for a thousand hosts.
Not here: what is made of it (`views`, `doctor`, `metrics`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from dr.core.state import State, View
from dr.model.base import GuestId, HostName
from dr.model.decision import Note
from dr.model.effects import Reply
from dr.model.events import OperatorAsk
from dr.model.facts import GuestFacts
from dr.model.policy import HostPolicy
from dr.model.records import DeviceIdentity, Operation, StoredDefinition


class Line(Protocol):
    """One line of the timeline as it is stored."""

    @property
    def key(self) -> str: ...
    @property
    def wall(self) -> float: ...
    @property
    def note(self) -> Note: ...


@dataclass(frozen=True)
class Snapshot:
    """The state at one moment, with that moment's times."""

    state: State
    now: float  # leader time
    wall_offset: float  # unix time - leader time
    fingerprints: dict[tuple[HostName, str], str] = field(default_factory=dict)  # of the configured devices

    @classmethod
    def of(
        cls, state: State, now: float, wall: float, fingerprints: dict[tuple[HostName, str], str]
    ) -> Snapshot:
        copy = replace(
            state,
            hosts=dict(state.hosts),
            guests=dict(state.guests),
            identities=dict(state.identities),
            operations=dict(state.operations),
            alerts=dict(state.alerts),
            views=dict(state.views),
            pending=dict(state.pending),
            unsettled=set(state.unsettled),
            open_operations=set(state.open_operations),
            at_host={host: set(guests) for host, guests in state.at_host.items()},
        )
        return cls(copy, now, wall - now, fingerprints)

    def wall(self, at: float) -> float:
        """Leader time as unix time, for people."""
        return at + self.wall_offset

    def age(self, at: float) -> float:
        return round(max(0.0, self.now - at), 1)

    def view(self, host: HostName) -> View:
        return self.state.views.get(host) or View()

    def policy(self, host: HostName) -> HostPolicy:
        return self.state.settings.hosts.get(host) or HostPolicy(name=host)

    def heard(self, host: HostName) -> float | None:
        """Seconds since a host was last heard; None if not in this term."""
        view = self.state.views.get(host)
        return None if view is None or not view.heard else self.age(view.heard)

    def sightings(self) -> dict[GuestId, list[tuple[HostName, GuestFacts]]]:
        """Every domain in any host's inventory."""
        seen: dict[GuestId, list[tuple[HostName, GuestFacts]]] = {}
        for host, view in sorted(self.state.views.items()):
            for facts in view.guests.values():
                seen.setdefault(facts.id, []).append((host, facts))
        return seen

    def proven(self, host: HostName, device: str) -> DeviceIdentity | None:
        """The identity of a device, if it was shown with the parameters that are configured now."""
        identity = self.state.identities.get((host, device))
        expected = self.fingerprints.get((host, device))
        if identity is None or (expected and identity.fingerprint and identity.fingerprint != expected):
            return None
        return identity


class Deciding(Protocol):
    """What the API needs of a coordinator (`dr.coordinator.service.Coordinator`)."""

    @property
    def state(self) -> State: ...
    def now(self) -> float: ...
    def wall(self, now: float) -> float: ...
    async def ask(self, ask: OperatorAsk) -> Reply:
        """Raises TimeoutError: whether it was decided is not known."""

    async def notes(self, *, after: str = "", limit: int = 200, last: bool = False) -> Sequence[Line]: ...
    async def wait_notes(self, after: str, timeout_s: float) -> None: ...
    async def operations(self, limit: int) -> list[Operation]: ...
    async def definition(self, guest: GuestId) -> StoredDefinition | None: ...
