"""One cluster's certificates, a coordinator that listens, and agents that dial it: real TLS on 127.0.0.1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dr.adapters.link.client import LinkDialler
from dr.adapters.link.server import LinkServer, LinkSession
from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import Credentials, write_credentials
from dr.adapters.pki.identity import Identity, Role


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ca"), "c1")


@pytest.fixture(scope="session")
def own(authority: Authority) -> Credentials:
    return authority.issue(Role.COORDINATOR, "co1", addresses=["127.0.0.1", "localhost"])


class Desk:
    """A coordinator that does nothing but collect its sessions; each stays until the test ends it."""

    def __init__(self, own: Credentials) -> None:
        self.arrivals: asyncio.Queue[LinkSession] = asyncio.Queue()
        self.removed: dict[str, str] = {}
        self.over = asyncio.Event()
        self.server = LinkServer(["127.0.0.1:0"], own, self.on_session, allowed=self.allowed)

    def allowed(self, identity: Identity) -> str | None:
        return self.removed.get(identity.name)

    async def on_session(self, session: LinkSession) -> None:
        await self.arrivals.put(session)
        await self.over.wait()

    @property
    def address(self) -> str:
        return self.server.addresses[0]

    async def session(self) -> LinkSession:
        async with asyncio.timeout(5):
            return await self.arrivals.get()


@pytest.fixture
async def desk(own: Credentials) -> AsyncIterator[Desk]:
    desk = Desk(own)
    await desk.server.start()
    yield desk
    desk.over.set()
    await desk.server.close("The test is over.")


@pytest.fixture
def dialler(authority: Authority, tmp_path: Path, desk: Desk) -> Callable[..., LinkDialler]:
    """A dialler with a certificate of its own, for the coordinator unless told otherwise."""

    def make(
        name: str = "h1",
        *,
        role: Role = Role.AGENT,
        issuer: Authority = authority,
        addresses: list[str] | None = None,
    ) -> LinkDialler:
        folder = tmp_path / f"{role}-{name}-{issuer.cluster}-{id(issuer)}"
        write_credentials(folder, issuer.issue(role, name))
        return LinkDialler(addresses or [desk.address], folder)

    return make
