"""`dr fence`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from dr.cli.ask import Reason, Timeout, Wait, Yes, confirm, send
from dr.cli.failure import tell
from dr.cli.output import Column, Form, Output, clock, listing

if TYPE_CHECKING:
    from dr.api.schema import FenceRow

app = typer.Typer(help="Fence devices: what is configured, whether it is proven.", no_args_is_help=True)

COLUMNS: tuple[Column[FenceRow], ...] = (
    Column("HOST", lambda row: row.host),
    Column("LEVEL", lambda row: str(row.level or "-")),
    Column("DEVICE", lambda row: row.device or "-"),
    Column("AGENT", lambda row: row.agent),
    Column("ADDRESS", lambda row: row.address),
    Column("PROVEN", lambda row: ("yes" if row.proven else "no") if row.device else "none", styled=True),
    Column("ON", lambda row: clock(row.proven_wall, parts=False)),
    Column("GUID", lambda row: row.guid, wide=True),
    Column("REASON", lambda row: row.reason),
)


@app.command("list")
def list_(
    *, host: Annotated[str, typer.Option("--host", help="Only of this host.")] = "", form: Output = Form.TABLE
) -> None:
    """Configured devices, and whether each has shown that it switches its host."""
    from dr.api.schema import FenceList
    from dr.cli.client import connect

    rows = [row for row in connect().get("/v1/fence", FenceList).items if host in ("", row.host)]
    listing(
        FenceList(items=rows), rows, COLUMNS, form,
        name=lambda row: f"{row.host}/{row.device}" if row.device else row.host,
        empty="No hosts are configured or joined.",
    )  # fmt: skip


@app.command("test")
def prove(
    *,
    host: Annotated[str, typer.Argument(help="The host; it must be empty.")],
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 600.0,
    form: Output = Form.TABLE,
) -> None:
    """Power-cycle an empty host, to prove that its fence devices switch it and no other."""
    confirm(host, f"{host} will be switched off and on again.", yes=yes)
    send(
        f"/v1/hosts/{quote(host, safe='')}/fence-test",
        {"reason": reason},
        wait=wait,
        timeout_s=timeout,
        form=form,
    )


@app.command()
def history(
    *,
    host: Annotated[str, typer.Argument(help="Only of this host.")] = "",
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="At most so many, the newest.", min=1, max=5000)
    ] = 50,
    form: Output = Form.TABLE,
) -> None:
    """Fencings and what the devices said."""
    from dr.cli.events import show

    if not show(form, lines=lines, topic="fence", host=host):
        tell("Nothing was fenced.")
