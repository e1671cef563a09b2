"""Guards of moves: rule 2, what may move and where, and how every move ends."""

from __future__ import annotations

from dr.core import (
    asks_guests,
    asks_moves,
    checks,
    convergence,
    guests,
    inventories,
    links,
    migration,
    moves,
    onecopy,
    operations,
    preflight,
    starts,
    upkeep,
    whereabouts,
)
from tests.sim.mutants.mutant import m

GROUPS = {
    "rule 2: migration's end": (
        m(
            "a copy is resumed only on the word of the source that this job migrated",
            "migration/its-owner-ends-it",
            (
                onecopy.accept_testimony,
                "here == (move.source, move.source_boot) and testimony.left_by == move.job",
                "here == (move.source, move.source_boot)",
            ),
        ),
        m(
            "after a proof that the source is dead its copy is not resumed",
            "migration/its-owner-ends-it",
            (
                migration._resolve,
                "        _undo(\n",
                '        _stage(draft, guest, MoveStage.MIGRATED, "")\n        return\n        _undo(\n',
            ),
        ),
        m(
            "a resume waits for the source to leave the set",
            "migration/last-word-lost-then-guest-crashes",
            (
                migration._resolve,
                "    source = draft.host(move.source)\n",
                "    guest = changed(guest, move=changed(move, stage=MoveStage.MIGRATED))\n"
                "    draft.put_guest(guest)\n"
                "    return\n"
                "    source = draft.host(move.source)\n",
            ),
            (onecopy.issue_resume, " or places(guest) != {here}", ""),
        ),
        m(
            "the copy is destroyed before the guest goes on where it was",
            "migration/can-never-be-resumed",
            (
                migration._back,
                "if there in places(guest):",
                "if False:",
            ),
            (
                migration._back,
                "if places(guest) != {here}:",
                "if here not in places(guest):",
            ),
            (onecopy.issue_resume, " or places(guest) != {here}", ""),
        ),
        m(
            "a copy that waits for its resume is not destroyed",
            "migration/coordinator-dies-while-it-copies",
            (
                inventories._seen_active,
                "if facts.part in COPIES and (move is None or host.name != move.destination):",
                "if facts.part in COPIES:",
            ),
            (onecopy.issue_discard, "or not (undone or (stray and not expected))", ""),
        ),
        m(
            "a copy that belongs to no move is destroyed",
            "migration/store-restored-in-the-middle",
            (inventories._seen_active, "if not onecopy.discarded_lately(draft, guest, host):", "if False:"),
        ),
        m(
            "a copy is destroyed by ticket and its place goes by testimony",
            "migration/called-off",
            (
                onecopy.issue_discard,
                "    guest = add_place(draft, guest, host, generation)\n",
                "    guest = changed(guest, generation=generation, may_run_on=tuple(\n"
                "        place for place in guest.may_run_on if place.host != host.name))\n"
                "    draft.put_guest(guest)\n",
            ),
        ),
        m(
            "the end of a migration that was not seen is asked for",
            "migration/coordinator-dies-over-it",
            (migration._resolve, "not _ask(draft, guest, source)", "True"),
        ),
        m(
            "how a job ended is for the source to say, not for the job",
            "migration/source-hangs-at-the-switch-over",
            (migration.sent, "MoveStage.UNRESOLVED,", "MoveStage.UNDOING,"),
        ),
        m(
            "a word of before this stage says nothing about it",
            "migration/the-second-try-is-judged-by-itself",
            (migration._said, "and said[1] >= move.at", ""),
        ),
        m(
            "a source that is still sending has not stayed",
            "migration/no-progress",
            (migration._resolve, " and said.part is not Part.LEAVING", ""),
        ),
        m(
            "a source that was left paused is resumed",
            "migration/libvirtd-dies-at-the-switch-over",
            (migration._at_source, "elif not stands:", "elif True:"),
        ),
        m(
            "a guest that was lost on its way starts anew",
            "migration/source-dies",
            (migration.step, "        _nowhere(draft, guest, move)\n", "        pass\n"),
        ),
        m(
            "one whose owner ended it over its move stays off",
            "migration/its-owner-ends-it",
            (
                migration._nowhere,
                "guest.desired is Desired.STOPPED or vanished or by_owner",
                "False",
            ),
        ),
        m(
            "a resume is tried again",
            "migration/can-never-be-resumed",
            (migration._forward, "elif move.stage is MoveStage.RESUMING:", "elif False:"),
            (
                migration.resumed,
                '        _not_resumed(draft, after, f"{answer.outcome}: {answer.reason}")\n',
                "        pass\n",
            ),
        ),
        m(
            "a copy that can never be resumed is given up",
            "migration/can-never-be-resumed",
            (migration._not_resumed, "move.tries >= RESUMES_MAX", "False"),
        ),
        m(
            "a leave to enter that was not answered is taken back",
            "migration/answer-of-the-destination-is-lost",
            (
                migration.step,
                '            _undo(draft, guest, f"whether {move.destination} lets it in was not seen")\n',
                "            pass\n",
            ),
        ),
        m(
            "a migration that never ends is ended",
            "migration/no-progress",
            (
                migration._watch,
                "if not why and draft.now - move.at > guest.policy.move_s:",
                "if False:",
            ),
        ),
        m(
            "a guest that was suspended stays so",
            "hand-made/suspended-guest-moves-as-it-is",
            (onecopy.issue_resume, "suspended=forward and move.suspended", "suspended=False"),
        ),
        m(
            "a guest that goes on again is not sent as one that was suspended",
            "hand-made/suspended-guest-resumed-before-it-is-sent",
            (onecopy.issue_migrate, "        suspended=suspended,\n", ""),
        ),
        m(
            "a migration that does not converge is ended before its time is over",
            "migration/busy-and-no-longer-standstill-is-allowed",
            (migration._watch, "why = why or course.hopeless", "pass"),
        ),
        m(
            "a guest stands still for no longer than its policy allows",
            "migration/busy-and-no-longer-standstill-is-allowed",
            (convergence.seen, "downtime_s < wanted_s <= policy.move_downtime_s", "downtime_s < wanted_s"),
        ),
        m(
            "a migration is not given up while QEMU slows the guest down further",
            "migration/hot-it-is-slowed-down",
            (convergence.seen, "0 if gets_on or waits else", "0 if gets_on else"),
        ),
        m(
            "a longer standstill that policy allows is given",
            "migration/busy-it-stands-still-for-longer",
            (migration._watch, "course.downtime_s != course.told_s", "False"),
        ),
    ),
    "moves: who, where, one at a time": (
        m(
            "one move of a guest at a time",
            "migration/of-a-stopped-guest-is-refused",
            (
                preflight.not_from_here,
                "if guest.move is not None and guest.phase is not GuestPhase.MIGRATING:",
                "if False:",
            ),
            (preflight.not_from_here, "if guest.phase is not GuestPhase.RUNNING:", "if False:"),
        ),
        m(
            "a second move of a guest that waits for its first",
            "migration/one-move-at-a-time",
            (
                preflight.not_from_here,
                "if guest.move is not None and guest.phase is not GuestPhase.MIGRATING:",
                "if False:",
            ),
        ),
        m(
            "a move that has passed its switch-over is not called off",
            "migration/resumed-when-libvirt-is-back",
            (moves.why_not_cancel, "if move.stage in (MoveStage.MIGRATED, MoveStage.RESUMING):", "if False:"),
        ),
        m(
            "a guest that is not moved cannot be called off",
            "migration/nothing-to-call-off",
            (asks_moves.cancel, "    if why:\n", "    if False:\n"),
        ),
        m(
            "a move that is called off ends",
            "migration/a-new-rule-forbids-it",
            (
                migration._watch,
                "    if why:\n        moves.ask_abort",
                "    if False:\n        moves.ask_abort",
            ),
        ),
        m(
            "a move that is called off before it is sent is not sent",
            "migration/called-off-before-it-is-sent",
            (migration.received, "if why := move.why or moves.unwanted(draft, guest, host):", "if False:"),
            (migration._watch, "why = move.why or (", "why = ("),
            (migration._watch, "if why and not move.why:", "if why:"),
        ),
        m(
            "a guest is not moved into a host that was set aside meanwhile",
            "migration/destination-is-cordoned",
            (moves.unwanted, "if Condition.CORDONED in host.conditions", "if False"),
            (
                moves.unwanted,
                "if host.phase in (HostPhase.DRAINING, HostPhase.MAINTENANCE):",
                "if False:",
            ),
        ),
        m(
            "a rule that comes under way calls a move off",
            "migration/a-new-rule-forbids-it",
            (moves.unwanted, "if draft.settings is not None and", "if False and"),
        ),
        m(
            "what stands against a host stands against a move to it",
            "migration/against-a-strict-rule-is-refused",
            (
                preflight.against,
                "for reason in placement.against(draft, guest, host, along=along, with_disks=with_disks):",
                "for reason in ():",
            ),
        ),
        m(
            "a guest does not move to where it is",
            "migration/nothing-to-call-off",
            (preflight.against, "if to == source:", "if False:"),
            (onecopy.issue_receive, "if host.name == source.name:", "if False:"),
        ),
        m(
            "a paused automation begins no move by itself",
            "migration/paused-automation-drains-nothing",
            (preflight._of_cluster, "if draft.cluster.pause is not None and not asked:", "if False:"),
        ),
        m(
            "what ties a guest to its host keeps it there",
            "migration/snapshots-keep-it-there",
            (preflight._standing, "for tie in facts.ties or ():", "for tie in ():"),
        ),
        m(
            "a move's job says whether its guest answers there",
            "migration/answers-again-after-it",
            (operations._close_over_guests, "if arrived and checks.awaited(draft, guest):", "if False:"),
        ),
        m(
            "a drain's job waits until its guests answer where they are",
            "migration/answers-again-after-it",
            (upkeep.close_if_over, "if any(checks.awaited(draft, guest) for guest in arrived):", "if False:"),
        ),
        m(
            "a check of a guest that was moved is tried",
            "migration/answers-again-after-it",
            (checks.moved_by, "operation.kind in MOVED", "False"),
        ),
        m(
            "a guest does not go live where its CPU is not",
            "migration/its-cpu-is-not-there",
            (preflight._of_destination, "(found := cpus.check(draft, guest, host)) is not None", "False"),
        ),
        m(
            "a host is chosen that has the guest's CPU",
            "migration/where-its-cpu-is",
            (preflight.elsewhere, "*(refusing for refusing, _ in cpu)", "()"),
        ),
        m(
            "a drained host's guests go where their CPU is",
            "maintenance/drain-among-different-cpus",
            (preflight.elsewhere, "*(refusing for refusing, _ in cpu)", "()"),
        ),
        m(
            "a guest that a drain cannot take along goes when it can",
            "maintenance/drain-waits-for-a-backup",
            (preflight._standing, "for tie in facts.ties or ():", "for tie in ():"),
        ),
        m(
            "a guest that stands still after an I/O error is not moved",
            "migration/io-error-keeps-it-there",
            (preflight._standing, 'if not facts.runs and facts.reason == "ioerror":', "if False:"),
            (preflight._standing, "elif not facts.runs:", "elif False:"),
        ),
        m(
            "a restored store moves nothing",
            "restore/moves-nothing",
            (preflight._of_cluster, "if reason := quorum.hold(draft):", 'if reason := "":'),
            (onecopy._refuse_host, "if reason := hold(draft):", 'if reason := "":'),
            (onecopy.issue_migrate, "if reason := hold(draft):", 'if reason := "":'),
        ),
        m(
            "moves out of a host are bounded",
            "migration/one-move-at-a-time",
            (
                moves._begin,
                "if bounded and now.leaving.get(holder, 0) >= limits.moves_out_per_host:",
                "if False:",
            ),
        ),
        m(
            "moves into a host are bounded",
            "migration/bounded-into-one-host",
            (moves._begin, "if bounded and count >= limits.moves_in_per_host", "if False"),
        ),
        m(
            "a destination that turned a guest away is not asked again at once while there is another",
            "maintenance/drain-whose-destination-refuses",
            (links.wary, "if why_not_yet(draft, guest, name)", "if False"),
        ),
        m(
            "a destination that turned a guest away is asked again after a pause",
            "maintenance/drain-whose-only-destination-refuses",
            (moves._begin, "(reason := links.why_not_yet(draft, guest, to))", "(reason := '')"),
        ),
        m(
            "moves that had to wait begin when hands are free",
            "migration/bounded-into-one-host",
            (moves.begin_queued, "for operation in draft.open_operations():", "for operation in ():"),
        ),
        m(
            "a move that was queued is judged anew",
            "migration/waited-too-long",
            (
                moves.begin_queued,
                "if why := objections(draft, free, to, asked=True, along=along):",
                "if why := ():",
            ),
        ),
        m(
            "a move that an earlier leader called off is called off",
            "migration/called-off-before-the-coordinator-dies",
            (
                migration._resolve,
                "said is None or said.sighting is not Sighting.ABSENT",
                "said is not None and said.part is Part.LEAVING",
            ),
        ),
        m(
            "who ended a guest in the middle of its move is asked before it starts anew",
            "migration/its-owner-ends-it-and-the-coordinator-dies",
            (migration._nowhere, "if _will_tell(draft, host, move, guest.id):", "if False:"),
        ),
        m(
            "a guest that moves is not unprotected",
            "migration/unprotect-over-it-is-refused",
            (asks_guests.unprotect, "    if moving:\n", "    if False:\n"),
        ),
        m(
            "a stop over a move ends with the guest off",
            "migration/unprotect-over-it-is-refused",
            (
                asks_guests.stop,
                'moves.cancel(draft, wanted_off, f"{ask.by} asked to stop it")',
                'moves.cancel(draft, guest, f"{ask.by} asked to stop it")',
            ),
        ),
        m(
            "a relocation is refused where nobody could take the guest",
            "migration/relocate-to-nowhere-is-refused",
            (
                preflight.cold,
                "        if not to:\n            found.append(",
                "        if False:\n            found.append(",
            ),
        ),
        m(
            "a relocated guest starts where it was asked for",
            "migration/relocate-to-the-fuller-host",
            (
                starts._elsewhere,
                "if to is not None and not placement.why_not(draft, guest, to):",
                "if False:",
            ),
        ),
        m(
            "a relocated guest starts only when its stop is proven",
            "maintenance/announced-shutdown-fails-over",
            (
                guests._step_stopping,
                "    if not guest.may_run_on:\n        operation",
                "    if True:\n        operation",
            ),
            (starts.place_waiting, "and not guest.may_run_on and", "and"),
            (onecopy.issue_start, "if guest.may_run_on:", "if False:"),
        ),
        m(
            "a copy that waits is no second one that runs",
            "migration/where-it-fits-best",
            (
                inventories._seen_active,
                "running = [name for name in running if name != move.destination or (copy is not None and copy.runs)]",
                "pass",
            ),
            (whereabouts.seen_active, " or facts.part in COPIES", ""),
        ),
        m(
            "people are told of a copy that was resumed by hand",
            "migration/copy-resumed-by-hand",
            (
                migration._resumed_by_hand,
                "if not move.ran:",
                "if True:",
            ),
        ),
    ),
}
