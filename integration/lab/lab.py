"""The lab as a whole: up, down, and the way to its machines, guests and faults.

`up` writes `building` into lab.json before it makes anything and `up` when all of it stands. Found `building`, a lab
is torn down and built anew; found `up`, what is missing is put back. Every process is on record before it becomes
itself (proc.spawn), every namespace bears the lab's name, every mount lies in its state folder: so `down` finds all
of it, whatever was killed when.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.lab import bmc, guests, hostfiles, image, netns, network, proc
from integration.lab.cgroup import Cgroup
from integration.lab.faults import Faults
from integration.lab.guests import Guest
from integration.lab.layout import BMC_USER, CTL, NAS, LabError, Layout, address
from integration.lab.machine import Machine
from integration.lab.poller import Poller

MAX_HOSTS = 80


@dataclass(frozen=True)
class Presence:
    """What one host says and shows about a guest."""

    libvirt_state: str | None
    """`running`, `paused`, `shut off`...; None when libvirt does not know it or could not be asked."""
    qemu_pids: tuple[int, ...]
    """Outer pids of real QEMU processes of this guest, counted from outside; libvirt was not asked."""


@dataclass(frozen=True)
class BmcAccess:
    """How to reach a host's BMC from `ctl`: what goes into a fence_ipmilan configuration."""

    address: str
    user: str
    password: str
    guid: str


