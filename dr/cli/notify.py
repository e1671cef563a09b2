"""`dr notify`."""

from __future__ import annotations

import typer

from dr.cli.ask import send

app = typer.Typer(help="Whom the coordinator tells.", no_args_is_help=True)


@app.callback()
def notify() -> None: ...


@app.command("test")
def try_sinks() -> None:
    """Send a test alert to everyone who is configured, and say whether it arrived."""
    send("/v1/notify/test", {})
