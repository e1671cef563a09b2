"""Commands and webhooks that work, hang, fail, or are not there; and callers that never notice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from dr.adapters.notify.message import message
from dr.adapters.notify.notifier import AlertNotifier
from dr.adapters.notify.sinks import CommandSink, Sink, WebhookSink
from dr.model.base import changed
from dr.model.records import Alert

NOW = datetime(2026, 3, 1, 3, 0, 0, tzinfo=UTC)
ALERT = Alert(
    key="host/h1/unfenced",
    what="h1 does not answer; it could not be fenced",
    why='bmc "a": timeout $(reboot)',
    todo="dr host confirm-down h1",
    severity="critical",
)


def notifier(*sinks: Sink, attempts: int = 3, queue_max: int = 10) -> AlertNotifier:
    return AlertNotifier(
        sinks, "prod", clock=lambda: NOW, attempts=attempts, retry_first_s=0.01, queue_max=queue_max
    )


def numbered(number: int) -> Alert:
    return Alert(key=f"k{number}", what="x", why="y", todo="z")


def script(folder: Path, body: str, name: str = "tell") -> CommandSink:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return CommandSink(name=name, argv=(str(path), "$(touch x); *"), timeout_s=3)


class Server:
    """A web server that answers as told and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[str] = []  # status lines; when they run out: 200
        self.hang = False
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((headers, body))
        if self.hang:
            await asyncio.sleep(5)
        status = self.answers.pop(0) if self.answers else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody".encode())
        writer.close()

    def bodies(self) -> list[dict[str, object]]:
        return [json.loads(body) for _, body in self.requests]


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/T0KEN"
    yield made
    listening.close()


async def test_command_gets_json_and_environment_and_no_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COORDINATOR_SECRET", "hunter2")
    sink = script(tmp_path, 'cd "${0%/*}"; cat > stdin; env > env; echo "$1" > argument')
    telling = notifier(sink)
    await telling.send(ALERT, False)
    await telling.close(5)
    expected = {
        "cluster": "prod",
        "key": ALERT.key,
        "severity": "critical",
        "what": ALERT.what,
        "why": ALERT.why,
        "todo": ALERT.todo,
        "at": "2026-03-01T03:00:00+00:00",
        "cleared": False,
    }
    assert json.loads((tmp_path / "stdin").read_text()) == expected
    environment = (tmp_path / "env").read_text()
    assert f"DR_ALERT_WHY={ALERT.why}\n" in environment
    assert "DR_ALERT_CLEARED=0\n" in environment
    assert "hunter2" not in environment
    assert (tmp_path / "argument").read_text() == "$(touch x); *\n"


async def test_webhook_templates(server: Server) -> None:
    telling = notifier(
        WebhookSink(name="generic", url=server.url, headers={"authorization": "Bearer hunter2"}),
    )
    await telling.send(ALERT, True)
    await telling.close(5)
    chat = notifier(WebhookSink(name="chat", url=server.url, template="text"))
    await chat.send(ALERT, False)
    await chat.close(5)
    generic, text = server.bodies()
    assert generic["cleared"] is True
    assert generic["what"] == ALERT.what
    assert server.requests[0][0]["authorization"] == "Bearer hunter2"
    assert server.requests[0][0]["content-type"] == "application/json"
    assert text == {
        "text": "[critical] prod: h1 does not answer; it could not be fenced\n"
        'Why: bmc "a": timeout $(reboot)\nTo do: dr host confirm-down h1\n2026-03-01T03:00:00+00:00'
    }


async def test_transient_failures_are_tried_again(server: Server) -> None:
    server.answers = ["503 Busy", "429 Slow"]
    telling = notifier(WebhookSink(name="w", url=server.url))
    with capture_logs() as logs:
        await telling.send(ALERT, False)
        await telling.close(5)
    assert len(server.requests) == 3
    assert [entry["event"] for entry in logs] == ["alert", "alert-sent"]


@pytest.mark.parametrize(("answer", "requests"), [("404 Gone", 1), ("302 Found", 1), ("500 Oops", 3)])
async def test_giving_up(server: Server, answer: str, requests: int) -> None:
    server.answers = [answer] * 5
    telling = notifier(WebhookSink(name="w", url=server.url))
    with capture_logs() as logs:
        await telling.send(ALERT, False)
        await telling.close(5)
    assert len(server.requests) == requests
    assert logs[-1]["event"] == "alert-not-sent"
    assert logs[-1]["reason"] == f"HTTP {answer[:3]}: body"


