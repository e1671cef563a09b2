"""What can happen to the coordinator: the second argument of `decide`."""

from __future__ import annotations

from dr.model.allowed import Report
from dr.model.base import GuestId, HostName, Record
from dr.model.checks import CheckResult
from dr.model.commands import Answer
from dr.model.drills import DrillReport
from dr.model.evidence import PowerReport
from dr.model.facts import DirtySample, GuestFacts, HostFacts, Progress, Reading
from dr.model.plans import Approved
from dr.model.playbooks import Playbook
from dr.model.policy import PolicyChange, StopMode
from dr.model.records import Desired
from dr.model.settings import Settings
from dr.model.wire import Hello, LeaveKind


class Started(Record, tag="started"):
    """This process leads: records are loaded, nothing was heard yet. Makes the new epoch."""

    leader_id: str
    machine: str  # /etc/machine-id of the machine that the coordinator runs on
    cluster: str  # only used when the store is new
    boot_id: str = ""  # of that machine: the host with this boot id is never fenced from here
    away_s: float = 0.0  # by the wall, since leader time stood where it goes on from


class Tick(Record, tag="tick"):
    """Time went by. `lag_s`: how late the loop ran this tick."""

    lag_s: float = 0.0


class Connected(Record, tag="connected"):
    """An agent said hello in a fresh session. `session` is the nonce that the link adapter chose for it."""

    host: HostName
    session: str
    hello: Hello


class Disconnected(Record, tag="disconnected"):
    """A session ended. `goodbye`: the agent's own words, empty if it said none."""

    host: HostName
    session: str
    goodbye: str = ""


class Leaving(Record, tag="leaving"):
    """An agent announces that its host goes down, or (with no kind) that it stays after all."""

    host: HostName
    session: str
    kind: LeaveKind


class Heard(Record, tag="heard"):
    """A beat. `fresh`: leader time at which the nonce that it echoes was issued."""

    host: HostName
    session: str
    fresh: float


class Reported(Record, tag="reported"):
    """A host's facts, guests, health or outgoing migrations changed, or guests were sampled; None = unchanged."""

    host: HostName
    session: str
    facts: HostFacts | None = None
    guests: tuple[GuestFacts, ...] | None = None
    health: tuple[Reading, ...] | None = None
    moves: tuple[Progress, ...] | None = None
    samples: tuple[DirtySample, ...] | None = None  # the new ones
    clock_s: float = 0.0  # of the agent as it said so: samples are dated by it


class Answered(Record, tag="answered"):
    """An agent answered the command with this effect id."""

    host: HostName
    session: str
    effect: str
    answer: Answer


class PowerSeen(Record, tag="power_seen"):
    """A `ReadPower` ended."""

    effect: str
    host: HostName
    reports: tuple[PowerReport, ...]


class FenceEnded(Record, tag="fence_ended"):
    """A `Fence` ended, one way or another."""

    effect: str
    host: HostName
    report: PowerReport


class PowerOnEnded(Record, tag="power_on_ended"):
    effect: str
    host: HostName
    ok: bool
    reason: str = ""


class LookEnded(Record, tag="look_ended"):
    """The coordinator's own probe of a host ended. It can show life, never death."""

    effect: str
    host: HostName
    answered: dict[str, bool]


class CheckEnded(Record, tag="check_ended"):
    """What the coordinator's own checks of a guest found."""

    effect: str
    guest: GuestId
    results: tuple[CheckResult, ...]


class CommandEnded(Record, tag="command_ended"):
    """A `RunCommand` ended, one way or another."""

    effect: str
    host: HostName
    report: Report


class Reconfigured(Record, tag="reconfigured"):
    """A new configuration was read and is valid."""

    settings: Settings


# What operators ask. `id` is the request's; its outcome comes back as a `Reply` with the same id.


class Ask(Record):
    id: str
    by: str  # name in the admin certificate
    reason: str = ""


class AskProtect(Ask, tag="ask_protect"):
    guests: tuple[str, ...]  # names or UUIDs, as seen in inventories
    priority: int | None = None
    local_disks: bool | None = None  # None: as the configuration says


class AskUnprotect(Ask, tag="ask_unprotect"):
    guests: tuple[str, ...]


class AskStart(Ask, tag="ask_start"):
    """`disks_on`: a person's word that this host has the newest copy of their local disks; "": as is known."""

    guests: tuple[str, ...]
    disks_on: HostName = ""


class AskStop(Ask, tag="ask_stop"):
    guests: tuple[str, ...]
    mode: StopMode = "shutdown"


class AskFence(Ask, tag="ask_fence"):
    host: HostName


class AskFenceTest(Ask, tag="ask_fence_test"):
    """Power-cycles an empty host to show identity and function of its fence devices."""

    host: HostName


class AskConfirmDown(Ask, tag="ask_confirm_down"):
    host: HostName
    boot_id: str = ""  # the boot that the operator saw; empty = the one on record


class AskRemoveHost(Ask, tag="ask_remove_host"):
    host: HostName


