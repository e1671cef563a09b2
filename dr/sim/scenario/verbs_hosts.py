"""Verbs: power, boots, cables, agents and libvirt of hosts."""

from __future__ import annotations

from typing import Annotated, Literal

from dr.sim.network import COORDINATOR
from dr.sim.scenario.stage import Stage
from dr.sim.scenario.verb import Verb
from dr.sim.scenario.words import Count, End, Hosts, Many, NewHost, Problems, Seconds, Where, Whole, Word

NETWORKS = ("management", "storage")
Networks = Annotated[tuple[str, ...], Many(Word(NETWORKS))]


class PowerOff(Verb):
    """Pull its plug. Its fence devices read off from then on."""

    power_off: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.power_off):
            stage.world.power_off(name)


class PowerOn(Verb):
    """Give it power: it boots, and its agent starts if it is enabled."""

    power_on: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.power_on):
            stage.world.power_on(name)


class Reset(Verb):
    """A kernel panic, or the reset button: everything on it dies and it boots anew, unannounced."""

    reset: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.reset):
            stage.world.hosts[name].reboot("reset")


class Shutdown(Verb):
    """`systemctl poweroff`: its agent announces it, guests that are still there are shut down with it."""

    shutdown: Annotated[Hosts, "hosts"]
    announced: Annotated[bool, "false: nobody is told"] = True

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.shutdown):
            stage.world.shutdown(name, announced=self.announced)


class Reboot(Verb):
    """`systemctl reboot`: as `shutdown`, and it boots again."""

    reboot: Annotated[Hosts, "hosts"]
    announced: Annotated[bool, "false: nobody is told"] = True

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.reboot):
            stage.world.reboot_cleanly(name, announced=self.announced)


class Freeze(Verb):
    """Everything on it stands still, and goes on later as if nothing had been."""

    freeze: Annotated[Hosts, "hosts"]
    for_: Annotated[Seconds, "how long"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.freeze):
            stage.world.freeze(name, self.for_)


class Cut(Verb):
    """Pull network cables of a host."""

    cut: Annotated[Hosts, "hosts"]
    networks: Annotated[Networks, "which"] = NETWORKS

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.cut):
            stage.world.cut(
                name, management="management" in self.networks, storage="storage" in self.networks
            )


class Mend(Verb):
    """Plug all cables of a host in again."""

    mend: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.mend):
            stage.world.mend(name)


def _pairs(stage: Stage, one: str, other: str, one_way: bool) -> set[tuple[str, str]]:
    a, b = (COORDINATOR if end == "coordinator" else end for end in (one, other))
    return {(a, b)} if one_way else {(a, b), (b, a)}


class Block(Verb):
    """Packets from one to another are lost on every network; cables stay in."""

    block: Annotated[End, "a host, or `coordinator`"]
    to: Annotated[End, "a host, or `coordinator`"]
    one_way: Annotated[bool, "false: the other direction too"] = False

    def do(self, stage: Stage) -> None:
        stage.world.network.blocked |= _pairs(stage, self.block, self.to, self.one_way)

    def check(self, where: Where, problems: Problems) -> None:
        if self.block == self.to:
            problems.add((*where, "to"), f"{self.to} cannot be cut off from itself")


class Unblock(Verb):
    """Packets between the two pass again, both ways."""

    unblock: Annotated[End, "a host, or `coordinator`"]
    to: Annotated[End, "a host, or `coordinator`"]

    def do(self, stage: Stage) -> None:
        stage.world.network.blocked -= _pairs(stage, self.unblock, self.to, False)
        stage.world.network.changed()


class SlowNetwork(Verb):
    """Messages take this many times as long; 1 is the usual (half a millisecond to four)."""

    slow_network: Annotated[int, Whole(1), "a factor"]

    def do(self, stage: Stage) -> None:
        stage.world.slowness = float(self.slow_network)


class StopAgent(Verb):
    """`systemctl stop`: the agent says goodbye."""

    stop_agent: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.stop_agent):
            stage.world.hosts[name].agent.stop()


class KillAgent(Verb):
    """`kill -9`: it says nothing, but its connection is reset. Nobody starts it again by itself."""

    kill_agent: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.kill_agent):
            stage.world.hosts[name].agent.kill()


class StartAgent(Verb):
    """Start an agent that does not run."""

    start_agent: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.start_agent):
            stage.world.hosts[name].agent.enabled = True
            stage.world.hosts[name].agent.start()


class RestartAgent(Verb):
    """`systemctl restart`, as an upgrade does it."""

    restart_agent: Annotated[Hosts, "hosts"]
    down_for: Annotated[Seconds, "how long it is down"] = 1.0

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.restart_agent):
            agent = stage.world.hosts[name].agent
            agent.stop()
            stage.world.hosts[name].later(self.down_for, agent.start)


class DisableAgent(Verb):
    """Stop the agent; it does not start with the host either, until `start_agent`."""

    disable_agent: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.disable_agent):
            stage.world.hosts[name].agent.enabled = False
            stage.world.hosts[name].agent.stop()


class FreezeAgent(Verb):
    """SIGSTOP: messages wait for it, everything else on the host goes on."""

    freeze_agent: Annotated[Hosts, "hosts"]
    for_: Annotated[Seconds, "how long"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.freeze_agent):
            stage.world.hosts[name].agent.freeze(self.for_)


class LoseAgentState(Verb):
    """The agent is killed and its state directory lost; it starts again with none."""

    lose_agent_state: Annotated[Hosts, "hosts"]
    down_for: Annotated[Seconds, "how long it is down"] = 1.0

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.lose_agent_state):
            agent = stage.world.hosts[name].agent
            agent.lose_state()
            stage.world.hosts[name].later(self.down_for, agent.start)


class LoseAnswers(Verb):
    """The agent's next answers to commands are lost; the session itself lives on."""

    lose_answers: Annotated[Hosts, "hosts"]
    times: Annotated[Count, "how many answers"] = 1

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.lose_answers):
            stage.world.disturb(name, "answer", "lost", 0.0, self.times)


class BreakSession(Verb):
    """The agent's connection is reset; it dials again."""

    break_session: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.break_session):
            link = stage.world.hosts[name].agent.link
            if link is not None:
                link.close_by_agent()
                link.host.agent.link_lost(link)


class Libvirtd(Verb):
    """libvirtd dies, hangs, or answers again. Guests run on without it."""

    libvirtd: Annotated[Literal["down", "hung", "up"], "what becomes of it"]
    on: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.on):
            stage.world.hosts[name].set_libvirtd(self.libvirtd)


class Hook(Verb):
    """The permit hook cannot be proven any longer, or is put right."""

    hook: Annotated[Literal["broken", "mended"], "what becomes of it"]
    on: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.on):
            stage.world.hosts[name].hook_broken = self.hook == "broken"
            stage.world.hosts[name].agent.look_again()


class Join(Verb):
    """A new machine joins: its token is made, its agent starts."""

    join: Annotated[NewHost, "its name"]
    memory_mib: Annotated[Count, "its memory"] = 8192

    def do(self, stage: Stage) -> None:
        stage.world.add_host(self.join, self.memory_mib)


VERBS: tuple[type[Verb], ...] = (
    PowerOff,
    PowerOn,
    Reset,
    Shutdown,
    Reboot,
    Freeze,
    Cut,
    Mend,
    Block,
    Unblock,
    SlowNetwork,
    StopAgent,
    KillAgent,
    StartAgent,
    RestartAgent,
    DisableAgent,
    FreezeAgent,
    LoseAgentState,
    LoseAnswers,
    BreakSession,
    Libvirtd,
    Hook,
    Join,
)
