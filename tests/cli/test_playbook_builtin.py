"""The failover as a playbook: shown by the configuration in force, with its hooks; nobody runs it."""

from __future__ import annotations

import json

from dr.cli.failure import Exit
from dr.model.base import changed
from dr.model.hooks import Hooks
from dr.model.policy import Timers
from tests.api.service import Service
from tests.cli.conftest import Dr
from tests.core.playbooks.test_due import BOOK


def test_it_is_shown_by_the_configuration_in_force_with_its_hooks(service: Service, dr: Dr) -> None:
    state = service.coordinator.state
    hooks = Hooks(failover_ends=changed(BOOK, playbook="look-around"))
    state.settings = changed(state.settings, timers=Timers(fence_s=17.0), hooks=hooks)
    ended = dr("playbook", "show", "failover")
    assert ended.code == Exit.OK, ended.err
    assert "failover (built in, not to be run)" in ended.out
    assert "at most 17s a try" in ended.out
    assert "hook failover_begins: none is set" in ended.out
    assert "hook failover_ends: look-around" in ended.out
    document = json.loads(dr("playbook", "show", "failover", "-o", "json").out)
    assert (document["version"], document["kind"], document["name"]) == (1, "built-in", "failover")
    order = [step["step"].split()[0] for step in document["steps"]]
    assert order == ["notice", "look", "fence", "hook", "start", "wait", "tell", "hook", "switch"]
    assert [step["playbook"] for step in document["steps"] if step["hook"]] == ["", "look-around"]


def test_what_switches_fencing_off_is_told(service: Service, dr: Dr) -> None:
    service.coordinator.state.settings = changed(service.coordinator.state.settings, auto_fence=False)
    assert "nothing is fenced by itself (auto_fence: false)" in dr("playbook", "show", "failover").out


def test_without_a_coordinator_it_is_shown_by_defaults_which_is_said(dr: Dr) -> None:
    ended = dr("--client-dir", "/nonexistent", "playbook", "show", "failover")
    assert ended.code == Exit.OK
    assert "at most 30s a try" in ended.out
    assert "Figures are defaults and hooks are not known: " in ended.err


def test_it_is_in_the_list_and_cannot_be_run(dr: Dr) -> None:
    assert "Built in, not to be run: A host is lost" in dr("playbook", "list").out
    (item,) = [
        each for each in json.loads(dr("playbook", "list", "-o", "json").out)["items"] if each["built_in"]
    ]
    assert (item["name"], item["usable"], item["file"]) == ("failover", False, "")
    ended = dr("playbook", "run", "failover")
    assert ended.code == Exit.USAGE
    assert "failover is built in" in ended.err
    assert "dr host fence HOST" in ended.err
