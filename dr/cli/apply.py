"""`dr apply`: what a saved plan says, if it still holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dr.cli.ask import Reason, Timeout, Wait, Yes, confirm, named, send
from dr.cli.failure import Exit, Failure, tell
from dr.cli.output import Form, Output


def apply(
    *,
    file: Annotated[Path, typer.Argument(metavar="PLAN", help="A file that `dr plan … --save` wrote.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what is different from the plan now.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also if something is different now: then as things are now.")
    ] = False,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 0.0,
    form: Output = Form.TABLE,
) -> None:
    """Do what a plan says that `dr plan evacuate --save` wrote, or refuse with everything that is different now.

    Applied twice, it is the same job. Exit code 4 if a dry run finds that the plan does not hold any more.
    """
    from dr.cli import planfile

    plan = planfile.load(file)
    stopped = [guest.name for guest in plan.guests if guest.stopped]
    if stopped and not dry_run:
        confirm(
            named(plan.hosts),
            f"These cannot leave live in time and are stopped: {', '.join(stopped)}",
            yes=yes,
        )
    body = {"plan": plan.model_dump(mode="json"), "anyway": anyway, "dry_run": dry_run, "reason": reason}
    try:
        accepted = send("/v1/plans/apply", body, wait=wait, timeout_s=timeout, form=form)
    except Failure as failure:
        if failure.code is not Exit.REFUSED or not failure.blockers:
            raise
        anew = f"dr plan evacuate {' '.join(plan.hosts)} --save {file} --replace"
        raise Failure(
            failure.what, why=failure.why, code=failure.code, blockers=failure.blockers,
            todo=f"a new plan: {anew}; or --anyway, as things are now",
        ) from None  # fmt: skip
    if dry_run:
        raise typer.Exit(Exit.CHANGES if accepted.differences else Exit.OK)
    tell(f"End it with: {'; '.join(f'dr host undrain {name}' for name in plan.hosts)}")
