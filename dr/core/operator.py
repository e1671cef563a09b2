"""What operators ask. Each ask is accepted with an operation to watch, or refused with every blocker at once."""

from __future__ import annotations

from dr.core import fencing, looks, onecopy
from dr.core.detector import Peers, is_late, peers_say, power_says
from dr.core.members import list_changed
from dr.core.state import Draft
from dr.core.tables import GuestEvent, move_guest
from dr.model.base import GuestId, changed
from dr.model.effects import Reply
from dr.model.events import (
    Admitted,
    Ask,
    AskClearQuarantine,
    AskConfirmDown,
    AskFence,
    AskFenceTest,
    AskLabel,
    AskPause,
    AskProtect,
    AskRemoveHost,
    AskResume,
    AskStart,
    AskStop,
    AskUnprotect,
    OperatorAsk,
)
from dr.model.evidence import Power, Proof, ProofKind
from dr.model.facts import GuestFacts
from dr.model.records import (
    Alert,
    Condition,
    Desired,
    GuestPhase,
    GuestRecord,
    HostPhase,
    HostRecord,
    Operation,
    Pause,
)

ASKED: dict[type[OperatorAsk], str] = {
    AskProtect: "protect",
    AskUnprotect: "unprotect",
    AskStart: "start",
    AskStop: "stop",
    AskFence: "fence",
    AskFenceTest: "fence test",
    AskConfirmDown: "confirm-down",
    AskRemoveHost: "remove host",
    AskLabel: "label",
    AskPause: "pause automation",
    AskResume: "resume automation",
    AskClearQuarantine: "clear quarantine of",
    Admitted: "invite host",
}


def asked(draft: Draft, ask: OperatorAsk) -> None:
    """Decide one ask; the audit line is written whatever the outcome."""
    reply = _answer(draft, ask)
    outcome = "accepted" if reply.accepted else f"refused: {'; '.join(reply.blockers) or reply.message}"
    what = ASKED[type(ask)]
    why = f" because {ask.reason}" if ask.reason else ""
    subject = getattr(ask, "host", "") or ", ".join(getattr(ask, "guests", ())) or getattr(ask, "name", "")
    draft.note("audit", f"{ask.by} asked to {what} {subject}".rstrip() + f"{why}: {outcome}", by=ask.by)
    draft.effect(reply)


def _answer(draft: Draft, ask: OperatorAsk) -> Reply:  # noqa: PLR0911  # one line for each ask
    match ask:
        case AskProtect():
            return _protect(draft, ask)
        case AskUnprotect():
            return _unprotect(draft, ask)
        case AskStart():
            return _start(draft, ask)
        case AskStop():
            return _stop(draft, ask)
        case AskFence():
            return _fence(draft, ask)
        case AskFenceTest():
            return _fence_test(draft, ask)
        case AskConfirmDown():
            return _confirm_down(draft, ask)
        case AskRemoveHost():
            return _remove_host(draft, ask)
        case AskClearQuarantine():
            return _clear_quarantine(draft, ask)
        case AskLabel():
            return _label(draft, ask)
        case AskPause() | AskResume():
            return _pause_or_resume(draft, ask)
        case Admitted():
            return _admit(draft, ask)


def _yes(ask: Ask, message: str = "", *operations: Operation) -> Reply:
    return Reply(id=ask.id, accepted=True, message=message, operations=tuple(op.id for op in operations))


def _no(ask: Ask, *blockers: str) -> Reply:
    return Reply(id=ask.id, accepted=False, blockers=blockers)


def _missing(ask: Ask, kind: str, names: list[str]) -> Reply:
    text = f"no such {kind}: {', '.join(names)}"
    return Reply(id=ask.id, accepted=False, blockers=(text,), missing=True)


# ---- guests


def _seen(draft: Draft, name: str) -> dict[GuestId, list[tuple[HostRecord, GuestFacts]]]:
    """Domains of that name or UUID in the inventories, by UUID."""
    found: dict[GuestId, list[tuple[HostRecord, GuestFacts]]] = {}
    for host in draft.hosts():
        for facts in draft.view(host.name).guests.values():
            if name in (facts.id, facts.name):
                found.setdefault(facts.id, []).append((host, facts))
    return found


