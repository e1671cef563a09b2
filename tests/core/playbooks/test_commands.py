"""Commands of playbooks: what no configuration may allow, what a value may be, and what becomes of each way to end."""

from __future__ import annotations

import pytest

from dr.core.decide import decide
from dr.model.allowed import Allowed, Report, ends_host, filled, why_not_allowed, wrong_with
from dr.model.base import changed
from dr.model.decision import Changes
from dr.model.effects import RunCommand
from dr.model.events import CommandEnded, Reconfigured, Started, Tick
from dr.model.operations import OperationState
from dr.model.records import HostPhase, Wish
from dr.model.settings import Settings
from tests.core.build import Bench, guest, host
from tests.core.playbooks.runs import Runs

UPDATE = Allowed(name="update", argv=("/usr/bin/dnf", "-y", "upgrade"), timeout_s=600.0)
REBOOT = Allowed(name="reboot", argv=("/usr/sbin/reboot",), timeout_s=300.0, reboots=True)
OFF = Allowed(name="power-off", argv=("/usr/sbin/poweroff",), powers_off=True)
TOLD = Allowed(name="told", argv=("/opt/tell", "--to", "${whom}", "${what}"))
WELL = Report(state="ended", code=0, output="Complete!\n", bytes=10, digest="d")


@pytest.mark.parametrize(
    "argv",
    [
        ("/usr/bin/virsh", "start", "g1"),
        ("virsh", "list"),
        ("/usr/bin/env", "LANG=C", "virsh", "list"),
        ("/usr/bin/sudo", "-n", "/usr/bin/virsh", "destroy", "g1"),
        ("/usr/bin/timeout", "9", "nice", "virt-install"),
        ("/bin/sh", "-c", "cd /; exec virsh start g1"),
        ("/bin/bash", "-c", "x=1;/usr/bin/qemu-system-x86_64 -nographic"),
        ("/usr/bin/qemu-img", "convert", "a", "b"),
        ("/usr/bin/systemctl", "restart", "libvirtd.service"),
        ("/usr/bin/systemctl", "stop", "virtqemud.socket"),
        ("/usr/bin/pkill", "qemu-kvm"),
        ("/usr/sbin/libvirtd", "--daemon"),
    ],
)
def test_what_drives_guests_is_never_allowed(argv: tuple[str, ...]) -> None:
    assert "drives guests" in why_not_allowed(argv)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("dnf", "-y", "upgrade"), "by its whole path"),
        (("${what}", "x"), "by its whole path"),
        (("/usr/bin/dnf", "--${what}"), "a whole word of its own"),
        (("/usr/bin/dnf", "${what} now"), "a whole word of its own"),
        (("/usr/bin/dnf", "${"), "begins a parameter"),
        (("/bin/sh", "-c", "${what}"), "sh runs what its words say"),
        (("/bin/sh", "-c", 'echo "$1"', "x", "${what}"), "sh runs what its words say"),
        (("/usr/bin/env", "${what}"), "env runs what its words say"),
        (("/usr/bin/pkexec", "${what}"), "pkexec runs what its words say"),
        (("/usr/bin/python3-dbg", "-c", "${what}"), "python3-dbg runs what its words say"),
        (("/usr/bin/sudo", "-n", "/opt/tool", "${what}"), "sudo runs what its words say"),
        (("/usr/bin/python3", "/opt/tool.py", "${what}"), "python3 runs what its words say"),
        (("/usr/bin/python3.11", "${what}"), "python3.11 runs what its words say"),
        (("/usr/bin/find", "/", "${what}"), "find runs what its words say"),
    ],
)
def test_words_that_a_value_could_turn_into_something_else(argv: tuple[str, ...], why: str) -> None:
    assert why in why_not_allowed(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ("/usr/bin/dnf", "-y", "upgrade"),
        ("/usr/bin/systemctl", "reboot"),
        ("/bin/sh", "-c", "apt-get update && apt-get -y dist-upgrade"),
        ("/opt/site/prepare-host", "--for", "${why}", "${why}"),
    ],
)
def test_what_may_be_allowed(argv: tuple[str, ...]) -> None:
    assert why_not_allowed(argv) == ""


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"whom": "ops", "what": "$(reboot); `x` && 'y'"}, []),
        ({"whom": "ops"}, ["told needs `with: {what: …}`"]),
        ({"whom": "o", "what": "x", "who": "y"}, ["told has no parameter who; it has: whom, what"]),
        (
            {"whom": "-rf", "what": "x"},
            ["whom begins with a dash, as options do; `dashes: true` in the configuration allows it"],
        ),
        ({"whom": "a\nb", "what": "x\0"}, ["whom has a character", "what has a character"]),
        ({"whom": "", "what": "x" * 1025}, ["whom is empty", "what is longer than 1024 characters"]),
    ],
)
def test_values(values: dict[str, str], wrong: list[str]) -> None:
    found = wrong_with(TOLD, values)
    assert len(found) == len(wrong)
    assert all(text.startswith(begin) for text, begin in zip(found, wrong, strict=True))


