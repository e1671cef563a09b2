"""Everything that DESIGN.md says can go wrong, one function for each kind, and the odds of each.

Here: what a fault is, in verbs of the scenario language, its repair included. Not here: what people do meanwhile
(`dr.sim.faults_people`), how often and when (`dr.sim.draw`), what the verbs do (`dr.sim.scenario`), what must hold
(`dr.sim.truth`).

A fence device that lies while it shows the right identity can only be found out by somebody who hears the host. So in
worlds with such liars no host is cut off from everybody or frozen for long: that combination is what DESIGN.md admits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from dr.model.words import ALL
from dr.sim import faults_people, migration
from dr.sim.drawing import LONG, SECONDS, Drawing, Faults, Kind, Then, lasting
from dr.sim.scenario.facts import CoordinatorIs, GuestIs
from dr.sim.scenario.verb import Verb
from dr.sim.scenario.verbs_coordinator import Backup, CloneStore, Coordinator, Restore, Store
from dr.sim.scenario.verbs_fencing import Behaviour, Fence, ReplaceDevice, SwapCables
from dr.sim.scenario.verbs_guests import (
    Autostart,
    CrashGuest,
    MigrationsFail,
    OwnerShutsDown,
    StartFault,
    StartsFail,
    StopsFail,
    VirshDefine,
    VirshDestroy,
    VirshEdit,
    VirshMigrate,
    VirshResume,
    VirshStart,
    VirshUndefine,
)
from dr.sim.scenario.verbs_hosts import (
    ABOUT,
    Block,
    BreakSession,
    Cut,
    Fate,
    Freeze,
    FreezeAgent,
    Hardware,
    Hibernate,
    Hibernation,
    Hook,
    KillAgent,
    Libvirtd,
    LoseAgentState,
    Mend,
    Messages,
    PowerOff,
    PowerOn,
    Reset,
    SlowNetwork,
    StartAgent,
    StopAgent,
    Unblock,
)
from dr.sim.scenario.verbs_people import (
    FenceHost,
)

UP = CoordinatorIs(coordinator="up")


# ---- hosts and networks


def _power_off(d: Drawing) -> Faults:
    host = (d.host(),)
    return lasting(PowerOff(power_off=host), PowerOn(power_on=host), d.one((0.0, *LONG)))


def _reset(d: Drawing) -> Faults:
    yield Then(Reset(reset=(d.host(),)))


def _frozen(*seconds: float) -> Callable[[Drawing], Faults]:
    def draw(d: Drawing) -> Faults:
        yield Then(Freeze(freeze=(d.host(),), for_=d.one(seconds)))

    return draw


def _cut(d: Drawing) -> Faults:
    host = (d.host(),)
    return lasting(Cut(cut=host), Mend(mend=host), d.one((0.0, *LONG)))


def _cut_in_part(d: Drawing) -> Faults:
    host, network = (d.host(),), d.one(("management", "storage"))
    return lasting(Cut(cut=host, networks=(network,)), Mend(mend=host), d.one(LONG))


def _blocked(d: Drawing) -> Faults:
    host = d.host()
    peer = d.peer(host)
    block = Block(block=peer, to=host, one_way=d.one((True, False)))
    return lasting(block, Unblock(unblock=peer, to=host), d.one(SECONDS))


def _coordinator_cut(d: Drawing) -> Faults:
    cut = Coordinator(coordinator="cut_off", bmcs=d.one((True, False)))
    return lasting(cut, Coordinator(coordinator="reconnect"), d.one(SECONDS))


def _slow(d: Drawing) -> Faults:
    return lasting(
        SlowNetwork(slow_network=d.one((10, 100, 500))), SlowNetwork(slow_network=1), d.one(SECONDS)
    )


def _unmasked(d: Drawing) -> Faults:
    yield Then(Hibernation(hibernation="allowed", on=(d.host(),)))


def _hibernates(d: Drawing) -> Faults:
    host = (d.host(),)
    return lasting(Hibernate(hibernate=host), PowerOn(power_on=host), d.one((0.0, *LONG)))


# ---- on hosts


def _agent_down(d: Drawing) -> Faults:
    host, seconds = (d.host(),), d.one(LONG)
    stop: list[Verb] = [KillAgent(kill_agent=host), StopAgent(stop_agent=host)]
    if d.rng.random() < 1 / 3:
        yield Then(LoseAgentState(lose_agent_state=host, down_for=seconds))
    else:
        yield from lasting(d.one(stop), StartAgent(start_agent=host), seconds)


def _agent_frozen(d: Drawing) -> Faults:
    yield Then(FreezeAgent(freeze_agent=(d.host(),), for_=d.one(SECONDS)))


def _session_broken(d: Drawing) -> Faults:
    yield Then(BreakSession(break_session=(d.host(),)))


def _libvirtd(d: Drawing) -> Faults:
    host = (d.host(),)
    how: Literal["down", "hung", "slow"] = d.one(("down", "hung", "slow"))
    by = d.rng.randint(1, 16) / 2 if how == "slow" else 0.0
    return lasting(Libvirtd(libvirtd=how, on=host, by=by), Libvirtd(libvirtd="up", on=host), d.one(SECONDS))


def _hardware_fails(d: Drawing) -> Faults:
    host, part = (d.host(),), d.one(("ecc:mc0", "kernel"))
    begins, ends = (
        Hardware(hardware="fails", on=host, part=part),
        Hardware(hardware="works", on=host, part=part),
    )
    return lasting(begins, ends, d.one(SECONDS))


def _hook_broken(d: Drawing) -> Faults:
    host = (d.host(),)
    return lasting(Hook(hook="broken", on=host), Hook(hook="mended", on=host), d.one(SECONDS))


def _starts(d: Drawing) -> Faults:
    how: StartFault = d.one(("fail", "die", "slow", "hang", "lost"))
    yield Then(StartsFail(starts_fail=(ALL,), on=(d.host(),), how=how, times=1))


def _stops(d: Drawing) -> Faults:
    yield Then(StopsFail(stops_fail=(ALL,), on=(d.host(),), how=d.one(("deaf", "hang")), times=1))


# ---- fence devices


def _device(*how: Behaviour) -> Callable[[Drawing], Faults]:
    def draw(d: Drawing) -> Faults:
        host, which = d.device()
        yield Then(Fence(fence=d.one(how), of=(host,), devices=which))

    return draw


def _swapped(d: Drawing) -> Faults:
    host, which = d.device()
    swap = SwapCables(swap_cables=host, with_=d.host(), device=which)
    return lasting(swap, SwapCables(swap_cables=host, with_=host, device=which), d.one((0.0, *LONG)))


def _replaced(d: Drawing) -> Faults:
    host, which = d.device()
    yield Then(ReplaceDevice(replace_device=host, device=which))


def _fenced_through(d: Drawing) -> Faults:
    """A host falls silent whose fencing hangs on one device, the others being dead: and it may be another machine's."""
    (host, which), other, seconds = d.device(), d.host(), d.one((10.0, 20.0, 45.0))
    if d.one((True, False)):
        swap = SwapCables(swap_cables=host, with_=other, device=which)
        yield from lasting(swap, SwapCables(swap_cables=host, with_=host, device=which), seconds)
    for each in d.devices(host):
        if each != which:
            dead = Fence(fence="fails", of=(host,), devices=each)
            yield from lasting(dead, Fence(fence="works", of=(host,), devices=each), seconds)
    yield from lasting(Cut(cut=(host,)), Mend(mend=(host,)), seconds)


