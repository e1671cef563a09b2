"""What follows when a guest fails: again in place, then elsewhere, then a person. Crashes and failed starts alike.

Here: bounds, windows, backoff, giving up. Not here: where it starts next (`starts`), what proves that it ended
(`onecopy`).
A host that was lost is no failure of its guests: those do not come here, and nothing is counted.
"""

from __future__ import annotations

from dr.core.state import Draft
from dr.core.tables import GuestEvent, move_guest
from dr.model.base import HostName
from dr.model.records import Desired, GuestRecord


def failed(draft: Draft, guest: GuestRecord, host: HostName, event: GuestEvent, text: str) -> GuestRecord:
    """It ended on that host, or did not start there; `event` takes it out of its phase, `text` says what happened."""
    if guest.desired is not Desired.RUNNING:
        return let_be(draft, guest, event, text)
    operation = draft.operation_about(guest.id)
    again = next_try(draft, guest, host)
    if again is None:
        guest = move_guest(draft, guest, event, text, operation=operation)
        return give_up(draft, guest, f"{text}; restarts and relocations are used up")
    what, wait_s, fields = again
    text += f"; {what}"
    if wait_s:
        text += f" in {wait_s:.0f} s"
    if not operation:
        operation = draft.open_operation("restart", guest.name, text, guests=(guest.id,)).id
    return move_guest(draft, guest, event, text, operation=operation, retry_at=draft.now + wait_s, **fields)


def next_try(draft: Draft, guest: GuestRecord, host: HostName) -> tuple[str, float, dict[str, object]] | None:
    """What comes next after it failed on that host, after how long, and what its record says then. None: nothing."""
    policy = guest.policy
    restarts = _within(draft, guest.restarts, policy.restart_window_s)
    relocations = _within(draft, guest.relocations, policy.relocation_window_s)
    if len(restarts) < policy.max_restarts:
        wait_s = _backoff_s(draft, len(restarts) - 1) if restarts else 0.0
        what = f"restart {len(restarts) + 1} of {policy.max_restarts} in place"
        return what, wait_s, {"restarts": (*restarts, draft.now), "tried_on": host}
    if len(relocations) < policy.max_relocations:
        fields: dict[str, object] = {
            "restarts": (),
            "relocations": (*relocations, draft.now),
            "tried_on": "",
            "avoid": tuple(dict.fromkeys((*guest.avoid, host))),
        }
        what = f"relocation {len(relocations) + 1} of {policy.max_relocations}"
        return what, _backoff_s(draft, len(relocations)), fields
    return None


def _within(draft: Draft, times: tuple[float, ...], window_s: float) -> tuple[float, ...]:
    return tuple(at for at in times if draft.now - at < window_s)


def _backoff_s(draft: Draft, doublings: int) -> float:
    timers = draft.config.timers
    # The exponent is bounded first: a policy may allow more restarts than a float has powers of two.
    return min(timers.restart_backoff_s * 2.0 ** min(doublings, 30), timers.restart_backoff_max_s)


def let_be(draft: Draft, guest: GuestRecord, event: GuestEvent, text: str) -> GuestRecord:
    """It ended and its owner does not want it started by itself."""
    if event is not GuestEvent.CRASHED:  # from where it may run again, on to rest
        guest = move_guest(draft, guest, event, text, operation=draft.operation_about(guest.id))
    if guest.desired is Desired.IGNORED:
        return put_down(draft, guest, f"{text}; ignored guests are left alone: dr guest start {guest.name}")
    return put_down(draft, guest, f"{text}; not started again, as it was to be stopped")


def put_down(draft: Draft, guest: GuestRecord, text: str) -> GuestRecord:
    """It does not run and nothing is waited for: what was told of its waiting is over."""
    for kind in ("waiting", "error"):
        draft.clear_alert(f"guest/{guest.id}/{kind}")
    operation = draft.operation_about(guest.id)
    return move_guest(
        draft,
        guest,
        GuestEvent.ENDED,
        text,
        operation=operation,
        tried_on="",
        held_at="",
        avoid=(),
        retry_at=0.0,
    )


def give_up(draft: Draft, guest: GuestRecord, why: str) -> GuestRecord:
    """No more by itself: a person decides."""
    draft.clear_alert(f"guest/{guest.id}/waiting")
    draft.alert(
        f"guest/{guest.id}/error",
        f"{guest.name} was given up",
        why,
        f"find the cause, then: dr guest start {guest.name}",
        severity="critical",
    )
    operation = draft.operation_about(guest.id)
    return move_guest(draft, guest, GuestEvent.GAVE_UP, why, operation=operation, tried_on="", avoid=())
