"""`dr config`: look at a configuration without touching what runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import Form, Output, plain

app = typer.Typer(help="Check and show configuration files.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="A coordinator's or an agent's file.", show_default=True)]
DEFAULT = Path("/etc/dr/coordinator.yaml")


@app.command()
def check(file: File = DEFAULT) -> None:
    """Say everything that is wrong with a file; exit code 78 if anything is."""
    if _is_agents(file):
        _load_agents(file)
        tell(f"{file}: good (agent)")
        return
    config = _load(file)
    for warning in [*(problem.text(config.file) for problem in config.warnings), *_unusable(config)]:
        tell(f"warning: {warning}")
    hosts = config.settings.hosts
    fenced = sum(bool(host.fencing) for host in hosts.values())
    tell(f"{file}: good (cluster {config.cluster}, {len(hosts)} hosts, {fenced} with fencing)")


@app.command()
def show(file: File = DEFAULT, form: Output = Form.YAML) -> None:
    """Print what is in force: defaults filled in, secrets masked."""
    from dr.cli.config_shown import effective

    data: dict[str, Any]
    if _is_agents(file):
        import msgspec

        data = msgspec.structs.asdict(_load_agents(file))
    else:
        data = effective(_load(file))
    if form is Form.JSON:
        plain({"version": 1, "kind": "config", "file": str(file), "config": data}, form)
    else:
        plain(data, Form.YAML)


def _is_agents(file: Path) -> bool:
    """Whether it is an agent's file: only those have `host` or `coordinators`."""
    from dr.cli.yamlfile import BadFile, read

    try:
        data = read(file).data
    except BadFile:
        return file.name == "agent.yaml"
    return isinstance(data, dict) and not {"host", "coordinators"}.isdisjoint(data)


def _load(file: Path) -> Any:
    from dr.cli import config
    from dr.cli.yamlfile import BadFile

    try:
        return config.load(file)
    except BadFile as error:
        raise _bad(error) from None


def _load_agents(file: Path) -> Any:
    from dr.cli import agent_config
    from dr.cli.yamlfile import BadFile

    try:
        return agent_config.load(file)
    except BadFile as error:
        raise _bad(error) from None


def _bad(error: Any) -> Failure:
    return Failure(
        f"{error.file} cannot be used.",
        blockers=[problem.text(error.file) for problem in error.problems],
        todo="correct it; every key is documented in the file that `dr cluster init` writes",
        code=Exit.BAD_CONFIG,
    )


def _unusable(config: Any) -> list[str]:
    """Fence devices that would not work from this machine, e.g. because the agent is not installed."""
    from dr.adapters.fencing.agents import FenceAgents

    agents = FenceAgents()
    found = []
    for host in config.settings.hosts.values():
        for level in host.fencing:
            found += [f"{host.name}: {why}" for device in level.devices if (why := agents.problem(device))]
    return list(dict.fromkeys(found))
