"""The language of playbooks as Markdown tables, for docs/playbooks.md: `tests.test_docs` writes and compares them.

Here: which records it has tables of. Not here: how one is made (`dr.model.reference`), prose.
"""

from __future__ import annotations

from collections.abc import Callable

from dr.model.base import Record
from dr.model.conditions import CONDITIONS
from dr.model.playbooks import Bubble, EachSpec, Objectives, Parameter, Playbook, RunLimits, StepSpec, Targets
from dr.model.reference import keys, table
from dr.model.verbs import VERBS, Verb
from dr.model.words import TIME


def _timeout(verb: type[Record]) -> str:
    assert issubclass(verb, Verb)
    return f"`timeout`: else `{TIME.write(verb.TIMEOUT_S)}`"


RENDERED: dict[str, Callable[[], str]] = {
    "playbook": lambda: keys(Playbook),
    "parameter": lambda: keys(Parameter),
    "targets": lambda: keys(Targets),
    "objectives": lambda: keys(Objectives),
    "limits": lambda: keys(RunLimits),
    "bubble": lambda: keys(Bubble),
    "step": lambda: keys(StepSpec, but="verb"),
    "each": lambda: keys(EachSpec),
    "verbs": lambda: table("verb", VERBS.values(), more=_timeout),
    "conditions": lambda: table("condition", CONDITIONS.values()),
}
