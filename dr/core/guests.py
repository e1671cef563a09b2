"""Guests: what their hosts report of them, and what follows. Facts are followed, never fought.

`observe` takes an inventory; `step` carries one unsettled guest one step on. Both are level-triggered: they
look at records and evidence as they are now, so a lost event or a restart changes nothing but the time.
"""

from __future__ import annotations

from dr.core import leaving, onecopy, placement
from dr.core.definition import needs_of
from dr.core.onecopy import ask_testimony, seen_active, sole_holder
from dr.core.state import Draft, Pending
from dr.core.tables import GuestEvent, move_guest
from dr.model.base import HostName, changed
from dr.model.commands import Answer, Describe, Outcome, Testimony
from dr.model.effects import Send
from dr.model.facts import DomainState, GuestFacts, Sighting
from dr.model.records import (
    Desired,
    GuestPhase,
    GuestRecord,
    HostRecord,
    StoredDefinition,
)

# libvirt's shut-off reasons that mean: somebody wanted it off.
OWNER_ENDED = {
    "shutdown": "was shut down by its owner",
    "destroyed": "was stopped by hand on its host",
    "saved": "was saved by hand on its host",
}
WAITS_FOR_BOTH = "waits for its definition and for the protected list there"
AFTER_START_S = 1.0  # an inventory that comes this soon after a change may have been taken before it


# ---- what hosts report


def observe(draft: Draft, host: HostRecord) -> None:
    """Compare a host's inventory with what is known of the guests that are, or should be, there."""
    view = draft.view(host.name)
    if not view.inventory or view.acked_epoch != draft.cluster.epoch:
        return
    for guest_id, facts in view.guests.items():
        guest = draft.guest(guest_id)
        if guest is not None and facts.active:
            _seen_active(draft, guest, host, facts)
    for guest_id in draft.guests_at(host.name):
        guest = draft.guest(guest_id)
        seen = view.guests.get(guest_id)
        if guest is not None and (seen is None or not seen.active):
            _seen_inactive(draft, guest, host, seen)


def _seen_active(draft: Draft, guest: GuestRecord, host: HostRecord, facts: GuestFacts) -> None:
    at = [place for place in guest.may_run_on if (place.host, place.boot_id) == (host.name, host.boot_id)]
    if not at:
        # Started round us (an emergency override, a hook that was not there). It runs: so it is in the set.
        guest = onecopy.add_place(draft, guest, host, guest.generation)
        draft.note(
            "guest.found",
            f"{guest.name}: found running on {host.name}, where nothing of ours started it",
            host=host.name,
            guest=guest.id,
        )
    running = [p.host for p in guest.may_run_on if seen_active(draft, guest.id, p.host, p.boot_id)]
    if len(running) > 1 and guest.phase is not GuestPhase.ERROR:
        _doubled(draft, guest, running)
        return
    if sole_holder(draft, guest) == host.name:
        busy = draft.find_pending("stop", guest=guest.id) or draft.find_pending("start", guest=guest.id)
        begins = guest.phase is GuestPhase.PROTECTING  # `_step_protecting` asks for more than to be seen
        if not begins and guest.phase not in (GuestPhase.RUNNING, GuestPhase.ERROR) and not busy:
            guest = running_on(draft, guest, host.name, f"runs on {host.name}")
        elif guest.holder != host.name:
            draft.moves += (
                1  # here too: its start may be seen before it is answered, and every host must learn of it
            )
            guest = changed(guest, holder=host.name)
            draft.put_guest(guest)
        _paused_for_io(draft, guest, host, facts)
    if host.name == guest.holder or guest.phase is GuestPhase.PROTECTING:
        _want_definition(draft, guest, host, facts)


def _doubled(draft: Draft, guest: GuestRecord, running: list[HostName]) -> None:
    where = " and ".join(sorted(running))
    text = f"seen running on {where} at once"
    draft.alert(
        f"guest/{guest.id}/doubled",
        f"{guest.name} runs twice: on {where}",
        "its disk may be damaged already; neither copy is provably right, so none is stopped by itself",
        f"decide which copy is right, stop the other one on its host (virsh destroy {guest.name}), check its disk, "
        f"then: dr guest start {guest.name}",
        severity="critical",
    )
    move_guest(draft, guest, GuestEvent.DOUBLED, text)


def _paused_for_io(draft: Draft, guest: GuestRecord, host: HostRecord, facts: GuestFacts) -> None:
    key = f"guest/{guest.id}/io-error"
    if facts.state is DomainState.PAUSED and facts.reason == "ioerror":
        draft.alert(
            key,
            f"{guest.name} is paused on {host.name} by an I/O error",
            "its storage failed or is full; starting it elsewhere would meet the same disk",
            f"repair the storage, then on {host.name}: virsh resume {guest.name}",
        )
    else:
        draft.clear_alert(key)


