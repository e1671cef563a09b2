"""What is known of how fast guests make memory dirty: taken over from their hosts, dated, and asked for afresh.

Agents measure by themselves every now and then; here is only asked for what is missing or old when a forecast or a
drain needs it. Nothing waits for an answer. Not here: what follows from it (`core.ladder`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dr.core.state import Draft
from dr.core.volatile import Sampled
from dr.model.base import HostName
from dr.model.commands import Sample
from dr.model.effects import Send
from dr.model.facts import DirtyPoint, DirtySample
from dr.model.records import GuestPhase, GuestRecord

OLD_S = 1200.0  # agents measure each guest more often
ASK_AGAIN_S = 60.0  # a host
ASKED_MAX = 8  # at once, of a host: those of the next minute


def note(draft: Draft, name: HostName, samples: tuple[DirtySample, ...], clock_s: float) -> None:
    """What that host measured, dated by its own clock."""
    view = draft.view(name)
    new = {
        each.guest: Sampled(points=each.points, at=draft.now - max(0.0, clock_s - each.taken_s))
        for each in samples
    }
    kept = {key: each for key, each in (view.samples | new).items() if key in view.guests}
    draft.put_view(name, samples=kept)


def carry(draft: Draft, guest: GuestRecord, source: HostName, to: HostName) -> None:
    """It has moved, and goes on there as it did: until it is measured again that is the best that is known."""
    last = draft.view(source).samples.get(guest.id)
    if last is not None:
        draft.put_view(to, samples=draft.view(to).samples | {guest.id: last})


def of(draft: Draft, guest: GuestRecord) -> tuple[DirtyPoint, ...]:
    """Points of its dirty curve; none: not measured."""
    last = draft.view(guest.holder).samples.get(guest.id)
    return last.points if last is not None else ()


def ask(draft: Draft, name: HostName, guests: Iterable[GuestRecord]) -> None:
    """Have those of them measured of whom nothing is known, or nothing new. Of those that are given first, first."""
    view, host = draft.view(name), draft.host(name)
    if host is None or not host.facts.samples_memory or draft.now - view.sampling_at < ASK_AGAIN_S:
        return
    if not view.session or view.acked_epoch != draft.cluster.epoch:
        return
    wanted = [
        guest.id
        for guest in guests
        if guest.phase is GuestPhase.RUNNING and guest.holder == name and _age_s(draft, guest) > OLD_S
    ]
    if wanted:
        draft.put_view(name, sampling_at=draft.now)
        body = Sample(guests=tuple(wanted[:ASKED_MAX]))
        draft.effect(Send(id=draft.next_id("sample"), host=name, session=view.session, body=body))


def _age_s(draft: Draft, guest: GuestRecord) -> float:
    last = draft.view(guest.holder).samples.get(guest.id)
    return draft.now - last.at if last is not None else float("inf")


def in_words(draft: Draft, guests: list[GuestRecord]) -> Iterator[tuple[str, list[str]]]:
    """What the figures of these rest on, a sentence each with the names that it is about."""
    ages = {guest.name: _age_s(draft, guest) for guest in sorted(guests, key=lambda each: each.name)}
    known = [age for age in ages.values() if age <= OLD_S]
    if known:
        measured = [name for name, age in ages.items() if age <= OLD_S]
        when = f"{max(known) / 60:.0f} min" if max(known) >= 120 else f"{max(known):.0f} s"
        yield f"what is sent again, as measured at most {when} ago", measured
    if old := [name for name, age in ages.items() if OLD_S < age < float("inf")]:
        oldest = max(ages[name] for name in old)
        yield f"what is sent again, as measured up to {oldest / 60:.0f} min ago: that is old", old
    if missing := [name for name, age in ages.items() if age == float("inf")]:
        yield "how fast they make memory dirty is not measured yet: nothing is counted as sent again", missing
