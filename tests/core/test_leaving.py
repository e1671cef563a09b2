"""Hosts that announce their own end; hosts that do so too often."""

import pytest

from dr.core import leaving, placement
from dr.core.detector import brake
from dr.core.looks import witnesses
from dr.model.base import changed
from dr.model.effects import Fence, Notify, SendStart
from dr.model.events import AskClearQuarantine, AskStart, Leaving, Reported, Tick
from dr.model.facts import DomainState
from dr.model.operations import OperationState
from dr.model.policy import HostPolicy, OnLeave
from dr.model.records import Condition, Desired, GuestPhase, HostPhase, Wish
from dr.model.wire import LeaveKind
from tests.core.build import Bench, domain, guest, host, levels
from tests.core.test_members import beat, hello


def site(policy: OnLeave = OnLeave.HOLD, *names: str) -> Bench:
    bench = Bench(*names)
    bench.state.settings = changed(bench.state.settings, on_leave=policy)
    return bench


def announce(bench: Bench, kind: LeaveKind = "reboot", name: str = "h1", session: str = "") -> None:
    bench.send(Leaving(host=name, session=session or f"s-{name}", kind=kind))


def ends(bench: Bench, reason: str | None, state: DomainState = DomainState.SHUTOFF) -> None:
    """g1's domain on h1 ends so; None: it is gone altogether."""
    left = () if reason is None else (domain("g1", state, reason=reason),)
    bench.now += 5.0
    bench.hear()
    bench.send(Reported(host="h1", session="s-h1", guests=left))


# ---- the announcement


def test_it_is_taken_from_the_live_session_only() -> None:
    bench = site().put(guest("g1", "h1"))
    announce(bench, session="older")
    assert bench.host("h1").leaving == ""
    announce(bench)
    assert (bench.host("h1").leaving, bench.host("h1").leaving_at) == ("reboot", bench.now)
    (operation,) = bench.state.operations.values()
    assert (operation.kind, operation.subject, set(operation.guests)) == ("leave", "h1", {"g1"})


def test_a_hello_says_it_too_and_takes_it_back() -> None:
    bench = site()
    hello(bench, "h1", leaving="shutdown")
    assert bench.host("h1").leaving == "shutdown"
    hello(bench, "h1", session="newer")
    assert bench.host("h1").leaving == ""


def test_a_new_boot_ends_it() -> None:
    bench = site()
    announce(bench)
    hello(bench, "h1", boot="h1-b2")
    assert bench.host("h1").leaving == ""


def test_an_empty_host_opens_no_job() -> None:
    bench = site()
    announce(bench)
    assert not bench.state.operations


def test_the_hosts_own_policy_rules() -> None:
    bench = site(OnLeave.MIGRATE)
    mine = HostPolicy(name="h1", fencing=levels("h1"), on_leave=OnLeave.HOLD)
    bench.state.settings = changed(bench.state.settings, hosts=bench.state.settings.hosts | {"h1": mine})
    assert leaving.policy_of(bench.draft(), bench.host("h1")) is OnLeave.HOLD
    assert leaving.policy_of(bench.draft(), bench.host("h2")) is OnLeave.MIGRATE


# ---- whose will an end is


@pytest.mark.parametrize("reason", ["shutdown", "destroyed", "saved", None])
@pytest.mark.parametrize("policy", list(OnLeave))
def test_guests_that_end_there_are_ended_by_their_host(policy: OnLeave, reason: str | None) -> None:
    bench = site(policy).put(guest("g1", "h1"))
    announce(bench)
    ends(bench, reason)
    assert bench.guest("g1").phase is GuestPhase.RECOVERING
    assert bench.guest("g1").desired is Desired.RUNNING
    assert bench.guest("g1").restarts == (), "no restart of its own"
    assert bench.guest("g1").held_at == ("h1" if policy is OnLeave.HOLD else "")
    assert any(pending.kind == "testify" for pending in bench.state.pending.values())


def test_before_the_announcement_it_is_its_owners_will() -> None:
    bench = site().put(guest("g1", "h1"))
    ends(bench, "shutdown")
    announce(bench)
    assert bench.guest("g1").desired is Desired.STOPPED


