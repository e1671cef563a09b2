"""The desk: what the API is given besides the coordinator, and how a document leaves it.

Here: the wiring, a snapshot of the state, encoding off the loop. Not here: routes (`reading`, `timeline`, `asking`,
`joining`), what is said (`views`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from starlette.responses import Response

from dr.api.snapshot import Deciding, Devices, Snapshot
from dr.model.records import Alert


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


def snapshot(desk: Desk) -> Snapshot:
    coordinator = desk.coordinator
    return Snapshot.of(coordinator.state, coordinator.now(), coordinator.wall, desk.devices, desk.alerts())


def encoded(document: BaseModel) -> Response:
    return Response(document.model_dump_json(), media_type="application/json")


async def built(desk: Desk, build: Callable[[Snapshot], BaseModel]) -> Response:
    """Built and encoded off the loop: a list of 20,000 guests must not delay a heartbeat."""
    snap = snapshot(desk)
    return await asyncio.to_thread(lambda: encoded(build(snap)))
