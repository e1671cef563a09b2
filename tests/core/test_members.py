"""Hosts as members: hello, restored stores, joining, coming back; and guests as their hosts report them."""

from typing import Any

import pytest

from dr.core.decide import StoreElsewhere, decide
from dr.model import commands
from dr.model.base import changed
from dr.model.commands import Answer, Outcome, Protect, ProtectedEntry
from dr.model.effects import Accept, DropSession, Effect, Send, SendStart
from dr.model.events import Answered, Connected, Disconnected, Heard, Reported, Started, Tick
from dr.model.facts import Definition, DomainState, GuestFacts, HookState, Level, Reading, Sighting
from dr.model.policy import Limits
from dr.model.records import Condition, Desired, Fencing, GuestPhase, HostPhase, Term
from dr.model.wire import PROTOCOL, Hello, Memory
from tests.core.build import EPOCH, Bench, domain, facts, guest, host

GENERATION_JUMP = 1_000_000


def hello(bench: Bench, name: str, *, boot: str = "", session: str = "new", **fields: Any) -> list[Effect]:
    boot = boot or f"{name}-b1"
    base = Hello(
        protocol=PROTOCOL,
        version="0",
        cluster="c",
        boot_id=boot,
        nonce="n",
        memory=Memory(epoch=EPOCH, leader_id="L"),
        facts=changed(facts(name), boot_id=boot),
        guests=(),
    )
    return bench.send(Connected(host=name, session=session, hello=changed(base, **fields)))


def beat(bench: Bench, name: str, session: str = "new", after: float = 0.01) -> list[Effect]:
    return bench.send(Heard(host=name, session=session, fresh=bench.now), after=after)


def dropped(effects: list[Effect]) -> str:
    return "; ".join(effect.reason for effect in effects if isinstance(effect, DropSession))


# ---- hello


def test_a_hello_is_accepted_and_counts_only_after_a_fresh_beat() -> None:
    bench = Bench()
    effects = hello(bench, "h1")
    assert Accept(host="h1", session="new") in effects
    assert "replaced by a newer session" in dropped(effects)
    assert bench.state.views["h1"].acked_epoch == 0
    bench.send(Heard(host="h1", session="new", fresh=0.0))
    assert bench.state.views["h1"].acked_epoch == 0, "it echoed nothing of this session"
    beat(bench, "h1")
    assert bench.state.views["h1"].acked_epoch == EPOCH


def test_an_old_session_says_nothing() -> None:
    bench = Bench()
    hello(bench, "h1")
    before = bench.state.views["h1"]
    bench.send(Heard(host="h1", session="s-h1", fresh=bench.now))
    bench.send(Reported(host="h1", session="s-h1", guests=(domain("x"),)))
    bench.send(Disconnected(host="h1", session="s-h1"))
    assert changed(bench.state.views["h1"], observed_at=before.observed_at) == before


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"protocol": PROTOCOL + 2}, "one protocol version apart"),
        ({"cluster": "other"}, "another cluster"),
    ],
)
def test_hello_refused(fields: dict[str, Any], word: str) -> None:
    bench = Bench()
    effects = hello(bench, "h1", **fields)
    assert word in dropped(effects)
    assert not any(isinstance(effect, Accept) for effect in effects)


def test_one_protocol_apart_is_welcome_and_strangers_are_not() -> None:
    bench = Bench()
    assert Accept(host="h1", session="new") in hello(bench, "h1", protocol=PROTOCOL + 1)
    assert "not a member" in dropped(hello(bench, "h9"))


# ---- rule 1: restored store


@pytest.mark.parametrize(
    "memory",
    [
        Memory(epoch=EPOCH + 1, leader_id="L9"),
        Memory(epoch=EPOCH, leader_id="L9"),
        Memory(epoch=EPOCH, leader_id="L", revision=99),
        Memory(epoch=EPOCH - 1, leader_id="L0", revision=11),
        Memory(epoch=EPOCH, leader_id="L", sealed={"g1": 2}),
    ],
)
def test_rule_1_whatever_an_agent_knows_that_the_store_does_not(memory: Memory) -> None:
    """Hold, add every host to every set, jump generations and epoch, drop every session."""
    bench = Bench().put(guest("g1", "h1"))
    bench.state.revision = 20
    began(bench, 10)
    effects = hello(bench, "h2", memory=memory)
    cluster = bench.state.cluster
    assert cluster.restored
    assert cluster.pause is not None
    assert cluster.epoch > max(EPOCH, memory.epoch)
    assert cluster.revision_offset >= 1_000_000
    record = bench.guest("g1")
    assert record.phase is GuestPhase.PROTECTING
    assert {place.host for place in record.may_run_on} == {"h1", "h2", "h3"}
    assert record.generation > GENERATION_JUMP
    assert all(view.session == "" for view in bench.state.views.values())
    assert "older copy" in dropped(effects)