def _protected(draft: Draft, names: tuple[str, ...]) -> tuple[list[GuestRecord], list[str]]:
    by_name: dict[str, GuestRecord] = {}
    for guest in draft.guests():
        by_name[guest.name] = by_name[guest.id] = guest
    found = {by_name[name].id: by_name[name] for name in names if name in by_name}  # one named twice is one
    return list(found.values()), [name for name in names if name not in by_name]


def _protect(draft: Draft, ask: AskProtect) -> Reply:
    have, unknown = _protected(draft, ask.guests)
    if have:
        return _no(ask, *(f"{guest.name} is protected already" for guest in have))
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
        return _missing(ask, "guest", missing)
    if why:
        return _no(ask, *why)
    operation = draft.open_operation(
        "protect", ", ".join(facts.name for facts in wanted.values()), ask.reason, ask.by, wanted
    )
    for guest_id, facts in wanted.items():
        policy = draft.config.guests
        if ask.priority is not None:
            policy = changed(policy, priority=ask.priority)
        guest = GuestRecord(
            id=guest_id,
            name=facts.name,
            policy=policy,
            since=draft.now,
            reason="every host is asked whether it runs there",
        )
        onecopy.begin_protection(draft, guest)
    list_changed(draft)
    return _yes(ask, "protection begins when every host has answered", operation)


def _unprotect(draft: Draft, ask: AskUnprotect) -> Reply:
    have, missing = _protected(draft, ask.guests)
    if missing:
        return _missing(ask, "protected guest", missing)
    busy = [
        f"a {pending.kind} of {guest.name} has not ended"
        for guest in have
        for _, pending in draft.pendings()
        if pending.guest == guest.id and pending.kind in ("start", "stop", "clean")
    ]
    if busy:
        return _no(ask, *busy)
    for guest in have:
        onecopy.forget(draft, guest)
        for key in ("doubled", "waiting", "error", "blocked", "io-error"):
            draft.clear_alert(f"guest/{guest.id}/{key}")
    list_changed(draft)
    return _yes(ask, "no longer protected")


def _start(draft: Draft, ask: AskStart) -> Reply:
    have, missing = _protected(draft, ask.guests)
    if missing:
        return _missing(ask, "protected guest", missing)
    why = [
        f"{guest.name} is {guest.phase}: {guest.reason}"
        for guest in have
        if guest.phase not in (GuestPhase.STOPPED, GuestPhase.ERROR, GuestPhase.RECOVERING)
    ]
    if why:
        return _no(ask, *why)
    operation = draft.open_operation(
        "guest-start", ", ".join(g.name for g in have), ask.reason, ask.by, [g.id for g in have]
    )
    for guest in have:
        fresh = changed(
            guest, desired=Desired.RUNNING, restarts=(), relocations=(), avoid=(), retry_at=draft.now
        )
        draft.clear_alert(f"guest/{guest.id}/error")
        draft.clear_alert(f"guest/{guest.id}/doubled")
        if guest.phase is GuestPhase.RECOVERING:
            draft.put_guest(fresh)
        else:
            move_guest(draft, fresh, GuestEvent.START, f"{ask.by} asked to start it", operation=operation.id)
    return _yes(ask, "", operation)


def _stop(draft: Draft, ask: AskStop) -> Reply:
    have, missing = _protected(draft, ask.guests)
    if missing:
        return _missing(ask, "protected guest", missing)
    why = [
        f"{guest.name} is {guest.phase}: {guest.reason}"
        for guest in have
        if guest.phase not in (GuestPhase.RUNNING, GuestPhase.RECOVERING, GuestPhase.ERROR)
    ]
    if why:
        return _no(ask, *why)
    holders = {
        guest.id: onecopy.sole_holder(draft, guest) for guest in have if guest.phase is GuestPhase.RUNNING
    }
    for guest in have:  # all or none: a refusal leaves nothing half done
        if guest.id in holders and not holders[guest.id]:
            why.append(f"{guest.name} is not seen on {guest.holder} now: {guest.reason}")
        elif guest.id in holders:
            why += onecopy.why_not_stop(draft, guest, draft.require_host(holders[guest.id]))
    if why:
        return _no(ask, *why)
    operation = draft.open_operation(
        "guest-stop", ", ".join(g.name for g in have), ask.reason, ask.by, [g.id for g in have]
    )
    for guest in have:
        wanted_off = changed(guest, desired=Desired.STOPPED)
        if guest.id in holders:
            holder = draft.require_host(holders[guest.id])
            objections = onecopy.issue_stop(draft, wanted_off, holder, ask.mode, operation=operation.id)
            assert not objections
        else:
            move_guest(
                draft, wanted_off, GuestEvent.ENDED, f"{ask.by} asked to stop it", operation=operation.id
            )
    return _yes(ask, "", operation)


