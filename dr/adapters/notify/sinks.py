"""Where alerts go, as configured, and how one message gets there: once, in bounded time. Retries: `notifier`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from typing import Literal

import httpx
import msgspec

from dr.adapters.notify.message import Message
from dr.model.base import Record

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
REASON_CHARS_MAX = 240
END_S = 1.0  # how long a killed command may take to go
COMMAND_ENVIRONMENT = ("PATH", "HOME", "LANG", "TZ")  # all that a command gets of the coordinator's own


class CommandSink(Record, tag="command"):
    """A program: the message as JSON on its standard input and as DR_ALERT_… in its environment. Never a shell."""

    name: str
    argv: tuple[str, ...]
    timeout_s: float = 10.0
    least: Severity = "info"  # milder alerts are not told here


class WebhookSink(Record, tag="webhook"):
    """An HTTP POST. `text`: a JSON object with one field `text`, as Slack, Mattermost and others take it."""

    name: str
    url: str  # often a secret itself
    template: Literal["generic", "text"] = "generic"
    headers: dict[str, str] = {}  # values are secret
    timeout_s: float = 10.0
    least: Severity = "info"

    def __repr__(self) -> str:
        return f"WebhookSink(name={self.name!r})"

    __str__ = __repr__


Sink = CommandSink | WebhookSink


class NotDeliveredError(Exception):
    """Why the message did not get there, without secrets. `again`: another try may help."""

    def __init__(self, reason: str, *, again: bool = True) -> None:
        super().__init__(reason)
        self.again = again


def wanted(sink: Sink, severity: str) -> bool:
    """Whether this sink tells alerts of that severity; an unheard-of severity is told."""
    return severity not in SEVERITIES or SEVERITIES.index(severity) >= SEVERITIES.index(sink.least)


class Courier:
    """Delivers to one sink. Raises NotDeliveredError and nothing else."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._client: httpx.AsyncClient | None = None

    async def deliver(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self.sink.timeout_s):
                if isinstance(self.sink, CommandSink):
                    await _run(self.sink, message)
                else:
                    await self._post(self.sink, message)
        except TimeoutError:
            raise NotDeliveredError(f"no end within {self.sink.timeout_s:g} s") from None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _post(self, sink: WebhookSink, message: Message) -> None:
        text = {"text": message.text()}
        body = message.json() if sink.template == "generic" else msgspec.json.encode(text)
        try:
            if self._client is None:
                # The system's certificates, where an own CA is installed, not those that come with httpx.
                self._client = httpx.AsyncClient(verify=ssl.create_default_context())
            headers = {"content-type": "application/json"} | sink.headers
            request = self._client.build_request(
                "POST", sink.url, content=body, headers=headers, timeout=sink.timeout_s
            )
            response = await self._client.send(request, stream=True)
            try:
                said = await _beginning(response)
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise NotDeliveredError(_short(sink, f"{type(error).__name__}: {error}")) from None
        if not response.is_success:
            # What the other side will refuse again is not worth a retry.
            again = response.status_code >= 500 or response.status_code in (408, 425, 429)
            raise NotDeliveredError(_short(sink, f"HTTP {response.status_code}: {said}"), again=again)


async def _beginning(response: httpx.Response) -> str:
    async for chunk in response.aiter_bytes(REASON_CHARS_MAX):
        return chunk.decode(errors="replace")
    return ""


async def _run(sink: CommandSink, message: Message) -> None:
    environment = {name: os.environ[name] for name in COMMAND_ENVIRONMENT if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *sink.argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE, start_new_session=True, env=environment | message.environment(),
        )  # fmt: skip
    except (OSError, ValueError, TypeError) as error:
        raise NotDeliveredError(
            f"{sink.argv[0] if sink.argv else 'no program'}: {error}", again=False
        ) from None
    assert process.stdin is not None
    assert process.stderr is not None
    complaint = asyncio.create_task(_complaint(process.stderr))
    try:
        process.stdin.write(message.json() + b"\n")
        process.stdin.close()
        code = await process.wait()
        # A child in the background may hold the pipe for ever.
        await asyncio.wait({complaint}, timeout=0.2)
    finally:
        if process.returncode is None:
            await _kill(process)
        complaint.cancel()
    if code != 0:
        said = complaint.result() if complaint.done() and not complaint.cancelled() else ""
        raise NotDeliveredError(_short(sink, f"exit code {code}: {said}"))


async def _complaint(stream: asyncio.StreamReader) -> str:
    """The beginning of what it wrote to stderr; the rest is read and thrown away."""
    kept = b""
    while data := await stream.read(65536):
        kept = (kept + data)[: 4 * REASON_CHARS_MAX]
    return kept.decode(errors="replace")


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=END_S)


def _short(sink: Sink, text: str) -> str:
    """One printable line without the sink's secrets."""
    secrets = [sink.url, *sink.headers.values()] if isinstance(sink, WebhookSink) else []
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    line = "".join(char if char.isprintable() else " " for char in text)
    return line[:REASON_CHARS_MAX].strip().rstrip(":")
