"""Guests: what follows from what is known of one: it runs, it is gone, it was lost with its host. Facts are followed.

Here: that, the ends of starts and stops, and `step`, which carries one unsettled guest one step on. It is
level-triggered: it looks at records and evidence as they are now, so a lost event or a restart changes nothing but the
time. Not here: what inventories say (`inventories`), crashes and failed starts (`retries`), moves (`migration`), who
starts next (`starts`).
"""

from __future__ import annotations

from dr.core import definitions, homing, leaving, measured, onecopy, placement, retries
from dr.core.state import Draft
from dr.core.tables import GuestEvent, move_guest, say
from dr.core.volatile import Pending
from dr.core.whereabouts import ask_testimony, seen_active, sole_holder
from dr.core.wishes import standing
from dr.model.base import HostName, changed
from dr.model.commands import Answer, Outcome, Testimony
from dr.model.facts import DomainState, GuestFacts, Sighting
from dr.model.records import Desired, GuestPhase, GuestRecord, HostRecord

# libvirt's shut-off reasons that mean: somebody wanted it off.
OWNER_ENDED = {
    "shutdown": "was shut down by its owner",
    "destroyed": "was stopped by hand on its host",
    "saved": "was saved by hand on its host",
}
WAITS_FOR_BOTH = "waits for its definition and for the protected list there"
# A stop that was asked for in one of these is given out when the guest is seen to run.
STOP_TO_COME = frozenset({GuestPhase.STARTING, GuestPhase.UNKNOWN, GuestPhase.MIGRATING})
ASKED_UP = frozenset({"guest-start", "guest-relocate"})  # operations in which a person wants it started
HEEDS_LATE_S = 1800.0  # a guest may shut down so long after it was asked to: it installs updates first


# ---- facts


def running_on(draft: Draft, guest: GuestRecord, host: HostName, reason: str) -> GuestRecord:
    """It is proven to run there and nowhere else."""
    draft.moves += guest.holder != host
    if guest.move is not None:
        stays = f"not moved: still on {host}: {guest.move.why or reason}"
        end = f"running on {host}" if host != guest.move.source else stays
        draft.outcome(guest.move.operation, guest.id, end)
    desired = guest.desired
    if desired is Desired.STOPPED and guest.phase not in STOP_TO_COME:
        desired = Desired.RUNNING  # its stop failed, or somebody started it
    given_up = guest.phase is GuestPhase.STOPPING and guest.move is not None
    before = draft.host(guest.holder)
    drained = before is not None and before.drain is not None
    guest = move_guest(
        draft,
        guest,
        GuestEvent.SEEN_RUNNING,
        reason,
        operation=draft.operation_about(guest.id),
        holder=host,
        disks_on=host,
        homing=homing.arrived(guest, host, drained=drained),
        desired=desired,
        tried_on="",
        held_at="",
        avoid=(),
        retry_at=0.0,
        waits_since=0.0,
        stop_missed=draft.now if given_up else 0.0,
    )
    draft.clear_alert(f"guest/{guest.id}/error")
    return guest


def gone(draft: Draft, guest: GuestRecord, host: HostRecord, facts: GuestFacts | None) -> None:
    """It ran there and does not any more: who ended it?"""
    reason = facts.reason if facts is not None else ""
    if guest.desired is Desired.RUNNING and (text := leaving.ended_by_host(host, facts)):
        ask_testimony(draft, host, [leaving.lose(draft, guest, host, text)])
        return
    late = guest.stop_missed and draft.now - guest.stop_missed < HEEDS_LATE_S
    if reason == "shutdown" and late and guest.desired is Desired.RUNNING:
        text = f"shut down on {host.name} at last, as its relocation had asked; starts again"
        operation = draft.open_operation("restart", guest.name, text, guests=(guest.id,)).id
        guest = move_guest(
            draft, guest, GuestEvent.CRASHED, text, operation=operation, retry_at=draft.now, avoid=()
        )
        ask_testimony(draft, host, [guest])
        return
    if facts is None:
        text = f"its domain vanished from {host.name}: taken as stopped by hand"
    elif reason in OWNER_ENDED:
        text = f"{OWNER_ENDED[reason]} ({host.name})"
    else:
        text = f"ended unexpectedly on {host.name} ({reason or facts.state.value})"
        ask_testimony(draft, host, [retries.failed(draft, guest, host.name, GuestEvent.CRASHED, text)])
        return
    if guest.desired is Desired.RUNNING:
        guest = changed(guest, desired=Desired.STOPPED)
    ask_testimony(draft, host, [retries.put_down(draft, guest, text)])


