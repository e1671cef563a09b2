"""Guards of promise 5 (every protected guest ends up running) and of what people asked for: starts, retries, upkeep."""

from __future__ import annotations

from dr.core import (
    ailing,
    approval,
    asks_cluster,
    asks_guests,
    asks_hosts,
    asks_plans,
    asks_policies,
    asks_upkeep,
    checks,
    deadline,
    decide,
    definitions,
    departures,
    dependencies,
    failing,
    fleet,
    guests,
    inventories,
    leaving,
    members,
    migration,
    moves,
    operations,
    protection,
    retries,
    starts,
    upkeep,
    whereabouts,
)
from tests.sim.mutants.mutant import m

PAUSED = "if draft.cluster.pause is not None and not asked_to_start(draft, guest):"

GROUPS = {
    "promise 3: no operation lost": (
        m(
            "a start that was not answered is asked for",
            "store/coordinator-dies-after-a-ticket-left",
            (guests.step, 'if not draft.find_pending("start", guest=guest.id):', "if False:"),
            (decide._expire, 'if pending.kind == "start" and guest is not None:', "if False:"),
        ),
        m(
            "a stop that was not answered is asked for",
            "starts/begins-to-recover-at-once",
            (guests.step, 'if not draft.find_pending("stop", guest=guest.id):', "if False:"),
        ),
        m(
            "a stop whose guest still runs after its time has failed",
            "operator/stop-whose-failure-is-not-heard",
            (
                guests._step_stopping,
                "if holder and draft.now >= guest.since + timers.stop_s + timers.testify_s:",
                "if False:",
            ),
        ),
        m(
            "what is not answered expires",
            "one-copy/answers-of-a-start-are-lost",
            (decide._expire, "        draft.forget(key)\n", "        continue\n"),
        ),
        m(
            "operations end",
            "starts/begins-to-recover-at-once",
            (operations._close_over_guests, "    by_itself =", "    return\n    by_itself ="),
        ),
        m(
            "an operation that ends without its guests has failed",
            "operator/a-guest-that-does-not-heed-shutdown",
            (operations._close_over_guests, '"failed" if failed else "done"', '"done"'),
        ),
        m(
            "a drain ends",
            "maintenance/maintenance-survives-the-coordinator",
            (upkeep.close_if_over, "elif host.phase is HostPhase.MAINTENANCE:", "elif False:"),
        ),
        m(
            "a drain that is taken back ends",
            "maintenance/drain-taken-back",
            (upkeep.close_if_over, "elif host.drain is None:", "elif False:"),
            (upkeep.close_if_over, "elif host.phase is HostPhase.FENCED:", "elif False:"),
        ),
        m(
            "a definition that was edited is kept",
            "hand-made/definition-edited-then-host-dies",
            (
                definitions.want,
                "if facts.digest == guest.digest and guest.definition and not _grow(draft, guest, host):",
                "if guest.definition:",
            ),
        ),
    ),
    "promise 5: every protected guest ends up running": (
        m(
            "guests of a dead host recover",
            "starts/dies-right-after-its-start",
            (
                guests.lost_host,
                "            wanted.append(guest)\n        elif ran:",
                "            pass\n        elif ran:",
            ),
        ),
        m(
            "a guest that is to be stopped does not recover",
            "operator/stopped-while-it-starts-then-that-host-dies",
            (
                guests.lost_host,
                "        if guest.desired is Desired.RUNNING:\n            wanted.append(guest)\n        elif ran:",
                "        if True:\n            wanted.append(guest)\n        elif ran:",
            ),
            (
                guests._step_places,
                "if guest.desired is not Desired.RUNNING and not asked_to_start(draft, guest):",
                "if False:",
            ),
        ),
        m(
            "an ignored guest is left alone",
            "policies/ignored-guest-is-left-alone",
            (
                guests.lost_host,
                "        if guest.desired is Desired.RUNNING:\n            wanted.append(guest)\n        elif ran:",
                "        if guest.desired is not Desired.STOPPED:\n            wanted.append(guest)\n        elif ran:",
            ),
            (
                guests._step_places,
                "if guest.desired is not Desired.RUNNING and not asked_to_start(draft, guest):",
                "if False:",
            ),
            (
                retries.failed,
                "if guest.desired is not Desired.RUNNING:",
                "if guest.desired is Desired.STOPPED:",
            ),
        ),
        m(
            "a guest whose owner shut it down stays off",
            "hand-made/virsh-destroy-is-its-owners-wish",
            (guests.gone, "elif reason in OWNER_ENDED:", "elif False:"),
        ),
        m(
            "a guest that crashed is started again",
            "starts/crashed-guest-restarts-in-place",
            (
                guests.gone,
                "ask_testimony(draft, host, [retries.failed(draft, guest, host.name, GuestEvent.CRASHED, text)])",
                "ask_testimony(draft, host, [retries.put_down(draft, guest, text)])",
            ),
        ),
        m(
            "a guest whose domain vanished was stopped by hand",
            "hand-made/undefined-by-hand",
            (guests.gone, "    if facts is None:\n", "    if False:\n"),
        ),
        m(
            "restarts in place are bounded",
            "starts/dies-right-after-its-start",
            (retries.next_try, "if len(restarts) < policy.max_restarts:", "if True:"),
        ),
        m(
            "a guest that fails here is tried elsewhere",
            "starts/dies-right-after-its-start",
            (retries.next_try, "if len(relocations) < policy.max_relocations:", "if False:"),
        ),
        m(
            "relocations are bounded",
            "starts/fails-everywhere-then-by-command",
            (retries.next_try, "if len(relocations) < policy.max_relocations:", "if True:"),
        ),
        m(
            "a host where it failed is avoided",
            "starts/dies-right-after-its-start",
            (retries.next_try, "tuple(dict.fromkeys((*guest.avoid, host)))", "()"),
        ),
        m(
            "failures of long ago do not count",
            "starts/failures-of-long-ago",
            (retries._within, "if draft.now - at < window_s", "if True"),
        ),
        m(
            "restarts follow each other ever more slowly",
            "starts/ever-more-slowly",
            (retries._backoff_s, "return min(", "return 0.0 * min("),
        ),
        m(
            "a guest that was given up says so",
            "hand-made/crashes-until-it-is-given-up",
            (
                retries.give_up,
                '    draft.clear_alert(f"guest/{guest.id}/waiting")\n',
                "    return move_guest(draft, guest, GuestEvent.GAVE_UP, why)\n",
            ),
        ),
        m(
            "one that was given up is taken up again by command",
            "starts/in-error-is-left-alone",
            (asks_policies.want_up, "        restarts=(),\n        relocations=(),\n", ""),
            (asks_policies.want_up, "if guest.phase in AT_REST:", "if guest.phase is GuestPhase.STOPPED:"),
        ),
        m(
            "a guest that finds no place is tried again",
            "starts/target-without-libvirt",
            (
                starts._fits_nowhere,
                "    draft.put_guest(\n",
                "    draft.put_guest(changed(guest, retry_at=1e12))\n    str(\n",
            ),
        ),
        m(
            "a guest that finds no place says so",
            "starts/target-without-libvirt",
            (starts._fits_nowhere, "    text =", "    return\n    text ="),
        ),
        m(
            "elsewhere is better, not required",
            "starts/fails-everywhere-then-by-command",
            (starts._fits_nowhere, "(host := draft.host(name)) and host.phase is HostPhase.ONLINE", "False"),
        ),
        m(
            "starts wait for their time",
            "starts/ever-more-slowly",
            (starts.place_waiting, " and draft.now >= guest.retry_at", ""),
        ),
        m(
            "higher priority starts first",
            "failover/higher-priority-first",
            (starts.start_order, "-guest.policy.priority, ", ""),
        ),
        m(
            "starts on a host are bounded",
            "starts/one-at-a-time-on-a-host",
            (starts._turns, "turns[pending.host] -= 1", "pass"),
            (starts._start, "turns[name] -= 1", "pass"),
        ),
        m(
            "a paused automation starts nothing",
            "operator/pause-holds-a-failover",
            (starts.place_waiting, PAUSED, "if False:"),
        ),
        m(
            "what a person asks for starts in a pause too",
            "operator/start-in-a-pause",
            (starts.place_waiting, PAUSED, "if draft.cluster.pause is not None:"),
        ),
        m(
            "a pause has a reason and ends",
            "operator/resume-without-a-pause-is-refused",
            (
                asks_cluster.pause_or_resume,
                'changed(draft.cluster, pause=None, restored="")',
                "draft.cluster",
            ),
        ),
        m(
            "a resume without a pause is refused",
            "operator/resume-without-a-pause-is-refused",
            (asks_cluster.pause_or_resume, "if draft.cluster.pause is None:", "if False:"),
        ),
        m(
            "a host that is back is powered on and cleaned",
            "policies/failback-off",
            (
                members.step,
                "if host.phase in (HostPhase.JOINING, HostPhase.RETURNING):",
                "if host.phase is HostPhase.JOINING:",
            ),
        ),
        m(
            "a suspect host that answers counts again",
            "policies/isolation-leave",
            (members.heard, "if host.phase is HostPhase.SUSPECT and event.fresh > 0:", "if False:"),
        ),
        m(
            "the protected list is sent again until it is acknowledged",
            "one-copy/not-protected-without-a-hook",
            (
                protection.push_list,
                "    if version == draft.cluster.protected_version and draft.now - last < PUSH_AGAIN_S:",
                "    if version == draft.cluster.protected_version:",
            ),
        ),
        m(
            "a host that could not testify is asked again",
            "starts/question-after-a-crash-is-lost",
            (whereabouts.ask_testimony, "        or draft.now - last[1] >= ASK_AGAIN_S\n", ""),
        ),
        m(
            "people are told of a guest paused by an I/O error",
            "hand-made/paused-by-an-io-error",
            (
                inventories._paused_for_io,
                'facts.state is DomainState.PAUSED and facts.reason == "ioerror"',
                "False",
            ),
        ),
    ),
    "order and checks": (
        m(
            "a guest waits for those that start before it",
            "policies/web-waits-for-its-database",
            (starts.place_waiting, "if _waits_its_turn(draft, guest):", "if False:"),
        ),
        m(
            "a guest waits for a check that has not passed",
            "policies/waits-for-a-check",
            (
                dependencies._holds_up,
                'return after.until == "check" and bool(other.policy.checks) and not passed(other)',
                "return False",
            ),
        ),
        m(
            "a check that passed before the guest started anew does not count",
            "policies/check-counts-from-the-newest-start",
            (checks.passed, " and guest.checked_at >= guest.since", " and guest.checked_at > 0"),
        ),
        m(
            "a guest that runs and does not its work has not recovered",
            "failover/runs-and-does-not-its-work",
            (operations._close_over_guests, "if key in unwell or ", "if "),
        ),
        m(
            "people are told of checks that do not pass in time",
            "failover/runs-and-does-not-its-work",
            (checks.step, "if failing(draft, guest) and not awaited(draft, guest):", "if False:"),
        ),
        m(
            "all checks must pass",
            "policies/agent-is-silent",
            (checks.close_if_over, "all(each.passed", "any(each.passed"),
        ),
        m(
            "rounds in a row make a guest unhealthy",
            "health/hangs-and-is-restarted",
            (ailing.step, "each.failures >= draft.config.limits.unhealthy_rounds", "False"),
        ),
        m(
            "a guest whose policy says so is only told of",
            "health/only-told",
            (ailing._answer, "if guest.policy.on_unhealthy is not OnUnhealthy.RESTART or ", "if "),
        ),
        m(
            "restarts of an unhealthy guest are bounded",
            "health/stays-ill-and-is-moved-then-told",
            (ailing._answer, "if again is None:", "if False:"),
        ),
        m(
            "where many fail at once nobody is restarted",
            "health/many-at-once-are-not-to-blame",
            (ailing._many, "failing >= MANY and", "False and"),
        ),
        m(
            "no unhealthy guest is restarted in a pause",
            "health/not-while-automation-is-paused",
            (ailing._keeps, "draft.cluster.pause is not None or ", ""),
        ),
        m(
            "nobody waits for a guest that is to be off",
            "policies/dependency-on-a-stopped-guest",
            (dependencies._holds_up, "return other.desired is Desired.RUNNING", "return True"),
        ),
        m(
            "waiting for others ends",
            "policies/waits-no-longer",
            (
                starts._waits_its_turn,
                "elif draft.now < guest.waits_since + draft.config.timers.boot_after_s:",
                "elif True:",
            ),
        ),
        m(
            "guests that would wait for each other are refused",
            "policies/circle-of-dependencies-is-refused",
            (dependencies.why_not, "if circle and not changing.keys().isdisjoint(circle):", "if False:"),
        ),
        m(
            "whom nobody protects cannot be waited for",
            "policies/dependency-on-nobody-is-refused",
            (dependencies.why_not, "if name in changing and other is None:", "if False:"),
        ),
        m(
            "a round in which a check failed does not count",
            "policies/waits-for-a-check",
            (checks._end, "if not all(each.passed for each in results):", "if False:"),
        ),
    ),
    "hosts that go down": (
        m(
            "a guest that ended with its host was not ended by its owner",
            "maintenance/announced-shutdown-fails-over",
            (leaving.ended_by_host, "if host.leaving and", "if False and"),
        ),
        m(
            "who was shut down in isolation is recovered",
            "isolation/shut-down-without-a-fence",
            (leaving.ended_by_host, "if facts is not None and facts.reason == ISOLATED:", "if False:"),
        ),
        m(
            "a host that announced its end takes no guests",
            "maintenance/announced-shutdown-fails-over",
            (fleet._blockers, "if host.leaving:", "if False:"),
        ),
        m(
            "its guests are moved away while there is time",
            "maintenance/announced-shutdown-moves-its-guests",
            (
                leaving.step,
                "if operation is not None and moves_away(draft, host):",
                "if False:",
            ),
        ),
        m(
            "a host goes down only when they have left",
            "maintenance/reboot-waits-until-its-guests-have-left",
            (leaving._bid, "wait = moves_away(draft, host) and _leave_still(draft, host)", "wait = False"),
        ),
        m(
            "for as long as they leave it is told so",
            "maintenance/reboot-waits-until-its-guests-have-left",
            (leaving._bid, "wait and draft.now - told.at >= STAY_AGAIN_S", "False"),
        ),
        m(
            "it does not wait for long for who cannot leave",
            "maintenance/reboot-does-not-wait-for-who-cannot-move",
            (leaving._leave_still, "draft.now - since < STUCK_S", "True"),
        ),
        m(
            "it waits at most so long",
            "maintenance/reboot-waits-at-most-so-long",
            (leaving.moves_away, "migrates and in_time and", "migrates and"),
        ),
        m(
            "a host that nobody leaves is not held up",
            "maintenance/reboot-of-an-empty-host-does-not-wait",
            (leaving._leave_still, "bool(waiting) and draft.now", "draft.now"),
        ),
        m(
            "guests that are held start nowhere else",
            "maintenance/announced-reboot-holds",
            (leaving.home_of, "return host.name", 'return ""'),
        ),
        m(
            "guests are not held for ever",
            "maintenance/held-in-vain",
            (
                leaving.home_of,
                "host is None or draft.now - guest.since >= draft.config.timers.hold_s",
                "host is None",
            ),
        ),
        m(
            "guests are not held for a host that a person took out of use",
            "maintenance/held-for-a-host-taken-out-of-use",
            (leaving.home_of, "unwanted or host.name in guest.avoid", "False"),
        ),
    ),
    "upkeep": (
        m(
            "of the guests of a drained host the longest leaves first",
            "maintenance/drain-the-longest-first",
            (
                departures.in_turn,
                "sign * moves.together_mib(draft, guest),",
                "0,",
            ),
        ),
        m(
            "a person's priority goes before who takes longest",
            "maintenance/drain-the-longest-first",
            (
                departures.in_turn,
                "-guest.policy.priority,",
                "0,",
            ),
        ),
        m(
            "a drain moves guests away",
            "migration/paused-automation-drains-nothing",
            (
                upkeep.carry_on,
                "outcomes = departures.send_away(draft, [each for each, _ in emptied])",
                "outcomes = {g.id: '' for each, _ in emptied for g in each.guests}",
            ),
        ),
        m(
            "hosts that are emptied share one queue",
            "maintenance/two-hosts-drained-at-once",
            (departures.send_away, "queue.sort(key=lambda item: rank[item[0].guest.id])", "pass"),
        ),
        m(
            "a plan that does not hold is refused",
            "maintenance/plan-that-does-not-hold-is-refused",
            (asks_plans.apply, "if against and not ask.anyway and not ask.dry_run:", "if False:"),
        ),
        m(
            "a policy that was changed is a difference from the plan",
            "maintenance/plan-that-does-not-hold-is-refused",
            (approval._changed, "if value != before:", "if False:"),
        ),
        m(
            "a guest that appeared is a difference from the plan",
            "maintenance/plan-that-does-not-hold-is-refused",
            (approval.differences, "if each.guest not in known", "if False"),
        ),
        m(
            "a plan that was applied is not begun again",
            "maintenance/plan-goes-on-with-the-next-coordinator",
            (asks_plans.apply, "host.drain.plan == ask.plan", "False"),
        ),
        m(
            "where an approved plan sends a guest is tried first",
            "maintenance/plan-goes-on-with-the-next-coordinator",
            (departures._go, "planned.to if planned is not None else", ""),
        ),
        m(
            "a destination of a plan that refuses is replaced",
            "maintenance/plan-whose-destination-refuses",
            (
                moves.way,
                'return Way("", preflight_together(draft, guest), tuple(instead))',
                "return Way(first, flights)",
            ),
        ),
        m(
            "a host that does not get empty holds the next one up for some time only",
            "maintenance/hardware-of-two-hosts-fails-and-the-first-is-stuck",
            (failing.why_not, "and not _stuck(draft, other)", ""),
        ),
        m(
            "a host that was begun with a moment ago is not stuck",
            "maintenance/hardware-of-two-hosts-fails-and-the-first-is-stuck",
            (failing._stuck, ">= STUCK_S", ">= 0.0"),
        ),
        m(
            "what a host was told of a standstill outlasts its session",
            "maintenance/deadline-taken-back-after-an-agent-restarted",
            (
                migration.progressed,
                "convergence.begun(guest.move.job, guest.move.allowed_s)",
                "Course(job=guest.move.job)",
            ),
        ),
        m(
            "maintenance begins when the host is empty",
            "maintenance/not-before-its-guests-have-left",
            (upkeep._drain, "if not left and not unprotected:", "if not unprotected:"),
            (
                upkeep.step,
                "if names := [guest.name for guest in guests_on(draft, host) if _occupies(draft, guest, host)]:",
                "if names := []:",
            ),
        ),
        m(
            "maintenance waits for guests that are not protected",
            "maintenance/not-before-it-is-empty",
            (upkeep._drain, "if not left and not unprotected:", "if not left:"),
        ),
        m(
            "a host in maintenance that is not empty any more is drained again",
            "maintenance/occupied-again-is-drained-again",
            (
                upkeep.step,
                "if names := [guest.name for guest in guests_on(draft, host) if _occupies(draft, guest, host)]:",
                "if names := []:",
            ),
        ),
        m(
            "a question is no guest",
            "maintenance/asked-about-a-new-guest",
            (upkeep._occupies, "return not asked_only or", "return True or"),
        ),
        m(
            "what was drained comes back into use",
            "maintenance/cordon-refused-and-repeated-drain",
            (upkeep.step, 'move_host(draft, host, HostEvent.UNDRAIN, "no longer to be drained")', "pass"),
        ),
        m(
            "a drain outlasts a reboot",
            "maintenance/maintenance-survives-the-coordinator",
            (
                upkeep.step,
                "case HostPhase.ONLINE if wish is not None:",
                "case HostPhase.ONLINE if wish is not None and wish.at < 0:",
            ),
        ),
        m(
            "an uncordon of a drained host is refused",
            "maintenance/drain-taken-back",
            (asks_upkeep.uncordon, "if host.drain is not None:", "if False:"),
        ),
        m(
            "an uncordon of what is not cordoned is refused",
            "maintenance/uncordon-of-what-is-not-cordoned",
            (asks_upkeep.uncordon, "if host.cordon is None:", "if False:"),
        ),
        m(
            "a host that has not joined is not drained",
            "maintenance/drain-of-a-host-that-has-not-joined-is-refused",
            (asks_upkeep.drain, "if joining:", "if False:"),
        ),
        m(
            "work on a host alarms nobody",
            "maintenance/libvirt-stopped-alarms-nobody",
            (members._conditions, "if bad and host.phase is HostPhase.MAINTENANCE:", "if False:"),
        ),
    ),
    "hosts whose hardware fails": (
        m(
            "policy says whether a host whose hardware fails is emptied",
            "maintenance/hardware-fails-and-people-are-told",
            (failing.why_not, "policy is OnCritical.ALERT", "False"),
        ),
        m(
            "nothing is emptied for what most hosts say",
            "maintenance/hardware-of-most-hosts-fails",
            (failing.why_not, "2 * (len(alike) + 1) > len(others) + 1", "False"),
        ),
        m(
            "other hosts have time to say the like",
            "maintenance/hardware-of-most-hosts-fails",
            (failing.step, "draft.now - view.fails_since < STANDS_S or", ""),
        ),
        m(
            "hosts whose hardware fails are emptied one at a time",
            "maintenance/hardware-of-two-hosts-fails",
            (failing.why_not, "if busy else", "if False else"),
        ),
        m(
            "a pause holds that as well",
            "maintenance/hardware-fails-while-automation-is-paused",
            (failing.why_not, "draft.cluster.pause is not None", "False"),
        ),
        m(
            "what a person takes back in use is not emptied again for the same",
            "maintenance/taken-back-in-use-though-its-hardware-fails",
            (failing.step, "if parts <= failed:", "if not parts:"),
        ),
        m(
            "nor when that could not be looked at for a moment",
            "maintenance/taken-back-and-its-hardware-is-not-seen-for-a-moment",
            (failing.step, "(host.failed - well - _gone(draft, host))", "(host.failed & parts)"),
        ),
        m(
            "a host that died before it was empty holds nobody up",
            "maintenance/hardware-fails-after-another-host-died-of-it",
            (failing.why_not, "other.phase not in OVER", "other.phase is not HostPhase.MAINTENANCE"),
        ),
    ),
    "drains with a deadline": (
        m(
            "what would be late is not begun",
            "maintenance/deadline-what-is-late-is-stopped",
            (deadline.too_late, "if ends_at <= at.stop_at or", "if True or"),
        ),
        m(
            "what does not converge is not called off where time is short",
            "maintenance/deadline-a-busy-guest-stands-still",
            (migration._watch, "or draft.now >= source.drain.deadline", "or True"),
        ),
        m(
            "it may stand still for what is left",
            "maintenance/deadline-a-busy-guest-stands-still",
            (deadline.step, "migration.may_stand_still(draft, guest, at.stop_at - draft.now)", "pass"),
        ),
        m(
            "a move that would be late is called off",
            "maintenance/deadline-a-move-under-way-is-called-off",
            (deadline.step, 'moves.cancel(draft, guest, f"it would be late: {host.name} goes down")', "pass"),
        ),
        m(
            "who does not shut down is destroyed",
            "maintenance/deadline-who-does-not-shut-down-is-destroyed",
            (deadline.step, "draft.now >= at.pull_at", "False"),
        ),
        m(
            "what is to be left alone is not stopped for a deadline",
            "maintenance/deadline-ignored-guests-are-left-alone",
            (deadline.step, " and guest.desired is not Desired.IGNORED", ""),
        ),
        m(
            "nothing is stopped after the deadline",
            "maintenance/deadline-nothing-is-stopped-after-it",
            (deadline.hurried, "draft.now < wish.deadline", "wish.deadline > 0"),
        ),
        m(
            "nothing is stopped while automation is paused",
            "maintenance/deadline-held-by-a-pause",
            (deadline.step, "draft.cluster.pause is not None or", ""),
        ),
        m(
            "a drain without a deadline takes it back",
            "maintenance/deadline-taken-back",
            (asks_upkeep._begin, " and not hurry", ""),
        ),
        m(
            "time that nobody led counts",
            "maintenance/deadline-nobody-led-when-it-came",
            (deadline.nearer, "away_s > 0", "False"),
        ),
        m(
            "with the hurry its standstill is taken back",
            "maintenance/deadline-taken-back-and-so-is-the-standstill",
            (migration._watch, "course = convergence.unhurried(course, guest.policy)", "pass"),
        ),
        m(
            "who must share a host waits for those who would be late",
            "maintenance/deadline-who-must-share-a-host-goes-together",
            (deadline.too_late, "moves.together_mib(draft, guest)", "guest.needs.memory_mib"),
        ),
        m(
            "who was stopped waits for those who must share its host and are being stopped",
            "maintenance/deadline-who-must-share-a-host-goes-together",
            (starts.place_waiting, "if mates := _being_stopped(draft, guest):", "if mates := []:"),
        ),
        m(
            "what is not stopped may arrive",
            "maintenance/deadline-ignored-guests-go-on-with-their-move",
            (deadline.step, "elif guest.desired is not Desired.IGNORED:", "else:"),
        ),
    ),
    "what people ask": (
        m(
            "a start of a guest that runs is refused",
            "operator/start-of-a-running-guest-is-refused",
            (asks_guests.start, "    if why:\n", "    if False:\n"),
        ),
        m(
            "a stop is for a guest that can be stopped",
            "operator/stop-of-a-stopped-guest-is-refused",
            (asks_guests.stop, "if guest.phase not in STOPPABLE and not _relocated(guest)", "if False"),
        ),
        m(
            "a stop over a recovery ends with the guest off",
            "operator/stop-while-it-recovers",
            (asks_guests.stop, 'retries.put_down(draft, wanted_off, f"{ask.by} asked to stop it")', "pass"),
        ),
        m(
            "a stop over a start is done when the guest runs",
            "operator/stop-while-it-starts",
            (
                guests.step,
                "            if guest.desired is Desired.STOPPED:\n                _stop_now(draft, guest)\n",
                "            pass\n",
            ),
        ),
        m(
            "a guest that is unprotected is left alone",
            "operator/unprotect-then-its-host-dies",
            (asks_guests.unprotect, "        onecopy.forget(draft, guest)\n", ""),
        ),
        m(
            "nothing to set is refused",
            "policies/set-nothing-is-refused",
            (asks_policies.set_, "if ask.desired is None and not fields:", "if False:"),
        ),
        m(
            "who is set to stopped is stopped",
            "policies/set-stopped-and-running",
            (
                asks_policies._want_stopped,
                "        draft.put_guest(changed(guest, desired=Desired.STOPPED))\n",
                "        pass\n",
            ),
        ),
        m(
            "who is ignored keeps so over a start",
            "policies/ignored-guest-is-started-once",
            (asks_policies.kept_ignored, "return Desired.IGNORED if", "return desired if"),
        ),
        m(
            "a quarantine is lifted by a person",
            "fencing/quarantine-is-lifted",
            (asks_hosts.clear_quarantine, "host.conditions - {Condition.QUARANTINED}", "host.conditions"),
        ),
        m(
            "what is not quarantined is not cleared",
            "fencing/quarantine-is-lifted",
            (asks_hosts.clear_quarantine, "if Condition.QUARANTINED not in host.conditions:", "if False:"),
        ),
    ),
}
