"""The clock of a guest, through the agent in it."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from dr.adapters.libvirt import clock
from dr.adapters.libvirt.hypervisor import LibvirtHypervisor
from dr.ports.hypervisor import HypervisorError, HypervisorUnknown
from tests.adapters.libvirt.conftest import G

DOMAIN = (
    "<domain><devices><channel type='unix'><target type='virtio' name='{name}' state='{state}'/></channel></devices>"
    "</domain>"
)


class Failure(libvirt.libvirtError):  # type: ignore[misc]
    """As libvirtd's own, or as one of this end of the socket."""

    def __init__(self, text: str, domain: int) -> None:
        super().__init__(text)
        self.err = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, domain, text, 2, text, None, None, 0, 0)


class Guest:
    """A connection to libvirt, and the one domain there."""

    def __init__(self, state: str = "connected", name: str = "org.qemu.guest_agent.0") -> None:
        self.xml = DOMAIN.format(name=name, state=state)
        self.fails: Exception | None = None
        self.asked: list[int] = []
        self.closed = False

    def lookupByUUIDString(self, guest: str) -> Guest:
        assert guest == G
        return self

    def XMLDesc(self, flags: int) -> str:
        assert flags == 0, "as it runs"
        return self.xml

    def setTime(self, time: dict[str, int] | None = None, flags: int = 0) -> None:
        assert time is None
        if self.fails:
            raise self.fails
        self.asked.append(flags)

    def close(self) -> None:
        self.closed = True


def opened(monkeypatch: pytest.MonkeyPatch, guest: Guest) -> Guest:
    monkeypatch.setattr(libvirt, "open", lambda uri: guest)
    return guest


def test_it_is_set_by_the_rtc(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = opened(monkeypatch, Guest())
    assert clock.set_clock("qemu:///system", G)
    assert guest.asked == [libvirt.VIR_DOMAIN_TIME_SYNC]
    assert guest.closed


@pytest.mark.parametrize("guest", [Guest(state="disconnected"), Guest(name="com.redhat.spice.0")])
def test_without_an_agent_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, guest: Guest) -> None:
    opened(monkeypatch, guest)
    assert not clock.set_clock("qemu:///system", G)
    assert guest.asked == []
    assert guest.closed


@pytest.mark.parametrize(
    ("where", "error"),
    [(libvirt.VIR_FROM_QEMU, HypervisorError), (libvirt.VIR_FROM_RPC, HypervisorUnknown)],
)
def test_an_agent_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, where: int, error: type[Exception]
) -> None:
    guest = opened(monkeypatch, Guest())
    guest.fails = Failure("Guest agent is not responding", where)
    with pytest.raises(error, match="Guest agent is not responding"):
        clock.set_clock("qemu:///system", G)
    assert guest.closed


def test_a_libvirt_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(uri: str) -> Any:
        raise Failure("no socket", libvirt.VIR_FROM_RPC)

    monkeypatch.setattr(libvirt, "open", gone)
    with pytest.raises(HypervisorUnknown, match="no socket"):
        clock.set_clock("qemu:///system", G)


async def test_the_mock_drivers_guest_has_no_agent(mock: LibvirtHypervisor) -> None:
    assert not await mock.set_clock(G)
