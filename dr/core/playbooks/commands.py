"""The commands of a `run` step: begun once each, asked for again until something is known of them, their output kept.

A command's record, with the id under which it runs at most once, is written before it is sent; a later term sends the
same id again. What is not known stays unknown, and is not tried anew. Not here: what may be run (`dr.model.allowed`),
whose turn a step is (`runner`).
"""

from __future__ import annotations

from typing import Literal

from dr.core.looks import addresses_of
from dr.core.state import Draft
from dr.core.volatile import Pending
from dr.model.allowed import TIMEOUT_S_MAX, Allowed, Output, Report, filled, wrong_with
from dr.model.base import changed
from dr.model.commands import Answer, Outcome, RunInside
from dr.model.effects import RunCommand as Effect
from dr.model.effects import Send
from dr.model.events import CommandEnded
from dr.model.operations import Operation
from dr.model.playbooks import CommandRun, RunStep
from dr.model.records import GuestPhase, HostPhase, HostRecord
from dr.model.settings import Settings
from dr.model.verbs import RunCommand

AGAIN_S = 5.0  # after nothing was heard of it
WINDOW_S = 30.0  # one attempt waits so long for its end; then it is asked for again
LOST_S = 60.0  # and so long after that, no word of the attempt will come any more
SILENT_S = 10.0  # a host that is to go down, and was not heard for so long, has
GRACE_S = 120.0  # after its time: the host ends it, and is asked what came of it
REACHABLE = (HostPhase.ONLINE, HostPhase.DRAINING, HostPhase.MAINTENANCE)
KIND = "command"


def why_not(settings: Settings, verb: RunCommand) -> list[str]:
    """Why the configuration has no such command for it; [] if it has."""
    command = settings.commands.get(verb.run)
    if command is None:
        has = ", ".join(sorted(settings.commands)) or "none"
        return [f"the coordinator's configuration allows no command named {verb.run}; it allows: {has}"]
    wrong = wrong_with(command, verb.with_)
    if command.where == "guest" and verb.on:
        wrong.append(f"{verb.run} is a command for guests: write `in:` in place of `on:`")
    if command.where == "host" and verb.in_:
        wrong.append(f"{verb.run} is a command for hosts: write `on:` in place of `in:`")
    return wrong


def left(draft: Draft, step: RunStep, verb: RunCommand) -> list[str]:
    """Where it has not ended well yet."""
    known = {each.on: each for each in step.commands}
    command = draft.config.commands.get(verb.run)
    told = []
    for name in names(verb):
        run = known.get(name)
        if run is None:
            words = " ".join(filled(command, verb.with_)) if _usable(command, verb) and command else verb.run
            told.append(f"{name}: to be run: {words}")
        elif run.state == "running":
            told.append(f"{name}: {run.said or f'{verb.run} is under way'}")
        elif run.state != "done":
            told.append(f"{name}: {run.said}")
    return told


def names(verb: RunCommand) -> tuple[str, ...]:
    return (*verb.on, *verb.in_)


def blockers(draft: Draft, step: RunStep, verb: RunCommand) -> list[str]:
    """Why the next one cannot begin now; [] if it can."""
    wrong = why_not(draft.config, verb)
    name = _next(step, verb)
    return wrong if wrong or name is None else _blockers_of(draft, draft.config.commands[verb.run], name)


def all_blockers(draft: Draft, verb: RunCommand) -> list[str]:
    """Why any of them could not begin now."""
    if wrong := why_not(draft.config, verb):
        return wrong
    command = draft.config.commands[verb.run]
    return [why for name in names(verb) for why in _blockers_of(draft, command, name)]


