"""What the scenario language refuses, each with its place; what it reads and writes; what a run finds wrong."""

from __future__ import annotations

import pytest

from dr.cli.scenario_file import loads
from dr.cli.yamlfile import BadFile
from dr.sim.run import Result, run
from dr.sim.scenario.facts import GuestIs
from dr.sim.scenario.language import Act, Expectation, GuestSpec, HostSpec, Scenario, dump
from dr.sim.scenario.verbs_hosts import Freeze
from dr.sim.world import World

WORLD = "shows: A test.\nhosts: [h1, h2, h3]\nguests: {g1: h1, g2: h2}\n"


def refused(text: str) -> list[str]:
    with pytest.raises(BadFile) as caught:
        loads(text, "f.yaml")
    return [problem.text("f") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("do: [{at: -5s, power_off: h1}]", 'do[0].at: must be a time such as 5s, 1m30s or 250ms, not "-5s"'),
        ("do: [{at: 5, powr_off: h1}]", "do[0].powr_off: unknown key; did you mean power_off?"),
        ("do: [{at: 5s, power_off: h7}]", "do[0].power_off: no host is named h7; there are: h1, h2, h3"),
        (
            "lasts: 9s\ndo: [{at: 10s, power_off: h1}]",
            "do[0].at: is after the end at 9 s: it would never come",
        ),
        ("lasts: 9s\nexpect: [{at: 10s, guest: g1, runs: true}]", "expect[0].at: is after the end at 9 s"),
        (
            "do: [{at: 5s, starts_fail: g1, times: 0}]",
            "do[0].times: must be a whole number, at least 1, not 0",
        ),
        (
            "do: [{at: 5s, power_off: h1, power_on: h1}]",
            "do[0].power_on: one verb in each entry: power_off stands",
        ),
        ("do: [{at: 5s}]", "do[0]: no verb is named; one of power_off"),
        (
            "do: [{at: 5s, when: {host: h1, is: fenced}, power_on: h1}]",
            "do[0].at: a time since the beginning",
        ),
        ("do: [{when: {guest: g1, is: runing}, power_on: h1}]", "do[0].when.is: must be one of protecting"),
        ("do: [{at: 5s, restore: x}]", "do[0].restore: no backup is named x before this, only: none"),
        ("do: [{at: 5s, join: h2}]", "do[0].join: there is a host h2 already"),
        ("do: [{at: 5s, add_guest: g1, on: h1}]", "do[0].add_guest: there is a guest g1 already"),
        ("do: [{at: 5s, if: {guest: g9, runs: true}, reset: h1}]", "do[0].if.guest: no guest is named g9"),
        ("do: [{at: 5s, if: {guest: g1}, reset: h1}]", "do[0].if: says nothing of guest; one of is"),
        ("do: [{at: 5s, messages: lost, kind: beat, of: h1, by: 1s}]", "do[0].by: says how late"),
        ("do: [{at: 5s, messages: late, kind: start, of: h1}]", "do[0].by: says how late"),
        (
            "do: [{at: 5s, messages: repeated, kind: look, of: h1, by: 1s}]",
            "do[0].messages: a look is no message that could come twice",
        ),
        ("do: [{at: 5s, libvirtd: slow, on: h1}]", "do[0].by: says how slow"),
        ("do: [{at: 5s, store: fails, by: 1s}]", "do[0].by: says how slow"),
        ("do: [{at: 5s, block: h1, to: h1}]", "do[0].to: h1 cannot be cut off from itself"),
        (
            "do: [{at: 5s, coordinator: stop, after_commit: 1}]",
            "do[0].after_commit: only a crash has a point",
        ),
        (
            "do: [{at: 5s, coordinator: crash, after_commit: 1, before_effect: 1}]",
            "do[0].before_effect: one point in each entry: after_commit stands here already",
        ),
        ("do: [{at: 5s, remove_rule: r}]", "do[0].remove_rule: no rule is named r; there are: none"),
        ("do: [{at: 5s, freeze: h1}]", "do[0].for: is required: a time such as 5s, 1m30s or 250ms"),
        ("do: [power_off]", "do[0]: must be a mapping such as {power_off: …}"),
        ("expect: [{guest: g1}]", "expect[0]: says nothing of guest; one of is, runs_on"),
        ("expect: [{guest: g9, runs: true}]", "expect[0].guest: no guest is named g9; there are: g1, g2"),
        ("never: [{host: h9, up: false}]", "never[0].host: no host is named h9; there are: h1, h2, h3"),
        ("expect: [{together: g1}]", "expect[0].together: must be a list of 2 or more"),
        ("end: as expected", "end: nothing is expected: then nothing could fail"),
        ("end: well", "end: must be one of all well, as expected"),
        ("sead: 3", "sead: unknown key; did you mean seed?"),
        ("seed: 1\nseed: 2", "seed: given twice"),
        (
            "rules: [{name: r, guests: g1}]",
            "rules[0]: must be a mapping with name, guests, and either hosts or kind",
        ),
        ("rules: [{name: r, guests: g1, hosts: h9}]", "rules[0].hosts: no host is named h9"),
        (
            "rules: [{name: r, guests: g1, hosts: h1}, {name: r, guests: g2, hosts: h1}]",
            "rules[1].name: there is a rule r already",
        ),
        (
            "rules: [{name: t, guests: [g1, g2], kind: together, strict: true},"
            " {name: a, guests: [g1, g2], kind: apart, strict: true}]",
            "rules: rule a keeps g1 and g2 apart, rule t keeps them together",
        ),
        ("policy: {priority: high}", 'policy.priority: must be a whole number, not "high"'),
        ("timers: {heartbeat: 1}", "timers.heartbeat: unknown key; did you mean heartbeat_s?"),
    ],
)
def test_what_cannot_mean_anything_is_refused(more: str, message: str) -> None:
    found = refused(WORLD + more)
    assert any(message in each for each in found), found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hosts: [h1]", "f:1: shows: is required: text"),
        ("shows: A.", "f:1: hosts: is required"),
        ("shows: A.\nhosts: []", "f:2: hosts: a world needs at least one host"),
        ("shows: A.\nhosts: [h1, h1]", "f:2: hosts[1]: h1 is named twice"),
        (
            "shows: A.\nhosts: [h1]\nguests: {g1: [h1, h2]}",
            "f:3: guests.g1.on: must be the name of a host, not a list",
        ),
        (
            "shows: A.\nhosts: [h1]\nguests: {g1: h2}",
            "f:3: guests.g1.on: no host is named h2; there are: h1",
        ),
        (
            "shows: A.\nhosts: [h1]\nguests:\n  g1: h1\n  g1: h1",
            "f:5: guests.g1: given twice, first on line 4",
        ),
        (
            "shows: A.\nhosts: {h1: {memory_mib: 1024}}\nguests: {g1: h1}",
            "f:2: hosts.h1: guests there take 1024 MiB, and above the reserve there are 512",
        ),
        ("shows: A.\nhosts: [h1]\nguests: {g1: {on: h1, vcpus: 99}}", "g1.vcpus: h1 has only 16 processors"),
        (
            "shows: A.\nhosts: {h1: {is: off}}\nguests: {g1: h1}",
            "f:2: hosts.h1.is: is off, and g1 cannot run on it",
        ),
        ("- a", "f:1: a scenario is a mapping that begins with `shows:`"),
    ],
)
def test_a_world_that_cannot_be_is_refused(text: str, message: str) -> None:
    found = refused(text)
    assert any(message in each for each in found), found


