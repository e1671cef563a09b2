"""Guests: their definition, their disk on the storage server, and what can be seen of them from outside."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from integration.lab import disklog, image, netns, proc
from integration.lab.layout import (
    NAS,
    POLLER_ADDRESS,
    POLLER_MAC,
    LabError,
    Layout,
    MachineFrozen,
    address,
    guest_mac,
    nbd_port,
    number,
)

if TYPE_CHECKING:
    from integration.lab.lab import Lab
    from integration.lab.machine import Machine

DISK_MIB: Final = 64  # 131,072 records: 3.6 h at 10 a second
# What follows `panic` halves the boot under TCG (2.2 s to 1.3 s): code patching, LSMs, IPv6, slow RCU, self-tests.
_CMDLINE: Final = (
    "console=ttyS0 quiet panic=-1 mitigations=off rcupdate.rcu_expedited=1 no_timer_check nokaslr noreplace-smp "
    "ipv6.disable=1 audit=0 lsm= cryptomgr.notests"
)
_XML: Final = """\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{mem_mib}</memory>
  <vcpu>{vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {disk}
    <interface type='bridge'>
      <mac address='{mac}'/>
      <source bridge='br-guest'/>
      <model type='virtio'/>
    </interface>
    <serial type='file'>
      <source path='/var/log/libvirt/qemu/{name}.console' append='on'/>
      <target port='0'/>
    </serial>
    <memballoon model='none'/>
    <panic model='isa'/>{agent}{screen}
  </devices>{ram}
</domain>
"""
_SHARED_DISK: Final = """\
<disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none' error_policy='stop'/>
      <source protocol='nbd' name='{name}'>
        <host name='{nas}' port='{port}'/>
      </source>
      <target dev='vda' bus='virtio'/>
    </disk>"""
_LOCAL_DISK: Final = """\
<disk type='file' device='disk'>
      <driver name='qemu' type='{form}' cache='none' error_policy='stop'/>
      <source file='{path}'/>
      <target dev='vda' bus='virtio'/>
    </disk>"""
IMAGES: Final = "/var/lib/libvirt/images"  # of hosts
# QEMU before 9.0 under TCG loses dirty pages of RAM whose size is a multiple of 256 KiB: where it reads the dirty bits
# of 64 pages at once it does not clear its TLB, and a guest that is busy in a second pass over its memory panics once
# it arrived, with bare virsh too. 8 KiB more take another path; libvirt itself rounds memory to MiB.
_BUSY_RAM: Final = """
  <qemu:commandline>
    <qemu:arg value='-object'/>
    <qemu:arg value='memory-backend-ram,id=odd,size={kib}k'/>
    <qemu:arg value='-machine'/>
    <qemu:arg value='memory-backend=odd'/>
    <qemu:arg value='-m'/>
    <qemu:arg value='{kib}k'/>
  </qemu:commandline>"""

_SCREEN: Final = "<video><model type='vga'/></video>"
_AGENT: Final = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


@dataclass(frozen=True)
class GuestAnswer:
    """What the guest said over HTTP."""

    name: str
    boot: str
    counter: int
    slot: int
    uptime_s: float
    conflicts: int
    disk_error: int
    dirty_mib_s: int
    wall_s: float  # its clock
    clock_sets: int  # how often that was set through its guest agent
    commands: int  # that were run through it


class Guest:
    """A guest by name. It may be defined on any number of hosts; its disk is one, on the storage server."""

    def __init__(self, lab: Lab, name: str) -> None:
        if not name.startswith("g"):
            raise LabError(f"{name!r} is not a guest's name: g1..g99")
        number(name)
        self._lab = lab
        self.name = name

    def __repr__(self) -> str:
        return f"Guest({self.name})"

    @property
    def address(self) -> str:
        return address("guest", self.name)

    @property
    def uuid(self) -> str:
        return str(self._lab.layout.identity(self.name))

    @property
    def disk(self) -> Path:
        """The raw image on the storage server."""
        return self._lab.layout.disk(self.name)

    @property
    def _record(self) -> Path:
        return self._lab.layout.state / "guests" / f"{self.name}.xml"

    # -- life --------------------------------------------------------------------------------------------------

    def define(
        self,
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
    ) -> None:
        """Define it on a host; its disk is made when there is none. Defined elsewhere too, it stays there as well.

        `local`: its disk is an image of that form ("raw", "qcow2") on that very host, and not on the storage server.
        `base`: the path there of a qcow2 image that it lies on.
        `busy`: its memory may be made dirty while it is migrated (`dirty_mib_s`, `http("/dirty?rate=…")`).
        `agent`: it has a QEMU guest agent, which sets its clock and shuts it down.
        `screen`: it has a console, on which its BIOS writes.
        """
        booted = image.ensure()
        if local:
            self.make_image(host, local, base)
            disk = _LOCAL_DISK.format(form=local, path=self.image_path)
        else:
            self.ensure_disk_server()
            disk = _SHARED_DISK.format(name=self.name, nas=address("stor", NAS), port=nbd_port(self.name))
        xml = _XML.format(
            name=self.name,
            uuid=self.uuid,
            mem_mib=mem_mib,
            vcpus=vcpus,
            ram=_BUSY_RAM.format(kib=mem_mib * 1024 + 8) if busy else "",
            kernel=booted.kernel,
            initramfs=booted.initramfs,
            disk=disk,
            mac=guest_mac(self.name),
            agent=_AGENT if agent else "",
            screen=_SCREEN if screen else "",
            cmdline=" ".join(
                (
                    _CMDLINE,
                    f"dr.name={self.name} dr.ip={self.address}",
                    f"dr.gw={POLLER_ADDRESS} dr.gwmac={POLLER_MAC}",
                    f"dr.writes={writes_per_s} dr.dirty={dirty_mib_s}",
                    f"dr.agent={int(agent)}",
                    kernel_args,
                )
            ).strip(),
        )
        proc.write_atomic(self._record, xml)
        self.define_xml(host, xml)
        if autostart:
            self._virsh(host, "autostart", self.name)

    def define_xml(self, host: str, xml: str) -> None:
        """Define any XML on a host (the guest's own on a second host, or a changed one)."""
        self._lab.exec(host, ["virsh", "-q", "define", "/dev/stdin"], stdin=xml)

    @property
    def xml(self) -> str:
        """The XML of its last `define`."""
        return self._record.read_text()

    def start(self, host: str) -> None:
        self._virsh(host, "start", self.name)

    def shutdown(self, host: str) -> None:
        """Press its power button; it powers off within about a second."""
        self._virsh(host, "shutdown", self.name)

    def destroy(self, host: str) -> None:
        self._virsh(host, "destroy", self.name)

    def undefine(self, host: str) -> None:
        self._virsh(host, "undefine", self.name, "--managed-save")

    def remove(self) -> None:
        """Destroy and undefine it wherever it is, and delete its disk."""
        for host in self._lab.hosts:
            if host.is_on() and not host.is_frozen():
                host.exec(["virsh", "-q", "destroy", self.name], check=False)
                host.exec(["virsh", "-q", "undefine", "--managed-save", self.name], check=False)
        self.stop_disk_server()
        self.forget()

    def forget(self) -> None:
        """Delete its disk and the lab's record of it; it is defined nowhere any more."""
        self.disk.unlink(missing_ok=True)
        for host in self._lab.hosts:
            for file in self.images(host.name):
                file.unlink()
        self._record.unlink(missing_ok=True)

    def state_on(self, host: str) -> str | None:
        """libvirt's word for its state there; None when it is not defined there or libvirt does not answer."""
        try:
            done = self._lab.exec(host, ["virsh", "-q", "domstate", self.name], check=False, timeout_s=10)
        except (MachineFrozen, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() or None if done.returncode == 0 else None

    def _virsh(self, host: str, *words: str) -> None:
        self._lab.exec(host, ["virsh", "-q", *words])

    # -- its disk ----------------------------------------------------------------------------------------------

    @property
    def _disk_role(self) -> str:
        return f"nbd-{self.name}"

    def ensure_disk_server(self) -> None:
        """Start its qemu-nbd unless it runs. It takes any number of clients and asks nothing."""
        layout = self._lab.layout
        if proc.recorded(layout.pid_file(self._disk_role)) is not None:
            return
        if not self.disk.exists():
            self.disk.parent.mkdir(parents=True, exist_ok=True)
            with self.disk.open("wb") as file:
                file.truncate(DISK_MIB << 20)
        # cache=unsafe: a flush costs nothing. The storage server never loses power in this lab; its clients do.
        proc.spawn(
            [
                "qemu-nbd",
                "--persistent",
                "--shared=0",
                "--format=raw",
                "--cache=unsafe",
                "--discard=unmap",
                f"--export-name={self.name}",
                f"--bind={address('stor', NAS)}",
                f"--port={nbd_port(self.name)}",
                str(self.disk),
            ],
            pid_file=layout.pid_file(self._disk_role),
            log=layout.log(self._disk_role),
            netns=layout.netns_path(NAS),
        )
        proc.wait_for(self._disk_server_listens, 5, f"the disk server of {self.name} to listen")

    def _disk_server_listens(self) -> bool:
        where = (address("stor", NAS), nbd_port(self.name))
        with netns.open_socket(self._lab.layout.netns_path(NAS), socket.AF_INET, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(where) == 0

    def stop_disk_server(self) -> None:
        running = proc.recorded(self._lab.layout.pid_file(self._disk_role))
        if running is not None:
            running.kill()

    def disk_report(self) -> disklog.DiskReport:
        """Who wrote to its disk, and the proof if two did at once."""
        with self.disk.open("rb") as disk:
            return disklog.judge(disklog.read(disk))

    def wipe_disk(self) -> None:
        """An empty log. Only while no QEMU of it runs."""
        if self._lab.qemu_hosts(self.name):
            raise LabError(
                f"{self.name} runs on {self._lab.qemu_hosts(self.name)}: stop it before its disk is wiped"
            )
        with self.disk.open("r+b") as file:
            file.truncate(0)
            file.truncate(DISK_MIB << 20)

    # -- a disk that only its host has ---------------------------------------------------------------------------

    @property
    def image_path(self) -> str:
        """Where it lies, as its host names it."""
        return f"{IMAGES}/{self.name}.img"

    def make_image(self, host: str, form: str, base: str = "") -> None:
        """An empty one on that host, unless it is there; or one of the size of its base."""
        for each in self._lab.hosts:
            (each.directory / f"disk{IMAGES}").mkdir(exist_ok=True)  # as the package of libvirt makes it
        size = f"-b {base} -F qcow2 {self.image_path}" if base else f"{self.image_path} {DISK_MIB}M"
        make = f"test -e {self.image_path} || qemu-img create -q -f {form} {size}"
        self._lab.exec(host, ["sh", "-c", make])

    def images(self, host: str) -> list[Path]:
        """Every file there whose name begins as its image's does, hidden ones too."""
        folder = self._lab.host(host).directory / f"disk{IMAGES}"
        found = [*folder.glob(f"{self.name}.img*"), *folder.glob(f".{self.name}.img*")]
        return sorted(found, key=lambda file: file.name)

    def local_report(self, host: str) -> disklog.DiskReport:
        """As `disk_report`, of its image there, read where what it lies on is found by its name."""
        raw = f"{IMAGES}/.{self.name}.raw"
        self._lab.exec(host, ["qemu-img", "convert", "-U", "-O", "raw", self.image_path, raw])
        copy = self._lab.host(host).directory / f"disk{raw}"
        try:
            with copy.open("rb") as disk:
                return disklog.judge(disklog.read(disk))
        finally:
            copy.unlink()

    # -- from outside ------------------------------------------------------------------------------------------

    def http(self, path: str = "/", timeout_s: float = 2.0) -> GuestAnswer:
        """Ask it over HTTP from the outside: `/`, `/poweroff`, `/crash`, `/dirty?rate=MIB_S`. Raises OSError."""
        where = self._lab.layout.netns_path("switch")
        with netns.open_socket(where, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            client.connect((self.address, 80))
            client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            reply = b""
            while chunk := client.recv(4096):
                reply += chunk
        answer: dict[str, Any] = json.loads(reply.partition(b"\r\n\r\n")[2])
        return GuestAnswer(**answer)

    def answers(self, timeout_s: float = 0.5) -> bool:
        """True if it answers over HTTP now."""
        try:
            self.http(timeout_s=timeout_s)
        except (OSError, ValueError):
            return False
        return True

    def wait_answering(self, timeout_s: float = 30.0) -> GuestAnswer:
        """Wait until it answers over HTTP and has written its first record."""

        def ready() -> bool:
            return self.answers() and self.http().counter > 0

        proc.wait_for(ready, timeout_s, f"{self.name} to answer", interval_s=0.05)
        return self.http()

    def console(self, host: str) -> str:
        """What it wrote to its serial console on a host."""
        path = self._lab.host(host).directory / f"disk/var/log/libvirt/qemu/{self.name}.console"
        return path.read_text(errors="replace") if path.exists() else ""


def image_report(file: Path) -> disklog.DiskReport:
    """As `Guest.disk_report`, of any image, also while its guest writes to it."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        proc.run(["qemu-img", "convert", "-U", "-O", "raw", str(file), str(raw)])
        with raw.open("rb") as disk:
            return disklog.judge(disklog.read(disk))


def known(layout: Layout) -> list[str]:
    """Names of the guests that were defined in this lab, in order of their numbers."""
    return sorted((file.stem for file in (layout.state / "guests").glob("g*.xml")), key=number)


def qemu_pids(host: Machine, guest: str) -> tuple[int, ...]:
    """Outer pids of the QEMU processes of a guest that really exist on a host, whatever libvirt there believes."""
    found = []
    for pid in host.cgroup.pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"qemu-system" in words[0] and any(
            re.match(rb"guest=%s(,|$)" % guest.encode(), word) for word in words
        ):
            found.append(pid)
    return tuple(found)