def began(bench: Bench, revision: int) -> None:
    """The present term began when the store held that revision."""
    term = Term(epoch=EPOCH, leader_id="L", revision=revision)
    bench.state.cluster = changed(bench.state.cluster, terms=(term,))


def test_what_agents_of_this_term_know_is_no_surprise() -> None:
    bench = Bench().put(guest("g1", "h1"))
    bench.state.revision = 20
    began(bench, 10)
    hello(bench, "h2", memory=Memory(epoch=EPOCH, leader_id="L", revision=20, sealed={"g1": 1}))
    hello(bench, "h3", memory=Memory(epoch=EPOCH - 1, leader_id="old", revision=10))
    assert not bench.state.cluster.restored


def test_rule_1_guests_that_only_agents_know_are_adopted() -> None:
    bench = Bench()
    entry = ProtectedEntry(guest="g9", name="nine", generation=4, holder="h2")
    memory = Memory(epoch=EPOCH + 1, leader_id="x", protected_version=8, entries=(entry,))
    hello(bench, "h1", memory=memory)
    record = bench.guest("g9")
    assert record.generation > 4
    assert {place.host for place in record.may_run_on} == {"h1", "h2", "h3"}
    assert bench.state.cluster.protected_version > 8


def test_a_store_of_another_machine_is_not_led() -> None:
    bench = Bench()
    with pytest.raises(StoreElsewhere, match="dr cluster restore"):
        decide(bench.state, Started(leader_id="x", machine="other", cluster="c"), bench.now)


def test_each_start_is_a_new_epoch_and_judges_fencings_anew() -> None:
    bench = Bench().put(host("h1", HostPhase.FENCING, fencing=Fencing(boot_id="h1-b1")))
    effects = bench.send(Started(leader_id="L2", machine="m", cluster="c"))
    assert effects == []
    assert bench.state.cluster.epoch == EPOCH + 1
    assert bench.host("h1").phase is HostPhase.SUSPECT
    assert bench.host("h1").fencing is None


# ---- rule 4: joining


def test_rule_4_a_host_that_joins_stands_in_every_set() -> None:
    bench = Bench().put(guest("g1", "h1"), host("h4", HostPhase.JOINING, boot_id="", protected_version=0))
    hello(bench, "h4")
    assert {place.host for place in bench.guest("g1").may_run_on} == {"h1", "h4"}
    effects = beat(bench, "h4")
    (sent,) = (effect for effect in effects if isinstance(effect, Send))
    assert isinstance(sent.body, Protect)
    assert [entry.guest for entry in sent.body.entries] == ["g1"]
    done = Answer(outcome=Outcome.DONE, protected_version=sent.body.version, hook=HookState(proven=True))
    effects = bench.send(Answered(host="h4", session="new", effect=sent.id, answer=done))
    assert bench.host("h4").phase is HostPhase.JOINING, "it has not testified yet"
    (asked,) = (e for e in effects if isinstance(e, Send) and isinstance(e.body, commands.Testify))
    said = commands.Testimony(guest="g1", sighting=Sighting.ABSENT, sealed=bench.guest("g1").generation)
    bench.send(
        Answered(
            host="h4", session="new", effect=asked.id, answer=Answer(outcome=Outcome.DONE, testimony=(said,))
        )
    )
    assert {place.host for place in bench.guest("g1").may_run_on} == {"h1"}
    assert bench.host("h4").phase is HostPhase.ONLINE


def test_a_hook_that_is_not_proven_keeps_a_host_out() -> None:
    bench = Bench().put(
        host("h1", HostPhase.RETURNING, facts=facts("h1", hook=HookState(proven=False, reason="x")))
    )
    bench.send(Tick())
    assert bench.host("h1").phase is HostPhase.RETURNING
    assert "hook is not proven" in bench.host("h1").reason


