"""What becomes of a time of a schedule that has come: its playbook is run, it waits for that, is missed, or left out.

Each time is decided about once, durably; what is missed is told to people. Not here: which times have come (`due`).
"""

from __future__ import annotations

from dr.core import asks_playbooks, operator
from dr.core.drills import isolated
from dr.core.playbooks import due
from dr.core.state import Draft
from dr.model.base import changed
from dr.model.events import AskRun, ScheduleDue
from dr.model.records import Alert
from dr.model.schedules import Schedule, ScheduleRecord

NOT_THERE = "the coordinator was not there to begin it"
BY = "schedule "


def came(draft: Draft, event: ScheduleDue) -> None:
    schedule = draft.config.schedules.get(event.name)
    if schedule is None:
        return
    record = draft.schedule(event.name)
    if record is None or record.times != schedule.times or record.ahead(event.wall):
        _begin_counting(draft, schedule, record, event)
        return
    times = [at for at in event.times if record.decided < at <= event.wall]
    if not times:
        return
    newest = times[-1]
    in_time = newest not in event.left_out and event.wall - newest < schedule.window
    restored = bool(draft.cluster.restored)  # whether it was run already is not known
    begins = in_time and not restored
    late = [at for at in times if at not in event.left_out and not (begins and at == newest)]
    for at in (at for at in times if at in event.left_out):
        draft.note("schedule.left_out", f"{event.name}: {due.shown(schedule, at)} lies in a blackout")
        record = changed(record, left_out=at)
    if late:
        why = _why(draft, record, late, superseded=begins or newest in event.left_out)
        record = _missed(draft, schedule, record, late, why, others=event.more)
    if begins:
        before = [at for at in times if at != newest]
        _begin(draft, event, schedule, changed(record, decided=max(before, default=record.decided)), newest)
    else:
        draft.put_schedule(changed(record, decided=newest, tried=0.0, waits=""))


def forget(draft: Draft) -> None:
    """Schedules that the configuration does not have any more. One that it has again later begins anew."""
    for name in draft.state.schedules.keys() - draft.config.schedules.keys():
        draft.clear_alert(_key(name))
        draft.drop_schedule(name)


def _begin_counting(
    draft: Draft, schedule: Schedule, record: ScheduleRecord | None, event: ScheduleDue
) -> None:
    """Nothing that was before is due."""
    fresh = ScheduleRecord(name=event.name, times=schedule.times, decided=event.wall)
    if record is not None:
        fresh = changed(record, times=schedule.times, decided=event.wall, tried=0.0, waits="")
        what = (
            "the clock was set back by more than a day"
            if record.ahead(event.wall)
            else "its times are others"
        )
        draft.note("schedule.anew", f"{event.name}: {what}; no time before now counts")
    draft.put_schedule(fresh)


def _begin(draft: Draft, event: ScheduleDue, schedule: Schedule, record: ScheduleRecord, at: float) -> None:
    """It is run as if a person asked for it, or waits for what is in its way: the same time comes again."""
    why = _held(draft, event)
    if not why:
        ask = AskRun(
            id=f"schedule/{event.name}/{at:.0f}",
            by=f"{BY}{event.name}",
            reason=schedule.reason or f"due {due.shown(schedule, at)}",
            playbook=schedule.playbook,
            params=schedule.params,
            wall=event.wall,
        )
        reply = asks_playbooks.run(draft, ask)
        if reply.accepted:
            operator.audited(draft, ask, reply)
            draft.clear_alert(_key(event.name))
            (job,) = reply.operations
            begun = changed(record, decided=at, tried=0.0, waits="", run=job, run_at=at, missed_since=0)
            draft.put_schedule(begun)
            return
        why = "; ".join(reply.blockers)
    if (record.tried, record.waits) != (at, why):
        if record.tried != at:
            draft.note("schedule.waits", f"{event.name}: {due.shown(schedule, at)} cannot begin yet: {why}")
        record = changed(record, tried=at, waits=why)
    if record != draft.schedule(event.name):
        draft.put_schedule(record)


def _held(draft: Draft, event: ScheduleDue) -> str:
    """What keeps a schedule from beginning anything, whatever its playbook is."""
    if draft.cluster.pause is not None:
        return f"automation is paused by {draft.cluster.pause.by}: {draft.cluster.pause.reason}"
    if event.blackout:
        return f"it is in the blackout {event.blackout}"
    for operation in draft.open_operations():
        if operation.run is not None and operation.asked_by.startswith(BY):
            return f"{operation.id} of {operation.asked_by} is under way"
        if isolated.is_drill(operation.run):
            return f"the drill {operation.id} is under way"
    return isolated.trouble(draft)


def _why(draft: Draft, record: ScheduleRecord, late: list[float], *, superseded: bool) -> str:
    if draft.cluster.restored:
        return f"the store is a restored copy, so whether it was run is not known: {draft.cluster.restored}"
    if record.tried not in late or not record.waits:
        return NOT_THERE
    what = "the next time came before it could begin" if superseded else "it could not begin in time"
    return f"{what}: {record.waits}"


def _missed(
    draft: Draft,
    schedule: Schedule,
    record: ScheduleRecord,
    times: list[float],
    why: str,
    *,
    others: bool = False,
) -> ScheduleRecord:
    """People are told of all of them at once."""
    first, last = (due.shown(schedule, at) for at in (times[0], times[-1]))
    when = f"{first} was" if len(times) == 1 else f"{len(times)} times from {first} to {last} were"
    more = ", and others before" if others else ""
    what = f"schedule {record.name}: {when} missed{more}: {schedule.playbook.playbook} was not run"
    draft.note("schedule.missed", f"{what}: {why}")
    alert = Alert(
        key=_key(record.name),
        what=what,
        why=why,
        todo="dr drill schedule; it clears as the next one begins",
        raised=draft.now,
    )
    if draft.alert_of(alert.key) is None:
        draft.alert(alert.key, alert.what, alert.why, alert.todo)
    else:
        draft.tell(alert)  # of an earlier one people know already, and not of this one
    return changed(
        record,
        missed_at=times[-1],
        missed=why,
        missed_since=record.missed_since + len(times),
        tried=0.0,
        waits="",
    )


def _key(name: str) -> str:
    return f"schedule/{name}/missed"
