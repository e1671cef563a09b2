"""`dr agent join` and `leave`. Running the agent is `dr.cli.agent_process`, which `main` starts without coming here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dr.cli.failure import Failure

app = typer.Typer(
    help="This machine as a host of the cluster: join, run, leave.", invoke_without_command=True
)


@app.callback()
def agent() -> None: ...


@app.command()
def join(
    *,
    token: Annotated[
        str, typer.Argument(help="The token, a file that holds it, or - for standard input.")
    ] = "-",
    config: Annotated[
        Path, typer.Option("--config", help="The agent's configuration, to be written.")
    ] = Path("/etc/dr/agent.yaml"),
    state_dir: Annotated[Path, typer.Option("--state-dir", help="For certificate and memory.")] = Path(
        "/var/lib/dr/agent"
    ),
    libvirt_uri: Annotated[str, typer.Option("--libvirt-uri", help="Which libvirt.")] = "qemu:///system",
    migration_uri: Annotated[
        str | None,
        typer.Option("--migration-uri", help="For live migration: qemu+tls://{address}/system, for example."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also if this machine is another host already.")
    ] = False,
) -> None:
    """Make this machine a host of the cluster, with a token from `dr cluster token HOST`."""
    from dr.cli.join import join as do

    do(
        token,
        config=config,
        state_dir=state_dir,
        libvirt_uri=libvirt_uri,
        migration_uri=migration_uri,
        force=force,
    )


@app.command()
def leave() -> None:
    """Wait until this host's guests were moved away, if it goes down (dr-leave.service, as it is stopped).

    Ends at once where the host does not go down, or no agent runs.
    """
    import asyncio

    from dr.adapters.departure import SystemdDeparture

    try:
        held = asyncio.run(SystemdDeparture().until_let_go())
    except OSError as error:
        raise Failure(
            "What holds this host up cannot be seen.", why=str(error), todo="run it as root"
        ) from None
    print("This host was held up, and may go down now." if held else "Nothing holds this host up.")


@app.command()
def run(
    config: Annotated[Path, typer.Option("--config", help="The agent's configuration.")] = Path(
        "/etc/dr/agent.yaml"
    ),
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "",
) -> None:
    """Run this host's agent (dr-agent.service); the same as `dr agent` alone."""
    from dr.cli import agent_process

    more = ["--log-level", log_level] if log_level else []
    raise typer.Exit(agent_process.main(["--config", str(config), *more]))
