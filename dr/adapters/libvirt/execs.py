"""`ports.execs.Execs`: `guest-exec` and `guest-exec-status` of the QEMU guest agent, through libvirt.

Runs on call threads, on a connection of its own for each call: libvirtd serves few calls of one client at once, and a
guest may leave this one unanswered for ever. Not here: when and how often it is asked (`dr.agent.execs`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from xml.etree import ElementTree

import libvirt
import libvirt_qemu

from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.calls import Calls
from dr.adapters.libvirt.clock import AGENT
from dr.model.allowed import Report
from dr.model.base import GuestId
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown

AGENT_S = 10  # that libvirt waits for the guest's agent
CALL_S = 25.0  # libvirt asks it first whether it is there at all
SLOTS = 4
KEEP = 32 * 1024  # bytes of its output, at each end
# What libvirt says of an agent that refused, and so did nothing.
ANSWERED = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_OPERATION_UNSUPPORTED)


class GuestAgents:
    """Those of the guests that this libvirt runs."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._calls = Calls("guests' own agents", SLOTS)

    async def begin(self, guest: GuestId, argv: tuple[str, ...]) -> int:
        """See the port."""
        api.run_event_loop()
        return await self._calls.run(
            f"begin {argv[0]} in {guest}", lambda: begin(self._uri, guest, argv), CALL_S
        )

    async def ended(self, guest: GuestId, process: int) -> Report | None:
        """See the port."""
        api.run_event_loop()
        return await self._calls.run(
            f"ask for process {process} in {guest}", lambda: ended(self._uri, guest, process), CALL_S
        )


def begin(uri: str, guest: GuestId, argv: tuple[str, ...]) -> int:
    program, *words = argv
    arguments = {"path": program, "arg": words, "capture-output": True}
    try:
        return int(_ask(uri, guest, "guest-exec", arguments)["pid"])
    except (KeyError, TypeError, ValueError) as error:
        raise HypervisorUnknown(f"what its agent answered is not understood: {error!r}") from error


def ended(uri: str, guest: GuestId, process: int) -> Report | None:
    said = _ask(uri, guest, "guest-exec-status", {"pid": process})
    if not said.get("exited"):
        return None
    output = base64.b64decode(said.get("out-data", "")) + base64.b64decode(said.get("err-data", ""))
    code = said.get("exitcode")
    return Report(
        state="ended",
        code=-int(said.get("signal", 0)) if code is None else int(code),
        output=_kept(output),
        bytes=len(output),
        digest=hashlib.sha256(output).hexdigest(),
    )


def _kept(output: bytes) -> str:
    gap = len(output) - 2 * KEEP
    if gap > 0:
        output = output[:KEEP] + f"\n[... {gap} bytes are left out ...]\n".encode() + output[-KEEP:]
    return output.decode("utf-8", "replace")


def _ask(uri: str, guest: GuestId, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Raises HypervisorError where the agent surely did nothing, HypervisorUnknown."""
    try:
        conn = libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise HypervisorError(f"libvirt could not be asked: {api.text(error)}") from error
    try:
        domain = conn.lookupByUUIDString(guest)
        if ElementTree.fromstring(domain.XMLDesc(0)).find(AGENT) is None:
            raise HypervisorError("no guest agent is connected: qemu-guest-agent does not run in it")
        request = json.dumps({"execute": command, "arguments": arguments})
        said = libvirt_qemu.qemuAgentCommand(domain, request, AGENT_S, 0)
    except libvirt.libvirtError as error:
        if not api.is_unseen(error) and error.get_error_code() in (*ANSWERED, libvirt.VIR_ERR_NO_DOMAIN):
            raise HypervisorError(f"{command}: {api.text(error)}") from error
        raise HypervisorUnknown(f"{command}: {api.text(error)}") from error
    finally:
        conn.close()
    try:
        found: dict[str, Any] = json.loads(said)["return"]
    except (KeyError, TypeError, ValueError) as error:
        raise HypervisorUnknown(f"what its agent answered is not understood: {said[:200]!r}") from error
    return found
