"""A coordinator's process, simulated: the real `decide` over a simulated store, in the order of the real runtime.

For each event: decide, commit, take over, run the effects; it may die between any two of these. Here: that order,
sessions, restarts, freezes, waiting for a store that is slow or fails. Not here: decisions (`dr.core`), what an effect
does and how its end comes back (`dr.sim.effects`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dr.core.decide import StoreElsewhere, decide
from dr.core.playbooks.due import LOOK_S, Lookout
from dr.core.saved import Saved, encode, worth_saving
from dr.core.state import Draft, State
from dr.model.effects import Accept, DropSession, Reply
from dr.model.events import Answered, Connected, Disconnected, Event, Heard, Started, Tick
from dr.model.wire import PROTOCOL, Welcome
from dr.sim.clock import Action
from dr.sim.effects import SimEffects
from dr.sim.link import Link
from dr.sim.store import Conflict, SimStore, Unwritable

if TYPE_CHECKING:
    from dr.sim.host import SimHost
    from dr.sim.world import World

TICK_S = 0.1
KEEPALIVE_S = 20.0
STORE_RETRY_S = 0.5  # as `coordinator.service` does
STORE_PATIENCE_S = 10.0


class Killed(Exception):
    """The process died here, by a fault that was planned for this very point."""


class SimCoordinator:
    """One machine's coordinator; each `boot` is a new process and a new term."""

    def __init__(self, world: World, store: SimStore, machine: str = "m1") -> None:
        self.world = world
        self.store = store
        self.machine = machine
        self.state = State()
        self.alive = False
        self.term = 0
        self.own_boot = ""  # of the host that it runs on, where a test says so
        self.blind_until = 0.0  # virtual time: it has just started or stood still, and unheard is not late
        self.commits = 0
        self.effects = 0
        self.die_after_commit = 0  # the number of the commit (effect) that is the last thing it does
        self.die_before_effect = 0
        self.die_after_effect = 0
        self.when_killed: Action = lambda: None  # at that point
        self.links: dict[str, Link] = {}
        self.replies: dict[str, Reply] = {}
        self.acts = SimEffects(self)
        self._frozen_since: float | None = None
        self._waits_since: float | None = None  # for its store
        self._failing_since: float | None = None
        self._guard: int | None = None  # revision of the cluster record as this process wrote it
        self._lookout = Lookout()
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

    @property
    def listening(self) -> bool:
        """Whether it takes an event at once."""
        return self.alive and self._frozen_since is None and self._waits_since is None

    @property
    def doomed(self) -> bool:
        """Whether a point at which it will die is still to come."""
        return (
            self.commits < self.die_after_commit
            or self.effects < self.die_before_effect
            or self.effects < self.die_after_effect
        )

    # ---- the process

    def boot(self) -> None:
        assert not self.alive
        world, store = self.world, self.store
        if store.trouble == "fails":
            world.say("coordinator cannot start: its store cannot be written")
            world.clock.after(1.0, world.restart_coordinator)
            return
        self.alive = True
        self.term = world.next_term()
        self.links = {}
        self._parked.clear()
        self._frozen_since = self._waits_since = self._failing_since = self._guard = None
        self.state = State(settings=world.settings)
        store.load_into(self.state)
        self._base, self._begun = store.leader_time, world.clock.now
        leader = f"L{self.term}"
        world.say(f"coordinator {leader} starts at revision {store.revision}", "coordinator.started")
        own_boot = self.own_boot or (world.hosts[world.home].boot_id if world.home else "")
        self._blind()
        away_s = world.clock.now - store.committed_at
        self._started(
            Started(leader_id=leader, machine=self.machine, cluster="c1", boot_id=own_boot, away_s=away_s)
        )
        if self.alive:
            self._tick_later()
            self.later(1.0, self._keep_alive)
            self._lookout = Lookout()
            self.later(LOOK_S, self._look_at_the_clock)

    def _started(self, event: Started) -> None:
        """The new term is durable before anything is heard or sent."""
        try:
            draft = decide(self.state, event, self.now)
            self._commit(draft, event)
            self.world.truth.leads(self)
            self._carry_out(draft)
        except Killed:
            self.kill()
            self.when_killed()
        except (StoreElsewhere, Conflict) as error:
            self.world.say(f"the coordinator does not start: {error}")
            self.kill()

    def _blind(self) -> None:
        settle_s = self.world.settings.timers.settle_s
        self.blind_until = max(self.blind_until, self.world.clock.now + settle_s)

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
        if self.listening:
            self.world.say(f"coordinator stands still for {seconds:.2f} s", "coordinator.frozen")
            self._frozen_since = self.world.clock.now
            self.later(seconds, self._thaw, even_deaf=True)

    def _thaw(self) -> None:
        assert self._frozen_since is not None
        lag_s = self.world.clock.now - self._frozen_since
        self._frozen_since = None
        self._go_on(lag_s)

    def _go_on(self, lag_s: float) -> None:
        """What waited meanwhile, and a tick that is late by so much."""
        waiting, self._parked = self._parked, deque()
        if self.world.rng.random() < 0.3:  # which of the two the loop meets first is chance
            self._late_tick(lag_s)
        for action in waiting:
            self.receive(action)
        self.receive(lambda: self._late_tick(lag_s))

    def _late_tick(self, lag_s: float) -> None:
        if lag_s > self.world.settings.timers.gap_s:
            self._blind()
        self.submit(Tick(lag_s=lag_s))

    def later(self, delay_s: float, action: Action, *, even_deaf: bool = False) -> None:
        """In this process only; when it is frozen or waits for its store, after that."""
        term = self.term

        def run() -> None:
            if self.alive and self.term == term:
                if even_deaf:
                    action()
                else:
                    self.receive(action)

        self.world.clock.after(delay_s, run)

    def receive(self, action: Action) -> None:
        """Something arrives at this process."""
        if not self.alive:
            return
        if not self.listening:
            self._parked.append(action)
        else:
            action()

    def _tick_later(self) -> None:
        term = self.term

        def tick() -> None:
            if self.alive and self.term == term:
                if self.listening:
                    self.submit(Tick())
                self._tick_later()

        self.world.clock.after(TICK_S, tick)

    def _look_at_the_clock(self) -> None:
        state = self.state
        for event in self._lookout.look(state.settings.schedules, state.schedules, self.world.wall()):
            self.receive(lambda event=event: self.submit(event))  # type: ignore[misc]
        self.later(LOOK_S, self._look_at_the_clock)

    # ---- deciding

    def submit(self, event: Event) -> None:
        """An event from outside; ends in a dead coordinator if a fault was planned for a point in it."""
        if not self.alive:
            return
        if self._waits_since is not None:
            self._parked.append(lambda: self.submit(event))
            return
        try:
            self._handle(event)
        except Killed:
            self.kill()
            self.when_killed()
        except Conflict as error:
            self.world.say(f"a coordinator of an older term ends: {error}")
            self.kill()

    def _handle(self, event: Event) -> None:
        draft = decide(self.state, event, self.now)
        if not draft.changes():
            self._carry_out(draft)
            return
        if self.store.trouble == "slow":
            self._wait(self.store.slow_s, lambda: self._durable(draft, event))
            return
        try:
            self._commit(draft, event)
        except Unwritable:
            # Nothing was written, so nothing was decided: the event is decided anew, or the process gives up.
            now = self.world.clock.now
            self._failing_since = now if self._failing_since is None else self._failing_since
            if now - self._failing_since > STORE_PATIENCE_S:
                self.world.say("the store stays unwritable: the coordinator ends")
                self.kill()
                self.world.clock.after(1.0, self.world.restart_coordinator)
                return
            self._wait(STORE_RETRY_S, lambda: self._handle(event))
            return
        self._failing_since = None
        self._carry_out(draft)

    def _wait(self, seconds: float, then: Action) -> None:
        """The loop waits for its store; everything else waits for the loop."""
        self._waits_since = self.world.clock.now

        def go_on() -> None:
            since, self._waits_since = self._waits_since, None
            assert since is not None
            try:
                then()
            except Killed:
                self.kill()
                self.when_killed()
            except Conflict as error:
                self.world.say(f"a coordinator of an older term ends: {error}")
                self.kill()
            if self.listening:
                self._go_on(self.world.clock.now - since)

        self.later(seconds, go_on, even_deaf=True)

    def _durable(self, draft: Draft, event: Event) -> None:
        try:
            self._commit(draft, event)
        except Unwritable:
            self._wait(STORE_RETRY_S, lambda: self._durable(draft, event))
        else:
            self._carry_out(draft)

    def _commit(self, draft: Draft, event: Event) -> None:
        changes = draft.changes()
        self.commits += 1
        self.store.check(self._guard)
        self.world.truth.before_commit(self, draft, changes)
        revision = self.store.commit(changes, draft.now, self.world.clock.now, self._guard)
        if changes.cluster is not None:
            self._guard = revision
        for note in changes.notes:
            named = {"host": note.host, "guest": note.guest, "operation": note.operation}
            self.world.say(f"[{note.kind}] {note.text}", note.kind, **{k: v for k, v in named.items() if v})
        self.world.truth.committed(self, changes)
        if self.commits == self.die_after_commit:
            raise Killed
        if self.world.save is not None and worth_saving(draft.decision()):
            name = f"{draft.cluster.epoch}-{revision}"
            self.world.save(name, encode(Saved(state=self.state, event=event, now=draft.now, id=name)))
        self.state.revision = revision

    def _carry_out(self, draft: Draft) -> None:
        effects = draft.decision().effects
        self.state.apply(draft)
        for effect in effects:
            self.effects += 1
            if self.effects == self.die_before_effect:
                raise Killed
            self.acts.run(effect, draft)
            if self.effects == self.die_after_effect:
                raise Killed

    # ---- sessions

    def _revision(self) -> int:
        return self.state.revision + self.state.cluster.revision_offset

    def accept(self, host: SimHost) -> Link | None:
        """An agent dials; None when nobody answers."""
        if not self.alive or not self.world.network.coordinator_reaches(host, self):
            return None
        link = self.world.new_link(host, self)
        self.links[link.nonce] = link
        return link

    def connected(self, link: Link, event: Connected) -> None:
        self.submit(event)

    def welcome(self, effect: Accept) -> None:
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
        link.send_down(lambda: link.host.agent.welcomed(link, welcome, issued), "welcome")

    def beat(self, link: Link, event: Heard) -> None:
        """A beat came: it is answered with a fresh nonce, here its time of issue, and decided on."""
        issued, revision = self.now, self._revision()
        link.send_down(lambda: link.host.agent.acknowledged(link, issued, revision), "ack")
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

    def drop(self, effect: DropSession) -> None:
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
