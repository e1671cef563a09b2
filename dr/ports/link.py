"""The link between agents and coordinator. Real: adapters/link (websockets over mutual TLS)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from dr.model.base import HostName
from dr.model.wire import FromAgent, FromCoordinator


class LinkClosed(Exception):
    """The session is over; the text says why."""


class AgentLink(Protocol):
    """One session as the agent sees it; a new one is dialled for each."""

    async def send(self, message: FromAgent) -> None:
        """Raises LinkClosed."""

    def __aiter__(self) -> AsyncIterator[FromCoordinator]:
        """Messages until the session ends (then LinkClosed, or the iterator just stops)."""

    async def close(self) -> None: ...


class Dialler(Protocol):
    """How an agent reaches its coordinator."""

    async def dial(self) -> AgentLink:
        """Try each configured address in turn. Raises LinkClosed with a sentence when none takes it."""


class HostSession(Protocol):
    """One session as the coordinator sees it. Identity comes from the certificate."""

    @property
    def host(self) -> HostName: ...

    def post(self, message: FromCoordinator) -> None:
        """Queue a message; bounded: a session that does not drain is closed. Never blocks."""

    async def receive(self) -> FromAgent:
        """The next message. Raises LinkClosed; a malformed message closes the session with a sentence."""

    async def close(self, reason: str) -> None: ...
