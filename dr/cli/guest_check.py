"""`dr guest check`: one round of guests' checks now, what each found, and the picture of a console.

Not here: which checks a guest has (`dr guest set`), how they are made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from dr.cli.ask import Reason, Timeout, finish, told
from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import Column, Form, Output, listing

if TYPE_CHECKING:
    from dr.api.schema import CheckSeen, Guest
    from dr.cli.client import Api

COLUMNS: tuple[Column[tuple[str, CheckSeen]], ...] = (
    Column("GUEST", lambda row: row[0]),
    Column("CHECK", lambda row: row[1].check),
    Column("RESULT", lambda row: row[1].result, styled=True),
    Column("TOOK", lambda row: f"{row[1].took_s:.2f} s"),
    Column("WHY", lambda row: row[1].why),
    Column("WHAT CAME BACK", lambda row: row[1].evidence, wide=True),
)


def check(
    *,
    names: Annotated[list[str], typer.Argument(help="Names or UUIDs.")],
    screenshot: Annotated[
        Path | None,
        typer.Option(
            "--screenshot", help="Save the picture that the check `screenshot` took (PNG); of one guest."
        ),
    ] = None,
    reason: Reason = "",
    timeout: Timeout = 0.0,
    form: Output = Form.TABLE,
) -> None:
    """Make the checks of guests once, now, and tell what each found. Exit code 1: not all passed."""
    from dr.api.schema import Accepted, GuestChecks, GuestDocument
    from dr.cli.client import connect

    if screenshot is not None and len(names) != 1:
        raise Failure("A picture is of one guest.", why=f"{len(names)} are named", code=Exit.USAGE)
    api = connect()
    accepted = api.post("/v1/guests/check", Accepted, {"guests": names, "reason": reason})
    if form in (Form.TABLE, Form.WIDE):
        told(accepted, form)
    failed: Failure | None = None
    try:
        finish(api, accepted.operations, timeout)
    except Failure as failure:
        if failure.code is not Exit.FAILED:
            raise
        failed = failure
    guests = [api.get(f"/v1/guests/{quote(name, safe='')}", GuestDocument).item for name in names]
    rows = [(guest.name, each) for guest in guests for each in guest.checks]
    if form is Form.NAME:  # those that pass
        rows = [(guest.name, guest.checks[-1]) for guest in guests if guest.checks and not _bad(guest)]
    listing(
        GuestChecks(items={guest.name: guest.checks for guest in guests}), rows, COLUMNS, form,
        name=lambda row: row[0], empty="Nothing was found.",
    )  # fmt: skip
    if screenshot is not None:
        _save(api, names[0], screenshot)
    if failed is not None:
        raise failed


def _bad(guest: Guest) -> bool:
    return any(each.result != "passed" for each in guest.checks)


def _save(api: Api, name: str, file: Path) -> None:
    """Whole, or not at all."""
    half = file.with_name(f".{file.name}.half")
    try:
        api.download(f"/v1/guests/{quote(name, safe='')}/screenshot", half)
        half.replace(file)
    except OSError as error:
        raise Failure(f"{file} cannot be written.", why=str(error), todo="name another file") from None
    finally:
        half.unlink(missing_ok=True)
    tell(f"Its console is in {file}.")
