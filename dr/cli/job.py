"""`dr job`: operations, their steps, and following one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from dr.cli.ask import Reason, Timeout, finish, how_far, send
from dr.cli.failure import tell
from dr.cli.output import Column, Form, Output, age, clock, document, facts, listing

if TYPE_CHECKING:
    from dr.api.run_schema import CloneSeen, DrillEnded
    from dr.api.schema import Operation, OperationRow
    from dr.cli.client import Api

app = typer.Typer(help="Jobs: what was asked for or decided, and how it went.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The job's id.")]

COLUMNS: tuple[Column[OperationRow], ...] = (
    Column("JOB", lambda row: row.id),
    Column("WHAT", lambda row: f"{row.op} {row.subject}"),
    Column("STATE", lambda row: row.state, styled=True),
    Column("STARTED", lambda row: clock(row.opened_wall, parts=False)),
    Column("TOOK", lambda row: age(row.duration_s)),
    Column("BY", lambda row: row.asked_by),
    Column("WHY", lambda row: row.why),
)


@app.command("list")
def list_(
    open_: Annotated[bool, typer.Option("--open", help="Only those under way.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="At most so many, the newest.", min=1, max=1000)
    ] = 20,
    form: Output = Form.TABLE,
) -> None:
    """Jobs, the newest last."""
    from dr.api.schema import OperationList
    from dr.cli.client import connect

    answer = connect().get("/v1/operations", OperationList, limit=1000 if open_ else lines)
    rows = [row for row in answer.items if not open_ or row.state == "open"][-lines:]
    listing(OperationList(items=rows), rows, COLUMNS, form, name=lambda row: row.id, empty="No jobs.")


@app.command()
def show(
    job: Id,
    *,
    evidence: Annotated[
        bool,
        typer.Option("--evidence", help="What the commands said that a playbook ran, in place of its steps."),
    ] = False,
    form: Output = Form.TABLE,
) -> None:
    """One job with all its steps."""
    from dr.api.schema import NoteList, OperationDocument
    from dr.cli.client import connect

    api = connect()
    if evidence:
        _evidence(api, job, form)
        return
    answer = api.get(f"/v1/operations/{quote(job, safe='')}", OperationDocument)
    match form:
        case Form.JSON | Form.YAML:
            document(answer, form)
        case Form.NAME:
            print(answer.item.id)
        case Form.TABLE | Form.WIDE:
            told = api.get("/v1/notes", NoteList, operation=answer.item.id, limit=200)
            decisions = dict.fromkeys(note.decision for note in told.items if note.decision)
            why = f"{', '.join(decisions)} (dr events --save ID)" if decisions else ""
            facts([*_facts(answer.item), ("explained by", why)])


def _evidence(api: Api, job: str, form: Form) -> None:
    from dr.api.run_schema import OutputList

    answer = api.get(f"/v1/operations/{quote(job, safe='')}/outputs", OutputList)
    if form in (Form.JSON, Form.YAML):
        document(answer, form)
        return
    for each in answer.items:
        ended = "ended, as it took too long" if each.timed_out else f"exit code {each.code}"
        tell(f"{clock(each.wall)}  step {each.step}, {each.on}: {' '.join(each.argv)}: {ended}")
        tell(f"{each.output_bytes} bytes, sha256 {each.output_sha256}")
        print(shown(each.output))
    if not answer.items:
        tell(f"{job} has run no command to its end.")


def shown(output: str) -> str:
    """Without what would move a terminal's cursor, or change its colours, on somebody else's behalf."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in output.rstrip("\n"))


def _facts(job: Operation) -> list[tuple[str, str]]:
    steps = "\n".join(f"{clock(step.wall)}  +{step.after_s:.2f} s  {step.text}" for step in job.steps)
    guests = "\n".join(
        f"{job.guest_names.get(key, key)}: {text or 'under way'}" for key, text in job.guests.items()
    )
    return [
        ("job", job.id),
        ("what", f"{job.op} {job.subject}"),
        ("state", job.state),
        ("why", job.why),
        ("asked by", job.asked_by),
        ("started", clock(job.opened_wall)),
        ("took" if job.state != "open" else "for", age(job.duration_s)),
        ("forecast", "" if job.foreseen_s is None else age(job.foreseen_s)),
        ("guests", guests),
        ("hooks", "\n".join(f"{when}: {came}" for when, came in job.hooks.items())),
        ("moves", "\n".join(how_far(move) for move in job.moves)),
        *_run_facts(job),
        ("steps", steps),
    ]


