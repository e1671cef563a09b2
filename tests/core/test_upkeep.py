"""Cordon, drain and maintenance: wishes that stand, and phases that follow them."""

import pytest

from dr.core import placement
from dr.core.detector import brake
from dr.core.looks import witnesses
from dr.core.quorum import hold
from dr.model import commands
from dr.model.base import changed
from dr.model.commands import Answer, Outcome
from dr.model.effects import Fence, Look, Notify, Reply, SendStart
from dr.model.events import (
    Answered,
    Ask,
    AskConfirmDown,
    AskCordon,
    AskDrain,
    AskFenceTest,
    AskProtect,
    AskRemoveHost,
    AskUncordon,
    AskUndrain,
    FenceEnded,
    Heard,
    LookEnded,
    PowerSeen,
    Reported,
    Started,
    Tick,
)
from dr.model.evidence import Power
from dr.model.facts import DomainState, Level, Reading, Sighting
from dr.model.operations import OperationState
from dr.model.records import Condition, GuestPhase, HostPhase, Wish
from tests.core.build import Bench, domain, guest, host, reading, report
from tests.core.test_members import beat, hello

WISH = Wish(by="ops", reason="new DIMM")
ABSENT = commands.Testimony(guest="g1", sighting=Sighting.ABSENT, sealed=1)
CORDONED = frozenset({Condition.CORDONED})


def ask(bench: Bench, what: Ask, after: float = 0.0) -> Reply:
    replies = [effect for effect in bench.send(what, after=after) if isinstance(effect, Reply)]  # type: ignore[arg-type]
    assert len(replies) == 1
    return replies[0]


def cordon(bench: Bench, name: str = "h1") -> Reply:
    return ask(bench, AskCordon(id="c", by="ops", reason="new DIMM", host=name))


def drain(bench: Bench, name: str = "h1", *, leave_unprotected: bool = False) -> Reply:
    return ask(
        bench, AskDrain(id="d", by="ops", reason="new DIMM", host=name, leave_unprotected=leave_unprotected)
    )


def undrain(bench: Bench, name: str = "h1") -> Reply:
    return ask(bench, AskUndrain(id="u", by="ops", host=name))


def in_maintenance(name: str = "h1") -> Bench:
    bench = Bench()
    assert drain(bench, name).accepted
    assert bench.host(name).phase is HostPhase.MAINTENANCE
    return bench


def alerts(bench: Bench) -> list[str]:
    return sorted(bench.state.alerts)


def drains(bench: Bench) -> list[OperationState]:
    return [op.state for op in bench.state.operations.values() if op.kind == "drain"]


# ---- cordon


def test_a_cordoned_host_takes_no_guests_and_says_by_whom() -> None:
    bench = Bench().put(guest("g1", phase=GuestPhase.RECOVERING))
    cordon(bench, "h1")
    draft = bench.draft()
    why = placement.why_not(draft, bench.guest("g1"), bench.host("h1"))
    assert why == ["is cordoned by ops: new DIMM"]
    assert placement.choose(draft, bench.guest("g1"), prefer="").host in ("h2", "h3")


def test_guests_on_a_cordoned_host_stay() -> None:
    bench = Bench().put(guest("g1", "h1"))
    assert cordon(bench).accepted
    bench.send(Tick(), after=1.0)
    assert bench.guest("g1").phase is GuestPhase.RUNNING
    assert bench.host("h1").phase is HostPhase.ONLINE


def test_a_crash_on_a_cordoned_host_is_restarted_in_place() -> None:
    bench = Bench().put(guest("g1", "h1"))
    cordon(bench)
    bench.now += 5.0
    bench.hear()
    crashed = (domain("g1", DomainState.CRASHED, reason="crashed"),)
    bench.send(Reported(host="h1", session="s-h1", guests=crashed))
    asked = next(key for key, pending in bench.state.pending.items() if pending.kind == "testify")
    told = Answer(outcome=Outcome.DONE, testimony=(ABSENT,))
    effects = bench.send(Answered(host="h1", session="s-h1", effect=asked, answer=told))
    assert [effect.host for effect in effects if isinstance(effect, SendStart)] == ["h1"]


def test_a_start_by_command_is_a_new_placement_even_where_it_ran_last() -> None:
    bench = Bench()
    for name in ("h1", "h2", "h3"):
        cordon(bench, name)
    bench.put(guest("g1", phase=GuestPhase.RECOVERING, holder="h1"))
    bench.send(Tick(), after=1.0)
    assert bench.guest("g1").phase is GuestPhase.RECOVERING
    assert "h1: is cordoned by ops: new DIMM" in bench.guest("g1").reason