async def test_a_dead_sink_delays_nobody(server: Server, tmp_path: Path) -> None:
    dead = script(tmp_path, "sleep 30", "dead")
    telling = notifier(dead, WebhookSink(name="w", url=server.url))
    began = time.monotonic()
    for number in range(5):
        await telling.send(numbered(number), False)
    assert time.monotonic() - began < 0.1
    while len(server.requests) < 5:
        assert time.monotonic() - began < 2
        await asyncio.sleep(0.01)
    with capture_logs() as logs:
        await telling.close()
    assert time.monotonic() - began < 2
    assert logs[-1]["keys"] == ["k1", "k2", "k3", "k4"]


async def test_order_and_bound(server: Server) -> None:
    server.answers = ["500 Oops"]
    telling = notifier(WebhookSink(name="w", url=server.url), queue_max=3)
    await telling.send(numbered(0), False)
    await asyncio.sleep(0)  # the first is on its way
    with capture_logs() as logs:
        for number in range(1, 6):
            await telling.send(numbered(number), number == 5)
    await telling.close(5)
    assert [body["key"] for body in server.bodies()] == ["k0", "k0", "k3", "k4", "k5"]
    assert [entry["key"] for entry in logs if entry["event"] == "alert-given-up"] == ["k1", "k2"]


async def test_severity(server: Server) -> None:
    telling = notifier(WebhookSink(name="w", url=server.url, least="critical"))
    await telling.send(numbered(1), False)
    await telling.send(ALERT, False)
    await telling.send(changed(ALERT, severity="odd", key="odd"), False)
    await telling.close(5)
    assert [body["key"] for body in server.bodies()] == [ALERT.key, "odd"]


async def test_without_sinks_the_log_tells() -> None:
    telling = notifier()
    with capture_logs() as logs:
        await telling.send(ALERT, False)
        await telling.send(ALERT, True)
        assert await telling.test() == ()
    await telling.close()
    assert [(entry["event"], entry["log_level"], entry["cleared"]) for entry in logs] == [
        ("alert", "error", False),
        ("alert", "info", True),
    ]
    assert logs[0]["todo"] == ALERT.todo


async def test_test_tells_of_each_sink(server: Server, tmp_path: Path) -> None:
    server.answers = []
    sinks: list[Sink] = [
        WebhookSink(name="good", url=server.url),
        WebhookSink(name="refused", url="http://127.0.0.1:1/T0KEN", headers={"x": "hunter2"}),
        WebhookSink(name="bad-url", url="http://[T0KEN/"),
        script(tmp_path, "echo sorry >&2; exit 3", "sorry"),
        CommandSink(name="absent", argv=("/does/not/exist",)),
        CommandSink(name="empty", argv=()),
        changed(script(tmp_path, "sleep 30 & sleep 30", "slow"), timeout_s=0.2),
        script(tmp_path, "exec sleep 1 >/dev/null 2>&1 <&- &", "background"),
    ]
    results = {result.sink: result for result in await notifier(*sinks).test()}
    assert {name for name, result in results.items() if result.ok} == {"good", "background"}
    assert "ConnectError" in results["refused"].reason
    assert results["sorry"].reason == "exit code 3: sorry"
    assert "No such file" in results["absent"].reason
    assert results["slow"].reason == "no end within 0.2 s"
    assert results["slow"].took_s < 1
    assert "hunter2" not in str(results)
    assert "T0KEN" not in str(results)


async def test_a_hanging_webhook_is_left(server: Server) -> None:
    server.hang = True
    (result,) = await notifier(WebhookSink(name="w", url=server.url, timeout_s=0.2)).test()
    assert result.reason == "no end within 0.2 s"


def test_sinks_are_configuration_and_hide_their_secrets() -> None:
    sink = WebhookSink(name="w", url="https://x/T0KEN", headers={"a": "hunter2"})
    assert repr(sink) == str(sink) == "WebhookSink(name='w')"
    both = (sink, CommandSink(name="c", argv=("/bin/true",)))
    assert msgspec.json.decode(msgspec.json.encode(both), type=tuple[Sink, ...]) == both


def test_texts_survive_odd_characters() -> None:
    told = message(changed(ALERT, why="a\0b\nc", todo=""), False, "prod", NOW)
    assert told.environment()["DR_ALERT_WHY"] == "ab\nc"
    assert json.loads(told.json())["why"] == "a\0b\nc"
    assert "To do" not in told.text()