# ---- hosts


def _fence(draft: Draft, ask: AskFence) -> Reply:
    host = draft.host(ask.host)
    if host is None:
        return _missing(ask, "host", [ask.host])
    why = _why_not_switch(draft, host)
    if why:
        return _no(ask, *why)
    text = f"{ask.by} asked{f': {ask.reason}' if ask.reason else ''}"
    operation = draft.open_operation("fence", host.name, text, ask.by)
    fencing.condemn(draft, host, text, operator=True)
    return _yes(ask, "", operation)


def _why_not_switch(draft: Draft, host: HostRecord) -> list[str]:
    why = []
    if draft.policy(host.name).coordinator_here or host.boot_id == draft.state.own_boot:
        why.append(f"the coordinator runs on {host.name}, and never fences its own host")
    if not draft.policy(host.name).fencing:
        why.append(f"{host.name} has no fencing configured")
    if host.phase in (HostPhase.FENCING, HostPhase.FENCED):
        why.append(f"{host.name} is {host.phase} already: {host.reason}")
    if not host.boot_id:
        why.append(f"{host.name} never said hello, so no boot of it is known")
    return why


def _fence_test(draft: Draft, ask: AskFenceTest) -> Reply:
    host = draft.host(ask.host)
    if host is None:
        return _missing(ask, "host", [ask.host])
    why = _why_not_switch(draft, host)
    active = sorted(facts.name for facts in draft.view(host.name).guests.values() if facts.active)
    if host.phase is not HostPhase.ONLINE or not draft.view(host.name).session:
        why.append(f"{host.name} is not online, so its return could not be seen: {host.phase}")
    if active:
        why.append(f"guests run on it, and the test cuts its power: {', '.join(active)}")
    if claimed := draft.guests_at(host.name):
        why.append(f"{len(claimed)} protected guests may run on it")
    if testing := [h.name for h in draft.hosts() if h.fencing and h.fencing.test]:
        why.append(f"{testing[0]} is being tested; one at a time")
    if why:
        return _no(ask, *dict.fromkeys(why))
    operation = draft.open_operation("fence-test", host.name, ask.reason or f"{ask.by} asked", ask.by)
    fencing.condemn(draft, host, "fence test of an empty host", test=operation.id)
    return _yes(ask, "", operation)


def _confirm_down(draft: Draft, ask: AskConfirmDown) -> Reply:
    """A person's word that a host is off, bound to a boot. Refused while there is any sign of life."""
    host = draft.host(ask.host)
    if host is None:
        return _missing(ask, "host", [ask.host])
    view = draft.view(host.name)
    why = []
    if not ask.reason:
        why.append("a reason is needed: how do you know that it is off?")
    if ask.boot_id and ask.boot_id != host.boot_id:
        why.append(f"{host.name} has another boot on record now ({host.boot_id}): look again")
    if view.session and not is_late(draft, host):
        why.append(f"its agent answers (last heard {draft.now - view.heard:.1f} s ago)")
    proven = host.phase is HostPhase.FENCED and host.dead_at >= draft.state.started_at
    if proven and not draft.guests_at(host.name):
        why.append(f"it is proven dead already: {host.reason}")
    if draft.now < draft.quiet_until:
        why.append(
            "the coordinator has just started and has not looked for itself yet: try again in a moment"
        )
    elif peers_say(view) is Peers.ANSWERS:
        why.append(f"witnesses hear it: {looks.in_words(draft, host.name)}")
    elif not view.looks and looks.witnesses(draft, host):
        why.append("no witness has looked for it yet: try again in a moment")
    if power_says(draft, host) is Power.ON:
        why.append(f"its fence device says that it is on: dr host fence {host.name}")
    if draft.find_pending("fence", host=host.name):
        why.append("a fencing of it is under way")
    if why:
        return _no(ask, *why)
    operation = draft.open_operation("confirm-down", host.name, ask.reason, ask.by)
    proof = Proof(
        kind=ProofKind.OPERATOR,
        host=host.name,
        boot_id=host.boot_id,
        text=f"{ask.by} confirmed that it is off: {ask.reason}",
    )
    fencing.dead(draft, host, proof, fenced=False)
    draft.close_operation(operation, "done", f"{host.name}: {proof.text}")
    return _yes(ask, f"{host.name} counts as down", operation)


