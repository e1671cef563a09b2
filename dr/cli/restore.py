"""`dr cluster restore`: makes this machine the coordinator of a cluster whose coordinator was lost.

Here: checks, putting the files in place, binding the store to this machine. Not here: what is in a backup (`backup`),
what a coordinator does on a restored store (`dr.core`): it holds until `dr resume`.

A store that was put back is older than the world. So it is marked, and the coordinator that starts on it asks every
host for every guest before anything is started or fenced. What cannot be undone is asked of the operator: that the
old coordinator is off.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dr.adapters.pki.authority import Authority
from dr.adapters.pki.credentials import TLS_FILE
from dr.adapters.pki.identity import PkiError, Role
from dr.adapters.store.atomic import sync_folder
from dr.adapters.store.lock import Held, hold
from dr.adapters.store.sqlite import SqliteStore
from dr.cli import backup, config, credentials
from dr.cli.ask import confirm
from dr.cli.backup import BadBackup, Contents
from dr.cli.coordinator_process import machine
from dr.cli.failure import Exit, Failure, tell
from dr.cli.yamlfile import BadFile
from dr.coordinator import journal
from dr.model.base import changed
from dr.model.records import Cluster, Pause
from dr.ports.store import StoreError

OFF = "the old coordinator is off"
DANGER = (
    "If another coordinator still runs on this cluster's store, both decide, and a guest may be started twice. "
    "Pull the power of its machine, or see that it cannot start again (systemctl disable --now dr-coordinator)."
)


@dataclass(frozen=True)
class Wish:
    """What the operator asked for."""

    by: str
    reason: str
    config: Path  # where coordinator.yaml is, or is to be put
    client: Path
    yes: bool
    replace: bool


def from_file(file: Path, wish: Wish) -> None:
    """Raises Failure."""
    try:
        manifest = backup.read_manifest(file)
    except BadBackup as error:
        raise Failure("This backup cannot be used.", why=str(error), code=Exit.BAD_DATA) from None
    state_dir = Path(manifest.state_dir)
    lock = _alone(state_dir)
    try:
        in_the_way = _in_the_way(wish.config, state_dir)
        if in_the_way and not wish.replace:
            raise Failure(
                "There is a coordinator's state on this machine already; nothing was changed.",
                blockers=[f"{path} exists" for path in in_the_way],
                todo="if the backup shall take its place (it is kept beside): dr cluster restore FILE --replace; "
                "to go on with that state: dr cluster restore --here",
                code=Exit.REFUSED,
            )
        tell(f"Backup of cluster {manifest.cluster}, made {manifest.date} by dr {manifest.version}.")
        confirm(OFF, DANGER, yes=wish.yes)
        folder = Path(tempfile.mkdtemp(prefix=".restore-", dir=state_dir))
        try:
            contents = backup.unpack(file, folder)
            authority = _checked(contents)
            why = f"restored by {wish.by} from a backup of {manifest.date}: {wish.reason}"
            asyncio.run(_mark(folder / backup.STORE, why, wish.by))
            for path in in_the_way:
                kept = path.with_name(f"{path.name}.before-restore-{int(time.time())}")
                path.rename(kept)
                tell(f"  {path} was kept as {kept}.")
            _put(contents, wish.config, state_dir)
        except BadBackup as error:
            raise Failure("This backup cannot be used.", why=str(error), code=Exit.BAD_DATA) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        tell(f"The coordinator of cluster {manifest.cluster} was put back on this machine.")
        _credential(authority, wish)
    finally:
        os.close(lock)
    _next(wish)


def here(wish: Wish) -> None:
    """A store that was brought here by hand. Raises Failure."""
    try:
        known = config.load(wish.config)
    except BadFile as error:
        raise Failure(
            "The coordinator's configuration cannot be used.",
            why=str(error),
            todo=f"put it back as {wish.config}, then repeat this",
            code=Exit.BAD_CONFIG,
        ) from None
    store = known.state_dir / backup.STORE
    if not store.exists():
        raise Failure(
            f"There is no store at {store}.", todo="dr cluster restore FILE --reason '...'", code=Exit.MISSING
        )
    os.close(_alone(known.state_dir))
    confirm(OFF, DANGER, yes=wish.yes)
    asyncio.run(_mark(store, f"restored by {wish.by} from a copy of its files: {wish.reason}", wish.by))
    tell(f"The store {store} now belongs to this machine.")
    _next(wish)


def _alone(state_dir: Path) -> int:
    """No coordinator runs on that folder, nor can one start while the descriptor is open. Raises Failure."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return hold(state_dir / f"{backup.STORE}.lock")
    except Held as error:
        raise Failure(
            f"A coordinator runs on this machine (process {error.holder}); nothing was changed.",
            todo="systemctl stop dr-coordinator",
            code=Exit.REFUSED,
        ) from None


