"""`dr coordinator`: reads its file, chooses the adapters, runs until told to stop.

SIGHUP reads the file again: a good one is taken, a bad one is logged and told, and the old one stays in force.
Not here: what a coordinator decides (`dr.coordinator`, `dr.core`), the API's routes (`dr.api`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from dr import __version__
from dr.adapters import systemd
from dr.adapters.fencing.agents import FenceAgents
from dr.adapters.fencing.parameters import fingerprint
from dr.adapters.link.server import LinkServer
from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import Credentials, days_left, load, read_credentials, server_context
from dr.adapters.pki.identity import Identity, PkiError, Role, identity_of
from dr.adapters.probe.checker import GuestChecker
from dr.adapters.probe.prober import HostProber
from dr.adapters.ssh.runner import SshRunner
from dr.adapters.store.decisions import DecisionFiles
from dr.adapters.store.sqlite import SqliteStore
from dr.api.access import Peer
from dr.api.app import make_app
from dr.api.desk import Desk
from dr.api.server import ApiServer
from dr.api.snapshot import Devices
from dr.cli import backup
from dr.cli import config as configuration
from dr.cli.failure import Exit, Failure
from dr.cli.notifiers import Notifiers
from dr.cli.yamlfile import BadFile
from dr.coordinator.service import Coordinator
from dr.core.decide import StoreElsewhere
from dr.ports.store import StoreConflict, StoreError

log = structlog.get_logger("dr.coordinator")

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MACHINE_ID = Path("/etc/machine-id")
LEFT_S = 3600.0
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def main(path: Path) -> int:
    """Raises Failure."""
    config = read_config(path)
    set_up_logging(config.log_level, config.log_format)
    for warning in config.warnings:
        log.warning("configuration", problem=warning.text(config.file))
    return asyncio.run(_Process(path, config).run())


def read_config(path: Path) -> configuration.CoordinatorConfig:
    """Raises Failure with every problem."""
    try:
        return configuration.load(path)
    except BadFile as error:
        raise Failure(
            "The coordinator's configuration cannot be used.",
            blockers=[problem.text(error.file) for problem in error.problems],
            todo=f"correct it, then: dr config check {path}",
            code=Exit.BAD_CONFIG,
        ) from None


def set_up_logging(level: str, form: str) -> None:
    """One event a line on stderr: for people on a terminal, JSON elsewhere. Standard library loggers end there too."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=console) if console else structlog.processors.JSONRenderer()
    )
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for noisy in ("uvicorn", "httpx", "httpcore", "asyncio", "asyncssh", "websockets"):
        logging.getLogger(noisy).setLevel(max(LEVELS[level], logging.WARNING))