def test_a_cordon_survives_a_reboot() -> None:
    bench = Bench()
    cordon(bench)
    hello(bench, "h1", boot="h1-b2")
    assert bench.host("h1").phase is HostPhase.RETURNING
    assert Condition.CORDONED in bench.host("h1").conditions
    assert bench.host("h1").cordon is not None


def test_uncordon() -> None:
    bench = Bench()
    assert ask(bench, AskUncordon(id="u", by="ops", host="h1")).blockers == ("h1 is not cordoned",)
    cordon(bench)
    assert ask(bench, AskUncordon(id="u", by="ops", host="h1")).accepted
    assert bench.host("h1").cordon is None
    assert not bench.host("h1").conditions


@pytest.mark.parametrize("what", [AskCordon, AskUncordon, AskDrain, AskUndrain])
def test_no_such_host(what: type[AskCordon]) -> None:
    answer = ask(Bench(), what(id="x", by="ops", host="h9"))
    assert answer.missing
    assert answer.blockers == ("no such host: h9",)


# ---- drain


def test_an_empty_host_goes_to_maintenance_at_once() -> None:
    bench = in_maintenance()
    assert bench.host("h1").reason == "in maintenance: ops asked: new DIMM"
    assert Condition.CORDONED in bench.host("h1").conditions
    assert drains(bench) == [OperationState.DONE]


def test_a_protected_guest_keeps_it_draining_and_is_named() -> None:
    bench = Bench().put(guest("g1", "h1"))
    answer = drain(bench)
    assert bench.host("h1").phase is HostPhase.DRAINING
    assert "g1 (" in bench.host("h1").reason
    told = bench.state.operations[answer.operations[0]].guests["g1"]
    assert told.startswith("waits: h1: its agent cannot migrate guests live (dr guest relocate")
    written = bench.state.revision
    bench.send(Tick(), after=0.1)
    assert bench.state.revision == written, "nothing new is not written again"


def test_a_guest_that_ended_no_longer_keeps_it() -> None:
    bench = Bench().put(guest("g1", "h1"))
    drain(bench)
    bench.state.views["h1"] = changed(bench.state.views["h1"], guests={})
    bench.put(guest("g1", phase=GuestPhase.STOPPED))
    bench.send(Tick(), after=0.1)
    assert bench.host("h1").phase is HostPhase.MAINTENANCE
    (operation,) = [op for op in bench.state.operations.values() if op.kind == "drain"]
    assert operation.state is OperationState.DONE
    assert operation.guests["g1"].startswith("stopped")


def test_unprotected_guests_keep_it_unless_asked_otherwise() -> None:
    bench = Bench()
    bench.see("h1", domain("mine"))
    drain(bench)
    assert bench.host("h1").phase is HostPhase.DRAINING
    assert "not protected, so to be stopped or moved by hand: mine" in bench.host("h1").reason
    drain(bench, leave_unprotected=True)
    assert bench.host("h1").phase is HostPhase.MAINTENANCE
    assert drains(bench) == [OperationState.DONE], "it is the same drain, asked in other words"


def test_a_host_that_does_not_say_what_runs_there_is_not_empty() -> None:
    bench = Bench()
    bench.look("h1", inventory=False)
    drain(bench)
    assert bench.host("h1").phase is HostPhase.DRAINING
    assert "its agent does not say what runs there" in bench.host("h1").reason


def test_a_guest_whose_protection_begins_keeps_it_draining() -> None:
    bench = Bench().put(guest("g1", "h1", GuestPhase.PROTECTING))
    drain(bench)
    assert bench.host("h1").phase is HostPhase.DRAINING


def test_asked_twice_it_is_one_drain() -> None:
    bench = Bench().put(guest("g1", "h1"))
    first, second = drain(bench), drain(bench)
    assert second.accepted
    assert second.operations == first.operations
    assert "being drained (draining) already: ops asked" in second.message


def test_the_last_host_is_drained_and_it_is_said_what_that_means() -> None:
    bench = Bench("h1").put(guest("g1", "h1"))
    answer = drain(bench)
    assert answer.accepted
    assert "nowhere to go" in answer.message


