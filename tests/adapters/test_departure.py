"""Whether the host goes down, and what holds that up, from a /run and a systemctl that are made up."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import dr
from dr.adapters.departure import SystemdDeparture

NOW = 1_000_000.0
JOBS = "1 {target} start waiting\n2 libvirtd.service stop running\n"


class Systemd:
    """Answers as systemctl would, and counts."""

    def __init__(self, run: Path, state: str = "running", target: str = "poweroff.target") -> None:
        self.run, self.state, self.target, self.asked = run, state, target, 0
        (run / "systemd" / "system").mkdir(parents=True)
        self.departure = SystemdDeparture(run, ask=self.ask, wall=lambda: NOW)

    async def ask(self, arguments: tuple[str, ...]) -> str:
        self.asked += 1
        return f"{self.state}\n" if arguments == ("is-system-running",) else JOBS.format(target=self.target)

    def schedule(self, mode: str, in_s: float) -> None:
        (self.run / "systemd" / "shutdown").mkdir()
        text = f"USEC={int((NOW + in_s) * 1e6)}\nWARN_WALL=1\nMODE={mode}\n"
        (self.run / "systemd" / "shutdown" / "scheduled").write_text(text)


async def test_without_systemd_nothing_is_announced(tmp_path: Path) -> None:
    (tmp_path / "nologin").touch()

    async def ask(arguments: tuple[str, ...]) -> str:
        raise AssertionError("nobody is there to be asked")

    assert await SystemdDeparture(tmp_path, ask=ask).kind(sure=True) == ""


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("reboot.target", "reboot"),
        ("kexec.target", "reboot"),
        ("poweroff.target", "shutdown"),
        ("x", "shutdown"),
    ],
)
async def test_one_that_is_under_way(tmp_path: Path, target: str, kind: str) -> None:
    systemd = Systemd(tmp_path, "stopping", target)
    assert await systemd.departure.kind() == ""
    assert systemd.asked == 0, "nothing hints at it, so nobody is asked"
    assert await systemd.departure.kind(sure=True) == kind
    (tmp_path / "nologin").touch()
    assert await systemd.departure.kind() == kind


@pytest.mark.parametrize("state", ["running", "degraded", "starting", "maintenance", ""])
async def test_nologin_alone_is_no_shutdown(tmp_path: Path, state: str) -> None:
    """It is there while a host boots, too; and a systemctl that does not answer says nothing."""
    systemd = Systemd(tmp_path, state)
    (tmp_path / "nologin").touch()
    assert await systemd.departure.kind(sure=True) == ""


@pytest.mark.parametrize(
    ("mode", "in_s", "kind"),
    [
        ("reboot", 60.0, "reboot"),
        ("poweroff", 60.0, "shutdown"),
        ("poweroff", -5.0, "shutdown"),
        ("reboot", 3600.0, ""),
        ("dry-reboot", 60.0, ""),
    ],
)
async def test_one_that_is_scheduled(tmp_path: Path, mode: str, in_s: float, kind: str) -> None:
    systemd = Systemd(tmp_path)
    systemd.schedule(mode, in_s)
    assert await systemd.departure.kind() == kind


async def test_a_schedule_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path)
    systemd.schedule("reboot", 0.0)
    (tmp_path / "systemd" / "shutdown" / "scheduled").write_text("garbage\nUSEC=x\n")
    assert await systemd.departure.kind() == ""


async def test_a_shutdown_waits_until_the_agent_lets_go(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path, "stopping")
    systemd.departure.hold(True)
    unit = asyncio.create_task(SystemdDeparture(tmp_path, ask=systemd.ask).until_let_go())
    await asyncio.sleep(0.5)
    assert not unit.done()
    assert await systemd.departure.kind() == "shutdown", (
        "the unit has left a mark: nobody else need hint at it"
    )
    systemd.departure.hold(True)
    systemd.departure.hold(False)
    assert await asyncio.wait_for(unit, 5.0), "it was held"


async def test_a_host_that_stays_or_that_nobody_holds_is_not_waited_for(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path, "running")
    systemd.departure.hold(True)
    unit = SystemdDeparture(tmp_path, ask=systemd.ask)
    assert not await asyncio.wait_for(unit.until_let_go(), 5.0), "somebody stopped the unit, and no more"
    systemd.departure.hold(False)
    systemd.state = "stopping"
    assert not await asyncio.wait_for(unit.until_let_go(), 5.0)


HOLDER = """
import sys, time
from pathlib import Path
from dr.adapters.departure import SystemdDeparture
SystemdDeparture(Path(sys.argv[1])).hold(True)
print("held", flush=True)
time.sleep(60)
"""


async def test_an_agent_that_dies_holds_nothing_up(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path, "stopping")
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    env = {"PYTHONPATH": str(Path(dr.__file__).parents[1])}
    holder = await asyncio.create_subprocess_exec(*words, env=env, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    unit = asyncio.create_task(systemd.departure.until_let_go())
    await asyncio.sleep(0.3)
    assert not unit.done()
    holder.kill()
    await holder.wait()
    assert await asyncio.wait_for(unit, 5.0)


async def test_what_cannot_be_held_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "dr").touch()
    departure = SystemdDeparture(tmp_path)
    for _ in range(3):
        departure.hold(True)
    assert [record.message for record in caplog.records] == [
        f"a shutdown of this host cannot be held up: [Errno 17] File exists: '{tmp_path}/dr'"
    ]
