"""Errors as the API tells them: what happened, why, what to type next, and every blocker of a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from starlette.responses import Response

from dr.api.schema import ProblemDocument
from dr.model.effects import Reply

Code = Literal["refused", "missing", "denied", "unknown", "invalid", "try-again", "failed"]


class Problem(Exception):
    """Ends a request."""

    def __init__(
        self,
        status: int,
        code: Code,
        title: str,
        detail: str = "",
        *,
        todo: str = "",
        blockers: Sequence[str] = (),
    ) -> None:
        super().__init__(title)
        self.document = ProblemDocument(
            status=status, code=code, title=title, detail=detail, next=todo, blockers=list(blockers)
        )


def answer(problem: Problem) -> Response:
    body = problem.document.model_dump_json()
    return Response(body, status_code=problem.document.status, media_type="application/problem+json")


def refusal(reply: Reply) -> Problem:
    """A reply that did not accept."""
    if reply.missing:
        listing = "dr host list or dr guest list"
        return Problem(
            404, "missing", reply.message or "No such thing.", todo=listing, blockers=reply.blockers
        )
    if reply.soon:
        what = reply.message or "Not now; nothing was done."
        return Problem(503, "try-again", what, todo="the same once more", blockers=reply.blockers)
    return Problem(409, "refused", reply.message or "Refused; nothing was done.", blockers=reply.blockers)


def missing(kind: str, name: str) -> Problem:
    return Problem(404, "missing", f"There is no {kind} {name}.", todo=f"dr {kind} list")
