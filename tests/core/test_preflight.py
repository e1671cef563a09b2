"""Pre-flight: every check has a name, a verdict, a sentence and a fix, and what refuses is what keeps a move back."""

from __future__ import annotations

from typing import Any

import pytest

from dr.core import forecast, moves, preflight
from dr.model.base import changed
from dr.model.effects import Reply
from dr.model.events import AskMigrate
from dr.model.facts import DomainState, HookState, Level, PagePool, Part, Reading, Tie, TieKind
from dr.model.policy import GuestPolicy, GuestRule
from dr.model.preflight import COSTLY, Check, CheckName, Verdict
from dr.model.records import HostPhase, Pause, Wish
from tests.core.build import NOW, Bench, domain, facts, guest, host

POOL = PagePool(size_kib=2048, total=1, free=1)


def bench(**fields: Any) -> Bench:
    names = ("h1", "h2", "h3")
    made = Bench(*names).put(*(host(n, facts=facts(n, live_migration=True)) for n in names))
    made.put(guest("g1", "h1", **fields))
    made.see("h1", domain("g1", ties=()))
    return made


def flight(made: Bench, to: str = "h2", **fields: Any) -> preflight.Preflight:
    return preflight.of(made.draft(), made.guest("g1"), to, **fields)


def wrong(made: Bench, to: str = "h2", **fields: Any) -> dict[CheckName, Check]:
    return {c.name: c for c in flight(made, to, **fields).checks if c.verdict is not Verdict.OK}


def test_all_is_told_in_one_order_each_once() -> None:
    found = flight(bench())
    assert [check.name for check in found.checks] == list(CheckName)
    assert {check.verdict for check in found.checks} == {Verdict.OK}
    assert all(check.text and not check.fix and "{" not in check.text for check in found.checks)
    assert found.refusals == []
    assert flight(bench(), to="").to == "h2"


def tied(kind: TieKind, what: str = "") -> Bench:
    made = bench()
    made.see("h1", domain("g1", ties=(Tie(kind=kind, what=what),)))
    return made


def stands(**fields: Any) -> Bench:
    made = bench()
    made.see("h1", domain("g1", **({"ties": ()} | fields)))
    return made


def there(**fields: Any) -> Bench:
    """The destination is not as it should be."""
    made = bench()
    return made.put(changed(made.host("h2"), **fields))


def there_has(**fields: Any) -> Bench:
    return there(facts=facts("h2", **({"live_migration": True} | fields)))


def paused() -> Bench:
    made = bench()
    made.state.cluster = changed(made.state.cluster, pause=Pause(reason="night", by="ops", at=NOW))
    return made


def restored() -> Bench:
    made = bench()
    made.state.cluster = changed(made.state.cluster, restored="of yesterday")
    return made


def lost() -> Bench:
    made = bench()
    made.silence("h1")
    return made


def kept_apart() -> Bench:
    made = bench().put(guest("g2", "h2"))
    rule = GuestRule(name="pair", kind="apart", guests=("g1", "g2"), strict=True)
    made.state.settings = changed(made.state.settings, rules=(rule,))
    return made


def seen_there(**fields: Any) -> Bench:
    made = bench()
    made.see("h2", changed(domain("g1"), **fields))
    return made


def needing(**fields: Any) -> Bench:
    made = bench()
    made.put(changed(made.guest("g1"), needs=changed(made.guest("g1").needs, **fields)))
    made.see("h1", domain("g1", ties=()))
    return made


