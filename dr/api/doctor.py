"""What would break a failover, and the fix: one function per finding, over a snapshot.

Pure; runs in a thread. Not here: what only the asking side can see (coordinator unreachable, its own clock and
certificate): `dr.cli.doctor`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dr import __version__
from dr.api import standing
from dr.api.schema import Finding, Findings
from dr.api.snapshot import Snapshot
from dr.core import dirtying, failback, forecast, links, preflight
from dr.core import spare as core_spare
from dr.core.rules import LABEL, label_of
from dr.core.state import Draft
from dr.core.wishes import why_not_placed
from dr.model.facts import Level
from dr.model.policy import HostRule
from dr.model.records import Condition, GuestPhase, HostPhase, Rung

CERTIFICATE_DAYS = 30.0
# Of systemd: all ways to sleep. The last three are the ones from which a host wakes up with its old guests.
SLEEP = (
    "sleep.target",
    "suspend.target",
    "hibernate.target",
    "hybrid-sleep.target",
    "suspend-then-hibernate.target",
)
AWAY_MAX = 20  # guests away from home, or that cannot be moved live, that are told of
DRAIN_LONG_S = 1800.0
ASKED_NOW_MAX = 20  # hosts; for more the answer of `core.spare` is told, which is kept current


@dataclass(frozen=True)
class Site:
    """What is known of the coordinator's own machine."""

    sinks: int = 1
    certificates: dict[str, float] = field(default_factory=dict)  # whose -> days left


Check = Callable[[Snapshot, Site], Iterator[Finding]]


def examine(snap: Snapshot, site: Site) -> Findings:
    """All findings, the worst first."""
    order = {"critical": 0, "warning": 1, "info": 2, "ok": 3}
    found = [finding for check in CHECKS for finding in check(snap, site)]
    found.sort(key=lambda finding: (order[finding.level], finding.check, finding.subject))
    return Findings(items=found, checked=[_name(check) for check in CHECKS])


def _name(check: Check) -> str:
    return check.__name__.replace("_", "-")


def automation(snap: Snapshot, _: Site) -> Iterator[Finding]:
    cluster = snap.state.cluster
    if cluster.restored:
        yield Finding(
            level="critical",
            check="automation",
            what="The coordinator holds: its store is a restored copy.",
            why=cluster.restored,
            fix="look over `dr status` and `dr guest list`, then: dr resume --reason '...'",
        )
    if cluster.pause is not None:
        yield Finding(
            level="critical",
            check="automation",
            what=f"Automation is paused by {cluster.pause.by}.",
            why=f"{cluster.pause.reason}; nothing is fenced or restarted by itself",
            fix="dr resume --reason '...'",
        )
    if not snap.state.settings.auto_fence:
        yield Finding(
            level="critical",
            check="automation",
            what="Automatic fencing is off in the configuration.",
            why="a failed host's guests wait for a person",
            fix="set auto_fence: true, then: systemctl reload dr-coordinator",
        )


def hosts(snap: Snapshot, _: Site) -> Iterator[Finding]:
    """Every host online, connected and healthy."""
    if not snap.state.hosts:
        yield Finding(
            level="critical",
            check="hosts",
            what="No host has joined.",
            fix="dr cluster token HOST, then on that host: dr agent join",
        )
    for name, host in snap.state.hosts.items():
        alone = "" if snap.view(name).session else ", its agent is not connected"
        if host.phase is HostPhase.JOINING and not snap.view(name).session:
            yield Finding(
                level="warning",
                check="hosts",
                subject=name,
                what=f"{name} was invited and has not joined.",
                why=host.reason,
                fix=f"dr cluster token {name}, then on {name}: dr agent join, systemctl start dr-agent",
            )
        elif host.phase is HostPhase.MAINTENANCE:
            continue
        elif host.phase not in (HostPhase.ONLINE, HostPhase.DRAINING) or not snap.view(name).session:
            yield Finding(
                level="critical",
                check="hosts",
                subject=name,
                what=f"{name} is {host.phase.value}{alone}.",
                why=host.reason,
                fix=f"dr host show {name}; on {name}: systemctl status dr-agent",
            )
        if host.cordon is not None:
            yield Finding(
                level="info",
                check="hosts",
                subject=name,
                what=f"{name} takes no guests: it {'; '.join(why_not_placed(host))}.",
                fix=f"when that is over: dr host uncordon {name}",
            )
        if Condition.QUARANTINED in host.conditions:
            yield Finding(
                level="warning",
                check="hosts",
                subject=name,
                what=f"{name} is quarantined and takes no guests.",
                why="it was fenced, or came back with a new boot, too often",
                fix=f"repair it, then: dr host clear-quarantine {name}",
            )


