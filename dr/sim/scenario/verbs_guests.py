"""Verbs: what guests do by themselves, what people do on hosts by hand, starts and stops that fail."""

from __future__ import annotations

from typing import Annotated, Literal

from dr.model.facts import Tie, TieKind
from dr.model.words import ALL, Count, GuestRef, Guests, HostRef, Hosts, NewGuest, Seconds, Word
from dr.sim.migration import FAULTS
from dr.sim.scenario.stage import Stage
from dr.sim.scenario.verb import Verb
from dr.sim.troubles import Trouble

TIED_BY = {
    TieKind.SNAPSHOT: "",
    TieKind.BLOCK_JOB: "vda",
    TieKind.BACKUP: "",
}  # the others name what is found

StartFault = Literal["fail", "die", "slow", "hang", "lost"]


def _end(stage: Stage, names: tuple[str, ...], reason: str) -> None:
    for guest in stage.guests(names):
        for host in stage.world.running(guest):
            stage.world.hosts[host].end(guest, reason)


class CrashGuest(Verb):
    """Its QEMU dies."""

    crash_guest: Annotated[Guests, "guests"]

    def do(self, stage: Stage) -> None:
        _end(stage, self.crash_guest, "crashed")


class OwnerShutsDown(Verb):
    """Its owner shuts it down from inside."""

    owner_shuts_down: Annotated[Guests, "guests"]

    def do(self, stage: Stage) -> None:
        _end(stage, self.owner_shuts_down, "shutdown")


class VirshDestroy(Verb):
    """`virsh destroy` on the host where it runs."""

    virsh_destroy: Annotated[Guests, "guests"]
    on: Annotated[Hosts, "only on these hosts, where it runs twice"] = (ALL,)

    def do(self, stage: Stage) -> None:
        hosts = stage.hosts(self.on)
        for guest in stage.guests(self.virsh_destroy):
            for host in set(stage.world.running(guest)).intersection(hosts):
                stage.world.hosts[host].end(guest, "destroyed")


class VirshStart(Verb):
    """`virsh start` on a host where it is defined."""

    virsh_start: Annotated[Guests, "guests"]
    on: Annotated[HostRef, "the host"]

    def do(self, stage: Stage) -> None:
        for guest in stage.guests(self.virsh_start):
            stage.world.hosts[self.on].hand_start(guest)


class VirshEdit(Verb):
    """Its definition is edited on the host where it runs."""

    virsh_edit: Annotated[Guests, "guests"]

    def do(self, stage: Stage) -> None:
        for guest in stage.guests(self.virsh_edit):
            stage.world.redefine(guest, f"d{stage.world.clock.steps}-{guest}")


class VirshRename(Verb):
    """`virsh domrename`: its definition bears another name. Scenarios go on calling it by the first."""

    virsh_rename: Annotated[GuestRef, "the guest"]
    to: Annotated[NewGuest, "its new name"]

    def do(self, stage: Stage) -> None:
        stage.world.rename(self.virsh_rename, self.to)


class VirshDefine(Verb):
    """`virsh define` on a host where it is not defined."""

    virsh_define: Annotated[Guests, "guests"]
    on: Annotated[HostRef, "the host"]

    def do(self, stage: Stage) -> None:
        for guest in stage.guests(self.virsh_define):
            stage.world.hosts[self.on].hand_define(guest)


class VirshSuspend(Verb):
    """`virsh suspend` on the host where it runs."""

    virsh_suspend: Annotated[Guests, "guests"]

    def do(self, stage: Stage) -> None:
        for guest in stage.guests(self.virsh_suspend):
            for host in stage.world.running(guest):
                stage.world.hosts[host].hand_suspend(guest)


class IoError(Verb):
    """The storage under a guest fails or is full: QEMU pauses it where it runs, until `virsh_resume`."""

    io_error: Annotated[Guests, "guests"]

    def do(self, stage: Stage) -> None:
        for guest in stage.guests(self.io_error):
            for host in stage.world.running(guest):
                stage.world.hosts[host].pause_for_io(guest)


