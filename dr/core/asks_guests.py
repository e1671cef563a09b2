"""What operators ask of guests: protect, start, stop, and the like. All of the named guests, or none."""

from __future__ import annotations

from dr.core import dependencies, moves, onecopy, retries, whereabouts
from dr.core.asks import no, no_such, protected, yes
from dr.core.asks_policies import kept_ignored, want_up
from dr.core.guests import STOP_TO_COME
from dr.core.protection import list_changed
from dr.core.state import Draft
from dr.core.volatile import TICKETED
from dr.model.base import GuestId, changed
from dr.model.effects import Reply
from dr.model.events import AskCheck, AskProtect, AskStart, AskStop, AskUnprotect
from dr.model.facts import GuestFacts
from dr.model.operations import GUEST_CHECK
from dr.model.policy import GuestPolicy
from dr.model.records import Desired, GuestPhase, GuestRecord, HostRecord, MoveStage

STOPPABLE = frozenset({GuestPhase.RUNNING, GuestPhase.RECOVERING, GuestPhase.ERROR}) | STOP_TO_COME


def _seen(draft: Draft, name: str) -> dict[GuestId, list[tuple[HostRecord, GuestFacts]]]:
    """Domains of that name or UUID in the inventories, by UUID."""
    found: dict[GuestId, list[tuple[HostRecord, GuestFacts]]] = {}
    for host in draft.hosts():
        for facts in draft.view(host.name).guests.values():
            if name in (facts.id, facts.name):
                found.setdefault(facts.id, []).append((host, facts))
    return found


def protect(draft: Draft, ask: AskProtect) -> Reply:
    have, unknown = protected(draft, ask.guests)
    if have:
        return no(ask, *(f"{guest.name} is protected already" for guest in have))
    wanted: dict[GuestId, GuestFacts] = {}
    missing, why = [], []
    for name in unknown:
        found = _seen(draft, name)
        if not found:
            missing.append(name)
        elif len(found) > 1:
            why.append(
                f"{name} is the name of {len(found)} different guests: say which by UUID: {', '.join(found)}"
            )
        else:
            ((guest_id, places),) = found.items()
            running = [host.name for host, facts in places if facts.active]
            if len(running) > 1:
                why.append(f"{name} runs on {' and '.join(running)} at once: stop the wrong one first")
            wanted[guest_id] = next((facts for _, facts in places if facts.active), places[0][1])
            if not running:
                why.append(
                    f"{name} does not run anywhere: start it first, so that its definition is surely right"
                )
    if missing:
        return no_such(ask, "guest", missing)
    policies = {facts.name: _policy(draft, facts.name, ask) for facts in wanted.values()}
    why += dependencies.why_not(draft, policies)
    if why:
        return no(ask, *why)
    operation = draft.open_operation(
        "protect", ", ".join(facts.name for facts in wanted.values()), ask.reason, ask.by, wanted
    )
    for guest_id, facts in wanted.items():
        guest = GuestRecord(
            id=guest_id,
            name=facts.name,
            policy=policies[facts.name],
            since=draft.now,
            reason="every host is asked whether it runs there",
        )
        onecopy.begin_protection(draft, guest)
    dependencies.mind_names(draft)
    list_changed(draft)
    return yes(ask, "protection begins when every host has answered", operation)


def _policy(draft: Draft, name: str, ask: AskProtect) -> GuestPolicy:
    policy = dependencies.default_policy(draft.config.guests, name)
    said = {"priority": ask.priority, "local_disks": ask.local_disks}
    return changed(policy, **{field: value for field, value in said.items() if value is not None})


UNDER_WAY = {GuestPhase.STARTING: "start", GuestPhase.STOPPING: "stop"}


def unprotect(draft: Draft, ask: AskUnprotect) -> Reply:
    have, missing = protected(draft, ask.guests)
    if missing:
        return no_such(ask, "protected guest", missing)
    moving = [
        f"{guest.name} is on its way from {guest.move.source}: wait until its move has ended"
        for guest in have
        if guest.move is not None and guest.move.stage is not MoveStage.QUEUED
    ]
    if moving:
        return no(ask, *moving)
    # A leader that has just begun does not know which tickets are out: the phase is durable.
    busy = [
        f"whether {guest.name} starts or runs is unknown: {guest.reason}"
        for guest in have
        if guest.phase is GuestPhase.UNKNOWN
    ]
    busy += [
        f"a {UNDER_WAY[guest.phase]} of {guest.name} has not ended"
        for guest in have
        if guest.phase in UNDER_WAY
    ]
    busy += [
        f"a {pending.kind} of {guest.name} has not ended"
        for guest in have
        for _, pending in draft.pendings_of(guest.id)
        if pending.guest == guest.id and pending.kind in TICKETED
    ]
    if busy:
        return no(ask, *dict.fromkeys(busy))
    for guest in have:
        onecopy.forget(draft, guest)
        for key in (
            "doubled",
            "waiting",
            "error",
            "blocked",
            "io-error",
            "boot-after",
            "checks",
            "unhealthy",
            "failback",
            "hand-made",
            "stands-still",
        ):
            draft.clear_alert(f"guest/{guest.id}/{key}")
    dependencies.mind_names(draft)
    list_changed(draft)
    return yes(ask, "no longer protected")


