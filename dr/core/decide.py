"""The one way in: `decide(state, event, now)`.

It reads the state, changes nothing, and returns a `Draft`: durable changes, volatile evidence and effects.
Whoever runs it writes `draft.changes()` in one guarded transaction, then calls `state.apply(draft)`, then
runs `draft.decision().effects`. Simulation, replay, drills and the real coordinator all do just that.
"""

from __future__ import annotations

from dr.core import (
    ailing,
    checks,
    contradictions,
    deadline,
    definitions,
    failback,
    failing,
    fencing,
    guests,
    handmade,
    inventories,
    leaving,
    looks,
    members,
    migration,
    moves,
    onecopy,
    operations,
    operator,
    protection,
    restored,
    spare,
    starts,
    transfer,
    upkeep,
)
from dr.core.drills import isolated
from dr.core.playbooks import commands, hooks, runner, scheduled
from dr.core.silence import IN_USE, judge_if_complete, watch
from dr.core.state import Draft, State
from dr.core.tables import HostEvent, move_host
from dr.core.volatile import Pending
from dr.model.base import HostName, changed
from dr.model.commands import Answer, Outcome
from dr.model.events import (
    Answered,
    CheckEnded,
    CommandEnded,
    Connected,
    Disconnected,
    Event,
    FenceEnded,
    Heard,
    Leaving,
    LookEnded,
    PowerOnEnded,
    PowerSeen,
    Reconfigured,
    Reported,
    ScheduleDue,
    Started,
    Tick,
)
from dr.model.records import Cluster, GuestPhase, HostPhase, HostRecord, MoveStage

OBSERVE_EVERY_S = 2.0  # inventories are compared again at least this often; what an agent reports is at once
OBSERVED_A_PERIOD = 200  # on larger sites less often, so that a tick stays short
OBSERVED_AT_ONCE = 200  # by one tick, so that it stays short also after a start, when all are due
ALL_AT_ONCE = 50  # hosts; on larger sites those at rest are carried on in turn
TURNS = 11  # a prime: ticks that come late in a regular way still reach every host
TURN_S = 0.1
LAG_FADES = 0.9  # per tick: our own lateness counts for some ticks more, since what it delayed may still be on its way


class StoreElsewhere(RuntimeError):
    """The store is bound to another machine; the text says what to do."""


def decide(state: State, event: Event, now: float) -> Draft:  # noqa: PLR0912  # one case for each event
    """One decision. Raises StoreElsewhere for a `Started` on a store that belongs to another machine."""
    draft = Draft(state, now)
    match event:
        case Heard():
            if not _heard(draft, event):
                return draft
        case Tick():
            _tick(draft, event)
        case Started():
            _started(draft, event)
            return draft
        case Connected():
            members.connected(draft, event)
        case Disconnected():
            members.disconnected(draft, event)
        case Leaving():
            members.leaving_announced(draft, event)
        case Reported():
            members.reported(draft, event)
            _observe(draft, event.host)
        case Answered():
            _answered(draft, event)
        case PowerSeen():
            if draft.pending_of(event.effect) is not None:
                draft.forget(event.effect)
                looks.power_answered(draft, event.host, event.reports)
                judge_if_complete(draft, event.host)
        case LookEnded():
            if draft.pending_of(event.effect) is not None:
                draft.forget(event.effect)
                looks.look_answered(draft, event.host, event.answered)
                judge_if_complete(draft, event.host)
        case CheckEnded():
            checks.ended(draft, event)
        case CommandEnded():
            commands.ended(draft, event)
        case FenceEnded():
            _fence_ended(draft, event)
        case PowerOnEnded():
            _power_on_ended(draft, event)
        case Reconfigured():
            draft.settings = contradictions.in_force(draft, event.settings)
            draft.note("config", "a new configuration is in force")
            scheduled.forget(draft)
        case ScheduleDue():
            scheduled.came(draft, event)
        case _:
            operator.asked(draft, event)
    _settle(draft, tick=isinstance(event, Tick))
    return draft


