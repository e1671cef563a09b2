"""The fencing ladder: whether to fence, level by level, and what counts as proof that it worked.

A fence is for one boot, is judged anew after a crash, and is never believed on the device's word alone: all
devices of the level must read off, be proven to be this host's, and after that nobody may hear the host.
"""

from __future__ import annotations

from collections.abc import Iterator

from dr.core import flaps, guests, isolation, looks, measured, onecopy, placement
from dr.core.detector import Peers, brake, is_late, may_thaw, peers_say, why_not_identical, why_not_off
from dr.core.state import Draft
from dr.core.tables import HostEvent, move_host
from dr.core.volatile import Pending
from dr.model.base import BootId, HostName, changed
from dr.model.effects import Fence, PowerOn
from dr.model.evidence import Power, PowerReport, Proof, ProofKind
from dr.model.records import (
    Condition,
    Desired,
    DeviceIdentity,
    Fencing,
    GuestPhase,
    HostPhase,
    HostRecord,
)

RETURNED = (HostPhase.ONLINE, HostPhase.DRAINING, HostPhase.RETURNING, HostPhase.SUSPECT)
EVIDENCE_S = 5.0  # an attempt rests on looks no older than this
LAST_LOOK_S = 0.3  # window of the look after a fence; a living host answers within milliseconds


def recoverable(draft: Draft, host: HostRecord) -> Iterator[str]:
    """Names of protected guests that fencing this host would let us recover."""
    for guest_id in draft.guests_at(host.name):
        guest = draft.guest(guest_id)
        assert guest is not None
        wanted = guest.desired is Desired.RUNNING and guest.phase is not GuestPhase.ERROR
        others = {place.host for place in guest.may_run_on} - {host.name}
        elsewhere = any(_lives(draft, draft.require_host(name)) for name in others)
        startable = wanted and not elsewhere and guest.definition and not guest.tied
        startable = startable and not onecopy.stays_when_off(draft, guest, host.name)
        if startable and placement.refuge(draft, guest, host.name):
            yield guest.name


def _lives(draft: Draft, host: HostRecord) -> bool:
    """Whether it is for that host itself to say what runs there. Until then, switching another off starts nothing."""
    alive = host.phase in (HostPhase.JOINING, HostPhase.ONLINE, HostPhase.DRAINING, HostPhase.RETURNING)
    return Condition.AGENT_LOST in host.conditions or (alive and not is_late(draft, host))


def why_not_fence(draft: Draft, host: HostRecord) -> list[str]:
    """Every reason against fencing this host by itself now; empty = go."""
    why = []
    if draft.cluster.pause is not None:
        why.append(f"automation is paused ({draft.cluster.pause.reason}): dr resume")
    if draft.cluster.restored:
        why.append("the store is an older copy: look it over, then dr resume")
    if not draft.config.auto_fence:
        why.append("automatic fencing is off in the configuration")
    if draft.policy(host.name).coordinator_here or host.boot_id == draft.state.own_boot:
        why.append("the coordinator runs on it, and never fences its own host")
    if not draft.policy(host.name).fencing:
        why.append("it has no fencing configured")
    elif doubt := may_thaw(host):
        why.append(f"{doubt}, so off would not mean over: see dr doctor")
    elif not provable(draft, host):
        why.append(f"switching it off would prove nothing: run dr fence test {host.name}")
    if reason := isolation.left_alone(draft, host):
        why.append(reason)
    if reason := brake(draft):
        why.append(reason)
    if not why and next(recoverable(draft, host), None) is None:
        why.append("no protected guest could be recovered by it")
    return why


def provable(draft: Draft, host: HostRecord) -> bool:
    """Whether some level consists of devices that were shown to switch this host."""
    return any(
        all(draft.identity(host.name, device.name) is not None for device in level.devices)
        for level in draft.policy(host.name).fencing
    )


