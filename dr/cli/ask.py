"""What the commands that change something share: confirmation by a typed name, sending, watching the job."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import Column, Form, age, document, mib, table

if TYPE_CHECKING:
    from dr.api.schema import Accepted, Check, Forecast, Foreseen, MoveSeen, Operation
    from dr.cli.client import Api

Reason = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for the typed name.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until the job has ended.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait at most; 0 = no limit.", min=0.0)]

Deadline = Annotated[
    str,
    typer.Option(
        "--deadline", help="When the host may go down: 90s, 10m, 1h30m. What would be late is stopped before."
    ),
]

SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
POLL_S = 0.2
TELL_S = 10.0  # how far moves are, where nobody looks at a terminal
PATIENCE_S = 5.0  # so long a request is repeated that was refused for what is over in a moment


def seconds(text: str) -> float:
    """`90s`, `10m`, `1h30m`; a bare number is seconds; 0 for nothing. Raises Failure."""
    if not text:
        return 0.0
    match = SPAN.fullmatch(text)
    hours, minutes, rest = (int(part or 0) for part in match.groups()) if match is not None else (0, 0, 0)
    found = 3600 * hours + 60 * minutes + rest
    if not found:
        raise Failure(f"{text!r} is no time.", why="write 90s, 10m or 1h30m", code=Exit.USAGE)
    return float(found)


def confirm(name: str, danger: str, *, yes: bool) -> None:
    """Ask for the typed name. Raises Failure when it is not typed, or nobody is there to type it."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(
            "Nothing was done: nobody is here to confirm it.",
            why=danger,
            todo="repeat with --yes",
            code=Exit.USAGE,
        )
    tell(danger)
    typed = typer.prompt(f"Type {name} to go on", err=True, default="", show_default=False)
    if typed.strip() != name:
        raise Failure("Nothing was done: the name was not typed.", code=Exit.FAILED)


def named(hosts: Sequence[str]) -> str:
    """What is to be typed for them: the name of one, the number of several."""
    return hosts[0] if len(hosts) == 1 else str(len(hosts))


def send(
    path: str,
    body: Mapping[str, Any],
    *,
    wait: bool = False,
    timeout_s: float = 0.0,
    form: Form = Form.TABLE,
) -> Accepted:
    """Send one ask, say what was accepted, and watch its jobs if wanted. Raises Failure."""
    from dr.cli.client import connect

    api = connect()
    accepted = _post(api, path, body)
    told(accepted, form)
    if wait and accepted.operations:
        finish(api, accepted.operations, timeout_s)
    elif accepted.operations:
        tell(f"Watch it with: dr job watch {' '.join(accepted.operations)}")
    return accepted


def leave_foretold(guests: Sequence[Foreseen]) -> NoReturn:
    """End a dry run: degraded where a guest would stay, or be late."""
    blocked = any(guest.fate == "blocked" or guest.rung == "called off" or guest.late for guest in guests)
    raise typer.Exit(Exit.DEGRADED if blocked else Exit.OK)


def _post(api: Api, path: str, body: Mapping[str, Any]) -> Accepted:
    from dr.api.schema import Accepted

    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return api.post(path, Accepted, body)
        except Failure as failure:
            decided = failure.code is Exit.TRY_AGAIN and failure.blockers  # so nothing was done
            if not decided or time.monotonic() > until:
                raise
        time.sleep(POLL_S)


def told(accepted: Accepted, form: Form) -> None:
    """Say what was accepted: words on stderr, job ids as data."""
    match form:
        case Form.JSON | Form.YAML:
            document(accepted, form)
        case Form.NAME:
            for key in accepted.operations:
                print(key)
        case Form.TABLE | Form.WIDE:
            begun = f"Begun: {', '.join(accepted.operations)}" if accepted.operations else "Done."
            tell(accepted.message or begun)
            if accepted.differences:
                tell("\n".join(["Different from the plan:", *(f"  {each}" for each in accepted.differences)]))
            if accepted.noted:
                tell("\n".join(["To be known:", *(f"  {each}" for each in accepted.noted)]))
            foretell(accepted.guests, accepted.forecast, wide=form is Form.WIDE)


def foretell(guests: Sequence[Foreseen], forecast: Forecast | None, *, wide: bool) -> None:
    """What becomes of each guest, its pre-flight, and what the times rest on."""
    if guests:
        columns = (
            *(LEFT if len({guest.host for guest in guests}) > 1 else ()),
            *NAME_AND_FATE,
            *(TIMES if forecast is not None else ()),
            *(LATE if any(guest.late for guest in guests) else ()),
            *REASONS,
        )
        table(guests, columns, wide=wide)
        _checks(guests, wide=wide)
    if forecast is not None:
        tell("\n".join(["The forecast rests on:", *(f"  {each}" for each in forecast.rests_on)]))


def _checks(guests: Sequence[Foreseen], *, wide: bool) -> None:
    """The pre-flight of one guest as a whole; of several what is not ok, unless all of it is wanted."""
    full = wide or len(guests) == 1
    rows = [(guest, check) for guest in guests for check in guest.checks if full or check.verdict != "ok"]
    left = sum(len(guest.checks) for guest in guests) - len(rows)
    if rows:
        table(rows, CHECKS)
    if left:
        tell(f"{left} checks are ok; -o wide shows them too.")


def _fate(guest: Foreseen) -> str:
    match guest.fate:
        case "live" if guest.cold:
            return f"stopped, then to {guest.to}"
        case "live":
            return f"live to {guest.to}"
        case "blocked":
            return "stays"
        case "left":
            return "left there"


