"""Who a BMC says it is, through a fake ipmitool and a fake Redfish service."""

from __future__ import annotations

import shlex
import stat
from pathlib import Path

import httpx
import pytest

from dr.adapters.fencing.identity import ask, ask_redfish, ipmitool_command, parse_guid
from dr.model.policy import FenceDevice

# As Debian's ipmitool 1.8.19 printed it of an ipmi_sim.
OUTPUT = """System GUID   : efcdab89-6745-23a1-efcd-ab89674523a1
GUID Encoding : IPMI
GUID Version  : DCE Security with POSIX UIDs (not for IPMI)
"""
GUID = "efcdab89-6745-23a1-efcd-ab89674523a1"
PASSWORD = "hunter2$x"


def bmc(agent: str = "fence_ipmilan", **parameters: str) -> FenceDevice:
    return FenceDevice(name="bmc", agent=agent, parameters=parameters)


@pytest.mark.parametrize(
    ("text", "guid"),
    [
        (OUTPUT, GUID),
        (OUTPUT.upper().replace("SYSTEM GUID", "System GUID"), GUID),
        ("System GUID  : efcdab89-6745-23a1-efcd-ab89674523a1\nTimestamp    : 01/01/1970\n", GUID),
        (OUTPUT.replace(GUID, "00000000-0000-0000-0000-000000000000"), ""),
        (OUTPUT.replace(GUID, "ffffffff-ffff-ffff-ffff-ffffffffffff"), ""),
        (OUTPUT.replace(GUID, GUID + "0"), ""),
        ("Get GUID command failed", ""),
        ("", ""),
    ],
)
def test_parse_guid(text: str, guid: str) -> None:
    assert parse_guid(text) == guid


@pytest.mark.parametrize(
    ("device", "options"),
    [
        (bmc(ip="10.0.0.1", lanplus="1", cipher="3"), "-I lanplus -H 10.0.0.1 -C 3 -N 2"),
        (bmc(ipaddr="10.0.0.1", login="a", auth="md5"), "-I lan -H 10.0.0.1 -U a -A MD5 -N 2"),
        (bmc("fence_ilo4", ip="::1"), "-I lanplus -H ::1 -N 2"),
        (bmc("fence_ilo4", ip="::1", lanplus="0"), "-I lan -H ::1 -N 2"),
        (
            bmc(
                ip="h",
                ipport="9623",
                username="a b",
                privlvl="operator",
                target="0x20",
                **{"ipmitool-timeout": "1"},
            ),
            "-I lan -H h -p 9623 -t 0x20 -U 'a b' -L OPERATOR -N 1",
        ),
    ],
)
def test_command_follows_fence_ipmilan(device: FenceDevice, options: str) -> None:
    expected = ("/usr/bin/ipmitool", *shlex.split(options), "-f", "/dev/stdin", "mc", "guid")
    assert ipmitool_command(device, with_password=True) == expected


def fake_ipmitool(folder: Path, body: str) -> str:
    path = folder / "ipmitool"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


async def test_password_only_on_stdin(tmp_path: Path) -> None:
    tool = fake_ipmitool(
        tmp_path,
        f'env > {tmp_path}/seen; echo "$@" >> {tmp_path}/seen; cat /dev/stdin > {tmp_path}/password\n'
        f"cat <<'END'\n{OUTPUT}END",
    )
    found = await ask(bmc(ip="h", password=PASSWORD, ipmitool_path=tool), 5)
    assert (found.guid, found.reason) == (GUID, "")
    assert (tmp_path / "password").read_text() == PASSWORD + "\n"
    assert "hunter2" not in (tmp_path / "seen").read_text()
    assert "-f /dev/stdin mc guid" in (tmp_path / "seen").read_text()


async def test_password_script_as_the_agents_read_it(tmp_path: Path) -> None:
    tool = fake_ipmitool(tmp_path, f"cat > {tmp_path}/password; cat <<'END'\n{OUTPUT}END")
    assert (await ask(bmc(ip="h", password_script="echo abc", ipmitool_path=tool), 5)).guid == GUID
    assert (tmp_path / "password").read_text() == "abc\n"
    failed = await ask(bmc(ip="h", password_script="echo abc; exit 3", ipmitool_path=tool), 5)
    assert failed.reason == "the password script of fence device bmc failed (exit code 3)"


@pytest.mark.parametrize(
    ("body", "reason", "transient"),
    [
        ("echo 'Error: no session for hunter2$x' >&2; exit 1", "Error: no session for [secret]", True),
        ("sleep 9", "did not tell its GUID within 0.3 s", False),
        ("echo 'System GUID   : 00000000-0000-0000-0000-000000000000'", "no GUID of its own", False),
    ],
)
async def test_no_guid(tmp_path: Path, body: str, reason: str, transient: bool) -> None:
    tool = fake_ipmitool(tmp_path, body)
    found = await ask(bmc(ip="h", password=PASSWORD, ipmitool_path=tool), 0.3)
    assert found.guid == ""
    assert reason in found.reason
    assert found.transient is transient


async def test_missing_ipmitool_names_the_package() -> None:
    found = await ask(bmc(ip="h", ipmitool_path="/does/not/exist"), 5)
    assert found.reason.endswith("run: apt install ipmitool")
    assert not found.transient


async def test_agents_without_identity() -> None:
    found = await ask(bmc("fence_apc", ip="h"), 5)
    assert (found.guid, found.reason) == ("", "")


ROOT = {"UUID": "AAAAAAAA-0000-0000-0000-000000000001", "Systems": {"@odata.id": "/redfish/v1/Systems"}}
TREE: dict[str, object] = {
    "/redfish/v1": ROOT,
    "/redfish/v1/Systems": {"Members": [{"@odata.id": "/redfish/v1/Systems/1"}]},
    "/redfish/v1/Systems/1": {"UUID": "BBBBBBBB-0000-0000-0000-000000000002"},
    "/only-zeros": {"UUID": "00000000-0000-0000-0000-000000000000"},
    "/list": [],
}


def serve(request: httpx.Request) -> httpx.Response:
    if request.headers["authorization"] != httpx.BasicAuth("a", PASSWORD)._auth_header:
        return httpx.Response(401)
    found = TREE.get(request.url.path)
    return httpx.Response(404) if found is None else httpx.Response(200, json=found)


@pytest.mark.parametrize(
    ("parameters", "guid", "reason"),
    [
        ({}, "aaaaaaaa-0000-0000-0000-000000000001/bbbbbbbb-0000-0000-0000-000000000002", ""),
        ({"systems_uri": "/only-zeros"}, "aaaaaaaa-0000-0000-0000-000000000001/", ""),
        ({"systems_uri": "/only-zeros", "redfish_uri": "/only-zeros"}, "", "no UUID of its own"),
        ({"systems_uri": "/absent"}, "", "HTTP 404 for /absent"),
        ({"systems_uri": "/list"}, "", "no JSON object at /list"),
        ({"password": "wrong-one"}, "", "HTTP 401"),
        ({"ip": "::1"}, "aaaaaaaa-0000-0000-0000-000000000001/bbbbbbbb-0000-0000-0000-000000000002", ""),
        ({"ipport": "no-port"}, "", "did not tell its UUID"),
    ],
)
async def test_redfish(parameters: dict[str, str], guid: str, reason: str) -> None:
    given = {"ip": "10.0.0.1", "username": "a", "password": PASSWORD, "ssl_insecure": "1"} | parameters
    found = await ask_redfish(bmc("fence_redfish", **given), 5, httpx.MockTransport(serve))
    assert found.guid == guid
    assert reason in found.reason
    assert "hunter2" not in found.reason
