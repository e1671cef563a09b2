"""A host without libvirt: the agent's ports over a `World` that outlives the agent's process.

`World` is what a crash of the agent leaves behind: its disk, permits on tmpfs, libvirtd with its queue, the domains.
`Process` is one life of the agent; once dead, none of its calls has any effect. `Coordinator` is the link's other end.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from dr.agent.looks import Patience
from dr.agent.process import Agent, Timing
from dr.agent.reporter import Rhythm
from dr.agent.sampling import Pace
from dr.model import allowed
from dr.model.base import GuestId, HostName
from dr.model.commands import (
    Answer,
    Body,
    Clean,
    Discard,
    Migrate,
    Protect,
    ProtectedEntry,
    Question,
    Receive,
    Resume,
    SendDisks,
    Start,
    Stop,
    TakeDisks,
    Testify,
    Testimony,
    Ticket,
    TicketKind,
)
from dr.model.facts import (
    ACTIVE_STATES,
    Definition,
    DirtyPoint,
    DomainState,
    GuestFacts,
    HookState,
    HostFacts,
    Level,
    LocalDisk,
    Part,
    Progress,
    Reading,
    Sighting,
)
from dr.model.memory import AgentMemory, Image
from dr.model.policy import Sending, StopMode
from dr.model.wire import (
    MESSAGE_BYTES_MAX,
    PROTOCOL,
    Ack,
    Beat,
    Command,
    FromAgent,
    FromCoordinator,
    Goodbye,
    Hello,
    LeaveKind,
    Leaving,
    Report,
    Result,
    Welcome,
    encode,
)
from dr.ports.courier import CourierError, CourierLost
from dr.ports.hypervisor import DomainEvent, HypervisorError, HypervisorUnknown, Picture, Standing
from dr.ports.link import LinkClosed
from tests.agent.fake_clones import FakeClones

HOST, BOOT, CLUSTER = "h1", "boot-1", "c1"
G = "11111111-0000-0000-0000-000000000001"
BEAT_S = 0.02

TIMING = Timing(
    redial_s=0.005,
    redial_max_s=0.02,
    first_look_s=0.1,
    save_s=0.5,
    adopt_s=0.1,
    flush_s=0.02,
    drain_s=0.1,
    goodbye_s=0.1,
    silence_s=1.0,
    isolation_look_s=0.02,
    follow_s=0.02,
    copies_s=0.02,
    drills_s=0.02,
    departure_s=0.02,
    watchdog_s=0.05,
)
RHYTHM = Rhythm(guests_s=0.1, facts_s=0.2, health_s=0.05, gap_s=0.005, call_s=0.1)
PATIENCE = Patience(start_s=1.0, stop_s=0.2, clean_s=0.5, sight_s=0.5, describe_s=0.2, probe_s=0.2)


class Dead(BaseException):
    """This process was killed: nothing that it still calls may have an effect."""


class Sent(NamedTuple):
    """What a courier was asked to send."""

    guest: GuestId
    copy: str
    to: HostName
    addresses: tuple[str, ...]
    port: int
    files: tuple[str, ...]
    mib_s: int


class Taken(NamedTuple):
    """What a courier was asked to take."""

    guest: GuestId
    copy: str
    source: HostName
    files: tuple[str, ...]


class World:
    """One host, as it is whether an agent runs on it or not."""

    def __init__(self) -> None:
        self.disk: bytes | None = None
        self.protected: dict[GuestId, str] = {}
        self.hook_there = False
        self.nvram = b""
        self.permits: dict[GuestId, str] = {}
        self.domains: dict[GuestId, DomainState] = {}
        self.queue: list[GuestId] = []  # starts that libvirtd has and did not look at yet
        self.starts: list[GuestId] = []
        self.undefined: list[GuestId] = []
        self.watched: tuple[str, ...] = ()
        self.steps: list[str] = []
        self.events: asyncio.Queue[DomainEvent] = asyncio.Queue()
        # Faults.
        self.crash_at = 0  # kill the process at this step (counted from 1)
        self.crashed = False
        self.disk_full = False
        self.disk_hangs: Callable[[], None] | None = None
        self.gate_broken = False
        self.deaf = False  # libvirtd does not answer at all
        self.hook_works = True
        self.start_fails = ""
        self.start_unknown = False
        self.stop_fails = ""
        self.stays_defined = False  # after a stop
        self.sight_unknown = ""
        self.hold_start: asyncio.Event | None = None
        self.hold_guests: asyncio.Event | None = None  # what they were is told when this is set
        self.held = asyncio.Event()
        # Sampling of memory.
        self.pace = Pace()
        self.dirties: dict[GuestId, tuple[DirtyPoint, ...]] = {}  # what is found; of others nothing
        self.sampled: list[tuple[GuestId, int]] = []  # in turn; and how many were under way then
        self.sampling: list[GuestId] = []  # under way
        self.hold_sampling: asyncio.Event | None = None
        # Migrations.
        self.clocks: list[GuestId] = []  # set
        self.silent: dict[GuestId, list[Exception]] = {}  # what its agent fails with, the next times
        self.console = Picture(png=b"PNG", width=720, height=400, plain=False)
        self.hold_clock: asyncio.Event | None = None
        self.clock_fails: Exception | None = None
        self.parts: dict[GuestId, Part] = {}  # what libvirt says of a domain with a job
        self.reasons: dict[GuestId, str] = {}  # of a domain's state
        self.migrated: set[GuestId] = set()  # off, and libvirt gives a migration as the reason
        self.hold_migration: asyncio.Event | None = None
        self.migration_fails = ""
        self.migration_unknown = False
        self.standing_unknown = ""
        self.resume_fails = ""
        self.sending = Sending()
        self.blockers: tuple[str, ...] = ()
        self.sent_disks: tuple[LocalDisk, ...] = ()
        self.data_address = ""
        self.local: tuple[LocalDisk, ...] = ()  # disks of each guest here that only this host has
        self.files: dict[str, int] = {}  # images on its file system, with their inodes
        self.hidden: dict[str, int] = {}  # those that do not have their own names yet
        self.inodes = 0
        self.parted: list[tuple[tuple[str, ...], bool]] = []  # disks that clean-ups parted with; removed?
        self.unidentified = ""  # why nobody can say which files they are
        self.downtime_s = 0.0
        # Copies of disks.
        self.copies: list[Sent | Taken] = []  # that were asked for
        self.hold_copy: asyncio.Event | None = None
        self.copy_ends: Exception | None = None  # how, before all of it is over there
        self.copy_ends_late: Exception | None = None  # how, when it is
        self.images_unseen: Exception | None = None
        self.place_fails: Exception | None = None
        self.remove_fails = ""

    def memory(self) -> AgentMemory:
        return msgspec.json.decode(self.disk, type=AgentMemory) if self.disk else AgentMemory()

    def libvirtd(self) -> None:
        """libvirtd gets round to its queue: the hook decides, then the domain is there."""
        for guest in self.queue:
            if self.hook_there and guest in self.protected and self.permits.pop(guest, None) is None:
                continue
            if not self.active(guest):
                self.domains[guest] = DomainState.RUNNING
                self.starts.append(guest)
        self.queue.clear()

    def active(self, guest: GuestId) -> bool:
        return self.domains.get(guest) in ACTIVE_STATES

    def leave(self, guest: GuestId) -> None:
        """libvirt's job ends well: the guest is off here."""
        self.parts.pop(guest, None)
        self.domains.pop(guest, None)
        self.migrated.add(guest)

    def arrive(self, guest: GuestId) -> bool:
        """Prepare: the hook decides; then the domain is there, and its memory comes in."""
        if self.hook_there and guest in self.protected and self.permits.pop(guest, None) is None:
            return False
        self.domains[guest], self.parts[guest] = DomainState.PAUSED, Part.ARRIVING
        return True


