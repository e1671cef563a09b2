"""Who is not let in, and what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dr.adapters.link.client import LinkDialler
from dr.adapters.link.server import LinkServer
from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import Credentials, write_credentials
from dr.adapters.pki.identity import PkiError, Role
from dr.ports.link import LinkClosed
from tests.adapters.link.conftest import Desk

Dial = Callable[..., LinkDialler]


@pytest.mark.parametrize("role", [Role.JOIN, Role.ADMIN])
async def test_other_roles_are_refused(desk: Desk, dialler: Dial, role: Role) -> None:
    with pytest.raises(LinkClosed, match=f"{role} 'h1' has no business here: needs agent"):
        await dialler(role=role).dial()
    assert desk.server.refused == 1
    assert "no business" in desk.server.last_refusal
    assert desk.arrivals.empty()


async def test_a_removed_host_is_told_so(desk: Desk, dialler: Dial) -> None:
    desk.removed["h1"] = "Host h1 was removed on 3 May. To bring it back: dr cluster token h1"
    with pytest.raises(LinkClosed, match="was removed on 3 May"):
        await dialler("h1").dial()
    await dialler("h2").dial()


async def test_another_cas_agent_is_refused_by_its_own_check(
    desk: Desk, dialler: Dial, tmp_path: Path
) -> None:
    other = Authority.create(tmp_path / "other", "c2")
    with pytest.raises(LinkClosed, match="its certificate is not good for this cluster"):
        await dialler(issuer=other).dial()
    assert desk.arrivals.empty()


async def test_another_cas_agent_is_refused_by_the_coordinator(
    desk: Desk, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority.create(tmp_path / "other", "c1").issue(Role.AGENT, "h1")
    forged = Credentials(ca=authority.ca, certificate=stranger.certificate, key=stranger.key)
    write_credentials(tmp_path / "forged", forged)
    with pytest.raises(LinkClosed, match="refused this host's certificate"):
        await LinkDialler([desk.address], tmp_path / "forged").dial()
    assert desk.arrivals.empty()


async def test_expired_certificates_are_refused(desk: Desk, authority: Authority, tmp_path: Path) -> None:
    for role, age in ((Role.JOIN, timedelta(hours=2)), (Role.AGENT, timedelta(days=5 * 365 + 1))):
        expired = authority.issue(role, "h1", now=datetime.now(UTC) - age)
        write_credentials(tmp_path / role, expired)
        with pytest.raises(LinkClosed, match=r"refused this host's certificate .* expired \d+\.\d days ago"):
            await LinkDialler([desk.address], tmp_path / role).dial()


async def test_an_agent_cannot_listen_as_the_coordinator(
    desk: Desk, authority: Authority, dialler: Dial
) -> None:
    fake = authority.issue(Role.AGENT, "h2", addresses=["127.0.0.1"])
    server = LinkServer(["127.0.0.1:0"], fake, desk.on_session)
    await server.start()
    with pytest.raises(LinkClosed, match="not good for this cluster"):
        await dialler(addresses=list(server.addresses)).dial()
    await server.close("over")


async def test_nobody_without_a_certificate(desk: Desk, authority: Authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.ca)
    host, _, port = desk.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    writer.write(b"GET /link HTTP/1.1\r\n\r\n")
    with contextlib.suppress(ssl.SSLError, ConnectionResetError):  # a newer asyncio may send the alert, too
        assert await reader.read() == b""
    writer.close()
    plain, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /link HTTP/1.1\r\n\r\n")
    assert b"HTTP" not in await plain.read()
    writer.close()


async def test_a_listener_that_says_nothing_ends_the_dial(
    dialler: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dr.adapters.link.client.HANDSHAKE_TIMEOUT_S", 0.2)
    mute = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    with pytest.raises(LinkClosed, match="no answer in time"):
        await dialler(addresses=[f"127.0.0.1:{port}"]).dial()
    mute.close()


async def test_an_agent_without_credentials_says_what_to_do(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(LinkClosed, match="missing"):
        await LinkDialler([desk.address], tmp_path).dial()


async def test_a_renewed_certificate_is_used_from_the_next_session_on(
    desk: Desk, authority: Authority, dialler: Dial
) -> None:
    agent = dialler()
    first = await agent.dial()
    desk.server.reload(authority.issue(Role.COORDINATOR, "co1-renewed", addresses=["127.0.0.1"]))
    second = await agent.dial()
    assert (first.coordinator.name, second.coordinator.name) == ("co1", "co1-renewed")
    with pytest.raises(PkiError):
        desk.server.reload(Credentials(ca=authority.ca, certificate="", key=""))
