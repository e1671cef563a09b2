"""What a step of a run does: what is not so yet that it wants, and what it asks for, as a person would.

All guards are behind these asks: a playbook goes round none of them. What is so already is not asked for, so a step may
be tried again. Not here: whose turn it is and what follows (`runner`), who answers an ask (`core.operator`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

from dr.core import checks
from dr.core.drills import isolated
from dr.core.playbooks import commands, conditions
from dr.core.state import Draft
from dr.model.events import (
    AskCordon,
    AskDrain,
    AskFence,
    AskMigrate,
    AskPause,
    AskRelocate,
    AskResume,
    AskStart,
    AskStop,
    AskUncordon,
    AskUndrain,
    OperatorAsk,
)
from dr.model.operations import Operation
from dr.model.playbooks import RunStep
from dr.model.records import GuestPhase, GuestRecord, HostPhase, HostRecord
from dr.model.verbs import (
    AnyVerb,
    Approve,
    Boot,
    Check,
    Cordon,
    Drain,
    Fence,
    MakeClones,
    Migrate,
    Notify,
    Pause,
    Relocate,
    Resume,
    RunCommand,
    Start,
    Stop,
    Uncordon,
    Undrain,
    Until,
    Wait,
)
from dr.model.words import fields_of

DOWN = (HostPhase.FENCED, HostPhase.FENCING)


def left(  # noqa: PLR0911, PLR0912  # one case for each verb
    draft: Draft, step: RunStep, run: str = "", done: frozenset[str] = frozenset()
) -> list[str]:
    """What it wants and is not so, a sentence each; [] when it has nothing (more) to do. `run`: its run's id.

    `done`: hosts and guests whose jobs say that it was so, whatever came after that.
    """
    verb = step.spec.verb
    match verb:
        case Cordon():
            return _not_so(draft, verb.cordon, lambda host: host.cordon is not None)
        case Uncordon():
            return _not_so(draft, verb.uncordon, lambda host: host.cordon is None)
        case Drain():
            return _not_so(draft, _but(verb.drain, done), lambda host: host.phase is HostPhase.MAINTENANCE)
        case Undrain():
            return _not_so(
                draft, verb.undrain, lambda host: host.drain is None and host.phase is HostPhase.ONLINE
            )
        case Fence():
            return _not_so(draft, _but(verb.fence, done), lambda host: host.phase is HostPhase.FENCED)
        case Migrate():
            return _not_moved(draft, step, _but(verb.migrate, done), verb.to)
        case Relocate():
            return _not_moved(draft, step, _but(verb.relocate, done), verb.to)
        case Start():
            return _not_in(draft, _but(verb.start, done), GuestPhase.RUNNING)
        case Stop():
            return _not_in(draft, _but(verb.stop, done), GuestPhase.STOPPED)
        case Pause():
            return [] if draft.cluster.pause is not None else ["automation is on"]
        case Resume():
            return [] if draft.cluster.pause is None else ["automation is paused"]
        case Wait():
            over = step.began and draft.now >= step.began + verb.wait
            return [] if over else [f"{verb.wait:g} s"]
        case Until():
            why = conditions.why_not(draft, verb.until, run)
            return [why] if why else []
        case MakeClones() | Boot():
            return isolated.left(draft, run, step)
        case Check() if isolated.of(draft, run):
            return isolated.left(draft, run, step)
        case Check():
            return [*_not_in(draft, verb.check, GuestPhase.RUNNING), *_unchecked(draft, step, verb.check)]
        case RunCommand():
            return commands.left(draft, step, verb)
        case Approve() | Notify():
            return (
                []
                if step.answered
                else ["nobody has answered yet" if isinstance(verb, Approve) else "not told yet"]
            )
        case _:
            assert_never(verb)


def asks(  # noqa: PLR0911  # one case for each verb
    draft: Draft, step: RunStep, number: str, by: str, reason: str
) -> list[OperatorAsk]:
    """What a person would ask for, of what is not so yet. `number`: what the asks are known by.

    Also of who is gone: whoever is asked says so.
    """
    verb: AnyVerb = step.spec.verb
    who: dict[str, Any] = {"id": number, "by": by, "reason": reason}
    todo = _todo(draft, step)
    match verb:
        case Cordon():
            return [AskCordon(host=name, **who) for name in todo]
        case Uncordon():
            return [AskUncordon(host=name, **who) for name in todo]
        case Drain():
            return [
                AskDrain(
                    host=todo[0],
                    also=todo[1:],
                    deadline_s=verb.deadline,
                    leave_unprotected=verb.leave_unprotected,
                    **who,
                )
            ]
        case Undrain():
            return [AskUndrain(host=name, **who) for name in todo]
        case Fence():
            return [AskFence(host=name, **who) for name in todo]
        case Migrate():
            return [AskMigrate(guests=todo, to=verb.to, **who)]
        case Relocate():
            return [AskRelocate(guests=todo, to=verb.to, mode=verb.mode, **who)]
        case Start():
            return [AskStart(guests=todo, **who)] if todo else []
        case Stop():
            now = _stopped_next(draft, verb, todo)
            return [AskStop(guests=now, mode=verb.mode, **who)] if now else []
        case Pause():
            return [AskPause(**who | {"reason": f"{verb.pause}; {reason}"})]
        case Resume():
            return [AskResume(**who | {"reason": f"{verb.resume}; {reason}"})]
        case Wait() | Until() | Check() | MakeClones() | Boot() | RunCommand() | Approve() | Notify():
            return []
        case _:
            assert_never(verb)


def _todo(draft: Draft, step: RunStep) -> tuple[str, ...]:
    """Hosts or guests that are to be asked for."""
    verb = step.spec.verb
    names = about(verb)
    if isinstance(verb, Drain):  # one that is being drained already says so, and which job that is
        so = [h.name for h in _hosts(draft, names) if h.phase is HostPhase.MAINTENANCE]
    elif isinstance(verb, Migrate | Relocate):
        so = [g.name for g in _guests(draft, names) if not _still_here(g, step, verb.to)]
    else:
        so = [*so_before(draft, verb)]
    return _but(names, frozenset(so))


def _stopped_next(draft: Draft, verb: Stop, todo: tuple[str, ...]) -> tuple[str, ...]:
    """Those for whom none of the others is up any more that starts after them."""
    up = [guest for guest in _guests(draft, verb.stop) if guest.phase is not GuestPhase.STOPPED]
    needed = {after.guest for guest in up for after in guest.policy.boot_after}
    now = tuple(name for name in todo if name not in needed)
    return now if now or any(_ends(guest) for guest in up) else todo


def about(verb: AnyVerb) -> tuple[str, ...]:
    """The hosts or guests that it names; () of a verb that names none."""
    named = getattr(verb, fields_of(type(verb))[0].name)
    return named if isinstance(named, tuple) else ()


def so_before(draft: Draft, verb: AnyVerb) -> tuple[str, ...]:  # one case for each verb
    """Hosts or guests that are as it wants them, or on their way there, by nobody's doing of its own."""
    names = about(verb)
    match verb:
        case Cordon():
            return tuple(h.name for h in _hosts(draft, names) if h.cordon is not None)
        case Uncordon():
            return tuple(h.name for h in _hosts(draft, names) if h.cordon is None)
        case Drain():
            return tuple(h.name for h in _hosts(draft, names) if h.drain is not None)
        case Undrain():
            return tuple(h.name for h in _hosts(draft, names) if h.drain is None)
        case Fence():
            return tuple(h.name for h in _hosts(draft, names) if h.phase in DOWN)
        case Start():
            return tuple(g.name for g in _guests(draft, names) if g.phase in (GuestPhase.RUNNING, *COMING))
        case Stop():
            return tuple(g.name for g in _guests(draft, names) if g.phase is GuestPhase.STOPPED or _ends(g))
        case Migrate() | Relocate():
            return tuple(g.name for g in _guests(draft, names) if verb.to and g.holder == verb.to)
        case _:
            return ()


