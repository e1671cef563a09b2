"""Evidence, not one timer: the table, lateness, the brake, witnesses, quiet time."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.core.detector import (
    VERDICTS,
    Peers,
    Verdict,
    brake,
    is_late,
    late_after_s,
    observe_beat,
    peers_say,
    power_says,
    why_not_off,
)
from dr.core.looks import WITNESSES_MAX, in_words, witnesses
from dr.core.volatile import LookSeen, View
from dr.model.base import changed
from dr.model.effects import Fence, Look, ReadPower, Send
from dr.model.events import Tick
from dr.model.evidence import Power, PowerReport
from dr.model.policy import Timers
from dr.model.records import HostPhase
from tests.core.build import NOW, Bench, guest, host, levels, reading, report

beats = st.lists(st.floats(0.05, 4.0), min_size=1, max_size=60)


def test_the_evidence_table_is_complete() -> None:
    """Every combination has a verdict and a reason in words."""
    assert set(VERDICTS) == set(itertools.product((True, False), Peers, Power))
    assert all(meaning for _, meaning in VERDICTS.values())


@pytest.mark.parametrize(
    ("peers", "power", "verdict"),
    [
        (Peers.ANSWERS, Power.ON, Verdict.AGENT_LOST),
        (Peers.ANSWERS, Power.UNKNOWN, Verdict.AGENT_LOST),
        (Peers.ANSWERS, Power.OFF, Verdict.HOLD),
        (Peers.SILENT, Power.ON, Verdict.FENCE),
        (Peers.SILENT, Power.UNKNOWN, Verdict.FENCE),
        (Peers.SILENT, Power.OFF, Verdict.DEAD),
        (Peers.NONE, Power.ON, Verdict.HOLD),
        (Peers.NONE, Power.UNKNOWN, Verdict.HOLD),
        (Peers.NONE, Power.OFF, Verdict.HOLD),
    ],
)
def test_what_silence_means(peers: Peers, power: Power, verdict: Verdict) -> None:
    """As in DESIGN.md; whatever is not in its table holds."""
    assert VERDICTS[False, peers, power][0] is verdict


def test_a_link_that_is_up_means_life() -> None:
    assert {VERDICTS[True, peers, power][0] for peers in Peers for power in Power} == {Verdict.LIVE}


# ---- lateness


def after(gaps: list[float]) -> View:
    seen, now = View(heard=100.0), 100.0
    for gap in gaps:
        now += gap
        interval, deviation = observe_beat(seen, now)
        seen = changed(seen, heard=now, interval=interval, deviation=deviation)
    return seen


@given(beats, st.floats(0.1, 2.0))
def test_late_lies_between_floor_and_ceiling(gaps: list[float], heartbeat_s: float) -> None:
    timers = Timers()
    late_s = late_after_s(timers, after(gaps), heartbeat_s)
    assert timers.late_floor_s <= late_s <= timers.late_ceiling_s


@given(st.floats(0.3, 0.8), st.integers(30, 80))
def test_a_regular_link_is_late_after_two_beats(gap: float, count: int) -> None:
    """Jitter that is not there buys no time."""
    timers = Timers()
    late_s = late_after_s(timers, after([gap] * count), 0.5)
    assert late_s == pytest.approx(max(timers.late_floor_s, 2 * max(gap, 0.5)), abs=0.05)


@given(beats, beats)
def test_more_jitter_never_makes_late_sooner(quiet: list[float], gaps: list[float]) -> None:
    timers = Timers()
    steady = after([0.5] * len(gaps))
    shaken = changed(steady, deviation=steady.deviation + 0.1 * len(quiet))
    assert late_after_s(timers, shaken, 0.5) >= late_after_s(timers, steady, 0.5)


@given(beats)
def test_deviation_stays_within_what_was_seen(gaps: list[float]) -> None:
    seen = after(gaps)
    assert 0 <= seen.deviation <= 4.0
    assert min(gaps) * 0.99 <= seen.interval <= max(gaps) * 1.01


def test_a_pause_of_minutes_is_no_rhythm() -> None:
    seen = after([0.5] * 20)
    assert observe_beat(seen, seen.heard + 60.0) == (seen.interval, seen.deviation)


def test_unheard_is_not_late_in_quiet_time() -> None:
    """After our own start or gap, silence counts from the end of the last quiet time's beginning."""
    bench = Bench()
    bench.silence("h1", 60.0)
    assert is_late(bench.draft(), bench.host("h1"))
    bench.send(Tick(lag_s=3.0))
    assert not is_late(bench.draft(), bench.host("h1"))
    bench.now += bench.state.settings.timers.settle_s - 0.1
    assert not is_late(bench.draft(), bench.host("h1"))
    bench.send(Tick(), after=0.2)
    assert is_late(bench.draft(), bench.host("h1"))


def test_a_small_lag_is_no_gap() -> None:
    bench = Bench()
    bench.send(Tick(lag_s=0.2))
    assert bench.state.quiet_until == 0.0


# ---- witnesses


def looks(**answers: bool | None) -> View:
    return View(looks={n if n != "own" else "": LookSeen(witness=n if n != "own" else "", asked=1.0, answered=a)
                       for n, a in answers.items()})  # fmt: skip


def test_silence_counts_only_from_a_peer() -> None:
    assert peers_say(looks(h2=False, own=False)) is Peers.SILENT
    assert peers_say(looks(own=False)) is Peers.NONE, "our own silence is no witness"
    assert peers_say(looks(h2=None, own=False)) is Peers.NONE, "no answer is not silence"
    assert peers_say(looks(h2=False, own=True)) is Peers.ANSWERS, "our own ear can show life"
    assert peers_say(looks(h2=False, h3=True)) is Peers.ANSWERS, "one that hears outweighs all"
    assert peers_say(View()) is Peers.NONE


