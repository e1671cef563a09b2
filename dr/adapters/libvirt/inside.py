"""What a guest itself shows of its health: its guest agent answers, its console has a picture.

Connections of their own, as for clocks: a guest that hangs holds up nothing else. Blocking: for `calls`. Not here: the
picture's form (`picture`), when it is asked (`dr.agent`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import libvirt
import libvirt_qemu

from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.picture import BadPicture, Taking
from dr.model.base import GuestId
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown, Picture

T = TypeVar("T")

PING = '{"execute": "guest-ping"}'
PIECE = 64 * 1024


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