def bystanders(draft: Draft, host: HostName) -> list[str]:
    """Active guests that are not protected and die with the host."""
    view = draft.view(host)
    return sorted(
        facts.name for facts in view.guests.values() if facts.active and draft.guest(facts.id) is None
    )


def condemn(
    draft: Draft, host: HostRecord, why: str, *, operator: bool = False, test: str = "", level: int = 0
) -> HostRecord:
    """Decide to fence; `step` does it."""
    others = bystanders(draft, host.name)
    if others and not test:
        why = f"{why}; this also ends {len(others)} unprotected guests: {', '.join(others)}"
    fencing = Fencing(
        boot_id=host.boot_id, next_at=draft.now, operator=operator, why=why, test=test, level=level
    )
    return move_host(draft, host, HostEvent.CONDEMN, f"to be fenced: {why}", fencing=fencing)


def step(draft: Draft, host: HostRecord) -> None:
    """Carry a fencing on: the next attempt when it is due."""
    fencing = host.fencing
    if host.phase is not HostPhase.FENCING or fencing is None:
        return
    if draft.find_pending("fence", host=host.name):
        return
    if fencing.verified:
        if looks.complete(draft, host.name):
            _last_look(draft, host, fencing)
        return
    if not fencing.operator and not fencing.test:
        view = draft.view(host.name)
        if view.session and view.fresh > host.since:
            move_host(draft, host, HostEvent.HEARD, "its agent answers again; not fenced", fencing=None)
            for kind in ("held", "fence-failed"):
                draft.clear_alert(f"host/{host.name}/{kind}")
            return
        if why := why_not_fence(draft, host):
            _abandon(draft, host, "; ".join(why))
            return
    if draft.now < fencing.next_at:
        return
    if not fencing.operator and not fencing.test and not _still_silent(draft, host):
        return
    if (fencing.operator or fencing.test) and not _read_lately(draft, host):
        return
    levels = draft.policy(host.name).fencing
    if not levels:
        _abandon(draft, host, "it has no fencing configured")
        return
    level = min(fencing.level, len(levels) - 1)
    if why := _aimed_elsewhere(draft, host, fencing, level):
        _failed(draft, host, fencing, PowerReport(level=level, reason="not tried"), why)
        return
    key = draft.next_id("fence")
    timeout_s = draft.config.timers.fence_s
    draft.wait_for(
        key,
        # The adapter ends by itself after timeout_s; a runtime that lost the result is noticed later.
        Pending(
            kind="fence",
            host=host.name,
            at=draft.now,
            deadline=draft.now + 2 * timeout_s,
            detail=fencing.boot_id,
        ),
    )
    draft.effect(
        Fence(
            id=key,
            host=host.name,
            boot_id=fencing.boot_id,
            level=level,
            devices=levels[level],
            timeout_s=timeout_s,
        )
    )
    draft.note(
        "fence.begin",
        f"{host.name}: switching off through level {level + 1} of {len(levels)}, attempt {fencing.attempt + 1}",
        host=host.name,
    )


def _still_silent(draft: Draft, host: HostRecord) -> bool:
    """No attempt rests on old evidence: look again first; who answers by now is judged anew."""
    if draft.now - draft.view(host.name).round_at > EVIDENCE_S:
        looks.begin_round(draft, host, LAST_LOOK_S)
        return False
    if not looks.complete(draft, host.name):
        return False
    said = peers_say(draft.view(host.name))
    if said is Peers.SILENT:
        return True
    _abandon(draft, host, "it answers by now" if said is Peers.ANSWERS else "no live witness could look")
    return False


def _read_lately(draft: Draft, host: HostRecord) -> bool:
    """What a person asked for needs no evidence, but devices are read first: whose machine would they switch now?"""
    round_at = draft.view(host.name).round_at
    if round_at < host.since or draft.now - round_at > EVIDENCE_S:
        looks.begin_round(draft, host, LAST_LOOK_S)
    return not any(
        pending.kind == "power" and pending.detail == host.name and draft.now < pending.deadline
        for _, pending in draft.pendings()
    )


