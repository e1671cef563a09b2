"""Failback: guests whose policy says so go home, one move at a time, when their home has been well for long enough.

Home is the host that their host rules like best; for a guest that no host rule is about, the host from which a drain or
a failover took it. Nothing is stopped for it, and nothing else waits for it: any trouble, move or recovery comes first.
A person's move ends it: a guest stays where somebody put it, until it is lost from there, or its policy is set anew.
Not here: what may stand against a move (`core.moves`), which host is better (`core.placement`).
"""

from __future__ import annotations

from dr.core import moves, placement, quorum, spare
from dr.core.fleet import fleet_of
from dr.core.state import Draft, settled
from dr.model.base import HostName, changed
from dr.model.records import Condition, Desired, GuestPhase, GuestRecord, HostPhase

LOOK_S = 1.0  # guests are looked at this often
LOOKED_MAX = 40  # at once; on a large site they come in turn
TRIES_MAX = 5  # moves home that did not get there; then a person decides
AGAIN_S = 30.0  # doubles with each of them
COMES_FIRST = frozenset({"failover", "restart", "drain", "leave", "fence", "guest-start", "guest-stop"}) | {
    "guest-migrate",
    "guest-relocate",
    "failback",
}  # operations that it waits for
ILL = frozenset({Condition.AGENT_LOST, Condition.DEGRADED, Condition.QUARANTINED, Condition.CORDONED})


# ---- home, and what keeps a guest from it


def home(draft: Draft, guest: GuestRecord) -> HostName:
    """The host where it belongs rather than where it runs, well or not; "" = it is at home, or has none."""
    holder, rules = guest.holder, list(draft.members.host_rules(guest.id))
    if not rules:
        left = guest.homing.left
        return left if left != holder and draft.host(left) is not None else ""
    allowed = {name for rule in rules for name in rule.hosts if draft.host(name) is not None}
    for rule in rules:
        if rule.strict:
            allowed &= rule.hosts.keys()
    liking = {name: draft.members.liking(guest.id, name) for name in allowed}
    forbidden = any(rule.strict and holder not in rule.hosts for rule in rules)
    now = draft.members.liking(guest.id, holder)
    better = [name for name in sorted(allowed - {holder}) if forbidden or liking[name] > now]
    return max(better, key=lambda name: liking[name], default="")


def _aim(draft: Draft, guest: GuestRecord, along: tuple[GuestRecord, ...]) -> HostName:
    """Where it could go now: of the hosts that are better for it, and can take it, the best; else its home."""
    if any(True for _ in draft.members.host_rules(guest.id)):
        return placement.better_host(draft, guest, along) or home(draft, guest)
    return home(draft, guest)


def why_not(draft: Draft, guest: GuestRecord) -> tuple[HostName, list[str]]:
    """Where it would go, and everything that keeps it from that now; "" where it has nowhere to go."""
    if guest.phase is not GuestPhase.RUNNING or guest.move is not None:
        return home(draft, guest), [f"{guest.name} is {guest.phase}: {guest.reason}"]
    if not home(draft, guest):
        return "", []
    _, along = moves.company(draft, guest)
    to = _aim(draft, guest, along)
    why = [] if guest.homing.stays != guest.holder else [_kept_there(guest)]
    if guest.desired is not Desired.RUNNING:
        why.append(f"its desired state is {guest.desired}")
    if guest.homing.tries >= TRIES_MAX:
        why.append(_given_up(guest))
    elif guest.homing.tries and (wait_s := _again_at(guest) - draft.now) > 0:
        why.append(f"its last move there failed; tried again in {wait_s:.0f} s")
    why += [
        f"{mate.name}, which must share its host, has failback off"
        for mate in along
        if not mate.policy.failback
    ]
    why += moves.objections_together(draft, guest, to)
    if not why and (reason := _not_well(draft, to)):
        why.append(reason)
    return to, why


def in_words(draft: Draft, guest: GuestRecord) -> str:
    """Whether it is at home, and if not, why not, in one sentence."""
    if not guest.policy.failback:
        return "off"
    to, why = why_not(draft, guest)
    if not to:
        return f"at home on {guest.holder}" if guest.holder else "has no home yet"
    if not why and (reason := comes_first(draft)):
        why = [reason]
    if not why and (worse := _n_plus_1(draft, guest, to)):
        why = [worse]
    return f"away from {to}: {'; '.join(why) if why else 'goes there next'}"


def _kept_there(guest: GuestRecord) -> str:
    return f"stays on {guest.holder}, where a person moved it (to let it go: dr guest set {guest.name} --failback)"


def _given_up(guest: GuestRecord) -> str:
    return (
        f"{guest.homing.tries} moves there failed, it is not tried again by itself "
        f"(to let it try again: dr guest set {guest.name} --failback)"
    )