# ---- coming back


def test_a_new_boot_proves_the_old_one_over() -> None:
    bench = Bench().put(guest("g1", "h1"))
    effects = hello(bench, "h1", boot="h1-b2")
    assert bench.host("h1").phase is HostPhase.RETURNING
    assert any(isinstance(effect, SendStart) and effect.host != "h1" for effect in effects)


def test_the_same_boot_again_proves_nothing() -> None:
    bench = Bench().put(guest("g1", "h1"))
    hello(bench, "h1", guests=(domain("g1"),))
    assert bench.host("h1").phase is HostPhase.ONLINE
    assert bench.guest("g1").may_run_on == guest("g1", "h1").may_run_on
    assert bench.guest("g1").phase is GuestPhase.RUNNING


def test_leftovers_are_cleaned_before_it_counts() -> None:
    bench = Bench().put(guest("g1", "h2"), host("h1", HostPhase.RETURNING))
    bench.see("h1", domain("g1", DomainState.SHUTOFF))
    effects = bench.send(Tick())
    (clean,) = (e for e in effects if isinstance(e, Send) and isinstance(e.body, commands.Clean))
    assert bench.host("h1").phase is HostPhase.RETURNING
    assert "still has definitions" in bench.host("h1").reason
    said = commands.Testimony(guest="g1", sighting=Sighting.ABSENT, sealed=9)
    bench.send(
        Answered(
            host="h1", session="s-h1", effect=clean.id, answer=Answer(outcome=Outcome.DONE, testimony=(said,))
        )
    )
    assert bench.host("h1").phase is HostPhase.ONLINE
    assert bench.guest("g1").phase is GuestPhase.RUNNING


def test_degraded_and_well_again() -> None:
    bench = Bench()
    bad = (Reading(part="disk", level=Level.CRITICAL, reason="sda fails"),)
    bench.send(Reported(host="h1", session="s-h1", health=bad))
    assert Condition.DEGRADED in bench.host("h1").conditions
    assert "sda fails" in bench.state.alerts["host/h1/degraded"].why
    bench.send(Reported(host="h1", session="s-h1", health=()))
    assert Condition.DEGRADED not in bench.host("h1").conditions
    assert bench.state.alerts == {}


def test_unprotected_says_why() -> None:
    bench = Bench()
    del bench.state.identities["h1", "bmc-h1"]
    bench.send(Tick())
    assert Condition.UNPROTECTED in bench.host("h1").conditions
    bench.put(host("h2", facts=facts("h2", hibernation_masked=False)))
    bench.send(Tick())
    assert Condition.UNPROTECTED in bench.host("h2").conditions
    assert Condition.UNPROTECTED not in bench.host("h3").conditions


# ---- guests


def report(bench: Bench, name: str, *guests: GuestFacts, after: float = 5.0) -> list[Effect]:
    bench.now += after
    bench.hear()
    return bench.send(Reported(host=name, session=f"s-{name}", guests=guests))


@pytest.mark.parametrize(
    ("reason", "state"),
    [("shutdown", DomainState.SHUTOFF), ("destroyed", DomainState.SHUTOFF), ("saved", DomainState.SHUTOFF)],
)
def test_ended_by_its_owner_is_not_restarted(reason: str, state: DomainState) -> None:
    bench = Bench().put(guest("g1", "h1"))
    report(bench, "h1", domain("g1", state, reason=reason))
    assert bench.guest("g1").phase is GuestPhase.STOPPED
    assert bench.guest("g1").desired is Desired.STOPPED


def test_crash_restart_is_bounded_with_backoff_then_relocates_then_gives_up() -> None:
    bench = Bench().put(guest("g1", "h1"))
    waits, places = [], []
    for _ in range(20):
        record = bench.guest("g1")
        if record.phase is GuestPhase.ERROR:
            break
        (place,) = record.may_run_on
        report(bench, place.host, domain("g1", DomainState.CRASHED, reason="crashed"))
        record = bench.guest("g1")
        if record.phase is not GuestPhase.ERROR:
            waits.append(round(max(record.retry_at - bench.now, 0)))
        answer_testify(bench, place.host)
        bench.now = max(bench.now, bench.guest("g1").retry_at)
        bench.state.pending = {k: p for k, p in bench.state.pending.items() if p.kind != "clean"}
        bench.hear()
        bench.send(Tick())
        if bench.guest("g1").phase is GuestPhase.STARTING:
            places.append(start_done(bench))
    assert waits == [0, 5, 5, 0, 5, 10, 0, 5]
    assert places[:2] == ["h1", "h1"]
    assert places[2] != "h1"
    assert bench.guest("g1").phase is GuestPhase.ERROR
    assert "dr guest start g1" in bench.state.alerts["guest/g1/error"].todo


