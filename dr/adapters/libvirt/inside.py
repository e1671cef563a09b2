"""What goes through a guest itself: its agent answers or sets its clock, its console has a picture.

Connections and calls of their own: guests that hang hold up each other at most. Not here: how a clock is set (`clock`),
the picture's form (`picture`), when it is asked (`dr.agent`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import libvirt
import libvirt_qemu

from dr.adapters.libvirt import clock
from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.calls import Calls
from dr.adapters.libvirt.picture import BadPicture, Taking
from dr.model.base import GuestId
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown, Picture

T = TypeVar("T")

CLOCK_S = 15.0  # libvirt itself waits 5 s for an agent to answer at all
CLOCKS_MAX = 4
AGENT_S = 6.0  # beyond the time that an agent is given: libvirt first makes sure that it listens
PICTURE_S = 10.0
LOOKS_MAX = 8
PING = '{"execute": "guest-ping"}'
PIECE = 64 * 1024


class Inside:
    """Calls into the guests of one libvirt, bounded."""

    def __init__(self, local: str) -> None:
        self._local = local
        self._clocks = Calls("guests' own agents", CLOCKS_MAX)
        self._looks = Calls("guests' agents and consoles", LOOKS_MAX)

    async def set_clock(self, guest: GuestId) -> bool:
        """See the port."""
        api.run_event_loop()
        what = f"set the clock of {guest}"
        return await self._clocks.run(what, lambda: clock.set_clock(self._local, guest), CLOCK_S)

    async def agent_answers(self, guest: GuestId, timeout_s: float) -> None:
        """See the port."""
        api.run_event_loop()
        whole_s = max(round(timeout_s), 1)
        what = f"ask the agent in {guest}"
        await self._looks.run(what, lambda: agent_answers(self._local, guest, whole_s), whole_s + AGENT_S)

    async def screenshot(self, guest: GuestId) -> Picture:
        """See the port."""
        api.run_event_loop()
        what = f"take a picture of {guest}"
        return await self._looks.run(what, lambda: screenshot(self._local, guest), PICTURE_S)


def agent_answers(local: str, guest: GuestId, timeout_s: int) -> None:
    """Raises HypervisorError, HypervisorUnknown."""
    what = "its guest agent does not answer"
    _ask(local, guest, what, lambda domain: libvirt_qemu.qemuAgentCommand(domain, PING, timeout_s, 0))


def screenshot(local: str, guest: GuestId) -> Picture:
    """Raises HypervisorError, HypervisorUnknown."""
    return _ask(local, guest, "there is no picture of its console", _picture)


def _ask(local: str, guest: GuestId, what: str, ask: Callable[[Any], T]) -> T:
    try:
        conn = libvirt.open(local)
    except libvirt.libvirtError as error:
        raise HypervisorUnknown(f"libvirt could not be asked: {api.text(error)}") from error
    try:
        return ask(conn.lookupByUUIDString(guest))
    except BadPicture as error:
        raise HypervisorError(f"{what}: {error}") from error
    except libvirt.libvirtError as error:
        if api.is_unseen(error):
            raise HypervisorUnknown(f"{what}, as far as was seen: {api.text(error)}") from error
        raise HypervisorError(f"{what}: {api.text(error)}") from error
    finally:
        conn.close()


def _picture(domain: Any) -> Picture:
    """Of its first screen."""
    stream = domain.connect().newStream(0)
    domain.screenshot(stream, 0, 0)
    taking = Taking()
    try:
        while piece := stream.recv(PIECE):
            taking.feed(piece)
    except BaseException:
        stream.abort()
        raise
    stream.finish()
    return taking.picture()
