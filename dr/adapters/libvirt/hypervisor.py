"""`ports.hypervisor.Hypervisor` for a real host: the rooms of this folder behind one door, each call bounded."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, TypeVar

import libvirt

from dr.adapters.libvirt import (
    archive,
    canary,
    cpus,
    definition,
    dirty,
    facts,
    health,
    images,
    listening,
    migration,
    sight,
    start,
    way,
)
from dr.adapters.libvirt import libvirt_api as api
from dr.adapters.libvirt.bases import Bases
from dr.adapters.libvirt.calls import Calls
from dr.adapters.libvirt.connection import Connection
from dr.adapters.libvirt.events import Events
from dr.adapters.libvirt.facts import Capabilities, Dynamic
from dr.adapters.libvirt.gate import CANARY, is_guest
from dr.adapters.libvirt.guests import Guests
from dr.adapters.libvirt.inside import Inside
from dr.adapters.libvirt.layout import Layout
from dr.adapters.libvirt.reach import Reach
from dr.adapters.libvirt.sight import LibvirtView
from dr.model.base import GuestId, HostName
from dr.model.facts import (
    Definition,
    DirtyPoint,
    GuestFacts,
    HookState,
    HostFacts,
    Level,
    LocalDisk,
    Progress,
    Reading,
    RunningCpu,
    Sighting,
)
from dr.model.memory import Image
from dr.model.policy import Sending, StopMode
from dr.ports.hypervisor import DomainEvent, HypervisorError, HypervisorUnknown, Picture, Standing

T = TypeVar("T")

READ_S = 10.0  # a read that is slower than this is of no use to anybody
CAPABILITIES_S = 60.0  # after its start libvirtd asks each QEMU binary what it can do
SIGHT_LIBVIRT_S = 3.0
SIGHT_PROC_S = 5.0
START_S = 55.0  # below Timers.start_s, so that the agent's own answer is heard
DESTROY_S = 60.0  # libvirt itself gives a QEMU that hangs up to 45 s
ARCHIVE_S = 300.0  # a saved image may have to be copied
CANARY_S = 20.0
POLL_S = 0.25
STANDING_S = 3.0
ABORT_S = 20.0
FAILS_S = 2.0  # a migration whose copies of disks were cut off fails within that
RESUME_S = 30.0
HOST_SLOTS = 8
SAMPLE_S = sum(dirty.INTERVALS_S) + 10.0
SAMPLES_MAX = 12
IMAGES_S = 50.0
MIGRATION_S = 24 * 3600.0
MIGRATIONS_MAX = 16  # beyond any limit of moves that makes sense
SAMPLES_FROM = (7, 2, 0)
MIGRATES_FROM = (6, 5, 0)  # libvirt: from then on it runs the hooks in qemu.d


class LibvirtHypervisor:
    """One host's libvirt. Connects by itself, from the first call on, and again whenever the connection is lost."""

    def __init__(
        self,
        uri: str = "qemu:///system",
        *,
        layout: Layout | None = None,
        start_timeout_s: float = START_S,
        migration_uri: str = "",
        migration_tls: bool = False,
        migration_address: str = "",
        copy_port: int = 0,
    ) -> None:
        """`migration_uri`: libvirt's URI of another host, with {address} or {host} in it; empty: no live migration.

        `migration_tls`: the memory that is sent is encrypted, with QEMU's own certificates. `migration_address`: this
        host's own, where memory and disks of guests that come here are to be sent; empty: as libvirt is configured.
        `copy_port`: where its agent takes disks of guests that are off; 0: it takes none.
        """
        self._layout = layout or Layout()
        self._uri = uri
        self._migration_uri = migration_uri
        self._migration_tls = migration_tls
        self._migration_address = migration_address
        self._copy_port = copy_port
        self._start_timeout_s = start_timeout_s
        self._events = Events()
        self._guests = Guests(self._layout)
        self._bases = Bases(self._layout)
        self._reach = Reach(self._layout, self._bases.digest)
        self._pools = health.PoolTrials(self._layout)
        self._connection = Connection(uri, self._events.register, self._on_connected)
        self._host = Calls("this host", HOST_SLOTS)
        self._migrations = Calls("libvirt's migrations", MIGRATIONS_MAX)
        self._inside = Inside(uri)
        self._samples = Calls("libvirt's dirty rates", SAMPLES_MAX)
        self._capabilities: tuple[int, Capabilities] | None = None
        self._running_cpus: dict[str, RunningCpu] = {}
        self._answered_at = time.monotonic()
        self._events.on_definition = self._guests.forget

    def _on_connected(self) -> None:
        self._guests.forget()
        self._running_cpus = {}  # a newer libvirt may name features that the one before did not know
        self._events.connected()

    def watch_storage(self, identities: tuple[str, ...]) -> None:
        """Network storage whose reachability `facts` is to report from now on."""
        self._reach.watch(identities)

    async def _call(self, what: str, function: Callable[[Any], T], timeout_s: float = READ_S) -> T:
        """A call whose libvirt errors mean nothing more than "no answer". Raises HypervisorUnknown, HypervisorError."""
        self._events.bind()
        try:
            return await self._connection.call(what, function, timeout_s)
        except libvirt.libvirtError as error:
            raise HypervisorUnknown(f"libvirt could not {what}: {api.text(error)}") from error
        except OSError as error:
            raise HypervisorUnknown(f"this host's own files could not be read to {what}: {error}") from error

    async def facts(self) -> HostFacts:
        """See the port; also asks the watched storage."""
        can = await self._can()
        now = await self._call("list networks and pools", facts.dynamic)
        self._running_cpus = await self._call("tell the CPUs of guests", self._cpus)
        reachable = await self._reach.reachable()
        return await self._host.run("read /proc and /sys", lambda: self._facts(can, now, reachable), READ_S)

    def _cpus(self, conn: Any) -> dict[str, RunningCpu]:
        """Those that guests run with; what was told before is kept, what libvirt cannot tell is left out."""
        found = {}
        for key, described in sorted(self._guests.cpus().items()):
            try:
                found[key] = self._running_cpus.get(key) or cpus.running(conn, described)
            except libvirt.libvirtError as error:
                if api.is_unseen(error):
                    raise
        return found

    def _facts(self, can: Capabilities, now: Dynamic, reachable: set[str]) -> HostFacts:
        layout = self._layout
        try:
            boot_id = facts.boot_id(layout)
        except OSError as error:
            raise HypervisorUnknown(f"this boot's id cannot be read: {error}") from error
        return HostFacts(
            boot_id=boot_id,
            libvirt_version=can.libvirt_version,
            arch=can.arch,
            domain_types=can.domain_types,
            machines=can.machines,
            cpu_model=can.cpu_model,
            cpu_offers=can.cpu_offers,
            running_cpus=self._running_cpus,
            cpus=can.cpus,
            memory_mib=can.memory_mib,
            huge_pages=facts.huge_pages(layout),
            addresses=facts.addresses(layout),
            networks=tuple(sorted({*facts.bridges(layout), *now.networks})),
            storage=tuple(sorted(reachable.union(now.pools))),
            room_mib=self._reach.room_mib,
            hibernation_masked=facts.hibernation_masked(layout),
            live_migration=bool(self._migration_uri) and _version(can.libvirt_version) >= MIGRATES_FROM,
            migration_address=self._migration_address,
            copy_port=self._copy_port,
            samples_memory=_version(can.libvirt_version) >= SAMPLES_FROM,
        )

    async def _can(self) -> Capabilities:
        serial = self._connection.serial
        if self._capabilities is None or self._capabilities[0] != serial:
            can = await self._call("tell its capabilities", facts.capabilities, CAPABILITIES_S)
            self._capabilities = (self._connection.serial, can)
            return can
        return self._capabilities[1]

    async def guests(self) -> tuple[GuestFacts, ...]:
        """See the port."""
        return await self._call("list guests", self._guests.read)

    async def describe(self, guest: GuestId) -> Definition:
        """See the port."""
        return await self._call(
            f"describe {guest}",
            lambda conn: definition.describe(conn, self._layout, guest, self._bases.digest),
        )

    async def start(self, definition: Definition) -> None:
        """See the port."""
        self._events.bind()
        try:
            await self._connection.call(
                f"start {definition.name}",
                lambda conn: start.start(conn, self._layout, definition),
                self._start_timeout_s,
            )
        except libvirt.libvirtError as error:
            said = api.text(error)
            if api.is_unseen(error):
                raise HypervisorUnknown(
                    f"the end of {definition.name}'s start was not seen: {said}"
                ) from error
            sighting, reason = await self.sight(definition.id)
            if sighting is Sighting.ABSENT:
                raise HypervisorError(f"{definition.name} did not start: {said}") from error
            raise HypervisorUnknown(
                f"libvirt refused to start {definition.name} ({said}), but {reason}"
            ) from error

    async def stop(self, guest: GuestId, mode: StopMode, timeout_s: float) -> None:
        """See the port. Done when it is off already."""
        deadline = time.monotonic() + timeout_s
        what = f"{'destroy' if mode == 'destroy' else 'shut down'} {guest}"
        self._events.bind()
        try:
            if mode == "destroy":
                await self._connection.call(
                    what, lambda conn: start.destroy(conn, guest), max(timeout_s, DESTROY_S)
                )
            else:
                await self._connection.call(
                    what, lambda conn: start.ask_shutdown(conn, guest), min(timeout_s, READ_S)
                )
        except libvirt.libvirtError as error:
            await self._still(guest, f"libvirt could not {what}: {api.text(error)}", error)
            return
        while await self._call(f"see whether {guest} is off", lambda conn: start.is_active(conn, guest)):
            if time.monotonic() >= deadline:
                raise HypervisorError(f"guest {guest} still runs {timeout_s:g} s after it was told to {mode}")
            await asyncio.sleep(POLL_S)

    async def _still(self, guest: GuestId, said: str, error: Exception) -> None:
        """After an error: done if it surely does not run, else say what is known."""
        sighting, reason = await self.sight(guest)
        if sighting is Sighting.UNKNOWN:
            raise HypervisorUnknown(f"{said}; {reason}") from error
        if sighting is Sighting.PRESENT:
            raise HypervisorError(f"{said}; {reason}") from error

    async def sight(self, guest: GuestId, name: str = "") -> tuple[Sighting, str]:
        """See the port. `name` helps where libvirt is gone and QEMU's command line too."""
        try:
            view = await self._connection.call(
                f"look for {guest}", lambda conn: sight.ask_libvirt(conn, guest), SIGHT_LIBVIRT_S
            )
        except (libvirt.libvirtError, HypervisorUnknown) as error:
            view = LibvirtView(active=None, why=api.text(error))
        proc, called = self._layout.proc, name or self._name(guest)
        try:
            return await self._host.run(
                "read /proc", lambda: sight.weigh(proc, guest, called, view), SIGHT_PROC_S
            )
        except HypervisorUnknown as error:
            return Sighting.UNKNOWN, str(error)

    async def standing(self, guest: GuestId) -> Standing:
        """See the port."""
        return await self._call(
            f"tell what {guest} does", lambda conn: migration.standing(conn, guest), STANDING_S
        )

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
        """See the port. The caller's patience is the only limit; libvirt's job does not end with it."""
        self._events.bind()
        if not self._migration_uri:
            raise HypervisorError("no migration_uri is set in this host's /etc/dr/agent.yaml")
        api.run_event_loop()

        def send() -> str:
            there = way.way_to(self._migration_uri, to, addresses)
            return migration.send(
                self._uri,
                guest,
                there,
                sending,
                disks=disks,
                data_address=data_address,
                tls=self._migration_tls,
            )

        return await self._migrations.run(f"migrate {guest} to {to}", send, MIGRATION_S)

    async def progress(self, guest: GuestId) -> Progress | None:
        """See the port."""
        return await self._call(
            f"tell how far {guest} is", lambda conn: migration.progress(conn, guest), STANDING_S
        )

    async def allow_downtime(self, guest: GuestId, downtime_s: float) -> None:
        """See the port."""
        what = f"allow the migration of {guest} a longer standstill"
        await self._act(what, lambda conn: migration.allow_downtime(conn, guest, downtime_s), STANDING_S)

    async def abort_migration(self, guest: GuestId) -> None:
        """See the port. Copies of disks are cut off first: that fails the migration, also where a host is silent."""
        least_ms = 0
        with suppress(HypervisorError, HypervisorUnknown):  # without it, as good as libvirt can
            cut = f"cut off the copies of disks of {guest}"
            least_ms = await self._act(cut, lambda conn: migration.cut(conn, guest), STANDING_S)
        what = f"end the migration of {guest}"
        if not least_ms:
            await self._act(what, lambda conn: migration.abort(conn, guest), ABORT_S)
            return
        await asyncio.sleep(FAILS_S)
        with suppress(HypervisorError):  # it has ended
            await self._act(what, lambda conn: migration.abort(conn, guest, least_ms), ABORT_S)

    async def resume(self, guest: GuestId) -> None:
        """See the port."""
        await self._act(f"resume {guest}", lambda conn: conn.lookupByUUIDString(guest).resume(), RESUME_S)

    async def suspend(self, guest: GuestId) -> None:
        """See the port."""
        await self._act(f"suspend {guest}", lambda conn: conn.lookupByUUIDString(guest).suspend(), RESUME_S)

    async def set_clock(self, guest: GuestId) -> bool:
        """See the port."""
        return await self._inside.set_clock(guest)

    async def agent_answers(self, guest: GuestId, timeout_s: float) -> None:
        """See the port."""
        await self._inside.agent_answers(guest, timeout_s)

    async def screenshot(self, guest: GuestId) -> Picture:
        """See the port."""
        return await self._inside.screenshot(guest)

    async def sample_dirty(self, guest: GuestId) -> tuple[DirtyPoint, ...]:
        """See the port. With calls and connections of their own: a QEMU that hangs holds up nothing else."""
        self._events.bind()
        api.run_event_loop()
        return await self._samples.run(
            f"sample the memory of {guest}", lambda: dirty.sample(self._uri, guest), SAMPLE_S
        )

    async def _act(self, what: str, function: Callable[[Any], T], timeout_s: float) -> T:
        """A call that libvirt may refuse. Raises HypervisorError with its words, HypervisorUnknown."""
        self._events.bind()
        try:
            return await self._connection.call(what, function, timeout_s)
        except libvirt.libvirtError as error:
            if api.is_unseen(error):
                raise HypervisorUnknown(
                    f"libvirt did not say whether it did {what}: {api.text(error)}"
                ) from error
            raise HypervisorError(f"libvirt could not {what}: {api.text(error)}") from error

    def _name(self, guest: GuestId) -> str:
        """A protected guest's name as the gate keeps it."""
        try:
            listed = self._layout.protected / guest
            return listed.read_text(encoding="utf-8").strip() if is_guest(guest) else ""
        except OSError:
            return ""

    async def archive_and_undefine(
        self, guest: GuestId, note: str, *, old_disks: tuple[Image, ...] = (), remove_disks: bool = False
    ) -> str:
        """See the port. Raises HypervisorError also while it runs."""

        def part(conn: Any) -> str:
            return archive.archive_and_undefine(
                conn, self._layout, guest, note, old_disks, remove=remove_disks
            )

        try:
            return await self._connection.call(f"archive {guest}", part, ARCHIVE_S)
        except libvirt.libvirtError as error:
            if api.is_unseen(error):
                raise HypervisorUnknown(
                    f"whether {guest} was undefined was not seen: {api.text(error)}"
                ) from error
            raise HypervisorError(f"{guest} could not be undefined: {api.text(error)}") from error
        except OSError as error:
            raise HypervisorError(f"{guest} was not undefined: {error}") from error

    async def identify_files(self, paths: tuple[str, ...]) -> tuple[Image, ...]:
        """See the port."""
        return await self._files("tell which files those are", lambda: images.identify(self._layout, paths))

    async def prepare_images(self, guest: GuestId, disks: tuple[LocalDisk, ...]) -> tuple[Image, ...]:
        """See the port."""
        return await self._files(
            "make images", lambda: images.prepare(self._layout, guest, disks, self._bases.digest)
        )

    async def place_images(self, guest: GuestId, made: tuple[Image, ...]) -> None:
        """See the port."""
        await self._files(
            "put images in their places", lambda: images.put_in_place(self._layout, guest, made)
        )

    async def image_files(self, guest: GuestId, made: tuple[Image, ...]) -> tuple[str, ...]:
        """See the port."""
        return await self._files(
            "look for images that it made", lambda: images.where(self._layout, guest, made)
        )

    async def remove_images(self, guest: GuestId, made: tuple[Image, ...]) -> None:
        """See the port."""
        await self._files("remove images", lambda: images.remove(self._layout, guest, made))

    async def _files(self, what: str, work: Callable[[], T]) -> T:
        try:
            return await self._host.run(what, work, IMAGES_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise HypervisorError(f"this host could not {what}: {error}") from error

    async def health(self) -> tuple[Reading, ...]:
        """See the port. Never raises: a libvirt that does not answer is a reading."""
        began = time.monotonic()
        try:
            await self._call("answer", lambda conn: conn.getLibVersion())
        except HypervisorUnknown as error:
            return (health.libvirt_reading(None, time.monotonic() - self._answered_at, str(error)),)
        self._answered_at = time.monotonic()
        found = [health.libvirt_reading(self._answered_at - began, 0.0, "")]
        try:
            pools = await self._call("list pools", health.active_pools)
            networks = await self._call("list networks", health.bridges_of_networks)
        except HypervisorUnknown as error:
            return (*found, Reading(part="libvirt:lists", level=Level.WARN, reason=str(error)))
        needed = {
            network: name for guest, name in self._protected() for network in self._guests.networks(guest)
        }
        found += await self._pools.readings(pools)
        found += health.network_readings(self._layout, needed, networks)
        if self._migration_uri:
            found.append(listening.migration_reading(self._layout, way.port_of(self._migration_uri)))
        if self._migration_address:
            found.append(listening.address_reading(self._migration_address))
        return tuple(found)

    def _protected(self) -> list[tuple[GuestId, str]]:
        """Protected guests as the gate keeps them."""
        try:
            names = {path.name: path.read_text(encoding="utf-8") for path in self._layout.protected.iterdir()}
        except OSError:
            return []
        return [(g, name.strip()) for g, name in names.items() if is_guest(g) and not name.startswith(CANARY)]

    async def events(self) -> AsyncIterator[DomainEvent]:
        """See the port. One reader only."""
        self._events.bind()
        self._connection.open()
        async for event in self._events:
            yield event

    async def prove_hook(self) -> HookState:
        """See the port. Never raises: what was not proven is not proven."""
        try:
            can = await self._can()
            kind = "kvm" if "kvm" in can.domain_types else next(iter(can.domain_types), "qemu")
            return await self._call(
                "try the canary", lambda conn: canary.prove(conn, self._layout, kind, can.arch), CANARY_S
            )
        except HypervisorUnknown as error:
            return HookState(proven=False, reason=str(error))

    async def close(self) -> None:
        """Stop connecting. Calls that are still in libvirt end by themselves."""
        self._connection.close()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
