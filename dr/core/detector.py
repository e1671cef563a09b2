"""Failure detection: how late is late, what the evidence says, and when to distrust ourselves. Pure functions.

Late is only a suspicion. The verdict comes from a table over link, witnesses and power; the brake and the
missing witness say when not to act on it at all.
"""

from __future__ import annotations

from enum import StrEnum

from dr.core.state import Draft
from dr.core.volatile import View
from dr.model.base import HostName
from dr.model.evidence import DeviceReading, Power, PowerReport
from dr.model.policy import Timers
from dr.model.records import DeviceIdentity, HostPhase, HostRecord


class Peers(StrEnum):
    """What witnesses say. Silence counts only from a witness that itself answered."""

    ANSWERS = "answers"
    SILENT = "silent"
    NONE = "none"  # nobody could look: the coordinator may be the one that is blind


class Verdict(StrEnum):
    LIVE = "live"
    AGENT_LOST = "agent_lost"
    FENCE = "fence"
    DEAD = "dead"
    HOLD = "hold"


# (link is up, peers, power) -> verdict and the reason in words. Storage beat: comes with its own column later.
VERDICTS: dict[tuple[bool, Peers, Power], tuple[Verdict, str]] = {
    **{(True, peers, power): (Verdict.LIVE, "its agent answers") for peers in Peers for power in Power},
    (False, Peers.ANSWERS, Power.ON): (
        Verdict.AGENT_LOST,
        "the host answers its peers, only its agent is silent",
    ),
    (False, Peers.ANSWERS, Power.UNKNOWN): (
        Verdict.AGENT_LOST,
        "the host answers its peers, only its agent is silent (power not readable)",
    ),
    (False, Peers.ANSWERS, Power.OFF): (
        Verdict.HOLD,
        "evidence contradicts itself: power says off, yet the host answers its peers",
    ),
    (False, Peers.SILENT, Power.ON): (Verdict.FENCE, "silent to agent link and peers, power is on"),
    (False, Peers.SILENT, Power.UNKNOWN): (
        Verdict.FENCE,
        "silent to agent link and peers, power not readable",
    ),
    (False, Peers.SILENT, Power.OFF): (Verdict.DEAD, "silent to agent link and peers, and its power is off"),
    (False, Peers.NONE, Power.ON): (
        Verdict.HOLD,
        "no live witness could look: the coordinator may be the blind one",
    ),
    (False, Peers.NONE, Power.UNKNOWN): (
        Verdict.HOLD,
        "no live witness could look: the coordinator may be the blind one",
    ),
    (False, Peers.NONE, Power.OFF): (
        Verdict.HOLD,
        "its power is said to be off, and no live witness could look whether that is so",
    ),
}


def late_after_s(timers: Timers, view: View, heartbeat_s: float) -> float:
    """How long silence of this link may last before it is late, in seconds.

    Two beats plus a multiple of the measured deviation, within the configured floor and ceiling.
    """
    interval = max(view.interval, heartbeat_s)
    wanted = 2 * interval + timers.jitter_factor * view.deviation
    return min(max(wanted, timers.late_floor_s), timers.late_ceiling_s)


def observe_beat(view: View, now: float) -> tuple[float, float]:
    """New (mean interval, mean deviation) after a message now; exponential averages as TCP does (RFC 6298)."""
    if view.heard == 0 or now - view.heard > 5.0:
        return view.interval, view.deviation
    gap = now - view.heard
    if view.interval == 0:
        return gap, 0.0
    deviation = 0.75 * view.deviation + 0.25 * abs(gap - view.interval)
    return 0.875 * view.interval + 0.125 * gap, deviation


def stalled_s(draft: Draft) -> float:
    """How long our own loop has stood still, as far as no tick has told yet: beats may lie unread behind this event."""
    return draft.now - draft.ticked_at if draft.ticked_at else 0.0


def blind(draft: Draft) -> bool:
    """Whether the coordinator has just started or stood still, so that what it did not hear says nothing."""
    return draft.now < draft.quiet_until or stalled_s(draft) > draft.config.timers.gap_s


