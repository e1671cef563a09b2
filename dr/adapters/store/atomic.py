"""Files that are whole or not there: written beside, made durable, then renamed into place.

One writer a file is assumed: the name of the file beside is fixed, so that a crash leaves at most one behind.
"""

from __future__ import annotations

import os
from pathlib import Path

BESIDE = ".new"


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`, durably when it returns. Raises OSError, and then `path` is as it was."""
    _put(path, data, mode, replace=True)


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Like `write_atomic`, but raises FileExistsError rather than replace what is there."""
    _put(path, data, mode, replace=False)


def sync_folder(folder: Path) -> None:
    """Make a new or renamed name in `folder` durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _put(path: Path, data: bytes, mode: int, *, replace: bool) -> None:
    beside = path.with_name(path.name + BESIDE)
    beside.unlink(missing_ok=True)  # a crash left it, maybe with another mode
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        try:
            os.fchmod(fd, mode)  # the umask may have taken bits that a readable file needs
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if replace:
            beside.rename(path)
        else:
            os.link(beside, path)  # a rename would overwrite
            beside.unlink()
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
