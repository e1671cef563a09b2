"""What an agent can see on its own host: facts, health, guests. Observed, never decided."""

from __future__ import annotations

import posixpath
from enum import StrEnum

from dr.model.base import BootId, GuestId, Record


class Level(StrEnum):
    """How bad a health reading is; `critical` hardware means: evacuate while the host still lives."""

    OK = "ok"
    WARN = "warn"
    CRITICAL = "critical"


class Reading(Record):
    """One part of the health report."""

    part: str  # "libvirt", "storage:default", "memory", "clock", …
    level: Level
    reason: str = ""  # one sentence; empty when ok


class DomainState(StrEnum):
    """What libvirt says of a domain, in libvirt's own words (virDomainState)."""

    RUNNING = "running"
    BLOCKED = "blocked"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"  # shutting down, still active
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    PMSUSPENDED = "pmsuspended"
    NOSTATE = "nostate"


ACTIVE_STATES = frozenset(
    {
        DomainState.RUNNING,
        DomainState.BLOCKED,
        DomainState.PAUSED,
        DomainState.SHUTDOWN,
        DomainState.PMSUSPENDED,
        DomainState.NOSTATE,
    }
)


# The reason of a guest of which a host has nothing but images that were made for it, or disks that it sent on.
IMAGES_ONLY = "images only"
ISOLATED = "isolated"  # the reason of a guest that its own isolated host shut down, in place of libvirt's


class Part(StrEnum):
    """What a domain is in a live migration, as its host sees it."""

    NONE = ""
    LEAVING = "leaving"  # at the source: a libvirt job sends it away; it runs, or stands at the switch-over
    ARRIVING = "arriving"  # at the destination: its memory is still coming in, it cannot run
    WAITING = "waiting"  # at the destination: received, paused, and no resume ticket was taken for it


class TieKind(StrEnum):
    """What keeps a domain on its host for as long as it is so."""

    SNAPSHOT = (
        "snapshot"  # libvirt's record of snapshots, with memory or without, inside the image or beside it
    )
    BLOCK_JOB = "block job"  # copy, pull or commit of a disk
    BACKUP = "backup"
    HOST_DEVICE = "host device"
    VTPM = "vtpm"
    FILE_SYSTEM = "file system"
    SECRET = "secret"
    ENCRYPTION = "encryption"


class Tie(Record):
    """One thing that keeps a domain on its host as it is now, whatever its definition says."""

    kind: TieKind
    what: str = ""  # which disk; of a device: what is found, a colon, what to do about it


class GuestFacts(Record):
    """One libvirt domain as its host sees it now, protected or not."""

    id: GuestId
    name: str
    state: DomainState
    reason: str = (
        ""  # libvirt's reason, lower case: "booted", "ioerror", "shutdown", "destroyed", "crashed", …
    )
    persistent: bool = True
    autostart: bool = False
    managed_save: bool = False
    memory_mib: int = 0  # maximum memory of the definition
    resident_mib: int = 0  # of it, what its host really holds, rounded up; 0 = not known
    vcpus: int = 0
    page_kib: int | None = None  # huge pages under its memory, as in `Needs`
    digest: str = ""  # of the definition with its NVRAM; changes when the definition does
    part: Part = Part.NONE
    ties: tuple[Tie, ...] | None = None  # None: its host cannot tell
    cpu: str = ""  # which of `HostFacts.running_cpus` it runs with; "": its host cannot tell

    @property
    def runs(self) -> bool:
        """Whether its CPUs run."""
        return self.state in (DomainState.RUNNING, DomainState.BLOCKED)

    @property
    def to_send_mib(self) -> int:
        """What a live migration would send of its memory, if it wrote nothing meanwhile: all of it, if in doubt."""
        return self.resident_mib or self.memory_mib

    @property
    def suspended(self) -> bool:
        """Whether somebody suspended it: it could go on at once."""
        return self.state is DomainState.PAUSED and self.reason == "user"

    @property
    def active(self) -> bool:
        """Whether a QEMU process stands behind it (a paused guest is active)."""
        return self.state in ACTIVE_STATES


