"""Commands that playbooks run, as the API tells of them: the allow-list, one of a step, what one said."""

from __future__ import annotations

from collections.abc import Iterable

from dr.api.run_schema import CommandList, CommandRow, CommandSeen, OutputList, OutputSeen
from dr.api.snapshot import Snapshot
from dr.model.allowed import Output
from dr.model.playbooks import CommandRun


def allowed(snap: Snapshot) -> CommandList:
    rows = [
        CommandRow(
            name=name,
            argv=list(each.argv),
            where=each.where,
            params=list(each.parameters),
            timeout_s=each.timeout_s,
            reboots=each.reboots,
            powers_off=each.powers_off,
        )
        for name, each in sorted(snap.state.settings.commands.items())
    ]
    return CommandList(items=rows)


def command(run: CommandRun) -> CommandSeen:
    return CommandSeen(
        id=run.id,
        on=run.on,
        argv=list(run.argv),
        state=run.state,
        says=run.said,
        code=run.code,
        last=run.last,
        output_bytes=run.bytes,
        output_sha256=run.digest,
    )


def outputs(snap: Snapshot, found: Iterable[Output]) -> OutputList:
    items = [
        OutputSeen(
            step=each.step,
            command=each.command,
            name=each.name,
            on=each.on,
            argv=list(each.argv),
            code=each.report.code,
            timed_out=each.report.timed_out,
            output=each.report.output,
            output_bytes=each.report.bytes,
            output_sha256=each.report.digest,
            wall=snap.wall(each.at),
        )
        for each in found
    ]
    return OutputList(items=items)
