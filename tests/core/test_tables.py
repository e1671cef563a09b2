"""Every (state, event) pair of both tables: what is listed moves, all else raises and changes nothing."""

import itertools
from typing import Any

import pytest

from dr.core.tables import (
    GUEST_TABLE,
    HOST_TABLE,
    GuestEvent,
    HostEvent,
    IllegalTransition,
    guest_after,
    host_after,
    mermaid,
    move_guest,
    move_host,
)
from dr.model.records import GuestPhase, HostPhase
from tests.core.build import Bench, guest, host


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(HostPhase, HostEvent)))
def test_every_pair_of_a_host(phase: HostPhase, event: HostEvent) -> None:
    bench = Bench().put(host("h1", phase))
    draft = bench.draft()
    after = HOST_TABLE.get(phase, {}).get(event)
    if after is None:
        with pytest.raises(IllegalTransition, match=f"{phase}.*{event}"):
            move_host(draft, bench.host("h1"), event, "because")
        assert not draft.changes()
        return
    moved = move_host(draft, bench.host("h1"), event, "because")
    assert moved.phase is after is host_after(phase, event)
    assert moved.reason == "because"
    assert moved.since == (bench.now if after is not phase else bench.host("h1").since)
    assert draft.changes().hosts == {"h1": moved}
    assert [note.text for note in draft.changes().notes] == ["h1: because"]


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(GuestPhase, GuestEvent)))
def test_every_pair_of_a_guest(phase: GuestPhase, event: GuestEvent) -> None:
    bench = Bench().put(guest("g1", "h1", phase))
    draft = bench.draft()
    after = GUEST_TABLE.get(phase, {}).get(event)
    if after is None:
        with pytest.raises(IllegalTransition, match=f"{phase}.*{event}"):
            move_guest(draft, bench.guest("g1"), event, "because")
        assert not draft.changes()
        return
    moved = move_guest(draft, bench.guest("g1"), event, "because")
    assert moved.phase is after is guest_after(phase, event)
    assert moved.may_run_on == bench.guest("g1").may_run_on
    assert moved.generation == bench.guest("g1").generation
    assert draft.changes().guests == {"g1": moved}


def test_every_phase_has_a_row_and_can_be_reached() -> None:
    """No phase is forgotten, and none is only decoration."""
    assert set(HOST_TABLE) == set(HostPhase)
    assert set(GUEST_TABLE) == set(GuestPhase)
    assert {after for row in HOST_TABLE.values() for after in row.values()} == set(HostPhase)
    assert {after for row in GUEST_TABLE.values() for after in row.values()} == set(GuestPhase)


def test_diagrams_show_every_move() -> None:
    """One arrow between two phases, with every event that leads there."""
    tables: tuple[dict[Any, dict[Any, Any]], ...] = (HOST_TABLE, GUEST_TABLE)
    for table in tables:
        first, *lines = mermaid(table).splitlines()
        assert first == "stateDiagram-v2"
        shown = set()
        for line in lines:
            arrow, _, events = line.strip().partition(": ")
            before, _, after = arrow.partition(" --> ")
            shown |= {(before, event, after) for event in events.split(", ")}
        assert shown == {(p, e, a) for p, row in table.items() for e, a in row.items()}
        assert len(lines) == len({(p, a) for p, row in table.items() for a in row.values()})