def _blockers_of(draft: Draft, command: Allowed, name: str) -> list[str]:
    if command.where == "guest":
        return _blockers_inside(draft, name)
    host = draft.host(name)
    if host is None:
        return [f"{name} is not a host any more"]
    if host.phase not in REACHABLE:
        return [f"{name} is {host.phase}" + (f": {host.reason}" if host.reason else "")]
    if not host.boot_id:
        return [f"{name} has not been heard of yet"]
    does = "reboots" if command.reboots else "switches off" if command.powers_off else ""
    if command.powers_off and (draft.policy(name).coordinator_here or host.boot_id == draft.own_boot):
        return [f"the coordinator runs on {name}: switch that off last, by hand"]
    if does and host.phase is not HostPhase.MAINTENANCE and (there := draft.guests_at(name)):
        guests = [guest.name for key in there if (guest := draft.guest(key)) is not None]
        return [f"{command.name} {does} {name}, and {', '.join(guests[:5])} may run there: drain it first"]
    return []


def _blockers_inside(draft: Draft, name: str) -> list[str]:
    guest = draft.guest_named(name)
    if guest is None:
        return [f"{name} is not protected"]
    if guest.phase is not GuestPhase.RUNNING:
        return [f"{name} is {guest.phase}" + (f": {guest.reason}" if guest.reason else "")]
    if not draft.view(guest.holder).session:
        return [f"the agent of {guest.holder}, where {name} runs, is not heard"]
    return []


def _usable(command: Allowed | None, verb: RunCommand) -> bool:
    return command is not None and not wrong_with(command, verb.with_)


def _next(step: RunStep, verb: RunCommand) -> str | None:
    """Where it is to be run next."""
    done = {each.on for each in step.commands if each.state == "done"}
    return next((name for name in names(verb) if name not in done), None)


def failed(step: RunStep) -> CommandRun | None:
    """The one that has not ended well, if any."""
    return next((each for each in step.commands if each.state in ("failed", "unknown")), None)


def begun_anew(step: RunStep) -> RunStep:
    """For another try: those that ended well stay so."""
    return changed(step, commands=tuple(each for each in step.commands if each.state in ("done", "running")))


def given_up(step: RunStep) -> RunStep:
    """Nobody waits for it any more: what becomes of it is not known, unless it is heard of after all."""
    runs = (_given_up(each, each.said) if each.state == "running" else each for each in step.commands)
    return changed(step, commands=tuple(runs))


def _given_up(run: CommandRun, heard: str) -> CommandRun:
    if _not_arrived(run):
        return changed(run, state="failed", said=f"not run: {heard}")
    said = "it was under way as its step ended" + (f": {heard}" if heard else "")
    return changed(run, state="unknown", said=f"unknown: {said}")


def _not_arrived(run: CommandRun) -> bool:
    """Whether none of the times that it was sent can have reached its host."""
    return run.asked == run.unreached


def in_words(step: RunStep) -> str:
    """What came of each."""
    told = [f"{each.on}: {each.said}" for each in step.commands]
    return "; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "")


# ---- carrying on


def carry_on(draft: Draft, operation: Operation, at: int, step: RunStep, verb: RunCommand) -> RunStep:
    """The step as it is now: the next one begun, the one under way looked at and asked for again. Call it each tick."""
    running = next((each for each in step.commands if each.state == "running"), None)
    if running is not None:
        return _put(step, _looked_at(draft, operation, running))
    name = _next(step, verb)
    if name is None or failed(step) is not None:
        return step
    command = draft.config.commands.get(verb.run)
    if command is None or blockers(draft, step, verb):
        return step
    guest = draft.guest_named(name) if command.where == "guest" else None
    host = draft.require_host(guest.holder if guest is not None else name)
    run = CommandRun(
        # A restored store may count its terms anew; leaders never come again.
        id=draft.next_id(f"{KIND}-{draft.cluster.leader_id[:8]}"),
        on=name,
        guest=guest.id if guest is not None else "",
        process=draft.view(host.name).process if guest is not None else "",
        host=host.name,
        boot_id=host.boot_id,
        phase=host.phase,
        argv=filled(command, verb.with_),
        at=draft.now,
        limit_s=min(command.timeout_s, TIMEOUT_S_MAX),
        reboots=command.reboots,
        powers_off=command.powers_off,
    )
    draft.note(
        "command.begins",
        f"{at + 1}. {name}: {verb.run}: {' '.join(run.argv)}",
        host=host.name,
        guest=run.guest,
        operation=operation.id,
    )
    return _put(step, _send(draft, operation, run))