class _Process:
    """One run of the coordinator."""

    def __init__(self, path: Path, config: configuration.CoordinatorConfig) -> None:
        self.path = path
        self.config = config
        self.pki = config.state_dir / "pki"
        try:
            self.authority = Authority.open(self.pki)
            self.credentials = read_credentials(self.pki)
        except PkiError as error:
            raise Failure(
                "The coordinator's certificates cannot be used.",
                why=str(error),
                todo="dr cluster init",
                code=Exit.BAD_CONFIG,
            ) from None
        if self.authority.cluster != config.cluster:
            why = f"the CA in {self.pki} is of cluster {self.authority.cluster}, {path} says {config.cluster}"
            raise Failure("The cluster's name does not fit.", why=why, code=Exit.BAD_CONFIG)
        self.fencer = FenceAgents()
        self.stopping = asyncio.Event()
        self._hang_up = asyncio.Event()
        self._backing_up = asyncio.Lock()
        self.notifiers = Notifiers(config.sinks, config.cluster)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._stop)
        try:
            store = await SqliteStore.open(self.config.state_dir / "store.db")
        except StoreError as error:
            raise Failure("The store cannot be used.", why=str(error), code=Exit.BAD_DATA) from None
        try:
            self._store = store
            return await self._lead(store)
        finally:
            await store.close()
            await self.notifiers.close()
            log.info("stopped")

    def _stop(self) -> None:
        systemd.notify("STOPPING=1")
        self.stopping.set()

    async def _lead(self, store: SqliteStore) -> int:
        coordinator = Coordinator(
            store=store,
            fencer=self.fencer,
            prober=HostProber(),
            checker=GuestChecker(),
            runner=SshRunner(lambda: self.config.ssh),
            notifier=self.notifiers,
            decisions=DecisionFiles(self.config.state_dir / "decisions"),
            settings=self.config.settings,
            machine=machine(),
            boot_id=_boot_id(),
            leader_id=uuid.uuid4().hex,
            cluster=self.config.cluster,
            stopping=self.stopping,
            sd_notify=systemd.notify,
        )
        try:
            await coordinator.start()
        except (StoreElsewhere, StoreConflict) as error:
            raise Failure("The coordinator does not start.", why=str(error), code=Exit.REFUSED) from error
        except (StoreError, msgspec.DecodeError) as error:
            raise Failure("The store cannot be read.", why=str(error), code=Exit.BAD_DATA) from error
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up.set)
        link = LinkServer(
            [
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                for host, port in self.config.listen_agents
            ],
            self.credentials,
            coordinator.serve_session,
            allowed=lambda identity: _not_admitted(coordinator, identity),
        )
        self._context = server_context(self.credentials)
        api = ApiServer(make_app(self._desk(coordinator)), self._context, _identify)
        self._link = link
        try:
            await link.start()
            await api.start(self.config.listen_api)
        except OSError as error:
            await link.close("the coordinator does not start")
            raise Failure("The coordinator cannot listen.", why=str(error), code=Exit.UNREACHABLE) from None
        log.info(
            "leading",
            version=__version__,
            cluster=self.config.cluster,
            epoch=coordinator.state.cluster.epoch,
            agents=list(link.addresses),
            api=api.ports,
        )
        systemd.notify("READY=1")
        reloading = asyncio.create_task(self._reload_when_asked(coordinator), name="reload")
        try:
            await coordinator.run()
        except StoreConflict as error:
            why = f"{error}; what leads now is another process"
            raise Failure("The coordinator stops.", why=why, code=Exit.REFUSED) from error
        finally:
            reloading.cancel()
            await asyncio.gather(reloading, return_exceptions=True)
            await api.stop()
            await link.close("the coordinator stops")
        return Exit.OK

    def _desk(self, coordinator: Coordinator) -> Desk:
        return Desk(
            coordinator=coordinator,
            cluster=self.config.cluster,
            invite=lambda host: self.authority.invite(
                host, api=self.config.api_urls, link=self.config.agent_urls
            ),
            certify=lambda request, host: self.authority.sign(request, Role.AGENT, host),
            spend=self._spend,
            devices=Devices(fingerprint=fingerprint, problem=self.fencer.problem),
            sinks=lambda: len(self.config.sinks),
            notify_test=self.notifiers.test,
            certificates=self._certificates,
            alerts=lambda: self.notifiers.alerts,
            backup=self._backup,
        )

    async def _backup(self, by: str) -> Path:
        """Everything that makes this machine the coordinator, in one file of its own. One at a time."""
        async with self._backing_up:
            folder = self.config.state_dir / "backups"
            await asyncio.to_thread(_emptied, folder)
            target = folder / f"{uuid.uuid4().hex}.tar"
            try:
                await backup.write(
                    self._store,
                    target,
                    cluster=self.config.cluster,
                    config=self.path.absolute(),
                    state_dir=self.config.state_dir,
                    wall=time.time(),
                )
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            log.info("a backup was made", by=by, bytes=target.stat().st_size)
            return target

    async def _spend(self, serial: str) -> bool:
        return await asyncio.to_thread(spend, self.config.state_dir / "used-tokens", serial)

    def _certificates(self) -> dict[str, float]:
        return {"coordinator": days_left(self.credentials.certificate), "CA": days_left(self.authority.ca)}

    async def _reload_when_asked(self, coordinator: Coordinator) -> None:
        while True:
            await self._hang_up.wait()
            self._hang_up.clear()
            try:
                await self._reload(coordinator)
            except Exception:
                log.exception("reload failed: the old configuration stays in force")

    async def _reload(self, coordinator: Coordinator) -> None:
        """Take the file again, and a renewed certificate. What only a start can change is named, not taken."""
        try:
            config = await asyncio.to_thread(configuration.load, self.path)
            credentials = read_credentials(self.pki)
        except (BadFile, PkiError) as error:
            log.error("reload refused: the old configuration stays in force", problem=str(error))
            await self.notifiers.bad_reload(str(error), coordinator.now())
            systemd.notify("STATUS=the configuration on disk is bad; the old one is in force")
            return
        for name in ("cluster", "state_dir", "listen_agents", "listen_api"):
            if getattr(config, name) != getattr(self.config, name):
                log.warning("a restart is needed for this change", field=name)
        if credentials != self.credentials:
            self._renew(credentials)
        self.config = config
        self.notifiers.replace(config.sinks)
        await self.notifiers.bad_reload("", coordinator.now())
        logging.getLogger().setLevel(LEVELS[config.log_level])
        coordinator.reconfigure(config.settings)
        systemd.notify("STATUS=")
        log.info("reloaded", file=str(self.path))

    def _renew(self, credentials: Credentials) -> None:
        try:
            self._link.reload(credentials)
            load(self._context, credentials)
            self.credentials = credentials
            log.info("a renewed certificate is in use", days=round(days_left(credentials.certificate)))
        except PkiError as error:
            log.error("the renewed certificate cannot be used", problem=str(error))


def _emptied(folder: Path) -> None:
    """Backups that nobody fetched to the end (a crash) are gone after an hour. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.iterdir():
        if time.time() - left.stat().st_mtime > LEFT_S:
            left.unlink(missing_ok=True)


def spend(folder: Path, serial: str) -> bool:
    """Use a token up. True the first time; durable before it says so. Raises OSError."""
    from dr.adapters.store.atomic import write_new

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    assert serial.isalnum(), serial
    try:
        write_new(folder / serial, b"")
    except FileExistsError:
        return False
    return True


def _not_admitted(coordinator: Coordinator, identity: Identity) -> str | None:
    if identity.name in coordinator.state.hosts:
        return None
    return f"host {identity.name} is not in this cluster (removed?). Join it again: dr cluster token {identity.name}"


def _identify(certificate: Mapping[str, Any] | None) -> Peer:
    identity = identity_of(certificate)
    return Peer(
        cluster=identity.cluster, role=identity.role.value, name=identity.name, serial=identity.serial
    )


def machine() -> str:
    """Which machine this is: a store that was copied to another must not lead there."""
    try:
        return MACHINE_ID.read_text().strip() or os.uname().nodename
    except OSError:
        return os.uname().nodename


def _boot_id() -> str:
    """Of this machine: the host that shows the same one is where the coordinator runs."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