class Process:
    """One life of the agent, as all its ports."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = False
        self.proofs = 0

    def step(self, name: str) -> None:
        """A moment at which the process may die; before it everything named earlier has happened."""
        if self.dead:
            raise Dead
        self.world.steps.append(name)
        if len(self.world.steps) == self.world.crash_at:
            self.dead = self.world.crashed = True
            raise Dead

    async def libvirt(self) -> None:
        if self.dead:
            raise Dead
        if self.world.deaf:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    # MemoryStore

    def load(self) -> AgentMemory:
        if self.world.disk == b"corrupt":
            raise ValueError("not JSON")
        return self.world.memory()

    def save(self, memory: AgentMemory) -> None:
        self.step("saving")
        if self.world.disk_hangs:
            self.world.disk_hangs()
        if self.world.disk_full:
            raise OSError(28, "No space left on device")
        self.world.disk = msgspec.json.encode(memory)
        self.step("saved")

    # Gate

    def install(self) -> None:
        self._write()
        self.world.hook_there = True

    def protect(self, guests: dict[GuestId, str]) -> None:
        self._write()
        self.world.protected = dict(guests)

    def altered(self, guests: Collection[GuestId] | None) -> str:
        if self.dead:
            raise Dead
        if not self.world.hook_there:
            return "the hook was removed"
        return "entries were removed" if set(guests or ()) - set(self.world.protected) else ""

    def permit(self, guest: GuestId, kind: TicketKind, ticket: str) -> None:
        assert kind in (TicketKind.START, TicketKind.RECEIVE)
        self.step("permitting")
        self.world.permits[guest] = ticket
        self.step("permitted")

    def revoke(self, guest: GuestId) -> None:
        self.step("revoking")
        self.world.permits.pop(guest, None)
        self.step("revoked")

    def _write(self) -> None:
        if self.dead:
            raise Dead
        if self.world.gate_broken:
            raise OSError(30, "Read-only file system")

    # Hypervisor

    async def facts(self) -> HostFacts:
        await self.libvirt()
        return HostFacts(boot_id=BOOT, cpus=4, memory_mib=1024, live_migration=True)

    async def guests(self) -> tuple[GuestFacts, ...]:
        await self.libvirt()
        seen = tuple(
            GuestFacts(id=guest, name="vm", state=state, reason=self.world.reasons.get(guest, ""))
            for guest, state in self.world.domains.items()
        )
        if self.world.hold_guests is not None:
            self.world.held.set()
            await self.world.hold_guests.wait()
        return seen

    async def describe(self, guest: GuestId) -> Definition:
        await self.libvirt()
        if guest not in self.world.domains:
            raise HypervisorError("no such domain")
        return Definition(
            id=guest,
            name="vm",
            xml="<domain/>",
            digest="d",
            nvram=self.world.nvram,
            local=self.world.local,
            blockers=self.world.blockers,
        )

    async def start(self, definition: Definition) -> None:
        await self.libvirt()
        if self.world.hold_start:
            await self.world.hold_start.wait()
        self.step("start sent")
        if self.world.start_fails:
            raise HypervisorError(self.world.start_fails)
        self.world.queue.append(definition.id)
        self.step("start in libvirtd's queue")
        if self.world.start_unknown:
            raise HypervisorUnknown("connection to libvirtd lost")
        self.world.libvirtd()
        self.step("start done")
        if definition.id not in self.world.domains:
            raise HypervisorError("refused by the hook")

    async def stop(self, guest: GuestId, mode: StopMode, timeout_s: float) -> None:
        await self.libvirt()
        self.step("stop sent")
        if self.world.stop_fails:
            raise HypervisorError(self.world.stop_fails)
        self.world.domains.pop(guest, None)
        if self.world.stays_defined:
            self.world.domains[guest] = DomainState.SHUTOFF
        self.world.parts.pop(guest, None)
        self.step("stopped")

    async def sight(self, guest: GuestId) -> tuple[Sighting, str]:
        self.step("looking")
        await asyncio.sleep(0)
        if self.world.sight_unknown:
            return Sighting.UNKNOWN, self.world.sight_unknown
        if self.world.active(guest):
            return Sighting.PRESENT, "an active domain"
        return Sighting.ABSENT, ""

    async def standing(self, guest: GuestId) -> Standing:
        await self.libvirt()
        if self.world.standing_unknown:
            raise HypervisorUnknown(self.world.standing_unknown)
        if guest in self.world.domains:
            state, reason = self.world.domains[guest], self.world.reasons.get(guest, "")
            return Standing(state=state, reason=reason, part=self.world.parts.get(guest, Part.NONE))
        if guest in self.world.migrated:
            return Standing(state=DomainState.SHUTOFF, reason="migrated")
        return Standing()

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
        await self.libvirt()
        self.world.sending, self.world.sent_disks = sending, disks
        self.world.data_address = data_address
        self.step("migration sent")
        self.world.parts[guest] = Part.LEAVING
        self.step("migration under way")
        if self.world.hold_migration:
            await self.world.hold_migration.wait()
        if self.world.migration_fails:
            self.world.parts.pop(guest, None)
            raise HypervisorError(self.world.migration_fails)
        if self.world.migration_unknown:
            raise HypervisorUnknown("connection to libvirtd lost")
        self.world.leave(guest)
        self.step("migration done")
        return "96 MiB sent"

    async def progress(self, guest: GuestId) -> Progress | None:
        await self.libvirt()
        if self.world.parts.get(guest) is not Part.LEAVING:
            return None
        return Progress(guest=guest, elapsed_s=2.0, total_mib=96.0, remaining_mib=24.0, rate_mib_s=12.0)

    async def allow_downtime(self, guest: GuestId, downtime_s: float) -> None:
        await self.libvirt()
        if self.world.parts.get(guest) is not Part.LEAVING:
            raise HypervisorError("no migration of it is under way here")
        self.world.downtime_s = downtime_s

    async def abort_migration(self, guest: GuestId) -> None:
        await self.libvirt()
        self.step("aborting")
        if self.world.parts.get(guest) is not Part.LEAVING:
            raise HypervisorError("no migration of it is under way here")
        self.world.migration_fails = "operation aborted"
        if self.world.hold_migration:
            self.world.hold_migration.set()

    async def sample_dirty(self, guest: GuestId) -> tuple[DirtyPoint, ...]:
        await self.libvirt()
        self.world.sampling.append(guest)
        self.world.sampled.append((guest, len(self.world.sampling)))
        try:
            if self.world.hold_sampling is not None:
                await self.world.hold_sampling.wait()
            return self.world.dirties.get(guest, ())
        finally:
            self.world.sampling.remove(guest)

    async def resume(self, guest: GuestId) -> None:
        await self.libvirt()
        self.step("resuming")
        if self.world.resume_fails:
            raise HypervisorError(self.world.resume_fails)
        self.world.domains[guest] = DomainState.RUNNING
        self.step("resumed")

    async def set_clock(self, guest: GuestId) -> bool:
        if self.world.hold_clock is not None:
            await self.world.hold_clock.wait()
        if self.world.clock_fails is not None:
            raise self.world.clock_fails
        self.world.clocks.append(guest)
        return True

    async def agent_answers(self, guest: GuestId, timeout_s: float) -> None:
        await self.libvirt()
        if self.world.silent.get(guest):
            raise self.world.silent[guest].pop(0)

    async def screenshot(self, guest: GuestId) -> Picture:
        await self.libvirt()
        return self.world.console

    async def suspend(self, guest: GuestId) -> None:
        await self.libvirt()
        self.step("suspending")
        self.world.domains[guest] = DomainState.PAUSED

    async def archive_and_undefine(
        self, guest: GuestId, note: str, *, old_disks: tuple[Image, ...] = (), remove_disks: bool = False
    ) -> str:
        await self.libvirt()
        assert not self.world.active(guest), "an active domain is never undefined"
        self.step("undefining")
        self.world.parted.append((tuple(image.path for image in old_disks), remove_disks))
        self.world.undefined.append(guest)
        return "parted with" if old_disks else ""

    async def identify_files(self, paths: tuple[str, ...]) -> tuple[Image, ...]:
        await self.libvirt()
        if self.world.unidentified:
            raise HypervisorError(self.world.unidentified)
        return tuple(Image(path=path, inode=self.world.files.get(path, 0)) for path in paths)

    async def prepare_images(self, guest: GuestId, disks: tuple[LocalDisk, ...]) -> tuple[Image, ...]:
        await self.libvirt()
        for disk in disks:
            if disk.path in self.world.files:
                raise HypervisorError(f"there is a file {disk.path} on this host already")
        for disk in disks:
            self.world.inodes += 1
            self.world.hidden[disk.path] = self.world.inodes
        self.step("images prepared")
        return tuple(Image(path=disk.path, inode=self.world.hidden[disk.path]) for disk in disks)

    async def place_images(self, guest: GuestId, images: tuple[Image, ...]) -> None:
        await self.libvirt()
        if self.world.place_fails is not None:
            raise self.world.place_fails
        for image in images:
            if self.world.files.setdefault(image.path, image.inode) != image.inode:
                raise HypervisorError(f"{image.path} could not be put in its place")
            self.world.hidden.pop(image.path, None)
            self.step("image placed")

    async def image_files(self, guest: GuestId, images: tuple[Image, ...]) -> tuple[str, ...]:
        await self.libvirt()
        if self.world.images_unseen is not None:
            raise self.world.images_unseen
        return tuple(map(self._file, images))

    def _file(self, image: Image) -> str:
        if self.world.files.get(image.path) == image.inode:
            return image.path
        return f"{image.path}.new" if self.world.hidden.get(image.path) == image.inode else ""

    async def remove_images(self, guest: GuestId, images: tuple[Image, ...]) -> None:
        await self.libvirt()
        if self.world.remove_fails:
            raise HypervisorError(self.world.remove_fails)
        for image in images:
            for files in (self.world.files, self.world.hidden):
                if files.get(image.path) == image.inode:
                    del files[image.path]
                    self.step("image removed")

    async def health(self) -> tuple[Reading, ...]:
        await self.libvirt()
        return (Reading(part="libvirt", level=Level.OK),)

    async def events(self) -> AsyncIterator[DomainEvent]:
        while True:
            yield await self.world.events.get()

    def watch_storage(self, identities: tuple[str, ...]) -> None:
        self.world.watched = identities

    async def prove_hook(self) -> HookState:
        await self.libvirt()
        self.proofs += 1
        return HookState(proven=self.world.hook_works, reason="" if self.world.hook_works else "canary ran")

    async def close(self) -> None:
        """Nothing to close."""


class FakeInside:
    """`ports.execs.Execs`: programs run until they are ended, or do what a test says."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, ...]] = []
        self.ends: dict[int, allowed.Report] = {}
        self.begin_fails: Exception | None = None
        self.silent: Exception | None = None

    async def begin(self, guest: GuestId, argv: tuple[str, ...]) -> int:
        if self.begin_fails is not None:
            raise self.begin_fails
        self.begun.append(argv)
        return len(self.begun)

    async def ended(self, guest: GuestId, process: int) -> allowed.Report | None:
        if self.silent is not None:
            raise self.silent
        return self.ends.get(process)


