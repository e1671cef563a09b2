"""Hosts as members: hello, epoch, what they report, coming back, conditions.

A host counts as online only after it has acknowledged this leader's epoch and the protected list, has
testified for every guest that might run there, and holds nothing that runs elsewhere. Not here: a store that turns out
to be an older copy (`restored`), the protected list (`protection`), what inventories say of guests (`inventories`).
"""

from __future__ import annotations

from dr.core import (
    cpus,
    dirtying,
    failing,
    fencing,
    flaps,
    guests,
    handmade,
    leaving,
    links,
    migration,
    onecopy,
    quorum,
)
from dr.core.detector import observe_beat
from dr.core.onecopy import issue_clean
from dr.core.protection import push_list
from dr.core.restored import found_older, merge, older_than
from dr.core.state import Draft
from dr.core.tables import HostEvent, move_host
from dr.core.volatile import Bidden, View
from dr.core.whereabouts import ask_testimony, seen_active, sole_holder
from dr.model.base import HostName, changed
from dr.model.effects import Accept
from dr.model.events import Connected, Disconnected, Heard, Leaving, Reported
from dr.model.evidence import Proof, ProofKind
from dr.model.facts import Level
from dr.model.records import Condition, GuestPhase, GuestRecord, HostPhase, HostRecord
from dr.model.wire import PROTOCOL, speaks

# ---- sessions


def connected(draft: Draft, event: Connected) -> None:
    """A fresh session. May show that our store is an older copy, that the host rebooted, or that it lives after all."""
    hello, name = event.hello, event.host
    if not speaks(hello.protocol):
        draft.drop_session(
            name,
            event.session,
            f"this coordinator speaks protocol {PROTOCOL}, the agent {hello.protocol} (dr {hello.version}): "
            "upgrade the older of the two, they may be one protocol version apart",
        )
        return
    if draft.cluster.id and hello.cluster != draft.cluster.id:
        draft.drop_session(
            name, event.session, "the agent belongs to another cluster: dr agent join with a new token"
        )
        return
    if why := older_than(draft, hello.memory):
        found_older(draft, name, hello.memory, why)
        draft.drop_session(
            name, event.session, "the coordinator found its store to be an older copy; dial again"
        )
        return
    host = draft.host(name)
    if host is None:
        if not draft.cluster.restored:
            draft.drop_session(
                name, event.session, f"{name} is not a member of this cluster: dr cluster token {name}"
            )
            return
        host = HostRecord(name=name, since=draft.now, reason="known to its agent, not to this older store")
    if hello.memory.entries and draft.cluster.restored:
        merge(draft, hello.memory)
        host = draft.host(name) or host  # which others may have known before it said hello
    before = draft.view(name)
    if before.session:
        draft.drop_session(name, before.session, "replaced by a newer session of the same host")
    draft.put_view(
        name,
        session=event.session,
        process=hello.nonce,
        acked_epoch=0,
        heard=draft.now,
        fresh=0.0,
        interval=0.0,
        deviation=0.0,
        goodbye="",
        looks={},
        round_at=0.0,
        unheard_at=0.0,
        asked={},
        described={},
        pushed=(0, 0.0),
        told_moves=draft.moves,
        guests={guest.id: guest for guest in hello.guests or ()},
        guests_at=draft.now,
        overruled={},
        progress={},
        courses={},
        samples={},
        sampling_at=-1e9,
        bidden=Bidden(),
        inventory=hello.guests is not None,
    )
    draft.forget_session(name)
    first = not host.boot_id
    draft.moves += host.facts.addresses != hello.facts.addresses  # the others' peers
    rebooted = bool(host.boot_id) and host.boot_id != hello.boot_id
    old_boot = host.boot_id
    host = changed(
        host,
        boot_id=hello.boot_id,
        facts=cpus.interned(draft.state, hello.facts),
        health=hello.health,
        protected_version=0,
        forgot=host.forgot or (bool(host.boot_id) and hello.memory.epoch == 0),
        hearsay=False,
    )
    if rebooted:
        host = _booted(draft, host, old_boot)
    draft.put_host(host)
    leaving.announced(draft, host, hello.leaving)
    if first:
        draft.note("host.joining", f"{name}: first hello, dr {hello.version}", host=name)
        for guest in list(draft.guests()):  # rule 4: it stands in every set until it has testified
            onecopy.add_place(draft, guest, host, guest.generation)
    draft.effect(Accept(host=name, session=event.session))