def test_all_problems_are_told_at_once() -> None:
    more = (
        "sead: 1",
        "do:",
        "  - {at: 5s, powr_off: h1}",
        "  - {at: 5s, power_off: h9}",
        "expect: [{guest: g1}]",
    )
    found = refused(WORLD + "\n".join(more))
    assert [each.split(":")[1] for each in found] == ["4", "6", "7", "8"]


def ran(more: str) -> Result:
    return run(loads(WORLD + more))


@pytest.mark.parametrize(
    ("more", "violation"),
    [
        (
            "do: [{at: 2s, power_off: h1}]\nnever: [{guest: all, runs: false}]",
            "never {guest: g1, runs: false}",
        ),
        ("do: [{at: 2s, power_off: h1}]\nexpect: [{at: 3s, guest: g1, runs: true}]", "g1 runs nowhere"),
        (
            "do: [{when: {host: h1, is: fenced}, power_on: h1}]\nlasts: 9s",
            "never happened, as never {host: h1",
        ),
        ("do: [{at: 2s, stop: g1, answer: refused}]", "stop g1: accepted, not refused"),
        ("do: [{at: 2s, start: g1}]", "start g1: refused, not accepted: g1 is running"),
        (
            "do: [{at: 2s, start: g1, answer: refused, because: moon}]",
            'start g1: refused, but not because of "moon"',
        ),
        ("do: [{at: 2s, coordinator: stop}, {stop: g1}]", "nobody answered: stop g1"),
        ("do: [{at: 2s, starts_fail: g1}, {power_off: h1}]", "not all well at the end: g1 is wanted and is"),
    ],
)
def test_what_is_not_as_expected_is_told(more: str, violation: str) -> None:
    result = ran(more)
    assert not result.ok
    assert any(violation in each for each in result.violations), result.violations
    assert result.plain()["violations"] == result.violations