class FakeCourier:
    """Courier of one life of the agent: its copies die with it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.world = process.world
        self.under_way: list[Sent | Taken] = []
        self.closed = False

    async def send(
        self,
        guest: GuestId,
        copy: str,
        *,
        to: HostName,
        addresses: tuple[str, ...],
        port: int,
        files: tuple[str, ...],
        mib_s: int = 0,
    ) -> str:
        await self._copy(Sent(guest, copy, to, addresses, port, files, mib_s))
        self._late()
        return "96 MiB sent"

    async def take(
        self,
        guest: GuestId,
        copy: str,
        *,
        source: HostName,
        files: tuple[str, ...],
        placed: Callable[[], Awaitable[None]],
    ) -> str:
        await self._copy(Taken(guest, copy, source, files))
        await placed()
        self._late()
        return "96 MiB taken"

    async def _copy(self, asked: Sent | Taken) -> None:
        self.process.step("copy begun")
        self.world.copies.append(asked)
        self.under_way.append(asked)
        try:
            if self.world.hold_copy is not None:
                await self.world.hold_copy.wait()
            await asyncio.sleep(0)
            if self.world.copy_ends is not None:
                raise self.world.copy_ends
        finally:
            self.under_way.remove(asked)

    def _late(self) -> None:
        self.process.step("copied")
        if self.world.copy_ends_late is not None:
            raise self.world.copy_ends_late

    def cancel(self, guest: GuestId, *, again: bool = False) -> bool:
        if not any(asked.guest == guest for asked in self.under_way):
            return False
        self.world.copy_ends = (CourierLost if again else CourierError)("called off")
        if self.world.hold_copy is not None:
            self.world.hold_copy.set()
        return True

    def progress(self) -> tuple[Progress, ...]:
        return tuple(
            Progress(guest=asked.guest, elapsed_s=2.0, total_mib=100.0, remaining_mib=40.0, rate_mib_s=12.0)
            for asked in self.under_way
            if isinstance(asked, Sent)
        )

    async def close(self) -> None:
        assert not self.under_way, "called off, it would lose what it took"
        self.closed = True


class Health:
    """HostHealth."""

    async def health(self) -> tuple[Reading, ...]:
        return (Reading(part="memory", level=Level.OK),)


class Probing:
    """Prober: whatever ends in .1 answers."""

    async def probe(self, addresses: tuple[str, ...], window_s: float) -> dict[str, bool]:
        return {address: address.endswith(".1") for address in addresses}


class Link:
    """The agent's end of one session."""

    bytes_max = MESSAGE_BYTES_MAX

    def __init__(self) -> None:
        self.to_agent: asyncio.Queue[FromCoordinator | None] = asyncio.Queue()
        self.to_coordinator: asyncio.Queue[FromAgent] = asyncio.Queue()
        self.closed = False

    async def send(self, message: FromAgent) -> None:
        if self.closed:
            raise LinkClosed("closed")
        if len(encode(message)) > self.bytes_max:
            raise ValueError(f"a {type(message).__name__} larger than {self.bytes_max} bytes")
        self.to_coordinator.put_nowait(message)

    async def __aiter__(self) -> AsyncIterator[FromCoordinator]:
        while (message := await self.to_agent.get()) is not None:
            yield message

    async def close(self) -> None:
        self.closed = True
        self.to_agent.put_nowait(None)


