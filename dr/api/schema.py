"""The shapes of the API's JSON, version 1: the contract with the CLI and with whoever else asks.

Here: data only. Ages are seconds when the answer was made; `*_wall` is unix time. Not here: how they are filled
(`views`).
A field may be added; none is renamed or removed within version 1, so an older or newer peer keeps reading.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dr.api.run_schema import RunSeen
from dr.api.shapes import Body, Document, Part
from dr.model.spelling import after_of, checks_of

# ---- hosts


class Reading(Part):
    part: str
    level: str
    reason: str = ""


class Look(Part):
    """What one witness said."""

    witness: str  # "" = the coordinator itself
    answered: bool | None
    age_s: float


class DeviceSeen(Part):
    device: str
    power: str
    guid: str = ""
    reason: str = ""


class FencingSeen(Part):
    """A fencing in progress."""

    boot_id: str
    level: int
    attempt: int
    why: str
    operator: bool
    verified: bool


class HostRow(Part):
    name: str
    phase: str
    conditions: list[str] = []
    reason: str = ""
    cordon: str = Field(default="", description="who set it aside and why; empty: nobody did")
    leaving: str = Field(default="", description="shutdown or reboot, if it announced one; empty: it did not")
    since_s: float = 0.0
    connected: bool = False
    heard_s: float | None = Field(
        default=None, description="seconds since it was last heard; null: not in this term"
    )
    fencing: Literal["none", "unproven", "proven"] = "none"
    hook: bool = False
    health: Literal["ok", "warn", "critical", "unknown"] = "unknown"
    guests_running: int = 0
    guests_protected: int = 0
    memory_mib: int = 0
    memory_used_mib: int = 0
    agent_version: str = ""
    labels: dict[str, str] = {}


class Host(HostRow):
    """One host, whole."""

    boot_id: str = ""
    dead_boot: str = ""
    addresses: dict[str, str] = {}
    probed_addresses: list[str] = []
    cpus: int = 0
    cpu_model: str = ""
    libvirt_version: str = ""
    networks: list[str] = []
    storage: list[str] = []
    hook_reason: str = ""
    hibernation_masked: bool = True
    live_migration: bool = False
    migration_address: str = ""  # where memory and disks are sent to it; empty: as its libvirt is configured
    readings: list[Reading] = []
    looks: list[Look] = []
    power: list[DeviceSeen] = []
    power_age_s: float | None = None
    verdict: str = ""
    fencing_now: FencingSeen | None = None
    guests: list[str] = []
    configured: bool = True


class HostList(Document):
    kind: Literal["hosts"] = "hosts"
    items: list[HostRow]


class HostDocument(Document):
    kind: Literal["host"] = "host"
    item: Host


# ---- guests


class PlaceSeen(Part):
    """Somewhere it may be running."""

    host: str
    boot_id: str
    generation: int


class Sighting(Part):
    """A host that has the domain, and in which state."""

    host: str
    state: str
    heard_s: float | None = None


class GuestRow(Part):
    id: str
    name: str
    protected: bool
    phase: str  # of an unprotected one: libvirt's word
    desired: str = ""
    host: str = ""
    reason: str = ""
    since_s: float | None = None
    heard_s: float | None = Field(default=None, description="seconds since its host was last heard")
    priority: int = 0
    memory_mib: int = 0
    vcpus: int = 0
    blockers: list[str] = []
    may_run_on: list[PlaceSeen] = []
    labels: dict[str, str] = {}


class Policy(Part):
    """How a protected guest is treated, in the words of the configuration file."""

    priority: int
    max_restarts: int
    restart_window_s: float
    max_relocations: int
    relocation_window_s: float
    failback: bool
    boot_after: list[str]
    isolation: str
    checks: list[str]
    on_unhealthy: str
    move_s: float
    move_downtime_s: float
    move_auto_converge: bool
    move_mib_s: int
    move_streams: int
    local_disks: bool
    remove_old_disks: bool


class Written(Part):
    """How much of its memory a guest writes to within so long, however often."""

    interval_s: float
    mib: float


class CheckSeen(Part):
    """What one check of a guest found in its last round."""

    check: str
    result: Literal["passed", "failed", "unknown"] = Field(
        description="unknown: it could not be made, or nobody told how it ended"
    )
    why: str = ""
    took_s: float = 0.0
    evidence: str = Field(default="", description="what came back, as far as it is text; cut off")
    age_s: float


class GuestChecks(Document):
    """What the checks of guests found, by name."""

    kind: Literal["checks"] = "checks"
    items: dict[str, list[CheckSeen]]


class LocalDiskSeen(Part):
    """A disk that only one host has."""

    target: str
    path: str
    form: str
    size_b: int
    used_b: int
    bases: list[str] = Field(
        default=[],
        description="what it lies on, the topmost first: not copied, another host must have the same",
    )


class Guest(GuestRow):
    """One guest, whole."""

    policy: Policy | None = None  # null: not protected
    failback: str = Field(
        default="", description="off, at home, or away from where and why; empty: not protected"
    )
    check_age_s: float | None = Field(
        default=None, description="seconds since its checks last passed; null: not since it runs"
    )

    checks: list[CheckSeen] = Field(
        default=[], description="the last round of its checks since the coordinator started"
    )
    generation: int = 0
    definition: int = 0
    definition_by: str = ""
    digest: str = ""
    seen: list[Sighting] = []
    max_restarts: int = 0
    max_relocations: int = 0
    restarts: int = 0
    relocations: int = 0
    needs: dict[str, str] = {}
    writes: list[Written] = Field(
        default=[], description="to its memory, as its host measured it last; empty: it did not yet"
    )
    writes_age_s: float | None = Field(default=None, description="since that was measured")
    local_disks: list[LocalDiskSeen] = []
    disks_on: str = Field(
        default="",
        description="the host with the newest copy of its local disks, where alone it may start; empty: not known",
    )
    avoid: list[str] = []


class GuestList(Document):
    kind: Literal["guests"] = "guests"
    items: list[GuestRow]


class GuestDocument(Document):
    kind: Literal["guest"] = "guest"
    item: Guest


# ---- status


class AlertSeen(Part):
    key: str
    severity: str
    what: str
    why: str
    todo: str
    age_s: float


class PauseSeen(Part):
    reason: str
    by: str
    age_s: float


class OperationRow(Part):
    id: str
    op: str  # "failover", "fence", …
    subject: str
    state: str
    why: str = ""
    asked_by: str = ""
    opened_wall: float
    age_s: float
    duration_s: float
    foreseen_s: float | None = Field(
        default=None, description="how long it was to take, as told when it began; null: nothing was told"
    )
    guests: dict[str, str] = {}
    guest_names: dict[str, str] = {}
    hooks: dict[str, str] = Field(
        default={}, description="of a failover: the job that each is, or why it is none"
    )


class StepSeen(Part):
    wall: float
    after_s: float
    text: str


Rung = Literal["", "plain", "standstill", "slowed down", "called off"]


class MoveSeen(Part):
    """A live migration that is under way in a job. Figures are its source's, and missing where that says none."""

    guest: str = Field(description="its name")
    source: str
    destination: str
    stage: str
    age_s: float = Field(description="since it began")
    done_pct: int | None = Field(None, description="of the guest, as it is now; may fall while it writes")
    remaining_mib: float | None = Field(None, description="of the pass that is under way")
    rate_mib_s: float | None = None
    dirty_mib_s: float | None = Field(None, description="what the guest makes dirty; 0 in the first pass")
    passes: int | None = None
    throttle_pct: int | None = None
    rung: Rung = Field(default="", description="what it has needed so far, the gentlest first")
    foreseen: Rung = Field(default="", description="what it was to need; empty: its guest was not sampled")
    eta_s: float | None = Field(
        None, description="until it switches over, if all goes on like this; nothing: it would never"
    )


