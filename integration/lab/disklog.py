"""Reading a guest's disk log: who wrote what in which order, and whether two wrote at once. Pure.

guest/init.c writes it and explains the rule: a boot starts at the first empty slot, writes seq 0, 1, 2..., one slot
each, and never over a taken one. So a single writer after another leaves, in slot order, whole boots one behind the
other, each with every seq once. Everything else is the trace of a second writer at the same time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

SLOT_BYTES: Final = 512
_MAGIC: Final = b"DRLAB1\n\0"
_RECORD: Final = struct.Struct("<8s16sQQQQQ32s")
_EVIDENCE_MAX: Final = 20


@dataclass(frozen=True)
class Record:
    """One durable write of a guest."""

    slot: int
    boot: str
    seq: int
    uptime_ms: int
    wall_ms: int
    conflicts: int


@dataclass(frozen=True)
class BootSpan:
    """What one boot of the guest wrote."""

    boot: str
    first_slot: int
    last_slot: int
    records: int
    last_seq: int
    first_wall_ms: int
    last_wall_ms: int


@dataclass(frozen=True)
class DiskReport:
    """What a guest's disk tells."""

    records: int
    boots: tuple[BootSpan, ...]
    """In order of their first record."""
    evidence: tuple[str, ...]
    """One sentence for each trace of a second writer; empty when there never was one."""

    @property
    def second_writer(self) -> bool:
        return bool(self.evidence)

    def __str__(self) -> str:
        verdict = f"SECOND WRITER: {self.evidence[0]}" if self.evidence else "one writer at a time"
        return f"{self.records} records of {len(self.boots)} boots: {verdict}"


def encode(record: Record, name: str = "") -> bytes:
    """A slot as the guest writes it; for tests."""
    head = _RECORD.pack(
        _MAGIC,
        bytes.fromhex(record.boot),
        record.seq,
        record.slot,
        record.uptime_ms,
        record.wall_ms,
        record.conflicts,
        name.encode(),
    )
    return head.ljust(SLOT_BYTES, b"\0")


def read(disk: BinaryIO) -> Iterator[Record | None]:
    """Every slot up to the end of the log; None for an empty slot with records behind it."""
    slot, holes = 0, 0
    while chunk := disk.read(SLOT_BYTES * 2048):
        empty = len(chunk) // SLOT_BYTES
        if not chunk.strip(b"\0"):
            holes += empty
            slot += empty
            if holes > 4096:
                return  # a hole of 2 MiB is the end: no writer jumps that far
            continue
        for at in range(0, len(chunk) - SLOT_BYTES + 1, SLOT_BYTES):
            magic, boot, seq, _, uptime_ms, wall_ms, conflicts, _ = _RECORD.unpack_from(chunk, at)
            if magic == _MAGIC:
                yield from [None] * holes
                holes = 0
                yield Record(slot, boot.hex(), seq, uptime_ms, wall_ms, conflicts)
            else:
                holes += 1
            slot += 1


def judge(log: Iterator[Record | None]) -> DiskReport:
    """Who wrote, and every trace of two writing at once."""
    spans: dict[str, BootSpan] = {}
    evidence: list[str] = []
    last_boot, conflicts, records = "", 0, 0
    for slot, record in enumerate(log):
        if record is None:
            evidence.append(
                f"slot {slot} is empty though later ones are not: a record was lost or overwritten"
            )
            continue
        records += 1
        span, short = spans.get(record.boot), record.boot[:8]
        if span is None:
            if record.seq != 0:
                evidence.append(
                    f"slot {slot}: boot {short} begins with seq {record.seq}: its first was overwritten"
                )
        else:
            if last_boot != record.boot:
                evidence.append(
                    f"slot {slot}: boot {short} writes again after boot {last_boot[:8]} had begun"
                )
            if record.seq <= span.last_seq:
                evidence.append(
                    f"slot {slot}: boot {short} has seq {record.seq} a second time: it runs twice"
                )
            elif record.seq != span.last_seq + 1:
                evidence.append(
                    f"slot {slot}: boot {short} jumps from seq {span.last_seq} to {record.seq}: overwritten"
                )
        if record.conflicts > conflicts:
            evidence.append(f"slot {slot}: boot {short} found its next slot taken by somebody else")
        conflicts = max(conflicts, record.conflicts)
        spans[record.boot] = BootSpan(
            record.boot,
            span.first_slot if span else slot,
            slot,
            span.records + 1 if span else 1,
            max(record.seq, span.last_seq) if span else record.seq,
            span.first_wall_ms if span else record.wall_ms,
            record.wall_ms,
        )
        last_boot = record.boot
    if len(evidence) > _EVIDENCE_MAX:
        evidence = [*evidence[:_EVIDENCE_MAX], f"and {len(evidence) - _EVIDENCE_MAX} more"]
    return DiskReport(records, tuple(spans.values()), tuple(evidence))