class Progress(Record):
    """How far an outgoing migration is, as libvirt counts it at its source: memory and disks together."""

    guest: GuestId
    elapsed_s: float
    total_mib: float  # of the guest; what is sent may be more, as pages become dirty again
    remaining_mib: float  # of the pass that is under way
    rate_mib_s: float = 0.0  # what goes over the network
    dirty_mib_s: float = 0.0  # what the guest makes dirty meanwhile; 0 also until the second pass
    passes: int = 1  # over its memory, with the one under way
    standstill_s: float = (
        0.0  # QEMU's estimate, if it were switched over as this pass began; 0 until the second pass
    )
    throttle_pct: int = 0  # of their time its virtual CPUs stand still, so that it converges

    @property
    def done_pct(self) -> int:
        """Per cent of the guest that is at the destination as it is now; it may fall again."""
        return round(100 * (1 - min(1.0, self.remaining_mib / self.total_mib))) if self.total_mib else 0

    @property
    def eta_s(self) -> float | None:
        """Seconds until it switches over, if all goes on like this; None: it would never.

        Each pass sends what became dirty in the one before: remaining / rate x (1 + q + q² + …), with q = dirty / rate
        (Clark et al. 2005, as in shared notes on migration).
        """
        if self.rate_mib_s <= self.dirty_mib_s:
            return None
        return self.remaining_mib / (self.rate_mib_s - self.dirty_mib_s)


class DirtyPoint(Record):
    """How much of its memory a guest wrote to within so long, however often."""

    interval_s: float
    mib: float


class DirtySample(Record):
    """How fast a guest that runs makes memory dirty, as its host measured it by looking at some of its pages twice.

    Intervals of several lengths, the shortest first: what is written again and again counts once in each, so no single
    rate tells what a long pass over the memory would find.
    """

    guest: GuestId
    points: tuple[DirtyPoint, ...]
    taken_s: float = 0.0  # when, by its agent's clock; `Report.clock_s` is by the same


class HookState(Record):
    """Whether the permit hook on this host really refuses: tried with a canary, not assumed."""

    proven: bool
    reason: str = ""


class PagePool(Record):
    """Huge pages of one size on a host."""

    size_kib: int
    total: int
    free: int
    default: bool = False  # what a guest gets that asks for huge pages and names no size


class CpuOffer(Record):
    """Which CPUs guests of one domain type may have on a host, as its libvirt tells."""

    models: tuple[str, ...] = ()  # that a definition may name, the one with the most features first
    model: str = ""  # the named one that comes nearest to the host's own
    vendor: str = ""  # of the host's own: "Intel", "AMD"
    features: tuple[str, ...] = ()  # all that a guest may have; empty: it cannot tell


class RunningCpu(Record):
    """A CPU that guests run with, whatever their definitions say now: what another host must have to take them live."""

    domain_type: str
    own: bool = False  # the host's own, as it is: host-passthrough, or what QEMU emulates at most
    vendor: str = ""  # "": it states none
    features: tuple[str, ...] = ()  # all of them; empty where it is the host's own


class HostFacts(Record):
    """What a host is and has. Storage is named by identity, never by path alone."""

    boot_id: BootId
    agent_version: str = ""
    libvirt_version: str = ""
    arch: str = ""  # "x86_64"
    domain_types: tuple[str, ...] = ()  # "kvm", "qemu"
    machines: tuple[str, ...] = ()  # QEMU machine types, canonical names and aliases
    cpu_model: str = ""  # host model in libvirt's naming
    cpu_offers: dict[str, CpuOffer] = {}  # by domain type
    running_cpus: dict[str, RunningCpu] = {}  # of guests that run here, as `GuestFacts.cpu` names them
    cpus: int = 0
    memory_mib: int = 0
    huge_pages: tuple[PagePool, ...] = ()
    addresses: dict[str, str] = {}  # interface or bridge -> IPv4/IPv6 address
    networks: tuple[str, ...] = ()  # "bridge:br0", "network:default"
    storage: tuple[
        str, ...
    ] = ()  # identities that are reachable now: "nbd:10.0.0.3:10809", "nfs:…", "wwid:…", "pool:…"
    room_mib: dict[str, int] = {}  # what is free in each of those folders that hold images, by its path
    hook: HookState = HookState(proven=False, reason="not tried yet")
    hibernation_masked: bool = True
    live_migration: bool = False  # its agent can send and receive guests live
    migration_address: str = ""  # where memory and disks are sent to it; empty: as its libvirt is configured
    copy_port: int = 0  # where its agent takes disks of guests that are off; 0: it takes none
    samples_memory: bool = False  # its agent can measure how fast guests make memory dirty


