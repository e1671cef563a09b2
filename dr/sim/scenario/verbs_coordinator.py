"""Verbs: the coordinator's process, its network, its store."""

from __future__ import annotations

from typing import Annotated, Literal

from dr.sim.scenario.stage import Stage
from dr.sim.scenario.verb import Verb
from dr.sim.scenario.words import Problems, Seconds, Where, Whole

Point = Annotated[int | None, Whole(1)]
POINTS = ("after_commit", "before_effect", "after_effect")
Act = Literal["crash", "stop", "start", "freeze", "cut_off", "reconnect"]


class Coordinator(Verb):
    """`crash`: kill -9, and it starts again after a while. `stop`: it stays down until `start`. `freeze`: it stands
    still, and goes on as if nothing had been. `cut_off`: its network cable is pulled, until `reconnect`."""

    coordinator: Annotated[Act, "what becomes of it"]
    for_: Annotated[Seconds, "crash: how long it is down; freeze: how long it stands still"] = 1.0
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
        self._start_when_dead(stage, coordinator.term)

    def _start_when_dead(self, stage: Stage, term: int) -> None:
        """Looked after ten times a second; when it died, it is started as late as was asked."""
        coordinator, clock = stage.world.coordinator, stage.world.clock
        if coordinator.term != term:
            return
        if coordinator.alive:
            clock.after(0.1, lambda: self._start_when_dead(stage, term))
        else:
            clock.after(self.for_, stage.world.restart_coordinator)

    def check(self, where: Where, problems: Problems) -> None:
        points = [key for key in POINTS if getattr(self, key) is not None]
        if len(points) > 1:
            problems.add((*where, points[1]), f"one point in each entry: {points[0]} stands here already")
        if points and self.coordinator != "crash":
            problems.add((*where, points[0]), f"only a crash has a point, not {self.coordinator}")
        if self.for_ != 1.0 and self.coordinator not in ("crash", "freeze"):
            problems.add((*where, "for"), f"only crash and freeze last for a time, not {self.coordinator}")
        if self.bmcs and self.coordinator != "cut_off":
            problems.add((*where, "bmcs"), f"only cut_off asks about BMCs, not {self.coordinator}")


class Backup(Verb):
    """Keep a copy of the store, as a backup does it."""

    backup: Annotated[str, "a name for it"]

    def do(self, stage: Stage) -> None:
        stage.backups[self.backup] = stage.world.store.copy()


class Restore(Verb):
    """Stop the coordinator, put an older copy of its store in place without a word to anybody, and start it again."""

    restore: Annotated[str, "the name that `backup` gave it"]
    for_: Annotated[Seconds, "how long the coordinator is down"] = 1.0

    def do(self, stage: Stage) -> None:
        stage.world.restore_store(stage.backups[self.restore], self.for_)


VERBS: tuple[type[Verb], ...] = (Coordinator, Backup, Restore)
