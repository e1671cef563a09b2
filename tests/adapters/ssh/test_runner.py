"""Commands over SSH, with a real SSH server in this process: who is spoken to, what it is told, what silence means."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from dr.adapters.ssh import remote, runner
from dr.adapters.ssh.runner import LINE, SshRunner
from dr.adapters.ssh.settings import SshSettings
from dr.model.allowed import Report
from dr.model.base import changed
from dr.model.effects import RunCommand

PROGRAM = Path(remote.__file__).read_text()
Serving = Callable[[asyncssh.SSHServerProcess[bytes]], object]


class Host:
    """A host's sshd, and the coordinator's files for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str | None] = []
        self.locals: list[asyncio.subprocess.Process] = []
        key, own = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
        own.write_private_key(str(folder / "key"))
        own.write_public_key(str(folder / "authorized"))
        self.host_key = key
        self.public = key.export_public_key().decode().strip()
        self.settings = SshSettings(user="root", key=folder / "key", known_hosts=folder / "known")
        self.knows("h1")

    def knows(self, *names: str) -> None:
        self.settings.known_hosts.write_text("".join(f"{name} {self.public}\n" for name in names) or "\n")

    @asynccontextmanager
    async def serving(self, serve: Serving | None = None) -> AsyncIterator[SshRunner]:
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self.host_key],
            authorized_client_keys=str(self.folder / "authorized"),
            process_factory=serve or self._python,
            encoding=None,
        )
        port = server.get_port()
        try:
            yield SshRunner(lambda: SshSettings(**vars(self.settings) | {"port": port}))
        finally:
            server.close()
            await server.wait_closed()
            for local in self.locals:
                await local.wait()

    async def _python(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """As its shell would, but in a folder of the test's own."""
        self.told.append(process.command)
        words = [sys.executable, "-I", "-c", shlex.split(process.command or "")[-1], str(self.folder / "ran")]
        pipe = asyncio.subprocess.PIPE
        local = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
        self.locals.append(local)
        hears = asyncio.create_task(_copied(process, local))
        assert local.stdout is not None
        while data := await local.stdout.read(65536):
            process.stdout.write(data)
        process.exit(await local.wait())
        hears.cancel()


async def _copied(process: asyncssh.SSHServerProcess[bytes], local: asyncio.subprocess.Process) -> None:
    assert local.stdin is not None
    while data := await process.stdin.read(65536):
        local.stdin.write(data)
    local.stdin.close()


COMMAND = RunCommand(
    id="command-L1-1-1",
    host="h1",
    addresses=("127.0.0.1",),
    boot_id=remote.boot_id(),
    argv=("/usr/bin/printf", "%s|", "a b", "$(x)", "'\"`"),
    timeout_s=20.0,
    window_s=5.0,
)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


async def test_words_go_to_a_programs_stdin_and_its_shell_is_told_nothing_of_them(host: Host) -> None:
    async with host.serving() as ssh:
        report = await ssh.run(COMMAND)
        assert (report.state, report.code, report.output) == ("ended", 0, "a b|$(x)|'\"`|")
        assert await ssh.run(COMMAND) == report, "asked again, it is told the same"
        other = await ssh.run(changed(COMMAND, id="command-L1-1-2", argv=("/usr/bin/seq", "100000")))
    assert host.told == [LINE] * 3
    assert other.bytes == 588895


async def test_another_boot_is_told_no_words(host: Host) -> None:
    async with host.serving() as ssh:
        report = await ssh.run(changed(COMMAND, boot_id="older"))
    assert report.state == "other_boot"
    assert not (host.folder / "ran").exists()


@pytest.mark.parametrize("names", [(), ("h2",), ("10.0.0.1",)])
async def test_a_host_with_another_key_is_not_spoken_to(names: tuple[str, ...], host: Host) -> None:
    host.knows(*names)
    async with host.serving() as ssh:
        report = await ssh.run(COMMAND)
    assert (report.state, host.told) == ("unreached", [])
    assert "its key is not that of h1" in report.reason


async def test_a_key_may_stand_under_an_address_and_a_dead_address_is_passed_over(host: Host) -> None:
    host.knows("127.0.0.1")
    async with host.serving() as ssh:
        report = await ssh.run(changed(COMMAND, host="h7", addresses=("127.0.0.2", "127.0.0.1")))
    assert report.state == "ended"


async def test_a_key_that_nobody_let_in(host: Host) -> None:
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(host.folder / "key"))
    async with host.serving() as ssh:
        report = await ssh.run(COMMAND)
    assert report.state == "unreached"
    assert "does not let root in" in report.reason


async def test_nobody_listens(host: Host) -> None:
    host.settings = SshSettings(
        user="root", key=host.settings.key, known_hosts=host.settings.known_hosts, port=1
    )
    assert (await SshRunner(lambda: host.settings).run(COMMAND)).state == "unreached"
    assert (await SshRunner(lambda: None).run(COMMAND)).state == "unreached"


def garbage(process: asyncssh.SSHServerProcess[bytes]) -> None:
    process.stdout.write(b"Welcome to kvm1!\n")
    process.stderr.write(b"no such file: python3\n")
    process.exit(127)


def silence(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Never a word."""


@pytest.mark.parametrize("serve", [garbage, silence])
async def test_a_host_without_its_python_has_begun_nothing(
    serve: Serving, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "HELLO_S", 0.3)
    async with host.serving(serve) as ssh:
        assert (await ssh.run(COMMAND)).state == "unreached"


async def test_a_connection_that_breaks_after_the_words_tells_nothing(host: Host) -> None:
    async def breaks(process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.stdout.write(f'{{"hello": 1, "boot_id": "{COMMAND.boot_id}"}}\n'.encode())
        assert COMMAND.id.encode() in await process.stdin.readline()
        process.channel.get_connection().abort()

    async with host.serving(breaks) as ssh:
        report: Report = await ssh.run(COMMAND)
    assert report.state == "lost"
