"""One machine of the lab: its disk, its power, and commands run inside it.

A machine is PID 1 of its own namespaces (boot.sh). Powering off is `kill -9` of that PID, links first: were the
links up, its dying sockets would say FIN within milliseconds, which no power cut does. Where it ends by itself, with
reboot(2), power.sh does the rest. What makes a machine a KVM host (libvirt's configuration) is in hostfiles.py, what
is different where systemd is its PID 1 in systemd.py.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from integration.lab import hostfiles, network, proc
from integration.lab.cgroup import Cgroup
from integration.lab.layout import CTL, LabError, Layout, MachineFrozen, MachineOff, Network, address
from integration.lab.services import Services
from integration.lab.systemd import Init, Systemd

if TYPE_CHECKING:
    from integration.lab.faults import Faults

DISK_MIB: Final = 1024
_HERE: Final = Path(__file__).resolve().parent
_ROOT: Final = _HERE.parents[1]
# Joins the machine's cgroup first, so that a command that is running when the machine freezes, freezes with it.
_EXEC: Final = 'echo $$ > "$1/cgroup.procs" || exit 97; shift; exec nsenter "$@"'


class Machine:
    """A host (`h1`...) or the coordinator's machine (`ctl`)."""

    def __init__(self, layout: Layout, name: str, faults: Faults) -> None:
        self.layout = layout
        self.name = name
        self.directory = layout.machine(name)
        self.cgroup = Cgroup.of(layout, name)
        self.services = Services(self)
        self.systemd = Systemd(self)
        self._faults = faults

    def __repr__(self) -> str:
        return f"Machine({self.name})"

    @property
    def is_host(self) -> bool:
        """True for a KVM host with a BMC, False for the coordinator's machine."""
        return self.name != CTL

    @property
    def boot_id(self) -> str:
        """The boot id the machine shows in /proc/sys/kernel/random/boot_id (of its last boot when it is off)."""
        return (self.directory / "boot_id").read_text().strip()

    @property
    def uuid(self) -> uuid.UUID:
        """Its fixed machine id; on a host also libvirt's host_uuid."""
        return self.layout.identity(self.name)

    def address(self, network_name: Network) -> str:
        """Its address in a network; for a host's `bmc`, the address of its BMC."""
        return address(network_name, self.name)

    def pid1(self) -> proc.Process | None:
        """Its PID 1 as seen from outside, None when it is off."""
        return proc.recorded(self.directory / "pid1")

    def is_on(self) -> bool:
        return self.pid1() is not None

    def has_power(self) -> bool:
        """False from the moment a power-off begins, when it may still run for milliseconds."""
        return not self._off.exists() and self.is_on()

    @property
    def _off(self) -> Path:
        return self.directory / "off"

    def is_frozen(self) -> bool:
        return self.cgroup.frozen()

    def path(self, inside: str | Path) -> Path:
        """A path inside the machine as this process can open it. Raises MachineOff."""
        return Path(f"/proc/{self._running().pid}/root") / str(inside).lstrip("/")

    def outer_pid(self, inside: int) -> int | None:
        """The pid seen from outside of a process the machine knows as `inside`."""
        for pid in self.cgroup.pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            nspid = status.partition("NSpid:")[2].partition("\n")[0].split()
            if len(nspid) > 1 and int(nspid[-1]) == inside:
                return pid
        return None

    # -- power -------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """Boot it with a new boot id and an empty network stack; returns when its services are being started."""
        with proc.locked(self._power_lock):
            if self.is_on():
                return
            self._boot()
        self._faults.converge()

    def _boot(self) -> None:
        self._require_disk()
        self.cgroup.kill()
        with proc.locked(self._network_lock):
            network.build_machine(self.layout, self.name)
        (self.directory / "pid1").unlink(missing_ok=True)
        # Written in place: the path is bind-mounted inside, and one file is simplest to look at.
        (self.directory / "boot_id").write_text(f"{uuid.uuid4()}\n")
        self.cgroup.create(systemd=self.boots == "systemd")
        proc.spawn(
            [
                str(_HERE / "power.sh"),
                self.layout.name,
                self.name,
                str(_ROOT),
                sys.executable,
                str(self.cgroup.outer),
                "--",
                "nsenter",
                f"--net={self.layout.netns_path(self.name)}",
                "--",
                "unshare",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount",
                "--uts",
                "--ipc",
                "bash",
                str(_HERE / "boot.sh"),
                str(self.directory),
                self.name,
                self.boots,
                str(self.cgroup.systemd),
                *hostfiles.DIRECTORIES,
            ],
            pid_file=self.layout.pid_file(self.name),
            log=self.layout.log(self.name),
            cgroup=self.cgroup.entry,
        )
        proc.wait_for(self.is_on, 5, f"{self.name} to power on (see {self.layout.log(self.name)})")
        self._off.unlink(missing_ok=True)

    def power_off(self) -> None:
        """Cut the power: all links at once, then SIGKILL to PID 1. Returns when nothing of it runs any more."""
        with proc.locked(self._power_lock):
            self._cut()
        self._faults.forget_boot(self.name)

    def _cut(self) -> None:
        self._off.touch()
        with proc.locked(self._network_lock):
            network.links_down(self.layout, self.name)
        first = self.pid1()
        if first is not None and not self.is_frozen():
            first.kill()
        self.cgroup.kill()

    def reboot(self) -> None:
        """Power off and on again, by the switch: a new boot id."""
        self.power_off()
        self.power_on()

    def went_down(self, *, again: bool) -> None:
        """What power.sh does when the machine has rebooted (`again`) or switched itself off."""
        with proc.locked(self._power_lock):
            if self.is_on() or self._off.exists():
                return  # somebody was at the switch meanwhile
            self._cut()
            self._faults.forget_boot(self.name)
            if again:
                self._boot()
        self._faults.converge()

    def wait_off(self, timeout_s: float = 60.0) -> None:
        """Wait until it has switched itself off, links and all."""
        proc.wait_for(self._off.exists, timeout_s, f"{self.name} to switch itself off")
        with proc.locked(self._power_lock):
            assert not self.is_on()

    def wait_rebooted(self, boot_id: str, timeout_s: float = 60.0) -> None:
        """Wait until it has rebooted itself, `boot_id` being the one before, and is ready again."""
        proc.wait_for(lambda: self.boot_id not in ("", boot_id), timeout_s, f"{self.name} to reboot itself")
        with proc.locked(self._power_lock):
            pass
        self.wait_ready()

    @property
    def _power_lock(self) -> Path:
        return self.directory / "power.lock"

    @property
    def _network_lock(self) -> Path:
        return self.layout.state / "network.lock"

    def _running(self) -> proc.Process:
        first = self.pid1()
        if first is None:
            raise MachineOff(f"{self.name} is off: python -m integration.lab fault power-on {self.name}")
        return first

    # -- commands ----------------------------------------------------------------------------------------------

    def _enter(self, argv: Sequence[str]) -> list[str]:
        first = self._running()
        if self.is_frozen():
            raise MachineFrozen(f"{self.name} is frozen: python -m integration.lab fault thaw {self.name}")
        # setpriv: nsenter forks, and its child must not outlive it when the caller's timeout kills nsenter.
        return [
            "sh",
            "-c",
            _EXEC,
            "lab-exec",
            str(self.cgroup.entry),
            f"--target={first.pid}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--root",
            "--wd=/",
            "--",
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
            *argv,
        ]

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
        text: bool = True,
    ) -> subprocess.Popen[str]:
        """Start a command inside; it dies with the returned process, which is not itself but its starter."""
        return subprocess.Popen(
            self._enter(argv),
            env={**os.environ, **(env or {})},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
        )

    def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout_s: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside and return its output.

        Raises LabError when it fails and `check` is set, MachineOff and MachineFrozen, subprocess.TimeoutExpired.
        """
        child = self.popen(
            argv,
            env=env,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = child.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            if not self.is_frozen():  # on a frozen machine it dies only at the thaw
                child.communicate()
            raise
        done = subprocess.CompletedProcess(list(argv), child.returncode, out, err)
        if check and done.returncode != 0:
            raise LabError(
                f"exit {done.returncode} on {self.name} from {' '.join(argv)}: {(err or out).strip()}"
            )
        return done

    # -- services ----------------------------------------------------------------------------------------------

    def install_service(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        faketime: bool = False,
        start: bool = True,
    ) -> None:
        """Add (or replace) a supervised service: started now and at each power-on, 1 s after each death.

        Its environment is PATH, HOME, LANG and `env`; its output goes to /var/log/dr/NAME.log on the machine.
        """
        self.services.install(name, argv, env, faketime=faketime, start=start)

    def remove_service(self, name: str) -> None:
        """Stop it and forget it."""
        self.services.remove(name)

    def start_service(self, name: str) -> int:
        """Start a stopped service and return its pid; runsv starts nothing twice within one second."""
        return self.services.start(name)

    def stop_service(self, name: str) -> None:
        """SIGTERM, and SIGKILL 10 s later; it stays down until `start_service` or the next power-on."""
        self.services.stop(name)

    def kill_service(self, name: str, number: int = 9, *, stay_down: bool = False) -> None:
        """Send a signal to its main process; after its death it is restarted in 1 s, unless `stay_down`."""
        self.services.kill(name, number, stay_down=stay_down)

    def service_pid(self, name: str) -> int | None:
        """The service's main process as seen from OUTSIDE (/proc/PID here); None if it does not run.

        Inside the machine the same process has another pid: `machine.services.pid_inside(name)`.
        """
        return self.services.pid(name)

    def service_log(self, name: str) -> str:
        """What the service has written so far; readable also while the machine is off."""
        try:
            return (self.directory / f"disk/var/log/dr/{name}.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # -- systemd -----------------------------------------------------------------------------------------------

    @property
    def boots(self) -> Init:
        """What becomes its PID 1 at the next power-on: `tini` (the default) or `systemd`."""
        return self.systemd.init

    @boots.setter
    def boots(self, init: Init) -> None:
        self.systemd.init = init

    def systemctl(self, *words: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """Run systemctl inside and return what it prints. Raises LabError when it fails and `check` is set."""
        return self.exec(["systemctl", *words], check=check, timeout_s=timeout_s).stdout.strip()

    def install_unit(self, name: str, text: str, drop_in: str | None = None, *, enable: bool = True) -> None:
        """Put a unit into the machine's own /etc/systemd/system, there at each boot; it is not started now."""
        self.systemd.install(name, text, drop_in, enable=enable)

    # -- disk and readiness ------------------------------------------------------------------------------------

    def prepare(self, hosts: Sequence[str]) -> None:
        """Make its disk and its own files; what exists is kept."""
        self._require_disk()
        hostfiles.write(self, hosts)

    def _require_disk(self) -> None:
        image, mounted = self.directory / "disk.img", self.directory / "disk"
        mounted.mkdir(parents=True, exist_ok=True)
        if os.path.ismount(mounted):
            return
        if not image.exists():
            new = image.with_suffix(".new")
            with new.open("wb") as file:
                file.truncate(DISK_MIB << 20)
            proc.run(
                [
                    "mkfs.ext4",
                    "-q",
                    "-m",
                    "0",
                    "-N",
                    "8192",
                    "-J",
                    "size=8",
                    "-E",
                    "lazy_itable_init=0,lazy_journal_init=1,nodiscard",
                    str(new),
                ]
            )
            new.replace(image)
        proc.run(["mount", "-o", "loop,noatime", str(image), str(mounted)])

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until a host's libvirtd answers. A machine without libvirtd is ready at once."""
        if not self.is_host:
            return
        proc.wait_for(self._libvirt_listens, timeout_s, f"libvirtd on {self.name} to listen", interval_s=0.02)
        self.exec(["virsh", "-q", "version"], timeout_s=timeout_s)

    def _libvirt_listens(self) -> bool:
        path = self.path("/run/libvirt/libvirt-sock")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.connect(str(path))
        except OSError:
            return False
        return True
