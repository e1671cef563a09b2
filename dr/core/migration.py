"""A live migration as a two-phase commit: each stage, and how every way it can go wrong is brought to its end.

Level-triggered as all else: `step` looks at the stage, the set and what hosts say now. Not here: who may move
(`core.moves`), places and tickets (`core.onecopy`).

The commit is in one place: the source's testimony that this very job took the guest away (`onecopy.accept_testimony`).
Before it, everything ends with the guest at the source and the copy destroyed; after it, with the guest at the
destination. Whatever else proves the source empty leads to a cold start: the copy may be older than the disk.
"""

from __future__ import annotations

from dr.core import (
    convergence,
    definitions,
    dirtying,
    guests,
    leaving,
    links,
    moves,
    onecopy,
    retries,
)
from dr.core.convergence import Course
from dr.core.looks import addresses_of
from dr.core.state import Draft
from dr.core.tables import GuestEvent, move_guest, say
from dr.core.volatile import TICKETED, Pending
from dr.core.whereabouts import ask_testimony, places, seen_active, sole_holder
from dr.core.wishes import standing
from dr.model.base import GuestId, HostName, changed
from dr.model.commands import AllowDowntime, Answer, Outcome, Testimony
from dr.model.effects import Send
from dr.model.facts import DomainState, Part, Progress, Sighting
from dr.model.records import (
    Desired,
    GuestPhase,
    GuestRecord,
    HostRecord,
    Move,
    MoveStage,
    Rung,
)

RESUMES_MAX = 5  # a copy that cannot be resumed so often is given up, and the guest starts cold
TELLS_S = 5.0  # so long after the guest ended, its host has time to tell how that came
RESUME_AGAIN_S = 1.0  # doubles with each try


# ---- answers


def received(draft: Draft, guest: GuestRecord, host: HostRecord, answer: Answer) -> None:
    """The destination lets it in, or does not."""
    move = guest.move
    if move is None or move.stage is not MoveStage.RECEIVING:
        return
    if answer.outcome is not Outcome.DONE:
        _undo(draft, guest, f"{host.name} does not let it in: {answer.outcome}: {answer.reason}")
        return
    if why := move.why or moves.unwanted(draft, guest, host):
        _undo(draft, guest, why)
        return
    source = draft.require_host(move.source)
    if objected := onecopy.issue_migrate(draft, guest, source, addresses_of(draft, host)):
        _undo(draft, guest, "; ".join(objected))


def sent(draft: Draft, guest: GuestRecord, host: HostRecord, ticket: str, answer: Answer) -> None:
    """The job has ended, as far as the source's agent knows. Its testimony decides, not its outcome."""
    if guest.move is None or guest.move.job != ticket:
        return
    if answer.outcome is Outcome.DONE and answer.reason:  # what it took
        text = f"{guest.name}: {answer.reason}"
        draft.note("guest.sent", text, guest=guest.id, operation=guest.move.operation)
    guests.testified(draft, host, answer.testimony)
    if answer.definition is not None:  # its disks are not as they were told
        definitions.described(draft, _again(draft, guest), host, answer)
    after = draft.guest(guest.id)
    assert after is not None
    if after.move is not None and after.move.stage is MoveStage.COPYING:
        why = f"the migration ended: {answer.outcome}: {answer.reason}"
        _stage(draft, after, MoveStage.UNRESOLVED, after.move.why or why)


def resumed(draft: Draft, guest: GuestRecord, host: HostRecord, answer: Answer) -> None:
    """Its CPUs run, or it is tried again, or given up."""
    guests.testified(draft, host, answer.testimony)
    after = draft.guest(guest.id)
    assert after is not None
    move = after.move
    if move is None or places(after) != {(host.name, host.boot_id)}:
        return
    if answer.outcome is Outcome.DONE:
        view = draft.view(host.name)
        if (
            seen := view.guests.get(guest.id)
        ) is not None:  # an inventory from before shows a copy that waits
            state = DomainState.PAUSED if move.suspended else DomainState.RUNNING
            now = changed(seen, state=state, part=Part.NONE)
            draft.put_view(host.name, guests=view.guests | {guest.id: now})
        _runs_at(draft, after, host.name)
    else:
        _not_resumed(draft, after, f"{answer.outcome}: {answer.reason}")


