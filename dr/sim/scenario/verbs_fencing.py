"""Verbs: fence devices that work, fail, hang, lie, or belong to another machine."""

from __future__ import annotations

from typing import Annotated, Literal

from dr.sim.bmc import Device
from dr.sim.scenario.stage import Stage
from dr.sim.scenario.verb import Verb
from dr.sim.scenario.words import HostRef, Hosts

FAULTS = {"works": "", "fails": "dead", "hangs": "hang", "says_off": "says_off", "deaf": "deaf"}
Which = Literal["all", "bmc", "pdu"]


def _devices(stage: Stage, names: tuple[str, ...], which: str) -> list[Device]:
    hosts = stage.hosts(names)
    return [
        device
        for device in stage.world.fencer.devices.values()
        if device.host in hosts and (which == "all" or device.name.startswith(which))
    ]


class Fence(Verb):
    """How the fence devices of a host behave from now on: `works`; `fails` (no answer); `hangs` (no answer, late);
    `says_off` (reads off whatever is so, and switches nothing); `deaf` (takes the order, reads off, does nothing)."""

    fence: Annotated[Literal["works", "fails", "hangs", "says_off", "deaf"], "how"]
    of: Annotated[Hosts, "hosts"]
    devices: Annotated[Which, "its BMC, its two power outlets, or all of them"] = "all"

    def do(self, stage: Stage) -> None:
        for device in _devices(stage, self.of, self.devices):
            device.fault, device.switched_off = FAULTS[self.fence], False


class SwapBmc(Verb):
    """The cables of two BMCs are swapped: this host's device answers for another machine."""

    swap_bmc: Annotated[HostRef, "the host whose device it is"]
    with_: Annotated[HostRef, "the host that it acts on; the same host: put right"]

    def do(self, stage: Stage) -> None:
        for device in _devices(stage, (self.swap_bmc,), "bmc"):
            device.acts_on = "" if self.with_ == self.swap_bmc else self.with_


VERBS: tuple[type[Verb], ...] = (Fence, SwapBmc)
