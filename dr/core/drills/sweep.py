"""Sweeps: every single host taken away on paper, or every pair: the N+1 and the N+2 report.

Single hosts are all worked through. Pairs are as many as half the square, so most of them are proven instead, without
a loss: see `_Room`. What is neither proven nor worked through, for there is a limit, is counted and said.
Not here: one loss (`paper`), its own report (`report`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dr.core import quorum
from dr.core.detector import is_late
from dr.core.drills.paper import Loss, Paper, takeable
from dr.core.drills.report import named, of_loss
from dr.core.fleet import MEMORY, Fleet, Floats, Mask, Resource, fleet_of
from dr.core.placement import Case as Fit
from dr.core.state import Draft
from dr.model.base import HostName
from dr.model.drills import CASES_MAX, Case, DrillKind, DrillReport, Finding, Looked, Verdict, worst
from dr.model.records import Desired, GuestPhase, GuestRecord, HostPhase

PAIRS_MAX = 2_000  # worked through, unless somebody asks for more
WELL = (HostPhase.ONLINE, HostPhase.DRAINING)
WORST_MAX = 10  # cases that findings name
CALM_HOSTS_MIN = 8  # on smaller sites each pair is worked through: it is a handful
FEW_HOSTS = 128  # looked at for room first
SHOWN_MAX = 1_000  # pairs that stand in a report: those that are not well first, then the slowest
Ints = NDArray[np.int64]
ORDER = (Verdict.FAILED, Verdict.UNKNOWN, Verdict.PASSED)


class Progress(NamedTuple):
    """How far a sweep is."""

    done: int
    of: int


def hosts_of(paper: Paper) -> tuple[list[HostName], list[HostName]]:
    """Those whose death would be news, and the others."""
    names = sorted(paper.state.hosts)
    taken = [name for name in names if takeable(paper.state.hosts[name])]
    return taken, sorted(set(names).difference(taken))


def each(paper: Paper, objective_s: float) -> Generator[Progress, None, DrillReport]:
    """Every single host."""
    names, apart = hosts_of(paper)
    cases: list[Case] = []
    for at, name in enumerate(names):
        yield Progress(at, len(names))
        cases.append(_case((yield from lost(paper, (name,), Progress(at, len(names)))), paper, objective_s))
    looked = Looked(of=len(names), worked=len(names), shown=min(len(names), CASES_MAX))
    return _report(paper, "every single host", cases, looked, apart=apart, objective_s=objective_s)


def pairs(paper: Paper, limit: int = PAIRS_MAX) -> Generator[Progress, None, DrillReport]:
    """Every pair of hosts. `limit`: how many are worked through of those that are not proven.

    There is no objective: how long a pair takes that is proven by room is not known.
    """
    names, apart = hosts_of(paper)
    of = len(names) * (len(names) - 1) // 2
    sizes: list[_Size] = []
    fleet, calm = fleet_of(Draft(paper.state, paper.now)), _calm(paper)
    for name in names:
        sizes.append(_size(paper, fleet, name, calm=calm))
        yield Progress(0, of)
    proven = 0
    room = _Room(fleet, sizes)
    # Those with most to recover come first: what fits nowhere is found before the limit.
    tight: list[tuple[int, int, int]] = []  # a heap: MiB of both, and the two, the first ones last
    for at, size in enumerate(sizes):
        fits = room.proven(at)
        proven += int(fits.sum())
        for each_open in np.flatnonzero(~fits):
            other = at + 1 + int(each_open)
            heappush(tight, (size.memory_mib + sizes[other].memory_mib, -at, -other))
            if len(tight) > limit:
                heappop(tight)
        yield Progress(proven, of)
    cases: list[Case] = []
    for number, (_, one, two) in enumerate(sorted(tight, reverse=True)):
        yield Progress(proven + number, of)
        pair = (sizes[-one].name, sizes[-two].name)
        loss = yield from lost(paper, pair, Progress(proven + number, of))
        cases.append(_case(loss, paper, 0.0))
    worked = len(cases)
    looked = Looked(of=of, worked=worked, proven=proven, shown=min(worked, SHOWN_MAX))
    return _report(paper, "every pair of hosts", cases, looked, apart=apart)


def lost(paper: Paper, hosts: Sequence[HostName], progress: Progress) -> Generator[Progress, None, Loss]:
    """One loss, as a part of something of which `progress` is told."""
    loss = paper.lose(hosts)
    while True:
        try:
            next(loss)
        except StopIteration as ended:
            found: Loss = ended.value
            return found
        yield progress


def _case(loss: Loss, paper: Paper, objective_s: float) -> Case:
    told = of_loss(loss, paper.takes, objective_s)
    nowhere = sum(row.verdict is Verdict.FAILED and not row.to for row in told.guests)
    return Case(
        lost=loss.lost,
        verdict=told.verdict,
        guests=sum(row.verdict is not Verdict.LEFT for row in told.guests),
        stranded=nowhere,
        recovered_s=told.recovered_s,
        why="" if told.verdict is Verdict.PASSED else f"{told.says} ({told.guests[0].why})",
    )


# ---- the report


def _report(
    paper: Paper,
    what: str,
    cases: list[Case],
    looked: Looked,
    *,
    apart: Sequence[HostName],
    objective_s: float = 0.0,
) -> DrillReport:
    cases.sort(
        key=lambda case: (ORDER.index(case.verdict), -case.stranded, -(case.recovered_s or 0.0), case.lost)
    )
    left = looked.of - looked.worked - looked.proven
    verdicts = [case.verdict for case in cases] + ([Verdict.UNKNOWN] if left else [])
    times = [case.recovered_s for case in cases if case.recovered_s is not None]
    return DrillReport(
        id="",
        kind=DrillKind.DRY,
        title=f"without {what}, one after the other",
        asked_by="",
        began=0.0,
        ended=0.0,
        verdict=worst(verdicts),
        says=_says(what, cases, looked, left),
        objective_s=objective_s,
        recovered_s=max(times) if len(times) == len(cases) and times and not left else None,
        cases=tuple(cases[: looked.shown]),
        looked=looked,
        findings=tuple(_findings(cases, left, apart)),
        rests_on=(*paper.takes.rests_on(), *_nature(looked, left)),
    )


def _says(what: str, cases: Sequence[Case], looked: Looked, left: int) -> str:
    bad = [case for case in cases if case.verdict is Verdict.FAILED]
    doubt = [case for case in cases if case.verdict is Verdict.UNKNOWN]
    if bad:
        names = named([" and ".join(case.lost) for case in bad])
        return f"not without {names}: {len(bad)} of {looked.of:,} cases would not be recovered as wanted"
    if doubt:
        names = named([" and ".join(case.lost) for case in doubt])
        return f"nobody knows of {len(doubt)} of {looked.of:,} cases: {names}"
    if left:
        return f"{left:,} of {looked.of:,} cases were not looked at; of the others each would be recovered"
    slowest = max((case.recovered_s or 0.0 for case in cases), default=0.0)
    took = f", the slowest of those worked through in {slowest:.0f} s" if slowest else ""
    return f"{what} may fail: all guests would run again in each of {looked.of:,} cases{took}"


def _findings(cases: Sequence[Case], left: int, apart: Sequence[HostName]) -> Iterator[Finding]:
    for case in [case for case in cases if case.verdict is Verdict.FAILED][:WORST_MAX]:
        lose = " --lose ".join(case.lost)
        yield Finding(
            severity="critical",
            text=f"without {' and '.join(case.lost)}: {case.why}",
            todo=f"dr drill run --lose {lose}",
        )
    if left:
        text = f"{left:,} pairs were neither proven nor worked through"
        yield Finding(
            severity="warning", text=text, todo="dr drill run --pairs --limit …: a higher one takes longer"
        )
    if apart:
        yield Finding(severity="info", text=f"not in use, so not taken away: {named(apart)}")


def _nature(looked: Looked, left: int) -> Iterator[str]:
    yield f"{looked.worked:,} of {looked.of:,} cases were worked through one by one, as the real failover decides"
    if looked.proven:
        yield (
            f"{looked.proven:,} of {looked.of:,} are proven by room alone: the other hosts have room for more guests "
            "of the largest size that is lost than are lost, so each finds a place; how long is not told of these"
        )
    if left:
        yield f"{left:,} of {looked.of:,} were not looked at: those with most to recover came first"
    if looked.shown < looked.worked:
        yield f"{looked.shown:,} of {looked.worked:,} that were worked through are listed: the worst, then the slowest"


# ---- pairs that need not be worked through


class _Size(NamedTuple):
    """What the guests of one host ask of the others."""

    name: HostName
    units: int
    most: dict[Resource, Floats | float]  # of each resource, the most that one of them takes; on each host
    may: Mask  # hosts that all of them may run on, but for room
    plain: bool  # room, and what hosts have, is all that decides where they may start, and that they do
    memory_mib: int  # of all of them: what is tried first


def _size(paper: Paper, fleet: Fleet, name: HostName, *, calm: bool) -> _Size:
    draft = Draft(paper.state, paper.now)
    guests = [
        guest
        for guest_id in draft.guests_at(name)
        if (guest := draft.guest(guest_id)) is not None and guest.desired is Desired.RUNNING
    ]
    may: Mask = np.ones(len(fleet), dtype=np.bool_)
    most: dict[Resource, Floats | float] = {}
    for guest in guests:
        fit = Fit(fleet, (guest,))
        may &= fit.may
        for resource, amount in fit.taken.items():
            most[resource] = np.maximum(most.get(resource, 0.0), amount)
    plain = calm and all(_plain(fleet, guest, name) for guest in guests) and paper.held(name) is None
    return _Size(name, len(guests), most, may, plain, sum(guest.needs.memory_mib for guest in guests))


def _plain(fleet: Fleet, guest: GuestRecord, name: HostName) -> bool:
    settled = guest.phase is GuestPhase.RUNNING and {place.host for place in guest.may_run_on} == {name}
    simple = not fleet.members.about(guest.id) and not guest.tied and not guest.needs.local
    return settled and simple and bool(guest.definition)


def _calm(paper: Paper) -> bool:
    """Whether two that fall silent are no reason to hold, and nobody else is to be given a place."""
    draft = Draft(paper.state, paper.now)
    members = [host for host in draft.hosts() if host.phase is not HostPhase.JOINING]
    telling = [h for h in members if draft.view(h.name).acked_epoch == draft.cluster.epoch and not h.forgot]
    used = [host for host in members if host.phase is not HostPhase.MAINTENANCE]
    lately = draft.now - draft.config.limits.brake_window_s
    well = [h for h in used if h.phase in WELL and max(h.fenced_at, default=lately) <= lately]
    well = [host for host in well if not is_late(draft, host)]
    enough = 2 * (len(telling) - 2) > len(members) and 2 * (len(used) - len(well) + 2) <= len(used)
    waiting = any(paper.state.guests[key].phase is GuestPhase.RECOVERING for key in paper.state.unsettled)
    return enough and not waiting and len(used) >= CALM_HOSTS_MIN and not quorum.hold(draft)


class _Room:
    """Which pairs fit for sure.

    Let k guests be lost, none larger than `most`, and let a host have room for n of that size: whichever of them is put
    there, it has room for n - 1 more. So while fewer than the sum of all n are placed, there is a host on which any of
    them fits, and who puts each where it fits, as placement does, is not stuck before all k are placed. Where the sum
    is less than k, that says nothing: these are worked through.
    """

    def __init__(self, fleet: Fleet, sizes: Sequence[_Size]) -> None:
        self._fleet = fleet
        self._sizes = sizes
        self._free = {key: np.maximum(fleet.capacity[key] - fleet.used[key], 0.0) for key in fleet.resources}
        self._may = np.array([size.may for size in sizes]).reshape(len(sizes), len(fleet))
        self._units = np.array([size.units for size in sizes])
        self._plain = np.array([size.plain for size in sizes], dtype=np.bool_)
        self._at = np.array([fleet.index[size.name] for size in sizes], dtype=np.int64)
        self._most = {
            key: np.array([np.broadcast_to(size.most.get(key, 0.0), len(fleet)) for size in sizes])
            for key in {key for size in sizes for key in size.most}
        }
        emptiest = np.argsort(-self._free[MEMORY], kind="stable")
        self._columns = (emptiest[:FEW_HOSTS], emptiest)  # of few hosts is enough, if it is

    def proven(self, at: int) -> Mask:
        """Of that host with each that comes after it."""
        others = np.arange(at + 1, len(self._sizes))
        fits: Mask = np.zeros(len(others), dtype=np.bool_)
        if not self._plain[at]:
            return fits
        for columns in self._columns:
            left = np.flatnonzero(~fits & self._plain[others])
            if len(left):
                fits[left] = self._enough(at, others[left], columns)
        return fits

    def _enough(self, at: int, others: Ints, columns: Ints) -> Mask:
        """Whether those hosts have room for them."""
        room: Floats = np.full((len(others), len(columns)), np.inf)
        for key, most in self._most.items():
            size = np.maximum(most[at, columns], most[np.ix_(others, columns)])
            with np.errstate(divide="ignore", invalid="ignore"):
                room = np.minimum(room, np.where(size > 0, self._free[key][columns] / size, np.inf))
        room = np.where(self._may[at, columns] & self._may[np.ix_(others, columns)], np.floor(room), 0.0)
        room[:, columns == self._at[at]] = 0.0
        room[columns == self._at[others][:, None]] = 0.0
        return np.asarray(room.sum(axis=1) >= self._units[at] + self._units[others])
