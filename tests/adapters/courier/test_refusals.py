"""Who is not let in, who is not trusted, and what they are told."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dr.adapters.courier import listener
from dr.adapters.courier.chunks import BLOCK_B, MIB, Total
from dr.adapters.courier.dial import Dialler
from dr.adapters.courier.errand import Errand
from dr.adapters.courier.messages import (
    PROTOCOL,
    Alive,
    Chunk,
    Complete,
    Finish,
    Hello,
    Message,
    Placed,
    Welcome,
    Window,
    Zero,
)
from dr.adapters.courier.wire import Wire
from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import Credentials, write_credentials
from dr.adapters.pki.identity import Role
from dr.ports.courier import CourierError, CourierLost
from tests.adapters.courier.conftest import HERE, OTHER, G, Host, copied, done, free_port, impatient, told

LENGTH_B = 9 * MIB + 100
HELLO = Hello(protocol=PROTOCOL, copy="copy-1", guest=G, lengths_b=(LENGTH_B,))

Make = Callable[..., Host]


@pytest.fixture
def make(tmp_path: Path, authority: Authority, patience_s: float) -> Make:
    """Another host of the same cluster, unless told otherwise."""

    def another(name: str, issuer: Authority = authority, **options: object) -> Host:
        given = {"port": free_port(), "patience_s": patience_s, **options}
        return Host(tmp_path / "more", name, issuer, **given)  # type: ignore[arg-type]

    return another


async def ends(source: Host, target: Host, source_is: str = "", target_is: str = "") -> list[object]:
    """How a copy between them ends, each told that the other is of that name."""
    source.file("web.img", (0, os.urandom(MIB)))
    target.file("web.img")
    files = ("/vm/web.img",)
    found = await asyncio.gather(
        source.courier.send(
            G, "copy-1", to=target_is or target.name, addresses=(HERE,), port=target.port, files=files
        ),
        target.courier.take(G, "copy-1", source=source_is or source.name, files=files, placed=done),
        return_exceptions=True,
    )
    assert target.root.joinpath("vm/web.img").read_bytes() == b""
    return [told(end) for end in found]


@impatient
async def test_another_host_than_the_one_expected_brings_nothing(h1: Host, h2: Host) -> None:
    sent, taken = await ends(h1, h2, source_is="h3")
    assert isinstance(sent, CourierError)
    assert str(sent) == "host h2: copy copy-1 is expected from host h3, not from h1"
    assert isinstance(taken, CourierLost)
    assert "host h3 did not connect" in str(taken)


@impatient
async def test_nothing_is_sent_to_another_host_than_the_one_meant(h1: Host, h2: Host) -> None:
    """Somebody has its address now."""
    sent, _ = await ends(h1, h2, target_is="h3")
    assert isinstance(sent, CourierError)
    assert f"127.0.0.1 port {h2.port}: there is agent 'h2', not 'h3'" in str(sent)


@impatient
async def test_another_cas_agent_is_trusted_by_nobody(h1: Host, make: Make, tmp_path: Path) -> None:
    h2 = make("h2", Authority.create(tmp_path / "other", "c1"))
    sent, _ = await ends(h1, h2)
    assert isinstance(sent, CourierError)
    assert "its certificate cannot be trusted" in str(sent)


@impatient
async def test_another_cas_agent_is_not_let_in(
    h1: Host, h2: Host, authority: Authority, tmp_path: Path
) -> None:
    """One that trusts our CA, and is not trusted by us."""
    stranger = Authority.create(tmp_path / "other", "c1").issue(Role.AGENT, "h1")
    forged = Credentials(ca=authority.ca, certificate=stranger.certificate, key=stranger.key)
    write_credentials(h1.root / "pki", forged)
    sent, taken = await ends(h1, h2)
    assert isinstance(sent, CourierError)
    assert "host h2 refused this host's certificate" in str(sent)
    assert isinstance(taken, CourierLost)


@impatient
async def test_another_cluster_is_refused_by_both(h1: Host, h2: Host, make: Make) -> None:
    """Of the same CA, which is not to be: the name in the certificate counts too."""
    sent, _ = await ends(h1, make("h2", cluster="c2"))
    assert isinstance(sent, CourierError)
    assert "host h2: agent 'h1' belongs to cluster c1, this is c2" in str(sent)
    sent, _ = await ends(make("h1", cluster="c2"), h2)
    assert isinstance(sent, CourierError)
    assert "agent 'h2' belongs to cluster c1, this is c2" in str(sent)


@impatient
@pytest.mark.parametrize("role", [Role.ADMIN, Role.JOIN])
async def test_only_agents_bring_disks(h2: Host, make: Make, role: Role) -> None:
    sent, _ = await ends(make("h1", role=role), h2)
    assert isinstance(sent, CourierError)
    assert f"{role} 'h1' has no business here: needs agent" in str(sent)


@impatient
async def test_a_certificate_of_an_older_version_says_what_to_do(h1: Host, make: Make) -> None:
    """Agents' certificates were good for dialling only; so is that of an invited host still."""
    sent, _ = await ends(h1, make("h2", role=Role.JOIN))
    assert isinstance(sent, CourierError)
    assert "its certificate is too old for that: on h2 run dr agent join, with a new token" in str(sent)