def health(snap: Snapshot, _: Site) -> Iterator[Finding]:
    """Readings that are not ok; a clock that is off is one of them."""
    for name, host in snap.state.hosts.items():
        for reading in host.health:
            if reading.level is Level.OK:
                continue
            clock = reading.part.startswith("clock")
            yield Finding(
                level="critical" if reading.level is Level.CRITICAL else "warning",
                check="clock" if clock else "health",
                subject=name,
                what=f"{name}: {reading.part} is {reading.level.value}.",
                why=reading.reason,
                fix=f"on {name}: chronyc tracking (is an NTP service running?)"
                if clock
                else f"dr host show {name}",
            )


def fencing(snap: Snapshot, _: Site) -> Iterator[Finding]:
    for name in snap.state.hosts:
        policy = snap.policy(name)
        if policy.coordinator_here:
            continue
        if not policy.fencing:
            yield Finding(
                level="critical",
                check="fencing",
                subject=name,
                what=f"{name} has no fencing.",
                why="when it fails nothing can prove it dead, so its guests stay down until a person confirms",
                fix=f"add hosts.{name}.fencing to the coordinator's configuration, then: dr fence test {name}",
            )
            continue
        devices = [device for level in policy.fencing for device in level.devices]
        for device in devices:
            if why := snap.devices.problem(device):
                yield Finding(
                    level="critical",
                    check="fencing",
                    subject=name,
                    what=f"Fence device {device.name} of {name} cannot be used from the coordinator.",
                    why=why,
                    fix="install or correct it, then: dr config check",
                )
        untested = [device.name for device in devices if snap.proven(name, device) is None]
        if untested:
            whole = standing.fencing_of(snap, name) == "proven"
            yield Finding(
                level="warning" if whole else "critical",
                check="fencing",
                subject=name,
                what=f"Fencing of {name} is not proven: {', '.join(untested)}.",
                why="only a test shows that a device switches this host, and not another",
                fix=f"when {name} is empty: dr fence test {name}",
            )


def hook(snap: Snapshot, _: Site) -> Iterator[Finding]:
    for name, host in snap.state.hosts.items():
        if not host.boot_id:
            continue  # invited, never seen
        if not host.facts.hook.proven:
            yield Finding(
                level="critical",
                check="hook",
                subject=name,
                what=f"The permit hook on {name} is not proven.",
                why=f"{host.facts.hook.reason or 'unknown'}; without it libvirt may start a guest a second time",
                fix=f"on {name}: systemctl restart dr-agent (it writes the hook), then systemctl restart libvirtd "
                "(it looks for hooks only when it starts; guests keep running)",
            )
        if not host.facts.hibernation_masked:
            yield Finding(
                level="critical",
                check="hook",
                subject=name,
                what=f"{name} may hibernate.",
                why="a host that wakes up goes on running guests that run elsewhere by then",
                fix=f"on {name}: systemctl mask {' '.join(SLEEP)}",
            )


def guests(snap: Snapshot, _: Site) -> Iterator[Finding]:
    """Protected guests that could not be recovered, or are not as they should be."""
    for guest in snap.state.guests.values():
        for blocker in standing.blockers_of(guest):
            yield Finding(
                level="critical",
                check="guests",
                subject=guest.name,
                what=f"{guest.name} could not start on another host.",
                why=blocker,
                fix="put it on shared storage, or: dr guest unprotect " + guest.name,
            )
        if not standing.settled(snap, guest) and not guest.tied and not standing.in_doubt(snap, guest):
            yield Finding(
                level="warning",
                check="guests",
                subject=guest.name,
                what=f"{standing.not_as_wanted(guest)}.",
                why=guest.reason,
                fix=f"dr guest show {guest.name}",
            )


