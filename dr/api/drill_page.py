"""A drill's report as one page: to read, to print, to hand to an auditor. One pure function.

Self-contained: style and chart stand in it, nothing is fetched, nothing runs. The page is built as a tree, so whatever
a guest is called stays text. What a colour says is said by a word and a pattern too: it is read in black and white.
Not here: what a report says (`dr.core.drills.report`), the chart (`drill_chart`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from lxml import html

from dr.api.drill_chart import charts
from dr.api.drill_schema import Case, DrillReport, Evidence, Finding, GuestRow, mark
from dr.api.markup import Child, Node, node

ROWS_MAX = 2_000  # of each table; all of them are in the JSON
TIMELINE_MAX = 300
PNG = b"\x89PNG\r\n\x1a\n"
KINDS = {"dry": "Dry run, on paper", "isolated": "Isolated boot", "live": "Live drill"}
SIGNS = {"passed": "✓", "failed": "✗", "unknown": "?", "left": "–"}
WORDS = {"detect": "notice", "prove": "prove dead", "wait": "wait", "start": "start", "check": "check"}

STYLE = """
@page { size: A4; margin: 14mm 13mm 16mm; }
* { box-sizing: border-box; }
html { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.5rem 3rem; color: #16181d; background: #fff;
  font: .94rem/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: .15rem 0 1.1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.1rem 0 .6rem; padding-bottom: .3rem; border-bottom: 2px solid #16181d;
  break-after: avoid; }
p { margin: .3rem 0; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; background: #f0f1f3; padding: .1em .35em;
  border-radius: 3px; overflow-wrap: anywhere; }
