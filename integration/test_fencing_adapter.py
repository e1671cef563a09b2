"""The fencing adapter against real BMCs: Debian's ipmi_sim, fence_ipmilan and ipmitool, on 127.0.0.1.

Not here: hosts that really lose power (the lab). Needs no root, only the lab's Debian packages.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dr.adapters.fencing.agents import FenceAgents
from dr.model.base import changed
from dr.model.evidence import Power
from dr.model.policy import FenceDevice, FenceLevel

PASSWORD = "s3cret-pa$s"
GUIDS = {"a": "a123456789abcdefa123456789abcdef", "b": "b123456789abcdefa123456789abcdef"}

LAN = """
name "{name}"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_admin none md2 md5 straight
    guid {guid}
  endlan
  chassis_control "{folder}/chassis"
  user 2 true "admin" "{password}" admin 10 none md2 md5 straight
"""
COMMANDS = """
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
"""
CHASSIS = """#!/bin/sh
op=$1; shift
if [ "$op" = get ]; then
    [ "$1" = power ] && echo "power:$(cat {folder}/power)" || echo "$1:0"
else
    while [ $# -gt 0 ]; do [ "$1" = power ] && echo "$2" > {folder}/power; shift 2; done
fi
"""


class Bmc:
    """One ipmi_sim in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        (folder / "state").mkdir(parents=True)
        (folder / "power").write_text("1")
        (folder / "chassis").write_text(CHASSIS.format(folder=folder))
        (folder / "chassis").chmod(0o755)
        (folder / "commands").write_text(COMMANDS)
        self.start(GUIDS[name])

    def start(self, guid: str) -> None:
        lan = LAN.format(folder=self.folder, name=self.name, port=self.port, guid=guid, password=PASSWORD)
        (self.folder / "lan.conf").write_text(lan)
        binary = shutil.which("ipmi_sim")
        assert binary, "run: apt install openipmi"
        command = [binary, "-c", "lan.conf", "-f", "commands", "-s", "state", "-n"]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        log.close()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def power(self, to: str = "") -> str:
        if to:
            (self.folder / "power").write_text(to)
        return (self.folder / "power").read_text().strip()

    def device(self, **parameters: str) -> FenceDevice:
        base = {"ip": "127.0.0.1", "ipport": str(self.port), "username": "admin", "password": PASSWORD}
        ours = {"lanplus": "1", "cipher": "3"}
        return FenceDevice(
            name=f"bmc-{self.name}", agent="fence_ipmilan", parameters=base | ours | parameters
        )


@pytest.fixture
def bmcs(tmp_path: Path) -> Iterator[tuple[Bmc, Bmc]]:
    pair = Bmc(tmp_path / "a", "a"), Bmc(tmp_path / "b", "b")
    wait_until_up(pair)
    yield pair
    for bmc in pair:
        bmc.stop()


def wait_until_up(bmcs: tuple[Bmc, ...]) -> None:
    for bmc in bmcs:
        until = time.monotonic() + 10
        while f":{bmc.port:04X}" not in Path("/proc/net/udp").read_text():
            assert time.monotonic() < until, (bmc.folder / "log").read_text()
            time.sleep(0.02)


def level(*devices: FenceDevice) -> FenceLevel:
    return FenceLevel(devices=devices)


async def test_read_power_and_identity(bmcs: tuple[Bmc, Bmc]) -> None:
    a, b = bmcs
    b.power("0")
    fencer = FenceAgents()
    times = []
    for _ in range(5):
        began = time.monotonic()
        report_a, report_b = await fencer.read((level(a.device()), level(b.device())))
        times.append(time.monotonic() - began)
        assert (report_a.readings[0].power, report_b.readings[0].power) == (Power.ON, Power.OFF)
        assert report_a.readings[0].guid == "efcdab89-6745-23a1-efcd-ab89674523a1"
        assert report_b.readings[0].guid == "efcdab89-6745-23a1-efcd-ab89674523b1"
        assert report_a.readings[0].reason == ""
    print(
        f"reading two BMCs, power and GUID: median {statistics.median(times):.3f} s, worst {max(times):.3f} s"
    )
    assert statistics.median(times) < 5


async def test_off_and_on(bmcs: tuple[Bmc, Bmc]) -> None:
    a, b = bmcs
    b.power("0")
    fencer = FenceAgents()
    began = time.monotonic()
    report = await fencer.off(0, level(a.device(), b.device()), 30)
    print(f"off, two devices, with both readings: {time.monotonic() - began:.3f} s: {report.readings}")
    assert [r.power for r in report.readings] == [Power.OFF, Power.OFF]
    assert (a.power(), b.power()) == ("0", "0")
    assert "switched off in" in report.readings[0].reason
    assert report.readings[1].reason == "was off already"
    began = time.monotonic()
    assert (await fencer.on((level(a.device(), b.device()),)))[0]
    print(f"on, two devices: {time.monotonic() - began:.3f} s")
    assert (a.power(), b.power()) == ("1", "1")


async def test_other_bmc_at_the_same_address(bmcs: tuple[Bmc, Bmc]) -> None:
    a, _ = bmcs
    fencer = FenceAgents()
    (before,) = await fencer.read((level(a.device()),))
    a.stop()
    a.start("c123456789abcdefa123456789abcdef")
    wait_until_up((a,))
    (after,) = await fencer.read((level(a.device()),))
    assert after.readings[0].fingerprint == before.readings[0].fingerprint
    assert after.readings[0].guid not in ("", before.readings[0].guid)


async def test_wrong_password_and_dead_bmc(bmcs: tuple[Bmc, Bmc]) -> None:
    a, b = bmcs
    b.stop()
    fencer = FenceAgents(read_s=2.0)
    wrong = changed(a.device(password="wrong-one"), name="wrong")
    began = time.monotonic()
    report = await fencer.off(0, level(wrong, b.device()), 6)
    took_s = time.monotonic() - began
    print(f"off with a wrong password and a dead BMC, 6 s allowed: {took_s:.2f} s")
    print(*report.readings, sep="\n")
    assert took_s < 12
    assert [r.power for r in report.readings] == [Power.UNKNOWN, Power.UNKNOWN]
    assert a.power() == "1"
    assert "wrong-one" not in str(report)
    assert PASSWORD not in str(report)
    assert left_over(a) + left_over(b) == []


def left_over(bmc: Bmc) -> list[str]:
    """Commands of this machine that still talk to the BMC."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(bmc.port).encode() in words:
            found.append(b" ".join(words).decode())
    return found


COORDINATOR = """
import asyncio, sys, msgspec
from dr.adapters.fencing.agents import FenceAgents
from dr.model.policy import FenceLevel
asyncio.run(FenceAgents().off(0, msgspec.json.decode(sys.stdin.buffer.read(), type=FenceLevel), 60))
"""


async def test_killed_coordinator_leaves_no_ipmitool(bmcs: tuple[Bmc, Bmc]) -> None:
    """Against a BMC that does not answer, ipmitool would go on trying for 28 s, and then switch off."""
    import msgspec

    a, _ = bmcs
    os.kill(a.process.pid, 19)  # SIGSTOP
    run = await asyncio.create_subprocess_exec(sys.executable, "-c", COORDINATOR, stdin=subprocess.PIPE)
    assert run.stdin is not None
    run.stdin.write(msgspec.json.encode(level(a.device())))
    run.stdin.close()
    until = time.monotonic() + 10
    while len(left_over(a)) < 2:  # power and GUID
        assert time.monotonic() < until
        await asyncio.sleep(0.02)
    run.kill()
    await run.wait()
    began = time.monotonic()
    while left_over(a):
        assert time.monotonic() < began + 2
        await asyncio.sleep(0.01)
    print(f"all gone {time.monotonic() - began:.3f} s after the coordinator was killed")
    os.kill(a.process.pid, 18)  # SIGCONT
    await asyncio.sleep(0.5)
    assert a.power() == "1"
