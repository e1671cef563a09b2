"""What `decide` wants done in the world. Frozen data with an id; each result comes back as an event with that id.

Effects run only after the changes of the same decision are durable.
"""

from __future__ import annotations

from typing import Literal

from dr.model.base import BootId, GuestId, HostName, Record
from dr.model.checks import Reached
from dr.model.commands import Body, Ticket
from dr.model.policy import FenceLevel
from dr.model.preflight import Check as PreflightCheck
from dr.model.records import Alert, Rung


class Send(Record, tag="send"):
    """Send a command to an agent in this very session; if that session is gone it is dropped, and times out."""

    id: str
    host: HostName
    session: str
    body: Body


class SendStart(Record, tag="send_start"):
    """A `Start`, whose definition the runtime reads from the store under (guest, version) as it sends."""

    id: str
    host: HostName
    session: str
    ticket: Ticket
    version: int


class Accept(Record, tag="accept"):
    """Welcome a session with the present epoch, leader and revision."""

    host: HostName
    session: str


class DropSession(Record, tag="drop_session"):
    """Close a session; the agent will dial again."""

    host: HostName
    session: str
    reason: str


class Look(Record, tag="look"):
    """The coordinator's own probe of a host."""

    id: str
    host: HostName
    addresses: tuple[str, ...]
    window_s: float


class CheckGuest(Record, tag="check_guest"):
    """The coordinator's own checks whether a guest does its work: each tried until it passes or the window is over."""

    id: str
    guest: GuestId
    checks: tuple[Reached, ...]
    window_s: float


class ReadPower(Record, tag="read_power"):
    """Read every device of every level, changing nothing."""

    id: str
    host: HostName
    levels: tuple[FenceLevel, ...]


class Fence(Record, tag="fence"):
    """Switch off all devices of one level, then read all of them again."""

    id: str
    host: HostName
    boot_id: BootId
    level: int
    devices: FenceLevel
    timeout_s: float


class PowerOn(Record, tag="power_on"):
    id: str
    host: HostName
    levels: tuple[FenceLevel, ...]


class RunCommand(Record, tag="run_command"):
    """Run an allowed command on a host, once for this id; asked again, tell what came of it."""

    id: str
    host: HostName
    addresses: tuple[str, ...]
    boot_id: BootId  # in this boot of it, or not at all
    argv: tuple[str, ...]
    timeout_s: float  # then it is ended
    window_s: float  # so long is waited for its end


class Notify(Record, tag="notify"):
    """Tell people. `cleared` alerts are told too."""

    alert: Alert
    cleared: bool = False


class Foreseen(Record):
    """What would become of one guest if it were to leave its host now."""

    guest: GuestId
    name: str
    fate: Literal["live", "blocked", "left"]  # it moves, keeps the host from getting empty, or may stay
    cold: bool = False  # it moves by stop and start
    host: HostName = ""  # that it would leave
    to: HostName = ""
    why: tuple[str, ...] = ()  # it does not move
    todo: tuple[str, ...] = ()  # what would help: one of these, or several
    checks: tuple[PreflightCheck, ...] = ()  # its pre-flight, all of it
    send_mib: int = 0  # that its move sends, if it moves live: with what is sent again
    rung: Rung | None = None  # that its move ends on; None: not foretold
    downtime_s: float = 0.0  # at its switch-over, as QEMU counts it
    begins_s: float | None = None  # its turn, in seconds from now; None: not foretold
    ends_s: float | None = None
    late: str = ""  # where a deadline was given and it would not leave live in time: what becomes of it
    stopped: bool = False  # namely that it is stopped


class Forecast(Record):
    """How long it would take until everybody who can leave a host has left, if that began now."""

    total_s: float
    bound_s: float  # what the links carry at best: no order of moves is faster
    rests_on: tuple[str, ...]  # a sentence each: what is known, measured and assumed
    deadline_s: float = 0.0  # by which all is to be over; 0 = none was given


class PlannedStep(Record):
    """What one step of a playbook would do if it were its turn now."""

    part: str  # "steps" or "finally"
    text: str
    todo: tuple[str, ...] = ()  # what is not so yet that it wants; (): nothing is to be done
    why: tuple[str, ...] = ()  # it would be refused
    when: str = ""  # it would be left out
    takes_s: float | None = None  # as foretold; None: nothing was
    timeout_s: float = 0.0


class Reply(Record, tag="reply"):
    """The answer to an operator's ask: accepted with operations to watch, or refused with every blocker."""

    id: str
    accepted: bool
    operations: tuple[str, ...] = ()
    message: str = ""
    blockers: tuple[str, ...] = ()
    missing: bool = False  # no such host or guest
    soon: bool = False  # refused only for what is over in a moment: ask again
    guests: tuple[Foreseen, ...] = ()  # that leave, or would
    forecast: Forecast | None = None  # of live moves; None: nobody would move
    differences: tuple[str, ...] = ()  # from what a person approved of
    noted: tuple[str, ...] = ()  # what else is different now, and changes nothing of that
    steps: tuple[PlannedStep, ...] = ()  # of a playbook


Effect = (
    Accept
    | Send
    | SendStart
    | DropSession
    | Look
    | CheckGuest
    | ReadPower
    | Fence
    | PowerOn
    | RunCommand
    | Notify
    | Reply
)