def running_on(draft: Draft, guest: GuestRecord, host: HostName, reason: str) -> GuestRecord:
    """It is proven to run there and nowhere else."""
    draft.moves += guest.holder != host
    guest = move_guest(
        draft,
        guest,
        GuestEvent.SEEN_RUNNING,
        reason,
        operation=operation_of(draft, guest),
        holder=host,
        desired=Desired.RUNNING,
        held_at="",
        avoid=(),
        retry_at=0.0,
    )
    draft.clear_alert(f"guest/{guest.id}/waiting")
    draft.clear_alert(f"guest/{guest.id}/error")
    return guest


def operation_of(draft: Draft, guest: GuestRecord) -> str:
    """The open operation that is about this guest, if any."""
    return next((op.id for op in draft.open_operations() if guest.id in op.guests), "")


def _seen_inactive(draft: Draft, guest: GuestRecord, host: HostRecord, facts: GuestFacts | None) -> None:
    """Its host does not see it running. Whether it ended or never began, the set still needs a proof."""
    if guest.phase is not GuestPhase.RUNNING or guest.holder != host.name:
        return
    if any(seen_active(draft, guest.id, p.host, p.boot_id) for p in guest.may_run_on):
        return
    if draft.now < guest.since + AFTER_START_S:
        return
    if draft.view(host.name).guests_at <= guest.since:
        ask_testimony(
            draft, host, [guest]
        )  # an older inventory: perhaps it ended before its start was answered
        return
    _gone(draft, guest, host, facts)


def _gone(draft: Draft, guest: GuestRecord, host: HostRecord, facts: GuestFacts | None) -> None:
    """It ran there and does not any more: who ended it?"""
    reason = facts.reason if facts is not None else ""
    if guest.desired is Desired.RUNNING and (text := leaving.ended_by_host(host, facts)):
        ask_testimony(draft, host, [leaving.lose(draft, guest, host, text)])
        return
    if facts is None:
        text = f"its domain vanished from {host.name}: taken as stopped by hand"
    elif reason in OWNER_ENDED:
        text = f"{OWNER_ENDED[reason]} ({host.name})"
    else:
        _crashed(draft, guest, host, reason or facts.state.value)
        return
    guest = move_guest(draft, guest, GuestEvent.ENDED, text, desired=Desired.STOPPED)
    ask_testimony(draft, host, [guest])


def _crashed(draft: Draft, guest: GuestRecord, host: HostRecord, reason: str) -> None:
    """Restart in place, bounded and with backoff; then elsewhere; then say so."""
    policy = guest.policy
    recent = tuple(at for at in guest.restarts if draft.now - at < policy.restart_window_s)
    moved = tuple(at for at in guest.relocations if draft.now - at < policy.restart_window_s)
    text = f"ended unexpectedly on {host.name} ({reason})"
    if len(recent) < policy.max_restarts:
        wait_s = 0.0 if not recent else draft.config.timers.restart_backoff_s * 2 ** (len(recent) - 1)
        fields: dict[str, object] = {"restarts": (*recent, draft.now), "avoid": ()}
        text += f"; restart {len(recent) + 1} of {policy.max_restarts} in place"
    elif len(moved) < policy.max_relocations:
        wait_s = draft.config.timers.restart_backoff_s * 2 ** len(moved)
        fields = {"restarts": (), "relocations": (*moved, draft.now), "avoid": (host.name,)}
        text += f"; relocation {len(moved) + 1} of {policy.max_relocations}"
    else:
        guest = move_guest(draft, guest, GuestEvent.CRASHED, text)
        ask_testimony(draft, host, [guest])
        give_up(draft, guest, f"{text}; restarts and relocations are used up")
        return
    if wait_s:
        text += f" in {wait_s:.0f} s"
    operation = draft.open_operation("restart", guest.name, text, guests=(guest.id,))
    guest = move_guest(
        draft,
        guest,
        GuestEvent.CRASHED,
        text,
        operation=operation.id,
        retry_at=draft.now + wait_s,
        **fields,
    )
    ask_testimony(draft, host, [guest])


def lost_host(draft: Draft, host: HostName, left: list[str], why: str) -> None:
    """That host's boot is proven over; `left` are the guests that it may have run. Those wanted running recover."""
    wanted = []
    for guest_id in left:
        guest = draft.guest(guest_id)
        assert guest is not None
        seen = any(seen_active(draft, guest.id, p.host, p.boot_id) for p in guest.may_run_on)
        ran = guest.phase is GuestPhase.RUNNING and not seen
        if ran or guest.phase in (GuestPhase.STARTING, GuestPhase.UNKNOWN, GuestPhase.RECOVERING):
            wanted.append(guest)
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
            move_guest(draft, guest, event, text, operation=operation.id, avoid=())


