"""The command line's tree. Command groups import what they need when they run, so that `dr --help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dr import __version__
from dr.cli import (
    agent,
    apply,
    cluster,
    config_commands,
    doctor,
    drill,
    drill_schedule,
    events,
    fence,
    guest,
    host,
    job,
    notify,
    output,
    plan,
    playbook,
    sim,
    status,
)
from dr.cli.failure import Exit
from dr.cli.output import Color

app = typer.Typer(
    name="dr",
    help="Live migration and disaster recovery for plain libvirt/KVM hosts.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.command("status")(status.status)
app.add_typer(host.app, name="host")
app.add_typer(guest.app, name="guest")
app.add_typer(plan.app, name="plan")
app.command("apply")(apply.apply)
app.add_typer(playbook.app, name="playbook")
drill.app.command("schedule")(drill_schedule.schedule)
app.add_typer(drill.app, name="drill")
app.add_typer(fence.app, name="fence")
app.add_typer(job.app, name="job")
app.command("events")(events.events)
app.command("pause")(status.pause)
app.command("resume")(status.resume)
app.command("doctor")(doctor.doctor)
app.add_typer(notify.app, name="notify")
app.add_typer(config_commands.app, name="config")
app.add_typer(cluster.app, name="cluster")
app.add_typer(agent.app, name="agent")
app.add_typer(sim.app, name="sim")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    client_dir: Annotated[
        Path | None,
        typer.Option(
            "--client-dir",
            envvar="DR_CLIENT_DIR",
            help="Credential and address of the coordinator (/etc/dr/client).",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
    color: Annotated[Color, typer.Option("--color", help="NO_COLOR is heeded too.")] = Color.AUTO,
) -> None:
    from dr.cli import credentials

    credentials.chosen = client_dir
    output.color = color


@app.command()
def coordinator(
    config: Annotated[Path, typer.Option("--config", help="Its configuration.")] = Path(
        "/etc/dr/coordinator.yaml"
    ),
) -> None:
    """Run the coordinator (dr-coordinator.service)."""
    from dr.cli import coordinator_process

    raise typer.Exit(coordinator_process.main(config))


@app.command("version")
def version_(form: output.Output = output.Form.TABLE) -> None:
    """Print the version."""
    if form in (output.Form.JSON, output.Form.YAML):
        output.plain({"version": 1, "kind": "version", "dr": __version__}, form)
    else:
        print(f"dr {__version__}")


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code. Raises Failure. Usage errors are told by typer, and end with 2."""
    try:
        app(arguments, prog_name="dr")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else Exit.OK
    return Exit.OK