def _not_resumed(draft: Draft, guest: GuestRecord, why: str) -> None:
    """It may run or not: its host is looked at again before anything is done."""
    move = guest.move
    assert move is not None
    wait_s = RESUME_AGAIN_S * 2**move.tries
    if move.stage is MoveStage.RESUMING and move.tries >= RESUMES_MAX:
        _undo(draft, guest, f"it could not be resumed on {move.destination}: {why}")
    elif move.stage is MoveStage.RESUMING:
        _stage(draft, guest, MoveStage.MIGRATED, move.why, retry_at=draft.now + wait_s)
        _say(draft, guest, f"not resumed on {move.destination} yet: {why}")
    else:
        draft.put_guest(changed(guest, move=changed(move, retry_at=draft.now + wait_s)))


# ---- one step on


def step(draft: Draft, guest: GuestRecord) -> None:
    """Carry one live move on."""
    move = guest.move
    assert guest.phase is GuestPhase.MIGRATING
    assert move is not None
    if not guest.may_run_on:
        _nowhere(draft, guest, move)
        return
    _resumed_by_hand(draft, guest, move)
    guest = _again(draft, guest)
    move = _move(guest)
    out = _under_ticket(draft, guest.id)
    if out is not None:
        if out.kind == "migrate":
            _watch(draft, guest, move)
        return
    match move.stage:
        case MoveStage.RECEIVING:
            _undo(draft, guest, f"whether {move.destination} lets it in was not seen")
        case MoveStage.COPYING:
            _stage(draft, guest, MoveStage.UNRESOLVED, move.why)
            _say(
                draft,
                guest,
                f"how its migration to {move.destination} ended is unknown; {move.source} is asked",
            )
            _resolve(draft, _again(draft, guest))
        case MoveStage.UNRESOLVED:
            _resolve(draft, guest)
        case MoveStage.UNDOING:
            _back(draft, guest, move)
        case MoveStage.MIGRATED | MoveStage.RESUMING:
            _forward(draft, guest, move)
        case MoveStage.QUEUED | MoveStage.STOPPING | MoveStage.SENDING:
            raise AssertionError(f"{guest.name} is migrating and {move.stage}")


def _under_ticket(draft: Draft, guest_id: GuestId) -> Pending | None:
    return next((p for _, p in draft.pendings_of(guest_id) if p.kind in TICKETED), None)


def _watch(draft: Draft, guest: GuestRecord, move: Move) -> None:
    """The source is sending: called off, overdue, or not wanted there any longer?"""
    destination = draft.host(move.destination)
    why = move.why or (moves.unwanted(draft, guest, destination) if destination else "")
    if not why and (move.destination, move.destination_boot) not in places(guest):
        why = f"{move.destination} is proven to have no copy of it"
    if not why and draft.now - move.at > guest.policy.move_s:
        why = f"it did not end within {guest.policy.move_s:.0f} s (move_s)"
    course = draft.view(move.source).courses.get(guest.id)
    if course is None or course.job != move.job:
        course = Course()
    why = why or course.still
    source = draft.host(move.source)
    if source is None or source.drain is None or draft.now >= source.drain.deadline:
        why = why or course.hopeless  # where time is short, a standstill follows
        course = convergence.unhurried(course, guest.policy)
    if why and not move.why:
        moves.cancel(draft, guest, why)
    if why:
        moves.ask_abort(draft, guest, move.source)
    elif course.downtime_s != course.told_s:
        _allow(draft, guest, move, course)


def _allow(draft: Draft, guest: GuestRecord, move: Move, course: Course) -> None:
    """How long it may stand still at its switch-over: longer, as its passes no longer bring the end nearer; or less,
    as nobody is in a hurry any more: it would stand still for all that it may, though a pass more would be enough.
    """
    view = draft.view(move.source)
    told = changed(course, told_s=course.downtime_s)
    draft.put_view(move.source, courses=view.courses | {guest.id: told})
    body = AllowDowntime(guest=guest.id, name=guest.name, downtime_s=course.downtime_s)
    draft.effect(Send(id=draft.next_id("downtime"), host=move.source, session=view.session, body=body))
    before_s = move.allowed_s or convergence.PLAIN_DOWNTIME_S
    if course.downtime_s == before_s:
        return  # told again
    draft.put_guest(changed(guest, move=changed(move, allowed_s=course.downtime_s)))
    why = "to end at all" if course.downtime_s > before_s else "as nobody is in a hurry any more"
    text = f"{guest.name}: it may stand still for {course.downtime_s:.1f} s at its switch-over, {why}"
    draft.note("guest.move", text, guest=guest.id, operation=move.operation)