def _again_at(guest: GuestRecord) -> float:
    return guest.homing.tried_at + AGAIN_S * 2.0 ** max(0, guest.homing.tries - 1)


def _not_well(draft: Draft, name: HostName) -> str:
    """Why that host does not count as well for long enough; "" = it does."""
    host, view, wait_s = draft.require_host(name), draft.view(name), draft.config.timers.failback_after_s
    if ill := sorted(host.conditions & ILL):
        return f"{name} is {', '.join(ill)}"
    for_s = draft.now - max(view.well_since, host.since) if view.well_since else 0.0
    return "" if for_s >= wait_s else f"{name} has been well for {for_s:.0f} of {wait_s:.0f} s"


def comes_first(draft: Draft) -> str:
    """What every guest waits for that would go home; "" = nothing is under way."""
    if draft.cluster.pause is not None:
        return f"automation is paused ({draft.cluster.pause.reason})"
    if reason := quorum.hold(draft):
        return reason
    for operation in draft.open_operations():
        if operation.kind in COMES_FIRST:
            return f"{operation.kind} of {operation.subject} is under way"
    for host in draft.hosts():
        if host.phase in (HostPhase.SUSPECT, HostPhase.FENCING):
            return f"{host.name} is {host.phase}"
    for guest in draft.unsettled():
        waits = guest.phase is GuestPhase.RECOVERING and draft.alert_of(f"guest/{guest.id}/waiting")
        if guest.phase is not GuestPhase.PROTECTING and not waits:
            return f"{guest.name} is {guest.phase}"
    return ""


def _n_plus_1(draft: Draft, guest: GuestRecord, to: HostName) -> str:
    """What would not fit any longer, after a host's death, if it and its company were at home."""
    _, along = moves.company(draft, guest)
    return spare.worse_if(draft, {each.id: to for each in (guest, *along)}, to)


# ---- one step on


def step(draft: Draft) -> None:
    """Begin one move home, if nothing else is under way; with each tick, done at most once a `LOOK_S`."""
    if not draft.state.homing or 0.0 <= draft.now - draft.failback_at < LOOK_S:
        return
    draft.failback_at = draft.now
    _note_well(draft)
    if comes_first(draft):
        return
    for guest in _in_turn(draft):
        if not settled(guest) or guest.phase is not GuestPhase.RUNNING:
            continue
        to, why = why_not(draft, guest)
        if to and guest.homing.tries >= TRIES_MAX:
            _tell(draft, guest, to)
            continue
        draft.clear_alert(f"guest/{guest.id}/failback")
        if to and not why and not _n_plus_1(draft, guest, to):
            _go(draft, guest, to)
            return


def _note_well(draft: Draft) -> None:
    """Since when each host could take guests without a doubt."""
    fleet = fleet_of(draft)
    for at, name in enumerate(fleet.names):
        well = bool(fleet.able[at] and fleet.welcome[at]) and not fleet.rows[at].host.conditions & ILL
        if well != bool(draft.view(name).well_since):
            draft.put_view(name, well_since=draft.now if well else 0.0)


def _in_turn(draft: Draft) -> list[GuestRecord]:
    """Those whose policy lets them go home, by priority; of many, some with each look."""
    ids = sorted(draft.state.homing)
    turns = -(-len(ids) // LOOKED_MAX)
    turn = int(draft.now / LOOK_S) % turns
    found = (draft.guest(each) for each in ids[turn * LOOKED_MAX : (turn + 1) * LOOKED_MAX])
    guests = (guest for guest in found if guest is not None and guest.policy.failback)
    return sorted(guests, key=lambda guest: (-guest.policy.priority, guest.name))


def _go(draft: Draft, guest: GuestRecord, to: HostName) -> None:
    """The move is counted before it is made, so that a crash forgets none."""
    _, along = moves.company(draft, guest)
    going = (guest, *along)
    names = ", ".join(each.name for each in going)
    why = f"{to} is their home and has been well for {draft.config.timers.failback_after_s:.0f} s"
    operation = draft.open_operation("failback", names, why, guests=[each.id for each in going])
    for each in going:
        tries = changed(each.homing, tries=each.homing.tries + 1, tried_at=draft.now)
        draft.put_guest(changed(each, homing=tries))
    counted = draft.guest(guest.id)
    assert counted is not None
    if objected := moves.begin_together(draft, counted, to, operation=operation.id):
        for each in going:
            draft.outcome(operation.id, each.id, f"not moved: {'; '.join(objected)}")


def _tell(draft: Draft, guest: GuestRecord, to: HostName) -> None:
    draft.alert(
        f"guest/{guest.id}/failback",
        f"{guest.name} does not get home to {to}",
        f"{guest.homing.tries} moves from {guest.holder} to {to} failed, the last with: {guest.reason}",
        f"find the cause (dr job list), then let it try again: dr guest set {guest.name} --failback",
    )