def test_undrain_puts_it_back_at_any_moment() -> None:
    bench = Bench().put(guest("g1", "h1"))
    drain(bench)
    assert undrain(bench).accepted
    assert bench.host("h1").phase is HostPhase.ONLINE
    assert not bench.host("h1").conditions
    assert drains(bench) == [OperationState.FAILED]
    assert undrain(bench).blockers == ("h1 is not drained",)


def test_undrain_leaves_a_cordon_that_was_there() -> None:
    bench = Bench()
    cordon(bench)
    drain(bench)
    assert ask(bench, AskUncordon(id="u", by="ops", host="h1")).accepted is False
    assert "dr host uncordon h1" in undrain(bench).message
    assert bench.host("h1").conditions == CORDONED


def test_a_joining_host_is_not_drained() -> None:
    bench = Bench().put(host("h1", HostPhase.JOINING))
    assert "h1 has not joined yet" in drain(bench).blockers[0]


@pytest.mark.parametrize("phase", [HostPhase.SUSPECT, HostPhase.RETURNING])
def test_a_host_that_was_away_for_a_moment_drains_on(phase: HostPhase) -> None:
    bench = Bench().put(host("h1", phase, drain=WISH, conditions=CORDONED), guest("g1", "h1"))
    bench.send(Heard(host="h1", session="s-h1", fresh=bench.now), after=0.1)
    bench.send(Tick())
    assert bench.host("h1").phase is HostPhase.DRAINING


def test_a_draining_host_that_falls_silent_is_suspect() -> None:
    bench = Bench().put(guest("g1", "h1"))
    drain(bench)
    bench.now += 10.0
    bench.hear("h2", "h3")
    bench.silence("h1")
    bench.send(Tick())
    assert bench.host("h1").phase is HostPhase.SUSPECT


def test_a_host_that_dies_while_it_is_drained_is_a_failover() -> None:
    bench = Bench().put(guest("g1", "h1"))
    drain(bench)
    bench.silence("h1")
    dead_by_power(bench, "h1")
    assert bench.host("h1").phase is HostPhase.FENCED
    assert bench.guest("g1").phase is GuestPhase.STARTING
    assert drains(bench) == [OperationState.FAILED]
    hello(bench, "h1", boot="h1-b2")
    beat(bench, "h1")
    bench.put(changed(bench.host("h1"), protected_version=bench.state.cluster.protected_version))
    bench.send(Tick(), after=0.1)
    assert bench.host("h1").phase is HostPhase.MAINTENANCE, "the wish stands"


def test_a_draining_host_is_a_witness_and_one_in_maintenance_is_not() -> None:
    bench = Bench().put(
        host("h2", HostPhase.DRAINING, drain=WISH), host("h3", HostPhase.MAINTENANCE, drain=WISH)
    )
    assert [peer.name for peer in witnesses(bench.draft(), bench.host("h1"))] == ["h2"]


def test_a_restart_of_the_coordinator_changes_nothing() -> None:
    bench = Bench().put(guest("g1", "h1"))
    drain(bench, "h1")
    drain(bench, "h2")
    bench.send(Started(leader_id="L2", machine="m", cluster="c"))
    for name in ("h1", "h2", "h3"):
        bench.send(Heard(host=name, session=f"s-{name}", fresh=bench.now), after=0.01)
    bench.send(Tick(), after=0.1)
    assert bench.host("h1").phase is HostPhase.DRAINING
    assert bench.host("h2").phase is HostPhase.MAINTENANCE
    assert drains(bench) == [OperationState.OPEN, OperationState.DONE]


# ---- maintenance


def nobody_hears(bench: Bench, name: str) -> None:
    """Whoever looks for it now hears nothing, and its device says off."""
    bench.now += 0.5
    bench.hear(*[other for other in bench.state.hosts if other != name])
    bench.send(Tick())
    for key, pending in list(bench.state.pending.items()):
        if pending.detail != name:
            continue
        if pending.kind == "power":
            off = report(reading(f"bmc-{name}", Power.OFF))
            bench.send(PowerSeen(effect=key, host=name, reports=(off,)))
        elif pending.kind == "look":
            bench.send(LookEnded(effect=key, host=name, answered={"a": False}))
        elif pending.kind == "probe":
            silent = Answer(outcome=Outcome.DONE, answered={"a": False})
            session = bench.state.views[pending.host].session
            bench.send(Answered(host=pending.host, session=session, effect=key, answer=silent))


