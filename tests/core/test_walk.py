"""No event in any phase makes `decide` raise or break an invariant, and every row of the tables is taken by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dr.core import tables
from dr.core.decide import decide
from dr.core.state import Draft
from dr.core.tables import GUEST_TABLE, HOST_TABLE, GuestEvent, HostEvent
from dr.core.volatile import Pending
from dr.model import commands
from dr.model.base import changed
from dr.model.commands import Answer, Outcome, Ticket, TicketKind
from dr.model.effects import Look, SendStart
from dr.model.events import (
    Answered,
    AskConfirmDown,
    AskFence,
    AskRelocate,
    AskStart,
    AskStop,
    Connected,
    Event,
    Heard,
    LookEnded,
    Reported,
    Tick,
)
from dr.model.evidence import Proof, ProofKind
from dr.model.facts import DomainState, Sighting
from dr.model.policy import GuestPolicy
from dr.model.records import Desired, GuestPhase, HostPhase, Move, MoveStage, Place, Wish
from dr.model.wire import PROTOCOL, Hello, Memory
from tests.core import test_transfer
from tests.core.build import EPOCH, NOW, Bench, domain, facts, guest, host
from tests.core.walk import ASKS, STEPS, Unsound, Walk, check, fields_of

SEEDS = 60
SWEEPS = 3

Row = tuple[HostPhase | GuestPhase, HostEvent | GuestEvent]


class Walked:
    """What all walks together met and took."""

    def __init__(self) -> None:
        self.met: Counter[tuple[str, str]] = Counter()  # (phase, kind of event)
        self.taken: Counter[Row] = Counter()
        self.swept: Counter[str] = Counter()  # how often everything was tried while that phase was there

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Every move of a host or guest is counted."""
        plain = tables.host_after, tables.guest_after

        def host_after(phase: HostPhase, event: HostEvent) -> HostPhase:
            after = plain[0](phase, event)
            self.taken[phase, event] += 1
            return after

        def guest_after(phase: GuestPhase, event: GuestEvent) -> GuestPhase:
            after = plain[1](phase, event)
            self.taken[phase, event] += 1
            return after

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "host_after", host_after)
            patch.setattr(tables, "guest_after", guest_after)
            yield


@pytest.fixture(scope="module")
def walked() -> Walked:
    """Walks; while a phase is new to them, everything is tried in it."""
    found = Walked()
    with found.watching():
        for seed in range(SEEDS):
            _walk(seed, found)
    return found


def _walk(seed: int, found: Walked) -> None:
    walk = Walk(seed)
    walk.seen = found.met
    try:
        for _ in range(STEPS):
            walk.step()
            present = walk.present()
            if any(found.swept[each] < SWEEPS for each in present):
                found.swept.update(present)
                for event in walk.everything():
                    walk.peek(event)
    except Exception as error:
        error.add_note(f"seed {seed}, at {walk.last}")
        raise


def reached(table: dict[Any, dict[Any, Any]]) -> set[str]:
    """Phases that something leads to."""
    first = {HostPhase.JOINING, GuestPhase.PROTECTING}
    return {str(after) for row in table.values() for after in row.values()} | {
        str(p) for p in table if p in first
    }


@pytest.mark.long(keep=3)
@pytest.mark.parametrize("seed", range(1000, 1020))
def test_a_walk(seed: int) -> None:
    _walk(seed, Walked())


@pytest.mark.long(keep=0)
def test_every_phase_of_a_host_meets_every_event(walked: Walked) -> None:
    of_hosts = [
        "Heard",
        "Disconnected",
        "Leaving",
        "Reported",
        "Connected",
        "stray answer",
        "FenceEnded",
        "PowerSeen",
    ]
    of_hosts += [
        "PowerOnEnded",
        "LookEnded",
        "Tick",
        "Reconfigured",
        "Started",
        "AskLabel",
        "AskPause",
        "AskResume",
    ]
    of_hosts += [kind.__name__ for kind in ASKS if "host" in fields_of(kind)]
    missing = [(p, k) for p in reached(HOST_TABLE) for k in of_hosts if not walked.met[f"host {p}", k]]
    assert not missing


