"""Asks a fence device who it is: a BMC at a recycled address must never be taken for the host's own.

IPMI: the system GUID, by ipmitool. Redfish: the UUIDs of the service and of the system.
Agents that are not in ASK have no identity: their devices count by the fingerprint of their parameters alone.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from dr.adapters.fencing import process
from dr.adapters.fencing.catalogue import IPMI, REDFISH
from dr.adapters.fencing.parameters import Redactor, get, is_true
from dr.model.policy import FenceDevice

IPMITOOL = "/usr/bin/ipmitool"
RESPONSE_BYTES_MAX = 512 * 1024
_GUID = re.compile(
    r"^System GUID\s*:\s*([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\s*$", re.MULTILINE | re.IGNORECASE
)


@dataclass(frozen=True)
class Identity:
    """Who the device says it is; `reason` when it should have said and did not."""

    guid: str = ""
    reason: str = ""
    transient: bool = False  # worth asking once more


async def ask(device: FenceDevice, timeout_s: float) -> Identity:
    """The device's identity, within `timeout_s`. An empty one without a reason: it has none."""
    how = ASK.get(device.agent)
    return await how(device, timeout_s) if how else Identity()


async def ask_ipmi(device: FenceDevice, timeout_s: float) -> Identity:
    """The BMC's system GUID.

    The password goes to ipmitool as `-f /dev/stdin`: unlike with `-E` it is in no environment, which children,
    core dumps and /proc/PID/environ would show for as long as the process lives, and in no file.
    """
    password, why = await _password(device, timeout_s)
    if why:
        return Identity(reason=why)
    done = await process.run(
        ipmitool_command(device, with_password=bool(password)), password + "\n", timeout_s
    )
    if done.code is None:
        return Identity(reason=f"the BMC did not tell its GUID within {timeout_s:.1f} s")
    if done.code == 0 and (guid := parse_guid(done.out)):
        return Identity(guid)
    if done.code == 0:
        return Identity(reason="the BMC has no GUID of its own (all zeros or ones)")
    said = Redactor(device, password).sentence(done.err or done.out) or f"exit code {done.code}"
    if done.code == 126:
        said += "; run: apt install ipmitool"
    return Identity(reason=f"the BMC did not tell its GUID: {said}", transient=done.code != 126)


async def _password(device: FenceDevice, timeout_s: float) -> tuple[str, str]:
    """The password as the agent would find it; (password, why there is none)."""
    if get(device, "hexadecimal_kg"):
        return (
            "",
            "the GUID is not read: ipmitool takes a Kg key only where every user of this machine sees it",
        )
    script = get(device, "password_script", "passwd_script")
    if not script:
        return get(device, "password", "passwd"), ""
    done = await process.run(("/bin/sh", "-c", script), "", timeout_s)  # as fencing.py does, by os.popen
    if done.code != 0:
        return "", f"the password script of fence device {device.name} failed (exit code {done.code})"
    return done.out.rstrip(), ""


def ipmitool_command(device: FenceDevice, *, with_password: bool) -> tuple[str, ...]:
    """The ipmitool command as fence_ipmilan would make it for its power commands."""
    given = get(device, "lanplus")
    lanplus = is_true(given) if given else IPMI[device.agent]
    host = get(device, "ip", "ipaddr") or get(device, "port", "plug")  # port_as_ip
    command = [get(device, "ipmitool_path") or IPMITOOL, "-I", "lanplus" if lanplus else "lan", "-H", host]
    for option, value in (
        ("-p", get(device, "ipport")),
        ("-t", get(device, "target")),
        ("-U", get(device, "username", "login")),
        ("-A", get(device, "auth").upper()),
        ("-C", get(device, "cipher")),
        ("-L", get(device, "privlvl").upper()),
        ("-N", get(device, "ipmitool_timeout") or "2"),
    ):
        if value:
            command += [option, value]
    command += ["-f", "/dev/stdin"] if with_password else ["-P", ""]
    return (*command, "mc", "guid")


def parse_guid(text: str) -> str:
    """The GUID in the output of `ipmitool mc guid` (1.8.19: "System GUID   : …"); empty for a placeholder."""
    found = _GUID.search(text)
    return _meaningful(found[1]) if found else ""


def _meaningful(guid: str) -> str:
    """Boards without a GUID of their own answer all zeros or ones: shared by all of them, so it names none."""
    guid = guid.strip().lower()
    return "" if set(guid) - {"-"} in ({"0"}, {"f"}, set()) else guid


async def ask_redfish(
    device: FenceDevice, timeout_s: float, transport: httpx.AsyncBaseTransport | None = None
) -> Identity:
    """`UUID of the service/UUID of the system`, as far as there are any."""
    password, why = await _password(device, timeout_s)
    if why:
        return Identity(reason=why)
    host, port = get(device, "ip", "ipaddr"), get(device, "ipport") or "443"
    root_uri = get(device, "redfish_uri") or "/redfish/v1"
    try:
        async with httpx.AsyncClient(
            base_url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            auth=(get(device, "username", "login"), password),
            headers={"accept": "application/json", "OData-Version": "4.0"},
            verify=not is_true(get(device, "ssl_insecure")),
            timeout=timeout_s,
            trust_env=False,
            transport=transport,
        ) as client:
            root = await _fetch(client, root_uri)
            uri = get(device, "systems_uri")
            if not uri:  # the last one, as fence_redfish does
                systems = await _fetch(client, root["Systems"]["@odata.id"])
                uri = systems["Members"][-1]["@odata.id"]
            system = await _fetch(client, uri)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        said = Redactor(device, password).sentence(f"{type(error).__name__}: {error}")
        return Identity(reason=f"the Redfish service did not tell its UUID: {said}", transient=True)
    parts = [_meaningful(str(found.get("UUID") or "")) for found in (root, system)]
    if not any(parts):
        return Identity(reason="the Redfish service has no UUID of its own")
    return Identity("/".join(parts))


async def _fetch(client: httpx.AsyncClient, uri: str) -> dict[str, Any]:
    """One resource. Raises httpx.HTTPError, ValueError."""
    async with client.stream("GET", uri) as response:
        if response.status_code != 200:
            raise ValueError(f"HTTP {response.status_code} for {uri}")
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > RESPONSE_BYTES_MAX:
                raise ValueError(f"more than {RESPONSE_BYTES_MAX} bytes for {uri}")
    found = httpx.Response(200, content=body).json()
    if not isinstance(found, dict):
        raise ValueError(f"no JSON object at {uri}")
    return found


ASK: dict[str, Callable[[FenceDevice, float], Awaitable[Identity]]] = {
    **dict.fromkeys(IPMI, ask_ipmi),
    **dict.fromkeys(REDFISH, ask_redfish),
}
