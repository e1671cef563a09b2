"""Guards of the set, of tickets, proofs, seals, epochs, restored stores and protection, in the coordinator."""

from __future__ import annotations

from dr.core import (
    asks_guests,
    asks_hosts,
    decide,
    definitions,
    detector,
    fleet,
    guests,
    inventories,
    members,
    onecopy,
    quorum,
    restored,
    silence,
    starts,
    whereabouts,
)
from dr.core.state import Draft
from dr.sim.link import Link
from tests.sim.mutants.mutant import m

NOT_ALONE = "if len(guest.may_run_on) != 1:"

GROUPS = {
    "may_run_on": (
        m(
            "a start while another place may run it",
            "starts/crash-that-nobody-confirms",
            (onecopy.issue_start, "if guest.may_run_on:", "if False:"),
            (starts.place_waiting, "and not guest.may_run_on and", "and"),
        ),
        m(
            "a place leaves its set when a start was not answered",
            "one-copy/virsh-start-of-a-stopped-guest-is-refused",
            (
                whereabouts.ask_testimony,
                "    view = draft.view(host.name)\n",
                "    view = draft.view(host.name)\n"
                "    from dr.model.base import changed\n"
                "    for guest in guests:\n"
                "        draft.put_guest(changed(guest, may_run_on=()))\n",
            ),
        ),
        m(
            "a place is in its set before its ticket is sent",
            "one-copy/agent-dies-over-a-start",
            (
                onecopy.issue_start,
                "guest = add_place(draft, guest, host, generation)",
                "guest = changed(guest, generation=generation)",
            ),
        ),
        m(
            "a destination is in the set before it lets the guest in",
            "migration/where-it-fits-best",
            (
                onecopy.issue_receive,
                "guest = add_place(draft, guest, host, generation)",
                "guest = changed(guest, generation=generation)",
            ),
        ),
        m(
            "a migration starts only when the set is exactly its source",
            "one-copy/virsh-start-of-a-stopped-guest-is-refused",
            (whereabouts.sole_holder, NOT_ALONE, "if not guest.may_run_on:"),
        ),
        m(
            "a stop leaves the place until its host has testified",
            "operator/stop-that-libvirt-never-answers",
            (guests._step_stopping, "if not guest.may_run_on:", "if True:"),
        ),
        m(
            "a stop that failed is no stop",
            "operator/a-guest-that-does-not-heed-shutdown",
            (guests.stop_ended, "running_on(draft, after, host.name,", "retries.put_down(draft, after,"),
        ),
        m(
            "a guest that is found running is in its set",
            "restore/nobody-is-left-who-knows",
            (
                inventories._seen_active,
                "guest = onecopy.add_place(draft, guest, host, guest.generation)",
                "return",
            ),
        ),
        m(
            "one that runs twice is for a person to judge",
            "fencing/liar-that-nobody-contradicts",
            (
                inventories._seen_active,
                "if len(running) > 1 and guest.phase is not GuestPhase.ERROR:",
                "if False:",
            ),
        ),
        m(
            "one operation for each guest",
            "one-copy/stop-while-it-is-cleaned-is-refused",
            (onecopy._refuse_ticket, "if busy is not None:", "if False:"),
        ),
        m(
            "a guest that is not seen is not taken for gone: its host is asked",
            "operator/crashed-guest-waits-for-resume",
            (
                guests.gone,
                '    reason = facts.reason if facts is not None else ""\n',
                '    reason = facts.reason if facts is not None else ""\n'
                "    guest = changed(guest, may_run_on=())\n",
            ),
        ),
    ),
    "ticket and generation": (
        m(
            "a ticket carries a new generation",
            "one-copy/agent-dies-over-a-start",
            (onecopy.issue_start, "generation = guest.generation + 1", "generation = guest.generation"),
        ),
        m(
            "a destroy ticket carries a new generation",
            "one-copy/virsh-start-of-a-stopped-guest-is-refused",
            (onecopy.issue_stop, "generation = guest.generation + 1", "generation = guest.generation"),
        ),
        m(
            "guests that are unprotected leave their generations behind",
            "one-copy/protected-again-above-old-seals",
            (onecopy.forget, "max(draft.cluster.generation_floor, guest.generation)", "0"),
        ),
        m(
            "an answer counts only in the session of its question",
            "one-copy/answer-of-a-session-that-is-over",
            (Draft.forget_session, "pending.host == name and pending.kind in OF_SESSION", "False"),
            (
                decide._answered,
                "pending is None or draft.view(event.host).session != event.session",
                "pending is None",
            ),
        ),
        m(
            "an answer to an earlier start says nothing about this one",
            "one-copy/stop-while-it-is-cleaned-is-refused",
            (onecopy._refuse_ticket, "if busy is not None:", "if False:"),
            (
                guests.start_ended,
                "guest.generation != pending.generation or guest.phase is not GuestPhase.STARTING",
                "guest.phase is not GuestPhase.STARTING",
            ),
        ),
        m(
            "no leave to unprotect while a ticket is out",
            "operator/unprotect-while-it-starts-is-refused",
            (asks_guests.unprotect, "    if busy:\n", "    if False:\n"),
        ),
        m(
            "nor while only an earlier leader knew of it",
            "operator/unprotect-after-a-crash-while-it-starts-is-refused",
            (asks_guests.unprotect, "if guest.phase is GuestPhase.UNKNOWN", "if False"),
        ),
        m(
            "no leave to unprotect over a start of an earlier leader",
            "operator/unprotect-while-an-earlier-leader-starts-it",
            (asks_guests.unprotect, "if guest.phase in UNDER_WAY", "if False"),
        ),
    ),
    "epoch": (
        m(
            "hello is no acknowledgement of the epoch",
            "operator/start-answered-after-the-coordinator-returned",
            (members.connected, "acked_epoch=0,", "acked_epoch=draft.cluster.epoch,"),
        ),
        m(
            "a ticket only for a host that follows this leader",
            "operator/start-answered-after-the-coordinator-returned",
            (onecopy._refuse_ticket, "if view.acked_epoch != draft.cluster.epoch:", "if False:"),
            (members.connected, "acked_epoch=0,", "acked_epoch=draft.cluster.epoch,"),
        ),
        m(
            "a new leader waits for more than half",
            "black-start/autostart-meets-the-hook",
            (quorum._too_few_know, "(2 * len(telling) <= len(members) or not remembers)", "False"),
        ),
        m(
            "an agent that lost its memory cannot vouch for the store",
            "restore/two-that-forgot-cannot-vouch-for-the-store",
            (quorum._too_few_know, "if not host.forgot", ""),
        ),
        m(
            "nor can the dead, who only count beside one that remembers",
            "restore/neither-the-forgetful-nor-the-dead-vouch-for-the-store",
            (quorum._too_few_know, " or not remembers", ""),
        ),
        m(
            "an earlier leader's proof of death is shown anew",
            "store/earlier-leaders-proof-is-shown-anew",
            (quorum.proven_over, "return off and host.dead_at >= draft.state.started_at", "return off"),
        ),
        m(
            "each term is a new epoch",
            "store/coordinator-dies-right-after-the-decision",
            (decide._started, "cluster.epoch + 1, event", "max(cluster.epoch, 1), event"),
        ),
        m(
            "a session that is over says nothing",
            "one-copy/beats-of-a-session-that-is-over",
            (Link._deliver_up, "self.coordinator_open and ", ""),
            (members.heard, "if view.session != event.session:", "if False:"),
        ),
        m(
            "an inventory of a session that is over says nothing",
            "one-copy/report-of-a-session-that-is-over",
            (members.reported, "view.session != event.session or host is None", "host is None"),
        ),
        m(
            "the end of an older session is not that of the newer",
            "black-start/highest-priority-first",
            (members.disconnected, "if view.session != event.session:", "if False:"),
        ),
    ),
    "seal": (
        m(
            "a testimony that is not sealed",
            "one-copy/start-comes-late",
            (
                whereabouts.ask_testimony,
                "name=guest.name, generation=guest.generation)",
                "name=guest.name, generation=0)",
            ),
            (onecopy.accept_testimony, " or place.generation > testimony.sealed", ""),
            (guests.start_ended, "guest.generation != pending.generation or ", ""),
        ),
        m(
            "`present` and `unknown` taken for `absent`",
            "operator/a-guest-that-does-not-heed-shutdown",
            (
                onecopy.accept_testimony,
                "guest is None or testimony.sighting is not Sighting.ABSENT",
                "guest is None",
            ),
            (onecopy.accept_testimony, " or place.generation > testimony.sealed", ""),
        ),
        m(
            "a testimony is of the boot that gave it",
            "fencing/hosts-that-all-restart-are-not-set-aside",
            (members._booted, "left = onecopy.prove_boot_over(draft, proof, now=host)", "left = []"),
            (
                onecopy.accept_testimony,
                "(place.host, place.boot_id) != (host.name, host.boot_id)",
                "place.host != host.name",
            ),
        ),
        m(
            "only a host that has the list is asked",
            "one-copy/asked-when-it-has-the-list",
            (
                whereabouts.ask_testimony,
                "if host.protected_version != draft.cluster.protected_version:",
                "if False:",
            ),
        ),
    ),
    "proof 1: power": (
        m(
            "every device of a level must be off",
            "fencing/second-outlet-stays-on",
            (
                detector.why_not_off,
                "for device in levels[report.level].devices:",
                "for device in levels[report.level].devices[:1]:",
            ),
        ),
        m(
            "no witness and power off is no death",
            "fencing/no-witness-and-power-off-is-no-death",
            (
                silence._judge,
                "    evidence = looks.in_words(",
                "    if verdict is Verdict.HOLD and power_says(draft, host) == 'off':\n"
                "        verdict = Verdict.DEAD if peers_say(draft.view(host.name)) == 'none' else verdict\n"
                "    evidence = looks.in_words(",
            ),
        ),
        m(
            "a device that was read before this round says nothing now",
            "detection/power-read-long-ago-is-no-evidence",
            (detector.power_says, "if view.power_at < view.round_at:", "if False:"),
        ),
        m(
            "who answers a question asked after the proof voids it",
            "fencing/liar-that-nobody-contradicts",
            (
                members.heard,
                "and event.fresh > host.dead_at",
                "and False",
            ),
        ),
    ),
    "proof 2: reboot": (
        m(
            "a newer boot stands in for one of which nothing is known",
            "restore/new-host-took-the-guest",
            (onecopy.prove_boot_over, "if now is not None and unsure:", "if False:"),
        ),
        m(
            "only another boot proves that one is over",
            "one-copy/agent-dies-over-a-start",
            (members.connected, "bool(host.boot_id) and host.boot_id != hello.boot_id", "bool(host.boot_id)"),
        ),
        m(
            "a boot that is over takes only its own places",
            "restore/older-store-holds-until-a-person-looked",
            (
                onecopy.prove_boot_over,
                "if (place.host, place.boot_id) == (proof.host, proof.boot_id):",
                "if place.boot_id:",
            ),
        ),
        m(
            "a newer boot proves that the old one is over",
            "one-copy/frozen-host-thaws-after-failover",
            (members.connected, "        host = _booted(draft, host, old_boot)\n", "        pass\n"),
        ),
    ),
    "proof 4: self": (
        m(
            "a waiting copy is not the guest running",
            "migration/copy-resumed-by-hand",
            (whereabouts.seen_active, " or facts.part in COPIES", ""),
        ),
        m(
            "what an earlier boot ran is not seen now",
            "fencing/hosts-that-all-restart-are-not-set-aside",
            (members._booted, "left = onecopy.prove_boot_over(draft, proof, now=host)", "left = []"),
            (whereabouts.seen_active, "host.boot_id == boot_id and ", ""),
        ),
        m(
            "what was seen before the link broke is not seen now",
            "one-copy/not-seen-since-its-link-broke",
            (whereabouts.seen_active, " and view.session and view.inventory", ""),
        ),
        m(
            "a host counts only when it is clean",
            "failover/host-returns-and-is-used-again",
            (members._maybe_online, "    if waits:\n", "    if False:\n"),
        ),
        m(
            "a host counts only when it has testified",
            "operator/join-while-another-is-silent",
            (members._maybe_online, "    if unasked:\n", "    if False:\n"),
        ),
    ),
    "proof 5: operator": (
        m(
            "a person's word is refused while the host lives",
            "operator/confirm-down-against-evidence-is-refused",
            (asks_hosts.confirm_down, "    if why:\n        return no(ask, *soon, *why)\n", ""),
        ),
        m(
            "a person's word is refused while its agent answers",
            "operator/confirm-down-of-a-living-host-is-refused",
            (asks_hosts.confirm_down, "if view.session and not is_late(draft, host):", "if False:"),
        ),
        m(
            "a person's word is refused while a witness hears the host",
            "operator/confirm-down-against-evidence-is-refused",
            (asks_hosts.confirm_down, "peers_say(view) is Peers.ANSWERS and not blind(draft)", "False"),
        ),
        m(
            "a person's word is refused while its device says on",
            "operator/confirm-down-against-evidence-is-refused",
            (asks_hosts.confirm_down, "if power_says(draft, host) is Power.ON:", "if False:"),
        ),
        m(
            "a person is not believed before a look that is under way has ended",
            "operator/confirm-down-in-the-middle-of-a-look-is-refused",
            (
                asks_hosts._not_looked_yet,
                "if looks.in_round(draft, host.name) and not silent:",
                "if view.round_at <= view.heard or old:",
            ),
        ),
        m(
            "a person's word has a reason",
            "operator/confirm-down-without-a-reason-is-refused",
            (asks_hosts.confirm_down, "if not ask.reason:", "if False:"),
        ),
    ),
    "rule 1: restored store": (
        m(
            "a store that is older than its agents",
            "restore/older-store-holds-until-a-person-looked",
            (restored.older_than, "    cluster = draft.cluster\n", '    return ""\n'),
        ),
        m(
            "an agent knows a newer epoch",
            "restore/older-store-holds-until-a-person-looked",
            (restored.older_than, "if memory.epoch > cluster.epoch:", "if False:"),
            (restored.older_than, "if memory.revision > known:", "if False:"),
            (restored.older_than, "if guest is not None and sealed > guest.generation:", "if False:"),
        ),
        m(
            "an agent knows a newer revision",
            "restore/guest-that-only-agents-know",
            (restored.older_than, "if memory.revision > known:", "if False:"),
        ),
        m(
            "an older store doubts every place",
            "restore/older-store-holds-until-a-person-looked",
            (onecopy.doubt_everything, "guest = add_every_place(draft, guest)", "pass"),
        ),
        m(
            "an older store jumps generations",
            "restore/seals-above-the-older-store",
            (onecopy.doubt_everything, " + GENERATION_JUMP", ""),
        ),
        m(
            "a restored store starts nothing before it was looked over",
            "restore/older-store-by-command",
            (quorum.hold, "if draft.cluster.restored:", "if False:"),
            (
                starts.place_waiting,
                "if draft.cluster.pause is not None and not asked_to_start(draft, guest):",
                "if False:",
            ),
        ),
        m(
            "a store is bound to its machine",
            "restore/copied-to-another-machine",
            (decide._started, "if cluster.machine != event.machine:", "if False:"),
        ),
        m(
            "guests that only agents know are taken over",
            "restore/guest-that-only-agents-know",
            (
                restored.merge,
                "            onecopy.adopt_unknown(draft, entry.guest, entry.name, entry.generation)\n",
                "            pass\n",
            ),
        ),
        m(
            "a guest that only agents know may run anywhere",
            "restore/guest-that-only-agents-know",
            (onecopy.adopt_unknown, "return add_every_place(draft, guest)", "return guest"),
        ),
        m(
            "a host that only agents know stands in every set",
            "restore/new-host-took-the-guest",
            (restored.merge, "if entry.holder and draft.host(entry.holder) is None:", "if False:"),
        ),
    ),
    "rule 4: protection begins": (
        m(
            "protection begins with every host",
            "one-copy/silent-host-stays-in-the-set",
            (
                onecopy.begin_protection,
                "add_every_place(draft, guest)",
                "add_place(draft, guest, next(iter(draft.hosts())), guest.generation)",
            ),
        ),
        m(
            "a host that joins stands in every set",
            "operator/join-while-another-is-silent",
            (members.connected, "onecopy.add_place(draft, guest, host, guest.generation)", "pass"),
        ),
        m(
            "a host that hello again acknowledges the list again",
            "one-copy/lost-memory-is-told-the-list-again",
            (members.connected, "protected_version=0", "protected_version=host.protected_version"),
        ),
        m(
            "a start where the hook is proven and the list is known",
            "one-copy/hook-broken-host-takes-nobody",
            (
                onecopy._refuse_host,
                "if not host.facts.hook.proven or host.protected_version != draft.cluster.protected_version:",
                "if False:",
            ),
            (fleet._blockers, "if not host.facts.hook.proven:", "if False:"),
        ),
        m(
            "a guest is protected where the hook is proven",
            "one-copy/hook-breaks-while-protection-waits",
            (guests._step_protecting, "if not draft.require_host(holder).facts.hook.proven:", "if False:"),
        ),
        m(
            "every host must have the list before protection begins",
            "hand-made/new-guest-is-protected-and-recovered",
            (asks_guests.protect, "    list_changed(draft)\n", ""),
            (
                definitions.described,
                "if needs.watched != watched_before or name_before != guest.name:",
                "if False:",
            ),
        ),
        m(
            "a host without a proven hook is not online",
            "one-copy/hook-breaks-while-a-host-returns",
            (members._maybe_online, "if not host.facts.hook.proven:", "if False:"),
        ),
        m(
            "a guest that runs twice is not protected",
            "operator/protect-what-runs-twice",
            (asks_guests.protect, "if len(running) > 1:", "if False:"),
        ),
        m(
            "a guest is protected once",
            "operator/protect-twice-is-refused",
            (asks_guests.protect, "    if have:\n", "    if False:\n"),
        ),
        m(
            "a guest that could not start elsewhere is not protected",
            "hand-made/tied-to-its-host-is-not-protected",
            (
                definitions.described,
                "if guest.tied and guest.phase is GuestPhase.PROTECTING:",
                "if False:",
            ),
        ),
    ),
    "rule 6: removal": (
        m(
            "a host that may run guests is not removed",
            "operator/remove-a-host-that-holds-a-guest-is-refused",
            (asks_hosts.remove, "if names:  # rule 6", "if False:"),
        ),
        m(
            "a host that is being fenced is not removed",
            "operator/remove-while-it-is-fenced-is-refused",
            (asks_hosts.remove, "if host.phase is HostPhase.FENCING:", "if False:"),
        ),
    ),
    "nothing lost": (
        m(
            "leftovers are removed only where the guest runs elsewhere",
            "operator/stop-and-start",
            (
                onecopy.issue_clean,
                'if guest.phase is not GuestPhase.RUNNING or holder in ("", host.name):',
                "if False:",
            ),
            (
                members._clean,
                'sole_holder(draft, guest) not in ("", host.name)',
                "sole_holder(draft, guest) != host.name",
            ),
            (members._clean, "guest is None or guest.phase is not GuestPhase.RUNNING", "guest is None"),
        ),
        m(
            "leftovers are removed before a host counts",
            "one-copy/leftovers-are-removed-before-a-host-counts",
            (members._maybe_online, "if names := leftovers(draft, host):", "if False:"),
            (
                members._clean,
                "    for guest_id, facts in view.guests.items():\n",
                "    for guest_id, facts in ():\n",
            ),
        ),
    ),
}
