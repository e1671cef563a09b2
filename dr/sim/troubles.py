"""Calls to libvirt that are going to go wrong: of which guests, on which hosts, how, and how often.

Here: which call meets which trouble. Not here: what a trouble does (`dr.sim.host`).
"""

from __future__ import annotations

from dataclasses import dataclass

from dr.model.base import GuestId, HostName

ALL = "all"


@dataclass
class Trouble:
    """`left` None: until it is ended."""

    call: str  # "start", "stop"
    how: str
    guests: tuple[GuestId, ...]
    hosts: tuple[HostName, ...]
    left: int | None
    to: tuple[HostName, ...] = (ALL,)  # of a migration: where it goes

    def meets(self, call: str, guest: GuestId, host: HostName, to: HostName) -> bool:
        return (
            self.call == call
            and (guest in self.guests or ALL in self.guests)
            and (host in self.hosts or ALL in self.hosts)
            and (to in self.to or ALL in self.to)
        )


class Troubles:
    """The first that fits is met."""

    def __init__(self) -> None:
        self._coming: list[Trouble] = []

    def add(self, trouble: Trouble) -> None:
        self._coming.append(trouble)

    def end(self, call: str, guests: tuple[GuestId, ...]) -> None:
        """Calls of these guests go well again."""
        for trouble in self._coming:
            if trouble.call == call:
                kept = () if ALL in guests else tuple(g for g in trouble.guests if g not in guests)
                trouble.guests = kept
        self._coming = [trouble for trouble in self._coming if trouble.guests]

    def clear(self) -> None:
        self._coming.clear()

    def meet(self, call: str, guest: GuestId, host: HostName, to: HostName = "") -> str:
        """How this call goes wrong; "" = it does not."""
        for trouble in self._coming:
            if trouble.meets(call, guest, host, to):
                if trouble.left is not None:
                    trouble.left -= 1
                    if not trouble.left:
                        self._coming.remove(trouble)
                return trouble.how
        return ""