def unprotected(snap: Snapshot, _: Site) -> Iterator[Finding]:
    found = sorted({facts.name for facts in standing.running_unprotected(snap)})
    if found:
        some = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        yield Finding(
            level="warning",
            check="unprotected",
            what=f"{len(found)} running {'guest is' if len(found) == 1 else 'guests are'} not protected: {some}.",
            why="when their host fails they stay down, and fencing the host kills them",
            fix="dr guest protect NAME..., or --all",
        )


def twice(snap: Snapshot, _: Site) -> Iterator[Finding]:
    """A domain that is active on two hosts: the one thing that must never be."""
    for where in snap.sightings().values():
        active = [host for host, facts in where if facts.active]
        if len(active) > 1:
            name = where[0][1].name
            yield Finding(
                level="critical",
                check="twice",
                subject=name,
                what=f"{name} is active on {' and '.join(active)}.",
                why="two copies write to the same disks",
                fix="stop one of them now: virsh -c qemu+ssh://HOST/system destroy " + name,
            )


def spare(snap: Snapshot, _: Site) -> Iterator[Finding]:
    """N+1: could each host's guests go to the others, all of them at once?"""
    online = [name for name, host in snap.state.hosts.items() if host.phase is HostPhase.ONLINE]
    if len(online) < 2:
        if snap.state.guests:
            yield Finding(
                level="critical",
                check="spare",
                what="There is no second host online.",
                why="no guest can be restarted elsewhere",
                fix="dr host list",
            )
        return
    draft = Draft(snap.state, snap.now)
    for name in sorted(online):
        # Small sites are asked now, large ones as the coordinator saw it within the last minutes.
        if len(online) <= ASKED_NOW_MAX:
            found = [f"{guest}: {reason}" for guest, reason in core_spare.stranded(draft, name)]
            count = len(found)
        else:
            found, count = list(snap.view(name).stranded_why), snap.view(name).stranded
        if count:
            guest, _colon, why = found[0].partition(": ")
            more = f" and {count - 1} more" if count > 1 else ""
            yield Finding(
                level="warning",
                check="spare",
                subject=name,
                what=f"N+1 is lost: if {name} fails, {guest}{more} would not start again.",
                why=why,
                fix="add memory or a host, or stop what is not needed",
            )


def homes(snap: Snapshot, _: Site) -> Iterator[Finding]:
    """Guests that should go home and cannot: each with all that keeps it away. Those that only wait are left out."""
    draft = Draft(snap.state, snap.now)
    found = 0
    for guest_id in sorted(snap.state.homing):
        guest = snap.state.guests[guest_id]
        if found == AWAY_MAX or guest.homing.stays == guest.holder or not failback.home(draft, guest):
            continue
        to, why = failback.why_not(draft, guest)
        if guest.phase is GuestPhase.RUNNING and why:
            found += 1
            yield Finding(
                level="info",
                check="homes",
                subject=guest.name,
                what=f"{guest.name} is away from its home {to}.",
                why="; ".join(why),
                fix=f"dr guest show {guest.name}; to move it with a stop: dr guest relocate {guest.name} --to {to}",
            )


def moves(snap: Snapshot, _: Site) -> Iterator[Finding]:
    """What a drain would meet: hosts and guests that cannot be moved live as they are, drains that do not end."""
    state, draft, found = snap.state, Draft(snap.state, snap.now), 0
    live = [name for name, host in state.hosts.items() if host.facts.live_migration]
    for name, host in state.hosts.items():
        if live and name not in live and host.phase is HostPhase.ONLINE:
            yield Finding(
                level="info",
                check="moves",
                subject=name,
                what=f"{name} neither sends nor takes guests live, as other hosts do.",
                why="no migration_uri is set there",
                fix=preflight.live_fix(host),
            )
        if host.phase is HostPhase.DRAINING and snap.now - host.since > DRAIN_LONG_S:
            yield Finding(
                level="warning",
                check="moves",
                subject=name,
                what=f"{name} has been drained for {(snap.now - host.since) / 60:.0f} minutes, and is not empty.",
                why=host.reason,
                fix=f"dr plan evacuate {name} says what would help; dr host undrain {name} ends it",
            )
    rates = links.rates(draft)
    for guest in state.guests.values() if live else ():
        known = bool(dirtying.of(draft, guest)) and rates.of(guest.holder).basis != "assumed"
        outlook = links.outlook(draft, guest) if known and guest.phase is GuestPhase.RUNNING else None
        if outlook is not None and outlook.rung is Rung.CALLED_OFF and found < AWAY_MAX:
            found += 1
            yield Finding(
                level="info",
                check="moves",
                subject=guest.name,
                what=f"A live move of {guest.name} would be called off, as it was measured last.",
                why=outlook.why,
                fix="; ".join(forecast.would_converge(guest.name, outlook, guest.policy)),
            )
        checks = preflight.keeps_it(draft, guest) if guest.phase is GuestPhase.RUNNING else []
        if checks and found < AWAY_MAX:
            found += 1
            yield Finding(
                level="info",
                check="moves",
                subject=guest.name,
                what=f"{guest.name} could not be moved live now.",
                why="; ".join(dict.fromkeys(check.text for check in checks)),
                fix="; ".join(dict.fromkeys(check.fix for check in checks if check.fix)),
            )