def _run_facts(job: Operation) -> list[tuple[str, str]]:
    """Of a playbook: what it was told, and how far each step is."""
    run = job.run
    if run is None:
        return []
    lines = []
    for number, step in enumerate(run.steps, start=1):
        part = "" if step.part == "steps" else f"{step.part}: "
        took = "" if step.took_s is None else f" ({age(step.took_s)})"
        lines.append(f"{number}. {part}{step.text}: {step.state}{took}{': ' if step.says else ''}{step.says}")
        lines += [
            f"   {each.on}: {each.state}{': ' if each.says else ''}{each.says}" for each in step.commands
        ]
    return [
        ("parameters", ", ".join(f"{name}={value}" for name, value in run.params.items())),
        ("objective", f"over within {age(run.rto_s)}" if run.rto_s else ""),
        ("failed", run.failed),
        ("cancelled", run.cancelled),
        ("playbook", "\n".join(lines)),
        ("clones", "\n".join(_clone(clone) for clone in run.clones)),
        ("proof", "\n".join(line for end in run.ends for line in _proof(end))),
    ]


def _clone(clone: CloneSeen) -> str:
    """One clone of a drill, in a line."""
    parts = [f"{clone.guest} on {clone.host}: {clone.state}"]
    if clone.copied_s is not None:
        parts.append(f"{clone.copied_mib} MiB copied in {clone.copied_s:.1f} s")
    if clone.booted_s is not None:
        parts.append(f"ran after {clone.booted_s:.1f} s")
    if clone.answers_s is not None:
        parts.append(f"answered after {clone.answers_s:.1f} s")
    if clone.left_out:
        parts.append(f"without {', '.join(clone.left_out)}")
    return ", ".join(parts) + (f": {clone.says}" if clone.says else "")


def _proof(end: DrillEnded) -> Iterator[str]:
    """What a host says of a drill that has ended there."""
    if not end.done:
        yield f"{end.host}: not ended yet{': ' if end.says else ''}{end.says}"
        return
    yield from (f"{end.host}: untouched: {kept}" for kept in end.kept)
    yield from (f"{end.host}: NOT as before: {kept}" for kept in end.changed)
    if end.bridge:
        others = (
            f"and, which should not be, {', '.join(end.strangers)}" if end.strangers else "and nothing else"
        )
        own = [port for port in end.ports if port not in end.strangers]
        yield f"{end.host}: on {end.bridge} were {', '.join(own) or 'no clones'}, {others}"
    yield f"{end.host}: removed {', '.join(end.removed) or 'nothing: there was nothing'}"


@app.command()
def approve(job: Id, reason: Reason = "", form: Output = Form.TABLE) -> None:
    """Agree to what the run of a playbook asks; it goes on."""
    send(f"/v1/operations/{quote(job, safe='')}/answer", {"agree": True, "reason": reason}, form=form)


@app.command()
def deny(job: Id, reason: Reason = "", form: Output = Form.TABLE) -> None:
    """Refuse what the run of a playbook asks; its step fails."""
    send(f"/v1/operations/{quote(job, safe='')}/answer", {"agree": False, "reason": reason}, form=form)


@app.command()
def cancel(job: Id, reason: Reason = "", form: Output = Form.TABLE) -> None:
    """End the run of a playbook: no step begins any more but those in `finally`. What a step began goes on."""
    send(f"/v1/operations/{quote(job, safe='')}/cancel", {"reason": reason}, form=form)


@app.command()
def watch(jobs: Annotated[list[str], typer.Argument(help="Ids.")], timeout: Timeout = 0.0) -> None:
    """Follow jobs to their end. Ctrl-C detaches; the job goes on."""
    from dr.cli.client import connect

    finish(connect(), jobs, timeout)
