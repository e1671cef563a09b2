"""Runs of `kind: drill`: what they ask of agents, whose clones they have, when they give way, and how they end.

No guest is touched by any of it: agents copy what runs, and start the copies where nothing else is. Whatever was asked
of a host is durable before it is asked, and is ended there before the run is over.
Not here: whose turn a step is (`runner`), what an agent does (`ports.clones`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_interface

from dr.core.drills import isolated_report
from dr.core.drills.report import named
from dr.core.fleet import MEMORY, fleet_of
from dr.core.state import Draft
from dr.core.volatile import Pending
from dr.model.base import GuestId, HostName, changed
from dr.model.checks import CheckResult, Reached
from dr.model.clones import Clone, CloneState, Ended
from dr.model.commands import Answer, Body, BootClone, CheckClone, EndDrill, MakeClone, Outcome
from dr.model.effects import PlannedStep, Send
from dr.model.operations import Operation
from dr.model.playbooks import Bubble, Run, RunStep, StepState
from dr.model.records import GuestPhase, GuestRecord, HostPhase
from dr.model.verbs import Boot, Check, MakeClones

KIND = "drill"
LIMIT_S = 3600.0  # of a drill that says nothing of it
# An agent removes a drill by itself so long after the run may have ended: its coordinator is gone.
BEYOND_S = 600.0
AGAIN_S = 60.0  # what an agent has not answered is asked again: it goes on with what it has begun
ROUND_S = 5.0  # one round of a check
FAILED_AGAIN_S = 1.0  # after a check that failed, or an answer that says nothing
END_AGAIN_S = 5.0
CLONES_MAX = 256  # of one drill: its record is written with each of their answers
ON_HOST_MAX = 64
PICTURES_MAX = 1024 * 1024  # bytes, in the record of one run, which is written with each of its steps
SAYS = {"clone": "is cloned", "boot": "is started as a clone", "check": "is checked, its clone"}


def is_drill(run: Run | None) -> bool:
    return run is not None and run.kind == KIND


def of(draft: Draft, key: str) -> bool:
    """Whether the run of that id is a drill."""
    operation = draft.operation(key) if key else None
    return operation is not None and is_drill(operation.run)


# ---- before it begins


def why_not(draft: Draft, steps: Sequence[RunStep], bubble: Bubble) -> list[str]:
    """What keeps a drill from beginning now."""
    found = [*_too_early(steps), *_unreachable(draft, steps, bubble)]
    other = next((op for op in draft.open_operations() if is_drill(op.run)), None)
    if other is not None:
        found.append(f"another drill is under way: {other.id} ({other.subject})")
    if why := trouble(draft):
        found.append(f"{why}: no drill begins before that is over")
    wanted: dict[HostName, list[GuestRecord]] = {}
    for name in dict.fromkeys(name for step in steps for name in _cloned_by(step)):
        guest = draft.guest_named(name)
        if guest is None:
            found.append(f"{name} is not protected")
        elif why := _not_to_clone(draft, guest):
            found.append(why)
        else:
            wanted.setdefault(guest.holder, []).append(guest)
    if not any(_cloned_by(step) for step in steps):
        found.append("there is nobody to clone")
    fleet = fleet_of(draft)
    if (count := sum(map(len, wanted.values()))) > CLONES_MAX:
        found.append(f"{count} clones, and a drill has {CLONES_MAX} at most")
    for host, guests in sorted(wanted.items()):
        if len(guests) > ON_HOST_MAX:
            found.append(f"{len(guests)} clones on {host}, and {ON_HOST_MAX} at most are made there")
        needs = sum(guest.needs.memory_mib for guest in guests)
        at = fleet.index[host]
        free = int(fleet.capacity[MEMORY][at] - fleet.used[MEMORY][at])
        if needs > free:
            found.append(
                f"{host} has {max(free, 0)} MiB of memory free above its reserve, and clones of "
                f"{', '.join(guest.name for guest in guests)} need {needs} MiB"
            )
        if bubble.memory and needs > bubble.memory:
            found.append(
                f"clones on {host} need {needs} MiB of memory, and the bubble may have {bubble.memory}"
            )
    return found


def planned(steps: Iterable[RunStep]) -> tuple[PlannedStep, ...]:
    """What each step would do: whatever it is about is made by the drill itself."""
    return tuple(
        PlannedStep(
            part=step.part,
            text=step.spec.text(),
            todo=tuple(f"{name} {SAYS[step.spec.verb.word()]}" for name in _names(step)),
            timeout_s=step.spec.timeout or type(step.spec.verb).TIMEOUT_S,
        )
        for step in steps
    )


def _too_early(steps: Iterable[RunStep]) -> list[str]:
    """What no step before it makes so: a clone is made, then started, then checked."""
    cloned: set[str] = set()
    booted: set[str] = set()
    found = []
    for step in steps:
        match step.spec.verb:
            case MakeClones() as verb:
                cloned.update(verb.clone)
            case Boot() as verb:
                found += [
                    f"boot {name}: no step before clones it" for name in verb.boot if name not in cloned
                ]
                booted.update(verb.boot)
            case Check() as verb:
                found += [
                    f"check {name}: no step before boots it" for name in verb.check if name not in booted
                ]
            case _:
                pass
    return found


def _unreachable(draft: Draft, steps: Iterable[RunStep], bubble: Bubble) -> list[str]:
    """Whose checks are made over a network in which nothing of ours is."""
    checked = [name for step in steps if isinstance(step.spec.verb, Check) for name in step.spec.verb.check]
    guests = [guest for name in dict.fromkeys(checked) if (guest := draft.guest_named(name)) is not None]
    made = {g.name: [each for each in g.policy.checks if isinstance(each, Reached)] for g in guests}
    if bubble.address:
        own = str(ip_interface(bubble.address).ip)
        same = [name for name, checks in made.items() if any(each.address == own for each in checks)]
        why = (
            f"{own} is looked for by its own checks, so the drill cannot have it: another one in its network"
        )
        return [f"{named(same)}: {why}"] if same else []
    names = [name for name, checks in made.items() if checks]
    if not names:
        return []
    few = named(names)
    return [f"{few}: checked over the network, so the drill needs `bubble: {{address: …}}`, an address in it"]


def _cloned_by(step: RunStep) -> tuple[str, ...]:
    return step.spec.verb.clone if isinstance(step.spec.verb, MakeClones) else ()


def _not_to_clone(draft: Draft, guest: GuestRecord) -> str:
    """Why no clone of it can be made now; "" if one can."""
    if guest.phase is not GuestPhase.RUNNING:
        reason = f": {guest.reason}" if guest.reason else ""
        return f"{guest.name} is {guest.phase}{reason}: only a guest that runs can be cloned"
    host, view = draft.host(guest.holder), draft.view(guest.holder)
    if host is not None and host.leaving:
        return f"{guest.name} is on {guest.holder}, which announced its {host.leaving}"
    if host is None or host.phase is not HostPhase.ONLINE:
        return f"{guest.name} is on {guest.holder}, which is {host.phase if host else 'not known'}"
    if not view.session or view.acked_epoch != draft.cluster.epoch:
        return f"{guest.name} is on {guest.holder}, whose agent is not connected"
    return ""


def trouble(draft: Draft) -> str:
    """What a drill gives way to."""
    failover = next((op for op in draft.open_operations() if op.kind == "failover"), None)
    if failover is not None:
        return f"{failover.id} is under way ({failover.subject})"
    fenced = next((host for host in draft.hosts() if host.phase is HostPhase.FENCING), None)
    return f"{fenced.name} is being fenced" if fenced is not None else ""


# ---- while it runs


def gives_way(draft: Draft, operation: Operation) -> str:
    """Why it must end now, though nobody cancelled it; "" if it may go on."""
    assert operation.run is not None
    if not is_drill(operation.run):
        return ""
    if why := trouble(draft):
        return f"gave way: {why}"
    for name in operation.run.ends:
        host = draft.host(name)
        if host is not None and host.leaving:
            return f"gave way: {name}, where it has clones, announced its {host.leaving}"
        if host is None or host.phase is not HostPhase.ONLINE:
            return f"gave way: {name}, where it has clones, is {host.phase if host else 'gone'}"
    return ""


def left(draft: Draft, key: str, step: RunStep) -> list[str]:
    """What its step wants of clones and is not so yet, a sentence each."""
    operation = draft.operation(key)
    clones = _by_name(operation.run) if operation is not None and operation.run is not None else {}
    match step.spec.verb:
        case MakeClones() as verb:
            late = [name for name in verb.clone if (one := clones.get(name)) is None or one.made is None]
            said = "is not cloned yet"
        case Boot() as verb:
            late = [name for name in verb.boot if (one := clones.get(name)) is None or not one.runs_at]
            said = "its clone does not run yet"
        case Check() as verb:
            late = [name for name in verb.check if not _answers(clones.get(name), step)]
            said = "its clone has not passed its checks yet"
        case _:
            return []
    texts = {name: _text(clones.get(name)) or said for name in late}
    return [text if name in text else f"{name}: {text}" for name, text in texts.items()]


def _text(clone: Clone | None) -> str:
    return clone.text if clone is not None else ""


def _answers(clone: Clone | None, step: RunStep) -> bool:
    """Whether all its checks have passed since that step began, while it ran."""
    return clone is not None and clone.state is CloneState.RUNNING and clone.passed_at >= step.began > 0


def failures(run: Run, step: RunStep) -> list[str]:
    """What has failed of what that step wants: it is not waited for any longer."""
    clones = _by_name(run)
    names = _names(step)
    return [
        one.text if name in one.text else f"{name}: {one.text}"
        for name in names
        if (one := clones.get(name)) is not None and one.state is CloneState.FAILED
    ]


def forget_failures(draft: Draft, key: str, step: RunStep) -> None:
    """As a step is tried again: what failed of it is begun anew."""
    operation, run = _of(draft, key)
    names = set(_names(step))
    clones: list[Clone] = []
    for one in run.clones:
        failed = one.state is CloneState.FAILED and one.name in names
        match step.spec.verb:
            case MakeClones() if failed and one.made is None:
                continue  # it is made anew
            case Boot() if failed and one.made is not None:
                clones.append(changed(one, state=CloneState.MADE, again_at=0.0, text=""))
            case Check() if failed and one.runs_at:
                clones.append(changed(one, state=CloneState.RUNNING, again_at=0.0, text=""))
            case _:
                clones.append(one)
    if tuple(clones) != run.clones:
        draft.put_operation(changed(operation, run=changed(run, clones=tuple(clones))))


def _names(step: RunStep) -> tuple[str, ...]:
    match step.spec.verb:
        case MakeClones() as verb:
            return verb.clone
        case Boot() as verb:
            return verb.boot
        case Check() as verb:
            return verb.check
        case _:
            return ()


def _by_name(run: Run) -> dict[str, Clone]:
    return {one.name: one for one in run.clones}


def carry_on(draft: Draft, key: str) -> None:
    """Ask agents for what the step whose turn it is still wants; or, once its steps are over, to end it."""
    _, run = _of(draft, key)
    if run.part == "steps" and not run.cancelled:
        step = next((each for each in run.steps if each.state is StepState.RUNNING), None)
        clones = _by_name(run)
        for name in _names(step) if step is not None else ():
            assert step is not None
            _ask(draft, key, step, name, clones.get(name))
        return
    for name, ended in run.ends.items():
        if ended.end is None and draft.now >= ended.again_at:
            _send(draft, key, name, "", EndDrill(drill=key))


def _ask(draft: Draft, key: str, step: RunStep, name: str, clone: Clone | None) -> None:
    """What comes next for the clone of that guest, if anything does."""
    operation, run = _of(draft, key)
    guest = draft.guest_named(name)
    verb = step.spec.verb
    if isinstance(verb, MakeClones) and clone is None and guest is not None:
        if why := _not_to_clone(draft, guest):
            clone = Clone(guest=guest.id, name=name, host=guest.holder, asked=draft.now)
            _put(draft, key, changed(clone, state=CloneState.FAILED, text=why))
            return
        clone = Clone(
            guest=guest.id,
            name=name,
            host=guest.holder,
            asked=draft.now,
            generation=guest.generation,
            checks=isolated_report.checks_of(guest),  # from here on these, whatever becomes of its policy
        )
        _put(draft, key, clone)
        _put_end(draft, key, clone.host, Ended())
        draft.note("drill.clone", f"{name}: its clone is made on {clone.host}", operation=key, guest=guest.id)
    if clone is None or clone.state is CloneState.FAILED or draft.now < clone.again_at:
        return
    ends_s = operation.opened + run.limit_s + BEYOND_S
    body: Body | None = None
    if isinstance(verb, MakeClones) and clone.state is CloneState.MAKING:
        body = MakeClone(
            drill=key,
            guest=clone.guest,
            name=name,
            disk_mib=run.bubble.disk,
            life_s=max(ends_s - draft.now, 1.0),
        )
    elif isinstance(verb, Boot) and clone.state in (CloneState.MADE, CloneState.BOOTING):
        if clone.state is CloneState.MADE:
            _put(draft, key, changed(clone, state=CloneState.BOOTING, boot_at=draft.now))
        body = BootClone(drill=key, guest=clone.guest, name=name, address=run.bubble.address)
    elif isinstance(verb, Check) and clone.state is CloneState.RUNNING and not _answers(clone, step):
        checks = clone.checks
        if clone.passed_at < step.began and clone.checked >= len(checks):
            clone = changed(clone, checked=0, passed_at=0.0)  # an earlier step's word is none for this one
            _put(draft, key, clone)
        check = checks[clone.checked]
        body = CheckClone(drill=key, guest=clone.guest, name=name, check=check, window_s=ROUND_S)
    if body is not None:
        _send(draft, key, clone.host, clone.guest, body)


def _send(draft: Draft, key: str, host: HostName, guest: GuestId, body: Body) -> None:
    """Once at a time. To an agent that is not connected: later."""
    view = draft.view(host)
    if not view.session or view.acked_epoch != draft.cluster.epoch:
        return
    kind = "drill" if guest else "drill-end"
    if draft.find_pending(kind, host=host, guest=guest) is not None:
        return
    effect = draft.next_id("drill-ask")
    pending = Pending(
        kind=kind,
        host=host,
        guest=guest,
        at=draft.now,
        deadline=draft.now + AGAIN_S,
        operation=key,
        detail=type(body).__name__,
    )
    draft.wait_for(effect, pending)
    draft.effect(Send(id=effect, host=host, session=view.session, body=body))


# ---- what agents answer


def answered(draft: Draft, pending: Pending, answer: Answer) -> None:
    """One command of a drill has ended."""
    operation = draft.operation(pending.operation)
    if operation is None or operation.run is None:
        return
    if pending.kind == "drill-end":
        _was_ended(draft, operation, pending.host, answer)
        return
    clone = next((one for one in operation.run.clones if one.guest == pending.guest), None)
    if clone is None or operation.run.part != "steps":
        return
    clone = _with_results(operation.run, clone, answer.checks)
    if pending.detail == MakeClone.__name__ and answer.outcome is Outcome.DONE and answer.clone is None:
        answer = changed(
            answer, outcome=Outcome.FAILED, reason="its agent says that it is whole, and no more"
        )
    # A check that failed may pass later. Of what is not known the agent is asked again: it goes on with what it began.
    missed = (
        answer.outcome is Outcome.FAILED and pending.detail == CheckClone.__name__ and bool(answer.checks)
    )
    if missed or answer.outcome in (Outcome.UNKNOWN, Outcome.REFUSED):
        again_at = draft.now + FAILED_AGAIN_S
        _put(draft, operation.id, changed(clone, text=answer.reason, again_at=again_at))
        return
    if answer.outcome is not Outcome.DONE:
        draft.note(
            "drill.trouble", f"{clone.name}: {answer.reason}", operation=operation.id, guest=clone.guest
        )
        _put(draft, operation.id, changed(clone, state=CloneState.FAILED, text=answer.reason))
        return
    match pending.detail:
        case MakeClone.__name__:
            made = answer.clone
            assert made is not None
            draft.note(
                "drill.cloned",
                f"{clone.name}: cloned on {clone.host}, {made.size_b / 2**20:.0f} MiB in {made.took_s:.1f} s"
                + (f"; without its {', '.join(made.left_out)}" if made.left_out else ""),
                operation=operation.id,
                guest=clone.guest,
            )
            clone = changed(clone, state=CloneState.MADE, made=made, text="")
        case BootClone.__name__:
            took_s = draft.now - clone.boot_at
            draft.note(
                "drill.booted",
                f"{clone.name}: its clone runs, {took_s:.1f} s after it was asked for",
                operation=operation.id,
            )
            clone = changed(clone, state=CloneState.RUNNING, runs_at=draft.now, text="")
        case CheckClone.__name__:
            clone = changed(clone, checked=clone.checked + 1, text="")
            if clone.checked >= len(clone.checks):
                took_s = draft.now - clone.boot_at
                draft.note(
                    "drill.answers",
                    f"{clone.name}: its clone has passed its checks, {took_s:.1f} s after its start was asked for",
                    operation=operation.id,
                )
                clone = changed(clone, passed_at=draft.now, worked_at=clone.worked_at or draft.now)
        case other:
            raise AssertionError(f"nobody asks an agent for {other}")
    _put(draft, operation.id, clone)


def _with_results(run: Run, clone: Clone, new: tuple[CheckResult, ...]) -> Clone:
    """What checks found last. Pictures are kept as far as there is room for them in the run's record."""
    others = sum(len(each.picture) for one in run.clones if one.guest != clone.guest for each in one.results)
    found = {each.check: each for each in clone.results}
    for each in new:
        own = sum(len(other.picture) for check, other in found.items() if check != each.check)
        fits = others + own + len(each.picture) <= PICTURES_MAX
        found[each.check] = each if fits else changed(each, picture=b"")
    return changed(clone, results=tuple(found.values()))


