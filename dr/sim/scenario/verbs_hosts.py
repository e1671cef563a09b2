"""Verbs: power, boots, cables, agents and libvirt of hosts."""

from __future__ import annotations

from typing import Annotated, Literal

from dr.model.facts import Level
from dr.model.words import (
    Count,
    End,
    Guests,
    HostRef,
    Hosts,
    Many,
    NewHost,
    Problems,
    Seconds,
    Where,
    Whole,
    Word,
)
from dr.sim.commands import CommandFault
from dr.sim.network import COORDINATOR, NETWORKS
from dr.sim.scenario.stage import ASK_AGAIN_S, Stage
from dr.sim.scenario.verb import Verb

Networks = Annotated[tuple[str, ...], Many(Word(NETWORKS))]
DOWN = ("command", "start", "question", "list", "welcome", "ack")  # to the agent
UP = ("answer", "hello", "report", "beat")  # from it
ABOUT = (
    "look",
    "power reading",
    "fence result",
    "power-on result",
    "command result",
)  # what the coordinator had looked at or done
Fate = Literal["lost", "late", "repeated"]
Message = Annotated[str, Word((*DOWN, *UP, *ABOUT))]


class PowerOff(Verb):
    """Pull its plug. Its fence devices read off from then on."""

    power_off: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.power_off):
            stage.world.power_off(name)


class PutFile(Verb):
    """Somebody puts a file where a guest's local disk would be."""

    put_file: Annotated[Guests, "guests whose disks only their own hosts have"]
    on: Annotated[HostRef, "the host"]

    def do(self, stage: Stage) -> None:
        for name in stage.guests(self.put_file):
            stage.world.hosts[self.on].images.put(name)


class DiskRoom(Verb):
    """So much is free on the file system of hosts where guests' local disks lie."""

    disk_room: Annotated[Hosts, "hosts"]
    mib: Annotated[int, Whole(0), "so much"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.disk_room):
            stage.world.hosts[name].images.room_mib = self.mib
            stage.world.hosts[name].agent.look_again()


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
    held: Annotated[
        bool, "false: it does not wait for its guests to leave (dr-leave.service is not enabled)"
    ] = True

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.shutdown):
            stage.world.shutdown(name, announced=self.announced, held=self.held)


class Reboot(Verb):
    """`systemctl reboot`: as `shutdown`, and it boots again."""

    reboot: Annotated[Hosts, "hosts"]
    announced: Annotated[bool, "false: nobody is told"] = True
    held: Annotated[
        bool, "false: it does not wait for its guests to leave (dr-leave.service is not enabled)"
    ] = True

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.reboot):
            stage.world.reboot_cleanly(name, announced=self.announced, held=self.held)


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
    networks: Annotated[Networks, "which"] = ("management", "storage")

    def do(self, stage: Stage) -> None:
        cut = {network: network in self.networks for network in NETWORKS}
        for name in stage.hosts(self.cut):
            stage.world.cut(name, **cut)


class Mend(Verb):
    """Plug cables of a host in again."""

    mend: Annotated[Hosts, "hosts"]
    networks: Annotated[Networks, "which"] = NETWORKS

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.mend):
            stage.world.mend(name, self.networks)


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


class Messages(Verb):
    """The next messages of one kind are lost, come late (and out of order), or come twice; the session itself lives on.
    To the agent: `start`, `question` (what runs there?), `list` (of what is protected), `command` (any other),
    `welcome`, `ack`. From it: `answer`, `hello`, `report`, `beat`. Of the coordinator's own looks and deeds: `look`,
    `power reading`, `fence result`, `power-on result`, `command result`. A report is never lost
    alone: its session ends with it."""

    messages: Annotated[Fate, "what becomes of them"]
    kind: Annotated[Message, "of which kind"]
    of: Annotated[Hosts, "to, from or about these hosts"]
    by: Annotated[Seconds, "late, repeated: how much later"] = 0.0
    times: Annotated[Count, "how many, for each host"] = 1

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.of):
            stage.world.disturb(name, self.kind, self.messages, self.by, self.times)

    def check(self, where: Where, problems: Problems) -> None:
        if (self.messages == "lost") == bool(self.by):
            problems.add(
                (*where, "by"), "says how late `late` and `repeated` messages come, and is needed there"
            )
        if self.messages == "repeated" and self.kind in ABOUT:
            problems.add((*where, "messages"), f"a {self.kind} is no message that could come twice")