FREE = "detach it."
WISH = Wish(by="bob", reason="new DIMM")
BLOCKED = [
    (stands(state=DomainState.PMSUSPENDED), CheckName.STATE, "virsh dompmwakeup g1, on h1"),
    (stands(part=Part.LEAVING), CheckName.STATE, "virsh domjobinfo g1, on h1"),
    (stands(state=DomainState.PAUSED, reason="ioerror"), CheckName.IO_ERROR, "virsh resume g1, on h1"),
    (paused(), CheckName.AUTOMATION, "dr resume"),
    (bench(blockers=("has a local disk",)), CheckName.DEFINITION, ""),
    (tied(TieKind.SNAPSHOT), CheckName.SNAPSHOTS, "virsh snapshot-delete g1 NAME, on h1"),
    (tied(TieKind.BLOCK_JOB, "vdb"), CheckName.BLOCK_JOBS, "virsh blockjob g1 vdb --abort, on h1"),
    (tied(TieKind.BACKUP), CheckName.BACKUP, "virsh domjobabort g1, on h1"),
    (tied(TieKind.HOST_DEVICE, f"it uses a pci device: {FREE}"), CheckName.HOST_DEVICES, FREE),
    (tied(TieKind.VTPM, f"it has a TPM: {FREE}"), CheckName.VTPM, FREE),
    (tied(TieKind.FILE_SYSTEM, f"it has a folder: {FREE}"), CheckName.FILE_SYSTEMS, FREE),
    (tied(TieKind.SECRET, f"it needs a secret: {FREE}"), CheckName.SECRETS, FREE),
    (tied(TieKind.ENCRYPTION, f"it is encrypted: {FREE}"), CheckName.ENCRYPTION, FREE),
    (there(drain=WISH), CheckName.DESTINATION, "dr host undrain h2"),
    (there(cordon=WISH), CheckName.DESTINATION, "dr host uncordon h2"),
    (there(phase=HostPhase.SUSPECT), CheckName.DESTINATION, "bring h2 back: dr host show h2"),
    (there_has(live_migration=False), CheckName.DESTINATION, "migration_uri in /etc/dr/agent.yaml of h2"),
    (there_has(hook=HookState(proven=False)), CheckName.DESTINATION, ""),
    (kept_apart(), CheckName.RULES, "another rule"),
    (there_has(memory_mib=1024), CheckName.ROOM, "free room on h2"),
    (needing(machine="pc-q35-9.9"), CheckName.MACHINE, "the same QEMU on h2"),
    (needing(domain_type="xen"), CheckName.MACHINE, "the same QEMU on h2"),
    (needing(cpu_model="Nehalem"), CheckName.CPU, "a CPU model"),
    (needing(page_kib=2048), CheckName.HUGE_PAGES, "more huge pages on h2"),
    (there_has(networks=()), CheckName.NETWORKS, "bring that network up on h2"),
    (there_has(storage=()), CheckName.STORAGE, "dr host show h2"),
    (seen_there(state=DomainState.PAUSED), CheckName.NAME, "dr guest show g1"),
    (seen_there(id="g9", state=DomainState.SHUTOFF), CheckName.NAME, "virsh domrename g9 NAME, on h2"),
]


@pytest.mark.parametrize(("made", "name", "fix"), BLOCKED, ids=[str(name) for _, name, _ in BLOCKED])
def test_each_check_can_fail_and_then_nothing_moves(made: Bench, name: CheckName, fix: str) -> None:
    (check,) = wrong(made).values()
    assert (check.name, check.verdict, check.refuses) == (name, Verdict.BLOCKED, True)
    assert fix in check.fix
    assert bool(check.fix) or not fix
    assert "{" not in check.text + check.fix
    assert not check.text.endswith((".", ":"))
    draft = made.draft()
    assert moves.begin(draft, made.guest("g1"), "h2") == [check.text]
    assert not list(draft.decision().effects)


@pytest.mark.parametrize(("made", "name"), [(lost(), CheckName.STATE), (restored(), CheckName.STORE)])
def test_what_may_cost_the_guest_and_is_unknown_keeps_it_where_it_is(made: Bench, name: CheckName) -> None:
    check = wrong(made)[name]
    assert (check.verdict, check.refuses) == (Verdict.UNKNOWN, True)
    assert name in COSTLY
    assert check.text in moves.objections(made.draft(), made.guest("g1"), "h2")


