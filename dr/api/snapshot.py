"""A frozen look at the coordinator's state, so that answers are built in a thread while the loop decides on.

Records are immutable, so copying the dictionaries is enough: under a millisecond for a thousand hosts.
Not here: what is made of it (`views`, `doctor`, `metrics`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dr.core.branch import branched
from dr.core.state import State
from dr.core.volatile import View
from dr.model.allowed import Output
from dr.model.base import GuestId, HostName
from dr.model.decision import Note
from dr.model.drills import DrillReport
from dr.model.effects import Reply
from dr.model.events import OperatorAsk
from dr.model.facts import GuestFacts
from dr.model.operations import Operation
from dr.model.policy import FenceDevice, HostPolicy
from dr.model.records import Alert, DeviceIdentity, StoredDefinition, StoredPicture


class Line(Protocol):
    """One line of the timeline as it is stored."""

    @property
    def key(self) -> str: ...
    @property
    def wall(self) -> float: ...
    @property
    def note(self) -> Note: ...
    @property
    def decision(self) -> str: ...


@dataclass(frozen=True)
class Devices:
    """What is known of fence devices beside their configuration. Called in threads."""

    fingerprint: Callable[[FenceDevice], str]  # of its parameters, as an identity keeps it
    problem: Callable[[FenceDevice], str]  # why it cannot be used from this machine, or ""


@dataclass(frozen=True)
class Snapshot:
    """The state at one moment, with that moment's times."""

    state: State
    now: float  # leader time
    wall: Callable[[float], float]  # leader time -> unix time; leader time stands still while nobody leads
    devices: Devices

    @classmethod
    def of(
        cls,
        state: State,
        now: float,
        wall: Callable[[float], float],
        devices: Devices,
        alerts: Iterable[Alert] = (),
    ) -> Snapshot:
        """`alerts`: of the process itself, beside those that were decided."""
        copy = branched(
            state, anew=True
        )  # what a thread derives from an older moment must not reach decisions
        copy.alerts |= {alert.key: alert for alert in alerts}
        return cls(copy, now, wall, devices)

    def age(self, at: float) -> float:
        """Seconds by the wall clock: what happened before a coordinator's outage is older than leader time says."""
        return round(max(0.0, self.wall(self.now) - self.wall(at)), 1)

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

    def proven(self, host: HostName, device: FenceDevice) -> DeviceIdentity | None:
        """The identity of a device, if it was shown with the parameters that are configured now."""
        identity = self.state.identities.get((host, device.name))
        if identity is None or identity.fingerprint != self.devices.fingerprint(device):
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
    async def outputs(self, operation: str) -> list[Output]: ...
    async def definition(self, guest: GuestId) -> StoredDefinition | None: ...
    async def drill(self, key: str) -> DrillReport | None: ...

    async def picture(self, guest: GuestId) -> StoredPicture | None: ...
    async def decision(self, name: str) -> bytes | None: ...