def start(draft: Draft, ask: AskStart) -> Reply:
    have, missing = protected(draft, ask.guests)
    if missing:
        return no_such(ask, "protected guest", missing)
    why = [
        f"{guest.name} is {guest.phase}: {guest.reason}"
        for guest in have
        if guest.phase
        in (GuestPhase.PROTECTING, GuestPhase.RUNNING, GuestPhase.STARTING, GuestPhase.MIGRATING)
    ]
    if ask.disks_on and draft.host(ask.disks_on) is None:
        why.append(f"no such host: {ask.disks_on}")
    if ask.disks_on:
        why += [
            f"{guest.name} has no disks that only one host has" for guest in have if not guest.needs.local
        ]
    if why:
        return no(ask, *why)
    if ask.disks_on:
        have = [onecopy.vouch_for_disks(draft, guest, ask.disks_on) for guest in have]
    operation = draft.open_operation(
        "guest-start", ", ".join(g.name for g in have), ask.reason, ask.by, [g.id for g in have]
    )
    for guest in have:
        want_up(draft, guest, ask, operation)
    return yes(ask, "", operation)


def stop(draft: Draft, ask: AskStop) -> Reply:
    have, missing = protected(draft, ask.guests)
    if missing:
        return no_such(ask, "protected guest", missing)
    why = [
        f"{guest.name} is {guest.phase}: {guest.reason}"
        for guest in have
        if guest.phase not in STOPPABLE and not _relocated(guest)
    ]
    why += [
        f"{guest.name} is {guest.phase}: it has no plug to pull now; a stop with --mode shutdown waits until it has"
        for guest in have
        if ask.mode == "destroy" and guest.phase in STOP_TO_COME
    ]
    for guest in have:
        if guest.phase is GuestPhase.ERROR and guest.may_run_on:
            places = ", ".join(sorted({place.host for place in guest.may_run_on}))
            why.append(
                f"{guest.name} is in error and may run on {places}: dr guest start {guest.name} takes it up where it "
                "runs, then it can be stopped"
            )
    if why:
        return no(ask, *why)
    holders = {
        guest.id: whereabouts.sole_holder(draft, guest) for guest in have if guest.phase is GuestPhase.RUNNING
    }
    for guest in have:  # all or none: a refusal leaves nothing half done
        if guest.id in holders and not holders[guest.id]:
            why.append(f"{guest.name} is not seen on {guest.holder} now: {guest.reason}")
        elif guest.id in holders:
            why += onecopy.why_not_stop(draft, guest, draft.require_host(holders[guest.id]))
    if why:
        return no(ask, *why)
    operation = draft.open_operation(
        "guest-stop", ", ".join(g.name for g in have), ask.reason, ask.by, [g.id for g in have]
    )
    for guest in have:
        # What is given out later must be remembered till then, also of a guest that is left alone else.
        later = guest.phase in STOP_TO_COME
        wanted_off = changed(
            guest, desired=Desired.STOPPED if later else kept_ignored(guest, Desired.STOPPED)
        )
        if guest.phase is GuestPhase.MIGRATING:  # its move is called off; when that has ended, it is stopped
            moves.cancel(draft, wanted_off, f"{ask.by} asked to stop it")
        elif _relocated(guest):  # it is being stopped already
            draft.put_guest(changed(wanted_off, move=None))
        elif guest.id in holders:
            holder = draft.require_host(holders[guest.id])
            objections = onecopy.issue_stop(draft, wanted_off, holder, ask.mode, operation=operation.id)
            assert not objections
        elif later:
            draft.put_guest(wanted_off)
        else:
            retries.put_down(draft, wanted_off, f"{ask.by} asked to stop it")
    return yes(ask, "", operation)


def _relocated(guest: GuestRecord) -> bool:
    """Being stopped in order to start elsewhere."""
    return guest.phase is GuestPhase.STOPPING and guest.move is not None


def check(draft: Draft, ask: AskCheck) -> Reply:
    """One round of their checks, now."""
    have, missing = protected(draft, ask.guests)
    if missing:
        return no_such(ask, "protected guest", missing)
    why = [
        f"{guest.name} has no checks: dr guest set {guest.name} --check …"
        for guest in have
        if not guest.policy.checks
    ]
    why += [
        f"{guest.name} does not run ({guest.phase}): {guest.reason}"
        for guest in have
        if guest.phase is not GuestPhase.RUNNING
    ]
    if why:
        return no(ask, *why)
    names = ", ".join(guest.name for guest in have)
    operation = draft.open_operation(GUEST_CHECK, names, ask.reason, ask.by, [guest.id for guest in have])
    return yes(ask, "", operation)
