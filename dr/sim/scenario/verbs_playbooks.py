"""Verbs: playbooks that people run, answer and cancel."""

from __future__ import annotations

from typing import Annotated, Literal

from dr.model.events import AskAgree, AskCancelRun, AskRun
from dr.model.operations import OperationState
from dr.model.playbooks import Playbook
from dr.model.words import ALL, Count, Guests, Nested
from dr.sim.scenario.stage import Make, Stage
from dr.sim.scenario.verb import Verb
from dr.sim.scenario.verbs_people import BY, WHY, AskVerb
from dr.sim.troubles import Trouble

During = Literal["copy", "boot", "check", "end"]
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


class ClonesFail(Verb):
    """Clones of these guests, made for a drill, go wrong, all or the next n: at being copied, started, checked, or
    removed in the end. `hang`: a copy never gets ready."""

    clones_fail: Annotated[Guests, "guests"]
    during: Annotated[During, "what goes wrong"] = "copy"
    how: Annotated[Literal["fail", "hang"], "how"] = "fail"
    times: Annotated[Count | None, "only the next n; not named: all"] = None

    def do(self, stage: Stage) -> None:
        trouble = Trouble(f"clone-{self.during}", self.how, self.clones_fail, (ALL,), self.times)
        stage.world.troubles.add(trouble)


VERBS: tuple[type[Verb], ...] = (RunPlaybook, AnswerPlaybook, CancelPlaybook, ClonesFail)
