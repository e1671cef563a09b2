"""What a step of a run does: what is not so yet that it wants, and what it asks for, as a person would.

All guards are behind these asks: a playbook goes round none of them. What is so already is not asked for, so a step may
be tried again. Not here: whose turn it is and what follows (`runner`), who answers an ask (`core.operator`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

from dr.core import checks
from dr.core.playbooks import conditions
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
from dr.model.playbooks import (
    AnyVerb,
    Approve,
    Check,
    Cordon,
    Drain,
    Fence,
    Migrate,
    Notify,
    Pause,
    Relocate,
    Resume,
    RunStep,
    Start,
    Stop,
    Uncordon,
    Undrain,
    Until,
    Wait,
)
from dr.model.records import GuestPhase, GuestRecord, HostPhase, HostRecord

DOWN = (HostPhase.FENCED, HostPhase.FENCING)


def left(draft: Draft, step: RunStep, run: str = "") -> list[str]:  # noqa: PLR0911, PLR0912  # one case for each verb
    """What it wants and is not so, a sentence each; [] when it has nothing (more) to do. `run`: its run's id."""
    verb = step.spec.verb
    match verb:
        case Cordon():
            return _not_so(draft, verb.cordon, lambda host: host.cordon is not None)
        case Uncordon():
            return _not_so(draft, verb.uncordon, lambda host: host.cordon is None)
        case Drain():
            return _not_so(draft, verb.drain, lambda host: host.phase is HostPhase.MAINTENANCE)
        case Undrain():
            return _not_so(
                draft, verb.undrain, lambda host: host.drain is None and host.phase is HostPhase.ONLINE
            )
        case Fence():
            return _not_so(draft, verb.fence, lambda host: host.phase is HostPhase.FENCED)
        case Migrate():
            return _not_moved(draft, step, verb.migrate, verb.to)
        case Relocate():
            return _not_moved(draft, step, verb.relocate, verb.to)
        case Start():
            return _not_in(draft, verb.start, GuestPhase.RUNNING)
        case Stop():
            return _not_in(draft, verb.stop, GuestPhase.STOPPED)
        case Pause():
            return [] if draft.cluster.pause is not None else ["automation is on"]
        case Resume():
            return [] if draft.cluster.pause is None else ["automation is paused"]
        case Wait():
            over_at = step.began + verb.wait
            return [f"{over_at - draft.now:.0f} s"] if not step.began or draft.now < over_at else []
        case Until():
            why = conditions.why_not(draft, verb.until, run)
            return [why] if why else []
        case Check():
            return [*_not_in(draft, verb.check, GuestPhase.RUNNING), *_unchecked(draft, step, verb.check)]
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
    """What a person would ask for, of what is not so yet. `number`: what the asks are known by."""
    verb: AnyVerb = step.spec.verb
    who: dict[str, Any] = {"id": number, "by": by, "reason": reason}
    match verb:
        case Cordon():
            todo = [h.name for h in _hosts(draft, verb.cordon) if h.cordon is None]
            return [AskCordon(host=name, **who) for name in todo]
        case Uncordon():
            todo = [h.name for h in _hosts(draft, verb.uncordon) if h.cordon is not None]
            return [AskUncordon(host=name, **who) for name in todo]
        case Drain():
            todo = [h.name for h in _hosts(draft, verb.drain) if h.phase is not HostPhase.MAINTENANCE]
            return [
                AskDrain(
                    host=todo[0],
                    also=tuple(todo[1:]),
                    deadline_s=verb.deadline,
                    leave_unprotected=verb.leave_unprotected,
                    **who,
                )
            ]
        case Undrain():
            todo = [h.name for h in _hosts(draft, verb.undrain) if h.drain is not None]
            return [AskUndrain(host=name, **who) for name in todo]
        case Fence():
            todo = [h.name for h in _hosts(draft, verb.fence) if h.phase not in DOWN]
            return [AskFence(host=name, **who) for name in todo]
        case Migrate():
            return [AskMigrate(guests=_elsewhere(draft, verb.migrate, verb.to), to=verb.to, **who)]
        case Relocate():
            names = _elsewhere(draft, verb.relocate, verb.to)
            return [AskRelocate(guests=names, to=verb.to, mode=verb.mode, **who)]
        case Start():
            off = [g.name for g in _guests(draft, verb.start) if g.phase not in (GuestPhase.RUNNING, *COMING)]
            return [AskStart(guests=tuple(off), **who)] if off else []
        case Stop():
            on = [g.name for g in _guests(draft, verb.stop) if g.phase is not GuestPhase.STOPPED]
            return [AskStop(guests=tuple(on), mode=verb.mode, **who)]
        case Pause():
            return [AskPause(**who | {"reason": verb.pause})]
        case Resume():
            return [AskResume(**who | {"reason": verb.resume})]
        case Wait() | Until() | Check() | Approve() | Notify():
            return []
        case _:
            assert_never(verb)


COMING = (GuestPhase.STARTING, GuestPhase.MIGRATING)


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
    """Before it began: who is to move. Afterwards its jobs say what became of them."""
    if step.jobs:
        return []
    here = [guest for guest in _guests(draft, names) if not to or guest.holder != to]
    missing = [f"{name} is not protected" for name in names if draft.guest_named(name) is None]
    return missing + [f"{guest.name} is on {guest.holder}" for guest in here]


def _elsewhere(draft: Draft, names: tuple[str, ...], to: str) -> tuple[str, ...]:
    return tuple(guest.name for guest in _guests(draft, names) if not to or guest.holder != to)


def _unchecked(draft: Draft, step: RunStep, names: tuple[str, ...]) -> list[str]:
    """Whose check has not passed since the step began."""
    guests = [guest for guest in _guests(draft, names) if guest.policy.check is not None]
    late = [guest for guest in guests if not checks.passed(guest) or guest.checked_at < step.began]
    return [f"the check of {guest.name} has not passed" for guest in late]
