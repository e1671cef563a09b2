"""Hosts taken away on paper: their failover, decided by the very code of the real one on a branch of the state.

Only the world is imagined. Death is proven after as long as it takes (`takes`), each start and each check too; who
starts when, and where, is `starts.place_waiting`, with its turns, its order and its patience, as after a real proof.
Not here: many losses (`sweep`), what is said of one (`report`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from dr.core import checks, fencing, guests, isolation, starts
from dr.core.branch import branched
from dr.core.detector import brake
from dr.core.drills.takes import Take, Takes
from dr.core.fleet import fleet_of
from dr.core.state import Draft, State
from dr.core.tables import HOST_TABLE, HostEvent
from dr.model.base import GuestId, HostName, changed
from dr.model.commands import Answer, Outcome
from dr.model.evidence import Proof, ProofKind
from dr.model.records import Desired, GuestPhase, GuestRecord, HostPhase, HostRecord

IN_USE = (
    HostPhase.ONLINE,
    HostPhase.DRAINING,
    HostPhase.SUSPECT,
    HostPhase.FENCING,
    HostPhase.RETURNING,
)
SILENT_S = 3600.0  # longer than any link may be late
TICK_S = 0.1  # as the coordinator's: who could not start in one decision may in the next
DECISIONS_MAX = 10_000  # of one loss
OF_NO_USE = "no protected guest could be recovered by it"  # then nothing is held up by it


class Held(NamedTuple):
    """Why a host that falls silent would not be proven dead by itself."""

    firm: tuple[str, ...]  # until a person has done something
    doubt: tuple[str, ...]  # unless its power is seen to be off


@dataclass
class Way:
    """One guest's way back. Seconds from zero, the moment at which its host falls silent."""

    guest: GuestRecord  # as it was
    host: HostName
    to: HostName = ""
    ticket_s: float | None = None
    start: Take | None = None
    runs_s: float | None = None
    check: Take | None = None
    waits: str = ""  # what it was last said to wait for, before its ticket
    now: GuestRecord | None = None  # as it is in the end

    @property
    def recovered_s(self) -> float | None:
        if self.runs_s is None:
            return None
        return self.runs_s + (self.check.seconds if self.check is not None else 0.0)


@dataclass
class Loss:
    """What becomes of everybody if these hosts die at once."""

    lost: tuple[HostName, ...]
    ways: dict[GuestId, Way] = field(default_factory=dict)
    detect: dict[HostName, Take] = field(default_factory=dict)
    prove: dict[HostName, Take] = field(default_factory=dict)
    held: dict[HostName, Held] = field(default_factory=dict)
    bystanders: dict[HostName, list[str]] = field(default_factory=dict)
    given_up: bool = False  # it took more decisions than are looked at

    def dead_s(self, host: HostName) -> float:
        return self.detect[host].seconds + self.prove[host].seconds


def takeable(host: HostRecord) -> bool:
    """Whether its death would be news."""
    return host.phase in IN_USE and HostEvent.DEAD in HOST_TABLE[host.phase] and bool(host.boot_id)


class Paper:
    """One site at one moment. Each loss begins from there anew; the state itself never changes."""

    def __init__(self, state: State, now: float) -> None:
        self.state = state
        self.now = max(now, state.quiet_until)
        self.takes = Takes(state)
        fleet_of(Draft(state, self.now))  # what it derives, every branch has

    def held(self, host: HostName) -> Held | None:
        """Why it would not be proven dead by itself if it fell silent now."""
        draft = Draft(self.state, self.now)
        _silence(draft, (host,))
        return _held(draft, draft.require_host(host))

    def lose(self, hosts: Sequence[HostName]) -> Generator[None, None, Loss]:
        """Pauses after each decision, so that whoever runs it has other things done meanwhile."""
        return _Run(self, hosts).run()