class Session:
    """The coordinator's end: answers beats, collects what comes, sends commands."""

    def __init__(self, coordinator: Coordinator, link: Link, hello: Hello, welcome: Welcome) -> None:
        self.coordinator = coordinator
        self.link = link
        self.hello = hello
        self.welcome = welcome
        self.beats: list[tuple[float, Beat]] = []
        self.reports: list[Report] = []
        self.goodbye = ""
        self.leaving: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.arrived = asyncio.Event()
        self.revision = welcome.revision
        self.pump = asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            message = await self.link.to_coordinator.get()
            match message:
                case Beat():
                    self.beats.append((loop.time(), message))
                    ack = Ack(
                        seq=message.seq, nonce=f"{self.welcome.session}-{message.seq}", revision=self.revision
                    )
                    self.link.to_agent.put_nowait(ack)
                case Report():
                    self.reports.append(message)
                case Result():
                    assert message.command not in self.answers, "answered twice"
                    self.answers[message.command] = message.answer
                case Leaving():
                    self.leaving.append(message.kind)
                case Goodbye():
                    self.goodbye = message.reason
                case Hello():
                    raise AssertionError("hello twice")
            self.arrived.set()

    def post(self, body: Body, command: str = "", **fields: Any) -> str:
        """Send a command; `fields` forge its epoch, leader or session."""
        command = command or f"cmd-{next(self.coordinator.numbers)}"
        self.answers.pop(command, None)
        made = Command(
            id=command,
            epoch=self.welcome.epoch,
            leader_id=self.welcome.leader_id,
            session=self.welcome.session,
            body=body,
        )
        self.link.to_agent.put_nowait(msgspec.structs.replace(made, **fields))  # type: ignore[type-var]
        return command

    async def answer(self, command: str) -> Answer:
        await self.until(lambda: command in self.answers)
        return self.answers[command]

    async def ask(self, body: Body, command: str = "", **fields: Any) -> Answer:
        return await self.answer(self.post(body, command, **fields))

    async def until(self, holds: Callable[[], object], patience_s: float = 2.0) -> None:
        async with asyncio.timeout(patience_s):
            while not holds():
                self.arrived.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.arrived.wait(), 0.01)

    def ticket(self, kind: TicketKind, generation: int, guest: GuestId = G, **fields: Any) -> Ticket:
        made = Ticket(
            id=f"t{generation}",
            kind=kind,
            guest=guest,
            name="vm",
            generation=generation,
            host=HOST,
            boot_id=BOOT,
            epoch=self.welcome.epoch,
            leader_id=self.welcome.leader_id,
            session=self.welcome.session,
            revision=self.revision,
        )
        return msgspec.structs.replace(made, **fields)  # type: ignore[type-var]

    def start(self, generation: int, guest: GuestId = G, **fields: Any) -> Start:
        definition = Definition(id=guest, name="vm", xml="<domain/>", digest="d")
        return Start(ticket=self.ticket(TicketKind.START, generation, guest, **fields), definition=definition)

    def stop(self, generation: int) -> Stop:
        return Stop(ticket=self.ticket(TicketKind.DESTROY, generation), mode="destroy", timeout_s=0.1)

    def receive(self, generation: int, **fields: Any) -> Receive:
        return Receive(ticket=self.ticket(TicketKind.RECEIVE, generation, **fields), source="h2")

    def migrate(self, generation: int, timeout_s: float = 5.0, **fields: Any) -> Migrate:
        ticket = self.ticket(TicketKind.MIGRATE, generation, **fields)
        return Migrate(ticket=ticket, to="h2", addresses=("10.0.0.2",), timeout_s=timeout_s)

    def resume(self, generation: int) -> Resume:
        return Resume(ticket=self.ticket(TicketKind.RESUME, generation))

    def discard(self, generation: int) -> Discard:
        return Discard(ticket=self.ticket(TicketKind.DISCARD, generation))

    def send_disks(self, generation: int, *disks: LocalDisk, **fields: Any) -> SendDisks:
        return SendDisks(
            ticket=self.ticket(TicketKind.SEND, generation, **fields),
            copy="t77",
            to="h2",
            addresses=("10.0.0.2",),
            port=4711,
            disks=disks,
            mib_s=50,
        )

    def take_disks(self, generation: int, *disks: LocalDisk, **fields: Any) -> TakeDisks:
        ticket = self.ticket(TicketKind.TAKE, generation, **fields)
        return TakeDisks(ticket=ticket, source="h2", disks=disks)

    def clean(self, generation: int) -> Clean:
        return Clean(ticket=self.ticket(TicketKind.UNDEFINE, generation))

    async def testify(self, generation: int, guest: GuestId = G) -> Testimony:
        answer = await self.ask(Testify(questions=(Question(guest=guest, name="vm", generation=generation),)))
        (testimony,) = answer.testimony
        return testimony

    def is_closed(self) -> bool:
        return self.link.closed

    async def end(self) -> None:
        """The link breaks."""
        self.pump.cancel()
        await self.link.close()


