"""Calls that clones need of libvirt and of their host's own files: each bounded in time, its no told as CloneError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.calls import Calls
from dr.adapters.libvirt.connection import Connection
from dr.ports.clones import CloneError
from dr.ports.hypervisor import HypervisorUnknown

T = TypeVar("T")

CALL_S = 15.0
FILES_S = 60.0
SLOTS = 4


class Host:
    """One connection to libvirt, that the clones end with, and a few threads beside it."""

    def __init__(self, uri: str) -> None:
        self._connection = Connection(uri, lambda conn: None, lambda: None)
        self._files = Calls("this host", SLOTS)
        self._room = Calls(
            "the folder of clones", 1
        )  # looked at all the while: if it hangs, nothing else does

    async def call(self, what: str, function: Callable[[Any], T], timeout_s: float = CALL_S) -> T:
        """Of libvirt. Raises CloneError where it says no, HypervisorUnknown where its answer was not seen."""
        try:
            return await self._connection.call(f"for a drill: {what}", function, timeout_s)
        except libvirt.libvirtError as error:
            said = api.text(error)
            if api.is_unseen(error):
                raise HypervisorUnknown(f"libvirt did not say whether it could {what}: {said}") from error
            raise CloneError(f"libvirt could not {what}: {said}") from error
        except OSError as error:
            raise CloneError(f"this host could not {what}: {error}") from error

    async def files(self, what: str, work: Callable[[], T]) -> T:
        """Of this host's own files and network. Raises CloneError, HypervisorUnknown where they hang."""
        try:
            return await self._files.run(what, work, FILES_S)
        except OSError as error:
            raise CloneError(f"this host could not {what}: {error}") from error

    async def room(self, look: Callable[[], T]) -> T:
        """Of the folder of clones. Raises CloneError, HypervisorUnknown where it hangs."""
        try:
            return await self._room.run("tell its room", look, FILES_S)
        except OSError as error:
            raise CloneError(f"this host could not tell its room: {error}") from error

    def close(self) -> None:
        """Let go of libvirt: it ends every clone that is left."""
        self._connection.close()