def _booted(draft: Draft, host: HostRecord, old_boot: str) -> HostRecord:
    host = flaps.returned(draft, host)
    test = host.fencing if host.fencing and host.fencing.test else None
    if test is not None and host.phase is HostPhase.FENCED:
        fencing.test_booted(draft, host, test, host.boot_id)
    elif test is not None:
        fencing.fail_test(draft, host, test.test, "it rebooted before its devices were seen off")
    conditions = host.conditions - {Condition.AGENT_LOST}
    host = move_host(
        draft,
        host,
        HostEvent.BOOTED,
        f"is back with a new boot ({host.boot_id}); it is cleaned before it counts",
        fencing=None,
        power_on=False,
        conditions=conditions,
    )
    for kind in ("held", "fence-failed", "agent-lost", "fence-lies"):
        draft.clear_alert(f"host/{host.name}/{kind}")
    proof = Proof(
        kind=ProofKind.REBOOT,
        host=host.name,
        boot_id=old_boot,
        text=f"{host.name} answers from a newer boot ({host.boot_id})",
    )
    left = onecopy.prove_boot_over(draft, proof, now=host)
    guests.lost_host(draft, host.name, left, f"{host.name} rebooted")
    return leaving.back_in_use(draft, host, "it is back") if host.leaving else host


def disconnected(draft: Draft, event: Disconnected) -> None:
    """The link of that session is gone. No verdict: silence is judged by the detector."""
    view = draft.view(event.host)
    if view.session != event.session:
        return
    draft.put_view(event.host, session="", goodbye=event.goodbye, inventory=False, progress={}, courses={})
    draft.forget_session(event.host)
    if event.goodbye:
        draft.note("host.goodbye", f"{event.host}: {event.goodbye}", host=event.host)


def leaving_announced(draft: Draft, event: Leaving) -> None:
    """Said in the live session, by the boot on record."""
    host = draft.host(event.host)
    if host is not None and draft.view(event.host).session == event.session:
        leaving.announced(draft, host, event.kind)


def heard(draft: Draft, event: Heard) -> None:
    """A beat. One that echoes a nonce of this session shows that the agent has adopted our epoch."""
    view = draft.view(event.host)
    if view.session != event.session:
        return
    # The first beat follows the hello at once: the moment between says nothing about the link's rhythm.
    interval, deviation = observe_beat(view, draft.now) if view.fresh else (0.0, 0.0)
    fresh = max(view.fresh, event.fresh)
    acked = draft.cluster.epoch if event.fresh > 0 else view.acked_epoch
    draft.put_view(
        event.host, heard=draft.now, interval=interval, deviation=deviation, fresh=fresh, acked_epoch=acked
    )
    host = draft.host(event.host)
    if host is None:
        return
    if host.phase is HostPhase.SUSPECT and event.fresh > 0:
        if host.protected_version == draft.cluster.protected_version:
            move_host(draft, host, HostEvent.HEARD, "its agent answers again")
        else:
            text = "its agent answers again; it has not acknowledged the protected list"
            move_host(draft, host, HostEvent.HEARD_OLD, text)
        _calm(draft, host.name)
    elif (
        host.phase in (HostPhase.FENCED, HostPhase.MAINTENANCE)
        and host.boot_id == host.dead_boot
        and event.fresh > host.dead_at
    ):
        _contradicted(draft, host)
    elif host.power_on and host.phase in fencing.RETURNED:  # a device said off, and it lives
        draft.put_host(changed(host, power_on=False))
    elif Condition.AGENT_LOST in host.conditions:
        conditions = host.conditions - {Condition.AGENT_LOST}
        draft.put_host(changed(host, conditions=conditions, reason="its agent answers again"))
        draft.note("host.agent_back", f"{host.name}: its agent answers again", host=host.name)
        _calm(draft, host.name)


