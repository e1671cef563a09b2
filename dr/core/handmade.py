"""What people do on hosts by hand, again and again: the answer to it is bounded, so that nobody is fought in a loop.

Most hand-made changes are followed and need no bound: a guest that is stopped, started, suspended, renamed or edited is
as its owner made it. One is undone: the definition of a guest that runs elsewhere. Not here: how (`core.members`).
"""

from __future__ import annotations

from dr.core.state import Draft
from dr.model.base import HostName, changed
from dr.model.records import GuestRecord

ANSWERS_MAX = 5  # definitions removed from one host while the guest stays where it runs
WINDOW_S = 3600.0


def removed(draft: Draft, guest: GuestRecord, host: HostName) -> None:
    """Its definition was removed there just now. The first one may be its own trace; the next were made by hand."""
    kept = _lately(draft, guest)
    draft.put_guest(changed(guest, removed=(*kept, (host, draft.now))))


def enough(draft: Draft, guest: GuestRecord, host: HostName) -> bool:
    """Whether its definition came back there so often that it is left there, and a person told."""
    often = sum(name == host for name, _ in _lately(draft, guest))
    if often < ANSWERS_MAX:
        return False
    draft.alert(
        f"guest/{guest.id}/hand-made",
        f"{guest.name} is defined on {host} again and again, although it runs on {guest.holder}",
        f"its definition was removed there {often} times within {WINDOW_S / 60:.0f} minutes and is left there now; "
        "the permit hook still refuses to start it",
        f"find who defines it on {host} and end that; to have it removed again: "
        f"dr guest set {guest.name} --desired running",
    )
    return True


def review(draft: Draft, guest: GuestRecord) -> None:
    """The alert clears when nobody but its holder has it defined any longer, or it may be removed again."""
    key = f"guest/{guest.id}/hand-made"
    if draft.alert_of(key) is None:
        return
    others = [
        name for name in draft.host_names() if name != guest.holder and guest.id in draft.view(name).guests
    ]
    lately = [name for name, _ in _lately(draft, guest)]
    if not any(lately.count(name) >= ANSWERS_MAX for name in others):
        draft.clear_alert(key)


def _lately(draft: Draft, guest: GuestRecord) -> tuple[tuple[HostName, float], ...]:
    """Since it runs where it runs, within the window."""
    since = max(guest.since, draft.now - WINDOW_S)
    return tuple(each for each in guest.removed if each[1] >= since)
