"""Guests that wait for others (`boot_after`): for whom, how long, and what can never come true.

Here: who is waited for, for which names and circles an ask is refused, alerts for names that are gone. Not here: the
order of starts (`starts`), how a check is made (`checks`). Waiting is bounded: a dependency that does not come up
delays those behind it by `boot_after_s`, and stops nobody for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dr.core.checks import passed
from dr.core.state import Draft
from dr.model.base import changed
from dr.model.policy import After, GuestPolicy
from dr.model.records import Desired, GuestPhase, GuestRecord

# ---- what can be asked for


def default_policy(policy: GuestPolicy, name: str) -> GuestPolicy:
    """The policy of a guest that is protected from now on. Those that others wait for by default wait for nobody."""
    if any(after.guest == name for after in policy.boot_after):
        return changed(policy, boot_after=())
    return policy


def why_not(draft: Draft, changing: Mapping[str, GuestPolicy]) -> list[str]:
    """Why these guests (by name) cannot have these policies: nobody of that name, no check there, a circle."""
    known = {guest.name: guest.policy for guest in draft.guests()} | dict(changing)
    why: list[str] = []
    for name, policy in known.items():
        for after in policy.boot_after:
            other = known.get(after.guest)
            touched = name in changing or after.guest in changing
            if name in changing and other is None:
                why.append(f"{name} cannot wait for {after.guest}: no protected guest has that name")
            elif touched and other is not None and after.until == "check" and not other.checks:
                why.append(
                    f"{name} waits for the checks of {after.guest}, which has none: "
                    f"dr guest set {after.guest} --check …"
                )
    waits = {name: policy.boot_after for name, policy in known.items() if policy.boot_after}
    circle = _circle({name: [each.guest for each in after] for name, after in waits.items()})
    if circle and not changing.keys().isdisjoint(circle):
        why.append(f"they would wait for each other: {' after '.join(circle)}")
    return why


def _circle(waits: Mapping[str, Iterable[str]]) -> list[str]:
    """Names that wait for each other, the first again at the end; [] = nobody does."""
    done: set[str] = set()
    for start in sorted(waits):
        path: list[str] = []
        ways = [iter((start,))]
        while ways:
            name = next(ways[-1], None)
            if name is None:
                ways.pop()
                if path:
                    done.add(path.pop())
            elif name in path:
                return [*path[path.index(name) :], name]
            elif name in waits and name not in done:
                path.append(name)
                ways.append(iter(waits[name]))
    return []


def mind_names(draft: Draft) -> None:
    """Names changed or went: whoever waits for a guest that is not protected is told of, once."""
    for guest in list(draft.guests()):
        gone = [each.guest for each in guest.policy.boot_after if draft.guest_named(each.guest) is None]
        key = f"guest/{guest.id}/boot-after"
        if not gone:
            draft.clear_alert(key)
            continue
        draft.alert(
            key,
            f"{guest.name} is to start after a guest that is not protected: {', '.join(gone)}",
            "it is not waited for",
            f"dr guest protect {gone[0]}, or change whom it waits for: dr guest set {guest.name} --boot-after …",
        )


def renamed(draft: Draft, before: str, after: str) -> None:
    """Whoever waits for a guest goes on waiting for it under its new name."""
    for guest in list(draft.guests()):
        if any(each.guest == before for each in guest.policy.boot_after):
            waits = tuple(
                changed(each, guest=after) if each.guest == before else each
                for each in guest.policy.boot_after
            )
            draft.put_guest(changed(guest, policy=changed(guest.policy, boot_after=waits)))


# ---- waiting


def waits_for(draft: Draft, guest: GuestRecord) -> str:
    """Whom a guest that could start waits for, in a sentence with the next command; "" = it may start."""
    found = [
        (other, after)
        for after in guest.policy.boot_after
        if (other := draft.guest_named(after.guest)) is not None and _holds_up(other, after)
    ]
    if not found:
        return ""
    whom = ", ".join(
        f"the checks of {other.name}"
        if other.phase is GuestPhase.RUNNING
        else f"{other.name} ({other.phase})"
        for other, _ in found
    )
    patience_s = draft.config.timers.boot_after_s
    return f"waits for {whom}, at most {patience_s:.0f} s; see dr guest show {found[0][0].name}"


def _holds_up(other: GuestRecord, after: After) -> bool:
    if other.phase is GuestPhase.RUNNING:
        return after.until == "check" and bool(other.policy.checks) and not passed(other)
    # One that nobody wants running will not come: it is not waited for. One in error may be started by a person.
    return other.desired is Desired.RUNNING