def test_a_value_stays_one_word() -> None:
    odd = "a b; reboot ${what} $(x) \"'"
    assert filled(TOLD, {"whom": "ops", "what": odd}) == ("/opt/tell", "--to", "ops", odd)
    assert wrong_with(changed(TOLD, dashes=True), {"whom": "-rf", "what": "x"}) == []


# ---- on a bench


@pytest.fixture
def runs() -> Runs:
    commands = {each.name: each for each in (UPDATE, REBOOT, TOLD, OFF)}
    bench = Bench()
    bench.put(*(host(name) for name in ("h1", "h2")))
    bench.put(guest("g1", "h2"))
    bench.send(Reconfigured(settings=changed(bench.state.settings, commands=commands)))
    return Runs(bench)


def sent(runs: Runs) -> list[RunCommand]:
    return [effect for effect in runs.bench.effects if isinstance(effect, RunCommand)]


def ends(runs: Runs, report: Report) -> None:
    runs.bench.send(
        CommandEnded(effect=sent(runs)[-1].id, host=sent(runs)[-1].host, report=report), after=0.5
    )


def restart(runs: Runs) -> None:
    """The coordinator is killed: what was not written is gone."""
    runs.bench.state.pending.clear()
    runs.bench.send(Started(leader_id="next", machine="m", cluster="c"))


def test_one_after_the_other_and_none_after_a_failure(runs: Runs) -> None:
    runs.run("steps: [{run: update, on: [h1, h2]}]")
    assert [(each.host, each.argv, each.timeout_s) for each in sent(runs)] == [("h1", UPDATE.argv, 600.0)]
    ends(runs, WELL)
    runs.go()
    assert [each.host for each in sent(runs)] == ["h1", "h2"]
    ends(runs, Report(state="ended", code=2, output="no\nspace left\n", bytes=14, digest="e"))
    runs.go()
    assert runs.operation.state is OperationState.FAILED
    assert [(each.state, each.code, each.last) for each in runs.steps[0].commands] == [
        ("done", 0, "Complete!"),
        ("failed", 2, "space left"),
    ]
    assert "h2: exit code 2" in runs.steps[0].text


def test_a_retry_runs_it_only_where_it_has_not_ended_well(runs: Runs) -> None:
    runs.run("steps: [{run: update, on: [h1, h2], retry: 1}]")
    ends(runs, WELL)
    runs.go()
    ends(runs, changed(WELL, code=1))
    runs.go(12)
    assert [each.host for each in sent(runs)] == ["h1", "h2", "h2"]
    assert len({each.id for each in sent(runs)}) == 3, "another try is another command"
    ends(runs, WELL)
    runs.go()
    assert runs.operation.state is OperationState.DONE


def test_what_it_said_is_written_with_what_came_of_it(runs: Runs) -> None:
    runs.run("steps: [{run: update, on: h1}]")
    event = CommandEnded(effect=sent(runs)[0].id, host="h1", report=WELL)
    changes: Changes = decide(runs.bench.state, event, runs.bench.now + 1.0).changes()
    (output,) = changes.outputs
    assert (output.operation, output.step, output.on, output.report) == (runs.job, 1, "h1", WELL)
    assert runs.job in changes.operations