def answer_testify(bench: Bench, name: str) -> None:
    for key, pending in list(bench.state.pending.items()):
        if pending.kind == "testify" and pending.host == name:
            said = commands.Testimony(
                guest="g1", sighting=Sighting.ABSENT, sealed=bench.guest("g1").generation
            )
            answer = Answer(outcome=Outcome.DONE, testimony=(said,))
            bench.send(Answered(host=name, session=f"s-{name}", effect=key, answer=answer))


def start_done(bench: Bench, outcome: Outcome = Outcome.DONE) -> str:
    key, pending = next((k, p) for k, p in bench.state.pending.items() if p.kind == "start")
    if outcome is Outcome.DONE:
        bench.see(pending.host, domain("g1"))
    answer = Answer(outcome=outcome, reason="" if outcome is Outcome.DONE else "so it was")
    bench.send(Answered(host=pending.host, session=f"s-{pending.host}", effect=key, answer=answer))
    return pending.host


def test_a_start_without_an_answer_is_unknown_and_only_that_host_is_asked() -> None:
    bench = Bench().put(guest("g1", phase=GuestPhase.RECOVERING))
    bench.send(Tick())
    (place,) = bench.guest("g1").may_run_on
    bench.now += bench.state.settings.timers.start_s + 1
    bench.hear()
    effects = bench.send(Tick())
    assert bench.guest("g1").phase is GuestPhase.UNKNOWN
    asked = {e.host for e in effects if isinstance(e, Send) and isinstance(e.body, commands.Testify)}
    assert asked == {place.host}
    assert not any(isinstance(effect, SendStart) for effect in effects)
    answer_testify(bench, place.host)
    assert bench.guest("g1").phase is GuestPhase.STARTING


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.REFUSED, Outcome.UNKNOWN])
def test_a_start_that_failed_without_testimony_frees_nothing(outcome: Outcome) -> None:
    bench = Bench().put(guest("g1", phase=GuestPhase.RECOVERING))
    bench.send(Tick())
    start_done(bench, outcome)
    assert bench.guest("g1").phase is GuestPhase.UNKNOWN
    assert bench.guest("g1").may_run_on


def test_seen_running_twice_is_an_error_that_a_person_decides() -> None:
    bench = Bench().put(guest("g1", "h1"))
    report(bench, "h2", domain("g1"))
    assert bench.guest("g1").phase is GuestPhase.ERROR
    assert {place.host for place in bench.guest("g1").may_run_on} == {"h1", "h2"}
    assert "h1 and h2" in bench.state.alerts["guest/g1/doubled"].what


def test_an_edited_definition_becomes_a_new_version() -> None:
    bench = Bench(limits=Limits()).put(guest("g1", "h1"))
    effects = report(bench, "h1", domain("g1", digest="d2"))
    (sent,) = (e for e in effects if isinstance(e, Send) and isinstance(e.body, commands.Describe))
    xml = "<domain type='kvm'><memory unit='MiB'>2048</memory></domain>"
    definition = Definition(id="g1", name="g1", xml=xml, digest="d2")
    answer = Answer(outcome=Outcome.DONE, definition=definition)
    bench.send(Answered(host="h1", session="s-h1", effect=sent.id, answer=answer))
    assert bench.guest("g1").definition == 2
    assert bench.guest("g1").needs.memory_mib == 2048
    assert [(d.version, d.reported_by) for d in bench.definitions] == [(2, "h1")]


def test_nothing_is_restarted_in_a_pause() -> None:
    from dr.model.records import Pause

    bench = Bench().put(guest("g1", "h1"))
    bench.state.cluster = changed(bench.state.cluster, pause=Pause(reason="work", by="ann"))
    report(bench, "h1", domain("g1", DomainState.CRASHED, reason="crashed"))
    answer_testify(bench, "h1")
    assert bench.guest("g1").phase is GuestPhase.RECOVERING
    assert "paused (work)" in bench.guest("g1").reason
