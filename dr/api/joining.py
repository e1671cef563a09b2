"""How a host joins: a token for its name, and with the token a certificate for its own key.

Here: the two routes and their order. Not here: how tokens and certificates are made (wired in `dr.cli`), who may call
(`access`).
"""

from __future__ import annotations

import re

from fastapi import APIRouter, Request
from starlette.responses import Response

from dr.api import schema
from dr.api.access import PEER, Peer
from dr.api.asking import submitted, who
from dr.api.desk import Desk, encoded
from dr.api.problem import Problem
from dr.api.shapes import Body
from dr.model import events

HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def joining_routes(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["joining"])

    @api.post("/v1/hosts/{name}/token", response_model=schema.TokenDocument)
    async def token(request: Request, name: str, body: Body) -> Response:
        """Admit a host, and make the token with which it joins."""
        if not HOST_NAME.fullmatch(name):
            why = "a host's name is letters, digits, dots, dashes and underscores, at most 63"
            raise Problem(400, "invalid", f"{name!r} cannot be a host's name.", why)
        try:
            made = desk.invite(name)
        except ValueError as error:
            raise Problem(409, "refused", "No token could be made.", str(error)) from None
        asked = who(request, body)
        await submitted(desk, events.Admitted(id=asked["id"], by=asked["by"], host=name))
        return encoded(schema.TokenDocument(host=name, token=made))

    @api.post("/v1/join", response_model=schema.JoinedDocument)
    async def join(request: Request, body: schema.JoinBody) -> Response:
        """The certificate for an invited host's own key. Its name is the token's; each token works once."""
        peer: Peer = request.scope[PEER]
        again = f"get a new token on the coordinator: dr cluster token {peer.name}"
        if peer.role != "join":
            raise Problem(403, "denied", "Only an invited host can join.", todo="dr cluster token HOST")
        if peer.name not in desk.coordinator.state.hosts:
            raise Problem(409, "refused", f"{peer.name} was removed after this token was made.", todo=again)
        try:
            certificate = desk.certify(body.csr, peer.name)
        except ValueError as error:
            raise Problem(400, "invalid", "The certificate request cannot be used.", str(error)) from None
        if not await desk.spend(peer.serial):
            raise Problem(409, "refused", "This token was used before.", "a token works once", todo=again)
        return encoded(schema.JoinedDocument(host=peer.name, cluster=desk.cluster, certificate=certificate))

    return api