def may_stand_still(draft: Draft, guest: GuestRecord, allowed_s: float) -> None:
    """It is in a hurry: so long, whatever its policy says, if it does not end before anyway."""
    assert guest.move is not None
    view = draft.view(guest.move.source)
    progress, course = view.progress.get(guest.id), view.courses.get(guest.id)
    if progress is None or course is None or course.downtime_s >= allowed_s:
        return
    if progress.eta_s is None or progress.eta_s > allowed_s:
        courses = view.courses | {guest.id: changed(course, downtime_s=allowed_s)}
        draft.put_view(guest.move.source, courses=courses)


def progressed(draft: Draft, name: HostName, moves_out: tuple[Progress, ...]) -> None:
    """How far its outgoing migrations are; each that is ours is judged by its passes."""
    before = draft.view(name).courses
    courses: dict[GuestId, Course] = {}
    for progress in moves_out:
        guest = draft.guest(progress.guest)
        if guest is None or guest.move is None or guest.move.source != name:
            continue
        if guest.move.stage is MoveStage.SENDING:  # it has no passes
            continue
        course = before.get(guest.id)
        if course is None or course.job != guest.move.job:
            course = convergence.begun(guest.move.job, guest.move.allowed_s)
        course = courses[guest.id] = convergence.seen(course, progress, guest.policy)
        _note_rung(draft, guest, guest.move, convergence.rung_of(course))
    draft.put_view(name, progress={progress.guest: progress for progress in moves_out}, courses=courses)


def _note_rung(draft: Draft, guest: GuestRecord, move: Move, rung: Rung) -> None:
    """What it needs by now; kept beyond its job, and beyond who leads."""
    if rung is not move.rung:
        draft.put_guest(changed(guest, move=changed(move, rung=rung)))


def _resolve(draft: Draft, guest: GuestRecord) -> None:
    """How the sending ended is for the source to say: it runs there, this job took it away, or neither."""
    move = guest.move
    assert move is not None
    if (move.source, move.source_boot) not in places(guest):
        _undo(
            draft, guest, f"{move.source} is proven empty, but not by the word that its migration ended well"
        )
        return
    source = draft.host(move.source)
    said = _said(draft, guest, source)
    if said is not None and said.sighting is Sighting.PRESENT and said.part is not Part.LEAVING:
        _undo(draft, guest, move.why or f"it did not leave {move.source}")
        return
    if said is None or said.sighting is not Sighting.ABSENT:
        # While the ticket of an earlier leader is under way there, its agent does not say that it sends.
        _watch(draft, guest, move)
    if source is None or not _ask(draft, guest, source):
        _say(
            draft,
            guest,
            f"whether it left {move.source} is unknown; waits for that host, or a proof that it is off"
            f" ({standing(source) if source else 'it was removed'})",
        )


def _said(draft: Draft, guest: GuestRecord, host: HostRecord | None) -> Testimony | None:
    """What that boot said in its live session, since this stage began."""
    move = guest.move
    assert move is not None
    if host is None or not draft.view(host.name).session or host.boot_id != move.source_boot:
        return None
    said = draft.view(host.name).told.get(guest.id)
    return said[0] if said is not None and said[1] >= move.at else None


def _ask(draft: Draft, guest: GuestRecord, host: HostRecord) -> bool:
    """Ask for a testimony; False where nobody can be asked."""
    view = draft.view(host.name)
    ask_testimony(draft, host, [guest])
    return bool(view.session) and view.acked_epoch == draft.cluster.epoch


def _back(draft: Draft, guest: GuestRecord, move: Move) -> None:
    """It is not resumed at the destination: destroy the copy, prove it gone, go on at the source or cold."""
    there = (move.destination, move.destination_boot)
    if there in places(guest):
        if places(guest) == {there} and _runs(draft, guest, move.destination):
            _runs_at(draft, guest, move.destination)  # it runs, in one place: the facts are followed
            return
        host = draft.host(move.destination)
        if host is not None and onecopy.discarded_lately(draft, guest, host):
            return
        why = ["it was removed"] if host is None else onecopy.issue_discard(draft, guest, host)
        if why:
            _say(
                draft,
                guest,
                f"{move.why}; its copy on {move.destination} is not proven gone: {'; '.join(why)}",
            )
        return
    here = (move.source, move.source_boot)
    if (holder := sole_holder(draft, guest)) not in ("", move.source):
        guests.running_on(draft, guest, holder, f"runs on {holder}: {move.why}")
        return
    for name, boot_id in sorted(places(guest) - {here}):
        stranger = draft.host(name)
        if stranger is not None and stranger.boot_id == boot_id:
            _ask(draft, guest, stranger)
    if places(guest) != {here}:
        return
    if not seen_active(draft, guest.id, *here):
        if (source := draft.host(move.source)) is not None and source.boot_id == move.source_boot:
            _ask(draft, guest, source)
        _say(draft, guest, f"{move.why}; waits for {move.source} to say that it runs there")
        return
    _at_source(draft, guest, move)