# ---- its end


def _was_ended(draft: Draft, operation: Operation, host: HostName, answer: Answer) -> None:
    assert operation.run is not None
    done = answer.outcome is Outcome.DONE and answer.drill is not None
    if done:
        draft.note("drill.ended", f"{host}: nothing of the drill is left", operation=operation.id, host=host)
    if done:
        ended = Ended(end=answer.drill)
    else:
        ended = Ended(again_at=draft.now + END_AGAIN_S, text=answer.reason)
    _put_end(draft, operation.id, host, ended)


def not_ended(draft: Draft, operation: Operation) -> list[str]:
    """Hosts on which it is not over yet, a sentence each; [] when there is nothing to wait for any more."""
    assert operation.run is not None
    late = []
    for name, ended in operation.run.ends.items():
        if ended.end is None and not _gave_up(draft, operation, name):
            why = f": {ended.text}" if ended.text else ""
            late.append(f"{name} has not said that nothing of it is left{why}")
    return late


def _gave_up(draft: Draft, operation: Operation, name: HostName) -> bool:
    """It ends there by itself: the host is dead or gone, or its agent was not heard for all of the drill's life."""
    assert operation.run is not None
    host = draft.host(name)
    if host is None or host.phase is HostPhase.FENCED:
        return True
    return draft.now >= operation.opened + operation.run.limit_s + BEYOND_S