class Operation(OperationRow):
    steps: list[StepSeen] = []
    moves: list[MoveSeen] = []
    run: RunSeen | None = Field(default=None, description="of a playbook")


class OperationList(Document):
    kind: Literal["jobs"] = "jobs"
    items: list[OperationRow]


class OperationDocument(Document):
    kind: Literal["job"] = "job"
    item: Operation


class Status(Document):
    """The fleet at a glance."""

    kind: Literal["status"] = "status"
    cluster: str
    healthy: bool
    problems: list[str] = Field(description="why it is not healthy, a sentence each")
    epoch: int
    leader: str
    revision: int
    leader_time_s: float
    wall: float
    coordinator_version: str
    settling_s: float = 0.0
    pause: PauseSeen | None = None
    restored: str = ""
    hosts: list[HostRow] = []
    guests_total: int = 0
    guests_protected: int = 0
    guests_running: int = Field(default=0, description="protected and running")
    unsettled: list[GuestRow] = Field(
        default=[], description="protected guests that are not where they should be"
    )
    spare: list[str] = Field(
        default=[], description="N+1: what would not fit if a host died now, a sentence a host"
    )
    operations: list[OperationRow] = []
    alerts: list[AlertSeen] = []


# ---- fencing


class FenceRow(Part):
    """One configured device. No secrets."""

    host: str
    level: int
    device: str
    agent: str
    address: str = ""
    proven: bool = False
    proven_wall: float = 0.0
    guid: str = ""
    reason: str = ""


