"""One agent's session with the coordinator, simulated: in order, late, cut, half open.

Here: when a message arrives and what becomes of it, the planned faults of single messages among that. Not here: what
it says.

A cut cable loses nothing by itself: what was sent waits in TCP and arrives after the cable is back, unless one end
was closed meanwhile, which resets the other. A host that lost power says nothing at all.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dr.sim.clock import Action

if TYPE_CHECKING:
    from dr.sim.coordinator import SimCoordinator
    from dr.sim.host import SimHost
    from dr.sim.world import World

QUICK_S = 1.0


class Link:
    """A session. `up` goes to the coordinator, `down` to the agent."""

    def __init__(self, world: World, host: SimHost, coordinator: SimCoordinator, nonce: str) -> None:
        self.world = world
        self.host = host
        self.coordinator = coordinator
        self.boot_id = host.boot_id
        self.incarnation = host.agent.incarnation
        self.term = coordinator.term
        self.nonce = nonce
        self.agent_open = True
        self.coordinator_open = True
        self.coordinator_heard = world.clock.now
        self.agent_heard = world.clock.now
        self._up: deque[Action] = deque()
        self._down: deque[Action] = deque()
        self._up_at = self._down_at = 0.0

    @property
    def quick(self) -> bool:
        """Whether both ends are open and heard each other just now."""
        now = self.world.clock.now
        both = self.agent_open and self.coordinator_open and self._path_open()
        return both and now - min(self.agent_heard, self.coordinator_heard) < QUICK_S

    def send_up(self, action: Action, what: str) -> None:
        """`action` runs in the coordinator when the message arrives."""
        self._up_at = max(self.world.clock.now + self.world.latency_s(), self._up_at + 1e-6)
        for at in self._when(self._up_at, what):
            self.world.clock.at(at, lambda: self._arrive(self._up, self._deliver_up, action))

    def send_down(self, action: Action, what: str) -> None:
        """`action` runs in the agent when the message arrives."""
        self._down_at = max(self.world.clock.now + self.world.latency_s(), self._down_at + 1e-6)
        for at in self._when(self._down_at, what):
            self.world.clock.at(at, lambda: self._arrive(self._down, self._deliver_down, action))

    def _when(self, at: float, what: str) -> tuple[float, ...]:
        """When it arrives: once, unless a fault was planned for it."""
        how, seconds = self.world.disturbed(self.host.name, what)
        if how == "lost":
            if what == "report":  # nothing is said twice: only its session can take it away
                self.reset()
            return ()
        return {"": (at,), "repeated": (at, at + seconds), "late": (at + seconds,)}[how]

    def reset(self) -> None:
        """Something between them tears it down; both ends learn of it."""
        if self.agent_open:
            self.close_by_agent()
            self.host.agent.link_lost(self)

    def _path_open(self) -> bool:
        return self.world.network.coordinator_reaches(self.host, self.coordinator)

    def _arrive(self, waiting: deque[Action], deliver: object, action: Action) -> None:
        assert callable(deliver)
        if waiting or not self._path_open():
            waiting.append(action)
        else:
            deliver(action)

    def flush(self) -> None:
        """The path is open (again): what waited arrives, in order."""
        while self._up and self._path_open():
            self._deliver_up(self._up.popleft())
        while self._down and self._path_open():
            self._deliver_down(self._down.popleft())

    def _deliver_up(self, action: Action) -> None:
        if self.coordinator_open and self.term == self.coordinator.term:
            self.coordinator_heard = self.world.clock.now
            self.coordinator.receive(action)
        elif self.agent_open:
            self._reset_agent()

    def _deliver_down(self, action: Action) -> None:
        agent = self.host.agent
        if self.agent_open and self.boot_id == self.host.boot_id and agent.incarnation == self.incarnation:
            agent.run(lambda: self._heard_by_agent(action))
        elif self.coordinator_open:
            self.coordinator.link_lost(self)

    def _heard_by_agent(self, action: Action) -> None:
        self.agent_heard = self.world.clock.now
        action()

    def _reset_agent(self) -> None:
        self.agent_open = False
        if self.boot_id == self.host.boot_id and self.host.agent.incarnation == self.incarnation:
            self.host.agent.run(lambda: self.host.agent.link_lost(self))

    def close_by_agent(self, goodbye: str = "") -> None:
        """The agent, or the kernel of a host whose agent died, ends it; the other side hears of it if it can."""
        if self.agent_open:
            self.agent_open = False
            self.send_up(lambda: self.coordinator.link_lost(self, goodbye), "close")

    def close_by_coordinator(self) -> None:
        if self.coordinator_open:
            self.coordinator_open = False
            self.send_down(lambda: self.host.agent.link_lost(self), "close")

    def process_gone(self) -> None:
        """The coordinator's process died: its kernel resets the connection, if the path is open."""
        self.coordinator_open = False
        if self._path_open():
            self._reset_agent()
