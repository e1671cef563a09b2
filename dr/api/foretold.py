"""What would become of guests, as people are shown it: their fates, and when each would begin and end its move.

Not here: how it is foretold (`dr.core.forecast`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from dr.api import schema
from dr.api.plan_schema import EvacuationPlan, PlanDocument, PlannedGuest, PlannedTimes, Terms
from dr.api.problem import Problem, missing
from dr.api.snapshot import Snapshot
from dr.core import approval, forecast
from dr.core.state import Draft
from dr.model.base import HostName
from dr.model.effects import Forecast, Foreseen
from dr.model.plans import Approved
from dr.model.plans import Terms as CoreTerms
from dr.model.records import HostPhase, Rung, Wish


def evacuation(
    snap: Snapshot, hosts: Sequence[HostName], *, leave_unprotected: bool, deadline_s: float
) -> schema.Evacuation:
    """As drains of these hosts would answer at this moment. Raises Problem."""
    draft = Draft(snap.state, snap.now)
    return _shown(draft, hosts, _drained(snap, draft, hosts, leave_unprotected, deadline_s))


def planned(
    snap: Snapshot,
    cluster: str,
    by: str,
    hosts: Sequence[HostName],
    *,
    leave_unprotected: bool,
    deadline_s: float,
) -> PlanDocument:
    """The same, with the plan of it: to be read, approved and applied. Raises Problem."""
    draft = Draft(snap.state, snap.now)
    told = _drained(snap, draft, hosts, leave_unprotected, deadline_s)
    shown, by_id = _shown(draft, hosts, told), {each.guest: each for each in told.guests}
    foreseen = told.forecast
    plan = EvacuationPlan(
        version=1,
        kind="evacuation-plan",
        cluster=cluster,
        made=datetime.fromtimestamp(snap.wall(snap.now), UTC).isoformat(timespec="seconds"),
        by=by,
        revision=snap.state.revision + snap.state.cluster.revision_offset,
        rules=approval.digest_of_rules(snap.state.settings),
        hosts=list(hosts),
        leave_unprotected=leave_unprotected,
        deadline_s=deadline_s,
        summary=shown.message.splitlines(),
        forecast=foreseen
        and PlannedTimes(
            total_s=foreseen.total_s, bound_s=foreseen.bound_s, rests_on=list(foreseen.rests_on)
        ),
        guests=[_planned(each, by_id[each.guest]) for each in approval.approved(draft, told.guests)],
    )
    return PlanDocument(evacuation=shown, plan=plan)


def _drained(
    snap: Snapshot, draft: Draft, hosts: Sequence[HostName], leave_unprotected: bool, deadline_s: float
) -> forecast.Evacuation:
    for name in hosts:
        _plannable(snap, name)
    at = snap.now + deadline_s if deadline_s else 0.0
    wish = Wish(by="", at=snap.now, leave_unprotected=leave_unprotected, deadline=at)
    return forecast.of_drains(draft, dict.fromkeys(hosts, wish))


def _shown(draft: Draft, hosts: Sequence[HostName], told: forecast.Evacuation) -> schema.Evacuation:
    return schema.Evacuation(
        host=hosts[0],
        hosts=list(hosts),
        message=forecast.in_words(draft, told, hosts),
        guests=guests(told.guests),
        forecast=times(told.forecast),
    )


def _plannable(snap: Snapshot, name: HostName) -> None:
    found = snap.state.hosts.get(name)
    if found is None:
        raise missing("host", name)
    if found.phase is HostPhase.JOINING:
        why = f"{name} has not joined yet: {found.reason}"
        raise Problem(409, "refused", "There is nothing to plan.", why, todo=f"dr host show {name}")


def _planned(guest: Approved, told: Foreseen) -> PlannedGuest:
    return PlannedGuest(
        name=guest.name,
        id=guest.guest,
        host=guest.host,
        fate=guest.fate,
        to=guest.to,
        rung=None if guest.rung is None else guest.rung.value,
        late=guest.late,
        stopped=told.stopped,
        why=list(told.why),
        send_mib=told.send_mib,
        begins_s=told.begins_s,
        ends_s=told.ends_s,
        terms=None if guest.terms is None else Terms(**msgspec.structs.asdict(cast(Any, guest.terms))),
    )


def approved(given: EvacuationPlan) -> tuple[Approved, ...]:
    """Its guests, as they are asked for."""
    return tuple(
        Approved(
            guest=each.id,
            name=each.name,
            host=each.host,
            fate=each.fate,
            to=each.to,
            rung=None if each.rung is None else Rung(each.rung),
            late=each.late,
            terms=None if each.terms is None else msgspec.convert(each.terms.model_dump(), CoreTerms),
        )
        for each in given.guests
    )


def times(told: Forecast | None) -> schema.Forecast | None:
    if told is None:
        return None
    return schema.Forecast(
        total_s=told.total_s,
        bound_s=told.bound_s,
        rests_on=list(told.rests_on),
        deadline_s=told.deadline_s,
    )


def guests(told: Iterable[Foreseen]) -> list[schema.Foreseen]:
    return [
        schema.Foreseen(
            id=each.guest,
            name=each.name,
            host=each.host,
            fate=each.fate,
            cold=each.cold,
            to=each.to,
            why=list(each.why),
            todo=list(each.todo),
            checks=[
                schema.Check(
                    name=check.name,
                    verdict=check.verdict.value,
                    text=check.text,
                    fix=check.fix,
                    refuses=check.refuses,
                )
                for check in each.checks
            ],
            send_mib=each.send_mib,
            rung=each.rung.value if each.rung else "",
            downtime_s=each.downtime_s,
            begins_s=each.begins_s,
            ends_s=each.ends_s,
            late=each.late,
            stopped=each.stopped,
        )
        for each in told
    ]
