"""No event in any phase makes `decide` raise or break an invariant, and every row of the tables is taken by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from dr.core import tables
from dr.core.tables import GUEST_TABLE, HOST_TABLE, GuestEvent, HostEvent
from dr.model.base import changed
from dr.model.commands import Outcome
from dr.model.events import AskStart, Tick
from dr.model.records import GuestPhase, HostPhase
from tests.core.build import Bench, guest
from tests.core.walk import ASKS, STEPS, Unsound, Walk, check

SEEDS = 60
SWEEPS = 3

Row = tuple[HostPhase | GuestPhase, HostEvent | GuestEvent]


class Walked:
    """What all walks together met and took."""

    def __init__(self) -> None:
        self.met: Counter[tuple[str, str]] = Counter()  # (phase, kind of event)
        self.taken: Counter[Row] = Counter()
        self.swept: Counter[str] = Counter()  # how often everything was tried while that phase was there


@pytest.fixture(scope="module")
def walked() -> Iterator[Walked]:
    """Walks, looking aside wherever a phase meets an event for the first time."""
    found = Walked()
    plain = tables.host_after, tables.guest_after

    def host_after(phase: HostPhase, event: HostEvent) -> HostPhase:
        after = plain[0](phase, event)
        found.taken[phase, event] += 1
        return after

    def guest_after(phase: GuestPhase, event: GuestEvent) -> GuestPhase:
        after = plain[1](phase, event)
        found.taken[phase, event] += 1
        return after

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "host_after", host_after)
        patch.setattr(tables, "guest_after", guest_after)
        for seed in range(SEEDS):
            _walk(seed, found)
        yield found


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
    return {str(after) for row in table.values() for after in row.values()} | {str(p) for p in table if p in first}


def test_every_phase_of_a_host_meets_every_event(walked: Walked) -> None:
    of_hosts = ["Heard", "Disconnected", "Leaving", "Reported", "Connected", "stray answer", "FenceEnded", "PowerSeen"]
    of_hosts += ["PowerOnEnded", "LookEnded", "Tick", "Reconfigured", "Started", "AskLabel", "AskPause", "AskResume"]
    of_hosts += [kind.__name__ for kind in ASKS if "host" in kind.__struct_fields__]
    missing = [(p, k) for p in reached(HOST_TABLE) for k in of_hosts if not walked.met[f"host {p}", k]]
    assert not missing


def test_every_phase_of_a_guest_meets_every_event(walked: Walked) -> None:
    of_guests = ["Tick", "Reconfigured", "Started", "AskLabel", "AskPause", "AskResume"]
    of_guests += [kind.__name__ for kind in ASKS if "guests" in kind.__struct_fields__]
    missing = [(p, k) for p in reached(GUEST_TABLE) for k in of_guests if not walked.met[f"guest {p}", k]]
    assert not missing


def test_every_command_ends_in_every_way(walked: Walked) -> None:
    kinds = {pair[1] for pair in walked.met}
    for command in ("start", "stop", "clean", "testify", "protect", "describe", "probe"):
        assert {f"{command} {outcome}" for outcome in Outcome} <= kinds, command


def test_every_row_of_the_tables_is_taken_by_decide(walked: Walked) -> None:
    """A row that no event leads to is decoration, and hides a bug one day."""
    rows: set[Row] = {(p, e) for p, row in HOST_TABLE.items() for e in row}
    rows |= {(p, e) for p, row in GUEST_TABLE.items() for e in row}
    assert rows - set(walked.taken) == set()