def _remove_host(draft: Draft, ask: AskRemoveHost) -> Reply:
    host = draft.host(ask.host)
    if host is None:
        return _missing(ask, "host", [ask.host])
    why = []
    names = [guest.name for g in draft.guests_at(host.name) if (guest := draft.guest(g)) is not None]
    if names:  # rule 6
        why.append(f"protected guests may run on it: {', '.join(sorted(names))}")
    if host.phase is HostPhase.FENCING:
        why.append("it is being fenced")
    if why:
        return _no(ask, *why)
    if session := draft.view(host.name).session:
        draft.drop_session(host.name, session, f"{host.name} was removed from the cluster")
    for kind in (
        "held",
        "fence-failed",
        "agent-lost",
        "fence-lies",
        "degraded",
        "quarantined",
        "proof-void",
        "unprotected",
    ):
        draft.clear_alert(f"host/{host.name}/{kind}")
    draft.remove_host(host.name)
    return _yes(ask, f"{host.name} is no longer a member; stop its agent and remove the hook there")


def _admit(draft: Draft, ask: Admitted) -> Reply:
    if draft.host(ask.host) is None:
        draft.put_host(
            HostRecord(
                name=ask.host, since=draft.now, reason="a token was made; its agent has not said hello"
            )
        )
    return _yes(ask)


def _clear_quarantine(draft: Draft, ask: AskClearQuarantine) -> Reply:
    host = draft.host(ask.host)
    if host is None:
        return _missing(ask, "host", [ask.host])
    if Condition.QUARANTINED not in host.conditions:
        return _no(ask, f"{host.name} is not quarantined")
    draft.put_host(changed(host, conditions=host.conditions - {Condition.QUARANTINED}, fenced_at=()))
    draft.clear_alert(f"host/{host.name}/quarantined")
    return _yes(ask, f"{host.name} takes guests again")


def _label(draft: Draft, ask: AskLabel) -> Reply:
    if ask.kind == "host":
        host = draft.host(ask.name)
        if host is None:
            return _missing(ask, "host", [ask.name])
        draft.put_host(changed(host, labels=_merged(host.labels, ask.labels)))
        return _yes(ask)
    have, missing = _protected(draft, (ask.name,))
    if missing:
        return _missing(ask, "protected guest", missing)
    draft.put_guest(changed(have[0], labels=_merged(have[0].labels, ask.labels)))
    return _yes(ask)


def _merged(labels: dict[str, str], asked_for: dict[str, str | None]) -> dict[str, str]:
    kept = {key: value for key, value in labels.items() if key not in asked_for}
    return kept | {key: value for key, value in asked_for.items() if value is not None}


def _pause_or_resume(draft: Draft, ask: AskPause | AskResume) -> Reply:
    if isinstance(ask, AskPause):
        if not ask.reason:
            return _no(ask, "a reason is needed: the next person will ask")
        draft.cluster = changed(draft.cluster, pause=Pause(reason=ask.reason, by=ask.by, at=draft.now))
        draft.alert(
            "cluster/paused",
            "automation is paused: nothing is fenced or restarted by itself",
            f"{ask.by}: {ask.reason}",
            "when that is over: dr resume",
        )
        return _yes(ask, "automation is off: nothing is fenced or restarted by itself until dr resume")
    if draft.cluster.pause is None:
        return _no(ask, "automation is not paused")
    draft.cluster = changed(draft.cluster, pause=None, restored="")
    draft.clear_alert("cluster/restored")
    draft.clear_alert("cluster/paused")
    return _yes(ask, "automation is on")