class Coordinator:
    """Dialler, and whoever takes the call."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Link] = asyncio.Queue()
        self.numbers = itertools.count(1)
        self.sessions: list[Session] = []
        self.epoch, self.leader = 1, "l1"

    async def dial(self) -> Link:
        link = Link()
        self.calls.put_nowait(link)
        return link

    async def accept(self, **fields: Any) -> Session:
        """Wait for a hello and welcome it."""
        async with asyncio.timeout(2.0):
            link = await self.calls.get()
            hello = await link.to_coordinator.get()
        assert isinstance(hello, Hello)
        welcome = Welcome(
            protocol=PROTOCOL,
            version="1",
            cluster=CLUSTER,
            epoch=self.epoch,
            leader_id=self.leader,
            revision=1,
            session=f"s{next(self.numbers)}",
            nonce="first",
            heartbeat_s=BEAT_S,
        )
        welcome = msgspec.structs.replace(welcome, **fields)  # type: ignore[type-var]
        link.to_agent.put_nowait(welcome)
        session = Session(self, link, hello, welcome)
        self.sessions.append(session)
        return session


class Host:
    """A world with an agent in it."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.coordinator = Coordinator()
        self.told: list[str] = []
        self.goes_down: LeaveKind = ""
        self.held = False
        self.hinted = True  # files say it; else only systemd itself, when it is asked
        self.boot()

    def boot(self) -> None:
        """A new life of the agent."""
        asyncio.get_running_loop().set_exception_handler(_ignore_the_dead)
        self.process = Process(self.world)
        self.courier = FakeCourier(self.process)
        self.clones = FakeClones()
        self.stop = asyncio.Event()
        self.coordinator.calls = asyncio.Queue()
        agent = Agent(
            HOST,
            CLUSTER,
            dialler=self.coordinator,
            hypervisor=self.process,
            inside=FakeInside(),
            gate=self.process,
            courier=self.courier,
            clones=self.clones,
            memory=self.process,
            host_health=Health(),
            prober=Probing(),
            departure=self,
            boot_id=BOOT,
            notify=self.told.append,
            timing=TIMING,
            rhythm=RHYTHM,
            patience=PATIENCE,
            pace=self.world.pace,
        )
        self.running = asyncio.create_task(agent.run(self.stop))

    async def kind(self, *, sure: bool = False) -> LeaveKind:
        """Departure."""
        return self.goes_down if self.hinted or sure else ""

    def hold(self, on: bool) -> None:
        """Departure."""
        self.held = on

    async def kill(self) -> None:
        """kill -9."""
        self.process.dead = True
        self.running.cancel()
        with suppress(asyncio.CancelledError, Dead, Exception, BaseExceptionGroup):
            await self.running

    async def linked(self, *, protect: bool = True) -> Session:
        """A session; by default with G on the protected list."""
        session = await self.coordinator.accept()
        if protect:
            answer = await session.ask(listing())
            assert answer.protected_version == 1, answer
        return session


def _ignore_the_dead(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """A killed process leaves tasks behind that nobody asks."""
    if not isinstance(context.get("exception"), Dead):
        loop.default_exception_handler(context)


def listing(*guests: GuestId, version: int = 1, generation: int = 0) -> Protect:
    entries = (ProtectedEntry(guest=guest, name="vm", generation=generation) for guest in guests or (G,))
    return Protect(version=version, entries=tuple(entries), watch_storage=("nfs:a",))