def test_a_broken_promise_ends_the_run() -> None:
    """A second copy by somebody's hand, where the hook was taken away, is found whatever the scenario expects."""
    scenario = loads(
        f"{WORLD}do:\n  - {{at: 2s, disable_agent: h1}}\n  - {{power_off: h1}}\n  - {{at: 30s, power_on: h1}}\n"
        "  - {after: 10s, virsh_start: g1, on: h1}\n  - {at: 50s, start_agent: h1}\n"
    )

    def without_hook(world: World) -> None:
        world.clock.after(38.0, world.hosts["h1"].guarded.clear)

    assert run(scenario).violations == []
    result = run(scenario, prepare=without_hook)
    assert [text for text in result.violations if "g1 runs in 2 places" in text]
    assert result.trace[-1].kind == "violation"


def test_json_has_exactly_these_keys() -> None:
    plain = ran("do: [{at: 2s, power_off: h1}]").plain()
    assert list(plain) == ["ok", "violations", "guests", "hosts", "trace"]
    assert list(plain["guests"]["g1"]) == ["host", "running_on", "phase", "reason"]
    assert plain["guests"]["g1"]["running_on"] in (["h2"], ["h3"])
    assert plain["hosts"]["h1"]["phase"] == "fenced"
    assert plain["trace"][0] == {"t_s": 2.0, "kind": "act", "act": "power_off", "text": ">>> power_off: h1"}
    assert all({"t_s", "kind", "text"} <= entry.keys() for entry in plain["trace"])
    assert [entry["t_s"] for entry in plain["trace"]] == sorted(entry["t_s"] for entry in plain["trace"])


def test_a_scenario_made_in_code_is_written_and_read() -> None:
    made = Scenario(
        shows="Made by a program: with a colon.",
        name="made",
        seed=77,
        hosts={"h1": HostSpec(memory_mib=4096), "h2": HostSpec()},
        guests={"g1": GuestSpec(on="h1")},
        do=(Act(verb=Freeze(freeze=("h1",), for_=0.125), at=1.5, when=None),),
        expect=(Expectation(fact=GuestIs(guest=("g1",), is_=("running",)), at=61.25),),
    )
    text = dump(made)
    assert loads(text) == made
    assert "- {at: 1.5s, freeze: h1, for: 0.125s}" in text


def test_entries_follow_each_other() -> None:
    """`at` counts from the beginning, `after` from the entry before, `when` from when that has happened."""
    result = ran(
        "do:\n  - {at: 3s, power_off: h1}\n  - {after: 2s, label_host: h2, labels: {a: b}}\n"
        "  - {when: {guest: g1, is: running}, after: 1s, label_host: h3, labels: {a: b}}\n"
        "  - {at: 1s, label_host: h3, labels: {a: b}}"
    )
    times = [
        (round(said.t_s - result.begun_s, 1), said.fields["act"])
        for said in result.trace
        if said.kind == "act"
    ]
    assert times[:3] == [(1.0, "label_host"), (3.0, "power_off"), (5.0, "label_host")]
    (ran_at,) = [said.t_s for said in result.trace if said.kind == "guest.running"]
    assert times[3][0] == pytest.approx(max(5.0, ran_at - result.begun_s) + 1.0, abs=0.2)