.kind { margin: 0; font-size: .8rem; letter-spacing: .09em; text-transform: uppercase; color: #5a6070; }
.verdict { display: flex; gap: 1.1rem; align-items: center; border: 2px solid; border-left-width: 12px;
  border-radius: 6px; padding: .9rem 1.1rem; break-inside: avoid; }
.verdict .sign { font-size: 2.2rem; line-height: 1; font-weight: 700; }
.verdict strong { display: block; font-size: 1.15rem; letter-spacing: .04em; }
.verdict span { color: #16181d; overflow-wrap: anywhere; }
.passed { color: #11632f; } .failed { color: #a3180f; } .unknown { color: #7a5200; } .left { color: #5a6070; }
.verdict.passed { background: #f0f8f2; } .verdict.failed { background: #fdf1f0; }
.verdict.unknown { background: #fdf7ea; border-style: dashed; border-left-style: solid; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6rem; margin: .9rem 0 0; }
.tiles div { border: 1px solid #c9ccd3; border-radius: 6px; padding: .5rem .75rem; break-inside: avoid; }
.tiles dt { font-size: .75rem; color: #5a6070; } .tiles dd { margin: 0; font-size: 1.3rem; font-weight: 600; }
.tiles dd small { font-size: .8rem; font-weight: 400; color: #5a6070; }
ul.findings { list-style: none; margin: 0; padding: 0; }
ul.findings li { border-left: 4px solid #8a8f9b; padding: .15rem 0 .15rem .8rem; margin: .65rem 0;
  break-inside: avoid; overflow-wrap: anywhere; }
ul.findings li.critical { border-color: #a3180f; } ul.findings li.warning { border-color: #7a5200; }
.mark { display: inline-block; font-size: .7rem; font-weight: 700; letter-spacing: .06em; text-transform: uppercase;
  border: 1px solid currentColor; border-radius: 3px; padding: 0 .4em; margin-right: .55em; vertical-align: .1em; }
.critical > .mark { color: #fff; background: #a3180f; border-color: #a3180f; } .warning > .mark { color: #7a5200; }
.info > .mark { color: #5a6070; }
.next { color: #3a3f4a; font-size: .92rem; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; }
thead { display: table-header-group; }
th { text-align: left; font-size: .75rem; color: #5a6070; border-bottom: 1.5px solid #16181d;
  padding: .3rem .6rem .3rem 0; white-space: nowrap; vertical-align: bottom; }
td { border-bottom: 1px solid #dfe1e6; padding: .38rem .6rem .38rem 0; vertical-align: top; unicode-bidi: isolate; }
td.name { font-weight: 600; overflow-wrap: anywhere; min-width: 6rem; } td.why { overflow-wrap: anywhere; }
tr { break-inside: avoid; } tr.on td { border-bottom: 0; padding-bottom: 0; } tr.on { break-after: avoid; }
td.said { padding: .1rem 0 .5rem 1.2rem; color: #3a3f4a; overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th.at { width: 4.5rem; } td.part { color: #5a6070; } td.host { overflow-wrap: anywhere; } td.at { padding-right: 1rem; }
td .verdict-word, .verdict-word { font-weight: 700; white-space: nowrap; }
figure { margin: 0 0 1rem; break-inside: avoid; }
figcaption { font-size: .85rem; color: #3a3f4a; margin-bottom: .25rem; }
figure img { max-width: 100%; border: 1px solid #c9ccd3; }
svg { display: block; width: 100%; height: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: .8rem/1.4 ui-monospace, "DejaVu Sans Mono", monospace;
  border: 1px solid #dfe1e6; border-radius: 4px; padding: .6rem; margin: 0; unicode-bidi: isolate; }
.more { color: #5a6070; font-size: .87rem; }
ul.plain { margin: 0; padding-left: 1.15rem; font-size: .87rem; } ul.plain li { margin: .2rem 0; }
footer { margin-top: 2.4rem; padding-top: .6rem; border-top: 1px solid #c9ccd3; font-size: .78rem; color: #5a6070;
  overflow-wrap: anywhere; }
@media (max-width: 44rem) { .tiles { grid-template-columns: repeat(2, 1fr); } }
@media print { html { font-size: 11.5px; } body { max-width: none; padding: 0; } h2 { margin-top: 1.5rem; }
  .tiles { grid-template-columns: repeat(4, 1fr); } }
"""


def page(report: DrillReport) -> str:
    """The whole page."""
    title = f"{_capital(report.title)}: {report.verdict}"
    tree = node(
        "html",
        node(
            "head",
            node("meta", charset="utf-8"),
            node("meta", name="viewport", content="width=device-width, initial-scale=1"),
            # Whatever got in here all the same could neither run nor fetch anything.
            node("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}),
            node("title", f"Drill {report.id}: {title}"),
            node("style", STYLE),
        ),
        node(
            "body",
            *_head(report),
            *_findings(report.findings),
            *_chart(report),
            *_guests(report),
            *_cases(report),
            *_timeline(report),
            *_evidence(report),
            *_rests_on(report),
            _foot(report),
        ),
        lang="en",
    )
    text: str = html.tostring(tree, encoding="unicode", method="html")
    return f"<!DOCTYPE html>\n{text}\n"


POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def seconds(value: float | None) -> str:
    """`6.5 s`, `4 min 10 s`."""
    if value is None:
        return "–"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _when(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# ---- the head: verdict first


def _head(report: DrillReport) -> Iterator[Node]:
    yield node("p", f"Drill report · {KINDS[report.kind]}", {"class": "kind"})
    yield node("h1", _capital(report.title))
    yield node(
        "div",
        node("div", SIGNS[report.verdict], {"class": "sign"}),
        node("div", node("strong", report.verdict.upper()), node("span", _capital(report.says) + ".")),
        {"class": f"verdict {report.verdict}"},
    )
    yield node("dl", *_tiles(report), {"class": "tiles"})


def _tiles(report: DrillReport) -> Iterator[Node]:
    counted = [row for row in report.guests if row.verdict != "left"]
    measured = "foretold" if report.kind == "dry" else "measured"
    never = "not all" if report.verdict == "failed" else "not known"
    back = never if report.recovered_s is None else seconds(report.recovered_s)
    yield _tile(f"Last guest back ({measured})", back)
    yield _tile("Objective (RTO)", seconds(report.objective_s) if report.objective_s else "none given")
    if report.looked is not None:
        well = sum(case.verdict == "passed" for case in report.cases)
        yield _tile("Cases", f"{report.looked.of:,}")
        shown = f"of {report.looked.shown:,} listed" if report.looked.shown else ""
        yield _tile("Passed", f"{well:,}", shown)
        return
    passed = sum(row.verdict == "passed" for row in counted)
    yield _tile("Guests that pass", f"{passed:,}", f"of {len(counted):,}")
    if report.kind == "isolated":
        yield _tile("Hosts with clones", f"{len({row.host for row in report.guests}):,}")
    else:
        yield _tile("Hosts taken away", f"{len(report.lost):,}")


def _tile(what: str, value: str, more: str = "") -> Node:
    shown: list[Child] = [value]
    if more:
        shown.append(node("small", f" {more}"))
    return node("div", node("dt", what), node("dd", *shown))


# ---- what was found


def _findings(findings: Sequence[Finding]) -> Iterator[Node]:
    if not findings:
        return
    yield node("h2", "What was found, and what to do")
    yield node("ul", *(_finding(each) for each in findings), {"class": "findings"})


def _finding(finding: Finding) -> Node:
    parts: list[Child] = [node("span", finding.severity, {"class": "mark"}), f"{finding.text}."]
    if finding.todo:
        parts.append(node("p", "Next: ", _todo(finding.todo), {"class": "next"}))
    return node("li", *parts, {"class": finding.severity})


def _todo(text: str) -> Child:
    return node("code", text) if text.startswith("dr ") else text


# ---- chart and tables


def _chart(report: DrillReport) -> Iterator[Node]:
    drawn = list(charts(report))
    if drawn:
        yield node("h2", "Objective and recovery, guest by guest")
        yield from drawn


def _word(verdict: str) -> Node:
    return node("span", f"{SIGNS[verdict]} {verdict}", {"class": f"verdict-word {verdict}"})


def _table(heads: Sequence[tuple[str, str]], rows: Iterable[tuple[Sequence[Child], Sequence[Child]]]) -> Node:
    """`heads`: title and class of each column. A row may be followed by what is said of it, over all columns."""
    body = []
    for cells, said in rows:
        shown = (node("td", cell, {"class": kind}) for cell, (_, kind) in zip(cells, heads, strict=True))
        body.append(node("tr", *shown, {"class": "on" if said else ""}))
        if said:
            whole = node("td", *said, {"class": "said", "colspan": str(len(heads))})
            body.append(node("tr", whole))
    titles = (node("th", title, {"class": kind}) for title, kind in heads)
    return node("table", node("thead", node("tr", *titles)), node("tbody", *body))


def _more(count: int, most: int) -> Iterator[Node]:
    if count > most:
        yield node("p", f"{count - most:,} more are in the report as JSON.", {"class": "more"})


def _guests(report: DrillReport) -> Iterator[Node]:
    if not report.guests:
        return
    yield node("h2", "Guests")
    shown = report.guests[:ROWS_MAX]
    kinds = list(dict.fromkeys(each.phase for row in shown for each in row.phases))
    heads = [("Guest", "name"), ("Verdict", ""), ("From", "host"), ("To", "host"), ("Back after", "number")]
    heads += [(_capital(WORDS.get(kind, kind)), "number part") for kind in kinds]
    yield _table(heads, ((list(_guest(row, kinds)), list(_of_guest(row))) for row in shown))
    if any(mark(row.phases) for row in shown):
        marks = "≈ as others here took, ≤ never measured here: the most that it may take."
        yield node("p", marks, {"class": "more"})
    yield from _more(len(report.guests), ROWS_MAX)


def _guest(row: GuestRow, kinds: Sequence[str]) -> Iterator[Child]:
    yield row.name
    yield _word(row.verdict)
    yield row.host
    yield row.to or "–"
    yield node("b", mark(row.phases) + seconds(row.recovered_s))
    for kind in kinds:
        parts = [each for each in row.phases if each.phase == kind]
        yield mark(parts) + seconds(sum(each.ends_s - each.begins_s for each in parts)) if parts else ""


def _of_guest(row: GuestRow) -> Iterator[Child]:
    """Why it is so, its checks, and what to do."""
    waited = [each.text for each in row.phases if each.text]
    checked = [f"{each.check}: {_passed(each.passed)} {each.text}".rstrip() for each in row.checks]
    for text in (row.why, *waited, *checked):
        if text:
            yield node("p", text)
    if row.todo:
        yield node("p", "Next: ", _todo(row.todo), {"class": "next"})


def _passed(passed: bool | None) -> str:
    return "not seen" if passed is None else "passed" if passed else "FAILED"


def _cases(report: DrillReport) -> Iterator[Node]:
    if report.looked is None:
        return
    looked = report.looked
    yield node("h2", "Cases")
    counted = f"{looked.of:,} cases in all; {looked.worked:,} worked through one by one"
    if looked.proven:
        counted += f"; {looked.proven:,} proven by room alone"
    if left := looked.of - looked.worked - looked.proven:
        counted += f"; {left:,} not looked at"
    yield node("p", f"{counted}.")
    if report.cases:
        heads = [
            ("Without", "name"),
            ("Verdict", ""),
            ("Guests", "number"),
            ("No place", "number"),
            ("All back after", "number"),
        ]
        said = ([case.why] if case.why else [] for case in report.cases)
        yield _table(heads, zip((list(_case(case)) for case in report.cases[:ROWS_MAX]), said, strict=False))
        yield from _more(len(report.cases), ROWS_MAX)


def _case(case: Case) -> Iterator[Child]:
    yield " and ".join(case.lost)
    yield _word(case.verdict)
    yield f"{case.guests:,}"
    yield f"{case.stranded:,}" if case.stranded else ""
    yield seconds(case.recovered_s) if case.guests else "–"


def _timeline(report: DrillReport) -> Iterator[Node]:
    if not report.timeline:
        return
    yield node("h2", "Timeline")
    shown = report.timeline[:TIMELINE_MAX]
    rows = (((seconds(each.at_s), each.text), ()) for each in shown)
    yield _table([("After", "number at"), ("What happens", "why")], rows)
    yield from _more(len(report.timeline), TIMELINE_MAX)


# ---- evidence, and what it rests on


def _evidence(report: DrillReport) -> Iterator[Node]:
    found = [("", each) for each in report.evidence]
    found += [(row.name, each) for row in report.guests for each in row.evidence]
    if found:
        yield node("h2", "Evidence")
    for whose, each in found:
        title = f"{whose}: {each.title}" if whose else each.title
        yield node("figure", node("figcaption", title), *_exhibit(each))


def _exhibit(evidence: Evidence) -> Iterator[Node]:
    if evidence.png.startswith(PNG):
        data = base64.b64encode(evidence.png).decode()
        yield node("img", src=f"data:image/png;base64,{data}", alt=evidence.title)
    elif evidence.png:
        yield node("p", "Its picture is not a PNG, and is not shown.", {"class": "more"})
    if evidence.text:
        yield node("pre", evidence.text)


def _rests_on(report: DrillReport) -> Iterator[Node]:
    if report.rests_on:
        yield node("h2", "What this rests on")
        yield node("ul", *(node("li", f"{each}.") for each in report.rests_on), {"class": "plain"})


def _foot(report: DrillReport) -> Node:
    reason = f", because: {report.reason}" if report.reason else ""
    asked = f"Asked for by {report.asked_by}{reason}. "
    when = f"Began {_when(report.began)}, ended {_when(report.ended)}. "
    what = f"Cluster {report.cluster}, store revision {report.revision}. Drill {report.id}, made by dr."
    return node("footer", asked + when + what)