class AskLabel(Ask, tag="ask_label"):
    kind: str  # "host" | "guest"
    name: str
    labels: dict[str, str | None]  # None removes


class AskPause(Ask, tag="ask_pause"):
    """Automation off."""


class AskResume(Ask, tag="ask_resume"):
    """Automation on; also the operator's word that a restored store was looked over."""


class AskClearQuarantine(Ask, tag="ask_clear_quarantine"):
    host: HostName


class AskMigrate(Ask, tag="ask_migrate"):
    """Move running guests, live."""

    guests: tuple[str, ...]
    to: HostName = ""  # empty: wherever they fit best
    dry_run: bool = False  # only tell what would be done


class AskRelocate(Ask, tag="ask_relocate"):
    """Stop guests where they run and start them elsewhere; disks that only their host has are copied meanwhile."""

    guests: tuple[str, ...]
    to: HostName = ""
    mode: StopMode = "shutdown"
    dry_run: bool = False


class AskCheck(Ask, tag="ask_check"):
    """Make the checks of these guests now, once."""

    guests: tuple[str, ...]


class AskCancelMove(Ask, tag="ask_cancel_move"):
    """Call off the moves of guests: they stay where they are, unless they have left already."""

    guests: tuple[str, ...]


class AskSet(Ask, tag="ask_set"):
    """Another desired state (running, stopped, or to be left alone) or another policy. All of it, or nothing."""

    guests: tuple[str, ...]
    desired: Desired | None = None  # None: as it is
    policy: PolicyChange = PolicyChange()


class AskCordon(Ask, tag="ask_cordon"):
    """Takes no more guests."""

    host: HostName


class AskUncordon(Ask, tag="ask_uncordon"):
    host: HostName


class AskDrain(Ask, tag="ask_drain"):
    """Move everything away, then set it aside for maintenance."""

    host: HostName
    also: tuple[HostName, ...] = ()  # emptied together with it: none of them takes guests of the others
    leave_unprotected: bool = False  # see `Wish`
    deadline_s: float = 0.0  # from now; 0 = none, and no guest is stopped for it
    dry_run: bool = False  # only tell what would be done


class AskApply(Ask, tag="ask_apply"):
    """Empty hosts as an approved plan says, if what would become of each guest is still what it says."""

    plan: str  # its digest
    hosts: tuple[HostName, ...]
    approved: tuple[Approved, ...]  # each guest of these, in its turn
    revision: int = 0  # of the store that it was made from
    rules: str = ""  # digest of the placement rules that it was made under
    leave_unprotected: bool = False  # see `Wish`
    deadline_s: float = 0.0  # from now; 0 = none
    anyway: bool = False  # also if something is different now: then as things are now
    dry_run: bool = False  # only tell what is different


class AskUndrain(Ask, tag="ask_undrain"):
    """Back in use."""

    host: HostName


class AskRun(Ask, tag="ask_run"):
    """Run a playbook."""

    playbook: Playbook
    params: dict[str, str] = {}
    dry_run: bool = False  # only tell what each step would do now
    wall: float = 0.0  # unix time at which it was asked, for people
    hook: bool = False  # another run of it, about something else, may be under way


class AskAgree(Ask, tag="ask_agree"):
    """Answer the `approve` that a run waits at."""

    job: str
    agree: bool


class AskCancelRun(Ask, tag="ask_cancel_run"):
    """No step of it begins any more, but what it does in the end."""

    job: str


class ScheduleDue(Record, tag="schedule_due"):
    """Times of a schedule have come and are not decided about; none: it is new here, or its times are others."""

    name: str
    wall: float  # unix time, as all of these
    times: tuple[float, ...] = ()  # the newest last
    left_out: tuple[float, ...] = ()  # of them: those that lie in a blackout
    more: bool = False  # and others before them
    blackout: str = ""  # which one it is now


class Admitted(Ask, tag="admitted"):
    """A host may join: its token was made. The record exists from here on."""

    host: HostName


class AskKeepDrill(Ask, tag="ask_keep_drill"):
    """The report of a drill that was done on paper, to be kept."""

    report: DrillReport


OperatorAsk = (
    AskProtect
    | AskUnprotect
    | AskStart
    | AskStop
    | AskFence
    | AskFenceTest
    | AskConfirmDown
    | AskRemoveHost
    | AskLabel
    | AskPause
    | AskResume
    | AskClearQuarantine
    | AskMigrate
    | AskRelocate
    | AskSet
    | AskCancelMove
    | AskCheck
    | AskCordon
    | AskUncordon
    | AskDrain
    | AskApply
    | AskUndrain
    | AskRun
    | AskAgree
    | AskCancelRun
    | AskKeepDrill
    | Admitted
)

Event = (
    Started
    | Tick
    | Connected
    | Disconnected
    | Leaving
    | Heard
    | Reported
    | Answered
    | PowerSeen
    | FenceEnded
    | PowerOnEnded
    | LookEnded
    | CheckEnded
    | CommandEnded
    | Reconfigured
    | ScheduleDue
    | OperatorAsk
)

__all__ = ["Event", "GuestId", "OperatorAsk"]
