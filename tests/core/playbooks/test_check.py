"""What no playbook can mean, each with the place and the right word; and names that a fleet does not have."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, get_args

import pytest

import dr.core
from dr.cli.yamlfile import parse
from dr.core.playbooks.check import problems_of, unknown_of
from dr.model.conditions import Job
from dr.model.playbooks import Playbook
from dr.model.verbs import VERBS
from dr.model.words import Problems, dotted, read_fields, write_fields

GOOD = """
playbook: good
params: {source: {is: host}, vm: {is: guest, default: web1}, why: {}}
targets: {hosts: "${source}", guests: "on:${source}"}
limits: {timeout: 1h}
require:
  - {host: targets}
  - {guest: "${vm}"}
steps:
  - {cordon: targets, undo: uncordon}
  - {migrate: "${vm}", to: "${source}", undo: {migrate: "${vm}"}}
  - {drain: targets, timeout: 30m, on_fail: rollback, when: {host: "${source}"}}
  - each_guest: [label:tier=web, label:tier=db]
    steps:
      - {stop: "${guest}", name: "stop ${guest}: ${why}"}
      - {until: {guest: "${guest}", is: stopped}}
  - {check: targets}
finally:
  - {notify: "over: ${why}"}
"""


def read(text: str) -> Playbook:
    problems = Problems()
    playbook = read_fields(Playbook, parse(text, "test").data, (), problems)
    assert not problems.found, problems.found
    assert isinstance(playbook, Playbook)
    return playbook


def found(text: str) -> list[str]:
    return [f"{dotted(where)}: {message}" for where, message in problems_of(read(text))]


def of_steps(steps: str, more: str = "") -> list[str]:
    return found(f"playbook: x\n{more}\nsteps:\n  - {steps}")


def test_a_good_one_has_no_problem_and_is_written_as_it_is_read() -> None:
    playbook = read(GOOD)
    assert problems_of(playbook) == []
    assert read_fields(Playbook, write_fields(playbook), (), Problems()) == playbook


HOST = "params: {h: {is: host}, g: {is: guest}, t: {}}\nrequire: [{host: '${h}'}, {guest: ['${g}', 'on:${h}']}]\n"
USED = HOST + "description: d\nfinally: [{notify: '${t}'}]"

CANNOT_BE = {
    # parameters
    "{cordon: '${hsot}'}": "steps[0].cordon: no parameter is named hsot; params has: none",
    "{cordon: '${host}'}": "steps[0].cordon: ${host} has a meaning only in the steps of an each_host",
    "{notify: 'x ${guest}'}": "steps[0].notify: ${guest} has a meaning only in the steps of an each_guest",
    "{notify: '${${x}}'}": "steps[0].notify: `${` begins a parameter, as in ${name}: nothing else can stand there",
    "{notify: '${1+1}'}": "steps[0].notify: `${` begins a parameter, as in ${name}: nothing else can stand there",
    "{each_host: [a, b], steps: [{stop: '${host}'}]}": (
        "steps[0].steps[0].stop: ${host} is a host, and the name of a guest belongs here"
    ),
    "{each_host: [a, b], steps: [{cordon: a}]}": (
        "steps[0].each_host: nothing in its steps says ${host}: they would be the same each time"
    ),
    # targets
    "{cordon: targets}": "steps[0].cordon: the playbook's targets name no hosts: add targets.hosts",
    "{fence: all}": "steps[0].fence: all hosts at once: none is left that guests could go to",
    "{start: [a, all]}": "steps[0].start[1]: `all` stands alone: name guests, or write start: all",
    # ways back
    "{cordon: h1, on_fail: rollback}": (
        "steps[0].on_fail: neither this step nor one before it has an `undo`: there is nothing to roll back"
    ),
    "{cordon: h1, undo: start}": "steps[0].undo: start wants guests, and cordon names hosts; write uncordon",
    "{cordon: h1, undo: fence}": "steps[0].undo: fence alone does not take cordon back; write uncordon",
    "{start: a, undo: check}": "steps[0].undo: check changes nothing, so it takes nothing back; write stop",
    "{pause: why, undo: resume}": "steps[0].undo: resume needs a text of its own, as in {resume: why}",
    "{migrate: a, undo: relocate}": (
        "steps[0].undo: relocate alone does not take migrate back; write a verb with all that it needs: "
        "{relocate: …}"
    ),
    "{pause: why, undo: start}": (
        "steps[0].undo: start wants guests, and pause names none; write a verb with all that it needs: {start: …}"
    ),
    "{stop: a, undo: {wait: 5s}}": "steps[0].undo: wait changes nothing, so it takes nothing back",
    "{stop: a, undo: {stop: a}}": "steps[0].undo: is what the step itself does",
    # times and bounds
    "{wait: 10m, timeout: 5m}": "steps[0].wait: would never end: the step, or the run, ends after 5m",
    "{drain: a, deadline: 2h}": "steps[0].deadline: would never come: the step, or the run, ends after 1h",
    "{start: a, retry: 1000}": "steps[0].retry: at most 100",
    # commands
    "{run: update}": "steps[0].run: needs `on: HOSTS` or `in: GUESTS`, and not both",
    "{run: update, on: h1, in: g1}": "steps[0].run: needs `on: HOSTS` or `in: GUESTS`, and not both",
    "{cordon: h1, undo: {run: update}}": "steps[0].undo.run: needs `on: HOSTS` or `in: GUESTS`, and not both",
    "{run: update, on: h1, with: {a: '${b}'}}": "steps[0].with.a: no parameter is named b; params has: none",
    # texts
    '{notify: "a\\0b"}': "steps[0].notify: has a character that cannot be shown: U+0000",
    '{notify: "a\\e[2Jb"}': "steps[0].notify: has a character that cannot be shown: U+001B",
    '{start: a, name: "a\\nb"}': "steps[0].name: must be one line (`>-` makes one of several)",
    "{notify: " + 3000 * "x" + "}": "steps[0].notify: is longer than 2000 characters",
}


@pytest.mark.parametrize("step", CANNOT_BE)
def test_a_step_that_cannot_mean_anything(step: str) -> None:
    assert of_steps(step) == [CANNOT_BE[step]]


OF_KINDS = {
    "{cordon: '${g}'}": (
        "steps[0].cordon: ${g} is a guest, and the name of a host belongs here; in params, it would be `g: {is: host}`"
    ),
    "{start: '${t}'}": (
        "steps[0].start: ${t} is a text, and the name of a guest belongs here; in params, it would be `t: {is: guest}`"
    ),
    "{start: 'on:${g}'}": (
        "steps[0].start: ${g} is a guest, and the name of a host belongs here; in params, it would be `g: {is: host}`"
    ),
    "{migrate: a, to: '${g}'}": (
        "steps[0].to: ${g} is a guest, and the name of a host belongs here; in params, it would be `g: {is: host}`"
    ),
}


@pytest.mark.parametrize("step", OF_KINDS)
def test_a_parameter_of_the_wrong_kind(step: str) -> None:
    assert of_steps(step, USED) == [OF_KINDS[step]]


def test_the_nearest_parameter_is_told() -> None:
    told = of_steps("{cordon: '${sorce}'}", "params: {source: {is: host}}\nrequire: [{host: '${source}'}]")
    assert told == ["steps[0].cordon: no parameter is named sorce; did you mean source?"]


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ("{x: {}}", "params.x: nothing uses it: write ${x} in a step, or take it out"),
        ("{host: {}}", "params.host: host means something of its own in the steps: choose another name"),
        ("{targets: {}}", "params.targets: targets means something of its own in the steps: choose another name"),
        (
            "{my name: {}}",
            "params.my name: a parameter's name is letters, digits, dashes and underscores, and begins with a letter",
        ),
        (
            "{'x;$(reboot)`': {}}",
            "params.x;$(reboot)`: a parameter's name is letters, digits, dashes and underscores, "
            "and begins with a letter",
        ),
        ("{x: {is: host, default: 'h;$(x)'}}", 'params.x.default: must be the name of one host, not "h;$(x)"'),
        ("{x: {is: host, default: all}}", 'params.x.default: must be the name of one host, not "all"'),
        ("{x: {is: guest, default: '${x}'}}", 'params.x.default: must be the name of one guest, not "${x}"'),
        ("{x: {default: '${x}'}}", "params.x.default: a value is no expression: `${` has no meaning in it"),
        ('{x: {default: "a\\nb"}}', "params.x.default: must be one line (`>-` makes one of several)"),
    ],
)  # fmt: skip
def test_a_parameter_that_cannot_be_one(params: str, told: str) -> None:
    assert told in of_steps("{start: a}", f"params: {params}")


@pytest.mark.parametrize(
    ("targets", "step", "told"),
    [
        (
            "{guests: a}",
            "{cordon: targets}",
            [
                "steps[0].cordon: the playbook's targets name no hosts, only guests: add targets.hosts",
                "targets.guests: no step that wants guests says `targets`",
            ],
        ),
        ("{hosts: h1}", "{cordon: h1}", ["targets.hosts: no step that wants hosts says `targets`"]),
        ("{hosts: targets}", "{cordon: targets}", ["targets.hosts: targets cannot be what targets means"]),
        (
            "{hosts: all}",
            "{drain: targets}",
            ["steps[0].drain: all hosts at once: none is left that guests could go to"],
        ),
        (
            "{hosts: '${host}'}",
            "{cordon: targets}",
            ["targets.hosts: ${host} has a meaning only in the steps of an each_host"],
        ),
    ],
)
def test_targets_that_name_nobody(targets: str, step: str, told: list[str]) -> None:
    assert of_steps(step, f"targets: {targets}") == told


def test_a_step_may_not_take_longer_than_the_run() -> None:
    limits = "limits: {timeout: 10m}"
    told = ["steps[0].timeout: 15m is longer than the whole run may take: limits.timeout is 10m"]
    assert of_steps("{start: a, timeout: 15m}", limits) == told
    assert of_steps("{each_guest: all, steps: [{start: '${guest}', timeout: 15m}]}", limits) == [
        told[0].replace("steps[0]", "steps[0].steps[0]")
    ]
    assert of_steps("{wait: 15m}", limits) == [
        "steps[0].wait: would never end: the step, or the run, ends after 10m"
    ]
    assert of_steps("{drain: h1}", limits) == [], "what a verb takes by itself is cut, and no problem"


def test_a_rollback_may_take_back_a_step_of_the_round_before() -> None:
    steps = (
        "{each_guest: all, steps: [{stop: '${guest}', on_fail: rollback}, {start: '${guest}', undo: stop}]}"
    )
    assert of_steps(steps) == []


def test_nothing_leads_back_from_finally() -> None:
    told = of_steps(
        "{cordon: a, undo: uncordon}", "finally: [{uncordon: a, undo: cordon, on_fail: rollback}]"
    )
    assert told == [
        "finally[0].on_fail: there is no way back from `finally`: continue, or stop",
        "finally[0].undo: what is done in `finally` is never taken back",
    ]


def test_names_of_steps_are_told_apart() -> None:
    told = of_steps("{start: a, name: x}\n  - {stop: a, name: x}")
    assert told == ['steps[1].name: there is a step "x" already; names are told apart']


def test_steps_are_bounded() -> None:
    assert found("playbook: x\nsteps:\n" + 501 * "  - {wait: 1s}\n") == [
        "steps: 501 steps, and at most 500 are allowed"
    ]


def test_everything_is_told_at_once() -> None:
    assert len(of_steps("{cordon: '${a}', undo: fence}\n  - {start: '${b}', timeout: 1s}")) == 3


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e300, 10**5000], ids=lambda value: "")
def test_a_number_beyond_all_bounds_is_no_time(value: float) -> None:
    problems = Problems()
    read_fields(Playbook, {"playbook": "x", "steps": {"wait": value}}, (), problems)
    assert [text.partition(",")[0] for _, text in problems.found] == ["must be a time such as 5s"]


# ---- against a fleet

HOSTS = {"kvm1": {"rack": "a"}, "kvm2": {"rack": "b"}}
COMMANDS: dict[str, tuple[str, ...]] = {"update": (), "tell": ("whom",)}
GUESTS = {"web1": {"tier": "web"}, "db1": {"tier": "db"}}


def unknown(text: str, **params: str) -> list[str]:
    return [
        f"{dotted(where)}: {message}"
        for where, message in unknown_of(read(text), HOSTS, GUESTS, params, COMMANDS)
    ]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("{cordon: kvm3}", "no host is named kvm3; did you mean kvm2?"),
        ("{cordon: h}", "no host is named h; there are: kvm1, kvm2"),
        ("{start: [web1, wbe1]}", "no protected guest is named wbe1; did you mean web1?"),
        ("{start: 'on:kvm9'}", "no host is named kvm9; did you mean kvm2?"),
        ("{start: 'label:tier=wbe'}", "no guest has the label tier=wbe; did you mean label:tier=web?"),
        ("{cordon: 'label:tier=web'}", "no host has the label tier=web"),
        ("{migrate: web1, to: kvmm1}", "no host is named kvmm1; did you mean kvm1?"),
        ("{until: {host: kvm7}}", "no host is named kvm7; did you mean kvm2?"),
        ("{stop: web1, undo: {start: web2}}", "no protected guest is named web2; did you mean web1?"),
        ("{run: updaet, on: kvm1}", "the configuration allows no command named updaet; did you mean update?"),
        ("{run: tell, on: kvm1, with: {who: x}}", "tell has other parameters: whom"),
        ("{cordon: kvm1, undo: {run: tel, on: kvm1}}", "allows no command named tel; did you mean tell?"),
        ("{run: update, on: kvm3}", "no host is named kvm3; did you mean kvm2?"),
        ("{each_host: kvm4, steps: [{cordon: '${host}'}]}", "no host is named kvm4; did you mean kvm2?"),
    ],
)
def test_a_name_or_label_that_nobody_has(step: str, told: str) -> None:
    (found,) = unknown(f"playbook: x\nsteps:\n  - {step}")
    assert told in found


def test_what_everybody_has_is_fine() -> None:
    steps = "[{start: [web1, 'label:tier=db', 'on:kvm1']}, {cordon: 'label:rack=b'}, {check: all}]"
    assert unknown(f"playbook: x\nsteps: {steps}") == []


def test_parameters_are_looked_up_where_they_are_told_and_passed_over_where_not() -> None:
    text = "playbook: x\nparams: {a: {is: host}}\nsteps: [{cordon: '${a}'}, {start: 'on:${a}'}]"
    assert unknown(text) == []
    assert unknown(text, a="kvm2") == []
    assert unknown(text, a="kvm22") == ["params.a: no host is named kvm22; did you mean kvm2?"]
    default = text.replace("is: host", "is: host, default: kvm8")
    assert unknown(default) == ["params.a.default: no host is named kvm8; did you mean kvm2?"]


# ---- the language against the rest


def test_every_kind_of_job_can_be_waited_for() -> None:
    kinds: set[Any] = set()
    for source in Path(dr.core.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "draft.open_operation":
                first = node.args[0]
                kinds |= {first.value} if isinstance(first, ast.Constant) else set()
    assert len(kinds) > 10
    assert kinds <= set(get_args(Job))


def test_every_verb_has_a_name_and_a_time() -> None:
    assert all(verb.TIMEOUT_S > 0 and verb.__doc__ for verb in VERBS.values())


@pytest.mark.parametrize(
    ("steps", "more", "told"),
    [
        ("{clone: g1}", "", "steps[0].clone: is only for a drill: add `kind: drill`"),
        ("{boot: g1}", "", "steps[0].boot: is only for a drill: add `kind: drill`"),
        ("{cordon: h1}", "bubble: {memory: 1GiB}", "bubble: only a drill has one: add `kind: drill`"),
        ("{wait: 1s}", "kind: drill", "steps: a drill begins with clones: {clone: targets}"),
        (
            "{clone: g1}\n  - {stop: g1}",
            "kind: drill",
            "steps[1].stop: a drill touches no host and no guest, only clones; what may stand here: "
            "clone, boot, check, wait, until, approve, notify",
        ),
        (
            "{clone: g1}\nfinally:\n  - {check: g1}",
            "kind: drill",
            "finally[0].check: the clones are being removed by then; what may stand here: "
            "wait, until, approve, notify",
        ),
        (
            "{boot: g1}\n  - {clone: g1}\n  - {check: g1}",
            "kind: drill",
            "steps[0].boot: no step before it says clone: clone, then boot, then check",
        ),
        (
            "{clone: g1}\n  - {check: g1}",
            "kind: drill",
            "steps[1].check: no step before it says boot: clone, then boot, then check",
        ),
        (
            "{clone: g1, undo: {notify: over}}",
            "kind: drill",
            "steps[0].undo: what a drill makes is removed in any case",
        ),
    ],
)
def test_what_only_a_drill_has_and_what_no_drill_may_do(steps: str, more: str, told: str) -> None:
    assert of_steps(steps, more) == [told]


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "10.0.0.1/32", "gateway/24", "10.0.0.1/33", "fe80::1/128", "10.0.0.0/24"]
)
def test_a_bubble_s_address_has_a_network_that_is_larger_than_itself(address: str) -> None:
    problems = Problems()
    text = f"playbook: x\nkind: drill\nbubble: {{address: {address}}}\nsteps: [{{clone: g1}}]"
    read_fields(Playbook, parse(text, "test").data, (), problems)
    assert [dotted(where) for where, _ in problems.found] == ["bubble.address"]


@pytest.mark.parametrize("size", ["8", "8 GiB", "8GB", "-1GiB", "1.5GiB", 8, ""])
def test_a_size_says_its_unit(size: object) -> None:
    problems = Problems()
    data = {"playbook": "x", "kind": "drill", "bubble": {"memory": size}, "steps": [{"clone": "g1"}]}
    read_fields(Playbook, data, (), problems)
    assert [dotted(where) for where, _ in problems.found] == ["bubble.memory"]


@pytest.mark.parametrize(("size", "mib"), [("512MiB", 512), ("8GiB", 8192), ("1TiB", 2**20), ("0MiB", 0)])
def test_a_size_is_written_as_it_is_read(size: str, mib: int) -> None:
    data = {"playbook": "x", "kind": "drill", "bubble": {"memory": size}, "steps": [{"clone": "g1"}]}
    playbook = read_fields(Playbook, data, (), Problems())
    assert playbook.bubble.memory == mib
    again = read_fields(Playbook, write_fields(playbook), (), Problems())
    assert again == playbook