class _Run:
    """One loss under way: the branch, its time, and what is due when."""

    def __init__(self, paper: Paper, hosts: Sequence[HostName]) -> None:
        self.state = branched(paper.state)
        self.zero = self.now = paper.now
        self.takes = paper.takes
        self.loss = Loss(tuple(hosts))
        self._due: list[tuple[float, int, str, str]] = []  # when, in which order, what, of whom
        self._count = 0
        self._tried_again = False  # everybody who fits nowhere, since the last ticket

    def run(self) -> Generator[None, None, Loss]:
        yield
        self._fall_silent()
        yield
        for _ in range(DECISIONS_MAX):
            due = list(self._take_due())
            moved = self._decide(due)
            yield
            if self._due:
                self.now = self._due[0][0]
            elif moved:
                self.now += TICK_S
            elif (next_at := self._wake()) is not None:
                self.now = next_at
            else:
                break
        else:
            self.loss.given_up = True
        for way in self.loss.ways.values():
            way.now = self.state.guests.get(way.guest.id)
        return self.loss

    # ---- what happens

    def _fall_silent(self) -> None:
        loss, draft = self.loss, Draft(self.state, self.now)
        for name in loss.lost:
            loss.bystanders[name] = fencing.bystanders(draft, name)
            for guest_id in draft.guests_at(name):
                guest = draft.guest(guest_id)
                if guest is not None and guest.desired is Desired.RUNNING:
                    loss.ways.setdefault(guest_id, Way(guest, name))
        _silence(draft, loss.lost)
        for name in loss.lost:
            if held := _held(draft, draft.require_host(name)):
                loss.held[name] = held
            loss.detect[name], loss.prove[name] = self.takes.detect(name), self.takes.prove(name)
            self._later(loss.dead_s(name), "dead", name)
        for key, pending in draft.pendings():
            if pending.kind == "start" and pending.host not in loss.lost:  # somebody else's, under way
                guest = draft.guest(pending.guest)
                took_s = self.takes.start(guest).seconds if guest is not None else 0.0
                self._later(max(0.0, pending.at + took_s - self.now), "runs", key)
        self.state.apply(draft)

    def _later(self, after_s: float, what: str, whom: str) -> None:
        self._count += 1
        heappush(self._due, (self.now + after_s, self._count, what, whom))

    def _take_due(self) -> Iterator[tuple[str, str]]:
        while self._due and self._due[0][0] <= self.now:
            _, _, what, whom = heappop(self._due)
            yield what, whom

    def _decide(self, due: list[tuple[str, str]]) -> bool:
        """One decision; whether it brought anybody on."""
        draft = Draft(self.state, self.now)
        for what, whom in due:
            match what:
                case "dead":
                    host = draft.require_host(whom)
                    proof = Proof(kind=ProofKind.POWER, host=whom, boot_id=host.boot_id, text="on paper")
                    fencing.dead(draft, host, proof, fenced=True)
                case "runs":
                    self._runs(draft, whom)
                case _:
                    guest = draft.guest(whom)
                    if guest is not None and guest.phase is GuestPhase.RUNNING:
                        draft.put_guest(changed(guest, checked_at=draft.now))
        starts.place_waiting(draft)
        self._ticketed(draft)
        decided = draft.changes().guests
        before = self.state.guests
        moved = any(
            guest is not None and _stage(guest) != _stage(before.get(key)) for key, guest in decided.items()
        )
        self.state.apply(draft)
        return moved

    def _runs(self, draft: Draft, key: str) -> None:
        pending = draft.pending_of(key)
        guest = draft.guest(pending.guest) if pending is not None else None
        if pending is None or guest is None:
            return
        draft.forget(key)
        guests.start_ended(
            draft, guest, draft.require_host(pending.host), pending, Answer(outcome=Outcome.DONE)
        )
        check = self.takes.check(guest) if guest.policy.checks else None
        if check is not None:
            self._later(check.seconds, "answers", guest.id)
        if way := self.loss.ways.get(guest.id):
            way.runs_s, way.check = self.now - self.zero, check

    def _ticketed(self, draft: Draft) -> None:
        """Starts that were given out in this decision, or say what a guest waits for."""
        for key, pending in draft.pending.items():
            if pending is None or pending.kind != "start":
                continue
            guest = draft.guest(pending.guest)
            assert guest is not None
            take = self.takes.start(guest)
            self._later(take.seconds, "runs", key)
            self._tried_again = False
            if way := self.loss.ways.get(guest.id):
                before = self.state.guests[guest.id].reason
                way.to, way.ticket_s, way.start = pending.host, self.now - self.zero, take
                way.waits = before.partition(", at most")[0] if before.startswith("waits") else ""

    def _wake(self) -> float | None:
        """With nothing under way: when somebody's patience ends, or who fits nowhere is tried once more."""
        patience_s = self.state.settings.timers.boot_after_s
        waiting = list(self._waiting())
        ends = [guest.waits_since + patience_s for guest in waiting if guest.waits_since > 0]
        if later := [at for at in ends if at > self.now]:
            return min(later)
        again = [
            guest.retry_at for guest in waiting if self._may_fit_later(guest) and guest.retry_at > self.now
        ]
        self._tried_again = True
        return max(again, default=None)

    def _may_fit_later(self, guest: GuestRecord) -> bool:
        """Whether what has started since may have made a place for it. Nobody leaves, so room is never more."""
        return not self._tried_again and bool(self.state.members.about(guest.id) or guest.avoid)

    def _waiting(self) -> Iterator[GuestRecord]:
        for guest_id in self.state.unsettled:
            guest = self.state.guests[guest_id]
            if guest.phase is GuestPhase.RECOVERING and not guest.may_run_on:
                yield guest


def _stage(guest: GuestRecord | None) -> tuple[object, ...]:
    """What of it changes when it comes nearer to its start, or to being given up."""
    return (guest.phase, guest.waits_since, guest.avoid, checks.passed(guest)) if guest is not None else ()


def _silence(draft: Draft, hosts: Sequence[HostName]) -> None:
    """Nobody hears them, and nobody has looked."""
    long_ago = draft.now - SILENT_S
    for name in hosts:
        draft.put_view(name, session="", heard=long_ago, fresh=long_ago, looks={}, power=(), power_at=0.0)


def _held(draft: Draft, host: HostRecord) -> Held | None:
    """As `silence` would judge it: nobody hears it, and its power is not seen."""
    why = [each for each in fencing.why_not_fence(draft, host) if each != OF_NO_USE]
    if not why:
        return None
    doubts = (isolation.left_alone(draft, host), brake(draft))
    return Held(
        firm=tuple(each for each in why if each not in doubts),
        doubt=tuple(each for each in why if each in doubts),
    )
