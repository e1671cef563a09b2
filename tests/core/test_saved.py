"""A saved decision: decided again from its file it is the same one, and no secret is in it."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import pytest

from dr.core import saved
from dr.core.decide import decide
from dr.core.explain import explain
from dr.core.saved import BadDecision, Saved, decode, encode
from dr.core.state import Draft, State
from dr.core.volatile import Checked
from dr.model.base import changed
from dr.model.checks import CheckResult, Ping
from dr.model.commands import Answer, Outcome
from dr.model.decision import Changes, Decision
from dr.model.events import (
    Answered,
    AskFence,
    AskKeepDrill,
    AskPause,
    Event,
    Heard,
    LookEnded,
    Reconfigured,
    Tick,
)
from dr.model.evidence import Power
from dr.model.facts import Definition
from dr.model.policy import FenceDevice, FenceLevel, GuestPolicy, HostPolicy, OnUnhealthy
from dr.model.records import GuestPhase, HostPhase
from dr.model.schedules import ScheduleRecord
from dr.model.settings import Settings
from dr.sim.coordinator import SimCoordinator
from dr.sim.world import World
from tests.core.build import Bench, guest, host, reading, report
from tests.core.test_drills import report_of

ARMED = FenceLevel(
    devices=(FenceDevice(name="bmc", agent="a", parameters={"ip": "1", "password": "hunter2"}),)
)


LOOKED_AFTER = GuestPolicy(failback=True, checks=(Ping(address="10.0.0.5"),), on_unhealthy=OnUnhealthy.ALERT)


def file(state: State, event: Event, now: float = 1.0, **more: Any) -> bytes:
    return b"".join(encode(Saved(state=state, event=event, now=now, **more)))


def judged() -> Bench:
    """h1 is suspect, its witnesses hear nothing and its power is on: the last answer of the round is to come."""
    bench = Bench().put(guest("g1", "h1"), host("h1", HostPhase.SUSPECT))
    bench.silence("h1")
    bench.send(Tick())
    return bench


def test_a_run_decided_again_from_its_files() -> None:
    """Every decision of a failover, saved or not: the same changes and effects come from its file, and it explains."""
    files: dict[str, bytes] = {}
    made: dict[str, Decision] = {}
    world = World(3, guests={"h1": ("g1", "g2"), "h2": ("g3",)})

    def keep(name: str, pieces: Iterable[bytes]) -> None:
        files[name] = b"".join(pieces)

    world.save = keep
    before = world.truth.before_commit

    def look(coordinator: SimCoordinator, draft: Draft, changes: Changes) -> None:
        made[f"{draft.cluster.epoch}-{world.store.revision + 1}"] = draft.decision()
        before(coordinator, draft, changes)

    world.truth.before_commit = look  # type: ignore[method-assign]
    world.begin()
    world.freeze("h1", 300.0)
    world.run(20.0)
    assert len(files) >= 5
    kinds = set()
    for name, data in files.items():
        again = decode(data)
        draft = decide(again.state, again.event, again.now)
        assert draft.decision() == made[name]
        kinds |= {type(effect).__name__ for effect in made[name].effects}
        assert len(explain(again).effects) == len(draft.decision().effects)
    assert {"Fence", "PowerOn", "SendStart", "Notify"} <= kinds


def test_every_field_of_the_state_is_saved_or_derived() -> None:
    """A new field of State comes back from a file, or is named in DERIVED and rebuilt from the records."""
    bench = judged().put(guest("g2", "h2", GuestPhase.UNKNOWN, policy=LOOKED_AFTER))
    bench.send(AskPause(id="1", by="ops", reason="work"))
    bench.send(AskFence(id="2", by="ops", host="h1"))
    bench.send(AskKeepDrill(id="3", by="ops", report=report_of("drill-1")))
    state, empty = bench.state, State()
    found = CheckResult(check=Ping(address="10.0.0.5"), passed=True, evidence="an echo came back")
    state.checked["g1"] = Checked(began=1.0, ended=2.0, results=(found,))
    state.schedules["s"] = ScheduleRecord(name="s", times="0 3 * * * UTC", decided=1.5)
    state.revision, state.moves, state.own_boot, state.lag_s = 17, 3, "b", 0.125
    state.started_at, state.quiet_until, state.ticked_at, state.failback_at = 1.5, 2.5, 12.5, 3.5
    state.looked_after_at = 4.5
    content = [each for each in fields(State) if each.name not in ("touched", "memo")]  # they only save time
    for each in content:
        assert getattr(state, each.name) != getattr(empty, each.name), (
            f"{each.name} is empty: this proves nothing"
        )
    back = decode(file(state, Tick(lag_s=0.1), 12.75, id="3-18", wall=1.5, version="9"))
    assert (back.event, back.now, back.id, back.wall, back.version) == (
        Tick(lag_s=0.1),
        12.75,
        "3-18",
        1.5,
        "9",
    )
    at_host = {name: ids for name, ids in state.at_host.items() if ids}
    for each in content:
        found = getattr(back.state, each.name)
        assert found == (at_host if each.name == "at_host" else getattr(state, each.name)), each.name


def test_frozen_does_not_change_with_the_state() -> None:
    bench = judged()
    kept = saved.frozen(bench.state)
    before = file(kept, Tick())
    bench.put(guest("g9", "h2"))
    bench.send(AskPause(id="1", by="ops", reason="work"))
    assert file(kept, Tick()) == before
    assert file(bench.state, Tick()) != before


def test_no_secret_is_in_a_file() -> None:
    settings = Settings(hosts={"h1": HostPolicy(name="h1", fencing=(ARMED,))})
    xml = "<domain><graphics type='vnc' passwd='hunter2' listen=\"a\"/></domain>"
    definition = Definition(id="g1", name="g1", xml=xml, digest="d", nvram=b"hunter2")
    answer = Answer(outcome=Outcome.DONE, definition=definition)
    events: list[Event] = [
        Reconfigured(settings=settings),
        Answered(host="h1", session="s", effect="e", answer=answer),
    ]
    for event in events:
        text = gzip.decompress(file(State(settings=settings), event))
        assert b"hunter2" not in text
        assert b"aHVudGVyMg" not in text, "base64"
        assert b"bmc" in text, "what is there is checked"
    kept = decode(file(State(), events[1])).event
    assert isinstance(kept, Answered)
    assert kept.answer.definition is not None
    assert kept.answer.definition.xml == xml.replace("hunter2", "***")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "its end is missing"),
        (b"not gzip at all", "not gzip"),
        (gzip.compress(b"", mtime=0), "it is empty"),
        (gzip.compress(b"hello\n", mtime=0), "its first line is of something else"),
        (gzip.compress(b'{"a": 1}\n', mtime=0), "its first line is of something else"),
        (
            gzip.compress(b'{"dr_decision": 7, "event": {}, "now": 1, "version": "9.9"}\n', mtime=0),
            "format 7 by dr 9.9.*reads format 1",
        ),
        (
            gzip.compress(b'{"dr_decision": 1, "event": {"type": "nonsense"}, "now": 1}\n', mtime=0),
            "cannot be read.*nonsense",
        ),
        (
            gzip.compress(b'{"dr_decision": 1, "event": {"type": "tick"}, "now": 1}\nx\n', mtime=0),
            "cannot be read",
        ),
        (file(State(), Tick())[:-20], "its end is missing"),
    ],
)
def test_a_bad_file_says_why(data: bytes, why: str) -> None:
    with pytest.raises(BadDecision, match=why):
        decode(data)


def test_a_file_of_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "BYTES_MAX", 100)
    with pytest.raises(BadDecision, match="larger than"):
        decode(gzip.compress(b"x" * 200))


# ---- which are worth it


def test_beats_and_reports_are_not_saved() -> None:
    bench = judged()
    for event in (Tick(), Heard(host="h2", session="s-h2", fresh=bench.now)):
        assert not saved.worth_saving(decide(bench.state, event, bench.now).decision())


def test_what_people_ask_about_is_saved() -> None:
    """Power touched, refused, held: each by itself."""
    bench = judged()
    refused = decide(bench.state, AskFence(id="1", by="ops", host="nobody"), bench.now)
    assert saved.worth_saving(refused.decision())
    accepted = decide(bench.state, AskPause(id="2", by="ops", reason="work"), bench.now).decision()
    assert saved.worth_saving(accepted), "it alerts people"
    told = changed(accepted, effects=())
    assert not saved.worth_saving(told)


# ---- explained


def condemned() -> Saved:
    """The event with which h1 is condemned."""
    bench = judged()
    effects = {type(effect).__name__: effect for effect in bench.effects}
    bench.look("h1", power=(report(reading("bmc-h1", Power.ON)),), power_at=bench.now)
    for key, pending in list(bench.state.pending.items()):
        if pending.detail == "h1" and pending.kind == "probe":
            answer = Answer(outcome=Outcome.DONE, answered={"10.0.0.1": False})
            bench.send(Answered(host=pending.host, session=f"s-{pending.host}", effect=key, answer=answer))
        elif pending.kind == "power":
            bench.state.pending.pop(key)
    look: Any = effects["Look"]
    event = LookEnded(effect=look.id, host="h1", answered={"10.0.0.1": False})
    return Saved(state=bench.state, event=event, now=bench.now, id="3-9")


def test_a_condemned_host_is_explained() -> None:
    found = explain(condemned())
    h1 = next(each for each in found.hosts if each.name == "h1")
    assert (h1.before, h1.after) == ("suspect", "fencing")
    assert (
        h1.verdict
        == "fence: link down, witnesses silent, power on: silent to agent link and peers, power is on"
    )
    assert "h2 hears nothing" in h1.evidence
    assert h1.not_fenced == ()
    assert [each.name for each in found.hosts if each.concerned] == ["h1"]
    assert any(effect.startswith("fence: id fence-3-") for effect in found.effects)
    (g1,) = found.guests
    assert g1.set_after == ("h1 (boot h1-b1, generation 1)",)
    assert [(each.host, bool(each.why_not)) for each in g1.options] == [
        ("h2", False),
        ("h3", False),
        ("h1", True),
    ]


def test_a_host_that_is_not_fenced_says_why_not() -> None:
    held = condemned()
    held.state.settings = changed(held.state.settings, auto_fence=False)
    h1 = next(each for each in explain(held).hosts if each.name == "h1")
    assert h1.after == "suspect"
    assert h1.not_fenced == ("automatic fencing is off in the configuration",)


def test_a_guest_is_placed_before_those_that_came_after_it() -> None:
    """The first of two that want the same room could have both hosts, the second only what was left."""
    bench = Bench().put(*(guest(name, phase=GuestPhase.RECOVERING) for name in ("g1", "g2")))
    for name in ("h1", "h2", "h3"):
        record = bench.host(name)
        size = 1800 if name != "h3" else 600
        bench.put(changed(record, facts=changed(record.facts, memory_mib=size)))
    found = explain(Saved(state=bench.state, event=Tick(), now=bench.now))
    first, second = found.guests
    assert {first.starts_on, second.starts_on} == {"h1", "h2"}
    could = {each.name: [o.host for o in each.options if not o.why_not] for each in found.guests}
    assert sorted(could[first.name]) == ["h1", "h2"]
    assert could[second.name] == [second.starts_on]
    assert "MiB free" in next(o for o in second.options if o.host == first.starts_on).why_not[0]
    assert first.waits == ""
