"""The coordinator's side of the link: handshake, nonces, and turning messages into events. Decides nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from dr import __version__
from dr.model import events
from dr.model.base import HostName
from dr.model.commands import Body
from dr.model.events import Answered, Connected, Disconnected, Event, Heard, Reported
from dr.model.records import Cluster
from dr.model.wire import (
    PROTOCOL,
    Ack,
    Beat,
    Command,
    FromAgent,
    Goodbye,
    Hello,
    Leaving,
    Refused,
    Report,
    Result,
    Welcome,
)
from dr.ports.link import HostSession, LinkClosed

HELLO_S = 10.0  # a peer that does not say hello within this is cut off
NONCES_KEPT = 64


class Session:
    """One accepted link: its nonce, and when each nonce that it may echo was issued."""

    def __init__(self, link: HostSession, now: Callable[[], float]) -> None:
        self.link = link
        self.host: HostName = link.host
        self.nonce = secrets.token_hex(16)
        self._now = now
        self._issued: OrderedDict[str, float] = OrderedDict()

    def fresh_nonce(self) -> str:
        """A nonce that dates every later message that echoes it."""
        nonce = secrets.token_hex(8)
        self._issued[nonce] = self._now()
        while len(self._issued) > NONCES_KEPT:
            self._issued.popitem(last=False)
        return nonce

    def issued_at(self, nonce: str) -> float:
        """Leader time at which it was issued; 0 for one that this session never issued."""
        return self._issued.get(nonce, 0.0)


class Sessions:
    """All live sessions of the coordinator, by host; the newest of a host counts."""

    def __init__(
        self,
        submit: Callable[[Event], Awaitable[None]],
        now: Callable[[], float],
        cluster: Callable[[], Cluster],
        revision: Callable[[], int],
        heartbeat_s: Callable[[], float],
    ) -> None:
        self._submit = submit
        self._now = now
        self._cluster = cluster
        self._revision = revision
        self._heartbeat_s = heartbeat_s
        self._sessions: dict[tuple[HostName, str], Session] = {}

    async def serve(self, link: HostSession) -> None:
        """Serve one link until it ends. Never raises LinkClosed."""
        session = Session(link, self._now)
        key = (session.host, session.nonce)
        goodbye = ""
        try:
            async with asyncio.timeout(HELLO_S):
                hello = await link.receive()
            if not isinstance(hello, Hello):
                await link.close("the first message must be a hello")
                return
            self._sessions[key] = session
            await self._submit(Connected(host=session.host, session=session.nonce, hello=hello))
            while True:
                message = await link.receive()
                if isinstance(message, Goodbye):
                    goodbye = message.reason
                event = self._event(session, message)
                if event is not None:
                    await self._submit(event)
        except (LinkClosed, TimeoutError):
            pass
        finally:
            if self._sessions.pop(key, None) is not None:
                await self._submit(Disconnected(host=session.host, session=session.nonce, goodbye=goodbye))
            await link.close("the session ended")

    def _event(self, session: Session, message: FromAgent) -> Event | None:
        match message:
            case Beat():
                session.link.post(
                    Ack(seq=message.seq, nonce=session.fresh_nonce(), revision=self._revision())
                )
                fresh = session.issued_at(message.echo)
                return Heard(host=session.host, session=session.nonce, fresh=fresh)
            case Report():
                return Reported(
                    host=session.host,
                    session=session.nonce,
                    facts=message.facts,
                    guests=message.guests,
                    health=message.health,
                    moves=message.moves,
                    samples=message.samples,
                    clock_s=message.clock_s,
                )
            case Result():
                return Answered(
                    host=session.host, session=session.nonce, effect=message.command, answer=message.answer
                )
            case Leaving():
                return events.Leaving(host=session.host, session=session.nonce, kind=message.kind)
            case Hello() | Goodbye():
                return None

    def welcome(self, host: HostName, nonce: str) -> None:
        """Take the session: from here on its beats can be dated."""
        session = self._sessions.get((host, nonce))
        if session is None:
            return
        cluster = self._cluster()
        session.link.post(
            Welcome(
                protocol=PROTOCOL,
                version=__version__,
                cluster=cluster.id,
                epoch=cluster.epoch,
                leader_id=cluster.leader_id,
                revision=self._revision(),
                session=nonce,
                nonce=session.fresh_nonce(),
                heartbeat_s=self._heartbeat_s(),
            )
        )

    def command(self, host: HostName, nonce: str, command_id: str, body: Body) -> str:
        """Send a command in that very session; without it nothing is sent and the effect times out.

        Returns why it surely was not sent where that is known (too large for a message), else "".
        """
        session = self._sessions.get((host, nonce))
        if session is None:
            return ""
        cluster = self._cluster()
        try:
            session.link.post(
                Command(
                    id=command_id, epoch=cluster.epoch, leader_id=cluster.leader_id, session=nonce, body=body
                )
            )
        except ValueError as error:
            return f"it was not sent to {host}: {error}"
        return ""

    async def drop(self, host: HostName, nonce: str, reason: str) -> None:
        """End a session with a sentence."""
        session = self._sessions.get((host, nonce))
        if session is None:
            return
        session.link.post(Refused(reason=reason))
        await session.link.close(reason)
