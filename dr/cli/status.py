"""`dr status`, `dr pause`, `dr resume`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from dr.cli.ask import send
from dr.cli.failure import Exit, Failure, tell
from dr.cli.host import COLUMNS as HOST_COLUMNS
from dr.cli.output import BAD, GOOD, ODD, Form, Output, age, document, line, table

if TYPE_CHECKING:
    from dr.api.schema import GuestRow, Status
    from dr.cli.client import Api


def status(
    check: Annotated[bool, typer.Option("--check", help="Exit with 3 if anything needs a person.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option("--interval", help="Seconds between two looks.", min=0.2)] = 1.0,
    form: Output = Form.TABLE,
) -> None:
    """The fleet at a glance: hosts, guests, what waits and why, alerts."""
    from dr.api.schema import Status
    from dr.cli.client import connect

    api = connect()
    if watch:
        _watch(api, form, interval)
        return
    now = api.get("/v1/status", Status)
    _show(now, form)
    if check and not now.healthy:
        raise typer.Exit(Exit.DEGRADED)


def _watch(api: Api, form: Form, interval_s: float) -> None:
    from dr.api.schema import Status

    clear = form in (Form.TABLE, Form.WIDE) and sys.stdout.isatty()
    try:
        while True:
            try:
                now = api.get("/v1/status", Status)
            except Failure as failure:
                if failure.code is not Exit.UNREACHABLE:
                    raise
                tell(failure.text())  # a coordinator that restarts is waited for
            else:
                if clear:
                    print("\033[H\033[2J", end="")
                _show(now, form, one_line=True)
            time.sleep(interval_s)
    except KeyboardInterrupt:
        return


def _show(now: Status, form: Form, *, one_line: bool = False) -> None:
    match form:
        case Form.JSON | Form.YAML:
            document(now, form, one_line=one_line)
        case Form.NAME:
            print(now.cluster)
        case Form.TABLE | Form.WIDE:
            _board(now, wide=form is Form.WIDE)


def _board(now: Status, *, wide: bool) -> None:
    """Worst things first: what kills protection, then hosts, guests, jobs, alerts."""
    online = sum(host.phase == "online" and host.connected for host in now.hosts)
    aside = sum(host.phase in ("draining", "maintenance") for host in now.hosts)
    line(
        f"Cluster {now.cluster}: {'healthy' if now.healthy else 'needs attention'}. "
        f"{online} of {len(now.hosts)} hosts online{f' ({aside} set aside)' if aside else ''}, "
        f"{now.guests_running} of {now.guests_protected} protected guests running"
        f" ({now.guests_total - now.guests_protected} unprotected). Epoch {now.epoch}, revision {now.revision}.",
        GOOD if now.healthy else BAD,
    )
    if now.pause is not None:
        line(
            f"AUTOMATION IS PAUSED by {now.pause.by} for {age(now.pause.age_s)}: {now.pause.reason}. "
            "End it: dr resume",
            BAD,
        )
    if now.restored:
        line(f"THE STORE IS A RESTORED COPY: {now.restored}. After looking it over: dr resume", BAD)
    if now.settling_s:
        line(
            f"The coordinator has just started or stood still; for {age(now.settling_s)} unheard is not late.",
            ODD,
        )
    if now.hosts:
        print()
        table(now.hosts, HOST_COLUMNS, wide=wide)
    _listed(
        "Guests that are not as they should be:", [f"{guest.name}: {_why(guest)}" for guest in now.unsettled]
    )
    _listed("N+1 is lost:", now.spare)
    if now.operations:
        print()
        line("Jobs under way:")
        for job in now.operations:
            line(
                f"  {job.id}  {job.op} {job.subject}, {age(job.duration_s)}{f': {job.why}' if job.why else ''}"
            )
    if now.alerts:
        print()
        line("Alerts:")
        for alert in now.alerts:
            line(
                f"  {alert.severity}, {age(alert.age_s)} ago: {alert.what}",
                BAD if alert.severity == "critical" else ODD,
            )
            for word, text in (("why", alert.why), ("next", alert.todo)):
                if text:
                    line(f"    {word}: {text}")
    _listed("Problems:", [problem for problem in now.problems if not _told(problem, now)])


def _listed(title: str, texts: list[str]) -> None:
    if texts:
        print()
        line(title)
    for text in texts:
        line(f"  {text}", ODD)


def _why(guest: GuestRow) -> str:
    """What is the matter with it: it cannot move, or is not what it should be, or both."""
    said = f"{guest.phase}{f' ({guest.reason})' if guest.reason else ''}"
    if guest.phase != guest.desired:
        said += f", should be {guest.desired}"
    return f"{said}; could not start elsewhere: {'; '.join(guest.blockers)}" if guest.blockers else said


def _told(problem: str, now: Status) -> bool:
    """Whether the board says it already, in other words."""
    if problem.startswith(("Automation is paused", "This store is a restored copy")):
        return True
    if any(problem.startswith(f"{host.name} is {host.phase}") for host in now.hosts):
        return True  # the table of hosts has the reason
    return any(problem.startswith(f"{guest.name} ") for guest in now.unsettled) or problem in {
        alert.what for alert in now.alerts
    }


def pause(reason: Annotated[str, typer.Option("--reason", help="Why; shown until it ends.")]) -> None:
    """Switch automation off: nothing is fenced or restarted by itself. What was begun goes on."""
    send("/v1/pause", {"reason": reason})
    tell("End it with: dr resume --reason '...'")


def resume(
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")] = "",
) -> None:
    """Switch automation on again; also the word that a restored store was looked over."""
    send("/v1/resume", {"reason": reason})
