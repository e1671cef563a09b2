"""`ports.world.Runner` over SSH: one connection for each attempt, one constant line for the host's shell.

sshd hands what it is told to a shell. What it is told here is the same for all commands: the host's Python and the text
of `remote`. The words of a command go to that program's standard input as JSON, so no shell ever sees them. A host is
known by its key, in the known_hosts file of the configuration; nothing of the user's own SSH settings is used.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import structlog

from dr.adapters.ssh.settings import SshSettings
from dr.model.allowed import Report
from dr.model.effects import RunCommand

PYTHON = "/usr/bin/python3"
LINE = f"{PYTHON} -I -c {shlex.quote(Path(__file__).with_name('remote.py').read_text('utf-8'))}"
CONNECT_S = 8.0  # to one address: from the first packet to the login
HELLO_S = 15.0
TOLD_S = 10.0  # over the window that it is asked for
ADDRESSES_MAX = 3
AT_ONCE = 32
ANSWER_MAX = 1 << 20  # characters

log = structlog.get_logger("ssh")


class SshRunner:
    """Runs commands on hosts. `settings` may change at any time; None: there are none."""

    def __init__(self, settings: Callable[[], SshSettings | None]) -> None:
        self._settings = settings
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def run(self, command: RunCommand) -> Report:
        settings = self._settings()
        if settings is None:
            return Report(state="unreached", reason="the configuration of the coordinator has no `ssh:`")
        if not command.addresses:
            return Report(state="unreached", reason=f"no address of {command.host} is known")
        async with self._gate:
            try:
                async with asyncio.timeout(CONNECT_S * ADDRESSES_MAX + HELLO_S + command.window_s + TOLD_S):
                    return await _attempt(settings, command)
            except TimeoutError:
                return Report(state="lost", reason=f"no word came back from {command.host}")


async def _attempt(settings: SshSettings, command: RunCommand) -> Report:
    """By the first address that lets us in."""
    reasons = []
    for address in command.addresses[:ADDRESSES_MAX]:
        found = await _connected(settings, address, command.host)
        if isinstance(found, str):
            reasons.append(f"{address}: {found}")
            continue
        try:
            async with found, found.create_process(LINE, encoding="utf-8", errors="replace") as process:
                return await _talk(process, address, command)
        except (OSError, ValueError, asyncssh.Error) as error:
            return Report(state="lost", reason=f"{address}: {_text(error)}")
    return Report(state="unreached", reason="; ".join(reasons))


async def _connected(settings: SshSettings, address: str, host: str) -> asyncssh.SSHClientConnection | str:
    """Or why not."""
    try:
        async with asyncio.timeout(CONNECT_S):
            return await asyncssh.connect(address, **_options(settings, host))
    except TimeoutError:
        return f"no SSH connection within {CONNECT_S:g} s"
    except (OSError, ValueError, asyncssh.Error) as error:
        return _sentence(error, settings, host)


async def _talk(process: asyncssh.SSHClientProcess[str], address: str, command: RunCommand) -> Report:
    try:
        async with asyncio.timeout(HELLO_S):
            hello = _read(await process.stdout.readline())
    except TimeoutError:
        return Report(state="unreached", reason=f"{address}: its {PYTHON} says nothing")
    if not hello.get("hello"):
        said = (await process.stderr.read(400)).strip()
        return Report(
            state="unreached", reason=f"{address}: {PYTHON} cannot be used there: {said[-200:] or 'no word'}"
        )
    if hello["boot_id"] != command.boot_id:
        return Report(state="other_boot", reason=f"{command.host} runs another boot than its agent told of")
    request = {
        "id": command.id,
        "boot_id": command.boot_id,
        "argv": command.argv,
        "timeout_s": command.timeout_s,
        "window_s": command.window_s,
    }
    process.stdin.write(json.dumps(request) + "\n")
    answer = _read(await process.stdout.readline())
    if not answer:
        return Report(state="lost", reason=f"{address}: the connection was lost")
    return Report(
        state=answer["state"],
        code=answer.get("code"),
        timed_out=bool(answer.get("timed_out")),
        output=str(answer.get("output", "")),
        bytes=int(answer.get("bytes", 0)),
        digest=str(answer.get("digest", "")),
        reason=str(answer.get("reason", "")),
    )


def _read(line: str) -> dict[str, Any]:
    """Empty for what is no answer. Raises ValueError for one that is too long."""
    if len(line) > ANSWER_MAX:
        raise ValueError("the answer is too long")
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _options(settings: SshSettings, host: str) -> dict[str, Any]:
    """Nothing but what the configuration says: no agent, no user's own files, no password."""
    known = str(settings.known_hosts)

    def keys(_: str, address: str, port: int | None) -> Any:
        """The host's keys stand under its name or under its address."""
        return asyncssh.match_known_hosts(known, host, address, port)

    return {
        "port": settings.port,
        "username": settings.user,
        "client_keys": [str(settings.key)],
        "known_hosts": keys,
        "config": [],
        "agent_path": None,
        "preferred_auth": "publickey",
        "login_timeout": CONNECT_S,
        "keepalive_interval": 10,
        "keepalive_count_max": 3,
    }


def _sentence(error: Exception, settings: SshSettings, host: str) -> str:
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return f"its key is not that of {host} in {settings.known_hosts}"
        case asyncssh.PermissionDenied():
            return f"it does not let {settings.user} in with {settings.key}"
        case _:
            return _text(error)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
