"""What operators ask of drills: that the report of one is kept. Not here: drills themselves (`core.drills`)."""

from __future__ import annotations

import re

from dr.core.asks import no, yes
from dr.core.state import Draft
from dr.model.drills import too_large
from dr.model.effects import Reply
from dr.model.events import AskKeepDrill

ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")  # it becomes part of a key, and of a path


def keep(draft: Draft, ask: AskKeepDrill) -> Reply:
    """One write: the report, and that the oldest one goes when there are more than are kept."""
    report = ask.report
    if not ID.fullmatch(report.id):
        return no(ask, f"{report.id[:64]!r} is no id of a drill")
    if report.id in draft.state.drills:
        return no(ask, f"a report of drill {report.id} is kept already")
    if why := too_large(report):
        return no(ask, f"the report of drill {report.id} is too large: {why}")
    draft.put_drill(report)
    draft.note("drill", f"drill {report.id}, {report.title}: {report.verdict}: {report.says}", by=ask.by)
    return yes(ask, f"kept as {report.id}")