def lost_host(draft: Draft, host: HostName, left: list[str], why: str) -> None:
    """That host's boot is proven over; `left` are the guests that it may have run. Those wanted running recover."""
    wanted = []
    for guest_id in left:
        guest = draft.guest(guest_id)
        assert guest is not None
        seen = any(seen_active(draft, guest.id, p.host, p.boot_id) for p in guest.may_run_on)
        ran = guest.phase is GuestPhase.RUNNING and not seen
        if guest.phase is GuestPhase.MIGRATING and guest.move is not None:  # its move brings it to its end
            if guest.desired is Desired.RUNNING and (host != guest.move.destination or not guest.may_run_on):
                wanted.append(guest)
            continue
        if not ran and guest.phase not in (GuestPhase.STARTING, GuestPhase.UNKNOWN, GuestPhase.RECOVERING):
            continue
        if guest.desired is Desired.RUNNING:
            wanted.append(guest)
        elif ran:
            _lost_unwanted(draft, guest, host)
    if not wanted:
        return
    operation = next(
        (op for op in draft.open_operations() if op.kind in ("failover", "leave") and op.subject == host),
        None,
    ) or draft.open_operation("failover", host, why)
    outcomes = dict.fromkeys((guest.id for guest in wanted), "") | operation.guests
    draft.put_operation(changed(operation, guests=outcomes))
    for guest in wanted:
        if guest.phase is GuestPhase.RUNNING:
            text = f"lost with {host}"
            event = GuestEvent.UNANSWERED if guest.may_run_on else GuestEvent.SEEN_NOWHERE
            home = homing.taken_from(guest, host)
            move_guest(draft, guest, event, text, operation=operation.id, tried_on="", avoid=(), homing=home)
        elif guest.tried_on == host:
            draft.put_guest(changed(guest, tried_on=""))  # its host failed, not its start


def _lost_unwanted(draft: Draft, guest: GuestRecord, host: HostName) -> None:
    """It ran there and is not to be started again: its owner wants it off, or wants it left alone."""
    text = f"lost with {host}"
    if guest.may_run_on:
        move_guest(draft, guest, GuestEvent.UNANSWERED, text)
    else:
        retries.let_be(draft, guest, GuestEvent.CRASHED, text)


# ---- answers


def testified(draft: Draft, host: HostRecord, testimony: tuple[Testimony, ...]) -> None:
    """An agent's word about guests on its host."""
    for item in testimony:
        guest = onecopy.accept_testimony(draft, host, item)
        if guest is None:
            continue
        if guest.phase is GuestPhase.MIGRATING:
            told = draft.view(host.name).told
            draft.put_view(host.name, told=told | {guest.id: (item, draft.now)})
        if guest.phase is GuestPhase.RUNNING and not guest.may_run_on:
            gone(draft, guest, host, draft.view(host.name).guests.get(guest.id))
        elif guest.phase is GuestPhase.UNKNOWN and not guest.may_run_on and guest.tried_on == host.name:
            text = f"did not start on {host.name}: it is proven not to run there"
            retries.failed(draft, guest, host.name, GuestEvent.SEEN_NOWHERE, text)
        if item.sighting is Sighting.UNKNOWN and guest.phase is not GuestPhase.MIGRATING:
            reason = f"{host.name} cannot say whether it runs there: {item.reason}"
            if guest.reason != reason and guest.phase not in (GuestPhase.RUNNING, GuestPhase.STOPPED):
                draft.put_guest(changed(guest, reason=reason))


def start_ended(draft: Draft, guest: GuestRecord, host: HostRecord, pending: Pending, answer: Answer) -> None:
    """The end of a start ticket, as its agent saw it."""
    if guest.generation != pending.generation or guest.phase is not GuestPhase.STARTING:
        return
    operation = pending.operation
    if answer.outcome is Outcome.DONE:
        took_s = draft.now - pending.at
        guest = measured.started(guest, draft.now, took_s)
        running_on(draft, guest, host.name, f"runs on {host.name}, {took_s:.1f} s after its ticket")
        return
    if answer.outcome is Outcome.UNKNOWN:
        _unanswered(draft, guest, host.name, answer.reason, operation)
        return
    testified(draft, host, answer.testimony)
    after = draft.guest(guest.id)
    assert after is not None
    if after.may_run_on:
        # Refused or failed without a testimony that counts: ask before anything else.
        _unanswered(draft, after, host.name, answer.reason, operation)
        return
    text = f"did not start on {host.name}: {answer.reason}"
    retries.failed(draft, after, host.name, GuestEvent.FAILED, text)


def _unanswered(draft: Draft, guest: GuestRecord, host: HostName, why: str, operation: str = "") -> None:
    move_guest(
        draft,
        guest,
        GuestEvent.UNANSWERED,
        f"whether it started on {host} is unknown ({why}); asking that host before anything else",
        operation=operation,
    )


