"""How operations end: when every guest of theirs has an outcome, or their host reached its end."""

from __future__ import annotations

from dr.core import checks, fencing, leaving, upkeep
from dr.core.state import Draft, settled
from dr.model.base import GuestId, changed
from dr.model.operations import GUEST_CHECK, Operation
from dr.model.records import Alert, Desired, GuestPhase, HostPhase

MOVES = ("guest-migrate", "guest-relocate", "failback")  # their outcomes are told where the move ends


def close_finished(draft: Draft) -> None:
    """Operations whose every guest has an outcome, or whose host reached its end."""
    for operation in draft.open_operations():
        if operation.kind == "drain":
            upkeep.close_if_over(draft, operation)
        elif operation.kind == "leave":
            leaving.close_if_over(draft, operation)
        elif operation.kind == GUEST_CHECK:
            checks.close_if_over(draft, operation)
        elif operation.guests:
            _close_over_guests(draft, operation)
        elif operation.kind == "fence":
            host = draft.host(operation.subject)
            if host is None or host.phase is not HostPhase.FENCING:
                done = host is not None and host.dead_at >= operation.opened
                reason = host.reason if host else "it was removed"
                draft.close_operation(
                    operation, "done" if done else "failed", f"{operation.subject}: {reason}"
                )


def carry_tests_on(draft: Draft) -> None:
    """Fence tests whose host came back: the next level, before anything is placed on it."""
    for operation in draft.open_operations():
        if operation.kind == "fence-test":
            _carry_test_on(draft, operation)


def _close_over_guests(draft: Draft, operation: Operation) -> None:
    outcomes: dict[GuestId, str] = {}
    unwell: set[GuestId] = set()  # they run, and yet nothing shows that they do their work
    for guest_id, before in operation.guests.items():
        guest = draft.guest(guest_id)
        if guest is None:
            outcomes[guest_id] = before or "no longer protected"
        elif guest.phase is GuestPhase.RUNNING and guest.move is not None:
            return  # waits for its turn to move
        elif guest.phase is GuestPhase.RUNNING and settled(guest) and operation.kind in MOVES and before:
            arrived = before.startswith("running")
            if arrived and checks.awaited(draft, guest):
                return
            outcomes[guest_id] = before + checks.after_move(draft, guest) if arrived else before
        elif guest.phase is GuestPhase.RUNNING and settled(guest):
            if operation.kind not in checks.BROUGHT_UP:
                outcomes[guest_id] = f"running on {guest.holder}"
            elif checks.awaited(draft, guest):
                return
            else:
                outcomes[guest_id] = checks.in_words(draft, guest)
                unwell |= {guest_id} if checks.failing(draft, guest) else set()
        elif guest.phase in (GuestPhase.STOPPED, GuestPhase.ERROR):
            at_rest = f"{guest.phase}: {guest.reason}"
            outcomes[guest_id] = before if before.startswith(("moved", "not moved")) else at_rest
        elif draft.alert_of(f"guest/{guest.id}/waiting") and guest.phase is GuestPhase.RECOVERING:
            outcomes[guest_id] = f"waits: {guest.reason}"
        else:
            return
    by_itself = operation.kind in ("failover", "restart")  # nobody asked for it to run
    excused = {key for key in outcomes if by_itself and _unwanted(draft, key)}
    well = ("running", "moved")
    bad = [
        key
        for key, text in outcomes.items()
        if key in unwell or (not text.startswith(well) and key not in excused)
    ]
    wanted_off = operation.kind == "guest-stop"
    failed = any(not t.startswith("stopped") for t in outcomes.values()) if wanted_off else bool(bad)
    draft.put_operation(changed(operation, guests=outcomes))
    took = draft.now - operation.opened
    run = "run and pass their checks" if unwell else "run"
    text = f"{len(outcomes) - len(bad)} of {len(outcomes)} guests {run}, {took:.1f} s after the decision"
    if operation.kind != "failover":
        text = "; ".join(dict.fromkeys(outcomes.values()))
    draft.close_operation(operation, "failed" if failed else "done", text)
    if operation.kind == "failover":
        lines = [
            f"{guest.name if (guest := draft.guest(key)) else key}: {end}" for key, end in outcomes.items()
        ]
        draft.tell(
            Alert(
                key=f"failover/{operation.id}",
                what=f"failover of {operation.subject}: {text}",
                why=f"{operation.why}; {'; '.join(lines)}",
                todo=f"dr job show {operation.id}" + (f"; repair {operation.subject}" if not failed else ""),
                severity="critical" if failed else "info",
                raised=draft.now,
            )
        )


def _unwanted(draft: Draft, guest_id: GuestId) -> bool:
    """Its owner has it stopped by now: that it does not run is no failure."""
    guest = draft.guest(guest_id)
    return guest is not None and guest.phase is GuestPhase.STOPPED and guest.desired is not Desired.RUNNING


def _carry_test_on(draft: Draft, operation: Operation) -> None:
    """A fence test ends when every level was proven, one after the other."""
    host = draft.host(operation.subject)
    if host is None:
        draft.close_operation(operation, "failed", f"{operation.subject} was removed")
        return
    if host.fencing is not None and host.fencing.test == operation.id:
        if host.phase is HostPhase.FENCED and draft.now - host.dead_at > 20 * draft.config.timers.fence_s:
            draft.put_host(changed(host, fencing=None))
            fencing.fail_test(draft, host, operation.id, "it did not come back after it was switched on")
        return
    if host.phase not in (HostPhase.ONLINE, HostPhase.MAINTENANCE):
        if host.phase is HostPhase.SUSPECT:
            fencing.fail_test(draft, host, operation.id, host.reason)
        return
    levels = draft.policy(host.name).fencing
    for level, devices in enumerate(levels):
        proven = all(
            (identity := draft.identity(host.name, device.name)) and identity.proven_at >= operation.opened
            for device in devices.devices
        )
        if proven:
            continue
        if used := fencing.in_use(draft, host):
            fencing.fail_test(draft, host, operation.id, f"{'; '.join(used)} meanwhile")
        else:
            fencing.condemn(draft, host, f"fence test, level {level + 1}", test=operation.id, level=level)
        return
    names = ", ".join(device.name for level in levels for device in level.devices)
    draft.close_operation(operation, "done", f"{host.name}: proven: {names}")
