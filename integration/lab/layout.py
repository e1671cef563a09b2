"""Names, addresses and paths of one lab: what everything is called and where it lies.

Pure: nothing here touches the world. Nothing else in the package makes up a name, an address or a path.
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

STATE_ROOT: Final = Path("/var/tmp")
CACHE: Final = Path("/var/cache/dr-lab")
CTL: Final = "ctl"
NAS: Final = "nas"
BMC_USER: Final = "admin"
BMC_PORT: Final = 623

Network = Literal["mgmt", "stor", "guest", "bmc"]
NETWORKS: Final[tuple[Network, ...]] = ("mgmt", "stor", "guest", "bmc")
SUBNETS: Final[dict[Network, str]] = {
    "mgmt": "10.81.0",
    "stor": "10.82.0",
    "guest": "10.83.0",
    "bmc": "10.84.0",
}
POLLER_ADDRESS: Final = "10.83.0.1"
POLLER_MAC: Final = "02:00:00:53:00:01"  # the switch in the guest network
_NAMESPACE_ID: Final = uuid.UUID("6f2e4a1c-51b5-4d0e-9f5f-0d1a2b3c4d5e")


class LabError(Exception):
    """Something in the lab is not as it should be; the message says what and what to type next."""


class MachineOff(LabError):
    """The machine is powered off, so nothing can be done inside it."""


class MachineFrozen(LabError):
    """The machine is frozen, so a command inside it would hang until it thaws."""


def as_network(text: str) -> Network:
    """The network of this name. Raises LabError for any other word."""
    for network in NETWORKS:
        if text == network:
            return network
    raise LabError(f"{text!r} is not a network: {', '.join(NETWORKS)}")


def number(name: str) -> int:
    """The number of a host or guest: 3 for `h3` and for `g3`. Raises LabError for any other name."""
    match = re.fullmatch(r"[hg]([1-9][0-9]?)", name)
    if match is None:
        raise LabError(f"{name!r} is not a lab name: hosts are h1..h80, guests are g1..g99")
    return int(match[1])


def address(network: Network, name: str) -> str:
    """The IPv4 address of a host, guest, the coordinator's machine or the storage server in one network."""
    prefix = SUBNETS[network]
    if name == CTL:
        return f"{prefix}.2"
    if name == NAS:
        return f"{prefix}.3"
    if name.startswith("g"):
        return f"{prefix}.{100 + number(name)}"
    return f"{prefix}.{10 + number(name)}"


def mac(network: Network, name: str) -> str:
    """The fixed MAC address of a machine's (or BMC's) interface: a new one at each boot would break others' ARP."""
    third, last = address(network, name).split(".")[1:4:2]
    return f"02:00:00:{int(third):02x}:00:{int(last):02x}"


def guest_mac(guest: str) -> str:
    """The fixed MAC address of a guest's only interface."""
    return f"52:54:00:83:00:{number(guest):02x}"


def nbd_port(guest: str) -> int:
    """The port of the guest's disk on the storage server."""
    return 10900 + number(guest)


def machine_networks(machine: str) -> tuple[Network, ...]:
    """The networks a machine has an interface in. A host's BMC is not part of the machine."""
    return ("mgmt", "bmc") if machine == CTL else ("mgmt", "stor", "guest")


@dataclass(frozen=True)
class Layout:
    """Where the lab called `name` keeps its state and what its namespaces are called."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,11}", self.name):
            raise LabError(f"lab name {self.name!r} is not allowed: 1 to 12 of a-z and 0-9, a letter first")

    @classmethod
    def from_env(cls, name: str | None = None) -> Layout:
        """The lab asked for by name, else by DR_LAB, else `lab`."""
        return cls(name or os.environ.get("DR_LAB") or "lab")

    @property
    def state(self) -> Path:
        return STATE_ROOT / f"dr-{self.name}"

    @property
    def lock(self) -> Path:
        """Beside the state, not in it, so that it outlives `down`."""
        return STATE_ROOT / f".dr-{self.name}.lock"

    @property
    def netns_prefix(self) -> str:
        return f"dr-{self.name}-"

    def netns(self, role: str) -> str:
        """Name of the network namespace of `switch`, `nas`, a machine, or a BMC (`bmc-h1`)."""
        return f"{self.netns_prefix}{role}"

    def netns_path(self, role: str) -> Path:
        return Path("/run/netns") / self.netns(role)

    def machine(self, machine: str) -> Path:
        return self.state / "machines" / machine

    def bmc(self, host: str) -> Path:
        return self.state / "bmc" / host

    def pid_file(self, role: str) -> Path:
        """Where the process with this role records its own pid and start time before it becomes it."""
        return self.state / "pids" / role

    def log(self, role: str) -> Path:
        return self.state / "logs" / f"{role}.log"

    def disk(self, guest: str) -> Path:
        return self.state / "nas" / f"{guest}.raw"

    def identity(self, what: str) -> uuid.UUID:
        """A fixed UUID for a thing of this lab (a host, a BMC, a guest): the same at each `up`."""
        return uuid.uuid5(_NAMESPACE_ID, f"{self.name}/{what}")

    def bmc_password(self, host: str) -> str:
        """Distinct for each host, so that a secret that leaks into a log can be told whose it is."""
        return f"lab-secret-{host}"
