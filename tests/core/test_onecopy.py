"""The four that carry promises 1 and 2: places, tickets, testimony; and that nothing goes round them."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.core import onecopy, quorum, whereabouts
from dr.core.volatile import Pending
from dr.model import commands
from dr.model.base import changed
from dr.model.commands import Stop, TicketKind
from dr.model.effects import Send, SendStart
from dr.model.events import Reported
from dr.model.evidence import Proof, ProofKind
from dr.model.facts import DomainState, HookState, Sighting
from dr.model.records import GuestPhase, HostPhase, Place
from tests.core.build import EPOCH, NOW, Bench, domain, facts, guest, host

CORE = Path(__file__).parents[2] / "dr"


def waiting(bench: Bench) -> Bench:
    return bench.put(guest("g1", phase=GuestPhase.RECOVERING))


def objections(bench: Bench) -> list[str]:
    """What `issue_start` of g1 on h2 says; when it refuses, nothing was decided."""
    draft = bench.draft()
    why = onecopy.issue_start(draft, bench.guest("g1"), bench.host("h2"))
    if why:
        assert not draft.changes()
        assert not draft.decision().effects
    return why


# ---- start tickets


def test_a_start_ticket_is_new_bound_and_recorded_first() -> None:
    bench = waiting(Bench())
    bench.state.revision = 41
    draft = bench.draft()
    assert onecopy.issue_start(draft, bench.guest("g1"), bench.host("h2")) == []
    (effect,) = draft.decision().effects
    assert isinstance(effect, SendStart)
    ticket = effect.ticket
    assert (ticket.kind, ticket.guest, ticket.host, ticket.boot_id) == (TicketKind.START, "g1", "h2", "h2-b1")
    assert (ticket.epoch, ticket.leader_id, ticket.session) == (EPOCH, "L", "s-h2")
    assert ticket.generation == bench.guest("g1").generation + 1
    assert ticket.revision == 42
    after = draft.changes().guests["g1"]
    assert after is not None
    assert after.may_run_on == (Place(host="h2", boot_id="h2-b1", generation=ticket.generation),)
    assert after.generation == ticket.generation
    assert after.phase is GuestPhase.STARTING


def test_no_start_while_it_may_run_somewhere() -> None:
    for place in ("h1", "h2", "gone"):
        bench = waiting(Bench())
        bench.put(changed(bench.guest("g1"), may_run_on=(Place(host=place, boot_id="b", generation=1),)))
        assert any(f"may still run on {place}" in why for why in objections(bench))


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (lambda b: b.look("h2", session=""), "not connected"),
        (lambda b: b.look("h2", acked_epoch=EPOCH - 1), "has not acknowledged epoch"),
        (lambda b: b.put(host("h2", HostPhase.RETURNING)), "is returning"),
        (lambda b: b.put(host("h2", facts=facts("h2", hook=HookState(proven=False)))), "does not guard"),
        (lambda b: b.put(host("h2", protected_version=4)), "does not guard"),
        (lambda b: b.put(changed(b.guest("g1"), definition=0)), "no definition"),
        (lambda b: setattr(b.state, "cluster", changed(b.state.cluster, restored="why")), "older copy"),
        (lambda b: (b.look("h1", acked_epoch=0), b.look("h3", acked_epoch=0)), "only 1 of 3 hosts"),
    ],
)
def test_each_guard_refuses_alone(broken: object, word: str) -> None:
    bench = waiting(Bench())
    assert objections(bench) == []
    assert callable(broken)
    broken(bench)
    assert any(word in why for why in objections(bench))


@pytest.mark.parametrize("kind", ["start", "stop", "clean"])
def test_one_operation_at_a_time_owns_a_guest(kind: str) -> None:
    bench = waiting(Bench())
    bench.state.pending["x"] = Pending(kind=kind, host="h3", guest="g1", deadline=NOW + 9)
    assert any("has not ended" in why for why in objections(bench))


def test_all_objections_come_at_once() -> None:
    bench = waiting(Bench())
    bench.put(
        changed(bench.guest("g1"), definition=0, may_run_on=(Place(host="h1", boot_id="b", generation=1),))
    )
    bench.look("h2", session="", acked_epoch=0)
    bench.put(host("h2", HostPhase.SUSPECT))
    assert len(objections(bench)) >= 5


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(0, 9))
def test_hold_until_more_than_half_have_acknowledged(acked: list[bool], dead: int) -> None:
    """Hosts proven dead in this term count beside one that acknowledged; one that knows more may be missing."""
    names = [f"h{n}" for n in range(1, len(acked) + 1)]
    bench = Bench(*names)
    for number, (name, yes) in enumerate(zip(names, acked, strict=True)):
        if not yes:
            bench.look(name, acked_epoch=0, session="")
            if number < dead:
                bench.put(host(name, HostPhase.FENCED, dead_at=NOW))
    known = sum(yes or number < dead for number, yes in enumerate(acked))
    assert bool(quorum.hold(bench.draft())) == (
        known < len(names) and (2 * known <= len(names) or not any(acked))
    )


# ---- other tickets


def test_stop_only_where_it_runs_alone_and_its_place_stays() -> None:
    bench = Bench().put(guest("g1", "h1"))
    draft = bench.draft()
    assert onecopy.issue_stop(draft, bench.guest("g1"), bench.host("h1"), "destroy") == []
    after = draft.changes().guests["g1"]
    assert after is not None
    assert [place.host for place in after.may_run_on] == ["h1"]
    (effect,) = draft.decision().effects
    assert isinstance(effect, Send)
    assert isinstance(effect.body, Stop)
    assert effect.body.ticket.generation == 2 == after.generation
    assert onecopy.issue_stop(bench.draft(), bench.guest("g1"), bench.host("h2"), "destroy")


def test_clean_only_where_another_host_shows_it_running() -> None:
    bench = Bench().put(guest("g1", "h1"))
    assert onecopy.issue_clean(bench.draft(), bench.guest("g1"), bench.host("h2")) == []
    assert onecopy.issue_clean(bench.draft(), bench.guest("g1"), bench.host("h1")), "the holder itself"
    bench.look("h1", guests={})
    assert onecopy.issue_clean(bench.draft(), bench.guest("g1"), bench.host("h2")), (
        "its holder does not show it"
    )
    bench = Bench().put(guest("g1", phase=GuestPhase.RECOVERING))
    assert onecopy.issue_clean(bench.draft(), bench.guest("g1"), bench.host("h2"))


# ---- proofs


def test_a_proof_is_for_one_boot() -> None:
    old, new = (Place(host="h1", boot_id=f"h1-b{n}", generation=1) for n in (1, 2))
    bench = Bench().put(changed(guest("g1", "h1"), may_run_on=(old, new)))
    draft = bench.draft()
    proof = Proof(kind=ProofKind.POWER, host="h1", boot_id="h1-b1", text="off")
    assert onecopy.prove_boot_over(draft, proof) == ["g1"]
    after = draft.guest("g1")
    assert after is not None
    assert after.may_run_on == (new,)
    (note,) = draft.changes().notes
    assert note.proof is not None
    assert (note.proof.kind, note.proof.at) == (ProofKind.POWER, bench.now)


@given(
    st.sampled_from(list(Sighting)),
    st.integers(0, 6),
    st.integers(1, 6),
    st.sampled_from(["h1", "h2"]),
    st.sampled_from(["h1-b1", "h1-b0"]),
)
def test_testimony_frees_only_sealed_generations_of_its_own_boot(
    sighting: Sighting, sealed: int, generation: int, witness: str, boot: str
) -> None:
    place = Place(host="h1", boot_id=boot, generation=generation)
    bench = Bench().put(changed(guest("g1", "h1"), may_run_on=(place,), generation=generation))
    draft = bench.draft()
    onecopy.accept_testimony(
        draft, bench.host(witness), commands.Testimony(guest="g1", sighting=sighting, sealed=sealed)
    )
    after = draft.guest("g1")
    assert after is not None
    freed = sighting is Sighting.ABSENT and sealed >= generation and witness == "h1" and boot == "h1-b1"
    assert (after.may_run_on == ()) == freed


def test_a_guest_that_went_and_came_back_between_two_reports_is_seen_again() -> None:
    """A start fails, the next one succeeds at once: the inventory is what it was, so its agent does not repeat it."""
    bench = Bench().put(guest("g1", "h1", GuestPhase.UNKNOWN))
    bench.see("h1", domain("g1"))
    for sighting, seen in ((Sighting.ABSENT, False), (Sighting.PRESENT, True)):
        draft = bench.draft()
        onecopy.accept_testimony(draft, bench.host("h1"), commands.Testimony(guest="g1", sighting=sighting))
        bench.state.apply(draft)
        assert whereabouts.seen_active(bench.draft(), "g1", "h1", "h1-b1") is seen


def test_a_later_inventory_stands_although_the_guest_was_overruled() -> None:
    bench = Bench().put(guest("g1", "h1", GuestPhase.UNKNOWN))
    bench.see("h1", domain("g1"))
    draft = bench.draft()
    gone = commands.Testimony(guest="g1", sighting=Sighting.ABSENT)
    onecopy.accept_testimony(draft, bench.host("h1"), gone)
    bench.state.apply(draft)
    bench.send(Reported(host="h1", session="s-h1", guests=(domain("g1", DomainState.SHUTOFF),)))
    draft = bench.draft()
    onecopy.accept_testimony(draft, bench.host("h1"), changed(gone, sighting=Sighting.PRESENT))
    assert not whereabouts.seen_active(draft, "g1", "h1", "h1-b1"), "what it says next comes as a report"


def test_power_off_frees_no_place_where_the_hook_may_not_know_the_guest() -> None:
    """A person's word does, and so does the host's next boot, which takes the old one's place."""
    for kind, left in (
        (ProofKind.POWER, {"h1-b1"}),
        (ProofKind.OPERATOR, set()),
        (ProofKind.REBOOT, {"h1-b2"}),
    ):
        bench = Bench().put(guest("g1", "h1", GuestPhase.PROTECTING), host("h1", protected_version=4))
        draft = bench.draft()
        proof = Proof(kind=kind, host="h1", boot_id="h1-b1", text="t")
        back = changed(bench.host("h1"), boot_id="h1-b2") if kind is ProofKind.REBOOT else None
        onecopy.prove_boot_over(draft, proof, now=back)
        record = draft.guest("g1")
        assert record is not None
        assert {place.boot_id for place in record.may_run_on} == left