def dead_by_power(bench: Bench, name: str) -> None:
    """A round of looks in which nobody hears it and its device says off."""
    for _ in range(40):
        nobody_hears(bench, name)
        if bench.host(name).dead_boot:
            return
    raise AssertionError(f"{name} was not proven dead: {bench.host(name).reason}")


def test_silence_in_maintenance_is_nobodys_alarm() -> None:
    bench = in_maintenance()
    bench.silence("h1")
    for _ in range(60):
        bench.now += 1.0
        bench.hear("h2", "h3")
        effects = bench.send(Tick())
        assert not [e for e in effects if isinstance(e, Fence | Look | Notify)]
    assert bench.host("h1").phase is HostPhase.MAINTENANCE
    assert alerts(bench) == []


def test_entering_maintenance_clears_its_alarms_and_health_raises_none() -> None:
    bad = (Reading(part="disk", level=Level.CRITICAL, reason="dying"),)
    bench = Bench().put(host("h1", health=bad))
    bench.send(Tick())
    assert alerts(bench) == ["host/h1/degraded"]
    drain(bench)
    assert bench.host("h1").phase is HostPhase.MAINTENANCE
    bench.send(Tick(), after=1.0)
    assert alerts(bench) == []


def test_a_reboot_in_maintenance_stays_there_and_is_cleaned_before_it_counts() -> None:
    bench = in_maintenance()
    hello(bench, "h1", boot="h1-b2")
    beat(bench, "h1")
    assert bench.host("h1").phase is HostPhase.MAINTENANCE
    assert bench.host("h1").protected_version == 0
    assert undrain(bench).accepted
    assert bench.host("h1").phase is HostPhase.RETURNING, "it has not acknowledged the list"
    bench.put(changed(bench.host("h1"), protected_version=bench.state.cluster.protected_version))
    bench.send(Tick(), after=0.1)
    assert bench.host("h1").phase is HostPhase.ONLINE


def test_undrain_of_a_silent_host_is_no_word_that_it_lives() -> None:
    bench = in_maintenance()
    bench.silence("h1")
    bench.now += 30.0
    bench.hear("h2", "h3")
    undrain(bench)
    bench.send(Tick(), after=0.1)
    assert bench.host("h1").phase is HostPhase.SUSPECT


def test_a_protected_guest_found_there_ends_maintenance() -> None:
    bench = in_maintenance().put(guest("g1", "h1"))
    bench.send(Tick(), after=0.1)
    assert bench.host("h1").phase is HostPhase.DRAINING
    assert drains(bench)[-1] is OperationState.DONE
    bench.send(Tick(), after=0.1)
    assert drains(bench)[-1] is OperationState.OPEN


def test_a_question_about_a_new_guest_does_not_end_maintenance_and_power_off_is_no_answer() -> None:
    """Off as it is, it could start that guest at its next boot: its hook does not know it (rule 4)."""
    bench = in_maintenance()
    bench.silence("h1", since=30.0)
    bench.see("h2", domain("g1"))
    bench.send(AskProtect(id="p", by="ops", guests=("g1",)))
    assert {place.host for place in bench.guest("g1").may_run_on} == {"h1", "h2", "h3"}
    bench.send(Tick(), after=0.1)
    assert bench.host("h1").phase is HostPhase.MAINTENANCE
    with pytest.raises(AssertionError, match="was not proven dead"):
        dead_by_power(bench, "h1")
    assert {place.host for place in bench.guest("g1").may_run_on} >= {"h1"}
    assert alerts(bench) == []
    ask = AskConfirmDown(id="c", by="ops", host="h1", reason="it has no power cable")
    bench.send(ask)
    nobody_hears(bench, "h1")
    bench.send(ask)
    assert bench.host("h1").phase is HostPhase.MAINTENANCE
    assert "h1" not in {place.host for place in bench.guest("g1").may_run_on}


def test_an_older_boot_that_was_proven_over_and_answers_is_checked_anew() -> None:
    bench = in_maintenance()
    record = changed(bench.host("h1"), dead_boot="h1-b1", dead_at=bench.now - 1.0)
    bench.put(record)
    bench.send(Heard(host="h1", session="s-h1", fresh=bench.now), after=0.1)
    assert bench.host("h1").dead_boot == ""
    bench.send(Heard(host="h1", session="s-h1", fresh=bench.now), after=0.1)
    assert bench.host("h1").phase is HostPhase.MAINTENANCE, "not for ever"
    assert bench.host("h1").dead_boot == ""


