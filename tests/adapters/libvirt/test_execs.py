"""`guest-exec` through libvirt: what is asked of the guest's agent, and what each way to answer means."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from dr.adapters.libvirt import execs
from dr.model.allowed import Report
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown
from tests.adapters.libvirt.conftest import G
from tests.adapters.libvirt.test_clock import Failure, Guest, opened

ARGV = ("/opt/flush", "a b", "$(x)")


class Agent:
    """What the guest's agent answers, in turn."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    def command(self, domain: Any, request: str, timeout: int, flags: int) -> str:
        assert (timeout, flags) == (execs.AGENT_S, 0)
        self.asked.append(json.loads(request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else json.dumps({"return": answer})


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Guest:
    return opened(monkeypatch, Guest())


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> Agent:
    agent = Agent(*answers)
    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", agent.command)
    return agent


def failure(code: int, domain: int = libvirt.VIR_FROM_QEMU) -> Failure:
    made = Failure("it says no", domain)
    made.err = (code, *made.err[1:])
    return made


def test_words_arrive_as_words(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = answering(monkeypatch, {"pid": 77})
    assert execs.begin("qemu:///system", G, ARGV) == 77
    arguments = {"path": "/opt/flush", "arg": ["a b", "$(x)"], "capture-output": True}
    assert agent.asked == [{"execute": "guest-exec", "arguments": arguments}]
    assert guest.closed


def test_its_end_is_told_with_what_it_said(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = b"flushed\n", b"slow disk\n"
    ended = {
        "exited": True,
        "exitcode": 3,
        "out-data": base64.b64encode(out).decode(),
        "err-data": base64.b64encode(err).decode(),
    }
    agent = answering(monkeypatch, {"exited": False}, ended, {"exited": True, "signal": 9})
    assert execs.ended("qemu:///system", G, 77) is None
    assert execs.ended("qemu:///system", G, 77) == Report(
        state="ended",
        code=3,
        output="flushed\nslow disk\n",
        bytes=18,
        digest=hashlib.sha256(out + err).hexdigest(),
    )
    killed = execs.ended("qemu:///system", G, 77)
    assert killed is not None
    assert killed.code == -9
    assert agent.asked[0] == {"execute": "guest-exec-status", "arguments": {"pid": 77}}


def test_of_much_output_both_ends_are_kept(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    data = base64.b64encode(b"a" * 100_000 + b"z").decode()
    answering(monkeypatch, {"exited": True, "exitcode": 0, "out-data": data})
    report = execs.ended("qemu:///system", G, 77)
    assert report is not None
    assert report.bytes == 100_001
    assert len(report.output) < 66_000
    assert report.output.endswith("az")


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (failure(libvirt.VIR_ERR_INTERNAL_ERROR), HypervisorError),
        (failure(libvirt.VIR_ERR_AGENT_UNRESPONSIVE), HypervisorUnknown),
        (failure(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC), HypervisorUnknown),
        ("no json", HypervisorUnknown),
        ({"pid": None}, HypervisorUnknown),
    ],
)
def test_only_an_agent_that_refused_has_surely_begun_nothing(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, answer: Any, raised: type[Exception]
) -> None:
    answering(monkeypatch, answer)
    with pytest.raises(raised):
        execs.begin("qemu:///system", G, ARGV)


def test_without_an_agent_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    opened(monkeypatch, Guest(state="disconnected"))
    agent = answering(monkeypatch)
    with pytest.raises(HypervisorError, match="no guest agent is connected"):
        execs.begin("qemu:///system", G, ARGV)
    assert agent.asked == []
