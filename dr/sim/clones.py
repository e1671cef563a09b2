"""Clones for drills on one simulated host, as its agent makes and ends them.

Here: copies that take their time, clones that die with the agent's process, and what it leaves on the host's disk until
its successor has swept it. Not here: what a drill wants of them (`dr.core.drills.isolated`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dr.model.base import GuestId
from dr.model.checks import CheckResult, Running
from dr.model.clones import BubbleSeen, CloneMade, DrillEnd, Kept
from dr.model.commands import Answer, BootClone, CheckClone, Drilling, EndDrill, MakeClone, Outcome

if TYPE_CHECKING:
    from dr.sim.agent import SimAgent

STAGES = ("copy", "boot", "check", "end")
COPY_S = (1.0, 8.0)
SIZE_B = 256 * 2**20

Done = Callable[[Answer], None]


@dataclass
class SimClone:
    """One clone, on its way or made."""

    guest: GuestId
    began: float
    memory_at: int  # of the guest as it was cloned
    waiting: list[Done] = field(default_factory=list)  # who asked while it was copied
    made: CloneMade | None = None
    booted: float | None = None


@dataclass
class SimDrill:
    """All of one drill on one host."""

    until: float
    clones: dict[GuestId, SimClone] = field(default_factory=dict)


class SimClones:
    """Of one life of an agent."""

    def __init__(self, agent: SimAgent) -> None:
        self._agent = agent
        self._drills: dict[str, SimDrill] = {}
        self._ended: set[str] = set()
        host = agent.host
        if host.drills_left:  # what an earlier process left; its clones died with it
            host.world.say(
                f"{host.name} sweeps {', '.join(sorted(host.drills_left))}", "drill.swept", host=host.name
            )
        host.drills_left.clear()

    def take(self, order: Drilling, told: Done) -> None:
        match order:
            case MakeClone():
                self._make(order, told)
            case BootClone():
                self._boot(order, told)
            case CheckClone():
                self._check(order, told)
            case EndDrill():
                self._agent.later(0.1, lambda: self._end(order, told))

    def give_way(self, guest: GuestId) -> None:
        """Somebody needs the guest itself: a copy that is under way ends."""
        for drill in self._drills.values():
            clone = drill.clones.get(guest)
            if clone is not None and clone.made is None:
                del drill.clones[guest]
                self._tell(clone, _failed("its copy gave way"))

    def _fault(self, what: str, guest: GuestId) -> str:
        host = self._agent.host
        return host.world.troubles.meet(f"clone-{what}", guest, host.name)

    @staticmethod
    def _tell(clone: SimClone, answer: Answer) -> None:
        waiting, clone.waiting = clone.waiting, []
        for told in waiting:
            told(answer)

    # ---- making

    def _make(self, order: MakeClone, told: Done) -> None:
        host, now = self._agent.host, self._agent.host.world.clock.now
        if order.drill in self._ended:
            told(_failed("the drill has ended"))
            return
        drill = self._drills.get(order.drill)
        if drill is None:
            drill = self._drills[order.drill] = SimDrill(until=now + order.life_s)
            host.drills_left.add(order.drill)
            self._agent.at_point("write")
            self._agent.later(order.life_s, lambda: self._over(order.drill))
        clone = drill.clones.get(order.guest)
        if clone is not None:
            if clone.made is not None:
                told(Answer(outcome=Outcome.DONE, clone=clone.made))
            else:
                clone.waiting.append(told)
            return
        domain = host.domains.get(order.guest)
        if host.libvirtd != "up" or domain is None or not domain.runs:
            told(_failed(f"{order.name} does not run here"))
        elif domain.outgoing is not None or domain.incoming is not None:
            told(_failed(f"{order.name} is in a migration"))
        else:
            clone = SimClone(order.guest, now, domain.memory_at, [told])
            drill.clones[order.guest] = clone
            takes_s = host.world.rng.uniform(*COPY_S)
            self._agent.later(takes_s, lambda: self._made(order, clone))

    def _made(self, order: MakeClone, clone: SimClone) -> None:
        drill, host = self._drills.get(order.drill), self._agent.host
        if drill is None or drill.clones.get(order.guest) is not clone:
            return  # ended, or it gave way
        domain, fault = host.domains.get(order.guest), self._fault("copy", order.guest)
        if fault == "hang":
            return
        if fault or domain is None or not domain.active or domain.memory_at != clone.memory_at:
            del drill.clones[order.guest]
            self._tell(clone, _failed(f"{order.name}: its copy broke off"))
            return
        clone.made = CloneMade(
            guest=order.guest,
            clone=f"clone-{order.guest}",
            domain=f"{order.drill}-{order.name}",
            point=clone.began,
            took_s=host.world.clock.now - clone.began,
            size_b=SIZE_B,
        )
        self._tell(clone, Answer(outcome=Outcome.DONE, clone=clone.made))

    # ---- what is done with clones

    def _clone(self, order: BootClone | CheckClone) -> SimClone | None:
        drill = self._drills.get(order.drill)
        return drill.clones.get(order.guest) if drill is not None else None

    def _boot(self, order: BootClone, told: Done) -> None:
        clone = self._clone(order)
        if clone is None or clone.made is None:
            told(_failed(f"no clone of {order.name} is here"))
            return

        def runs() -> None:
            if self._clone(order) is not clone:
                told(_failed("the drill has ended"))
            elif fault := self._fault("boot", order.guest):
                told(_failed(f"the clone of {order.name} does not start: {fault}"))
            else:
                if clone.booted is None:
                    clone.booted = self._agent.host.world.clock.now
                told(Answer(outcome=Outcome.DONE))

        self._agent.later(self._agent.host.world.rng.uniform(0.2, 1.0), runs)

    def _check(self, order: CheckClone, told: Done) -> None:
        clone, world = self._clone(order), self._agent.host.world
        if clone is None or clone.booted is None:
            told(_failed(f"no clone of {order.name} runs here"))
            return
        ready_s = clone.booted + world.ready_after_s.get(order.guest, 0.0) - world.clock.now

        def look() -> None:
            if self._clone(order) is not clone:
                told(_failed("the drill has ended"))
            elif isinstance(order.check, Running) or (
                ready_s <= order.window_s and not self._fault("check", order.guest)
            ):
                told(Answer(outcome=Outcome.DONE, checks=(CheckResult(check=order.check, passed=True),)))
            else:
                result = CheckResult(check=order.check, passed=False, why="nothing answered")
                told(Answer(outcome=Outcome.FAILED, reason=result.why, checks=(result,)))

        soon_s = 0.0 if isinstance(order.check, Running) else ready_s
        self._agent.later(min(max(soon_s, 0.01), order.window_s), look)

    # ---- ends

    def _end(self, order: EndDrill, told: Done) -> None:
        drill = self._drills.get(order.drill)
        clones = drill.clones.values() if drill is not None else ()
        if any(self._fault("end", clone.guest) for clone in clones):
            told(_failed(f"an image of {order.drill} cannot be removed"))
            return
        kept = tuple(self._kept(clone) for clone in clones)
        booted = any(clone.booted is not None for clone in clones)
        self._over(order.drill)
        bubble = BubbleSeen(bridge="drb0", ports=()) if booted else None
        told(Answer(outcome=Outcome.DONE, drill=DrillEnd(kept=kept, bubble=bubble, removed=(order.drill,))))

    def _kept(self, clone: SimClone) -> Kept:
        domain = self._agent.host.domains.get(clone.guest)
        same = domain is not None and domain.active and domain.memory_at == clone.memory_at
        why = "the same QEMU" if same else "it does not run as it did"
        return Kept(guest=clone.guest, name=clone.guest, ok=same, why=why)

    def _over(self, drill: str) -> None:
        """All of it is removed."""
        self._ended.add(drill)
        gone = self._drills.pop(drill, None)
        self._agent.host.drills_left.discard(drill)
        for clone in gone.clones.values() if gone is not None else ():
            self._tell(clone, _failed("the drill has ended"))


def _failed(why: str) -> Answer:
    return Answer(outcome=Outcome.FAILED, reason=why)