def test_a_crash_is_still_a_crash() -> None:
    bench = site().put(guest("g1", "h1"))
    announce(bench)
    ends(bench, "crashed", DomainState.CRASHED)
    assert len(bench.guest("g1").restarts) == 1


# ---- what its silence means


def test_it_takes_no_guests_and_is_no_witness() -> None:
    bench = site().put(guest("g1", phase=GuestPhase.STOPPED))
    announce(bench)
    assert placement.why_not(bench.draft(), bench.guest("g1"), bench.host("h1")) == ["announced its reboot"]
    assert [peer.name for peer in witnesses(bench.draft(), bench.host("h2"))] == ["h3"]


def test_it_does_not_count_for_the_brake() -> None:
    bench = site()
    for name in ("h1", "h2"):
        announce(bench, name=name)
        bench.put(changed(bench.host(name), phase=HostPhase.SUSPECT))
        bench.silence(name)
    assert brake(bench.draft()) == ""
    bench.put(changed(bench.host("h1"), leaving=""), changed(bench.host("h2"), leaving=""))
    assert "2 of 3 hosts" in brake(bench.draft())


@pytest.mark.parametrize(
    ("policy", "limit_s"), [(OnLeave.FAILOVER, 300.0), (OnLeave.MIGRATE, 300.0), (OnLeave.HOLD, 1800.0)]
)
def test_patience_has_an_end(policy: OnLeave, limit_s: float) -> None:
    bench = site(policy)
    assert leaving.patience(bench.draft(), bench.host("h1")) == ""
    announce(bench)
    bench.silence("h1", since=0.0)
    bench.now += limit_s - 1.0
    assert "silent since it announced its reboot" in leaving.patience(bench.draft(), bench.host("h1"))
    bench.now += 2.0
    assert leaving.patience(bench.draft(), bench.host("h1")) == ""


def test_a_silent_host_that_announced_it_alarms_nobody() -> None:
    bench = site(OnLeave.FAILOVER).put(guest("g1", "h1"))
    announce(bench)
    bench.silence("h1", since=0.0)
    told: list[object] = []
    for _ in range(100):
        bench.now += 1.0
        bench.hear("h2", "h3")
        told += [effect for effect in bench.send(Tick()) if isinstance(effect, Notify | Fence)]
    assert told == []
    assert bench.host("h1").phase is HostPhase.SUSPECT


# ---- guests that are held


def held() -> Bench:
    """g1 ended with h1, which is off; its place is proven empty."""
    bench = site().put(guest("g1", "h1"))
    announce(bench)
    ends(bench, "shutdown")
    bench.put(changed(bench.guest("g1"), may_run_on=()))
    bench.put(changed(bench.host("h1"), phase=HostPhase.FENCED, dead_boot="h1-b1"))
    bench.silence("h1", since=0.0)
    return bench


def test_a_held_guest_waits_and_says_for_what() -> None:
    bench = held()
    written = bench.send(Tick(), after=1.0)
    assert not [effect for effect in written if isinstance(effect, SendStart)]
    assert bench.guest("g1").reason.startswith("is held for h1")
    assert "dr guest start g1" in bench.guest("g1").reason
    revision = bench.state.revision
    bench.hear("h2", "h3")
    bench.send(Tick(), after=0.1)
    assert bench.state.revision == revision, "nothing new is not written again"


def test_it_starts_there_when_its_host_is_back() -> None:
    bench = held()
    hello(bench, "h1", boot="h1-b2")
    beat(bench, "h1")
    bench.put(changed(bench.host("h1"), protected_version=bench.state.cluster.protected_version))
    effects = bench.send(Tick(), after=0.1)
    assert [effect.host for effect in effects if isinstance(effect, SendStart)] == ["h1"]


@pytest.mark.parametrize("busy", [True, False])
def test_it_does_not_go_elsewhere_because_its_host_has_its_hands_full(busy: bool) -> None:
    bench = held()
    bench.state.settings = changed(
        bench.state.settings, limits=changed(bench.state.settings.limits, starts_per_host=1)
    )
    if busy:
        bench.put(guest("g2", phase=GuestPhase.RECOVERING, holder="h1", held_at="h1", since=bench.now))
        bench.put(changed(bench.guest("g2"), policy=changed(bench.guest("g2").policy, priority=900)))
    hello(bench, "h1", boot="h1-b2")
    beat(bench, "h1")
    bench.put(changed(bench.host("h1"), protected_version=bench.state.cluster.protected_version))
    effects = bench.send(Tick(), after=0.1)
    started = [(e.ticket.guest, e.host) for e in effects if isinstance(e, SendStart)]
    assert started == ([("g2", "h1")] if busy else [("g1", "h1")])


