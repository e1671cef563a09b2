"""A loss on paper as a report: each guest with its times and its verdict, what is to be done, the verdict of all.

Not here: what happens to whom (`paper`), sweeps (`sweep`), how a report looks (`dr.api.drill_page`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dr.core.drills.paper import Held, Loss, Way
from dr.core.drills.takes import Takes
from dr.model.base import HostName
from dr.model.drills import (
    FINDINGS_MAX,
    TIMELINE_MAX,
    DrillKind,
    DrillReport,
    Finding,
    GuestRow,
    Known,
    PhaseTook,
    TimelineEntry,
    Verdict,
    worst,
)
from dr.model.records import GuestPhase

NAMED_MAX = 5  # names in a sentence
WAIT_S = 0.05  # shorter is no wait
ORDER = (Verdict.FAILED, Verdict.UNKNOWN, Verdict.PASSED, Verdict.LEFT)  # of rows: what matters first


def named(names: Sequence[str], most: int = NAMED_MAX) -> str:
    """`a, b and 3 more`."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def of_loss(loss: Loss, takes: Takes, objective_s: float) -> DrillReport:
    """Without who asked, why and when: whoever keeps it knows that."""
    rows = sorted(
        (_row(way, loss, objective_s) for way in loss.ways.values()),
        key=lambda row: (ORDER.index(row.verdict), -(row.recovered_s or 0.0), row.name),
    )
    verdict, says = _verdict(rows, loss, objective_s)
    return DrillReport(
        id="",
        kind=DrillKind.DRY,
        title=f"without {named(loss.lost, 8)}",
        asked_by="",
        began=0.0,
        ended=0.0,
        verdict=verdict,
        says=says,
        lost=loss.lost,
        objective_s=objective_s,
        recovered_s=_last_s(rows),
        guests=tuple(rows),
        timeline=tuple(_timeline(loss)),
        findings=tuple(_findings(rows, loss, takes))[:FINDINGS_MAX],
        rests_on=(*takes.rests_on(), *_nature(loss)),
    )


def _last_s(rows: Sequence[GuestRow]) -> float | None:
    """When the last one does its work; None if one never does, or nobody knows when."""
    times = [row.recovered_s for row in rows if row.verdict is not Verdict.LEFT]
    known = [each for each in times if each is not None]
    return max(known, default=0.0) if len(known) == len(times) else None


# ---- one guest


def _row(way: Way, loss: Loss, objective_s: float) -> GuestRow:
    held = loss.held.get(way.host)
    verdict, why, todo = _fate(way, loss, held, objective_s)
    would = held is None  # else nobody knows when it begins
    return GuestRow(
        guest=way.guest.id,
        name=way.guest.name,
        host=way.host,
        to=way.to if way.runs_s is not None else "",
        verdict=verdict,
        why=why,
        todo=todo,
        phases=tuple(_phases(way, loss)) if would and way.ticket_s is not None else (),
        recovered_s=None if way.recovered_s is None or not would else round(way.recovered_s, 1),
        objective_s=objective_s,
    )


def _fate(way: Way, loss: Loss, held: Held | None, objective_s: float) -> tuple[Verdict, str, str]:
    """Verdict, why, and what to do about it."""
    guest = way.guest
    if guest.needs.local and guest.policy.local_disks:
        why = f"its disks are on {way.host} alone, as its policy agrees to: it starts again there"
        return Verdict.LEFT, why, ""
    if guest.tied:
        return Verdict.FAILED, guest.tied[0], ""
    if way.runs_s is None:
        return _never(way, loss)
    if held is not None:
        until = "until a person says that it is off" if held.firm else "unless its power is seen to be off"
        why = f"{way.host} would not be proven dead {until}: {(held.firm or held.doubt)[0]}"
        return (Verdict.FAILED if held.firm else Verdict.UNKNOWN), why, _for_held(way.host, held)
    recovered_s = way.recovered_s or 0.0
    if objective_s and recovered_s > objective_s:
        late = f"it would do its work after {recovered_s:.1f} s, {recovered_s - objective_s:.1f} s too late"
        assumed = _assumed(way, loss)
        if assumed:
            return Verdict.UNKNOWN, f"{late}, if {' and '.join(assumed)} took as long as it may at most", ""
        return Verdict.FAILED, late, f"dr guest set {guest.name} --priority …"
    return Verdict.PASSED, "", ""


def _never(way: Way, loss: Loss) -> tuple[Verdict, str, str]:
    """Of one that does not run in the end."""
    now = way.now
    if loss.given_up:
        return Verdict.UNKNOWN, "not looked at to the end: the loss is too large", ""
    if now is None or now.phase is not GuestPhase.RECOVERING or now.may_run_on:
        at = now.phase.value if now is not None else "no longer protected"
        why = f"it is {at} now, and what becomes of that is not foretold"
        return Verdict.UNKNOWN, f"{why}: {now.reason}" if now is not None and now.reason else why, ""
    return Verdict.FAILED, now.reason, f"dr guest show {way.guest.name}"


def _assumed(way: Way, loss: Loss) -> list[str]:
    """Parts of its time that were never measured here."""
    takes = {
        "noticing": loss.detect[way.host],
        "fencing": loss.prove[way.host],
        "its start": way.start,
        "its check": way.check,
    }
    return [what for what, take in takes.items() if take is not None and take.known is Known.ASSUMED]