def _aimed_elsewhere(draft: Draft, host: HostRecord, fencing: Fencing, level: int) -> list[str]:
    """Why this level would switch another machine, or nothing that counts. Asked before it switches anything.

    A device at a recycled address is found out by its last reading; one that was never proven is only switched
    for a test, or for a person, and never when it is known as another host's.
    """
    # However old: a device that showed another machine last is not switched before it was read anew.
    seen = draft.view(host.name).shown
    why: list[str] = []
    for device in draft.policy(host.name).fencing[level].devices:
        identity, reading = draft.identity(host.name, device.name), seen.get(device.name)
        owner = _proven_owner(draft, reading.guid) if reading is not None else ""
        if identity is not None and not fencing.test:
            if reading is not None:
                why += why_not_identical(identity, reading)
        elif owner not in ("", host.name):
            why.append(f"{device.name} shows the GUID that was proven to be of {owner}")
        elif not fencing.operator and not fencing.test:
            why.append(f"{device.name} was never proven: run dr fence test {host.name}")
    return why


def _proven_owner(draft: Draft, guid: str) -> HostName:
    """The host that a device with this GUID was proven to switch; "" when none is known."""
    return next((item.host for item in draft.state.identities.values() if guid and item.guid == guid), "")


def _abandon(draft: Draft, host: HostRecord, why: str) -> None:
    """No longer to be fenced: back to suspect, to be judged anew."""
    draft.note("fence.abandoned", f"{host.name}: not fenced: {why}", host=host.name)
    move_host(draft, host, HostEvent.DOUBTED, f"not fenced: {why}", fencing=None)


def ended(draft: Draft, host: HostRecord, boot_id: BootId, report: PowerReport) -> None:
    """One level was tried on that boot. Believed only if every device reads off and is proven to be this host's."""
    fencing = host.fencing
    if host.phase is not HostPhase.FENCING or fencing is None or fencing.boot_id != boot_id:
        draft.note("fence.late", f"{host.name}: a fencing ended after it no longer mattered", host=host.name)
        again = draft.policy(host.name).power_on_after_fence and not why_not_off(draft, host.name, report)
        if again and host.phase in RETURNED:  # it met the boot with which the host came back meanwhile
            draft.put_host(changed(host, power_on=True))
        return
    view = draft.view(host.name)
    others = [r for r in view.power if view.power_at >= view.round_at and r.level != report.level]
    power = (*others, report)
    shown = looks.shown(draft, host.name, power)
    draft.put_view(host.name, power=power, power_at=draft.now, shown=shown)
    if fencing.test:
        why = [f"{r.device} says {r.power} {r.reason}" for r in report.readings if r.power is not Power.OFF]
        why = why or ([] if report.readings else [report.reason or "no device answered"])
    else:
        why = why_not_off(draft, host.name, report)
    if why:
        _failed(draft, host, fencing, report, why)
        return
    words = ", ".join(f"{reading.device} says off" for reading in report.readings)
    draft.note("fence.off", f"{host.name}: {words}; one last look at the host", host=host.name)
    host = changed(
        host, fencing=changed(fencing, verified=True, verified_at=draft.now, readings=report.readings)
    )
    draft.put_host(host)
    looks.begin_round(draft, host, LAST_LOOK_S, power=False)


