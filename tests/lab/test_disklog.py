"""The disk log's judge: a single writer after another is innocent, every kind of second writer is seen."""

import io
from itertools import chain

import pytest

from integration.lab import disklog
from integration.lab.disklog import Record

A, B = "aa" * 16, "bb" * 16


def log(*records: tuple[str, int] | None, conflicts: int = 0) -> disklog.DiskReport:
    """A report of a disk whose slots hold (boot, seq), None for an empty slot."""
    slots = [
        bytes(disklog.SLOT_BYTES)
        if one is None
        else disklog.encode(Record(slot, one[0], one[1], slot * 100, slot * 100, conflicts))
        for slot, one in enumerate(records)
    ]
    return disklog.judge(disklog.read(io.BytesIO(b"".join(slots) + bytes(1 << 20))))


def boot(name: str, first: int, last: int) -> list[tuple[str, int]]:
    return [(name, seq) for seq in range(first, last + 1)]


def test_one_boot_after_another_is_innocent() -> None:
    report = log(*boot(A, 0, 4), *boot(B, 0, 2))
    assert not report.second_writer, report.evidence
    assert [(span.boot, span.records, span.last_seq) for span in report.boots] == [(A, 5, 4), (B, 3, 2)]
    assert report.records == 8


def test_an_empty_disk_is_innocent() -> None:
    assert log() == disklog.DiskReport(0, (), ())


@pytest.mark.parametrize(
    ("slots", "words"),
    [
        ([*boot(A, 0, 2), (B, 0), (A, 3), (B, 1)], "writes again after"),
        ([*boot(A, 0, 2), (A, 4)], "jumps from seq 2 to 4"),
        ([*boot(A, 0, 2), (A, 2)], "a second time"),
        ([*boot(A, 0, 2), *boot(B, 1, 2)], "begins with seq 1"),
        ([*boot(A, 0, 2), None, *boot(B, 0, 2)], "is empty"),
    ],
)
def test_a_second_writer_is_seen(slots: list[tuple[str, int] | None], words: str) -> None:
    report = log(*slots)
    assert report.second_writer
    assert words in report.evidence[0]


def test_a_conflict_that_a_guest_noticed_is_evidence() -> None:
    assert "taken by somebody else" in log(*boot(A, 0, 1), conflicts=1).evidence[0]


def test_evidence_is_bounded() -> None:
    pairs = chain.from_iterable(((A, seq), (B, seq)) for seq in range(500))
    assert len(log(*pairs).evidence) == 21