def test_testimony_is_asked_up_to_the_newest_generation_and_not_in_a_loop() -> None:
    bench = Bench().put(changed(guest("g1", "h1", GuestPhase.UNKNOWN), generation=7))
    draft = bench.draft()
    assert whereabouts.ask_testimony(draft, bench.host("h1"), [bench.guest("g1")])
    (effect,) = draft.decision().effects
    assert isinstance(effect, Send)
    assert isinstance(effect.body, commands.Testify)
    assert [(q.guest, q.generation) for q in effect.body.questions] == [("g1", 7)]
    bench.state.apply(draft)
    bench.state.pending.clear()
    assert not whereabouts.ask_testimony(bench.draft(), bench.host("h1"), [bench.guest("g1")]), "just asked"
    bench.now += whereabouts.ASK_AGAIN_S
    assert whereabouts.ask_testimony(bench.draft(), bench.host("h1"), [bench.guest("g1")])


# ---- nothing goes round


def _writes(tree: ast.AST) -> list[tuple[int, str]]:
    """Keyword arguments that set what only `onecopy` may set of a guest."""
    return [
        (node.lineno, keyword.arg)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("may_run_on", "generation")
        and getattr(node.func, "id", getattr(node.func, "attr", ""))
        in ("changed", "replace", "GuestRecord", "Place")
    ]


def test_only_onecopy_writes_places_and_generations() -> None:
    """No playbook, command or bug elsewhere goes round the one place that checks."""
    found = {}
    for path in sorted(CORE.rglob("*.py")):
        # The doctor asks "what if" of a draft that nobody applies.
        if path.name not in ("onecopy.py", "warden.py", "doctor.py") and (
            writes := _writes(ast.parse(path.read_text()))
        ):
            found[str(path.relative_to(CORE))] = writes
    assert found == {}
    assert _writes(ast.parse((CORE / "core/onecopy.py").read_text())), "the search itself works"


def test_only_onecopy_makes_tickets() -> None:
    for path in sorted(CORE.rglob("*.py")):
        if path.name == "onecopy.py":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        named = {getattr(call.func, "id", getattr(call.func, "attr", "")) for call in calls}
        assert "Ticket" not in named, path
