"""The files that make a lab machine a machine of its own: its directories, /etc files, libvirt's configuration, sshd.

Everything lies on the machine's disk or in its directory; nothing of the real /etc is changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from integration.lab import proc
from integration.lab.layout import CACHE, CTL, NAS, address

if TYPE_CHECKING:
    from integration.lab.machine import Machine

# What a machine has for itself, and keeps over a power cut. Everything else is the real machine's, seen as it is.
DIRECTORIES: Final = (
    "etc/dr",
    "var/lib/dr",
    "var/log/dr",
    "etc/libvirt",
    "var/lib/libvirt",
    "var/log/libvirt",
    "var/cache/libvirt",
    "etc/ssh",
    "etc/systemd",
    "var/lib/systemd",
)
_LIBVIRTD_CONF: Final = """\
host_uuid = "{uuid}"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
log_outputs = "3:stderr"
"""
_QEMU_CONF: Final = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
migration_address = "{storage}"
migration_host = "{storage}"
"""
# What libvirt-guests does where systemd is PID 1. Its script reads this file over its environment.
_LIBVIRT_GUESTS: Final = """\
ON_SHUTDOWN=shutdown
SHUTDOWN_TIMEOUT=20
PARALLEL_SHUTDOWN=4
"""
_CAPABILITIES: Final = CACHE / "qemu-capabilities"
_CAPABILITIES_LOCK: Final = CACHE / "qemu-capabilities.lock"  # labs beside each other share them
_SSHD_CONFIG: Final = """\
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
PidFile /run/sshd.pid
Subsystem sftp /usr/lib/openssh/sftp-server
"""


def write(machine: Machine, hosts: Sequence[str]) -> None:
    """Write a machine's files. Written once: what a test changes later on the machine's disk stays."""
    disk, etc = machine.directory / "disk", machine.directory / "etc"
    for directory in DIRECTORIES:
        (disk / directory).mkdir(parents=True, exist_ok=True)
        Path("/", directory).mkdir(parents=True, exist_ok=True)  # the mount point
    for name in ("hostname", "hosts", "machine-id", "nsswitch.conf"):
        Path("/etc", name).touch()
    proc.write_atomic(etc / "hostname", f"{machine.name}\n")
    proc.write_atomic(etc / "machine-id", f"{machine.uuid.hex}\n")
    # Without DNS: a look-up would otherwise wait for it.
    proc.write_atomic(etc / "nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n")
    proc.write_atomic(etc / "hosts", _hosts_file(machine.name, hosts))
    _ssh(machine, disk / "etc/ssh")
    machine.services.define("sshd", ["/usr/sbin/sshd", "-D", "-e"], log="/var/log/dr/sshd.log")
    if machine.is_host:
        _once(etc / "libvirt-guests", _LIBVIRT_GUESTS)
        _once(disk / "etc/libvirt/libvirtd.conf", _LIBVIRTD_CONF.format(uuid=machine.uuid))
        _once(disk / "etc/libvirt/qemu.conf", _QEMU_CONF.format(storage=machine.address("stor")))
        (disk / "etc/libvirt/hooks").mkdir(exist_ok=True)
        (disk / "var/log/libvirt/qemu").mkdir(exist_ok=True)
        _seed_capabilities(machine, disk)
        machine.services.define("virtlogd", ["/usr/sbin/virtlogd"], log="/var/log/libvirt/virtlogd.log")
        machine.services.define(
            "libvirtd", ["/usr/sbin/libvirtd", "--listen"], log="/var/log/libvirt/libvirtd.log"
        )


def _once(path: Path, text: str) -> None:
    if not path.exists():
        proc.write_atomic(path, text)


def _hosts_file(own: str, hosts: Sequence[str]) -> str:
    lines = ["127.0.0.1 localhost"]
    for name in (CTL, *hosts):
        lines.append(f"{address('mgmt', name)} {name}")
        lines.append(f"{address('bmc', name)} {name}-bmc")
        if name != CTL:
            lines.append(f"{address('stor', name)} {name}-stor")
    lines.append(f"{address('stor', NAS)} {NAS}")
    return "\n".join(lines) + "\n"


def _ssh(machine: Machine, directory: Path) -> None:
    """The machine's own host key, and the lab's one client key as the only way in."""
    key = directory / "ssh_host_ed25519_key"
    if not key.exists():
        proc.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", machine.name, "-f", str(key)])
    client = ssh_key(machine.layout.state)
    _once(directory / "authorized_keys", client.with_suffix(".pub").read_text())
    _once(directory / "sshd_config", _SSHD_CONFIG)
    _once(directory / "ssh_config", "")


def ssh_key(state: Path) -> Path:
    """The lab's client key (made when missing): logs in as root on every machine."""
    key = state / "ssh" / "lab_key"
    if not key.with_suffix(".pub").exists():
        key.parent.mkdir(parents=True, exist_ok=True)
        key.unlink(missing_ok=True)
        proc.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(key)])
    return key


def _seed_capabilities(machine: Machine, disk: Path) -> None:
    """Spare libvirtd the first probing of QEMU; it checks by itself whether what it finds is still true."""
    source, target = _CAPABILITIES, disk / "var/cache/libvirt/qemu/capabilities"
    with proc.locked(_CAPABILITIES_LOCK):
        if source.is_dir() and not target.exists():
            shutil.copytree(source, target)


def keep_capabilities(machine: Machine) -> None:
    """Keep what a host's libvirtd found out about QEMU for the next lab."""
    source, target = machine.directory / "disk/var/cache/libvirt/qemu/capabilities", _CAPABILITIES
    with proc.locked(_CAPABILITIES_LOCK):
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