def _calm(draft: Draft, name: HostName) -> None:
    for kind in ("agent-lost", "held", "fence-failed"):
        draft.clear_alert(f"host/{name}/{kind}")


def _contradicted(draft: Draft, host: HostRecord) -> None:
    """Proven dead and alive: the proof is void. What may still run there goes back into its set."""
    text = f"{host.name} was proven dead, yet the same boot answers a question asked afterwards"
    draft.alert(
        f"host/{host.name}/proof-void",
        text,
        "its fence devices or a person's word were wrong; its guests may run twice",
        "look at dr guest list for guests in error, and at what its fence devices really switch",
        severity="critical",
    )
    host = move_host(draft, host, HostEvent.CONTRADICTED, text, power_on=False, dead_boot="")
    for guest_id, facts in draft.view(host.name).guests.items():
        guest = draft.guest(guest_id)
        if guest is not None and facts.active:
            onecopy.add_place(draft, guest, host, guest.generation)


# ---- reports


def reported(draft: Draft, event: Reported) -> None:
    """Facts, guests or health changed."""
    view, host = draft.view(event.host), draft.host(event.host)
    if view.session != event.session or host is None:
        return
    if event.facts is not None:
        draft.moves += host.facts.addresses != event.facts.addresses
        host = changed(host, facts=cpus.interned(draft.state, event.facts))
    if event.health is not None:
        host = changed(host, health=event.health)
    draft.put_host(host)
    if event.guests is not None:
        draft.put_view(
            event.host,
            guests={guest.id: guest for guest in event.guests},
            guests_at=draft.now,
            overruled={},
            inventory=True,
        )
    if event.moves is not None:
        migration.progressed(draft, event.host, event.moves)
        links.note_rate(draft, event.host)
    if event.samples is not None:
        dirtying.note(draft, event.host, event.samples, event.clock_s)


# ---- coming back, and staying clean


def step(draft: Draft, host: HostRecord) -> None:
    """Everything that a connected member still owes, and its conditions."""
    view = draft.view(host.name)
    if view.session and view.acked_epoch == draft.cluster.epoch:
        push_list(draft, host)
        _clean(draft, host, view)
        host = draft.require_host(host.name)
        if host.forgot and not quorum.hold(draft):  # the store is current: from now on its agent would know
            host = changed(host, forgot=False)
            draft.put_host(host)
        if host.phase in (HostPhase.JOINING, HostPhase.RETURNING):
            _maybe_online(draft, host, view)
    _conditions(draft, draft.require_host(host.name))


def _clean(draft: Draft, host: HostRecord, view: View) -> None:
    """What a newer generation's holder runs elsewhere is archived and undefined here."""
    if host.protected_version != draft.cluster.protected_version:
        return
    for guest_id, facts in view.guests.items():
        if facts.active:
            continue  # an active stray is a matter for `inventories.observe`
        guest = draft.guest(guest_id)
        if guest is None or guest.phase is not GuestPhase.RUNNING:
            continue
        if sole_holder(draft, guest) not in ("", host.name):
            settled = host.phase in (HostPhase.ONLINE, HostPhase.DRAINING)
            if settled and handmade.enough(draft, guest, host.name):
                continue
            last = view.cleaned.get(guest_id, -1e9)
            if draft.now - last < draft.config.timers.recovery_retry_s:
                continue
            if not issue_clean(draft, guest, host):
                draft.put_view(host.name, cleaned=view.cleaned | {guest_id: draft.now})
                view = draft.view(host.name)