class NextCommand(Verb):
    """What becomes of the next command of a playbook on hosts, or in their guests. All worlds allow `update`, `reboot`,
    `power-off`, `tell` (with `what`), and in guests `flush`."""

    next_command: Annotated[CommandFault, "what; of one that hangs: until its time is over"]
    on: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.on):
            stage.world.hosts[name].command_faults.append(self.next_command)


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
    """libvirtd dies, hangs, is slow, or answers again. Guests run on without it."""

    libvirtd: Annotated[Literal["down", "hung", "slow", "up"], "what becomes of it"]
    on: Annotated[Hosts, "hosts"]
    by: Annotated[Seconds, "slow: how much longer each call takes"] = 0.0

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.on):
            host = stage.world.hosts[name]
            host.libvirt_slow_s = self.by
            host.set_libvirtd("up" if self.libvirtd == "slow" else self.libvirtd)

    def check(self, where: Where, problems: Problems) -> None:
        if (self.libvirtd == "slow") != bool(self.by):
            problems.add((*where, "by"), "says how slow `slow` is, and is needed there only")


class Hook(Verb):
    """The permit hook cannot be proven any longer, or is put right."""

    hook: Annotated[Literal["broken", "mended"], "what becomes of it"]
    on: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.on):
            stage.world.hosts[name].hook_broken = self.hook == "broken"
            stage.world.hosts[name].agent.look_again()


class Hardware(Verb):
    """A part of a host's own hardware fails, or works again, and its agent tells; or that part cannot be looked at."""

    hardware: Annotated[Literal["fails", "works", "unseen"], "which"]
    on: Annotated[Hosts, "hosts"]
    part: Annotated[str, "what, as in the health report"] = "ecc:mc0"

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.on):
            host = stage.world.hosts[name]
            if self.hardware == "unseen":
                host.hardware.pop(self.part, None)
            else:
                host.hardware[self.part] = Level.CRITICAL if self.hardware == "fails" else Level.OK
            host.agent.look_again()


class Probes(Verb):
    """Its agent cannot send echoes, so what it is asked to look for it cannot look for; or it can again."""

    probes: Annotated[Literal["fail", "work"], "which"]
    on: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.on):
            stage.world.hosts[name].probes_fail = self.probes == "fail"


class Hibernation(Verb):
    """Hibernation is allowed on a host, or masked as the agent does it; its agent tells within a heartbeat."""

    hibernation: Annotated[Literal["allowed", "masked"], "which"]
    on: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.on):
            stage.world.hosts[name].hibernation_masked = self.hibernation == "masked"
            stage.world.hosts[name].agent.look_again()


class Hibernate(Verb):
    """`systemctl hibernate`: its memory goes to its disk, its power off; with power it goes on where it was. Nobody
    does it before the coordinator knows that it may happen: the moment until then is what the design admits."""

    hibernate: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        world = stage.world
        for name in stage.hosts(self.hibernate):
            record, host = world.store.hosts.get(name), world.hosts[name]
            known = record is not None and not record.facts.hibernation_masked and not world.truth.doubtful
            if known or host.hibernation_masked:
                host.hibernate()


class Scrap(Verb):
    """A machine is gone for good: without power, and nobody gives it any again."""

    scrap: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.scrap):
            stage.world.scrap(name)


class Join(Verb):
    """A new machine joins: its token is made as soon as a coordinator listens, and its agent starts."""

    join: Annotated[NewHost, "its name"]
    memory_mib: Annotated[Count, "its memory"] = 8192

    def do(self, stage: Stage) -> None:
        if stage.world.coordinator.listening:
            stage.world.add_host(self.join, self.memory_mib)
        else:
            stage.world.clock.after(ASK_AGAIN_S, lambda: self.do(stage))


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
    Messages,
    NextCommand,
    BreakSession,
    Libvirtd,
    Hook,
    Hardware,
    DiskRoom,
    PutFile,
    Probes,
    Hibernation,
    Hibernate,
    Scrap,
    Join,
)
