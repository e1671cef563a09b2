"""The agent's memory: one JSON file, replaced whole, with a checksum of what it says.

A file that cannot be trusted is never overwritten or guessed at: what it forgot may be a seal.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec

from dr.adapters.store.atomic import write_atomic
from dr.model.base import Record
from dr.model.memory import AgentMemory

FILE_BYTES_MAX = 64 * 1024 * 1024


class _File(Record):
    crc32: int  # of the memory's own text
    memory: msgspec.Raw


class FileMemory:
    """`ports.memory.MemoryStore` on a file; one process writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(AgentMemory).decode

    def load(self) -> AgentMemory:
        """Empty memory when there is no file. Raises OSError, ValueError (corrupt: the file is kept as it is)."""
        try:
            with self._path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return AgentMemory()
        try:
            if len(data) > FILE_BYTES_MAX:
                raise ValueError(f"larger than {FILE_BYTES_MAX} bytes")
            file_ = msgspec.json.decode(data, type=_File)
            if zlib.crc32(file_.memory) != file_.crc32:
                raise ValueError("its checksum differs")
            return self._decode(file_.memory)
        except (msgspec.DecodeError, ValueError) as error:
            raise ValueError(
                f"{self._path} is corrupt ({error}) and was left as it is. It holds what this host promised not "
                "to run: move it away only to join the host again, which restores the promises."
            ) from error

    def save(self, memory: AgentMemory) -> None:
        """Durable when it returns. Raises OSError, and then the older memory still stands."""
        text = self._encode(memory)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self._path, self._encode(_File(crc32=zlib.crc32(text), memory=msgspec.Raw(text))))
