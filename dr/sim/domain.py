"""One libvirt domain on a simulated host, and how a call to libvirt ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dr.model.facts import Definition, DomainState, Tie, TieKind

if TYPE_CHECKING:
    from dr.sim.migration import Migration

Ended = Callable[[str, str], None]  # (failed, unseen): both empty when the call did what it was asked


@dataclass
class Domain:
    """As defined on this host, and as it runs there."""

    definition: Definition
    memory_mib: int
    state: DomainState = DomainState.SHUTOFF
    reason: str = ""
    autostart: bool = False
    by_hand: bool = False  # somebody suspended it, so that it stands where it ran
    memory_at: int = 0  # the version of the disk that its memory goes with, see `Truth.runs`
    outgoing: Migration | None = None  # the job that sends it away
    incoming: Migration | None = None  # the job that brings it; gone when it has arrived whole
    cpu: str = ""  # of the kind of host that it was started on
    ties: tuple[Tie, ...] = ()  # what keeps it on this host, as libvirt tells

    @property
    def runs(self) -> bool:
        return self.state is DomainState.RUNNING

    @property
    def suspended(self) -> bool:
        """Somebody suspended it, and nothing else keeps it from going on."""
        return self.state is DomainState.PAUSED and self.reason == "user" and self.by_hand

    def untie(self, kind: TieKind | None = None) -> None:
        """Whatever ties it of that kind is over; without one, everything."""
        self.ties = tuple(tie for tie in self.ties if kind is not None and tie.kind is not kind)

    @property
    def active(self) -> bool:
        """A QEMU stands behind it."""
        return self.state in (DomainState.RUNNING, DomainState.PAUSED)
