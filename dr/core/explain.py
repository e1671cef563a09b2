"""Why a decision fell as it did: it is made again, by the same `decide`, and what that read is said in words.

Here: evidence, verdicts, reasons against fencing, sets, placement. Not here: how they are shown (`dr.cli.sim`), how a
decision is kept (`core.saved`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from dr.core import fencing, looks, placement
from dr.core.decide import decide
from dr.core.detector import VERDICTS, Verdict, is_late, late_after_s, peers_say, power_says
from dr.core.saved import Saved, copied
from dr.core.state import Draft, State
from dr.model.base import GuestId, HostName, Record
from dr.model.commands import Ticket
from dr.model.effects import Effect, Notify, Reply, Send, SendStart
from dr.model.events import Answered, Ask, Event
from dr.model.records import GuestPhase, GuestRecord, HostPhase, HostRecord, Place


class HostWhy(Record):
    """One host: what it was, what it is, and what is known of it."""

    name: HostName
    before: str  # phase; "" = it was not there
    after: str  # "" = it is gone
    reason: str = ""
    conditions: tuple[str, ...] = ()
    link: str = ""
    evidence: str = ""
    verdict: str = ""  # the row of the detection table
    not_fenced: tuple[str, ...] = ()  # why it is not fenced by itself
    concerned: bool = False  # this decision was about it, or it is not well


class Option(Record):
    """One host for one guest: its score (lower is better), or what stands against it."""

    host: HostName
    score: float | None = None
    why_not: tuple[str, ...] = ()


class GuestWhy(Record):
    """One guest that the decision was about, or that waits."""

    id: GuestId
    name: str
    before: str
    after: str
    desired: str = ""
    reason: str = ""
    set_before: tuple[str, ...] = ()
    set_after: tuple[str, ...] = ()
    waits: str = ""
    starts_on: HostName = ""
    options: tuple[Option, ...] = ()


class Explanation(Record):
    """All of it."""

    id: str
    wall: float
    made_by: str  # the version of dr
    now: float
    epoch: int
    event: str  # its kind
    event_text: str
    notes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    hosts: tuple[HostWhy, ...] = ()
    guests: tuple[GuestWhy, ...] = ()


def explain(saved: Saved) -> Explanation:
    """Decide again, and say why. Raises what `decide` raises."""
    draft = decide(saved.state, saved.event, saved.now)
    changes = draft.changes()
    return Explanation(
        id=saved.id,
        wall=saved.wall,
        made_by=saved.version,
        now=saved.now,
        epoch=draft.cluster.epoch,
        event=_tag(saved.event),
        event_text=_event(saved.state, saved.event),
        notes=tuple(f"[{note.kind}] {note.text}" for note in changes.notes),
        changes=tuple(_changes(draft)),
        effects=tuple(effect_in_words(effect) for effect in draft.decision().effects),
        hosts=tuple(_hosts(draft, saved.event)),
        guests=tuple(_guests(draft, saved.event)),
    )


# ---- what came in, what went out


def _tag(record: Record) -> str:
    return str(cast(Any, record).__struct_config__.tag)


def _fields(record: Record, *without: str) -> str:
    """`name value` of every field that says something; large ones are left out."""
    shown = []
    for name in cast(Any, record).__struct_fields__:
        value = getattr(record, name)
        if name in without or value in ("", None, (), {}):
            continue
        text = str(value)
        shown.append(f"{name} {text}" if len(text) <= 200 else f"{name} …")
    return ", ".join(shown)


def _event(state: State, event: Event) -> str:
    if isinstance(event, Answered):
        pending = state.pending.get(event.effect)
        asked = f"a {pending.kind}" if pending else "something nobody waits for any longer"
        answer = event.answer
        words = f"{event.host} answered {asked} ({event.effect}): {answer.outcome}"
        return f"{words}: {answer.reason}" if answer.reason else words
    if isinstance(event, Ask):
        return f"{event.by} asked: {_tag(event).removeprefix('ask_')}: {_fields(event, 'id', 'by')}"
    return f"{_tag(event).replace('_', ' ')}: {_fields(event)}".rstrip(": ")


def effect_in_words(effect: Effect) -> str:
    """One line for one effect."""
    match effect:
        case SendStart():
            ticket = effect.ticket
            return (
                f"start {ticket.name} on {effect.host}: ticket {ticket.id}, generation {ticket.generation}, "
                f"definition version {effect.version}"
            )
        case Send():
            given: Ticket | None = getattr(effect.body, "ticket", None)
            what = (
                f"{given.name}, generation {given.generation}" if given is not None else _fields(effect.body)
            )
            return f"{_tag(effect.body)} to {effect.host}: {what}".rstrip(": ")
        case Notify():
            word = "clear the alert" if effect.cleared else "alert people"
            return f"{word} {effect.alert.key}: {effect.alert.what}; {effect.alert.why}"
        case Reply():
            said = "; ".join(effect.blockers) or effect.message
            return f"answer {effect.id}: {'accepted' if effect.accepted else 'refused'}: {said}".rstrip(": ")
        case _:
            return f"{_tag(effect).replace('_', ' ')}: {_fields(effect, 'levels', 'devices')}"


def _changes(draft: Draft) -> Iterable[str]:
    changes, state = draft.changes(), draft.state
    if changes.cluster is not None:
        names = [
            f"{name} {getattr(state.cluster, name)!r} → {getattr(changes.cluster, name)!r}"
            for name in cast(Any, changes.cluster).__struct_fields__
            if getattr(state.cluster, name) != getattr(changes.cluster, name)
        ]
        yield f"cluster: {', '.join(names)}"
    for host in changes.hosts.values():
        before = state.hosts.get(host.name)
        yield f"host {host.name}: {_moved(before, host)}{host.reason}"
    for name in changes.hosts_removed:
        yield f"host {name}: removed"
    for key, guest in changes.guests.items():
        was = state.guests.get(key)
        if guest is None:
            yield f"guest {was.name if was else key}: no longer protected"
            continue
        places = f" (set: {_set(was.may_run_on if was else ())} → {_set(guest.may_run_on)})"
        same = was is not None and was.may_run_on == guest.may_run_on
        yield f"guest {guest.name}: {_moved(was, guest)}{guest.reason}{'' if same else places}"
    for operation in changes.operations.values():
        new = operation.id not in state.operations
        yield f"job {operation.id}: {'opened' if new else operation.state}: {operation.kind} {operation.subject}"
    for definition in changes.definitions:
        yield f"definition of {definition.guest}: version {definition.version} from {definition.reported_by}"
    for identity in changes.identities:
        yield f"device {identity.device} of {identity.host}: proven"
    for key, alert in changes.alerts.items():
        yield f"alert {key}: {'cleared' if alert is None else 'raised'}"


def _moved(before: HostRecord | GuestRecord | None, after: HostRecord | GuestRecord) -> str:
    if before is None:
        return f"new, {after.phase}: "
    return f"{before.phase} → {after.phase}: " if before.phase is not after.phase else f"{after.phase}: "


def _set(places: tuple[Place, ...]) -> str:
    return ", ".join(_places(places)) or "empty"


def _places(places: tuple[Place, ...]) -> tuple[str, ...]:
    return tuple(f"{place.host} (boot {place.boot_id}, generation {place.generation})" for place in places)


# ---- hosts


def _hosts(draft: Draft, event: Event) -> Iterable[HostWhy]:
    changes, state = draft.changes(), draft.state
    meant = {getattr(event, "host", "")} | {
        getattr(effect, "host", "") for effect in draft.decision().effects
    }
    for name in sorted(set(state.hosts) | set(changes.hosts)):
        before, host = state.hosts.get(name), draft.host(name)
        if host is None:
            yield HostWhy(name=name, before=before.phase if before else "", after="", concerned=True)
            continue
        late = is_late(draft, host)
        view = draft.view(name)
        moved = before is None or before.phase is not host.phase or before.reason != host.reason
        well = host.phase is HostPhase.ONLINE and not late and not host.conditions
        judged = late and bool(view.round_at)
        yield HostWhy(
            name=name,
            before=before.phase if before else "",
            after=host.phase,
            reason=host.reason,
            conditions=tuple(sorted(host.conditions)),
            link=_link(draft, host, late),
            evidence=looks.in_words(draft, name) if judged else "",
            verdict=_verdict(draft, host) if judged else "",
            not_fenced=tuple(fencing.why_not_fence(draft, host)) if late else (),
            concerned=moved or not well or name in meant,
        )


def _link(draft: Draft, host: HostRecord, late: bool) -> str:
    view, timers = draft.view(host.name), draft.config.timers
    patience = late_after_s(timers, view, timers.heartbeat_s)
    if not view.heard:
        return "not heard in this term"
    silent = f"heard {draft.now - view.heard:.2f} s ago, late after {patience:.2f} s"
    if draft.now < draft.quiet_until:
        silent += f"; nobody is late for another {draft.quiet_until - draft.now:.1f} s"
    return f"{'late' if late else 'in time'} ({silent}){'' if view.session else ', its session is gone'}"


def _verdict(draft: Draft, host: HostRecord) -> str:
    peers, power = peers_say(draft.view(host.name)), power_says(draft, host)
    verdict, meaning = VERDICTS[False, peers, power]
    row = f"{verdict}: link down, witnesses {peers}, power {power}: {meaning}"
    if verdict is not Verdict.AGENT_LOST and looks.in_round(draft, host.name):
        return f"{row} (so far: answers are still out)"
    return row


# ---- guests


def _guests(draft: Draft, event: Event) -> Iterable[GuestWhy]:
    changes, state = draft.changes(), draft.state
    pending = state.pending.get(getattr(event, "effect", ""))
    about = set(changes.guests) | {guest.id for guest in draft.unsettled()}
    about |= {pending.guest} if pending and pending.guest else set()
    named = set(getattr(event, "guests", None) or ()) if isinstance(event, Ask) else set()
    about |= {guest.id for guest in state.guests.values() if {guest.id, guest.name} & named}
    for host in draft.hosts():
        if host.phase in (HostPhase.SUSPECT, HostPhase.FENCING):
            about |= set(draft.guests_at(host.name))
    starts = {
        effect.ticket.guest: effect for effect in draft.decision().effects if isinstance(effect, SendStart)
    }
    after = copied(state)
    after.apply(draft)
    for guest_id in sorted(about):
        was, guest = state.guests.get(guest_id), draft.guest(guest_id)
        shown = guest or was
        if shown is None:
            continue
        start = starts.get(guest_id)
        options: Iterable[Option] = ()
        if guest is not None:
            later = list(starts)[list(starts).index(guest_id) :] if start else []
            held = set() if start else {place.host for place in guest.may_run_on}
            options = _options(_unplaced(after, state, draft.now, later), guest, held)
        yield GuestWhy(
            id=guest_id,
            name=shown.name,
            before=was.phase if was else "",
            after=guest.phase if guest else "",
            desired=shown.desired,
            reason=shown.reason,
            set_before=_places(was.may_run_on) if was else (),
            set_after=_places(guest.may_run_on) if guest else (),
            waits=_waits(draft, guest) if guest else "",
            starts_on=start.host if start else "",
            options=tuple(options),
        )


def _waits(draft: Draft, guest: GuestRecord) -> str:
    """What must happen before it may be started."""
    if guest.phase in (GuestPhase.RUNNING, GuestPhase.STOPPED, GuestPhase.STARTING):
        return ""
    if guest.may_run_on:
        names = ", ".join(sorted({place.host for place in guest.may_run_on}))
        return f"a proof that it does not run on {names}, or {names} to say that it does"
    if guest.phase is GuestPhase.RECOVERING and draft.now < guest.retry_at:
        return f"{guest.retry_at - draft.now:.1f} s, then it is tried again"
    if guest.phase is GuestPhase.RECOVERING:
        return "a host that can take it, or its turn: it may run nowhere now"
    return guest.reason


def _unplaced(after: State, before: State, now: float, later: list[GuestId]) -> Draft:
    """The decision as it stood when the first of these got its turn: they had no place yet."""
    draft = Draft(after, now)
    for each in later:
        draft.put_guest(before.guests[each])
        if found := draft.find_pending("start", guest=each):
            draft.forget(found[0])
    return draft


def _options(draft: Draft, guest: GuestRecord, held: set[HostName]) -> Iterable[Option]:
    """Every host for it, those that could take it first, the best of them at the top."""
    busy: dict[HostName, int] = {}
    for _, pending in draft.pendings():
        if pending.kind == "start":
            busy[pending.host] = busy.get(pending.host, 0) + 1
    limit = draft.config.limits.starts_per_host
    found = []
    for host in draft.hosts():
        why = placement.why_not(draft, guest, host)
        if host.name in held:
            why = ["it may run there already"]
        elif busy.get(host.name, 0) >= limit:
            why.append(f"has {limit} starts under way, no more at once")
        score = None if why else placement.score(draft, guest, host)
        found.append(Option(host=host.name, score=score, why_not=tuple(why)))
    return sorted(found, key=lambda option: (option.score is None, option.score or 0.0, option.host))