class FenceList(Document):
    kind: Literal["fence"] = "fence"
    items: list[FenceRow]


# ---- timeline


class NoteSeen(Part):
    key: str
    wall: float
    topic: str  # "host.suspect", "fence.off", …
    text: str
    host: str = ""
    guest: str = ""
    guest_name: str = ""
    operation: str = ""
    by: str = ""
    proof: str = ""
    decision: str = Field(default="", description="the saved decision that explains it: /v1/decisions/ID")


class NoteList(Document):
    kind: Literal["events"] = "events"
    items: list[NoteSeen]
    next: str = Field(default="", description="give it as `after` to go on from here")


# ---- doctor


class Finding(Part):
    level: Literal["ok", "info", "warning", "critical"]
    check: str
    subject: str = ""
    what: str
    why: str = ""
    fix: str = ""


class Findings(Document):
    kind: Literal["findings"] = "findings"
    items: list[Finding]
    checked: list[str] = []


# ---- asks


class GuestsBody(Body):
    guests: list[str] = Field(min_length=1, description="names or UUIDs")


class StartBody(GuestsBody):
    disks_on: str = Field(
        default="",
        description="the host that has the newest copy of their local disks, by your word; empty: as is known",
    )


class ProtectBody(GuestsBody):
    priority: int | None = None
    local_disks: bool | None = Field(
        default=None, description="also with disks that only its host has: it starts nowhere else then"
    )


class StopBody(GuestsBody):
    mode: Literal["shutdown", "destroy"] = "shutdown"


class MigrateBody(GuestsBody):
    to: str = Field(default="", description="the host to move to; empty: wherever they fit best")
    dry_run: bool = Field(
        default=False, description="only tell what would be done, or what stands against it"
    )


class DrainBody(Body):
    also: list[str] = Field(
        default=[], max_length=1000, description="hosts that are emptied together with it, with one schedule"
    )
    leave_unprotected: bool = Field(
        default=False, description="guests that nobody protects stay, and do not keep it from maintenance"
    )
    deadline_s: float = Field(
        default=0.0,
        ge=0,
        le=864_000,
        description="by then it must be empty: what would be late is stopped, and started elsewhere; 0: none",
    )
    dry_run: bool = Field(
        default=False, description="only tell what would become of each guest; nothing is done"
    )


class RelocateBody(StopBody):
    to: str = Field(default="", description="the host to start on; empty: wherever they fit best")
    dry_run: bool = Field(default=False, description="only tell what would be done, with every check")


def _good_checks(texts: list[str]) -> list[str]:
    checks_of(texts)
    return texts


def _good_after(text: str) -> str:
    after_of(text)
    return text


class SetBody(GuestsBody):
    """What is left out stays as it is."""

    desired: Literal["running", "stopped", "ignored"] | None = None
    priority: int | None = Field(default=None, ge=-1_000_000, le=1_000_000)
    max_restarts: int | None = Field(default=None, ge=0)
    restart_window_s: float | None = Field(default=None, gt=0, le=864_000)
    max_relocations: int | None = Field(default=None, ge=0)
    relocation_window_s: float | None = Field(default=None, gt=0, le=864_000)
    failback: bool | None = None
    boot_after: list[Annotated[str, AfterValidator(_good_after)]] | None = Field(
        default=None, description='names, or NAME:check; ["none"]: nobody'
    )
    isolation: Literal["leave", "shut_down", "fence"] | None = None
    checks: Annotated[list[str], AfterValidator(_good_checks)] | None = Field(
        default=None, description='in the words of the configuration file; ["none"]: no check'
    )
    on_unhealthy: Literal["ignore", "alert", "restart"] | None = None
    move_s: float | None = Field(default=None, gt=0, le=864_000)
    move_downtime_s: float | None = Field(default=None, gt=0, le=300)
    move_auto_converge: bool | None = None
    move_mib_s: int | None = Field(default=None, ge=0)
    move_streams: int | None = Field(default=None, ge=1, le=64)
    local_disks: bool | None = None
    remove_old_disks: bool | None = None


