"""Routes of the timeline: its lines, filtered, page by page or as they come, and what a decision was made from.

Here: cursors, and how far a filtered question looks back. Not here: how a line is shown (`views`).
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from dr.api import schema, views
from dr.api.desk import Desk, built, snapshot
from dr.api.problem import Problem
from dr.api.snapshot import Deciding, Line

WAIT_S_MAX = 30.0
PAGE_MAX = 5_000
LOOKED_THROUGH_MAX = 20_000  # notes that a filtered question reads at most
NOTES_AT_ONCE = 500  # read and decoded in one go, on the loop: some milliseconds


def timeline_routes(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["timeline"])

    @api.get("/v1/notes", response_model=schema.NoteList)
    async def notes(
        *,
        after: str = "",
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 200,
        wait_s: Annotated[float, Query(ge=0, le=WAIT_S_MAX)] = 0.0,
        topic: str = "",
        host: str = "",
        guest: str = "",
        operation: str = "",
    ) -> Response:
        """The newest lines; with `after`, those that follow it, waiting up to `wait_s` for one to come."""
        ids = await asyncio.to_thread(views.find_guest, snapshot(desk), guest) or [guest] if guest else []
        wanted = _Filter(topic, host, ids, operation)
        if not after:
            lines, cursor = await _newest(desk.coordinator, wanted, limit)
        else:
            lines, cursor = await _following(desk.coordinator, wanted, after, limit)
            if not lines and wait_s and math.isfinite(wait_s):
                await desk.coordinator.wait_notes(cursor, wait_s)
                lines, cursor = await _following(desk.coordinator, wanted, cursor, limit)
        return await built(desk, lambda snap: views.notes(snap, lines, cursor))

    @api.get("/v1/decisions/{name}", response_class=Response)
    async def decision(name: str) -> Response:
        """What a decision was made from, as a file for `dr sim replay`. Only those that matter, and not for ever."""
        try:
            saved = await desk.coordinator.decision(name)
        except OSError as error:
            raise Problem(503, "try-again", "The decision could not be read.", str(error)) from None
        if saved is None:
            why = "it was not one that is saved, or it was removed by now to make room"
            raise Problem(
                404, "missing", f"There is no saved decision {name}.", why, todo="dr events -o wide"
            )
        return Response(saved, media_type="application/gzip")

    return api


@dataclass(frozen=True)
class _Filter:
    topic: str
    host: str
    guests: list[str]
    operation: str

    def __call__(self, line: Line) -> bool:
        note = line.note
        return (
            note.kind.startswith(self.topic)
            and self.host in ("", note.host)
            and (not self.guests or note.guest in self.guests)
            and self.operation in ("", note.operation)
        )


async def _newest(coordinator: Deciding, wanted: _Filter, limit: int) -> tuple[list[Line], str]:
    """The last lines that are wanted, oldest first, and the cursor of the very last one. Looks back page by page."""
    last = await coordinator.notes(last=True, limit=1)
    if not last:
        return [], ""
    found: list[Line] = []
    upto = end = last[0].key
    for _ in range(LOOKED_THROUGH_MAX // NOTES_AT_ONCE):
        after = _before(upto, NOTES_AT_ONCE)
        page = await coordinator.notes(after=after, limit=NOTES_AT_ONCE)
        found[:0] = [line for line in page if line.key <= upto and wanted(line)]
        upto = after
        if len(found) >= limit or int(upto.rpartition("/")[2]) == 0:
            break
    return found[-limit:], end


def _before(key: str, count: int) -> str:
    """The key so many lines earlier: keys end in a number of fixed width, counted without gaps."""
    prefix, _, number = key.rpartition("/")
    return f"{prefix}/{max(int(number) - count, 0):0{len(number)}d}"


async def _following(
    coordinator: Deciding, wanted: _Filter, after: str, limit: int
) -> tuple[list[Line], str]:
    lines: list[Line] = []
    for _ in range(LOOKED_THROUGH_MAX // NOTES_AT_ONCE):
        page = await coordinator.notes(after=after, limit=min(limit - len(lines), NOTES_AT_ONCE))
        if not page:
            break
        after = page[-1].key
        lines += [line for line in page if wanted(line)]
        if len(lines) >= limit:
            break
    return lines, after
