"""What a coordinator may ask of an agent, and what the agent answers.

Everything that could start, stop or remove a guest carries a `Ticket`; an agent runs a ticket at most once.
The rest (testify, probe, describe, …) reads or refuses, and is safe to repeat.
"""

from __future__ import annotations

from enum import StrEnum

from dr.model.allowed import Report
from dr.model.base import BootId, GuestId, HostName, Record
from dr.model.checks import Check, CheckResult, Inside
from dr.model.clones import CloneMade, DrillEnd
from dr.model.facts import Definition, HookState, LocalDisk, Part, Sighting
from dr.model.policy import Isolation, Sending, StopMode


class TicketKind(StrEnum):
    """What a ticket allows."""

    START = "start"
    DESTROY = "destroy"
    UNDEFINE = "undefine"
    RECEIVE = "receive"
    MIGRATE = "migrate"
    RESUME = "resume"
    DISCARD = "discard"
    SEND = "send"
    TAKE = "take"


class Ticket(Record):
    """Leave to do one thing with one guest on one boot of one host, once. Issued only by `core.onecopy`."""

    id: str
    kind: TicketKind
    guest: GuestId
    name: str
    generation: int
    host: HostName
    boot_id: BootId
    epoch: int
    leader_id: str
    session: str  # the nonce of the link session that it was issued for
    revision: int  # store revision that recorded it


class Start(Record, tag="start"):
    """Write the permit, define the stored XML, start it, and answer. Never restores a saved image."""

    ticket: Ticket
    definition: Definition


class Stop(Record, tag="stop"):
    """Stop a guest: `shutdown` asks the guest and waits, `destroy` ends its QEMU."""

    ticket: Ticket
    mode: StopMode = "shutdown"
    timeout_s: float = 120.0


class Clean(Record, tag="clean"):
    """Archive (XML, NVRAM, TPM, saved image), stop if it runs, undefine: a newer generation's holder is elsewhere.

    Its local disks here are older than those over there: they are set aside first, under another name, or removed.
    """

    ticket: Ticket
    remove_disks: bool = False


class Receive(Record, tag="receive"):
    """Let one incoming migration of the guest in: write the permit and answer at once.

    The permit outlives the answer; whatever seals the guest or looks for it takes it back. What arrives is this
    ticket's copy: it waits paused until a `Resume`, and the agent suspends it if anything else makes it run.
    """

    ticket: Ticket
    source: HostName
    disks: tuple[
        LocalDisk, ...
    ] = ()  # made anew here first, empty; where anything of that name is, it is refused


class Migrate(Record, tag="migrate"):
    """Send the guest to a host that waits for it: live, peer to peer, PAUSED at its end, PERSIST_DEST, ABORT_ON_ERROR.

    Never UNDEFINE_SOURCE: the definition here is cleaned up by a ticket of its own, once the guest runs there. Answers
    when the job has ended; `done` only with the testimony `absent, left by this ticket`.
    """

    ticket: Ticket
    to: HostName
    addresses: tuple[str, ...] = ()
    data_address: str = ""  # where its memory and disks go; empty: as libvirt over there is configured
    timeout_s: float = 3600.0  # then the agent aborts the job itself
    sending: Sending = Sending()
    disks: tuple[
        LocalDisk, ...
    ] = ()  # sent along, into images that the destination has made; no other disk is
    suspended: bool = False  # somebody suspended it, so that it is left standing where it arrives


class Resume(Record, tag="resume"):
    """Let the paused domain run: a copy that arrived whole, or a source that was left paused at the switch-over.

    `suspended`: it was so before it was sent. The copy waits for nobody any more, and stands still as its owner wants.
    """

    ticket: Ticket
    suspended: bool = False


class Discard(Record, tag="discard"):
    """Destroy the copy of a migration with the images made for it, and take back the permit for one not yet begun.

    Never a domain whose CPUs run, unless the agent knows that it is a copy which nobody was told to resume.
    """

    ticket: Ticket
    remove_images: bool = False  # also those made for it, from which nobody was told to run


class SendDisks(Record, tag="send_disks"):
    """Send the local disks of a guest that runs nowhere to a host that takes them.

    `done`: all are over there, whole.
    """

    ticket: Ticket
    copy: str  # the take ticket over there
    to: HostName
    addresses: tuple[str, ...]
    port: int
    disks: tuple[LocalDisk, ...]
    mib_s: int = 0


class TakeDisks(Record, tag="take_disks"):
    """Take the local disks of a guest that runs nowhere, into images that are made here, or were for this guest.

    `done`: each is as it is at its source, durable, and under its name. What cannot be ended well is removed; what only
    broke off stays, for the next try.
    """

    ticket: Ticket
    source: HostName
    disks: tuple[LocalDisk, ...]


class Abort(Record, tag="abort"):
    """Ask for the end of what is sent or taken of a guest here: its migration, or its disks.

    Starts and stops nothing, so it needs no ticket.

    `done` means asked, not ended: how the job ended is what its ticket's answer, or a testimony, says.
    """

    guest: GuestId
    name: str
    again: bool = False  # of disks: the other end broke off, it is tried again: what has arrived stays


class AllowDowntime(Record, tag="allow_downtime"):
    """Let the guest's outgoing migration stand still for so long at its switch-over. Starts and stops nothing."""

    guest: GuestId
    name: str
    downtime_s: float


class Sample(Record, tag="sample"):
    """Measure soon how fast these guests make memory dirty: who asks knows nothing of them, or nothing new.

    `done` means that it is planned; what is found is told in a `Report`.
    """

    guests: tuple[GuestId, ...]


