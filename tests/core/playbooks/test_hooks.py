"""Hooks: a run of its own beside each failover, after what the failover decides first, once, bounded, told if not."""

from __future__ import annotations

import pytest

from dr.model.base import changed
from dr.model.effects import Notify
from dr.model.events import Reconfigured, Tick
from dr.model.hooks import Hooks
from dr.model.operations import Operation, OperationState
from tests.core.build import Bench, guest
from tests.core.playbooks.test_check import found, read

BEGINS = read("playbook: begins\nparams: {failed_host: {is: host}, job: {}}\nsteps: [{wait: 10m}]")
ENDS = read(
    "playbook: ends\nparams: {outcome: {}, other: {default: x}}\nlimits: {timeout: 5m}\nsteps: [{wait: 1m}]"
)


class Hooked:
    """A bench with both hooks."""

    def __init__(self) -> None:
        self.bench = Bench().put(guest("g1", "h1"))
        self.configure(Hooks(failover_begins=BEGINS, failover_ends=ENDS))

    def configure(self, hooks: Hooks) -> None:
        self.bench.send(Reconfigured(settings=changed(self.bench.state.settings, hooks=hooks)))

    def tick(self) -> None:
        self.bench.now += 0.1
        self.bench.hear()
        self.bench.send(Tick())

    def fail(self, *, close: str = "") -> str:
        """The failover of h1 begins, and is over in the same decision if so said."""
        draft = self.bench.draft()
        operation = draft.open_operation("failover", "h1", "h1 is proven dead", guests=("g1",))
        draft.put_operation(changed(operation, guests={}))
        self.bench.state.apply(draft)
        if close:
            self.close(operation.id, close)
        return operation.id

    def close(self, key: str, state: str) -> None:
        """Decided as whatever closes it does, and settled with the same decision."""
        from dr.core.playbooks import hooks

        draft = self.bench.draft()
        operation = draft.operation(key)
        assert operation is not None
        draft.close_operation(operation, state, "it is over")
        hooks.step(draft, tick=False)
        self.bench.effects += draft.decision().effects
        self.bench.state.apply(draft)

    def runs(self) -> dict[str, Operation]:
        return {op.subject: op for op in self.bench.state.operations.values() if op.run is not None}

    def hooks(self, key: str) -> dict[str, str]:
        return self.bench.state.operations[key].hooks


@pytest.fixture
def hooked() -> Hooked:
    return Hooked()


def test_each_is_told_what_it_has_a_parameter_for_and_is_run_once(hooked: Hooked) -> None:
    key = hooked.fail()
    assert hooked.runs() == {}, "what the failover decides goes first"
    hooked.tick()
    hooked.tick()
    begins = hooked.runs()["begins"]
    assert begins.run is not None
    assert begins.run.params == {"failed_host": "h1", "job": key}
    assert (begins.asked_by, begins.why) == ("hook failover_begins", f"{key}: h1 is proven dead")
    hooked.close(key, "failed")
    hooked.tick()
    ends = hooked.runs()["ends"]
    assert ends.run is not None
    assert ends.run.params == {"outcome": "failed"}
    assert hooked.hooks(key) == {"failover_begins": begins.id, "failover_ends": ends.id}
    assert len(hooked.runs()) == 2
    assert hooked.bench.state.operations[key].steps[-1].text == "it is over", "its last word stays its own"


def test_both_are_run_for_one_that_is_over_before_the_next_tick(hooked: Hooked) -> None:
    key = hooked.fail(close="done")
    assert list(hooked.hooks(key)) == ["failover_begins", "failover_ends"]


def test_each_is_bounded(hooked: Hooked) -> None:
    hooked.fail(close="done")
    limits = {name: op.run.limit_s for name, op in hooked.runs().items() if op.run is not None}
    assert limits == {"begins": 3600.0, "ends": 300.0}


def test_one_that_cannot_begin_is_told_once_and_not_tried_again(hooked: Hooked) -> None:
    needs = read("playbook: begins\nrequire: [{no_open: failover}]\nsteps: [{wait: 1s}]")
    hooked.configure(Hooks(failover_begins=needs))
    key = hooked.fail()
    hooked.tick()
    hooked.tick()
    told = [each.alert for each in hooked.bench.effects if isinstance(each, Notify)]
    (alert,) = [each for each in told if each.key.startswith("hook/")]
    assert alert.what == f"the hook failover_begins of {key} (h1) could not begin: begins is not run"
    assert f"{key} (failover of h1) is open" in alert.why
    assert hooked.hooks(key)["failover_begins"].startswith("not run: required: ")
    hooked.close(key, OperationState.DONE.value)
    hooked.tick()
    assert hooked.runs() == {}


def test_a_second_failover_has_a_run_of_its_own_beside_the_first(hooked: Hooked) -> None:
    hooked.fail()
    hooked.fail()
    hooked.tick()
    runs = [op for op in hooked.bench.state.operations.values() if op.subject == "begins"]
    assert [op.state for op in runs] == [OperationState.OPEN, OperationState.OPEN]


def test_its_name_is_nobody_elses() -> None:
    assert found("playbook: failover\nsteps: [{wait: 1s}]") == [
        "playbook: failover is the one that is built in: give this another name"
    ]