def _phases(way: Way, loss: Loss) -> Iterator[PhaseTook]:
    detect, dead_s = loss.detect[way.host], loss.dead_s(way.host)
    yield PhaseTook(phase="detect", begins_s=0.0, ends_s=detect.seconds, known=detect.known)
    prove = loss.prove[way.host]
    yield PhaseTook(phase="prove", begins_s=detect.seconds, ends_s=dead_s, known=prove.known)
    assert way.ticket_s is not None
    if way.ticket_s - dead_s > WAIT_S:
        yield PhaseTook(phase="wait", begins_s=dead_s, ends_s=way.ticket_s, text=way.waits)
    if way.start is not None and way.runs_s is not None:
        yield PhaseTook(phase="start", begins_s=way.ticket_s, ends_s=way.runs_s, known=way.start.known)
        if way.check is not None:
            ends_s = way.runs_s + way.check.seconds
            yield PhaseTook(phase="check", begins_s=way.runs_s, ends_s=ends_s, known=way.check.known)


# ---- all of it


def _verdict(rows: Sequence[GuestRow], loss: Loss, objective_s: float) -> tuple[Verdict, str]:
    counted = [row for row in rows if row.verdict is not Verdict.LEFT]
    verdict = worst([row.verdict for row in rows])
    lost = named(loss.lost)
    if not rows:
        return Verdict.PASSED, f"no protected guest that is wanted running is on {lost}"
    last_s = _last_s(rows)
    within = f", all within the objective of {objective_s:g} s" if objective_s else ""
    if verdict is Verdict.PASSED:
        if not counted:
            return verdict, f"{_guests(len(rows))} stay where their disks are, as their policy agrees to"
        return verdict, f"{_guests(len(counted))} would run again, the last after {last_s:.1f} s{within}"
    bad = [row for row in counted if row.verdict is verdict]
    would = "would not be recovered as wanted"
    if verdict is Verdict.UNKNOWN:
        would = "may or may not be recovered as wanted, each says what that hangs on"
    return verdict, f"{len(bad)} of {_guests(len(counted))} {would}: {named([row.name for row in bad])}"


def _guests(count: int) -> str:
    return f"{count} guests" if count != 1 else "1 guest"


def _timeline(loss: Loss) -> Iterator[TimelineEntry]:
    said: list[tuple[float, str]] = []
    for name in loss.lost:
        if name in loss.held:
            said.append((0.0, f"{name} falls silent, and would not be proven dead by itself"))
            continue
        said.append((0.0, f"{name} falls silent"))
        said.append((loss.detect[name].seconds, f"{name} is noticed, and is to be proven dead"))
        said.append((loss.dead_s(name), f"{name} is proven dead: its guests may start elsewhere"))
    for way in loss.ways.values():
        if way.ticket_s is None or way.runs_s is None or way.host in loss.held:
            continue
        said.append((way.ticket_s, f"{way.guest.name} starts on {way.to}"))
        said.append((way.runs_s, f"{way.guest.name} runs on {way.to}"))
        if way.check is not None:
            said.append((way.runs_s + way.check.seconds, f"the check of {way.guest.name} passes"))
    said.sort(key=lambda each: each[0])
    for at_s, text in said[: TIMELINE_MAX - 1]:
        yield TimelineEntry(at_s=round(at_s, 1), text=text)
    if len(said) >= TIMELINE_MAX:
        more = f"and {len(said) - TIMELINE_MAX + 1} more: each guest's own times are with the guest"
        yield TimelineEntry(at_s=round(said[-1][0], 1), text=more)


def _for_held(host: HostName, held: Held) -> str:
    """What to type: the reasons themselves name it, where there is something."""
    if any("fence test" in why for why in held.firm):
        return f"dr fence test {host}"
    return "dr doctor" if held.firm else ""


def _findings(rows: Sequence[GuestRow], loss: Loss, takes: Takes) -> Iterator[Finding]:
    for host, held in loss.held.items():
        if held.firm:
            text = f"{host} would not be proven dead by itself, so nothing of it would start: {'; '.join(held.firm)}"
            yield Finding(severity="critical", text=text, todo=_for_held(host, held))
    doubt = list(dict.fromkeys(why for held in loss.held.values() for why in held.doubt))
    if doubt:
        text = (
            f"nothing would be fenced, and guests start only once power is seen to be off: {'; '.join(doubt)}"
        )
        yield Finding(severity="warning", text=text)
    nowhere = [row for row in rows if row.verdict is Verdict.FAILED and not row.to]
    if nowhere:
        text = f"{_guests(len(nowhere))} would find no place: {named([row.name for row in nowhere])}"
        todo = (
            "add memory or a host, or stop what is not needed; each guest says what stands against each host"
        )
        yield Finding(severity="critical", text=text, todo=todo)
    late = [row for row in rows if row.to and row.objective_s and (row.recovered_s or 0) > row.objective_s]
    if late:
        text = f"{_guests(len(late))} would be late: {named([row.name for row in late])}"
        todo = "raise starts_per_host, or the priority of those that matter most"
        yield Finding(severity="warning", text=text, todo=todo)
    for host, names in loss.bystanders.items():
        if names:
            text = (
                f"{_guests(len(names))} on {host} that nobody protects would be lost with it: {named(names)}"
            )
            yield Finding(severity="warning", text=text, todo=f"dr guest protect {names[0]}")
    left = [row.name for row in rows if row.verdict is Verdict.LEFT]
    if left:
        yield Finding(severity="info", text=f"stay down until their host is back: {named(left)}")
    if assumed := takes.assumed:
        text = (
            f"not every time was measured here yet ({', '.join(assumed)}): the most that it may take is told"
        )
        yield Finding(severity="info", text=text)


def _nature(loss: Loss) -> Iterator[str]:
    yield (
        "On paper: placement, order and turns are decided by the code of the real failover, on the site as it was "
        "when this was asked; nothing was touched"
    )
    yield "A host that is switched on again after its fencing is not counted on"
    if len(loss.lost) > 1:
        yield f"The {len(loss.lost)} hosts fall silent at the same moment"