def test_what_only_libvirt_could_refuse_is_told_and_tried() -> None:
    untold = stands(ties=None)
    of_its_cpu = stands(cpu="")
    unread = bench()
    unread.look("h2", inventory=False)
    kinds = {tied.check for tied in preflight.TIED.values()}
    for made, names in (
        (untold, kinds),
        (of_its_cpu, {CheckName.CPU}),
        (unread, {CheckName.NAME}),
    ):
        assert wrong(made).keys() == names
        assert {check.verdict for check in wrong(made).values()} == {Verdict.UNKNOWN}
        assert flight(made).refusals == []


def test_a_warning_holds_nothing_up() -> None:
    slow = Reading(part="libvirt", level=Level.WARN, reason="it takes 4 s to answer")
    late = Reading(part="clock", level=Level.WARN, reason="2 s behind")
    found = wrong(there(health=(slow, late)))
    assert {name: check.verdict for name, check in found.items()} == {
        CheckName.HEALTH: Verdict.WARNING,
        CheckName.CLOCK: Verdict.WARNING,
    }
    assert "it takes 4 s to answer" in found[CheckName.HEALTH].text
    assert flight(there(health=(slow, late))).refusals == []
    made = bench()
    made.put(changed(made.host("h1"), health=(late,)))
    assert "the clock of h1" in wrong(made)[CheckName.CLOCK].text, "the guest comes from there"


def test_a_dead_libvirtd_is_told_once() -> None:
    dead = Reading(part="libvirt", level=Level.CRITICAL, reason="no answer")
    assert wrong(there(health=(dead,))).keys() == {CheckName.DESTINATION}


def test_it_goes_where_its_name_is_free() -> None:
    made = seen_there(id="g9", state=DomainState.SHUTOFF)
    assert flight(made, to="").to == "h3"
    made.see("h3", changed(domain("g1"), id="g8", state=DomainState.SHUTOFF))
    found = flight(made, to="")
    assert found.to == ""
    text = "; ".join(found.refusals)
    assert "h2 has another guest that is named g1, with the UUID g9" in text
    assert "h3 has another guest that is named g1, with the UUID g8" in text
    assert {check.name for check in found.checks if check.name not in preflight.AT_SOURCE} == {
        CheckName.DESTINATION,
        CheckName.NAME,
    }, "nothing is said of a destination that there is not"


def test_a_person_moves_it_while_automation_is_paused() -> None:
    assert wrong(paused(), asked=True) == {}


def test_one_list_for_the_dry_run_the_drain_and_the_refusal() -> None:
    made = tied(TieKind.BACKUP)
    found = flight(made, to="", asked=True)
    ask = AskMigrate(id="m", by="ops", guests=("g1",))
    for dry_run in (True, False):
        effects = made.send(changed(ask, dry_run=dry_run))
        reply = next(each for each in effects if isinstance(each, Reply))
        assert reply.accepted is dry_run
        if dry_run:
            (told,) = reply.guests
            assert (told.fate, told.to, told.checks) == ("blocked", "", found.checks)
            assert list(told.why) == found.refusals
            assert "virsh domjobabort g1, on h1" in told.todo[0]
        else:
            assert list(reply.blockers) == found.refusals
    (drained,) = forecast.of_drain(made.draft(), made.host("h1"), WISH).guests
    assert (drained.fate, drained.checks) == ("blocked", found.checks)
    assert "virsh domjobabort g1, on h1" in drained.todo[0]


def test_who_goes_along_has_a_list_of_its_own() -> None:
    made = bench().put(guest("g2", "h1", policy=GuestPolicy(priority=900)))
    rule = GuestRule(name="pair", kind="together", guests=("g1", "g2"), strict=True)
    made.state.settings = changed(made.state.settings, rules=(rule,))
    told = forecast.of_drain(made.draft(), made.host("h1"), WISH).guests
    assert [(each.name, each.fate, len(each.checks)) for each in told] == [
        ("g2", "live", len(CheckName)),
        ("g1", "live", len(CheckName)),
    ]