BASE = "base:sha256:"  # identities of files that lie below disks begin with it, as storage of a host


class Base(Record):
    """A file below a disk, which nobody writes to: another host has it if its own has the same content."""

    path: str
    form: str  # "raw" | "qcow2", as declared by what lies on it
    digest: str = ""  # sha256 of its content, hex; "": its host has not read it yet

    @property
    def identity(self) -> str:
        """As storage; "" while it is not known."""
        return f"{BASE}{self.digest}@{self.path}" if self.digest else ""


class LocalDisk(Record):
    """A disk that only the guest's own host has, and that can be copied: one image file, and what lies below it."""

    target: str  # "vda"
    path: str
    form: str  # "raw" | "qcow2"
    size_b: int  # as the guest sees it, bytes
    used_b: int = 0  # what the file takes on its file system, bytes
    mount: str = "/"  # where that is mounted
    bases: tuple[
        Base, ...
    ] = ()  # its backing files, the topmost first: not copied, the other host must have them

    @property
    def folder(self) -> str:
        return posixpath.dirname(self.path)


def folder_identity(folder: str, mount: str = "/") -> str:
    """How a folder for images, on a file system of the host's own, is named among its storage.

    `mount`: its file system is mounted there or deeper. Where a file system of that kind is not mounted just now, the
    folder below would be found in its place, and hidden with all that is in it later.
    """
    return f"folder:{folder}" if mount == "/" else f"folder:{folder}@{mount}"


class Needs(Record):
    """What a guest's definition asks of a host; derived from its XML by `core.definition`."""

    arch: str = "x86_64"
    domain_type: str = "kvm"
    machine: str = ""
    memory_mib: int = 0
    vcpus: int = 1
    page_kib: int | None = (
        None  # size of huge pages under its memory; None: ordinary memory, 0: the host's default
    )
    cpu_model: str = ""  # only for <cpu mode='custom'>
    networks: tuple[str, ...] = ()
    storage: tuple[str, ...] = ()
    local: tuple[LocalDisk, ...] = ()

    @property
    def bases(self) -> tuple[Base, ...]:
        """What lies below its local disks."""
        return tuple(dict.fromkeys(base for disk in self.local for base in disk.bases))

    @property
    def watched(self) -> frozenset[str]:
        """The identities that hosts are asked for."""
        return frozenset({*self.storage, *(base.identity for base in self.bases)} - {""})


class Definition(Record):
    """All that is needed to start a guest on another host."""

    id: GuestId
    name: str
    xml: str  # inactive XML with secrets (VIR_DOMAIN_XML_INACTIVE | SECURE)
    digest: str
    nvram: bytes = b""  # content of the NVRAM file, if it has one
    storage: tuple[str, ...] = ()  # identity of each disk, as the host that reported it resolved them
    local: tuple[LocalDisk, ...] = ()  # disks that another host has only once they were copied to it
    blockers: tuple[str, ...] = ()  # why it could not start elsewhere: each a sentence, found on the host


class Sighting(StrEnum):
    """The answer to one question, `does this guest run here?`, as a host can give it for sure."""

    ABSENT = "absent"  # no active domain, no libvirt job, no QEMU process
    PRESENT = "present"
    UNKNOWN = "unknown"  # could not be seen for sure, e.g. a start is still under way in libvirt
