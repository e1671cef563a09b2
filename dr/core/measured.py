"""How long things really took, kept in the records that they are about: a guest's starts, a host's proofs of death.

Here: what is worth keeping and how it gets into a record. Not here: what is foretold from it (`drills.takes`).
"""

from __future__ import annotations

from dr.core.state import Draft
from dr.model.base import changed
from dr.model.records import Ended, GuestRecord, HostPhase, HostRecord, StartTook

KEPT = 3  # of each; the newest ones


def started(guest: GuestRecord, now: float, took_s: float) -> GuestRecord:
    """Its start was seen to end well."""
    return changed(guest, starts=(*guest.starts, StartTook(at=now, start_s=round(took_s, 2)))[-KEPT:])


def answered(guest: GuestRecord, now: float) -> GuestRecord:
    """Its check passed. Counts if it has run since a start that was seen: after a move it was up all the while."""
    if not guest.starts or guest.starts[-1].at != guest.since or guest.starts[-1].check_s is not None:
        return guest
    last = changed(guest.starts[-1], check_s=round(now - guest.since, 2))
    return changed(guest, starts=(*guest.starts[:-1], last))


def ended(draft: Draft, host: HostRecord) -> HostRecord:
    """Its boot is proven over by its power, just now. A person's fence says nothing of how silence is noticed."""
    heard = draft.view(host.name).heard
    by_silence = host.fencing is None or not (host.fencing.operator or host.fencing.test)
    if host.phase is HostPhase.FENCING:
        detect_s = round(host.since - heard, 2) if by_silence and heard else None
        took = Ended(detect_s=detect_s, prove_s=round(draft.now - host.since, 2))
    elif host.phase is HostPhase.SUSPECT and heard:
        took = Ended(detect_s=round(draft.now - heard, 2))
    else:
        return host
    return changed(host, ended=(*host.ended, took)[-KEPT:])
