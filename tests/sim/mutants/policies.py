"""Guards of placement: strict and preferred rules, room, what a host must have; and failure to fit."""

from __future__ import annotations

from dr.core import fleet, onecopy, placement, spare, wishes
from tests.sim.mutants.mutant import m

GROUPS = {
    "placement: which hosts take guests": (
        m(
            "a quarantined host takes no guests",
            "fencing/quarantined-host-takes-nobody",
            (fleet._blockers, "if Condition.QUARANTINED in host.conditions:", "if False:"),
        ),
        m(
            "a host that is not online takes no guests",
            "placement/returning-host-takes-nobody",
            (fleet._blockers, "if host.phase is not HostPhase.ONLINE:", "if False:"),
            (onecopy._refuse_host, "if host.phase is not HostPhase.ONLINE:", "if False:"),
        ),
        m(
            "a host whose agent is not connected takes no guests",
            "placement/agent-away-takes-nobody",
            (fleet._blockers, "elif not draft.view(host.name).session:", "elif False:"),
        ),
        m(
            "a host that is unfit takes no guests",
            "starts/target-without-libvirt",
            (fleet.unfit, "if reading.part in UNFIT and reading.level is Level.CRITICAL", "if False"),
        ),
        m(
            "a cordoned host takes no guests",
            "maintenance/cordoned-host-takes-nobody",
            (wishes.why_not_placed, "if wish is not None", "if wish is not None and what != 'is cordoned'"),
        ),
        m(
            "a drained host takes no guests",
            "maintenance/draining-host-takes-nobody",
            (fleet._blockers, "if host.phase is not HostPhase.ONLINE:", "if False:"),
            (onecopy._refuse_host, "if host.phase is not HostPhase.ONLINE:", "if False:"),
            (wishes.why_not_placed, "if wish is not None", "if wish is not None and what == 'is cordoned'"),
        ),
        m(
            "a guest that crashed on a cordoned host restarts there",
            "maintenance/crash-on-a-cordoned-host",
            (placement.Case._unwelcome, "return () if in_place else row.wishes", "return row.wishes"),
        ),
        m(
            "a host without what a guest needs does not take it",
            "failover/a-storage-that-only-some-see",
            (fleet.Fleet._have, "having = [name in (row.networks", "having = [True or name in (row.networks"),
        ),
    ),
    "placement: room": (
        m(
            "a host takes no more than it has room for",
            "failover/no-room-waits-and-says-so",
            (placement.Case.has_room, "mask &= (", "mask |= ("),
        ),
        m(
            "the reserve is kept",
            "placement/reserve-is-kept",
            (fleet._rooms, "facts.memory_mib - pools_mib - reserve_mib", "facts.memory_mib - pools_mib"),
        ),
        m(
            "guests that are on their way count",
            "placement/who-starts-counts",
            (fleet._rooms, "            _add(used, taken)\n", ""),
        ),
        m(
            "guests that nobody protects count",
            "placement/who-is-not-protected-counts",
            (
                fleet._rooms,
                "        if each.active:\n",
                "        if each.active and draft.guest(each.id) is not None:\n",
            ),
        ),
        m(
            "the emptier host is chosen",
            "migration/where-it-fits-best",
            (placement.Case.best, "np.argmin(self.load(fleet)[hosts])", "np.argmax(self.load(fleet)[hosts])"),
        ),
    ),
    "placement: rules": (
        m(
            "strict rules name the hosts",
            "rules/strict-host-rule-waits",
            (placement.Case.__init__, "if rule.strict:", "if False:"),
            (placement.Case._against_rules, "if rule.strict and name not in rule.hosts", "if False"),
        ),
        m(
            "preferred rules like hosts",
            "rules/preferred-host-rule",
            (
                placement.Case.best,
                "for liked in (self.liking, self.wished(fleet)):",
                "for liked in (self.wished(fleet),):",
            ),
        ),
        m(
            "strict rules keep guests apart",
            "rules/keep-apart-strict-waits",
            (placement.Case.suits, "mask &= fleet.count(rule) == 0", "pass"),
        ),
        m(
            "preferred rules keep guests apart",
            "rules/keep-apart-preferred",
            (
                placement.Case.best,
                "for liked in (self.liking, self.wished(fleet)):",
                "for liked in (self.liking,):",
            ),
        ),
        m(
            "strict rules keep guests together",
            "rules/keep-together-with-one-that-runs",
            (placement.Case.suits, "    if at:\n", "    if False:\n"),
        ),
        m(
            "a guest that moves counts at both ends",
            "migration/rule-holds-at-both-ends",
            (
                fleet.Fleet.places,
                "{self.index[place.host] for place in guest.may_run_on if place.host in self.index}",
                "{self.index[place.host] for place in guest.may_run_on[:1] if place.host in self.index}",
            ),
        ),
        m(
            "guests that must share a host are placed together",
            "rules/two-that-must-share-are-placed-together",
            (
                placement.waiting_mates,
                "if guest.may_run_on or not draft.members.about(guest.id):",
                "if True:",
            ),
        ),
        m(
            "people's moves keep to strict rules",
            "migration/against-a-strict-rule-is-refused",
            (placement.against, "return case.against(fleet, fleet.index[host.name])", "return []"),
        ),
    ),
    "placement: said": (
        m(
            "lost N+1 is told",
            "placement/no-room-if-one-died",
            (spare.step, "    _tell(draft)\n", ""),
        ),
    ),
}
