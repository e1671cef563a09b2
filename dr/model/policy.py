"""Settings that decisions read: timers, limits, fencing levels, guest policy.

Defaults live here and nowhere else; the configuration file (dr.cli) only overrides them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, cast

import msgspec
from msgspec import UNSET, UnsetType

from dr.model.base import HostName, Record
from dr.model.checks import Check

HEARTBEAT_S_MIN = 0.02
# An agent dials anew after 10 s in which nothing came from the coordinator, which answers each beat: so two fit in.
HEARTBEAT_S_MAX = 5.0


StopMode = Literal["shutdown", "destroy"]


class Timers(Record):
    """All in seconds. Figures measured in the lab are in docs/operations.md."""

    heartbeat_s: float = 0.5
    late_floor_s: float = 1.25  # silence shorter than this is never late
    late_ceiling_s: float = 5.0  # silence longer than this is late whatever the jitter was
    jitter_factor: float = 4.0  # late = two intervals + factor x measured deviation, within floor and ceiling
    settle_s: float = 5.0  # after a start or a gap in the coordinator's own clock, unheard is not late
    gap_s: float = 1.0  # own event loop stalled longer than this: the coordinator was blind
    probe_s: float = 1.5  # an unanswered request to a witness counts as no answer after this
    probe_every_s: float = 2.0  # how often a host that is down is looked at again
    fence_s: float = 30.0  # one whole fencing level, all devices, status before and after
    fence_retry_s: float = 5.0  # doubles up to fence_retry_max_s
    fence_retry_max_s: float = 60.0
    start_s: float = 60.0  # a start ticket without an answer after this is unknown
    stop_s: float = 120.0  # a clean shutdown may take this long
    testify_s: float = 10.0
    restart_backoff_s: float = 5.0  # doubles with each restart in the window, up to restart_backoff_max_s
    restart_backoff_max_s: float = 300.0
    boot_after_s: float = 300.0  # a guest waits at most so long for those that start before it
    check_s: float = (
        60.0  # after a start or a move, a guest's checks are waited for so long before its job ends
    )
    health_s: float = 30.0  # how often the checks of a guest are made that is looked after (on_unhealthy)
    isolation_s: float = 15.0  # a host that hears nobody for this long shuts down guests whose policy says so
    leave_s: float = 300.0  # a host that announced its shutdown may take this long to go down
    leave_drain_s: float = 600.0  # its guests are moved away first for at most this long (on_leave: migrate)
    hold_s: float = 1800.0  # its guests wait this long for it to come back (on_leave: hold)
    failback_after_s: float = 300.0  # a guest goes home (failback) when its home has been well for so long
    recovery_retry_s: float = 5.0  # a guest that fitted nowhere is tried again at least this often


class Limits(Record):
    """Bounds."""

    starts_per_host: int = 4
    moves_out_per_host: int = 2
    moves_in_per_host: int = 2
    migration_mib_s: int = 0  # that a host's link carries of live migrations, each way; 0 = not known
    unhealthy_rounds: int = 3  # so many rounds of its checks that fail in a row: it is unhealthy
    fence_attempts_per_level: int = 2
    fences_per_window: int = 3  # a host fenced more often than this is quarantined
    returns_per_window: int = 6  # so is one that came back with a new boot more often, unless most hosts did
    fence_window_s: float = 3600.0
    brake_window_s: float = 600.0  # hosts late, suspect or fenced within this count for the brake
    memory_reserve_mib: int = 512  # kept free on every host
    memory_overcommit: float = 1.0  # memory of guests over that of the host, above the reserve
    cpu_overcommit: float = 8.0  # virtual CPUs over CPUs of the host
    guests_per_host: int = 0  # 0 = no limit
    definitions_kept: int = 10


class FenceDevice(Record):
    """One fence agent with its parameters. Secrets are in `parameters` and go to the agent on stdin only."""

    name: str
    agent: str  # "fence_ipmilan"
    parameters: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"FenceDevice(name={self.name!r}, agent={self.agent!r})"  # parameters hold secrets

    __str__ = __repr__


class FenceLevel(Record):
    """Devices that must all be off for the level to count (redundant power supplies)."""

    devices: tuple[FenceDevice, ...]


class HostPolicy(Record):
    """What the configuration says of one host."""

    name: HostName
    addresses: tuple[str, ...] = ()  # where witnesses look for it; empty: what its agent reports
    fencing: tuple[FenceLevel, ...] = ()
    power_on_after_fence: bool = True
    memory_reserve_mib: int | None = None  # None, here and below: as `Limits` says
    memory_overcommit: float | None = None
    cpu_overcommit: float | None = None
    guests_max: int | None = None
    migration_mib_s: int | None = None
    on_leave: OnLeave | None = None  # None: as `Settings.on_leave` says
    on_critical: OnCritical | None = None  # None: as `Settings.on_critical` says
    coordinator_here: bool = False  # the coordinator runs on this host: it is never fenced from here
    labels: dict[str, str] = {}


class Isolation(StrEnum):
    """What becomes of a guest whose host nobody hears although its power is on. One `leave` on a host rules it."""

    LEAVE = "leave"  # it keeps running where it is; its host is not fenced for it
    SHUT_DOWN = "shut_down"  # its own agent shuts it down first, then the host is fenced
    FENCE = "fence"  # the host is fenced, and the guest started elsewhere


class OnUnhealthy(StrEnum):
    """What follows when a guest runs, and its checks fail after they had passed."""

    IGNORE = "ignore"  # its checks are made only while somebody waits for them
    ALERT = "alert"  # they are made all the time, and people are told
    RESTART = "restart"  # and it is restarted, within the bounds of a crash


class After(Record):
    """A guest that must be up before another one starts."""

    guest: str  # its name
    until: Literal["running", "check"] = "running"  # "check": its policy's checks pass


class GuestPolicy(Record):
    """How a protected guest is treated."""

    priority: int = 100  # higher starts first
    max_restarts: int = 2
    restart_window_s: float = 3600.0
    max_relocations: int = 2
    relocation_window_s: float = 3600.0
    failback: bool = False  # goes home, to the host that its rules like best, when that is well again
    boot_after: tuple[After, ...] = ()
    isolation: Isolation = Isolation.FENCE
    checks: tuple[Check, ...] = ()  # how to tell that it does its work: all of them pass
    on_unhealthy: OnUnhealthy = OnUnhealthy.IGNORE
    move_s: float = 3600.0  # a live migration that has not ended by then is called off
    move_downtime_s: float = (
        1.0  # QEMU may let it stand still for so long at the switch-over; 0.3 is tried first
    )
    move_auto_converge: bool = True  # QEMU may slow its CPUs down while it makes memory dirty too fast
    move_mib_s: int = 0  # bandwidth of its live migration; 0: as libvirt has it (`virsh migrate-setspeed`)
    move_streams: int = 1  # connections that its memory is sent over
    # With disks that only its host has: it is protected all the same, moves with them, and starts nowhere else.
    local_disks: bool = False
    remove_old_disks: bool = (
        False  # that it left behind, once it is proven to run elsewhere; else they are set aside
    )

    @property
    def sending(self) -> Sending:
        """What a migration is begun with."""
        return Sending(
            auto_converge=self.move_auto_converge, mib_s=self.move_mib_s, streams=self.move_streams
        )


class Sending(Record):
    """How a live migration is sent; the meaning of each is that of the guest's policy."""

    auto_converge: bool = False
    mib_s: int = 0
    streams: int = 1


