"""Allowed commands on simulated hosts and in their guests: run once for their id, slow, failing, killed, unheard of.

Here: what `ports.world.Runner` finds on a host. Not here: which are asked for (`dr.core.playbooks.commands`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dr.core import warden
from dr.model.allowed import Allowed, Report
from dr.model.commands import Answer, Outcome, RunInside
from dr.model.effects import RunCommand
from dr.model.events import CommandEnded
from dr.sim.network import COORDINATOR

if TYPE_CHECKING:
    from dr.sim.agent import SimAgent
    from dr.sim.effects import SimEffects
    from dr.sim.host import SimHost

CommandFault = Literal["fails", "hangs", "is killed", "is not there"]
ALLOWED = {
    each.name: each
    for each in (
        Allowed(name="update", argv=("/usr/bin/update",), timeout_s=60.0),
        Allowed(name="tell", argv=("/usr/bin/tell", "${what}"), timeout_s=30.0),
        Allowed(name="flush", argv=("/usr/bin/flush",), where="guest", timeout_s=30.0),
        Allowed(name="power-off", argv=("/usr/sbin/power-off",), timeout_s=120.0, powers_off=True),
        Allowed(name="reboot", argv=("/usr/sbin/reboot",), timeout_s=120.0, reboots=True),
    )
}
TAKES_S = {"/usr/sbin/power-off": 0.5, "/usr/bin/update": 4.0, "/usr/sbin/reboot": 0.5}
CONNECT_S = 0.3
NO_WAY_S = 8.0  # until a connection that nobody answers is given up
LATE_S = 30.0  # as `adapters.ssh.remote`: what arrives later is not begun
BROKEN_S = (
    35.0  # over the window: until keepalives, or the attempt's own end, tell of a connection that is gone
)


@dataclass
class Ran:
    """A command that was begun in this boot."""

    report: Report | None = None  # once it has ended


def run(effects: SimEffects, effect: RunCommand) -> None:
    """One attempt. Its end comes back as an event, unless the coordinator is gone by then."""
    coordinator, host = effects.coordinator, effects.world.hosts[effect.host]
    clock = effects.world.clock
    sent_at, told = clock.now, False

    def tell(report: Report) -> None:
        nonlocal told
        if not told:
            told = True
            event = CommandEnded(effect=effect.id, host=effect.host, report=report)
            effects.back(event, "command result")

    def reached() -> bool:
        return any(effects.world.network.hears(COORDINATOR, host, each) for each in effect.addresses)

    def answer(report: Report) -> None:
        if reached():  # else only that the connection is gone is noticed
            coordinator.later(CONNECT_S, lambda: tell(report))

    def arrive() -> None:
        if effect.boot_id != host.boot_id:
            answer(Report(state="other_boot", reason=f"{effect.host} runs another boot"))
        elif effect.id in host.commands:
            look()
        elif clock.now - sent_at <= LATE_S:
            begin(effects, host, effect)
            look()

    def look() -> None:
        ran = host.commands[effect.id]
        if ran.report is not None:
            answer(ran.report)
        elif clock.now - sent_at < effect.window_s:
            host.later(0.5, look)
        else:
            answer(Report(state="lost", reason="it is under way"))

    if reached():
        host.later(CONNECT_S, arrive)
        gone = Report(state="lost", reason="no word came back")
        coordinator.later(effect.window_s + BROKEN_S, lambda: tell(gone))
    else:
        gone = Report(state="unreached", reason="no SSH connection")
        coordinator.later(NO_WAY_S, lambda: tell(gone))


def begin(effects: SimEffects, host: SimHost, effect: RunCommand) -> None:
    program, ran = effect.argv[0], Ran()
    host.commands[effect.id] = ran
    effects.world.truth.command_begins(effect.id, effect.argv)
    fault = host.command_faults.popleft() if host.command_faults else ""
    if fault == "is not there":
        ran.report = Report(state="refused", reason=f"{program}: no such file or directory")
        return
    effects.world.say(f"{host.name} runs {' '.join(effect.argv)}", "command.runs", host=host.name)
    effects.world.truth.commands[host.name, program.rpartition("/")[2]] += 1

    def end() -> None:
        if fault == "is killed":
            ran.report = Report(state="unknown", reason="the process that ran it was killed")
            return
        code = 1 if fault == "fails" else -15 if fault == "hangs" else 0
        said = f"{program} of {host.boot_id}: {code}\n"
        ran.report = Report(
            state="ended", code=code, timed_out=fault == "hangs", output=said, bytes=len(said), digest="0"
        )
        if effect.argv == ALLOWED["reboot"].argv and not code:
            effects.world.reboot_cleanly(host.name)
        elif effect.argv == ALLOWED["power-off"].argv and not code:
            effects.world.shutdown(host.name)

    host.later(effect.timeout_s if fault == "hangs" else TAKES_S.get(program, 1.0), end)


def run_inside(agent: SimAgent, command: str, order: RunInside, told: Callable[[Answer], None]) -> None:
    """What the agent of a guest's host makes of it, as `dr.agent.execs`."""
    ran = agent.insides.get(command)
    if ran is None:
        ran = agent.insides[command] = Ran()
        memory = warden.begin_inside(agent.memory, command, order.process)
        if isinstance(memory, str):
            ran.report = Report(state="unknown", reason=memory)
        else:
            agent.memory = memory
            agent.save()
            _begin_inside(agent, command, order, ran)
    clock = agent.host.world.clock
    until = clock.now + order.window_s

    def look() -> None:
        if ran.report is not None:
            told(Answer(outcome=Outcome.DONE, report=ran.report))
        elif clock.now >= until:
            told(Answer(outcome=Outcome.DONE, report=Report(state="lost", reason="it is under way")))
        else:
            agent.later(0.5, look)

    look()


def _begin_inside(agent: SimAgent, command: str, order: RunInside, ran: Ran) -> None:
    host, program = agent.host, order.argv[0]
    domain = host.domains.get(order.guest)
    if domain is None or not domain.runs:
        ran.report = Report(state="refused", reason="it does not run here")
        return
    fault = host.command_faults.popleft() if host.command_faults else ""
    if fault == "is not there":
        ran.report = Report(state="refused", reason=f"{program}: no such file or directory")
        return
    host.world.truth.command_begins(command, order.argv)
    host.world.truth.commands[order.guest, program.rpartition("/")[2]] += 1
    host.world.say(f"{order.guest} runs {program}", "command.runs", guest=order.guest)

    def end() -> None:
        here = host.domains.get(order.guest)
        if here is not domain or not domain.runs:
            ran.report = Report(state="unknown", reason="its guest agent is not connected")
        elif fault in ("is killed", "hangs"):
            ran.report = Report(state="unknown", reason="it has not ended in time, and may go on")
        else:
            code = 1 if fault == "fails" else 0
            said = f"{program}: {code}\n"
            ran.report = Report(state="ended", code=code, output=said, bytes=len(said), digest="0")

    agent.later(order.timeout_s if fault == "hangs" else TAKES_S.get(program, 1.0), end)
