"""The hypervisor of one host, as its agent uses it. Real: adapters/libvirt. All calls may take long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Protocol

from dr.model.base import GuestId, HostName, Record
from dr.model.commands import TicketKind
from dr.model.facts import (
    ACTIVE_STATES,
    Definition,
    DirtyPoint,
    DomainState,
    GuestFacts,
    HookState,
    HostFacts,
    LocalDisk,
    Part,
    Progress,
    Reading,
    Sighting,
)
from dr.model.memory import Image
from dr.model.policy import Sending, StopMode


class HypervisorError(Exception):
    """The hypervisor refused or failed, and says so; nothing is left half done. The text is for people."""


class HypervisorUnknown(Exception):
    """The call's end was not seen (connection lost, timed out): the outcome is unknown."""


class DomainEvent(Record):
    """Something that libvirt told at once. A hint to look again: facts, not events, are what is decided on."""

    guest: GuestId
    name: str
    kind: (
        str  # "started", "stopped", "crashed", "panicked", "io_error", "watchdog", "defined", "undefined", …
    )
    detail: str = ""


class Picture(Record):
    """A guest's console, made small enough to be kept."""

    png: bytes
    width: int  # of the console
    height: int
    plain: bool  # all of it has one colour


class Standing(Record):
    """How libvirt has one guest at this moment, and what it is in a migration."""

    state: DomainState | None = None  # None: libvirt does not know it
    reason: str = ""
    part: Part = Part.NONE  # leaving or arriving; whether a copy waits is for the agent to say

    @property
    def runs(self) -> bool:
        """Whether its CPUs run."""
        return self.state in (DomainState.RUNNING, DomainState.BLOCKED)

    @property
    def active(self) -> bool:
        """Whether a QEMU process stands behind it."""
        return self.state in ACTIVE_STATES


