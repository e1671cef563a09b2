"""What a scenario's facts are judged by: the world as it is, and what was counted since the scenario began.

Here: counting from the trace. Not here: what a fact means (`facts`).
"""

from __future__ import annotations

from collections import Counter

from dr.core import failback
from dr.core.state import Draft
from dr.model.base import GuestId, HostName
from dr.sim.trace import Said
from dr.sim.world import World


class Observer:
    """Reads the trace as it grows; `catch_up` before each look."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.begun_s = world.clock.now
        self.starts: Counter[GuestId] = Counter()
        self.first_start_s: dict[GuestId, float] = {}
        self.started_on: set[tuple[GuestId, HostName]] = set()
        self.fenced: Counter[HostName] = Counter()
        self.longest_down_s: dict[GuestId, float] = {}
        self._down_since: dict[GuestId, float] = {
            guest: self.begun_s for guest in world.definitions if not world.running(guest)
        }
        self._read = len(world.trace)
        self._told: dict[str, tuple[int, bool]] = {}

    @property
    def now_s(self) -> float:
        """Seconds since the scenario began."""
        return self.world.clock.now - self.begun_s

    def since_begun(self) -> list[Said]:
        return [said for said in self.world.trace if said.t_s >= self.begun_s]

    def catch_up(self) -> None:
        trace = self.world.trace
        while self._read < len(trace):
            said = trace[self._read]
            self._read += 1
            match said.kind:
                case "guest.began":
                    guest = str(said.fields["guest"])
                    self.starts[guest] += 1
                    self.first_start_s.setdefault(guest, said.t_s)
                    self.started_on.add((guest, str(said.fields["host"])))
                    since = self._down_since.pop(guest, said.t_s)
                    self.longest_down_s[guest] = max(self.longest_down_s.get(guest, 0.0), said.t_s - since)
                case "guest.ended":
                    guest = str(said.fields["guest"])
                    if not self.world.running(guest):
                        self._down_since.setdefault(guest, said.t_s)
                case "fence":
                    self.fenced[str(said.fields["host"])] += 1
                case _:
                    pass

    def down_s(self, guest: GuestId) -> float:
        """For how long it has run nowhere now; 0 while it runs."""
        since = self._down_since.get(guest)
        return 0.0 if since is None else self.world.clock.now - since

    def failback(self, guest: GuestId) -> str:
        """What the coordinator says of its way home."""
        state = self.world.coordinator.state
        record = state.guests.get(guest)
        return "" if record is None else failback.in_words(Draft(state, self.world.coordinator.now), record)

    def told(self, text: str) -> bool:
        """Whether some line of the trace since the beginning contains that text."""
        read, found = self._told.get(text, (0, False))
        if not found:
            trace = self.world.trace
            found = any(
                text.lower() in said.text.lower() for said in trace[read:] if said.t_s >= self.begun_s
            )
            self._told[text] = (len(trace), found)
        return found