def _fenced_by_hand(d: Drawing) -> Faults:
    """A person's wish, for a host whose device only says that it obeys."""
    host, which = d.device()
    yield Then(Fence(fence=d.one(("deaf", "says_off")), of=(host,), devices=which))
    yield Then(FenceHost(fence_host=host, reason="it acts up", answer="any"))


# ---- messages


def _message(*kinds: str) -> Callable[[Drawing], Faults]:
    """The next of that kind, to, from or about a host: lost, late and out of order, or twice."""

    def draw(d: Drawing) -> Faults:
        kind, times = d.one(kinds), d.rng.randint(1, 4)
        ways: tuple[Fate, ...] = ("lost",)
        if kind in MAY_BE_LATE:
            ways = ("lost", "late") if kind in ABOUT else ("lost", "late", "repeated")
        how = d.one(ways)
        by = 0.0 if how == "lost" else d.one((0.02, 0.5, 2.0, 25.0, 40.0))
        yield Then(Messages(messages=how, kind=kind, of=(d.host(),), by=by, times=times))

    return draw


COMMANDS = ("start", "question", "list", "command", "answer")
OTHERS = ("welcome", "hello", "report", "ack", "beat", *ABOUT)
MAY_BE_LATE = (*COMMANDS, "power reading", "fence result")


