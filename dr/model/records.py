"""What the store keeps: hosts, guests, operations, alerts, the cluster itself.

Times in records are seconds of leader time (`now`, which never runs backwards across restarts) unless
the name says wall: wall time is data for people.
"""

from __future__ import annotations

from enum import StrEnum

from dr.model.base import BootId, GuestId, HostName, Record
from dr.model.evidence import DeviceReading
from dr.model.facts import HostFacts, LocalDisk, Needs, Reading
from dr.model.policy import GuestPolicy


class HostPhase(StrEnum):
    """Where a host stands; the transitions are `core.tables.HOST_TABLE`."""

    JOINING = "joining"
    ONLINE = "online"
    SUSPECT = "suspect"
    FENCING = "fencing"
    FENCED = "fenced"
    RETURNING = "returning"
    DRAINING = "draining"  # its guests are being moved away; takes none
    MAINTENANCE = "maintenance"  # empty and set aside by a person; neither fenced nor used


class Condition(StrEnum):
    """Stands beside a host's phase."""

    AGENT_LOST = "agent_lost"
    DEGRADED = "degraded"
    UNPROTECTED = "unprotected"  # fencing not configured, not proven, or the hook is not proven
    CORDONED = "cordoned"  # takes no guests; those on it stay
    QUARANTINED = "quarantined"  # fenced or rebooted too often: takes no guests until a person says otherwise


class Wish(Record):
    """What a person asked of a host. It stands until it is taken back: reboots and fencings change nothing."""

    by: str
    reason: str = ""
    at: float = 0.0
    leave_unprotected: bool = (
        False  # of a drain: guests that nobody protects do not keep the host from maintenance
    )
    deadline: float = (
        0.0  # of a drain: leader time by which the host must be empty, as it may go down then; 0 = none
    )
    plan: str = ""  # of a drain: the approved plan that it follows


class Fencing(Record):
    """The progress of one fencing of one boot. Judged anew after a crash, never replayed."""

    boot_id: BootId
    level: int = 0
    attempt: int = 0
    next_at: float = 0.0
    operator: bool = False  # asked for by a person, so evidence and brake were not asked
    why: str = ""
    rounds: int = 0  # how often all levels were tried in vain
    verified: bool = False  # every device of the level said off; a last look at the host is outstanding
    verified_at: float = 0.0
    readings: tuple[DeviceReading, ...] = ()
    test: str = ""  # the fence-test operation that it belongs to


class Ended(Record):
    """How long it took until a boot of a host was proven over, measured: what drills foretell from."""

    detect_s: float | None = None  # from when it was last heard; None: not by silence, as in a fence test
    prove_s: float = 0.0  # from the decision to prove it dead; 0: it was off already


class HostRecord(Record):
    """One KVM host."""

    name: HostName
    phase: HostPhase = HostPhase.JOINING
    boot_id: BootId = ""
    facts: HostFacts = HostFacts(boot_id="")
    health: tuple[Reading, ...] = ()
    conditions: frozenset[Condition] = frozenset()
    reason: str = ""  # one sentence: why it is in this phase
    since: float = 0.0
    labels: dict[str, str] = {}
    fencing: Fencing | None = None
    fenced_at: tuple[float, ...] = ()  # for the flap limits
    returned_at: tuple[float, ...] = ()  # with a new boot
    ended: tuple[Ended, ...] = ()  # the newest ones
    protected_version: int = 0  # the protected list that it has acknowledged
    dead_boot: BootId = ""  # the boot that was last proven dead
    dead_at: float = 0.0
    power_on: bool = False  # to be switched on again by policy
    cordon: Wish | None = None
    drain: Wish | None = None  # emptied and kept in maintenance for as long as this stands
    failed: frozenset[str] = (
        frozenset()
    )  # parts of its hardware that it was drained for, and that are critical still
    leaving: str = ""  # "shutdown" or "reboot": what this boot has announced
    leaving_at: float = 0.0
    # Its agent lost its memory: until others have shown that this store is current, it cannot tell an older copy.
    forgot: bool = False
    hearsay: bool = False  # its facts are those of an older copy of the store: it has not said hello since


