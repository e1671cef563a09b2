"""Policies of guests whose host nobody hears: leave, shut_down, fence."""

from typing import Any

import pytest

from dr.core import fencing, isolation
from dr.model.base import changed
from dr.model.commands import Protect
from dr.model.effects import Send
from dr.model.events import AskFence
from dr.model.facts import DomainState
from dr.model.policy import GuestPolicy, Isolation
from dr.model.records import Desired, GuestPhase, HostPhase
from tests.core.build import Bench, domain, facts, guest
from tests.core.test_leaving import ends
from tests.core.test_members import beat, hello


def site(wanted: Isolation, **fields: Any) -> Bench:
    policy = GuestPolicy(isolation=wanted)
    bench = Bench().put(guest("g1", "h1", policy=policy, **fields), guest("g2", "h1"))
    bench.silence("h1", since=5.0)
    return bench


def test_one_guest_that_is_to_be_left_keeps_its_host_from_being_fenced() -> None:
    bench = site(Isolation.LEAVE)
    assert fencing.why_not_fence(bench.draft(), bench.host("h1")) == [
        "the isolation policy of g1 is to be left running"
    ]
    assert fencing.why_not_fence(site(Isolation.FENCE).draft(), bench.host("h1")) == []
    bench.send(AskFence(id="x", by="ops", host="h1"))
    assert bench.host("h1").phase is HostPhase.FENCING, "a person may"


def test_one_that_is_not_wanted_running_rules_nobody() -> None:
    bench = site(Isolation.LEAVE, desired=Desired.STOPPED)
    assert isolation.left_alone(bench.draft(), bench.host("h1")) == ""


@pytest.mark.parametrize("wanted", list(Isolation))
def test_only_a_guest_that_is_shut_down_is_waited_for(wanted: Isolation) -> None:
    bench = site(wanted)
    waits = isolation.patience(bench.draft(), bench.host("h1"))
    assert waits == (
        "is given time to shut down g1 by itself, as their isolation policy says"
        if wanted is Isolation.SHUT_DOWN
        else ""
    )
    bench.now += 15.0 + 120.0 + isolation.STOP_MARGIN_S - 5.0 - 0.1
    assert bool(isolation.patience(bench.draft(), bench.host("h1"))) is (wanted is Isolation.SHUT_DOWN)
    bench.now += 0.2
    assert isolation.patience(bench.draft(), bench.host("h1")) == ""


def test_what_an_isolated_host_shut_down_is_recovered() -> None:
    policy = GuestPolicy(isolation=Isolation.SHUT_DOWN)
    bench = Bench().put(guest("g1", "h1", policy=policy))
    ends(bench, "isolated", DomainState.SHUTOFF)
    assert bench.guest("g1").phase is GuestPhase.RECOVERING
    assert bench.guest("g1").desired is Desired.RUNNING
    assert "while that was isolated" in bench.guest("g1").reason


def listings(bench: Bench) -> list[tuple[str, Protect]]:
    return [(e.host, e.body) for e in bench.effects if isinstance(e, Send) and isinstance(e.body, Protect)]


def test_hosts_are_told_policies_and_where_the_others_are() -> None:
    bench = site(Isolation.SHUT_DOWN)
    bench.see("h2", domain("g1"))
    hello(bench, "h2")
    beat(bench, "h2")
    ((name, body),) = listings(bench)
    assert name == "h2"
    assert body.peers == ("10.0.0.3", "10.0.0.1"), "those that are heard come first"
    assert {entry.guest: entry.isolation for entry in body.entries} == {
        "g1": Isolation.SHUT_DOWN,
        "g2": Isolation.FENCE,
    }
    assert (body.isolation_s, body.stop_s) == (15.0, 120.0)


def test_hosts_that_are_down_or_set_aside_are_no_peers() -> None:
    bench = Bench("h1", "h2", "h3", "h4")
    for name, phase in (("h2", HostPhase.FENCED), ("h3", HostPhase.MAINTENANCE)):
        bench.put(changed(bench.host(name), phase=phase))
    assert isolation.peers(bench.draft(), "h1") == ("10.0.0.4",)


def test_new_addresses_are_told_to_all() -> None:
    bench = Bench()
    hello(bench, "h1", facts=facts("h1", addresses={"mgmt": "10.9.9.9"}))
    beat(bench, "h1")
    told = {host: body.peers for host, body in listings(bench) if host != "h1"}
    assert told == {"h2": ("10.9.9.9", "10.0.0.3"), "h3": ("10.9.9.9", "10.0.0.2")}
