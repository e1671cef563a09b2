"""Clones of guests for a drill: what their host tells of them, and the proof of what was left alone.

A clone is a copy of a running guest's disks as they were at one moment, booted under a name and an id of its own, in a
network that ends on its host. It is nobody's copy of the guest: no promise about one copy counts it.
Not here: what is asked of an agent (`dr.model.commands`), how a drill goes (`dr.core.playbooks`).
"""

from __future__ import annotations

from enum import StrEnum

from dr.model.base import GuestId, HostName, Record
from dr.model.checks import Check, CheckResult


class CloneMade(Record):
    """The disks of one clone are whole. `point` is wall time: all that they hold was written before it."""

    guest: GuestId
    clone: GuestId  # the id of its domain
    domain: str  # and its name
    point: float
    took_s: float
    size_b: int  # that the copies take
    left_out: tuple[str, ...] = ()  # what the guest has and its clone has not, a few words each


class Kept(Record):
    """Whether a guest that was cloned is as it was before: the same QEMU with the same disks, no job left on it."""

    guest: GuestId
    name: str
    ok: bool
    why: str  # what was looked at, or what is different


class BubbleSeen(Record):
    """What hung on the network of a drill while it was there. Strangers: anything but its clones and its own probe."""

    bridge: str
    ports: tuple[str, ...]
    strangers: tuple[str, ...] = ()


class DrillEnd(Record):
    """What is left of a drill on one host once it was ended there: nothing."""

    kept: tuple[Kept, ...] = ()
    bubble: BubbleSeen | None = None  # None: there was none, or nobody knows any more what hung on it
    removed: tuple[str, ...] = ()  # domains, images and networks, as people know them
    why: str = ""  # the host ended it by itself, before it was told to


class CloneState(StrEnum):
    """How far a clone is, as its drill knows."""

    MAKING = "making"
    MADE = "made"
    BOOTING = "booting"
    RUNNING = "running"
    FAILED = "failed"


class Clone(Record):
    """One clone of a drill. Times are leader time."""

    guest: GuestId
    name: str  # the guest's
    host: HostName  # where it is made, and runs
    asked: float  # when it was first asked for
    generation: int = 0  # the guest's, then
    state: CloneState = CloneState.MAKING
    made: CloneMade | None = None
    boot_at: float = 0.0  # its start was asked for
    runs_at: float = 0.0  # its domain runs
    passed_at: float = 0.0  # its checks have passed, in the newest step that makes them
    worked_at: float = 0.0  # and when they did for the first time
    checks: tuple[Check, ...] = ()  # what it has to pass, as its guest's policy said when it was asked for
    checked: int = 0  # so many of its guest's checks have passed, in their order
    again_at: float = 0.0  # it is asked nothing before that
    results: tuple[CheckResult, ...] = ()  # of each check its last one
    text: str = ""  # what it waits for, or why it failed


class Ended(Record):
    """What a drill has done on one host, once its end there was asked for."""

    end: DrillEnd | None = None  # None: it has not said that nothing is left
    again_at: float = 0.0  # it is not asked again before that
    text: str = ""
