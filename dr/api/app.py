"""The HTTP API, version 1, over a running coordinator.

Here: the application as a whole, and every error as an answer. Not here: its routes (`reading`, `timeline`, `asking`,
`joining`), who may call (`access`), shapes (`schema`), how they are filled (`views`), TLS (`server`). Every route is a
coroutine: state is read on the loop that owns it, copied, and rendered in a thread. What decides is the coordinator;
this only asks it.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from dr import __version__
from dr.api.access import Guard
from dr.api.asking import guest_routes, host_routes
from dr.api.desk import Desk
from dr.api.drilling import drill_routes
from dr.api.joining import joining_routes
from dr.api.planning import planning_routes
from dr.api.problem import Problem, answer
from dr.api.reading import reading_routes
from dr.api.running import running_routes
from dr.api.scheduling import scheduling_routes
from dr.api.timeline import timeline_routes
from dr.ports.store import StoreError


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
        reading_routes(desk),
        timeline_routes(desk),
        guest_routes(desk),
        host_routes(desk),
        planning_routes(desk),
        running_routes(desk),
        drill_routes(desk),
        scheduling_routes(desk),
        joining_routes(desk),
    ):
        app.include_router(router)
    _errors(app)
    return Guard(app, desk.cluster)


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