# ---- the coordinator and its store


def _coordinator_crash(d: Drawing) -> Faults:
    yield Then(Coordinator(coordinator="crash", for_=d.one((0.3, 1.0, 5.0))))


def _crash_in_act(d: Drawing) -> Faults:
    """Between a commit and its effects, before an effect, after one: one that is soon to come."""
    point: dict[str, Any] = {d.one(("after_commit", "before_effect", "after_effect")): d.rng.randint(1, 8)}
    yield Then(Coordinator(coordinator="crash", for_=d.one((1.0, 10.0)), **point))


def _coordinator_frozen(d: Drawing) -> Faults:
    yield Then(Coordinator(coordinator="freeze", for_=d.one(SECONDS)))


def _second(d: Drawing) -> Faults:
    yield Then(Coordinator(coordinator="replace", for_=d.one(LONG)), only=UP)


def _store(d: Drawing) -> Faults:
    how: Literal["fails", "slow"] = d.one(("fails", "slow"))
    by = d.rng.randint(1, 8) / 4 if how == "slow" else 0.0
    return lasting(Store(store=how, by=by), Store(store="works"), d.one(SECONDS))


def _backup(d: Drawing) -> Faults:
    name = f"b{len(d.backups)}"
    d.backups.append(name)
    yield Then(Backup(backup=name))


def _restored(d: Drawing) -> Faults:
    """An older copy is put back: without a word, by command, or so that who knows least is heard first."""
    name, how = d.one(d.backups), d.one(("as it is", "by command", "who knows least first"))
    if how == "who knows least first":
        ignorant, seconds = d.host(), d.one((5.0, 10.0, 20.0))
        others = tuple(host for host in d.hosts if host != ignorant)
        cut = Cut(cut=others, networks=("management",))
        yield Then(LoseAgentState(lose_agent_state=(ignorant,), down_for=0.5), only=UP)
        yield Then(cut, only=UP)
        yield Then(Mend(mend=others), seconds)
    yield Then(Restore(restore=name, for_=0.3, by_command=how == "by command"), only=UP)


def _cloned(d: Drawing) -> Faults:
    """The store is copied to another machine: refused there as it is; by command, once the old one is off."""
    yield Then(CloneStore(clone_store=d.one(("as_it_is", "by_command"))), only=UP)


# ---- guests


def _guest_ends(d: Drawing) -> Faults:
    guest = (d.guest(),)
    ends: list[Verb] = [
        *[CrashGuest(crash_guest=guest)] * 3,
        OwnerShutsDown(owner_shuts_down=guest),
        VirshDestroy(virsh_destroy=guest),
    ]
    yield Then(d.one(ends))


def _virsh(d: Drawing) -> Faults:
    """By hand, of a guest that the hook guards: what nobody protects, nobody keeps from running twice."""
    host, guest = d.host(), (d.guest(),)
    hands: list[Verb] = [
        *[VirshStart(virsh_start=guest, on=host)] * 2,
        VirshDefine(virsh_define=guest, on=host),
        VirshUndefine(virsh_undefine=guest, on=host),
    ]
    yield Then(d.one(hands), only=GuestIs(guest=guest, guarded_on=(host,)))