def _put(step: RunStep, run: CommandRun) -> RunStep:
    others = tuple(each for each in step.commands if each.on != run.on)
    return changed(step, commands=(*others, run))


def _send(draft: Draft, operation: Operation, run: CommandRun) -> CommandRun:
    host = draft.host(run.host)
    session = draft.view(run.host).session
    if host is None or (run.guest and not session):
        return run
    draft.wait_for(
        run.id,
        Pending(
            kind="exec" if run.guest else KIND,
            host=run.host,
            at=draft.now,
            deadline=draft.now + WINDOW_S + LOST_S,
            operation=operation.id,
        ),
    )
    if run.guest:
        body = RunInside(
            guest=run.guest,
            name=run.on,
            argv=run.argv,
            timeout_s=run.limit_s,
            window_s=WINDOW_S,
            process=run.process,
        )
        draft.effect(Send(id=run.id, host=run.host, session=session, body=body))
        return changed(run, asked=run.asked + 1, asked_at=draft.now)
    draft.effect(
        Effect(
            id=run.id,
            host=run.host,
            addresses=addresses_of(draft, host),
            boot_id=run.boot_id,
            argv=run.argv,
            timeout_s=run.limit_s,
            window_s=WINDOW_S,
        )
    )
    return changed(run, asked=run.asked + 1, asked_at=draft.now)


def _looked_at(draft: Draft, operation: Operation, run: CommandRun) -> CommandRun:
    """Under way: seen to have ended, out of time, or to be asked for again."""
    host, ends = draft.host(run.host), run.at + run.limit_s + GRACE_S
    if host is None:
        return _over(draft, operation, run, "unknown", f"{run.host} is not a host any more")
    end = _seen(draft, host, run)
    if end is None and draft.now >= ends:
        end = _out_of_time(draft, host, run)
    if end is not None:
        return _over(draft, operation, run, *end)
    same_boot = host.boot_id == run.boot_id and draft.pending_of(run.id) is None and run.code is None
    if same_boot and draft.now >= run.asked_at + AGAIN_S:
        return _send(draft, operation, run)
    return run


def _seen(draft: Draft, host: HostRecord, run: CommandRun) -> tuple[str, str] | None:
    """The end, and what is said of it, where its host shows that."""
    took_s = draft.now - run.at
    silent_s = draft.now - max(draft.view(run.host).heard, draft.started_at)
    silent = silent_s > SILENT_S and not draft.view(run.host).session
    if run.powers_off and silent and not _not_arrived(run):
        return "done", f"not heard any more after {took_s - silent_s:.0f} s"
    if host.boot_id == run.boot_id:
        return None
    if _not_arrived(run):
        return "failed", f"not run: {host.name} has booted anew before it"
    if not run.reboots:
        return "unknown", f"{host.name} has booted anew meanwhile: what became of it is not known"
    return ("done", f"back with a new boot after {took_s:.0f} s") if host.phase is run.phase else None


def _out_of_time(draft: Draft, host: HostRecord, run: CommandRun) -> tuple[str, str]:
    took_s = draft.now - run.at
    if _not_arrived(run):
        return "failed", f"not run: {run.said}"
    if run.reboots:
        here = f"; it is {host.phase}" if host.phase is not run.phase else ""
        return (
            "unknown",
            f"{run.host} is not back, in {run.phase} and with a new boot, after {took_s:.0f} s{here}",
        )
    if run.powers_off and run.code is not None:
        return "failed", f"{run.host} is still heard after {took_s:.0f} s"
    heard = f": {run.said}" if run.said else ""
    return "unknown", f"nothing was heard of its end within {took_s:.0f} s{heard}"