@pytest.mark.long(keep=0)
def test_every_phase_of_a_guest_meets_every_event(walked: Walked) -> None:
    of_guests = ["Tick", "Reconfigured", "Started", "AskLabel", "AskPause", "AskResume"]
    of_guests += [kind.__name__ for kind in ASKS if "guests" in fields_of(kind)]
    missing = [(p, k) for p in reached(GUEST_TABLE) for k in of_guests if not walked.met[f"guest {p}", k]]
    assert not missing


@pytest.mark.long(keep=0)
def test_every_command_ends_in_every_way(walked: Walked) -> None:
    kinds = {pair[1] for pair in walked.met}
    told = ("start", "stop", "clean", "testify", "protect", "describe", "probe")
    for command in (*told, "receive", "migrate", "resume", "discard"):
        assert {f"{command} {outcome}" for outcome in Outcome} <= kinds, command


def alone(phase: HostPhase, **fields: Any) -> Bench:
    """h1 is the only host, so no witness can look for it; its link is gone."""
    bench = Bench("h1").put(host("h1", phase, **fields))
    bench.silence("h1")
    return bench


def confirmed(phase: HostPhase) -> tuple[Bench, Event]:
    fields: dict[str, Any] = {"drain": Wish(by="ops")} if phase is HostPhase.DRAINING else {}
    if phase is HostPhase.FENCED:  # by an earlier leader
        fields = {"dead_boot": "h1-b1", "dead_at": -1.0}
    bench = alone(phase, **fields)
    if phase is not HostPhase.JOINING:  # nobody looked for that one
        bench.look("h1", round_at=NOW)
    return bench, AskConfirmDown(id="1", by="ops", host="h1", reason="I see its plug")


def maintained_and_alive() -> tuple[Bench, Event]:
    bench = alone(HostPhase.MAINTENANCE, dead_boot="h1-b1", dead_at=NOW - 5)
    bench.look("h1", session="s")
    return bench, Heard(host="h1", session="s", fresh=NOW - 1)


def maintained_and_off() -> tuple[Bench, Event]:
    """It was looked for just now, and nobody heard it."""
    bench = alone(HostPhase.MAINTENANCE, drain=Wish(by="ops"))
    bench.look("h1", round_at=NOW)
    return bench, AskConfirmDown(id="1", by="ops", host="h1", reason="I see its plug")


def older_copy(phase: GuestPhase) -> tuple[Bench, Event]:
    """An agent knows a later revision of the store than ours."""
    bench = Bench().put(guest("g1", phase=phase))
    told = Hello(
        protocol=PROTOCOL,
        version="0",
        cluster="c",
        boot_id="h1-b1",
        nonce="n",
        memory=Memory(epoch=EPOCH, leader_id="L", revision=10_000),
        facts=facts("h1"),
        guests=(),
    )
    return bench, Connected(host="h1", session="new", hello=told)


def asked_twice() -> tuple[Bench, Event]:
    """Nobody looked for it until the first ask."""
    bench, ask = confirmed(HostPhase.JOINING)
    bench.send(ask)
    (look,) = (effect for effect in bench.effects if isinstance(effect, Look))
    bench.send(LookEnded(effect=look.id, host="h1", answered={"10.0.0.1": False}))
    bench.state.pending.clear()
    return bench, ask


def doubled(phase: GuestPhase) -> tuple[Bench, Event]:
    """It is seen where its ticket is, and on h3 too."""
    bench = Bench().put(guest("g1", "h2", phase))
    bench.state.pending["t"] = Pending(
        kind="start" if phase is GuestPhase.STARTING else "stop", host="h2", guest="g1"
    )
    bench.see("h2", domain("g1"))
    return bench, Reported(host="h3", session="s-h3", guests=(domain("g1"),))


def crashed_too_often() -> tuple[Bench, Event]:
    policy = GuestPolicy(max_restarts=0, max_relocations=0)
    crashed = domain("g1", DomainState.CRASHED, reason="crashed")
    return Bench().put(guest("g1", "h1", policy=policy)), Reported(
        host="h1", session="s-h1", guests=(crashed,)
    )