@pytest.mark.parametrize("heard", ["lost", "nothing", "killed"])
def test_what_is_not_heard_of_is_asked_for_again_under_the_same_id(heard: str, runs: Runs) -> None:
    runs.run("steps: [{run: update, on: h1}]")
    if heard == "lost":
        ends(runs, Report(state="lost", reason="the connection was lost"))
        assert len(sent(runs)) == 1, "not at once"
    elif heard == "killed":
        restart(runs)
    runs.go(100)
    again = sent(runs)
    assert len(again) > 1
    assert {(each.id, each.argv, each.boot_id) for each in again} == {
        (again[0].id, UPDATE.argv, again[0].boot_id)
    }
    ends(runs, WELL)
    runs.go()
    assert runs.operation.state is OperationState.DONE


def test_nobody_is_asked_for_ever(runs: Runs) -> None:
    runs.run("steps: [{run: update, on: h1, timeout: 2h, retry: 3}]")
    for _ in range(800):
        if runs.bench.state.pending:
            ends(runs, Report(state="lost", reason="it is under way"))
        runs.go()
    assert runs.operation.state is OperationState.FAILED
    assert "h1: unknown: nothing was heard of its end" in runs.steps[0].text
    assert len({each.id for each in sent(runs)}) == 1, "what is unknown is not tried anew"


@pytest.mark.parametrize(
    ("reports", "state", "says"),
    [
        ([Report(state="unknown", reason="killed")], "unknown", "unknown: killed"),
        ([Report(state="refused", reason="no such file")], "failed", "not run: no such file"),
        ([Report(state="other_boot", reason="another boot")], "failed", "not run: another boot"),
        (
            [Report(state="lost"), Report(state="other_boot", reason="another boot")],
            "unknown",
            "unknown: another boot",
        ),
        (
            [Report(state="unreached", reason="no way"), Report(state="other_boot", reason="another boot")],
            "failed",
            "not run: another boot",
        ),
    ],
)
def test_what_is_known_of_one_that_did_not_end(
    reports: list[Report], state: str, says: str, runs: Runs
) -> None:
    runs.run("steps: [{run: update, on: h1}]")
    for report in reports:
        ends(runs, report)
        runs.go(6)
    (command,) = runs.steps[0].commands
    assert (command.state, command.said) == (state, says)
    assert runs.operation.state is OperationState.FAILED


def test_a_step_that_is_out_of_time(runs: Runs) -> None:
    """What may run is unknown, and its end is still written down; what never reached its host was not run."""
    runs.run(
        "steps: [{run: update, on: h1, timeout: 10s, on_fail: continue}, {run: update, on: h2, timeout: 10s}]"
    )
    runs.go(12)
    assert runs.steps[0].commands[0].said.startswith("unknown: it was under way")
    first, second = sent(runs)
    runs.bench.send(CommandEnded(effect=first.id, host="h1", report=WELL), after=0.5)
    assert runs.steps[0].commands[0].state == "done"
    assert runs.steps[0].state == "failed", "it came too late for its step"
    unreached = CommandEnded(effect=second.id, host="h2", report=Report(state="unreached", reason="no way"))
    runs.bench.send(unreached, after=0.5)
    runs.go(12)
    assert runs.steps[1].commands[0].said.startswith("unknown: it was under way")
    runs.bench.send(unreached, after=0.5)
    assert runs.steps[1].commands[0].said == "not run: no way"


def test_a_reboot_is_over_when_its_host_is_back_as_it_was(runs: Runs) -> None:
    bench = runs.bench
    bench.put(host("h1", phase=HostPhase.MAINTENANCE, drain=Wish(by="ops", reason="new DIMM")))
    runs.run("steps: [{run: reboot, on: h1}]")
    ends(runs, WELL)
    runs.go(60)
    assert runs.steps[0].state == "running"
    bench.put(changed(bench.state.hosts["h1"], boot_id="b2"))
    runs.go(2)
    assert runs.operation.state is OperationState.DONE
    assert "back with a new boot" in runs.steps[0].text


def test_a_host_with_guests_is_not_rebooted(runs: Runs) -> None:
    runs.run("steps: [{run: reboot, on: h2}]")
    runs.go(40)
    assert sent(runs) == []
    assert runs.steps[0].text == "reboot reboots h2, and g1 may run there: drain it first"


