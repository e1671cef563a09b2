"""`dr plan`: what would be done, and how long it would take. Nothing is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dr.cli.ask import Deadline, foretell, leave_foretold, seconds
from dr.cli.failure import tell
from dr.cli.output import Form, Output, document

app = typer.Typer(help="What would be done, and how long it would take.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group, also while it has one command."""


@app.command()
def evacuate(
    *,
    hosts: Annotated[
        list[str], typer.Argument(metavar="HOST…", help="The host, or several that are emptied together.")
    ],
    leave_unprotected: Annotated[
        bool,
        typer.Option("--leave-unprotected", help="As of `dr host drain`: these stay, and hold nothing up."),
    ] = False,
    deadline: Deadline = "",
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write it as a plan that `dr apply` takes.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Also if that file is there already.")] = False,
    form: Output = Form.TABLE,
) -> None:
    """What `dr host drain` would do now: where each guest goes and when, or all that keeps it and what would help.

    Exit code 3 if a host would not get empty, or not by the deadline.
    """
    from dr.api.plan_schema import PlanDocument
    from dr.cli import planfile
    from dr.cli.client import connect

    found = connect().get(
        "/v1/plans/evacuation",
        PlanDocument,
        host=hosts,
        leave_unprotected=str(leave_unprotected).lower(),
        deadline_s=seconds(deadline),
    )
    told = found.evacuation
    match form:
        case Form.JSON | Form.YAML:
            document(told, form)
        case Form.NAME:
            for guest in told.guests:
                print(guest.name)
        case Form.TABLE | Form.WIDE:
            tell(told.message)
            foretell(told.guests, told.forecast, wide=form is Form.WIDE)
    if save is not None:
        planfile.write(found.plan, save, replace=replace)
        tell(f"Saved as {save} (plan {found.plan.digest}). Apply it with: dr apply {save}")
    leave_foretold(told.guests)
