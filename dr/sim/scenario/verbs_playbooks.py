"""Verbs: playbooks that people run, answer and cancel."""

from __future__ import annotations

from typing import Annotated, Literal

from dr.model.events import AskAgree, AskCancelRun, AskRun
from dr.model.operations import OperationState
from dr.model.playbooks import Playbook
from dr.model.words import Nested
from dr.sim.scenario.stage import Make, Stage
from dr.sim.scenario.verb import Verb
from dr.sim.scenario.verbs_people import BY, WHY, AskVerb

RunName = Annotated[str, "the playbook's name"]


class RunPlaybook(AskVerb):
    """`dr playbook run`."""

    run_playbook: Annotated[Playbook, Nested(Playbook), "all of it, as in docs/playbooks.md"]
    params: Annotated[dict[str, str], "what it is told"] = {}

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskRun(id=key, by=BY, reason=WHY, playbook=self.run_playbook, params=self.params)]


class AnswerPlaybook(AskVerb):
    """`dr job approve` or `dr job deny`, of the run of that playbook that is open."""

    answer_playbook: RunName
    say: Annotated[Literal["yes", "no"], "what"] = "yes"
    by: Annotated[str, "who answers"] = BY

    def asks(self, stage: Stage) -> list[Make]:
        name, agree = self.answer_playbook, self.say == "yes"
        return [lambda key: AskAgree(id=key, by=self.by, job=_open_run(stage, name), agree=agree)]


class CancelPlaybook(AskVerb):
    """`dr job cancel`, of the run of that playbook that is open."""

    cancel_playbook: RunName

    def asks(self, stage: Stage) -> list[Make]:
        return [
            lambda key: AskCancelRun(id=key, by=BY, reason=WHY, job=_open_run(stage, self.cancel_playbook))
        ]


def _open_run(stage: Stage, name: str) -> str:
    """As somebody reads it from `dr job list`; its name where none is open."""
    jobs = stage.world.store.operations.values()
    found = [
        job.id
        for job in jobs
        if job.run is not None and job.subject == name and job.state is OperationState.OPEN
    ]
    return found[-1] if found else name


VERBS: tuple[type[Verb], ...] = (RunPlaybook, AnswerPlaybook, CancelPlaybook)