class DeviceIdentity(Record):
    """Shown by `dr fence test`: this device really changed this host's boot id."""

    host: HostName
    device: str
    guid: str  # BMC system GUID; empty where the device has none
    fingerprint: str  # of the device's parameters without secrets: changed parameters need a new test
    proven_at: float = 0.0


class GuestPhase(StrEnum):
    """Where a protected guest stands; the transitions are `core.tables.GUEST_TABLE`."""

    PROTECTING = "protecting"  # hosts are still being asked whether it runs there
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    RECOVERING = "recovering"  # should run and does not: waits for a proof, a host, or its turn
    STARTING = "starting"  # a start ticket is out
    UNKNOWN = "unknown"  # a ticket's outcome was not seen; its place is being asked
    MIGRATING = (
        "migrating"  # it, or its disks while it is off, between two hosts, both of which are in its set
    )
    ERROR = "error"  # gave up, or found running twice: a person decides


class Desired(StrEnum):
    """What its owner wants."""

    RUNNING = "running"
    STOPPED = "stopped"
    IGNORED = "ignored"  # runs or not as its owner does it; one copy is kept, nothing else is done


class Place(Record):
    """Somewhere a guest may be running: one boot of one host, up to one ticket generation."""

    host: HostName
    boot_id: BootId
    generation: int


class MoveStage(StrEnum):
    """How far a move is. A live one: two-phase commit, see docs/one-copy.md."""

    QUEUED = "queued"  # asked for; its hosts have their hands full
    STOPPING = "stopping"  # cold: it is stopped here, then started elsewhere
    SENDING = "sending"  # cold: it is off, and its disks are copied
    RECEIVING = "receiving"  # live: the destination is asked to let it in
    COPYING = "copying"  # the source sends it
    UNRESOLVED = "unresolved"  # how the sending ended was not seen: the source is asked
    UNDOING = "undoing"  # it is not resumed there: the copy is destroyed, and proven gone
    MIGRATED = "migrated"  # the source testified that this very job took it away: the copy may be resumed
    RESUMING = "resuming"  # a resume ticket is out


class Rung(StrEnum):
    """What a live move needed so that it came to its end, the gentlest first."""

    PLAIN = "plain"  # passes over its memory, and QEMU's own short standstill
    STANDSTILL = "standstill"  # a longer one, within its policy or for a deadline
    SLOWED = "slowed down"  # its virtual CPUs
    CALLED_OFF = "called off"  # nothing that is allowed would have helped


class Move(Record):
    """A guest on its way from one host to another."""

    stage: MoveStage
    source: HostName
    destination: HostName = ""  # empty while cold or queued: wherever it fits
    source_boot: BootId = ""
    destination_boot: BootId = ""
    job: str = ""  # the ticket by which it, or its disks, leave
    taking: str = ""  # the ticket by which its disks are taken over there, while it is off
    copied: bool = False  # they are over there, whole
    broke: str = ""  # why an end of that ended before
    off: bool = False  # it was off before, and stays so
    operation: str = ""
    asked: bool = False  # by a person: automation being paused does not hold it up
    began: float = 0.0
    at: float = 0.0  # when it entered its stage
    why: str = ""  # why it is called off or undone
    rung: Rung = Rung.PLAIN  # what it has needed so far
    allowed_s: float = 0.0  # how long it may stand still, as its host was told last; 0: as QEMU has it
    foreseen: Rung | None = None  # what it was to need, told when it began; None: its guest was not sampled
    tries: int = 0  # resumes, or copies of its disks, that did not succeed
    received: int = 0  # the generation of its receive ticket
    disks: tuple[LocalDisk, ...] = ()  # of its own host, for which images are made
    suspended: bool = False  # it was so when it was sent, and stays so
    # Its copy was made to run by hand: what stands at the source may be older than the disk.
    ran: bool = False
    retry_at: float = 0.0


class Homing(Record):
    """Where a guest whose policy lets it go home belongs, beyond what rules say, and how often that was tried."""

    left: HostName = ""  # the host from which a drain or a failover took it
    stays: HostName = ""  # a person moved it there: it is left there
    tries: int = 0  # moves home since it last changed its host
    tried_at: float = 0.0


