"""Each part on a healthy tree, a broken one, and one without the files at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr.adapters.health.clock import ClockState, clock, read_clock
from dr.adapters.health.cpu import cpu
from dr.adapters.health.disks import disks
from dr.adapters.health.ecc import ecc
from dr.adapters.health.kernel import kernel
from dr.adapters.health.memory import memory
from dr.adapters.health.report import Part
from dr.adapters.health.shutdown import shutdown
from dr.adapters.health.state import state
from dr.model.facts import Level, Reading

OK, WARN, CRITICAL = Level.OK, Level.WARN, Level.CRITICAL


def put(root: Path, path: str, content: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def levels(readings: tuple[Reading, ...]) -> dict[str, Level]:
    for reading in readings:
        assert (reading.reason == "") is (reading.level is OK)
        assert reading.reason == "" or reading.reason.endswith(".")
    return {reading.part: reading.level for reading in readings}


@pytest.mark.parametrize("part", [memory, cpu, ecc, disks, kernel])
def test_a_kernel_without_the_files_is_not_ill(part: Part, tmp_path: Path) -> None:
    assert all(level is OK for level in levels(part(tmp_path)).values())  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("available", "stalled", "level"), [(50_000, 0.0, OK), (2_000, 0.0, WARN), (50_000, 25.0, WARN)]
)
def test_memory(tmp_path: Path, available: int, stalled: float, level: Level) -> None:
    put(tmp_path, "proc/meminfo", f"MemTotal: 100000 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n")
    some = "some avg10=90.00 avg60=90.00 avg300=0.00 total=1\n"
    put(tmp_path, "proc/pressure/memory", f"{some}full avg10=0.00 avg60={stalled} avg300=0.00 total=1\n")
    assert levels(memory(tmp_path)) == {"memory": level}


@pytest.mark.parametrize(("stalled", "level"), [(10.0, OK), (95.5, WARN)])
def test_cpu(tmp_path: Path, stalled: float, level: Level) -> None:
    put(tmp_path, "proc/pressure/cpu", f"some avg10=0.00 avg60={stalled} avg300=0.00 total=1\n")
    assert levels(cpu(tmp_path)) == {"cpu": level}


def test_cpu_without_psi(tmp_path: Path) -> None:
    put(tmp_path, "proc/loadavg", "1.0 99999.0 1.0 1/1 1\n")
    assert levels(cpu(tmp_path)) == {"cpu": WARN}


@pytest.mark.parametrize(("ue", "ce", "level"), [(0, 3, OK), (0, 5000, WARN), (1, 0, CRITICAL)])
def test_ecc(tmp_path: Path, ue: int, ce: int, level: Level) -> None:
    mc = "sys/devices/system/edac/mc/mc0"
    put(tmp_path, f"{mc}/ue_count", f"{ue}\n")
    put(tmp_path, f"{mc}/ce_count", f"{ce}\n")
    put(tmp_path, f"{mc}/dimm1/dimm_ue_count", f"{ue}\n")
    put(tmp_path, f"{mc}/dimm1/dimm_ce_count", f"{ce}\n")
    put(tmp_path, f"{mc}/dimm1/dimm_label", "DIMM_A2\n")
    found = ecc(tmp_path)
    assert levels(found) == {"ecc:mc0": level}
    assert ("DIMM_A2" in found[0].reason) is (level is not OK)


MDSTAT = """Personalities : [raid1]
md0 : active raid1 sdb1[1] sda1[0]
      1046528 blocks super 1.2 [2/2] [UU]

md1 : active raid1 sda2[0]
      1046528 blocks super 1.2 [2/1] [U_]
      bitmap: 1/1 pages [4KB], 65536KB chunk

md2 : inactive sdc1[0](S)
      1046528 blocks super 1.2

unused devices: <none>
"""


def test_disks(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/mounts", "proc /proc proc rw 0 0\n/dev/sda1 / ext4 ro,relatime 0 0\n")
    put(tmp_path, "proc/mdstat", MDSTAT)
    put(tmp_path, "sys/block/sda/device/ioerr_cnt", "0x5\n")
    put(tmp_path, "sys/block/sdb/device/ioerr_cnt", "0x1f4\n")
    put(tmp_path, "sys/class/nvme/nvme0/state", "live\n")
    put(tmp_path, "sys/class/nvme/nvme1/state", "dead\n")
    assert levels(disks(tmp_path)) == {
        "disk:root": CRITICAL,
        "disk:sda": OK,
        "disk:sdb": WARN,
        "raid:md0": OK,
        "raid:md1": WARN,
        "raid:md2": WARN,
        "disk:nvme0": OK,
        "disk:nvme1": CRITICAL,
    }


@pytest.mark.parametrize(
    ("tainted", "level"),
    [(0, OK), (1 << 12, OK), (1 << 9, WARN), (1 << 14, WARN), (1 << 7, CRITICAL), (1 << 4, CRITICAL),
     (1 << 9 | 1 << 7, CRITICAL)],
)  # fmt: skip
def test_kernel(tmp_path: Path, tainted: int, level: Level) -> None:
    put(tmp_path, "proc/sys/kernel/tainted", f"{tainted}\n")
    assert levels(kernel(tmp_path)) == {"kernel": level}


@pytest.mark.parametrize(
    ("synchronised", "offset_ms", "level"), [(True, -20.0, OK), (False, 0.0, WARN), (True, -900.0, WARN)]
)
def test_clock(synchronised: bool, offset_ms: float, level: Level) -> None:
    assert levels(clock(lambda: ClockState(synchronised=synchronised, offset_ms=offset_ms))) == {
        "clock": level
    }


def test_this_machines_clock_can_be_read() -> None:
    assert abs(read_clock().offset_ms) < 3_600_000


def test_state_folder(tmp_path: Path) -> None:
    assert levels(state(tmp_path)) == {"state": OK}
    assert list(tmp_path.iterdir()) == []


def test_state_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("dr.adapters.health.state.os.fsync", fail)
    (reading,) = state(tmp_path)
    assert reading.level is CRITICAL
    assert "can take no orders" in reading.reason


def test_a_state_folder_that_is_not_there_yet_is_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a host boots: the agent makes it, and what it cannot write it tells itself."""
    assert levels(state(tmp_path / "agent")) == {"state": WARN}
    unlink = Path.unlink

    def twice(path: Path, *, missing_ok: bool = False) -> None:
        unlink(path)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", twice)  # two looks at once
    assert levels(state(tmp_path)) == {"state": OK}


def test_a_host_whose_shutdown_would_not_wait_says_so(tmp_path: Path) -> None:
    assert shutdown(tmp_path) == (), "no systemd"
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert levels(shutdown(tmp_path)) == {"shutdown": WARN}
    (tmp_path / "run/systemd/units").mkdir()
    (tmp_path / "run/systemd/units/invocation:dr-leave.service").symlink_to("0123456789abcdef")
    assert levels(shutdown(tmp_path)) == {"shutdown": OK}
