"""What operators ask of plans that they approved: that hosts are emptied exactly so, or not at all."""

from __future__ import annotations

from dr.core import approval, dirtying, forecast, upkeep
from dr.core.asks import no, no_such, yes
from dr.core.state import Draft
from dr.core.wishes import with_wishes
from dr.model.base import changed
from dr.model.effects import Reply
from dr.model.events import AskApply
from dr.model.operations import Operation
from dr.model.records import HostPhase, HostRecord, Wish


def apply(draft: Draft, ask: AskApply) -> Reply:
    """All of its hosts in one decision. Applied twice it is the same drains, for as long as they stand."""
    found = {name: draft.host(name) for name in dict.fromkeys(ask.hosts)}
    hosts = [host for host in found.values() if host is not None]
    if missing := [name for name, host in found.items() if host is None]:
        return no_such(ask, "host", missing)
    if why := _why_not(draft, ask, hosts):
        return no(ask, *why)
    if all(host.drain is not None and host.drain.plan == ask.plan for host in hosts):
        begun = [operation for host in hosts if (operation := upkeep.operation_of(draft, host)) is not None]
        stands = ", ".join(f"{host.name} is {host.phase}" for host in hosts)
        return yes(ask, f"plan {ask.plan} was applied already: {stands}", *begun)
    wish = Wish(
        by=ask.by,
        reason=ask.reason or f"plan {ask.plan}",
        at=draft.now,
        leave_unprotected=ask.leave_unprotected,
        deadline=draft.now + ask.deadline_s if ask.deadline_s else 0.0,
        plan=ask.plan,
    )
    told = forecast.of_drains(draft, {host.name: wish for host in hosts}, approval.planned(ask))
    for host in hosts if not ask.deadline_s else ():
        dirtying.ask(draft, host.name, upkeep.guests_on(draft, host))
    against, noted = approval.differences(draft, ask, told.guests, told.instead)
    if against and not ask.anyway and not ask.dry_run:
        return changed(no(ask, *against), message="The plan does not hold any more; nothing was done.")
    names = ", ".join(host.name for host in hosts)
    said = f"plan {ask.plan} for {names}: " + (
        f"{len(against)} differences from what was approved" if against else "it is as it was approved"
    )
    reply = changed(
        yes(ask, said), guests=told.guests, forecast=told.forecast, differences=against, noted=noted
    )
    if ask.dry_run:
        return reply
    begun = [_begin(draft, host, wish, ask, told) for host in hosts]
    return changed(reply, operations=tuple(operation.id for operation in begun))


def _why_not(draft: Draft, ask: AskApply, hosts: list[HostRecord]) -> list[str]:
    """Why it cannot be applied at all, whatever became of its guests."""
    why = [
        f"{host.name} has not joined yet: {host.reason}" for host in hosts if host.phase is HostPhase.JOINING
    ]
    revision = draft.state.revision + draft.cluster.revision_offset
    if ask.revision > revision:
        why.append(
            f"the plan was made from revision {ask.revision} of the store, and this one is at {revision}:"
            " it is an older copy, or of another cluster"
        )
    return why


def _begin(draft: Draft, host: HostRecord, wish: Wish, ask: AskApply, told: forecast.Evacuation) -> Operation:
    """Its drain, which follows the plan from now on; one that was under way before goes on as that."""
    draft.put_host(with_wishes(host, cordon=host.cordon, drain=wish))
    operation = upkeep.operation_of(draft, host)
    if operation is None:
        here = [guest.id for guest in upkeep.guests_on(draft, host)]
        operation = draft.open_operation("drain", host.name, wish.reason, ask.by, here)
    mine = {each.guest for each in told.guests if each.host == host.name}
    planned = {key: each for key, each in approval.planned(ask).items() if key in mine}
    foreseen_s = forecast.foreseen_s(told, host)
    draft.put_operation(changed(operation, planned=planned, foreseen_s=foreseen_s))
    draft.note(
        "drain.planned",
        f"{host.name}: follows plan {ask.plan}: {len(planned)} guests with their destinations",
        host=host.name,
        operation=operation.id,
    )
    return operation