def is_late(draft: Draft, host: HostRecord) -> bool:
    """Whether this host's link is silent for too long.

    Never during the quiet time after our own start or gap; and our own lag is taken off its silence.
    """
    if draft.now < draft.quiet_until:
        return False
    view = draft.view(host.name)
    timers = draft.config.timers
    last = max(view.heard, draft.quiet_until - timers.settle_s)
    lag_s = max(draft.lag_s, stalled_s(draft))
    return draft.now - last - lag_s > late_after_s(timers, view, timers.heartbeat_s)


def peers_say(view: View) -> Peers:
    """The witnesses' answer in this round of looks."""
    if any(look.answered for look in view.looks.values()):
        return Peers.ANSWERS
    if any(look.answered is False and look.witness for look in view.looks.values()):
        return Peers.SILENT
    return Peers.NONE


def power_says(draft: Draft, host: HostRecord) -> Power:
    """Off only if every device of one level says off and each is proven to be this host's."""
    view = draft.view(host.name)
    if view.power_at < view.round_at:
        return Power.UNKNOWN
    if any(not why_not_off(draft, host.name, report) for report in view.power):
        return Power.OFF
    if any(reading.power is Power.ON for report in view.power for reading in report.readings):
        return Power.ON
    return Power.UNKNOWN


def why_not_off(draft: Draft, host: HostName, report: PowerReport) -> list[str]:
    """Why this report does not prove that the host is without power; empty = it does.

    Every device of the level must say off, and each must have shown in `dr fence test` that it really
    switches this host, with the same parameters and the same BMC as now.
    """
    levels = draft.policy(host).fencing
    if report.level >= len(levels):
        return [f"fencing level {report.level + 1} is no longer configured"]
    readings = {reading.device: reading for reading in report.readings}
    why: list[str] = [report.reason] if report.reason and not report.readings else []
    record = draft.host(host)
    if record is not None and (doubt := may_thaw(record)):
        why.append(f"{doubt}: a thawed image would run its guests again")
    for device in levels[report.level].devices:
        reading = readings.get(device.name)
        if reading is None:
            why.append(f"{device.name} was not read")
            continue
        if reading.power is not Power.OFF:
            why.append(
                f"{device.name} says {reading.power}{f' ({reading.reason})' if reading.reason else ''}"
            )
        identity = draft.identity(host, device.name)
        if (
            reading.power is not Power.UNKNOWN or identity is None
        ):  # a device that was not reached shows no GUID
            why += why_not_identical(identity, reading)
    return why


def may_thaw(host: HostRecord) -> str:
    """Why this host, being off, may only sleep (rule 5); "" = off means over."""
    if not host.facts.hibernation_masked:
        return "hibernation is not masked there"
    if host.hearsay:
        return "that hibernation is masked there is only known from an older copy of the store"
    return ""


def why_not_identical(identity: DeviceIdentity | None, reading: DeviceReading) -> list[str]:
    """Why this device is not proven to be the host's; empty = it is."""
    if identity is None:
        return [f"{reading.device} was never proven: run dr fence test"]
    if reading.fingerprint != identity.fingerprint:
        return [f"{reading.device} was proven with other parameters: run dr fence test again"]
    if reading.guid != identity.guid:
        return [
            f"{reading.device} is not the device that was proven (it shows GUID {reading.guid or 'none'}, "
            f"proven was {identity.guid or 'none'})"
        ]
    return []


def brake(draft: Draft) -> str:
    """Why nothing may be fenced now, or "". More than half of the hosts in trouble: the likeliest fault is here."""
    limits = draft.config.limits
    apart = (HostPhase.JOINING, HostPhase.MAINTENANCE)
    members = [host for host in draft.hosts() if host.phase not in apart]
    troubled = []
    for host in members:
        fenced_lately = any(draft.now - at < limits.brake_window_s for at in host.fenced_at)
        down = host.phase in (HostPhase.SUSPECT, HostPhase.FENCING) or (
            host.phase in (HostPhase.ONLINE, HostPhase.DRAINING, HostPhase.RETURNING) and is_late(draft, host)
        )
        if fenced_lately or (down and not host.leaving and power_says(draft, host) is not Power.OFF):
            troubled.append(host.name)
    if 2 * len(troubled) > len(members):
        return (
            f"{len(troubled)} of {len(members)} hosts ({', '.join(troubled)}) are silent or were fenced within "
            f"{limits.brake_window_s:.0f} s: more than half, so the fault is likelier here than there"
        )
    return ""