def start_unanswered(draft: Draft, guest: GuestRecord, host: HostName, why: str) -> None:
    """No answer to a start ticket in time, or its session is gone."""
    if guest.phase is GuestPhase.STARTING:
        _unanswered(draft, guest, host, why, draft.operation_about(guest.id))


def stop_ended(draft: Draft, guest: GuestRecord, host: HostRecord, answer: Answer) -> None:
    """A guest whose stop failed is never assumed stopped, and one whose stop was not seen to end neither way."""
    if answer.definition is not None:  # it may have written to its NVRAM until the end
        definitions.described(draft, guest, host, answer)
    testified(draft, host, answer.testimony)
    after = draft.guest(guest.id)
    if after is None or after.phase is not GuestPhase.STOPPING or not after.may_run_on:
        return
    text = f"stop on {host.name}: {answer.outcome}: {answer.reason}"
    if answer.outcome in (Outcome.FAILED, Outcome.REFUSED) and sole_holder(draft, after) == host.name:
        running_on(draft, after, host.name, f"still runs on {host.name}: {text}")
    elif answer.reason:
        draft.put_guest(changed(after, reason=text))


# ---- one step on


def step(draft: Draft, guest: GuestRecord) -> None:
    """Carry an unsettled guest on, except for its start, which `core.starts` gives out in order of priority."""
    match guest.phase:
        case GuestPhase.PROTECTING:
            _step_protecting(draft, guest)
        case GuestPhase.STARTING:
            if not draft.find_pending("start", guest=guest.id):
                host = guest.may_run_on[0].host if guest.may_run_on else "?"
                start_unanswered(draft, guest, host, "its ticket's answer was not seen")
        case GuestPhase.UNKNOWN | GuestPhase.RECOVERING:
            _step_places(draft, guest)
        case GuestPhase.STOPPING:
            if not draft.find_pending("stop", guest=guest.id):
                _step_stopping(draft, guest)
        case GuestPhase.RUNNING:
            if guest.desired is Desired.STOPPED:
                _stop_now(draft, guest)
        case GuestPhase.STOPPED | GuestPhase.ERROR | GuestPhase.MIGRATING:
            pass  # settled, or brought on by `core.migration`


def _ask_places(draft: Draft, guest: GuestRecord) -> list[HostName]:
    """Ask every host in the set that can be asked; returns those that cannot."""
    silent = []
    for place in guest.may_run_on:
        host, view = draft.host(place.host), draft.view(place.host)
        live = bool(host and host.boot_id == place.boot_id and view.session)
        if host is None or not live or view.acked_epoch != draft.cluster.epoch:
            silent.append(place.host)
        elif not seen_active(draft, guest.id, place.host, place.boot_id):
            ask_testimony(draft, host, [guest])
    return silent


def _step_protecting(draft: Draft, guest: GuestRecord) -> None:
    asked = (draft.host(name) for name in sorted({place.host for place in guest.may_run_on}))
    unacknowledged = [
        host.name
        for host in asked
        if host is not None and host.boot_id and host.protected_version != draft.cluster.protected_version
    ]
    silent = _ask_places(draft, guest)
    holder = sole_holder(draft, guest)
    if _stands_still(draft, guest, holder):
        return
    if holder:
        facts = draft.view(holder).guests[guest.id]
        definitions.want(draft, guest, draft.require_host(holder), facts)
    if holder and guest.definition and holder not in unacknowledged:
        if not draft.require_host(holder).facts.hook.proven:
            say(
                draft,
                guest,
                f"{holder} has no proven permit hook: {draft.require_host(holder).facts.hook.reason}",
            )
            return
        running_on(draft, guest, holder, f"protected; runs on {holder} and nowhere else")
        return
    if not guest.may_run_on:
        if not guest.definition:
            definitions.refuse_protection(
                draft, guest, ("It runs nowhere and no definition was seen; start it first.",)
            )
        elif guest.desired is Desired.RUNNING and guest.holder:
            move_guest(draft, guest, GuestEvent.START, "runs nowhere: every host has testified")
        else:
            desired = Desired.IGNORED if guest.desired is Desired.IGNORED else Desired.STOPPED
            move_guest(draft, guest, GuestEvent.SEEN_NOWHERE, "protected; runs nowhere", desired=desired)
        return
    if silent:
        names = ", ".join(sorted(set(silent)))
        say(
            draft,
            guest,
            f"waits for {names} to say that it does not run there (or: dr host confirm-down)",
        )
    elif holder:
        _, _, failed = draft.view(holder).described.get(guest.id, ("", 0.0, ""))
        text = f"its definition could not be read: {failed}" if failed else WAITS_FOR_BOTH
        say(draft, guest, f"runs on {holder}; {text}")
    elif ill := [
        f"{name}: {'; '.join(why)}" for name in unacknowledged if (why := placement.unfit(draft, name))
    ]:
        # Only these are named: who is well takes the list in a moment, and each name would be one more write.
        say(draft, guest, f"waits for hosts that cannot take the protected list: {', '.join(ill)}")


