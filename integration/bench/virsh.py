"""Live migration by bare virsh: what `dr` is compared with, and what libvirt keeps of a migration that has ended."""

from __future__ import annotations

from dataclasses import dataclass

from integration.lab import Lab

# The flags of dr.adapters.libvirt.migration under the default policy, but for PAUSED.
MIGRATE = ("virsh", "-q", "migrate", "--live", "--p2p", "--persistent", "--abort-on-error", "--auto-converge")


@dataclass(frozen=True)
class Job:
    """The figures of a migration that has ended well."""

    sent_mib: float
    elapsed_s: float
    downtime_ms: int


def migrate(lab: Lab, guest: str, source: str, destination: str, timeout_s: float = 600.0) -> None:
    """Move a guest that runs on `source`; it stays defined there."""
    to = f"qemu+tcp://{lab.host(destination).address('mgmt')}/system"
    lab.exec(source, [*MIGRATE, guest, to], timeout_s=timeout_s)


def arrived(lab: Lab, guest: str, host: str) -> Job:
    """How it came to that host, on which it runs now. The source has told its libvirtd all of it."""
    words = ("domjobinfo", guest, "--completed", "--keep-completed", "--rawstats")
    told = lab.exec(host, ["virsh", "-q", *words]).stdout
    figures = dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)
    return Job(
        sent_mib=int(figures["data_processed"]) / 2**20,
        elapsed_s=int(figures["time_elapsed"]) / 1000,
        downtime_ms=int(figures["downtime"]),
    )
