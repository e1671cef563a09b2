"""What a guest shows of itself: its agent, its console. Through libvirt's words, and its own mock driver."""

from __future__ import annotations

from typing import Any

import libvirt
import libvirt_qemu
import pytest

from dr.adapters.libvirt import inside
from dr.adapters.libvirt.hypervisor import LibvirtHypervisor
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown
from tests.adapters.libvirt.conftest import G
from tests.adapters.libvirt.test_clock import Failure

PPM = b"P6\n2 1\n255\n" + b"\xff\0\0" + b"\0\0\0"


class Guest:
    """A connection to libvirt, the one domain there, and its stream."""

    def __init__(self, *pieces: bytes, fails: Exception | None = None) -> None:
        self.pieces = [*pieces, b""]
        self.fails = fails
        self.ended: list[str] = []

    def lookupByUUIDString(self, guest: str) -> Guest:
        assert guest == G
        return self

    def connect(self) -> Guest:
        return self

    def newStream(self, flags: int) -> Guest:
        assert flags == 0
        return self

    def screenshot(self, stream: Guest, screen: int, flags: int) -> str:
        assert (stream, screen, flags) == (self, 0, 0)
        if self.fails:
            raise self.fails
        return "image/x-portable-pixmap"

    def recv(self, size: int) -> bytes:
        return self.pieces.pop(0)

    def finish(self) -> None:
        self.ended.append("finished")

    def abort(self) -> None:
        self.ended.append("aborted")

    def close(self) -> None:
        self.ended.append("closed")


def opened(monkeypatch: pytest.MonkeyPatch, guest: Guest) -> Guest:
    monkeypatch.setattr(libvirt, "open", lambda uri: guest)
    return guest


def test_a_picture_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = opened(monkeypatch, Guest(PPM[:5], PPM[5:]))
    picture = inside.screenshot("qemu:///system", G)
    assert (picture.width, picture.height, picture.plain) == (2, 1, False)
    assert guest.ended == ["finished", "closed"]


def test_what_is_no_picture_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = opened(monkeypatch, Guest(b"x" * 600))
    with pytest.raises(
        HypervisorError, match="there is no picture of its console: it is neither a PNG nor a PPM"
    ):
        inside.screenshot("qemu:///system", G)
    assert guest.ended == ["aborted", "closed"]


@pytest.mark.parametrize(
    ("where", "error"),
    [(libvirt.VIR_FROM_QEMU, HypervisorError), (libvirt.VIR_FROM_RPC, HypervisorUnknown)],
)
def test_a_guest_without_a_screen(
    monkeypatch: pytest.MonkeyPatch, where: int, error: type[Exception]
) -> None:
    guest = opened(monkeypatch, Guest(fails=Failure("no screens", where)))
    with pytest.raises(error, match="no screens"):
        inside.screenshot("qemu:///system", G)
    assert guest.ended == ["closed"]


def test_the_agent_is_pinged_within_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = opened(monkeypatch, Guest())
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", lambda *words: asked.append(words))
    inside.agent_answers("qemu:///system", G, 3)
    assert asked == [(guest, '{"execute": "guest-ping"}', 3, 0)]
    assert guest.ended == ["closed"]


@pytest.mark.parametrize(
    ("where", "error"),
    [(libvirt.VIR_FROM_QEMU, HypervisorError), (libvirt.VIR_FROM_RPC, HypervisorUnknown)],
)
def test_an_agent_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, where: int, error: type[Exception]
) -> None:
    guest = opened(monkeypatch, Guest())

    def silent(*_: object) -> None:
        raise Failure("Guest agent is not responding", where)

    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", silent)
    with pytest.raises(error, match=r"does not answer.*Guest agent is not responding"):
        inside.agent_answers("qemu:///system", G, 3)
    assert guest.ended == ["closed"]


async def test_the_mock_drivers_guest(mock: LibvirtHypervisor) -> None:
    """It has no QEMU, so no agent; its screen is libvirt's logo, as a PNG."""
    with pytest.raises((HypervisorError, HypervisorUnknown)):
        await mock.agent_answers(G, 1.0)
    with pytest.raises(HypervisorError, match="a PNG of a form that is not known here"):
        await mock.screenshot(G)