def _started(draft: Draft, event: Started) -> None:
    """A new term: new epoch, nothing heard yet, fencings that were cut short are judged anew."""
    cluster = draft.cluster
    if not cluster.id:
        cluster = Cluster(id=event.cluster, machine=event.machine)
    if cluster.machine != event.machine:
        raise StoreElsewhere(
            f"this store belongs to machine {cluster.machine}, and this is {event.machine}: a copied store may be "
            "older than the world. Prove the old coordinator off, then dr cluster restore"
        )
    draft.cluster = cluster
    restored.new_term(draft, cluster.epoch + 1, event.leader_id)
    draft.started_at = draft.now
    draft.own_boot = event.boot_id
    draft.quiet_until = draft.now + draft.config.timers.settle_s
    deadline.nearer(draft, event.away_s)
    scheduled.forget(draft)
    draft.note("coordinator.started", f"coordinator {event.leader_id} leads epoch {draft.cluster.epoch}")
    if (
        draft.cluster.restored
    ):  # by `dr cluster restore`, or found out in an earlier term: nothing in it is sure
        draft.alert(
            "cluster/restored",
            "the coordinator's store is a restored copy; nothing is started or fenced by itself",
            draft.cluster.restored,
            "see that guests are where dr guest list says, then: dr resume --reason …",
            severity="critical",
        )
        for guest in list(draft.guests()):
            onecopy.doubt_everything(draft, guest, seen_generation=0)
        for host in list(draft.hosts()):
            draft.put_host(changed(host, hearsay=True))  # as in `restored`: hibernation may be allowed by now
    for host in draft.hosts():
        if host.phase is HostPhase.FENCING:
            test = host.fencing.test if host.fencing else ""
            # It may be off already, by our own doing: then it is switched on again as if we had seen the end.
            again = bool(test) or draft.policy(host.name).power_on_after_fence
            why = "the coordinator restarted during its fencing"
            move_host(draft, host, HostEvent.DOUBTED, why, fencing=None, power_on=again)
            if test:
                fencing.fail_test(draft, host, test, "the coordinator restarted in the middle of it")
                # Its devices may be unproven, so that off proves nothing: nobody else would ever switch it on again.
                fencing.power_on(draft, draft.require_host(host.name), "its fence test was cut short")
        elif host.phase is HostPhase.SUSPECT and host.power_on and not fencing.provable(draft, host):
            fencing.power_on(draft, host, "its fence test was cut short, and so was its being switched on")
        elif host.fencing is not None and host.fencing.test:
            fencing.fail_test(draft, host, host.fencing.test, "the coordinator restarted in the middle of it")
            draft.put_host(changed(host, fencing=None, power_on=True))


def _heard(draft: Draft, event: Heard) -> bool:
    """True when more than this host's own evidence may have changed."""
    before = draft.view(event.host)
    members.heard(draft, event)
    if before.acked_epoch == draft.view(event.host).acked_epoch:
        return bool(draft.changes())
    _observe(draft, event.host)
    return True


def _tick(draft: Draft, event: Tick) -> None:
    timers = draft.config.timers
    draft.ticked_at = draft.now
    draft.lag_s = max(event.lag_s, draft.lag_s * LAG_FADES)
    if event.lag_s > timers.gap_s:
        draft.quiet_until = draft.now + timers.settle_s
        draft.note(
            "coordinator.gap",
            f"the coordinator itself stood still for {event.lag_s:.1f} s: unheard is not late for {timers.settle_s} s",
        )
    _expire(draft)
    contradictions.review(draft)
    spare.step(draft)
    names = draft.host_names()
    due = _to_observe(draft, names)
    for name in names:
        host, view = draft.require_host(name), draft.view(name)
        # Silence shorter than the floor is never late, whatever the rest says: most hosts need no more than this.
        if draft.now - view.heard >= timers.late_floor_s or host.phase not in (*IN_USE, HostPhase.RETURNING):
            watch(draft, host)
            view = draft.view(name)
        if view.session and name in due:
            _observe(draft, name)


def _to_observe(draft: Draft, names: list[HostName]) -> set[HostName]:
    """Whose inventory is compared again now: who was not for a period; the longest ago first, if many are due."""
    observe_s = OBSERVE_EVERY_S * max(1.0, len(names) / OBSERVED_A_PERIOD)
    views = {name: draft.view(name) for name in names}
    due = [name for name, view in views.items() if view.session and draft.now - view.observed_at >= observe_s]
    if len(due) > OBSERVED_AT_ONCE:
        due = sorted(due, key=lambda name: (views[name].observed_at, name))[:OBSERVED_AT_ONCE]
    return set(due)


def _observe(draft: Draft, name: HostName) -> None:
    host = draft.host(name)
    if host is not None:
        inventories.observe(draft, host)
        draft.put_view(name, observed_at=draft.now)


# ---- results


def _answered(draft: Draft, event: Answered) -> None:  # noqa: PLR0912  # one case for each kind
    pending = draft.pending_of(event.effect)
    if pending is None or draft.view(event.host).session != event.session:
        return
    draft.forget(event.effect)
    host = draft.require_host(event.host)
    answer: Answer = event.answer
    guest = draft.guest(pending.guest) if pending.guest else None
    match pending.kind:
        case "probe":
            looks.probe_answered(draft, event.host, pending.detail, answer)
            judge_if_complete(draft, pending.detail)
        case "protect":
            if answer.outcome is Outcome.DONE:
                protection.list_acknowledged(draft, host, answer)
        case "testify":
            guests.testified(draft, host, answer.testimony)
        case "describe":
            if guest is not None:
                definitions.described(draft, guest, host, answer)
        case "start":
            if guest is not None:
                guests.start_ended(draft, guest, host, pending, answer)
        case "stop":
            if guest is not None:
                guests.stop_ended(draft, guest, host, answer)
        case "receive":
            if guest is not None:
                migration.received(draft, guest, host, answer)
        case "migrate":
            if guest is not None:
                migration.sent(draft, guest, host, event.effect, answer)
        case "resume":
            if guest is not None:
                migration.resumed(draft, guest, host, answer)
        case "exec":
            commands.answered(draft, event.effect, pending, answer)
        case "send" | "take":
            if guest is not None:
                transfer.ended(draft, guest, host, event.effect, answer)
        case "discard":
            if answer.outcome is Outcome.DONE and answer.reason:
                draft.note(
                    "guest.move", f"{guest.name if guest else pending.guest}: {answer.reason}", host=host.name
                )
            guests.testified(draft, host, answer.testimony)
        case "drill" | "drill-end":
            isolated.answered(draft, pending, answer)
        case "clean":
            _cleaned(draft, host, pending, answer)
        case "inside":
            checks.looked(draft, pending, answer)
        case _:
            raise AssertionError(f"no agent answers a {pending.kind}")


