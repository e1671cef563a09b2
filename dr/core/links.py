"""What the network carries of live migrations: how fast each host sends and receives, what is under way, who is next.

A host's rate is what the configuration says, else what was seen when it sent lately, else what was seen of another
host, else assumed. Nothing is limited by it: forecasts and the choice between destinations rest on it, and say so.
Here: sizes, rates, traffic, when a guest would have arrived. Not here: times of many moves (`schedule`), which
host may take a guest at all (`placement`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import Literal, NamedTuple, cast

import numpy as np

from dr.core import dirtying, disks, ladder
from dr.core.fleet import Floats
from dr.core.ladder import Outlook
from dr.core.schedule import Link, Sending
from dr.core.state import Draft
from dr.core.volatile import TurnedAway, View
from dr.model.base import GuestId, HostName
from dr.model.records import GuestPhase, GuestRecord, Move, MoveStage, Rung

ASSUMED_MIB_S = 100.0  # of hosts of which nothing is known: somewhat less than 1 Gbit/s
SAMPLES_MAX = 32  # of a host; its agent tells once a second
SAMPLES_MIN = 3
HARD = (Rung.SLOWED, Rung.CALLED_OFF)
AGAIN_S = (
    5.0  # after a move that came to nothing, before the same destination is tried again; doubles with each
)
AGAIN_MAX_S = 300.0


# ---- sizes


def in_use_mib(draft: Draft, guest: GuestRecord) -> int:
    """Of its memory, what a live move would send if it wrote nothing meanwhile; all of it where that is not known."""
    facts = draft.view(guest.holder).guests.get(guest.id)
    return (facts.to_send_mib if facts is not None else 0) or guest.needs.memory_mib


def outlook(draft: Draft, guest: GuestRecord, rate_mib_s: float = 0.0) -> Outlook:
    """How its live move would go at that rate; 0: at that of its host, alone on the link."""
    whole_mib_s = rate_mib_s or rates(draft).of(guest.holder).mib_s
    own_mib_s = min(whole_mib_s, guest.policy.move_mib_s or whole_mib_s)
    return ladder.outlook(
        float(in_use_mib(draft, guest)),
        own_mib_s,
        dirtying.of(draft, guest),
        guest.policy,
        float(disks.to_copy_mib(guest)),
    )


def to_send_mib(draft: Draft, guest: GuestRecord) -> int:
    """What a live move of it would send: memory, with what is sent again as it was written to meanwhile, and disks."""
    return round(outlook(draft, guest).sent_mib)


def needs_links_alone(draft: Draft, guest: GuestRecord) -> bool:
    """Whether it would have to be slowed down, or not converge at all, only because others share its link."""
    shared_by = max(draft.config.limits.moves_out_per_host, draft.config.limits.moves_in_per_host)
    if shared_by < 2 or not dirtying.of(draft, guest):
        return False
    rate = rates(draft).of(guest.holder)
    alone, shared = (outlook(draft, guest, rate.mib_s / by).rung for by in (1, shared_by))
    return (shared in HARD and alone not in HARD) or (shared is Rung.CALLED_OFF and alone is Rung.SLOWED)


def resident_known(draft: Draft, guest: GuestRecord) -> bool:
    facts = draft.view(guest.holder).guests.get(guest.id)
    return facts is not None and facts.resident_mib > 0


def left_mib(draft: Draft, guest: GuestRecord, move: Move) -> float:
    """What its move has still to send, with what becomes dirty meanwhile if all goes on like this."""
    if move.stage is MoveStage.SENDING:
        copying = draft.view(move.source).progress.get(guest.id)
        return copying.remaining_mib if copying is not None else float(disks.to_copy_mib(guest))
    if move.stage not in (MoveStage.RECEIVING, MoveStage.COPYING):
        return 0.0
    progress = draft.view(move.source).progress.get(guest.id)
    if progress is None:
        return float(to_send_mib(draft, guest))
    return progress.remaining_mib if progress.eta_s is None else progress.eta_s * progress.rate_mib_s


# ---- rates


class Rate(NamedTuple):
    """MiB/s that a host sends, and receives."""

    mib_s: float
    basis: Literal["configured", "seen", "assumed"]
    of: HostName = ""  # whose sending was seen

    def in_words(self, names: list[HostName]) -> str:
        """Where it comes from, told of these hosts."""
        if self.basis == "configured":
            return "as configured (migration_mib_s)"
        if self.basis == "assumed":
            return "assumed, as none is configured (migration_mib_s) and no move was seen lately"
        return f"as {self.of if names != [self.of] else 'it'} sent lately"


def note_rate(draft: Draft, name: HostName) -> None:
    """Remember how fast it sends now, all moves out of it together; one with a bandwidth of its own shows no link's."""
    view = draft.view(name)
    leaving = (draft.guest(guest_id) for guest_id in view.progress)
    if any(guest is not None and guest.policy.move_mib_s for guest in leaving):
        return
    total = sum(progress.rate_mib_s for progress in view.progress.values())
    if total > 0:
        draft.put_view(name, sent_mib_s=(*view.sent_mib_s, round(total, 1))[-SAMPLES_MAX:])


