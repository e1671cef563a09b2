"""The agent of one host, simulated: the rules are `core.warden`'s own; order and timing are as in `dr.agent`.

Here: sessions, beats, reports, what is durable when, isolation.
Not here: what is done with a command (`dr.sim.lane`), libvirt and its hook (`dr.sim.host`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from dr.core import warden
from dr.model.base import GuestId, changed
from dr.model.commands import STAY_S, Order
from dr.model.events import Connected, Heard, Leaving, Reported
from dr.model.facts import DomainState, GuestFacts, HostFacts, Level, Part, Progress, Reading
from dr.model.memory import AgentMemory
from dr.model.wire import PROTOCOL, Command, Hello, Memory, Welcome
from dr.sim.clock import Action
from dr.sim.clones import SimClones
from dr.sim.commands import Ran
from dr.sim.copying import SimCopies
from dr.sim.dirtying import SimSampling
from dr.sim.domain import Domain
from dr.sim.lane import SimLane
from dr.sim.link import Link
from dr.sim.tickets import SimTickets

if TYPE_CHECKING:
    from dr.sim.host import SimHost

CLUSTER = "c1"
FLUSH_S = 1.0
FOLLOW_S = 1.0
SILENCE_S = 10.0
REREAD_S = 5.0
LINKED_S = 5.0  # a session in which nothing came for so long is no sign of a coordinator

NOTHING_TOLD = (GuestFacts(id="", name="", state=DomainState.NOSTATE),)  # differs from every inventory

P = ParamSpec("P")


class Killed(Exception):
    """The process dies at this very point; raised by `SimAgent.at_point`."""

    def __init__(self, agent: SimAgent) -> None:
        super().__init__(agent.host.name)
        self.agent = agent


def _mortal(entry: Callable[P, None]) -> Callable[P, None]:
    """Where something reaches the process: it may die over it."""

    @wraps(entry)
    def until_killed(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            entry(*args, **kwargs)
        except Killed as killed:
            killed.agent.kill()

    return until_killed


class SimAgent:
    """One process at a time; `memory` is what it knows, `host.disk` what survives it."""

    def __init__(self, host: SimHost) -> None:
        self.host = host
        self.enabled = True  # its unit is enabled: it starts with the host
        self.alive = False
        self.frozen = False
        self.thawed_at = -math.inf  # when this process went on after it stood still
        self.incarnation = 0
        # Told of each durable write and each answer, right after it; may raise Killed: the process dies there.
        self.at_point: Callable[[str], None] = lambda _: None
        self.memory = AgentMemory()
        self.tickets = SimTickets(self)
        self.lane = SimLane(self)
        self.copies = SimCopies(self)
        self.clones = SimClones(self)
        self.sampling = SimSampling(self)
        self.insides: dict[str, Ran] = {}  # commands in guests that this process has begun
        self.link: Link | None = None
        self._dialled: Link | None = None
        self._echo = 0.0
        self._parked: deque[Action] = deque()
        self._guests: tuple[GuestFacts, ...] = ()
        self._read = False
        self._told: tuple[HostFacts, tuple[GuestFacts, ...], tuple[Reading, ...]] | None = None
        self._look_planned = False
        self._moves: tuple[Progress, ...] = ()
        self._until = 0.0

    @property
    def nonce(self) -> str:
        """Of this process."""
        return f"{self.host.name}-{self.incarnation}"

    # ---- the process

    @_mortal
    def start(self) -> None:
        if self.alive or not self.host.up:
            return
        self.alive = True
        self.frozen = False
        self.incarnation += 1
        self.memory = warden.wake(self.host.disk, self.nonce)
        if not self.memory.cluster:
            self.memory = changed(self.memory, cluster=CLUSTER)
        self.save()
        if self.memory.protected_version:
            self.host.guarded = {entry.guest for entry in self.memory.entries}
            self.host.permits.clear()
        self.link = self._dialled = None
        self.lane.turns = {}
        self.insides = {}
        self.copies = SimCopies(self)
        self.clones = SimClones(self)
        self.sampling = SimSampling(self)
        self._guests, self._read, self._told = (), False, None
        self._look_planned = False
        self._moves = ()
        self._reread()
        rng = self.host.world.rng
        self.later(rng.uniform(0.05, 0.3), self._dial)
        self.later(FLUSH_S, self._flush)
        self.later(FOLLOW_S, self._follow)
        self.later(REREAD_S, self._reread_again)
        self.later(1.0, self._mind_silence)
        self._alone: float | None = None
        self.later(1.0, self._mind_isolation)
        self.later(rng.uniform(0.0, 0.5), self._mind_copies)

    def gone(self) -> None:
        """Killed, or its host died; nothing is said here."""
        self.alive = False
        self.incarnation += 1
        self._parked.clear()
        self.link = None

    def kill(self) -> None:
        """SIGKILL: the kernel closes its link."""
        link = self.link
        self.gone()
        if link is not None:
            link.close_by_agent()

    def stop(self) -> None:
        """Asked to: says goodbye. What was under way ends unseen."""
        link = self.link
        self.gone()
        if link is not None:
            link.close_by_agent("agent stops: asked to")

    def announce(self) -> None:
        """Its host goes down."""
        self.bid(STAY_S)
        link = self.link
        if self.alive and link is not None:
            event = Leaving(host=self.host.name, session=link.nonce, kind=self.host.leaving)
            link.send_up(lambda: link.coordinator.submit(event), "leaving")

    def bid(self, for_s: float) -> None:
        """Its host is to wait for so long before it goes down."""
        self._until = self.host.world.clock.now + for_s

    @property
    def holds(self) -> bool:
        """Whether it keeps its host from going down; one that stands still does not let go."""
        return self.alive and (self.frozen or self.host.world.clock.now < self._until)

    def lose_state(self) -> None:
        """Its state directory is lost while it is down; the hook's list, elsewhere, stays."""
        self.kill()
        self.host.disk = AgentMemory()
        self.host.world.truth.lost_state(self.host)

    def freeze(self, seconds: float) -> None:
        if self.alive and not self.frozen:
            self.frozen = True
            incarnation = self.incarnation
            self.host.later(seconds, lambda: self._thaw() if self.incarnation == incarnation else None)

    def _thaw(self) -> None:
        self.frozen = False
        self.thawed_at = self.host.world.clock.now
        waiting, self._parked = self._parked, deque()
        for action in waiting:
            action()

    @_mortal
    def run(self, action: Action) -> None:
        """Now, if this process runs; when frozen, later; when gone, never."""
        if not self.alive or not self.host.up:
            return
        incarnation = self.incarnation
        if self.frozen or self.host.frozen:
            parked = self.host.parked if self.host.frozen else self._parked
            parked.append(lambda: self.run(action) if self.incarnation == incarnation else None)
        else:
            action()

    def later(self, delay_s: float, action: Action) -> None:
        incarnation = self.incarnation
        self.host.world.clock.after(
            delay_s, lambda: self.run(action) if self.incarnation == incarnation else None
        )

    def save(self) -> None:
        """All that it knows now is durable."""
        if self.host.disk != self.memory:
            self.host.disk = self.memory
            self.at_point("write")

    def _flush(self) -> None:
        self.save()
        self.later(FLUSH_S, self._flush)

    # ---- what it sees

    def _reread(self) -> None:
        if self.host.libvirtd == "up":
            self._guests, self._read = self.host.inventory(self.part), True

    def _reread_again(self) -> None:
        self.look_again()
        self.later(REREAD_S, self._reread_again)

    def part(self, guest: GuestId, domain: Domain) -> Part:
        """What a domain is in a migration, as libvirt and the agent's own memory tell."""
        if domain.incoming is not None:
            return Part.ARRIVING
        if domain.outgoing is not None:
            return Part.LEAVING
        copy = domain.active and warden.copy_here(self.memory, guest, self.host.boot_id)
        return Part.WAITING if copy else Part.NONE

    def _mind_copies(self) -> None:
        """Rule 7, every heartbeat."""
        host = self.host
        for guest, domain in sorted(host.domains.items()) if host.libvirtd == "up" else ():
            if not domain.active:
                continue
            arriving = domain.incoming is not None
            verdict = warden.stray(self.memory, guest, host.boot_id, arriving=arriving, runs=domain.runs)
            if verdict is warden.Stray.SUSPEND:
                self.memory = warden.seen_running(self.memory, guest, host.boot_id)
                self.save()
                host.paused(guest, domain, "user")
            elif verdict is warden.Stray.DESTROY:
                host.ended(guest, domain, "destroyed")
        self.later(host.world.settings.timers.heartbeat_s, self._mind_copies)

    def _follow(self) -> None:
        """How far its outgoing migrations are, every second."""
        moves, link = (*self.host.progress(self.memory.left), *self.copies.progress()), self.link
        if link is not None and (samples := self.sampling.look(link.nonce)):
            now = self.host.world.clock.now
            told = Reported(host=self.host.name, session=link.nonce, samples=samples, clock_s=now)
            link.send_up(lambda: link.coordinator.submit(told), "report")
        if moves != self._moves and link is not None:
            event = Reported(host=self.host.name, session=link.nonce, moves=moves)
            link.send_up(lambda: link.coordinator.submit(event), "report")
            self._moves = moves
        self.later(FOLLOW_S, self._follow)

    def look_again(self) -> None:
        """Something happened on the host: read, and tell what changed, in a moment."""
        if not self._look_planned and self.alive:
            self._look_planned = True
            self.later(self.host.world.rng.uniform(0.01, 0.12), self._look)

    def _look(self) -> None:
        self._look_planned = False
        self._reread()
        link, told = self.link, self._told
        if link is None or told is None:
            return
        facts, guests, health = self._snapshot()
        event = Reported(
            host=self.host.name,
            session=link.nonce,
            facts=facts if facts != told[0] else None,
            guests=guests if guests != told[1] and self.host.libvirtd == "up" else None,
            health=health if health != told[2] else None,
        )
        self._told = (facts, told[1] if event.guests is None else guests, health)
        if event.facts is not None or event.guests is not None or event.health is not None:
            link.send_up(lambda: link.coordinator.submit(event), "report")

    def _snapshot(self) -> tuple[HostFacts, tuple[GuestFacts, ...], tuple[Reading, ...]]:
        health = tuple(
            Reading(part=part, level=level, reason="it fails" if level is Level.CRITICAL else "")
            for part, level in sorted(self.host.hardware.items())
        )
        if self.host.libvirtd != "up" or not self._read:
            health += (Reading(part="libvirt", level=Level.CRITICAL, reason="libvirt does not answer"),)
        return self.host.facts(), warden.told(self.memory, self._guests), health

    # ---- sessions

    def _dial(self) -> None:
        world = self.host.world
        if self.link is not None:
            return
        link = world.dial(self.host)
        if link is None:
            self.later(world.rng.uniform(0.2, 1.0), self._dial)
            return
        self._dialled = link
        facts, guests, health = self._told = self._snapshot()
        memory = self.memory
        hello = Hello(
            protocol=PROTOCOL,
            version="0",
            cluster=CLUSTER,
            boot_id=self.host.boot_id,
            nonce=self.nonce,
            memory=Memory(
                epoch=memory.epoch,
                leader_id=memory.leader_id,
                revision=memory.revision,
                protected_version=memory.protected_version,
                entries=memory.entries,
                sealed=memory.sealed,
            ),
            facts=facts,
            guests=guests if self._read and self.host.libvirtd == "up" else None,
            health=health,
            leaving=self.host.leaving,
        )
        if hello.guests is None:
            self._told = (facts, NOTHING_TOLD, health)
        event = Connected(host=self.host.name, session=link.nonce, hello=hello)
        link.send_up(lambda: link.coordinator.connected(link, event), "hello")
        self.later(5.0, lambda: self._welcome_late(link))

    def _welcome_late(self, link: Link) -> None:
        if self._dialled is link and self.link is not link:
            link.close_by_agent()
            self.link_lost(link)

    @_mortal
    def welcomed(self, link: Link, welcome: Welcome, issued: float) -> None:
        if link is not self._dialled or self.link is not None:
            return
        memory, verdict = warden.adopt(self.memory, welcome)
        if isinstance(verdict, warden.Refuse):
            self.host.world.say(
                f"{self.host.name} refuses a coordinator: {verdict.reason}",
                "coordinator.refused",
                host=self.host.name,
                reason=verdict.reason,
            )
            link.close_by_agent()
            self.link_lost(link)
            return
        self.memory = memory
        self.save()
        self.host.world.truth.adopted(self.host, welcome)
        self.link = link
        self._echo = issued
        self._beat(link)
        self.look_again()

    def link_lost(self, link: Link) -> None:
        """It was closed, reset, or refused."""
        link.agent_open = False
        if link in (self.link, self._dialled):
            self.link = self._dialled = None
            self.later(self.host.world.rng.uniform(0.1, 1.0), self._dial)

    def _mind_silence(self) -> None:
        link = self.link
        if link is not None and self.host.world.clock.now - link.agent_heard > SILENCE_S:
            link.close_by_agent()
            self.link_lost(link)
        self.later(1.0, self._mind_silence)

    def _mind_isolation(self) -> None:
        """Alone for too long: guests whose policy says so are shut down."""
        world, now, link = self.host.world, self.host.world.clock.now, self.link
        linked = link is not None and now - link.agent_heard < LINKED_S
        heard = None
        if not linked and self.memory.peers:
            targets = ((world.hosts[address.split(":")[1]], address) for address in self.memory.peers)
            heard = any(world.network.hears(self.host.name, target, address) for target, address in targets)
        self._alone = warden.alone_since(self._alone, now, linked=linked, heard=heard)
        active = {facts.id for facts in self._guests if facts.active}
        self.memory = warden.relieve(self.memory, active, self.lane.turns)
        for entry in warden.to_shut_down(self.memory, self._alone, now):
            if entry.guest in active and entry.guest not in self.lane.turns:
                self.lane.begin(entry.guest)
                self._shut_down(entry.guest)
        self.later(1.0, self._mind_isolation)

    def _shut_down(self, guest: GuestId) -> None:
        """Cleanly; then, if the host is alone still, not so."""
        host = self.host
        host.world.say(f"{host.name} is isolated and shuts {guest} down", "agent.isolated", host=host.name)
        self.memory = warden.isolate(self.memory, guest)
        self.save()

        def over(failed: str, unseen: str) -> None:
            self.lane.next_turn(guest)
            self.look_again()

        def then(failed: str, unseen: str) -> None:
            if (failed or unseen) and self._alone is not None:
                self.tickets.call(over, lambda once: host.stop_domain(guest, "destroy", 0.0, once))
            else:
                over(failed, unseen)

        self.tickets.call(then, lambda once: host.stop_domain(guest, "shutdown", self.memory.stop_s, once))

    def _beat(self, link: Link) -> None:
        if link is not self.link:
            return
        world, echo = self.host.world, self._echo
        event = Heard(host=self.host.name, session=link.nonce, fresh=echo)
        link.send_up(lambda: link.coordinator.beat(link, event), "beat")
        self.later(world.settings.timers.heartbeat_s, lambda: self._beat(link))

    def acknowledged(self, link: Link, issued: float, revision: int) -> None:
        if link is self.link:
            self._echo = issued
            self.memory = warden.acknowledge(self.memory, revision)

    @_mortal
    def command(self, link: Link, command: Command) -> None:
        if link is self.link:
            self.lane.take(link, command)

    def valid(self, link: Link, order: Order) -> str:
        if link is not self.link:
            return "the session of its ticket ended before it was acted on"
        return warden.invalid(
            self.memory, order.ticket, host=self.host.name, boot_id=self.host.boot_id, session=link.nonce
        )