def _in_the_way(config_file: Path, state_dir: Path) -> list[Path]:
    """A left -wal would be read into the restored store, so it counts too."""
    paths = [state_dir / f"{backup.STORE}{end}" for end in ("", "-wal", "-shm", "-journal")]
    paths += [state_dir / name for name in backup.FOLDERS]
    return [path for path in (*paths, config_file) if path.exists()]


def _checked(contents: Contents) -> Authority:
    """The CA of the backup. Raises BadBackup."""
    try:
        authority = Authority.open(contents.folder / "pki")
    except PkiError as error:
        raise BadBackup(f"its CA cannot be used: {error}") from None
    if authority.cluster != contents.manifest.cluster:
        raise BadBackup(f"its CA is of cluster {authority.cluster}, not {contents.manifest.cluster}")
    return authority


async def _mark(file: Path, why: str, by: str) -> None:
    """Bind the store to this machine and say in it that it is a restored one. Raises Failure."""
    try:
        store = await SqliteStore.open(file)
        try:
            entry = await store.get(journal.CLUSTER)
            if entry is None:
                raise Failure("The store is empty: no coordinator ever ran on it.", code=Exit.BAD_DATA)
            cluster = journal.decode(entry.value, Cluster)
            clock = await store.get(journal.CLOCK)
            at = journal.decode(clock.value, journal.Clock).now if clock else 0.0
            cluster = changed(
                cluster,
                machine=machine(),
                restored=why,
                pause=Pause(reason="the store was restored, and is older than the world", by=by, at=at),
            )
            puts = {journal.CLUSTER: msgspec.json.encode(cluster)}
            await store.commit(puts, guards={journal.CLUSTER: entry.revision})
        finally:
            await store.close()
    except (StoreError, msgspec.DecodeError) as error:
        raise Failure("The store cannot be used.", why=str(error), code=Exit.BAD_DATA) from None


def _put(contents: Contents, config_file: Path, state_dir: Path) -> None:
    """The CA last: until it is there no coordinator starts. Raises OSError."""
    config_file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    shutil.copyfile(contents.folder / backup.CONFIG, config_file)
    config_file.chmod(0o600)
    for name in (backup.STORE, *reversed(backup.FOLDERS)):
        source = contents.folder / name
        if source.exists():
            source.rename(state_dir / name)
            sync_folder(state_dir)


def _credential(authority: Authority, wish: Wish) -> None:
    """An administrator for this machine, unless there is one."""
    if (wish.client / TLS_FILE).exists():
        return
    try:
        urls = config.load(wish.config).api_urls
    except BadFile as error:
        tell(f"The configuration cannot be used yet: {error}")
        tell("Correct it, then, for an administrator's credential: dr cluster init --renew")
        return
    credentials.save(wish.client, urls, authority.issue(Role.ADMIN, wish.by))
    tell(f"  {wish.client}: a new credential of administrator {wish.by}, good for a year.")


def _next(wish: Wish) -> None:
    tell("It holds: nothing is fenced or started until you say so. Next:")
    tell(f"  see that this machine has the old one's addresses: addresses in {wish.config}")
    tell("  systemctl start dr-coordinator")
    tell("  dr host list; dr guest list      # every host is there, every guest where it should be")
    tell("  dr resume --reason '...'")