def rules(snap: Snapshot, _: Site) -> Iterator[Finding]:
    """Rules that name what is not there: it may come one day, or is misspelt."""
    state = snap.state
    names = {name for guest in state.guests.values() for name in (guest.id, guest.name)}
    labels = {label for guest in state.guests.values() for label in guest.labels.items()}
    for rule in state.settings.rules:
        unknown = [
            f"guest {each}" if label is None else f"any guest with {each.removeprefix(LABEL)}"
            for each in rule.guests
            if (each not in names if (label := label_of(each)) is None else label not in labels)
        ]
        if isinstance(rule, HostRule):
            unknown += [f"host {each}" for each in rule.hosts if each not in state.hosts]
        if unknown:
            yield Finding(
                level="info",
                check="rules",
                subject=rule.name,
                what=f"Rule {rule.name} names what is not there: {', '.join(unknown)}.",
                why="it counts as soon as that is protected, labelled, or a member",
                fix="correct the rule in the configuration if that is misspelt",
            )


def coordinator(snap: Snapshot, _: Site) -> Iterator[Finding]:
    """The coordinator on a host that it protects."""
    own = snap.state.own_boot
    for name, host in snap.state.hosts.items():
        if not (snap.policy(name).coordinator_here or (own and host.boot_id == own)):
            continue
        guests_here = len(snap.state.at_host.get(name, ()))
        yield Finding(
            level="warning",
            check="coordinator",
            subject=name,
            what=f"The coordinator runs on {name}, a host that it protects.",
            why=f"when {name} fails nobody is left to recover its {guests_here} protected guests",
            fix="run the coordinator on a machine of its own, or as a small guest of another cluster",
        )


def notifier(_: Snapshot, site: Site) -> Iterator[Finding]:
    if not site.sinks:
        yield Finding(
            level="warning",
            check="notifier",
            what="No notifier is configured.",
            why="nobody is told when a host fails or a guest waits for a person",
            fix="add notify: to the coordinator's configuration, systemctl reload dr-coordinator, dr notify test",
        )


def certificates(_: Snapshot, site: Site) -> Iterator[Finding]:
    for whose, days in site.certificates.items():
        if days < CERTIFICATE_DAYS:
            left = f"expires in {days:.0f} days" if days > 0 else "has expired"
            yield Finding(
                level="warning" if days > 7 else "critical",
                check="certificates",
                subject=whose,
                what=f"The certificate of the {whose} {left}.",
                why="agents and commands are refused after that",
                fix="dr cluster init --renew, then: systemctl restart dr-coordinator",
            )


def versions(snap: Snapshot, _: Site) -> Iterator[Finding]:
    for name, host in snap.state.hosts.items():
        version = host.facts.agent_version
        if version and version != __version__:
            yield Finding(
                level="info",
                check="versions",
                subject=name,
                what=f"The agent on {name} is version {version}, the coordinator {__version__}.",
                why="one version apart works; further apart is refused",
                fix=f"upgrade dr on {name}, then: systemctl restart dr-agent",
            )


CHECKS: tuple[Check, ...] = (
    automation,
    hosts,
    health,
    fencing,
    hook,
    guests,
    unprotected,
    twice,
    spare,
    homes,
    moves,
    rules,
    coordinator,
    notifier,
    certificates,
    versions,
)
