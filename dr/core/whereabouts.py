"""Where a guest is, by its set and by the live sessions of its hosts; and the question to a host whether it runs there.

Here: reading, and asking again when the answer may have changed. Not here: what an answer proves, and whatever writes
the set (`onecopy`).
"""

from __future__ import annotations

from dr.core.state import Draft
from dr.core.volatile import Pending
from dr.model.base import BootId, GuestId, HostName
from dr.model.commands import Question, Testify
from dr.model.effects import Send
from dr.model.facts import Part
from dr.model.records import GuestRecord, HostRecord

ASK_AGAIN_S = 1.0  # a host that could not say, or that said it runs there, is not asked again before this
COPIES = (Part.ARRIVING, Part.WAITING)


def places(guest: GuestRecord) -> set[tuple[HostName, BootId]]:
    """Its set, without the generations."""
    return {(place.host, place.boot_id) for place in guest.may_run_on}


def sole_holder(draft: Draft, guest: GuestRecord) -> HostName:
    """The one host in the set, if its agent says in its live session that the guest is active there; else ""."""
    if len(guest.may_run_on) != 1:
        return ""
    place = guest.may_run_on[0]
    return place.host if seen_active(draft, guest.id, place.host, place.boot_id) else ""


def seen_active(draft: Draft, guest_id: GuestId, name: HostName, boot_id: BootId) -> bool:
    """Whether that boot of that host, in its live session, reports the domain as active, and not as a waiting copy."""
    host, view = draft.host(name), draft.view(name)
    facts = view.guests.get(guest_id)
    if facts is None or not facts.active or facts.part in COPIES:
        return False
    return bool(host and host.boot_id == boot_id and view.session and view.inventory)


def ask_testimony(draft: Draft, host: HostRecord, guests: list[GuestRecord]) -> bool:
    """Ask one host about guests that may run there; False when it cannot be asked now or is being asked."""
    view = draft.view(host.name)
    if not view.session or view.acked_epoch != draft.cluster.epoch:
        return False
    if host.protected_version != draft.cluster.protected_version:
        return False  # an agent testifies only for guests on its list: until then its hook does not hold them back
    guests = [
        guest
        for guest in guests
        if (last := view.asked.get(guest.id)) is None
        or last[0] != guest.generation
        or draft.now - last[1] >= ASK_AGAIN_S
    ]
    if not guests:
        return False
    asked = {
        guest_id
        for _, pending in draft.pendings_of(host.name)
        if pending.kind == "testify" and pending.host == host.name
        for guest_id in pending.detail.split()
    }
    questions = tuple(
        Question(guest=guest.id, name=guest.name, generation=guest.generation)
        for guest in guests
        if guest.id not in asked
    )
    if not questions:
        return False
    generations = {question.guest: (question.generation, draft.now) for question in questions}
    draft.put_view(host.name, asked=view.asked | generations)
    key = draft.next_id("testify")
    draft.wait_for(
        key,
        Pending(
            kind="testify",
            host=host.name,
            at=draft.now,
            deadline=draft.now + draft.config.timers.testify_s,
            detail=" ".join(question.guest for question in questions),
        ),
    )
    draft.effect(Send(id=key, host=host.name, session=view.session, body=Testify(questions=questions)))
    return True
