"""What would become of guests, as people are shown it: their fates, and when each would begin and end its move.

Not here: how it is foretold (`dr.core.forecast`).
"""

from __future__ import annotations

from collections.abc import Iterable

from dr.api import schema
from dr.api.snapshot import Snapshot
from dr.core import forecast
from dr.core.state import Draft
from dr.model.effects import Forecast, Foreseen
from dr.model.records import HostRecord, Wish


def evacuation(
    snap: Snapshot, host: HostRecord, *, leave_unprotected: bool, deadline_s: float
) -> schema.Evacuation:
    """As a drain of that host would answer at this moment."""
    draft = Draft(snap.state, snap.now)
    at = snap.now + deadline_s if deadline_s else 0.0
    wish = Wish(by="", at=snap.now, leave_unprotected=leave_unprotected, deadline=at)
    told = forecast.of_drain(draft, host, wish)
    return schema.Evacuation(
        host=host.name,
        message=forecast.in_words(draft, host, told),
        guests=guests(told.guests),
        forecast=times(told.forecast),
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
            fate=each.fate,
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
