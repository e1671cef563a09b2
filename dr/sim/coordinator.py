"""The coordinator's process, simulated: the real `decide` over a simulated store, in the order of the real runtime.

For each event: decide, commit, take over, run the effects; it may die between any two of these. Here: that order,
sessions, restarts, freezes. Not here: decisions (`dr.core`), the world that effects act on.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dr.core.decide import decide
from dr.core.saved import Saved, encode, worth_saving
from dr.core.state import Draft, State
from dr.model.commands import Body, Start
from dr.model.effects import (
    Accept,
    CheckGuest,
    DropSession,
    Effect,
    Fence,
    Look,
    Notify,
    PowerOn,
    ReadPower,
    Reply,
    Send,
    SendStart,
)
from dr.model.events import (
    Answered,
    CheckEnded,
    Connected,
    Disconnected,
    Event,
    FenceEnded,
    Heard,
    LookEnded,
    PowerOnEnded,
    PowerSeen,
    Started,
    Tick,
)
from dr.model.facts import Definition
from dr.model.wire import PROTOCOL, Command, Welcome
from dr.sim.clock import Action
from dr.sim.link import Link
from dr.sim.network import COORDINATOR

if TYPE_CHECKING:
    from dr.sim.host import SimHost
    from dr.sim.world import World

TICK_S = 0.1
KEEPALIVE_S = 20.0


class Killed(Exception):
    """The process died here, by a fault that was planned for this very point."""


class SimCoordinator:
    """One machine's coordinator; each `boot` is a new process and a new term."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.state = State()
        self.alive = False
        self.term = 0
        self.own_boot = ""
        self.commits = 0
        self.effects = 0
        self.die_after_commit = 0  # the number of the commit (effect) that is the last thing it does
        self.die_before_effect = 0
        self.die_after_effect = 0
        self.when_killed: Action = lambda: None  # at that point
        self.links: dict[str, Link] = {}
        self.replies: dict[str, Reply] = {}
        self._frozen_since: float | None = None
        self._parked: deque[Action] = deque()
        self._base = 0.0
        self._begun = 0.0

    @property
    def now(self) -> float:
        """Leader time."""
        return self._base + self.world.clock.now - self._begun

    @property
    def frozen(self) -> bool:
        return self._frozen_since is not None

    # ---- the process

    def boot(self) -> None:
        assert not self.alive
        world = self.world
        self.alive = True
        self.term += 1
        self.links = {}
        self._parked.clear()
        self._frozen_since = None
        self.state = State(settings=world.settings)
        world.store.load_into(self.state)
        self._base, self._begun = world.store.leader_time, world.clock.now
        leader = f"L{self.term}"
        world.say(f"coordinator {leader} starts at revision {world.store.revision}", "coordinator.started")
        self.handle(Started(leader_id=leader, machine="m1", cluster="c1", boot_id=self.own_boot))
        self._tick_later()
        self.later(1.0, self._keep_alive)

    def kill(self) -> None:
        """SIGKILL. Its fence agents die with it."""
        if self.alive:
            self.world.say("coordinator is killed", "coordinator.killed")
            self.alive = False
            links, self.links = self.links, {}
            for link in links.values():
                link.process_gone()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, or its whole machine stands still: messages wait, time goes on."""
        if self.alive and self._frozen_since is None:
            self.world.say(f"coordinator stands still for {seconds:.2f} s", "coordinator.frozen")
            self._frozen_since = self.world.clock.now
            self.later(seconds, self._thaw, even_frozen=True)

    def _thaw(self) -> None:
        assert self._frozen_since is not None
        lag_s = self.world.clock.now - self._frozen_since
        self._frozen_since = None
        waiting, self._parked = self._parked, deque()
        if self.world.rng.random() < 0.3:  # which of the two the loop meets first is chance
            self.submit(Tick(lag_s=lag_s))
        for action in waiting:
            self.receive(action)
        self.submit(Tick(lag_s=lag_s))

    def later(self, delay_s: float, action: Action, *, even_frozen: bool = False) -> None:
        """In this process only; when frozen, at thaw."""
        term = self.term

        def run() -> None:
            if self.alive and self.term == term:
                if even_frozen:
                    action()
                else:
                    self.receive(action)

        self.world.clock.after(delay_s, run)

    def receive(self, action: Action) -> None:
        """Something arrives at this process."""
        if not self.alive:
            return
        if self._frozen_since is not None:
            self._parked.append(action)
        else:
            action()

    def _tick_later(self) -> None:
        term = self.term

        def tick() -> None:
            if self.alive and self.term == term:
                if self._frozen_since is None:
                    self.submit(Tick())
                self._tick_later()

        self.world.clock.after(TICK_S, tick)

    # ---- deciding

    def submit(self, event: Event) -> None:
        """An event from outside; ends in a dead coordinator if a fault was planned for a point in it."""
        if self.alive:
            self.handle(event)

    def handle(self, event: Event) -> None:
        try:
            self._handle(event)
        except Killed:
            self.kill()
            self.when_killed()

    def _handle(self, event: Event) -> None:
        draft = decide(self.state, event, self.now)
        changes = draft.changes()
        if changes:
            self.commits += 1
            self.world.truth.before_commit(draft)
            revision = self.world.store.commit(changes, draft.now)
            for note in changes.notes:
                named = {"host": note.host, "guest": note.guest, "operation": note.operation}
                self.world.say(
                    f"[{note.kind}] {note.text}", note.kind, **{k: v for k, v in named.items() if v}
                )
            self.world.truth.committed(changes)
            if self.commits == self.die_after_commit:
                raise Killed
            if self.world.save is not None and worth_saving(draft.decision()):
                name = f"{draft.cluster.epoch}-{revision}"
                self.world.save(name, encode(Saved(state=self.state, event=event, now=draft.now, id=name)))
            self.state.revision = revision
        effects = draft.decision().effects
        self.state.apply(draft)
        for effect in effects:
            self.effects += 1
            if self.effects == self.die_before_effect:
                raise Killed
            self._run(effect, draft)
            if self.effects == self.die_after_effect:
                raise Killed

    # ---- effects

    def _run(self, effect: Effect, draft: Draft) -> None:
        world = self.world
        match effect:
            case Accept():
                self._welcome(effect)
            case Send():
                self._send(effect.host, effect.session, effect.id, effect.body)
            case SendStart():
                world.truth.start_sent(effect)
                self._send_start(effect)
            case DropSession():
                self._drop(effect)
            case Reply():
                self.replies[effect.id] = effect
            case Look():
                self._look(effect)
            case CheckGuest():
                self._check(effect)
            case ReadPower():
                world.fencer.read(
                    effect.levels,
                    self._alive(),
                    lambda reports: self._back(
                        PowerSeen(effect=effect.id, host=effect.host, reports=reports)
                    ),
                )
            case Fence():
                world.truth.fence_sent(effect, draft)
                world.say(
                    f"fence {effect.host} ({effect.boot_id}) level {effect.level}",
                    "fence",
                    host=effect.host,
                    level=effect.level,
                )
                world.fencer.off(
                    effect.level,
                    effect.devices,
                    effect.timeout_s,
                    self._alive(),
                    lambda report: self._back(FenceEnded(effect=effect.id, host=effect.host, report=report)),
                )
            case PowerOn():
                world.fencer.on(
                    effect.levels,
                    self._alive(),
                    lambda ok, reason: self._back(
                        PowerOnEnded(effect=effect.id, host=effect.host, ok=ok, reason=reason)
                    ),
                )
            case Notify():
                what, alert = "alert.cleared" if effect.cleared else "alert", effect.alert
                world.say(f"{what} {alert.key}: {alert.what}: {alert.why}", what, key=alert.key)

    def _alive(self) -> _StillRuns:
        return _StillRuns(self, self.term)

    def _back(self, event: Event) -> None:
        """The end of an effect comes back as an event; a frozen process meets it later."""
        self.receive(lambda: self.submit(event))

    def _send_start(self, effect: SendStart) -> None:
        stored = self.world.store.definitions[effect.ticket.guest, effect.version]
        definition = Definition(
            id=stored.guest, name=effect.ticket.name, xml=stored.xml, digest=stored.digest, nvram=stored.nvram
        )
        body = Start(ticket=effect.ticket, definition=definition)
        self._send(effect.host, effect.session, effect.id, body)

    def _send(self, host: str, session: str, key: str, body: Body) -> None:
        link = self.links.get(session)
        self.world.truth.command_sent(host, body)
        if link is None:
            return
        cluster = self.state.cluster
        command = Command(
            id=key, epoch=cluster.epoch, leader_id=cluster.leader_id, session=session, body=body
        )
        link.send_down(lambda: link.host.agent.command(link, command))

    def _look(self, effect: Look) -> None:
        target = self.world.hosts[effect.host]

        def looked() -> None:
            hears = {a: self.world.network.hears(COORDINATOR, target, a) for a in effect.addresses}
            self.submit(LookEnded(effect=effect.id, host=effect.host, answered=hears))

        self.later(effect.window_s, looked)

    def _check(self, effect: CheckGuest) -> None:
        """Passes as soon as the guest has run for as long as its service takes to come up."""
        world = self.world
        wait_s = world.ready_in(effect.guest)
        within = wait_s <= effect.window_s and world.network.coordinator_up
        self.later(
            max(wait_s, 0.01) if within else effect.window_s,
            lambda: self.submit(
                CheckEnded(
                    effect=effect.id,
                    guest=effect.guest,
                    passed=within and world.ready_in(effect.guest) <= 0.0,
                )
            ),
        )

    # ---- sessions

    def _revision(self) -> int:
        return self.state.revision + self.state.cluster.revision_offset

    def accept(self, host: SimHost) -> Link | None:
        """An agent dials; None when nobody answers."""
        if not self.alive or not self.world.network.coordinator_reaches(host):
            return None
        link = self.world.new_link(host)
        self.links[link.nonce] = link
        return link

    def connected(self, link: Link, event: Connected) -> None:
        self.submit(event)

    def _welcome(self, effect: Accept) -> None:
        link = self.links.get(effect.session)
        if link is None:
            return
        cluster, issued = self.state.cluster, self.now
        welcome = Welcome(
            protocol=PROTOCOL,
            version="0",
            cluster=cluster.id,
            epoch=cluster.epoch,
            leader_id=cluster.leader_id,
            revision=self._revision(),
            session=effect.session,
            nonce="",
            heartbeat_s=self.world.settings.timers.heartbeat_s,
        )
        link.send_down(lambda: link.host.agent.welcomed(link, welcome, issued))

    def beat(self, link: Link, event: Heard) -> None:
        """A beat came: it is answered with a fresh nonce, here its time of issue, and decided on."""
        issued, revision = self.now, self._revision()
        link.send_down(lambda: link.host.agent.acknowledged(link, issued, revision))
        self.submit(event)

    def answered(self, event: Answered) -> None:
        self.submit(event)

    def link_lost(self, link: Link, goodbye: str = "") -> None:
        """It was closed by the other side, reset, or kept silent for too long."""
        if not link.coordinator_open:
            return
        link.coordinator_open = False
        if self.alive and self.links.pop(link.nonce, None) is not None:
            event = Disconnected(host=link.host.name, session=link.nonce, goodbye=goodbye)
            self.receive(lambda: self.submit(event))

    def _drop(self, effect: DropSession) -> None:
        link = self.links.pop(effect.session, None)
        if link is not None:
            link.close_by_coordinator()
            event = Disconnected(host=link.host.name, session=link.nonce)
            self.later(0.001, lambda: self.submit(event))

    def _keep_alive(self) -> None:
        for link in list(self.links.values()):
            if self.world.clock.now - link.coordinator_heard > KEEPALIVE_S:
                link.close_by_coordinator()
                link.coordinator_open = True
                self.link_lost(link)
        self.later(1.0, self._keep_alive)


class _StillRuns:
    """Whether the process that asked for something still runs."""

    def __init__(self, coordinator: SimCoordinator, term: int) -> None:
        self._coordinator, self._term = coordinator, term

    def __call__(self) -> bool:
        return self._coordinator.alive and self._coordinator.term == self._term