def relocated() -> tuple[Bench, Event]:
    """It was stopped in order to start elsewhere, and is proven stopped."""
    move = Move(stage=MoveStage.STOPPING, source="h1", destination="h2")
    return Bench().put(guest("g1", phase=GuestPhase.STOPPING, move=move)), Tick()


def off_and_relocated() -> tuple[Bench, Event]:
    """Its disks go to another host, while it is off."""
    return test_transfer.bench(), AskRelocate(id="r", by="ops", guests=("g1",), to="h2")


def stopped_and_relocated() -> tuple[Bench, Event]:
    """It was stopped for that, and its disks have still to go."""
    move = Move(stage=MoveStage.STOPPING, source="h1", destination="h2")
    bench = test_transfer.bench(phase=GuestPhase.RECOVERING, desired=Desired.RUNNING, move=move)
    return bench, Tick()


def not_started() -> tuple[Bench, Event]:
    """Its agent tried, and testifies that nothing runs."""
    bench = Bench().put(guest("g1", "h2", GuestPhase.STARTING))
    bench.state.pending["t"] = Pending(kind="start", host="h2", guest="g1", generation=1)
    absent = commands.Testimony(guest="g1", sighting=Sighting.ABSENT, sealed=1)
    answer = Answer(outcome=Outcome.FAILED, reason="no such disk", testimony=(absent,))
    return bench, Answered(host="h2", session="s-h2", effect="t", answer=answer)


# What few walks come across.
DRIVEN: dict[Row, Callable[[], tuple[Bench, Event]]] = {
    (HostPhase.JOINING, HostEvent.DEAD): asked_twice,
    (HostPhase.JOINING, HostEvent.CONDEMN): lambda: (
        Bench().put(host("h1", HostPhase.JOINING)),
        AskFence(id="1", by="ops", host="h1", reason="it hangs"),
    ),
    (HostPhase.RETURNING, HostEvent.DEAD): lambda: confirmed(HostPhase.RETURNING),
    (HostPhase.DRAINING, HostEvent.DEAD): lambda: confirmed(HostPhase.DRAINING),
    (HostPhase.MAINTENANCE, HostEvent.DEAD): maintained_and_off,
    (HostPhase.MAINTENANCE, HostEvent.CONTRADICTED): maintained_and_alive,
    (GuestPhase.RECOVERING, GuestEvent.GAVE_UP): crashed_too_often,
    (GuestPhase.STARTING, GuestEvent.FAILED): not_started,
    (GuestPhase.STOPPING, GuestEvent.START): relocated,
    (GuestPhase.STOPPED, GuestEvent.MOVE): off_and_relocated,
    (GuestPhase.RECOVERING, GuestEvent.MOVE): stopped_and_relocated,
    (GuestPhase.MIGRATING, GuestEvent.ENDED): lambda: (
        Bench().put(
            guest(
                "g1",
                phase=GuestPhase.MIGRATING,
                desired=Desired.STOPPED,
                move=Move(stage=MoveStage.COPYING, source="h1", destination="h2"),
            )
        ),
        Tick(),
    ),
    (GuestPhase.STOPPED, GuestEvent.REVERIFY): lambda: older_copy(GuestPhase.STOPPED),
    (GuestPhase.STOPPING, GuestEvent.SEEN_RUNNING): lambda: (
        Bench().put(guest("g1", "h1", phase=GuestPhase.STOPPING)),
        Reported(host="h1", session="s-h1", guests=(domain("g1"),)),
    ),
    (GuestPhase.RECOVERING, GuestEvent.REVERIFY): lambda: older_copy(GuestPhase.RECOVERING),
    (GuestPhase.STARTING, GuestEvent.REVERIFY): lambda: older_copy(GuestPhase.STARTING),
    (GuestPhase.UNKNOWN, GuestEvent.REVERIFY): lambda: older_copy(GuestPhase.UNKNOWN),
    (HostPhase.ONLINE, HostEvent.DEAD): lambda: confirmed(HostPhase.ONLINE),
    (HostPhase.FENCED, HostEvent.DEAD): lambda: confirmed(HostPhase.FENCED),
    (GuestPhase.STARTING, GuestEvent.DOUBLED): lambda: doubled(GuestPhase.STARTING),
    (GuestPhase.STOPPING, GuestEvent.DOUBLED): lambda: doubled(GuestPhase.STOPPING),
    (GuestPhase.UNKNOWN, GuestEvent.DOUBLED): lambda: doubled(GuestPhase.UNKNOWN),
    (GuestPhase.STOPPED, GuestEvent.DOUBLED): lambda: doubled(GuestPhase.STOPPED),
    (GuestPhase.STOPPING, GuestEvent.REVERIFY): lambda: older_copy(GuestPhase.STOPPING),
    (GuestPhase.ERROR, GuestEvent.ENDED): lambda: (
        Bench().put(guest("g1", phase=GuestPhase.ERROR)),
        AskStop(id="1", by="ops", guests=("g1",)),
    ),
}


