"""Verbs: the coordinator's process, its network, its store."""

from __future__ import annotations

from typing import Annotated, Literal

from dr.model.base import changed
from dr.model.records import Pause
from dr.model.words import Problems, Seconds, Where, Whole
from dr.sim.coordinator import SimCoordinator
from dr.sim.scenario.moment import Moment
from dr.sim.scenario.stage import Stage
from dr.sim.scenario.verb import Verb

Point = Annotated[int | None, Whole(1)]
POINTS = ("after_commit", "before_effect", "after_effect")
LASTING = ("crash", "freeze", "replace")
Act = Literal["crash", "stop", "start", "freeze", "replace", "cut_off", "reconnect"]


class Coordinator(Verb):
    """`crash`: kill -9, and it starts again after a while. `stop`: it stays down until `start`. `freeze`: it stands
    still, and goes on as if nothing had been. `replace`: it stands still, another process takes over its store, and for
    up to a minute the two exist side by side. `cut_off`: its network cable is pulled, until `reconnect`."""

    coordinator: Annotated[Act, "what becomes of it"]
    for_: Annotated[Seconds, "crash: how long it is down; freeze, replace: how long it stands still"] = 1.0
    after_commit: Annotated[
        Point, "crash: right after the n-th change of its store from now, before any effect"
    ] = None
    before_effect: Annotated[Point, "crash: right before its n-th effect from now"] = None
    after_effect: Annotated[Point, "crash: right after its n-th effect from now"] = None
    bmcs: Annotated[bool, "cut_off: whether it can still reach fence devices"] = False

    def do(self, stage: Stage) -> None:
        world = stage.world
        match self.coordinator:
            case "crash":
                self._crash(stage)
            case "stop":
                world.coordinator.kill()
            case "start":
                world.restart_coordinator()
            case "freeze":
                world.coordinator.freeze(self.for_)
            case "replace":
                world.coordinator.freeze(self.for_)
                world.replace_coordinator()
            case "cut_off":
                world.cut_coordinator(bmcs=not self.bmcs)
            case "reconnect":
                world.mend_coordinator()

    def _crash(self, stage: Stage) -> None:
        coordinator = stage.world.coordinator
        if self.after_commit is not None:
            coordinator.die_after_commit = coordinator.commits + self.after_commit
        elif self.before_effect is not None:
            coordinator.die_before_effect = coordinator.effects + self.before_effect
        elif self.after_effect is not None:
            coordinator.die_after_effect = coordinator.effects + self.after_effect
        else:
            stage.world.crash_coordinator(self.for_)
            return
        self._start_when_dead(stage, coordinator)

    def _start_when_dead(self, stage: Stage, coordinator: SimCoordinator) -> None:
        """Looked after ten times a second; when it died, there or of something else, it is started as late as asked."""
        clock, look_s = stage.world.clock, 0.1
        if not coordinator.alive:
            clock.after(self.for_, stage.world.restart_coordinator)
            look_s += self.for_
        if coordinator.doomed:
            clock.after(look_s, lambda: self._start_when_dead(stage, coordinator))

    def check(self, where: Where, problems: Problems) -> None:
        points = [key for key in POINTS if getattr(self, key) is not None]
        if len(points) > 1:
            problems.add((*where, points[1]), f"one point in each entry: {points[0]} stands here already")
        if points and self.coordinator != "crash":
            problems.add((*where, points[0]), f"only a crash has a point, not {self.coordinator}")
        if self.for_ != 1.0 and self.coordinator not in LASTING:
            problems.add(
                (*where, "for"), f"only {', '.join(LASTING)} last for a time, not {self.coordinator}"
            )
        if self.bmcs and self.coordinator != "cut_off":
            problems.add((*where, "bmcs"), f"only cut_off asks about BMCs, not {self.coordinator}")


class SetClock(Verb):
    """Somebody, or NTP, sets the clock of the coordinator's machine. Nothing but dates goes by that clock."""

    set_clock: Annotated[float, Moment(), "what it shows from now on"]

    def do(self, stage: Stage) -> None:
        stage.world.set_clock(self.set_clock)


class Backup(Verb):
    """Keep a copy of the store, as a backup does it."""

    backup: Annotated[str, "a name for it"]

    def do(self, stage: Stage) -> None:
        stage.backups[self.backup] = stage.world.store.copy()


class Restore(Verb):
    """Stop the coordinator, put an older copy of its store in place, and start it again."""

    restore: Annotated[str, "the name that `backup` gave it"]
    for_: Annotated[Seconds, "how long the coordinator is down"] = 1.0
    by_command: Annotated[
        bool,
        "by `dr cluster restore`, which everybody learns of; false: without a word to anybody, unless the copy was "
        "made on another machine, where it starts by command only",
    ] = False

    def do(self, stage: Stage) -> None:
        backup, machine = stage.backups[self.restore].copy(), stage.world.coordinator.machine
        if self.by_command or backup.cluster.machine != machine:
            pause = Pause(reason="the store was restored", by="ops")
            restored = "restored by ops"
            backup.cluster = changed(backup.cluster, machine=machine, restored=restored, pause=pause)
        stage.world.restore_store(backup, self.for_)


class Store(Verb):
    """The store works, fails (nothing can be written), or is slow (each change takes a while)."""

    store: Annotated[Literal["works", "fails", "slow"], "which"]
    by: Annotated[Seconds, "slow: how long a change takes"] = 0.0

    def do(self, stage: Stage) -> None:
        store = stage.world.store
        store.trouble, store.slow_s = "" if self.store == "works" else self.store, self.by

    def check(self, where: Where, problems: Problems) -> None:
        if (self.store == "slow") != bool(self.by):
            problems.add((*where, "by"), "says how slow `slow` is, and is needed there only")


class CloneStore(Verb):
    """The store is copied to another machine, and a coordinator started there: `as_it_is`, while the first one goes on;
    or `by_command` (`dr cluster restore`), which the operator gives when the first one is off."""

    clone_store: Annotated[Literal["as_it_is", "by_command"], "how"]

    def do(self, stage: Stage) -> None:
        world = stage.world
        if self.clone_store == "as_it_is":
            world.start_clone(world.store.copy(), "copied")
        else:
            world.coordinator.kill()
            world.start_clone(world.store.copy(), "restored")


VERBS: tuple[type[Verb], ...] = (Coordinator, SetClock, Backup, Restore, Store, CloneStore)
