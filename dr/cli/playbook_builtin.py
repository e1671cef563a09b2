"""The failover as `dr playbook` shows it: built in, with the hooks around it. Nobody runs it, and it has no file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dr.cli.failure import Failure, tell
from dr.cli.output import Form, document, facts
from dr.cli.playbook_file import Shelved
from dr.core.playbooks.builtin import DESCRIPTION, NAME

if TYPE_CHECKING:
    from dr.api.builtin_schema import BuiltIn, BuiltInStep


def listed() -> Shelved:
    """Its line in the list."""
    return Shelved(NAME, Path(), built_in=DESCRIPTION)


def show(form: Form) -> None:
    """By the configuration that is in force; by the defaults, which is said, if no coordinator answers."""
    found, why = _asked()
    match form:
        case Form.JSON | Form.YAML:
            document(found, form)
        case Form.NAME:
            print(found.name)
        case Form.TABLE | Form.WIDE:
            steps = (line for number, step in enumerate(found.steps, 1) for line in _step(number, step))
            facts(
                [
                    ("playbook", f"{found.name} (built in, not to be run)"),
                    ("description", found.description),
                    ("steps", "\n".join(steps)),
                ]
            )
    if why:
        tell(f"Figures are defaults and hooks are not known: {why}")


def _asked() -> tuple[BuiltIn, str]:
    from dr.api.builtin_schema import BuiltIn, built_in
    from dr.cli.client import connect
    from dr.model.settings import Settings

    try:
        return connect().get("/v1/playbooks/failover", BuiltIn), ""
    except Failure as failure:
        return built_in(Settings()), failure.what


def _step(number: int, step: BuiltInStep) -> list[str]:
    indent = " " * (len(str(number)) + 2)
    what = f"{step.step}: {step.playbook or 'none is set'}" if step.hook else step.step
    return [f"{number}. {what}", f"{indent}{step.says}"]
