"""From a playbook to the steps of a run: who is meant is settled as it begins, or nothing begins."""

from __future__ import annotations

import pytest

from dr.core.playbooks import compiling
from dr.core.playbooks.compiling import Fleet, Unclear, required, steps_of
from dr.model.conditions import HostIs
from dr.model.verbs import Cordon, Start, Stop, Uncordon
from tests.core.playbooks.test_check import read

FLEET = Fleet(
    hosts={"h1": {"rack": "a"}, "h2": {"rack": "a"}, "h3": {}},
    guests={"db": ({"tier": "data"}, "h1"), "web": ({}, "h1"), "mail": ({}, "h2")},
)


def named(steps: str, **params: str) -> list[tuple[str, ...]]:
    """Whom each step is about."""
    found = steps_of(read(f"playbook: x\n{steps}"), params, FLEET)
    return [getattr(step.spec.verb, step.spec.verb.word()) for step in found]


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("on:h1", ("db", "web")),
        ("on:h3", ()),
        ("label:tier=data", ("db",)),
        ("all", ("db", "mail", "web")),
        ("[mail, on:h2, web]", ("mail", "web")),
    ],
)
def test_who_is_meant(said: str, means: tuple[str, ...]) -> None:
    assert named(f"steps: [{{stop: {said}}}]") == [means]


def test_targets_are_what_the_parameter_says() -> None:
    targets = "params: {h: {is: host}}\ntargets: {hosts: '${h}', guests: 'on:${h}'}"
    book = f"{targets}\nsteps: [{{cordon: targets}}, {{stop: targets}}]"
    assert named(book, h="h2") == [("h2",), ("mail",)]


def test_each_is_done_for_one_after_the_other_and_finally_comes_last() -> None:
    inner = "[{cordon: '${host}'}, {uncordon: '${host}'}]"
    book = f"steps: [{{each_host: 'label:rack=a', steps: {inner}}}]\nfinally: [{{cordon: h3}}]"
    assert named(book) == [("h1",), ("h1",), ("h2",), ("h2",), ("h3",)]


def test_a_word_takes_back_what_its_step_names() -> None:
    cordon, stop = steps_of(
        read("playbook: x\nsteps: [{cordon: 'label:rack=a', undo: uncordon}, {stop: web, undo: start}]"),
        {},
        FLEET,
    )
    assert (cordon.spec.verb, cordon.spec.undo) == (
        Cordon(cordon=("h1", "h2")),
        Uncordon(uncordon=("h1", "h2")),
    )
    assert (stop.spec.verb, stop.spec.undo) == (Stop(stop=("web",)), Start(start=("web",)))


def test_what_is_required_is_about_names_too() -> None:
    book = read("playbook: x\nrequire: [{host: 'label:rack=a', is: online}]\nsteps: [{cordon: h1}]")
    assert required(book, {}, FLEET) == (HostIs(host=("h1", "h2")),)


def refused(steps: str) -> list[str]:
    with pytest.raises(Unclear) as unclear:
        named(steps)
    return [text for _, text in unclear.value.found]


def test_all_that_is_unclear_is_told_at_once() -> None:
    assert refused("steps: [{cordon: kvm}, {stop: 'on:kvm'}, {start: 'label:a=b', when: {guest: wbe}}]") == [
        "no such host: kvm",
        "no such host: kvm",
        "no guest has the label a=b",
        "no such guest: wbe; did you mean web?",
    ]


def test_several_hosts_are_not_one_to_go_to() -> None:
    book = "targets: {hosts: [h1, h2]}\nsteps: [{migrate: mail, to: targets}]"
    assert refused(book) == ["names several hosts, and one is wanted here"]


def test_a_run_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "STEPS_MAX", 2)
    assert "more than 2 steps" in refused("steps: [{each_guest: all, steps: [{stop: '${guest}'}]}]")[0]
    monkeypatch.setattr(compiling, "STEPS_MAX", 3)
    monkeypatch.setattr(compiling, "NAMES_MAX", 5)
    assert "more than 5 names" in refused("steps: [{stop: all}, {start: all}]")[0]
