"""What operators want of guests for good: their desired state and their policy. All of the named guests, or none.

Each phase takes each wish: what cannot be done now is recorded and done when the facts allow it (`guests.step`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dr.core import definitions, dependencies, retries
from dr.core.asks import no, no_such, protected, yes
from dr.core.state import Draft
from dr.core.tables import GuestEvent, move_guest
from dr.model.base import changed
from dr.model.effects import Reply
from dr.model.events import Ask, AskSet
from dr.model.operations import Operation
from dr.model.policy import GuestPolicy, Isolation, OnUnhealthy
from dr.model.records import Desired, GuestPhase, GuestRecord, Homing
from dr.model.spelling import NONE, after_text, check_text

AT_REST = frozenset({GuestPhase.STOPPED, GuestPhase.ERROR})


def set_(draft: Draft, ask: AskSet) -> Reply:
    have, missing = protected(draft, ask.guests)
    if missing:
        return no_such(ask, "protected guest", missing)
    fields = ask.policy.fields()
    if ask.desired is None and not fields:
        return no(ask, "nothing to set: name a desired state or a part of the policy")
    policies: dict[str, GuestPolicy] = {guest.name: changed(guest.policy, **fields) for guest in have}
    why = dependencies.why_not(draft, policies)
    if ask.desired is Desired.STOPPED:
        why += [
            f"{guest.name} is being protected: {guest.reason}; stop it when that has ended"
            for guest in have
            if guest.phase is GuestPhase.PROTECTING
        ]
    if why:
        return no(ask, *why)
    have = [changed(guest, policy=policies[guest.name]) for guest in have]
    if "failback" in fields:  # what kept it away is forgotten: failed moves, a person's move
        have = [changed(guest, homing=Homing(left=guest.homing.left)) for guest in have]
        for guest in have:
            draft.clear_alert(f"guest/{guest.id}/failback")
    if "checks" in fields:  # what passed before were others
        have = [changed(guest, checked_at=0.0) for guest in have]
        draft.checked |= dict.fromkeys((guest.id for guest in have), None)
    for guest in have:
        draft.put_guest(guest)
        if "local_disks" in fields and guest.phase is not GuestPhase.PROTECTING:
            definitions.tell_tied(draft, guest)
    dependencies.mind_names(draft)
    operation = None
    match ask.desired:
        case Desired.RUNNING:
            operation = _want_running(draft, ask, have)
        case Desired.STOPPED:
            operation = _want_stopped(draft, ask, have)
        case Desired.IGNORED:
            _ignore(draft, ask, have)
        case None:
            pass
    said = f"{', '.join(guest.name for guest in have)}: {in_words(ask)}"
    return yes(ask, said, operation) if operation is not None else yes(ask, said)


def _want_running(draft: Draft, ask: AskSet, guests: list[GuestRecord]) -> Operation | None:
    down = [guest for guest in guests if guest.phase not in (GuestPhase.RUNNING, GuestPhase.PROTECTING)]
    for guest in guests:
        draft.clear_alert(f"guest/{guest.id}/hand-made")
        draft.put_guest(changed(guest, desired=Desired.RUNNING, removed=()))
    if not down:
        return None
    operation = draft.open_operation(
        "guest-start", ", ".join(g.name for g in down), ask.reason, ask.by, [g.id for g in down]
    )
    for guest in down:
        want_up(draft, changed(guest, desired=Desired.RUNNING), ask, operation)
    return operation


def kept_ignored(guest: GuestRecord, desired: Desired) -> Desired:
    """What a single start or stop leaves as its desired state: one that is left alone stays so."""
    return Desired.IGNORED if guest.desired is Desired.IGNORED else desired


def want_up(draft: Draft, guest: GuestRecord, ask: Ask, operation: Operation) -> None:
    """It is wanted running, whatever phase it is in: failures so far are forgotten, and waiting ends."""
    desired = kept_ignored(guest, Desired.RUNNING)
    guest = changed(
        guest,
        desired=desired,
        restarts=(),
        relocations=(),
        avoid=(),
        held_at="",
        retry_at=draft.now,
        waits_since=0.0,
    )
    for kind in ("error", "doubled", "unhealthy"):
        draft.clear_alert(f"guest/{guest.id}/{kind}")
    if guest.phase in AT_REST:
        move_guest(draft, guest, GuestEvent.START, f"{ask.by} asked to start it", operation=operation.id)
    else:
        draft.put_guest(guest)


def _want_stopped(draft: Draft, ask: AskSet, guests: list[GuestRecord]) -> Operation | None:
    up = [guest for guest in guests if guest.phase not in AT_REST]
    for guest in guests:
        draft.put_guest(changed(guest, desired=Desired.STOPPED))
    if not up:
        return None
    operation = draft.open_operation(
        "guest-stop", ", ".join(g.name for g in up), ask.reason, ask.by, [g.id for g in up]
    )
    for guest in up:
        if guest.phase is GuestPhase.RECOVERING:
            wanted_off = changed(guest, desired=Desired.STOPPED)
            retries.put_down(draft, wanted_off, f"{ask.by} asked to stop it")
    return operation


def _ignore(draft: Draft, ask: AskSet, guests: list[GuestRecord]) -> None:
    for guest in guests:
        ignored = changed(guest, desired=Desired.IGNORED)
        draft.put_guest(ignored)
        proven_off = guest.phase is GuestPhase.ERROR and not guest.may_run_on
        if guest.phase is GuestPhase.RECOVERING or proven_off:
            retries.put_down(draft, ignored, f"{ask.by} asked to leave it alone")


def in_words(ask: AskSet) -> str:
    """What is asked for, as it would be typed."""
    words = [f"desired {ask.desired}"] if ask.desired else []
    for name, value in ask.policy.fields().items():
        match value:
            case tuple():
                spell: Callable[[Any], str] = check_text if name == "checks" else after_text
                text = ",".join(spell(each) for each in value) or NONE
            case bool():
                text = "on" if value else "off"
            case Isolation() | OnUnhealthy():
                text = value.value
            case _:
                text = f"{value:g}"
        words.append(f"{name.replace('_', '-')} {text}")
    return ", ".join(words)
