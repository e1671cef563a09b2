"""What the effects of a decision do in the simulated world, and how their ends come back as events.

Here: commands to agents, fence devices, looks, checks; an end that is late, lost, or meets a frozen process. Not here:
when effects are run (`dr.sim.coordinator`), fence devices themselves (`dr.sim.bmc`), sessions (`dr.sim.link`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dr.core.state import Draft
from dr.model.checks import CheckResult
from dr.model.commands import Body, Protect, Start, Testify
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
    RunCommand,
    Send,
    SendStart,
)
from dr.model.events import CheckEnded, CommandEnded, FenceEnded, LookEnded, PowerOnEnded, PowerSeen
from dr.model.facts import Definition
from dr.model.wire import Command
from dr.sim import commands
from dr.sim.network import COORDINATOR

if TYPE_CHECKING:
    from dr.sim.coordinator import SimCoordinator

Looked = FenceEnded | PowerSeen | PowerOnEnded | LookEnded | CommandEnded
MESSAGES: dict[type[Body], str] = {Start: "start", Testify: "question", Protect: "list"}  # others: "command"


class SimEffects:
    """Runs the effects of one coordinator."""

    def __init__(self, coordinator: SimCoordinator) -> None:
        self.coordinator, self.world = coordinator, coordinator.world

    def run(self, effect: Effect, draft: Draft) -> None:
        world = self.world
        match effect:
            case Accept():
                self.coordinator.welcome(effect)
            case Send():
                self._send(effect.host, effect.session, effect.id, effect.body, draft)
            case SendStart():
                world.truth.start_sent(self.coordinator, effect, draft)
                self._send_start(effect, draft)
            case DropSession():
                self.coordinator.drop(effect)
            case Reply():
                self.coordinator.replies[effect.id] = effect
                world.truth.replied(self.coordinator, effect)
            case Look():
                self._look(effect)
            case CheckGuest():
                self._check(effect)
            case ReadPower():
                world.fencer.read(
                    effect.levels,
                    self._alive(),
                    lambda reports: self.back(
                        PowerSeen(effect=effect.id, host=effect.host, reports=reports), "power reading"
                    ),
                )
            case Fence():
                world.truth.fence_sent(self.coordinator, effect, draft)
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
                    lambda report: self.back(
                        FenceEnded(effect=effect.id, host=effect.host, report=report), "fence result"
                    ),
                )
            case PowerOn():
                world.fencer.on(
                    effect.levels,
                    self._alive(),
                    lambda ok, reason: self.back(
                        PowerOnEnded(effect=effect.id, host=effect.host, ok=ok, reason=reason),
                        "power-on result",
                    ),
                )
            case RunCommand():
                commands.run(self, effect)
            case Notify():
                what, alert = "alert.cleared" if effect.cleared else "alert", effect.alert
                world.say(f"{what} {alert.key}: {alert.what}: {alert.why}", what, key=alert.key)

    def _alive(self) -> _StillRuns:
        return _StillRuns(self.coordinator)

    def _seen(self, event: Looked) -> None:
        if isinstance(event, PowerSeen) and event.effect in self.coordinator.state.pending:
            self.world.fencer.heard_of(event.reports)
        self.coordinator.submit(event)

    def back(self, event: Looked, what: str) -> None:
        """The end of an effect comes back as an event; a frozen process meets it later."""
        how, seconds = self.world.disturbed(event.host, what)
        if how == "late":
            self.coordinator.later(seconds, lambda: self._seen(event))
        elif not how:
            self.coordinator.receive(lambda: self._seen(event))

    def _send_start(self, effect: SendStart, draft: Draft) -> None:
        stored = self.coordinator.store.definitions[effect.ticket.guest, effect.version]
        definition = Definition(
            id=stored.guest, name=effect.ticket.name, xml=stored.xml, digest=stored.digest, nvram=stored.nvram
        )
        body = Start(ticket=effect.ticket, definition=definition)
        self._send(effect.host, effect.session, effect.id, body, draft)

    def _send(self, host: str, session: str, key: str, body: Body, draft: Draft) -> None:
        link = self.coordinator.links.get(session)
        self.world.truth.command_sent(self.coordinator, host, body, draft)
        if link is None:
            return
        cluster = self.coordinator.state.cluster
        command = Command(
            id=key, epoch=cluster.epoch, leader_id=cluster.leader_id, session=session, body=body
        )
        link.send_down(lambda: link.host.agent.command(link, command), MESSAGES.get(type(body), "command"))

    def _look(self, effect: Look) -> None:
        target = self.world.hosts[effect.host]

        def looked() -> None:
            hears = {a: self.world.network.hears(COORDINATOR, target, a) for a in effect.addresses}
            self.back(LookEnded(effect=effect.id, host=effect.host, answered=hears), "look")

        self.coordinator.later(effect.window_s, looked)

    def _check(self, effect: CheckGuest) -> None:
        """Passes as soon as the guest has run for as long as its service takes to come up."""
        world = self.world
        wait_s = world.ready_in(effect.guest)
        within = wait_s <= effect.window_s and world.network.coordinator_up
        self.coordinator.later(
            max(wait_s, 0.01) if within else effect.window_s,
            lambda: self.coordinator.submit(
                CheckEnded(
                    effect=effect.id,
                    guest=effect.guest,
                    results=self._found(effect, within and world.ready_in(effect.guest) <= 0.0),
                )
            ),
        )

    @staticmethod
    def _found(effect: CheckGuest, passed: bool) -> tuple[CheckResult, ...]:
        why = "" if passed else "nothing answers"
        return tuple(CheckResult(check=check, passed=passed, why=why) for check in effect.checks)


class _StillRuns:
    """Whether the process that asked for something still runs."""

    def __init__(self, coordinator: SimCoordinator) -> None:
        self._coordinator, self._term = coordinator, coordinator.term

    def __call__(self) -> bool:
        return self._coordinator.alive and self._coordinator.term == self._term
