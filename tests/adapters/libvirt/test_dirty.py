"""How fast a guest makes memory dirty, as libvirt measures it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import libvirt
import pytest

from dr.adapters.libvirt import dirty, facts
from dr.adapters.libvirt.hypervisor import LibvirtHypervisor
from dr.model.facts import DirtyPoint
from dr.ports.hypervisor import HypervisorUnknown
from tests.adapters.libvirt.conftest import G

MEASURED = libvirt.VIR_DOMAIN_DIRTYRATE_MEASURED
LEAVES = {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, "type": 2}


class Failure(libvirt.libvirtError):  # type: ignore[misc]
    def __init__(self, text: str, domain: int = libvirt.VIR_FROM_QEMU) -> None:
        super().__init__(text)
        self.err = (libvirt.VIR_ERR_OPERATION_INVALID, domain, text, 2, text, None, None, 0, 0)


class Guest:
    """A connection to libvirt, and the one domain there; QEMU's time is the test's."""

    def __init__(self, **rates: int) -> None:
        self.rates = {int(name[1:]): rate for name, rate in rates.items()}
        self.state_now = libvirt.VIR_DOMAIN_RUNNING
        self.job: dict[str, Any] = {}
        self.stats: dict[str, Any] = {}
        self.status = MEASURED
        self.period: int | None = None  # that somebody else measures
        self.fails: Exception | None = None
        self.asked: list[tuple[int, int]] = []
        self.read_with: set[int] = set()
        self.slept: list[float] = []
        self.closed = False

    def lookupByUUIDString(self, guest: str) -> Guest:
        assert guest == G
        return self

    def isActive(self) -> bool:
        return True

    def state(self) -> tuple[int, int]:
        return self.state_now, 1

    def jobStats(self) -> dict[str, Any]:
        return self.job

    def startDirtyRateCalc(self, seconds: int, flags: int) -> None:
        if self.fails:
            raise self.fails
        self.asked.append((seconds, flags))
        self.stats = {
            "dirtyrate.calc_status": self.status,
            "dirtyrate.calc_period": self.period or seconds,
            "dirtyrate.calc_mode": "page-sampling",
            "dirtyrate.megabytes_per_second": self.rates.get(seconds, 0),
        }

    def domainListGetStats(
        self, domains: list[Guest], stats: int, flags: int
    ) -> list[tuple[Guest, dict[str, Any]]]:
        assert stats == libvirt.VIR_DOMAIN_STATS_DIRTYRATE
        self.read_with.add(flags)
        return [(self, self.stats)]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Guest:
    guest = Guest(s1=30, s4=8, s16=2)
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        guest.slept.append(seconds)

    monkeypatch.setattr(libvirt, "open", lambda uri: guest)
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    return guest


def test_three_intervals_by_page_sampling_only(opened: Guest) -> None:
    assert dirty.sample("qemu:///system", G) == (
        DirtyPoint(interval_s=1, mib=30.5),
        DirtyPoint(interval_s=4, mib=34.0),
        DirtyPoint(interval_s=16, mib=40.0),
    )
    assert opened.asked == [*[(1, 0)] * 4, *[(4, 0)] * 3, (16, 0)], "0: page sampling"
    assert opened.read_with == {libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT}
    assert opened.slept == list(dirty.INTERVALS_S)
    assert opened.closed


def test_of_several_of_one_length_the_mean_is_told(opened: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a small guest QEMU looks at few pages, each time at others."""
    sleep = time.sleep

    def and_then(seconds: float) -> None:
        sleep(seconds)
        opened.rates[1] += 8

    monkeypatch.setattr(time, "sleep", and_then)
    assert dirty.sample("qemu:///system", G)[0] == DirtyPoint(interval_s=1, mib=30.5 + (0 + 8 + 16 + 24) / 4)


def test_a_rate_of_nothing_is_nothing(opened: Guest) -> None:
    opened.rates = {}
    assert {point.mib for point in dirty.sample("qemu:///system", G)} == {0.0}


@pytest.mark.parametrize("state", [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_SHUTOFF])
def test_who_does_not_run_is_not_asked(opened: Guest, state: int) -> None:
    opened.state_now = state
    assert dirty.sample("qemu:///system", G) == ()
    assert opened.asked == []


def test_who_is_being_migrated_is_not_asked(opened: Guest) -> None:
    opened.job = LEAVES
    assert dirty.sample("qemu:///system", G) == ()
    assert opened.asked == []


def test_a_migration_that_begins_meanwhile_ends_it(opened: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(seconds: float) -> None:
        opened.job = LEAVES

    monkeypatch.setattr(time, "sleep", begin)
    assert dirty.sample("qemu:///system", G) == ()
    assert opened.asked == [(1, 0)]
    assert opened.closed


def test_what_is_not_told_in_time_is_given_up(opened: Guest) -> None:
    opened.status = libvirt.VIR_DOMAIN_DIRTYRATE_MEASURING
    assert dirty.sample("qemu:///system", G) == ()
    assert 1 + dirty.LATE_S <= sum(opened.slept) <= 1 + dirty.LATE_S + 2 * dirty.POLL_S


def test_what_somebody_else_measures_is_not_taken_for_ours(opened: Guest) -> None:
    opened.period = 60
    assert dirty.sample("qemu:///system", G) == ()


def test_a_refusal_is_no_sample_and_no_answer_is_not_known(opened: Guest) -> None:
    opened.fails = Failure("the dirty rate is being measured already")
    assert dirty.sample("qemu:///system", G) == ()
    opened.fails = Failure("the socket was closed", libvirt.VIR_FROM_RPC)
    with pytest.raises(HypervisorUnknown, match="the socket was closed"):
        dirty.sample("qemu:///system", G)
    assert opened.closed


async def test_the_mock_driver_measures_nothing(mock: LibvirtHypervisor) -> None:
    assert await mock.sample_dirty(G) == ()


@pytest.mark.parametrize(("version", "can"), [("7.1.0", False), ("7.2.0", True), ("9.0.0", True)])
async def test_an_old_libvirt_is_not_said_to_measure(
    mock: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch, version: str, can: bool
) -> None:
    real = facts.capabilities
    monkeypatch.setattr(facts, "capabilities", lambda conn: replace(real(conn), libvirt_version=version))
    assert (await mock.facts()).samples_memory is can