def test_witnesses_are_online_connected_and_fresh() -> None:
    bench = Bench("h1", "h2", "h3", "h4", "h5", "h6", "h7")
    bench.put(host("h2", HostPhase.SUSPECT))
    bench.look("h3", session="")
    bench.look("h4", heard=NOW - 5.0)
    bench.look("h5", acked_epoch=1)
    assert [peer.name for peer in witnesses(bench.draft(), bench.host("h1"))] == ["h6", "h7"]
    many = Bench(*(f"h{n}" for n in range(1, 9)))
    assert len(witnesses(many.draft(), many.host("h1"))) == WITNESSES_MAX


def test_late_is_only_a_suspicion() -> None:
    """Lateness alone moves to suspect and looks, through peers, by itself and at the power; it fences nobody."""
    bench = Bench().put(guest("g1", "h1"))
    bench.silence("h1")
    effects = bench.send(Tick())
    assert bench.host("h1").phase is HostPhase.SUSPECT
    assert {type(effect) for effect in effects} == {Send, Look, ReadPower}
    assert not any(isinstance(effect, Fence) for effect in effects)
    assert {effect.host for effect in effects if isinstance(effect, Send)} == {"h2", "h3"}


# ---- power


def test_power_is_off_only_when_every_proven_device_of_a_level_says_so() -> None:
    bench = Bench("h1", h1=levels("h1", ("a", "b"), ("c",)))

    def says(*reports: PowerReport) -> Power:
        bench.look("h1", power=reports, power_at=NOW, round_at=NOW)
        return power_says(bench.draft(), bench.host("h1"))

    assert says(report(reading("a"), reading("b"))) is Power.OFF
    assert says(report(reading("a"), reading("b", Power.ON))) is Power.ON
    assert says(report(reading("a"))) is Power.UNKNOWN
    assert says(report(reading("a"), reading("b", guid="another"))) is Power.UNKNOWN
    assert says(report(reading("a"), reading("b", fingerprint="other"))) is Power.UNKNOWN
    assert says(report(reading("c"), level=1)) is Power.OFF
    assert says(report(reading("c"), level=7)) is Power.UNKNOWN
    del bench.state.identities["h1", "c"]
    assert says(report(reading("c"), level=1)) is Power.UNKNOWN
    bench.look("h1", power=(report(reading("a"), reading("b")),), power_at=NOW - 1, round_at=NOW)
    assert power_says(bench.draft(), bench.host("h1")) is Power.UNKNOWN, "a reading of an earlier round"


def test_a_reading_of_an_earlier_round_is_not_told_as_evidence() -> None:
    """Nobody should read "power not readable (… bmc-h1 says off)" at night: it contradicts itself."""
    bench = Bench()
    bench.look("h1", power=(report(reading("bmc-h1")),), power_at=NOW - 60, round_at=NOW)
    assert "bmc-h1 said off 60 s ago" in in_words(bench.draft(), "h1")
    bench.look("h1", power_at=NOW)
    assert "bmc-h1 says off" in in_words(bench.draft(), "h1")


def test_why_not_off_names_everything() -> None:
    bench = Bench("h1", h1=levels("h1", ("a", "b", "c")))
    del bench.state.identities["h1", "c"]
    why = why_not_off(
        bench.draft(), "h1", report(reading("a", Power.UNKNOWN, reason="timeout"), reading("c"))
    )
    text = "; ".join(why)
    assert "a says unknown (timeout)" in text
    assert "b was not read" in text
    assert "c was never proven: run dr fence test" in text
    assert "not the device that was proven" not in text


def test_a_device_that_was_not_reached_is_not_called_another_one() -> None:
    bench = Bench("h1", h1=levels("h1", ("a",)))
    (why,) = why_not_off(bench.draft(), "h1", report(reading("a", Power.UNKNOWN, guid="", reason="timeout")))
    assert why == "a says unknown (timeout)"
    (why,) = why_not_off(bench.draft(), "h1", report(reading("a", guid="")))
    assert "not the device that was proven" in why


# ---- the brake


@given(st.integers(1, 12), st.data())
def test_the_brake_holds_when_more_than_half_are_in_trouble(count: int, data: st.DataObject) -> None:
    names = [f"h{n}" for n in range(1, count + 1)]
    bench = Bench(*names)
    kinds = st.sampled_from(["well", "late", "suspect", "fenced lately", "fenced long ago"])
    trouble = 0
    for name in names:
        kind = data.draw(kinds)
        if kind == "late":
            bench.silence(name)
        elif kind == "suspect":
            bench.put(host(name, HostPhase.SUSPECT))
        elif kind == "fenced lately":
            bench.put(host(name, HostPhase.FENCED, fenced_at=(NOW - 599,)))
        elif kind == "fenced long ago":
            bench.put(host(name, fenced_at=(NOW - 601,)))
        trouble += kind not in ("well", "fenced long ago")
    assert bool(brake(bench.draft())) == (2 * trouble > count)


def test_the_brake_lets_go_for_hosts_that_are_off() -> None:
    """Power-off evidence says that it is not we who are blind."""
    bench = Bench()
    for name in ("h1", "h2"):
        bench.put(host(name, HostPhase.SUSPECT))
        bench.silence(name)
    assert "2 of 3" in brake(bench.draft())
    bench.look("h1", power=(report(reading("bmc-h1")),), power_at=NOW, round_at=NOW)
    assert brake(bench.draft()) == ""


def test_joining_hosts_do_not_count_for_the_brake() -> None:
    bench = Bench("h1", "h2").put(host("h1", HostPhase.SUSPECT), host("h2", HostPhase.JOINING))
    assert brake(bench.draft())