# ---- operations end


def close_finished(draft: Draft) -> None:
    """Operations whose every guest has an outcome, or whose host reached its end."""
    for operation in draft.open_operations():
        if operation.guests:
            _close_over_guests(draft, operation)
        elif operation.kind == "fence":
            host = draft.host(operation.subject)
            if host is None or host.phase is not HostPhase.FENCING:
                done = host is not None and host.dead_at >= operation.opened
                reason = host.reason if host else "it was removed"
                draft.close_operation(
                    operation, "done" if done else "failed", f"{operation.subject}: {reason}"
                )
        elif operation.kind == "fence-test":
            _carry_test_on(draft, operation)


def _close_over_guests(draft: Draft, operation: Operation) -> None:
    outcomes: dict[GuestId, str] = {}
    for guest_id, before in operation.guests.items():
        guest = draft.guest(guest_id)
        if guest is None:
            outcomes[guest_id] = before or "no longer protected"
        elif guest.phase is GuestPhase.RUNNING:
            outcomes[guest_id] = f"running on {guest.holder}"
        elif guest.phase in (GuestPhase.STOPPED, GuestPhase.ERROR):
            outcomes[guest_id] = f"{guest.phase}: {guest.reason}"
        elif draft.alert_of(f"guest/{guest.id}/waiting") and guest.phase is GuestPhase.RECOVERING:
            outcomes[guest_id] = f"waits: {guest.reason}"
        else:
            return
    bad = [text for text in outcomes.values() if not text.startswith("running")]
    wanted_off = operation.kind == "guest-stop"
    failed = any(not t.startswith("stopped") for t in outcomes.values()) if wanted_off else bool(bad)
    draft.put_operation(changed(operation, guests=outcomes))
    took = draft.now - operation.opened
    text = f"{len(outcomes) - len(bad)} of {len(outcomes)} guests run, {took:.1f} s after the decision"
    if operation.kind != "failover":
        text = "; ".join(dict.fromkeys(outcomes.values()))
    draft.close_operation(operation, "failed" if failed else "done", text)
    if operation.kind == "failover":
        lines = [
            f"{guest.name if (guest := draft.guest(key)) else key}: {end}" for key, end in outcomes.items()
        ]
        draft.tell(
            Alert(
                key=f"failover/{operation.id}",
                what=f"failover of {operation.subject}: {text}",
                why=f"{operation.why}; {'; '.join(lines)}",
                todo=f"dr job show {operation.id}" + (f"; repair {operation.subject}" if not failed else ""),
                severity="critical" if failed else "info",
                raised=draft.now,
            )
        )


def _carry_test_on(draft: Draft, operation: Operation) -> None:
    """A fence test ends when every level was proven, one after the other."""
    host = draft.host(operation.subject)
    if host is None:
        draft.close_operation(operation, "failed", f"{operation.subject} was removed")
        return
    if host.fencing is not None and host.fencing.test == operation.id:
        if host.phase is HostPhase.FENCED and draft.now - host.dead_at > 20 * draft.config.timers.fence_s:
            draft.put_host(changed(host, fencing=None))
            fencing.fail_test(draft, host, operation.id, "it did not come back after it was switched on")
        return
    if host.phase is not HostPhase.ONLINE:
        if host.phase is HostPhase.SUSPECT:
            fencing.fail_test(draft, host, operation.id, host.reason)
        return
    levels = draft.policy(host.name).fencing
    for level, devices in enumerate(levels):
        proven = all(
            (identity := draft.identity(host.name, device.name)) and identity.proven_at >= operation.opened
            for device in devices.devices
        )
        if not proven:
            fencing.condemn(draft, host, f"fence test, level {level + 1}", test=operation.id, level=level)
            return
    names = ", ".join(device.name for level in levels for device in level.devices)
    draft.close_operation(operation, "done", f"{host.name}: proven: {names}")
