"""Asks turned into events: who asks is the certificate, what becomes of it is the coordinator's word.

Here: routes that ask for something about guests, hosts or the whole, refusals, an answer that did not come in time.
Not here: whether it is granted (`dr.core.operator`), hosts that join (`joining`).
"""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from dr.api import policies, schema, views
from dr.api.access import PEER, Peer
from dr.api.desk import Desk, encoded
from dr.api.problem import Problem, refusal
from dr.api.shapes import Body
from dr.model import events
from dr.model.effects import Reply
from dr.model.records import Desired


async def submitted(desk: Desk, ask: events.OperatorAsk) -> Response:
    """What was accepted; raises Problem when it is refused, or not answered in time."""
    return encoded(views.accepted(await replied(desk, ask)))


async def replied(desk: Desk, ask: events.OperatorAsk) -> Reply:
    """The coordinator's word; raises Problem when it refuses, or does not answer in time."""
    try:
        reply = await desk.coordinator.ask(ask)
    except TimeoutError:
        raise Problem(
            504,
            "unknown",
            "The coordinator did not answer in time.",
            "it may still decide and act on this request",
            todo="see what became of it: dr events",
        ) from None
    if not reply.accepted:
        raise refusal(reply)
    return reply


def who(request: Request, body: Body) -> dict[str, Any]:
    """What every ask carries: its id, who asks, and why."""
    peer: Peer = request.scope[PEER]
    return {"id": uuid.uuid4().hex, "by": peer.name, "reason": body.reason}


def guest_routes(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["guests"])
    guests = "/v1/guests"

    @api.post(f"{guests}/protect", response_model=schema.Accepted)
    async def protect(request: Request, body: schema.ProtectBody) -> Response:
        names = tuple(body.guests)
        ask = events.AskProtect(
            **who(request, body),
            guests=names,
            priority=body.priority,
            local_disks=body.local_disks,
        )
        return await submitted(desk, ask)

    @api.post(f"{guests}/unprotect", response_model=schema.Accepted)
    async def unprotect(request: Request, body: schema.GuestsBody) -> Response:
        return await submitted(desk, events.AskUnprotect(**who(request, body), guests=tuple(body.guests)))

    @api.post(f"{guests}/start", response_model=schema.Accepted)
    async def start(request: Request, body: schema.StartBody) -> Response:
        ask = events.AskStart(**who(request, body), guests=tuple(body.guests), disks_on=body.disks_on)
        return await submitted(desk, ask)

    @api.post(f"{guests}/stop", response_model=schema.Accepted)
    async def stop(request: Request, body: schema.StopBody) -> Response:
        return await submitted(
            desk, events.AskStop(**who(request, body), guests=tuple(body.guests), mode=body.mode)
        )

    @api.post(f"{guests}/migrate", response_model=schema.Accepted)
    async def migrate(request: Request, body: schema.MigrateBody) -> Response:
        names = tuple(body.guests)
        ask = events.AskMigrate(**who(request, body), guests=names, to=body.to, dry_run=body.dry_run)
        return await submitted(desk, ask)

    @api.post(f"{guests}/cancel-move", response_model=schema.Accepted)
    async def cancel_move(request: Request, body: schema.GuestsBody) -> Response:
        return await submitted(desk, events.AskCancelMove(**who(request, body), guests=tuple(body.guests)))

    @api.post(f"{guests}/check", response_model=schema.Accepted)
    async def check(request: Request, body: schema.GuestsBody) -> Response:
        return await submitted(desk, events.AskCheck(**who(request, body), guests=tuple(body.guests)))

    @api.post(f"{guests}/relocate", response_model=schema.Accepted)
    async def relocate(request: Request, body: schema.RelocateBody) -> Response:
        names = tuple(body.guests)
        ask = events.AskRelocate(
            **who(request, body), guests=names, to=body.to, mode=body.mode, dry_run=body.dry_run
        )
        return await submitted(desk, ask)

    @api.post(f"{guests}/set", response_model=schema.Accepted)
    async def set_(request: Request, body: schema.SetBody) -> Response:
        desired = None if body.desired is None else Desired(body.desired)
        ask = events.AskSet(
            **who(request, body), guests=tuple(body.guests), desired=desired, policy=policies.change(body)
        )
        return await submitted(desk, ask)

    @api.post(f"{guests}/{{name}}/labels", response_model=schema.Accepted)
    async def label(request: Request, name: str, body: schema.LabelBody) -> Response:
        ask = events.AskLabel(**who(request, body), kind="guest", name=name, labels=body.labels)
        return await submitted(desk, ask)

    return api


