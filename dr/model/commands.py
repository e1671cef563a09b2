"""What a coordinator may ask of an agent, and what the agent answers.

Everything that could start, stop or remove a guest carries a `Ticket`; an agent runs a ticket at most once.
The rest (testify, probe, describe, …) reads or refuses, and is safe to repeat.
"""

from __future__ import annotations

from enum import StrEnum

from dr.model.base import BootId, GuestId, HostName, Record
from dr.model.facts import Definition, HookState, Sighting
from dr.model.policy import Isolation, StopMode


class TicketKind(StrEnum):
    """What a ticket allows."""

    START = "start"
    DESTROY = "destroy"
    UNDEFINE = "undefine"


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
    """Archive (XML, NVRAM, TPM, saved image), stop if it runs, undefine: a newer generation's holder is elsewhere."""

    ticket: Ticket


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


class Describe(Record, tag="describe"):
    """Send the definition of a guest."""

    guest: GuestId


class ProveHook(Record, tag="prove_hook"):
    """Try the permit hook with a canary domain, now."""


Body = Start | Stop | Clean | Testify | Protect | Probe | Describe | ProveHook


class Outcome(StrEnum):
    """How a command ended, as far as the agent knows."""

    DONE = "done"
    FAILED = "failed"  # and the agent testifies that nothing was left half done
    REFUSED = "refused"  # not run: old epoch, sealed generation, wrong boot, wrong session, …
    UNKNOWN = "unknown"  # begun, its end was not seen


class Testimony(Record):
    """An agent's answer for one guest. `absent` counts only for generations up to `sealed`."""

    guest: GuestId
    sighting: Sighting
    sealed: int = 0
    reason: str = ""


class Answer(Record):
    """The result of one command. Only the fields of its kind are set."""

    outcome: Outcome
    reason: str = ""
    testimony: tuple[Testimony, ...] = ()  # testify; also stop, clean, and a start that failed
    answered: dict[str, bool] = {}  # probe: address -> whether anything came back
    definition: Definition | None = None  # describe
    protected_version: int = 0  # protect
    hook: HookState | None = None  # prove_hook, protect
