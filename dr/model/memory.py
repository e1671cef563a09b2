"""What an agent must not forget: the durable half of one copy, on the host's side."""

from __future__ import annotations

from dr.model.base import BootId, GuestId, Record
from dr.model.commands import Answer, ProtectedEntry


class Copy(Record):
    """A copy that a receive ticket let in, and that no later ticket has resumed or destroyed."""

    ticket: str
    boot_id: BootId  # it does not outlive this boot
    generation: int = 0  # of that ticket


class Image(Record):
    """One very file for a guest's disk, told from whatever is put in its place later."""

    path: str
    inode: int  # given out again as soon as the file is gone
    born: str = ""  # seconds, with nine digits


class Remembered(Record):
    """One ticketed command: begun, and once it ended, how."""

    command: str
    answer: Answer | None = None  # None: begun, end not seen


class AgentMemory(Record):
    """Everything durable that an agent knows."""

    cluster: str = ""
    epoch: int = 0
    leader_id: str = ""
    revision: int = 0
    protected_version: int = 0
    entries: tuple[ProtectedEntry, ...] = ()
    watch_storage: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    isolation_s: float = 15.0
    stop_s: float = 120.0
    isolated: tuple[GuestId, ...] = ()  # guests that this host shut down because it was isolated
    sealed: dict[GuestId, int] = {}
    tickets: tuple[Remembered, ...] = ()  # the newest ones, bounded
    processes: tuple[str, ...] = ()  # the newest that had this memory, the present one last
    begun: tuple[str, ...] = ()  # commands in guests, the newest ones
    copies: dict[GuestId, Copy] = {}
    let_in: dict[GuestId, BootId] = {}  # by the last ticket of each guest, or by that before a resume ticket
    ran: dict[GuestId, int] = {}  # the generation of the last copy whose CPUs ran before a ticket let them
    images: dict[
        GuestId, tuple[Image, ...]
    ] = {}  # made for its arrival; its own once it may run, or ran, from them
    sent: dict[GuestId, tuple[Image, ...]] = {}  # local disks that its last migrate ticket sends
    left: dict[GuestId, str] = {}  # the last migrate ticket of each guest that no later ticket brought back
    disks_left: dict[GuestId, str] = {}  # the last ticket that sent its disks from here while it was off