@impatient
async def test_an_unknown_copy_is_refused_and_others_go_on(h1: Host, make: Make) -> None:
    """It may only be early, so it is tried again until patience is over."""
    h2 = make("h2", patience_s=5.0)
    h1.file("web.img", (0, os.urandom(MIB)))
    h2.file("web.img")
    files = ("/vm/web.img",)
    taking = asyncio.create_task(h2.courier.take(G, "copy-2", source="h1", files=files, placed=done))
    with pytest.raises(CourierLost, match="host h2: copy copy-1 is not expected here"):
        await h1.courier.send(G, "copy-1", to="h2", addresses=(HERE,), port=h2.port, files=files)
    sent = await h1.courier.send(G, "copy-2", to="h2", addresses=(HERE,), port=h2.port, files=files)
    assert "1 MiB of 1 MiB sent" in sent
    await taking


@impatient
async def test_a_copy_of_another_guest_is_refused(h1: Host, h2: Host) -> None:
    h1.file("web.img")
    h2.file("web.img")
    taking = asyncio.create_task(
        h2.courier.take(G, "copy-1", source="h1", files=("/vm/web.img",), placed=done)
    )
    with pytest.raises(CourierError, match=f"is one of guest {G} here, not of {OTHER}"):
        await h1.courier.send(
            OTHER, "copy-1", to="h2", addresses=(HERE,), port=h2.port, files=("/vm/web.img",)
        )
    with pytest.raises(CourierLost):
        await taking


async def test_the_same_copy_is_taken_once(h2: Host) -> None:
    h2.file("web.img")
    h2.file("two.img")
    taking = asyncio.create_task(
        h2.courier.take(G, "copy-1", source="h1", files=("/vm/web.img",), placed=done)
    )
    await asyncio.sleep(0.2)
    with pytest.raises(CourierError, match="copy copy-1 is being taken already"):
        await h2.courier.take(G, "copy-1", source="h1", files=("/vm/two.img",), placed=done)
    h2.courier.cancel(G)
    with pytest.raises(CourierError, match="was called off"):
        await taking


async def test_ends_that_do_not_mean_the_same_files(h1: Host, h2: Host) -> None:
    for host in (h1, h2):
        host.file("one")
        host.file("two")
    taking = asyncio.create_task(h2.courier.take(G, "copy-1", source="h1", files=("/vm/one",), placed=done))
    with pytest.raises(CourierError, match="host h2: 1 files are expected here, not 2"):
        await h1.courier.send(
            G, "copy-1", to="h2", addresses=(HERE,), port=h2.port, files=("/vm/one", "/vm/two")
        )
    with pytest.raises(CourierError):
        await taking


async def test_a_host_does_not_copy_to_itself(h1: Host) -> None:
    h1.file("web.img")
    with pytest.raises(CourierError, match="h1 is this one"):
        await h1.courier.send(G, "copy-1", to="h1", addresses=(HERE,), port=h1.port, files=("/vm/web.img",))
    with pytest.raises(CourierError, match="h1 is this one"):
        await h1.courier.take(G, "copy-1", source="h1", files=("/vm/web.img",), placed=done)


async def test_a_port_that_is_taken(h2: Host) -> None:
    h2.file("web.img")
    with (
        socket.create_server((HERE, h2.port)),
        pytest.raises(CourierError, match=f"cannot listen on 127.0.0.1 port {h2.port} .* in use"),
    ):
        await h2.courier.take(G, "copy-1", source="h1", files=("/vm/web.img",), placed=done)


async def test_no_credentials_and_no_address(h1: Host, h2: Host) -> None:
    h1.file("web.img")
    with pytest.raises(CourierError, match="no address of host h2 is known"):
        await h1.courier.send(G, "copy-1", to="h2", addresses=(), port=h2.port, files=("/vm/web.img",))
    (h1.root / "pki/tls.pem").unlink()
    with pytest.raises(CourierError, match=r"tls\.pem is missing"):
        await h1.courier.send(G, "copy-1", to="h2", addresses=(HERE,), port=h2.port, files=("/vm/web.img",))