def verdict(draft: Draft, operation: Operation) -> tuple[str, str]:
    """Of a drill whose steps went well: its operation's state, and why that is not `done`."""
    run = operation.run
    assert run is not None
    if not is_drill(run):
        return "done", ""
    bad, unseen = left_behind(draft, run)
    took_s = isolated_report.took_s(operation, run)
    if run.rto_s and took_s is not None and took_s > run.rto_s:
        bad.append(
            f"from the first start to the last check it took {took_s:g} s, and {run.rto_s:g} s is the objective"
        )
    # What was not looked at is not known, however well the rest went.
    if late := [clone.name for clone in run.clones if not clone.passed_at]:
        unseen.append(f"{named(late)}: never checked as a clone")
    if not run.clones:
        unseen.append("nobody was cloned")
    if bad:
        return "failed", "; ".join(bad)
    return ("unknown", "; ".join(unseen)) if unseen else ("done", "")


def left_behind(draft: Draft, run: Run) -> tuple[list[str], list[str]]:
    """What it did to guests, or let onto its network; and hosts of which nobody knows that nothing is left."""
    bad: list[str] = []
    unseen: list[str] = []
    for name, ended in run.ends.items():
        end = ended.end
        if end is None:
            unseen.append(f"{name} never said that nothing of it is left: its agent removes it as it starts")
            continue
        for kept in end.kept:
            if kept.ok or isolated_report.moved_since(draft, run, kept.guest):
                continue  # moved by somebody, as it ran: not by the drill
            if isolated_report.same_since(draft, run, kept.guest):
                bad.append(f"{kept.name} is not as it was: {kept.why}")
            else:
                unseen.append(f"{kept.name} was started anew meanwhile: {kept.why}")
        if end.why:
            unseen.append(f"{name}: {end.why}")
        told = {kept.guest for kept in end.kept}
        here = [clone for clone in run.clones if clone.host == name]
        if lost := [clone.name for clone in here if clone.made is not None and clone.guest not in told]:
            unseen.append(f"{name} does not know any more whether {named(lost)} is as it was before")
        if end.bubble is None and any(clone.runs_at for clone in here):
            unseen.append(f"{name} does not know any more what hung on the clones' network")
        if end.bubble is not None and end.bubble.strangers:
            bad.append(f"on its network on {name} was also {', '.join(end.bubble.strangers)}")
    return bad, unseen


# ---- keeping it


def _of(draft: Draft, key: str) -> tuple[Operation, Run]:
    operation = draft.operation(key)
    assert operation is not None
    assert operation.run is not None
    return operation, operation.run


def _put(draft: Draft, key: str, clone: Clone) -> None:
    operation, run = _of(draft, key)
    others = tuple(one for one in run.clones if one.guest != clone.guest)
    at = next((at for at, one in enumerate(run.clones) if one.guest == clone.guest), len(others))
    clones = (*others[:at], clone, *others[at:])
    draft.put_operation(changed(operation, run=changed(run, clones=clones)))


def _put_end(draft: Draft, key: str, host: HostName, ended: Ended) -> None:
    operation, run = _of(draft, key)
    draft.put_operation(changed(operation, run=changed(run, ends=run.ends | {host: ended})))