class VirshUndefine(Verb):
    """`virsh undefine` on a host, of what does not run there; without a host: where it runs, after `virsh destroy`."""

    virsh_undefine: Annotated[Guests, "guests"]
    on: Annotated[HostRef, "the host; wherever it runs, if not named"] = ""

    def do(self, stage: Stage) -> None:
        for guest in stage.guests(self.virsh_undefine):
            if self.on:
                stage.world.hosts[self.on].undefine(guest, by_hand=True)
            else:
                stage.world.undefine(guest)


class ReadyAfter(Verb):
    """From now on its checks pass only when it has run for so long where it is."""

    ready_after: Annotated[Seconds, "a time"]
    of: Annotated[Guests, "guests"]

    def do(self, stage: Stage) -> None:
        for guest in stage.guests(self.of):
            stage.world.ready_after_s[guest] = self.ready_after


class SilentAgent(Verb):
    """The QEMU guest agent in guests does not answer any more; all else in them does."""

    silent_agent: Annotated[Guests, "guests"]

    def do(self, stage: Stage) -> None:
        stage.world.silent_agents.update(stage.guests(self.silent_agent))


class VirshMigrate(Verb):
    """`virsh migrate --live` from where it runs; at the other end the hook decides."""

    virsh_migrate: Annotated[Guests, "guests"]
    to: Annotated[HostRef, "the host"]

    def do(self, stage: Stage) -> None:
        for guest in stage.guests(self.virsh_migrate):
            for host in stage.world.running(guest):
                stage.world.hosts[host].hand_migrate(guest, self.to)


class TieGuest(Verb):
    """Something keeps guests on the host where they run, as its libvirt tells, and would refuse their migration:
    `snapshot` (stays when they are off), `block job`, `backup`, `host device` and what else a definition may not have,
    plugged in while they run. Until `untie`; an end of their QEMU ends all but snapshots."""

    tie: Annotated[Guests, "guests"]
    by: Annotated[TieKind, "what it is"]

    def do(self, stage: Stage) -> None:
        what = TIED_BY.get(
            self.by, f"it uses a {self.by} of this host: detach it with `virsh detach-device`."
        )
        for guest in stage.guests(self.tie):
            for host in stage.world.running(guest):
                stage.world.hosts[host].tie(guest, Tie(kind=self.by, what=what))


class UntieGuest(Verb):
    """It has ended, or somebody took it away."""

    untie: Annotated[Guests, "guests"]
    by: Annotated[TieKind | None, "what it is; not named: everything"] = None

    def do(self, stage: Stage) -> None:
        for guest in stage.guests(self.untie):
            for host in stage.world.hosts.values():
                host.untie(guest, self.by)


class VirshResume(Verb):
    """`virsh resume` of what stands still there: suspended by hand, or a copy that waits (which no hook sees)."""

    virsh_resume: Annotated[Guests, "guests"]
    on: Annotated[HostRef, "the host"]

    def do(self, stage: Stage) -> None:
        for guest in stage.guests(self.virsh_resume):
            stage.world.hosts[self.on].hand_resume(guest)


class MigrationsFail(Verb):
    """Migrations go wrong: `fail` (in the middle), `hang` (no progress; an abort helps), `deaf` (the same, an abort is
    not heeded for a while), `never_converges`, `hot` (unless QEMU slows it down), `busy` (with a standstill of 0.7 s
    at the least), `slow`, `full` (no memory there), `queued` (Prepare arrives late),
    `lost_finish` (its last word is lost: the source goes on), `stuck` (the source's libvirtd dies at the
    switch-over), `lost` (it succeeds, and nobody hears of it)."""

    migrations_fail: Annotated[Guests, "guests"]
    on: Annotated[Hosts, "only from these hosts"] = (ALL,)
    to: Annotated[Hosts, "only to these hosts"] = (ALL,)
    how: Annotated[str, Word(FAULTS), "how"] = "fail"
    times: Annotated[Count | None, "only the next n migrations; not named: until `migrations_work`"] = None

    def do(self, stage: Stage) -> None:
        trouble = Trouble("migrate", self.how, self.migrations_fail, self.on, self.times, self.to)
        stage.world.troubles.add(trouble)


