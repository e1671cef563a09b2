"""`dr agent`: reads its file, chooses the adapters, runs until told to stop. Nothing heavy is imported on this path.

Not here: joining (`dr.cli.join`), what an agent does (`dr.agent`).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import msgspec

from dr.cli.agent_settings import DEFAULT_FILE, LEVELS, AgentConfig
from dr.cli.failure import Exit, Failure
from dr.cli.lean import import_websockets
from dr.model.facts import Level, Reading
from dr.ports.hypervisor import HostHealth

CERTIFICATE_DAYS = 30.0

log = logging.getLogger("dr.agent")


def main(arguments: list[str]) -> int:
    """Raises Failure."""
    parser = argparse.ArgumentParser(
        prog="dr agent run", description="Run this host's agent (dr-agent.service)."
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, help="its file (%(default)s)")
    parser.add_argument("--log-level", choices=LEVELS, help="instead of the file's log_level")
    options = parser.parse_args(arguments)
    config = _load_apart(options.config)
    import_websockets()
    _log(options.log_level or config.log_level)
    _check_identity(config)
    return asyncio.run(_run(config))


def _load_apart(path: Path) -> AgentConfig:
    """Read the file in a child process, so that the YAML reader's 2 MiB are not carried for good. Raises Failure."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        answer = _read(path)
        with os.fdopen(writable, "wb") as pipe:
            pipe.write(msgspec.json.encode(answer))
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    config, problems = msgspec.json.decode(told, type=tuple[AgentConfig | None, list[str]])
    if config is None:
        raise Failure(
            "The agent's configuration cannot be used.",
            blockers=problems,
            todo=f"dr config check {path}; or, on a new host: dr agent join",
            code=Exit.BAD_CONFIG,
        )
    return config


def _read(path: Path) -> tuple[AgentConfig | None, list[str]]:
    """In the child."""
    try:
        from dr.cli import agent_config
        from dr.cli.yamlfile import BadFile

        try:
            return agent_config.load(path), []
        except BadFile as error:
            return None, [problem.text(error.file) for problem in error.problems]
    except Exception as error:
        return None, [f"{path}: {type(error).__name__}: {error}"]


def _log(level: str) -> None:
    """One event a line on stderr; under systemd the journal adds the time."""
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format=f"{stamp}%(levelname)s %(name)s: %(message)s"
    )


def _check_identity(config: AgentConfig) -> None:
    """The file and the certificate must mean the same host: the coordinator goes by the certificate."""
    from dr.adapters.pki.credentials import identity_in, read_credentials
    from dr.adapters.pki.identity import PkiError, Role

    todo = f"on the coordinator: dr cluster token {config.host}; here: dr agent join"
    try:
        own = identity_in(read_credentials(config.pki_dir).certificate)
    except PkiError as error:
        raise Failure(
            "This host has no usable certificate.", why=str(error), todo=todo, code=Exit.BAD_CONFIG
        ) from None
    if (own.role, own.name, own.cluster) != (Role.AGENT, config.host, config.cluster):
        why = f"it is for {own.role} {own.name} of {own.cluster}, the file says {config.host} of {config.cluster}"
        raise Failure("The certificate is not this host's.", why=why, todo=todo, code=Exit.BAD_CONFIG)


class _WithCertificate:
    """`ports.hypervisor.HostHealth`: the host's, and how long its certificate is still good."""

    def __init__(self, inner: HostHealth, config: AgentConfig) -> None:
        self._inner = inner
        self._config = config

    async def health(self) -> tuple[Reading, ...]:
        return (*await self._inner.health(), _certificate(self._config))


def _certificate(config: AgentConfig) -> Reading:
    from dr.adapters.pki.credentials import days_left, read_credentials
    from dr.adapters.pki.identity import PkiError

    fix = f"Run: dr cluster token {config.host} on the coordinator, dr agent join here."
    try:
        days = days_left(read_credentials(config.pki_dir).certificate)
    except PkiError as error:
        return Reading(part="certificate", level=Level.WARN, reason=str(error))
    if days > CERTIFICATE_DAYS:
        return Reading(part="certificate", level=Level.OK)
    return Reading(part="certificate", level=Level.WARN, reason=f"It expires in {days:.0f} days. {fix}")


def _only_one(state_dir: Path) -> int:
    """Two agents on one memory would each run a ticket once. Held until the process ends."""
    from dr.adapters.store.lock import Held, hold

    try:
        return hold(state_dir / "agent.lock")
    except Held as error:
        raise Failure(
            f"Another agent runs on {state_dir} (process {error.holder}).",
            todo=f"stop it first: systemctl stop dr-agent, or see: ps -p {error.holder}",
            code=Exit.REFUSED,
        ) from None
    except OSError as error:
        raise Failure(f"{state_dir} cannot be used.", why=str(error), code=Exit.BAD_DATA) from None


async def _run(config: AgentConfig) -> int:
    from dr.adapters import systemd
    from dr.adapters.clones.clones import HostClones
    from dr.adapters.courier.courier import TlsCourier
    from dr.adapters.departure import SystemdDeparture
    from dr.adapters.health.report import HostReport
    from dr.adapters.libvirt.execs import GuestAgents
    from dr.adapters.libvirt.gate import LibvirtGate
    from dr.adapters.libvirt.hypervisor import LibvirtHypervisor
    from dr.adapters.link.client import LinkDialler
    from dr.adapters.probe.prober import HostProber
    from dr.adapters.store.memory import FileMemory
    from dr.agent.process import Agent

    lock = _only_one(Path(config.state_dir))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    loop.add_signal_handler(
        signal.SIGHUP, lambda: log.info("SIGHUP: the agent's file is read at its start only")
    )
    hypervisor = LibvirtHypervisor(
        config.libvirt_uri,
        migration_uri=config.migration_uri,
        migration_tls=config.migration_tls,
        migration_address=config.migration_address,
        copy_port=config.copy_port,
    )
    agent = Agent(
        config.host,
        config.cluster,
        dialler=LinkDialler(config.coordinators, config.pki_dir),
        hypervisor=hypervisor,
        inside=GuestAgents(config.libvirt_uri),
        gate=LibvirtGate(),
        courier=TlsCourier(
            config.host,
            config.cluster,
            config.pki_dir,
            address=config.migration_address,
            port=config.copy_port,
        ),
        clones=HostClones(config.host, uri=config.libvirt_uri, folder=Path(config.clones_dir)),
        memory=FileMemory(Path(config.state_dir) / "memory.json"),
        host_health=_WithCertificate(HostReport(state_folder=Path(config.state_dir)), config),
        prober=HostProber(),
        departure=SystemdDeparture(),
        notify=systemd.notify,
    )
    try:
        await agent.run(stop)
    finally:
        await hypervisor.close()
        os.close(lock)
    return Exit.OK