def _failed(draft: Draft, host: HostRecord, fencing: Fencing, report: PowerReport, why: list[str]) -> None:
    limits, timers = draft.config.limits, draft.config.timers
    levels = draft.policy(host.name).fencing
    attempt, level = fencing.attempt + 1, fencing.level
    wait_s = 0.0
    if attempt >= limits.fence_attempts_per_level:
        attempt, level = 0, level + 1
    rounds = fencing.rounds
    if level >= len(levels):
        level, rounds = 0, rounds + 1
        wait_s = min(timers.fence_retry_s * 2 ** (rounds - 1), timers.fence_retry_max_s)
    text = f"level {report.level + 1} did not prove {host.name} off: {'; '.join(why)}"
    draft.note("fence.failed", f"{host.name}: {text}", host=host.name)
    if fencing.test:
        host = changed(host, fencing=None)
        fail_test(draft, host, fencing.test, text)
        move_host(draft, host, HostEvent.DOUBTED, f"fence test failed: {text}")
        return
    if rounds and fencing.operator and draft.view(host.name).session and not is_late(draft, host):
        # A person's wish of now, for a host that lives: it must not come true hours later, when its BMC is repaired.
        draft.note("fence.gave_up", f"{host.name}: it answers, and could not be switched off", host=host.name)
        move_host(draft, host, HostEvent.HEARD, f"it answers and was not switched off: {text}", fencing=None)
        return
    if rounds:
        draft.alert(
            f"host/{host.name}/fence-failed",
            f"{host.name} cannot be proven off; nothing of it is restarted",
            text,
            f"switch {host.name} off by hand, see that it is off, then: dr host confirm-down {host.name}",
            severity="critical",
        )
    draft.put_host(
        changed(
            host,
            reason=text,
            fencing=changed(fencing, attempt=attempt, level=level, rounds=rounds, next_at=draft.now + wait_s),
        )
    )


def _last_look(draft: Draft, host: HostRecord, fencing: Fencing) -> None:
    """Devices said off: does anybody still hear the host?"""
    view = draft.view(host.name)
    said = peers_say(view)
    if view.fresh > fencing.verified_at or said is Peers.ANSWERS:
        text = f"fence devices say off, yet the host answers ({looks.in_words(draft, host.name)})"
        draft.alert(
            f"host/{host.name}/fence-lies",
            f"fencing of {host.name} is not believed; nothing of it is restarted",
            text,
            f"check which machine its fence devices really switch, then: dr fence test {host.name}",
            severity="critical",
        )
        if fencing.test:
            fail_test(draft, host, fencing.test, text)
        move_host(draft, host, HostEvent.HEARD if view.session else HostEvent.ANSWERS, text, fencing=None)
        return
    gone = (HostPhase.JOINING, HostPhase.FENCED, HostPhase.MAINTENANCE)  # none of these is ever a witness
    alone = all(peer.name == host.name or peer.phase in gone for peer in draft.hosts())
    if said is Peers.NONE and not ((fencing.operator or fencing.test) and alone):
        # Silence counts only from a live witness. A person's own fence on a site with no other host may go on.
        looks.begin_round(draft, host, LAST_LOOK_S, power=False)
        return
    text = ", ".join(f"{reading.device} says off" for reading in fencing.readings)
    if fencing.test:
        test_off(draft, host, fencing)
        return
    dead(
        draft,
        host,
        Proof(kind=ProofKind.POWER, host=host.name, boot_id=fencing.boot_id, text=f"fenced: {text}"),
        fenced=True,
    )


def dead(draft: Draft, host: HostRecord, proof: Proof, *, fenced: bool) -> None:
    """The host's boot is proven over: it leaves every set; what it held waits for a place."""
    why = {
        ProofKind.POWER: "proven dead",
        ProofKind.OPERATOR: "confirmed down by a person",
    }[proof.kind]
    if fenced:  # a test does not come here
        host = flaps.fenced(draft, host)
    if proof.kind is ProofKind.POWER:
        host = measured.ended(draft, host)
    session = draft.view(host.name).session
    draft.put_view(host.name, session="", goodbye="", inventory=False, guests={})
    host = move_host(
        draft,
        host,
        HostEvent.DEAD,
        f"{why}: {proof.text}",
        fencing=None,
        conditions=host.conditions - {Condition.AGENT_LOST},
        dead_boot=proof.boot_id,
        dead_at=draft.now,
        power_on=(fenced and draft.policy(host.name).power_on_after_fence)
        or (host.power_on and proof.kind is ProofKind.POWER),  # whom a person calls off, a person switches on
    )
    draft.forget_session(host.name)
    if session:
        from_dead = "the host was proven dead"
        draft.drop_session(host.name, session, from_dead)
    draft.clear_alert(f"host/{host.name}/fence-failed")
    draft.clear_alert(f"host/{host.name}/held")
    left = onecopy.prove_boot_over(draft, proof)
    guests.lost_host(draft, host.name, left, f"{host.name} {why}: {proof.text}")