def _over(draft: Draft, operation: Operation, run: CommandRun, state: str, said: str) -> CommandRun:
    draft.forget(run.id)
    said = f"unknown: {said}" if state == "unknown" else said
    draft.note(f"command.{state}", f"{run.on}: {said}", host=run.host, operation=operation.id)
    return changed(run, state=state, said=said)


# ---- what came of it


def ended(draft: Draft, event: CommandEnded) -> None:
    """One attempt is over. It counts also for a step that is over: then it is only told."""
    pending = draft.pending_of(event.effect)
    if pending is None:
        return
    draft.forget(event.effect)
    _heard(draft, event.effect, pending, event.report)


def answered(draft: Draft, effect: str, pending: Pending, answer: Answer) -> None:
    """What the agent of a guest's host says of it."""
    state: Literal["unreached", "lost"] = "unreached" if answer.outcome is Outcome.REFUSED else "lost"
    _heard(draft, effect, pending, answer.report or Report(state=state, reason=answer.reason))


def _heard(draft: Draft, effect: str, pending: Pending, report: Report) -> None:
    operation = draft.operation(pending.operation)
    if operation is None or operation.run is None:
        return
    found = (
        (at, step, run)
        for at, step in enumerate(operation.run.steps)
        for run in step.commands
        if run.id == effect and run.state in ("running", "unknown")
    )
    at, step, run = next(found, (0, None, None))
    if step is None or run is None:
        return
    told = _told(draft, operation, at, run, report)
    operation = draft.operation(operation.id) or operation
    assert operation.run is not None
    steps = (*operation.run.steps[:at], _put(step, told), *operation.run.steps[at + 1 :])
    draft.put_operation(changed(operation, run=changed(operation.run, steps=steps)))


def _told(draft: Draft, operation: Operation, at: int, run: CommandRun, report: Report) -> CommandRun:
    match report.state:
        case "lost":
            return run if run.state == "unknown" else changed(run, said=report.reason)
        case "unreached":
            run = changed(run, unreached=run.unreached + 1)
            return (
                _given_up(run, report.reason) if run.state == "unknown" else changed(run, said=report.reason)
            )
        case "other_boot":
            run = changed(run, unreached=run.unreached + 1, said=report.reason)
            if run.reboots and not _not_arrived(run):
                return run
            if _not_arrived(run):
                return _over(draft, operation, run, "failed", f"not run: {report.reason}")
            return _over(draft, operation, run, "unknown", report.reason)
        case "refused":
            return _over(draft, operation, run, "failed", f"not run: {report.reason}")
        case "unknown":
            return _over(draft, operation, run, "unknown", report.reason)
        case "ended":
            return _with_output(draft, operation, at, run, report)


def _with_output(draft: Draft, operation: Operation, at: int, run: CommandRun, report: Report) -> CommandRun:
    assert operation.run is not None
    verb = operation.run.steps[at].spec.verb
    draft.put_output(
        Output(
            operation=operation.id,
            command=run.id,
            step=at + 1,
            name=verb.run if isinstance(verb, RunCommand) else "",
            on=run.on,
            argv=run.argv,
            report=report,
            at=draft.now,
        )
    )
    lines = report.output.strip().splitlines()
    last = "".join(each for each in lines[-1][:200] if each.isprintable()) if lines else ""
    run = changed(run, code=report.code, last=last, bytes=report.bytes, digest=report.digest)
    said = f"exit code {report.code} after {draft.now - run.at:.1f} s" + (f": {last}" if last else "")
    if report.timed_out:
        return _over(
            draft, operation, run, "failed", f"ended, as it took longer than {run.limit_s:g} s: {said}"
        )
    # What goes down with its host is ended by a signal: whether it came so far is seen from the host.
    if (run.reboots or run.powers_off) and report.code is not None and report.code <= 0:
        said = f"{run.host} is to {'come back with a new boot' if run.reboots else 'go down'}"
        return run if run.state == "unknown" else changed(run, said=said)
    if report.code != 0:
        return _over(draft, operation, run, "failed", said)
    return _over(draft, operation, run, "done", said)
