"""The lab's network as it ought to be, and the one function that makes it so.

Desired state is data: which machines are powered and thawed, and which network faults are active. `converge`
compiles that into link states and one nft ruleset. Nobody else sets a link or a rule, but for the links that
`power off` takes down first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from integration.lab import netns, proc
from integration.lab.layout import (
    CTL,
    NAS,
    NETWORKS,
    POLLER_ADDRESS,
    POLLER_MAC,
    LabError,
    Layout,
    Network,
    machine_networks,
)

Direction = Literal["in", "out", "both"]


DIRECTIONS: Final[tuple[Direction, ...]] = ("in", "out", "both")


def as_direction(text: str) -> Direction:
    """The direction of this name. Raises LabError for any other word."""
    for direction in DIRECTIONS:
        if text == direction:
            return direction
    raise LabError(f"{text!r} is not a direction: {', '.join(DIRECTIONS)}")


@dataclass(frozen=True)
class Drop:
    """Packets dropped at a port of the switch. `in` is towards the machine, `out` is from it."""

    port: str
    direction: Direction
    percent: int = 100
    peer_address: str | None = None

    def rules(self) -> Iterable[tuple[str, str]]:
        """(chain direction, nft statement) for each direction."""
        chance = "" if self.percent >= 100 else f"numgen random mod 100 < {self.percent} "
        for direction in ("in", "out") if self.direction == "both" else (self.direction,):
            side = "saddr" if direction == "in" else "daddr"
            peer = f"ip {side} {self.peer_address} " if self.peer_address else ""
            yield direction, f"{peer}{chance}counter drop"


@dataclass(frozen=True)
class Limit:
    """How fast a machine's cable in one network is, each way."""

    machine: str
    network: Network
    mib_s: int

    @property
    def bucket(self) -> str:
        """The token bucket at either end: bursts of 10 ms, and room for a segment that is not yet cut into packets."""
        burst = max(128 << 10, (self.mib_s << 20) // 100)
        return f"tbf rate {self.mib_s}mibps burst {burst} latency 50ms"


def port(name: str, network: Network) -> str:
    """The switch's device for a machine (or a BMC's host, on `bmc`) in a network."""
    return f"{name}-{network}"


def build_switch(layout: Layout) -> None:
    """The switch: a namespace with one bridge for each network, where clients outside the hosts live too."""
    netns.create(layout, "switch")
    there = netns.ports(layout)
    lines: list[str] = []
    for network in NETWORKS:
        if f"br-{network}" not in there:
            lines += netns.bridge_lines(f"br-{network}", POLLER_MAC if network == "guest" else None)
            if network == "guest":
                lines.append(f"addr add {POLLER_ADDRESS}/24 dev br-guest")
    netns.ip_batch(layout.netns("switch"), lines)


def build_fixed(layout: Layout, hosts: Iterable[str]) -> None:
    """What has power of its own: the storage server's and every BMC's namespace, wired to the switch."""
    there = netns.ports(layout)
    netns.create(layout, NAS)
    if port(NAS, "stor") not in there:
        netns.wire(layout, NAS, "stor", NAS)
    for host in hosts:
        netns.create(layout, f"bmc-{host}")
        if port(host, "bmc") not in there:
            netns.wire(layout, f"bmc-{host}", "bmc", host)


def build_machine(layout: Layout, machine: str) -> None:
    """A fresh network stack for a machine: no socket, route or address of its last boot is left."""
    ports = [port(machine, network) for network in machine_networks(machine)]
    there = netns.ports(layout)
    netns.ip_batch(layout.netns("switch"), [f"link del {one}" for one in ports if one in there])
    if netns.exists(layout, machine):
        netns.delete(layout.netns(machine))
    netns.create(layout, machine)
    for network in machine_networks(machine):
        netns.wire(layout, machine, network, machine)
    if machine != CTL:
        netns.ip_batch(
            layout.netns(machine), [*netns.bridge_lines("br-guest"), "link set guest0 master br-guest"]
        )


def links_down(layout: Layout, machine: str) -> None:
    """Cut every link of a machine at once, as a power cut does."""
    wanted = {port(machine, network) for network in machine_networks(machine)} & netns.ports(layout)
    netns.ip_batch(layout.netns("switch"), [f"link set {one} down" for one in sorted(wanted)])


def converge(layout: Layout, up: Iterable[str], drops: Iterable[Drop], limits: Sequence[Limit] = ()) -> None:
    """Make the switch's links exactly those in `up`, drop exactly what `drops` says, slow what `limits` says."""
    there = {one for one in netns.ports(layout) if "-" in one and not one.startswith("br-")}
    wanted = set(up)
    chains: dict[tuple[str, str], list[str]] = {}
    for drop in drops:
        if drop.port in there:
            for direction, rule in drop.rules():
                chains.setdefault((drop.port, direction), []).append(rule)
    lines = ["add table netdev lab", "delete table netdev lab", "table netdev lab {"]
    for (device, direction), rules in sorted(chains.items()):
        hook = "egress" if direction == "in" else "ingress"  # as the switch sees it
        lines.append(f' chain {device}-{direction} {{ type filter hook {hook} device "{device}" priority 0;')
        lines += [f"  {rule}" for rule in rules]
        lines.append(" }")
    lines.append("}")
    # Rules first: no packet may slip through between a link coming up and its rule.
    path = str(layout.netns_path("switch"))
    proc.run(["nsenter", f"--net={path}", "nft", "-f", "-"], stdin="\n".join(lines) + "\n")
    _shape(layout, [one for one in limits if port(one.machine, one.network) in there])
    netns.ip_batch(
        layout.netns("switch"),
        [f"link set {one} {'up' if one in wanted else 'down'}" for one in sorted(there)],
    )


def _shape(layout: Layout, limits: Sequence[Limit]) -> None:
    """A token bucket at either end of each limited cable: what the switch sends there, and what is sent from there."""
    switch = layout.netns("switch")
    shaped = {
        line.split()[4] for line in _tc(switch, "qdisc show").splitlines() if line.startswith("qdisc tbf")
    }
    wanted = {port(one.machine, one.network): one for one in limits}
    for device in sorted(shaped - set(wanted)):
        machine, _, network = device.partition("-")
        _tc(switch, f"qdisc del dev {device} root")
        if "tbf" in _tc(layout.netns(_inside(machine, network)), f"qdisc show dev {network}0"):
            _tc(layout.netns(_inside(machine, network)), f"qdisc del dev {network}0 root")
    for device, one in sorted(wanted.items()):
        _tc(switch, f"qdisc replace dev {device} root {one.bucket}")
        _tc(
            layout.netns(_inside(one.machine, one.network)),
            f"qdisc replace dev {one.network}0 root {one.bucket}",
        )


def _inside(name: str, network: str) -> str:
    """The namespace at the other end of a port."""
    return f"bmc-{name}" if network == "bmc" and name != CTL else name


def _tc(namespace: str, words: str) -> str:
    return proc.run(["tc", "-n", namespace, *words.split()]).stdout
