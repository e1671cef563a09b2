"""Where things lie on a host. Everything is found under one root, so that tests need no privileges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The paths of one host. `root` is `/` on a real one."""

    root: Path = Path("/")

    def at(self, absolute: str) -> Path:
        """The place of an absolute path of the host."""
        return self.root / absolute.lstrip("/")

    @property
    def proc(self) -> Path:
        return self.at("/proc")

    @property
    def sys(self) -> Path:
        return self.at("/sys")

    @property
    def hooks(self) -> Path:
        """Where libvirt looks for hooks."""
        return self.at("/etc/libvirt/hooks")

    @property
    def protected(self) -> Path:
        """One file per protected guest, named by its UUID, with its name inside. Durable."""
        return self.at("/var/lib/dr/agent/protected")

    @property
    def permits(self) -> Path:
        """One file per outstanding permit, named by the guest's UUID. On tmpfs: no permit survives a boot."""
        return self.at("/run/dr/permits")

    @property
    def consumed(self) -> Path:
        """Where the hook moves a permit to when it uses it up."""
        return self.at("/run/dr/consumed")

    @property
    def archive(self) -> Path:
        return self.at("/var/lib/dr/agent/archive")

    @property
    def definitions(self) -> Path:
        """libvirt's own files of persistent domains, NAME.xml."""
        return self.at("/etc/libvirt/qemu")

    @property
    def running(self) -> Path:
        """libvirt's own files of QEMU domains that are active, NAME.xml: written anew with each change of one."""
        return self.at("/run/libvirt/qemu")

    @property
    def state(self) -> Path:
        """libvirt's state of QEMU domains: nvram/, save/, snapshot/, checkpoint/."""
        return self.at("/var/lib/libvirt/qemu")

    @property
    def tpm(self) -> Path:
        """swtpm's state, one folder per guest UUID."""
        return self.at("/var/lib/libvirt/swtpm")