@pytest.mark.parametrize(
    "why", ["time", "asked", "cordoned", "drained", "quarantined", "removed", "failed there"]
)
def test_held_in_vain_it_starts_elsewhere(why: str) -> None:
    bench = held()
    wish, record = Wish(by="ops"), bench.host("h1")
    match why:
        case "time":
            bench.now += 1800.0
        case "asked":
            bench.send(AskStart(id="x", by="ops", guests=("g1",)))
        case "cordoned":
            bench.put(changed(record, cordon=wish))
        case "drained":
            bench.put(changed(record, drain=wish))
        case "quarantined":
            bench.put(changed(record, conditions=frozenset({Condition.QUARANTINED})))
        case "removed":
            del bench.state.hosts["h1"]
        case _:
            assert why == "failed there"
            bench.put(changed(bench.guest("g1"), avoid=("h1",)))
    bench.hear("h2", "h3")
    bench.send(Tick(), after=0.1)
    assert [e.host for e in bench.effects if isinstance(e, SendStart)] == ["h2"]


def test_a_host_that_is_back_and_cannot_take_it_does_not_keep_it_waiting() -> None:
    bench = held()
    hello(bench, "h1", boot="h1-b2")
    beat(bench, "h1")
    record = bench.host("h1")
    bench.put(
        changed(
            record,
            protected_version=bench.state.cluster.protected_version,
            facts=changed(record.facts, storage=()),
        )
    )
    bench.send(Tick(), after=0.1)
    effects = bench.send(Tick(), after=0.1)
    assert [e.host for e in bench.effects + effects if isinstance(e, SendStart)][:1] == ["h2"]


def test_running_again_it_is_held_no_more() -> None:
    bench = site().put(guest("g1", "h1"))
    announce(bench)
    assert bench.guest("g1").held_at == "h1"
    announce(bench, "")
    assert bench.guest("g1").held_at == ""
    (operation,) = bench.state.operations.values()
    assert operation.state is OperationState.DONE


# ---- too often


def reboot(bench: Bench, name: str, times: int) -> None:
    for _ in range(times):
        bench.now += 60.0
        hello(bench, name, boot=f"{name}-{bench.now}", session=f"s-{bench.now}")


def test_a_host_that_comes_back_too_often_is_quarantined_until_a_person_says_otherwise() -> None:
    bench = site(OnLeave.HOLD, "h1", "h2", "h3")
    reboot(bench, "h1", 5)
    assert Condition.QUARANTINED not in bench.host("h1").conditions
    reboot(bench, "h1", 1)
    assert Condition.QUARANTINED in bench.host("h1").conditions
    assert "came back with a new boot 6 times" in bench.state.alerts["host/h1/quarantined"].what
    bench.send(AskClearQuarantine(id="x", by="ops", host="h1"))
    reboot(bench, "h1", 1)
    assert Condition.QUARANTINED not in bench.host("h1").conditions, "counted anew"


def test_old_boots_are_forgotten() -> None:
    bench = site()
    reboot(bench, "h1", 5)
    bench.now += 3600.0
    reboot(bench, "h1", 1)
    assert Condition.QUARANTINED not in bench.host("h1").conditions


def test_most_hosts_together_are_not_quarantined_for_it() -> None:
    bench = site()
    for _ in range(8):
        for name in ("h1", "h2", "h3"):
            reboot(bench, name, 1)
    quarantined = [h.name for h in bench.state.hosts.values() if Condition.QUARANTINED in h.conditions]
    assert quarantined == [], "not even the first one"


def test_reboots_in_maintenance_are_not_counted() -> None:
    bench = site().put(host("h1", HostPhase.MAINTENANCE, drain=Wish(by="ops")))
    reboot(bench, "h1", 8)
    assert bench.host("h1").returned_at == ()