def give_up(draft: Draft, guest: GuestRecord, why: str) -> None:
    """No more by itself: a person decides."""
    move_guest(draft, guest, GuestEvent.GAVE_UP, why)
    draft.alert(
        f"guest/{guest.id}/error",
        f"{guest.name} was given up",
        why,
        f"find the cause, then: dr guest start {guest.name}",
        severity="critical",
    )


# ---- definitions


def _want_definition(draft: Draft, guest: GuestRecord, host: HostRecord, facts: GuestFacts) -> None:
    view = draft.view(host.name)
    if facts.digest == guest.digest and guest.definition:
        return
    if not facts.digest or not view.session or draft.find_pending("describe", guest=guest.id):
        return
    digest, asked, _ = view.described.get(guest.id, ("", 0.0, ""))
    if digest == facts.digest and draft.now - asked < draft.config.timers.recovery_retry_s:
        return  # it could not be told just now
    draft.put_view(host.name, described=view.described | {guest.id: (facts.digest, draft.now, "")})
    key = draft.next_id("describe")
    draft.wait_for(
        key,
        Pending(
            kind="describe",
            host=host.name,
            guest=guest.id,
            at=draft.now,
            deadline=draft.now + draft.config.timers.testify_s,
        ),
    )
    draft.effect(Send(id=key, host=host.name, session=view.session, body=Describe(guest=guest.id)))


def described(draft: Draft, guest: GuestRecord, host: HostRecord, answer: Answer) -> None:
    """The newest definition from its holder: kept as a new version; may end a protection that cannot hold."""
    definition = answer.definition
    if definition is None:
        told = draft.view(host.name).described
        digest, asked, _ = told.get(guest.id, ("", draft.now, ""))
        draft.put_view(host.name, described=told | {guest.id: (digest, asked, answer.reason)})
        return
    if definition.digest == guest.digest:
        return
    if host.name not in {place.host for place in guest.may_run_on}:
        return
    needs, blockers = needs_of(definition)
    version = guest.definition + 1
    draft.put_definition(
        StoredDefinition(
            guest=guest.id,
            version=version,
            xml=definition.xml,
            digest=definition.digest,
            nvram=definition.nvram,
            reported_by=host.name,
        )
    )
    storage_before = set(guest.needs.storage)
    guest = changed(
        guest,
        name=definition.name,
        definition=version,
        digest=definition.digest,
        needs=needs,
        blockers=blockers,
    )
    draft.put_guest(guest)
    draft.note(
        "guest.definition",
        f"{guest.name}: definition version {version} from {host.name}",
        host=host.name,
        guest=guest.id,
    )
    if set(needs.storage) != storage_before:
        draft.cluster = changed(draft.cluster, protected_version=draft.cluster.protected_version + 1)
    key = f"guest/{guest.id}/blocked"
    if blockers and guest.phase is GuestPhase.PROTECTING:
        refuse_protection(draft, guest, blockers)
    elif blockers:
        draft.alert(
            key,
            f"{guest.name} could not be started elsewhere any longer",
            " ".join(blockers),
            f"change its definition back, or: dr guest unprotect {guest.name}",
        )
    else:
        draft.clear_alert(key)


def refuse_protection(draft: Draft, guest: GuestRecord, blockers: tuple[str, ...]) -> None:
    """It cannot be protected: it leaves the list, and the operation says why."""
    for operation in draft.open_operations():
        if operation.kind == "protect" and guest.id in operation.guests:
            outcome = f"refused: {' '.join(blockers)}"
            draft.put_operation(changed(operation, guests=operation.guests | {guest.id: outcome}))
    draft.note("guest.refused", f"{guest.name}: not protected: {' '.join(blockers)}", guest=guest.id)
    onecopy.forget(draft, guest)
    draft.cluster = changed(draft.cluster, protected_version=draft.cluster.protected_version + 1)


# ---- answers


def testified(draft: Draft, host: HostRecord, testimony: tuple[Testimony, ...]) -> None:
    """An agent's word about guests on its host."""
    for item in testimony:
        guest = onecopy.accept_testimony(draft, host, item)
        if guest is None:
            continue
        if guest.phase is GuestPhase.RUNNING and not guest.may_run_on:
            _gone(draft, guest, host, draft.view(host.name).guests.get(guest.id))
        if item.sighting is Sighting.UNKNOWN:
            reason = f"{host.name} cannot say whether it runs there: {item.reason}"
            if guest.reason != reason and guest.phase not in (GuestPhase.RUNNING, GuestPhase.STOPPED):
                draft.put_guest(changed(guest, reason=reason))