class Lab:
    """One lab, by name (default: DR_LAB, else `lab`). Making the object touches nothing."""

    def __init__(self, name: str | None = None) -> None:
        self.layout = Layout.from_env(name)
        self.name = self.layout.name
        self.faults = Faults(self)

    def __repr__(self) -> str:
        return f"Lab({self.name})"

    # -- what is in it -----------------------------------------------------------------------------------------

    @property
    def host_names(self) -> list[str]:
        """h1, h2... as many as `up` was asked for."""
        return [f"h{index}" for index in range(1, int(self._record().get("hosts", 0)) + 1)]

    @property
    def hosts(self) -> list[Machine]:
        return [self.machine(name) for name in self.host_names]

    @property
    def ctl(self) -> Machine:
        """The coordinator's machine."""
        return self.machine(CTL)

    @property
    def machines(self) -> list[Machine]:
        return [self.ctl, *self.hosts]

    def machine(self, name: str) -> Machine:
        """A machine by name: `ctl` or a host."""
        known = [CTL, *self.host_names]
        if name not in known:
            raise LabError(f"no machine {name!r} in lab {self.name}: it has {', '.join(known)}")
        return Machine(self.layout, name, self.faults)

    def host(self, name: str) -> Machine:
        machine = self.machine(name)
        if not machine.is_host:
            raise LabError(f"{name} is not a host")
        return machine

    def guest(self, name: str) -> Guest:
        """A guest by name (`g1`...), defined or not."""
        return Guest(self, name)

    @property
    def guests(self) -> list[Guest]:
        """Every guest that was defined in this lab."""
        return [Guest(self, name) for name in guests.known(self.layout)]

    def bmc(self, host: str) -> BmcAccess:
        self.host(host)
        return BmcAccess(
            address("bmc", host), BMC_USER, self.layout.bmc_password(host), bmc.guid(self.layout, host)
        )

    @property
    def ssh_key(self) -> Path:
        """Private key that logs in as root on every machine (`ssh -i KEY root@h1` from ctl)."""
        return hostfiles.ssh_key(self.layout.state)

    def known_hosts(self) -> str:
        """Lines for a known_hosts file: each machine's own key under its name and management address."""
        lines = []
        for machine in self.machines:
            key = (machine.directory / "disk/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
            lines.append(f"{machine.name},{machine.address('mgmt')} {key[0]} {key[1]}\n")
        return "".join(lines)

    # -- up and down -------------------------------------------------------------------------------------------

    def is_up(self) -> bool:
        """True if `up` once ended well, and this kernel is still the one it ran under."""
        record = self._record()
        return (
            record.get("state") == "up"
            and record.get("kernel_boot") == _kernel_boot()
            and netns.exists(self.layout, "switch")
        )

    def up(self, hosts: int = 3) -> Lab:
        """Make the lab, or what is missing of it: machines on, BMCs and disk servers running, no fault. Idempotent."""
        if not 1 <= hosts <= MAX_HOSTS:
            raise LabError(f"hosts must be 1 to {MAX_HOSTS}, not {hosts}")
        image.ensure()
        with proc.locked(self.layout.lock):
            if not self.is_up() or len(self.host_names) != hosts:
                self._tear_down()
                self._write_record("building", hosts)
            hostfiles.ssh_key(self.layout.state)
            network.build_switch(self.layout)
            network.build_fixed(self.layout, self.host_names)
            for host in self.host_names:
                bmc.ensure(self.layout, host)
            for machine in self.machines:
                machine.prepare(self.host_names)
            self.faults.heal(power_on=True)
            for guest in self.guests:
                guest.ensure_disk_server()
            for machine in self.machines:
                machine.wait_ready()
            hostfiles.keep_capabilities(self.hosts[0])
            self._write_record("up", hosts)
        return self

    def down(self) -> None:
        """Remove everything of this lab, also of one that was killed half way. Idempotent."""
        with proc.locked(self.layout.lock):
            self._tear_down()

    def _tear_down(self) -> None:
        record = self._record()
        if record:
            # Half torn down is like half built, should this be killed. The kernel's boot id stays: after a reboot
            # of the real machine the recorded pids mean nothing.
            proc.write_atomic(self.layout.state / "lab.json", json.dumps({**record, "state": "building"}))
        if record.get("kernel_boot", _kernel_boot()) == _kernel_boot():
            self._kill_recorded()
        for name in netns.names(self.layout):
            netns.delete(name)
        state = self.layout.state
        for target in sorted(_mounts_below(state), reverse=True):
            proc.run(["umount", target])
        if state.exists():
            assert not _mounts_below(state), "removing a folder with something mounted below it"
            shutil.rmtree(state)

    def _kill_recorded(self) -> None:
        machines = self.layout.state / "machines"
        for directory in sorted(machines.iterdir()) if machines.is_dir() else []:
            first = proc.recorded(directory / "pid1")
            group = Cgroup.of(self.layout, directory.name)
            if first is not None and not group.frozen():
                first.kill()
            group.remove()
        pids = self.layout.state / "pids"
        for file in sorted(pids.iterdir()) if pids.is_dir() else []:
            running = proc.recorded(file)
            if running is not None:
                running.kill()

    def _record(self) -> dict[str, str | int]:
        try:
            record: dict[str, str | int] = json.loads((self.layout.state / "lab.json").read_text())
        except FileNotFoundError:
            return {}
        return record

    def _write_record(self, state: str, hosts: int) -> None:
        (self.layout.state / "pids").mkdir(parents=True, exist_ok=True)
        record = {"state": state, "hosts": hosts, "kernel_boot": _kernel_boot()}
        proc.write_atomic(self.layout.state / "lab.json", json.dumps(record))

    # -- in use ------------------------------------------------------------------------------------------------

    def exec(
        self,
        machine: str,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout_s: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside a machine: see Machine.exec."""
        return self.machine(machine).exec(argv, stdin=stdin, env=env, check=check, timeout_s=timeout_s)

    def popen(self, machine: str, argv: Sequence[str], **options: object) -> subprocess.Popen[str]:
        """Start a command inside a machine: see Machine.popen."""
        return self.machine(machine).popen(argv, **options)  # type: ignore[arg-type]

    def define_guest(
        self,
        name: str,
        host: str,
        *,
        mem_mib: int = 96,
        vcpus: int = 1,
        autostart: bool = False,
        busy: bool = False,
        dirty_mib_s: int = 0,
        writes_per_s: int = 10,
        kernel_args: str = "",
        agent: bool = False,
        screen: bool = False,
        local: str = "",
        base: str = "",
        start: bool = False,
    ) -> Guest:
        """Define a guest on a host, with its disk on the storage server (kept if it is there already)."""
        guest = self.guest(name)
        guest.define(
            host,
            mem_mib=mem_mib,
            vcpus=vcpus,
            autostart=autostart,
            busy=busy,
            dirty_mib_s=dirty_mib_s,
            writes_per_s=writes_per_s,
            kernel_args=kernel_args,
            agent=agent,
            screen=screen,
            local=local,
            base=base,
        )
        if start:
            guest.start(host)
        return guest

    def poller(self, names: Sequence[str], *, interval_s: float = 0.02) -> Poller:
        """Watches from outside when each guest answers: `with lab.poller(["g1"]) as p: ... p.outages()`."""
        return Poller(self.layout, names, interval_s=interval_s)

    def running_on(self, guest: str) -> dict[str, Presence]:
        """For every host that is on and has anything of the guest: what libvirt says, and the QEMUs that exist."""
        found = {}
        for host in self.hosts:
            if not host.is_on():
                continue
            presence = Presence(self.guest(guest).state_on(host.name), guests.qemu_pids(host, guest))
            if presence.qemu_pids or presence.libvirt_state is not None:
                found[host.name] = presence
        return found

    def qemu_hosts(self, guest: str) -> list[str]:
        """Hosts with a real QEMU process of the guest, one entry for each process. Cheap: nobody is asked."""
        return [host.name for host in self.hosts for _ in guests.qemu_pids(host, guest)]

    def double_writer(self, guest: str) -> bool:
        """True if the guest's disk proves that two QEMUs wrote to it at the same time."""
        return self.guest(guest).disk_report().second_writer


@functools.cache
def _kernel_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _mounts_below(folder: Path) -> list[str]:
    targets = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    return [target for target in targets if target.startswith(f"{folder}/")]


__all__ = ["NAS", "BmcAccess", "Lab", "Presence"]