@pytest.mark.parametrize("row", list(DRIVEN), ids=lambda row: f"{row[0]} {row[1]}")
def test_a_rare_row_is_taken(row: Row) -> None:
    """By a real event, through `decide`."""
    bench, event = DRIVEN[row]()
    found = Walked()
    with found.watching():
        draft = decide(bench.state, event, bench.now)
    check(draft, event)
    assert row in found.taken


@pytest.mark.long(keep=0)
def test_every_row_of_the_tables_is_taken_by_decide(walked: Walked) -> None:
    """A row that no event leads to is decoration, and hides a bug one day."""
    rows: set[Row] = {(p, e) for p, row in HOST_TABLE.items() for e in row}
    rows |= {(p, e) for p, row in GUEST_TABLE.items() for e in row}
    assert rows - set(walked.taken) - set(DRIVEN) == set(), "tell in DRIVEN how decide gets there"


# ---- the checks can fail


def spoiled(**fields: Any) -> Draft:
    bench = Bench().put(guest("g1", "h1"))
    draft = bench.draft()
    draft.put_guest(changed(bench.guest("g1"), **fields))
    return draft


def test_a_place_that_leaves_without_a_proof_is_noticed() -> None:
    with pytest.raises(Unsound, match="left g1 without a proof"):
        check(spoiled(may_run_on=()), Tick())
    draft = spoiled(may_run_on=())
    sealed = Proof(kind=ProofKind.SELF, host="h1", boot_id="h1-b1", text="t", sealed=0)
    draft.note("proof", "t", host="h1", guest="g1", proof=sealed)
    with pytest.raises(Unsound, match="left g1 without a proof"):
        check(draft, Tick())


def test_what_falls_is_noticed() -> None:
    with pytest.raises(Unsound, match="generation of g1 fell"):
        check(spoiled(generation=0), Tick())
    draft = Bench().draft()
    draft.cluster = changed(draft.cluster, epoch=1)
    with pytest.raises(Unsound, match="epoch fell"):
        check(draft, Tick())


def test_a_second_start_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the guard of the one function that gives out tickets gone, the check of starts finds it."""
    bench = Bench().put(guest("g1", "h1"))
    draft = bench.draft()
    place = Place(host="h2", boot_id="h2-b1", generation=2)
    both = (*bench.guest("g1").may_run_on, place)
    draft.put_guest(changed(bench.guest("g1"), may_run_on=both, generation=2))
    ticket = Ticket(
        id="t", kind=TicketKind.START, guest="g1", name="g1", generation=2, host="h2", boot_id="h2-b1", epoch=3,
        leader_id="L", session="s-h2", revision=1,
    )  # fmt: skip
    draft.wait_for("t", Pending(kind="start", host="h2", guest="g1"))
    draft.effect(SendStart(id="t", host="h2", session="s-h2", ticket=ticket, version=1))
    with pytest.raises(Unsound, match="starts on h2 while it may run on"):
        check(draft, Tick())


def test_a_refusal_that_does_something_is_noticed() -> None:
    bench = Bench()
    draft = decide(bench.state, AskStart(id="1", by="ops", guests=("g1",)), bench.now)
    check(draft, AskStart(id="1", by="ops", guests=("g1",)))
    draft.put_host(changed(bench.host("h1"), labels={"a": "1"}))
    with pytest.raises(Unsound, match="something of it was done"):
        check(draft, AskStart(id="1", by="ops", guests=("g1",)))