def test_hosts_in_maintenance_do_not_count_for_the_brake() -> None:
    """Two of three in use are silent: the third in maintenance does not make that a minority."""
    bench = Bench("h1", "h2", "h3", "h4")
    bench.put(host("h1", HostPhase.SUSPECT), host("h2", HostPhase.SUSPECT))
    for name in ("h1", "h2"):
        bench.silence(name)
    assert brake(bench.draft()) == ""
    bench.put(host("h4", HostPhase.MAINTENANCE, drain=WISH))
    assert "2 of 3 hosts" in brake(bench.draft())


def test_after_a_restart_a_host_that_is_off_in_maintenance_is_named() -> None:
    bench = Bench("h1", "h2").put(host("h1", HostPhase.MAINTENANCE, drain=WISH))
    bench.look("h1", acked_epoch=0, session="")
    assert "if h1 is off for sure: dr host confirm-down" in hold(bench.draft())
    bench.put(host("h1", HostPhase.MAINTENANCE, drain=WISH, dead_boot="h1-b1", dead_at=bench.now))
    assert hold(bench.draft()) == ""
    bench.put(host("h1", HostPhase.MAINTENANCE, drain=WISH, dead_boot="h1-b0", dead_at=bench.now))
    assert hold(bench.draft()), "that proof was of an older boot"


def test_confirm_down_in_maintenance_looks_first() -> None:
    bench = in_maintenance()
    bench.silence("h1", since=30.0)
    asked = AskConfirmDown(id="x", by="ops", reason="unplugged", host="h1")
    assert "it is being looked for now" in ask(bench, asked).blockers[-1]
    for key, pending in list(bench.state.pending.items()):
        if pending.kind == "probe":
            heard_it = Answer(outcome=Outcome.DONE, answered={"a": False})
            bench.send(Answered(host=pending.host, session=f"s-{pending.host}", effect=key, answer=heard_it))
    assert ask(bench, asked, after=2.0).accepted
    assert bench.host("h1").phase is HostPhase.MAINTENANCE
    assert bench.host("h1").dead_boot == "h1-b1"


def test_a_fence_test_may_be_made_in_maintenance() -> None:
    bench = in_maintenance()
    answer = ask(bench, AskFenceTest(id="t", by="ops", host="h1"))
    assert answer.accepted, answer.blockers
    assert bench.host("h1").phase is HostPhase.FENCING
    operation = answer.operations[0]
    dead_fence(bench)
    assert bench.host("h1").phase is HostPhase.FENCED
    hello(bench, "h1", boot="h1-b2")
    beat(bench, "h1")
    bench.put(changed(bench.host("h1"), protected_version=bench.state.cluster.protected_version))
    bench.send(Tick(), after=0.1)
    assert bench.host("h1").phase is HostPhase.MAINTENANCE
    assert bench.state.operations[operation].state is OperationState.DONE


def dead_fence(bench: Bench) -> None:
    """The fencing under way ends with its devices off and nobody hearing the host."""
    off = report(reading("bmc-h1", Power.OFF))
    for _ in range(40):
        bench.now += 0.2
        bench.hear("h2", "h3")
        bench.send(Tick())
        for key, pending in list(bench.state.pending.items()):
            if pending.kind == "fence":
                bench.silence("h1", since=0.1)
                bench.send(FenceEnded(effect=key, host="h1", report=off))
            elif pending.kind == "power":
                bench.send(PowerSeen(effect=key, host="h1", reports=(report(reading("bmc-h1", Power.ON)),)))
            elif pending.kind == "look":
                bench.send(LookEnded(effect=key, host="h1", answered={"a": False}))
            elif pending.kind == "probe":
                silent = Answer(outcome=Outcome.DONE, answered={"a": False})
                bench.send(
                    Answered(host=pending.host, session=f"s-{pending.host}", effect=key, answer=silent)
                )
        if bench.host("h1").phase is not HostPhase.FENCING:
            return


def test_an_empty_host_in_maintenance_may_be_removed() -> None:
    bench = in_maintenance()
    assert ask(bench, AskRemoveHost(id="r", by="ops", host="h1")).accepted
    assert "h1" not in bench.state.hosts


def test_a_removed_host_ends_its_drain() -> None:
    bench = Bench()
    bench.see("h1", domain("mine"))
    drain(bench)
    assert ask(bench, AskRemoveHost(id="r", by="ops", host="h1")).accepted
    assert drains(bench) == [OperationState.FAILED]
