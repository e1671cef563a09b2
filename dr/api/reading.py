"""Routes that read the state: status, lists, one host or guest or job, findings, a backup, metrics.

Here: which document answers which path, and what is not there. Not here: how it is filled (`views`,
`summary`, `doctor`), what was written down over time (`timeline`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from dr import __version__
from dr.api import doctor, foretold, metrics, schema, summary, views
from dr.api.access import PEER, Peer
from dr.api.desk import Desk, built, encoded, snapshot
from dr.api.problem import Problem, missing
from dr.api.snapshot import Snapshot
from dr.model.operations import Operation

OPERATIONS_KEPT = 1_000
PIECE_BYTES = 256 * 1024  # of a backup, read and sent at once


def reading_routes(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["state"])

    @api.get("/v1/whoami", response_model=schema.Whoami)
    async def whoami(request: Request) -> Response:
        peer: Peer = request.scope[PEER]
        now = desk.coordinator.now()
        return encoded(
            schema.Whoami(
                cluster=peer.cluster,
                role=peer.role,
                name=peer.name,
                coordinator_version=__version__,
                wall=desk.coordinator.wall(now),
            )
        )

    @api.get("/v1/status", response_model=schema.Status)
    async def status() -> Response:
        return await built(desk, summary.status)

    @api.get("/v1/hosts", response_model=schema.HostList)
    async def hosts() -> Response:
        return await built(desk, views.hosts)

    @api.get("/v1/hosts/{name}", response_model=schema.HostDocument)
    async def host(name: str) -> Response:
        found = views.host(snapshot(desk), name)
        if found is None:
            raise missing("host", name)
        return encoded(found)

    @api.get("/v1/hosts/{name}/evacuation", response_model=schema.Evacuation)
    async def evacuation(
        name: str,
        *,
        leave_unprotected: bool = False,
        deadline_s: Annotated[float, Query(ge=0, le=864_000)] = 0.0,
    ) -> Response:
        """What a drain of that host would do now, guest by guest, and how long it would take. Nothing is done."""

        return await built(
            desk,
            lambda snap: foretold.evacuation(
                snap, [name], leave_unprotected=leave_unprotected, deadline_s=deadline_s
            ),
        )

    @api.get("/v1/guests", response_model=schema.GuestList)
    async def guests() -> Response:
        return await built(desk, views.guests)

    @api.get("/v1/guests/{name}", response_model=schema.GuestDocument)
    async def guest(name: str) -> Response:
        snap = snapshot(desk)
        guest_id = await asyncio.to_thread(_one_guest, snap, name)
        definition = await desk.coordinator.definition(guest_id)
        return await asyncio.to_thread(lambda: encoded(views.guest(snap, guest_id, definition)))

    @api.get("/v1/guests/{name}/screenshot", response_class=Response)
    async def screenshot(name: str) -> Response:
        """The newest picture that a check took of its console, as PNG."""
        snap = snapshot(desk)
        guest_id = await asyncio.to_thread(_one_guest, snap, name)
        picture = await desk.coordinator.picture(guest_id)
        if picture is None:
            raise Problem(
                404,
                "missing",
                f"There is no picture of the console of {name}.",
                "pictures are taken by the check `screenshot`",
                todo=f"dr guest set {name} --check screenshot …, then: dr guest check {name}",
            )
        taken = {"x-dr-host": picture.host, "x-dr-age-s": f"{snap.age(picture.at):.1f}"}
        return Response(picture.png, media_type="image/png", headers=taken)

    @api.get("/v1/operations", response_model=schema.OperationList)
    async def operations(limit: Annotated[int, Query(ge=1, le=OPERATIONS_KEPT)] = 50) -> Response:
        found = await _operations(desk, limit)
        return await built(desk, lambda snap: views.operations(snap, found))

    @api.get("/v1/operations/{key}", response_model=schema.OperationDocument)
    async def operation(key: str) -> Response:
        found = desk.coordinator.state.operations.get(key)
        if found is None:
            found = next((each for each in await _operations(desk, OPERATIONS_KEPT) if each.id == key), None)
        if found is None:
            raise missing("job", key)
        return encoded(views.operation(snapshot(desk), found))

    @api.get("/v1/fence", response_model=schema.FenceList)
    async def fence() -> Response:
        return await built(desk, views.fencing)

    @api.get("/v1/doctor", response_model=schema.Findings)
    async def examine() -> Response:
        site = doctor.Site(sinks=desk.sinks(), certificates=desk.certificates())
        return await built(desk, lambda snap: doctor.examine(snap, site))

    @api.get("/v1/backup", response_class=StreamingResponse)
    async def backup(request: Request) -> Response:
        """The whole coordinator as a tar: store, CA with its key, certificates, configuration. Keep it secret."""
        peer: Peer = request.scope[PEER]
        try:
            file = await desk.backup(peer.name)
            opened = await asyncio.to_thread(file.open, "rb")
            file.unlink()  # what is open can still be read, and nothing is left of it however the request ends
        except OSError as error:
            raise Problem(
                503, "try-again", "No backup could be made.", str(error), todo="free some space there"
            ) from None
        length = {"content-length": str(os.fstat(opened.fileno()).st_size)}
        return StreamingResponse(_pieces(opened), headers=length, media_type="application/x-tar")

    @api.get("/metrics")
    async def prometheus() -> Response:
        snap = snapshot(desk)
        text = await asyncio.to_thread(metrics.render, snap)
        return Response(text, media_type=metrics.CONTENT_TYPE)

    return api


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece


async def _operations(desk: Desk, limit: int) -> list[Operation]:
    """Newest last; the state knows better than the store."""
    stored = {each.id: each for each in await desk.coordinator.operations(limit)}
    current = desk.coordinator.state.operations
    stored.update((key, each) for key, each in current.items() if key in stored or len(stored) < limit)
    return sorted(stored.values(), key=lambda each: each.opened)[-limit:]


def _one_guest(snap: Snapshot, name: str) -> str:
    found = views.find_guest(snap, name)
    if not found:
        raise missing("guest", name)
    if len(found) > 1:
        raise Problem(
            409, "refused", f"{len(found)} guests are named {name}.", todo="name it by UUID", blockers=found
        )
    return found[0]
