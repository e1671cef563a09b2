"""Pre-flight: what is looked at before a guest is moved live, and what was found. Decided by `core.preflight`."""

from __future__ import annotations

from enum import StrEnum

from dr.model.base import Record


class Verdict(StrEnum):
    """What one check came to."""

    OK = "ok"
    WARNING = "warning"  # it goes, and somebody should know
    BLOCKED = "blocked"
    UNKNOWN = "unknown"  # nobody can say now


class CheckName(StrEnum):
    """All checks, in the order in which they are told: the guest and its host, then where it is to go."""

    STATE = "state"
    IO_ERROR = "io-error"
    AUTOMATION = "automation"
    STORE = "store"
    DEFINITION = "definition"
    SNAPSHOTS = "snapshots"
    BLOCK_JOBS = "block-jobs"
    BACKUP = "backup"
    HOST_DEVICES = "host-devices"
    VTPM = "vtpm"
    FILE_SYSTEMS = "file-systems"
    SECRETS = "secrets"
    ENCRYPTION = "encryption"
    SOURCE = "source"
    DESTINATION = "destination"
    RULES = "rules"
    ROOM = "room"
    MACHINE = "machine"
    CPU = "cpu"
    HUGE_PAGES = "huge-pages"
    NETWORKS = "networks"
    STORAGE = "storage"
    DISKS = "disks"
    NAME = "name"
    HEALTH = "health"
    CLOCK = "clock"


# Where a wrong guess may cost a guest, or run it twice. Elsewhere libvirt itself looks again before it sends anything.
COSTLY = frozenset({CheckName.STATE, CheckName.STORE})


class Check(Record):
    """One finding. Several of one name are several things to mend."""

    name: CheckName
    verdict: Verdict
    text: str  # one sentence
    fix: str = ""  # what to type or to do; empty where nothing is to be done

    @property
    def refuses(self) -> bool:
        """Whether no move begins over it."""
        return self.verdict is Verdict.BLOCKED or (self.verdict is Verdict.UNKNOWN and self.name in COSTLY)
