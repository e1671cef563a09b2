"""Locks on image files, in the very way of QEMU (`raw_apply_lock_bytes` in its block/file-posix.c).

Who uses an image holds a shared lock on byte 100 + n for each permission that it has, and on byte 200 + n for each that
it does not let others have; then it looks whether others hold the opposite. So QEMU, qemu-img and qemu-nbd refuse to
open what is being copied, and what they use is not copied. The locks belong to the open file and end with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from dr.ports.courier import CourierError

CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE = range(4)  # BLK_PERM_*, as numbers of bits
ALL = (CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE)
_HELD, _DENIED = 100, 200
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid


def lock_to_read(fd: int, path: str) -> None:
    """Nobody else may write to it or resize it. Raises CourierError: in use, or it cannot be locked."""
    _lock(fd, path, held=(CONSISTENT_READ,), denied=(WRITE, RESIZE))


def lock_to_write(fd: int, path: str) -> None:
    """Nobody else may do anything with it. Raises CourierError: in use, or it cannot be locked."""
    _lock(fd, path, held=(CONSISTENT_READ, WRITE, RESIZE), denied=ALL)


def _lock(fd: int, path: str, held: tuple[int, ...], denied: tuple[int, ...]) -> None:
    # First told, then looked: of two that come at once, one at least sees the other.
    try:
        for byte in (*(_HELD + each for each in held), *(_DENIED + each for each in denied)):
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
        for byte in (*(_DENIED + each for each in held), *(_HELD + each for each in denied)):
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            found = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
            if found[0] != fcntl.F_UNLCK:
                raise BlockingIOError(errno.EAGAIN, "locked", path)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise CourierError(f"{path} is in use by another process on this host") from None
        raise CourierError(f"{path} cannot be locked: {os.strerror(error.errno or 0)}") from error