def _at_source(draft: Draft, guest: GuestRecord, move: Move) -> None:
    """It is at the source alone, and seen there: it goes on, or is made to."""
    facts = draft.view(move.source).guests[guest.id]
    stands = facts.state is DomainState.PAUSED and facts.reason == "migration"
    if facts.part is Part.LEAVING:
        moves.ask_abort(draft, guest, move.source)  # a job that nobody answers for: to nowhere, by now
    elif not stands:
        _runs_at(draft, guest, move.source)
    elif move.ran:  # a copy of it ran by hand: its own memory may be older than the disk
        source = draft.require_host(move.source)
        if not onecopy.discarded_lately(draft, guest, source):
            onecopy.issue_discard(draft, guest, source)
    elif draft.now >= move.retry_at:  # left paused at the switch-over
        onecopy.issue_resume(draft, guest, draft.require_host(move.source))


def _forward(draft: Draft, guest: GuestRecord, move: Move) -> None:
    """The copy is the only one: resume it, however often that takes."""
    there = (move.destination, move.destination_boot)
    if there not in places(guest):
        _undo(draft, guest, f"{move.destination} is proven empty")
        return
    host = draft.require_host(move.destination)
    for name, boot_id in sorted(places(guest) - {there}):
        if seen_active(draft, guest.id, name, boot_id):
            _undo(draft, guest, f"it was started on {name} meanwhile, so its copy is older than its disk")
            return
        stranger = draft.host(name)
        if stranger is not None and stranger.boot_id == boot_id:
            _ask(draft, guest, stranger)
    facts = draft.view(host.name).guests.get(guest.id)
    if _runs(draft, guest, host.name) and places(guest) == {there}:
        _runs_at(draft, guest, host.name)
    elif move.tries and draft.view(host.name).inventory and (facts is None or not facts.active):
        _ask(draft, guest, host)  # the copy is not there any more: it must say so
        _say(draft, guest, f"its copy is not seen on {host.name}; asking whether it is gone")
    elif move.stage is MoveStage.RESUMING:
        _not_resumed(draft, guest, "no answer came")
    elif draft.now >= move.retry_at and (why := onecopy.issue_resume(draft, guest, host)):
        _say(
            draft,
            guest,
            f"left {move.source}; resumes on {host.name} as soon as it can: {'; '.join(why)}",
        )


def _runs(draft: Draft, guest: GuestRecord, name: HostName) -> bool:
    """Whether that host says in its live session that it goes on, and not as a copy that waits.

    Its CPUs run; or it was suspended when it was sent, and a resume ticket was issued: then it stands still on purpose.
    """
    facts = draft.view(name).guests.get(guest.id)
    boot_id = next((boot for host, boot in places(guest) if host == name), "")
    stands = guest.move is not None and guest.move.suspended and guest.move.tries > 0
    goes_on = facts is not None and (facts.runs or (stands and facts.suspended))
    return goes_on and seen_active(draft, guest.id, name, boot_id)


def _resumed_by_hand(draft: Draft, guest: GuestRecord, move: Move) -> None:
    facts = draft.view(move.destination).guests.get(guest.id)
    if facts is not None and facts.runs and facts.part is Part.WAITING and not move.ran:
        move = changed(move, ran=True)
        draft.put_guest(changed(_again(draft, guest), move=move))
    if not move.ran:
        return
    draft.alert(
        f"guest/{guest.id}/resumed-by-hand",
        f"the copy of {guest.name} that waits on {move.destination} was made to run by hand",
        "it may have run beside the guest itself; the agent there suspends it again",
        f"check the disk of {guest.name}; whoever did it should not resume a guest that is being moved",
        severity="critical",
    )


# ---- ends


def _stage(draft: Draft, guest: GuestRecord, stage: MoveStage, why: str, **fields: object) -> None:
    assert guest.move is not None
    move = changed(guest.move, stage=stage, at=draft.now, why=why, **fields)
    draft.put_guest(changed(guest, move=move))


def _undo(draft: Draft, guest: GuestRecord, why: str) -> None:
    """From here on the copy is never resumed."""
    assert guest.move is not None
    move = guest.move
    text = f"the move to {move.destination} is undone: {why}"
    draft.note("guest.move", f"{guest.name}: {text}", guest=guest.id, operation=move.operation)
    links.note_turned_away(draft, guest.id, move.destination, why)
    _stage(draft, guest, MoveStage.UNDOING, why, retry_at=0.0)
    _say(draft, guest, text)
    _back(draft, _again(draft, guest), _move(_again(draft, guest)))


