"""Which storage is reachable: what is asked for while a look is under way is looked at next, not seconds later."""

import asyncio

import pytest

from dr.adapters.libvirt import reach
from dr.adapters.libvirt.layout import Layout


async def test_what_is_watched_during_a_look_is_looked_at_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second protected guest's storage, named while that of the first is tried, is not missing afterwards."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def connects(host: str, port: int) -> bool:
        begun.set()
        await go_on.wait()
        return True

    monkeypatch.setattr(reach, "connects", connects)
    tried = reach.Reach(Layout())
    tried.watch(("nbd:10.0.0.1:10809",))
    first = asyncio.create_task(tried.reachable())
    await begun.wait()
    tried.watch(("nbd:10.0.0.1:10809", "nbd:10.0.0.1:10810"))
    go_on.set()
    await first
    assert "nbd:10.0.0.1:10810" in await tried.reachable()
