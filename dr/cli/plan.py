"""`dr plan`: what would be done, and how long it would take. Nothing is done."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

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
    host: Annotated[str, typer.Argument(help="The host's name.")],
    leave_unprotected: Annotated[
        bool,
        typer.Option("--leave-unprotected", help="As of `dr host drain`: these stay, and hold nothing up."),
    ] = False,
    deadline: Deadline = "",
    form: Output = Form.TABLE,
) -> None:
    """What `dr host drain` would do now: where each guest goes and when, or all that keeps it and what would help.

    Exit code 3 if the host would not get empty, or not by the deadline.
    """
    from dr.api.schema import Evacuation
    from dr.cli.client import connect

    path = f"/v1/hosts/{quote(host, safe='')}/evacuation"
    until_s = seconds(deadline)
    leave = str(leave_unprotected).lower()
    told = connect().get(path, Evacuation, leave_unprotected=leave, deadline_s=until_s)
    match form:
        case Form.JSON | Form.YAML:
            document(told, form)
        case Form.NAME:
            for guest in told.guests:
                print(guest.name)
        case Form.TABLE | Form.WIDE:
            tell(told.message)
            foretell(told.guests, told.forecast, wide=form is Form.WIDE)
    leave_foretold(told.guests)
