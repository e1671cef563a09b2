"""Names of events, and a queue that loses rather than blocks, and says so."""

from __future__ import annotations

import pytest

from dr.adapters.libvirt import events
from dr.adapters.libvirt.events import Events, lifecycle
from dr.ports.hypervisor import DomainEvent


@pytest.mark.parametrize(
    ("numbers", "names"),
    [
        ((0, 1), ("defined", "updated")),
        ((1, 0), ("undefined", "removed")),
        ((2, 1), ("started", "migrated")),
        ((3, 2), ("suspended", "ioerror")),
        ((5, 2), ("crashed", "crashed")),
        ((5, 5), ("stopped", "failed")),
        ((8, 0), ("panicked", "panicked")),
        ((99, 7), ("lifecycle_99", "7")),
    ],
)
def test_lifecycle(numbers: tuple[int, int], names: tuple[str, str]) -> None:
    assert lifecycle(*numbers) == names


async def test_a_full_queue_says_that_it_lost_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUEUE_MAX", 4)
    queue = Events()
    queue.bind()
    for number in range(6):
        queue._put(DomainEvent(guest=str(number), name="", kind="started"))
    reader = aiter(queue)
    kinds = [(await anext(reader)).kind for _ in range(5)]
    assert sorted(kinds) == ["overflow", "started", "started", "started", "started"]
    queue._put(DomainEvent(guest="9", name="", kind="stopped"))
    assert (await anext(reader)).kind == "stopped", "said once"


def test_before_anybody_listens_nothing_is_kept() -> None:
    Events().tell(DomainEvent(guest="", name="", kind="started"))