COMING = (GuestPhase.STARTING, GuestPhase.MIGRATING)


def _ends(guest: GuestRecord) -> bool:
    """It is being stopped, and not in order to start elsewhere."""
    return guest.phase is GuestPhase.STOPPING and guest.move is None


def where(draft: Draft, verb: AnyVerb) -> dict[str, str]:
    """Of a move to wherever they fit: where its guests are."""
    if not isinstance(verb, Migrate | Relocate) or verb.to:
        return {}
    return {guest.name: guest.holder for guest in _guests(draft, about(verb))}


def of_job(draft: Draft, job: Operation) -> set[str]:
    """The hosts or guests that a job was about."""
    if job.kind in ("drain", "fence"):
        return {job.subject}
    return {guest.name for key in job.guests if (guest := draft.guest(key)) is not None}


def _but(names: tuple[str, ...], done: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in done)


def _hosts(draft: Draft, names: tuple[str, ...]) -> list[HostRecord]:
    return [host for name in names if (host := draft.host(name)) is not None]


def _guests(draft: Draft, names: tuple[str, ...]) -> list[GuestRecord]:
    return [guest for name in names if (guest := draft.guest_named(name)) is not None]


def _not_so(draft: Draft, names: tuple[str, ...], wanted: Callable[[HostRecord], bool]) -> list[str]:
    """Hosts that are not as they are wanted, how they stand."""
    told = []
    for name in names:
        host = draft.host(name)
        if host is None:
            told.append(f"{name} is not a host any more")
        elif not wanted(host):
            cordoned = " and cordoned" if host.cordon is not None else ""
            told.append(f"{name} is {host.phase}{cordoned}" + (f": {host.reason}" if host.reason else ""))
    return told


def _not_in(draft: Draft, names: tuple[str, ...], phase: GuestPhase) -> list[str]:
    missing = [f"{name} is not protected" for name in names if draft.guest_named(name) is None]
    others = [guest for guest in _guests(draft, names) if guest.phase is not phase]
    return missing + [
        f"{guest.name} is {guest.phase}" + (f": {guest.reason}" if guest.reason else "") for guest in others
    ]


def _not_moved(draft: Draft, step: RunStep, names: tuple[str, ...], to: str) -> list[str]:
    here = [guest for guest in _guests(draft, names) if _still_here(guest, step, to)]
    missing = [f"{name} is not protected" for name in names if draft.guest_named(name) is None]
    return missing + [f"{guest.name} is on {guest.holder}" for guest in here]


def _still_here(guest: GuestRecord, step: RunStep, to: str) -> bool:
    """Not there yet; without a place to go to: where it was as the step began."""
    return guest.holder != to if to else guest.holder == step.was.get(guest.name, guest.holder)


def _unchecked(draft: Draft, step: RunStep, names: tuple[str, ...]) -> list[str]:
    """Whose checks have not passed since the step began."""
    guests = [guest for guest in _guests(draft, names) if guest.policy.checks]
    late = [guest for guest in guests if not checks.passed(guest) or guest.checked_at < step.began]
    return [
        f"the checks of {guest.name} have not passed: {checks.what_fails(draft, guest)}" for guest in late
    ]
