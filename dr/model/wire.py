"""Messages between agent and coordinator, one JSON object a frame.

The agent dials out; both sides have shown certificates of the cluster's CA before the first frame, and the
host's name is taken from the certificate, never from a message. Order: Hello, Welcome (or Refused), then
Beat/Ack and Command/Result as they come.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dr.model.base import BootId, GuestId, Record
from dr.model.commands import Answer, Body, ProtectedEntry
from dr.model.facts import DirtySample, GuestFacts, HostFacts, Progress, Reading

PROTOCOL = 1  # one older or newer is accepted, see `speaks`
MESSAGE_BYTES_MAX = 8 * 1024 * 1024


def speaks(protocol: int) -> bool:
    """Whether a peer of that protocol version can be understood: the same, one older or one newer."""
    return abs(protocol - PROTOCOL) <= 1


LeaveKind = Literal["", "shutdown", "reboot"]


class Memory(Record):
    """What an agent durably remembers, told at each hello; it shows a restored or second coordinator."""

    epoch: int = 0
    leader_id: str = ""
    revision: int = 0
    protected_version: int = 0
    entries: tuple[ProtectedEntry, ...] = ()
    sealed: dict[GuestId, int] = {}


class Hello(Record, tag="hello"):
    """First frame of an agent."""

    protocol: int
    version: str
    cluster: str
    boot_id: BootId
    nonce: str  # the agent's own, new for each of its process starts
    memory: Memory
    facts: HostFacts
    guests: tuple[GuestFacts, ...] | None = None  # None: libvirt does not tell; never taken for an empty host
    health: tuple[Reading, ...] = ()
    leaving: LeaveKind = ""  # what this boot has begun


class Beat(Record, tag="beat"):
    """I live. `echo` is the newest nonce that came from the coordinator: it dates this beat."""

    seq: int
    echo: str = ""


class Report(Record, tag="report"):
    """Something changed on the host; parts that did not change are None."""

    facts: HostFacts | None = None
    guests: tuple[GuestFacts, ...] | None = None
    health: tuple[Reading, ...] | None = None
    moves: tuple[Progress, ...] | None = None  # all that go out of this host
    samples: tuple[DirtySample, ...] | None = None  # only those that were not told in this session yet
    clock_s: float = 0.0  # of the agent as it says this, from any moment on


class Result(Record, tag="result"):
    """The end of a command."""

    command: str
    answer: Answer


class Leaving(Record, tag="leaving"):
    """The host goes down, or (with no kind) stays after all. Guests that end from here on are ended by it."""

    kind: LeaveKind


class Goodbye(Record, tag="goodbye"):
    """The agent process stops on purpose (upgrade, restart, host shutdown)."""

    reason: str


class Welcome(Record, tag="welcome"):
    """The coordinator takes the session."""

    protocol: int
    version: str
    cluster: str
    epoch: int
    leader_id: str
    revision: int
    session: str  # nonce; tickets of this session carry it
    nonce: str
    heartbeat_s: float


class Ack(Record, tag="ack"):
    """Answer to a beat, with a fresh nonce to echo."""

    seq: int
    nonce: str
    revision: int


class Command(Record, tag="command"):
    """Do this. The agent remembers ids of commands with a ticket across its own restart."""

    id: str
    epoch: int
    leader_id: str
    session: str
    body: Body


class Refused(Record, tag="refused"):
    """The coordinator does not take the session; the sentence says why and what to do."""

    reason: str


FromAgent = Hello | Beat | Report | Result | Leaving | Goodbye
FromCoordinator = Welcome | Ack | Command | Refused

encode = msgspec.json.Encoder().encode
decode_from_agent = msgspec.json.Decoder(FromAgent).decode
decode_from_coordinator = msgspec.json.Decoder(FromCoordinator).decode