# ---- power on, after a fencing or in a test


def power_on(draft: Draft, host: HostRecord, why: str) -> None:
    """Ask the devices to switch the host on; its return is seen by its agent's hello, nothing else."""
    key = draft.next_id("on")
    timers = draft.config.timers
    draft.wait_for(
        key, Pending(kind="on", host=host.name, at=draft.now, deadline=draft.now + 2 * timers.fence_s)
    )
    draft.effect(PowerOn(id=key, host=host.name, levels=draft.policy(host.name).fencing))
    draft.note("fence.on", f"{host.name}: switching it on again: {why}", host=host.name)
    draft.put_view(host.name, power_on_at=draft.now)


def maybe_power_on(draft: Draft, host: HostRecord) -> None:
    """Power-on by policy, once the guests that it held have a place again."""
    if host.phase is not HostPhase.FENCED or not host.power_on or draft.cluster.pause is not None:
        return
    if Condition.QUARANTINED in host.conditions or draft.find_pending("on", host=host.name):
        return
    if any(op.kind == "failover" and op.subject == host.name for op in draft.open_operations()):
        return
    tried_at = draft.view(host.name).power_on_at
    if tried_at > host.dead_at and draft.now - tried_at < draft.config.timers.fence_retry_max_s:
        return  # it boots, or its devices refused: not again at once
    power_on(draft, host, "power-on after fencing is this host's policy")


# ---- dr fence test


def in_use(draft: Draft, host: HostRecord) -> list[str]:
    """Why its power must not be cut for a test."""
    why = []
    if active := sorted(facts.name for facts in draft.view(host.name).guests.values() if facts.active):
        why.append(f"guests run on it, and the test cuts its power: {', '.join(active)}")
    if claimed := draft.guests_at(host.name):
        why.append(f"{len(claimed)} protected guests may run on it")
    return why


def test_off(draft: Draft, host: HostRecord, fencing: Fencing) -> None:
    """Test: the level is off and the host is gone. Switch it on; its new boot id will show that it was this host."""
    draft.note(
        "fence.test",
        f"{host.name}: off and silent; switching on, its new boot id will show whose devices these are",
        host=host.name,
        operation=fencing.test,
    )
    host = measured.ended(draft, host)
    session = draft.view(host.name).session
    draft.put_view(host.name, session="", inventory=False, guests={})
    if session:
        draft.drop_session(host.name, session, "fence test")
    move_host(
        draft, host, HostEvent.DEAD, "off for its fence test", dead_boot=fencing.boot_id, dead_at=draft.now
    )
    draft.put_host(changed(draft.require_host(host.name), fencing=fencing))
    power_on(draft, host, "fence test")


def test_booted(draft: Draft, host: HostRecord, fencing: Fencing, boot_id: str) -> None:
    """Test: the host is back with a new boot id, so these devices are this host's."""
    assert boot_id != fencing.boot_id
    for reading in fencing.readings:
        draft.put_identity(
            DeviceIdentity(
                host=host.name,
                device=reading.device,
                guid=reading.guid,
                fingerprint=reading.fingerprint,
                proven_at=draft.now,
            )
        )
    names = ", ".join(reading.device for reading in fencing.readings)
    draft.note(
        "fence.proven",
        f"{host.name}: {names} switched it off and on: boot id changed from {fencing.boot_id} to {boot_id}",
        host=host.name,
        operation=fencing.test,
    )


def fail_test(draft: Draft, host: HostRecord, operation: str, why: str) -> None:
    """A fence test ended without proof."""
    record = draft.operation(operation)
    if record is not None:
        draft.close_operation(record, "failed", f"{host.name}: fence test failed: {why}")
