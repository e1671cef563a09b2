"""The HTTP API, version 1, over a running coordinator.

Here: routes, and asks turned into events. Not here: who may call (`access`), shapes (`schema`), how they are
filled (`views`), TLS (`server`). Every route is a coroutine: state is read on the loop that owns it, copied, and
rendered in a thread. What decides is the coordinator; this only asks it.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, TypeVar

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from dr import __version__
from dr.api import doctor, metrics, policies, schema, views
from dr.api.access import PEER, Guard, Peer
from dr.api.problem import Problem, answer, missing, refusal
from dr.api.snapshot import Deciding, Devices, Line, Snapshot
from dr.model import events
from dr.model.records import Alert, Desired, Operation
from dr.ports.store import StoreError

HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
WAIT_S_MAX = 30.0
PAGE_MAX = 5_000
LOOKED_THROUGH_MAX = 20_000  # notes that a filtered question reads at most
NOTES_AT_ONCE = 500  # read and decoded in one go, on the loop: some milliseconds
OPERATIONS_KEPT = 1_000
PIECE_BYTES = 256 * 1024  # of a backup, read and sent at once

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Desk:
    """What the API is given besides the coordinator; all of it is wired in `dr.cli`."""

    coordinator: Deciding
    cluster: str
    invite: Callable[[str], str]  # host -> join token. Raises ValueError
    certify: Callable[[str, str], str]  # request (PEM), host -> certificate (PEM). Raises ValueError
    spend: Callable[[str], Awaitable[bool]]  # serial of a join certificate -> whether this was its first use
    devices: Devices
    sinks: Callable[[], int]  # how many notifiers are configured
    notify_test: Callable[[], Awaitable[list[tuple[str, str]]]]  # (sink, error or "")
    certificates: Callable[[], dict[str, float]]  # whose -> days left
    alerts: Callable[[], Iterable[Alert]]  # of the process itself: a configuration that it did not take
    backup: Callable[[str], Awaitable[Path]]  # who asks -> a file, to be deleted. Raises StoreError, OSError


def make_app(desk: Desk) -> Guard:
    """The application, with the guard around it."""
    app = FastAPI(
        title="dr",
        version=__version__,
        description="Disaster recovery for plain libvirt/KVM hosts. Every request shows a client certificate.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,
    )
    for router in (
        _reading(desk),
        _timeline(desk),
        _asking_guests(desk),
        _asking_hosts(desk),
        _joining(desk),
    ):
        app.include_router(router)
    _errors(app)
    return Guard(app, desk.cluster)


def snapshot(desk: Desk) -> Snapshot:
    coordinator = desk.coordinator
    return Snapshot.of(coordinator.state, coordinator.now(), coordinator.wall, desk.devices, desk.alerts())


def _json(document: BaseModel) -> Response:
    return Response(document.model_dump_json(), media_type="application/json")


async def _built(desk: Desk, build: Callable[[Snapshot], BaseModel]) -> Response:
    """Built and encoded off the loop: a list of 20,000 guests must not delay a heartbeat."""
    snap = snapshot(desk)
    return await asyncio.to_thread(lambda: _json(build(snap)))


# ---- reading


def _reading(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["state"])

    @api.get("/v1/whoami", response_model=schema.Whoami)
    async def whoami(request: Request) -> Response:
        peer: Peer = request.scope[PEER]
        now = desk.coordinator.now()
        return _json(
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
        return await _built(desk, views.status)

    @api.get("/v1/hosts", response_model=schema.HostList)
    async def hosts() -> Response:
        return await _built(desk, views.hosts)

    @api.get("/v1/hosts/{name}", response_model=schema.HostDocument)
    async def host(name: str) -> Response:
        found = views.host(snapshot(desk), name)
        if found is None:
            raise missing("host", name)
        return _json(found)

    @api.get("/v1/guests", response_model=schema.GuestList)
    async def guests() -> Response:
        return await _built(desk, views.guests)

    @api.get("/v1/guests/{name}", response_model=schema.GuestDocument)
    async def guest(name: str) -> Response:
        snap = snapshot(desk)
        guest_id = await asyncio.to_thread(_one_guest, snap, name)
        definition = await desk.coordinator.definition(guest_id)
        return await asyncio.to_thread(lambda: _json(views.guest(snap, guest_id, definition)))

    @api.get("/v1/operations", response_model=schema.OperationList)
    async def operations(limit: Annotated[int, Query(ge=1, le=OPERATIONS_KEPT)] = 50) -> Response:
        found = await _operations(desk, limit)
        return await _built(desk, lambda snap: views.operations(snap, found))

    @api.get("/v1/operations/{key}", response_model=schema.OperationDocument)
    async def operation(key: str) -> Response:
        found = desk.coordinator.state.operations.get(key)
        if found is None:
            found = next((each for each in await _operations(desk, OPERATIONS_KEPT) if each.id == key), None)
        if found is None:
            raise missing("job", key)
        return _json(views.operation(snapshot(desk), found))

    @api.get("/v1/fence", response_model=schema.FenceList)
    async def fence() -> Response:
        return await _built(desk, views.fencing)

    @api.get("/v1/doctor", response_model=schema.Findings)
    async def examine() -> Response:
        site = doctor.Site(sinks=desk.sinks(), certificates=desk.certificates())
        return await _built(desk, lambda snap: doctor.examine(snap, site))

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


# ---- the timeline


def _timeline(desk: Desk) -> APIRouter:
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
        return await _built(desk, lambda snap: views.notes(snap, lines, cursor))

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


# ---- asking


async def _ask(desk: Desk, ask: events.OperatorAsk) -> Response:
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
    return _json(views.accepted(reply))


def _who(request: Request, body: schema.Body) -> dict[str, str]:
    peer: Peer = request.scope[PEER]
    return {"id": uuid.uuid4().hex, "by": peer.name, "reason": body.reason}


def _asking_guests(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["guests"])
    guests = "/v1/guests"

    @api.post(f"{guests}/protect", response_model=schema.Accepted)
    async def protect(request: Request, body: schema.ProtectBody) -> Response:
        names = tuple(body.guests)
        return await _ask(
            desk, events.AskProtect(**_who(request, body), guests=names, priority=body.priority)
        )

    @api.post(f"{guests}/unprotect", response_model=schema.Accepted)
    async def unprotect(request: Request, body: schema.GuestsBody) -> Response:
        return await _ask(desk, events.AskUnprotect(**_who(request, body), guests=tuple(body.guests)))

    @api.post(f"{guests}/start", response_model=schema.Accepted)
    async def start(request: Request, body: schema.GuestsBody) -> Response:
        return await _ask(desk, events.AskStart(**_who(request, body), guests=tuple(body.guests)))

    @api.post(f"{guests}/stop", response_model=schema.Accepted)
    async def stop(request: Request, body: schema.StopBody) -> Response:
        return await _ask(
            desk, events.AskStop(**_who(request, body), guests=tuple(body.guests), mode=body.mode)
        )

    @api.post(f"{guests}/migrate", response_model=schema.Accepted)
    async def migrate(request: Request, body: schema.MigrateBody) -> Response:
        names = tuple(body.guests)
        ask = events.AskMigrate(**_who(request, body), guests=names, to=body.to, dry_run=body.dry_run)
        return await _ask(desk, ask)

    @api.post(f"{guests}/cancel-move", response_model=schema.Accepted)
    async def cancel_move(request: Request, body: schema.GuestsBody) -> Response:
        return await _ask(desk, events.AskCancelMove(**_who(request, body), guests=tuple(body.guests)))

    @api.post(f"{guests}/relocate", response_model=schema.Accepted)
    async def relocate(request: Request, body: schema.RelocateBody) -> Response:
        names = tuple(body.guests)
        ask = events.AskRelocate(**_who(request, body), guests=names, to=body.to, mode=body.mode)
        return await _ask(desk, ask)

    @api.post(f"{guests}/set", response_model=schema.Accepted)
    async def set_(request: Request, body: schema.SetBody) -> Response:
        desired = None if body.desired is None else Desired(body.desired)
        ask = events.AskSet(
            **_who(request, body), guests=tuple(body.guests), desired=desired, policy=policies.change(body)
        )
        return await _ask(desk, ask)

    @api.post(f"{guests}/{{name}}/labels", response_model=schema.Accepted)
    async def label(request: Request, name: str, body: schema.LabelBody) -> Response:
        ask = events.AskLabel(**_who(request, body), kind="guest", name=name, labels=body.labels)
        return await _ask(desk, ask)

    return api


def _asking_hosts(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["hosts"])
    host = "/v1/hosts/{name}"

    @api.post(f"{host}/fence", response_model=schema.Accepted)
    async def fence(request: Request, name: str, body: schema.Body) -> Response:
        return await _ask(desk, events.AskFence(**_who(request, body), host=name))

    @api.post(f"{host}/fence-test", response_model=schema.Accepted)
    async def fence_test(request: Request, name: str, body: schema.Body) -> Response:
        return await _ask(desk, events.AskFenceTest(**_who(request, body), host=name))

    @api.post(f"{host}/confirm-down", response_model=schema.Accepted)
    async def confirm_down(request: Request, name: str, body: schema.ConfirmDownBody) -> Response:
        return await _ask(desk, events.AskConfirmDown(**_who(request, body), host=name, boot_id=body.boot_id))

    @api.post(f"{host}/cordon", response_model=schema.Accepted)
    async def cordon(request: Request, name: str, body: schema.Body) -> Response:
        return await _ask(desk, events.AskCordon(**_who(request, body), host=name))

    @api.post(f"{host}/uncordon", response_model=schema.Accepted)
    async def uncordon(request: Request, name: str, body: schema.Body) -> Response:
        return await _ask(desk, events.AskUncordon(**_who(request, body), host=name))

    @api.post(f"{host}/drain", response_model=schema.Accepted)
    async def drain(request: Request, name: str, body: schema.DrainBody) -> Response:
        """Move its guests live to other hosts, then set it aside. A guest that cannot move stays, the others go."""
        asked = _who(request, body)
        ask = events.AskDrain(
            **asked, host=name, leave_unprotected=body.leave_unprotected, dry_run=body.dry_run
        )
        return await _ask(desk, ask)

    @api.post(f"{host}/undrain", response_model=schema.Accepted)
    async def undrain(request: Request, name: str, body: schema.Body) -> Response:
        return await _ask(desk, events.AskUndrain(**_who(request, body), host=name))

    @api.post(f"{host}/clear-quarantine", response_model=schema.Accepted)
    async def clear_quarantine(request: Request, name: str, body: schema.Body) -> Response:
        return await _ask(desk, events.AskClearQuarantine(**_who(request, body), host=name))

    @api.post(f"{host}/remove", response_model=schema.Accepted)
    async def remove(request: Request, name: str, body: schema.Body) -> Response:
        return await _ask(desk, events.AskRemoveHost(**_who(request, body), host=name))

    @api.post(f"{host}/labels", response_model=schema.Accepted)
    async def label(request: Request, name: str, body: schema.LabelBody) -> Response:
        ask = events.AskLabel(**_who(request, body), kind="host", name=name, labels=body.labels)
        return await _ask(desk, ask)

    @api.post("/v1/pause", response_model=schema.Accepted)
    async def pause(request: Request, body: schema.Body) -> Response:
        return await _ask(desk, events.AskPause(**_who(request, body)))

    @api.post("/v1/resume", response_model=schema.Accepted)
    async def resume(request: Request, body: schema.Body) -> Response:
        return await _ask(desk, events.AskResume(**_who(request, body)))

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
        return _json(
            schema.Accepted(message=f"A test alert went to {', '.join(sink for sink, _ in outcomes)}.")
        )

    return api


# ---- joining


def _joining(desk: Desk) -> APIRouter:
    api = APIRouter(tags=["joining"])

    @api.post("/v1/hosts/{name}/token", response_model=schema.TokenDocument)
    async def token(request: Request, name: str, body: schema.Body) -> Response:
        """Admit a host, and make the token with which it joins."""
        if not HOST_NAME.fullmatch(name):
            why = "a host's name is letters, digits, dots, dashes and underscores, at most 63"
            raise Problem(400, "invalid", f"{name!r} cannot be a host's name.", why)
        try:
            made = desk.invite(name)
        except ValueError as error:
            raise Problem(409, "refused", "No token could be made.", str(error)) from None
        who = _who(request, body)
        await _ask(desk, events.Admitted(id=who["id"], by=who["by"], host=name))
        return _json(schema.TokenDocument(host=name, token=made))

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
        return _json(schema.JoinedDocument(host=peer.name, cluster=desk.cluster, certificate=certificate))

    return api


# ---- errors


def _errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        wrong = [f"{'.'.join(map(str, each['loc'][1:])) or 'body'}: {each['msg']}" for each in error.errors()]
        return answer(Problem(400, "invalid", "The request is not valid.", "; ".join(wrong)))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return answer(Problem(404, "missing", f"There is no {request.method} {request.url.path}."))
        return answer(Problem(error.status_code, "invalid", str(error.detail)))

    @app.exception_handler(StoreError)
    async def store(_: Request, error: StoreError) -> Response:
        return answer(Problem(503, "try-again", "The store cannot be read now.", str(error)))

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        why = f"{type(error).__name__}: {error}"
        return answer(
            Problem(500, "failed", "The coordinator failed on this request.", why, todo="see its log")
        )