def start_ended(draft: Draft, guest: GuestRecord, host: HostRecord, pending: Pending, answer: Answer) -> None:
    """The end of a start ticket, as its agent saw it."""
    if guest.generation != pending.generation or guest.phase is not GuestPhase.STARTING:
        return
    operation = pending.operation
    if answer.outcome is Outcome.DONE:
        running_on(
            draft, guest, host.name, f"runs on {host.name}, {draft.now - pending.at:.1f} s after its ticket"
        )
        return
    if answer.outcome is Outcome.UNKNOWN:
        _unanswered(draft, guest, host.name, answer.reason, operation, avoid=(*guest.avoid, host.name))
        return
    testified(draft, host, answer.testimony)
    after = draft.guest(guest.id)
    assert after is not None
    if after.may_run_on:
        # Refused or failed without a testimony that counts: ask before anything else.
        _unanswered(draft, after, host.name, answer.reason, operation, avoid=(*after.avoid, host.name))
        return
    move_guest(
        draft,
        after,
        GuestEvent.FAILED,
        f"did not start on {host.name}: {answer.reason}",
        operation=operation,
        avoid=(*after.avoid, host.name),
        retry_at=draft.now,
    )


def _unanswered(
    draft: Draft, guest: GuestRecord, host: HostName, why: str, operation: str = "", **fields: object
) -> None:
    move_guest(
        draft,
        guest,
        GuestEvent.UNANSWERED,
        f"whether it started on {host} is unknown ({why}); asking that host before anything else",
        operation=operation,
        **fields,
    )


def start_unanswered(draft: Draft, guest: GuestRecord, host: HostName, why: str) -> None:
    """No answer to a start ticket in time, or its session is gone."""
    if guest.phase is GuestPhase.STARTING:
        _unanswered(draft, guest, host, why, operation_of(draft, guest))


def stop_ended(draft: Draft, guest: GuestRecord, host: HostRecord, answer: Answer) -> None:
    """A guest whose stop failed is never assumed stopped."""
    testified(draft, host, answer.testimony)
    after = draft.guest(guest.id)
    assert after is not None
    if after.phase is GuestPhase.STOPPING and after.may_run_on and answer.reason:
        draft.put_guest(changed(after, reason=f"stop on {host.name}: {answer.outcome}: {answer.reason}"))


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
                _step_places(draft, guest)
        case GuestPhase.RUNNING | GuestPhase.STOPPED | GuestPhase.ERROR | GuestPhase.MIGRATING:
            pass


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
    unacknowledged = [
        host.name
        for host in draft.hosts()
        if host.boot_id
        and host.name in {place.host for place in guest.may_run_on}
        and host.protected_version != draft.cluster.protected_version
    ]
    silent = _ask_places(draft, guest)
    holder = sole_holder(draft, guest)
    if holder:
        facts = draft.view(holder).guests[guest.id]
        _want_definition(draft, guest, draft.require_host(holder), facts)
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
            refuse_protection(draft, guest, ("It runs nowhere and no definition was seen; start it first.",))
        elif guest.desired is Desired.RUNNING and guest.holder:
            move_guest(draft, guest, GuestEvent.START, "runs nowhere: every host has testified")
        else:
            move_guest(
                draft, guest, GuestEvent.SEEN_NOWHERE, "protected; runs nowhere", desired=Desired.STOPPED
            )
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


def _step_places(draft: Draft, guest: GuestRecord) -> None:
    """A guest that should (or should not) run and whose set decides what may happen next."""
    if not guest.may_run_on:
        if guest.phase is GuestPhase.UNKNOWN:
            move_guest(
                draft,
                guest,
                GuestEvent.SEEN_NOWHERE,
                "proven to run nowhere",
                operation=operation_of(draft, guest),
            )
        elif guest.phase is GuestPhase.STOPPING:
            move_guest(
                draft,
                guest,
                GuestEvent.SEEN_NOWHERE,
                "stopped",
                operation=operation_of(draft, guest),
                desired=Desired.STOPPED,
            )
        return
    holder = sole_holder(draft, guest)
    if holder:
        reason = f"runs on {holder}"
        if guest.phase is GuestPhase.STOPPING:
            reason = f"still runs on {holder}: {guest.reason}"
        running_on(draft, guest, holder, reason)
        return
    silent = _ask_places(draft, guest)
    if silent:
        names = ", ".join(sorted(set(silent)))
        waits = {name: draft.host(name) for name in silent}
        why = "; ".join(
            f"{name}: {host.reason}" for name, host in sorted(waits.items()) if host and host.reason
        )
        say(draft, guest, f"may still run on {names}; waits for a proof that it does not ({why})")


def say(draft: Draft, guest: GuestRecord, reason: str) -> None:
    """Why it is where it is, in one sentence; written only when it changed."""
    if guest.reason != reason:
        draft.put_guest(changed(guest, reason=reason))