class Hypervisor(Protocol):
    """One libvirt connection with reconnect behind it."""

    async def facts(self) -> HostFacts:
        """What the host is and has now (without `hook`). Raises HypervisorUnknown if libvirt does not answer."""

    async def guests(self) -> tuple[GuestFacts, ...]:
        """All domains, active or defined. Raises HypervisorUnknown."""

    async def describe(self, guest: GuestId) -> Definition:
        """Definition with NVRAM, storage identities and blockers. Raises HypervisorError, HypervisorUnknown."""

    async def start(self, definition: Definition) -> None:
        """Define and start from cold; a saved image is removed, never restored. The permit is already there.

        Raises HypervisorError when it surely did not start, HypervisorUnknown otherwise.
        """

    async def stop(self, guest: GuestId, mode: StopMode, timeout_s: float) -> None:
        """Shut down and wait, or destroy. Raises HypervisorError (still running), HypervisorUnknown."""

    async def sight(self, guest: GuestId) -> tuple[Sighting, str]:
        """Does it run here, and why so? Works without libvirtd too, from /proc; a QEMU in D state runs."""

    async def standing(self, guest: GuestId) -> Standing:
        """Its state, and whether a migration of it is under way. Asks its QEMU. Raises HypervisorUnknown."""

    async def migrate(
        self,
        guest: GuestId,
        to: HostName,
        addresses: tuple[str, ...],
        sending: Sending,
        *,
        disks: tuple[LocalDisk, ...] = (),
        data_address: str = "",
    ) -> str:
        """Send it live to a host that lets it in; returns when libvirt says that it has left, and waits paused there.

        `disks`: those that are copied along, into images that are there already on the same bases; no other disk is.
        `data_address`: the other host's, where memory and disks go; empty: as its libvirt is configured.
        What it took is returned in words, as far as libvirt tells. Never undefines it here. Takes as long as it takes:
        `abort_migration` ends it. Raises HypervisorError when libvirt says that it failed, HypervisorUnknown when its
        end was not seen (it may go on).
        """

    async def progress(self, guest: GuestId) -> Progress | None:
        """How far its outgoing migration is; None: none is under way. Raises HypervisorUnknown."""

    async def allow_downtime(self, guest: GuestId, downtime_s: float) -> None:
        """Let its outgoing migration stand still for so long at the switch-over.

        Raises HypervisorError (also when none is under way), HypervisorUnknown.
        """

    async def abort_migration(self, guest: GuestId) -> None:
        """Ask the outgoing migration of it to end, and no other job. Raises HypervisorError, HypervisorUnknown."""

    async def sample_dirty(self, guest: GuestId) -> tuple[DirtyPoint, ...]:
        """How much of its memory it writes to within intervals of several lengths; takes as long as these together.

        It goes on as fast as before. Empty: not to be told now, as it does not run, is in a migration, or somebody else
        measures it. Raises HypervisorUnknown.
        """

    async def resume(self, guest: GuestId) -> None:
        """Let its CPUs run. Raises HypervisorError, HypervisorUnknown."""

    async def suspend(self, guest: GuestId) -> None:
        """Stop its CPUs. Raises HypervisorError, HypervisorUnknown."""

    async def set_clock(self, guest: GuestId) -> bool:
        """Let the agent in the guest set its clock by its host's; False: none is connected.

        A call that the guest may leave unanswered for ever. Raises HypervisorError, HypervisorUnknown.
        """

    async def agent_answers(self, guest: GuestId, timeout_s: float) -> None:
        """Ask the agent in the guest whether it is there; returns when it said so.

        Raises HypervisorError (none is connected, or it does not answer), HypervisorUnknown.
        """

    async def screenshot(self, guest: GuestId) -> Picture:
        """What its console shows now. Raises HypervisorError (it has none), HypervisorUnknown."""

    async def archive_and_undefine(
        self, guest: GuestId, note: str, *, old_disks: tuple[Image, ...] = (), remove_disks: bool = False
    ) -> str:
        """Keep XML, NVRAM, TPM state and saved image under the archive folder, see to local disks, then undefine.

        `old_disks`: those that left from here; they are set aside under another name, or removed. No other disk is
        touched. Returns what became of them in words. Raises HypervisorError, HypervisorUnknown.
        """

    async def identify_files(self, paths: tuple[str, ...]) -> tuple[Image, ...]:
        """Which files those are now; what cannot be told apart from others is left out.

        Raises HypervisorError, HypervisorUnknown.
        """

    async def prepare_images(self, guest: GuestId, disks: tuple[LocalDisk, ...]) -> tuple[Image, ...]:
        """Make empty images for a guest that arrives, on their bases, not under their own names yet.

        Raises HypervisorError (none is left; also where a file of that name is, or a base is not the same),
        HypervisorUnknown.
        """

    async def place_images(self, guest: GuestId, images: tuple[Image, ...]) -> None:
        """Give them their names; nothing that is there is overwritten. Raises HypervisorError, HypervisorUnknown."""

    async def image_files(self, guest: GuestId, images: tuple[Image, ...]) -> tuple[str, ...]:
        """Where each of those files is now: under its own name, or under the one that it was made under.

        "": it is that very file no more. Raises HypervisorError, HypervisorUnknown.
        """

    async def remove_images(self, guest: GuestId, images: tuple[Image, ...]) -> None:
        """Remove those that are still the files which were made. Raises HypervisorError, HypervisorUnknown."""

    async def health(self) -> tuple[Reading, ...]:
        """Readings that need libvirt (daemon answering and how fast, pools, networks)."""

    def events(self) -> AsyncIterator[DomainEvent]:
        """Events as they come, for ever; `kind="reconnected"` after each new connection to libvirtd."""

    def watch_storage(self, identities: tuple[str, ...]) -> None:
        """Network storage endpoints whose reachability `facts` should tell."""

    async def prove_hook(self) -> HookState:
        """Try to start a canary domain that has no permit: proven only if libvirt refuses it with our words."""

    async def close(self) -> None: ...


class Gate(Protocol):
    """The permit hook's files on this host. Synchronous and small; real: adapters/libvirt/gate.py."""

    def install(self) -> None:
        """Write the hook script where libvirt looks for it. Raises OSError."""

    def protect(self, guests: dict[GuestId, str]) -> None:
        """Make exactly these guests (UUID -> name) protected, durably. Raises OSError."""

    def altered(self, guests: Collection[GuestId] | None) -> str:
        """What of the hook, or of its list of exactly these guests (None: not looked at), is not as it was written.

        A sentence for people, empty when all is well. Cheap: asked every second. Raises OSError.
        """

    def permit(self, guest: GuestId, kind: TicketKind, ticket: str) -> None:
        """Write the single-use permit for one ticket. Raises OSError."""

    def revoke(self, guest: GuestId) -> None:
        """Remove any permit of this guest. Raises OSError."""


class HostHealth(Protocol):
    """Readings that need no libvirt (memory pressure, MCE/EDAC, disks, clock, oops)."""

    async def health(self) -> tuple[Reading, ...]: ...
