"""What operators ask of hosts that they set aside: cordon, drain, and back."""

from __future__ import annotations

from dr.core import dirtying, forecast, upkeep
from dr.core.asks import no, no_such, yes
from dr.core.state import Draft
from dr.core.wishes import with_wishes
from dr.model.base import changed
from dr.model.effects import Reply
from dr.model.events import AskCordon, AskDrain, AskUncordon, AskUndrain
from dr.model.operations import Operation
from dr.model.records import HostPhase, HostRecord, Wish


def cordon(draft: Draft, ask: AskCordon) -> Reply:
    host = draft.host(ask.host)
    if host is None:
        return no_such(ask, "host", [ask.host])
    wish = Wish(by=ask.by, reason=ask.reason, at=draft.now)
    draft.put_host(with_wishes(host, cordon=wish, drain=host.drain))
    return yes(
        ask, f"{host.name} takes no more guests; those on it stay, and one that crashes restarts there"
    )


def uncordon(draft: Draft, ask: AskUncordon) -> Reply:
    host = draft.host(ask.host)
    if host is None:
        return no_such(ask, "host", [ask.host])
    if host.drain is not None:
        return no(ask, f"{host.name} is {host.phase}, drained by {host.drain.by}: end that first")
    if host.cordon is None:
        return no(ask, f"{host.name} is not cordoned")
    draft.put_host(with_wishes(host, cordon=None, drain=None))
    return yes(ask, f"{host.name} takes guests again")


def drain(draft: Draft, ask: AskDrain) -> Reply:
    names = list(dict.fromkeys((ask.host, *ask.also)))
    hosts = [host for name in names if (host := draft.host(name)) is not None]
    if len(hosts) < len(names):
        return no_such(ask, "host", [name for name in names if draft.host(name) is None])
    joining = [host for host in hosts if host.phase is HostPhase.JOINING]
    if joining:
        return no(ask, *(f"{host.name} has not joined yet: {host.reason}" for host in joining))
    wish = Wish(
        by=ask.by,
        reason=ask.reason,
        at=draft.now,
        leave_unprotected=ask.leave_unprotected,
        deadline=draft.now + ask.deadline_s if ask.deadline_s else 0.0,
    )
    evacuation = forecast.of_drains(draft, dict.fromkeys(names, wish))
    told = {"guests": evacuation.guests, "forecast": evacuation.forecast}
    for host in hosts if not ask.deadline_s else ():
        dirtying.ask(draft, host.name, upkeep.guests_on(draft, host))
    if ask.dry_run:
        return changed(yes(ask, forecast.in_words(draft, evacuation, names)), **told)
    begun = [_begin(draft, host, ask, wish, evacuation) for host in hosts]
    texts = [text for text, _ in begun if text]
    others = {other.name for other in draft.hosts() if other.phase is HostPhase.ONLINE} - set(names)
    if not others and len(texts) < len(names):
        texts.append("no other host is online: its guests have nowhere to go")
    operations = [operation for _, operation in begun if operation is not None]
    return changed(yes(ask, "; ".join(texts), *operations), **told)


def _begin(
    draft: Draft, host: HostRecord, ask: AskDrain, wish: Wish, evacuation: forecast.Evacuation
) -> tuple[str, Operation | None]:
    """One host of those: what is to be said of it, and its operation."""
    before, operation = host.drain, upkeep.operation_of(draft, host)
    hurry = ask.deadline_s or (before is not None and before.deadline)
    if before is not None and before.leave_unprotected == ask.leave_unprotected and not hurry:
        where = "in maintenance" if host.phase is HostPhase.MAINTENANCE else f"being drained ({host.phase})"
        return f"{host.name} is {where} already: {before.by} asked", operation
    draft.put_host(with_wishes(host, cordon=host.cordon, drain=wish))
    if operation is None:
        here = [guest.id for guest in upkeep.guests_on(draft, host)]
        operation = draft.open_operation("drain", host.name, ask.reason or f"{ask.by} asked", ask.by, here)
        operation = changed(operation, foreseen_s=forecast.foreseen_s(evacuation, host))
        draft.put_operation(operation)
    if host.phase not in (HostPhase.ONLINE, HostPhase.DRAINING, HostPhase.MAINTENANCE):
        return f"{host.name} is {host.phase} now, and is drained when it is online again", operation
    return "", operation


def undrain(draft: Draft, ask: AskUndrain) -> Reply:
    host = draft.host(ask.host)
    if host is None:
        return no_such(ask, "host", [ask.host])
    if host.drain is None:
        return no(ask, f"{host.name} is not drained")
    draft.put_host(with_wishes(host, cordon=host.cordon, drain=None))
    if host.cordon is not None:
        return yes(
            ask, f"{host.name} is not drained any more; it is still cordoned: dr host uncordon {host.name}"
        )
    return yes(ask, f"{host.name} takes guests again as soon as it counts")
