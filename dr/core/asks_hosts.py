"""What operators ask of hosts: fence, test, confirm down, remove, and the like."""

from __future__ import annotations

from dr.core import fencing, looks, onecopy, quorum
from dr.core.asks import no, no_such, not_now, yes
from dr.core.detector import Peers, blind, is_late, peers_say, power_says
from dr.core.state import Draft
from dr.model.base import changed
from dr.model.effects import Reply
from dr.model.events import (
    Admitted,
    AskClearQuarantine,
    AskConfirmDown,
    AskFence,
    AskFenceTest,
    AskRemoveHost,
)
from dr.model.evidence import Power, Proof, ProofKind
from dr.model.records import Condition, HostPhase, HostRecord

# Nobody looks for a host in these phases when it falls silent, unless somebody asks.
UNWATCHED = frozenset({HostPhase.JOINING, HostPhase.MAINTENANCE, HostPhase.FENCED})


def fence(draft: Draft, ask: AskFence) -> Reply:
    host = draft.host(ask.host)
    if host is None:
        return no_such(ask, "host", [ask.host])
    why = _why_not_switch(draft, host)
    if why:
        return no(ask, *why)
    text = f"{ask.by} asked{f': {ask.reason}' if ask.reason else ''}"
    operation = draft.open_operation("fence", host.name, text, ask.by)
    fencing.condemn(draft, host, text, operator=True)
    return yes(ask, "", operation)


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


def fence_test(draft: Draft, ask: AskFenceTest) -> Reply:
    host = draft.host(ask.host)
    if host is None:
        return no_such(ask, "host", [ask.host])
    why = _why_not_switch(draft, host)
    usable = host.phase in (HostPhase.ONLINE, HostPhase.MAINTENANCE)
    if not usable or not draft.view(host.name).session:
        why.append(f"{host.name} is not online, so its return could not be seen: {host.phase}")
    why += fencing.in_use(draft, host)
    if testing := [h.name for h in draft.hosts() if h.fencing and h.fencing.test]:
        why.append(f"{testing[0]} is being tested; one at a time")
    if why:
        return no(ask, *dict.fromkeys(why))
    operation = draft.open_operation("fence-test", host.name, ask.reason or f"{ask.by} asked", ask.by)
    fencing.condemn(draft, host, "fence test of an empty host", test=operation.id)
    return yes(ask, "", operation)


def confirm_down(draft: Draft, ask: AskConfirmDown) -> Reply:
    """A person's word that a host is off, bound to a boot. Refused while there is any sign of life."""
    host = draft.host(ask.host)
    if host is None:
        return no_such(ask, "host", [ask.host])
    view = draft.view(host.name)
    why: list[str] = []
    soon: list[str] = []
    if not ask.reason:
        why.append("a reason is needed: how do you know that it is off?")
    if not host.boot_id:
        why.append(f"{host.name} never said hello, so no boot of it is known: dr host remove {host.name}")
    if ask.boot_id and ask.boot_id != host.boot_id:
        why.append(f"{host.name} has another boot on record now ({host.boot_id}): look again")
    if view.session and not is_late(draft, host):
        why.append(f"its agent answers (last heard {draft.now - view.heard:.1f} s ago)")
    if quorum.proven_over(draft, host) and not draft.guests_at(host.name):
        why.append(f"it is proven dead already: {host.reason}")
    if peers_say(view) is Peers.ANSWERS and not blind(draft):
        why.append(f"witnesses hear it: {looks.in_words(draft, host.name)}")
    else:
        soon += _not_looked_yet(draft, host)
    if power_says(draft, host) is Power.ON:
        do = (
            "switch it off, or start its agent"
            if host.phase is HostPhase.FENCED
            else f"dr host fence {host.name}"
        )
        why.append(f"its fence device says that it is on: {do}")
    if draft.find_pending("fence", host=host.name):
        why.append("a fencing of it is under way")
    if why:
        return no(ask, *soon, *why)
    if soon:
        return not_now(ask, *(f"{each}: try again in a moment" for each in soon))
    operation = draft.open_operation("confirm-down", host.name, ask.reason, ask.by)
    proof = Proof(
        kind=ProofKind.OPERATOR,
        host=host.name,
        boot_id=host.boot_id,
        text=f"{ask.by} confirmed that it is off: {ask.reason}",
    )
    fencing.dead(draft, host, proof, fenced=False)
    draft.close_operation(operation, "done", f"{host.name}: {proof.text}")
    return yes(ask, f"{host.name} counts as down", operation)


def _not_looked_yet(draft: Draft, host: HostRecord) -> list[str]:
    """Why it is too early to say that nobody hears it; a look that it takes begins now."""
    view = draft.view(host.name)
    if blind(draft):
        return ["the coordinator has just started or stood still, and has not looked for itself yet"]
    old = host.phase in UNWATCHED and draft.now - view.round_at > fencing.EVIDENCE_S
    silent = view.unheard_at > view.heard and (
        host.phase not in UNWATCHED or draft.now - view.unheard_at <= fencing.EVIDENCE_S
    )  # the last round that is over; the one that is under way may still hear it, or not be over for long
    if view.round_at <= view.heard or old:  # of a host whose session has just ended nobody knows anything
        looks.begin_round(draft, host, looks.LOOK_S)
        silent = False
    if looks.in_round(draft, host.name) and not silent:
        return ["it is being looked for now"]
    if not view.looks and looks.witnesses(draft, host) and looks.addresses_of(draft, host):
        return ["no witness has looked for it yet"]
    return []


def remove(draft: Draft, ask: AskRemoveHost) -> Reply:
    host = draft.host(ask.host)
    if host is None:
        return no_such(ask, "host", [ask.host])
    why = []
    names = [guest.name for g in draft.guests_at(host.name) if (guest := draft.guest(g)) is not None]
    if names:  # rule 6
        why.append(f"protected guests may run on it: {', '.join(sorted(names))}")
    if host.phase is HostPhase.FENCING:
        why.append("it is being fenced")
    if why:
        return no(ask, *why)
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
    for guest in list(draft.guests()):
        onecopy.disks_gone(draft, guest, host.name)
    draft.remove_host(host.name)
    return yes(ask, f"{host.name} is no longer a member; stop its agent and remove the hook there")


def admit(draft: Draft, ask: Admitted) -> Reply:
    if draft.host(ask.host) is None:
        draft.put_host(
            HostRecord(
                name=ask.host, since=draft.now, reason="a token was made; its agent has not said hello"
            )
        )
    return yes(ask)


def clear_quarantine(draft: Draft, ask: AskClearQuarantine) -> Reply:
    host = draft.host(ask.host)
    if host is None:
        return no_such(ask, "host", [ask.host])
    if Condition.QUARANTINED not in host.conditions:
        return no(ask, f"{host.name} is not quarantined")
    draft.put_host(
        changed(host, conditions=host.conditions - {Condition.QUARANTINED}, fenced_at=(), returned_at=())
    )
    draft.clear_alert(f"host/{host.name}/quarantined")
    return yes(ask, f"{host.name} takes guests again")