def host_routes(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["hosts"])
    host = "/v1/hosts/{name}"

    @api.post(f"{host}/fence", response_model=schema.Accepted)
    async def fence(request: Request, name: str, body: Body) -> Response:
        return await submitted(desk, events.AskFence(**who(request, body), host=name))

    @api.post(f"{host}/fence-test", response_model=schema.Accepted)
    async def fence_test(request: Request, name: str, body: Body) -> Response:
        return await submitted(desk, events.AskFenceTest(**who(request, body), host=name))

    @api.post(f"{host}/confirm-down", response_model=schema.Accepted)
    async def confirm_down(request: Request, name: str, body: schema.ConfirmDownBody) -> Response:
        return await submitted(
            desk, events.AskConfirmDown(**who(request, body), host=name, boot_id=body.boot_id)
        )

    @api.post(f"{host}/cordon", response_model=schema.Accepted)
    async def cordon(request: Request, name: str, body: Body) -> Response:
        return await submitted(desk, events.AskCordon(**who(request, body), host=name))

    @api.post(f"{host}/uncordon", response_model=schema.Accepted)
    async def uncordon(request: Request, name: str, body: Body) -> Response:
        return await submitted(desk, events.AskUncordon(**who(request, body), host=name))

    @api.post(f"{host}/drain", response_model=schema.Accepted)
    async def drain(request: Request, name: str, body: schema.DrainBody) -> Response:
        """Move its guests live to other hosts, then set it aside. A guest that cannot move stays, the others go.

        With a deadline, what would be late is stopped before it, and started elsewhere.
        """
        asked = who(request, body)
        ask = events.AskDrain(
            **asked,
            host=name,
            also=tuple(body.also),
            leave_unprotected=body.leave_unprotected,
            deadline_s=body.deadline_s,
            dry_run=body.dry_run,
        )
        return await submitted(desk, ask)

    @api.post(f"{host}/undrain", response_model=schema.Accepted)
    async def undrain(request: Request, name: str, body: Body) -> Response:
        return await submitted(desk, events.AskUndrain(**who(request, body), host=name))

    @api.post(f"{host}/clear-quarantine", response_model=schema.Accepted)
    async def clear_quarantine(request: Request, name: str, body: Body) -> Response:
        return await submitted(desk, events.AskClearQuarantine(**who(request, body), host=name))

    @api.post(f"{host}/remove", response_model=schema.Accepted)
    async def remove(request: Request, name: str, body: Body) -> Response:
        return await submitted(desk, events.AskRemoveHost(**who(request, body), host=name))

    @api.post(f"{host}/labels", response_model=schema.Accepted)
    async def label(request: Request, name: str, body: schema.LabelBody) -> Response:
        ask = events.AskLabel(**who(request, body), kind="host", name=name, labels=body.labels)
        return await submitted(desk, ask)

    @api.post("/v1/pause", response_model=schema.Accepted)
    async def pause(request: Request, body: Body) -> Response:
        return await submitted(desk, events.AskPause(**who(request, body)))

    @api.post("/v1/resume", response_model=schema.Accepted)
    async def resume(request: Request, body: Body) -> Response:
        return await submitted(desk, events.AskResume(**who(request, body)))

    @api.post("/v1/notify/test", response_model=schema.Accepted)
    async def notify_test() -> Response:
        if not desk.sinks():
            raise Problem(
                409, "refused", "No notifier is configured.", "nobody would be told of a failover",
                todo="add `notify:` to the coordinator's configuration, then: systemctl reload dr-coordinator",
            )  # fmt: skip
        outcomes = await desk.notify_test()
        failed = [f"{sink}: {error}" for sink, error in outcomes if error]
        if failed:
            raise Problem(502, "failed", "A test alert could not be delivered.", blockers=failed)
        return encoded(
            schema.Accepted(message=f"A test alert went to {', '.join(sink for sink, _ in outcomes)}.")
        )

    return api