def _in(seconds: float | None) -> str:
    return "" if seconds is None else age(seconds)


LEFT: tuple[Column[Foreseen], ...] = (Column("HOST", lambda row: row.host),)
NAME_AND_FATE: tuple[Column[Foreseen], ...] = (
    Column("GUEST", lambda row: row.name),
    Column("FATE", _fate),
)
TIMES: tuple[Column[Foreseen], ...] = (
    Column("TO SEND", lambda row: mib(row.send_mib)),
    Column("RUNG", lambda row: row.rung),
    Column("DOWN FOR", lambda row: f"{row.downtime_s:.1f} s" if row.rung else ""),
    Column("BEGINS IN", lambda row: _in(row.begins_s)),
    Column("ENDS IN", lambda row: _in(row.ends_s)),
)
LATE: tuple[Column[Foreseen], ...] = (Column("TOO LATE", lambda row: row.late),)
REASONS: tuple[Column[Foreseen], ...] = (
    Column("WHY", lambda row: "; ".join(row.why)),
    Column("WHAT WOULD HELP", lambda row: "; ".join(row.todo)),
    Column("UUID", lambda row: row.id, wide=True),
)


CHECKS: tuple[Column[tuple[Foreseen, Check]], ...] = (
    Column("GUEST", lambda row: row[0].name),
    Column("CHECK", lambda row: row[1].name),
    Column("VERDICT", lambda row: row[1].verdict),
    Column("SENTENCE", lambda row: row[1].text),
    Column("FIX", lambda row: row[1].fix),
)


def finish(api: Api, keys: Sequence[str], timeout_s: float) -> None:
    """Follow jobs to their end; their steps on stderr. Raises Failure unless all are done."""
    deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
    try:
        ended = [follow(api, key, deadline) for key in keys]
    except KeyboardInterrupt:
        tell(f"\nDetached; it goes on without you. Come back with: dr job watch {' '.join(keys)}")
        raise Failure("Detached from the job.", code=Exit.INTERRUPTED) from None
    failed = [each for each in ended if each.state != "done"]
    if failed:
        unknown = any(each.state == "unknown" for each in failed)
        raise Failure(
            f"{len(failed)} of {len(ended)} jobs did not succeed."
            if len(ended) > 1
            else "The job did not succeed.",
            blockers=[
                f"{each.id} ({each.op} {each.subject}) is {each.state}{_last(each)}" for each in failed
            ],
            todo=f"dr job show {failed[0].id}",
            code=Exit.UNKNOWN if unknown else Exit.FAILED,
        )


def follow(api: Api, key: str, deadline: float) -> Operation:
    """Print each step of one job as it comes, until it has ended. Raises Failure when time is up."""
    from dr.api.schema import OperationDocument

    shown = 0
    live = sys.stderr.isatty()
    told = time.monotonic()
    while True:
        job = api.get(f"/v1/operations/{key}", OperationDocument).item
        for step in job.steps[shown:]:
            _clear(live)
            tell(f"  {step.after_s:7.2f} s  {step.text}")
        shown = len(job.steps)
        if job.state != "open":
            _clear(live)
            tell(f"{job.op} {job.subject}: {job.state} after {age(job.duration_s)}")
            return job
        if time.monotonic() > deadline:
            raise Failure(
                f"{job.op} {job.subject} has not ended yet; it goes on.",
                todo=f"dr job watch {key}",
                code=Exit.TIMED_OUT,
            )
        far = "; ".join(how_far(move) for move in job.moves)
        if live:
            text = far or f"{job.op} {job.subject}: {age(job.duration_s)} …"
            width = shutil.get_terminal_size().columns - 3
            print(f"\r\033[K  {text[:width]}", end="", file=sys.stderr, flush=True)
        elif far and time.monotonic() > told + TELL_S:
            tell(f"  {job.duration_s:7.2f} s  {far}")
            told = time.monotonic()
        time.sleep(POLL_S)


def how_far(move: MoveSeen) -> str:
    """One live migration in a few words."""
    text = f"{move.guest} {move.source} to {move.destination}: "
    if move.done_pct is None:
        return f"{text}{move.stage}"
    text += f"{move.done_pct} %, {move.remaining_mib:.0f} MiB left at {move.rate_mib_s:.0f} MiB/s"
    if move.passes and move.passes > 1:
        text += f", pass {move.passes}, {move.dirty_mib_s:.0f} MiB/s become dirty"
    if move.throttle_pct:
        text += f", slowed down by {move.throttle_pct} %"
    if move.eta_s is None:
        return f"{text}; at this rate it never ends"
    return f"{text}, about {move.eta_s:.0f} s to go"


def _clear(live: bool) -> None:
    if live:
        print("\r\033[K", end="", file=sys.stderr)


def _last(job: Operation) -> str:
    return f": {job.steps[-1].text}" if job.steps else ""


def labels(given: Sequence[str]) -> dict[str, str | None]:
    """`k=v` sets, `k-` removes. Raises Failure."""
    result: dict[str, str | None] = {}
    for each in given:
        key, equals, value = each.partition("=")
        if equals and key:
            result[key] = value
        elif each.endswith("-") and len(each) > 1:
            result[each[:-1]] = None
        else:
            raise Failure(
                f"{each!r} is no label.", why="write KEY=VALUE to set, KEY- to remove", code=Exit.USAGE
            )
    return result