class MigrationsWork(Verb):
    """Migrations work again."""

    migrations_work: Annotated[Guests, "guests"]

    def do(self, stage: Stage) -> None:
        stage.world.troubles.end("migrate", self.migrations_work)


class Autostart(Verb):
    """`virsh autostart` of every domain on a host: libvirt tries to start them after each boot."""

    autostart: Annotated[Hosts, "hosts"]

    def do(self, stage: Stage) -> None:
        for name in stage.hosts(self.autostart):
            for domain in stage.world.hosts[name].domains.values():
                domain.autostart = True


class AddGuest(Verb):
    """A guest is defined and started by hand. Nobody protects it yet."""

    add_guest: Annotated[NewGuest, "its name"]
    on: Annotated[HostRef, "the host"]
    memory_mib: Annotated[Count, "its memory"] = 1024
    tied: Annotated[bool, "its disk lies on that host only, so it could start nowhere else"] = False

    def do(self, stage: Stage) -> None:
        stage.world.add_guest(self.on, self.add_guest, self.memory_mib, tied=self.tied)


class StartsFail(Verb):
    """Starts go wrong, and so does resuming a copy that arrived: `fail` (libvirt says no), `die` (QEMU ends right
    away), `slow` (it takes a while), `hang` (longer than anybody waits), `lost` (it runs, libvirt does not say so)."""

    starts_fail: Annotated[Guests, "guests"]
    on: Annotated[Hosts, "only on these hosts"] = (ALL,)
    how: Annotated[StartFault, "how"] = "fail"
    times: Annotated[Count | None, "only the next n starts; not named: until `starts_work`"] = None

    def do(self, stage: Stage) -> None:
        stage.world.troubles.add(Trouble("start", self.how, self.starts_fail, self.on, self.times))


class StartsWork(Verb):
    """Starts work again."""

    starts_work: Annotated[Guests, "guests"]

    def do(self, stage: Stage) -> None:
        stage.world.troubles.end("start", self.starts_work)


class StopsFail(Verb):
    """Stops go wrong: `deaf` (the guest does not heed a clean shutdown), `hang` (libvirt never answers)."""

    stops_fail: Annotated[Guests, "guests"]
    on: Annotated[Hosts, "only on these hosts"] = (ALL,)
    how: Annotated[Literal["deaf", "hang"], "how"] = "deaf"
    times: Annotated[Count | None, "only the next n stops; not named: until `stops_work`"] = None

    def do(self, stage: Stage) -> None:
        stage.world.troubles.add(Trouble("stop", self.how, self.stops_fail, self.on, self.times))


class StopsWork(Verb):
    """Stops work again."""

    stops_work: Annotated[Guests, "guests"]

    def do(self, stage: Stage) -> None:
        stage.world.troubles.end("stop", self.stops_work)


VERBS: tuple[type[Verb], ...] = (
    CrashGuest,
    OwnerShutsDown,
    VirshDestroy,
    VirshStart,
    VirshEdit,
    VirshDefine,
    VirshRename,
    VirshSuspend,
    IoError,
    VirshUndefine,
    ReadyAfter,
    SilentAgent,
    VirshMigrate,
    TieGuest,
    UntieGuest,
    VirshResume,
    MigrationsFail,
    MigrationsWork,
    Autostart,
    AddGuest,
    StartsFail,
    StartsWork,
    StopsFail,
    StopsWork,
)
