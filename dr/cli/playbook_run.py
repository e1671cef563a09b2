"""`dr playbook run`: sends a playbook to the coordinator, which runs it; shows what each step would do, or does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dr.cli.ask import Reason, Timeout, Wait, finish
from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import Column, Form, Output, age, document, table

if TYPE_CHECKING:
    from dr.api.run_schema import PlannedStep


def run(
    *,
    playbook: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="One of `dr playbook list`, or a file.")
    ],
    params: Annotated[
        list[str] | None, typer.Argument(metavar="PARAMETER=VALUE…", help="What it is told.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what each step would do if it were its turn now.")
    ] = False,
    reason: Reason = "",
    wait: Wait = True,
    timeout: Timeout = 0.0,
    form: Output = Form.TABLE,
) -> None:
    """Run a playbook: the coordinator does its steps, also if this command ends.

    Whom it is about is settled as it begins. Ctrl-C detaches; `dr job cancel` ends it.
    """
    from dr.api.run_schema import RunAccepted
    from dr.cli.client import connect
    from dr.cli.playbook import chosen
    from dr.model.words import write_fields

    book, _file = chosen(playbook)
    api = connect()
    body: dict[str, Any] = {
        "playbook": write_fields(book),
        "params": told(params or []),
        "dry_run": dry_run,
        "reason": reason,
    }
    accepted = api.post("/v1/playbooks/run", RunAccepted, body)
    if dry_run:
        _planned(accepted.message, accepted.steps, form)
        return
    match form:
        case Form.JSON | Form.YAML:
            document(accepted, form)
        case Form.NAME | Form.TABLE | Form.WIDE:
            for key in accepted.operations:
                print(key)
    if wait:
        finish(api, accepted.operations, timeout)
    else:
        tell(f"Watch it with: dr job watch {' '.join(accepted.operations)}")


def told(words: Sequence[str]) -> dict[str, str]:
    """Parameters by name. Raises Failure."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Failure(f"{word!r} is no parameter.", todo="write NAME=VALUE", code=Exit.USAGE)
        if name in found:
            raise Failure(f"{name} is told twice.", code=Exit.USAGE)
        found[name] = value
    return found


def _now(step: PlannedStep) -> str:
    if step.left_out:
        return f"left out: {step.left_out}"
    if step.why:
        return f"not whole: {'; '.join(step.why)}"
    return "; ".join(step.todo) or "nothing is to be done"


COLUMNS: tuple[Column[PlannedStep], ...] = (
    Column("PART", lambda row: row.part),
    Column("STEP", lambda row: row.text),
    Column("NOW", _now),
    Column("TAKES", lambda row: "" if row.takes_s is None else age(row.takes_s)),
    Column("AT MOST", lambda row: age(row.timeout_s)),
)


def _planned(required: str, steps: Sequence[PlannedStep], form: Form) -> None:
    """What would be done; degraded if it would not begin, or a step would be refused."""
    from dr.api.run_schema import RunAccepted

    match form:
        case Form.JSON | Form.YAML:
            document(RunAccepted(message=required, steps=list(steps)), form)
        case Form.NAME | Form.TABLE | Form.WIDE:
            table(steps, COLUMNS, wide=form is Form.WIDE)
    if required:
        tell(f"It would not begin: {required}")
    tell("Nothing was done. What steps before would change is not so yet.")
    if required or any(step.why for step in steps):
        raise typer.Exit(Exit.DEGRADED)
