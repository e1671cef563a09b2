"""Reading and switching through programs that work, lie, hang, crash, babble, and give secrets away."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dr.adapters.fencing import agents as agents_module
from dr.adapters.fencing.agents import FenceAgents, understand
from dr.adapters.fencing.process import Finished
from dr.model.evidence import Power
from dr.model.policy import FenceDevice
from tests.adapters.fencing.conftest import GOOD, Rack, level

SECRET = 'hunter2 "x" $HOME'


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_module, "ROUND_WAIT_S", 0.05)
    monkeypatch.setattr(agents_module, "RETRY_WAIT_S", 0.02)


async def test_read_changes_nothing(rack: Rack) -> None:
    on = rack.device(rack.agent("fence_good"), "a")
    off = rack.device("fence_good", "b", power="off")
    reports = await rack.agents(guid=lambda d: f"guid-{d.name}").read((level(on), level(on, off)))
    assert [[(r.device, r.power, r.guid) for r in report.readings] for report in reports] == [
        [("a", Power.ON, "guid-a")],
        [("a", Power.ON, "guid-a"), ("b", Power.OFF, "guid-b")],
    ]
    assert [report.level for report in reports] == [0, 1]
    assert set(rack.journal(on) + rack.journal(off)) == {"status"}


async def test_off_reads_first_and_reads_again(rack: Rack) -> None:
    device = rack.device(rack.agent("fence_good"))
    report = await rack.agents().off(1, level(device), 10)
    assert rack.journal(device) == ["status", "off", "status"]
    assert report.level == 1
    assert report.readings[0].power is Power.OFF
    assert "switched off in" in report.readings[0].reason
    assert len(report.readings[0].fingerprint) == 64


async def test_already_off_is_success_and_noted(rack: Rack) -> None:
    device = rack.device(rack.agent("fence_good"), power="off")
    report = await rack.agents().off(0, level(device), 10)
    assert rack.journal(device) == ["status", "status"]
    assert report.readings[0].power is Power.OFF
    assert report.readings[0].reason == "was off already"


async def test_all_are_read_again_after_the_last_went_off(rack: Rack) -> None:
    """psu-a comes back on while psu-b is still being switched off: the level is not off."""
    a = rack.device(rack.agent("fence_good"), "psu-a")
    outlet_a = a.parameters["ip"]
    b = rack.device(
        rack.agent(
            "fence_slow", f"if action == 'off': time.sleep(0.5); open({outlet_a!r}, 'w').write('on')\n" + GOOD
        ),
        "psu-b",
    )
    report = await rack.agents().off(0, level(a, b), 2)
    assert [r.power for r in report.readings] == [Power.ON, Power.OFF]
    assert "the status read afterwards says on" in report.readings[0].reason


async def test_success_that_lies(rack: Rack) -> None:
    liar = rack.device(rack.agent("fence_liar", "status() if action == 'status' else sys.exit(0)"))
    report = await rack.agents().off(0, level(liar), 2)
    assert report.readings[0].power is Power.ON
    assert "the status read afterwards says on" in report.reason + report.readings[0].reason


async def test_a_device_that_is_late_is_read_again(rack: Rack) -> None:
    late = rack.agent(
        "fence_late",
        "n = open(state + '.journal').read().count('status')\n"
        "if action == 'off': sys.exit(0)\n"
        "if action == 'status' and n >= 3: power('off')\n" + GOOD,
    )
    device = rack.device(late)
    report = await rack.agents().off(0, level(device), 10)
    assert report.readings[0].power is Power.OFF
    assert rack.journal(device) == ["status", "off", "status", "status"]


async def test_off_that_fails_once_is_tried_again(rack: Rack) -> None:
    once = rack.agent(
        "fence_flaky",
        "if action == 'off' and open(state + '.journal').read().count('off') == 1: fail('Connection lost')\n"
        + GOOD,
    )
    device = rack.device(once)
    report = await rack.agents().off(0, level(device), 10)
    assert rack.journal(device) == ["status", "off", "off", "status"]
    assert report.readings[0].power is Power.OFF


async def test_tries_are_bounded_and_a_refused_password_is_not_tried_again(rack: Rack) -> None:
    broken = rack.device(rack.agent("fence_broken", "fail('Connection lost')"), "a")
    locked = rack.device(rack.agent("fence_locked", "fail('Unable to connect/login to fencing device')"), "b")
    report = await rack.agents().off(0, level(broken, locked), 10)
    assert [r.power for r in report.readings] == [Power.UNKNOWN, Power.UNKNOWN]
    assert rack.journal(broken) == ["status"] * 2 + ["off"] * 3 + ["status"] * 2
    assert rack.journal(locked) == ["status", "off", "status"]
    assert "fence_broken status failed (exit code 1): Connection lost" in report.readings[0].reason
    assert "check the device's address, user name and password" in report.readings[1].reason


async def test_a_hanging_agent_costs_the_timeout_and_not_more(rack: Rack) -> None:
    hang = rack.device(rack.agent("fence_hang", "time.sleep(60)"), "hang")
    good = rack.device(rack.agent("fence_good"), "good")
    began = time.monotonic()
    report = await rack.agents(read_s=0.5).off(0, level(hang, good), 1.5)
    assert time.monotonic() - began < 2.3
    assert [r.power for r in report.readings] == [Power.UNKNOWN, Power.OFF]
    assert "gave no answer within" in report.readings[0].reason


@pytest.mark.parametrize(
    ("behaviour", "power", "words"),
    [
        ("os.kill(os.getpid(), 11)", Power.UNKNOWN, "signal 11"),
        ("sys.exit(2)", Power.UNKNOWN, "exit code 2 and no status do not go together"),
        ("print('Status: OFF')", Power.UNKNOWN, "exit code 0 and Status: OFF do not go together"),
        ("print('Status: ON'); sys.exit(2)", Power.UNKNOWN, "exit code 2 and Status: ON do not go together"),
        ("print('<html>'); os.write(1, bytes(range(256))); sys.exit(7)", Power.UNKNOWN, "exit code 7"),
        ("sys.exit(1)", Power.UNKNOWN, "it said nothing"),
        ("os.write(2, b'x' * 10_000_000 + b'\\n'); status()", Power.ON, ""),
        (
            "os.write(1, b'x' * 200_000 + b'\\nStatus: OFF\\n'); sys.exit(2)",
            Power.UNKNOWN,
            "do not go together",
        ),
    ],
)
async def test_garbage_is_unknown(rack: Rack, behaviour: str, power: Power, words: str) -> None:
    (report,) = await rack.agents().read((level(rack.device(rack.agent("fence_odd", behaviour))),))
    assert report.readings[0].power is power
    assert words in report.readings[0].reason
    assert len(report.readings[0].reason) < 500
    assert report.readings[0].reason.isprintable()


async def test_python_without_its_script_is_not_off(tmp_path: Path) -> None:
    """The interpreter ends with 2 when it cannot open the script, the same code that means off."""
    (tmp_path / "fence_gone").write_text("#!/usr/bin/python3 /does/not/exist\n")
    (tmp_path / "fence_gone").chmod(0o755)
    device = FenceDevice(name="d", agent="fence_gone", parameters={})
    (report,) = await FenceAgents(folders=(tmp_path,)).read((level(device),))
    assert report.readings[0].power is Power.UNKNOWN


@pytest.mark.parametrize("action", ["status", "off", "on", "reboot"])
def test_only_exit_code_and_words_together_say_off(action: str) -> None:
    """Every exit code with every word: off only from `status`, 2, "Status: OFF"."""
    device = FenceDevice(name="d", agent="fence_x")
    for code in (None, *range(-20, 256)):
        for word in (
            "",
            "Status: ON\n",
            "Status: OFF\n",
            "Status: UNKNOWN\n",
            "Status: OFFLINE\n",
            "not Status: OFF\n",
        ):
            if action == "reboot" and code == 0:
                continue
            told = understand(device, action, Finished(code, word, ""), 1.0)
            says_off = action == "status" and code == 2 and word == "Status: OFF\n"
            assert (told.power is Power.OFF) == (says_off or (action == "off" and code == 0))
            assert told.power is not Power.UNKNOWN or told.reason


async def test_missing_agents_name_the_package(rack: Rack) -> None:
    (rack.folder / "fence_plain").write_text("#!/bin/sh\n")
    (rack.folder / "fence_plain").chmod(0o644)
    names = (
        "fence_absent",
        "fence_plain",
        "/bin/sh",
        "fence_../../bin/sh",
        "fence_scsi",
        "fence_heuristics_ping",
    )
    devices = [FenceDevice(name=f"d{n}", agent=name) for n, name in enumerate(names)]
    report = await rack.agents().off(0, level(*devices), 5)
    assert {r.power for r in report.readings} == {Power.UNKNOWN}
    reasons = [r.reason for r in report.readings]
    assert reasons[0] == "fence agent fence_absent is not on this machine; run: apt install fence-agents"
    assert "is not executable; run: apt install --reinstall fence-agents" in reasons[1]
    assert all("is not on this machine" in reason for reason in reasons[2:4])
    assert all("it proves nothing about a host" in reason for reason in reasons[4:])


async def test_an_empty_level_proves_nothing(rack: Rack) -> None:
    report = await rack.agents().off(0, level(), 5)
    assert report.readings == ()
    assert report.reason == "the level has no fence device"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"missing_as_off": "1"}, "missing_as_off"),
        ({"missing-as-off": "true"}, "missing_as_off"),
        ({"action": "status"}, "dr's own"),
        ({"password": "a\naction=on"}, "more than one line"),
        ({"a=b": "c"}, "impossible name"),
        ({"x": "y" * 70_000}, "longer than"),
    ],
)
async def test_bad_parameters_run_nothing(rack: Rack, parameters: dict[str, str], words: str) -> None:
    device = rack.device(rack.agent("fence_good"), **parameters)
    report = await rack.agents().off(0, level(device), 5)
    assert report.readings[0].power is Power.UNKNOWN
    assert words in report.readings[0].reason
    assert rack.journal(device) == []


LEAK = """
proc = open("/proc/%d/cmdline" % os.getpid()).read() + open("/proc/%d/environ" % os.getpid()).read()
assert "hunter2" not in proc and "hunter2" not in open("/proc/%d/cmdline" % os.getppid()).read()
print("-P", options["password"], repr(options["password"]), "pasword=" + options["pasword"])
fail("login as admin:" + options["password"].strip('"') + " refused; Ignoring unknown option 'pasword=hunter3'")
"""


async def test_secrets_are_nowhere(rack: Rack) -> None:
    device = rack.device(rack.agent("fence_leak", LEAK), password=SECRET, pasword="hunter3", username="admin")
    with capture_logs() as logs:
        report = await rack.agents().off(0, level(device), 5)
        ok, reason = await rack.agents(on_s=0.5).on((level(device),))
    assert not ok
    for text in (str(report), reason, str(logs), repr(device)):
        assert "hunter" not in text
    assert "login as admin:[secret] refused" in report.readings[0].reason


async def test_on_switches_everything_on(rack: Rack) -> None:
    a = rack.device(rack.agent("fence_good"), "a", power="off")
    b = rack.device("fence_good", "b", power="on")
    assert await rack.agents().on((level(a), level(b))) == (True, "switched on: a, b")
    assert rack.power(a) == "on"
    broken = rack.device(rack.agent("fence_broken", "fail('Connection lost')"), "c")
    ok, reason = await rack.agents(on_s=0.5).on((level(a, broken),))
    assert not ok
    assert reason == "c: fence_broken on failed (exit code 1): Connection lost"
    assert (await rack.agents().on(()))[0] is False


async def test_another_device_after_the_fence_proves_nothing(rack: Rack) -> None:
    device = rack.device(rack.agent("fence_good"))
    guids = iter(["11111111", "22222222"])
    report = await rack.agents(guid=lambda _: next(guids)).off(0, level(device), 5)
    assert report.readings[0].power is Power.UNKNOWN
    assert "GUID 22222222 instead of 11111111" in report.readings[0].reason


async def test_an_identity_missing_after_the_fence_is_read_again(rack: Rack) -> None:
    device = rack.device(rack.agent("fence_good"))
    guids = iter(["11111111", "", "11111111"])
    report = await rack.agents(guid=lambda _: next(guids)).off(0, level(device), 10)
    assert (report.readings[0].power, report.readings[0].guid) == (Power.OFF, "11111111")


async def test_reads_are_parallel_and_bounded(rack: Rack) -> None:
    slow = rack.agent("fence_slow", "time.sleep(0.2)\n" + GOOD)
    agents = FenceAgents(folders=(rack.folder,), reads_max=4)
    began = time.monotonic()
    await agents.read(tuple(level(rack.device(slow, f"d{n}")) for n in range(8)))
    assert 0.4 <= time.monotonic() - began < 1.2


async def test_no_descriptor_is_left(rack: Rack) -> None:
    device = rack.device(rack.agent("fence_good"))
    agents = rack.agents()
    await agents.read((level(device),))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await agents.read((level(device),))
    assert len(os.listdir("/proc/self/fd")) <= before