class ConfirmDownBody(Body):
    boot_id: str = Field(
        default="", description="the boot that was seen to be down; empty: the one on record"
    )


class LabelBody(Body):
    labels: dict[str, str | None] = Field(min_length=1, description="null removes")


class JoinBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    csr: str = Field(max_length=16_384, description="certificate request, PEM")


class Check(Part):
    """One finding of a pre-flight."""

    name: str = Field(description="several findings may have the same name")
    verdict: Literal["ok", "warning", "blocked", "unknown"]
    text: str = Field(description="one sentence")
    fix: str = Field(default="", description="what to type or to do about it")
    refuses: bool = Field(
        description="no move begins over it: blocked, or unknown where that may cost a guest"
    )


class Foreseen(Part):
    """What would become of one guest if it were to leave its host now."""

    id: str
    name: str
    fate: Literal["live", "blocked", "left"] = Field(
        description="live: it moves; blocked: it keeps the host from getting empty; left: it may stay"
    )
    cold: bool = Field(default=False, description="it moves by stop and start")
    to: str = Field(default="", description="where it would go as things are; its turn may change that")
    why: list[str] = Field(default=[], description="everything that keeps it there")
    host: str = Field(default="", description="that it would leave")
    todo: list[str] = Field(default=[], description="what would help: one of these, or several")
    checks: list[Check] = Field(default=[], description="its pre-flight: everything that was looked at")
    send_mib: int = Field(default=0, description="what its live move sends, with what is sent again")
    rung: Rung = Field(default="", description="that its move would end on; empty: not foretold")
    downtime_s: float = Field(default=0.0, description="its standstill at the switch-over, as QEMU counts it")
    begins_s: float | None = Field(default=None, description="its turn, in seconds from now")
    ends_s: float | None = None
    late: str = Field(
        default="",
        description="it would not leave live before the deadline: what becomes of it",
    )
    stopped: bool = Field(default=False, description="namely that it is stopped")


class Forecast(Part):
    """How long it takes until everybody who can leave a host has left, if that begins now."""

    total_s: float
    bound_s: float = Field(description="what the links carry at best: no order of moves is faster")
    rests_on: list[str] = Field(default=[], description="what is known, measured and assumed")
    deadline_s: float = Field(default=0.0, description="by which all is to be over; 0: none was given")


class Evacuation(Document):
    """What would become of everybody on hosts if they were drained now, together. Nothing is done."""

    kind: Literal["evacuation"] = "evacuation"
    host: str = Field(description="the first of them")
    hosts: list[str] = []
    message: str
    guests: list[Foreseen] = []
    forecast: Forecast | None = Field(default=None, description="null: nobody would move")


class Accepted(Document):
    """An ask was accepted. Its work, if any, goes on as these operations."""

    kind: Literal["accepted"] = "accepted"
    message: str = ""
    operations: list[str] = []
    guests: list[Foreseen] = Field(default=[], description="those that leave a host, or would")
    forecast: Forecast | None = Field(default=None, description="of a host that is emptied")
    differences: list[str] = Field(default=[], description="from the plan that is applied")
    noted: list[str] = Field(default=[], description="what else is different, and changes no guest's fate")


class TokenDocument(Document):
    kind: Literal["token"] = "token"
    host: str
    token: str


class JoinedDocument(Document):
    kind: Literal["joined"] = "joined"
    host: str
    cluster: str
    certificate: str


class Whoami(Document):
    kind: Literal["whoami"] = "whoami"
    cluster: str
    role: str
    name: str
    coordinator_version: str
    wall: float


class ProblemDocument(Document):
    """RFC 9457 (`application/problem+json`): what happened, why, what to type next."""

    kind: Literal["problem"] = "problem"
    type: str = "about:blank"
    status: int
    code: Literal["refused", "missing", "denied", "unknown", "invalid", "try-again", "failed"]
    title: str = Field(description="what happened")
    detail: str = Field(default="", description="why")
    next: str = Field(default="", description="what to type next")
    blockers: list[str] = Field(default=[], description="everything that stands against it")