def _cleaned(draft: Draft, host: HostRecord, pending: Pending, answer: Answer) -> None:
    guest = draft.guest(pending.guest)
    name = guest.name if guest else pending.guest
    view = draft.view(host.name)
    if answer.outcome is Outcome.DONE:
        left = {key: facts for key, facts in view.guests.items() if key != pending.guest}
        draft.put_view(host.name, guests=left)
        if guest is not None:
            handmade.removed(draft, guest, host.name)
        told = f"; {answer.reason}" if answer.reason else ""
        draft.note("host.cleaned", f"{host.name}: {name} archived and undefined{told}", host=host.name)
    else:
        draft.note("host.clean_failed", f"{host.name}: {name} not cleaned: {answer.reason}", host=host.name)
    guests.testified(draft, host, answer.testimony)


def _fence_ended(draft: Draft, event: FenceEnded) -> None:
    pending = draft.pending_of(event.effect)
    if pending is None:
        return
    draft.forget(event.effect)
    host = draft.host(event.host)
    if host is not None:
        fencing.ended(draft, host, pending.detail, event.report)


def _power_on_ended(draft: Draft, event: PowerOnEnded) -> None:
    if draft.pending_of(event.effect) is None:
        return
    draft.forget(event.effect)
    host = draft.host(event.host)
    if host is None:
        return
    if event.ok:
        draft.put_host(changed(host, power_on=False))
        return
    draft.note("fence.on_failed", f"{event.host}: could not be switched on: {event.reason}", host=event.host)
    if host.fencing is not None and host.fencing.test:
        fencing.fail_test(
            draft, host, host.fencing.test, f"it could not be switched on again: {event.reason}"
        )
        draft.put_host(changed(host, fencing=None))


def _expire(draft: Draft) -> None:
    """Effects whose answer did not come in time. Their outcome is unknown, never guessed."""
    for key, pending in list(draft.pendings()):
        if draft.now < pending.deadline:
            continue
        draft.forget(key)
        guest = draft.guest(pending.guest) if pending.guest else None
        if pending.kind == "start" and guest is not None:
            guests.start_unanswered(draft, guest, pending.host, "no answer in time")
        elif pending.kind in ("probe", "look", "power"):
            judge_if_complete(draft, pending.detail)
        elif pending.kind in checks.PARTS:
            checks.unanswered(draft, pending)


# ---- what follows from everything


def _in_turn(draft: Draft) -> list[HostName]:
    """Hosts to carry on now: on a large site those that are in motion, and of those at rest some with each turn."""
    names = draft.host_names()
    if len(names) <= ALL_AT_ONCE:
        return names
    touched, turn = draft.touched_hosts(), int(draft.now / TURN_S) % TURNS
    return [
        name
        for at, name in enumerate(names)
        if at % TURNS == turn or name in touched or not _at_rest(draft, draft.require_host(name))
    ]


def _at_rest(draft: Draft, host: HostRecord) -> bool:
    """Nothing is under way there; what it may still owe can wait for its turn, a second at most."""
    if host.phase is not HostPhase.ONLINE or host.fencing is not None:
        return False
    return not host.leaving and not protection.owes_list(draft, host)


def _settle(draft: Draft, *, tick: bool) -> None:
    """Carry on whatever can be carried on now: hosts, then guests, then starts, then operations; home comes last."""
    for name in _in_turn(draft):
        host = draft.require_host(name)
        fencing.step(draft, host)
        members.step(draft, draft.require_host(name))
        failing.step(draft, draft.require_host(name))
        upkeep.step(draft, draft.require_host(name))
        leaving.step(draft, draft.require_host(name))
        fencing.maybe_power_on(draft, draft.require_host(name))
    upkeep.carry_on(draft)
    for guest in draft.unsettled():
        current = draft.guest(guest.id)
        if current is None:
            continue
        if current.move is not None and current.move.stage is MoveStage.SENDING:
            transfer.step(draft, current)
        elif current.phase is GuestPhase.MIGRATING:
            migration.step(draft, current)
        else:
            guests.step(draft, current)
            transfer.begin_if_due(draft, guest.id)
    operations.carry_tests_on(draft)
    runner.carry_on(draft)
    moves.begin_queued(draft)
    starts.place_waiting(draft)
    checks.step(draft, tick=tick)
    operations.close_finished(draft)
    hooks.step(draft, tick=tick)
    if tick:
        ailing.step(draft)
        failback.step(draft)