def _stands_still(draft: Draft, guest: GuestRecord, holder: HostName) -> bool:
    """Whether what is there may be the copy of a migration that nobody remembers (rule 2): then a person decides.

    An agent that lost its memory cannot tell a copy that waits from a guest that was suspended, and an older store
    knows of no move. Neither to be resumed (its memory may be older than its disk) nor to be taken for the guest, which
    would have its definition removed where it came from.
    """
    facts = draft.view(holder).guests[guest.id] if holder else None
    key = f"guest/{guest.id}/stands-still"
    if facts is None or facts.state is not DomainState.PAUSED or facts.reason == "ioerror":
        draft.clear_alert(key)
        return False
    draft.alert(
        key,
        f"{guest.name} stands still on {holder}, and protection cannot begin",
        "it may have been suspended, or be the copy of a migration that waits and whose memory is older than its disk",
        f"if it was suspended, on {holder}: virsh resume {guest.name}; else: virsh destroy {guest.name}",
    )
    say(draft, guest, f"stands still on {holder}: resume it, or destroy it if it is the copy of a migration")
    return True


def _step_places(draft: Draft, guest: GuestRecord) -> None:
    """A guest that should (or should not) run and whose set decides what may happen next."""
    if not guest.may_run_on:
        if guest.phase is GuestPhase.UNKNOWN:
            operation = draft.operation_about(guest.id)
            guest = move_guest(
                draft, guest, GuestEvent.SEEN_NOWHERE, "proven to run nowhere", operation=operation
            )
        if guest.desired is not Desired.RUNNING and not asked_to_start(draft, guest):
            retries.put_down(
                draft, guest, f"{guest.reason}; not started: its desired state is {guest.desired}"
            )
        return
    holder = sole_holder(draft, guest)
    if holder:
        running_on(draft, guest, holder, f"runs on {holder}")
        return
    _wait_for_places(draft, guest)


def asked_to_start(draft: Draft, guest: GuestRecord) -> bool:
    """Whether a person's wish to have it started is still open: it holds in a pause, and for an ignored guest."""
    return any(op.kind in ASKED_UP and guest.id in op.guests for op in draft.open_operations())


def _wait_for_places(draft: Draft, guest: GuestRecord) -> None:
    silent = _ask_places(draft, guest)
    if silent:
        names = ", ".join(sorted(set(silent)))
        waits = {name: draft.host(name) for name in silent}
        why = "; ".join(
            f"{name}: {standing(host)}" for name, host in sorted(waits.items()) if host and host.reason
        )
        say(draft, guest, f"may still run on {names}; waits for a proof that it does not ({why})")


# ---- stopping


def _stop_now(draft: Draft, guest: GuestRecord) -> None:
    """Its stop was asked for when no ticket could be given out: now that it is seen to run, it can."""
    holder = sole_holder(draft, guest)
    if not holder:
        say(draft, guest, f"is to be stopped; waits until {guest.holder} is heard")
        return
    operation = draft.operation_about(guest.id)
    host = draft.require_host(holder)
    if why := onecopy.issue_stop(draft, guest, host, "shutdown", operation=operation):
        say(draft, guest, f"is to be stopped; waits: {'; '.join(why)}")


def _step_stopping(draft: Draft, guest: GuestRecord) -> None:
    """The end of its stop was not seen. It may still come; it has failed only when none can be under way any longer."""
    if not guest.may_run_on:
        operation = draft.operation_about(guest.id)
        if guest.move is not None and guest.desired is not Desired.STOPPED:
            text = f"stopped on {guest.move.source}; starts elsewhere"
            move_guest(draft, guest, GuestEvent.START, text, operation=operation, retry_at=draft.now)
            return
        guest = move_guest(draft, guest, GuestEvent.SEEN_NOWHERE, "stopped", operation=operation)
        if guest.desired is Desired.RUNNING:
            move_guest(
                draft,
                guest,
                GuestEvent.START,
                "is wanted running again",
                operation=operation,
                retry_at=draft.now,
            )
        return
    timers = draft.config.timers
    holder = sole_holder(draft, guest)
    if holder and draft.now >= guest.since + timers.stop_s + timers.testify_s:
        running_on(draft, guest, holder, f"still runs on {holder}: {guest.reason}")
        return
    for place in guest.may_run_on:  # an inventory may be older than its end: only its host's word counts
        ask_testimony(draft, draft.require_host(place.host), [guest])
    _wait_for_places(draft, guest)