def leftovers(draft: Draft, host: HostRecord) -> list[str]:
    """Names of protected guests whose definition is still here although they run elsewhere."""
    names = []
    for guest_id in draft.view(host.name).guests:
        guest = draft.guest(guest_id)
        if guest and guest.phase is GuestPhase.RUNNING and sole_holder(draft, guest) not in ("", host.name):
            names.append(guest.name)
    return names


def _maybe_online(draft: Draft, host: HostRecord, view: View) -> None:
    waits = []
    if host.protected_version != draft.cluster.protected_version:
        waits.append("has not acknowledged the protected list")
    if not host.facts.hook.proven:
        waits.append(f"its permit hook is not proven: {host.facts.hook.reason}")
    unasked: list[GuestRecord] = []
    for guest_id in draft.guests_at(host.name):
        guest = draft.guest(guest_id)
        assert guest is not None
        if not seen_active(draft, guest_id, host.name, host.boot_id):
            unasked.append(guest)
    if unasked:
        ask_testimony(draft, host, unasked)
        waits.append(f"has not testified for {len(unasked)} guests")
    if names := leftovers(draft, host):
        waits.append(f"still has definitions of guests that run elsewhere: {', '.join(sorted(names))}")
    if waits:
        reason = f"{'; '.join(waits)}"
        if host.reason != reason:
            draft.put_host(changed(host, reason=reason))
        return
    move_host(draft, host, HostEvent.CLEANED, "acknowledged the protected list, testified, and is clean")
    draft.clear_alert(f"host/{host.name}/proof-void")


def _conditions(draft: Draft, host: HostRecord) -> None:
    """Conditions that follow from records and readings."""
    conditions = set(host.conditions) - {Condition.UNPROTECTED, Condition.DEGRADED}
    if unprotected(draft, host):
        conditions.add(Condition.UNPROTECTED)
    bad = [reading for reading in host.health if reading.level is Level.CRITICAL]
    if bad and host.phase is HostPhase.MAINTENANCE:
        conditions.add(Condition.DEGRADED)  # seen, and nobody is alarmed
    elif bad:
        conditions.add(Condition.DEGRADED)
        todo = f"look at dr host show {host.name}; move its guests while it still lives"
        if host.drain is not None:
            todo = f"its guests are being moved away: dr host show {host.name} names those that stay, and why"
        elif failing.bad(host) and (held := failing.why_not(draft, host)):
            todo = f"{todo} (dr host drain {host.name}); not done by itself: {held}"
        draft.alert(
            f"host/{host.name}/degraded",
            f"{host.name} is degraded",
            "; ".join(f"{reading.part}: {reading.reason}" for reading in bad),
            todo,
        )
    elif Condition.DEGRADED in host.conditions:
        draft.clear_alert(f"host/{host.name}/degraded")
    key = f"host/{host.name}/unprotected"
    if Condition.UNPROTECTED in conditions and host.phase is HostPhase.ONLINE:
        draft.alert(
            key,
            f"guests of {host.name} would not be recovered if it died",
            "; ".join(unprotected(draft, host)),
            f"dr doctor names what to do; see also: dr host show {host.name}",
        )
    elif Condition.UNPROTECTED not in conditions:
        draft.clear_alert(key)
    if conditions != host.conditions:
        draft.put_host(changed(host, conditions=frozenset(conditions)))


def unprotected(draft: Draft, host: HostRecord) -> list[str]:
    """Why guests on this host would not be recovered if it died; empty = proven."""
    why = []
    levels = draft.policy(host.name).fencing
    if not levels:
        why.append("no fencing is configured")
    for level in levels:
        for device in level.devices:
            if draft.identity(host.name, device.name) is None:
                why.append(f"{device.name} was never proven: dr fence test {host.name}")
    if host.boot_id and not host.facts.hook.proven:
        why.append(f"its permit hook is not proven: {host.facts.hook.reason}")
    if host.boot_id and not host.facts.hibernation_masked:
        why.append("hibernation is not masked: a thawed image would run guests again")
    return why
