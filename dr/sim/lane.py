"""What an agent does with each command, simulated: admitted at most once, one at a time for each guest, answered.

Here: the lane of commands, the turns of each guest, testimonies and the protected list; the rules are `core.warden`'s.
Not here: the process and its sessions (`dr.sim.agent`), what a ticket does (`dr.sim.tickets`).
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from dr.core import warden
from dr.model.base import GuestId
from dr.model.checks import Agent, CheckResult, Inside
from dr.model.commands import (
    Abort,
    AllowDowntime,
    Answer,
    Body,
    BootClone,
    CheckClone,
    Clean,
    Describe,
    Discard,
    EndDrill,
    LookInside,
    MakeClone,
    Migrate,
    Order,
    Outcome,
    Probe,
    Protect,
    ProveHook,
    Receive,
    Resume,
    RunInside,
    Sample,
    SendDisks,
    Start,
    Stay,
    Stop,
    TakeDisks,
    Testify,
    Testimony,
)
from dr.model.events import Answered
from dr.model.facts import Sighting
from dr.model.wire import Command
from dr.sim import commands
from dr.sim.clock import Action
from dr.sim.link import Link
from dr.sim.tickets import SIGHT_S

if TYPE_CHECKING:
    from dr.sim.agent import SimAgent


class SimLane:
    """Takes commands in the order in which they arrive."""

    def __init__(self, agent: SimAgent) -> None:
        self._agent, self._host = agent, agent.host
        self.turns: dict[GuestId, deque[Action]] = {}  # what waits for the end of what is under way

    def take(self, link: Link, command: Command) -> None:  # noqa: PLR0912  # one case for each command
        """A command of the live session."""
        if reason := warden.stale(self._agent.memory, command, link.nonce):
            self._answer(link, command.id, Answer(outcome=Outcome.REFUSED, reason=reason))
            return
        body: Body = command.body
        match body:
            case Start() | Stop() | Clean() | Receive() | Migrate() | Resume() | Discard():
                self._admit(link, command.id, body)
            case SendDisks() | TakeDisks():
                self._admit(link, command.id, body)
            case MakeClone() | BootClone() | CheckClone() | EndDrill():
                self._agent.clones.take(body, lambda answer: self._answer(link, command.id, answer))
            case Abort() if self._agent.copies.cancel(body.guest, again=body.again):
                self._told(link, command.id, "")
            case Abort():
                self._told(link, command.id, self._host.abort_job(body.guest))
            case AllowDowntime():
                self._told(link, command.id, self._host.allow_downtime(body.guest, body.downtime_s))
            case RunInside():
                commands.run_inside(
                    self._agent, command.id, body, lambda told: self._answer(link, command.id, told)
                )
            case Sample():
                self._agent.sampling.soon(body.guests)
                self._answer(link, command.id, Answer(outcome=Outcome.DONE))
            case Stay():
                self._agent.bid(body.for_s)
                self._answer(link, command.id, Answer(outcome=Outcome.DONE))
            case Testify():
                self._testify(link, command.id, body)
            case Protect():
                self._protect(link, command.id, body)
            case Probe():
                self._agent.later(body.window_s, lambda: self._probe(link, command.id, body))
            case LookInside():
                self._look_inside(link, command.id, body)
            case Describe():
                self._agent.later(0.01, lambda: self._describe(link, command.id, body.guest))
            case ProveHook():
                self._answer(link, command.id, Answer(outcome=Outcome.DONE, hook=self._host.hook))

    def _told(self, link: Link, command: str, why: str) -> None:
        outcome = Outcome.FAILED if why else Outcome.DONE
        self._answer(link, command, Answer(outcome=outcome, reason=why))

    def _answer(self, link: Link, command: str, answer: Answer) -> None:
        if link is not self._agent.link:
            return
        event = Answered(host=self._host.name, session=link.nonce, effect=command, answer=answer)
        link.send_up(lambda: link.coordinator.submit(event), "answer")
        self._agent.at_point("answer")

    def _admit(self, link: Link, command: str, order: Order) -> None:
        ticket = order.ticket
        agent, host = self._agent, self._host
        memory, verdict = warden.admit(
            agent.memory, command, ticket, host=host.name, boot_id=host.boot_id, session=link.nonce
        )
        if isinstance(verdict, warden.Known):
            self._answer(link, command, verdict.answer)
            return
        if isinstance(verdict, warden.Refuse):
            self._answer(link, command, Answer(outcome=Outcome.REFUSED, reason=verdict.reason))
            return
        if reason := warden.mismatch(order):
            self._answer(link, command, Answer(outcome=Outcome.REFUSED, reason=reason))
            return
        self._host.world.truth.admitted(self._host, ticket)
        domain = host.domains.get(ticket.guest)
        if isinstance(order, Resume) and order.suspended and domain is not None:
            domain.by_hand = True  # no copy that waits from here on, also if the agent dies before it acts
        self._agent.memory = memory
        self._agent.save()
        self._host.world.say(
            f"{self._host.name} takes {command}: {ticket.kind} {ticket.name} {ticket.generation}",
            "ticket",
            host=self._host.name,
            guest=ticket.guest,
            order=str(ticket.kind),
            generation=ticket.generation,
        )

        def ended(answer: Answer) -> None:
            self._agent.memory = warden.finish(self._agent.memory, command, answer)
            self._agent.save()
            self.next_turn(ticket.guest)
            self._agent.look_again()
            self._answer(link, command, answer)

        if isinstance(order, Migrate | SendDisks | Stop | Clean):
            self._agent.clones.give_way(ticket.guest)

        def turn() -> None:
            self._agent.tickets.run(link, order, ended)

        if ticket.guest in self.turns:
            self.turns[ticket.guest].append(turn)
        else:
            self.begin(ticket.guest)
            turn()

    @property
    def forgotten(self) -> list[str]:
        """Tickets that it remembers as under way although nothing is under way here."""
        if not self._agent.alive or self.turns:
            return []
        return [known.command for known in self._agent.memory.tickets if known.answer is None]

    def begin(self, guest: GuestId) -> None:
        """Something is under way with it from now on; what comes meanwhile waits its turn."""
        self.turns[guest] = deque()

    def next_turn(self, guest: GuestId) -> None:
        waiting = self.turns[guest]
        if waiting:
            waiting.popleft()()
        else:
            del self.turns[guest]

    def _testify(self, link: Link, command: str, order: Testify) -> None:
        answers: list[Testimony] = []
        asked: dict[GuestId, int] = {}
        for question in order.questions:
            if question.guest in self.turns:
                reason = "a ticket is still under way here"
            elif question.guest not in warden.listed(self._agent.memory):
                reason = "not on this host's protected list"
            elif question.guest not in self._host.guarded or self._host.hook_broken:
                reason = "the hook does not guard it"
            else:
                asked[question.guest] = question.generation
                continue
            answers.append(Testimony(guest=question.guest, sighting=Sighting.UNKNOWN, reason=reason))
        self._agent.memory = warden.seal(self._agent.memory, asked)
        self._agent.save()
        upto = {guest: self._agent.memory.sealed.get(guest, 0) for guest in asked}
        for guest in upto:
            self._host.permits.pop(guest, None)

        slow_s = self._host.libvirt_slow_s

        def look() -> None:
            seen = [self._agent.tickets.sight(guest, sealed) for guest, sealed in upto.items()]
            if slow_s > SIGHT_S:
                late = f"no answer within {SIGHT_S:g} s"
                seen = [Testimony(guest=g, sighting=Sighting.UNKNOWN, reason=late) for g in upto]
            for item in seen:
                if item.sighting is Sighting.ABSENT:
                    self._host.world.truth.testified(self._host, item.guest, item.sealed)
                    self._agent.memory = warden.without_copy(self._agent.memory, item.guest, item.sealed)
            answers.extend(seen)
            self._answer(link, command, Answer(outcome=Outcome.DONE, testimony=tuple(answers)))

        self._agent.later(self._host.world.rng.uniform(0.001, 0.02) + min(slow_s, SIGHT_S), look)

    def _protect(self, link: Link, command: str, order: Protect) -> None:
        memory, verdict = warden.protect(self._agent.memory, order)
        version = memory.protected_version
        if isinstance(verdict, warden.Refuse):
            answer = Answer(outcome=Outcome.REFUSED, reason=verdict.reason, protected_version=version)
            self._answer(link, command, answer)
            return
        self._agent.memory = memory
        self._agent.save()
        self._host.guarded = {entry.guest for entry in memory.entries}
        self._host.world.truth.listed(self._host)

        def acknowledge() -> None:
            hook = self._host.hook
            if hook.proven:
                answer = Answer(outcome=Outcome.DONE, protected_version=version, hook=hook)
            else:
                answer = Answer(outcome=Outcome.FAILED, reason=hook.reason, hook=hook)
            self._answer(link, command, answer)

        self._agent.later(0.02, acknowledge)

    def _probe(self, link: Link, command: str, order: Probe) -> None:
        world = self._host.world
        target = world.hosts[order.target]
        if self._host.probes_fail:
            self._answer(link, command, Answer(outcome=Outcome.FAILED, reason="no echo could be sent"))
            return
        answered = {a: world.network.hears(self._host.name, target, a) for a in order.addresses}
        self._answer(link, command, Answer(outcome=Outcome.DONE, answered=answered))

    def _look_inside(self, link: Link, command: str, order: LookInside) -> None:
        """As soon as the guest has run for as long as its services take to come up; a silent agent stays so."""
        world, host = self._host.world, self._host

        def wait_s() -> float:
            domain = host.domains.get(order.guest)
            runs = domain is not None and domain.runs and host.libvirtd == "up"
            return world.ready_in(order.guest) if runs else math.inf

        def found(check: Inside) -> CheckResult:
            silent = isinstance(check, Agent) and order.guest in world.silent_agents
            passed = wait_s() <= 0.0 and not silent
            why = "" if passed else "its guest agent does not answer" if silent else "nothing of it is up"
            return CheckResult(check=check, passed=passed, why=why, picture=b"PNG" if passed else b"")

        def told() -> None:
            checks = tuple(found(each) for each in order.checks)
            self._answer(link, command, Answer(outcome=Outcome.DONE, checks=checks))

        self._agent.later(min(max(wait_s(), 0.02), order.window_s), told)

    def _describe(self, link: Link, command: str, guest: GuestId) -> None:
        domain = self._host.domains.get(guest)
        if domain is None or self._host.libvirtd != "up":
            self._answer(link, command, Answer(outcome=Outcome.FAILED, reason="no such domain"))
        else:
            answer = Answer(outcome=Outcome.DONE, definition=domain.definition)
            self._answer(link, command, answer)
