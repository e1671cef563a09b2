"""Faults: what is broken on purpose now, kept as data, and the acts that break and heal it.

Network faults are only recorded here and compiled by network.py. Every fault can be undone by `heal`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from integration.lab import bmc, network, proc
from integration.lab.layout import CTL, NAS, LabError, Network, address, as_network, machine_networks
from integration.lab.network import Direction, Drop, Limit, as_direction

if TYPE_CHECKING:
    from integration.lab.lab import Lab

_ENDS_WITH_BOOT: Final = ("freeze", "service-freeze", "clock")
_FILLER: Final = ".lab-disk-full"


@dataclass(frozen=True)
class Fault:
    """One active fault. `target` is a machine, the storage server (`nas`), or a guest (its disk server)."""

    kind: str
    target: str
    network: str = ""
    direction: str = ""
    percent: int = 0
    peer: str = ""
    detail: str = ""
    mib_s: int = 0

    def __str__(self) -> str:
        parts = [
            self.kind,
            self.network,
            self.direction,
            f"{self.percent}%" if self.percent else "",
            f"{self.mib_s} MiB/s" if self.mib_s else "",
            self.detail,
        ]
        words = " ".join(part for part in parts if part)
        return f"{words} peer={self.peer}" if self.peer else words


class Faults:
    """All faults of one lab. Reached as `lab.faults`."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._file = lab.layout.state / "faults.json"
        self._lock = lab.layout.state / "faults.lock"

    def active(self, target: str | None = None) -> list[Fault]:
        """What is broken now, in the order it was broken."""
        try:
            entries = json.loads(self._file.read_text())
        except FileNotFoundError:
            return []
        return [fault for fault in (Fault(**entry) for entry in entries) if target in (None, fault.target)]

    def _change(self, *, add: Fault | None = None, drop: Fault | None = None) -> None:
        """Record before the act: a fault half made is known, and `heal` undoes it."""
        with proc.locked(self._lock):
            faults = [fault for fault in self.active() if fault not in (add, drop)]
            faults += [add] if add else []
            proc.write_atomic(self._file, json.dumps([asdict(fault) for fault in faults], indent=1))

    def converge(self) -> None:
        """Make every link and drop rule what power, freezes and network faults say."""
        with proc.locked(self._lab.layout.state / "network.lock"):
            faults = self.active()
            cut = {(fault.target, fault.network) for fault in faults if fault.kind == "link"}
            still = {fault.target for fault in faults if fault.kind == "freeze"}
            up = [network.port(host, "bmc") for host in self._lab.host_names if (host, "bmc") not in cut]
            up += [network.port(NAS, "stor")] if (NAS, "stor") not in cut else []
            for machine in self._lab.machines:
                if machine.has_power() and machine.name not in still:
                    up += [
                        network.port(machine.name, one)
                        for one in machine_networks(machine.name)
                        if (machine.name, one) not in cut
                    ]
            drops = [
                Drop(
                    network.port(fault.target, as_network(fault.network)),
                    as_direction(fault.direction),
                    fault.percent,
                    address(as_network(fault.network), fault.peer) if fault.peer else None,
                )
                for fault in faults
                if fault.kind == "drop"
            ]
            limits = [
                Limit(fault.target, as_network(fault.network), fault.mib_s)
                for fault in faults
                if fault.kind == "slow"
            ]
            network.converge(self._lab.layout, up, drops, limits)

    def forget_boot(self, machine: str) -> None:
        """A power cut ends the faults of that boot: a freeze, a stopped service, a jumped clock."""
        for fault in self.active(machine):
            if fault.kind in _ENDS_WITH_BOOT:
                self._change(drop=fault)

    # -- network -----------------------------------------------------------------------------------------------

    def link_down(self, target: str, network_name: Network | None = None) -> None:
        """Pull the cable of a machine in one network, or in all of them. `bmc` of a host is its BMC's own cable."""
        for one in self._networks(target, network_name):
            self._change(add=Fault("link", target, network=one))
        self.converge()

    def link_up(self, target: str, network_name: Network | None = None) -> None:
        """Put the cable back; it has carrier once the machine is on."""
        for one in self._networks(target, network_name):
            self._change(drop=Fault("link", target, network=one))
        self.converge()

    def drop(
        self,
        target: str,
        network_name: Network,
        direction: Direction = "both",
        *,
        percent: int = 100,
        peer: str | None = None,
    ) -> None:
        """Drop packets at the machine's port: `in` towards it, `out` from it; all, or a random `percent`.

        `peer` narrows it to IP packets to and from one other machine (ARP still passes).
        """
        if not 1 <= percent <= 100:
            raise LabError(f"percent must be 1 to 100, not {percent}")
        as_direction(direction)
        self._networks(target, network_name)
        self._change(
            add=Fault(
                "drop", target, network=network_name, direction=direction, percent=percent, peer=peer or ""
            )
        )
        self.converge()

    def loss(self, target: str, network_name: Network, percent: int) -> None:
        """Random loss in both directions."""
        self.drop(target, network_name, "both", percent=percent)

    def undrop(self, target: str, network_name: Network | None = None) -> None:
        """End every drop and loss at the machine's port, in one network or in all."""
        for fault in self.active(target):
            if fault.kind == "drop" and network_name in (None, fault.network):
                self._change(drop=fault)
        self.converge()

    def slow(self, target: str, network_name: Network, mib_s: int) -> None:
        """A cable that carries so many MiB/s each way, in place of what it did before."""
        if mib_s < 1:
            raise LabError(f"a link carries at least 1 MiB/s, not {mib_s}")
        self._networks(target, network_name)
        self._end_slow(target, network_name)
        self._change(add=Fault("slow", target, network=network_name, mib_s=mib_s))
        self.converge()

    def fast(self, target: str, network_name: Network | None = None) -> None:
        """End the limit on a machine's cable, in one network or in all."""
        self._end_slow(target, network_name)
        self.converge()

    def _end_slow(self, target: str, network_name: Network | None) -> None:
        for fault in self.active(target):
            if fault.kind == "slow" and network_name in (None, fault.network):
                self._change(drop=fault)

    def storage_cut(self, host: str | None = None) -> None:
        """Cut a host off from the storage server (migration still works), or all hosts when none is named."""
        if host is None:
            self.link_down(NAS, "stor")
        else:
            self.drop(host, "stor", "both", peer=NAS)

    def storage_restore(self, host: str | None = None) -> None:
        if host is None:
            self.link_up(NAS, "stor")
        for fault in self.active(host):
            if fault.kind == "drop" and fault.peer == NAS:
                self._change(drop=fault)
        self.converge()

    def _networks(self, target: str, one: Network | None) -> tuple[Network, ...]:
        if target == NAS:
            have: tuple[Network, ...] = ("stor",)
        else:
            own = machine_networks(self._lab.machine(target).name)
            have = own if target == CTL else (*own, "bmc")
            if one is None:
                return own
        if one is not None and one not in have:
            raise LabError(f"{target} has no link in {one}: it has {', '.join(have)}")
        return (one,) if one else have

    # -- freezing ----------------------------------------------------------------------------------------------

    def freeze(self, target: str) -> None:
        """A hung machine: its links go down (its kernel would still answer pings), then every process stops."""
        machine = self._lab.machine(target)
        if not machine.is_on():
            raise LabError(f"{target} is off: nothing to freeze")
        self._change(add=Fault("freeze", target))
        self.converge()
        machine.cgroup.freeze()

    def thaw(self, target: str) -> None:
        """Every process goes on where it stood, and the links come back."""
        self._lab.machine(target).cgroup.thaw()
        self._change(drop=Fault("freeze", target))
        self.converge()

    def freeze_service(self, target: str, service: str) -> None:
        """SIGSTOP a service and its children, and wait until they stand still; the machine's kernel goes on."""
        machine = self._lab.machine(target)
        family = machine.services.descendants(service)
        detail = " ".join([service, *(f"{one.pid}:{one.start_ticks}" for one in family)])
        self._change(add=Fault("service-freeze", target, detail=detail))
        for one in family:
            one.stop()

    def thaw_service(self, target: str, service: str) -> None:
        for fault in self.active(target):
            if fault.kind == "service-freeze" and fault.detail.split()[0] == service:
                for entry in reversed(fault.detail.split()[1:]):
                    pid, start = entry.split(":")
                    proc.Process(int(pid), int(start)).signal(signal.SIGCONT)
                self._change(drop=fault)

    # -- BMC ---------------------------------------------------------------------------------------------------

    def bmc_dead(self, host: str) -> None:
        """The BMC answers nothing: its cable is out."""
        self.link_down(host, "bmc")

    def bmc_alive(self, host: str) -> None:
        self.link_up(host, "bmc")

    def bmc_lie(self, host: str, mode: bmc.BmcMode) -> None:
        """`lie-off`: says off whatever is true, and does nothing. `ignore`: says success, does nothing, says on."""
        self._end_bmc(host)
        if mode != "honest":
            self._change(add=Fault("bmc", host, detail=mode))
        bmc.set_mode(self._lab.layout, host, mode)

    def bmc_swap(self, host: str, with_host: str) -> None:
        """The BMC at this host's address has the GUID and controls the power of another (a miswired rack)."""
        self._lab.host(with_host)
        self._end_bmc(host)
        self._change(add=Fault("bmc", host, detail=f"swapped {with_host}"))
        bmc.start(self._lab.layout, host, answers_for=with_host)

    def bmc_honest(self, host: str) -> None:
        """End every lie and swap of this BMC (not a dead cable)."""
        self._end_bmc(host)

    def _end_bmc(self, host: str) -> None:
        self._lab.host(host)
        bmc.set_mode(self._lab.layout, host, "honest")
        if bmc.answers_for(self._lab.layout, host) != host:
            bmc.start(self._lab.layout, host)
        for fault in self.active(host):
            if fault.kind == "bmc":
                self._change(drop=fault)

    # -- disk, clock, guest disks ------------------------------------------------------------------------------

    def disk_full(self, target: str) -> None:
        """Fill the machine's disk (/var/lib/dr, /etc/dr, /var/lib/libvirt, logs...) to the last block."""
        filler = self._lab.machine(target).directory / "disk" / _FILLER
        self._change(add=Fault("disk-full", target))
        with filler.open("ab") as file:
            for chunk in (64 << 20, 1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, chunk)

    def disk_free(self, target: str) -> None:
        (self._lab.machine(target).directory / "disk" / _FILLER).unlink(missing_ok=True)
        self._change(drop=Fault("disk-full", target))

    def clock_jump(self, target: str, service: str, offset_s: float) -> None:
        """Jump the wall clock of one service (installed with `faketime=True`) to real time plus `offset_s`."""
        machine = self._lab.machine(target)
        for fault in self.active(target):
            if fault.kind == "clock" and fault.detail.split()[0] == service:
                self._change(drop=fault)
        if offset_s:
            self._change(add=Fault("clock", target, detail=f"{service} {offset_s:+g}s"))
        machine.services.set_clock(service, offset_s)

    def disk_server_stop(self, guest: str) -> None:
        """The guest's disk gives I/O errors: its qemu-nbd is killed (connections are reset)."""
        self._change(add=Fault("disk-server", guest))
        self._lab.guest(guest).stop_disk_server()

    def disk_server_start(self, guest: str) -> None:
        self._lab.guest(guest).ensure_disk_server()
        self._change(drop=Fault("disk-server", guest))

    # -- healing -----------------------------------------------------------------------------------------------

    def heal(self, target: str | None = None, *, power_on: bool = True) -> None:
        """Undo every fault (of one machine, or all), and by default power on what is off."""
        for fault in self.active(target):
            with contextlib.suppress(LabError) if fault.kind in _ENDS_WITH_BOOT else contextlib.nullcontext():
                self._undo(fault)
            self._change(drop=fault)
        self.converge()
        if power_on:
            for machine in self._lab.machines:
                if target in (None, machine.name):
                    machine.power_on()

    def _undo(self, fault: Fault) -> None:
        word = fault.detail.split()[0] if fault.detail else ""
        if fault.kind == "freeze":
            self.thaw(fault.target)
        elif fault.kind == "service-freeze":
            self.thaw_service(fault.target, word)
        elif fault.kind == "clock":
            self.clock_jump(fault.target, word, 0)
        elif fault.kind == "bmc":
            self._end_bmc(fault.target)
        elif fault.kind == "disk-full":
            self.disk_free(fault.target)
        elif fault.kind == "disk-server":
            self.disk_server_start(fault.target)
        else:
            assert fault.kind in ("link", "drop", "slow"), f"a fault nobody can undo: {fault}"
