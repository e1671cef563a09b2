"""What clones write while they run: it stays within the drill's bound, or the drill ends on its host."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dr.adapters.clones.clones import HostClones, _Drill
from dr.ports.clones import CloneError

GUEST = "0b9c2f9e-9d5c-4e1c-8f39-000000000001"
MIB = 2**20


async def test_a_clone_that_writes_beyond_the_bound_ends_its_drill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clones = HostClones("h1", folder=tmp_path)
    drill = _Drill("d1", until=1e9, disk_mib=2)
    clones._drills["d1"] = drill
    image = tmp_path / "h1" / "d1" / GUEST / "vda.qcow2"
    image.parent.mkdir(parents=True)
    image.write_bytes(bytes(MIB))

    async def end(name: str) -> None:
        clones._drills[name].ended = True

    monkeypatch.setattr(clones, "_end_quietly", end)
    watch = asyncio.create_task(clones._watch_room(drill))
    await asyncio.sleep(0.5)
    assert not watch.done(), "it has what it may have"
    image.write_bytes(bytes(4 * MIB))
    await asyncio.wait_for(watch, 10)
    assert drill.ended
    with pytest.raises(CloneError, match="the drill was ended here: the drill may use 2 MiB"):
        clones.clone_of("d1", GUEST)