def _runs_at(draft: Draft, guest: GuestRecord, host: HostName) -> None:
    """It has arrived, or it stays. What its owner wanted meanwhile is done next (`guests.step`)."""
    move = _move(guest)
    arrived = f"moved from {move.source} to {host} in {draft.now - move.began:.1f} s{_how(move)}"
    if host == move.destination:
        links.note_arrived(draft, guest.id, host)
        dirtying.carry(draft, guest, move.source, host)
        if draft.host(move.source) is not None:
            draft.put_view(move.source, drained_at=0.0)  # its link is idle: who waits there goes now
    guests.running_on(draft, guest, host, move.why if host == move.source else arrived)


def _how(move: Move) -> str:
    """Which rung it took, and which was foretold."""
    if move.foreseen is None:
        return f", {move.rung}"
    return f", {move.rung}{' as' if move.foreseen is move.rung else f' where {move.foreseen} was'} foreseen"


def _nowhere(draft: Draft, guest: GuestRecord, move: Move) -> None:
    """Proven to run at neither end: its owner ended it, or it starts cold."""
    ended_at = move.destination if move.stage in (MoveStage.MIGRATED, MoveStage.RESUMING) else move.source
    facts = draft.view(ended_at).guests.get(guest.id)
    reason = facts.reason if facts is not None else ""
    why = move.why or f"it was lost on its way to {move.destination}"
    host = draft.host(ended_at)
    if _will_tell(draft, host, move, guest.id):
        _say(draft, guest, f"{why}; waits for {ended_at} to say how it ended there")
        return
    by_host = leaving.ended_by_host(host, facts) if host is not None else ""
    by_owner = reason in guests.OWNER_ENDED and not by_host and not move.ran
    vanished = ended_at == move.source and not move.ran and _vanished(draft, host, move, guest.id)
    ended = "its domain vanished: taken as stopped by hand" if vanished else "ended, and was to be stopped"
    if guest.desired is Desired.STOPPED or vanished or by_owner:
        text = f"{guests.OWNER_ENDED.get(reason, ended)} ({ended_at}), in the middle of a move"
        draft.outcome(move.operation, guest.id, f"not moved: {text}")
        move_guest(draft, guest, GuestEvent.ENDED, text, operation=move.operation, desired=Desired.STOPPED)
        return
    if guest.desired is Desired.IGNORED and not guests.asked_to_start(draft, guest):
        draft.outcome(move.operation, guest.id, f"not moved: {why}; left alone")
        retries.let_be(draft, guest, GuestEvent.CRASHED, why)
        return
    draft.outcome(move.operation, guest.id, f"not moved: {why}; started anew")
    text = f"starts anew: {why}"
    operation = draft.operation_about(guest.id)
    if not operation:
        operation = draft.open_operation("restart", guest.name, text, guests=(guest.id,)).id
    move_guest(draft, guest, GuestEvent.SEEN_NOWHERE, text, operation=operation, move=None, avoid=())


def _will_tell(draft: Draft, host: HostRecord | None, move: Move, guest_id: GuestId) -> bool:
    """Whether that host lives on in the same boot, and has not told yet how its domain ended: it may in a moment.

    A testimony proves that it is gone, not why; the inventory that says why is lost with a leader or an agent.
    """
    if host is None or move.ran or draft.now - move.at > TELLS_S:
        return False
    boot_id = move.source_boot if host.name == move.source else move.destination_boot
    if boot_id in (host.dead_boot, "") or host.boot_id != boot_id:
        return False
    view = draft.view(host.name)
    facts = view.guests.get(guest_id)
    told = view.session and view.inventory and (facts is None or facts.reason)
    return not told


def _vanished(draft: Draft, source: HostRecord | None, move: Move, guest_id: GuestId) -> bool:
    """Whether its source lives on in the same boot and has it defined no longer: nothing but a person does that."""
    if source is None:
        return False
    view = draft.view(source.name)
    same = source.boot_id == move.source_boot and bool(view.session) and view.inventory
    return same and not source.leaving and guest_id not in view.guests


def _again(draft: Draft, guest: GuestRecord) -> GuestRecord:
    after = draft.guest(guest.id)
    assert after is not None
    return after


def _move(guest: GuestRecord) -> Move:
    assert guest.move is not None
    return guest.move


def _say(draft: Draft, guest: GuestRecord, reason: str) -> None:
    say(draft, _again(draft, guest), reason)
