"""`dr drill`: recovery tried beforehand, and its reports.

Not here: what a dry run does (the coordinator does it), how a report looks on paper (`dr.api.drill_page`).
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import quote

import typer

from dr.cli.ask import POLL_S, Reason, seconds
from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import Column, Form, Output, age, clock, document, facts, listing, table, write_file

if TYPE_CHECKING:
    from dr.api.drill_schema import Case, DrillDocument, DrillReport, DrillRow, GuestRow
    from dr.cli.client import Api

app = typer.Typer(help="Drills: recovery tried beforehand, and its reports.", no_args_is_help=True)

Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write the report as one page, to read and to print."),
]
PAIRS = 2000  # that are worked through, if nothing else is said
Replace = Annotated[bool, typer.Option("--replace", help="Also if that file is there already.")]


@app.command()
def run(
    playbook: Annotated[
        str, typer.Argument(metavar="[NAME|FILE]", help="A playbook of `kind: drill`: clones are booted.")
    ] = "",
    params: Annotated[
        list[str] | None, typer.Argument(metavar="PARAMETER=VALUE…", help="What it is told.")
    ] = None,
    *,
    lose: Annotated[
        list[str] | None,
        typer.Option(
            "--lose", metavar="HOST|label:K=V", help="Take it away; repeat for more, that are lost at once."
        ),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Take every host away, one after the other: N+1.")
    ] = False,
    pairs: Annotated[bool, typer.Option("--pairs", help="Take every pair of hosts away: N+2.")] = False,
    rto: Annotated[
        str, typer.Option("--rto", metavar="TIME", help="The objective: 90s, 10m. Who is later has failed.")
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", help="Pairs that are worked through; most are proven without.", min=0)
    ] = PAIRS,
    save: Annotated[bool, typer.Option("--save/--no-save", help="Keep the report.")] = True,
    html: Html = None,
    replace: Replace = False,
    reason: Reason = "",
    form: Output = Form.TABLE,
) -> None:
    """On paper: take hosts away; where does each guest go, what does not fit, how long does it take? Or boot clones.

    With a playbook, clones of guests are booted in a network that leads nowhere, checked and removed again. The guests
    themselves are touched by neither. Exit code 1 unless the verdict is that it passed.
    """
    from dr.api.drill_schema import DrillDocument
    from dr.cli.client import connect

    if (named := sum((bool(lose), each, pairs, bool(playbook)))) != 1:
        todo = "--lose HOST, --each or --pairs; or name a playbook of `kind: drill`"
        what = "One of these at a time." if named else "Which hosts are taken away?"
        raise Failure(what, todo=todo, code=Exit.USAGE)
    if playbook:
        if rto or not save or limit != PAIRS:
            why = (
                "they are of drills on paper: a playbook says its own objectives.rto, and its report is kept"
            )
            raise Failure("--rto, --no-save and --limit do not go with a playbook.", why=why, code=Exit.USAGE)
        _end(_booted(playbook, params or [], reason), form, html, replace=replace)
    body: dict[str, Any] = {
        "lose": lose or [],
        "sweep": "each" if each else "pairs" if pairs else "",
        "rto_s": seconds(rto),
        "limit": limit,
        "save": save,
        "reason": reason,
    }
    api = connect()
    begun = api.post("/v1/drills/run", DrillDocument, body)
    _end(_followed(api, begun), form, html, replace=replace)


@app.command("list")
def list_(
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="At most so many, the newest.", min=1, max=1000)
    ] = 20,
    form: Output = Form.TABLE,
) -> None:
    """Drills whose reports are kept, the newest last."""
    from dr.api.drill_schema import DrillList
    from dr.cli.client import connect

    rows = connect().get("/v1/drills", DrillList).items[-lines:]
    listing(
        DrillList(items=rows),
        rows,
        LIST_COLUMNS,
        form,
        name=lambda row: row.id,
        empty="No drill was kept yet.",
    )


@app.command()
def report(
    drill: Annotated[str, typer.Argument(metavar="ID", help="One of `dr drill list`.")],
    *,
    html: Html = None,
    replace: Replace = False,
    form: Output = Form.TABLE,
) -> None:
    """The report of a drill: on the screen, as JSON, or as one page to print. Exit code as of `dr drill run`."""
    from dr.api.drill_schema import DrillDocument
    from dr.cli.client import connect

    api = connect()
    over = _followed(api, api.get(f"/v1/drills/{quote(drill, safe='')}", DrillDocument))
    if html is None or form is not Form.TABLE:
        _show(over, form)
    if html is not None:
        _write(_report_of(over), html, replace=replace)
    _leave(_report_of(over))


# ---- following


def _booted(playbook: str, params: list[str], reason: str) -> DrillDocument:
    """Run it to its end; its report. Raises Failure."""
    from dr.api.drill_schema import DrillDocument
    from dr.api.run_schema import RunAccepted
    from dr.cli.ask import follow
    from dr.cli.client import connect
    from dr.cli.playbook import chosen
    from dr.cli.playbook_run import told
    from dr.model.words import write_fields

    book, _ = chosen(playbook)
    if book.kind != "drill":
        raise Failure(
            f"{book.playbook} is no drill: it would act on the guests themselves.",
            todo=f"dr playbook run {playbook}; or a playbook of `kind: drill`, see docs/drills.md",
            code=Exit.USAGE,
        )
    api = connect()
    body = {"playbook": write_fields(book), "params": told(params), "dry_run": False, "reason": reason}
    (key,) = api.post("/v1/playbooks/run", RunAccepted, body).operations
    try:
        follow(api, key, float("inf"))
    except KeyboardInterrupt:
        tell(
            f"\nDetached; it goes on without you. End it with: dr job cancel {key}; see it with: dr job watch {key}"
        )
        raise Failure("Detached from the drill.", code=Exit.INTERRUPTED) from None
    return api.get(f"/v1/drills/{quote(key, safe='')}", DrillDocument)


def _end(over: DrillDocument, form: Form, html: Path | None, *, replace: bool) -> NoReturn:
    _show(over, form)
    if html is not None:
        _write(_report_of(over), html, replace=replace)
    _leave(_report_of(over))


def _followed(api: Api, drill: DrillDocument) -> DrillDocument:
    """Until it is over. Raises Failure if it comes to nothing."""
    from dr.api.drill_schema import DrillDocument

    live = sys.stderr.isatty()
    try:
        while drill.state == "running":
            if live and drill.of:
                text = f"{drill.id}: {drill.done:,} of {drill.of:,} cases …"
                width = shutil.get_terminal_size().columns - 3
                print(f"\r\033[K  {text[:width]}", end="", file=sys.stderr, flush=True)
            time.sleep(POLL_S)
            drill = api.get(f"/v1/drills/{quote(drill.id, safe='')}", DrillDocument)
    except KeyboardInterrupt:
        tell(f"\nDetached; it goes on without you. Come back with: dr drill report {drill.id}")
        raise Failure("Detached from the drill.", code=Exit.INTERRUPTED) from None
    finally:
        if live:
            print("\r\033[K", end="", file=sys.stderr)
    if drill.report is None:
        raise Failure(f"Drill {drill.id} came to nothing.", why=drill.why, todo="see the coordinator's log")
    if drill.why:
        tell(f"Its report is not kept: {drill.why}")
    return drill


def _report_of(drill: DrillDocument) -> DrillReport:
    assert drill.report is not None
    return drill.report


def _leave(report: DrillReport) -> NoReturn:
    raise typer.Exit(Exit.OK if report.verdict == "passed" else Exit.FAILED)


def _write(report: DrillReport, file: Path, *, replace: bool) -> None:
    """Raises Failure."""
    from dr.api.drill_page import page

    write_file(file, page(report).encode(), replace=replace)
    tell(f"Written as {file}: open it in a browser, or print it.")


# ---- on the screen


def _took(recovered_s: float | None) -> str:
    return "" if recovered_s is None else age(recovered_s)


LIST_COLUMNS: tuple[Column[DrillRow], ...] = (
    Column("DRILL", lambda row: row.id),
    Column("KIND", lambda row: row.kind),
    Column("WHAT", lambda row: row.title),
    Column("VERDICT", lambda row: row.verdict, styled=True),
    Column("TOOK", lambda row: _took(row.recovered_s)),
    Column("WHEN", lambda row: clock(row.ended, parts=False)),
    Column("BY", lambda row: row.asked_by),
    Column("SAYS", lambda row: row.says, wide=True),
)


def _phase(name: str) -> Column[GuestRow]:
    def took(row: GuestRow) -> str:
        from dr.api.drill_schema import mark

        found = [each for each in row.phases if each.phase == name]
        return f"{mark(found)}{found[0].ends_s - found[0].begins_s:.1f} s" if found else ""

    return Column(name.upper(), took, wide=True)


def _after(row: GuestRow) -> str:
    from dr.api.drill_schema import mark

    return "" if row.recovered_s is None else mark(row.phases) + age(row.recovered_s)


GUEST_COLUMNS: tuple[Column[GuestRow], ...] = (
    Column("GUEST", lambda row: row.name),
    Column("FROM", lambda row: row.host),
    Column("TO", lambda row: row.to),
    Column("VERDICT", lambda row: row.verdict, styled=True),
    Column("AFTER", _after),
    *(_phase(name) for name in ("detect", "prove", "wait", "start", "check")),
    Column("WHY", lambda row: row.why),
)

CASE_COLUMNS: tuple[Column[Case], ...] = (
    Column("WITHOUT", lambda row: " and ".join(row.lost)),
    Column("VERDICT", lambda row: row.verdict, styled=True),
    Column("GUESTS", lambda row: str(row.guests)),
    Column("NO PLACE", lambda row: str(row.stranded or "")),
    Column("AFTER", lambda row: _took(row.recovered_s) if row.guests else ""),
    Column("WHY", lambda row: row.why),
)


def _show(drill: DrillDocument, form: Form) -> None:
    report = _report_of(drill)
    match form:
        case Form.JSON | Form.YAML:
            document(drill, form)
        case Form.NAME:
            print(drill.id)
        case Form.TABLE | Form.WIDE:
            tell(f"{report.verdict.upper()}: {report.says}")
            for line in _said(report):
                tell(line)
            if report.guests:
                table(report.guests, GUEST_COLUMNS, wide=form is Form.WIDE)
            if report.cases:
                table(report.cases, CASE_COLUMNS, wide=form is Form.WIDE)
            if form is Form.WIDE:
                facts([("rests on", "\n".join(report.rests_on))])
            if drill.kept:
                tell(f"Kept as {drill.id}. As a page: dr drill report {drill.id} --html FILE")


def _said(report: DrillReport) -> Sequence[str]:
    lines = []
    for each in report.findings:
        lines.append(f"  {each.severity}: {each.text}" + (f"\n    next: {each.todo}" if each.todo else ""))
    if report.objective_s:
        lines.append(f"  objective: {age(report.objective_s)}")
    return lines