def _seen(view: View) -> float:
    """What it has held for some time: the upper quartile, as its best moments may have been bursts; 0 = not known."""
    samples = sorted(view.sent_mib_s)
    return samples[-(len(samples) // 4) - 1] if len(samples) >= SAMPLES_MIN else 0.0


class Rates:
    """Those of all hosts at one moment of a decision, and which hosts turned guests away."""

    def __init__(self, draft: Draft) -> None:
        names = draft.host_names()  # in the order of a fleet
        seen = {name: _seen(draft.view(name)) for name in names}
        best, of = max(((each, name) for name, each in seen.items() if each), default=(0.0, ""))
        self._others = Rate(best, "seen", of) if best else Rate(ASSUMED_MIB_S, "assumed")
        self._of = {
            name: _configured(draft, name) or (Rate(seen[name], "seen", name) if seen[name] else self._others)
            for name in names
        }
        self.index = {name: at for at, name in enumerate(names)}
        self.mib_s: Floats = np.array([rate.mib_s for rate in self._of.values()])
        self.turned_away = [name for name in names if draft.view(name).turned_away]

    def of(self, name: HostName) -> Rate:
        """Also of a host that is no member any more, or of none: a guest may have been seen nowhere yet."""
        return self._of.get(name, self._others)


def _configured(draft: Draft, name: HostName) -> Rate | None:
    own = draft.policy(name).migration_mib_s
    mib_s = draft.config.limits.migration_mib_s if own is None else own
    return Rate(float(mib_s), "configured") if mib_s else None


def rates(draft: Draft) -> Rates:
    at, kept = draft.memo.get("rates", (-1, None))
    if kept is None or at != draft.host_writes:
        kept = Rates(draft)
        draft.memo["rates"] = (draft.host_writes, kept)
    return cast(Rates, kept)


# ---- what is under way


class Traffic(NamedTuple):
    """Live moves out of and into each host: how many, and what they have still to send."""

    leaving: dict[HostName, int]
    coming: dict[HostName, int]
    out_mib: dict[HostName, float]
    in_mib: dict[HostName, float]
    alone: set[Link]  # links that one of them has for itself


def traffic(draft: Draft) -> Traffic:
    imagined: Traffic | None = draft.memo.get("imagined traffic")
    if imagined is not None:
        return imagined
    at, kept = draft.memo.get("traffic", (-1, Traffic({}, {}, {}, {}, set())))
    if at == draft.guest_writes:
        return cast(Traffic, kept)
    found = traffic_of(sendings(draft))
    draft.memo["traffic"] = (draft.guest_writes, found)
    return found


def imagine(draft: Draft, sendings: Iterable[Sending]) -> None:
    """From now on this alone is under way, whatever the records of that draft say: it is one that nobody takes over."""
    draft.memo["imagined traffic"] = traffic_of(sendings)


def traffic_of(sendings: Iterable[Sending]) -> Traffic:
    found = Traffic({}, {}, {}, {}, set())
    for each in sendings:
        found.leaving[each.source] = found.leaving.get(each.source, 0) + 1
        found.coming[each.to] = found.coming.get(each.to, 0) + 1
        found.out_mib[each.source] = found.out_mib.get(each.source, 0.0) + each.mib
        found.in_mib[each.to] = found.in_mib.get(each.to, 0.0) + each.mib
        found.alone.update(each.links if each.alone else ())
    return found


def sending(
    guest: GuestRecord, source: HostName, to: HostName, mib: float, *, alone: bool = False
) -> Sending:
    """No faster than its policy says."""
    return Sending(guest.id, source, to, mib, alone, guest.policy.move_mib_s or inf)


def sendings(draft: Draft) -> Iterator[Sending]:
    """What live moves that are under way have still to send, in order of the guests' ids."""
    for guest in draft.unsettled():
        move = guest.move
        if guest.phase is GuestPhase.MIGRATING and move is not None:
            left, alone = left_mib(draft, guest, move), needs_links_alone(draft, guest)
            yield sending(guest, move.source, move.destination, left, alone=alone)


def arrivals(draft: Draft, guest: GuestRecord, along: tuple[GuestRecord, ...] = ()) -> Floats:
    """Seconds until it would be on each host with those who go along, behind all that is under way on both links.

    One element a host, in the order of a fleet.
    """
    source = guest.holder
    going = (guest, *(mate for mate in along if mate.phase is GuestPhase.RUNNING))
    mib = sum(to_send_mib(draft, each) for each in going)
    now, known = traffic(draft), rates(draft)
    comes: Floats = np.full(len(known.mib_s), float(mib))
    for name, coming in now.in_mib.items():
        if name in known.index:
            comes[known.index[name]] += coming
    out_s = (now.out_mib.get(source, 0.0) + mib) / known.of(source).mib_s
    return np.maximum(comes / known.mib_s, out_s)


# ---- destinations that did not take a guest


def note_turned_away(draft: Draft, guest_id: GuestId, name: HostName, why: str) -> None:
    """A live move of it to that host came to nothing, whoever's fault it was."""
    if draft.host(name) is None:
        return
    before = draft.view(name).turned_away
    last = before.get(guest_id)
    times = last.times + 1 if last is not None and draft.now - last.at < 2 * AGAIN_MAX_S else 1
    draft.put_view(name, turned_away=before | {guest_id: TurnedAway(times=times, at=draft.now, why=why)})


def note_arrived(draft: Draft, guest_id: GuestId, name: HostName) -> None:
    before = draft.view(name).turned_away
    if guest_id in before:
        left = {key: each for key, each in before.items() if key != guest_id}
        draft.put_view(name, turned_away=left)


def why_not_yet(draft: Draft, guest: GuestRecord, name: HostName) -> str:
    """Why that host is not to be tried for it yet; "" = it may be."""
    last = draft.view(name).turned_away.get(guest.id)
    if last is None:
        return ""
    pause_s = min(AGAIN_S * 2.0 ** (last.times - 1), AGAIN_MAX_S)
    if draft.now >= last.at + pause_s:
        return ""
    often = f"{last.times} moves" if last.times > 1 else "move"
    return f"its last {often} to {name} came to nothing ({last.why}); the next is tried {pause_s:.0f} s after that"


def wary(draft: Draft, guest: GuestRecord) -> set[HostName]:
    """Hosts that are not to be tried for it yet, if there is another."""
    return {name for name in rates(draft).turned_away if why_not_yet(draft, guest, name)}
