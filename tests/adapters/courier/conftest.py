"""Two hosts of one cluster on 127.0.0.1, each with a folder of its own, real TLS between their couriers."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from dr.adapters.courier.courier import TlsCourier
from dr.adapters.libvirt.layout import Layout
from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import write_credentials
from dr.adapters.pki.identity import Role
from dr.ports.courier import Courier, CourierError, CourierLost

G = "6695eb01-f6a4-8304-79aa-97f2502e193f"
OTHER = "aaaaaaaa-0000-4000-8000-000000000002"
HERE = "127.0.0.1"

# For tests in which an end is to give up; others are patient, as a machine may be busy.
impatient = pytest.mark.parametrize("patience_s", [1.0])


@pytest.fixture(autouse=True)
def no_files_left(tmp_path: Path) -> Iterator[None]:
    """Pytest keeps what tests wrote for days; here it is gigabytes."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ca"), "c1")


def free_port() -> int:
    with socket.create_server((HERE, 0)) as found:
        return int(found.getsockname()[1])


class Host:
    """One end: its files and its courier."""

    def __init__(
        self,
        folder: Path,
        name: str,
        issuer: Authority,
        *,
        port: int,
        address: str = HERE,
        cluster: str = "c1",
        role: Role = Role.AGENT,
        patience_s: float = 20.0,
    ) -> None:
        self.name = name
        self.port = port
        self.root = folder / name
        (self.root / "vm").mkdir(parents=True)
        write_credentials(self.root / "pki", issuer.issue(role, name))
        self.courier: Courier = TlsCourier(
            name,
            cluster,
            self.root / "pki",
            address=address,
            port=port,
            layout=Layout(self.root),
            patience_s=patience_s,
        )

    def file(self, name: str, *parts: tuple[int, bytes], size: int = 0) -> Path:
        """Make a file of that size with those bytes at those places, holes elsewhere; /vm/NAME to the courier."""
        path = self.root / "vm" / name
        with path.open("wb") as file:
            for at, data in parts:
                file.seek(at)
                file.write(data)
            file.truncate(max([size, *(at + len(data) for at, data in parts)]))
            os.fsync(file.fileno())  # a copy does that too, before it begins
        return path


async def done() -> None:
    """Nothing to be done to give the files their names."""


Placed = Callable[[], Awaitable[None]]
End = str | Exception


async def copied(
    source: Host,
    target: Host,
    *names: str,
    guest: str = G,
    copy: str = "copy-1",
    placed: Placed = done,
    mib_s: int = 0,
    port: int = 0,
) -> tuple[End, End]:
    """How both ends of one copy end."""
    files = tuple(f"/vm/{name}" for name in names)
    sent, taken = await asyncio.gather(
        source.courier.send(
            guest, copy, to=target.name, addresses=(HERE,), port=port or target.port, files=files, mib_s=mib_s
        ),
        target.courier.take(guest, copy, source=source.name, files=files, placed=placed),
        return_exceptions=True,
    )
    return told(sent), told(taken)


def told(end: str | BaseException) -> End:
    if isinstance(end, str | CourierError | CourierLost):
        return end
    assert isinstance(end, Exception)
    raise end


@pytest.fixture
def patience_s() -> float:
    return 20.0


@pytest.fixture
async def h1(tmp_path: Path, authority: Authority, patience_s: float) -> AsyncIterator[Host]:
    host = Host(tmp_path, "h1", authority, port=free_port(), patience_s=patience_s)
    yield host
    await host.courier.close()


@pytest.fixture
async def h2(tmp_path: Path, authority: Authority, patience_s: float) -> AsyncIterator[Host]:
    host = Host(tmp_path, "h2", authority, port=free_port(), patience_s=patience_s)
    yield host
    await host.courier.close()


class Proxy:
    """TCP between the two, which breaks connections where a test says so, and counts what goes to the taker."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self.breaks_after: list[int] = []  # bytes to the taker, for each connection in turn; none: it stays
        self.carried: list[int] = []  # the same, as it was
        self.breaks_one_side = False  # the taker does not learn of it
        self.flows = asyncio.Event()  # cleared: nothing goes either way any more, and nothing is closed
        self.flows.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: list[asyncio.StreamWriter] = []
        self._closing = False

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, HERE, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._closing = True
        for writer in self._kept:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there_reader, there = await asyncio.open_connection(HERE, self._to)
        except ConnectionRefusedError:  # the taker does not listen yet
            writer.transport.abort()
            return
        number = len(self.carried)
        self.carried.append(0)
        left = self.breaks_after.pop(0) if self.breaks_after else -1

        async def forth() -> None:
            while data := await reader.read(65536):
                self.carried[number] += len(data)
                if 0 <= left < self.carried[number]:
                    return
                await self.flows.wait()
                there.write(data)
                await there.drain()

        async def back() -> None:
            while data := await there_reader.read(65536):
                await self.flows.wait()
                writer.write(data)
                await writer.drain()

        ways = {asyncio.create_task(forth()), asyncio.create_task(back())}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ways:
                each.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.transport.abort()
            if self.breaks_one_side and not self._closing:
                self._kept.append(there)
            else:
                there.transport.abort()


@pytest.fixture
async def proxy(h2: Host) -> AsyncIterator[Proxy]:
    """In front of h2."""
    between = Proxy(h2.port)
    await between.open()
    yield between
    await between.close()


# ---- one end at a time, of one disk

DISK = ("/vm/web.img",)


def noise(size: int) -> bytes:
    return os.urandom(size)


async def send(host: Host, to: Host, *, mib_s: int = 0, port: int = 0) -> str | Exception:
    try:
        return await host.courier.send(
            G, "copy-1", to=to.name, addresses=(HERE,), port=port or to.port, files=DISK, mib_s=mib_s
        )
    except (CourierError, CourierLost) as error:
        return error


async def take(host: Host, source: str = "h1") -> str | Exception:
    try:
        return await host.courier.take(G, "copy-1", source=source, files=DISK, placed=done)
    except (CourierError, CourierLost) as error:
        return error