def _virsh_moves(d: Drawing) -> Faults:
    """What nobody should do with a protected guest: the hook refuses the one, agents undo the other."""
    host, guest = d.host(), (d.guest(),)
    if d.rng.random() < 1 / 3:
        yield Then(VirshResume(virsh_resume=guest, on=host))
    else:
        elsewhere = GuestIs(guest=guest, guarded_on=(host,), not_on=(host,))
        yield Then(VirshMigrate(virsh_migrate=guest, to=host), only=elsewhere)


def _edited(d: Drawing) -> Faults:
    yield Then(VirshEdit(virsh_edit=(d.guest(),)))


def _autostart(d: Drawing) -> Faults:
    yield Then(Autostart(autostart=(ALL,)))


def _migration(d: Drawing) -> Faults:
    """The next one from a host goes wrong; or its migration network is down for a while."""
    host, how = (d.host(),), d.one((*migration.FAULTS, "network", "network"))
    if how == "network":
        cut = Cut(cut=host, networks=("migration",))
        yield from lasting(cut, Mend(mend=host, networks=("migration",)), d.one(SECONDS))
    else:
        yield Then(MigrationsFail(migrations_fail=(ALL,), on=host, how=how, times=1))


KINDS: dict[str, Kind] = {
    **faults_people.KINDS,
    "power off": Kind(6, _power_off),
    "reset": Kind(4, _reset),
    "frozen": Kind(5, _frozen(*SECONDS), never=("liars",)),
    "frozen for a moment": Kind(4, _frozen(0.3, 1.0, 2.0), only="liars"),
    "cut off": Kind(6, _cut, never=("liars",)),
    "cut off in part": Kind(6, _cut_in_part),
    "blocked": Kind(3, _blocked, never=("liars",)),
    "coordinator cut off": Kind(3, _coordinator_cut),
    "slow network": Kind(2, _slow),
    "hibernation unmasked": Kind(1, _unmasked),
    "hibernates": Kind(4, _hibernates),
    "agent down": Kind(9, _agent_down),
    "agent frozen": Kind(3, _agent_frozen),
    "session broken": Kind(4, _session_broken),
    "libvirtd": Kind(4, _libvirtd),
    "hook broken": Kind(2, _hook_broken),
    "hardware fails": Kind(2, _hardware_fails),
    "start fails": Kind(5, _starts),
    "stop fails": Kind(2, _stops),
    "device": Kind(4, _device("works", "fails", "hangs")),
    "device swapped": Kind(3, _swapped),
    "device replaced": Kind(1, _replaced),
    "fenced through": Kind(4, _fenced_through, never=("liars",)),
    "device lies": Kind(6, _device("deaf", "says_off", "works"), only="liars"),
    "fenced by hand": Kind(6, _fenced_by_hand, only="liars"),
    "command or answer": Kind(8, _message(*COMMANDS)),
    "other message": Kind(6, _message(*OTHERS)),
    "coordinator crashes": Kind(5, _coordinator_crash),
    "coordinator crashes in mid-act": Kind(5, _crash_in_act),
    "coordinator frozen": Kind(3, _coordinator_frozen),
    "second coordinator": Kind(3, _second),
    "store": Kind(3, _store),
    "store cloned": Kind(1, _cloned),
    "backup": Kind(4, _backup, only="restores"),
    "store restored": Kind(4, _restored, only="restores"),
    "guest ends": Kind(5, _guest_ends),
    "virsh": Kind(4, _virsh),
    "virsh migrate or resume": Kind(2, _virsh_moves),
    "definition edited": Kind(1, _edited),
    "autostart": Kind(1, _autostart),
    "migration goes wrong": Kind(6, _migration),
}