class RunInside(Record, tag="run_inside"):
    """Run an allowed command in a guest, by its QEMU guest agent, once for this command's id; asked again, tell of it.

    It is the guest's own: no guest is started or stopped, so it needs no ticket.
    """

    guest: GuestId
    name: str
    argv: tuple[str, ...]
    timeout_s: float  # then nobody waits for it any more
    window_s: float  # so long is waited for its end
    process: str  # of the agent that it was sent to first (its hello's nonce): who does not remember that, does nothing


STAY_S = 30.0  # a host that goes down waits so long for a (next) word of the coordinator, then it goes on


class Stay(Record, tag="stay"):
    """Hold this host's own shutdown up for so many seconds from now on; 0: it may go on. Said again and again."""

    for_s: float


class Question(Record):
    """Does this guest run here? Seal up to `generation` before saying no."""

    guest: GuestId
    name: str
    generation: int


class Testify(Record, tag="testify"):
    """Answer for each guest, after sealing its generation durably."""

    questions: tuple[Question, ...]


class ProtectedEntry(Record):
    """One line of the protected list, as every agent keeps it."""

    guest: GuestId
    name: str
    generation: int
    holder: HostName = ""  # the coordinator's last recorded place
    isolation: Isolation = Isolation.FENCE


class Protect(Record, tag="protect"):
    """The whole protected list; replaces the agent's. Also names storage whose reachability hosts should report."""

    version: int
    entries: tuple[ProtectedEntry, ...]
    watch_storage: tuple[str, ...] = ()
    peers: tuple[
        str, ...
    ] = ()  # addresses of other hosts: who hears none of them, nor the coordinator, is isolated
    isolation_s: float = 15.0
    stop_s: float = 120.0  # a guest that an isolated host shuts down has this long, then it is destroyed


class Probe(Record, tag="probe"):
    """Look for another host from here: ICMP echo and a TCP connect, on each of its addresses."""

    target: HostName
    addresses: tuple[str, ...]
    window_s: float = 0.5


class LookInside(Record, tag="look_inside"):
    """Make these checks of a guest that runs here: each tried until it passes, or the window is over."""

    guest: GuestId
    name: str
    checks: tuple[Inside, ...]
    window_s: float


class Describe(Record, tag="describe"):
    """Send the definition of a guest."""

    guest: GuestId


class ProveHook(Record, tag="prove_hook"):
    """Try the permit hook with a canary domain, now."""


class MakeClone(Record, tag="make_clone"):
    """Copy the disks of a guest that runs here, as they are at one moment, for a drill. `done`: the copy is whole.

    Starts and stops nothing, and the guest runs on. Asked again for the same drill: the same copy. Any order about the
    guest itself ends a copy that is under way.
    """

    drill: str  # the id of its run
    guest: GuestId
    name: str
    disk_mib: int  # the copies may take so much; 0: what is free, but for a reserve
    life_s: float  # all of the drill here is removed so long after its first command, whatever becomes of who asked


class BootClone(Record, tag="boot_clone"):
    """Start a clone in the drill's own network on this host, that nothing else hangs on. `done`: its domain runs.

    It is asked for by a drill that the agent knows: one that has ended, or was made by an earlier process, is refused.
    """

    drill: str
    guest: GuestId
    name: str
    address: str  # "10.0.0.1/24": what looks into that network from here; "": nothing does


class CheckClone(Record, tag="check_clone"):
    """One check of a clone, from within the drill's network: tried until it passes or the window is over."""

    drill: str
    guest: GuestId
    name: str
    check: Check
    window_s: float


class EndDrill(Record, tag="end_drill"):
    """Remove all that a drill made here: domains, images, network. `done`: nothing of it is left."""

    drill: str


Copying = SendDisks | TakeDisks
Drilling = MakeClone | BootClone | CheckClone | EndDrill
Order = Start | Stop | Clean | Receive | Migrate | Resume | Discard | Copying  # all that carry a ticket
LookUp = Probe | LookInside | Describe | ProveHook  # what only looks
Body = Order | Drilling | Abort | AllowDowntime | Sample | RunInside | Stay | Testify | Protect | LookUp


class Outcome(StrEnum):
    """How a command ended, as far as the agent knows."""

    DONE = "done"
    FAILED = "failed"  # and the agent testifies that nothing was left half done
    REFUSED = "refused"  # not run: old epoch, sealed generation, wrong boot, wrong session, …
    UNKNOWN = "unknown"  # begun, its end was not seen


class Testimony(Record):
    """An agent's answer for one guest. `absent` counts only for generations up to `sealed`.

    `left_by`, with `absent`: the migrate ticket whose job took it away, said only when libvirt said so of that job; or
    the ticket that sent its disks, said only when all of them arrived.
    `ran`: the generation of the receive ticket whose copy ran here before any ticket told it to, whatever became of it;
    0: none did.
    """

    guest: GuestId
    sighting: Sighting
    sealed: int = 0
    reason: str = ""
    part: Part = Part.NONE  # with `present`
    left_by: str = ""
    ran: int = 0


class Answer(Record):
    """The result of one command. Only the fields of its kind are set."""

    outcome: Outcome
    reason: str = ""
    testimony: tuple[Testimony, ...] = ()  # testify; also stop, clean, and a start that failed
    answered: dict[str, bool] = {}  # probe: address -> whether anything came back
    definition: Definition | None = None  # describe, stop; of what could not be sent, as its disks are others
    protected_version: int = 0  # protect
    hook: HookState | None = None  # prove_hook, protect
    clone: CloneMade | None = None  # make_clone
    drill: DrillEnd | None = None  # end_drill
    checks: tuple[CheckResult, ...] = ()  # look_inside
    report: Report | None = None  # run_inside
