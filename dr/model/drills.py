"""Reports of drills, of every kind: what was tried or foretold, how long it took, what was found, the verdict.

One record for dry runs, isolated boots and live drills. `began` and `ended` are wall time; times within a drill are
seconds from its own zero: in a dry run the moment at which the hosts fall silent. Not here: how a drill is carried out
(`dr.core.drills`), how a report looks (`dr.api.drill_page`).
"""

from __future__ import annotations

from enum import StrEnum

from dr.model.base import GuestId, HostName, Record

GUESTS_MAX = 20_000  # rows of one report
CASES_MAX = 2_000  # of a sweep, in one report
TIMELINE_MAX = 2_000
FINDINGS_MAX = 200
EVIDENCE_BYTES_MAX = 16 * 1024 * 1024  # pictures and texts of one report, together
KEPT_MAX = 200  # reports; the oldest goes


class DrillKind(StrEnum):
    DRY = "dry"  # on paper
    ISOLATED = "isolated"  # copies of guests, in a network of their own
    LIVE = "live"  # a real host is really taken


class Verdict(StrEnum):
    """Of one guest, one case, or the whole drill."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    LEFT = "left"  # not to be recovered, as its owner or its policy wants it


class Known(StrEnum):
    """What a time rests on, the best first."""

    MEASURED = "measured"  # this very thing, now or in the past
    ALIKE = "alike"  # others of its kind in this fleet were measured
    ASSUMED = "assumed"  # nothing was: the most that a timer lets it take


class PhaseTook(Record):
    """One part of a guest's way back."""

    phase: str  # "detect", "prove", "wait", "start", "check", "clone", …
    begins_s: float
    ends_s: float
    known: Known = Known.MEASURED
    text: str = ""  # of a wait: what for


class CheckSeen(Record):
    """One check of a guest."""

    check: str  # as it was asked for: "tcp 10.0.0.7:443"
    passed: bool | None  # None: not made, or its end was not seen
    text: str = ""
    took_s: float | None = None


class Evidence(Record):
    """Something that was seen, as it was seen."""

    title: str
    text: str = ""
    png: bytes = b""


class GuestRow(Record):
    """What became of one guest, or would."""

    guest: GuestId
    name: str
    host: HostName = ""  # that it was lost with, or was copied from
    to: HostName = ""
    verdict: Verdict = Verdict.PASSED
    why: str = ""  # of every verdict but `passed`
    todo: str = ""
    phases: tuple[PhaseTook, ...] = ()
    recovered_s: float | None = (
        None  # from zero until it does its work; None: it never does, or nobody knows when
    )
    objective_s: float = 0.0  # 0: none was given
    checks: tuple[CheckSeen, ...] = ()
    evidence: tuple[Evidence, ...] = ()


class Case(Record):
    """One case of a sweep: these hosts at once."""

    lost: tuple[HostName, ...]
    verdict: Verdict
    guests: int = 0  # that would have to be recovered
    stranded: int = 0  # of these, who would fit nowhere
    recovered_s: float | None = None  # until the last of them runs; None: not all would, or nobody knows when
    why: str = ""


class Looked(Record):
    """How many cases of a sweep there are, and what was done about them. Nothing is left out silently."""

    of: int  # all that there are
    worked: int  # that were worked through one by one
    proven: int = 0  # that fit for sure: any host that is left has room for more of the largest than are lost
    shown: int = 0  # that stand in the report


class TimelineEntry(Record):
    at_s: float
    text: str


class Finding(Record):
    """Something that a person should know, or do something about."""

    severity: str  # "critical" | "warning" | "info"
    text: str
    todo: str = ""


class DrillReport(Record):
    """One drill, from its question to its verdict."""

    id: str
    kind: DrillKind
    title: str
    asked_by: str
    began: float  # unix time
    ended: float
    verdict: Verdict
    says: str  # the verdict in one sentence
    reason: str = ""  # why it was asked for
    cluster: str = ""
    revision: int = 0  # of the store that it looked at
    lost: tuple[HostName, ...] = ()
    objective_s: float = 0.0  # 0: none was given
    recovered_s: float | None = (
        None  # until the last guest does its work; None: not all do, or nobody knows when
    )
    guests: tuple[GuestRow, ...] = ()
    cases: tuple[Case, ...] = ()  # of a sweep: the worst first
    looked: Looked | None = None
    timeline: tuple[TimelineEntry, ...] = ()
    findings: tuple[Finding, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    rests_on: tuple[str, ...] = ()  # a sentence each: what is known, measured and assumed


class DrillHead(Record):
    """What a list tells of a drill: its report without all that is long. Kept in the state."""

    id: str
    kind: DrillKind
    title: str
    asked_by: str
    began: float
    ended: float
    verdict: Verdict
    says: str
    objective_s: float = 0.0
    recovered_s: float | None = None


def head_of(report: DrillReport) -> DrillHead:
    return DrillHead(
        id=report.id,
        kind=report.kind,
        title=report.title,
        asked_by=report.asked_by,
        began=report.began,
        ended=report.ended,
        verdict=report.verdict,
        says=report.says,
        objective_s=report.objective_s,
        recovered_s=report.recovered_s,
    )


def too_large(report: DrillReport) -> str:
    """Why this report is not kept; "" = it is."""
    bounds = (
        ("guests", len(report.guests), GUESTS_MAX),
        ("cases", len(report.cases), CASES_MAX),
        ("lines in its timeline", len(report.timeline), TIMELINE_MAX),
        ("findings", len(report.findings), FINDINGS_MAX),
        ("bytes of evidence", _evidence_bytes(report), EVIDENCE_BYTES_MAX),
    )
    return "; ".join(
        f"it has {count} {what}, and {most} are kept" for what, count, most in bounds if count > most
    )


def _evidence_bytes(report: DrillReport) -> int:
    every = (*report.evidence, *(each for row in report.guests for each in row.evidence))
    return sum(len(each.png) + len(each.text.encode()) for each in every)


def worst(verdicts: list[Verdict]) -> Verdict:
    """Of several: one that failed fails them all, one that is unknown leaves them unknown."""
    return next((each for each in (Verdict.FAILED, Verdict.UNKNOWN) if each in verdicts), Verdict.PASSED)
