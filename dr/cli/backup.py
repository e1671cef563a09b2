"""A backup of the coordinator in one file: what is in it, how it is made and how it is read.

Here: the tar's contents. Not here: how it comes to an administrator (`dr.api`), putting it back (`restore`).
It holds the CA's key and guests' definitions, so it is as secret as the machine itself.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from dr import __version__
from dr.adapters.store.sqlite import SqliteStore
from dr.model.base import Record

MANIFEST = "manifest.json"
STORE = "store.db"
CONFIG = "coordinator.yaml"
FOLDERS = ("pki", "used-tokens")  # of the state directory
FORMAT = 1
FILE_BYTES_MAX = 1024 * 1024  # of everything but the store
FILES_MAX = 100_000


class Manifest(Record):
    """The first file of a backup."""

    format: int
    cluster: str
    wall: float  # unix time at which it was made
    version: str  # of dr
    config: str  # where coordinator.yaml lay
    state_dir: str

    @property
    def date(self) -> str:
        """For people, in UTC."""
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(self.wall))


class BadBackup(Exception):
    """The file is no backup, or not a whole one; the sentence says why."""


async def write(
    store: SqliteStore, target: Path, *, cluster: str, config: Path, state_dir: Path, wall: float
) -> None:
    """Make `target` (0600): a consistent copy of the store, the CA and certificates, the configuration.

    Raises StoreError, OSError. Needs room for the store twice, beside `target`.
    """
    copy = target.with_name(target.name + ".store")
    manifest = Manifest(
        format=FORMAT,
        cluster=cluster,
        wall=wall,
        version=__version__,
        config=str(config),
        state_dir=str(state_dir),
    )
    try:
        await store.backup(copy)
        await asyncio.to_thread(_pack, target, manifest, copy)
    finally:
        copy.unlink(missing_ok=True)


def _pack(target: Path, manifest: Manifest, store: Path) -> None:
    target.unlink(missing_ok=True)
    target.touch(mode=0o600, exist_ok=False)
    with tarfile.open(target, "w") as tar:
        _add(tar, MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        _add(tar, CONFIG, Path(manifest.config).read_bytes())
        for folder in FOLDERS:
            for path in sorted((Path(manifest.state_dir) / folder).glob("*")):
                if path.is_file() and not path.is_symlink():
                    _add(tar, f"{folder}/{path.name}", path.read_bytes())
        tar.add(store, STORE, filter=_plain)  # last: without it the file is not whole


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(_plain(member), io.BytesIO(content))


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode, member.uid, member.gid, member.uname, member.gname = 0o600, 0, 0, "root", "root"
    return member


@dataclass(frozen=True)
class Contents:
    """What was unpacked, in a folder of its own."""

    manifest: Manifest
    folder: Path


def read_manifest(file: Path) -> Manifest:
    """Raises BadBackup."""
    try:
        with tarfile.open(file) as tar:
            for member in _members(tar):
                return _manifest(tar, member)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise BadBackup(f"{file} cannot be read: {error}") from None
    raise BadBackup(f"{file} is empty")


def unpack(file: Path, folder: Path) -> Contents:
    """Everything into `folder`, which is new and private. Raises BadBackup, OSError."""
    names: set[str] = set()
    manifest: Manifest | None = None
    try:
        with tarfile.open(file) as tar:
            for member in _members(tar):
                if manifest is None:
                    manifest = _manifest(tar, member)
                names.add(member.name)
                _extract(tar, member, folder / member.name)
    except (tarfile.TarError, EOFError) as error:
        raise BadBackup(f"{file} is damaged: {error}") from None
    if manifest is None or STORE not in names or CONFIG not in names:
        raise BadBackup(f"{file} is not whole: it lacks {STORE}, {CONFIG} or {MANIFEST}")
    return Contents(manifest, folder)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Private, whatever the tar says, and durable."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    stream = tar.extractfile(member)
    assert stream is not None, "it is a regular file"
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as out:
        shutil.copyfileobj(stream, out)
        out.flush()
        os.fsync(out.fileno())


def _manifest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Manifest:
    stream = tar.extractfile(member) if member.name == MANIFEST else None
    if stream is None:
        raise BadBackup("it is not a backup that `dr cluster backup` made")
    try:
        manifest = msgspec.json.decode(stream.read(FILE_BYTES_MAX), type=Manifest)
    except msgspec.DecodeError as error:
        raise BadBackup(f"its {MANIFEST} cannot be read: {error}") from None
    if manifest.format != FORMAT:
        raise BadBackup(
            f"it has format {manifest.format} (dr {manifest.version}), this version of dr reads {FORMAT}"
        )
    return manifest


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Only what a backup may hold: nothing in it may lead elsewhere. Raises BadBackup."""
    for number, member in enumerate(tar):
        path = PurePosixPath(member.name)
        here = len(path.parts) == 1 and member.name in (MANIFEST, STORE, CONFIG)
        below = len(path.parts) == 2 and path.parts[0] in FOLDERS and path.parts[1] not in (".", "..")
        if not member.isreg() or not (here or below) or number > FILES_MAX:
            raise BadBackup(f"it holds {member.name!r}, which is no part of a backup")
        if member.name != STORE and member.size > FILE_BYTES_MAX:
            raise BadBackup(f"{member.name} in it is larger than {FILE_BYTES_MAX} bytes")
        yield member
