"""Hooks around the built-in failover: a run of its own beside it, once for each failover, that nothing waits for.

That it was begun, or could not be, is written with the failover itself. Not here: which playbooks (`dr.model.hooks`).
"""

from __future__ import annotations

from dr.core import asks_playbooks, operator
from dr.core.state import Draft
from dr.model.base import changed
from dr.model.events import AskRun
from dr.model.hooks import TOLD, When
from dr.model.operations import Operation, OperationState
from dr.model.records import Alert

KIND = "failover"
BY = "hook "


def step(draft: Draft, *, tick: bool) -> None:
    """Those of failovers that are over now; of those that are open with the next tick: what they decide comes first."""
    hooks = draft.config.hooks
    if hooks.failover_begins is None and hooks.failover_ends is None:
        return
    for operation in draft.just_closed():
        if operation.kind == KIND:
            _run(draft, operation.id, "failover_begins")
            _run(draft, operation.id, "failover_ends")
    if tick:
        for operation in draft.open_operations():
            if operation.kind == KIND and operation.opened < draft.now:
                _run(draft, operation.id, "failover_begins")


def _run(draft: Draft, key: str, when: When) -> None:
    operation = draft.operation(key)
    playbook = getattr(draft.config.hooks, when)
    if operation is None or playbook is None or when in operation.hooks:
        return
    values = _values(operation)
    ask = AskRun(
        id=f"hook/{key}/{when}",
        by=f"{BY}{when}",
        reason=f"{key}: {operation.why}",
        playbook=playbook,
        params={name: values[name] for name in TOLD[when] if name in playbook.params},
        hook=True,
    )
    reply = asks_playbooks.run(draft, ask)
    operator.audited(draft, ask, reply)
    came = ", ".join(reply.operations)
    if not reply.accepted:
        why = "; ".join(reply.blockers)
        came = f"not run: {why}"
        draft.tell(
            Alert(
                key=f"hook/{key}/{when}",
                what=f"the hook {when} of {key} ({operation.subject}) could not begin: {playbook.playbook} is not run",
                why=why,
                todo=f"do by hand what it would have done; dr playbook show {playbook.playbook}",
                raised=draft.now,
            )
        )
    draft.put_operation(changed(operation, hooks=operation.hooks | {when: came}))


def _values(operation: Operation) -> dict[str, str]:
    outcome = "" if operation.state is OperationState.OPEN else operation.state.value
    return {"failed_host": operation.subject, "job": operation.id, "outcome": outcome}
