"""`dr doctor`: what would break a failover. The coordinator examines itself; here is what only this side can see."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import BAD, DIM, GOOD, ODD, Form, Output, document, line

if TYPE_CHECKING:
    from dr.api.schema import Finding, Findings, Whoami

CLOCK_S = 2.0
CERTIFICATE_DAYS = 30.0


def doctor(form: Output = Form.TABLE) -> None:
    """Find what would break a failover, and say the fix. Exit code 3 if there is anything."""
    findings = _examine()
    bad = [finding for finding in findings.items if finding.level in ("warning", "critical")]
    match form:
        case Form.JSON | Form.YAML:
            document(findings, form)
        case Form.NAME:
            for finding in findings.items:
                print(f"{finding.check}/{finding.subject}" if finding.subject else finding.check)
        case Form.TABLE | Form.WIDE:
            _show(findings.items)
            if not bad:
                line(f"Nothing found that would break a failover ({len(findings.checked)} checks).", GOOD)
    if bad:
        raise typer.Exit(Exit.DEGRADED)


def _examine() -> Findings:
    """The coordinator's findings and our own; an unreachable coordinator is one too."""
    from dr.api.schema import Findings, Whoami
    from dr.cli.client import connect

    try:
        api = connect()
        before = time.time()
        own = [*_clock(api.get("/v1/whoami", Whoami), before, time.time()), *_certificate()]
        found = api.get("/v1/doctor", Findings)
    except Failure as failure:
        if failure.code is not Exit.UNREACHABLE:
            raise
        return Findings(items=[_unreachable(failure)], checked=["coordinator"])
    return Findings(items=[*own, *found.items], checked=[*found.checked, "own-clock", "own-certificate"])


def _unreachable(failure: Failure) -> Finding:
    from dr.api.schema import Finding

    tell("The coordinator cannot be reached, so nothing else was examined.")
    return Finding(
        level="critical", check="coordinator", what=failure.what,
        why=f"{failure.why}; while it is down no failed host is noticed", fix=failure.todo,
    )  # fmt: skip


def _clock(told: Whoami, before: float, after: float) -> list[Finding]:
    """Whether this machine's clock and the coordinator's agree."""
    from dr.api.schema import Finding

    off = max(before - told.wall, told.wall - after, 0.0)
    if off < CLOCK_S:
        return []
    return [
        Finding(
            level="warning", check="own-clock", what=f"This clock and the coordinator's differ by {off:.0f} s.",
            why="times in reports and the dates of certificates are then wrong", fix="chronyc tracking, on both",
        )
    ]  # fmt: skip


def _certificate() -> list[Finding]:
    from dr.adapters.pki.credentials import days_left
    from dr.api.schema import Finding
    from dr.cli import credentials

    client = credentials.load()
    days = days_left(client.credentials.certificate)
    if days > CERTIFICATE_DAYS:
        return []
    return [
        Finding(
            level="warning", check="own-certificate", what=f"{client.folder}/tls.pem expires in {days:.0f} days.",
            why="commands are refused after that", fix="on the coordinator: dr cluster init --renew",
        )
    ]  # fmt: skip


def _show(findings: list[Finding]) -> None:
    styles = {"critical": BAD, "warning": ODD, "info": DIM, "ok": GOOD}
    for finding in findings:
        line(f"{finding.level}: {finding.what}", styles[finding.level])
        for word, text in (("why", finding.why), ("fix", finding.fix)):
            if text:
                line(f"  {word}: {text}")