async def test_strangers_that_say_nothing_hold_up_nobody(
    h1: Host, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are."""
    h2 = make("h2")
    monkeypatch.setattr(listener, "GREETING_S", 0.5)
    h2.file("web.img")
    taking = asyncio.create_task(
        h2.courier.take(G, "copy-1", source="h1", files=("/vm/web.img",), placed=done)
    )
    await asyncio.sleep(0.2)
    mute = [await asyncio.open_connection(HERE, h2.port) for _ in range(3 * listener.GREETINGS_MAX)]
    mute[0][1].write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(10):
        for reader, writer in mute:
            with suppress(ConnectionResetError):
                assert len(await reader.read()) < 100, "nothing but an alert of TLS"
            writer.close()
    h1.file("web.img", (0, b"x" * MIB))
    await h1.courier.send(G, "copy-1", to="h2", addresses=(HERE,), port=h2.port, files=("/vm/web.img",))
    await taking


# ---- a sender that is one, and talks nonsense


def answer_to(h1: Host, h2: Host, *said: Message | bytes) -> Message:
    """What the taker says last."""
    dialler = Dialler("c1", h1.root / "pki", "h2", (HERE,), h2.port, patience_s=2)
    with dialler.dial(Errand(G, "copy-1", "talk")) as wire:
        for each in said:
            if isinstance(each, bytes):
                wire._put(each)
            else:
                wire.send(each)
        while isinstance(message := wire.receive(), Welcome):
            pass
        return message


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([Placed()], "it did not say which copy it brings"),
        ([Alive()], "it did not say which copy it brings"),
        ([Hello(protocol=9, copy="copy-1", guest=G, lengths_b=(1,))], "protocol 1 here, 9 there"),
        ([Hello(protocol=PROTOCOL, copy="copy-1", guest=G, lengths_b=(-1,))], "makes no sense"),
        ([Hello(protocol=PROTOCOL, copy="copy-1", guest=G, lengths_b=(2**62,))], "could not be written"),
        ([HELLO, HELLO], "makes no sense"),
        ([HELLO, Window(file=1, window=0)], "makes no sense"),
        ([HELLO, Window(file=0, window=1)], "makes no sense"),
        ([HELLO, Window(file=0, window=-1)], "makes no sense"),
        ([HELLO, Chunk(file=0, index=3, pieces=((0, 1),))], "makes no sense"),
        ([HELLO, Chunk(file=0, index=-1, pieces=((0, 1),))], "makes no sense"),
        ([HELLO, Chunk(file=-1, index=0, pieces=((0, 1),))], "makes no sense"),
        ([HELLO, Chunk(file=0, index=0, pieces=())], "makes no sense"),
        ([HELLO, Chunk(file=0, index=0, pieces=((1, 1),))], "makes no sense"),
        ([HELLO, Chunk(file=0, index=0, pieces=((-BLOCK_B, BLOCK_B),))], "makes no sense"),
        ([HELLO, Chunk(file=0, index=0, pieces=((0, -1),))], "makes no sense"),
        ([HELLO, Chunk(file=0, index=0, pieces=((0, 5 * MIB),))], "makes no sense"),
        ([HELLO, Chunk(file=0, index=2, pieces=((0, 2 * MIB),))], "makes no sense"),
        ([HELLO, Chunk(file=0, index=0, pieces=((0, 2 * BLOCK_B), (BLOCK_B, BLOCK_B)))], "makes no sense"),
        ([HELLO, Zero(file=0, index=3)], "makes no sense"),
        ([HELLO, Finish(file=0, total=b"")], "is not the same as on host h1"),
        ([HELLO, Finish(file=7, total=b"")], "makes no sense"),
        ([HELLO, Complete()], "makes no sense"),
        ([HELLO, b"\xff\xff\xff\xff"], "a message of 4294967295 bytes"),
        ([HELLO, b"\0\0\0\x03abc"], "cannot read"),
    ],
)
async def test_a_sender_that_talks_nonsense(
    h1: Host, h2: Host, said: list[Message | bytes], why: str
) -> None:
    h2.file("web.img")
    taking = asyncio.create_task(
        h2.courier.take(G, "copy-1", source="h1", files=("/vm/web.img",), placed=done)
    )
    await asyncio.sleep(0.1)
    with pytest.raises(CourierError, match=why):
        await asyncio.to_thread(answer_to, h1, h2, *said)
    h2.courier.cancel(G)  # of whom it was not even told
    with pytest.raises(CourierError):
        await taking


async def test_a_file_that_was_written_to_after_it_was_whole_must_be_proven_again(h1: Host, h2: Host) -> None:
    h2.file("web.img")
    taking = asyncio.create_task(
        h2.courier.take(G, "copy-1", source="h1", files=("/vm/web.img",), placed=done)
    )
    await asyncio.sleep(0.1)

    def talk() -> None:
        dialler = Dialler("c1", h1.root / "pki", "h2", (HERE,), h2.port, patience_s=2)
        with dialler.dial(Errand(G, "copy-1", "talk")) as wire:
            wire.send(HELLO)
            wire.send(Finish(file=0, total=Total().digest(LENGTH_B)))
            wire.receive()
            wire.receive()
            wire.send(Zero(file=0, index=0))
            wire.send(Complete())
            wire.receive()

    with pytest.raises(CourierError, match="makes no sense here: Complete"):
        await asyncio.to_thread(talk)
    with pytest.raises(CourierError):
        await taking


async def test_what_goes_over_the_network_is_encrypted(
    h1: Host, h2: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions: list[str | None] = []
    begin = Wire.__init__

    def watched(self: Wire, tls: ssl.SSLSocket, *rest: object) -> None:
        versions.append(tls.version())
        begin(self, tls, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Wire, "__init__", watched)
    h1.file("web.img", (0, b"x"))
    h2.file("web.img")
    await copied(h1, h2, "web.img")
    assert versions == ["TLSv1.3", "TLSv1.3"]