def test_a_host_that_is_to_go_down_is_over_when_it_is_silent(runs: Runs) -> None:
    bench = runs.bench
    bench.put(host("h1", phase=HostPhase.MAINTENANCE, drain=Wish(by="ops", reason="no power")))
    runs.run("steps: [{run: power-off, on: h1}]")
    ends(runs, WELL)
    runs.go(30)
    assert runs.steps[0].state == "running", "its agent is still heard"
    bench.silence("h1", since=0.0)
    for _ in range(40):
        bench.now += 0.5
        bench.hear("h2")
        bench.send(Tick(lag_s=0.0))
    assert runs.operation.state is OperationState.DONE
    assert "not heard any more" in runs.steps[0].text


def test_a_host_that_does_not_go_down_has_failed_to(runs: Runs) -> None:
    runs.run("steps: [{run: power-off, on: h1}]")
    ends(runs, WELL)
    runs.go(500)
    assert "h1 is still heard" in runs.steps[0].text


@pytest.mark.parametrize("why", ["guests", "coordinator"])
def test_a_host_that_is_needed_is_not_switched_off(why: str, runs: Runs) -> None:
    if why == "coordinator":
        runs.bench.state.own_boot = runs.bench.state.hosts["h1"].boot_id
    runs.run(f"steps: [{{run: power-off, on: {'h1' if why == 'coordinator' else 'h2'}}}]")
    runs.go(40)
    assert sent(runs) == []
    assert ("the coordinator runs on h1" if why == "coordinator" else "g1 may run there") in runs.steps[
        0
    ].text


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (
            "{run: upgrade, on: h1}",
            "allows no command named upgrade; it allows: power-off, reboot, told, update",
        ),
        ("{run: told, on: h1, with: {whom: ops}}", "told needs `with: {what: …}`"),
        ("{run: update, in: g1}", "update is a command for hosts: write `on:`"),
        ("{cordon: h1, undo: {run: upgrade, on: h1}}", "allows no command named upgrade"),
    ],
)
def test_what_is_not_allowed_begins_nothing(step: str, told: str, runs: Runs) -> None:
    reply = runs.run(f"steps: [{{notify: x}}, {step}]")
    assert not reply.accepted
    assert told in "; ".join(reply.blockers)


def test_a_dry_run_tells_what_would_be_run_where(runs: Runs) -> None:
    reply = runs.run(
        "params: {what: {}}\nsteps: [{run: told, on: [h1], with: {whom: ops, what: '${what}'}}, {run: reboot, on: h2}]",
        dry_run=True,
        what="a b",
    )
    assert reply.steps[0].todo == ("h1: to be run: /opt/tell --to ops a b",)
    assert reply.steps[1].why == ("reboot reboots h2, and g1 may run there: drain it first",)
    assert sent(runs) == []


def test_one_that_was_taken_off_the_list_is_not_begun(runs: Runs) -> None:
    """The list counts as it is when its turn comes; what is under way goes on."""
    runs.run("steps: [{run: update, on: [h1, h2]}]")
    runs.bench.send(Reconfigured(settings=Settings()))
    ends(runs, WELL)
    runs.go()
    assert [each.host for each in sent(runs)] == ["h1"]
    assert "allows no command named update" in runs.steps[0].text


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (("/usr/sbin/reboot",), "reboot"),
        (("/usr/bin/systemctl", "isolate", "reboot.target"), "reboot"),
        (("/usr/bin/systemctl", "soft-reboot"), "soft-reboot"),
        (("/usr/bin/sudo", "sh", "-c", "sleep 1; systemctl poweroff"), "poweroff"),
        (("/sbin/init", "6"), "6"),
        (("/usr/sbin/shutdown", "-h", "now"), "shutdown"),
        (("/usr/sbin/shutdown", "-c"), ""),
        (("/usr/bin/last", "reboot"), ""),
        (("/usr/bin/dnf", "-y", "upgrade"), ""),
    ],
)
def test_what_ends_its_host_is_seen_by_its_words(argv: tuple[str, ...], word: str) -> None:
    assert ends_host(argv) == word
