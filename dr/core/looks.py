"""Looking at a host whose link is silent: which witnesses, what they said, when the round is complete.

A round asks up to three online peers to probe every address of the host, lets the coordinator probe it too
(which can show life, never death), and reads its fence devices. All in parallel, none changes anything.
"""

from __future__ import annotations

from itertools import islice

from dr.core.detector import Peers, peers_say, power_says
from dr.core.state import Draft
from dr.core.volatile import LOOKS, LookSeen, Pending
from dr.model.base import HostName
from dr.model.commands import Answer, Probe
from dr.model.effects import Look, ReadPower, Send
from dr.model.evidence import DeviceReading, Power, PowerReport
from dr.model.records import HostPhase, HostRecord

LOOK_S = 0.5  # window of a look: three echoes in it, the last late enough to catch a host that was frozen for a second
WITNESSES_MAX = 3


def addresses_of(draft: Draft, host: HostRecord) -> tuple[str, ...]:
    """Where the host can be looked for: the configured addresses, else all that its agent reported."""
    configured = draft.policy(host.name).addresses
    return configured or tuple(sorted(set(host.facts.addresses.values())))


def witnesses(draft: Draft, host: HostRecord) -> list[HostRecord]:
    """Peers that may testify about this host: in use and heard lately themselves; the freshest first.

    Not those in maintenance or going down: their other links may be down already.
    """
    fresh_s = 3 * draft.config.timers.heartbeat_s
    live = (
        peer
        for name in _heard_lately(draft, fresh_s)
        if name != host.name
        and (peer := draft.host(name)) is not None
        and not peer.leaving
        and peer.phase in (HostPhase.ONLINE, HostPhase.DRAINING, HostPhase.RETURNING)
        and draft.view(peer.name).session
        and draft.view(peer.name).acked_epoch == draft.cluster.epoch
    )
    return list(islice(live, WITNESSES_MAX))


def _heard_lately(draft: Draft, fresh_s: float) -> list[HostName]:
    """The freshest first, as this decision first asked for it: many hosts may fall silent at once."""
    kept: list[HostName] | None = draft.memo.get("heard lately")
    if kept is None:
        heard = {name: draft.view(name).heard for name in draft.host_names()}
        lately = [name for name, at in heard.items() if draft.now - at <= fresh_s]
        kept = draft.memo["heard lately"] = sorted(lately, key=lambda name: (-heard[name], name))
    return kept


def begin_round(draft: Draft, host: HostRecord, window_s: float, *, power: bool = True) -> None:
    """Ask everyone; answers come back as events and end in `complete`."""
    timers = draft.config.timers
    addresses = addresses_of(draft, host)
    looks: dict[HostName, LookSeen] = {}
    unheard_at = _unheard_at(draft, host)
    for key, pending in list(
        draft.pendings_of(host.name)
    ):  # of an earlier round: they say nothing about this one
        if pending.kind in LOOKS and pending.detail == host.name:
            draft.forget(key)
    deadline = draft.now + max(timers.probe_s, 2 * window_s)
    for peer in witnesses(draft, host) if addresses else []:
        key = draft.next_id("probe")
        looks[peer.name] = LookSeen(witness=peer.name, asked=draft.now)
        draft.wait_for(
            key, Pending(kind="probe", host=peer.name, at=draft.now, deadline=deadline, detail=host.name)
        )
        body = Probe(target=host.name, addresses=addresses, window_s=window_s)
        draft.effect(Send(id=key, host=peer.name, session=draft.view(peer.name).session, body=body))
    if addresses:
        key = draft.next_id("look")
        looks[""] = LookSeen(witness="", asked=draft.now)
        draft.wait_for(key, Pending(kind="look", host="", at=draft.now, deadline=deadline, detail=host.name))
        draft.effect(Look(id=key, host=host.name, addresses=addresses, window_s=window_s))
    levels = draft.policy(host.name).fencing
    if power and levels:
        key = draft.next_id("power")
        draft.wait_for(
            key, Pending(kind="power", host=host.name, at=draft.now, deadline=deadline, detail=host.name)
        )
        draft.effect(ReadPower(id=key, host=host.name, levels=levels))
    draft.put_view(host.name, round_at=draft.now, looks=looks, unheard_at=unheard_at)


def _unheard_at(draft: Draft, host: HostRecord) -> float:
    """When the round began that ends here, if it is complete and showed no life; else 0."""
    silent = peers_say(draft.view(host.name)) is not Peers.ANSWERS and power_says(draft, host) is not Power.ON
    return draft.view(host.name).round_at if silent and not in_round(draft, host.name) else 0.0


def in_round(draft: Draft, host: HostName) -> bool:
    """Whether answers are still out."""
    return any(
        pending.kind in LOOKS and pending.detail == host and draft.now < pending.deadline
        for _, pending in draft.pendings_of(host)
    )


def complete(draft: Draft, host: HostName) -> bool:
    """Whether the round can be judged: somebody heard the host, or everyone answered or ran out of time."""
    return peers_say(draft.view(host)) is Peers.ANSWERS or not in_round(draft, host)


def probe_answered(draft: Draft, witness: HostName, target: HostName, answer: Answer) -> None:
    """A witness ended its probe."""
    _saw(draft, witness, target, answer.answered)


def look_answered(draft: Draft, target: HostName, answered: dict[str, bool]) -> None:
    """The coordinator's own probe ended."""
    _saw(draft, "", target, answered)


def _saw(draft: Draft, witness: HostName, target: HostName, answered: dict[str, bool]) -> None:
    view = draft.view(target)
    look = view.looks.get(witness)
    if look is None or not answered:  # an empty answer is a probe that could not be made: it says nothing
        return
    seen = LookSeen(witness=witness, asked=look.asked, ended=draft.now, answered=any(answered.values()))
    draft.put_view(target, looks=view.looks | {witness: seen})


def power_answered(draft: Draft, host: HostName, reports: tuple[PowerReport, ...]) -> None:
    """Fence devices were read."""
    draft.put_view(host, power=reports, power_at=draft.now, shown=shown(draft, host, reports))


def shown(draft: Draft, host: HostName, reports: tuple[PowerReport, ...]) -> dict[str, DeviceReading]:
    """What each device showed of itself when it answered last, these readings included."""
    readings = (reading for report in reports for reading in report.readings)
    return draft.view(host).shown | {r.device: r for r in readings if r.power is not Power.UNKNOWN}


def in_words(draft: Draft, host: HostName) -> str:
    """The evidence of the present round, for people."""
    view = draft.view(host)
    parts = [f"agent link silent for {draft.now - view.heard:.1f} s" if view.heard else "agent not heard yet"]
    for name, look in sorted(view.looks.items()):
        who = name or "coordinator"
        said = {True: "hears it", False: "hears nothing", None: "gave no answer"}[look.answered]
        parts.append(f"{who} {said}")
    for reading in (reading for report in view.power for reading in report.readings):
        if view.power_at >= view.round_at:
            parts.append(f"{reading.device} says {reading.power}")
        else:  # of an earlier round: no evidence now
            parts.append(f"{reading.device} said {reading.power} {draft.now - view.power_at:.0f} s ago")
    return ", ".join(parts)
