"""Routes of plans: made and told, and applied once a person has approved one.

Not here: what is in a plan (`plan_schema`, `foretold`), whether it still holds (`dr.core.asks_plans`).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from dr.api import foretold, schema
from dr.api.access import PEER, Peer
from dr.api.asking import submitted, who
from dr.api.desk import Desk, built
from dr.api.plan_schema import ApplyBody, PlanDocument
from dr.api.problem import Problem
from dr.model import events


def planning_routes(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["plans"])

    @api.get("/v1/plans/evacuation", response_model=PlanDocument)
    async def evacuation(
        request: Request,
        *,
        host: Annotated[list[str], Query(min_length=1, max_length=1000)],
        leave_unprotected: bool = False,
        deadline_s: Annotated[float, Query(ge=0, le=864_000)] = 0.0,
    ) -> Response:
        """What drains of these hosts would do now, together, and the plan to save of it. Nothing is done."""
        peer: Peer = request.scope[PEER]

        hosts = list(dict.fromkeys(host))
        return await built(
            desk,
            lambda snap: foretold.planned(
                snap,
                desk.cluster,
                peer.name,
                hosts,
                leave_unprotected=leave_unprotected,
                deadline_s=deadline_s,
            ),
        )

    @api.post("/v1/plans/apply", response_model=schema.Accepted)
    async def apply(request: Request, body: ApplyBody) -> Response:
        """Empty its hosts as it says, or refuse with everything that is different now. Twice is once."""
        plan = body.plan
        if plan.cluster != desk.cluster:
            why = f"it is of cluster {plan.cluster}, and this is {desk.cluster}"
            raise Problem(409, "refused", "This plan is not for here; nothing was done.", why)
        if wrong := [f"{'.'.join(map(str, path))}: {text}" for path, text in plan.wrong()]:
            raise Problem(400, "invalid", "The plan does not fit together.", "; ".join(wrong))
        ask = events.AskApply(
            **who(request, body),
            plan=plan.digest,
            hosts=tuple(plan.hosts),
            approved=foretold.approved(plan),
            revision=plan.revision,
            rules=plan.rules,
            leave_unprotected=plan.leave_unprotected,
            deadline_s=plan.deadline_s,
            anyway=body.anyway,
            dry_run=body.dry_run,
        )
        return await submitted(desk, ask)

    return api
