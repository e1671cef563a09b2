"""Verbs: fence devices that work, fail, hang, lie, or belong to another machine."""

from __future__ import annotations

from typing import Annotated, Literal

from dr.model.words import HostRef, Hosts
from dr.sim.bmc import Device
from dr.sim.scenario.stage import Stage
from dr.sim.scenario.verb import Verb

FAULTS = {"works": "", "fails": "dead", "hangs": "hang", "says_off": "says_off", "deaf": "deaf"}
Which = Literal["all", "bmc", "pdu", "pdu_a", "pdu_b"]
Behaviour = Literal["works", "fails", "hangs", "says_off", "deaf"]
OneDevice = Literal["bmc", "pdu_a", "pdu_b"]


def _devices(stage: Stage, names: tuple[str, ...], which: str) -> list[Device]:
    hosts = stage.hosts(names)
    return [
        device
        for device in stage.world.fencer.devices.values()
        if device.host in hosts and (which == "all" or device.name.startswith(which.replace("_", "-")))
    ]


class Fence(Verb):
    """How the fence devices of a host behave from now on: `works`; `fails` (no answer); `hangs` (no answer, late);
    `says_off` (reads off whatever is so, and switches nothing); `deaf` (takes the order, reads off, does nothing)."""

    fence: Annotated[Behaviour, "how"]
    of: Annotated[Hosts, "hosts"]
    devices: Annotated[Which, "its BMC, its two power outlets, one of these, or all of them"] = "all"

    def do(self, stage: Stage) -> None:
        for device in _devices(stage, self.of, self.devices):
            device.fault, device.switched_off = FAULTS[self.fence], False


class SwapCables(Verb):
    """Cables are swapped: a fence device of this host answers for another machine, and shows that one's identity."""

    swap_cables: Annotated[HostRef, "the host whose device it is"]
    with_: Annotated[HostRef, "the host that it acts on; the same host: put right"]
    device: Annotated[OneDevice, "its BMC, or one of its power outlets"] = "bmc"

    def do(self, stage: Stage) -> None:
        for device in _devices(stage, (self.swap_cables,), self.device):
            device.acts_on = "" if self.with_ == self.swap_cables else self.with_


class ReplaceDevice(Verb):
    """Another device of the same kind is built in: it works, and nobody has seen its identity before."""

    replace_device: Annotated[HostRef, "the host whose device it is"]
    device: Annotated[OneDevice, "its BMC, or one of its power outlets"] = "bmc"

    def do(self, stage: Stage) -> None:
        for device in _devices(stage, (self.replace_device,), self.device):
            device.serial += 1


VERBS: tuple[type[Verb], ...] = (Fence, SwapCables, ReplaceDevice)
