"""Whatever ends the coordinator, or the wait for an agent, ends everything that the agent started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dr.adapters.fencing import process

# An agent whose helper is in a session of its own (as pexpect's are) and would switch off 1 s later.
AGENT = """#!/bin/sh
setsid sh -c 'echo $$ > "$0.helper"; sleep 1; touch "$0.fired"' "$0" &
echo $$ > "$0.agent"
cat > /dev/null
sleep 30
"""
COORDINATOR = """
import asyncio, os, sys, time
from dr.adapters.fencing import process

async def main(agent, worker):
    fence = asyncio.create_task(process.run((agent,), "password=x\\n", 30))
    while not os.path.exists(agent + ".agent"):
        await asyncio.sleep(0.01)
    # A forked worker inherits the leash and outlives its parent.
    if worker == "worker" and os.fork() == 0:
        open(agent + ".worker", "w").write(str(os.getpid()))
        time.sleep(20)
        os._exit(0)
    await fence

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "fence_forking"
    path.write_text(AGENT)
    path.chmod(0o755)
    return path


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def appears(file: Path) -> int:
    """The number in `file`, once it is there."""
    until = time.monotonic() + 10
    while not (file.exists() and file.read_text().strip()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return int(file.read_text())


def pids(agent: Path) -> list[int]:
    """The agent's and its helper's, once both are there."""
    return [appears(agent.with_name(f"{agent.name}.{kind}")) for kind in ("agent", "helper")]


def assert_gone(agent: Path) -> None:
    until = time.monotonic() + 3
    while any(alive(pid) for pid in pids(agent)):
        assert time.monotonic() < until, "a part of the agent is left"
        time.sleep(0.01)
    assert not agent.with_name(f"{agent.name}.fired").exists()


async def test_output_input_and_code(tmp_path: Path) -> None:
    path = tmp_path / "echo"
    path.write_text("#!/bin/sh\ncat; echo bad >&2; exit 9\n")
    path.chmod(0o755)
    done = await process.run((str(path),), "a=b\nü\n", 5)
    assert done == process.Finished(9, "a=b\nü\n", "bad\n")


async def test_timeout_takes_all_along(agent: Path) -> None:
    began = time.monotonic()
    done = await process.run((str(agent),), "x", 0.4)
    assert done.code is None
    assert time.monotonic() - began < 1
    assert_gone(agent)


async def test_cancelling_takes_all_along(agent: Path) -> None:
    task = asyncio.create_task(process.run((str(agent),), "x", 30))
    await asyncio.to_thread(pids, agent)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_gone(agent)


async def test_what_a_finished_agent_left_running_is_killed(agent: Path) -> None:
    agent.write_text(AGENT.replace("sleep 30", "sleep 0.2; exit 2"))
    assert (await process.run((str(agent),), "x", 10)).code == 2
    assert_gone(agent)


@pytest.mark.parametrize("worker", ["alone", "worker"])
def test_a_killed_coordinator_leaves_no_fence(agent: Path, worker: str) -> None:
    with subprocess.Popen([sys.executable, "-c", COORDINATOR, str(agent), worker]) as run:
        pids(agent)
        forked = appears(agent.with_name(f"{agent.name}.worker")) if worker == "worker" else 0
        run.kill()
    try:
        assert_gone(agent)
    finally:
        if forked:
            os.kill(forked, signal.SIGKILL)


async def test_a_stopped_keeper_is_killed_with_its_group(
    agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "END_S", 0.2)
    agent.write_text(AGENT.replace("setsid ", ""))
    task = asyncio.create_task(process.run((str(agent),), "x", 0.5))
    agent_pid, _ = await asyncio.to_thread(pids, agent)
    keeper = int(Path(f"/proc/{agent_pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGSTOP)
    assert (await task).code is None
    assert_gone(agent)


@pytest.mark.parametrize("sent", [b"", b"10", b"10\npassw"])
def test_an_input_that_breaks_off_starts_nothing(agent: Path, sent: bytes) -> None:
    command = [sys.executable, "-I", "-S", process.KEEPER, str(os.getpid()), str(agent)]
    assert subprocess.run(command, input=sent, timeout=5, check=False).returncode == 125
    assert not agent.with_name(f"{agent.name}.agent").exists()


async def test_what_cannot_be_started_says_so() -> None:
    done = await process.run(("/does/not/exist",), "x", 5)
    assert done.code == 126
    assert done.err == "/does/not/exist: No such file or directory\n"
