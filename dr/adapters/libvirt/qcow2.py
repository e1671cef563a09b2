"""What the header of a qcow2 image says (QEMU's docs/interop/qcow2.txt): its size, and what it is backed by."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

MAGIC = b"QFI\xfb"
HEAD_BYTES = 72  # of version 2; version 3 has 32 more at least
READ_BYTES = 65536  # extensions and the name of the backing file lie in the first cluster
NAME_BYTES_MAX = 1023
BACKING_FORMAT = 0xE2792ACA
DATA_FILE = 4


class Header(NamedTuple):
    """Of one image."""

    size_b: int  # as its guest sees it
    backing: str = ""  # as it is written there
    backing_form: str = ""  # as it is declared there; else QEMU would have to guess
    whole: bool = True  # without a data file, snapshots inside, or encryption


def read(file: Path) -> Header | None:
    """None where it is no qcow2 image. Raises OSError.

    Only for what the definition calls qcow2, or an image below such a one declares so: what a guest writes into a raw
    disk may look like this, and must not be believed.
    """
    with file.open("rb", buffering=0) as image:
        head = image.read(READ_BYTES)
        if len(head) < HEAD_BYTES or head[:4] != MAGIC:
            return None
        version, offset, length = struct.unpack_from(">IQI", head, 4)
        size_b, crypt = struct.unpack_from(">QI", head, 24)
        (snapshots,) = struct.unpack_from(">I", head, 60)
        incompatible, end = 0, HEAD_BYTES
        if version >= 3 and len(head) >= 104:
            incompatible, end = struct.unpack_from(">Q20xI", head, 72)
        if offset and not 0 < length <= NAME_BYTES_MAX:
            return None
        image.seek(offset)
        name = image.read(length) if offset else b""
    return Header(
        size_b=size_b,
        backing=name.decode("utf-8", "surrogateescape"),
        backing_form=_extensions(head, max(end, HEAD_BYTES))
        .get(BACKING_FORMAT, b"")
        .decode("ascii", "replace"),
        whole=not (incompatible & DATA_FILE or snapshots or crypt),
    )


def _extensions(head: bytes, at: int) -> dict[int, bytes]:
    """By their types; what is cut off is left out."""
    found: dict[int, bytes] = {}
    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        if kind == 0:
            break
        found[kind] = head[at + 8 : at + 8 + length]
        at += 8 + (length + 7) // 8 * 8
    return found