class PolicyChange(Record):
    """What is to be different in a guest's policy; what is not set stays as it is."""

    priority: int | UnsetType = UNSET
    max_restarts: int | UnsetType = UNSET
    restart_window_s: float | UnsetType = UNSET
    max_relocations: int | UnsetType = UNSET
    relocation_window_s: float | UnsetType = UNSET
    failback: bool | UnsetType = UNSET
    boot_after: tuple[After, ...] | UnsetType = UNSET
    isolation: Isolation | UnsetType = UNSET
    checks: tuple[Check, ...] | UnsetType = UNSET
    on_unhealthy: OnUnhealthy | UnsetType = UNSET
    move_s: float | UnsetType = UNSET
    move_downtime_s: float | UnsetType = UNSET
    move_auto_converge: bool | UnsetType = UNSET
    move_mib_s: int | UnsetType = UNSET
    move_streams: int | UnsetType = UNSET
    local_disks: bool | UnsetType = UNSET
    remove_old_disks: bool | UnsetType = UNSET

    def fields(self) -> dict[str, Any]:
        """Those that are set."""
        values: dict[str, Any] = msgspec.structs.asdict(cast(Any, self))
        return {name: value for name, value in values.items() if value is not UNSET}


class HostRule(Record, tag="host"):
    """Which hosts guests should (or must) run on."""

    name: str
    guests: tuple[str, ...]  # names, or "label:key=value"
    hosts: dict[HostName, int]  # priority: a higher one is liked better; hosts that are not named have 0
    strict: bool = False  # strict: nowhere else, even if that means not at all


class GuestRule(Record, tag="guest"):
    """Guests that should (or must) share a host, or keep apart."""

    name: str
    guests: tuple[str, ...]  # names, or "label:key=value"
    kind: Literal["together", "apart"]
    strict: bool = False


Rule = HostRule | GuestRule


class OnLeave(StrEnum):
    """What becomes of the guests of a host that announces its shutdown or reboot."""

    MIGRATE = "migrate"  # it is drained first, within a limit
    HOLD = "hold"  # they stop with it and start there again when it is back
    FAILOVER = "failover"  # they are started elsewhere as soon as it is proven off


class OnCritical(StrEnum):
    """What becomes of the guests of a host whose own hardware fails."""

    ALERT = "alert"  # people are told
    EVACUATE = "evacuate"  # and the host is drained, one at a time
