"""The agent's memory: whole after kill -9 at any moment, never guessed at when corrupt."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dr.adapters.store.memory import FileMemory
from dr.model.commands import Answer, Outcome, ProtectedEntry
from dr.model.memory import AgentMemory, Remembered
from dr.ports.memory import MemoryStore

MEMORY = AgentMemory(
    cluster="c1",
    epoch=3,
    leader_id="l1",
    revision=77,
    protected_version=4,
    entries=(ProtectedEntry(guest="g1", name="web", generation=5, holder="h1"),),
    watch_storage=("nfs:x",),
    sealed={"g1": 5},
    tickets=(Remembered(command="c9", answer=Answer(outcome=Outcome.DONE)), Remembered(command="c10")),
)


def test_round_trip(tmp_path: Path) -> None:
    store: MemoryStore = FileMemory(tmp_path / "agent" / "memory.json")
    assert store.load() == AgentMemory()
    store.save(MEMORY)
    assert store.load() == MEMORY
    file = tmp_path / "agent" / "memory.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["memory.json"]


def test_corrupt_is_said_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "memory.json"
    store = FileMemory(file)
    store.save(MEMORY)
    whole = file.read_bytes()
    flipped = whole.replace(b'"sealed":{"g1":5}', b'"sealed":{"g1":4}')
    assert flipped != whole
    for bad in (
        b"",
        b"{}",
        whole[:-1],
        whole[: len(whole) // 2],
        flipped,
        b"\0" * len(whole),
        b'{"crc32":0,"memory":1}',
    ):
        file.write_bytes(bad)
        with pytest.raises(ValueError, match=f"{file} is corrupt"):
            store.load()
        assert file.read_bytes() == bad


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="proc"):
        FileMemory(Path("/proc/no/memory.json")).save(MEMORY)
    file = tmp_path / "memory.json"
    FileMemory(file).save(MEMORY)
    (tmp_path / "memory.json.new").write_bytes(b"a crash left this")
    FileMemory(file).save(MEMORY)
    assert FileMemory(file).load() == MEMORY


WRITER = """
import sys
from pathlib import Path
from dr.adapters.store.memory import FileMemory
from dr.model.memory import AgentMemory

store = FileMemory(Path(sys.argv[1]))
number = store.load().epoch
while True:
    number += 1
    store.save(AgentMemory(epoch=number, leader_id="x" * 20_000, revision=number))
    print(number, flush=True)
"""


def test_kill_9_forgets_nothing(tmp_path: Path) -> None:
    file = tmp_path / "memory.json"
    promised = 0
    for round_ in range(10):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            promised = max(promised, int(writer.stdout.readline()))
            time.sleep(0.005 + round_ * 0.003)
            writer.send_signal(signal.SIGKILL)
            lines = writer.stdout.read().split(b"\n")
        promised = max([promised, *(int(line) for line in lines[:-1])])
        memory = FileMemory(file).load()
        assert promised <= memory.epoch <= promised + 1
        assert memory.epoch == memory.revision
