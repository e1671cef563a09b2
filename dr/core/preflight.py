"""Pre-flight: everything that is looked at before a guest is moved live, each with a name, a verdict and what to do.

One list for the dry run, the forecast of a drain and the move itself, which begins only if nothing on it `refuses`.
Made from what agents report anyway: nobody is asked, so a drain of hundreds of guests is foretold at once. Here: the
checks of one guest and one destination, and which destination that is. Not here: guests that move together, bounds on
moves at once, the beginning of a move (`core.moves`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dr.core import cpus, disks, links, onecopy, placement, quorum, whereabouts
from dr.core.fleet import UNFIT
from dr.core.state import Draft
from dr.model.base import HostName
from dr.model.facts import IMAGES_ONLY, DomainState, GuestFacts, Level, LocalDisk, Part, Tie, TieKind
from dr.model.preflight import Check, CheckName, Verdict
from dr.model.records import Condition, GuestPhase, GuestRecord, HostPhase, HostRecord

NO_LIVE = (
    "its agent cannot migrate guests live (dr guest relocate stops a guest and starts it elsewhere);"
    " migration_uri in its /etc/dr/agent.yaml lets it"
)
NAMED_MAX = 6  # hosts that a sentence names; the others are counted

# What is said where nothing was found, in the order in which it is told.
AT_SOURCE = {
    CheckName.STATE: "{guest} runs on {source} alone, and no move of it is under way",
    CheckName.IO_ERROR: "no I/O error stopped it",
    CheckName.AUTOMATION: "nothing holds its move up",
    CheckName.STORE: "the store is known to be the newest",
    CheckName.DEFINITION: "nothing in its definition ties it to {source}",
    CheckName.SNAPSHOTS: "it has no snapshots",
    CheckName.BLOCK_JOBS: "no block job of its disks is under way",
    CheckName.BACKUP: "no backup of it is under way",
    CheckName.HOST_DEVICES: "it uses no device of {source}",
    CheckName.VTPM: "it has no TPM whose state would stay behind",
    CheckName.FILE_SYSTEMS: "no folder of {source} is passed into it",
    CheckName.SECRETS: "its disks need no secret of {source}",
    CheckName.ENCRYPTION: "its memory is not encrypted for one processor",
    CheckName.SOURCE: "{source} can send guests live",
}
AT_DESTINATION = {
    CheckName.DESTINATION: "{to} takes guests, also live ones",
    CheckName.RULES: "no strict rule forbids it",
    CheckName.ROOM: "{to} has room for it",
    CheckName.MACHINE: "{to} can emulate its machine",
    CheckName.CPU: "{to} has the CPU that it runs with",
    CheckName.HUGE_PAGES: "{to} has the huge pages that it needs, if any",
    CheckName.NETWORKS: "{to} has all of its networks",
    CheckName.STORAGE: "{to} sees all of its shared storage",
    CheckName.DISKS: "no disk of it has to be copied",
    CheckName.NAME: "nothing of its name or UUID is in its way on {to}",
    CheckName.HEALTH: "{to} reports itself well",
    CheckName.CLOCK: "the clocks of both hosts are right",
}
FIXES = {  # of what placement finds
    CheckName.RULES: "another host, or another rule in the coordinator's file",
    CheckName.ROOM: "free room on {to}, or another host",
    CheckName.MACHINE: "the same QEMU on {to}, or another host",
    CheckName.CPU: "another host, or a CPU model in its definition that both hosts have",
    CheckName.HUGE_PAGES: "more huge pages on {to}, or another host",
    CheckName.NETWORKS: "bring that network up on {to}, or another host",
    CheckName.STORAGE: "connect that storage on {to}: dr host show {to}",
    CheckName.DISKS: "another host; dr guest migrate and relocate move a guest with its disks",
}


class Tied(NamedTuple):
    """What one kind of tie means; `{what}` of a device is a sentence with a remedy of its own."""

    check: CheckName
    text: str
    fix: str


TIED = {
    TieKind.SNAPSHOT: Tied(
        CheckName.SNAPSHOTS,
        "{guest} has snapshots that only {source} knows of, and libvirt does not move it with them",
        "virsh snapshot-list {guest}, then virsh snapshot-delete {guest} NAME, on {source}",
    ),
    TieKind.BLOCK_JOB: Tied(
        CheckName.BLOCK_JOBS,
        "a block job of disk {what} of {guest} is under way on {source}",
        "wait until it has ended, or: virsh blockjob {guest} {what} --abort, on {source}",
    ),
    TieKind.BACKUP: Tied(
        CheckName.BACKUP,
        "a backup of {guest} is under way on {source}",
        "wait until it has ended, or: virsh domjobabort {guest}, on {source}",
    ),
    TieKind.HOST_DEVICE: Tied(CheckName.HOST_DEVICES, "{guest} as it runs now: {what}", ""),
    TieKind.VTPM: Tied(CheckName.VTPM, "{guest} as it runs now: {what}", ""),
    TieKind.FILE_SYSTEM: Tied(CheckName.FILE_SYSTEMS, "{guest} as it runs now: {what}", ""),
    TieKind.SECRET: Tied(CheckName.SECRETS, "{guest} as it runs now: {what}", ""),
    TieKind.ENCRYPTION: Tied(CheckName.ENCRYPTION, "{guest} as it runs now: {what}", ""),
}


class Preflight(NamedTuple):
    """All checks of one move, and where it would go; "" = no host takes it."""

    to: HostName
    checks: tuple[Check, ...]

    @property
    def refusals(self) -> list[str]:
        """What stands against it: empty, and it may begin."""
        return refusals(self.checks)


UNTOLD = "{source} cannot tell it of the guest as it runs now; libvirt there looks before it sends it"


def of(
    draft: Draft,
    guest: GuestRecord,
    to: HostName = "",
    *,
    asked: bool = False,
    along: tuple[GuestRecord, ...] = (),
) -> Preflight:
    """Every check of a live move to that host (""; wherever it fits best) if it began now.

    `asked`: a person wants it, so a pause of automation does not hold it up. `along`: guests that move there with it.
    Where no host takes it, the sentence of `destination` has each host's reasons, and nothing else is said of one.
    """
    source = whereabouts.sole_holder(draft, guest)
    found = [*_of_guest(draft, guest, source), *_of_cluster(draft, asked=asked)]
    if source:
        found += _of_source(draft, guest, source)
    named = {"guest": guest.name, "source": source or guest.holder or "its host"}
    expected = AT_SOURCE if source else {CheckName.AUTOMATION: AT_SOURCE[CheckName.AUTOMATION]}
    if not to and source:
        place = elsewhere(draft, guest, {source}, along)
        to = place.host
        if not to:
            found += _nowhere(draft, guest, source, place, along)
    if to:
        found += against(draft, guest, to, source, along, with_disks=True)
        host = draft.host(to)
        if host is not None and to != source:
            found += _of_destination(draft, guest, host)
            expected = expected | AT_DESTINATION
    return _told(to, found, expected, named | {"to": to})


def _told(
    to: HostName, found: list[Check], expected: dict[CheckName, str], named: dict[str, str]
) -> Preflight:
    """With a sentence for each check that found nothing, in the order in which they are told."""
    found += [
        Check(name=name, verdict=Verdict.OK, text=text.format(**named))
        for name, text in expected.items()
        if all(each.name is not name for each in found)
    ]
    order = list(CheckName)
    return Preflight(to, tuple(sorted(dict.fromkeys(found), key=lambda check: order.index(check.name))))


def refusals(found: Iterable[Check]) -> list[str]:
    """The sentences of those that stand against it, each once."""
    return list(dict.fromkeys(check.text for check in found if check.refuses))


# ---- by stop and start

COLD_AT_SOURCE = {
    CheckName.STATE: "{guest} is on {source} alone, and no move of it is under way",
    CheckName.STORE: AT_SOURCE[CheckName.STORE],
    CheckName.DEFINITION: AT_SOURCE[CheckName.DEFINITION],
}
COLD_AT_DESTINATION = {
    CheckName.DESTINATION: "{to} takes guests",
    CheckName.RULES: AT_DESTINATION[CheckName.RULES],
    CheckName.ROOM: AT_DESTINATION[CheckName.ROOM],
    CheckName.MACHINE: AT_DESTINATION[CheckName.MACHINE],
    CheckName.HUGE_PAGES: AT_DESTINATION[CheckName.HUGE_PAGES],
    CheckName.NETWORKS: AT_DESTINATION[CheckName.NETWORKS],
    CheckName.STORAGE: AT_DESTINATION[CheckName.STORAGE],
    CheckName.DISKS: AT_DESTINATION[CheckName.DISKS],
    CheckName.NAME: AT_DESTINATION[CheckName.NAME],
}
NO_COPIES = "the agent of {to} takes no disks of guests that are off: upgrade it"


def cold(draft: Draft, guest: GuestRecord, to: HostName = "") -> Preflight:
    """Every check of stopping it where it is and starting it on that host (""; wherever it fits best).

    Disks that only its host has are copied meanwhile; with such disks a guest that is off can be moved too.
    """
    off = guest.phase is GuestPhase.STOPPED
    source = guest.disks_on if off else whereabouts.sole_holder(draft, guest)
    found = [
        *(_of_off(guest) if off else not_from_here(draft, guest, source)),
        *_of_cluster(draft, asked=True),
    ]
    if source and not off:
        host = draft.require_host(source)
        found += [_blocked(CheckName.STATE, text) for text in onecopy.why_not_stop(draft, guest, host)]
    if not to and source:
        place = _cold_place(draft, guest, source)
        to = place.host
        if not to:
            found.append(
                _blocked(CheckName.DESTINATION, f"{guest.name} fits nowhere else: {place.sentence()}")
            )
    if to:
        found += _cold_against(draft, guest, to, source)
    if off and to and source and not any(check.refuses for check in found):
        why = onecopy.why_not_copy(draft, guest, draft.require_host(source), draft.require_host(to))
        found += [_blocked(CheckName.STATE, text) for text in why]
    named = {"guest": guest.name, "source": source or guest.holder or "its host", "to": to}
    return _told(to, found, COLD_AT_SOURCE | (COLD_AT_DESTINATION if to and to != source else {}), named)


def _of_off(guest: GuestRecord) -> Iterator[Check]:
    if not guest.needs.local:
        start = f"dr guest start {guest.name}"
        text = f"{guest.name} is stopped, and no host has more of it than another: {start}"
        yield _blocked(CheckName.STATE, text, start)
    elif not guest.disks_on:
        todo = disks.todo(guest)
        text = f"which host has the newest disks of {guest.name} is not known: {todo}"
        yield _blocked(CheckName.DISKS, text, todo)
    for blocker in guest.tied:
        yield _blocked(CheckName.DEFINITION, f"{guest.name} could not run elsewhere: {blocker}")


def _cold_place(draft: Draft, guest: GuestRecord, source: HostName) -> placement.Placement:
    if guest.needs.local:
        return where_disks_go(draft, guest, source)
    return placement.choose(draft, guest, without={source})


def where_disks_go(draft: Draft, guest: GuestRecord, source: HostName) -> placement.Placement:
    """The host that its disks would be copied to while it is off."""
    without = {source}
    for host in draft.hosts():
        if not host.facts.copy_port or any(check.refuses for check in _name(draft, guest, host.name)):
            without.add(host.name)
    return placement.choose(draft, guest, without=without, with_disks=True)


def _cold_against(draft: Draft, guest: GuestRecord, to: HostName, source: HostName) -> Iterator[Check]:
    local = bool(guest.needs.local)
    yield from against(draft, guest, to, source, with_disks=local)
    host = draft.host(to)
    if host is None or to == source or not local:
        return
    if not host.facts.copy_port:
        yield _blocked(CheckName.DISKS, NO_COPIES.format(to=to), f"a newer dr-agent on {to}")
    yield from _name(draft, guest, to)  # where it could not be started its newest disks would lie
    for disk in guest.needs.local:
        yield _copied(disk, to)


# ---- the guest, where it is


def _of_guest(draft: Draft, guest: GuestRecord, source: HostName) -> Iterator[Check]:
    yield from not_from_here(draft, guest, source)
    if source:
        yield from _standing(guest, draft.view(source).guests[guest.id], source)


def keeps_it(draft: Draft, guest: GuestRecord) -> list[Check]:
    """What stands against moving it live anywhere, as it runs now; without its definition, which keeps it for good."""
    source = whereabouts.sole_holder(draft, guest)
    found = _of_guest(draft, guest, source)
    return [c for c in found if c.verdict is Verdict.BLOCKED and c.name is not CheckName.DEFINITION]


def not_from_here(draft: Draft, guest: GuestRecord, source: HostName) -> Iterator[Check]:
    """What stands against taking it away from where it is, live or not."""
    look = f"see what it waits for: dr guest show {guest.name}"
    if guest.move is not None and guest.phase is not GuestPhase.MIGRATING:
        yield _blocked(CheckName.STATE, f"{guest.name} is on its way already ({guest.move.stage})", look)
    if guest.phase is not GuestPhase.RUNNING:
        yield _blocked(CheckName.STATE, f"{guest.name} is {guest.phase}: {guest.reason}", look)
    for blocker in guest.tied:
        yield _blocked(CheckName.DEFINITION, f"{guest.name} could not run elsewhere: {blocker}")
    if not source and guest.phase is GuestPhase.RUNNING:
        text = f"{guest.name} is not seen on {guest.holder} alone now: {guest.reason}"
        yield Check(name=CheckName.STATE, verdict=Verdict.UNKNOWN, text=text, fix=look)


def _standing(guest: GuestRecord, facts: GuestFacts, source: HostName) -> Iterator[Check]:
    """What its libvirt says of it."""
    resume = f"virsh resume {guest.name}, on {source}"
    if not facts.runs and facts.reason == "ioerror":
        text = (
            f"an I/O error of its disk stopped {guest.name} on {source}: only a guest that runs is moved live"
        )
        yield _blocked(CheckName.IO_ERROR, text, f"mend its storage, then: {resume}")
    elif facts.suspended:
        text = f"{guest.name} was suspended by hand on {source}: it moves as it is, and stays suspended"
        yield Check(name=CheckName.STATE, verdict=Verdict.OK, text=text)
    elif not facts.runs:
        text = f"{guest.name} is {facts.state} on {source}: only a guest that runs is moved live"
        wake = f"virsh dompmwakeup {guest.name}, on {source}"
        yield _blocked(CheckName.STATE, text, wake if facts.state is DomainState.PMSUSPENDED else resume)
    if facts.part is not Part.NONE:
        text = f"{guest.name} is {facts.part} on {source}: a migration of it is under way there"
        yield _blocked(
            CheckName.STATE, text, f"wait until it has ended: virsh domjobinfo {guest.name}, on {source}"
        )
    if facts.ties is None:
        for tied in TIED.values():
            yield Check(name=tied.check, verdict=Verdict.UNKNOWN, text=UNTOLD.format(source=source))
    for tie in facts.ties or ():
        yield _tied(guest, source, tie)


def _tied(guest: GuestRecord, source: HostName, tie: Tie) -> Check:
    meaning = TIED[tie.kind]
    what, _, remedy = (tie.what, "", "") if meaning.fix else tie.what.partition(": ")
    named = {"guest": guest.name, "source": source, "what": what}
    return _blocked(meaning.check, meaning.text.format(**named), meaning.fix.format(**named) or remedy)


def _of_cluster(draft: Draft, *, asked: bool) -> Iterator[Check]:
    if draft.cluster.pause is not None and not asked:
        text = f"automation is paused ({draft.cluster.pause.reason})"
        yield _blocked(CheckName.AUTOMATION, text, "dr resume")
    if reason := quorum.hold(draft):
        fix = "dr resume" if draft.cluster.restored else "dr doctor"
        yield Check(name=CheckName.STORE, verdict=Verdict.UNKNOWN, text=reason, fix=fix)


def _of_source(draft: Draft, guest: GuestRecord, source: HostName) -> Iterator[Check]:
    host = draft.require_host(source)
    if not host.facts.live_migration:
        yield _blocked(CheckName.SOURCE, f"{source}: {NO_LIVE}", live_fix(host))
    yield from _clock(host)


# ---- where to


def elsewhere(
    draft: Draft, guest: GuestRecord, without: set[HostName], along: tuple[GuestRecord, ...] = ()
) -> placement.Placement:
    """The host that it would move to: among those that take live guests, have its CPU and nothing of its name.

    Of those that rules like equally, one whose link has it there soon; one that did not take it lately, or whose CPU is
    not sure to do, comes last.
    """
    cpu = [cpus.unfit(draft, each) for each in (guest, *along)]
    without = without.union(not_live(draft), *(refusing for refusing, _ in cpu))
    soon = links.arrivals(draft, guest, along)
    wary = links.wary(draft, guest).union(*(doubtful for _, doubtful in cpu))
    while (
        found := placement.choose(
            draft, guest, without=without, wary=wary, along=along, soon=soon, with_disks=True
        )
    ).host:
        if not any(check.refuses for check in _name(draft, guest, found.host)):
            break
        without = without | {found.host}
    return found


def not_live(draft: Draft) -> set[HostName]:
    return {host.name for host in draft.hosts() if not host.facts.live_migration}


def _nowhere(
    draft: Draft,
    guest: GuestRecord,
    source: HostName,
    place: placement.Placement,
    along: tuple[GuestRecord, ...],
) -> Iterator[Check]:
    """Why no host takes it: those that were asked for a place, and those that were not."""
    yield _blocked(CheckName.DESTINATION, f"{guest.name} fits nowhere else: {place.sentence()}")
    names = sorted(not_live(draft) - {source})
    if names:
        more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        first = ", ".join(names[:NAMED_MAX])
        text = f"{first}{more}: not live, without migration_uri in /etc/dr/agent.yaml there"
        yield _blocked(CheckName.DESTINATION, text)
    for host in draft.hosts():
        if host.name != source and host.facts.live_migration:
            yield from (check for check in _name(draft, guest, host.name) if check.refuses)
    yield from _without_its_cpu(draft, (guest, *along))


def _without_its_cpu(draft: Draft, guests: tuple[GuestRecord, ...]) -> Iterator[Check]:
    """Hosts that were not asked for a place, as one of those that go together could not run on there."""
    for guest in guests:
        hosts = [draft.require_host(name) for name in sorted(cpus.unfit(draft, guest)[0] - not_live(draft))]
        for host in hosts[:NAMED_MAX]:
            if (found := cpus.check(draft, guest, host)) is not None:
                yield found
        if len(hosts) > NAMED_MAX:
            text = (
                f"{len(hosts) - NAMED_MAX} more hosts do not have the CPU that {guest.name} runs with either"
            )
            yield _blocked(CheckName.CPU, text)


def against(
    draft: Draft,
    guest: GuestRecord,
    to: HostName,
    source: HostName,
    along: tuple[GuestRecord, ...] = (),
    *,
    with_disks: bool = False,
) -> Iterator[Check]:
    """What stands against running it on that very host; `with_disks`: those that only its host has are sent there."""
    host = draft.host(to)
    if host is None:
        yield _blocked(CheckName.DESTINATION, f"no such host: {to}", "dr host list")
        return
    if to == source:
        off = guest.phase is GuestPhase.STOPPED
        text = (
            f"the disks of {guest.name} are on {to} already" if off else f"{guest.name} runs on {to} already"
        )
        yield _blocked(CheckName.DESTINATION, text)
        return
    for reason in placement.against(draft, guest, host, along=along, with_disks=with_disks):
        fix = FIXES.get(reason.check, back_into_play(host)).format(to=to)
        yield _blocked(reason.check, f"{to} {reason.text}", fix)


def _of_destination(draft: Draft, guest: GuestRecord, host: HostRecord) -> Iterator[Check]:
    if not host.facts.live_migration:
        yield _blocked(CheckName.DESTINATION, f"{host.name}: {NO_LIVE}", live_fix(host))
    if (found := cpus.check(draft, guest, host)) is not None:
        yield found
    yield from _name(draft, guest, host.name)
    for disk in guest.needs.local:
        yield _copied(disk, host.name)
    for reading in host.health:
        stopping = reading.part in UNFIT and reading.level is Level.CRITICAL  # placement's to say
        if reading.level is not Level.OK and reading.part != "clock" and not stopping:
            text = f"{host.name} reports {reading.part} as {reading.level}: {reading.reason}"
            fix = f"dr host show {host.name}"
            yield Check(name=CheckName.HEALTH, verdict=Verdict.WARNING, text=text, fix=fix)
    yield from _clock(host)


def _copied(disk: LocalDisk, to: HostName) -> Check:
    text = f"disk {disk.target} ({disk.used_b / 2**20:.0f} MiB in {disk.path}) is copied to {to}"
    if disk.bases:
        text += f"; what it lies on is not, and must be there: {', '.join(base.path for base in disk.bases)}"
    return Check(name=CheckName.DISKS, verdict=Verdict.OK, text=text)


def _clock(host: HostRecord) -> Iterator[Check]:
    """A guest takes its time from its host when it is resumed."""
    for reading in host.health:
        if reading.part == "clock" and reading.level is not Level.OK:
            text = f"the clock of {host.name}: {reading.reason}"
            fix = f"chronyc tracking, on {host.name}"
            yield Check(name=CheckName.CLOCK, verdict=Verdict.WARNING, text=text, fix=fix)


def _name(draft: Draft, guest: GuestRecord, to: HostName) -> Iterator[Check]:
    """libvirt lets no guest in whose name another has, nor one that is active there.

    Images that were made for its disks stay for the next try while it is off, and are cleaned up once it runs.
    """
    view, runs = draft.view(to), guest.phase is GuestPhase.RUNNING
    if not view.inventory:
        text = f"what is defined on {to} is not known now; libvirt there looks before it lets a guest in"
        yield Check(name=CheckName.NAME, verdict=Verdict.UNKNOWN, text=text)
    for facts in view.guests.values():
        if facts.id == guest.id and facts.active:
            text = f"{to} has {guest.name} active already: {facts.state} {facts.reason}".rstrip()
            yield _blocked(CheckName.NAME, text, f"dr guest show {guest.name}")
        elif facts.id == guest.id and guest.needs.local and (runs or facts.reason != IMAGES_ONLY):
            text = f"{to} has not parted with what an earlier stay of {guest.name} left there"
            when = f"when {guest.name} runs elsewhere: dr guest start {guest.name}"
            when = f"in a moment: dr host show {to}" if runs else when
            yield _blocked(CheckName.NAME, text, f"it is cleaned up {when}")
        elif facts.name == guest.name and facts.id != guest.id:
            text = f"{to} has another guest that is named {facts.name}, with the UUID {facts.id}"
            yield _blocked(CheckName.NAME, text, f"virsh domrename {facts.id} NAME, on {to}")


def back_into_play(host: HostRecord) -> str:
    """What brings that host back into play; "" where it is in play already, and something else stands against it."""
    if host.drain is not None:
        return f"dr host undrain {host.name}"
    if host.cordon is not None:
        return f"dr host uncordon {host.name}"
    if Condition.QUARANTINED in host.conditions:
        return f"dr host clear-quarantine {host.name}"
    if host.phase is not HostPhase.ONLINE:
        return f"bring {host.name} back: dr host show {host.name}"
    return ""


def live_fix(host: HostRecord) -> str:
    return f"migration_uri in /etc/dr/agent.yaml of {host.name}"


def _blocked(name: CheckName, text: str, fix: str = "") -> Check:
    return Check(name=name, verdict=Verdict.BLOCKED, text=text, fix=fix)