def local_in_words(disk: LocalDisk) -> str:
    """Why a guest with such a disk is protected only if somebody agrees to what that means."""
    return (
        f"disk {disk.target} is {disk.path}, on a file system that only its host has: move it to shared storage, or"
        " set local_disks (it moves with its disks then, and starts nowhere else when its host dies)."
    )


class StartTook(Record):
    """One start that was seen to end well, measured: what drills foretell from."""

    at: float  # when it was seen to run
    start_s: float  # since its ticket
    check_s: float | None = None  # from then until its check passed; None: it was not seen to


class GuestRecord(Record):
    """One protected guest. Only `core.onecopy` writes `may_run_on` and `generation`."""

    id: GuestId
    name: str
    phase: GuestPhase = GuestPhase.PROTECTING
    desired: Desired = Desired.RUNNING
    reason: str = ""
    since: float = 0.0
    generation: int = 0
    may_run_on: tuple[Place, ...] = ()
    holder: HostName = ""  # the last host it was seen running on; its definition is the newest
    disks_on: HostName = ""  # the host with the newest copy of its local disks; "": not known for sure
    definition: int = 0  # newest stored version; 0 = none yet
    digest: str = ""
    needs: Needs = Needs()
    policy: GuestPolicy = GuestPolicy()
    labels: dict[str, str] = {}
    blockers: tuple[str, ...] = ()  # why it is not (any longer) recoverable elsewhere
    restarts: tuple[float, ...] = ()
    relocations: tuple[float, ...] = ()
    homing: Homing = Homing()
    removed: tuple[
        tuple[HostName, float], ...
    ] = ()  # its definition, from hosts where it does not run; and when
    held_at: HostName = ""  # a host that announced that it goes down: it starts there again, within limits
    tried_on: HostName = ""  # where it was last being started, or crashed: tried again there first
    avoid: tuple[HostName, ...] = ()  # hosts where it failed so often that it goes elsewhere if it can
    retry_at: float = 0.0
    waits_since: float = 0.0  # since when it could start but for those that start before it; 0 = it does not
    checked_at: float = 0.0  # when its policy's checks last passed
    starts: tuple[StartTook, ...] = ()  # the newest ones
    move: Move | None = None
    stop_missed: float = 0.0  # when its relocation was given up: it may still heed that shutdown

    @property
    def tied(self) -> tuple[str, ...]:
        """Why it could not be started elsewhere, where nobody has agreed to that."""
        if self.policy.local_disks:
            return self.blockers
        return (*self.blockers, *(f"{self.name}: {local_in_words(disk)}" for disk in self.needs.local))


class StoredPicture(Record):
    """The newest picture of a guest's console, under a key of its own."""

    guest: GuestId
    host: HostName
    at: float  # leader time
    png: bytes


class StoredDefinition(Record):
    """One version of a guest's definition, under a key of its own."""

    guest: GuestId
    version: int
    xml: str
    digest: str
    nvram: bytes = b""
    reported_by: HostName = ""


class Alert(Record):
    """Told to people once, until it clears. What happened, why, what to do."""

    key: str  # "host/h1/agent-lost"
    what: str
    why: str
    todo: str
    severity: str = "warning"  # "info" | "warning" | "critical"
    raised: float = 0.0


class Pause(Record):
    """Automation is off: nothing is fenced or restarted by itself."""

    reason: str
    by: str
    at: float = 0.0


class Term(Record):
    """One leader's time. Nobody who follows an earlier epoch can know a later revision than this one began with."""

    epoch: int
    leader_id: str
    revision: int  # with the offset


class Cluster(Record):
    """The cluster itself. One record."""

    id: str
    epoch: int = 0
    leader_id: str = ""
    terms: tuple[Term, ...] = ()  # the latest ones, the present one last
    machine: str = ""  # the machine this store is bound to
    revision_offset: int = 0  # jumped when a restored copy was noticed
    protected_version: int = 0  # of the list of protected guests
    generation_floor: int = (
        0  # generations of guests that are no longer protected; a new protection starts above
    )
    restored: str = ""  # why this store is believed to be an older copy; cleared by `dr resume`
    pause: Pause | None = None
