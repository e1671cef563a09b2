"""Guards of detection and fencing: rule 5, promise 6 (do no harm), and what a fencing proves."""

from __future__ import annotations

from dr.core import (
    asks_hosts,
    decide,
    detector,
    fencing,
    flaps,
    isolation,
    leaving,
    looks,
    members,
    operations,
    silence,
)
from tests.sim.mutants.mutant import m

OWN_HOST = "draft.policy(host.name).coordinator_here or host.boot_id == draft.state.own_boot"

GROUPS = {
    "rule 5: fencing": (
        m(
            "a last look after a fence",
            "fencing/bmc-that-lies-is-found-out",
            (fencing._last_look, "said = peers_say(view)", "said = Peers.SILENT"),
        ),
        m(
            "a last look hears the host's own agent, and witnesses",
            "fencing/bmc-that-lies-is-found-out",
            (
                fencing._last_look,
                "view.fresh > fencing.verified_at or said is Peers.ANSWERS",
                "False",
            ),
        ),
        m(
            "a last look needs a live witness",
            "fencing/last-look-waits-for-a-witness",
            (
                fencing._last_look,
                "if said is Peers.NONE and not ((fencing.operator or fencing.test) and alone):",
                "if False:",
            ),
        ),
        m(
            "the GUID of a BMC",
            "fencing/bmc-of-another-machine",
            (detector.why_not_identical, "if reading.guid != identity.guid:", "if False:"),
            (fencing._aimed_elsewhere, 'owner not in ("", host.name)', "False"),
        ),
        m(
            "whose machine a device would switch, asked before it does",
            "fencing/bmc-of-another-machine",
            (fencing._aimed_elsewhere, "why += why_not_identical(identity, reading)", "pass"),
        ),
        m(
            "what a device showed of itself is remembered until it is read anew",
            "fencing/what-an-outlet-showed-is-remembered",
            (looks.shown, "draft.view(host).shown | ", ""),
        ),
        m(
            "only devices that were tested",
            "fencing/not-proven-is-not-used",
            (fencing.provable, "return any(", "return True or any("),
            (
                detector.why_not_identical,
                'if identity is None:\n        return [f"{reading.device} was never proven: run dr fence test"]',
                "if identity is None:\n        return []",
            ),
            (fencing._aimed_elsewhere, "elif not fencing.operator and not fencing.test:", "elif False:"),
        ),
        m(
            "a fence that proves nothing is not made",
            "fencing/unproven-is-held-and-not-tried",
            (fencing.why_not_fence, "elif not provable(draft, host):", "elif False:"),
        ),
        m(
            "a device that was never tested is not switched",
            "fencing/not-proven-is-not-used",
            (fencing._aimed_elsewhere, "elif not fencing.operator and not fencing.test:", "elif False:"),
            (fencing.why_not_fence, "elif not provable(draft, host):", "elif False:"),
        ),
        m(
            "a person's fence reads its devices first",
            "fencing/by-hand-through-a-swapped-bmc",
            (
                fencing._read_lately,
                "if round_at < host.since or draft.now - round_at > EVIDENCE_S:",
                "if False:",
            ),
        ),
        m(
            "a fence is for one boot",
            "fencing/late-word-about-an-earlier-boot",
            (fencing.ended, " or fencing.boot_id != boot_id", ""),
        ),
        m(
            "a fencing is judged anew by a later leader",
            "fencing/wish-of-an-earlier-leader",
            (decide._started, "if host.phase is HostPhase.FENCING:", "if False:"),
        ),
        m(
            "a fence is believed only if its devices read off",
            "fencing/returns-while-being-fenced",
            (fencing.ended, "why = why_not_off(draft, host.name, report)", "why = []"),
        ),
        m(
            "a hibernated host is not over",
            "fencing/hibernation-is-not-over",
            (detector.may_thaw, "if not host.facts.hibernation_masked:", "if False:"),
        ),
        m(
            "a host whose hibernation is not masked is unprotected",
            "fencing/hibernation-is-not-over",
            (members.unprotected, "if host.boot_id and not host.facts.hibernation_masked:", "if False:"),
        ),
        m(
            "a level that fails is followed by the next",
            "fencing/bmc-hangs-and-the-outlets-work",
            (fencing._failed, "attempt, level = 0, level + 1", "attempt = 0"),
        ),
        m(
            "a fencing that failed is tried again",
            "fencing/works-again-later",
            (
                fencing._failed,
                "min(timers.fence_retry_s * 2 ** (rounds - 1), timers.fence_retry_max_s)",
                "1e9",
            ),
        ),
        m(
            "a person's fence of a host that answers does not come true hours later",
            "fencing/wish-of-hours-ago",
            (
                fencing._failed,
                "if rounds and fencing.operator and draft.view(host.name).session and not is_late(draft, host):",
                "if False:",
            ),
        ),
        m(
            "a test proves nothing of a host that did not reboot",
            "fencing/test-of-a-host-that-reboots-by-itself",
            (
                members._booted,
                "if test is not None and host.phase is HostPhase.FENCED:",
                "if test is not None:",
            ),
        ),
        m(
            "a test believes no device that does not read off",
            "fencing/test-of-a-device-that-does-not-answer",
            (fencing.ended, "if r.power is not Power.OFF", "if False"),
        ),
        m(
            "nothing is placed on a host whose test goes on",
            "fencing/between-two-levels-of-its-test-it-takes-no-guest",
            (decide._settle, "    operations.carry_tests_on(draft)\n", ""),
            (
                decide._settle,
                "    starts.place_waiting(draft)\n",
                "    starts.place_waiting(draft)\n    operations.carry_tests_on(draft)\n",
            ),
        ),
        m(
            "a test is for an empty host",
            "fencing/test-is-refused-where-guests-run",
            (asks_hosts.fence_test, "why += fencing.in_use(draft, host)", "pass"),
        ),
        m(
            "a fence test that a crash cut short leaves the host on",
            "fencing/test-cut-short-by-the-coordinators-death",
            (
                decide._started,
                'fencing.power_on(draft, draft.require_host(host.name), "its fence test was cut short")',
                "pass",
            ),
            (decide._started, "again = bool(test) or draft", "again = not test and draft"),
        ),
        m(
            "a fence test that never comes back ends",
            "fencing/test-that-never-comes-back",
            (
                operations._carry_test_on,
                "if host.phase is HostPhase.FENCED and draft.now - host.dead_at > 20 * draft.config.timers.fence_s:",
                "if False:",
            ),
        ),
        m(
            "nor does a second crash before it was switched on",
            "fencing/test-cut-short-twice",
            (decide._started, "host.phase is HostPhase.SUSPECT and host.power_on and", "False and"),
        ),
        m(
            "a fence test ends when its host is suspect",
            "fencing/test-of-a-host-that-falls-silent",
            (operations._carry_test_on, "if host.phase is HostPhase.SUSPECT:", "if False:"),
        ),
    ),
    "promise 6: do no harm": (
        m(
            "the brake",
            "fencing/brake-holds-when-most-hosts-look-dead",
            (detector.brake, "if 2 * len(troubled) > len(members):", "if False:"),
        ),
        m(
            "the brake remembers who was fenced just now",
            "fencing/brake-remembers",
            (detector.brake, "any(draft.now - at < limits.brake_window_s for at in host.fenced_at)", "False"),
        ),
        m(
            "the brake does not hold for hosts without power",
            "fencing/brake-counts-no-host-without-power",
            (detector.brake, " and power_says(draft, host) is not Power.OFF", ""),
        ),
        m(
            "the brake does not count hosts in maintenance",
            "fencing/brake-without-maintenance",
            (
                detector.brake,
                "apart = (HostPhase.JOINING, HostPhase.MAINTENANCE)",
                "apart = (HostPhase.JOINING,)",
            ),
        ),
        m(
            "a fence rests on fresh evidence",
            "fencing/bmc-dead-until-a-person-confirms",
            (
                fencing._still_silent,
                "    if draft.now - draft.view",
                "    return True\n    if draft.now - draft.view",
            ),
        ),
        m(
            "a fence is called off when the host answers",
            "fencing/agent-of-a-silent-host-answers-in-time",
            (fencing.step, "if view.session and view.fresh > host.since:", "if False:"),
            (fencing._still_silent, "said = peers_say(draft.view(host.name))", "said = Peers.SILENT"),
        ),
        m(
            "silence counts only from a live witness",
            "isolation/coordinator-cut-off-and-power-off",
            (detector.peers_say, "look.answered is False and look.witness", "look.answered is False"),
        ),
        m(
            "who hears the host outweighs who does not",
            "isolation/peers-hear-but-coordinator-does-not",
            (
                detector.peers_say,
                "if any(look.answered for look in view.looks.values()):",
                "if view.looks and all(look.answered for look in view.looks.values()):",
            ),
        ),
        m(
            "a witness must have been heard just now",
            "detection/a-witness-that-stands-still-is-not-waited-for",
            (looks._heard_lately, "if draft.now - at <= fresh_s", ""),
        ),
        m(
            "a probe that could not be made says nothing",
            "detection/probes-that-cannot-be-made",
            (looks._saw, "look is None or not answered", "look is None"),
        ),
        m(
            "after a start or a gap, unheard is not late",
            "detection/coordinator-restarted-while-a-host-was-dying",
            (detector.is_late, "    if draft.now < draft.quiet_until:\n        return False\n", ""),
            (detector.is_late, "max(view.heard, draft.quiet_until - timers.settle_s)", "view.heard"),
        ),
        m(
            "a coordinator that stood still distrusts itself first",
            "detection/coordinator-stood-still",
            (decide._tick, "if event.lag_s > timers.gap_s:", "if False:"),
            (detector.is_late, " - lag_s", ""),
        ),
        m(
            "automation that is paused fences nobody",
            "fencing/paused-automation-fences-nobody",
            (fencing.why_not_fence, "if draft.cluster.pause is not None:", "if False:"),
        ),
        m(
            "a restored store fences nobody",
            "restore/fences-nobody",
            (fencing.why_not_fence, "if draft.cluster.restored:", "if False:"),
            (fencing.why_not_fence, "if draft.cluster.pause is not None:", "if False:"),
        ),
        m(
            "automatic fencing can be off",
            "fencing/automatic-fencing-is-off",
            (fencing.why_not_fence, "if not draft.config.auto_fence:", "if False:"),
        ),
        m(
            "no fencing that saves nobody",
            "fencing/no-second-guest-no-fence",
            (
                fencing.why_not_fence,
                "if not why and next(recoverable(draft, host), None) is None:",
                "if False:",
            ),
        ),
        m(
            "no fencing for a guest that is to be stopped",
            "policies/nobody-is-fenced-for-an-ignored-guest",
            (
                fencing.recoverable,
                "guest.desired is Desired.RUNNING and guest.phase is not GuestPhase.ERROR",
                "guest.phase is not GuestPhase.ERROR",
            ),
        ),
        m(
            "no fencing for a guest that was given up",
            "fencing/not-for-a-guest-that-was-given-up",
            (
                fencing.recoverable,
                "guest.desired is Desired.RUNNING and guest.phase is not GuestPhase.ERROR",
                "guest.desired is Desired.RUNNING",
            ),
        ),
        m(
            "no fencing for a guest that fits nowhere else",
            "fencing/of-a-full-site-saves-nobody",
            (
                fencing.recoverable,
                "if startable and placement.refuge(draft, guest, host.name):",
                "if startable:",
            ),
        ),
        m(
            "no fencing for a copy whose guest runs elsewhere",
            "fencing/not-for-a-guest-that-another-host-may-run",
            (fencing.recoverable, "wanted and not elsewhere and", "wanted and"),
        ),
        m(
            "the coordinator never fences its own host",
            "fencing/coordinators-own-host-is-never-fenced",
            (asks_hosts._why_not_switch, OWN_HOST, "False"),
            (fencing.why_not_fence, OWN_HOST, "False"),
        ),
        m(
            "the guests that would die too are listed",
            "fencing/told-whom-else-it-ends",
            (fencing.condemn, "if others and not test:", "if False:"),
        ),
        m(
            "a host whose agent alone is silent is not fenced",
            "detection/agent-killed-host-alive",
            (silence._judge, "if verdict is Verdict.AGENT_LOST:", "if False:"),
            (silence._judge, "elif verdict is Verdict.HOLD:", "elif False:"),
        ),
        m(
            "people are told of a host whose agent is lost",
            "detection/agent-frozen",
            (
                silence._agent_lost,
                "if Condition.AGENT_LOST in host.conditions and host.phase in IN_USE:",
                "if True:",
            ),
        ),
        m(
            "people are told of a host that is held",
            "fencing/none-configured",
            (silence._hold, '    text = "; ".join(why)\n', "    return\n"),
        ),
        m(
            "an agent that says goodbye is not called lost",
            "detection/agent-upgraded",
            (
                silence._agent_lost,
                "if bool(view.goodbye) and draft.now - view.heard < GOODBYE_GRACE_S:",
                "if False:",
            ),
            (
                silence.watch,
                "excused = bool(view.goodbye) and draft.now - view.heard < GOODBYE_GRACE_S",
                "excused = False",
            ),
        ),
        m(
            "a host that is expected to go down alarms nobody",
            "maintenance/announced-reboot-takes-long",
            (leaving.patience, "if not host.leaving:", "if True:"),
        ),
        m(
            "a host that announced its end is not waited for without end",
            "maintenance/announced-shutdown-that-never-ends",
            (
                leaving.patience,
                "if draft.now - last >= (timers.hold_s if hold else timers.leave_s):",
                "if False:",
            ),
        ),
        m(
            "guests that are to be left alone keep their host from being fenced",
            "policies/isolation-leave",
            (fencing.why_not_fence, "if reason := isolation.left_alone(draft, host):", 'if reason := "":'),
        ),
        m(
            "a host has time to shut its guests down before it is fenced",
            "isolation/shut-down-then-cable-back",
            (silence._judge, "elif wait := isolation.patience(draft, host):", 'elif wait := "":'),
        ),
        m(
            "that time ends",
            "policies/isolation-shut-down",
            (
                isolation.patience,
                "if draft.now - last >= timers.isolation_s + timers.stop_s + STOP_MARGIN_S:",
                "if False:",
            ),
        ),
        m(
            "a host that is fenced too often is set aside",
            "fencing/fenced-too-often",
            (flaps.fenced, "if often < draft.config.limits.fences_per_window:", "if True:"),
        ),
        m(
            "a host that comes back too often is set aside",
            "fencing/comes-back-too-often",
            (flaps.returned, "if often < limit or", "if True or"),
        ),
        m(
            "hosts that all restart are not set aside",
            "fencing/hosts-that-all-restart-are-not-set-aside",
            (flaps.returned, " or 2 * (len(restless) + 1) > len(others) + 1", ""),
        ),
        m(
            "reboots in maintenance are what was asked for",
            "maintenance/reboots-are-what-was-asked-for",
            (flaps.returned, "host.phase is HostPhase.MAINTENANCE or", ""),
        ),
        m(
            "a quarantined host is not switched on",
            "fencing/fenced-too-often",
            (fencing.maybe_power_on, "Condition.QUARANTINED in host.conditions or", ""),
        ),
        m(
            "a paused automation switches nothing on",
            "fencing/paused-automation-switches-nothing-on",
            (fencing.maybe_power_on, " or draft.cluster.pause is not None", ""),
        ),
        m(
            "a host is switched on when its guests have a place",
            "fencing/paused-automation-switches-nothing-on",
            (
                fencing.maybe_power_on,
                'if any(op.kind == "failover" and op.subject == host.name for op in draft.open_operations()):',
                "if False:",
            ),
        ),
        m(
            "a host that a person confirmed down is not switched on by itself",
            "fencing/confirmed-down-stays-off",
            (
                fencing.dead,
                "or (host.power_on and proof.kind is ProofKind.POWER)",
                "or draft.policy(host.name).power_on_after_fence",
            ),
        ),
        m(
            "power-on after fencing, by policy",
            "fencing/cut-off-host-is-fenced-before-guests-start",
            (fencing.dead, "(fenced and draft.policy(host.name).power_on_after_fence)", "False"),
        ),
        m(
            "a person's fence is refused where it cannot be",
            "fencing/coordinators-own-host-is-never-fenced",
            (asks_hosts.fence, "    if why:\n", "    if False:\n"),
        ),
    ),
}
